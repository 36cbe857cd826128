"""What dashboards are told of a run: its name, its kind, the runs that it belongs to. All of it is Hydra's.

Each fit that is trained is a run, and so is the job that asked for it; in Weights & Biases they share a group.
"""

from __future__ import annotations

import os
import re
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode

from kd_lightning.apps.arguments import name_of, told_by
from kd_lightning.apps.fits.build import build, learns_from_teachers
from kd_lightning.apps.settings.config import Config
from kd_lightning.apps.settings.config_hash import OF_A_SEED, changes_result, is_place
from kd_lightning.apps.settings.wandb_key import has_wandb_key
from kd_lightning.files import write_text

LONGEST_NAME = 120
"""Letters of a run's name, and of its id, which the service takes."""

RANDOM_BYTES = 3
"""At the end of an id: what begins anew is another run."""

OWN_ID = "wandb_id"
"""The file in the folder of a fit or a job that holds the id of its run."""


@dataclass(frozen=True)
class Shown:
    """What dashboards are told of a fit or a job, beside its configuration.

    Args:
        kind: What it is among the runs of its group.
        name: What it is called.
        stage: What a fit is for; of a job its command.
        identity: A hash of its settings.
        folder: Its own; logs go there.
        resumed: Whether it goes on, and its run with it; what begins anew has a new one.
    """

    kind: str
    name: str
    stage: str
    identity: str
    folder: Path
    resumed: bool


def build_loggers(cfg: Config, folder: Path, stage: str, identity: str, resumed: bool) -> list[Any]:
    """Return the loggers of a fit that its configuration names.

    Args:
        cfg: The fit's configuration.
        folder: Of the fit.
        stage: What the fit is for.
        identity: Its content address.
        resumed: Whether it goes on from a checkpoint.
    """
    kind, job = fit_kind(stage, cfg), kind_of_job()
    shared = job == "distill" and not kind.startswith("student")  # by the jobs of a sweep
    name = f"{stage} {(not shared and settings_told()) or 'seed=' + str(cfg['seed'])}"
    shown = Shown(kind, name, stage, identity, folder, resumed)
    told = {option: node for option, node in (cfg["logger"] or {}).items() if node}
    if os.environ.get("WANDB_SWEEP_ID") and job == "distill":
        told = {option: node for option, node in told.items() if not is_wandb(node)}
    return [build_logger(option, node, cfg, shown) for option, node in told.items()]


def build_logger(option: str, node: Config, cfg: Config, shown: Shown) -> Any:
    """Return a logger of a fit or a job.

    Args:
        option: Its name in ``logger``.
        node: Its settings.
        cfg: The configuration of the fit or the job.
        shown: What it is.
    """
    own: Config = {"save_dir": str(shown.folder)}
    if is_wandb(node):
        own |= run_settings(node, cfg, shown)
    elif node["_target_"].endswith((".MlflowRun", ".MLFlowLogger")):
        own |= {"run_name": shown.name}
    return build(node, f"logger.{option}", **own)


def is_wandb(node: Any) -> bool:
    """Tell whether an option of ``logger`` is a run in Weights & Biases."""
    return isinstance(node, dict) and str(node.get("_target_")).endswith(".WandbRun")


def run_id(shown: Shown) -> str:
    """Return the id of a run, which the folder keeps: what goes on there goes on with its run.

    What has another purpose or other settings there begins anew.
    """
    kept = shown.folder / OWN_ID
    named = re.sub(r"[^A-Za-z0-9_-]+", "-", f"{shown.stage}-{shown.identity}"[-LONGEST_NAME:])
    if shown.resumed and kept.is_file():
        known = kept.read_text(encoding="utf-8").strip()
        if re.fullmatch(rf"{re.escape(named)}-[0-9a-f]{{{2 * RANDOM_BYTES}}}", known):
            return known
    own = f"{named}-{secrets.token_hex(RANDOM_BYTES)}"
    shown.folder.mkdir(parents=True, exist_ok=True)
    write_text(kept, f"{own}\n")
    return own


def run_settings(node: Config, cfg: Config, shown: Shown) -> Config:
    """Return what a ``WandbRun`` is told beside its own settings."""
    system = [cfg["system"]["_target_"].rpartition(".")[2]] if "system" in cfg else []
    settings = " ".join(sorted(text for text in arguments_told() if name_of(text) not in OF_A_SEED))
    facts = {"stage": shown.stage, "identity": shown.identity, "folder": str(shown.folder)}
    facts |= {"settings": settings, "series": f"{shown.stage} {settings}".strip()}
    return {
        "offline": node["offline"] or not has_wandb_key(),
        "id": run_id(shown),
        "name": shortened(shown.name),
        "group": node.get("group") or os.environ.get("WANDB_RUN_GROUP") or group(),
        "job_type": shown.kind,
        "tags": [*node["tags"], *([cfg["name"]] if "name" in cfg else []), *system, *(cfg.get("task") or ())],
        "facts": {"job": {"command": kind_of_job(), **facts}},
    }


def shortened(name: str) -> str:
    """Return a name that the service takes: of a longer one its beginning and its end."""
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME // 3]}...{name[3 - LONGEST_NAME * 2 // 3 :]}"


def fit_kind(stage: str, cfg: Config) -> str:
    """Return what a fit is among the runs of its group: ``teacher``, ``student``, ``baseline_fine_tuned``, ..."""
    if kind_of_job() != "distill":
        return "student" if learns_from_teachers(cfg) else "teacher"
    tuned = "_fine_tuned" if stage.endswith("fine-tuned") else ""
    return stage.split()[0] + tuned


def kind_of_job() -> str:
    """Return the command's name: ``distill``, ``train``, ``evaluate``."""
    return str(HydraConfig.get().job.config_name) if HydraConfig.initialized() else ""


def settings_told() -> str:
    """Return the arguments of the command that say what is trained, in a row."""
    return " ".join(arguments_told())


def arguments_told() -> list[str]:
    """Return the arguments of the command without those on which no result depends: places, hardware, loggers."""
    told = told_by(HydraConfig.get()) if HydraConfig.initialized() else []
    told = [argument.replace("${", "{") for argument in told]  # a logger's settings are resolved once more
    return [argument for argument in told if changes_result(argument) and not is_place(name_of(argument))]


def group() -> str:
    """Return what the runs of a sweep have in common, or those of a job alone: the name of its folder."""
    if not HydraConfig.initialized():
        return ""
    now = HydraConfig.get()
    return Path(now.sweep.dir if now.mode is RunMode.MULTIRUN else now.runtime.output_dir).name
