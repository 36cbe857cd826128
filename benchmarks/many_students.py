"""Seconds from a trained teacher to k distilled students.

One teacher of 12 layers x 768 in a folder (random weights: its quality is irrelevant for time); students that start
from one saved encoder of 2 layers x 128 with the teacher's vocabulary and differ in their seed; three epochs each,
SST-2, batch 32, soft cross-entropy at temperature 1 alone, fused AdamW, clip 1, one precision for all. Compared:

- kd_lightning: the teacher's logits written once into the store, read and checked again for each student; students
  through ``stored`` as in ``kd-distill`` (length-sorted batches, a resume checkpoint each epoch, the model saved);
- TextBrewer, ``BasicDistiller`` as it comes (the teacher runs in each step), and with ``is_caching_logits`` (it runs
  once per student); weights are saved each epoch, which is its default;
- HF Trainer, a subclass with the teacher in ``compute_loss``; nothing is saved.

The rivals get shuffled batches padded by ``DataCollatorWithPadding``, rows tokenised beforehand (as ours are), and one
loading of the teacher for all students. Evaluation is off everywhere. Checked first: the losses of ten steps on the
same batches, without dropout, agree.

Measured are the fixed part (ours: the teacher loaded, its logits written; theirs: the teacher loaded) and one student;
the total for k is fixed + k x student. ``--verify`` runs three students once and prints both; ``--full`` runs every k
instead.
Targets, against the best rival: 1.8 times as fast at k = 1, 5 at k = 3, 15 at k = 10.

    python benchmarks/many_students.py --rows 320
    python benchmarks/many_students.py --rows 1000 --systems ours textbrewer-cache --verify

Needs accelerate and textbrewer (benchmarks/requirements.txt).
"""

from __future__ import annotations

import argparse
import copy
import itertools
import logging
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import measure
import pytorch_lightning as pl
import torch
from datasets import Dataset, disable_progress_bars
from measure import Sample
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader
from transformers import DataCollatorWithPadding, PrinterCallback, Trainer, TrainingArguments

from kd_lightning.apps.fits.build import build
from kd_lightning.apps.fits.store import stored
from kd_lightning.apps.fits.trained_model import TrainedModel
from kd_lightning.apps.fits.trainer import build_trainer
from kd_lightning.apps.settings.config import Config
from kd_lightning.apps.stages.teaching import stored_soft_targets
from kd_lightning.batch import Batch
from kd_lightning.encoders import NewTransformer, load_tokenizer
from kd_lightning.losses import soft_cross_entropy

TARGETS = {1: 1.8, 3: 5.0, 10: 15.0}
CHECKED = 10
TASK = "sst2"
NAMES = {
    "ours": "kd_lightning",
    "textbrewer-cache": "TextBrewer, cache",
    "textbrewer": "TextBrewer",
    "hf": "HF Trainer",
}


class Classifier(nn.Module):
    """A system's encoder and head as one plain model, as rivals take it."""

    def __init__(self, encoder: Any, head: nn.Module) -> None:
        super().__init__()
        self.encoder, self.head = encoder, head

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor, labels: Any = None) -> Tensor:
        """Return logits."""
        return self.head(self.encoder(input_ids, attention_mask, token_type_ids))


@dataclass
class Bench:
    """What all systems start from: settings, a teacher's folder, the rows in tokens."""

    args: argparse.Namespace
    work: Path
    data: Path
    teacher: Path
    rows: Dataset

    @cached_property
    def student_config(self) -> Config:
        """The configuration of a student that follows its teacher alone."""
        return base_config(
            self.args, self.work, self.data, "encoder=pretrained", f"encoder.path={self.work / 'student'}",
            "system=bam", "annealing=constant", "annealing.gold_weight=0.0", "distill_loss=soft_ce",
            f"trainer.max_epochs={self.args.epochs}",
        )  # fmt: skip

    def settings(self, seed: int = 1) -> Config:
        """Return the configuration of the student of a seed; composing it is not what is measured."""
        return {**copy.deepcopy(self.student_config), "seed": seed}

    def student(self, seed: int = 1) -> Classifier:
        """Return a student with the weights of its seed."""
        system = measure.fit(self.settings(seed)).build_system()
        return Classifier(system.encoder, system.heads[TASK])

    def load_teacher(self) -> tuple[Classifier, Any]:
        """Return the teacher and its tokenizer."""
        model = TrainedModel.open(self.teacher)
        return Classifier(model.system.encoder, model.system.heads[TASK]).eval(), model.tokenizer

    @property
    def autocast(self) -> Any:
        """The context in which TextBrewer trains, which knows no bfloat16 itself (no cache: weights change inside)."""
        half = self.args.precision == "bf16-mixed"
        return torch.autocast("cpu", torch.bfloat16, cache_enabled=False) if half else nullcontext()


