"""How much of what a model computes is padding, and whether the tasks are drawn by the law.

Compared: the default batches of our stream (batch 32, length-sorted windows of 64 batches, tasks by ``size ** 0.75``)
and plain shuffled batches of the same stream (window 1), on RTE + MRPC + STS-B + CoLA + SST-2 in MiniLM's tokens; one
epoch per seed. Both are built as for training, so the milliseconds per batch are those of collation. Counted in the
batches: padded tokens / all tokens, and how often each task came, with the chi-squared statistic against the law. The
stream draws windows to the row, so its statistic lies far below that of independent draws.
Targets: waste below 5 %, and the law not rejected (p > 0.01).

    python benchmarks/padding.py
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterable
from functools import partial

import measure
import numpy as np
from measure import Sample
from scipy.stats import chisquare

from kd_lightning.apps.fits.build import build
from kd_lightning.batch import Batch
from kd_lightning.data.batches.train_stream import TrainStream

TASKS = ("rte", "mrpc", "stsb", "cola", "sst2")
TARGET = 0.05


class Count:
    """Tokens, padding and rows per task of some batches."""

    def __init__(self) -> None:
        self.computed = self.real = self.batches = 0
        self.rows: Counter[str] = Counter()

    def add(self, batches: Iterable[Batch]) -> None:
        """Count the batches."""
        for batch in batches:
            self.computed += batch["attention_mask"].numel()
            self.real += int(batch["attention_mask"].sum())
            self.batches += 1
            self.rows.update({name: len(rows["rows"]) for name, rows in batch["tasks"].items()})

    @property
    def waste(self) -> float:
        """Return padded tokens / computed tokens."""
        return 1 - self.real / self.computed


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    made = measure.parser(__doc__)
    made.add_argument("--batch", type=int, default=32, help="rows of a batch (%(default)s)")
    made.add_argument("--batches", type=int, default=None, help="batches of an epoch (all)")
    return made


def main() -> None:
    args = parser().parse_args()
    root = measure.need_data(args.data, *TASKS)
    measure.start(args)
    measure.machine(args.threads)
    with measure.scratch() as work:
        cfg = measure.config(
            "train", work, "encoder=minilm", f"task=[{','.join(TASKS)}]", f"data.root={root}",
            "task_sampler=size_power", f"batching.batch_size={args.batch}",
        )  # fmt: skip
        data = measure.fit(cfg).build_data()
    counts: dict[str, Count] = {}

    def run(name: str, window: int, seed: int) -> Sample:
        stream = TrainStream(
            data.train,
            task_sampler=build(cfg["task_sampler"], "task_sampler"),
            batch_size=args.batch,
            pad_id=data.pad_id,
            window=window,
            epoch_rows=args.batches and args.batches * args.batch,
            seed=seed,
        )
        with measure.timed() as sample:
            counts.setdefault(name, Count()).add(stream)
        sample.work = len(stream)
        sizes.update(stream.sizes)
        return sample

    sizes: dict[str, int] = {}
    windows = {f"windows of {cfg['batching']['window']}": cfg["batching"]["window"], "shuffled (window 1)": 1}
    ours = next(iter(windows))
    samples = measure.alternate({name: partial(run, name, window) for name, window in windows.items()}, args.rounds)
    measure.show(f"Building a batch of {args.batch}", samples, ours, unit="ms", scale=1000)

    print("\n### Padding\n\n| batches | padded / computed tokens | computed / real tokens | / ours |")
    print("| --- | --- | --- | --- |")
    for name, count in counts.items():
        work_done = count.computed / count.real
        relative = work_done / (counts[ours].computed / counts[ours].real)
        print(f"| {name} | {100 * count.waste:.2f} % | {work_done:.3f} | {relative:.3f} |")

    drawn = counts[ours].rows
    law = np.array(list(sizes.values()), dtype=float) ** cfg["task_sampler"]["exponent"]
    expected = law / law.sum() * sum(drawn.values())
    print(f"\n### Tasks drawn, {args.rounds} epochs\n\n| task | rows | drawn | by the law |\n| --- | --- | --- | --- |")
    for (name, size), due in zip(sizes.items(), expected, strict=True):
        print(f"| {name} | {size:,} | {drawn[name]:,} | {due:,.1f} |")
    statistic, p = chisquare([drawn[name] for name in sizes], expected)
    print(f"\nchi-squared {statistic:.3g} with {len(sizes) - 1} degrees of freedom, p = {p:.3g}")
    measure.verdict("padding waste", counts[ours].waste, TARGET, at_most=True)
    measure.verdict("p of the law", float(p), 0.01, at_most=False)


if __name__ == "__main__":
    main()
