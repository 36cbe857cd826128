"""What a word is: nearly as in the Penn Treebank, which taggers and GloVe have read."""

from __future__ import annotations

_APOSTROPHE = "['\u2019]"

NEGATION = rf"(?i:n{_APOSTROPHE}t\b)"
"""A word of its own, cut off the verb before it: ``do`` and ``n't``."""

_LETTERS = r"[\p{L}\p{M}\p{N}_]"
_PART = rf"(?:\p{{N}}+(?:[.,]\p{{N}}+)+|{_LETTERS}+)"

WORD = rf"{NEGATION}|(?i:{_APOSTROPHE}(?:s|re|ve|ll|d|m)\b)|\p{{L}}(?:\.\p{{L}})+\b|{_PART}(?:-{_PART})*|\S"
"""A clitic, an abbreviation (``e.g``), letters and digits with hyphens and numbers' points inside, or one other sign.

Regular expressions that RE2 (PyArrow) and Oniguruma (``tokenizers``) read alike; neither has the other's lookaround.
"""

AFTER_LETTER = rf"({_LETTERS})({NEGATION})"
"""Where ``n't`` is to be cut off."""
