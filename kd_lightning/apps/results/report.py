"""What people see at the end of a run: one table on the terminal, the same in ``report.md``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from kd_lightning.apps.results.roles import GROUPS, MEASURED, ROLES
from kd_lightning.apps.settings.config import Config
from kd_lightning.files import write_text

Row = Sequence[str]

LABELS = {role: role.replace("_fine_tuned", ", fine-tuned") for role in ROLES}
"""Role -> what tables call it."""

GAINS = {"student": "baseline", "student_fine_tuned": "baseline_fine_tuned"}
"""Who gains -> over whom."""

AVERAGES = tuple(f"average {group}" for group in GROUPS)
"""Rows of averages over some of the tasks, in their order."""

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
    wide.print(Text(title, style="bold"), soft_wrap=True)  # a path that is cut is none
    wide.print(table, crop=False)


def doubt(summary: Config) -> str:
    """Return what speaks against the teacher: that the tasks it teaches go no worse without it; else nothing."""
    average = summary["averages"].get(GROUPS[0], summary["average"])
    teacher = next((role for role in ("ensemble", "teacher") if average.get(role) is not None), None)
    untaught = {role: average[role] for role in GAINS.values() if average.get(role) is not None}
    if teacher is None or not untaught:
        return ""
    best = max(untaught, key=lambda role: untaught[role])
    if average[teacher] > untaught[best]:
        return ""
    one, other = (f"{LABELS[role]} ({percent(average[role])})" for role in (teacher, best))
    return f"The {one} is no better than the {other}."


def markdown(header: Row, rows: Sequence[Row], words: int = 1) -> str:
    """Return the table in Markdown; its first columns hold words, the others numbers."""
    lines = [header, [*["---"] * words, *["---:"] * (len(header) - words)], *rows]
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
    teachers = f"\n{markdown(*teacher_rows(summary))}\n" if len(summary["teachers"]) > 1 else ""
    text = f"""# {summary["experiment"]}, seed {summary["seed"]}{", first stage" if folder.name == "pretrain" else ""}

{markdown(header, rows)}
{teachers}
{chr(10).join(f"- {said}" for said in _explanations(summary, header) if said)}

- system: {summary["system"]}, configuration {summary["config_hash"]} (config.yaml)
- seconds by stage: {seconds}
{data}
- versions: {versions}
"""
    write_text(folder / "report.md", text)


def _shares(ensemble: Config | None) -> str:
    """Return what is averaged if not probabilities alone, and the shares of teachers that do not count the same."""
    if ensemble is None:
        return ""
    unequal = {task: each for task, each in ensemble["shares"].items() if len(set(each.values())) > 1}
    shown = "; ".join(
        f"{task} {', '.join(f'{name} {share:.2f}' for name, share in each.items())}" for task, each in unequal.items()
    )
    of_mean = {
        None: "Each teacher teaches by itself, a head or a student; `ensemble` averages their predictions.",
        "logits": "Averaged are logits.",
    }
    said = [of_mean[ensemble["mean"]]] if ensemble["mean"] in of_mean else []
    return " ".join([*said, *[f"Shares of the teachers: {shown}."] * bool(shown)])


def _explanations(summary: Config, header: Row) -> Iterator[str]:
    """Yield what the table does not say of itself, for the columns that it has."""
    average = "`average` is GLUE's: a task with several metrics counts with their mean."
    yield f"Scores are percentages on the splits that are evaluated. {average}"
    if "gain" in header:
        yield (
            "`gain` is student minus baseline, in points. The baseline is the same student without a teacher (and with "
            "one head), on the same number of steps."
        )
        yield doubt(summary)
        unlabelled = {
            (data["unlabelled"] + data.get("synthetic", 0)) / data["train"] if data["train"] else None
            for data in summary["data"].values()
        }
        if len(unlabelled) > 1:
            yield (
                "The baseline draws its tasks by their labelled rows, the student by all of its rows: part of the gain "
                "may come from another mix of tasks (not with `task_sampler=uniform`)."
            )
    if "ensemble" in header:
        averaged = "`teacher` is the mean of the teachers' scores, `ensemble` that of their averaged predictions."
        yield f"{averaged} {_shares(summary['ensemble'])}".rstrip()
    if "student, fine-tuned" in header:
        some = any(task["student_fine_tuned"] is None for task in summary["tasks"].values())
        yield (
            "Fine-tuned models went on from there on one task alone, on gold labels; their size is the student's."
            f"{' In their averages, tasks that were not fine-tuned count as they were before.' if some else ''}"
        )
    if summary["pretrain"]:
        first = ", ".join(summary["pretrain"]["tasks"])
        anew = " The baseline begins anew: it has the steps of the second stage alone." if "gain" in header else ""
        yield f"The student went on from one that was distilled before, on {first} (pretrain/report.md).{anew}"
    yield f"Latency is the median of repeated calls on this machine, as busy as it was.{_one_of_several(summary)}"


def _one_of_several(summary: Config) -> str:
    """Return whose sizes and latencies the table has, where there are several models of a role."""
    of_role = {role: summary["folders"].get(role, {}) for role in ROLES}
    final = {"student": {**of_role["student"], **of_role["student_fine_tuned"]}, "teacher": of_role["teacher"]}
    counts = {role: len({path for paths in found.values() for path in paths}) for role, found in final.items()}
    several = [f"{count} models of {of}s" for of, count in counts.items() if count > 1]
    if not several:
        return ""
    return f" Parameters, size and latency are those of one model; there are {' and '.join(several)}."
