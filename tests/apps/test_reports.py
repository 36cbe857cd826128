"""``kd-report``: groups, statistics, what is missing, and the files that people open."""

import itertools
import json
import math
import os
import re
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from statistics import fmean, median, stdev
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
import yaml
from scipy import stats

from kd_lightning.apps import report
from kd_lightning.apps.command_line.grids import jobs_of_grid
from kd_lightning.apps.command_line.jobs import marked_as_running
from kd_lightning.apps.reports import predictions as predictions_module
from kd_lightning.apps.reports import write
from kd_lightning.apps.reports.collect import Run, collect
from kd_lightning.apps.reports.group import group
from kd_lightning.apps.reports.missing import missing, state
from kd_lightning.apps.reports.naming import names_of
from kd_lightning.apps.reports.plots import beside, plots, within
from kd_lightning.apps.reports.predictions import Split, _written, predictions
from kd_lightning.apps.reports.row_tables import rows_table
from kd_lightning.apps.reports.scores import long_table, main_scores, values
from kd_lightning.apps.reports.statistics import bootstrap, holm, interval, mann_whitney, sign_flip, spread
from kd_lightning.apps.reports.tables import main_table, pairs_table, size_table, spread_table, student_table
from kd_lightning.apps.results import predicted
from kd_lightning.apps.results.predicted import PREDICTED, note_predicted
from kd_lightning.apps.results.roles import MEASURED
from kd_lightning.apps.results.summary import add_groups, add_scores, new_summary
from kd_lightning.errors import UserError
from kd_lightning.files import files_named, last_change, write_json
from kd_lightning.tasks import Task

RTE = Task(name="rte", kind="classification", texts=("a", "b"), labels=("no", "yes"), metrics=("accuracy",))
MRPC = Task(name="mrpc", kind="classification", texts=("a",), labels=("no", "yes"), metrics=("f1", "accuracy"))


def config_of(seed, **settings):
    """Return what ``config.yaml`` holds, with some settings replaced by their dotted names."""
    config = {
        "name": "bam",
        "seed": seed,
        "paths": {"output": "outputs"},
        "system": {"_target_": "kd_lightning.systems.BamStudent", "gold_weight": 0.5},
        "distill_loss": {"_target_": "kd_lightning.losses.SoftCrossEntropy", "temperature": 1.0},
        "optimizer": {"lr": 1e-4},
        "teacher": {"seeds": [1], "optimizer": {"lr": 1e-4}},
        "task": {"rte": {"name": "rte"}, "mrpc": {"name": "mrpc"}},
    }
    for name, value in settings.items():
        node = config
        *front, last = name.split("__")
        for part in front:
            node = node[part]
        node[last] = value
    return config


def make_run(
    folder,
    seed=1,
    student=0.7,
    baseline=0.6,
    status="finished",
    overrides=None,
    choices=None,
    metrics=("f1", "accuracy"),
    taught=("rte", "mrpc"),
    command="distill",
    **settings,
):
    """Write the folder of a run of two tasks: rte has the scores that are given, mrpc a tenth more in f1.

    Args:
        folder: The run's.
        metrics: Of mrpc, the main one first.
        taught: The tasks with a teacher.
        command: Of the run.
        **settings: Of the configuration, by dotted names with ``__``.
    """
    config = config_of(seed, **settings)
    summary = new_summary(config, {"torch": "2"})
    if status == "finished":
        roles = {"teacher": 0.75, "baseline": baseline, "student": student}
        scores = {
            role: {"rte": {"accuracy": value}, "mrpc": {name: value + 0.1 * (name == "f1") for name in metrics}}
            for role, value in roles.items()
            if value is not None
        }
        scores["teacher"] = {task: scores["teacher"][task] for task in taught}
        add_scores(summary, [RTE, replace(MRPC, metrics=tuple(metrics))], scores)
        add_groups(summary, scores, taught)
        summary["parameters"] = {"teacher": 110_000_000, "teacher_without_embeddings": 86_000_000}
        summary["parameters"] |= {"baseline": 14_400_000, "baseline_without_embeddings": 9_900_000}
        summary["parameters"] |= {"student": 14_500_000, "student_without_embeddings": 10_000_000}
        summary["latency_ms"] = {"teacher": 12.34, "baseline": 2.9, "student": 3.0}
        summary["data"] = {name: {"fingerprint": f"rows of {name}"} for name in ("rte", "mrpc")}
    summary["status"] = status
    (folder / ".hydra").mkdir(parents=True)
    write_json(folder / "summary.json", summary)
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    told = overrides if overrides is not None else [f"seed={seed}", *[f"{k}={v}" for k, v in settings.items()]]
    (folder / ".hydra" / "overrides.yaml").write_text(yaml.safe_dump(told))
    hydra = {"job": {"config_name": command}} | ({"runtime": {"choices": choices}} if choices else {"runtime": {}})
    (folder / ".hydra" / "hydra.yaml").write_text(yaml.safe_dump({"hydra": hydra}))
    return folder


def groups_of(*folders):
    return group(collect(folders)[0])


def scores_of(*folders):
    return main_scores(long_table(groups_of(*folders)))


def pairs_of(*folders):
    """Return the table of groups against each other."""
    table = long_table(groups_of(*folders))
    return pairs_table(main_scores(table), table)


# --- statistics


@pytest.mark.parametrize("seeds", [2, 5, 9])
def test_a_sign_flip_counts_all_signs(seeds):
    """The formula written out: the share of all signs whose mean is as far from zero."""
    differences = np.random.default_rng(seeds).normal(0.4, 1, seeds)
    flips = [
        abs(fmean(s * d for s, d in zip(f, differences, strict=True))) for f in itertools.product([1, -1], repeat=seeds)
    ]
    expected = fmean(flip >= abs(differences.mean()) - 1e-12 for flip in flips)
    assert sign_flip(differences) == pytest.approx(expected)
    assert sign_flip(np.abs(differences)) == pytest.approx(2 / 2**seeds), "no seed can say more"


@pytest.mark.parametrize("one", [[3.0, 1.0, 4.0], [2.0, 2.0, 5.0, 6.0]])
def test_mann_whitney_counts_all_orders(one):
    """The formula written out, with equal values, of which the normal approximation claims too much."""
    one, other = np.array(one), np.array([2.0, 2.5, 0.5, 7.0])

    def u(a, b):
        return sum((x > y) + 0.5 * (x == y) for x in a for y in b)

    middle, pooled = len(one) * len(other) / 2, [*one, *other]
    found = []
    for chosen in itertools.combinations(range(len(pooled)), len(one)):
        rest = [pooled[i] for i in range(len(pooled)) if i not in chosen]
        found.append(u([pooled[i] for i in chosen], rest))
    low, high = (fmean(side) for side in ([x <= u(one, other) for x in found], [x >= u(one, other) for x in found]))
    assert middle == len(one) * len(other) / 2
    assert mann_whitney(one, other) == pytest.approx(min(1, 2 * min(low, high)))


def test_a_bootstrap_draws_seeds_again():
    """Against all 46,656 ways to draw six seeds; a percent apart by chance."""
    differences = np.array([0.5, -0.2, 0.9, 0.4, -0.1, -0.3])
    means = differences[np.indices([6] * 6).reshape(6, -1)].mean(0).round(12)
    expected = 2 * min((means <= 0).mean(), (means >= 0).mean())
    assert bootstrap(differences) == pytest.approx(expected, abs=0.02)
    assert bootstrap(differences, differences) == pytest.approx(1, abs=0.03)


def test_a_gain_of_zero_is_no_difference():
    zero, same = np.zeros(7), np.arange(7.0)
    assert sign_flip(zero) == bootstrap(zero) == mann_whitney(same, same) == mann_whitney(zero, zero) == 1.0
    assert interval(zero) == pytest.approx((0, 0))


@pytest.mark.parametrize(("seeds", "said"), [(1, "there is no p."), (4, "less than 0.125"), (11, ""), (10, "0.002")])
def test_how_little_so_few_seeds_can_tell_is_said(tmp_path, seeds, said):
    """Of many there is nothing to say: less than what they cannot give is not shown."""
    for seed in range(seeds):
        make_run(tmp_path / str(seed), seed, student=0.7 + seed / 1000)
    notes = main_table(scores_of(tmp_path)).notes
    assert len(notes) == (3 if said else 2)
    assert said in notes[-1]


def test_what_seeds_cannot_support_has_no_p():
    """p < 0.001 of three seeds: a bootstrap of values with one sign never crosses zero."""
    one, three, six = np.array([1.0]), np.array([1.0, 2.0, 3.0]), np.arange(1.0, 7.0)
    assert (
        sign_flip(one) is mann_whitney(one, six) is interval(one) is bootstrap(three) is bootstrap(six, three) is None
    )
    assert bootstrap(six) < 0.05


