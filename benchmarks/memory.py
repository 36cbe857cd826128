"""Resident memory of training as the data grows: it must not.

For each number of rows, in processes of their own: made-up SST-2-like rows are written; a second process reads, checks
and tokenises them as a fit does, and writes soft targets for all of them (random logits); then ``kd-train`` trains BAM
on tokens and soft targets for a fixed number of steps (2 layers x 128 from a saved encoder, batch 32, csv logger,
resume checkpoint). Peak resident memory is what the kernel counted for the process (``ru_maxrss``), mapped pages that
were read included. It must be the same work at every size, so the steps are counted in ``metrics.csv``.
Target: the peaks of training, and of reading and tokenising, at most 1.10 times those at the smallest number of rows.

    python benchmarks/memory.py                                  # 10 thousand, 100 thousand, 1 million rows
    python benchmarks/memory.py --rows 10000 50000 --steps 100
    python benchmarks/memory.py --vocabulary                     # the vocabulary is learned in the training process
    python benchmarks/memory.py --distill                        # kd-distill, of which these rows are the first stage

With ``--distill`` the process that is measured is TMKD's ``kd-distill`` (1 layer x 32, three teachers of 63 steps on
2,000 rows): the teachers label the rows, which have no labels, and a student with a head for each learns from them
for a fixed number of steps; then it learns its task.
"""

from __future__ import annotations

import argparse
import csv
import json
import statistics
import sys
import time
from pathlib import Path

import measure

TARGET = 1.10
TASK_ROWS = 2000
"""Of the task of ``--distill``."""


def peak() -> float:
    """Return the peak resident memory of this process so far, in MiB."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["VmHWM"].split()[0]) / 1024


def overrides(work: Path, vocabulary: bool) -> list[str]:
    """Return what ``kd-train`` and the tokenising process have in common."""
    encoder = ["encoder=tiny"] if vocabulary else ["encoder=pretrained", f"encoder.path={work / 'encoder'}"]
    return [*encoder, "task=[sst2]", f"data.root={work / 'data'}", "accelerator=cpu"]


def make(work: Path, rows: int, distill: bool) -> None:
    """Write the rows (and a task's, to distil), and an encoder whose vocabulary is learned from the first of them."""
    import pyarrow.parquet as pq

    from kd_lightning.encoders import NewTransformer

    measure.write_toy(work / "data", train=min(rows, TASK_ROWS) if distill else rows)
    if distill:
        measure.write_toy(work / "more", train=rows)
    first = next(pq.ParquetFile(work / "data" / "sst2" / "train.parquet").iter_batches(10_000))
    spec = NewTransformer(
        **({"hidden_size": 32, "num_layers": 1} if distill else {"hidden_size": 128, "num_layers": 2})
    )
    tokenizer = spec.tokenizer(first.column("sentence").to_pylist())
    spec.build(tokenizer).save(work / "encoder")
    tokenizer.save_pretrained(work / "encoder")


def tokenise(work: Path, vocabulary: bool) -> None:
    """Read and tokenise the rows as a fit does, say what it took, then write soft targets."""
    base = peak()
    fit = measure.fit(measure.config("train", work, *overrides(work, vocabulary)))
    inputs, (task,) = fit.inputs, fit.inputs.tasks
    begun = time.perf_counter()
    assert inputs.training_rows[task.name, "train"]
    read, read_peak = time.perf_counter() - begun, peak()
    table = inputs.tokens(task, "train")
    taken = {"libraries": base, "read": read, "read_peak": read_peak, "tokenise": time.perf_counter() - begun - read}
    print(json.dumps({**taken, "peak": peak(), "tokens": len(table.input_ids)}), file=sys.stderr)
    measure.random_targets(fit, work / "targets")


def training_command(work: Path, steps: int, vocabulary: bool) -> list[str]:
    """Return the command that trains for some steps."""
    return [
        str(Path(sys.executable).parent / "kd-train"), *overrides(work, vocabulary), "system=bam",
        "trainer.max_epochs=1", f"batching.epoch_rows={32 * steps}", f"+soft_targets.sst2={work / 'targets'}",
        "trainer.precision=32-true",
        *(f"paths.{name}={work / name}" for name in ("output", "store", "cache")), f"hydra.run.dir={work / 'run'}",
    ]  # fmt: skip


def distilling_command(work: Path, steps: int) -> list[str]:
    """Return the command that distils twice, first on the rows without labels."""
    return [
        str(Path(sys.executable).parent / "kd-distill"), *overrides(work, vocabulary=False),
        f"teacher.encoder.path={work / 'encoder'}",
        "system=tmkd",
        "teacher.seeds=[1,2,3]", "teacher.ensemble.mean=null", "teacher.trainer.max_epochs=1", "trainer.max_epochs=1",
        "baseline=false", "batching.eval_batch_size=256", "trainer.precision=32-true", "+task@pretrain.task=sst2",
        f"+pretrain.data.unlabelled={work / 'more' / 'sst2' / 'train.parquet'}", "+pretrain.batching.unlabelled=only",
        f"+pretrain.batching.epoch_rows={32 * steps}", "+pretrain.system.gold_weight=0",
        *(f"paths.{name}={work / name}" for name in ("output", "store", "cache")), f"hydra.run.dir={work / 'run'}",
    ]  # fmt: skip


def stage(argv: list[str], threads: int) -> tuple[measure.Sample, float, str]:
    """Run a process to its end; return its times, its peak memory in MiB, and its error output."""
    env = {**measure.environment(threads), "TOKENIZERS_PARALLELISM": "true"}
    sample, code, resident, errors = measure.run_command(argv, env)
    if code:
        sys.exit(f"{' '.join(argv)} ended with {code}:\n{errors}")
    return sample, resident, errors


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    made = measure.parser(__doc__, rounds=1)
    made.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000, 1_000_000], help="numbers of rows")
    made.add_argument("--steps", type=int, default=300, help="steps of training (%(default)s)")
    made.add_argument("--vocabulary", action="store_true", help="learn the vocabulary in the measured process")
    made.add_argument("--distill", action="store_true", help="measure kd-distill, whose first stage has the rows")
    made.add_argument("--stage", choices=("make", "tokenise"), help="run one stage here (used by the script itself)")
    made.add_argument("--work", type=Path, help="folder of the stage")
    return made


