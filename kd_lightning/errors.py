"""The one exception that is the user's to mend: one line, what was found, what was expected, where, what to do."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

SETTING = re.compile(r"(?<![\w./])(?=(?:data|encoder|optimizer|scheduler|batching|trainer|teacher|system)\.[a-z_]+\b)")
"""Where a setting of a fit is named in a message."""


class UserError(Exception):
    """An error that the user can mend; commands print it as one line and leave with exit code 2.

    Args:
        message: One line that says what was found, what was expected, where, and what to do.
    """

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))


class Terminated(KeyboardInterrupt):
    """SIGTERM has ended what ran, as Ctrl-C would have."""


@contextmanager
def told_in(where: str) -> Iterator[None]:
    """Put a place in front of what is wrong within the block, and in front of the settings that are named there.

    Args:
        where: Part of the configuration.
    """
    try:
        yield
    except UserError as error:
        raise UserError(f"{where}: {SETTING.sub(f'{where}.', str(error))}") from error


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, with the next if it is a heading, or the name of its type.

    Example:
        >>> first_line(ValueError("bad" + chr(10) + "worse")), first_line(TimeoutError())
        ('bad', 'TimeoutError')
        >>> first_line(RuntimeError("Errors in loading:" + chr(10) + "  no 'weight'" + chr(10) + "  no 'bias'"))
        "Errors in loading: no 'weight'"
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return " ".join(lines[: 2 if lines[0].endswith(":") else 1])


def to_install(extra: str) -> str:
    """Say how the packages of an extra are installed.

    Example:
        >>> to_install("plots")
        "in the checkout, pip install -e '.[plots]' -c constraints.txt"
    """
    return f"in the checkout, pip install -e '.[{extra}]' -c constraints.txt"


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return "; did you mean 'x'?" for the known word nearest in spelling, or nothing if none is near.

    Example:
        >>> did_you_mean("Labels", ["text", "label"])
        "; did you mean 'label'?"
    """
    by_lower = {name.strip().lower(): name for name in known}
    near = difflib.get_close_matches(word.strip().lower(), by_lower, n=1)
    return f"; did you mean {by_lower[near[0]]!r}?" if near else ""
