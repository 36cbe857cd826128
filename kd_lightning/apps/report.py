"""What people see at the end of a run: one table on the terminal, the same in ``report.md``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from kd_lightning.apps.build import Config
from kd_lightning.apps.summary import ROLES
from kd_lightning.data.folders import write_text

Row = Sequence[str]

SPLITS = ("train", "unlabelled", "synthetic", "validation")
"""What is counted of a task's rows."""


def percent(value: float | None) -> str:
    """Return a score as a percentage with one digit, or a dash."""
    return "-" if value is None else f"{100 * value:.1f}"


def gain(student: float | None, baseline: float | None) -> str:
    """Return the difference in percentage points, with its sign; none is +0.0."""
    return "-" if student is None or baseline is None else f"{round(100 * (student - baseline), 1) + 0.0:+.1f}"


def megabytes(parameters: int) -> str:
    """Return the size of float32 weights."""
    return f"{parameters * 4 / 1e6:.1f} MB"


def distillation_rows(summary: Config) -> tuple[Row, list[Row]]:
    """Return the header and the rows of a distillation's table: tasks, average, then what the models cost."""
    tasks = summary["tasks"]
    roles = [role for role in ROLES if any(task[role] is not None for task in tasks.values())]
    with_gain = {"baseline", "student"} <= set(roles)

    def scored(name: str, scores: Config) -> Row:
        gained = [gain(scores["student"], scores["baseline"])] if with_gain else []
        return [name, *(percent(scores[role]) for role in roles), *gained]

    def cost(name: str, costs: Config, form: Callable[[Any], str]) -> Row:
        of_role = {"teacher": costs["teacher"], "baseline": costs["student"], "student": costs["student"]}
        return [name, *(_show(of_role.get(role), form) for role in roles), *([""] if with_gain else [])]

    rows = [scored(f"{name} ({task['metric']})", task) for name, task in tasks.items()]
    rows.append(scored("average", summary["average"]))
    rows.append(cost("parameters", summary["parameters"], lambda count: f"{count / 1e6:.2f} M"))
    bare = {role: summary["parameters"][f"{role}_without_embeddings"] for role in ("teacher", "student")}
    rows.append(cost("without embeddings", bare, lambda count: f"{count / 1e6:.2f} M"))
    rows.append(cost("size", summary["parameters"], megabytes))
    rows.append(cost("latency, 1 row", summary["latency_ms"], lambda ms: f"{ms:.1f} ms"))
    return ["task (metric)", *roles, *(["gain"] if with_gain else [])], rows


def _show(value: Any, form: Callable[[Any], str]) -> str:
    return "-" if value is None else form(value)


def show_table(title: str, header: Row, rows: Sequence[Row]) -> None:
    """Print a table; the average stands apart from the tasks."""
    table = Table(title=title, title_justify="left", title_style="bold")
    for i, name in enumerate(header):
        table.add_column(name, justify="left" if i == 0 else "right", no_wrap=True)
    for i, row in enumerate(rows):
        following = rows[i + 1][0] if i + 1 < len(rows) else ""
        table.add_row(*row, end_section=following in ("average", "parameters"))
    console = Console()
    console.print(table, soft_wrap=not console.is_terminal)


def markdown(header: Row, rows: Sequence[Row]) -> str:
    """Return the table in Markdown."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def show_scores(title: str, scores: Mapping[str, Mapping[str, float]]) -> None:
    """Print the scores of one model, every metric of every task."""
    rows = [[task, metric, percent(value)] for task, metrics in scores.items() for metric, value in metrics.items()]
    show_table(title, ["task", "metric", "score"], rows)


def write_report(folder: Path, summary: Config) -> None:
    """Write ``report.md``: the table, then what a reader needs to trust it."""
    seconds = ", ".join(f"{stage} {value:.0f}" for stage, value in summary["seconds"].items())
    data = "\n".join(
        f"- {name}: {', '.join(f'{rows.get(split, 0):,} {split}' for split in SPLITS)} rows "
        f"(fingerprint {rows['fingerprint']})"
        for name, rows in summary["data"].items()
    )
    versions = ", ".join(f"{name} {value}" for name, value in summary["versions"].items())
    header, rows = distillation_rows(summary)
    text = f"""# {summary["experiment"]}, seed {summary["seed"]}

{markdown(header, rows)}

{" ".join(_explanations(summary, header))}

- system: {summary["system"]}, configuration {summary["config_hash"]} (config.yaml)
- seconds by stage: {seconds}
{data}
- versions: {versions}
"""
    write_text(folder / "report.md", text)


def _explanations(summary: Config, header: Row) -> Iterator[str]:
    """Yield what the table does not say of itself, for the columns that it has."""
    yield "Scores are percentages on the validation splits."
    if "gain" in header:
        yield "`gain` is student minus baseline, in points."
        yield "The baseline is the same student without a teacher, on the same number of steps."
        unlabelled = {
            (data["unlabelled"] + data.get("synthetic", 0)) / data["train"] for data in summary["data"].values()
        }
        if len(unlabelled) > 1:
            yield "It draws its tasks by their labelled rows, the student by all of its rows: part of the gain may come"
            yield "from another mix of tasks (not with `task_sampler=uniform`)."
    if "ensemble" in header:
        yield "`teacher` is the mean of the teachers' scores, `ensemble` that of their averaged predictions."
    yield "`average` is GLUE's: a task with several metrics counts with their mean."
    counts = {
        role: len({path for paths in found.values() for path in paths}) for role, found in summary["folders"].items()
    }
    several = [f"{count} {role}s" for role, count in counts.items() if count > 1]
    if several:
        yield f"Parameters, size and latency are those of one model; there are {' and '.join(several)}."
