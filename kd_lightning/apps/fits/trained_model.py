"""The model in the folder of a finished fit, and what can be asked of it."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from kd_lightning.apps.fits.build import build, build_encoder, build_system, build_tasks
from kd_lightning.apps.fits.compiled import compiled_reading
from kd_lightning.apps.fits.inputs import token_table
from kd_lightning.apps.fits.model_folder import PARTS, result_of, weights_hash
from kd_lightning.apps.fits.refusals import refused_by
from kd_lightning.apps.fits.trainer import build_trainer, choose_precision, interruptible, silence_libraries
from kd_lightning.apps.settings.config import Config
from kd_lightning.data import EvaluationStream, Part, Rows, TokenTable
from kd_lightning.encoders import CompiledReading, EncoderSpec, load_tokenizer
from kd_lightning.encoders.vocabulary import tokenizer_fingerprint
from kd_lightning.errors import UserError
from kd_lightning.systems import NLUSystem
from kd_lightning.tasks import Task


@dataclass(frozen=True)
class TrainedModel:
    """The model in a finished fit's folder, loaded when first needed.

    Args:
        folder: Of the fit.
        cfg: Its configuration; paths and hardware may be those of another run.
    """

    folder: Path
    cfg: Config

    @classmethod
    def open(cls, folder: Path, **settings: Any) -> TrainedModel:
        """Return the model of a folder, with some of its settings (paths, trainer, data) replaced.

        Raises:
            UserError: If the folder holds no finished fit.
        """
        for name in PARTS:
            if not (folder / name).exists():
                raise UserError(
                    f"{folder} holds no {name}, expected the folder of a finished run (of kd-train or kd-distill)"
                )
        file = folder / "config.yaml"
        cfg: Any = OmegaConf.to_container(refused_by(str(file), {}, OmegaConf.load, file))
        return cls(folder, {**cfg, **settings})

    @cached_property
    def result(self) -> Config:
        """The fit's ``fit.json``."""
        found = result_of(self.folder)
        if found is None:
            raise UserError(f"{self.folder} holds no fit.json: the fit has not finished; run it again to continue it")
        return found

    @cached_property
    def spec(self) -> EncoderSpec:
        """The recipe of the trained encoder."""
        spec: EncoderSpec = build(self.cfg["encoder"], "encoder").saved(self.folder / "encoder")
        return spec

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The tokenizer that the model was trained with.

        Raises:
            UserError: If the folder holds another.
        """
        found = load_tokenizer(str(self.folder / "encoder"))
        if tokenizer_fingerprint(found) != self.result["tokenizer"]:
            raise UserError(
                f"{self.folder}: the tokenizer is not the one the model was trained with; restore the folder"
            )
        return found

    @cached_property
    def system(self) -> NLUSystem:
        """The trained system, in evaluation mode.

        Raises:
            UserError: If the weights are not those of the fit.
        """
        self.check_weights()
        encoder = build_encoder(self.spec, self.tokenizer)
        system = build_system(self.cfg, build_tasks(self.cfg), encoder)
        try:
            system.heads.load_state_dict(load_file(self.folder / "heads.safetensors"))
        except (SafetensorError, RuntimeError) as error:
            raise UserError(f"{self.folder / 'heads.safetensors'} does not fit config.yaml ({error})") from error
        return system.eval()

    @cached_property
    def _reading(self) -> CompiledReading | None:
        """What reads batches with the system's encoder compiled, if the settings ask for it."""
        return compiled_reading(self.cfg, self.system, self.spec, self.tokenizer, stage=self.folder.name)

    def check_weights(self) -> None:
        """Raise UserError if the weights are not those that the fit wrote."""
        if weights_hash(self.folder) != self.result["weights"]:
            raise UserError(
                f"{self.folder}: the weights are not those the fit wrote (fit.json, field weights); "
                "restore the folder, or take it away to train it again"
            )

    def copy_to(self, folder: Path) -> None:
        """Copy the model and its ``metrics.csv``; what loggers and profilers wrote stays where it is."""
        for name in (*PARTS, "metrics.csv"):
            source, target = self.folder / name, folder / name
            if source.is_dir():
                shutil.copytree(source, target, dirs_exist_ok=True)
            else:
                folder.mkdir(parents=True, exist_ok=True)
                shutil.copy(source, target)

    @property
    def location(self) -> Path:
        """Its folder."""
        return self.folder

    @property
    def store(self) -> Path:
        """Where soft targets are kept."""
        return Path(self.cfg["paths"]["store"])

    def knows(self, task: str, split: str) -> bool:
        """Tell whether it can be asked about a task's split: about any."""
        return True

    def origin(self, task: str, split: str) -> Config:
        """Return what its soft targets of a split depend on beside the rows, as manifests name it."""
        return {
            "teacher": self.result["weights"],
            "tokenizer": self.result["tokenizer"],
            "max_length": self.spec.max_length,
            "precision": choose_precision(self.cfg),
        }

    def release(self) -> None:
        """Give the memory of the system back; it is loaded again when it is next asked for."""
        for name in ("system", "_reading"):
            self.__dict__.pop(name, None)

    def head_task(self, task: Task) -> Task:
        """Return the trained task whose head predicts a task.

        Raises:
            UserError: If the model has no such head, or its classes or scores are others than the task's.
        """
        trained = {found.name: found for found in self.system.tasks}
        head = trained.get(task.head_name)
        if head is None:
            raise UserError(f"the model in {self.folder} has no head for {task.head_name}, it has {', '.join(trained)}")
        for name in ("kind", "labels", "score_range"):
            found, expected = getattr(task, name), getattr(head, name)
            if found != expected:
                raise UserError(
                    f"task {task.name}: {name} is {found}, the head of {head.name} in {self.folder} was trained with "
                    f"{expected}; write the same in the task"
                )
        return head

    def tokens(self, task: Task, split: str, rows: Rows, *, both_orders: bool = False) -> TokenTable:
        """Return the rows in this model's tokens."""
        return token_table(task, split, rows, self.tokenizer, self.spec, self.cfg, both_orders)

    def logits(
        self, task: Task, split: str, rows: Rows, *, both_orders: bool = False, some: slice = slice(None)
    ) -> tuple[Tensor, Tensor]:
        """Return ``example_id [N]`` and ``logits [N, C]`` (of regression: scores in [0, 1]), in order of id.

        Args:
            task: Whose head predicts.
            split: What the rows are called.
            rows: The rows.
            both_orders: Whether pairs are predicted in their other order, too.
            some: Which of the examples are predicted.

        Raises:
            UserError: If the model has no head for the task, or one of other labels, or another tokenizer than it had.
        """
        silence_libraries()
        head = self.head_task(task)  # the rows go to the head that predicts them, under that head's name
        table = self.tokens(task, split, rows, both_orders=both_orders)
        stream = EvaluationStream(
            Part(head, split, table),
            batch_size=self.cfg["batching"]["eval_batch_size"],
            pad_id=self.tokenizer.pad_token_id,
            some=some,
        )
        single = {**self.cfg["trainer"], "devices": 1, "num_nodes": 1, "strategy": "auto"}
        alone = {**self.cfg, "trainer": single, "logger": {}, "callbacks": {}}
        # No such folder: under SLURM, Lightning would load any hpc_ckpt_* that lies in the trainer's root over the
        # weights that were checked.
        trainer = build_trainer(alone, self.folder / "predictions", stage=f"{task.name} {split}")
        self.system.compiled = self._reading  # and never where latency is measured, or a model exported
        try:
            with interruptible(trainer):
                batches: Any = trainer.predict(self.system, dataloaders=stream)
        finally:
            self.system.compiled = None
        ids = torch.cat([batch["example_id"] for batch in batches])
        logits = torch.cat([batch["logits"].cpu() for batch in batches])
        different = torch.unique(ids).numel()
        if not len(ids) == different == (expected := len(range(len(table))[some])):
            raise RuntimeError(f"predicted {len(ids)} rows ({different} different) of {expected}")
        order = ids.argsort()
        return ids[order], logits[order]
