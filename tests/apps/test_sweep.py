"""The table of a sweep: a row per finished run, in their order, under what they were told."""

import os

import pytest
from omegaconf import OmegaConf

from kd_lightning.apps.command_line.notes import begun_jobs
from kd_lightning.apps.command_line.sweeps import Sweep
from kd_lightning.apps.results.roles import ROLES
from kd_lightning.apps.results.sweep import SweepTable, summaries, sweep_rows
from kd_lightning.files import write_json

NONE = dict.fromkeys(ROLES)


def ended(sweep, *told, **sweeper):
    """Return the configuration of a sweep that has ended."""
    hydra = {"sweep": {"dir": str(sweep)}, "sweeper": sweeper, "overrides": {"task": list(told)}}
    return OmegaConf.create({"name": "distill", "paths": {"store": "outputs/store"}, "hydra": hydra})


def make_job(run, told, student=None, **more):
    """Write the folder of a job that has finished."""
    (run / ".hydra").mkdir(parents=True)
    (run / ".hydra" / "overrides.yaml").write_text("".join(f"- {one}\n" for one in told))
    found = {"average": NONE | {"student": student}, "objective": student, "parameters": {"student": 10}}
    write_json(run / "summary.json", found | {"status": "finished"} | more)


def test_a_sweep_ends_with_one_table(tmp_path, capsys):
    """Ten after nine, and only what has finished."""
    sweep = tmp_path / "outputs" / "distill" / "sweep_x"
    sweep.mkdir(parents=True)
    for number in range(11):
        run = sweep / str(number)
        (run / ".hydra").mkdir(parents=True)
        (run / ".hydra" / "overrides.yaml").write_text(f"- seed={number}\n- task=[rte]\n")
        average = NONE | {"teacher": 0.9, "baseline": 0.5, "student": 0.5 + number / 100}
        status = "failed" if number == 7 else "finished"
        write_json(run / "summary.json", {"average": average, "parameters": {"student": 2_500_000}, "status": status})
    SweepTable().on_multirun_end(ended(sweep, "seed=range(11)", "task=[rte]"))
    expected = [f"| {n} | 90.0 | 50.0 | {50 + n:.1f} | +{n:.1f} | 2.50 M |" for n in range(11) if n != 7]
    head = ["| seed | teacher | baseline | student | gain | parameters |", "| --- | ---: | ---: | ---: | ---: | ---: |"]
    assert (sweep / "report.md").read_text().splitlines() == head + expected
    assert "seed" in capsys.readouterr().out


def test_a_sweep_of_several_settings_names_them(tmp_path):
    """What all runs were told stands in none of the rows."""
    for number, lr in enumerate(("1e-3", "1e-4")):
        run = tmp_path / "outputs" / "distill" / "sweep" / str(number)
        (run / ".hydra").mkdir(parents=True)
        (run / ".hydra" / "overrides.yaml").write_text(f"- seed={number}\n- optimizer.lr={lr}\n- task=[rte]\n")
        average = NONE | {"student": 0.5}
        write_json(run / "summary.json", {"average": average, "parameters": {"student": 10}, "status": "finished"})
    header, rows = sweep_rows(summaries(begun_jobs(tmp_path / "outputs" / "distill" / "sweep")))
    assert header[0] == "run"
    assert rows[0] == ["seed=0 optimizer.lr=1e-3", "50.0", "0.00 M"]


def test_what_is_left_of_a_sweep_is_shown(tmp_path):
    """One job of three that was not refused: its result, and no table."""
    run = tmp_path / "outputs" / "distill" / "sweep" / "2"
    (run / ".hydra").mkdir(parents=True)
    (run / ".hydra" / "overrides.yaml").write_text("- seed=2\n- task=[rte]\n")
    average = NONE | {"student": 0.5}
    write_json(run / "summary.json", {"average": average, "parameters": {"student": 10}, "status": "finished"})
    SweepTable().on_multirun_end(ended(run.parent, "seed=-1,-2,2", "task=[rte]"))
    assert (run.parent / "report.md").read_text().startswith("| seed | student | parameters |")
    assert "| 2 | 50.0 | 0.00 M |" in (run.parent / "report.md").read_text()


