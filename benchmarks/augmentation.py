"""Writing synthetic sentences by the rules of Tang et al.: variants per second, and memory as they grow in number.

Compared, on all sentences of SST-2, 20 variants of each, the same rules and probabilities, NLTK's perceptron tagger:

- kd_lightning: ``RuleAugmenter``, which tags on all cores and applies the rules to arrays of whole chunks of sentences;
- plain loop: one sentence after the other, one word after the other, with ``random.Random`` and a set of the texts met.

Both once whole and once without replacement by part of speech (``p_pos=0``), which needs no tags: the difference is the
time of tagging (and of replacing, which is little). What is written is thrown away, no file is made. Checked first, on
some sentences: both see the same words, and mask, replace and shorten equally often, up to chance. The plain loop is
simpler in three ways that cost next to nothing: a space before every replaced word, ``The`` as another word than
``the``, quotation marks shown to the tagger as they stand. No target is set.
Then, in processes of their own, the peak resident memory of writing, libraries and tagger included (processes that tag
besides are not): 1, 5 and 20 variants of all sentences, and 20 of a quarter, a half and all. How far it lies above the
libraries alone stands beside it. Target: at most 1.25 times the peak of one variant, and that of a quarter.

    python benchmarks/augmentation.py
    python benchmarks/augmentation.py --rows 2000

Needs the extra ``augment``, and NLTK's averaged_perceptron_tagger_eng in one of its folders or in ``$NLTK_DATA``.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import os
import random
import statistics
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import measure
import memory
import pyarrow as pa
import pyarrow.parquet as pq
from measure import Sample

from kd_lightning.augmentation import MASKED, RuleAugmenter
from kd_lightning.augmentation.spellings import Spellings
from kd_lightning.augmentation.tagging import load_tagger
from kd_lightning.errors import UserError
from kd_lightning.treebank import word_splitter

TARGET = 1.25
CHECKED = 500
TOLERANCE = 0.05
WITHOUT = ", p_pos=0"
SPLITTER = word_splitter()


class Sentences:
    """The rows of SST-2's training split in the columns that an augmenter takes, read as they are asked for."""

    def __init__(self, data: Path) -> None:
        self.path = data / "sst2" / "train.parquet"
        self.count: int = pq.ParquetFile(self.path).metadata.num_rows

    def batches(self, size: int = 10_000) -> Iterator[pa.RecordBatch]:
        """Yield the rows in order, at most ``size`` at a time."""
        first = 0
        for read in pq.ParquetFile(self.path).iter_batches(size, columns=["sentence"]):
            numbers = pa.array(range(first, first + len(read)), pa.int64())
            none, label = pa.nulls(len(read), pa.string()), pa.nulls(len(read), pa.float32())
            columns = {"example_id": numbers, "row_id": numbers.cast(pa.string()), "text_a": read.column("sentence")}
            yield pa.record_batch({**columns, "text_b": none, "label": label})
            first += len(read)


class PlainLoop:
    """The rules word by word, without arrays and without further processes.

    Args:
        rules: Their probabilities.
    """

    def __init__(self, rules: RuleAugmenter) -> None:
        self.rules, self.random = rules, random.Random(rules.seed)
        self.same_tag: dict[str, tuple[list[str], list[int]]] = {}

    def augment(self, sentences: Sentences) -> Iterator[tuple[int, str]]:
        """Yield the variants of all sentences with the sentences' numbers, no text twice."""
        texts = [words_of(text) for batch in sentences.batches() for text in batch.column("text_a").to_pylist()]
        tags = self.tag(texts) if self.rules.p_pos else [[""] * len(words) for words in texts]
        met = {"".join(words) for words in texts}
        for number, (words, its_tags) in enumerate(zip(texts, tags, strict=True)):
            for _ in range(self.rules.n_iter):
                text = "".join(self.variant(words, its_tags)).removeprefix(" ")
                if text not in met:
                    met.add(text)
                    yield number, text

    def tag(self, texts: list[list[str]]) -> list[list[str]]:
        """Return the tags of all words, and count the words by tag."""
        tagger, counts = load_tagger(), defaultdict[str, Counter[str]](Counter)
        tags = []
        for words in texts:
            bare = [word.removeprefix(" ") for word in words]
            kinds = [f"{tag}{is_punctuation(word)}" for word, (_, tag) in zip(bare, tagger.tag(bare), strict=True)]
            tags.append(kinds)
            for word, kind in zip(bare, kinds, strict=True):
                counts[kind][word] += 1
        for tag, words_with_it in counts.items():
            self.same_tag[tag] = list(words_with_it), list(itertools.accumulate(words_with_it.values()))
        return tags

    def variant(self, words: list[str], tags: list[str]) -> list[str]:
        """Return the words of one variant."""
        changed = [self.changed(word, tag) for word, tag in zip(words, tags, strict=True)]
        if self.random.random() >= self.rules.p_ng:
            return changed
        length = min(self.random.randint(1, self.rules.max_ngram), len(words))
        start = self.random.randint(0, len(words) - length)
        return changed[start : start + length]

    def changed(self, word: str, tag: str) -> str:
        """Return the word, or what stands in its place."""
        drawn = self.random.random()
        if drawn >= self.rules.p_mask + self.rules.p_pos:
            return word
        bare = word.removeprefix(" ")
        if drawn < self.rules.p_mask:
            return word.replace(bare, MASKED)
        other = self.other(bare, tag)
        return word if other == bare else f" {other}" if not is_punctuation(bare) else word.replace(bare, other)

    def other(self, word: str, tag: str) -> str:
        """Return another word of the tag, as often as the texts have it."""
        words, ends = self.same_tag[tag]
        found = word
        while found == word and len(words) > 1:
            found = self.random.choices(words, cum_weights=ends)[0]
        return found


