"""One fit of one system: from a resolved configuration to a folder that holds the trained model and its scores."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pytorch_lightning as pl

from kd_lightning.apps.fits.build import build, build_encoder, build_system
from kd_lightning.apps.fits.compiled import compiled_reading
from kd_lightning.apps.fits.identity import IDENTITY, SoftTargetMap, content_address
from kd_lightning.apps.fits.inputs import FitInputs
from kd_lightning.apps.fits.model_folder import save_system, weights_hash, write_config
from kd_lightning.apps.fits.result import fit_result
from kd_lightning.apps.fits.resume import read_checkpoint
from kd_lightning.apps.fits.shared import Shared
from kd_lightning.apps.fits.sparse_gradients import decide_sparse_gradients
from kd_lightning.apps.fits.start import Start
from kd_lightning.apps.fits.trainer import (
    build_trainer,
    remove_requeue_checkpoints,
    silence_libraries,
    train,
)
from kd_lightning.apps.processes.team import team
from kd_lightning.apps.settings.config import Config
from kd_lightning.apps.settings.stages import OF_A_FIT
from kd_lightning.data import MultiTaskData, Part
from kd_lightning.data.datamodule import run_steps
from kd_lightning.data.sampling import epoch_batches
from kd_lightning.encoders import EncoderSpec
from kd_lightning.errors import UserError
from kd_lightning.files import write_json, write_text
from kd_lightning.loggers import MetricsCsv, finished
from kd_lightning.systems import NLUSystem

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Fit:
    """A system to train: what it is for, its settings, what it is made from.

    Args:
        stage: What the fit is for, in messages and names: ``teacher rte``, ``student``, ...
        cfg: Its configuration.
        shared: What it has in common with the other fits of the run.
        soft_targets: The teachers' logits, empty for a fit on gold labels.
        prefix: Where its settings stand in the command's configuration, for messages: ``teacher.members.a.``, or
            nothing.
        start: The trained model that it goes on from; None begins with a new one.
        untaught: Its tasks that have no teacher.
        spoken: Whose texts its new vocabulary is learned from, if not from its own alone.
    """

    stage: str
    cfg: Config
    shared: Shared
    soft_targets: SoftTargetMap
    prefix: str = ""
    start: Start | None = None
    untaught: tuple[str, ...] = ()
    spoken: tuple[FitInputs, ...] = ()

    @cached_property
    def inputs(self) -> FitInputs:
        """Tasks, rows, tokenizer and tokens."""
        trained = self.start.model.tokenizer if self.start else None
        return FitInputs(self.cfg, self.shared, trained, self.untaught, self.spoken)

    @cached_property
    def identity(self) -> str:
        """The content address: a hash of all that the result depends on, and of no path."""
        more: Config = {"start": self.start.identity() if self.start else None}
        if (words := self.inputs.foreign_words) is not None:
            more["words"] = words
        if any(task.kind == "ranking" for task in self.inputs.tasks):
            more["processes"] = self.processes  # they have whole questions each
        return content_address(self.cfg, self.inputs, self.soft_targets, more)

    @contextmanager
    def told_where(self) -> Iterator[None]:
        """Put the place of the fit's settings in front of what is wrong with one of them."""
        try:
            yield
        except UserError as error:
            setting = re.match(r"\w+", str(error))
            if self.prefix and setting is not None and setting[0] in OF_A_FIT:
                raise UserError(f"{self.prefix}{error}") from error
            raise

    @cached_property
    def idle_trainer(self) -> pl.Trainer:
        """A trainer that trains nothing: it knows what the settings come to on this machine."""
        return build_trainer({**self.cfg, "logger": {}}, Path())

    @property
    def processes(self) -> int:
        """The number of the job's processes that train it."""
        return self.idle_trainer.world_size

    def count_steps(self) -> int:
        """Return the number of optimiser steps of the whole fit.

        Raises:
            UserError: If the settings leave nothing to train on, or no end.
        """
        batching = self.cfg["batching"]
        epoch = epoch_batches(batching["epoch_rows"] or self.inputs.examples, batching["batch_size"])
        return run_steps(self.idle_trainer, epoch)

    @cached_property
    def encoder_spec(self) -> EncoderSpec:
        """The encoder's recipe, as it is built: with or without sparse gradients."""
        spec = self.start.model.spec if self.start else self.inputs.spec
        return decide_sparse_gradients(spec, build(self.cfg["optimizer"], "optimizer"), self.idle_trainer)

    def build_system(self) -> NLUSystem:
        """Return the system as it is before its first step; its weights follow from the seed."""
        pl.seed_everything(self.cfg["seed"], verbose=False)
        spec, tokenizer = self.encoder_spec, self.inputs.tokenizer
        encoder = self.start.encoder(spec) if self.start else build_encoder(spec, tokenizer)
        system = build_system(self.cfg, self.inputs.tasks, encoder)
        if self.start:
            self.start.load_heads(system)
        system.train()  # pre-trained models come in evaluation mode, and Lightning leaves it so
        system.save_hyperparameters({"identity": self.identity}, logger=False)  # goes into every checkpoint
        processes = self.idle_trainer.world_size
        system.compiled = compiled_reading(self.cfg, system, spec, tokenizer, stage=self.stage, processes=processes)
        return system

    def build_data(self) -> MultiTaskData:
        """Return the tokenised data, joined with its soft targets."""
        inputs, batching = self.inputs, self.cfg["batching"]
        by_name = {task.name: task for task in inputs.tasks}
        train = [
            Part(by_name[name], split, inputs.tokens(by_name[name], split), self.soft_targets.get((name, split)))
            for name, split in inputs.training_rows
        ]
        evaluation = [
            Part(by_name[name], split, inputs.tokens(by_name[name], split)) for name, split in inputs.evaluation_rows
        ]
        return MultiTaskData(
            train=train,
            evaluation=evaluation,
            task_sampler=build(self.cfg["task_sampler"], "task_sampler"),
            seed=self.cfg["seed"],
            pad_id=inputs.tokenizer.pad_token_id,
            **{
                name: batching[name]
                for name in ("batch_size", "eval_batch_size", "window", "epoch_rows", "single_task")
            },
        )

    def run(self, folder: Path, checkpoint: Path | None = None) -> Config:
        """Train and evaluate; write the model, its configuration and its scores into the folder.

        Args:
            folder: Of this fit alone; it gets ``config.yaml``, ``encoder/`` (a Hugging Face folder with the tokenizer),
                ``heads.safetensors``, ``metrics.csv``, ``checkpoints/`` and, at the very end, ``fit.json``.
            checkpoint: Where to continue; None starts anew. Never left to Lightning, which under SLURM would take up
                any ``hpc_ckpt_*.ckpt`` that lies in the folder.

        Returns:
            The content of ``fit.json``: scores, steps, seconds, parameters, data and versions.

        Raises:
            UserError: If the checkpoint is not one of this fit.
        """
        silence_libraries()
        started = time.perf_counter()
        together = team().size > 1 and self.processes > 1
        if together:
            team().check_same("settings, data or code", self.identity)
        system, data = self.build_system(), self.build_data()
        begun = self._prepare(folder, checkpoint)
        known: Config = {"identity": self.identity, "resumed": checkpoint is not None, "together": together}
        trainer = build_trainer(self.cfg, folder, stage=self.stage, **known)
        data.trainer = trainer
        rows = sum(len(part.tokens) for part in data.train)
        batches, steps = len(data.train_dataloader()), data.total_steps
        how = f"{rows:,} examples, {batches:,} batches an epoch, {steps:,} steps, {trainer.precision}"
        log.info("%s: %s%s", self.stage, how, f", from step {begun:,} ({checkpoint})" if checkpoint else "")
        with finished(trainer.loggers):
            for logger in trainer.loggers:
                logger.log_hyperparams(self.cfg)
            scores, whole = train(system, trainer, data, checkpoint)
        result = fit_result(self.stage, self.identity, self.inputs, system, data, scores)
        result["seconds"] = round(time.perf_counter() - started, 1)
        if trainer.is_global_zero:
            if whole:  # it was divided
                system = self.build_system()
                system.load_state_dict(whole)
            save_system(system, self.inputs.tokenizer, folder)
            result["weights"] = weights_hash(folder)
            write_json(folder / "fit.json", result)
        shown = ", ".join(f"{task} {m} {100 * v:.1f}" for task, found in scores.items() for m, v in found.items())
        log.info("%s: %s (%.0f s)", self.stage, shown, result["seconds"])
        return result

    def _prepare(self, folder: Path, checkpoint: Path | None) -> int:
        """Write what names the fit, take away what an earlier run left behind the checkpoint; return the first step."""
        step: int = 0 if checkpoint is None else read_checkpoint(checkpoint, self.identity)["global_step"]
        if team().leads:
            folder.mkdir(parents=True, exist_ok=True)
            write_config(folder, self.cfg)
            write_text(folder / IDENTITY, self.identity)
            remove_requeue_checkpoints(folder)
            MetricsCsv(str(folder)).truncate(step)
        return step
