"""What is checked of a fit before anything is trained."""

from __future__ import annotations

import json
import logging

from kd_lightning.apps.fits.build import build, build_encoder, build_system
from kd_lightning.apps.fits.fit import Fit
from kd_lightning.apps.fits.refusals import refused_by
from kd_lightning.apps.fits.sharded import refuse_undivided
from kd_lightning.apps.fits.sparse_gradients import refuse_sparse_gradients
from kd_lightning.apps.fits.start import Shapes
from kd_lightning.apps.settings.config import Config
from kd_lightning.data.batches.grouping import check_groups
from kd_lightning.data.batches.train_stream import check_shares, check_single_task
from kd_lightning.data.sampling import probabilities
from kd_lightning.encoders import Encoder
from kd_lightning.encoders.vocabulary import tokenizer_fingerprint
from kd_lightning.errors import UserError
from kd_lightning.systems import NLUSystem
from kd_lightning.tasks import Task

log = logging.getLogger(__name__)

FEW_STEPS = 100
"""Below it, a scored model is most often one that has not begun to learn, and we say so."""


def check_fit(fit: Fit, encoders: dict[str, Encoder]) -> Shapes:
    """Build all that a fit is made of and throw it away, so that a mistake is told before hours of other work.

    Args:
        fit: The fit.
        encoders: Recipe -> encoder, of the fit that was checked last; many large ones would not fit beside each
            other.

    Returns:
        The shapes of its heads.

    Raises:
        UserError: If the data is wrong, or a constructor refuses its settings.
    """
    read = {**fit.inputs.labelled_rows, **fit.inputs.evaluation_rows}
    log.debug("%s: %d rows with labels", fit.stage, sum(rows.count for rows in read.values()))
    batch, processes = fit.cfg["batching"]["batch_size"], fit.processes
    check_shares(batch, processes)
    refuse_waiting_heads(fit.cfg, processes)
    for task in fit.inputs.tasks:
        if task.kind == "ranking":
            check_single_task(task.name, fit.cfg["batching"]["single_task"])
            _check_groups(fit, task, batch // processes)
    system = _build(fit, encoders)
    refuse_sparse_gradients(fit.idle_trainer, system.encoder)
    refuse_undivided(fit.cfg, system, processes)
    refused_by("optimizer", fit.cfg["optimizer"], system.make_optimizer, system.encoder, system.heads)
    sampler = build(fit.cfg["task_sampler"], "task_sampler")
    for progress in (0.0, 1.0):
        refused_by("task_sampler", fit.cfg["task_sampler"], probabilities, sampler, fit.inputs.sizes, progress)
    fit.count_steps()
    return {name: tuple(weight.shape) for name, weight in system.heads.state_dict().items()}


def _build(fit: Fit, encoders: dict[str, Encoder]) -> NLUSystem:
    """Return the fit's system, around an encoder that is there already if it has the same recipe."""
    tokenizer = fit.inputs.tokenizer  # of a new vocabulary the real one: a file may have vectors of other words
    sparse = getattr(fit.encoder_spec, "sparse", None)
    recipe = json.dumps([fit.cfg["encoder"], sparse, tokenizer_fingerprint(tokenizer)], sort_keys=True)
    if recipe not in encoders:
        encoders.clear()
        encoders[recipe] = build_encoder(fit.encoder_spec, tokenizer)
    return build_system(fit.cfg, fit.inputs.tasks, encoders[recipe])


def _check_groups(fit: Fit, task: Task, batch_rows: int) -> None:
    """Check a task's questions, once for all fits of the run."""
    asked = f"questions of {task.name} in batches of {batch_rows}"
    labelled = fit.inputs.labelled_rows.get((task.name, "train"))
    if labelled is not None and asked not in fit.shared.told:
        check_groups(task, "train", labelled, batch_rows)
        fit.shared.told.add(asked)


def warn_of_few_steps(fit: Fit, where: str = "") -> None:
    """Say so if a fit is too short to expect anything of it, and by which setting.

    Args:
        fit: The fit.
        where: What comes before the setting's name.
    """
    trainer, steps = fit.idle_trainer, fit.count_steps()
    if steps < FEW_STEPS and trainer.limit_train_batches == 1.0:  # who limits them wants a trial
        setting = f"{where}{fit.prefix}trainer.{'max_epochs' if trainer.max_steps == -1 else 'max_steps'}"
        log.warning("%s: %d steps are few; if it stays at chance, raise %s", fit.stage, steps, setting)


def refuse_waiting_heads(cfg: Config, processes: int) -> None:
    """Refuse a strategy that waits for the gradients of all heads: a batch of several tasks may lack one of them.

    Raises:
        UserError: If there are several tasks and processes, and the strategy does so.
    """
    strategy, looks = str(cfg["trainer"]["strategy"]), "_find_unused_parameters_true"
    if processes > 1 and len(cfg["task"]) > 1 and strategy.startswith(("auto", "ddp")) and not strategy.endswith(looks):
        kind = strategy.removesuffix("_find_unused_parameters_false")
        how = "accelerator=ddp (ddp_cpu without GPUs)" if kind == "auto" else f"{kind}{looks}"
        raise UserError(
            f"trainer.strategy is {strategy}, under which {processes} processes wait for the gradients of all heads, "
            f"but a batch may lack one of {len(cfg['task'])} tasks: use {how}"
        )