def words_of(text: str) -> list[str]:
    """Return the words of a text, each with the space before it."""
    cut = SPLITTER.pre_tokenize_str(text)
    ends = [0, *(end for _, (_, end) in cut)]
    return [" " * (start > before) + word for before, (word, (start, _)) in zip(ends, cut, strict=False)]


def is_punctuation(word: str) -> bool:
    """Tell whether a word has no letter and no digit."""
    return not any(letter.isalnum() for letter in word)


def habits(written: list[tuple[int, str]], texts: list[list[str]]) -> dict[str, float]:
    """Return what variants of some texts are like on average."""
    found = [(number, words_of(text)) for number, text in written]
    whole = [(texts[number], words) for number, words in found if len(words) == len(texts[number])]
    pairs = [(a.strip(), b.strip()) for one, other in whole for a, b in zip(one, other, strict=True)]
    return {
        "variants of a sentence": len(found) / len(texts),
        "words of a variant": statistics.fmean(len(words) for _, words in found),
        "share of masked words": statistics.fmean(b == MASKED for _, b in pairs),
        "share of replaced words": statistics.fmean(b not in (a, MASKED) for a, b in pairs),
    }


def check(rules: RuleAugmenter, sentences: Sentences) -> None:
    """End the script unless both cut the sentences into the same words, and follow the same rules."""
    columns = [batch.column("text_a") for batch in sentences.batches()]
    texts = [words_of(text) for column in columns for text in column.to_pylist()]
    spellings = Spellings()
    read = [words for column in columns for words in spellings.lists(spellings.read(column))]
    if read != [[word.removeprefix(" ") for word in words] for words in texts]:
        sys.exit("not the same work: the sentences are cut into other words")
    mine = [
        (int(row.partition(".")[0]), text)
        for batch in rules.augment(sentences, "sst2")
        for row, text in zip(batch.column("row_id").to_pylist(), batch.column("text_a").to_pylist(), strict=True)
    ]
    found, expected = habits(mine, texts), habits(list(PlainLoop(rules).augment(sentences)), texts)
    shown = ", ".join(f"{name} {value:.4g} / {expected[name]:.4g}" for name, value in found.items())
    if any(abs(value / expected[name] - 1) > TOLERANCE for name, value in found.items()):
        sys.exit(f"not the same work: {shown} in ours / the plain loop")
    print(f"equal work, {len(texts)} sentences: {shown} in ours / the plain loop")


