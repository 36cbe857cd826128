"""Lightning's trainer as the commands use it: quiet, without foreign checkpoints, logs in the fit's own folder."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from torch import Tensor
from transformers.utils.logging import disable_progress_bar

from kd_lightning.apps.fits.build import build
from kd_lightning.apps.fits.dashboards import build_loggers
from kd_lightning.apps.fits.sharded import FSDP, strategy_of, whole_state
from kd_lightning.apps.fits.stopping import ByEpochs, NoSignals, StopAtStep
from kd_lightning.apps.processes.environment import TeamEnvironment
from kd_lightning.apps.processes.preemption import Preempted, preempted, preemption_deferred
from kd_lightning.apps.processes.team import team
from kd_lightning.apps.processes.termination import terminated, termination_deferred
from kd_lightning.apps.settings.config import Config
from kd_lightning.apps.settings.hardware import no_half_precision, takes_gpu
from kd_lightning.callbacks import LogProgress, ResumeCheckpoint, StageProgressBar
from kd_lightning.data import MultiTaskData
from kd_lightning.errors import Terminated
from kd_lightning.loggers import MetricsCsv, WandbRun
from kd_lightning.progress import has_bars
from kd_lightning.systems import NLUSystem

ADVICE = (
    ".*does not have many workers.*",  # batches are built without loader processes on purpose
    ".*`srun` command is available.*",
    ".*smaller than the logging interval.*",
    ".*GPU available but not used.*",
    ".*overridden `transfer_batch_to_device`.*",
    ".*isinstance.treespec, LeafSpec.*",
)
"""Warnings of the libraries that do not hold here."""


def build_trainer(
    cfg: Config,
    folder: Path,
    *,
    stage: str = "",
    identity: str | None = None,
    resumed: bool = False,
    together: bool = False,
) -> pl.Trainer:
    """Return the trainer of a fit; its root folder is the fit's own, and logs go there.

    Args:
        cfg: The fit's configuration.
        folder: Of the fit.
        stage: What is done, in the log and as the name of the run in dashboards.
        identity: The fit's content address; None is no fit, and is shown in no dashboard.
        resumed: Whether the fit goes on from a checkpoint.
        together: Whether all processes of the job train the fit; else this one does.

    Raises:
        UserError: If Lightning refuses the settings, as it does an accelerator that is not there.
    """
    bars = has_bars()
    dashboards = build_loggers(cfg, folder, stage, identity, resumed) if identity and team().leads else []
    callbacks = [build(node, f"callbacks.{name}") for name, node in (cfg["callbacks"] or {}).items() if node]
    bar = StageProgressBar(stage) if bars else LogProgress(stage)
    settings = {name: value for name, value in cfg["trainer"].items() if name != "compile"}  # of the network
    make = partial(
        build,
        settings,
        "trainer",
        strategy=strategy_of(settings),
        inference_mode=settings.get("strategy") != FSDP,  # its gathered weights are trained further
        plugins=[TeamEnvironment(team()) if together else LightningEnvironment()],
        precision=choose_precision(cfg),
        default_root_dir=str(folder),
        callbacks=[*callbacks, bar, *_stops(callbacks)],
        logger=[MetricsCsv(str(folder)), *dashboards],
        enable_checkpointing=any(isinstance(found, pl.callbacks.Checkpoint) for found in callbacks),
        enable_progress_bar=bars,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
    )
    trainer: pl.Trainer = make()
    if trainer.strategy.launcher is not None and trainer.world_size == 1:
        trainer = make(strategy="auto")  # one process is no group, whose address would stay for the next fit
    trainer._signal_connector = NoSignals(trainer)
    trainer.fit_loop.__class__ = ByEpochs
    return trainer


def _stops(callbacks: list[Any]) -> list[pl.Callback]:
    """Return what ends a fit early: with a checkpoint, if one of the callbacks saves any."""
    saving = [found for found in callbacks if isinstance(found, ResumeCheckpoint)]
    return [StopAtStep(saving[0] if saving else None)]


def remove_requeue_checkpoints(folder: Path) -> None:
    """Take away what a requeue left in a root folder: under SLURM, Lightning loads it whatever it is asked to do."""
    for stale in folder.glob("hpc_ckpt_*.ckpt"):
        stale.unlink(missing_ok=True)


def choose_precision(cfg: Config) -> str:
    """Return the trainer's precision; ``auto`` is bf16-mixed where the hardware computes in it, else 32-true.

    Raises:
        UserError: If half precision (fp16) is asked for without a GPU.
    """
    settings = cfg["trainer"]
    precision = str(settings.get("precision", "32-true"))
    gpu = takes_gpu(settings.get("accelerator", "auto"))
    if precision.startswith("16") and not gpu:
        raise no_half_precision("trainer.precision", precision)
    if precision != "auto":
        return precision
    if gpu:
        return "bf16-mixed" if torch.cuda.is_bf16_supported(including_emulation=False) else "32-true"
    probes = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")  # torch has no public name for them
    fast = any(getattr(torch.cpu, probe, lambda: False)() for probe in probes)
    return "bf16-mixed" if fast else "32-true"


def silence_libraries() -> None:
    """Drop the libraries' advice that does not hold here, and their progress bars."""
    disable_progress_bar()
    for name in ("pytorch_lightning", "lightning_fabric", "pytorch_lightning.utilities.rank_zero"):
        logging.getLogger(name).setLevel(logging.ERROR)
    for message in ADVICE:
        warnings.filterwarnings("ignore", message=message)


