"""``kd-train``: one fit of one system, in the run's own folder."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from kd_lightning.apps.build import Config, Materials
from kd_lightning.apps.fit import identity, run_fit
from kd_lightning.apps.report import show_scores, write_train_report
from kd_lightning.callbacks import resume_path
from kd_lightning.data import SoftTargets
from kd_lightning.errors import UserError

log = logging.getLogger(__name__)


def run(cfg: DictConfig) -> float | None:
    """Train; return the average score (the objective of a sweep)."""
    plain: Any = OmegaConf.to_container(cfg, resolve=True)
    folder = Path(HydraConfig.get().runtime.output_dir)
    materials = Materials(plain)
    soft_targets = open_soft_targets(plain, materials)
    folder, checkpoint = find_checkpoint(plain, folder, materials, soft_targets)
    result = run_fit(plain, folder, plain["name"], materials, soft_targets, checkpoint)
    write_train_report(folder, plain, result, materials.tasks)
    show_scores(f"{plain['name']}: {folder}", result["scores"])
    return result["scores"].get("average", {}).get("average")


def open_soft_targets(cfg: Config, materials: Materials) -> dict[tuple[str, str], SoftTargets]:
    """Return the soft targets that the configuration names: task -> folder, or task -> split -> folder.

    Raises:
        UserError: If a task is not trained here, or the targets are of other data.
    """
    found = {}
    for name, folders in cfg["soft_targets"].items():
        if name not in {task.name for task in materials.tasks}:
            raise UserError(f"soft_targets names the task {name}, which is not trained: expected one of task=[...]")
        for split, folder in ({"train": folders} if isinstance(folders, str) else folders).items():
            targets = SoftTargets.open(Path(folder))
            rows = materials.training_rows.get((name, split))
            wanted = {"task": name, "split": split, "data": rows.fingerprint if rows else "absent"}
            for field, value in wanted.items():
                if getattr(targets.manifest, field) != value:
                    raise UserError(
                        f"soft targets {folder}: field {field} is {getattr(targets.manifest, field)}, "
                        f"expected {value}; write them again with kd-predict format=soft_targets"
                    )
            found[name, split] = targets
    return found


def find_checkpoint(
    cfg: Config, folder: Path, materials: Materials, soft_targets: dict[tuple[str, str], SoftTargets]
) -> tuple[Path, Path | None]:
    """Return the folder to train in and the checkpoint to continue from.

    ``ckpt_path=last`` continues the newest run of this name with the same settings and data, in its own folder.

    Raises:
        UserError: If there is no such run, or no such file.
    """
    wanted = cfg["ckpt_path"]
    if wanted is None:
        return folder, None
    if wanted != "last":
        if not Path(wanted).is_file():
            raise UserError(f"ckpt_path is '{wanted}', expected 'last' or a file ({Path(wanted).absolute()})")
        return folder, Path(wanted)
    if resume_path(folder).is_file():
        return folder, resume_path(folder)
    address = identity(cfg, materials, soft_targets)
    others = sorted(folder.parent.glob("*/checkpoints/last.ckpt"), key=lambda path: path.stat().st_mtime, reverse=True)
    for checkpoint in others:
        other = checkpoint.parents[1]
        if (other / "identity").is_file() and (other / "identity").read_text() == address:
            return other, checkpoint
    raise UserError(
        f"ckpt_path=last: none of the {len(others)} runs under {folder.parent} with a checkpoint has these settings "
        "and this data; leave ckpt_path out to start anew"
    )
