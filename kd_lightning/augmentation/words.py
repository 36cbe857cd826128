"""Texts as numbers of words, and back."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from kd_lightning.augmentation.draws import Hashes, combined, mixed
from kd_lightning.treebank import AFTER_LETTER, WORD

MASKED = "\ufdd0"
"""Stands for a masked word in a text: a character that Unicode keeps free. Each model reads its own token for it."""

BLANK = r"[\s\pZ\x00-\x1f\x7f\x85]+"
CUT, GLUE = "\x1f", "\x1e"
SPACED_WORD = rf"([ {GLUE}]?)({WORD})"


def texts_of(batch: pa.RecordBatch) -> list[pa.Array]:
    """Return the columns of text of some rows: one, or two of pairs."""
    columns = [batch.column("text_a"), batch.column("text_b")]
    return columns if columns[1].null_count == 0 else columns[:1]


@dataclass(frozen=True)
class TokenizedTexts:
    """Texts as flat arrays; text i has the words ``starts[i]`` to ``starts[i] + lengths[i]``.

    Args:
        numbers: Each word's number in its ``Spellings``, ``[W]``.
        spaced: Whether a space stands before the word, ``[W]``.
        starts: Where each text begins, ``[N]``.
        lengths: Each text's number of words, ``[N]``.
    """

    numbers: NDArray[np.int32]
    spaced: NDArray[np.bool_]
    starts: NDArray[np.int64]
    lengths: NDArray[np.int64]

    def places(self) -> NDArray[np.int64]:
        """Return where the words of the texts stand in the arrays, text after text."""
        before = np.cumsum(self.lengths) - self.lengths
        return np.repeat(self.starts - before, self.lengths) + np.arange(int(self.lengths.sum()))

    def hashes(self) -> Hashes:
        """Return a hash of each text, ``[N]``."""
        places = self.places()
        before = np.cumsum(self.lengths) - self.lengths
        position = np.arange(len(places)) - np.repeat(before, self.lengths)
        spaced = self.spaced[places] & (position > 0)
        words = combined(position, 2 * self.numbers[places].astype(np.int64) + spaced)
        sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(words, dtype=np.uint64)])
        return mixed(sums[before + self.lengths] - sums[before])


class Spellings:
    """The words met so far, numbered in the order in which they were met; 0 is the masked word."""

    def __init__(self) -> None:
        self._numbers, self._signs = {MASKED: 0}, bytearray([1])
        self._spelled: pa.Array = pa.array([], pa.string())  # of word n: 2n without, 2n + 1 with a space before it

    def read(self, texts: pa.Array) -> TokenizedTexts:
        """Return the words of texts, strings ``[N]``; spaces between words count as one."""
        even = pc.utf8_trim(pc.replace_substring_regex(texts, BLANK, " "), " ")
        apart = pc.replace_substring_regex(even, AFTER_LETTER, rf"\1{GLUE}\2")
        lists = pc.split_pattern(pc.replace_substring_regex(apart, SPACED_WORD, rf"{CUT}\1\2"), CUT)
        flat = lists.values.dictionary_encode()  # each list begins with what stands before its first cut: nothing
        found = [self._number(piece) for piece in flat.dictionary.to_pylist()]
        codes = np.array(found, np.int64)[flat.indices.to_numpy()]
        ends = lists.offsets.to_numpy().astype(np.int64)[1:] - np.arange(1, len(texts) + 1)
        codes = codes[codes >= 0]
        starts = np.concatenate([[0], ends[:-1]]).astype(np.int64)
        return TokenizedTexts((codes // 2).astype(np.int32), codes % 2 == 1, starts, ends - starts)

    def _number(self, piece: str) -> int:
        word = piece.lstrip(f" {GLUE}")
        if not word:
            return -1
        if word not in self._numbers:
            self._numbers[word] = len(self._numbers)
            self._signs.append(not any(letter.isalnum() for letter in word))
        return 2 * self._numbers[word] + piece.startswith(" ")

    def write(self, words: TokenizedTexts) -> pa.Array:
        """Return the texts, strings ``[N]``; none begins with a space."""
        places = words.places()
        ends = np.concatenate([[0], np.cumsum(words.lengths)])
        spaced = words.spaced[places]
        spaced[ends[:-1][words.lengths > 0]] = False
        lists = pa.ListArray.from_arrays(
            pa.array(ends, pa.int32()), self._all().take(pa.array(2 * words.numbers[places].astype(np.int64) + spaced))
        )
        return pc.binary_join(lists, "")

    def lists(self, words: TokenizedTexts) -> list[list[str]]:
        """Return the words of each text, for a tagger."""
        flat = self._all().take(pa.array(2 * words.numbers[words.places()].astype(np.int64)))
        ends = pa.array(np.concatenate([[0], np.cumsum(words.lengths)]), pa.int32())
        found: list[list[str]] = pa.ListArray.from_arrays(ends, flat).to_pylist()
        return found

    def signs(self) -> NDArray[np.bool_]:
        """Return whether each word is a sign, without a letter or a digit ``[V]``."""
        return np.array(self._signs, np.bool_)

    def ranks(self) -> NDArray[np.int64]:
        """Return the alphabetical place of each word ``[V]``, which does not depend on where words were met."""
        words = list(self._numbers)
        found = np.empty(len(words), np.int64)
        found[sorted(range(len(words)), key=words.__getitem__)] = np.arange(len(words))
        return found

    def _all(self) -> pa.Array:
        if len(self._spelled) < 2 * len(self._numbers):
            self._spelled = pa.array([spelled for word in self._numbers for spelled in (word, f" {word}")], pa.string())
        return self._spelled