def train(
    system: NLUSystem, trainer: pl.Trainer, data: MultiTaskData, checkpoint: Path | None
) -> tuple[Config, dict[str, Tensor]]:
    """Fit from the checkpoint or anew.

    Returns:
        Task -> metric -> value of the final weights; then these, where they are divided over processes.
    """
    resume = None if checkpoint is None else str(checkpoint)
    with _group_of(trainer):
        with interruptible(trainer), termination_deferred(), preemption_deferred():
            trainer.fit(system, datamodule=data, ckpt_path=resume, weights_only=True)
        if not trainer.should_stop and trainer.global_step != data.total_steps:  # no callback has ended it early
            raise RuntimeError(f"the fit has ended after step {trainer.global_step:,} of {data.total_steps:,}")
        _evaluate(system, trainer, data)
        whole = whole_state(system)
    scores = scores_of(trainer.callback_metrics)
    final = {f"final/{task}/{metric}": value for task, found in scores.items() for metric, value in found.items()}
    for logger in trainer.loggers:
        if isinstance(logger, WandbRun):
            logger.summarise(final)
    return scores, whole


def _evaluate(system: NLUSystem, trainer: pl.Trainer, data: MultiTaskData) -> None:
    """Evaluate the final weights, if the fit has not; what it logged before it was interrupted is not logged again."""
    loggers, evaluated = trainer.loggers, evaluated_at_the_end(trainer)
    if evaluated and scores_of(trainer.callback_metrics):
        return
    remove_requeue_checkpoints(Path(trainer.default_root_dir))
    if evaluated:
        trainer.loggers = []
    try:
        with interruptible(trainer), preemption_deferred() if trainer.world_size > 1 else nullcontext():
            trainer.validate(system, datamodule=data, verbose=False)
    finally:
        trainer.loggers = loggers


def _group_of(trainer: pl.Trainer) -> AbstractContextManager[None]:
    """Return the group in which the job's processes train, where they do it together."""
    together = isinstance(getattr(trainer.strategy, "cluster_environment", None), TeamEnvironment)
    return team().group(trainer.strategy.root_device.type) if together else nullcontext()


@contextmanager
def interruptible(trainer: pl.Trainer) -> Iterator[None]:
    """Raise KeyboardInterrupt (or Terminated) where a signal ended the trainer's work: Lightning ends the process."""
    try:
        yield
    except SystemExit:
        if not trainer.interrupted:
            raise
    known: Any = trainer  # with an attribute that it does not declare
    for callback in known.callbacks:
        if isinstance(callback, StopAtStep):
            callback.raise_reason()
    if preempted():
        raise Preempted
    if trainer.interrupted:
        raise Terminated if terminated() else KeyboardInterrupt


def evaluated_at_the_end(trainer: pl.Trainer) -> bool:
    """Tell whether a fit has evaluated its last step, be it before it was interrupted."""
    whole_epochs = trainer.max_steps == -1 and not trainer.should_stop
    every_epoch_end = trainer.val_check_interval == 1.0 and isinstance(trainer.val_check_interval, float)
    on_time = not (trainer.max_epochs or 1) % (trainer.check_val_every_n_epoch or 1)
    return whole_epochs and every_epoch_end and on_time


def scores_of(metrics: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Return task -> metric -> value from the trainer's ``val/TASK/METRIC``."""
    scores: dict[str, dict[str, float]] = {}
    for name, value in metrics.items():
        task, _, metric = name.removeprefix("val/").rpartition("/")
        if name.startswith("val/") and task:
            scores.setdefault(task, {})[metric] = float(value)
    return scores