def base_config(args: argparse.Namespace, work: Path, data: Path, *others: str) -> Config:
    """Return kd-train's configuration for the task, without evaluation."""
    return measure.config(
        "train", work, f"task=[{TASK}]", f"data.root={data}", "accelerator=cpu", f"trainer.precision={args.precision}",
        "trainer.limit_val_batches=0", f"batching.batch_size={args.batch}", *others, "system.reduction=mean",
    )  # fmt: skip


def make_teacher(args: argparse.Namespace, work: Path, data: Path) -> Path:
    """Return the folder of a teacher of 12 layers x 768 after one step of training."""
    layers, size, heads = args.teacher
    shape = [f"encoder.num_layers={layers}", f"encoder.hidden_size={size}", f"encoder.num_heads={heads}"]
    cfg = base_config(
        args, work, data, "encoder=tiny", *shape,
        "trainer.max_epochs=1", "trainer.limit_train_batches=1", "callbacks.resume_checkpoint=null",
    )  # fmt: skip
    measure.fit(cfg).run(work / "teacher")
    return work / "teacher"


def make_student(work: Path, teacher: Path) -> None:
    """Write the encoder that all students start from, with the teacher's vocabulary."""
    tokenizer = load_tokenizer(str(teacher / "encoder"))
    pl.seed_everything(0, verbose=False)
    NewTransformer(hidden_size=128, num_layers=2, num_heads=2).build(tokenizer).save(work / "student")
    tokenizer.save_pretrained(work / "student")


def tokenised(work: Path, data: Path, max_length: int) -> Dataset:
    """Return the training rows in the teacher's and the students' tokens."""
    tokenizer = load_tokenizer(str(work / "student"))
    rows = Dataset.from_parquet(str(data / TASK / "train.parquet"), cache_dir=str(work / "datasets"))
    return rows.map(
        lambda batch: tokenizer(batch["sentence"], truncation=True, max_length=max_length),
        batched=True,
        remove_columns=[name for name in rows.column_names if name != "label"],
    )


def optimizer_of(model: nn.Module, cfg: Config) -> torch.optim.Optimizer:
    """Return AdamW over the model, as our configuration has it."""
    values, parameters = cfg["optimizer"], list(model.parameters())
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": values["weight_decay"]},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=values["lr"], eps=values["optimizer"]["eps"], fused=True)


def schedule_of(cfg: Config, total: int) -> Callable[[int], float]:
    """Return the learning rate's factor at a step, as our configuration has it."""
    factor: Any = build(cfg["scheduler"], "scheduler")
    return lambda step: factor(step / total)


def plus(*samples: Sample) -> Sample:
    """Return the sum of samples."""
    return Sample(sum(s.wall for s in samples), sum(s.cpu for s in samples))


# Ours


def our_targets(bench: Bench, store: Path) -> Any:
    """Return the teacher's soft targets on all rows; the first time, predict and write them."""
    cfg = bench.settings()
    model = TrainedModel.open(bench.teacher, paths={**cfg["paths"], "store": str(store)})
    inputs = measure.fit(cfg).inputs
    return stored_soft_targets(model, inputs.tasks[0], "train", inputs.training_rows[TASK, "train"])


