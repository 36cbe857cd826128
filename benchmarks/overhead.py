"""What a step of kd-train costs over a bare PyTorch loop that does the same.

Compared, in milliseconds per step (from the start of one training step to the start of the next):

- kd-train: Lightning's Trainer as ``kd-train`` builds it (csv logger, resume checkpoint), our system, our data stream,
  which builds each batch when it is needed;
- bare loop: the same model on the same batches in the same order, built beforehand; autocast, loss, backward, clip,
  fused AdamW in two groups (with and without weight decay), LambdaLR. No logging, no dropout seeds, no checkpoint.

Model: a new BERT of 2 layers x 128 with a vocabulary of up to 8000 word pieces, batch 32, SST-2 (or made-up sentences
where there is no data), taught by BAM with stored soft targets (random logits; ``--system teacher`` for gold labels
alone). Checked first: the losses of ten steps agree, with the bare loop's dropout seeded as ours.
The ratio of the medians counts; two that other work on the machine reaches less stand beside it: of each batch's
fastest time over the rounds, and the median over pairs of steps. Target: at most 1.05.

    python benchmarks/overhead.py
    python benchmarks/overhead.py --profile           # where the time of kd-train's step goes
"""

from __future__ import annotations

import argparse
import cProfile
import functools
import itertools
import pstats
import statistics
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import measure
import torch
from measure import Sample
from torch.nn import functional as F

from kd_lightning.apps.fits.fit import Fit
from kd_lightning.apps.fits.trainer import build_trainer
from kd_lightning.apps.settings.config import Config
from kd_lightning.batch import Batch, TaskRows
from kd_lightning.optim import LinearWarmup
from kd_lightning.systems import NLUSystem

TARGET = 1.05
CHECKED = 10


class Watch:
    """When each training step began, by both clocks, and the losses of the first ones."""

    def __init__(self) -> None:
        self.wall: list[float] = []
        self.cpu: list[float] = []
        self.losses: list[torch.Tensor] = []

    def begin(self) -> None:
        """Take the time at the beginning of a step."""
        self.cpu.append(time.process_time())
        self.wall.append(time.perf_counter())

    def end(self, loss: torch.Tensor) -> None:
        """Keep the losses of the first steps."""
        if len(self.losses) < CHECKED:
            self.losses.append(loss.detach())

    def watch(self, system: NLUSystem) -> None:
        """Take the times and losses of a system's training steps."""
        step = system.training_step

        @functools.wraps(step)
        def watched(batch: Batch, batch_idx: int) -> Any:
            self.begin()
            loss: Any = step(batch, batch_idx)
            self.end(loss)
            return loss

        system.training_step = watched  # type: ignore[method-assign]

    def sample(self) -> Sample:
        """Return the median wall time and the mean CPU time of a step; the first ten are left out."""
        wall, cpu = self.wall[CHECKED:], self.cpu[CHECKED:]
        steps = [b - a for a, b in itertools.pairwise(wall)]
        return Sample(statistics.median(steps), (cpu[-1] - cpu[0]) / len(steps), steps=steps)


def run_ours(cfg: Config, fit: Fit, folder: Path, profile: cProfile.Profile | None = None) -> Watch:
    """Train one epoch with our trainer."""
    data = fit.build_data()
    system, watch = fit.build_system(), Watch()
    watch.watch(system)
    trainer = build_trainer(cfg, folder)
    data.trainer = trainer
    with profile or nullcontext():
        trainer.fit(system, datamodule=data)
    return watch


def stream_batches(cfg: Config, fit: Fit, folder: Path) -> list[Batch]:
    """Return the batches that ``run_ours`` trains on, in order."""
    data = fit.build_data()
    data.trainer = build_trainer(cfg, folder)
    return list(data.train_dataloader())


def loss_of(rows: TaskRows, logits: torch.Tensor, gold_weight: float, *, taught: bool) -> torch.Tensor:
    """Return BAM's loss of a batch, or that of its gold labels alone."""
    gold = F.cross_entropy(logits, rows["labels"], reduction="none")
    if not taught:
        return gold.sum()
    soft = -(rows["teacher_logits"].softmax(-1) * logits.log_softmax(-1)).sum(-1)
    return (gold_weight * gold + (1 - gold_weight) * soft).sum()


