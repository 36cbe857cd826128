"""``run=FOLDER``: the model of an earlier run, and the data to feed it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from kd_lightning.apps.fits.inputs import FitInputs
from kd_lightning.apps.fits.shared import Shared
from kd_lightning.apps.fits.trained_model import TrainedModel
from kd_lightning.apps.settings.stages import with_settings
from kd_lightning.errors import UserError
from kd_lightning.tasks import Task


@dataclass(frozen=True)
class OpenedRun:
    """A run's trained models, and the tasks and data they are asked about.

    Args:
        inputs: The run's own tasks and data, unless ``task`` or ``data`` are chosen.
        models: All models of the run: one, or one per task.
        folder: The run's, as it was told.
    """

    inputs: FitInputs
    models: tuple[TrainedModel, ...]
    folder: Path

    @classmethod
    def of(cls, cfg: DictConfig) -> OpenedRun:
        """Return the run that ``run=FOLDER`` names.

        Raises:
            UserError: If the folder holds no finished run.
        """
        plain: Any = OmegaConf.to_container(cfg, resolve=True)
        told = plain["run"]
        if not (isinstance(told, str) and told and Path(told).is_dir()):
            where = f" ({Path(told).absolute()})" if isinstance(told, str) else ""
            raise UserError(
                f"run is {'null' if told is None else repr(told)}, expected the folder of a finished run{where}"
            )
        folder = Path(told)
        students = sorted(path.parent for path in folder.glob("student*/fit.json"))
        students.sort(key=lambda place: place.name == "student")  # a task's own, fine-tuned on it, comes first
        chosen = {name: plain[name] for name in ("task", "data") if plain.get(name)}
        hardware = {name: value for name, value in plain["trainer"].items() if value is not None}
        models = []
        for place in students or [folder]:
            model = TrainedModel.open(place)
            settings = {"paths": plain["paths"], "trainer": {**model.cfg["trainer"], **hardware}}
            if plain["eval_batch_size"] is not None:
                settings["batching"] = {**model.cfg["batching"], "eval_batch_size": plain["eval_batch_size"]}
            models.append(TrainedModel(place, {**model.cfg, **settings}))
        tasks = {name: node for model in models for name, node in model.cfg["task"].items()}
        inputs_cfg = {**models[0].cfg, "task": tasks, **chosen}
        for name, node in (plain.get("task") or {}).items():
            if isinstance(node, dict) and "_target_" not in node:  # what is not said of it is the run's
                inputs_cfg["task"][name] = with_settings(tasks.get(name, {}), node)
        return cls(FitInputs(inputs_cfg, Shared.of(inputs_cfg)), tuple(models), folder)

    def models_for(self, task: Task) -> list[TrainedModel]:
        """Return the models whose mean predicts a task: one, or all of its students where each teacher has its own.

        Raises:
            UserError: If none has a head for it.
        """
        found = [model for model in self.models if task.head_name in model.cfg["task"]]
        if found:
            return [model for model in found if _is_numbered(model)] if _is_numbered(found[0]) else found[:1]
        known = ", ".join(name for model in self.models for name in model.cfg["task"])
        raise UserError(f"no model of {self.folder} has a head for {task.head_name}, expected {known}")


def _is_numbered(model: TrainedModel) -> bool:
    """Tell whether a model is one of several students: ``student-2``, ``student-TASK-2``."""
    whose, _, number = model.folder.name.rpartition("-")
    return number.isdigit() and whose in ("student", *(f"student-{task}" for task in model.cfg["task"]))
