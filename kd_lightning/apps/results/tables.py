"""Tables of a run's results: their columns and rows, on the terminal and in Markdown."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from kd_lightning.apps.results.roles import GROUPS, MEASURED, ROLES
from kd_lightning.apps.settings.config import Config

Row = Sequence[str]

LABELS = {role: role.replace("_fine_tuned", ", fine-tuned") for role in ROLES}
"""Role -> what tables call it."""

GAINS = {"student": "baseline", "student_fine_tuned": "baseline_fine_tuned"}
"""Who gains -> over whom."""

LONG = 9
"""Letters of a number that nobody writes by hand."""

AVERAGES = tuple(f"average {group}" for group in GROUPS)
"""Rows of averages over some of the tasks, in their order."""


def percent(value: float | None) -> str:
    """Return a score as a percentage with one digit, or a dash."""
    return "-" if value is None else f"{100 * value:.1f}"


def gain(student: float | None, baseline: float | None) -> str:
    """Return the difference in percentage points, with its sign; none is +0.0."""
    return "-" if student is None or baseline is None else f"{round(100 * (student - baseline), 1) + 0.0:+.1f}"


def megabytes(parameters: int) -> str:
    """Return the size of float32 weights."""
    return f"{parameters * 4 / 1e6:.1f} MB"


def briefly(values: Sequence[str]) -> dict[str, str]:
    """Return settings as tables show them: of numbers that a search has drawn four digits, unless two become one.

    Example:
        >>> briefly(["0.00042074820750", "3e-05", "0.75", "1234567.25", "linear"])["0.00042074820750"]
        '0.0004207'
        >>> list(briefly(["0.12345678901", "0.12345678902"]).values())
        ['0.12345678901', '0.12345678902']
    """
    found = {value: _brief(value) for value in values}
    return found if len(set(found.values())) == len(found) else {value: value for value in values}


def _brief(value: str) -> str:
    drawn = re.fullmatch(r"-?\d{1,3}\.\d+(e-?\d+)?", value) is not None and len(value) > LONG
    return f"{float(value):.4g}" if drawn else value


Column = Callable[[Config], str]
"""From the scores of a task, or an average, to a cell."""


def columns(rows: Iterable[Config]) -> dict[str, Column]:
    """Return the columns of a table: the roles that some row has, and who gains over whom.

    Args:
        rows: Role -> score, or None; of each row.
    """
    found_roles = {role for row in rows for role in ROLES if row[role] is not None}
    roles = [role for role in ROLES if role in found_roles]
    found: dict[str, Column] = {}
    for role in roles:
        found[LABELS[role]] = partial(_score, role)
        for student, baseline in GAINS.items():
            if role == student and baseline in roles:
                name = "gain" if student == "student" else "gain, fine-tuned"
                found[name] = partial(_gain, student, baseline)
    return found


def _score(role: str, scores: Config) -> str:
    return percent(scores[role])


def _gain(student: str, baseline: str, scores: Config) -> str:
    return gain(scores[student], scores[baseline])


def distillation_rows(summary: Config) -> tuple[Row, list[Row]]:
    """Return the header and the rows of a distillation's table: tasks, averages, then what the models cost."""
    tasks, cells = summary["tasks"], columns(summary["tasks"].values())

    def scored(name: str, scores: Config) -> Row:
        return [name, *(cell(scores) for cell in cells.values())]

    def cost(name: str, costs: Config, form: Callable[[Any], str]) -> Row:
        of_column = {role: costs[role] for role in MEASURED}
        empty = {name: "" for name in cells if name.startswith("gain") or name.endswith("fine-tuned")}
        return [name, *(empty.get(column, _show(of_column.get(column), form)) for column in cells)]

    taught = {name: task["teacher"] is not None for name, task in tasks.items()}
    rows = []
    for group, wanted in zip(GROUPS, (True, False), strict=True):
        rows += [scored(f"{name} ({task['metric']})", task) for name, task in tasks.items() if taught[name] is wanted]
        if group in summary["averages"]:
            rows.append(scored(f"average {group}", summary["averages"][group]))
    rows.append(scored("average", summary["average"]))
    rows.append(cost("parameters", summary["parameters"], lambda count: f"{count / 1e6:.2f} M"))
    bare = {role: summary["parameters"][f"{role}_without_embeddings"] for role in MEASURED}
    rows.append(cost("without embeddings", bare, lambda count: f"{count / 1e6:.2f} M"))
    rows.append(cost("size", summary["parameters"], megabytes))
    rows.append(cost("latency, 1 row", summary["latency_ms"], lambda ms: f"{ms:.1f} ms"))
    return ["task (metric)", *cells], rows