def test_an_interval_is_students():
    low, high = interval(np.array([1.0, 2.0, 3.0, 6.0]))
    half = 3.182446 * stdev([1, 2, 3, 6]) / math.sqrt(4)
    assert (low, high) == pytest.approx((3 - half, 3 + half), rel=1e-5)


def test_holm_is_the_formula_and_never_lowers_a_p():
    draw = np.random.default_rng(0)
    for count in (1, 2, 7):
        found = [float(p) for p in draw.uniform(0, 0.4, count)]
        corrected = holm([*found, None])
        for i, p in enumerate(found):
            smaller = [q for q in found if q <= p]
            expected = min(1, max((count - rank) * q for rank, q in enumerate(sorted(smaller))))
            assert corrected[i] == pytest.approx(expected)
            assert corrected[i] >= p
        assert corrected[-1] is None, "it is not of the family"
    assert holm([]) == []


# --- groups


def test_runs_that_differ_in_their_seed_alone_are_a_group(tmp_path):
    """Places and hardware are no settings; nor is the order in which runs are found."""
    for seed in (3, 1, 2):
        make_run(tmp_path / "x" / str(seed), seed, paths={"output": str(seed)}, trainer={"accelerator": f"gpu{seed}"})
    make_run(tmp_path / "x" / "other", 1, optimizer__lr=1e-3, trainer={"devices": 2})
    found = groups_of(tmp_path)
    assert [(one.name, one.seeds) for one in found] == [("lr=0.0001", [1, 2, 3]), ("lr=0.001", [1])]


def test_what_changes_no_result_is_no_setting_of_a_group(tmp_path):
    """Seeds of one machine and of two, a teacher that had a GPU: three groups of one run each."""
    apart = [{"trainer": {"num_nodes": 2}}, {"batching": {"eval_batch_size": 8}}, {"compile": True}]
    apart.append({"teacher": {"trainer": {"devices": 2, "compile": True}}})
    for seed, settings in enumerate(apart):
        given = {name: {"trainer": {}} if name == "teacher" else {} for name in ("trainer", "batching", "teacher")}
        make_run(tmp_path / str(seed), seed, **{**given, "compile": False, **settings})
    assert [one.seeds for one in groups_of(tmp_path)] == [[0, 1, 2, 3]]


def test_the_same_settings_on_other_rows_are_another_group(tmp_path):
    """A file of data that was mended between two seeds, under one mean."""
    make_run(tmp_path / "1", 1)
    other = make_run(tmp_path / "2", 2)
    summary = json.loads((other / "summary.json").read_text())
    summary["data"]["rte"]["fingerprint"] = "mended"
    write_json(other / "summary.json", summary)
    assert [one.name for one in groups_of(tmp_path)] == ["rows=rows of rte", "rows=mended"]


def test_a_run_that_is_repeated_counts_once(tmp_path):
    """The same run twice is no second seed; the newest counts."""
    for number, student in enumerate((0.1, 0.7)):
        run = make_run(tmp_path / str(number), 1, student=student)
        os.utime(run / "summary.json", (number, number))
    (found,) = groups_of(tmp_path)
    assert [run.folder.name for run in found.runs] == ["1"]
    assert [run.folder.name for run in found.repeated] == ["0"]
    assert found.name == "bam"


def test_a_student_needs_no_baseline_to_be_of_its_group(tmp_path):
    """Its score counts as a seed; of two runs of a seed that counts that can be compared."""
    make_run(tmp_path / "0", 1)
    make_run(tmp_path / "1", 2, baseline=None)
    later = make_run(tmp_path / "2", 1, baseline=None)
    for run in (tmp_path / "1", later):
        config = yaml.safe_load((run / "config.yaml").read_text())
        (run / "config.yaml").write_text(yaml.safe_dump(config | {"baseline": False}))
    (found,) = groups_of(tmp_path)
    assert found.seeds == [1, 2]
    assert [run.folder.name for run in found.runs] == ["0", "1"]
    assert main_table(scores_of(tmp_path)).rows[0][:2] == ["rte (accuracy)", "2"]


def test_teachers_with_the_seed_of_their_run_are_of_one_group(tmp_path):
    for seed in (1, 2):
        make_run(tmp_path / "own" / str(seed), seed, teacher__seeds=[seed])
        make_run(tmp_path / "given" / str(seed), seed, teacher__seeds=[1])
    assert [one.seeds for one in groups_of(tmp_path / "own")] == [[1, 2]]
    assert [one.seeds for one in groups_of(tmp_path / "given")] == [[1, 2]]


@pytest.mark.parametrize(
    ("runs", "groups"),
    [
        ([(1, 1), (2, 2), (3, 3), (4, 7)], {"seed": [1, 2, 3], "[7]": [4]}),
        ([(1, 1), (2, 2), (3, 3), (2, 1)], {"seed": [1, 2, 3], "[1]": [2]}),
        ([(1, 1), (2, 2), (3, 7), (4, 7)], {"seed": [1, 2], "[7]": [3, 4]}),
        ([(1, 1), (2, 1), (3, 1), (2, 2)], {"[1]": [1, 2, 3], "[2]": [2]}),
        ([(1, 1), (2, 7)], {"[1]": [1], "[7]": [2]}),
    ],
)
def test_a_stray_teacher_splits_no_group(tmp_path, runs, groups):
    """Three seeds, each with its own teacher, and one run with another: four groups of one seed, and no statistics."""
    for number, (seed, teacher) in enumerate(runs):
        make_run(tmp_path / str(number), seed, teacher__seeds=[teacher])
    found = groups_of(tmp_path)
    assert {str(one.settings["teacher.seeds"]): one.seeds for one in found} == groups
    assert {one.name for one in found} == {f"teacher.seeds={seeds}" for seeds in groups}


def test_folders_that_overlap_and_first_stages_are_read_once(tmp_path):
    run = make_run(tmp_path / "sweep" / "0")
    make_run(run / "pretrain", 7)
    assert len(collect([tmp_path, tmp_path / "sweep", run])[0]) == 1
    make_run(tmp_path / "pretrain", 2)
    assert len(collect([tmp_path])[0]) == 2, "a run that is only called so"


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        ([{"name": "a", "x.lr": 1}, {"name": "b", "x.lr": 2}], ["a", "b"]),
        (
            [{"name": "a", "x.lr": 1}, {"name": "b", "x.lr": 1}, {"name": "b", "x.lr": 2}],
            ["a", "b lr=1", "b lr=2"],
        ),
        ([{"x.lr": 1, "teacher.x.lr": 1}, {"x.lr": 2, "teacher.x.lr": 2}], ["lr=1", "lr=2"]),
        ([{"x.lr": 1, "teacher.x.lr": 1}, {"x.lr": 1, "teacher.x.lr": 2}], ["teacher.lr=1", "teacher.lr=2"]),
        (
            [{"s.loss._target_": "m.KL", "s.loss.t": 2}, {"s.loss._target_": "m.MSE"}, {"s.loss._target_": "m.MAE"}],
            ["loss=KL", "loss=MSE", "loss=MAE"],
        ),
        ([{"s.loss._target_": "m.KL", "s.loss.t": 2}, {"s.loss._target_": "m.KL", "s.loss.t": 1}], ["t=2", "t=1"]),
        (
            [{"task": ["a"], "task.a.n": 1}, {"task": ["a", "b"], "task.a.n": 1, "task.b.n": 2}],
            ["task=[a]", "task=[a,b]"],
        ),
        (
            [{"pretrain": None, "x": 1}, {"pretrain.task": ["a"], "x": 1}, {"pretrain.task": ["b"], "x": 1}],
            ["pretrain=null", "pretrain.task=[a]", "pretrain.task=[b]"],
        ),
        ([{"a": 1}, {}], ["a=1", "no a"]),
        ([{"a": 1}, {"a": 1}, {}], ["(1)", "(2)", "no a"]),
        ([{"c._target_": "mine.X"}, {"c._target_": "yours.X"}], ["(1)", "(2)"]),
        (
            [{"pretrain.data.n": 1, "pretrain.x.n": 1}, {"pretrain.data.n": 1, "pretrain.x.n": 2}],
            ["pretrain.n=1", "pretrain.n=2"],
        ),
        (
            [{"pretrain.a.n": i // 2, "pretrain.b.n": i % 2} for i in range(4)],
            [f"pretrain.a.n={i // 2} pretrain.b.n={i % 2}" for i in range(4)],
        ),
    ],
)
def test_groups_are_named_by_what_they_differ_in(settings, names):
    assert names_of(settings, [{}] * len(settings), [set()] * len(settings)) == names


