"""The table: who scored what, what was gained, what it costs."""

import io
import json
from functools import partial

import pytest
from rich.console import Console

from kd_lightning.apps.results import tables
from kd_lightning.apps.results.report import doubt, write_report
from kd_lightning.apps.results.summary import SummaryFile, add_groups, add_scores, new_summary
from kd_lightning.apps.results.tables import distillation_rows, gain, markdown, percent, show_table, teacher_rows
from kd_lightning.files import read_json
from kd_lightning.tasks import Task

RTE = Task(name="rte", kind="classification", texts=("a", "b"), labels=("no", "yes"), metrics=("accuracy",))
MRPC = Task(
    name="mrpc",
    kind="classification",
    texts=("a", "b"),
    labels=("no", "yes"),
    metrics=("f1", "accuracy"),
    evaluation=("validation", "other"),
)
CFG = {"name": "mine", "system": {"_target_": "kd_lightning.systems.BamStudent"}, "seed": 3}
SCORES = {
    "teacher": {
        "rte": {"accuracy": 0.7},
        "mrpc": {"f1": 0.9, "accuracy": 0.8},
        "mrpc/other": {"f1": 0.9, "accuracy": 0.8},
    },
    "baseline": {
        "rte": {"accuracy": 0.6},
        "mrpc": {"f1": 0.85, "accuracy": 0.75},
        "mrpc/other": {"f1": 0.85, "accuracy": 0.75},
    },
    "student": {
        "rte": {"accuracy": 0.655},
        "mrpc": {"f1": 0.84, "accuracy": 0.75},
        "mrpc/other": {"f1": 0.5, "accuracy": 0.4},
    },
}


@pytest.fixture
def summary():
    """Return the summary of a run of two tasks."""
    found = new_summary(CFG, {"torch": "2"})
    add_scores(found, [RTE, MRPC], SCORES)
    found["parameters"] = {"teacher": 110_000_000, "teacher_without_embeddings": 86_000_000}
    found["parameters"] |= {"baseline": 14_400_000, "baseline_without_embeddings": 9_900_000}
    found["parameters"] |= {"student": 14_500_000, "student_without_embeddings": 10_000_000}
    found["latency_ms"] = {"teacher": 12.34, "baseline": 2.9, "student": 3.0}
    return found


def test_the_table_is_the_one_people_read(summary):
    """A gain with its sign turned, or the baseline in the student's column: the one answer that must be right."""
    assert markdown(*distillation_rows(summary)).splitlines() == [
        "| task (metric) | teacher | baseline | student | gain |",
        "| --- | ---: | ---: | ---: | ---: |",
        "| rte (accuracy) | 70.0 | 60.0 | 65.5 | +5.5 |",
        "| mrpc (f1) | 90.0 | 85.0 | 84.0 | -1.0 |",
        "| average | 77.5 | 70.0 | 63.9 | -6.1 |",
        "| parameters | 110.00 M | 14.40 M | 14.50 M |  |",
        "| without embeddings | 86.00 M | 9.90 M | 10.00 M |  |",
        "| size | 440.0 MB | 57.6 MB | 58.0 MB |  |",
        "| latency, 1 row | 12.3 ms | 2.9 ms | 3.0 ms |  |",
    ]


def test_without_a_baseline_there_is_no_gain(summary):
    for task in summary["tasks"].values():
        task["baseline"] = None
    summary["average"]["baseline"] = None
    header, rows = distillation_rows(summary)
    assert header == ["task (metric)", "teacher", "student"]
    assert all(len(row) == 3 for row in rows)


def test_further_splits_keep_their_names(summary):
    """MNLI mismatched under the name of matched."""
    assert summary["tasks"]["mrpc"]["metrics"]["student"] == {
        "f1": 0.84,
        "accuracy": 0.75,
        "other/f1": 0.5,
        "other/accuracy": 0.4,
    }
    assert summary["tasks"]["mrpc"]["student"] == 0.84


