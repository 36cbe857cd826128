"""Fine-tuning a teacher: real (non-padding) tokens per second, against Hugging Face's Trainer.

Compared, on the same MiniLM weights, head weights, rows, batch size (32), AdamW (fused, same groups), learning rates,
clip and precision, no evaluation, no checkpoints, losses logged every 50 steps by both:

- kd-train: Lightning's Trainer as ``kd-train`` builds it, our system, our data stream (length-sorted windows);
- HF Trainer: its defaults for the rest: shuffled batches, ``DataCollatorWithPadding``, no loader processes. Its rows
  are tokenised beforehand, as ours are.

Timed is ``fit`` / ``train``; each round has its own order of the data. Checked first: the losses of ten steps on the
same batches, without dropout, agree.
Targets: at the same precision, 2.0 times the tokens per second on SST-2, 1.5 times on RTE.

    python benchmarks/finetune.py --task sst2 --steps 32              # fp32 and bf16
    python benchmarks/finetune.py --task rte --steps 12 --precision bf16-mixed
    python benchmarks/finetune.py --quality --task sst2 --rows 4000   # validation scores instead, seed by seed

``--quality`` trains both from each seed at each precision. "No worse" means: by the seeds' differences, the
one-sided 95 % bound on kd-train's mean deficit is within ``--margin`` points. "Within seed noise" means: the mean
difference of bf16 and float32 is no larger than the standard deviation of float32's own scores over the seeds.

Needs accelerate (benchmarks/requirements.txt).
"""

from __future__ import annotations

import argparse
import itertools
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import measure
import torch
from datasets import Dataset, disable_progress_bars
from measure import Sample
from torch import Tensor, nn
from transformers import (
    AutoModelForSequenceClassification,
    DataCollatorWithPadding,
    PrinterCallback,
    Trainer,
    TrainingArguments,
)

from kd_lightning.apps.fits.fit import Fit
from kd_lightning.apps.fits.trainer import build_trainer
from kd_lightning.apps.settings.config import Config
from kd_lightning.batch import Batch
from kd_lightning.data import EvaluationStream
from kd_lightning.systems import NLUSystem

TARGETS = {"sst2": 2.0, "rte": 1.5}
CHECKED = 10
INPUTS = ("input_ids", "attention_mask", "token_type_ids")


class CountingTrainer(Trainer):
    """Transformers' Trainer, which counts the real tokens of the batches that it trains on.

    Those, and not the batches that are collated: one more is fetched ahead of the last step.
    """

    real = 0

    def training_step(self, model: nn.Module, inputs: Any, *others: Any, **settings: Any) -> Tensor:
        """Make a step, and count."""
        self.real += int(inputs["attention_mask"].sum())
        return super().training_step(model, inputs, *others, **settings)


class FixedBatches(Trainer):
    """A Trainer that is given its batches, and keeps its losses."""

    def __init__(self, batches: Sequence[dict[str, Tensor]], **settings: Any) -> None:
        super().__init__(**settings)
        self.batches, self.losses = batches, list[float]()

    def get_train_dataloader(self) -> Any:
        """Return the given batches."""
        return self.batches

    def compute_loss(self, *args: Any, **settings: Any) -> Any:
        """Return the loss, and keep it."""
        loss = super().compute_loss(*args, **settings)
        self.losses.append(float(loss))
        return loss


def settings(args: argparse.Namespace, work: Path, data: Path, precision: str, steps: int, **others: Any) -> Config:
    """Return kd-train's configuration for one epoch of some steps."""
    more = {"trainer.max_epochs": 1, "trainer.limit_val_batches": 0, "trainer.limit_train_batches": steps} | others
    return measure.config(
        "train", work, "encoder=minilm", f"task=[{args.task}]", f"data.root={data}", "accelerator=cpu",
        "system.reduction=mean", "callbacks.resume_checkpoint=null", f"trainer.precision={precision}",
        f"batching.batch_size={args.batch}", f"optimizer.lr={args.lr}",
        *(f"{key}={value}" for key, value in more.items()),
    )  # fmt: skip


