"""The augmenter of Tang et al.: variants of all examples of a split, chunk by chunk, no text twice."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from kd_lightning.augmentation.base import Rows
from kd_lightning.augmentation.draws import Distinct, combined
from kd_lightning.augmentation.replacement import TaggedWords
from kd_lightning.augmentation.rules import change_words, keep_ngrams
from kd_lightning.augmentation.spellings import Spellings, TokenizedTexts, row_hashes, texts_of
from kd_lightning.augmentation.tagging import PosTagger, pos_tagger, tagger_fingerprint
from kd_lightning.fields import is_whole
from kd_lightning.progress import track

VERSION = 4
"""Of the method; raise it when the same settings give other texts."""

CHUNK = 2048
"""Most rows at a time."""

CHUNK_WORDS = 500_000
"""About as many words of variants at a time."""


@dataclass(frozen=True, kw_only=True)
class RuleAugmenter:
    """Write ``n_iter`` variants of each example, by masking, POS-guided replacement and n-gram sampling.

    Of each word one number X, uniform in [0, 1], decides: X < p_mask masks it; p_mask <= X < p_mask + p_pos replaces it
    by another word of the same part of speech, drawn from the words of the training texts in proportion to how often
    they occur with that tag. Then, with probability p_ng, only one n-gram of the text is kept, n uniform in 1 to
    max_ngram (the whole text if it is shorter). Of pairs the variants change, in turn, the first text, the second,
    and both. Variants that stand among the examples are dropped, and of equal variants all but the first.

    Words are as in the Penn Treebank (``treebank.WORD``), punctuation among them; a masked one is written as
    ``MASKED``, punctuation is replaced by punctuation only, and a word that replaces a clitic gets a space before it.
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
        for name, low in (("max_ngram", 1), ("n_iter", 1), ("seed", 0)):
            value = getattr(self, name)
            if not is_whole(value, low):
                raise ValueError(f"{name} is {value}, expected a whole number of at least {low}")
        if self.seed >= 2**63:
            raise ValueError(f"seed is {self.seed}, expected a whole number below {2**63}")

    def fingerprint(self) -> str:
        """Return a hash of the settings, and of the tagger.

        Raises:
            UserError: If words are to be replaced, and NLTK or its data is absent.
        """
        tagger = tagger_fingerprint() if self.p_pos else None
        return hashlib.sha256(json.dumps([VERSION, tagger, asdict(self)], sort_keys=True).encode()).hexdigest()

    def augment(self, rows: Rows, name: str) -> Iterator[pa.RecordBatch]:
        """Yield the synthetic rows; ``row_id`` is that of the example and the variant's number, ``ID.K``."""
        if not rows.count:
            return
        spellings, distinct, words = Spellings(), Distinct(), words_about(rows)
        tags, tagged = self._survey(rows, name, words, spellings, distinct)
        number, read = 0, [0, 0]
        size = max(1, min(CHUNK, CHUNK_WORDS * rows.count // (self.n_iter * max(words, 1))))
        with track(f"augment {name}", rows.count) as advance:
            for batch in rows.batches(size):
                texts = [spellings.read(column) for column in texts_of(batch)]
                of_words = []
                for side, text in enumerate(texts):
                    of_words.append(tags[side][read[side] : read[side] + len(text.numbers)])
                    read[side] += len(text.numbers)
                variants = self.variants(texts, of_words, tagged, spellings, batch.column("example_id").to_numpy())
                new = distinct.first_met(row_hashes(variants))
                for text in variants:
                    new &= text.lengths > 0  # of a text without words there is no variant
                rows_kept, variant = np.divmod(np.flatnonzero(new), self.n_iter)
                columns = [spellings.write(text.where(new)) for text in variants]
                count = len(rows_kept)
                yield pa.record_batch(
                    [
                        pa.array(np.arange(number, number + count)),
                        numbered(batch.column("row_id").take(pa.array(rows_kept)), variant),
                        columns[0],
                        columns[1] if len(columns) > 1 else pa.nulls(count, pa.string()),
                        pa.array(np.full(count, np.nan, np.float32)),
                        pa.nulls(count, batch.schema.field("group").type),
                    ],
                    schema=batch.schema,
                )
                number += count
                advance(batch.num_rows)

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
            keys = combined(self.seed, examples[row], variant, side)
            changed = np.ones(len(row), np.bool_) if len(texts) == 1 else (variant % 3 == side) | (variant % 3 == 2)
            whole = text.where(row)
            kept = keep_ngrams(whole, keys, changed, p_ng=self.p_ng, max_ngram=self.max_ngram)
            rates = {"p_mask": self.p_mask, "p_pos": self.p_pos}
            found.append(change_words(kept, whole.starts, keys, changed, tags[side], tagged, spellings, **rates))
        return found

    def _survey(
        self, rows: Rows, name: str, words: int, spellings: Spellings, distinct: Distinct
    ) -> tuple[list[NDArray[np.uint8]], TaggedWords]:
        """Read all texts once: tag the words of each side, count them by tag, and remember the rows as met.

        Punctuation never has the tag of a word, whatever the tagger finds.
        """
        names: dict[str, int] = {}
        counts: Counter[int] = Counter()
        tags = (bytearray(), bytearray())  # a byte per word: all that grows with the texts, besides the vocabulary
        with self._tagger(words) as tagger, track(f"tag {name}", rows.count) as advance:
            for batch in rows.batches(CHUNK):
                texts = [spellings.read(column) for column in texts_of(batch)]
                distinct.first_met(row_hashes(texts))
                if tagger is not None:
                    for side, text in enumerate(texts):
                        found = [names.setdefault(one, len(names)) for one in tagger(spellings.lists(text))]
                        kinds = 2 * np.array(found, np.int64) + spellings.is_punctuation()[text.numbers]
                        tags[side].extend(kinds.tolist())
                        counts.update((kinds << 32 | text.numbers).tolist())
                advance(batch.num_rows)
        return [np.frombuffer(side, np.uint8) for side in tags], TaggedWords(counts, *spellings.ranks())

    def _tagger(self, words: int) -> AbstractContextManager[PosTagger | None]:
        return pos_tagger(words) if self.p_pos else nullcontext()


def words_about(rows: Rows) -> int:
    """Return about how many words the rows have, guessed from the first of them."""
    first = next(rows.batches(CHUNK))
    words = sum(len(Spellings().read(column).numbers) for column in texts_of(first))
    return words * rows.count // first.num_rows


def numbered(row_ids: pa.Array, variant: NDArray[np.int64]) -> pa.Array:
    """Return ``ID.K`` for each id and variant."""
    return pc.binary_join_element_wise(row_ids, pa.array(variant).cast(pa.string()), ".")