@pytest.mark.parametrize(("direction", "first"), [("maximize", "0.001235"), ("minimize", "0.0009877")])
def test_of_a_search_the_best_comes_first(tmp_path, capsys, direction, first):
    """Twenty rows in the order of drawing, with sixteen digits each."""
    pytest.importorskip("optuna")
    drawn = ("0.00098765432", -0.1), ("0.00123456789", 0.9), ("0.5", 0.5), ("0.25", None)
    for number, (lr, score) in enumerate(drawn):
        make_job(tmp_path / str(number), ["seed=1", f"optimizer.lr={lr}"], score)
    SweepTable().on_multirun_end(ended(tmp_path, "optimizer.lr=interval(0.0,1.0)", n_trials=3, direction=direction))
    _, _, best, *_, last = (tmp_path / "report.md").read_text().splitlines()
    assert best.startswith(f"| {first} | ")
    assert last.startswith("| 0.25 | "), "what has no score is not the best"
    assert "the best first" in capsys.readouterr().out


def test_what_a_search_has_drawn_is_shown_though_all_have_it(tmp_path):
    """Two trials of the same rate: two rows of which neither told it."""
    for number in range(2):
        make_job(tmp_path / str(number), ["seed=1", "optimizer.lr=1e-3"], 0.5)
    header, rows = sweep_rows(summaries([tmp_path / "0", tmp_path / "1"]), own={"optimizer.lr=1e-3"})
    assert (header[0], [row[0] for row in rows]) == ("optimizer.lr", ["1e-3", "1e-3"])


def test_names_are_shown_without_their_quotes(tmp_path):
    """``'1e3'``, of ``name=1e3``, which Hydra would take for a number."""
    for number, name in enumerate(("'1e3'", '"x"')):
        make_job(tmp_path / str(number), [f"name={name}"], 0.5)
    _, rows = sweep_rows(summaries([tmp_path / "0", tmp_path / "1"]))
    assert [row[0] for row in rows] == ["1e3", "x"]


def test_a_job_that_was_alone_has_its_number(tmp_path):
    """All that it was told, two hundred letters, in the place of what it was told that others were not."""
    make_job(tmp_path / "0", ["seed=1", "optimizer.lr=1e-3"], 0.5)
    header, rows = sweep_rows(summaries([tmp_path / "0"]), [["seed=1", "optimizer.lr=1e-3"]])
    assert (header[0], rows[0][0]) == ("run", "0")


def test_a_first_wave_says_what_it_has_made(tmp_path, capsys):
    """It ended in silence: there is no student."""
    for number in range(2):
        make_job(tmp_path / str(number), [f"seed={number}"], until="soft_targets")
    SweepTable().on_multirun_end(ended(tmp_path, "seed=0,1"))
    assert capsys.readouterr().out == "teachers and soft targets of 2 jobs are in outputs/store\n"
    assert not (tmp_path / "report.md").exists()


def test_other_sweeps_are_not_counted(tmp_path):
    """Neither one of another experiment that has the same name, nor an earlier one into the same folder."""
    for number, run in enumerate(("monday/sweep/0", "tuesday/sweep/0", "tuesday/sweep/1")):
        told = tmp_path / run / ".hydra" / "overrides.yaml"
        told.parent.mkdir(parents=True)
        told.write_text("[]")
        os.utime(told, (number, number))
    sweep = tmp_path / "tuesday" / "sweep"
    assert [job.name for job in begun_jobs(sweep)] == ["0", "1"]
    (sweep / "multirun.yaml").touch()
    os.utime(sweep / "multirun.yaml", (2, 2))
    assert [job.name for job in begun_jobs(sweep)] == ["1"]
    assert not begun_jobs(sweep, [["seed=1"]]), "nor one that waited in a queue, and begins in its folder"


def test_a_job_that_was_killed_before_it_ran_has_not_finished(tmp_path):
    """It has neither said that it runs, nor how it ended: a sweep that ends with success, and a job less."""
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep" / "multirun.yaml").touch()
    for number in range(3):
        run = tmp_path / "sweep" / str(number)
        (run / ".hydra").mkdir(parents=True)
        (run / ".hydra" / "overrides.yaml").write_text(f"- seed={number}\n")
    for number in (0, 1):
        write_json(tmp_path / "sweep" / str(number) / "summary.json", {"status": "finished"})
    sweeper = {"_target_": "hydra._internal.core_plugins.basic_sweeper.BasicSweeper", "params": None}
    hydra = {"sweep": {"dir": str(tmp_path / "sweep")}, "sweeper": sweeper, "overrides": {"task": ["seed=0,1,2,3"]}}
    sweep = Sweep(OmegaConf.create({"name": "x", "hydra": hydra}), 0.0)
    sweep.ended = {("seed=1",): "no answer", ("seed=2",): "no answer"}  # the second's, once it had finished
    assert [(job.name, job.state) for job in sweep.jobs()] == [
        ("0", "finished"),
        ("1", "finished"),
        ("2", "killed"),
        ("3", "not started"),
    ]
