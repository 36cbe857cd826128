"""From the configuration of a distillation to those of its fits: teachers, student, and student without a teacher."""

from __future__ import annotations

import copy
from collections.abc import Iterator

from kd_lightning.apps.build import Config
from kd_lightning.apps.fit import Fit
from kd_lightning.apps.inputs import FitInputs, Shared
from kd_lightning.errors import UserError

PER_FIT = ("encoder", "system", "optimizer", "scheduler", "task_sampler", "batching", "trainer")
"""The settings that a teacher may have of its own."""


def scopes(cfg: Config, role: str) -> list[tuple[str, Config]]:
    """Return, for each model of a role, its stage and the run's configuration with this model's tasks.

    ``ROLE.scope: single`` is one model per task, ``multi`` one of all.

    Raises:
        UserError: If the scope is neither.
    """
    scope = cfg["teacher" if role == "teacher" else "student"]["scope"]
    if scope == "multi":
        return [(role, cfg)]
    if scope == "single":
        return [(f"{role} {name}", {**cfg, "task": {name: node}}) for name, node in cfg["task"].items()]
    raise UserError(f"scope is '{scope}', expected single (one model per task) or multi (one of all tasks)")


def teacher_fits(cfg: Config, shared: Shared) -> Iterator[Fit]:
    """Yield the teachers: the run's settings, with those under ``teacher`` in their place, one fit per seed."""
    own, seeds = cfg["teacher"], cfg["teacher"]["seeds"]
    for stage, scoped in scopes(cfg, "teacher"):
        fit = copy.deepcopy(scoped)
        for name in PER_FIT:
            if name in own:
                kept = fit[name] if name in ("batching", "trainer") else {}
                fit[name] = {**kept, **own[name]}
        fit["batching"] |= {"unlabelled": False, "epoch_rows": own["batching"].get("epoch_rows")}
        fit["augmenter"] = {}
        for seed in seeds:
            yield Fit(stage if len(seeds) == 1 else f"{stage} {seed}", {**fit, "seed": seed}, shared, {}, "teacher.")


def student_fits(cfg: Config, shared: Shared) -> Iterator[Fit]:
    """Yield the students, their soft targets still to come."""
    for stage, scoped in scopes(cfg, "student"):
        yield Fit(stage, scoped, shared, {})


def baseline_fits(cfg: Config, shared: Shared) -> Iterator[Fit]:
    """Yield the students without a teacher: gold labels alone, for as many steps."""
    for stage, scoped in scopes(cfg, "baseline"):
        fit = copy.deepcopy(scoped)
        fit["system"] = cfg["teacher"]["system"] | {
            name: cfg["system"][name] for name in ("reduction", "head") if name in cfg["system"]
        }
        rows = cfg["batching"]["epoch_rows"] or FitInputs(scoped, shared).examples
        fit["batching"] |= {"unlabelled": False, "epoch_rows": rows}
        fit["augmenter"] = {}
        yield Fit(stage, fit, shared, {})
