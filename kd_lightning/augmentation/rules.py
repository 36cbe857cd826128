"""The three rules of Tang et al. on arrays of words: n-gram sampling, masking, replacement by part of speech."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kd_lightning.augmentation.draws import Hashes, uniform
from kd_lightning.augmentation.replacement import TaggedWords
from kd_lightning.augmentation.spellings import Spellings, TokenizedTexts

WORD_RULE, OTHER_WORD, TAKE_NGRAM, NGRAM_LENGTH, NGRAM_START = range(5)
"""What a random number is for."""


def keep_ngrams(
    texts: TokenizedTexts, keys: Hashes, changed: NDArray[np.bool_], *, p_ng: float, max_ngram: int
) -> TokenizedTexts:
    """Return the part of each text that is kept: with probability ``p_ng`` an n-gram of it, else all.

    Args:
        texts: ``[N]``.
        keys: What their random numbers depend on, ``[N]``.
        changed: Which of them are open to change, ``[N]``.
        p_ng: Probability to keep one n-gram only.
        max_ngram: n is uniform in 1 to this; a shorter text is kept whole.
    """
    whole = texts.lengths
    short = changed & (uniform(keys, TAKE_NGRAM) < p_ng)
    length = np.minimum(1 + (uniform(keys, NGRAM_LENGTH) * max_ngram).astype(np.int64), whole)
    start = (uniform(keys, NGRAM_START) * (whole - length + 1)).astype(np.int64)
    starts = texts.starts + np.where(short, start, 0)
    return TokenizedTexts(texts.numbers, texts.spaced, starts, np.where(short, length, whole))


def change_words(
    texts: TokenizedTexts,
    origins: NDArray[np.int64],
    keys: Hashes,
    changed: NDArray[np.bool_],
    tags: NDArray[np.uint8],
    tagged: TaggedWords,
    spellings: Spellings,
    *,
    p_mask: float,
    p_pos: float,
) -> TokenizedTexts:
    """Return the texts with some words masked and some replaced by others of the same part of speech.

    Args:
        texts: ``[N]``.
        origins: Where the whole texts begin that they are a part of, ``[N]``: a word keeps its random number.
        keys: What their random numbers depend on, ``[N]``.
        changed: Which of them are open to change, ``[N]``.
        tags: The tag of each word of the arrays; of none where nothing is replaced.
        tagged: The words that take the place of others.
        spellings: What the numbers of words stand for.
        p_mask: Probability to mask a word: X < p_mask of its X in [0, 1).
        p_pos: Probability to replace a word: p_mask <= X < p_mask + p_pos.
    """
    places = texts.places()
    position = places - np.repeat(origins, texts.lengths)
    keys = np.repeat(keys, texts.lengths)
    rule = np.where(np.repeat(changed, texts.lengths), uniform(keys, position, WORD_RULE), 1.0)
    numbers, spaced = texts.numbers[places], texts.spaced[places]
    replaced = np.flatnonzero((rule >= p_mask) & (rule < p_mask + p_pos))
    if len(replaced):
        own, at = numbers[replaced], places[replaced]
        others = tagged.others(tags[at], own, uniform(keys[replaced], position[replaced], OTHER_WORD))
        before = np.where(position[replaced] > 0, texts.numbers[np.maximum(at - 1, 0)], -1)
        spaced[replaced] |= (others != own) & spellings.stand_apart(before, others)
        numbers[replaced] = others
    numbers[rule < p_mask] = 0
    return TokenizedTexts(numbers, spaced, np.cumsum(texts.lengths) - texts.lengths, texts.lengths)