def test_an_average_is_of_all_tasks(summary):
    """The mean over the tasks that a role happens to have looks like progress."""
    assert summary["average"]["ensemble"] is None
    partial = new_summary(CFG, {})
    add_scores(partial, [RTE, MRPC], {"student": {"rte": {"accuracy": 0.7}}})
    assert partial["average"]["student"] is None


@pytest.mark.parametrize(("value", "shown"), [(None, "-"), (0.12345, "12.3"), (1.0, "100.0"), (-0.02, "-2.0")])
def test_percent(value, shown):
    assert percent(value) == shown


def test_gain():
    assert [gain(0.5, 0.4), gain(0.4, 0.5), gain(None, 0.5), gain(0.5, None)] == ["+10.0", "-10.0", "-", "-"]
    assert gain(0.5, 0.5004) == "+0.0"


@pytest.mark.parametrize(
    ("error", "status"), [(None, "finished"), (KeyboardInterrupt, "interrupted"), (ValueError, "failed")]
)
def test_a_summary_says_how_the_run_ended(tmp_path, summary, error, status):
    """``running`` for ever, or ``finished`` for what was killed."""
    file = SummaryFile(tmp_path, summary)
    try:
        with file as written:
            assert read_json(tmp_path / "summary.json")["status"] == "running"
            written["seconds"]["student"] = 1.0
            if error:
                raise error
    except (KeyboardInterrupt, ValueError):
        pass
    text = (tmp_path / "summary.json").read_text()
    found = json.loads(text, parse_constant=pytest.fail)
    assert (found["status"], found["seconds"]) == (status, {"student": 1.0})


def test_a_report_explains_the_columns_that_it_has(summary, tmp_path):
    """A baseline explained that nobody trained, a latency of one student of two."""
    summary["data"] = {
        name: {"train": 100, "validation": 10, "unlabelled": more, "synthetic": 0, "fingerprint": "f"}
        for name, more in (("rte", 0), ("mrpc", 0))
    }
    summary["folders"] = {"student": {"rte": ["s"], "mrpc": ["s"]}, "teacher": {"rte": ["a"], "mrpc": ["b"]}}
    write_report(tmp_path, summary)
    report = (tmp_path / "report.md").read_text()
    assert "The baseline is the same student without a teacher" in report
    assert "Parameters, size and latency are those of one model; there are 2 models of teachers." in report
    assert "mix of tasks" not in report
    summary["folders"] = {"student": {"rte": ["s"], "mrpc": ["s"]}, "student_fine_tuned": {"mrpc": ["u"]}}
    write_report(tmp_path, summary)
    assert "there are 2 models of students." in (tmp_path / "report.md").read_text()
    for task in summary["tasks"].values():
        task["baseline"] = None
    summary["folders"] = {}
    write_report(tmp_path, summary)
    report = (tmp_path / "report.md").read_text()
    assert "baseline" not in report
    assert "gain" not in report
    assert "are those of one model" not in report


@pytest.mark.parametrize(
    ("ensemble", "said"),
    [
        ({"mean": "probabilities", "shares": {"rte": {"a": 0.5, "b": 0.5}}}, ""),
        ({"mean": "logits", "shares": {"rte": {"a": 0.5, "b": 0.5}}}, "Averaged are logits."),
        (
            {"mean": "probabilities", "shares": {"rte": {"a": 0.25, "b": 0.75}, "mrpc": {"a": 0.5, "b": 0.5}}},
            "Shares of the teachers: rte a 0.25, b 0.75.",
        ),
    ],
)
def test_a_report_says_how_teachers_are_averaged(summary, tmp_path, ensemble, said):
    """Weights by score that nobody can see: an ensemble below its best member, and no way to tell why."""
    for task in summary["tasks"].values():
        task["ensemble"] = 0.9
    summary["ensemble"] = ensemble
    write_report(tmp_path, summary)
    report = (tmp_path / "report.md").read_text()
    assert said in report
    assert ("Shares" in report, "Averaged are" in report) == ("Shares" in said, "Averaged are" in said)