def test_what_is_usual_is_told_where_it_was_told():
    """Many runs by hand, each with a setting of its own: a name has that, and not the defaults of all others."""
    settings = [{"name": "bam", "x.lr": 1, "y.n": 1, "z.k": 1} for _ in range(5)]
    settings[1]["x.lr"], settings[2]["y.n"] = 2, 2
    told = [set(), {"x.lr"}, set(), {"x.lr", "z"}, {"y"}]
    settings[3]["z.k"], settings[4]["w"] = 3, 1
    names = ["bam", "lr=2", "n=2", "k=3 lr=1", "n=1 w=1"]
    assert names_of(settings, [{}] * 5, told) == names
    of_option = ["bam", "lr=2", "n=2", "k=3 lr=1", "w=1"]
    assert names_of(settings, [{"y": "one"}] * 5, told) == of_option, "an option was told, and not what it sets"


def test_drawn_values_are_short_where_that_tells_them_apart():
    """Sixteen digits in each row; or two groups of one name."""

    def named(*rates):
        return names_of([{"name": "x", "optimizer.lr": rate} for rate in rates], [{}] * 2, [{"optimizer.lr"}] * 2)

    assert named(0.00042074820750, 0.00102003004) == ["lr=0.0004207", "lr=0.00102"]
    assert named(0.12345678901, 0.12345678902) == ["lr=0.12345678901", "lr=0.12345678902"]


def test_options_are_named_as_they_were_told(tmp_path):
    loss = {"_target_": "kd_lightning.losses.LogitMSE"}
    make_run(tmp_path / "0", choices={"distill_loss": "soft_ce", "hydra/launcher": "basic"})
    make_run(tmp_path / "1", distill_loss=loss, choices={"distill_loss": "logit_mse", "hydra/launcher": "joblib"})
    assert [one.name for one in groups_of(tmp_path)] == ["distill_loss=soft_ce", "distill_loss=logit_mse"]


# --- tables


def four_seeds(folder, gain=0.1, **settings):
    """Write four runs, whose students gain more with each seed."""
    for seed in (1, 2, 3, 4):
        make_run(folder / str(seed), seed, student=0.5 + seed * gain / 10, baseline=0.5, **settings)
    return folder


def test_medians_and_spreads_are_those_of_the_seeds(tmp_path):
    four_seeds(tmp_path)
    scores = scores_of(tmp_path)
    gains = [100 * seed * 0.01 for seed in (1, 2, 3, 4)]
    found = spread(100 * values(scores, ("rte", "accuracy", "bam"), "gain"))
    assert found.tolist() == pytest.approx([4, median(gains), min(gains), max(gains), stdev(gains)])
    table = main_table(scores)
    assert table.header == ["task (metric)", "seeds", "teacher", "baseline", "student", "gain", "p"]
    assert table.rows[0] == ["rte (accuracy)", "4", "75.0 ±0.0", "50.0 ±0.0", "52.5 ±1.3", "+2.5 ±1.3", "0.250"]
    assert [row[0] for row in table.rows] == ["rte (accuracy)", "mrpc (f1)", "average"]
    assert table.rows[2][-1] == "0.125", "averages are a family of their own"
    assert table.rows[2][2:4] == ["77.5 ±0.0", "52.5 ±0.0"], "GLUE's average: mrpc counts with the mean of its metrics"
    assert ["rte (accuracy)", "gain", "4", "+2.5", "+1.0", "+4.0", "1.29"] in spread_table(scores).rows
    assert student_table(scores).rows[0][:3] == ["rte (accuracy)", "4", "+2.5"]
    assert student_table(scores).rows[0][4:] == ["0.125 (0.250)", "0.029 (0.057)", "-"]
    assert pairs_of(tmp_path) is None


def test_a_score_has_the_cost_of_its_own_model(tmp_path):
    """The baseline at the size of the student, in the file that people go on from and in the plots."""
    run = make_run(tmp_path / "a")
    summary = json.loads((run / "summary.json").read_text())
    for task in summary["tasks"].values():
        task |= {"ensemble": 0.8, "baseline_fine_tuned": 0.65, "student_fine_tuned": 0.7}
    write_json(run / "summary.json", summary)
    table = long_table(groups_of(tmp_path))
    found = table.drop_duplicates("role").set_index("role")[["parameters", "latency_ms"]]
    assert found.loc["ensemble"].isna().all()
    for role in MEASURED:
        assert found.loc[role].tolist() == [summary["parameters"][role], summary["latency_ms"][role]]
    for role in ("baseline", "student"):
        assert found.loc[f"{role}_fine_tuned"].tolist() == found.loc[role].tolist()
    cells = {row[1]: row[2] for row in size_table(groups_of(tmp_path)).rows}
    assert cells == {role: f"{found.loc[role, 'parameters'] / 1e6:.2f} M" for role in MEASURED}


def test_one_seed_has_no_p_and_no_spread(tmp_path):
    make_run(tmp_path / "a")
    scores = scores_of(tmp_path)
    assert main_table(scores).rows[0] == ["rte (accuracy)", "1", "75.0", "60.0", "70.0", "+10.0", "-"]
    assert student_table(scores).rows[0][3:] == ["-", "-", "-", "-"]


def test_without_a_baseline_there_is_no_gain(tmp_path):
    make_run(tmp_path / "a", baseline=None)
    scores = scores_of(tmp_path)
    assert main_table(scores).header == ["task (metric)", "seeds", "teacher", "student"]
    assert student_table(scores) is None


def test_groups_are_compared_over_the_seeds_that_both_have(tmp_path):
    four_seeds(tmp_path / "a")
    for seed in (3, 4, 5):
        make_run(tmp_path / "b" / str(seed), seed, student=0.5, baseline=0.5, optimizer__lr=1e-3)
    table = pairs_of(tmp_path)
    assert table.rows[0][:5] == ["rte (accuracy)", "lr=0.0001 - lr=0.001", "4, 3 (2)", "+2.5", "0.500 (1.000)"]


def test_equal_groups_are_no_better_than_each_other(tmp_path):
    four_seeds(tmp_path / "a")
    four_seeds(tmp_path / "b", optimizer__lr=1e-3)
    for row in pairs_of(tmp_path).rows:
        assert row[3:] == ["+0.0", "1.000 (1.000)", "1.000 (1.000)", "-"]


def test_averages_of_other_tasks_are_not_compared(tmp_path):
    """A gain that is another choice of tasks."""
    make_run(tmp_path / "a")
    other = make_run(tmp_path / "b", name="other")
    summary = json.loads((other / "summary.json").read_text())
    summary["tasks"]["cola"] = summary["tasks"].pop("rte")
    write_json(other / "summary.json", summary)
    scores = scores_of(tmp_path)
    assert [row[0] for row in pairs_of(tmp_path).rows] == ["mrpc (f1)"]
    assert {row[0] for row in main_table(scores).rows} == {
        "rte (accuracy)",
        "cola (accuracy)",
        "mrpc (f1)",
        "average",
        "",
    }
    assert "group" in student_table(scores).header


@pytest.mark.parametrize(
    ("metrics", "compared"),
    [
        (["f1", "accuracy"], ["rte (accuracy)", "mrpc (f1)", "average"]),
        (["accuracy", "f1"], ["rte (accuracy)", "average"]),
        (["accuracy"], ["rte (accuracy)"]),
        (["f1"], ["rte (accuracy)", "mrpc (f1)"]),
    ],
)
def test_groups_are_compared_by_one_metric(tmp_path, metrics, compared):
    """Equal students, ten points apart: the f1 of one group and the accuracy of the other, or averages with each."""
    for seed in (1, 2, 3):
        make_run(tmp_path / "a" / str(seed), seed)
        make_run(tmp_path / "b" / str(seed), seed, metrics=metrics, task__mrpc={"name": "mrpc", "metrics": metrics})
    rows = pairs_of(tmp_path).rows
    assert [row[0] for row in rows] == compared
    assert {row[3] for row in rows} == {"+0.0"}
    if metrics[0] != "f1":
        assert [row[0] for row in main_table(scores_of(tmp_path)).rows][2:4] == ["mrpc (accuracy)", "mrpc (f1)"]


def test_averages_of_the_tasks_with_a_teacher_are_of_the_same_tasks(tmp_path):
    """One group had a teacher of rte, the other of mrpc: both have an average, of other tasks."""
    make_run(tmp_path / "a", taught=["rte"])
    make_run(tmp_path / "b", taught=["mrpc"], optimizer__lr=1e-3)
    assert "average with a teacher" in [row[0] for row in main_table(scores_of(tmp_path)).rows]
    assert [row[0] for row in pairs_of(tmp_path).rows] == ["rte (accuracy)", "mrpc (f1)", "average"]