def run_bare(cfg: Config, fit: Fit, batches: list[Batch], *, seeded: bool = False) -> Watch:
    """Train on the batches with nothing but PyTorch."""
    system, watch = fit.build_system(), Watch()
    encoder: Any = system.encoder
    head = system.heads["sst2"]
    values: dict[str, Any] = cfg["optimizer"]
    parameters = [*encoder.parameters(), *head.parameters()]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": values["weight_decay"]},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    inner = values["optimizer"]
    optimizer = torch.optim.AdamW(groups, lr=values["lr"], betas=tuple(inner["betas"]), eps=inner["eps"], fused=True)
    rate = LinearWarmup(cfg["scheduler"]["warmup"])
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate(step / len(batches)))
    half, taught = cfg["trainer"]["precision"] == "bf16-mixed", bool(fit.soft_targets)
    for number, batch in enumerate(batches):
        watch.begin()
        if seeded:
            torch.manual_seed((cfg["seed"] * 1_000_003 + number) * 1_009)
        with torch.autocast("cpu", torch.bfloat16) if half else nullcontext():
            logits = head(encoder(batch["input_ids"], batch["attention_mask"], batch["token_type_ids"]))
            loss = loss_of(batch["tasks"]["sst2"], logits.float(), number / len(batches), taught=taught)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, cfg["trainer"]["gradient_clip_val"])
        optimizer.step()
        schedule.step()
        watch.end(loss)
    return watch


def settings(args: argparse.Namespace, work: Path, data: Path, steps: int) -> Config:
    """Return kd-train's configuration for one epoch of some steps."""
    return measure.config(
        "train", work, f"system={args.system}", "encoder=tiny", "task=[sst2]", f"data.root={data}", "accelerator=cpu",
        f"trainer.precision={args.precision}", "trainer.max_epochs=1", "trainer.limit_val_batches=0",
        f"batching.batch_size={args.batch}", f"batching.epoch_rows={steps * args.batch}",
    )  # fmt: skip


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    made = measure.parser(__doc__, rounds=10)
    made.add_argument("--steps", type=int, default=200, help="steps of a run (%(default)s)")
    made.add_argument("--rows", type=int, default=20_000, help="rows of the data (%(default)s)")
    made.add_argument("--batch", type=int, default=32, help="rows of a batch (%(default)s)")
    made.add_argument("--system", choices=("bam", "teacher"), default="bam", help="what is trained (%(default)s)")
    made.add_argument("--precision", choices=("32-true", "bf16-mixed"), default="32-true")
    made.add_argument("--toy", action="store_true", help="made-up sentences, even where there is data")
    made.add_argument("--profile", action="store_true", help="profile a run of kd-train instead")
    return made


def main() -> None:
    args = parser().parse_args()
    measure.start(args)
    measure.machine(args.threads)
    with measure.scratch() as work:
        if args.toy or args.data is None or not (args.data / "sst2" / "train.parquet").is_file():
            data = measure.write_toy(work / "data", train=args.rows)
        else:
            data = measure.subset(args.data, work / "data", "sst2", train=args.rows)
        cfg = settings(args, work, data, args.steps)
        fit = measure.fit(cfg)
        if args.system == "bam":
            fit = measure.fit(cfg, {("sst2", "train"): measure.random_targets(fit, work / "targets")})
        if args.profile:
            profile = cProfile.Profile()
            run_ours(cfg, fit, work / "profile", profile)
            for order in ("tottime", "cumulative"):
                pstats.Stats(profile, stream=sys.stdout).sort_stats(order).print_stats(45)
            return

        # Equal work first; the same runs warm everything up, so no timed round is the first.
        short = settings(args, work, data, CHECKED)
        ours = run_ours(short, fit, work / "check").losses
        bare = run_bare(short, fit, stream_batches(short, fit, work / "check"), seeded=True).losses
        measure.same_losses("the bare loop", [x.item() for x in ours], [x.item() for x in bare], 1e-4)

        batches = stream_batches(cfg, fit, work / "batches")
        tokens = statistics.fmean(batch["input_ids"].shape[1] for batch in batches)
        print(
            f"vocabulary {len(fit.inputs.tokenizer)}, {args.steps} steps of {args.batch} rows, mean length {tokens:.1f}"
        )
        samples = measure.alternate(
            {
                "kd-train": lambda number: run_ours(cfg, fit, work / f"run{number}").sample(),
                "bare loop": lambda number: run_bare(cfg, fit, batches).sample(),
            },
            args.rounds,
        )
    title = f"Step of training, {args.system}, {args.precision}, batch {args.batch}"
    measure.show(title, samples, "kd-train", unit="ms", scale=1000)
    fastest, paired = measure.step_ratios(samples["kd-train"], samples["bare loop"])
    print(
        f"\nkd-train / bare loop, each batch's fastest round: {fastest:.3f}; median over pairs of steps: {paired:.3f}"
    )
    medians = measure.ratio(samples["kd-train"], samples["bare loop"])["median"]
    measure.verdict("kd-train / bare loop, medians of the time of a step", medians, TARGET, at_most=True)


if __name__ == "__main__":
    main()
