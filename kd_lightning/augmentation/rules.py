"""The three rules of Tang et al.: masking, POS-guided replacement, n-gram sampling."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kd_lightning.augmentation.draws import Hashes, combined, uniform
from kd_lightning.augmentation.replacement import TaggedWords
from kd_lightning.augmentation.words import Spellings, TokenizedTexts

WORD_RULE, OTHER_WORD, TAKE_NGRAM, NGRAM_LENGTH, NGRAM_START = range(5)
"""What a random number is for."""


@dataclass(frozen=True, kw_only=True)
class Rules:
    """How the variants of an example are made.

    Of each word one number X, uniform in [0, 1], decides: X < p_mask masks it; p_mask <= X < p_mask + p_pos replaces it
    by another word of the same part of speech, drawn from the words of the training texts in proportion to how often
    they occur with that tag. Then, with probability p_ng, only one n-gram of the text is kept, n uniform in 1 to
    max_ngram (the whole text if it is shorter). Of pairs the variants change, in turn, the first text, the second,
    and both.

    Words are as in the Penn Treebank (``treebank.WORD``), punctuation among them; a masked one is written as
    ``MASKED``, punctuation is replaced by punctuation only, and a word that replaces a clitic has a space before it.
    Words that differ in case alone are one word.

    Args:
        p_mask: Probability to mask a word.
        p_pos: Probability to replace a word.
        p_ng: Probability to keep one n-gram only.
        max_ngram: Longest n-gram, in words.
        n_iter: Variants of each example: 20 for SST-2, 10 for MNLI and QQP in the paper.
        seed: The random numbers depend on it and on the example's id alone. What a word is replaced by depends on all
            texts.

    Raises:
        ValueError: If a setting is out of range.

    Source: Tang et al. 2019, arXiv:1903.12136, section 3.3.
    """

    p_mask: float = 0.1
    p_pos: float = 0.1
    p_ng: float = 0.25
    max_ngram: int = 5
    n_iter: int = 20
    seed: int = 1

    def __post_init__(self) -> None:
        """Check the settings."""
        for name in ("p_mask", "p_pos", "p_ng"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}, expected a probability")
            object.__setattr__(self, name, float(getattr(self, name)))  # 0 and 0.0 are one recipe
        if self.p_mask + self.p_pos > 1:
            raise ValueError(
                f"p_mask + p_pos is {self.p_mask + self.p_pos:g}, expected at most 1: a word has one of them"
            )
        if self.p_mask + self.p_pos + self.p_ng == 0:
            raise ValueError("p_mask, p_pos and p_ng are all 0, expected one above it: nothing would change")
        for name in ("max_ngram", "n_iter", "seed"):
            if not isinstance(getattr(self, name), int):
                raise ValueError(f"{name} is {getattr(self, name)}, expected a whole number")
        for name in ("max_ngram", "n_iter"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, expected at least 1")

    def variants(
        self,
        texts: Sequence[TokenizedTexts],
        tags: Sequence[NDArray[np.uint8]],
        tagged: TaggedWords,
        spellings: Spellings,
        examples: NDArray[np.int64],
    ) -> list[TokenizedTexts]:
        """Return the variants of some examples, ``n_iter`` of the first, then of the second, ...

        Args:
            texts: Their texts, side by side of pairs, each ``[N]``.
            tags: The tag of each word of each side; of none where nothing is replaced.
            tagged: The words that take the place of others.
            spellings: What the numbers of words stand for.
            examples: Ids ``[N]``.

        Returns:
            One for each side, ``[N * n_iter]``.
        """
        row = np.repeat(np.arange(len(examples)), self.n_iter)
        variant = np.tile(np.arange(self.n_iter), len(examples))
        found = []
        for side, text in enumerate(texts):
            drawn = combined(self.seed, examples[row], variant, side)
            changed = np.ones(len(row), np.bool_) if len(texts) == 1 else (variant % 3 == side) | (variant % 3 == 2)
            span = self._spans(text, row, drawn, changed)
            places = span.places()
            position = places - np.repeat(text.starts[row], span.lengths)
            keys, open_to_change = np.repeat(drawn, span.lengths), np.repeat(changed, span.lengths)
            rule = np.where(open_to_change, uniform(keys, position, WORD_RULE), 1.0)
            numbers, spaced = text.numbers[places], text.spaced[places]
            replaced = np.flatnonzero((rule >= self.p_mask) & (rule < self.p_mask + self.p_pos))
            if len(replaced):
                own, at, draws = (
                    numbers[replaced],
                    places[replaced],
                    uniform(keys[replaced], position[replaced], OTHER_WORD),
                )
                others = tagged.others(tags[side][at], own, draws)
                before = np.where(position[replaced] > 0, text.numbers[np.maximum(at - 1, 0)], -1)
                spaced[replaced] |= (others != own) & spellings.stand_apart(before, others)
                numbers[replaced] = others
            numbers[rule < self.p_mask] = 0
            starts = np.cumsum(span.lengths) - span.lengths
            found.append(TokenizedTexts(numbers, spaced, starts, span.lengths))
        return found

    def _spans(
        self, text: TokenizedTexts, row: NDArray[np.int64], drawn: Hashes, changed: NDArray[np.bool_]
    ) -> TokenizedTexts:
        """Return the part of each text that is kept: an n-gram of it, or all."""
        whole = text.lengths[row]
        short = changed & (uniform(drawn, TAKE_NGRAM) < self.p_ng)
        length = np.minimum(1 + (uniform(drawn, NGRAM_LENGTH) * self.max_ngram).astype(np.int64), whole)
        start = (uniform(drawn, NGRAM_START) * (whole - length + 1)).astype(np.int64)
        return TokenizedTexts(
            text.numbers, text.spaced, text.starts[row] + np.where(short, start, 0), np.where(short, length, whole)
        )