def test_plots_are_of_one_metric(tmp_path):
    """Gains in f1 on the line of gains in accuracy."""
    pytest.importorskip("matplotlib")
    for name, metrics in (("a", ["f1", "accuracy"]), ("b", ["accuracy", "f1"]), ("c", ["accuracy"])):
        make_run(tmp_path / name, name=name, metrics=metrics, task__mrpc={"metrics": metrics})
    table = long_table(groups_of(tmp_path))
    panels, *_, gains = plots(table, main_scores(table)).values()
    assert [f">{name}<" in gains for name in ("rte", "mrpc (f1)", "mrpc (accuracy)", "mrpc")] == [True] * 3 + [False]
    for names in ("rte (accuracy), mrpc (f1), mrpc (accuracy)", "rte (accuracy), mrpc (accuracy)"):
        assert f">{names}<" in panels


def test_runs_that_only_try_do_not_count_beside_others(tmp_path, capsys):
    """A row of chance scores, and a group more in each comparison."""
    make_run(tmp_path / "tried" / "0", choices={"debug": "fast_dev_run"}, name="fast_dev_run")
    write.write([tmp_path], tmp_path / "report")
    assert capsys.readouterr().out.count("1 finished run in 1 group of the same settings; fast_dev_run, seed 1.") == 1
    make_run(tmp_path / "real" / "0")
    make_run(tmp_path / "tried" / "1", choices={"debug": "fast_dev_run"}, name="fast_dev_run", status="running")
    (tmp_path / "tried" / "1" / ".hydra" / "hydra.yaml").write_text("hydra: {job: {config_name: distill}}")
    write.write([tmp_path], tmp_path / "report")
    assert "seed 1; 1 run of debug=fast_dev_run left out." in capsys.readouterr().out


def test_many_groups_have_numbers(tmp_path):
    """The ninth has the colour of the first; each has one number in all plots, and eight need none."""
    pytest.importorskip("matplotlib")
    for number in range(9):
        make_run(tmp_path / str(number), optimizer__lr=number, baseline=None if number == 0 else 0.6)
        if number == 7:
            table = long_table(groups_of(tmp_path))
            assert not [svg for svg in plots(table, main_scores(table)).values() if ">8  lr=7<" in svg]
    table = long_table(groups_of(tmp_path))
    *against, gains = plots(table, main_scores(table)).values()
    assert all(f">{number + 1}  lr={number}<" in svg for svg in against for number in range(9))
    assert [f">{number + 1}  lr={number}<" in gains for number in range(9)] == [False] + [True] * 8
    assert all(f">{number}</text>" in svg for svg in against for number in range(1, 10))


def test_a_legend_names_what_its_plot_shows(tmp_path):
    """A run of kd-train measures no latency: it has its points against size, and none against latency.

    Where one of several is left, it still has to be named.
    """
    pytest.importorskip("matplotlib")
    for name in ("a", "b", "c"):
        folder = make_run(tmp_path / name, name=name, baseline=None)
        if name != "a":
            summary = json.loads((folder / "summary.json").read_text())
            write_json(folder / "summary.json", summary | {"latency_ms": {}})
    table = long_table(groups_of(tmp_path))
    size, latency = plots(table, main_scores(table)).values()
    assert [f">{name}<" in size for name in ("a", "b", "c")] == [True, True, True]
    assert [f">{name}<" in latency for name in ("a", "b", "c")] == [True, False, False]
    (group,) = groups_of(tmp_path / "a")
    alone = long_table([group])
    size, latency = plots(alone, main_scores(alone)).values()
    assert f">{group.name}<" not in size + latency, "there is no other"


def test_two_seeds_do_not_take_the_page(tmp_path):
    """Their interval is thirteen times as wide as they lie apart: all other gains are a line."""
    assert within(np.array([1.0, 3.0]), (-200.0, 200.0)) == (-3.0, 6.0)
    assert within(np.array([1.0, 3.0]), (0.0, 4.0)) == (0.0, 4.0)
    assert within(np.array([0.0]), (-9.0, 9.0)) == (-1.0, 1.0)
    pytest.importorskip("matplotlib")
    for seed, student in ((1, 0.7), (2, 0.8)):
        make_run(tmp_path / str(seed), seed=seed, student=student)
    table = long_table(groups_of(tmp_path))
    *_, gains = plots(table, main_scores(table)).values()
    assert ">30</text>" in gains
    assert not re.search(r">(50|60|80|100)</text>", gains), "gains of 10 and 20 points"


def test_what_costs_the_same_does_not_lie_on_one_place(tmp_path):
    """Two students of one size, and of one score: one point. Of other sizes each is where it belongs."""
    pytest.importorskip("matplotlib")
    known = pd.DataFrame({"group": ["a", "b", "c"], "parameters": [5, 5, 7]})
    inches = beside(known, ["a", "b", "c"], "parameters")
    assert inches["b"] - inches["a"] > 0.05
    assert inches["a"] + inches["b"] == inches["c"] == 0.0
    many = pd.DataFrame({"group": list("abcdefghij"), "parameters": [5] * 10})
    inches = beside(many, list("abcdefghij"), "parameters")
    assert inches["j"] - inches["a"] < 0.5, "a size, not another one"


def test_the_order_of_folders_changes_nothing(tmp_path):
    """Nor does telling a folder twice."""
    four_seeds(tmp_path / "a")
    four_seeds(tmp_path / "b", gain=0.3, optimizer__lr=1e-3)
    tables = [
        [*[pick(scores_of(*folders)) for pick in (main_table, spread_table, student_table)], pairs_of(*folders)]
        for folders in ([tmp_path], [tmp_path / "b", tmp_path / "a", tmp_path])
    ]
    assert tables[0] == tables[1]


def test_many_groups_are_compared_on_their_averages(tmp_path):
    for number in range(9):
        make_run(tmp_path / str(number), optimizer__lr=number)
    table = pairs_of(tmp_path)
    assert {row[0] for row in table.rows} == {"average", ""}
    assert len(table.rows) == 36


# --- row by row


def predict(folder, run, predictions, labels, order=None, output=None, split="validation"):
    """Write what kd-predict leaves of a model: its table, and its note of it."""
    file = (output or folder) / f"rte-{split}.csv"
    note_predicted(folder, Path(run), [file])
    table = pd.DataFrame({"id": [f"r{i}" for i in range(len(labels))], "prediction": predictions})
    if isinstance(labels[0], str):
        table["p_yes"] = 0.5
    table["label"] = labels
    file.parent.mkdir(exist_ok=True)
    table.iloc[order if order is not None else slice(None)].to_csv(file, index=False)


def students_of(folder, found, labels):
    """Write two groups of runs, and what their students predicted: group -> seed -> predictions."""
    for place, (name, of_seed) in enumerate(found.items()):
        for seed, said in of_seed.items():
            run = make_run(folder / "runs" / f"{name}{seed}", seed, optimizer__lr=10.0**-place)
            order = np.random.default_rng(seed).permutation(len(labels))
            predict(folder / "predict" / f"{name}{seed}", run, said, labels, order)


def row_cells(folder):
    """Return the rows of the table of tests over rows."""
    groups = groups_of(folder)
    found, unread = predictions([folder], groups)
    assert not unread
    table = rows_table(found, [one.name for one in groups])
    return table and table.rows


def test_rows_are_joined_by_their_ids(tmp_path):
    """Files in any order; 14 rows that one student alone has right against 26: tosses of a coin."""
    labels = ["yes", "no"] * 100
    one, other = [*labels], [*labels]
    for i in range(14):
        one[i] = "no" if labels[i] == "yes" else "yes"
    for i in range(14, 40):
        other[i] = "no" if labels[i] == "yes" else "yes"
    students_of(tmp_path, {"a": {1: one, 2: one}, "b": {1: other, 3: other}}, labels)
    ((name, compared, seeds, rows, difference, interval, p),) = row_cells(tmp_path)
    assert (name, compared) == ("rte (validation, accuracy)", "lr=1.0 - lr=0.1")
    assert (seeds, rows, difference) == ("1", "200", "+6.0")
    assert float(p.split()[0]) == pytest.approx(stats.binomtest(14, 40).pvalue, abs=0.01)
    low, high = map(float, interval.split(" to "))
    half = 196 * np.std([(a == y) - (b == y) for a, b, y in zip(one, other, labels, strict=True)]) / 200**0.5
    assert (low, high) == pytest.approx((6 - half, 6 + half), abs=0.6)