def test_a_table_in_a_log_is_whole(capsys, monkeypatch):
    """A log of 80 columns lost the numbers of a sweep."""
    monkeypatch.setenv("COLUMNS", "80")
    name = " ".join(f"setting.number_{i}={i}" for i in range(9))
    show_table("of a sweep", ["run", *(f"column {i}" for i in range(6))], [[name, *(f"{i}.1234567" for i in range(6))]])
    said = capsys.readouterr().out
    assert name in said
    assert all(f"{i}.1234567" in said for i in range(6))
    assert max(map(len, said.splitlines())) < len(name) + 100


def test_a_table_is_written_at_once(monkeypatch):
    """Jobs beside each other write through the tops of each other's tables."""
    writes = []
    file = io.StringIO()
    file.write = writes.append
    monkeypatch.setattr(tables, "Console", partial(Console, file=file))
    show_table("of a run", ["task", "score"], [["rte", "50.0"]])
    (said,) = writes
    assert said.count("\n") == 6


@pytest.mark.parametrize("width", [60, 80, 100, 200])
def test_a_table_on_a_terminal_keeps_its_numbers(capsys, monkeypatch, summary, width):
    """56 in the place of 56.7; what a run was told may take several lines, and stays legible."""
    monkeypatch.setattr(tables, "Console", partial(Console, width=width, force_terminal=True, color_system=None))
    roles = {"ensemble": 0.711, "baseline_fine_tuned": 0.612, "student_fine_tuned": 0.713}
    for task in summary["tasks"].values():
        task |= roles
    header, rows = distillation_rows(summary)
    assert len(header) > 6
    show_table("of a run", header, rows)
    told = "optimizer=adadelta distill_loss=logit_l2 encoder.hidden_size=300"
    show_table("of a sweep", ["run", *header[1:]], [[told, *rows[0][1:]]])
    one, other = capsys.readouterr().out.split("of a sweep")
    for row in rows:
        assert any(all(f" {cell} " in line for cell in row[1:]) for line in one.splitlines()), row
    assert any(all(f" {cell} " in line for cell in rows[0][1:]) for line in other.splitlines())
    folded = "".join(line[1:].partition("│")[0].strip() for line in other.splitlines() if line.startswith("│"))
    assert told.replace(" ", "") in folded.replace(" ", "")


def test_sizes_are_those_of_what_was_trained_first(summary):
    """The size of a model of all tasks beside the scores of another, of one."""
    teacher = {"name": "a", "chosen": ["rte"], "parameters": 1_500_000, "folders": {}}
    teacher |= {"scores": {"rte": {"accuracy": 0.5}}, "fine_tuned": {"rte": {"accuracy": 0.6}}}
    header, rows = teacher_rows(summary | {"teachers": [teacher]})
    assert header == ["teacher", "rte", "mrpc", "parameters"]
    assert rows == [["a", "50.0", "-", "1.50 M"], ["a, fine-tuned", "60.0", "-", ""]]
    given = {"name": "b", "chosen": [], "parameters": None, "folders": {}, "fine_tuned": {}, "scores": {"rte": {}}}
    _, rows = teacher_rows(summary | {"teachers": [given, {**given, "chosen": ["rte"]}]})
    assert rows == [["b (not chosen)", "-", "-", ""], ["b", "-", "-", ""]], "scores of no evaluated rows"
    both = {**given, "scores": {"rte": {"accuracy": 0.5}, "mrpc": {"f1": 0.25}}, "chosen": ["mrpc"]}
    assert teacher_rows(summary | {"teachers": [both]})[1] == [["b (chosen for mrpc)", "50.0", "25.0", ""]]


