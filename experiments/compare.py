"""Compare students row by row: means over seeds, and whether one group of them is better than another.

    python experiments/compare.py join plain/1=FILE.csv plain/2=FILE.csv rules/1=FILE.csv ... > predictions.csv
    python experiments/compare.py test predictions.csv LABELS.parquet rules-plain --metric accuracy

`join` puts files of kd-predict beside each other: a row for each example, a column GROUP/SEED for each student, in it
a class (its number, from 0) or a score; with --relevance, of two classes the probability of the second, by which the
candidates of a question are ranked. `test` prints two tables: each group, and each difference of two groups, over
their common seeds, with intervals of 95 %: over seeds (paired t) and over rows (bootstrap of the mean over seeds), and,
not of correlations, the p of a sign-flip test over rows. Of map and mrr (--group COLUMN) questions are in the place of
rows. Intervals over rows leave the chance of teachers out. Students that have one teacher, told as
teacher/SEED=FILE.csv, are compared with what it says, too, in the last column.
"""

from __future__ import annotations

import argparse
import re
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from kd_lightning.apps.reports.paired_rows import (
    BY_ROW,
    FLIPS,
    OF_QUESTIONS,
    Array,
    Groups,
    Metric,
    over_rows,
    sign_flips,
)
from kd_lightning.apps.reports.statistics import interval
from kd_lightning.errors import UserError, first_line


def by_id(path: Path, table: pd.DataFrame, column: str) -> pd.DataFrame:
    """Return a file's table by a column of ids, each of which stands there once.

    Raises:
        UserError: If the column is not there, or an id twice.
    """
    if column not in table:
        raise UserError(f"{path}: found the columns {', '.join(map(str, table))}, expected '{column}' among them")
    table = table.set_index(table[column].astype(str)).drop(columns=column)
    again = table.index[table.index.duplicated()]
    if len(again):
        raise UserError(f"{path}: the id '{again[0]}' stands there {list(table.index).count(again[0])} times")
    return table


def read(path: Path) -> pd.DataFrame:
    """Return a table of predictions by id; no id is taken for a missing value."""
    return by_id(path, pd.read_csv(path, dtype={"id": str}, keep_default_na=False), "id")


def predicted(path: Path, relevance: bool) -> pd.Series:
    """Return the classes (the ``relevance`` of two), or the scores, in a file of kd-predict, by the row's id."""
    table = read(path)
    classes = [name for name in map(str, table) if name.startswith("p_")]
    if not classes and "prediction" not in table:
        raise UserError(f"{path} has no column prediction: expected a file of kd-predict")
    if not classes:
        return table["prediction"]
    if relevance and len(classes) != 2:
        raise UserError(f"{path} has {len(classes)} classes, --relevance expects two: irrelevant, relevant")
    return table[classes[1]] if relevance else pd.Series(table[classes].to_numpy().argmax(1), table.index)


def join(files: list[str], relevance: bool) -> pd.DataFrame:
    """Return the predictions of several files, told as ``GROUP/SEED=FILE``, beside each other.

    Args:
        files: What is told.
        relevance: Whether two classes are joined as the probability of the second.

    Raises:
        UserError: If a file is not told so, or does not have the rows of the others.
    """
    columns: dict[str, pd.Series] = {}
    for one in files:
        name, _, path = one.partition("=")
        if not path or not re.fullmatch(r"[^/-]+/[^/]+", name) or name in columns:
            raise UserError(f"found '{one}', expected GROUP/SEED=FILE.csv, each once, and no - in the group")
        columns[name] = predicted(Path(path), relevance)
        rows = next(iter(columns.values())).index  # of the first file, in its order
        if set(columns[name].index) != set(rows):
            raise UserError(
                f"{path} does not have the rows of the first file: predict the same split with each student"
            )
    return pd.DataFrame(columns).loc[rows].rename_axis("id")


def known_of(table: pd.DataFrame, path: Path, group: str | None) -> tuple[Array, Groups]:
    """Return the labels of a table's rows, from the file of their split, and the numbers of their questions.

    Raises:
        UserError: If the file has other rows, no labels that are numbers, or no column of questions.
    """
    if path.suffix != ".parquet":
        raise UserError(f"{path}: expected a .parquet file, as pandas writes it with to_parquet")
    known = pd.read_parquet(path)
    if "label" not in known or not pd.api.types.is_numeric_dtype(known["label"]):
        raise UserError(f"{path}: expected a column label of numbers, the classes from 0 or the scores")
    known = by_id(path, known if "idx" in known else known.assign(idx=range(len(known))), "idx")
    if set(known.index) != set(table.index):
        raise UserError(f"{path} has {len(known)} rows, the predictions {len(table)}, expected the same ids in both")
    if group is not None and group not in known:
        raise UserError(f"{path}: found the columns {', '.join(map(str, known))}, expected '{group}' among them")
    known = known.loc[table.index]
    if group is not None and known[group].isna().any():
        raise UserError(f"{path}: found rows without a '{group}', expected the question of each")
    return known["label"].to_numpy(float), None if group is None else pd.factorize(known[group])[0]


def over_seeds(differences: Array) -> tuple[float, float]:
    """Return the interval of 95 % of the mean of paired differences ``[S]``, by Student's t."""
    low, high = interval(differences) or (np.nan, np.nan)
    return round(low, 9) + 0.0, round(high, 9) + 0.0  # no minus before a zero