def test_a_folder_may_vanish_while_a_report_looks(tmp_path, monkeypatch):
    """Of a command that is refused meanwhile: there was no report at all."""
    students_of(tmp_path, {"a": {1: ["yes"] * 4}, "b": {1: ["no"] * 4}}, ["yes", "no", "yes", "yes"])
    gone = tmp_path / "gone" / ".hydra" / PREDICTED
    monkeypatch.setattr(predictions_module, "files_named", lambda name, place: [gone, *files_named(name, place)])
    assert len(row_cells(tmp_path)) == 1


def test_a_file_may_be_renamed_while_a_report_looks(tmp_path, monkeypatch):
    """A table of a run that trains, written under another name first."""
    (tmp_path / "summary.json").write_text("{}")
    look = Path.iterdir
    monkeypatch.setattr(Path, "iterdir", lambda path: iter([*look(path), path / ".metrics.csv.77.part"]))
    assert state(tmp_path, Run(tmp_path, {"status": "running"}, {})).startswith("running, or killed")


def test_scores_have_an_interval_and_no_p(tmp_path):
    rng = np.random.default_rng(0)
    labels = rng.normal(size=80)
    one, other = labels + rng.normal(size=80), labels + 3 * rng.normal(size=80)
    students_of(tmp_path, {"a": {1: one}, "b": {1: other}}, labels.tolist())
    ((name, _, _, _, difference, interval, p),) = row_cells(tmp_path)
    gain = 100 * (np.corrcoef(one, labels)[0, 1] - np.corrcoef(other, labels)[0, 1])
    assert (name, difference, p) == ("rte (validation, pearson)", f"{gain:+.1f}", "-")
    low, high = map(float, interval.split(" to "))
    assert low < gain < high


def test_predictions_of_a_run_that_was_made_again_are_told(tmp_path):
    """A sweep, predictions, the sweep once more, and some of them: no table of rows, and not a word."""
    labels, baseline = ["yes", "no"] * 20, tmp_path / "store" / "baseline"
    students_of(tmp_path, {"a": {1: labels, 2: labels}, "b": {1: labels}}, labels)
    before = [tmp_path / "runs" / f"a{seed}" for seed in (1, 2)]
    again = [make_run(tmp_path / "runs" / f"again{seed}", seed, optimizer__lr=1.0) for seed in (1, 2)]
    make_run(tmp_path / "runs" / "a0", 1, optimizer__lr=1.0)
    for ended, run in enumerate((tmp_path / "runs" / "a0", *before, *again)):
        summary = json.loads((run / "summary.json").read_text())
        summary["folders"] = {"baseline": {"rte": [str(baseline)]}}
        write_json(run / "summary.json", summary)
        os.utime(run / "summary.json", (ended, ended))
    predict(tmp_path / "predict" / "baseline", baseline, labels, labels)
    groups = groups_of(tmp_path)

    def told(place, tables):
        why = f"since {again[place]} counts in its place"
        return f"{before[place]}: its student's predictions of {tables} are left out, {why}"

    assert predictions([tmp_path], groups)[1] == [told(0, "rte-validation"), told(1, "rte-validation")]
    predict(tmp_path / "predict" / "again1", again[0], labels, labels)
    found, lines = predictions([tmp_path], groups)
    assert len(next(iter(found.values()))) == 3, "two students, and the baseline that the earlier and the later share"
    assert lines == [told(1, "rte-validation")]
    (before[0] / "student").mkdir()
    for model, split in ((before[0], "train"), (before[0], "test"), (before[0] / "student", "test")):
        predict(tmp_path / "predict" / f"{model.name}_{split}", model, labels, labels, split=split)
    predict(tmp_path / "predict" / "again2", again[1], labels, labels)
    assert predictions([tmp_path], groups)[1] == [told(0, "rte-test, rte-train")], "the earlier has the only ones"
    (tmp_path / "predict" / "baseline" / "rte-validation.csv").write_text("{")
    damaged, *others = predictions([tmp_path], groups)[1]
    assert damaged.endswith("these predictions are left out")
    assert others == [told(0, "rte-test, rte-train")], "not because of the later run, which has that baseline as well"


def test_predictions_that_no_report_has_use_for_are_not_missed(tmp_path):
    """Of an earlier run without labels; damaged, of what a later has as well, of another task, or of no run here."""
    labels = ["yes", "no"] * 20
    students_of(tmp_path, {"a": {1: labels}, "b": {1: labels}}, labels)
    again = make_run(tmp_path / "runs" / "again", 1, optimizer__lr=1.0)
    os.utime(tmp_path / "runs" / "a1" / "summary.json", (1, 1))
    predict(tmp_path / "predict" / "again", again, labels, labels)
    (tmp_path / "predict" / "a1" / "rte-validation.csv").write_text("{")
    for place, model, name, text in (
        ("unlabelled", tmp_path / "runs" / "a1", "rte-mine.csv", "id,prediction\nr0,yes\n"),
        ("other_task", again, "ax-test.csv", "{"),
        ("other_model", tmp_path / "elsewhere", "rte-validation.csv", "{"),
    ):
        note_predicted(tmp_path / place, model, [tmp_path / place / name])
        (tmp_path / place / name).write_text(text)
    found, lines = predictions([tmp_path], groups_of(tmp_path))
    assert (len(found[Split("rte", "validation")]), lines) == (2, [])
    for place in ("b1", "again"):
        (tmp_path / "predict" / place / "rte-validation.csv").write_text("id,prediction,label\nr0,0.5,\n")
    *each, older = predictions([tmp_path], groups_of(tmp_path))[1]
    why = "cannot be read (could not convert string to float: ''): these predictions are left out"
    assert each == [f"{tmp_path / 'predict' / place / 'rte-validation.csv'} {why}" for place in ("b1", "again")]
    assert older.startswith(f"{tmp_path / 'runs' / 'a1'}: its student's predictions of rte-validation are left out")


def test_a_baseline_in_the_store_is_that_of_its_runs(tmp_path, monkeypatch):
    """Its folder is told from where the run began; the student is found in the run's folder, or in its copy there."""
    monkeypatch.chdir(tmp_path)
    labels = ["yes", "no"] * 50
    run = make_run(tmp_path / "runs" / "a", 1)
    summary = json.loads((run / "summary.json").read_text())
    summary["folders"] = {"baseline": {"rte": ["store/fits/baseline-x"]}}
    write_json(run / "summary.json", summary)
    (run / "student").mkdir()
    predict(tmp_path / "predict" / "0", "runs/a/student", labels, labels)
    predict(tmp_path / "predict" / "1", "store/fits/baseline-x", ["yes"] * 100, labels, output=tmp_path / "mine")
    ((_, compared, seeds, _, difference, _, p),) = row_cells(tmp_path)
    assert (compared, seeds, difference, p) == ("student - baseline", "1", "+50.0", "<0.001 (<0.001)")


def test_predictions_of_other_rows_or_no_labels_are_no_comparison(tmp_path):
    labels = ["yes", "no"] * 20
    students_of(tmp_path, {"a": {1: labels}, "b": {2: labels}}, labels)
    assert row_cells(tmp_path) is None, "no seed of both"
    run = make_run(tmp_path / "runs" / "b1", 1, optimizer__lr=0.1)
    predict(tmp_path / "predict" / "b1", run, labels[:30], labels[:30])
    assert row_cells(tmp_path) is None, "other rows"


def test_a_table_is_of_who_wrote_it_last(tmp_path, monkeypatch):
    """Whoever ended before he wrote has noted it as well; and what was noted holds where the folder is taken to."""
    here, there, table = tmp_path / "here", tmp_path / "there", Path("mine", "rte-validation.csv")
    here.mkdir()
    monkeypatch.chdir(here)
    for number, run in ((1, "a"), (0, "b")):
        predict(Path(f"p{number}"), run, ["yes"], ["yes"], output=table.parent)
        assert _written([here]) == ({here / table: here / run}, [])
    monkeypatch.chdir(tmp_path)
    here.rename(there)
    assert _written([there]) == ({there / table: there / "b"}, [])
    os.utime(there / table, (1, 1))
    assert _written([there]) == ({}, []), "older than both notes"
    predict(there / "own", there / "b", ["yes"], ["yes"])
    os.utime(there / "own" / table.name, (1, 1))
    own = {there / "own" / table.name: there / "b"}
    assert _written([there]) == (own, []), "nobody else writes there"
    others = [there / "soft_targets", there / "own" / "rte-validation.jsonl", *[path / "x.csv" for path in own]]
    note_predicted(there / "p2", there / "b", others)
    others[0].mkdir()
    others[1].touch()
    assert _written([there]) == (own, []), "no table, or its folder is a file by now"


