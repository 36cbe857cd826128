"""The one exception that is the user's to mend: one line, what was found, what was expected, where, what to do."""

from __future__ import annotations


class UserError(Exception):
    """An error that the user can mend; commands print it as one line and leave with exit code 2.

    Args:
        message: One line that says what was found, what was expected, where, and what to do.
    """

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))