def seeds_of(table: pd.DataFrame) -> dict[str, list[str]]:
    """Return group -> the seeds of its students."""
    found: dict[str, list[str]] = {}
    for name in map(str, table):
        group, _, seed = name.partition("/")
        found.setdefault(group, []).append(seed)
    return found


def predictions_of(table: pd.DataFrame, group: str, seeds: list[str]) -> Array:
    """Return the predictions of a group's students, ``[S, N]``."""
    return table[[f"{group}/{seed}" for seed in seeds]].to_numpy(float).T


def common_seeds(table: pd.DataFrame, pair: str) -> tuple[str, str, list[str]]:
    """Return both groups of ``GROUP-GROUP`` and the seeds that both have.

    Raises:
        UserError: If there is none.
    """
    known, (one, _, other) = seeds_of(table), pair.partition("-")
    seeds = [seed for seed in known.get(one, []) if seed in known.get(other, [])]
    if not seeds:
        raise UserError(f"{pair}: no seed of both, expected two of the groups {', '.join(known)}, as GROUP-GROUP")
    return one, other, seeds


def groups_table(table: pd.DataFrame, metric: Metric) -> list[str]:
    """Return the rows of a table: each group, its students, their mean, deviation, and agreement with a teacher."""
    taught = [name for name in map(str, table) if name.partition("/")[0] == "teacher"]
    lines = ["| group | seeds | scores | mean | sd | teacher |", "| --- | --- | --- | ---: | ---: | ---: |"]
    for group, seeds in seeds_of(table).items():
        found = predictions_of(table, group, seeds)
        scores = metric.score(metric.units(found))
        agrees = ""
        if len(taught) == 1 and group != "teacher" and metric.name not in OF_QUESTIONS:
            of_teacher = replace(metric, labels=table[taught[0]].to_numpy(float))
            agrees = f"{of_teacher.score(of_teacher.units(found)).mean():.1f}"
        shown = ", ".join(f"{score:.1f}" for score in scores)
        spread = f"{scores.std(ddof=1):.1f}" if len(scores) > 1 else ""
        lines.append(f"| {group} | {', '.join(seeds)} | {shown} | {scores.mean():.1f} | {spread} | {agrees} |")
    return lines


def differences_table(table: pd.DataFrame, metric: Metric, pairs: list[str]) -> list[str]:
    """Return the rows of a table: each ``GROUP-GROUP``, over the seeds that both have."""
    lines = ["| difference | seeds | mean | over seeds | over rows | p |", "| --- | ---: | ---: | --- | --- | ---: |"]
    for pair in pairs:
        one, other, seeds = common_seeds(table, pair)
        a, b = (metric.units(predictions_of(table, group, seeds)) for group in (one, other))
        rng = np.random.default_rng(0)
        of_seeds = metric.score(a) - metric.score(b)
        intervals = [over_seeds(of_seeds), over_rows(metric, a, b, rng)]
        shown = ["" if np.isnan(low) else f"{low:+.1f} to {high:+.1f}" for low, high in intervals]
        p = ""
        if metric.is_mean:
            share = sign_flips(a, b, rng)
            p = f"{share:.4f}" if share > 1 / FLIPS else f"< {1 / FLIPS:.5f}"
        lines.append(f"| {one} - {other} | {len(seeds)} | {of_seeds.mean():+.1f} | {' | '.join(shown)} | {p} |")
    return lines


def parser() -> argparse.ArgumentParser:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    joining = commands.add_parser("join", help="put files of kd-predict beside each other")
    joining.add_argument("files", nargs="+", metavar="GROUP/SEED=FILE.csv")
    joining.add_argument("--relevance", action="store_true", help="of two classes the probability of the second")
    testing = commands.add_parser("test", help="compare groups of students")
    testing.add_argument("predictions", type=Path, help="what join wrote")
    testing.add_argument("labels", type=Path, help="the parquet file of the split, with a column `label` of numbers")
    testing.add_argument("pairs", nargs="*", metavar="GROUP-GROUP")
    testing.add_argument("--metric", choices=[*BY_ROW, "pearson"], default="accuracy")
    testing.add_argument("--group", metavar="COLUMN", help="of map and mrr: which question a row is a candidate for")
    return parser


def test(told: argparse.Namespace) -> list[str]:
    """Return both tables.

    Raises:
        UserError: If a file is of other rows, or the metric of other tasks.
    """
    table = read(told.predictions)
    if (told.metric in OF_QUESTIONS) != (told.group is not None):
        raise UserError("--group COLUMN goes with --metric map or mrr: the column of a row's question")
    metric = Metric(told.metric, *known_of(table, told.labels, told.group))
    for name in table if told.metric in OF_QUESTIONS else ():
        if not (table[name].to_numpy(float) % 1).any():
            raise UserError(f"{told.predictions}: {name} has classes, which rank nothing: join with --relevance")
    if told.metric == "accuracy" and (table.to_numpy(float) % 1).any():
        raise UserError(f"{told.predictions} has scores, not classes: add --metric pearson (or map, mrr)")
    return [*groups_table(table, metric), "", *differences_table(table, metric, told.pairs)]


def main() -> None:
    """Join files, or test groups of students."""
    told = parser().parse_args()
    try:
        if told.command == "join":
            join(told.files, told.relevance).to_csv(sys.stdout, float_format="%.6g", lineterminator="\n")
        else:
            print("\n".join(test(told)))
    except (UserError, OSError, ValueError) as error:  # pandas' errors of damaged files are ValueErrors
        print(f"compare.py: error: {first_line(error)}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