def test_a_folder_keeps_what_was_predicted_there(tmp_path):
    """``split=validation``, then ``split=train`` in its folder: the report knew the second table alone."""
    validation, train = (tmp_path / "out" / f"rte-{split}.csv" for split in ("validation", "train"))
    validation.parent.mkdir()
    for place, run, table in (("a", "A", validation), ("b", "B", validation), ("a", "A", train)):
        note_predicted(tmp_path / place, tmp_path / run, [table])
        table.unlink(missing_ok=True)
        table.touch()
    assert _written([tmp_path])[0] == {validation: tmp_path / "B", train: tmp_path / "A"}, "B was the last to write it"
    own = tmp_path / "a" / "rte-validation.csv"
    predict(tmp_path / "a", tmp_path / "A", ["yes"], ["yes"])
    time.sleep(0.02)  # a tick of the clock of files
    note_predicted(tmp_path / "b", tmp_path / "B", [own])
    own.write_text("b")
    time.sleep(0.02)
    note_predicted(tmp_path / "a", tmp_path / "A", [own])
    assert _written([tmp_path])[0][own] == tmp_path / "B", "who asked again, and ended before it wrote, has not"
    own.unlink()
    note_predicted(tmp_path / "a", tmp_path / "C", [train])
    os.utime(train)
    assert _written([tmp_path])[0] == {validation: tmp_path / "B", train: tmp_path / "C"}


def test_what_could_not_be_noted_is_not_ones_own(tmp_path, monkeypatch):
    """The disk is full after half of a note, and another model's table lies there."""
    table = tmp_path / "out" / "rte-validation.csv"
    predict(tmp_path / "b", tmp_path / "B", ["yes"], ["yes"], output=table.parent)

    def fail(note):
        raise OSError(28, "No space left on device", "x")

    with monkeypatch.context() as patch:
        patch.setattr(predicted, "last_change", fail)
        with pytest.raises(OSError, match="No space left"):
            note_predicted(tmp_path / "a", tmp_path / "A", [table])
    assert _written([tmp_path])[0] == {table: tmp_path / "B"}


def test_jobs_of_a_sweep_write_no_table_over_each_others(tmp_path, monkeypatch):
    """``kd-predict -m run=A,B output=FOLDER``: the table of the last, told with a word, "replaced"."""
    monkeypatch.chdir(tmp_path)
    sweep = Path("sweep")
    sweep.mkdir()
    jobs = [tmp_path / sweep / str(number) for number in range(3)]
    note_predicted(jobs[1], Path("b"), [Path("t.csv")], sweep)
    note_predicted(jobs[1], Path("b"), [Path("t.csv")], sweep)
    note_predicted(jobs[2], Path("a"), [Path("u.csv")], sweep)
    note_predicted(jobs[0], Path("a"), [Path("w.csv")], sweep)
    before = (jobs[0] / ".hydra" / PREDICTED).read_text()
    with pytest.raises(UserError, match=r"t.csv is written by another job of this sweep \(.*/1\): with output='FOLD"):
        note_predicted(jobs[0], Path("a"), [Path("v.csv"), Path("t.csv")], sweep)
    assert (jobs[0] / ".hydra" / PREDICTED).read_text() == before, "what it has written before is its own"
    (jobs[2] / ".hydra" / PREDICTED).write_text("{")
    note_predicted(jobs[0], Path("a"), [Path("t.csv")])
    note_predicted(jobs[0], Path("a"), [Path("t.csv")])
    (sweep / "multirun.yaml").touch()
    later = last_change(sweep / "multirun.yaml") + 60
    os.utime(sweep / "multirun.yaml", (later, later))
    note_predicted(jobs[2], Path("a"), [Path("t.csv")], sweep)


def test_of_jobs_that_begin_together_one_writes(tmp_path):
    """In one tick of the clock: each took itself for the first, or for the second."""

    def take(number):
        with suppress(UserError):
            note_predicted(tmp_path / str(number), tmp_path / "a", [tmp_path / "t.csv"], tmp_path)
            return number

    for _ in range(10):
        with ThreadPoolExecutor(4) as pool:
            took = [number for number in pool.map(take, range(4)) if number is not None]
        assert len(took) == 1
        shutil.rmtree(tmp_path / str(took[0]))


def test_damaged_predictions_are_told(tmp_path, capsys):
    labels = ["yes", "no"] * 20
    students_of(tmp_path, {"a": {1: labels}, "b": {1: labels}}, labels)
    (tmp_path / "predict" / "a1" / "rte-validation.csv").write_text("")
    assert call(tmp_path) == 0
    assert "rte-validation.csv cannot be read" in capsys.readouterr().out
    assert "Row by row" not in (tmp_path / "report" / "report.md").read_text()


# --- what is missing


@pytest.fixture
def sweep(tmp_path):
    """A sweep of six jobs, each of which ended in its own way."""
    folder = tmp_path / "outputs" / "bam" / "sweep_x"
    folder.mkdir(parents=True)
    hydra = {
        "sweep": {"dir": "${paths.output}/${name}/sweep_${now:%Y}", "subdir": "${hydra.job.num}"},
        "sweeper": {"params": None},
        "overrides": {"task": ["experiment=bam", "seed=1,2,3", "lr=1,2"]},
        "job": {"config_name": "distill"},
    }
    (folder / "multirun.yaml").write_text(yaml.safe_dump({"name": "bam", "hydra": hydra}))
    ends = ["finished", "running", "interrupted", "failed"]
    for number, status in enumerate(ends):
        told = ["experiment=bam", f"seed={number // 2 + 1}", f"lr={number % 2 + 1}"]
        make_run(folder / str(number), number // 2 + 1, status=status, overrides=told, optimizer__lr=number % 2 + 1)
    (folder / "3" / "error.txt").write_text("ValueError: no such file\n")
    (folder / "4" / ".hydra").mkdir(parents=True)
    (folder / "4" / ".hydra" / "overrides.yaml").write_text("[experiment=bam, seed=3, lr=1]")
    return folder


def test_who_predicts_in_the_folder_of_a_sweep_is_no_job_of_it(sweep):
    """``no summary.json: refused or ended before it trained``."""
    before = missing([sweep.parents[2]], *collect([sweep.parents[2]]))
    for name in ("0/predicted", "p1/0"):
        noted = sweep / name / ".hydra"
        noted.mkdir(parents=True)
        (noted / "overrides.yaml").write_text("[run=0]")
        (noted / "hydra.yaml").write_text("hydra: {job: {config_name: predict}}")
    assert missing([sweep.parents[2]], *collect([sweep.parents[2]])) == before


def test_runs_of_jobs_that_were_skipped_count(tmp_path):
    """``kd-report`` of the sweep that was called again, and the second call had skipped all: nothing to report."""
    first = make_run(tmp_path / "first" / "0", 1)
    (tmp_path / "again" / "0").mkdir(parents=True)
    (tmp_path / "again" / "0" / "finished_in.txt").write_text("../../first/0\n")
    (found,) = collect([tmp_path / "again"])[0]
    assert (found.folder, found.finished) == (first, True)
    assert len(collect([tmp_path])[0]) == 1, "once"
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / "deep" / "er" / "link").symlink_to(tmp_path / "again")
    assert collect([tmp_path / "deep" / "er" / "link"])[0][0].folder == first
    shutil.rmtree(tmp_path / "first")
    assert collect([tmp_path])[0] == []
    assert state(tmp_path / "again" / "0", None) == f"had finished in {first}, where no result is any more"


def test_another_command_with_the_same_arguments_is_no_result(sweep):
    """A teacher that ``kd-train`` has trained for a student that ``kd-distill`` has not."""
    before = missing([sweep.parent], *collect([sweep.parent]))
    other = make_run(sweep.parent / "9", 3, overrides=["experiment=bam", "seed=3", "lr=2"], command="train")
    assert missing([sweep.parent], *collect([sweep.parent])) == before
    (other / ".hydra" / "hydra.yaml").write_text("hydra: {runtime: {}, job: {config_name: distill}}")
    assert missing([sweep.parent], *collect([sweep.parent])) == [line for line in before if "(seed=3 lr=2)" not in line]


def test_a_trial_is_told_with_what_it_drew(sweep):
    """Of a sweep over values it was; of a search each was a number."""
    config = yaml.safe_load((sweep / "multirun.yaml").read_text())
    config["hydra"] |= {"sweeper": {"n_trials": 4}, "overrides": {"task": ["seed=1", "lr=interval(0,1)"]}}
    (sweep / "multirun.yaml").write_text(yaml.safe_dump(config))
    assert [line.partition(": ")[0] for line in missing([sweep], *collect([sweep]))] == [
        f"{sweep}/1 (lr=2)",
        f"{sweep}/2 (lr=1)",
        f"{sweep}/3 (lr=2)",
        f"{sweep}/4 (lr=1)",
    ]