def new_model(cfg: Config, fit: Fit) -> nn.Module:
    """Return Transformers' classifier with the same weights as the system's."""
    model = AutoModelForSequenceClassification.from_pretrained(
        cfg["encoder"]["path"], num_labels=fit.inputs.tasks[0].num_labels, dtype=torch.float32
    )
    head: Any = fit.build_system().heads[fit.inputs.tasks[0].name]
    model.classifier.load_state_dict(head.output.state_dict())
    return model.train()


def arguments(cfg: Config, folder: Path, steps: int) -> TrainingArguments:
    """Return the Trainer's arguments that say what our configuration says."""
    optimizer = cfg["optimizer"]
    return TrainingArguments(
        output_dir=str(folder),
        max_steps=steps,
        per_device_train_batch_size=cfg["batching"]["batch_size"],
        learning_rate=optimizer["lr"],
        weight_decay=optimizer["weight_decay"],
        adam_epsilon=optimizer["optimizer"]["eps"],
        optim="adamw_torch_fused",
        max_grad_norm=cfg["trainer"]["gradient_clip_val"],
        lr_scheduler_type="linear",
        warmup_steps=round(cfg["scheduler"]["warmup"] * steps),
        bf16=cfg["trainer"]["precision"] == "bf16-mixed",
        seed=cfg["seed"],
        use_cpu=True,
        report_to="none",
        save_strategy="no",
        logging_steps=cfg["trainer"]["log_every_n_steps"],
        disable_tqdm=True,
    )


def stream_batches(cfg: Config, fit: Fit, folder: Path) -> list[Batch]:
    """Return the batches that our trainer trains on, in order."""
    data = fit.build_data()
    data.trainer = build_trainer(cfg, folder)
    steps = cfg["trainer"]["limit_train_batches"]
    return list(itertools.islice(data.train_dataloader(), steps))


def flat(batch: Batch, task: str) -> dict[str, Tensor]:
    """Return the batch as Transformers' models take it."""
    inputs: Any = batch
    return {**{name: inputs[name] for name in INPUTS}, "labels": batch["tasks"][task]["labels"]}


def check(cfg: Config, fit: Fit, folder: Path) -> None:
    """End the script unless both have the same losses on the same batches, without dropout; it warms both up, too."""
    task = fit.inputs.tasks[0].name
    system, model = fit.build_system(), new_model(cfg, fit)
    for module in [*system.modules(), *model.modules()]:
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    ours: list[float] = []
    step = system.training_step

    def kept(batch: Batch, batch_idx: int) -> Any:
        loss: Any = step(batch, batch_idx)
        ours.append(float(loss))
        return loss

    system.training_step = kept  # type: ignore[method-assign]
    data = fit.build_data()
    trainer = build_trainer(cfg, folder)
    data.trainer = trainer
    trainer.fit(system, datamodule=data)
    batches = [flat(batch, task) for batch in stream_batches(cfg, fit, folder)]
    theirs = FixedBatches(batches, model=model, args=arguments(cfg, folder, len(batches)))
    theirs.remove_callback(PrinterCallback)
    theirs.train()
    measure.same_losses(
        f"HF Trainer ({cfg['trainer']['precision']})",
        ours,
        theirs.losses,
        1e-3 if "32" in cfg["trainer"]["precision"] else 2e-2,
    )


def run_ours(cfg: Config, fit: Fit, folder: Path) -> tuple[Sample, NLUSystem]:
    """Train with our trainer; the work is the real tokens seen."""
    system, data = fit.build_system(), fit.build_data()
    trainer = build_trainer(cfg, folder)
    data.trainer = trainer
    with measure.timed() as sample:
        trainer.fit(system, datamodule=data)
    sample.work = sum(int(batch["attention_mask"].sum()) for batch in stream_batches(cfg, fit, folder))
    return sample, system