def test_teachers_that_teach_by_themselves_are_told(summary, tmp_path):
    """ "Averaged are None"; or a gain of two stages under the name of one."""
    for task in summary["tasks"].values():
        task["ensemble"] = 0.5
    summary["ensemble"] = {"mean": None, "shares": {"rte": {"a": 0.5, "b": 0.5}}}
    write_report(tmp_path, summary)
    report = (tmp_path / "report.md").read_text()
    assert "Each teacher teaches by itself, a head or a student; `ensemble` averages their predictions." in report
    assert "went on from" not in report
    summary["pretrain"] = {"tasks": {"qnli": {}, "rte": {}}}
    write_report(tmp_path, summary)
    report = (tmp_path / "report.md").read_text()
    assert "went on from one that was distilled before, on qnli, rte (pretrain/report.md)." in report


def test_a_teacher_that_is_no_better_is_told(summary):
    """A gain of a bad teacher means nothing; an ensemble counts with what it says together, a group by itself."""
    assert doubt(summary) == ""
    for roles, expected in (
        ({"teacher": 0.4}, "The teacher (40.0) is no better than the baseline (70.0)."),
        ({"teacher": 0.4, "ensemble": 0.8}, ""),
        ({"teacher": 0.8, "ensemble": 0.6}, "The ensemble (60.0) is no better than the baseline (70.0)."),
        ({"baseline": None}, ""),
        ({"baseline_fine_tuned": 0.91}, "The teacher (90.0) is no better than the baseline, fine-tuned (91.0)."),
        ({"baseline_fine_tuned": 0.8}, ""),
    ):
        average = {"teacher": 0.9, "ensemble": None, "baseline": 0.7, "baseline_fine_tuned": None} | roles
        for found in (summary | {"average": average}, summary | {"averages": {"with a teacher": average}}):
            assert doubt(found) == expected


def test_what_was_not_fine_tuned_counts_as_it_was(tmp_path):
    """A sweep that seeks an average that no table shows; or that of the tasks that were fine-tuned, as if of all."""
    cola = Task(name="cola", kind="classification", texts=("a",), labels=("no", "yes"), metrics=("accuracy",))
    scores = {
        "teacher": {"rte": {"accuracy": 0.8}},
        "student": {**SCORES["student"], "cola": {"accuracy": 0.5}},
        "student_fine_tuned": {"rte": {"accuracy": 0.9}, "cola": {"accuracy": 0.6}},
    }
    summary = new_summary(CFG, {})
    add_scores(summary, [RTE, MRPC, cola], scores)
    add_groups(summary, scores, ["rte", "mrpc"])
    mrpc = (0.795 + 0.45) / 2
    assert summary["average"]["student_fine_tuned"] == pytest.approx((0.9 + mrpc + 0.6) / 3)
    found = summary["averages"]
    assert found["with a teacher"]["student"] == pytest.approx((0.655 + mrpc) / 2)
    assert found["with a teacher"]["student_fine_tuned"] == pytest.approx((0.9 + mrpc) / 2)
    assert found["with a teacher"]["teacher"] is None  # of rte alone
    assert found["with a teacher"]["baseline_fine_tuned"] is None
    assert found["without a teacher"] == dict.fromkeys(found["without a teacher"]) | {
        "student": 0.5,
        "student_fine_tuned": 0.6,
    }
    scores["student_fine_tuned"] = {"cola": {"accuracy": 0.6}}
    add_groups(summary, scores, ["rte", "mrpc"])
    assert summary["averages"]["with a teacher"]["student_fine_tuned"] is None, "nothing of it was fine-tuned"
    assert summary["averages"]["without a teacher"]["student_fine_tuned"] == 0.6
    summary["parameters"] = dict.fromkeys(summary["parameters"], 10)
    write_report(tmp_path, summary)
    assert "tasks that were not fine-tuned count as they were before" in (tmp_path / "report.md").read_text()