def test_a_job_whose_summary_is_damaged_is_told_once(sweep):
    """``no summary.json``, and in the next line that it cannot be read: two of one."""
    (sweep / "0" / "summary.json").write_text("{")
    found, damaged = collect([sweep.parents[2]])
    (line,) = [line for line in missing([sweep.parents[2]], found, damaged) if f"{sweep}/0" in line]
    assert "summary.json cannot be read" in line


def test_what_a_sweep_lacks_is_listed(sweep):
    """Of each job that has no result, what it was told and what became of it."""
    lines = missing([sweep.parents[2]], *collect([sweep.parents[2]]))
    found = {line.removeprefix(f"{sweep}/").partition(": ")[0]: line.partition(": ")[2] for line in lines}
    assert list(found) == [
        "1 (seed=1 lr=2)",
        "2 (seed=2 lr=1)",
        "3 (seed=2 lr=2)",
        "4 (seed=3 lr=1)",
        f"{sweep}, job 5 (seed=3 lr=2)",
    ]
    said = list(found.values())
    assert said[0].startswith("running, or killed; last written 20")
    assert said[1] == "interrupted; the same command with skip_finished=true goes on"
    assert said[2] == "failed: ValueError: no such file"
    assert said[3].startswith("no summary.json")
    assert said[4] == "never started"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("refused: seed is -3", "refused: seed is -3"),
        ("crashed: ValueError: no; traceback in 4/x.log", "crashed: ValueError: no; traceback in 4/x.log"),
        ("interrupted: it was ended from outside", "interrupted; the same command with skip_finished=true goes on"),
        (
            "interrupted: it was ended from outside, as job 7_3 of SLURM",
            "interrupted; the same command with skip_finished=true goes on, unless squeue still lists job 7_3",
        ),
        ("queued again: it lost its place", "queued again, and goes on by itself"),
    ],
)
def test_what_ended_a_job_is_told_as_the_sweep_notes_it(sweep, text, said):
    """``failed: interrupted: ...`` sends people to look for an error."""
    (sweep / "4" / "error.txt").write_text(f"{text}\n")
    (line,) = [line for line in missing([sweep], *collect([sweep])) if line.startswith(f"{sweep}/4 ")]
    assert line.partition("): ")[2] == said


def test_a_job_that_was_skipped_is_not_missing(sweep):
    """The second call of a sweep; its folder may have been copied from a cluster since."""
    (sweep / "4" / "finished_in.txt").write_text("../0\n")
    assert not [line for line in missing([sweep], *collect([sweep])) if line.startswith(f"{sweep}/4 ")]


def test_a_job_that_runs_is_told_from_one_that_was_killed(sweep):
    """Both have a summary that says running; whoever runs holds a lock."""
    with marked_as_running(sweep / "1"):
        (running,) = [line for line in missing([sweep], *collect([sweep])) if line.startswith(f"{sweep}/1 ")]
    (sweep / "1" / ".running").touch()
    (killed,) = [line for line in missing([sweep], *collect([sweep])) if line.startswith(f"{sweep}/1 ")]
    goes_on = "the same command with skip_finished=true goes on"
    assert [line.partition("): ")[2] for line in (running, killed)] == ["running", f"killed; {goes_on}"]


@pytest.mark.parametrize("text", ["[]", "hydra: {sweep", "hydra: {sweep: null}", ""])
def test_a_sweep_that_cannot_be_read_is_told(sweep, text):
    """Its runs count, and those of other sweeps; a traceback hides all of them."""
    (sweep / "multirun.yaml").write_text(text)
    lines = missing([sweep], *collect([sweep]))
    assert [str(sweep / "multirun.yaml") in line for line in lines] == [False] * 3 + [True]
    assert lines[-1].endswith(": jobs of this sweep that have no summary.json are not told")


def test_jobs_in_folders_of_other_names_are_found(sweep):
    """``hydra.sweep.subdir`` is the user's."""
    for number in range(5):
        (sweep / f"job_{number}").mkdir()
        (sweep / str(number)).rename(sweep / f"job_{number}" / "deep")
    lines = missing([sweep], *collect([sweep]))
    assert [line.removeprefix(f"{sweep}").partition(" (")[0] for line in lines] == [
        *(f"/job_{number}/deep" for number in (1, 2, 3, 4)),
        ", job 5",
    ]


@pytest.mark.parametrize(
    ("command", "more"), [("distill", "skip_finished=true"), ("train", "ckpt_path=last skip_finished=true")]
)
def test_how_a_job_goes_on_depends_on_its_command(sweep, command, more):
    """The same ``kd-train`` begins anew."""
    (sweep / "2" / ".hydra" / "hydra.yaml").write_text(f"hydra: {{job: {{config_name: {command}}}}}")
    (line,) = [line for line in missing([sweep], *collect([sweep])) if line.startswith(f"{sweep}/2 ")]
    assert line.endswith(f": interrupted; the same command with {more} goes on")


def test_a_sweep_that_never_began_is_one_line(sweep):
    """One misspelt option, and a line for each job of the sweep that Hydra refused."""
    other = sweep.parent / "sweep_y"
    other.mkdir()
    told = (sweep / "multirun.yaml").read_text().replace("lr=1,2", "lr=3,4")
    (other / "multirun.yaml").write_text(told)
    lines = missing([sweep.parent], *collect([sweep.parent]))
    assert [line for line in lines if line.startswith(str(other))] == [f"{other}: none of its 6 jobs has begun"]


def test_what_was_made_up_for_is_not_missing(sweep):
    """A job that another command has finished since: in another order, with what changes no result."""
    told = ["lr=2", "experiment=bam", "seed=3", "skip_finished=true", "trainer.devices=2", "paths.output=x"]
    make_run(sweep.parent / "later", 3, overrides=told, optimizer__lr=2)
    make_run(sweep.parent / "later_too", 2, overrides=["experiment=bam", "seed=2", "lr=1"], optimizer__lr=1)
    lines = missing([sweep.parent], *collect([sweep.parent]))
    assert [re.search(r"/(\d) ", line)[1] for line in lines] == ["1", "3", "4"]


def test_of_several_attempts_the_last_that_began_is_told(sweep):
    """A gap for each mistake on the way hides those that are left."""
    made = {"later": ["seed=3", "lr=1"], "later_still": ["seed=3", "lr=1", "skip_finished=true"]}
    for name, told in made.items():
        make_run(sweep.parent / name, 3, status="failed", overrides=["experiment=bam", *told])
    other = sweep.parent / "sweep_y"
    other.mkdir()
    (other / "multirun.yaml").write_text((sweep / "multirun.yaml").read_text())
    make_run(other / "3", 2, status="interrupted", overrides=["experiment=bam", "seed=2", "lr=2"])
    lines = missing([sweep.parent], *collect([sweep.parent]))
    assert [line.partition(": ")[0].removeprefix(f"{sweep.parent}/") for line in lines] == [
        "sweep_x/1 (seed=1 lr=2)",
        "sweep_x/2 (seed=2 lr=1)",
        "sweep_y/3 (seed=2 lr=2)",
        "sweep_y, job 5 (seed=3 lr=2)",
        "later_still",
    ]


def test_an_attempt_that_left_it_to_another_is_not_the_last(sweep):
    """The one that runs, or was killed, is what there is."""
    other = sweep.parent / "sweep_y"
    other.mkdir()
    (other / "multirun.yaml").write_text((sweep / "multirun.yaml").read_text().replace("seed=1,2,3", "seed=2"))
    make_run(other / "1", 2, status="failed", overrides=["experiment=bam", "seed=2", "lr=1"])
    (other / "1" / "error.txt").write_text("run elsewhere: sweep_x/2 has these settings, and goes on\n")
    lines = missing([sweep.parent], *collect([sweep.parent]))
    assert any(line.startswith(f"{sweep}/2 (seed=2 lr=1): interrupted; ") for line in lines)
    assert not any("run elsewhere" in line for line in lines)


@pytest.mark.parametrize(
    ("told", "count"),
    [
        (["a=1"], 1),
        (["a=1,2", "b=choice(x,y,z)", "+c=[1,2]"], 6),
        (["a=range(1,4)", "task=[rte],[mrpc]"], 6),
        (["a='x,y'"], 1),
        (["a=glob(*)"], None),
        (["a=interval(0,1)"], None),
    ],
)
def test_jobs_are_counted_as_hydra_does(told, count):
    jobs = jobs_of_grid({}, told)
    assert (jobs if jobs is None else len(jobs)) == count


