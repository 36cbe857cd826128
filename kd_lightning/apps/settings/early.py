"""What can be said about a configuration before anything heavy is imported."""

from __future__ import annotations

import re
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from kd_lightning.apps.arguments import as_told, told_by
from kd_lightning.apps.settings.first_stage import first_stage
from kd_lightning.apps.settings.hardware import check_compiler, check_precision
from kd_lightning.apps.settings.kinds import check_kinds
from kd_lightning.apps.settings.names import check_apart, numbers_to_names
from kd_lightning.apps.settings.paths import check_folder, make_absolute
from kd_lightning.apps.settings.stage_checks import check_changes, check_keys, check_stages
from kd_lightning.apps.settings.stages import OF_A_FIT, WHERE_TUNED, listed, students
from kd_lightning.apps.settings.trainer import check_trainer
from kd_lightning.apps.settings.unused import check_launched, check_own_folder, check_unused, warn_of_overridden
from kd_lightning.errors import UserError, first_line, told_in
from kd_lightning.fields import is_whole

OF_SYSTEMS = ("annealing", "distill_loss")
"""Groups that not every system reads."""


def check_early(cfg: DictConfig) -> None:
    """Resolve a configuration, make the paths of its data absolute, and check the values that are often wrong.

    Raises:
        UserError: If a value is missing, cannot be resolved, or is of the wrong kind.
    """
    if HydraConfig.initialized() and HydraConfig.get().mode is RunMode.RUN:
        told = as_told(HydraConfig.get().overrides.hydra)
        check_launched(told)
        check_own_folder(told, in_sweep=False)
    _check_is_read(cfg)
    resolve(cfg)
    for prefix in _places(cfg):
        check_kinds(cfg, prefix)
        check_trainer(OmegaConf.select(cfg, f"{prefix}trainer"), prefix)
        check_precision(cfg, prefix)
        check_compiler(cfg, prefix)
    if isinstance(cfg.get("task"), DictConfig) and isinstance(cfg.get("system"), DictConfig):
        plain: Any = OmegaConf.to_container(cfg)
        check_unused(plain, _arguments())
        warn_of_overridden(plain, _arguments())
    for name in ("output", "store", "cache"):
        check_folder(f"paths.{name}", OmegaConf.select(cfg, f"paths.{name}", default="."))
    if "name" in cfg:
        check_apart(cfg)
    make_absolute(cfg)


def resolve(cfg: DictConfig) -> None:
    """Put the values in the place of what stands for them in a configuration, and names in that of numbers.

    Raises:
        UserError: If one is missing, or cannot be resolved.
    """
    try:
        numbers_to_names(cfg)
        missing = sorted(OmegaConf.missing_keys(cfg))  # it resolves, too
        if missing:
            raise UserError(f"{missing[0]} has no value: give {missing[0]}=VALUE")
        OmegaConf.resolve(cfg)
    except OmegaConfBaseException as error:
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        raise UserError(first_line(cause).removeprefix("UserError raised while resolving interpolation: ")) from error


def _arguments() -> list[str]:
    """Return the arguments of the command, as Hydra has them."""
    if not HydraConfig.initialized():
        return []
    return told_by(HydraConfig.get())


def _places(cfg: DictConfig) -> list[str]:
    """Return where settings of fits may stand: what comes before their names."""
    if "student" not in cfg:
        return [""]
    _check_seeds(cfg.teacher.seeds)
    if isinstance(cfg.task, DictConfig):  # else the tasks are what is wrong
        plain: Any = OmegaConf.to_container(cfg)
        check_stages(plain)
        if plain["pretrain"] is not None:
            _check_first(plain)
    named = [f"teacher.members.{name}." for name in cfg.teacher.members or ()]
    return ["", "teacher.", *named, *(f"{where}." for where in WHERE_TUNED)]


def _check_first(cfg: dict[str, Any]) -> None:
    """Check the settings of the distillation that comes first, as those of a run of its own."""
    changes = cfg["pretrain"]
    check_changes(cfg, "pretrain", changes, (*OF_A_FIT[1:], "task", "data", "teacher", "seed"))
    tasks = changes.get("task", {})
    if not isinstance(tasks, dict) or not all(isinstance(node, dict) for node in tasks.values()):
        raise UserError(f"pretrain.task is {tasks!r}, expected the options of tasks: +task@pretrain.task=[NAME]")
    check_keys("pretrain.teacher", changes.get("teacher", {}), cfg["teacher"])
    _check_left_out(changes.get("teacher", {}).get("members"), cfg["teacher"]["members"] or {})
    if "_target_" not in changes.get("data", {}):
        check_keys("pretrain.data", changes.get("data", {}), cfg["data"])
    with told_in("pretrain"):
        first = first_stage(cfg)
        known = OmegaConf.create(first)
        for prefix in _places(known):
            check_kinds(known, prefix)
            check_trainer(OmegaConf.select(known, f"{prefix}trainer"), prefix)
            check_precision(known, prefix)
            check_compiler(known, prefix)
    there, here = students(first), students(cfg)
    if there != here:
        raise UserError(
            f"pretrain: student.per_teacher trains {there} students there and {here} after it, expected as many: give "
            "both as many teachers"
        )


def _check_left_out(changes: Any, members: dict[str, Any]) -> None:
    """Check that the members that the first stage leaves out are there."""
    for name, change in changes.items() if isinstance(changes, dict) else ():
        if change is None and name not in members:
            raise UserError(
                f"pretrain.teacher.members.{name} is null, which leaves a member out, and there is none of this name; "
                f"expected some of {listed(members, str(name))}"
            )


def _check_is_read(cfg: DictConfig) -> None:
    """Check that the system reads what the command line chooses for it, before what it reads is filled in."""
    if not isinstance(cfg.get("system"), DictConfig):
        return
    read, arguments = OmegaConf.to_yaml(cfg.system, resolve=False), _arguments()
    first = next((one for one in arguments if one.lstrip("+").startswith("pretrain.")), None)
    if first is not None and "pretrain=null" in [one.lstrip("+") for one in arguments]:
        raise UserError(f"pretrain=null trains no first stage, and {first} is a setting of it: leave one of them out")
    for argument in arguments:
        group = re.split(r"[=.@]", argument.lstrip("+~"))[0]
        if group in OF_SYSTEMS and f"${{{group}" not in read:
            system = str(cfg.system.get("_target_")).rpartition(".")[2]
            weighs = "its weight of the labels is system.gold_weight"
            why = weighs if "gold_weight" in cfg.system else "it learns from labels alone"
            raise UserError(f"{argument}: {system} has no {group}, {why}")


def _check_seeds(seeds: Any) -> None:
    if seeds is None:
        return
    distinct = OmegaConf.is_list(seeds) and len(seeds) == len(set(seeds)) > 0
    if not (distinct and all(is_whole(seed, 0) for seed in seeds)):
        raise UserError(f"teacher.seeds is {seeds}, expected a list of distinct whole numbers: teacher.seeds=[1,2,3]")
