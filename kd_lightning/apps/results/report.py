"""``report.md``: a run's table, and what a reader needs to trust it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from kd_lightning.apps.results.roles import GROUPS, ROLES
from kd_lightning.apps.results.tables import GAINS, LABELS, Row, distillation_rows, markdown, percent, teacher_rows
from kd_lightning.apps.settings.config import Config
from kd_lightning.files import write_text

SPLITS = ("train", "unlabelled", "synthetic", "validation")
"""What is counted of a task's rows."""


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
    averaged = max((len(paths) for paths in of_role["student"].values()), default=1)
    counts = {role: len({path for paths in found.values() for path in paths}) for role, found in final.items()}
    if averaged > 1:  # sizes and latencies are of all of them
        counts["student"] = 1
    together = f" Those of the student are of its {averaged} models together." if averaged > 1 else ""
    several = [f"{count} models of {of}s" for of, count in counts.items() if count > 1]
    if not several:
        return together
    what = "All others" if together else "Parameters, size and latency"
    return f"{together} {what} are those of one model; there are {' and '.join(several)}."
