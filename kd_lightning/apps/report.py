"""What people see at the end of a run: one table on the terminal, the same in ``report.md``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from kd_lightning.apps.build import Config
from kd_lightning.data.folders import write_json, write_text
from kd_lightning.tasks import Task, glue_average

Row = Sequence[str]


def percent(value: float | None) -> str:
    """Return a score as a percentage with one digit, or a dash."""
    return "-" if value is None else f"{100 * value:.1f}"


def gain(student: float | None, baseline: float | None) -> str:
    """Return the difference in percentage points, with its sign."""
    return "-" if student is None or baseline is None else f"{100 * (student - baseline):+.1f}"


def megabytes(parameters: int) -> str:
    """Return the size of float32 weights."""
    return f"{parameters * 4 / 1e6:.1f} MB"


def distillation_rows(summary: Config) -> tuple[Row, list[Row]]:
    """Return the header and the rows of a distillation's table."""
    roles = [role for role in ("teacher", "ensemble", "baseline", "student") if _has(summary, role)]
    with_gain = {"baseline", "student"} <= set(roles)
    header = ["task (metric)", *roles, *(["gain"] if with_gain else [])]
    rows: list[Row] = []
    for name, task in summary["tasks"].items():
        cells = [percent(task[role]) for role in roles]
        rows.append(
            [f"{name} ({task['metric']})", *cells, *([gain(task["student"], task["baseline"])] if with_gain else [])]
        )
    average = summary["average"]
    cells = [percent(average.get(role)) for role in roles]
    rows.append(["average", *cells, *([gain(average["student"], average["baseline"])] if with_gain else [])])
    sizes = summary["parameters"]
    students = {"baseline": sizes["student"], "student": sizes["student"], "teacher": sizes["teacher"]}
    tail = [""] if with_gain else []
    rows.append(["parameters", *(_show(students.get(r), lambda n: f"{n / 1e6:.2f} M") for r in roles), *tail])
    rows.append(["size", *(_show(students.get(r), megabytes) for r in roles), *tail])
    latency = summary["latency_ms"]
    times = {"baseline": latency["student"], "student": latency["student"], "teacher": latency["teacher"]}
    rows.append(["latency, 1 row", *(_show(times.get(r), lambda ms: f"{ms:.1f} ms") for r in roles), *tail])
    return header, rows


def _has(summary: Config, role: str) -> bool:
    return any(task[role] is not None for task in summary["tasks"].values())


def _show(value: Any, form: Any) -> str:
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
        f"- {name}: {d['train']:,} train, {d['unlabelled']:,} unlabelled, {d['validation']:,} validation rows "
        f"(fingerprint {d['fingerprint']})"
        for name, d in summary["data"].items()
    )
    versions = ", ".join(f"{name} {value}" for name, value in summary["versions"].items())
    text = f"""# {summary["experiment"]}, seed {summary["seed"]}

{markdown(*distillation_rows(summary))}

Scores are percentages on the validation splits; `gain` is student minus baseline, in points. The baseline is the same
student without a teacher, on the same number of steps. `average` is GLUE's: a task with several metrics counts with
their mean.

- system: {summary["system"]}, configuration {summary["config_hash"]} (config.yaml)
- seconds by stage: {seconds}
{data}
- versions: {versions}
"""
    write_text(folder / "report.md", text)


def write_train_report(folder: Path, cfg: Config, result: Config, tasks: Sequence[Task]) -> None:
    """Write ``summary.json`` and ``report.md`` of a single fit, laid out as a distillation with a student alone."""
    summary = summarise(cfg, tasks, {"student": result["scores"]}, result["data"], result["versions"])
    summary["config_hash"] = result["identity"]
    summary["parameters"]["student"] = result["parameters"]
    summary["parameters"]["student_without_embeddings"] = result["parameters_without_embeddings"]
    summary["seconds"] = {"student": result["seconds"]}
    summary["status"] = "finished"
    write_json(folder / "summary.json", summary)
    write_report(folder, summary)


def summarise(
    cfg: Config,
    tasks: Sequence[Task],
    scores: Mapping[str, Mapping[str, Mapping[str, float]]],
    data: Mapping[str, Any],
    versions: Mapping[str, str],
) -> Config:
    """Return ``summary.json`` so far: who scored what, on what.

    Args:
        cfg: The run's configuration.
        tasks: Its tasks.
        scores: Role -> task -> metric -> value; roles are teacher, ensemble, baseline, student.
        data: Task -> rows of each split and a fingerprint.
        versions: Library -> version.
    """
    roles = ("teacher", "ensemble", "baseline", "student")

    def main(role: str, task: Task) -> float | None:
        return scores[role][task.name][task.metric] if task.name in scores.get(role, {}) else None

    def average(role: str) -> float | None:
        found = scores.get(role, {})
        return glue_average({t.name: found[t.name] for t in tasks}) if all(t.name in found for t in tasks) else None

    return {
        "experiment": cfg["name"],
        "system": cfg["system"]["_target_"].rpartition(".")[2],
        "seed": cfg["seed"],
        "config_hash": "",
        "tasks": {
            task.name: {
                "metric": task.metric,
                **{role: main(role, task) for role in roles},
                "metrics": {role: _metrics(scores[role], task) for role in roles if role in scores},
            }
            for task in tasks
        },
        "average": {role: average(role) for role in roles},
        "parameters": {"teacher": None, "student": None, "student_without_embeddings": None},
        "latency_ms": {"teacher": None, "student": None},
        "seconds": {},
        "data": dict(data),
        "versions": dict(versions),
        "status": "running",
    }


def _metrics(scores: Mapping[str, Mapping[str, float]], task: Task) -> dict[str, float]:
    found = dict(scores.get(task.name, {}))
    for split in task.evaluation[1:]:
        found |= {f"{split}/{metric}": value for metric, value in scores.get(f"{task.name}/{split}", {}).items()}
    return found