def run_theirs(cfg: Config, fit: Fit, rows: Dataset, folder: Path, steps: int) -> tuple[Sample, nn.Module]:
    """Train with Transformers' Trainer; the work is the real tokens seen."""
    model = new_model(cfg, fit)
    trainer = CountingTrainer(
        model=model,
        args=arguments(cfg, folder, steps),
        train_dataset=rows,
        data_collator=DataCollatorWithPadding(fit.inputs.tokenizer),
    )
    trainer.remove_callback(PrinterCallback)
    with measure.timed() as sample:
        trainer.train()
    sample.work = trainer.real
    return sample, model


def tokenised(cfg: Config, fit: Fit, data: Path) -> Dataset:
    """Return the training rows in tokens, as Transformers' examples prepare them."""
    task = fit.inputs.tasks[0]
    rows = Dataset.from_parquet(str(data / task.name / "train.parquet"), cache_dir=str(data / "cache"))
    return rows.map(
        lambda batch: fit.inputs.tokenizer(
            *(batch[text] for text in task.texts), truncation=True, max_length=fit.inputs.spec.max_length
        ),
        batched=True,
        remove_columns=[name for name in rows.column_names if name != "label"],
    )


def speed(args: argparse.Namespace, work: Path, data: Path) -> None:
    """Measure tokens per second at each precision."""
    for precision in args.precision:
        cfg = settings(args, work, data, precision, CHECKED)
        check(cfg, measure.fit(cfg), work / "check")
    cfg = settings(args, work, data, "32-true", args.steps)
    fit = measure.fit(cfg)
    rows = tokenised(cfg, fit, data)

    def ours(precision: str, number: int) -> Sample:
        cfg = settings(args, work, data, precision, args.steps, seed=number)
        return run_ours(cfg, measure.fit(cfg), work / "ours")[0]

    def theirs(precision: str, number: int) -> Sample:
        cfg = settings(args, work, data, precision, args.steps, seed=number)
        return run_theirs(cfg, measure.fit(cfg), rows, work / "theirs", args.steps)[0]

    systems = {}
    for precision in args.precision:
        systems[f"kd-train, {precision}"] = lambda number, precision=precision: ours(precision, number)
        systems[f"HF Trainer, {precision}"] = lambda number, precision=precision: theirs(precision, number)
    samples = measure.alternate(systems, args.rounds)
    title = f"Fine-tuning MiniLM on {args.task}, {args.steps} steps of {args.batch} rows, real tokens per second"
    measure.show(title, samples, next(iter(systems)), unit="tokens/s", invert=True)
    target = TARGETS.get(args.task, 1.0)
    for precision in args.precision:
        pair = measure.ratio(samples[f"HF Trainer, {precision}"], samples[f"kd-train, {precision}"])
        what = f"{args.task}, {precision}: tokens per second, kd-train / HF Trainer"
        measure.verdict(what, pair["median"], target, at_most=False)
    if len(args.precision) > 1:
        first, second = (samples[f"kd-train, {precision}"] for precision in args.precision[:2])
        times = measure.ratio(first, second)["median"]
        print(f"\nkd-train, {args.precision[1]} / {args.precision[0]}: {times:.2f} times the tokens per second")


def accuracy(logits: Iterable[tuple[Tensor, Tensor]]) -> float:
    """Return the share of right classes of some batches of logits and labels."""
    right = [(scores.argmax(-1) == labels).float() for scores, labels in logits]
    return float(torch.cat(right).mean())


