"""Variants of all examples of a split, chunk by chunk, no text twice."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from kd_lightning.augmentation.base import Rows
from kd_lightning.augmentation.draws import Distinct
from kd_lightning.augmentation.replacement import TaggedWords
from kd_lightning.augmentation.rules import Rules
from kd_lightning.augmentation.tagging import PosTagger, pos_tagger, tagger_fingerprint
from kd_lightning.augmentation.words import Spellings, row_hashes, texts_of
from kd_lightning.progress import track

VERSION = 4
"""Of the method; raise it when the same settings give other texts."""

CHUNK = 2048
"""Most rows at a time."""

CHUNK_WORDS = 500_000
"""About as many words of variants at a time."""


@dataclass(frozen=True, kw_only=True)
class RuleAugmenter(Rules):
    """Write ``n_iter`` variants of each example by the rules; see ``Rules`` for them and for the settings.

    Variants that stand among the examples are dropped, and of equal variants all but the first.
    """

    def fingerprint(self) -> str:
        """Return a hash of the settings, and of the tagger.

        Raises:
            UserError: If words are to be replaced, and NLTK or its data is absent.
        """
        tagger = tagger_fingerprint() if self.p_pos else None
        return hashlib.sha256(json.dumps([VERSION, tagger, asdict(self)], sort_keys=True).encode()).hexdigest()

    def augment(self, rows: Rows, name: str) -> Iterator[pa.RecordBatch]:
        """Yield the synthetic rows; ``row_id`` is that of the example and the variant's number, ``ID.K``."""
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
                    ],
                    schema=batch.schema,
                )
                number += count
                advance(batch.num_rows)

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