@pytest.mark.parametrize(
    ("sweeper", "goes_on"),
    [
        (
            {"n_trials": 7},
            "the same command (without hydra.sweep.dir) adds trials, with other values",
        ),
        ({}, "the same command with skip_finished="),
    ],
)
def test_a_sweep_that_only_its_sweeper_can_count(sweep, sweeper, goes_on):
    """No trial in particular lacks that has not begun, and none that was drawn is drawn again."""
    told = yaml.safe_load((sweep / "multirun.yaml").read_text())
    told["hydra"]["overrides"]["task"] = ["lr=interval(0,1)"]
    told["hydra"]["sweeper"] = sweeper
    (sweep / "multirun.yaml").write_text(yaml.safe_dump(told))
    lines = missing([sweep], *collect([sweep]))
    assert len(lines) == 4
    assert f": interrupted; {goes_on}" in lines[1]


# --- the command


def call(*arguments):
    """Call the command; return its exit code."""
    try:
        report.main([str(argument) for argument in arguments])
    except SystemExit as end:
        return end.code
    return 0


def test_the_report_is_three_files_and_a_table(tmp_path, capsys):
    four_seeds(tmp_path / "runs" / "a")
    four_seeds(tmp_path / "runs" / "b", gain=0.3, optimizer__lr=1e-3)
    make_run(tmp_path / "runs" / "c", 9, status="failed")
    assert call(tmp_path / "runs", "--output", tmp_path / "new" / "report") == 0
    said = capsys.readouterr().out
    assert "lr=0.001" in said
    assert f"missing (1):\n  {tmp_path}/runs/c: failed; its log says why" in said
    folder = tmp_path / "new" / "report"
    assert sorted(path.name for path in folder.iterdir()) == ["report.csv", "report.html", "report.md"]
    table = pd.read_csv(folder / "report.csv")
    assert len(table) == 8 * 3 * (1 + 2 + 1), "runs, roles, metrics of both tasks and the average"
    row = table[(table["seed"] == 3) & (table["task"] == "mrpc") & (table["role"] == "student")]
    assert row["value"].tolist() == pytest.approx([0.63, 0.53, 0.69, 0.59])
    assert row["main"].tolist() == [True, False, True, False]
    text = (folder / "report.md").read_text()
    assert "| rte (accuracy) | lr=0.0001 | 4 | 75.0 ±0.0 | 50.0 ±0.0 | 52.5 ±1.3 | +2.5 ±1.3 | 0.500 |" in text
    assert text.index("What is missing") < text.index("## Scores") < text.index("## Groups against each other")


def test_the_page_needs_no_other_file(tmp_path):
    """Plots stand in the page, in its colours; a name with signs of HTML is a name."""
    pytest.importorskip("matplotlib")
    for number, name in enumerate(("<b>&", "plain")):
        four_seeds(tmp_path / str(number), name=name)
    assert call(tmp_path) == 0
    page = (tmp_path / "report" / "report.html").read_text()
    assert "<b>" not in page
    assert "&lt;b&gt;&amp;" in page
    assert not re.search(r'(src|href)="(?!#)', re.sub(r'xmlns[:\w]*="[^"]*"', "", page))
    figures = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    assert len(figures) == 3
    ids = [one for figure in figures for one in re.findall(r' id="([^"]+)"', figure)]
    assert len(ids) == len(set(ids))
    for figure in figures:
        ElementTree.fromstring(figure)
        assert "currentColor" in figure
        assert set(re.findall(r'(?:href="#|url\(#)([^")]+)', figure)) <= set(ids)
    for figure in figures[:2]:
        ticks = [float(text) for text in re.findall(r">([\d.]+)</text>", figure)]
        assert {60, 70} <= set(ticks), "the scores lie within the axes"
    again = page
    assert call(tmp_path) == 0
    assert (tmp_path / "report" / "report.html").read_text() == again, "the same runs, the same page"


def test_without_matplotlib_the_rest_is_written(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(write, "can_plot", lambda: False)
    make_run(tmp_path / "a")
    assert call(tmp_path) == 0
    assert "plots are left out" in capsys.readouterr().err
    assert "<svg" not in (tmp_path / "report" / "report.html").read_text()


def change_summary(run, **values):
    summary = json.loads((run / "summary.json").read_text())
    write_json(run / "summary.json", summary | values)


@pytest.mark.parametrize(
    "damage",
    [
        lambda run: (run / "summary.json").write_text('{"experiment": '),
        lambda run: (run / "summary.json").write_text("[]"),
        lambda run: (run / "summary.json").write_bytes(b"\xff\xfe"),
        lambda run: (run / "summary.json").write_text((run / "summary.json").read_text().replace("0.7,", '"0.7",')),
        lambda run: (run / "summary.json").write_text((run / "summary.json").read_text().replace("0.7,", "NaN,")),
        lambda run: (run / "config.yaml").unlink(),
        lambda run: (run / "config.yaml").write_text("a: [1"),
        lambda run: change_summary(run, tasks=[]),
        lambda run: change_summary(run, tasks={"rte": {"student": 0.5}}),
        lambda run: change_summary(run, parameters=None),
        lambda run: change_summary(run, seed="1"),
        lambda run: (run / ".hydra" / "overrides.yaml").write_text("- seed=1\n- 'lr"),
        lambda run: (run / ".hydra" / "overrides.yaml").write_text(""),
        lambda run: (run / ".hydra" / "hydra.yaml").write_text(""),
        lambda run: (run / ".hydra" / "hydra.yaml").write_text("hydra:\n  runtime:\n"),
        lambda run: (run / ".hydra" / "hydra.yaml").write_text("hydra:\n  runtime: {choices: {a"),
    ],
)
def test_a_damaged_run_is_told_and_the_rest_goes_on(tmp_path, capsys, damage):
    make_run(tmp_path / "good", 1)
    damage(make_run(tmp_path / "bad", 2))
    assert call(tmp_path) == 0
    (line,) = re.findall(r"^  .*/bad/.*$", capsys.readouterr().out, re.MULTILINE)
    assert line.endswith(": the run is left out")
    assert set(pd.read_csv(tmp_path / "report" / "report.csv")["seed"]) == {1}
    assert line.strip() in (tmp_path / "report" / "report.md").read_text()


def test_what_other_commands_noted_may_be_damaged(tmp_path, capsys):
    """A report finds predictions by these notes, and looks at all of them."""
    make_run(tmp_path / "good", 1)
    labels = ["yes", "no"] * 20
    predict(tmp_path / "bad", tmp_path / "good", labels, labels)
    (tmp_path / "bad" / ".hydra" / PREDICTED).write_text("{")
    assert call(tmp_path) == 0
    (line,) = re.findall(r"^  .*/bad/.*$", capsys.readouterr().out, re.MULTILINE)
    assert line.endswith("cannot be read (JSONDecodeError): its predictions are left out")


def test_a_sweep_of_which_nothing_has_finished_has_a_report(tmp_path, capsys):
    make_run(tmp_path / "a", status="interrupted")
    assert call(tmp_path) == 0
    assert "interrupted" in (tmp_path / "report" / "report.html").read_text()
    assert "0 finished runs" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "required: FOLDER"),
        (["nowhere"], "nowhere is no folder"),
        (["."], "no summary.json under .: expected folders of runs"),
        ([".", "--output", "file"], "--output file is a file, expected a folder"),
        (["runs", "--output", "runs"], "--output runs is a run's folder, which has a report.md of its own"),
        ([".", "--outptu", "x"], "unrecognized arguments: --outptu x"),
        (["runs", "--output", "file/in"], "Not a directory: file/in"),
    ],
)
def test_mistakes_are_one_line(tmp_path, monkeypatch, capsys, arguments, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    if "runs" in arguments:
        make_run(tmp_path / "runs")
    assert call(*arguments) == 2
    found = capsys.readouterr().err
    assert found.startswith("kd-report: error: ")
    assert said in found
    assert found.count("\n") == 1


def test_nothing_heavy_is_imported_before_the_arguments_are_right(tmp_path):
    code = "import sys; from kd_lightning.report import main\ntry: main(['nowhere'])\nexcept SystemExit as end: "
    code += "assert end.code == 2; assert not {'torch', 'pandas', 'scipy', 'matplotlib'} & {*sys.modules}"
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, capture_output=True)


def test_a_report_needs_no_torch(tmp_path):
    """It reads files and draws: with torch and what stands on it, it would begin after six seconds."""
    pytest.importorskip("matplotlib")
    for number in (1, 2):
        four_seeds(tmp_path / "runs" / str(number), optimizer__lr=number)
    code = "import sys; from kd_lightning.report import main\n"
    code += "try: main(['--help'])\nexcept SystemExit as end: assert not end.code\nmain(['runs'])\n"
    code += "heavy = {'torch', 'transformers', 'datasets', 'pytorch_lightning', 'wandb'} & {*sys.modules}\n"
    code += "assert 'matplotlib' in sys.modules and not heavy, heavy"
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, capture_output=True)