@torch.inference_mode()
def quality(args: argparse.Namespace, work: Path, data: Path) -> None:
    """Train both for the same number of steps at each precision and seed, and compare their validation accuracy."""
    cfg = settings(args, work, data, args.precision[0], 1)
    fit = measure.fit(cfg)
    rows = tokenised(cfg, fit, data)
    epoch = -(-len(rows) // args.batch)
    task = fit.inputs.tasks[0].name
    part = fit.build_data().evaluation[0]
    validation = list(EvaluationStream(part, batch_size=64, pad_id=fit.inputs.tokenizer.pad_token_id))
    labelled = [(batch, flat(batch, task)) for batch in validation]
    names = [f"{system}, {precision}" for precision in args.precision for system in ("kd-train", "HF Trainer")]
    scores: dict[str, list[float]] = {name: [] for name in names}
    for seed, precision in itertools.product(args.seeds, args.precision):
        both = {"trainer.max_epochs": args.epochs, "seed": seed}
        cfg = settings(args, work, data, precision, epoch, **both)
        own = settings(args, work, data, precision, epoch, **both | dict(value.split("=", 1) for value in args.set))
        with torch.inference_mode(False):
            system = run_ours(own, measure.fit(own), work / "ours")[1].eval()
            model = run_theirs(cfg, measure.fit(cfg), rows, work / "theirs", args.epochs * epoch)[1].eval()
        ours = accuracy((system(batch)[task], inputs["labels"]) for batch, inputs in labelled)
        theirs = accuracy((model(**inputs).logits, inputs["labels"]) for _, inputs in labelled)
        scores[f"kd-train, {precision}"].append(100 * ours)
        scores[f"HF Trainer, {precision}"].append(100 * theirs)
        print(f"seed {seed}, {precision}: kd-train {100 * ours:.2f}, HF Trainer {100 * theirs:.2f}", flush=True)
    print(f"\n### Accuracy on {task}, {args.epochs} epochs of {epoch} steps, {len(part.tokens)} validation rows\n")
    print("| system | mean | standard deviation | seeds |\n| --- | --- | --- | --- |")
    for name, values in scores.items():
        spread = f"{statistics.stdev(values):.2f}" if len(values) > 1 else "-"
        print(f"| {name} | {statistics.fmean(values):.2f} | {spread} | {', '.join(f'{x:.2f}' for x in values)} |")
    for precision in args.precision:
        ours_, theirs_ = scores[f"kd-train, {precision}"], scores[f"HF Trainer, {precision}"]
        measure.no_worse(f"{precision}: kd-train - HF Trainer", measure.paired(ours_, theirs_), args.margin)
    if len(args.precision) > 1:
        first, second = (scores[f"kd-train, {precision}"] for precision in args.precision[:2])
        what = f"kd-train, {args.precision[1]} - {args.precision[0]}"
        measure.within_noise(what, measure.paired(second, first), first)


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    made = measure.parser(__doc__)
    made.add_argument("--task", choices=tuple(TARGETS), default="sst2", help="(%(default)s)")
    made.add_argument("--rows", type=int, default=None, help="training rows: the first of the task (all)")
    made.add_argument("--steps", type=int, default=32, help="steps of a run (%(default)s)")
    made.add_argument("--batch", type=int, default=32, help="rows of a batch (%(default)s)")
    made.add_argument("--lr", type=float, default=1e-4, help="learning rate (%(default)s)")
    precisions = ["32-true", "bf16-mixed"]
    made.add_argument("--precision", nargs="+", choices=precisions, default=precisions)
    made.add_argument("--quality", action="store_true", help="compare validation scores instead of speed")
    made.add_argument("--epochs", type=int, default=1, help="epochs of --quality (%(default)s)")
    made.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5], help="seeds of --quality")
    made.add_argument("--set", nargs="+", default=[], metavar="NAME=VALUE", help="settings of kd-train in --quality")
    made.add_argument("--margin", type=float, default=1.0, help="points that count as no worse (%(default)s)")
    return made


def main() -> None:
    args = parser().parse_args()
    root = measure.need_data(args.data, args.task)
    measure.need_packages("accelerate")
    measure.start(args)
    disable_progress_bars()
    measure.machine(args.threads, "accelerate")
    with measure.scratch() as work:
        data = measure.subset(root, work / "data", args.task, train=args.rows, validation=None)
        (quality if args.quality else speed)(args, work, data)


if __name__ == "__main__":
    main()
