"""What compiling brings: milliseconds of a training step and of a labelled batch, and what must be compiled first.

Compared: a fit's system as it is, the same with ``compile=true``, and one that fills its batches up as for compiling,
but compiles nothing: its price is that of padding. Batches are those that kd-train takes, of 32 rows, tasks SST-2
(short) and RTE (long); losses and logits are compared first. One step is forward, backward, clip and AdamW. What is
compiled is compiled before the rounds begin, and told in seconds; the cache that PyTorch keeps on disk is a new one.

    python benchmarks/compiled.py --encoder minilm --task rte
"""

from __future__ import annotations

import argparse
import itertools
import os
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import measure
import torch
from measure import Sample
from torch.nn import functional as F

from kd_lightning.apps.fits.trainer import build_trainer
from kd_lightning.batch import Batch
from kd_lightning.systems import NLUSystem

ENCODERS = {"minilm": ["encoder=minilm"], "tiny": ["encoder=tiny"]}
TARGET = 1.0


class Model:
    """A fit's system with what it is trained with."""

    def __init__(self, name: str, cfg: dict[str, Any], precision: str) -> None:
        self.name, self.half = name, precision == "bf16-mixed"
        cfg = {**cfg, "trainer": {**cfg["trainer"], "compile": name != "as it is"}}
        self.system: NLUSystem = measure.fit(cfg).build_system()
        if name == "filled up":
            self.reading, self.system.compiled = self.system.compiled, None
        self.parameters = list(self.system.parameters())
        self.optimizer = torch.optim.AdamW(self.parameters, lr=1e-6, fused=True)

    def loss(self, batch: Batch) -> torch.Tensor:
        """Return the loss of a batch."""
        ((task, rows),) = batch["tasks"].items()
        with torch.autocast("cpu", torch.bfloat16, enabled=self.half):
            hidden: Any = self.system.encode(self.filled(batch))
        return F.cross_entropy(self.system.logits(task, hidden, rows["rows"]), rows["labels"])

    def filled(self, batch: Batch) -> Batch:
        """Return the batch, filled up where only that is measured."""
        if self.name != "filled up" or self.reading is None:
            return batch
        inputs = (batch["input_ids"], batch["attention_mask"], batch["token_type_ids"])
        ids, mask, types = self.reading.filled(*inputs, self.reading.rows)
        return {**batch, "input_ids": ids, "attention_mask": mask, "token_type_ids": types}

    def train(self, batch: Batch) -> float:
        """Take a training step; return the loss before it."""
        self.system.train()
        self.optimizer.zero_grad()
        loss = self.loss(batch)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()
        return loss.item()

    def label(self, batch: Batch) -> float:
        """Read a batch without gradients."""
        self.system.eval()
        with torch.inference_mode():
            return self.loss(batch).item()


def prepare(model: Model, work: dict[str, list[Batch]]) -> list[float]:
    """Compile what is to be compiled, and say how long it took; return the losses of the first batches."""
    begun, losses = time.perf_counter(), []
    for what, batches in work.items():
        lengths = {batch["input_ids"].shape[1] for batch in batches}
        losses += [getattr(model, what)(batch) for batch in batches]
        seconds = time.perf_counter() - begun
        print(f"{model.name}, {what}: {len(lengths)} lengths, the first pass took {seconds:.1f} s")
        begun = time.perf_counter()
    return losses


def run(models: dict[str, Model], name: str, what: str, batches: list[Batch], number: int) -> Sample:
    """Return the times of one pass over the batches."""
    step: Callable[[Batch], float] = getattr(models[name], what)
    with measure.timed() as sample:
        for batch in batches:
            step(batch)
    sample.work = len(batches)
    return sample


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    made = measure.parser(__doc__, rounds=7)
    made.add_argument("--encoder", choices=tuple(ENCODERS), default="minilm", help="what is trained (%(default)s)")
    made.add_argument("--task", choices=("sst2", "rte"), default="rte", help="what it is trained on (%(default)s)")
    made.add_argument("--precision", choices=("32-true", "bf16-mixed"), default="32-true")
    made.add_argument("--batches", type=int, default=12, help="batches of a pass (%(default)s)")
    return made


def main() -> None:
    args = parser().parse_args()
    root = measure.need_data(args.data, args.task)
    measure.start(args)
    measure.machine(args.threads)
    names = ("as it is", "compile=true", "filled up")
    with measure.scratch() as work:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(work / "inductor")
        cfg = measure.config(
            "train", work, *ENCODERS[args.encoder], f"task=[{args.task}]", f"data.root={root}", "accelerator=cpu",
            "encoder.dropout=0", "system.head.dropout=0", f"trainer.precision={args.precision}",
            "batching.eval_batch_size=32",
        )  # fmt: skip
        data = measure.fit(cfg).build_data()
        data.trainer = build_trainer(cfg, work)
        batches = list(itertools.islice(iter(data.train_dataloader()), args.batches))
        models = {name: Model(name, cfg, args.precision) for name in names}
        tasks = {"train": batches, "label": batches}
        losses = {name: prepare(model, tasks) for name, model in models.items()}
        for name in names[1:]:
            measure.same_losses(name, losses[names[0]], losses[name], 1e-3 if "32" in args.precision else 3e-2)
        for what, title in (("train", "A training step"), ("label", "A batch that is labelled")):
            systems = {name: partial(run, models, name, what, batches) for name in names}
            samples = measure.alternate(systems, args.rounds)
            kind = f"{args.encoder}, {args.task}, {args.precision}"
            measure.show(f"{title}, {kind}", samples, "compile=true", unit="ms", scale=1000)
            found = measure.ratio(samples[names[0]], samples[names[1]])["median"]
            measure.verdict(f"as it is / compiled, {what}", found, TARGET, at_most=False)


if __name__ == "__main__":
    main()
