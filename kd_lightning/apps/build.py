"""From a resolved configuration to built objects."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from safetensors.torch import load_file
from transformers import PreTrainedTokenizerBase

from kd_lightning.data import Corpus, Rows, TokenTable, tokenise
from kd_lightning.encoders import EncoderSpec, load_tokenizer
from kd_lightning.errors import UserError
from kd_lightning.systems import NLUSystem
from kd_lightning.tasks import Task

log = logging.getLogger(__name__)

Config = dict[str, Any]
"""A resolved configuration in plain containers."""


def build(node: Any, **values: Any) -> Any:
    """Return the object that a config node describes.

    Raises:
        UserError: If its constructor refuses the values; the message is the constructor's own.
    """
    try:
        return instantiate(node, **values, _convert_="all")
    except InstantiationException as error:
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        if isinstance(cause, UserError | ValueError | TypeError | ImportError):
            raise UserError(f"{node.get('_target_', 'config')}: {cause}") from error
        raise


def build_tasks(cfg: Config) -> list[Task]:
    """Return the tasks of a configuration, in order.

    Raises:
        UserError: If there is none, or a key is not its task's name.
    """
    tasks = [build(node) for node in cfg["task"].values()]
    if not tasks:
        raise UserError("task is empty, expected at least one: task=[rte,mrpc]")
    for key, task in zip(cfg["task"], tasks, strict=True):
        if key != task.name:
            raise UserError(f"task {key}: its name is '{task.name}', expected the same word in both places")
    return tasks


@dataclass(frozen=True)
class Materials:
    """What a fit is made from: tasks, rows, tokenizer, tokens; each made when first asked for.

    Args:
        cfg: The fit's configuration.
    """

    cfg: Config

    @cached_property
    def tasks(self) -> list[Task]:
        """The tasks, in order."""
        return build_tasks(self.cfg)

    @cached_property
    def corpus(self) -> Corpus:
        """All data of the run."""
        return Corpus(build(self.cfg["data"]), Path(self.cfg["paths"]["cache"]))

    @cached_property
    def spec(self) -> EncoderSpec:
        """The recipe of the encoder."""
        return build(self.cfg["encoder"])

    @cached_property
    def training_rows(self) -> dict[tuple[str, str], Rows]:
        """The rows to train on by (task, split): ``train``, and ``unlabelled`` if it is wanted and there."""
        rows = {}
        for task in self.tasks:
            if task.head is not None:
                raise UserError(f"task {task.name} is not trained: it is predicted with the head of {task.head}")
            rows[task.name, "train"] = self.corpus.require(task, "train")
            if self.cfg["batching"]["unlabelled"] and (more := self.corpus.rows(task, "unlabelled")) is not None:
                rows[task.name, "unlabelled"] = more
        return rows

    @cached_property
    def evaluation_rows(self) -> dict[tuple[str, str], Rows]:
        """The rows to evaluate by (task, split); each task's first evaluation split must be there."""
        rows = {}
        for task in self.tasks:
            first, *others = task.evaluation
            rows[task.name, first] = self.corpus.require(task, first, labelled=True)
            for split in others:
                found = self.corpus.rows(task, split, labelled=True)
                if found is None:
                    log.warning("%s: no split %s in the data, so it is not evaluated", task.name, split)
                else:
                    rows[task.name, split] = found
        return rows

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The encoder's tokenizer; a new vocabulary is learned from the ``train`` splits alone."""
        rows = [rows for (_, split), rows in self.training_rows.items() if split == "train"]
        return self.spec.tokenizer(text for some in rows for text in some.texts())

    def tokens(self, task: Task, split: str, rows: Rows) -> TokenTable:
        """Return the split's token table; pairs of training splits get their swapped copies if the task wants them."""
        table = tokenise(
            rows,
            self.tokenizer,
            max_length=self.spec.max_length,
            both_orders=task.both_orders and split not in task.evaluation,
            cache=Path(self.cfg["paths"]["cache"]) / "tokens",
            name=f"{task.name}-{split}",
        )
        log.debug("%s %s: %d rows, %d examples, %d at the limit", task.name, split, rows.count, len(table), table.cut)
        return table


def build_system(
    cfg: Config, tasks: Sequence[Task], spec: EncoderSpec, tokenizer: PreTrainedTokenizerBase
) -> NLUSystem:
    """Return the system of a configuration, with a new encoder."""
    make = build(cfg["system"])
    system: NLUSystem = make(
        encoder=spec.build(len(tokenizer)),
        tasks=tasks,
        optimizer=build(cfg["optimizer"]),
        scheduler=build(cfg["scheduler"]),
        seed=cfg["seed"],
        log_every_n_steps=cfg["trainer"]["log_every_n_steps"],
    )
    return system


def load_system(folder: Path, cfg: Config) -> tuple[NLUSystem, PreTrainedTokenizerBase, EncoderSpec]:
    """Return the trained system of a fit's folder, in evaluation mode, with its tokenizer and its encoder's recipe."""
    spec = build(cfg["encoder"]).saved(folder / "encoder")
    tokenizer = load_tokenizer(str(folder / "encoder"))
    system = build_system(cfg, build_tasks(cfg), spec, tokenizer)
    system.heads.load_state_dict(load_file(folder / "heads.safetensors"))
    return system.eval(), tokenizer, spec


def choose_precision(cfg: Config) -> str:
    """Return the trainer's precision; ``auto`` is bf16-mixed where the hardware computes in it, else 32-true.

    Raises:
        UserError: If half precision (fp16) is asked for without a GPU.
    """
    precision, accelerator = str(cfg["trainer"]["precision"]), cfg["trainer"]["accelerator"]
    gpu = torch.cuda.is_available() and accelerator in ("auto", "gpu", "cuda")
    if precision.startswith("16") and not gpu:
        raise UserError(f"trainer.precision is {precision}: fp16 needs a GPU; use bf16-mixed, 32-true or auto")
    if precision != "auto":
        return precision
    if gpu:
        return "bf16-mixed" if torch.cuda.is_bf16_supported() else "32-true"
    fast = torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
    return "bf16-mixed" if fast else "32-true"


def parameter_count(parameters: Mapping[str, torch.Tensor], *, embeddings: bool = True) -> int:
    """Return the number of weights, optionally without embedding tables."""
    return sum(p.numel() for name, p in parameters.items() if embeddings or "embeddings" not in name)
