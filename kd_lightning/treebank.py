"""What a word is: nearly as in the Penn Treebank, which taggers and GloVe have read."""

from __future__ import annotations

import re

from tokenizers import Regex, pre_tokenizers

_APOSTROPHE = "['\u2019]"
_LETTER = r"[\p{L}\p{M}\p{N}_]"
_END = rf"(?!{_LETTER})"

_NOT, _SHORT = rf"n{_APOSTROPHE}t", rf"{_APOSTROPHE}(?:s|re|ve|ll|d|m|t)"
_NEGATION = rf"(?i:{_NOT}){_END}"
_CLITIC = rf"(?i:{_SHORT}){_END}"
_TITLE = r"(?i:mrs?|ms|dr|jr|sr|st|vs)\."
_ABBREVIATION = rf"\p{{L}}(?:\.\p{{L}})+(?:\.|{_END})"

_PART = rf"(?:\p{{N}}+(?:[.,]\p{{N}}+)+|(?:(?!{_NEGATION}){_LETTER})+)"
_NAME = rf"{_APOSTROPHE}(?!(?i:re|ve|ll){_END}){_LETTER}{{2,}}"
_COMPOUND = rf"{_PART}(?:-{_PART}|{_NAME})*"

_TONE = "[\ufe0f\U0001f3fb-\U0001f3ff]"
_SIGNS = rf"\.{{2,}}|-{{2,}}|`{{2}}|'{{2}}|\S{_TONE}*"

WORD = rf"{_NEGATION}|{_CLITIC}|{_TITLE}|{_ABBREVIATION}|{_COMPOUND}|{_SIGNS}"
"""``n't`` and ``'s``; a title; ``e.g.``; letters and digits with hyphens, points of numbers and apostrophes of names
inside; a dash, an ellipsis or a quotation mark of several signs; one other sign, an emoji with its tone.
In Oniguruma's syntax."""

CLITIC = re.compile(f"{_NOT}|{_SHORT}", re.IGNORECASE)
"""A word that is written without a space after another."""


def word_splitter() -> pre_tokenizers.PreTokenizer:
    """Return what cuts texts into words; words never reach over a space, and spaces are no words."""
    return pre_tokenizers.Split(Regex(WORD), "removed", invert=True)
