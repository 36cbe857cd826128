"""The one exception that is the user's to mend: one line, what was found, what was expected, where, what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """An error that the user can mend; commands print it as one line and leave with exit code 2.

    Args:
        message: One line that says what was found, what was expected, where, and what to do.
    """

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or the name of its type if it has none.

    Example:
        >>> first_line(ValueError("bad" + chr(10) + "worse")), first_line(TimeoutError())
        ('bad', 'TimeoutError')
    """
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return "; did you mean 'x'?" for the known word nearest in spelling, or nothing if none is near.

    Example:
        >>> did_you_mean("Labels", ["text", "label"])
        "; did you mean 'label'?"
    """
    by_lower = {name.strip().lower(): name for name in known}
    near = difflib.get_close_matches(word.strip().lower(), by_lower, n=1)
    return f"; did you mean {by_lower[near[0]]!r}?" if near else ""
