"""What kd-predict has written of the models of the runs: whose it is, and of which rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from omegaconf import OmegaConf

from kd_lightning.apps.reports.collect import Run
from kd_lightning.apps.reports.group import Group
from kd_lightning.apps.reports.noted import began_in, read_yaml
from kd_lightning.errors import UserError, first_line
from kd_lightning.files import files_named, last_change


class Split(NamedTuple):
    """The rows that were predicted."""

    task: str
    name: str


Predictions = dict[Split, dict[tuple[str, str], dict[int, pd.DataFrame]]]
"""Split -> (group, role) -> seed -> table by row id, with ``prediction`` and ``label``: classes' names, or scores."""


def predictions(folders: Sequence[Path], groups: Sequence[Group]) -> tuple[Predictions, list[str]]:
    """Return the predictions of the groups' students and baselines, and what could not be read.

    The commands that wrote them are found by what Hydra notes of each, their models by the folders of the runs. Of two
    that wrote one file, the later counts. Only tables with labels tell who is right.

    Args:
        folders: Where the commands ran, at any depth.
        groups: Of the runs.
    """
    owners = _owners(groups)
    found: Predictions = {}
    written, lines = _written(folders)
    for path, model in written.items():
        for group, role, seed, tasks in owners.get(model, ()):
            task = next((name for name in tasks if path.stem.startswith(f"{name}-")), None)
            if task is None:
                continue
            try:
                table = _table(path)
            except UserError as error:
                lines.append(f"{error}: these predictions are left out")
                break
            split = Split(task, path.stem.removeprefix(f"{task}-"))
            if table is not None:
                found.setdefault(split, {}).setdefault((group, role), {})[seed] = table
    tasks = list(dict.fromkeys(task for group in groups for run in group.runs for task in run.summary["tasks"]))
    ordered = sorted(found, key=lambda split: (tasks.index(split.task), split.name))
    return {split: found[split] for split in ordered}, lines


def _owners(groups: Sequence[Group]) -> dict[Path, list[tuple[str, str, int, list[str]]]]:
    """Return folder of a model -> its group, role, seed and tasks, in each run that has it."""
    found: dict[Path, list[tuple[str, str, int, list[str]]]] = {}
    for group in groups:
        for run in group.runs:
            for place, role, tasks in _models(run):
                found.setdefault(place, []).append((group.name, role, run.summary["seed"], tasks))
    return found


def _models(run: Run) -> Iterator[tuple[Path, str, list[str]]]:
    tasks = list(run.summary["tasks"])
    yield run.folder.resolve(), "student", tasks
    for handed_over in run.folder.glob("student*"):
        yield handed_over.resolve(), "student", tasks
    places = run.summary.get("folders") or {}
    baselines = {**places.get("baseline", {}), **places.get("baseline_fine_tuned", {})}
    for task, each in baselines.items():
        if len(each) == 1:
            yield (run.began_in / each[0]).resolve(), "baseline", [task]


def _written(folders: Sequence[Path]) -> tuple[dict[Path, Path], list[str]]:
    """Return file -> folder of the model, of all tables that kd-predict has written, and what could not be read."""
    composed = (path for folder in folders for path in files_named("config.yaml", folder))
    noted = {path.resolve() for path in composed if path.parent.name == ".hydra"}
    found: dict[Path, Path] = {}
    lines = []
    for written, path in sorted((last_change(path), path) for path in noted):
        if not written:
            continue
        own = path.parents[1]
        try:
            told = OmegaConf.create(read_yaml(path))
            is_ours = {"run", "split", "format"} <= {*told} and told.get("run") is not None
            start = began_in(own) if is_ours else own
        except UserError as error:
            lines.append(f"{error}: if these are predictions, they are left out")
            continue
        if is_ours and told["format"] == "csv":
            output = own if told["output"] is None else start / str(told["output"])  # a number may be a name
            name = "*" if told["file"] is None else Path(str(told["file"])).stem
            files = [file.resolve() for file in sorted(output.glob(f"*-{name}.csv"))]
            if output != own:  # where other commands write, too
                files = [file for file in files if last_change(file) >= written]
            found |= dict.fromkeys(files, (start / str(told["run"])).resolve())
    return found, lines


def _table(path: Path) -> pd.DataFrame | None:
    """Return a table of kd-predict by row id; None without labels, or of a ranking.

    Raises:
        UserError: If it cannot be read, or an id stands there twice.
    """
    try:
        table = pd.read_csv(path, dtype={"id": str}, keep_default_na=False).set_index("id")
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{path} cannot be read ({first_line(error)})") from error
    if not {"label", "prediction"} <= {*table} or "rank" in table:
        return None
    if table.index.has_duplicates:
        raise UserError(f"{path}: the id '{table.index[table.index.duplicated()][0]}' stands there twice")
    scored = not any(str(name).startswith("p_") for name in table)
    return table[["prediction", "label"]].astype(float if scored else str)
