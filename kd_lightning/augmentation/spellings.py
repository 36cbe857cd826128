"""Texts as numbers of words, and back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from kd_lightning.augmentation.draws import Hashes, combined, mixed
from kd_lightning.treebank import CLITIC, word_splitter

MASKED = "\ufdd0"
"""Stands for a masked word in a text: a character that Unicode keeps free. Each model reads its own token for it."""

BLANK = r"[\s\pZ\x00-\x1f\x7f\x85]+"


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

    def where(self, which: NDArray[np.bool_] | NDArray[np.int64]) -> TokenizedTexts:
        """Return the texts that are marked ``[N]``, or those of some numbers."""
        return TokenizedTexts(self.numbers, self.spaced, self.starts[which], self.lengths[which])

    def hashes(self) -> Hashes:
        """Return a hash of each text, ``[N]``."""
        places = self.places()
        before = np.cumsum(self.lengths) - self.lengths
        position = np.arange(len(places)) - np.repeat(before, self.lengths)
        spaced = self.spaced[places] & (position > 0)
        words = combined(position, 2 * self.numbers[places].astype(np.int64) + spaced)
        sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(words, dtype=np.uint64)])
        return mixed(sums[before + self.lengths] - sums[before])


def row_hashes(texts: Sequence[TokenizedTexts]) -> Hashes:
    """Return a hash of each row of one or two texts, ``[N]``."""
    return combined(*(text.hashes() for text in texts))


class Spellings:
    """The words met so far, numbered in the order in which they were met; 0 is the masked word."""

    def __init__(self) -> None:
        self._splitter = word_splitter()
        self._numbers, self._is_punctuation, self._is_clitic = {MASKED: 0}, bytearray([1]), bytearray([0])
        self._words_between: dict[str, list[int]] = {}  # what stands between two spaces -> its words' numbers
        self._spelled: pa.Array = pa.array([], pa.string())  # of word n: 2n without, 2n + 1 with a space before it

    def read(self, texts: pa.Array) -> TokenizedTexts:
        """Return the words of texts, strings ``[N]``; spaces between words count as one."""
        even = pc.utf8_trim(pc.replace_substring_regex(texts, BLANK, " "), " ")
        lists = pc.split_pattern(even, " ")
        flat = lists.values.dictionary_encode()
        each = [self._between_spaces(piece) for piece in flat.dictionary.to_pylist()]
        words = np.array([word for words in each for word in words], np.int32)
        counts, pieces = np.array([len(words) for words in each], np.int64), flat.indices.to_numpy()
        first, count = (np.cumsum(counts) - counts)[pieces], counts[pieces]
        ends = np.cumsum(count)
        starts = ends - count
        numbers = words[np.repeat(first - starts, count) + np.arange(count.sum())]
        cuts = np.concatenate([[0], ends])[lists.offsets.to_numpy()]
        spaced = np.zeros(len(numbers) + 1, np.bool_)
        spaced[starts] = True
        spaced[cuts[:-1]] = False  # the first word of a text
        return TokenizedTexts(numbers, spaced[:-1], cuts[:-1], np.diff(cuts))

    def _between_spaces(self, piece: str) -> list[int]:
        if piece not in self._words_between:
            words = [word for word, _ in self._splitter.pre_tokenize_str(piece)]
            self._words_between[piece] = [self._number(word) for word in words]
        return self._words_between[piece]

    def _number(self, word: str) -> int:
        if word not in self._numbers:
            self._numbers[word] = len(self._numbers)
            self._is_punctuation.append(not any(letter.isalnum() for letter in word))
            self._is_clitic.append(CLITIC.fullmatch(word) is not None)
        return self._numbers[word]

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

    def is_punctuation(self) -> NDArray[np.bool_]:
        """Return whether each word is punctuation or another symbol, without a letter or a digit ``[V]``."""
        return np.array(self._is_punctuation, np.bool_)

    def stand_apart(self, before: NDArray[np.int32], words: NDArray[np.int32]) -> NDArray[np.bool_]:
        """Return whether a space belongs between words ``[n]`` and those before them (-1 for none) ``[n]``.

        None beside punctuation, before a clitic, and at the beginning: the word that takes the place of ``n't`` does
        not stick to the word before it.
        """
        is_punctuation = self.is_punctuation()
        loose = is_punctuation | np.array(self._is_clitic, np.bool_)
        return (before >= 0) & ~is_punctuation[before] & ~loose[words]

    def ranks(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the place of each word in the alphabet, and a number that words of another case share, each ``[V]``.

        Neither depends on where words were met. Words that differ in case alone, or in the kind of apostrophe, stand
        next to each other.
        """
        plain = [word.casefold().replace("\u2019", "'") for word in self._numbers]
        words = list(self._numbers)
        ranks = np.empty(len(words), np.int64)
        ranks[sorted(range(len(words)), key=lambda i: (plain[i], words[i]))] = np.arange(len(words))
        numbers = {word: number for number, word in enumerate(sorted(set(plain)))}
        return ranks, np.array([numbers[word] for word in plain], np.int64)

    def _all(self) -> pa.Array:
        known = len(self._spelled) // 2
        if known < len(self._numbers):
            new = islice(self._numbers, known, None)
            spelled = pa.array([spelled for word in new for spelled in (word, f" {word}")], pa.string())
            self._spelled = pa.concat_arrays([self._spelled, spelled])
        return self._spelled