def teacher_rows(summary: Config) -> tuple[Row, list[Row]]:
    """Return the header and the rows of the table of teachers: each one's main scores by task, before and after."""
    tasks = {name: task["metric"] for name, task in summary["tasks"].items()}
    rows: list[Row] = []
    for teacher in summary["teachers"]:
        chosen = f" (chosen for {', '.join(teacher['chosen'])})" if teacher["chosen"] else " (not chosen)"
        kept = "" if len(teacher["chosen"]) == len(teacher["scores"]) else chosen
        for suffix, scores in (("", teacher["scores"]), (", fine-tuned", teacher["fine_tuned"])):
            if scores:
                found = [percent(scores.get(task, {}).get(metric)) for task, metric in tasks.items()]
                size = "" if suffix or teacher["parameters"] is None else f"{teacher['parameters'] / 1e6:.2f} M"
                rows.append([f"{teacher['name']}{suffix}{kept}", *found, size])
    return ["teacher", *tasks, "parameters"], rows


def _show(value: Any, form: Callable[[Any], str]) -> str:
    return "-" if value is None else form(value)


LEGIBLE = 16
"""Least width of a table's first column, if it has as much to say."""

LOG_WIDTH = 10_000
"""In a log, tables are as wide as they are."""


def show_table(title: str, header: Row, rows: Sequence[Row], words: int = 1) -> None:
    """Print a table; averages stand apart from tasks, and tasks with a teacher from those without.

    Args:
        title: Stands above it.
        header: Names of the columns.
        rows: Cells; of several columns of words, a row whose first is empty belongs to the one above.
        words: How many of the columns, the first, hold words; the others hold numbers.
    """
    table = Table()
    for i, name in enumerate(header):
        shown, cells = name.replace(", ", ",\n"), [row[i] for row in rows]
        if i < words:
            table.add_column(escape(shown), overflow="fold", min_width=min(LEGIBLE, max(map(len, [name, *cells]))))
        else:  # a number that is cut is another number
            table.add_column(
                escape(shown), justify="right", no_wrap=True, min_width=max(map(len, [*shown.split("\n"), *cells]))
            )
    grouped = any(row[0] in AVERAGES for row in rows)
    for i, row in enumerate(rows):
        following = rows[i + 1][0] if i + 1 < len(rows) else ""
        ends = row[0] in AVERAGES or following in (("parameters",) if grouped else ("average", "parameters"))
        ends |= words > 1 and following != ""
        table.add_row(*map(escape, row), end_section=ends)
    console, narrowest = Console(), sum((column.min_width or 0) + 3 for column in table.columns) + 1
    room = narrowest if console.is_terminal else LOG_WIDTH
    wide = Console(width=max(console.width, room))
    with wide:  # written at once: jobs beside this one have tables, too
        wide.print(Text(title, style="bold"), soft_wrap=True)  # a path that is cut is none
        wide.print(table, crop=False)


def markdown(header: Row, rows: Sequence[Row], words: int = 1) -> str:
    """Return the table in Markdown; its first columns hold words, the others numbers."""
    lines = [header, [*["---"] * words, *["---:"] * (len(header) - words)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def show_scores(title: str, scores: Mapping[str, Mapping[str, float]]) -> None:
    """Print the scores of one model, every metric of every task."""
    rows = [[task, metric, percent(value)] for task, metrics in scores.items() for metric, value in metrics.items()]
    show_table(title, ["task", "metric", "score"], rows)