def compare(rules: RuleAugmenter, sentences: Sentences, rounds: int) -> None:
    """Measure variants per second, whole and without tags."""

    def run(write: Callable[[RuleAugmenter], Iterator[int]], p_pos: float, number: int) -> Sample:
        with measure.timed() as sample:
            sample.work = sum(write(replace(rules, p_pos=p_pos, seed=number)))
        return sample

    writers: dict[str, Callable[[RuleAugmenter], Iterator[int]]] = {
        "kd_lightning": lambda rules: (batch.num_rows for batch in rules.augment(sentences, "sst2")),
        "plain loop": lambda rules: (1 for _ in PlainLoop(rules).augment(sentences)),
    }
    systems = {f"{name}{WITHOUT}": functools.partial(run, write, 0.0) for name, write in writers.items()}
    systems |= {name: functools.partial(run, write, rules.p_pos) for name, write in writers.items()}
    samples = measure.alternate(systems, rounds)
    title = f"{rules.n_iter} variants of {sentences.count:,} sentences"
    measure.show(f"{title}, variants per second", samples, "kd_lightning", unit="variants/s", invert=True)
    print(f"\n### {title}, median seconds\n")
    print("| system | cores | variants | s | of it rules | of it tagging | variants/s | for each core |")
    print("| --- " * 8 + "|")
    for name in writers:
        cores = len(os.sched_getaffinity(0)) if name == "kd_lightning" else 1
        whole, plain = (statistics.median(one.wall for one in samples[name + kind]) for kind in ("", WITHOUT))
        count = statistics.median(one.work for one in samples[name])
        seconds, speed = f"{whole:.2f} | {plain:.2f} | {whole - plain:.2f}", count / whole
        print(f"| {name} | {cores} | {count:,.0f} | {seconds} | {speed:,.0f} | {speed / cores:,.0f} |")
    for kind in ("", WITHOUT):
        times = measure.ratio(samples[f"plain loop{kind}"], samples[f"kd_lightning{kind}"])["median"]
        print(f"\nvariants per second, kd_lightning / plain loop{kind}: **{times:.3g}**")


def write(data: Path, n_iter: int) -> None:
    """Write all variants, and say what memory it took."""
    start = memory.peak()
    variants = sum(batch.num_rows for batch in RuleAugmenter(n_iter=n_iter).augment(Sentences(data), "sst2"))
    print(json.dumps({"libraries": start, "variants": variants, "peak": memory.peak()}), file=sys.stderr)


def footprint(args: argparse.Namespace, data: Path, work: Path) -> None:
    """Measure the peak memory for numbers of variants, and for numbers of sentences."""
    rows = Sentences(data).count
    few = [(rows // part, measure.subset(data, work / f"part{part}", "sst2", train=rows // part)) for part in (4, 2)]
    by_variants = [(rows, data, n_iter) for n_iter in (1, 5, args.n_iter)]
    by_sentences = [(count, folder, args.n_iter) for count, folder in [*few, (rows, data)]]
    print("\n### Peak resident memory of writing, MiB\n")
    print("| sentences | variants of each | written | libraries | peak | above libraries | / smallest |")
    print("| --- " * 7 + "|")
    worst = 0.0
    for cases in (by_variants, by_sentences):
        smallest = 0.0
        for count, folder, n_iter in cases:
            flags = ["--stage", str(folder), "--n-iter", str(n_iter)]
            taken = json.loads(memory.stage([sys.executable, __file__, *flags], args.threads)[2].splitlines()[-1])
            start, peak = taken["libraries"], taken["peak"]
            smallest = smallest or peak
            worst = max(worst, peak / smallest)
            shown = f"{start:.0f} | {peak:.0f} | {peak - start:.0f} | {peak / smallest:.3f}"
            print(f"| {count:,} | {n_iter} | {taken['variants']:,} | {shown} |", flush=True)
    measure.verdict("peak memory of writing / that of the smallest number", worst, TARGET, at_most=True)


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    made = measure.parser(__doc__)
    made.add_argument("--rows", type=int, default=None, help="sentences: the first of SST-2's training split (all)")
    made.add_argument("--n-iter", type=int, default=20, help="variants of each (%(default)s)")
    made.add_argument("--stage", type=Path, help="write the variants of a folder's rows (used by the script itself)")
    return made


def main() -> None:
    args = parser().parse_args()
    if args.stage:
        write(args.stage, args.n_iter)
        return
    root = measure.need_data(args.data, "sst2")
    measure.need_packages("nltk", how="'kd_lightning[augment]'")
    try:
        load_tagger()
    except UserError as error:
        measure.refuse(str(error))
    measure.start(args)
    measure.machine(args.threads, "nltk", "numpy", "pyarrow")
    rules = RuleAugmenter(n_iter=args.n_iter)
    with measure.scratch() as work:
        check(rules, Sentences(measure.subset(root, work / "check", "sst2", train=CHECKED)))
        data = measure.subset(root, work / "data", "sst2", train=args.rows)
        compare(rules, Sentences(data), args.rounds)
        footprint(args, data, work)


if __name__ == "__main__":
    main()
