"""What kd-predict has written of the models of the runs: whose it is, and of which rows."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from operator import itemgetter
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from kd_lightning.apps.reports.collect import Run
from kd_lightning.apps.reports.group import Group
from kd_lightning.apps.results.predicted import PREDICTED, Predicted
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

    The commands that wrote them are found by what each has noted, their models by the folders of the runs. Of two that
    wrote one file, the later counts. Only tables with labels tell who is right.

    Args:
        folders: Where the commands ran, at any depth.
        groups: Of the runs.
    """
    owners = _owners(groups)
    found: Predictions = {}
    written, lines = _written(folders)
    lines += _of_older_runs(groups, {*written.values()})
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


def _of_older_runs(groups: Sequence[Group], predicted: Collection[Path]) -> list[str]:
    """Return a line for each run of which there are predictions, and none of the later run that counts in its place.

    Args:
        groups: Of the runs.
        predicted: The folders of the models whose predictions there are.
    """

    def has(run: Run) -> bool:
        return any(place in predicted for place, _, _ in _models(run))

    lines = []
    for one in groups:
        known = {run.summary["seed"] for run in one.runs if has(run)}
        for run in filter(has, one.repeated):
            if run.summary["seed"] not in known:
                why = "a later run of the same settings and seed counts"
                lines.append(f"{run.folder}: these predictions are left out, since {why}")
    return lines


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
    noted, lines = [], []
    for note in sorted({path.resolve() for folder in folders for path in files_named(PREDICTED, folder)}):
        try:
            noted.append(Predicted.read(note))
        except UserError as error:
            if note.exists():
                lines.append(f"{error}: its predictions are left out")
    each = [(last_change(file) >= since, since, file, told) for told in noted for file, since in told.files.items()]
    found = {}
    for is_newer, _, file, told in sorted(each, key=itemgetter(0, 1)):
        if file.suffix == ".csv" and file.is_file() and (is_newer or file.parent == told.folder):  # else of another
            found[file] = told.model
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