def main() -> None:
    args = parser().parse_args()
    if args.stage == "make":
        make(args.work, args.rows[0], args.distill)
    elif args.stage == "tokenise":
        tokenise(args.work, args.vocabulary)
    elif args.distill:
        compare_distilling(args)
    else:
        compare(args)


def compare(args: argparse.Namespace) -> None:
    """Run all stages for each number of rows, and print the table."""
    measure.machine(args.threads)
    training: dict[int, list[float]] = {}
    tables = []
    for rows in args.rows:
        with measure.scratch() as work:
            flags = ["--work", str(work), "--rows", str(rows), *(["--vocabulary"] if args.vocabulary else [])]
            script = [sys.executable, __file__, *flags]
            stage([*script, "--stage", "make"], args.threads)
            _, _, said = stage([*script, "--stage", "tokenise"], args.threads)
            tokenising = json.loads(said.strip().splitlines()[-1])
            disk = sum(path.stat().st_size for path in (work / "cache").rglob("*") if path.is_file()) / 2**20
            for number in range(args.rounds):
                sample, resident, _ = stage(training_command(work, args.steps, args.vocabulary), args.threads)
                training.setdefault(rows, []).append(resident)
                print(f"  {rows:,} rows, round {number + 1}: {resident:.0f} MiB, {sample.wall:.1f} s", file=sys.stderr)
                with (work / "run" / "metrics.csv").open() as file:
                    last = max(int(row["step"]) for row in csv.DictReader(file))
                if last < args.steps - 1:
                    sys.exit(f"not the same work: {last + 1} steps were logged, expected {args.steps}")
            tables.append((rows, disk, tokenising, training[rows], sample))

    smallest = statistics.median(training[args.rows[0]])
    print(f"\n### Peak resident memory, {args.steps} steps of training\n")
    stages = "libraries loaded, MiB | reading, MiB (s) | tokenising, MiB (s) | training, MiB"
    print(f"| rows | cache on disk, MiB | {stages} | / smallest | training, s |")
    print("| --- " * 8 + "|")
    for rows, disk, tokenising, peaks, sample in tables:
        median = statistics.median(peaks)
        print(
            f"| {rows:,} | {disk:.0f} | {tokenising['libraries']:.0f} | {tokenising['read_peak']:.0f} "
            f"({tokenising['read']:.1f}) | {tokenising['peak']:.0f} ({tokenising['tokenise']:.1f}) "
            f"| {median:.0f} | {median / smallest:.3f} | {sample.wall:.1f} |"
        )
    worst = max(statistics.median(peaks) / smallest for peaks in training.values())
    measure.verdict("peak of training, largest / smallest data", worst, TARGET, at_most=True)
    first, *others = (tokenising["peak"] for _, _, tokenising, _, _ in tables)
    measure.verdict(
        "peak of reading and tokenising, largest / smallest data", max([first, *others]) / first, TARGET, at_most=True
    )


def compare_distilling(args: argparse.Namespace) -> None:
    """Distil on each number of rows, and print the table."""
    measure.machine(args.threads)
    taken: dict[int, list[tuple[float, float]]] = {}
    for rows in args.rows:
        for number in range(args.rounds):
            with measure.scratch() as work:
                flags = ["--work", str(work), "--rows", str(rows), "--distill"]
                stage([sys.executable, __file__, *flags, "--stage", "make"], args.threads)
                sample, resident, _ = stage(distilling_command(work, args.steps), args.threads)
                found = json.loads((work / "run" / "summary.json").read_text())["pretrain"]["data"]["sst2"]
                if found["unlabelled"] != rows:
                    sys.exit(f"not the same work: {found}, expected {rows} unlabelled rows")
            taken.setdefault(rows, []).append((resident, sample.wall))
            print(f"  {rows:,} rows, round {number + 1}: {resident:.0f} MiB, {sample.wall:.1f} s", file=sys.stderr)
    peaks = {rows: statistics.median(resident for resident, _ in each) for rows, each in taken.items()}
    smallest = peaks[args.rows[0]]
    print("\n### Peak resident memory, a distillation of two stages\n")
    print("| rows of the first stage | MiB | / smallest | s |")
    print("| --- " * 4 + "|")
    for rows, each in taken.items():
        wall = statistics.median(wall for _, wall in each)
        print(f"| {rows:,} | {peaks[rows]:.0f} | {peaks[rows] / smallest:.3f} | {wall:.1f} |")
    measure.verdict("peak, largest / smallest data", max(peaks.values()) / smallest, TARGET, at_most=True)


if __name__ == "__main__":
    main()
