"""Which settings are whole numbers, numbers, true or false, in every option that has them."""

from __future__ import annotations

from typing import Any

from omegaconf import DictConfig, OmegaConf

from kd_lightning.errors import UserError
from kd_lightning.fields import is_whole

WHOLE_NUMBERS = {
    "seed": 0,
    "batching.batch_size": 1,
    "batching.eval_batch_size": 1,
    "batching.window": 1,
    "batching.epoch_rows": 1,
    "trainer.log_every_n_steps": 1,
    "trainer.accumulate_grad_batches": 1,
    "encoder.max_length": 8,  # the special tokens of a pair, and some words
    "encoder.hidden_size": 1,
    "encoder.words.size": 1,
    "encoder.words.vocab_size": 3,  # padding, the unknown word, and one more
    "system.head.hidden_size": 1,
    "augmenter.n_iter": 1,
    "augmenter.max_ngram": 1,
    "augmenter.seed": 0,
    "data.limit": 1,
    "eval_batch_size": 1,
}
"""Setting -> its lowest value; null stands for a default where there is one. ``teacher.`` may stand before each."""

NUMBERS = (
    "annealing.gold_weight",
    "augmenter.p_mask",
    "augmenter.p_ng",
    "augmenter.p_pos",
    "distill_loss.temperature",
    "encoder.dropout",
    "optimizer.layer_decay",
    "optimizer.lr",
    "optimizer.optimizer.eps",
    "optimizer.optimizer.rho",
    "optimizer.weight_decay",
    "scheduler.warmup",
    "system.gold_weight",
    "system.head.dropout",
    "task_sampler.temperature",
    "trainer.gradient_clip_val",
)
"""Settings that are numbers; their ranges are their constructors'. ``teacher.`` may stand before each."""

NO_NUMBER = ("encoder.dropout", "trainer.gradient_clip_val")
"""Those of them that may be null."""

BOOLEANS = (
    "skip_finished", "baseline", "compile",
    "student.per_teacher", "batching.single_task", "encoder.sparse", "trainer.compile",
)  # fmt: skip
"""Settings that are true or false. ``teacher.`` may stand before each."""


def check_kinds(cfg: DictConfig, prefix: str) -> None:
    """Check that settings are of the kind that they have in every option.

    Args:
        cfg: A configuration, resolved.
        prefix: What comes before the names of a fit's settings: nothing, or ``teacher.``.

    Raises:
        UserError: If one is of another.
    """
    for key, low in WHOLE_NUMBERS.items():
        value = OmegaConf.select(cfg, prefix + key)
        if value is not None and not is_whole(value, low):
            raise UserError(f"{prefix}{key} is {value!r}, expected a whole number of at least {low}")
    for key in BOOLEANS:
        value = OmegaConf.select(cfg, prefix + key)
        if value is not None and not isinstance(value, bool):
            raise UserError(f"{prefix}{key} is {value!r}, expected true or false")
    for key in NUMBERS:
        value = OmegaConf.select(cfg, prefix + key, default=0)
        if not (_is_number(value) or (value is None and key in NO_NUMBER)):
            raise UserError(f"{prefix}{key} is {'null' if value is None else repr(value)}, expected a number")
    unlabelled = OmegaConf.select(cfg, f"{prefix}batching.unlabelled")
    if unlabelled is not None and not isinstance(unlabelled, bool) and unlabelled != "only":
        raise UserError(
            f"{prefix}batching.unlabelled is {unlabelled!r}, expected true, false, or only (no labels at all)"
        )
    betas = OmegaConf.select(cfg, f"{prefix}optimizer.optimizer.betas", default=[0, 0])
    if not (OmegaConf.is_list(betas) or isinstance(betas, list)) or [*map(_is_number, betas)] != [True, True]:
        raise UserError(f"{prefix}optimizer.optimizer.betas is {betas!r}, expected two numbers: [0.9,0.999]")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