def run_ours(bench: Bench, number: int, students: int) -> tuple[Sample, list[Sample]]:
    """Return the times of the soft targets, and of each student."""
    store = bench.work / "stores" / f"{number}-{students}"
    with measure.timed() as fixed:
        our_targets(bench, store)
    each = []
    for seed in range(students):
        cfg = bench.settings(1 + 100 * number + seed)
        cfg["paths"]["store"] = str(store)
        with measure.timed() as sample:
            targets = our_targets(bench, store)
            stored(measure.fit(cfg, {(TASK, "train"): targets}))
        each.append(sample)
    return fixed, each


# TextBrewer


def distiller_of(bench: Bench, teacher: nn.Module, student: nn.Module, folder: Path, *, cache: bool) -> Any:
    """Return TextBrewer's distiller with soft cross-entropy at temperature 1."""
    from textbrewer import BasicDistiller, DistillationConfig, TrainingConfig

    logging.getLogger("Distillation").setLevel(logging.ERROR)
    return BasicDistiller(
        TrainingConfig(device="cpu", output_dir=str(folder)),
        DistillationConfig(temperature=1, hard_label_weight=0, kd_loss_weight=1, is_caching_logits=cache),
        teacher,
        student,
        lambda batch, logits: {"logits": (logits,)},
        lambda batch, logits: {"logits": (logits,)},
    )


def train_textbrewer(bench: Bench, distiller: Any, student: nn.Module, loader: Any, cfg: Config, epochs: int) -> None:
    """Train a student with TextBrewer."""
    total = epochs * len(loader)
    with bench.autocast, distiller:
        distiller.train(
            optimizer_of(student, cfg),
            loader,
            num_epochs=epochs,
            scheduler_class=LambdaLR,
            scheduler_args={"lr_lambda": schedule_of(cfg, total)},
            max_grad_norm=cfg["trainer"]["gradient_clip_val"],
        )


def run_textbrewer(bench: Bench, number: int, students: int, *, cache: bool) -> tuple[Sample, list[Sample]]:
    """Return the times of loading the teacher, and of each student."""
    with measure.timed() as fixed:
        teacher, tokenizer = bench.load_teacher()
    pad = DataCollatorWithPadding(tokenizer)

    def collate(features: list[Any]) -> dict[str, Tensor]:
        return dict(pad(features))  # TextBrewer takes plain dictionaries only

    each = []
    for seed in range(students):
        cfg, student = bench.settings(), bench.student(1 + 100 * number + seed)
        with measure.timed() as sample:
            loader = DataLoader(bench.rows, bench.args.batch, shuffle=True, collate_fn=collate)
            distiller = distiller_of(bench, teacher, student, bench.work / "textbrewer", cache=cache)
            train_textbrewer(bench, distiller, student, loader, cfg, bench.args.epochs)
        each.append(sample)
    return fixed, each


# Hugging Face


class DistillationTrainer(Trainer):
    """Transformers' Trainer with the teacher in the loss; batches may be given."""

    def __init__(self, teacher: nn.Module, batches: Sequence[Any] | None = None, **settings: Any) -> None:
        super().__init__(**settings)
        self.teacher, self.batches, self.losses = teacher.eval(), batches, list[float]()
        self.remove_callback(PrinterCallback)

    def get_train_dataloader(self) -> Any:
        """Return the given batches, or the default loader."""
        return super().get_train_dataloader() if self.batches is None else self.batches

    def compute_loss(self, model: nn.Module, inputs: Any, return_outputs: bool = False, **settings: Any) -> Any:
        """Return the soft cross-entropy."""
        with torch.no_grad():
            teacher = self.teacher(**inputs)
        student = model(**inputs)
        loss = soft_cross_entropy(student, teacher).mean()
        if self.batches is not None:
            self.losses.append(float(loss))
        return (loss, student) if return_outputs else loss


def hf_arguments(bench: Bench, cfg: Config, steps: int) -> TrainingArguments:
    """Return the Trainer's arguments that say what our configuration says."""
    return TrainingArguments(
        output_dir=str(bench.work / "hf"),
        max_steps=steps,
        per_device_train_batch_size=bench.args.batch,
        max_grad_norm=cfg["trainer"]["gradient_clip_val"],
        bf16=bench.args.precision == "bf16-mixed",
        use_cpu=True,
        report_to="none",
        save_strategy="no",
        logging_steps=cfg["trainer"]["log_every_n_steps"],
        disable_tqdm=True,
    )


