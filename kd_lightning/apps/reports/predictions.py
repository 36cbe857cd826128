"""What kd-predict has written of the models of the runs: whose it is, and of which rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
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


class _Owner(NamedTuple):
    """A run that has a model.

    Args:
        group: Of the run.
        role: Of the model in it.
        run: It itself.
        tasks: Of the model.
    """

    group: str
    role: str
    run: Run
    tasks: list[str]

    @property
    def seed(self) -> int:
        return int(self.run.summary["seed"])

    def split_of(self, table: Path) -> Split | None:
        """Return the rows that a table of the model is of."""
        task = next((name for name in self.tasks if table.stem.startswith(f"{name}-")), None)
        return Split(task, table.stem.removeprefix(f"{task}-")) if task else None


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
    written, lines = _written(folders)
    owners = _owners((one.name, run) for one in groups for run in one.runs)
    found: Predictions = {}
    for path, model in written.items():
        asked = [(split, owner) for owner in owners.get(model, ()) if (split := owner.split_of(path))]
        try:
            table = _table(path) if asked else None
        except UserError as error:
            lines.append(f"{error}: these predictions are left out")
            continue
        if table is not None:
            for split, owner in asked:
                found.setdefault(split, {}).setdefault((owner.group, owner.role), {})[owner.seed] = table
    lines += _left_out(groups, written, owners, found)
    tasks = list(dict.fromkeys(task for group in groups for run in group.runs for task in run.summary["tasks"]))
    ordered = sorted(found, key=lambda split: (tasks.index(split.task), split.name))
    return {split: found[split] for split in ordered}, lines


def _owners(runs: Iterable[tuple[str, Run]]) -> dict[Path, list[_Owner]]:
    """Return folder of a model -> each run that has it."""
    found: dict[Path, list[_Owner]] = {}
    for group, run in runs:
        for place, role, tasks in _models(run):
            found.setdefault(place, []).append(_Owner(group, role, run, tasks))
    return found


def _left_out(
    groups: Sequence[Group], written: Mapping[Path, Path], owners: Mapping[Path, Sequence[_Owner]], found: Predictions
) -> list[str]:
    """Return a line for each model of an older run whose rows the run that counts in its place has not predicted.

    Args:
        groups: Of the runs.
        written: Table -> folder of the model.
        owners: Folder of a model -> the runs that count and have it.
        found: What the runs that count have predicted.
    """
    older = _owners((one.name, run) for one in groups for run in one.repeated)
    instead = {(one.name, run.summary["seed"]): run.folder for one in groups for run in one.runs}
    tables: dict[tuple[Path, str, Path], set[str]] = {}
    for path, model in written.items():
        for owner in older.get(model, ()):
            split = owner.split_of(path)
            is_shared = any((each.group, each.seed) == (owner.group, owner.seed) for each in owners.get(model, ()))
            has_these = split in found and owner.seed in found[split].get((owner.group, owner.role), {})
            if split and not is_shared and not has_these and _tells(path):
                of = owner.run.folder, owner.role, instead[owner.group, owner.seed]
                tables.setdefault(of, set()).add(path.stem)
    return [
        f"{run}: its {role}'s predictions of {', '.join(sorted(of))} are left out, since {other} counts in its place"
        for (run, role, other), of in tables.items()
    ]


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
    tables = [(file, since, told) for told in noted for file, since in told.files.items() if _is_table(file)]
    each = [(last_change(file) >= since, since, file, told) for file, since, told in tables]
    found = {}
    for is_newer, _, file, told in sorted(each, key=itemgetter(0, 1)):
        if is_newer or file.parent == told.folder:  # else of another
            found[file] = told.model
    return found, lines


def _is_table(file: Path) -> bool:
    return file.suffix == ".csv" and file.is_file()


def _tells(path: Path) -> bool:
    """Tell whether a table would say who is right, were it whole."""
    try:
        return _table(path) is not None
    except UserError:
        return True


def _table(path: Path) -> pd.DataFrame | None:
    """Return a table of kd-predict by row id; None without labels, or of a ranking.

    Raises:
        UserError: If it cannot be read, or an id stands there twice.
    """
    try:
        table = pd.read_csv(path, dtype={"id": str}, keep_default_na=False).set_index("id")
        if not {"label", "prediction"} <= {*table} or "rank" in table:
            return None
        scored = not any(str(name).startswith("p_") for name in table)
        rows = table[["prediction", "label"]].astype(float if scored else str)
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{path} cannot be read ({first_line(error)})") from error
    if rows.index.has_duplicates:
        raise UserError(f"{path}: the id '{rows.index[rows.index.duplicated()][0]}' stands there twice")
    return rows