def hf_optimizers(student: nn.Module, cfg: Config, steps: int) -> tuple[torch.optim.Optimizer, LambdaLR]:
    """Return optimiser and schedule as our configuration has them."""
    optimizer = optimizer_of(student, cfg)
    return optimizer, LambdaLR(optimizer, schedule_of(cfg, steps))


def run_hf(bench: Bench, number: int, students: int) -> tuple[Sample, list[Sample]]:
    """Return the times of loading the teacher, and of each student."""
    with measure.timed() as fixed:
        teacher, tokenizer = bench.load_teacher()
    each = []
    for seed in range(students):
        cfg, student = bench.settings(), bench.student(1 + 100 * number + seed)
        steps = bench.args.epochs * -(-len(bench.rows) // bench.args.batch)
        with measure.timed() as sample:
            DistillationTrainer(
                teacher,
                model=student,
                args=hf_arguments(bench, cfg, steps),
                optimizers=hf_optimizers(student, cfg, steps),
                train_dataset=bench.rows,
                data_collator=DataCollatorWithPadding(tokenizer),
            ).train()
        each.append(sample)
    return fixed, each


# The comparison


def check(bench: Bench) -> None:
    """End the script unless all have the same losses on the same batches, without dropout; it warms them up, too."""
    cfg = bench.settings()
    cfg["trainer"] |= {"max_epochs": 1, "limit_train_batches": CHECKED}
    fit = measure.fit(cfg, {(TASK, "train"): our_targets(bench, bench.work / "stores" / "check")})
    system = fit.build_system()
    without_dropout(system)
    ours: list[float] = []
    step = system.training_step

    def kept(batch: Batch, batch_idx: int) -> Any:
        loss: Any = step(batch, batch_idx)
        ours.append(float(loss))
        return loss

    system.training_step = kept
    data = fit.build_data()
    trainer = build_trainer(cfg, bench.work / "check")
    data.trainer = trainer
    batches = [plain(batch) for batch in itertools.islice(data.train_dataloader(), CHECKED)]
    trainer.fit(system, datamodule=data)

    teacher, _ = bench.load_teacher()
    tolerance = 1e-3 if bench.args.precision == "32-true" else 2e-2
    student = without_dropout(bench.student())
    steps = len(batches)
    both = {"args": hf_arguments(bench, cfg, steps), "optimizers": hf_optimizers(student, cfg, steps)}
    hf = DistillationTrainer(teacher, batches, model=student, **both)
    hf.train()
    measure.same_losses("HF Trainer", ours, hf.losses, tolerance)
    for cache in (False, True):
        student = without_dropout(bench.student())
        distiller = distiller_of(bench, teacher, student, bench.work / "check", cache=cache)
        theirs = kept_losses(distiller)
        with patch("random.shuffle"):  # the cache's batches are shuffled each epoch
            train_textbrewer(bench, distiller, student, batches, cfg, 1)
        measure.same_losses(f"TextBrewer{', cache' * cache}", ours, theirs, tolerance)


def kept_losses(distiller: Any) -> list[float]:
    """Return a list that the losses of TextBrewer's distiller will be added to."""
    losses: list[float] = []
    compute = distiller.compute_loss

    def compute_and_keep(*results: Any) -> Any:
        found = compute(*results)
        losses.append(float(found[0]))
        return found

    distiller.compute_loss = compute_and_keep
    return losses


def plain(batch: Batch) -> dict[str, Tensor]:
    """Return the batch as plain models take it."""
    return {name: batch[name] for name in ("input_ids", "attention_mask", "token_type_ids")}


def without_dropout(model: nn.Module) -> nn.Module:
    """Return the model with all dropout rates at 0."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return model


def report(samples: dict[int, dict[str, list[Sample]]], args: argparse.Namespace, how: str) -> None:
    """Print one table per number of students, and whether the targets are met."""
    for k, taken in samples.items():
        ours = NAMES["ours"] if NAMES["ours"] in taken else next(iter(taken))
        title = f"{k} student{'s' * (k > 1)}, {args.rows:,} rows, {args.epochs} epochs, {args.precision}, {how}"
        measure.show(title, taken, ours)
        rivals = {name: measure.ratio(one, taken[ours])["median"] for name, one in taken.items() if name != ours}
        if rivals:
            best = min(rivals, key=rivals.__getitem__)
            what = f"k = {k}: time of the best of {{{', '.join(rivals)}}} ({best}) / ours"
            measure.verdict(what, rivals[best], TARGETS.get(k, 1.0), at_most=False)


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    made = measure.parser(__doc__)
    made.add_argument("--rows", type=int, default=1000, help="training rows (%(default)s)")
    made.add_argument("--epochs", type=int, default=3, help="epochs of a student (%(default)s)")
    made.add_argument("--batch", type=int, default=32, help="rows of a batch (%(default)s)")
    made.add_argument("--students", type=int, nargs="+", default=list(TARGETS), help="numbers of students, k")
    made.add_argument("--precision", choices=("32-true", "bf16-mixed"), default="32-true")
    made.add_argument("--systems", nargs="+", choices=tuple(NAMES), default=list(NAMES))
    made.add_argument("--teacher", type=int, nargs=3, default=[12, 768, 12], help="layers, width, heads")
    made.add_argument("--verify", action="store_true", help="also run three students once, against fixed + 3 x student")
    made.add_argument("--full", action="store_true", help="run every k instead of fixed + k x student")
    return made


def main() -> None:
    args = parser().parse_args()
    root = measure.need_data(args.data, TASK)
    measure.need_packages("accelerate", "textbrewer")
    measure.start(args)
    disable_progress_bars()
    measure.machine(args.threads, "accelerate", "textbrewer")
    with measure.scratch() as work:
        data = measure.subset(root, work / "data", TASK, train=args.rows)
        teacher = make_teacher(args, work, data)
        make_student(work, teacher)
        bench = Bench(args, work, data, teacher, tokenised(work, data, 128))
        check(bench)
        runs = {
            "ours": run_ours,
            "textbrewer-cache": partial(run_textbrewer, cache=True),
            "textbrewer": partial(run_textbrewer, cache=False),
            "hf": run_hf,
        }
        compare(bench, {NAMES[name]: runs[name] for name in args.systems})


def compare(bench: Bench, runs: dict[str, Any]) -> None:
    """Measure the systems and print the tables."""
    args = bench.args
    parts: dict[str, list[tuple[Sample, Sample]]] = {name: [] for name in runs}

    def one(name: str, number: int) -> Sample:
        fixed, (each,) = runs[name](bench, number, 1)
        parts[name].append((fixed, each))
        return plus(fixed, each)

    if args.full:
        full = {}
        for k in args.students:
            systems = {name: (lambda number, name=name, k=k: total(*runs[name](bench, number, k))) for name in runs}
            full[k] = measure.alternate(systems, args.rounds)
        report(full, args, "all run")
        return
    measure.alternate({name: partial(one, name) for name in runs}, args.rounds)
    first = next(iter(runs))
    measure.show("Fixed part", {name: [fixed for fixed, _ in pairs] for name, pairs in parts.items()}, first)
    measure.show("Each student", {name: [each for _, each in pairs] for name, pairs in parts.items()}, first)
    computed = {
        k: {name: [plus(fixed, *[each] * k) for fixed, each in pairs] for name, pairs in parts.items()}
        for k in args.students
    }
    report(computed, args, "fixed + k x student")
    if args.verify:
        print("\n### Three students, run once\n\n| system | run, s | fixed + 3 x student, s |\n| --- | --- | --- |")
        for name, run in runs.items():
            ran = total(*run(bench, args.rounds, 3))
            expected = sorted(plus(fixed, *[each] * 3).wall for fixed, each in parts[name])[len(parts[name]) // 2]
            print(f"| {name} | {ran.wall:.2f} | {expected:.2f} |", flush=True)


def total(fixed: Sample, each: Iterable[Sample]) -> Sample:
    """Return the time of all."""
    return plus(fixed, *each)


if __name__ == "__main__":
    main()
