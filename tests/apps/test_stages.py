"""The free-form settings of a distillation's stages: what they come to, and what is wrong with them."""

import copy
import subprocess
import sys

import pytest

from kd_lightning.apps.settings.stage_checks import check_stages
from kd_lightning.apps.settings.stages import (
    named_teachers,
    selection,
    tuned_tasks,
    who_teaches,
    with_settings,
)
from kd_lightning.errors import UserError

RUN = {
    "task": {name: {"metrics": ["accuracy", "f1"]} for name in ("rte", "cola", "mnli")},
    "batching": {"batch_size": 32, "window": 64},
    "system": {"task_heads": None},
    "student": {"scope": "multi", "fine_tune": None},
    "teacher": {
        "system": {"task_heads": None},
        "scope": "multi",
        "tasks": "all",
        "members": None,
        "seeds": [1],
        "select": None,
        "fine_tune": None,
        "ensemble": {"mean": "probabilities", "weights": "equal"},
    },
}
PAIRS = {f"{name} {seed}": (name, seed) for name in ("a", "2") for seed in (1, 2)}
THREE = {"a": {"encoder": {"dropout": 0.1}}, "b": {}, "c": {"seed": 7}}


def run(role="teacher", **settings):
    """Return the settings of a run, those of the teachers (or of the student) changed."""
    cfg = copy.deepcopy(RUN)
    cfg[role] |= settings
    return cfg


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, {"": ("", 1)}),
        ({"seeds": [3]}, {"": ("", 3)}),
        ({"seeds": [1, 2]}, {"1": ("", 1), "2": ("", 2)}),
        ({"members": THREE}, {"a": ("a", 1), "b": ("b", 1), "c": ("c", 7)}),
        (
            {"members": {"a": {}, 2: {}}, "seeds": [1, 2]},
            {"a 1": ("a", 1), "a 2": ("a", 2), "2 1": ("2", 1), "2 2": ("2", 2)},
        ),
        (
            {"members": THREE, "seeds": [1, 2]},
            {"a 1": ("a", 1), "a 2": ("a", 2), "b 1": ("b", 1), "b 2": ("b", 2), "c": ("c", 7)},
        ),
        ({"members": {**THREE, "a": None}}, {"b": ("b", 1), "c": ("c", 7)}),
    ],
)
def test_teachers_are_members_times_seeds(settings, expected):
    assert named_teachers(run(**settings)["teacher"]) == expected


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, {"rte": ["a", "b", "c"], "cola": ["a", "b", "c"], "mnli": ["a", "b", "c"]}),
        (
            {"tasks": {"mnli": "all", "rte": "all", "cola": None, "x": "all"}},
            {"rte": ["a", "b", "c"], "mnli": ["a", "b", "c"]},
        ),
        ({"tasks": {"rte": "all", "cola": None, "mnli": ["c", "a"]}}, {"rte": ["a", "b", "c"], "mnli": ["a", "c"]}),
        (
            {"tasks": {"rte": ["a"], "cola": None, "mnli": ["b 2", "c"]}, "seeds": [1, 2]},
            {"rte": ["a 1", "a 2"], "mnli": ["b 2", "c"]},
        ),
    ],
)
def test_who_teaches_what(settings, expected):
    found = who_teaches(run(members=THREE, **settings))
    assert found == expected
    assert list(found) == [name for name in RUN["task"] if name in expected]


def test_selection_names_metrics():
    select = {"best": 1, "by": ["mnli", "rte/f1"]}
    assert selection(run(select=select, seeds=[1, 2])) == [("mnli", None), ("rte", "f1")]
    assert selection(run(select={"best": 1})) == [(name, None) for name in RUN["task"]]
    assert selection(run()) == []
    both = {"best": 1, "by": ["rte/f1", "rte", "rte/accuracy"]}
    assert selection(run(select=both)) == [("rte", "f1"), ("rte", None), ("rte", "accuracy")]


def test_only_tasks_with_a_teacher_have_one_to_be_fine_tuned():
    cfg = run(tasks={"rte": "all", "mnli": "all", "cola": None}, fine_tune={"tasks": "all"})
    cfg["student"]["fine_tune"] = {"trainer": {"max_epochs": 1}}
    assert tuned_tasks(cfg, "teacher.fine_tune") == ["rte", "mnli"]
    assert tuned_tasks(cfg, "student.fine_tune") == ["rte", "cola", "mnli"]
    assert tuned_tasks(run(), "student.fine_tune") == []
    assert tuned_tasks(run("student", fine_tune={}), "student.fine_tune") == ["rte", "cola", "mnli"]


def test_settings_change_at_any_depth():
    """A change that reaches its base, or takes the rest of a group away: another head, with its defaults."""
    base, changes = {"a": {"b": 1, "c": {"d": 2}}, "e": {"f": 3}}, {"a": {"c": {"d": 5}}, "e": {"_target_": "x"}}
    found = with_settings(base, changes)
    assert found == {"a": {"b": 1, "c": {"d": 5}}, "e": {"_target_": "x", "f": 3}}
    assert base == {"a": {"b": 1, "c": {"d": 2}}, "e": {"f": 3}}
    found["e"]["_target_"] = "y"
    assert changes["e"] == {"_target_": "x"}


@pytest.mark.parametrize(
    ("role", "settings", "message"),
    [
        ("teacher", {"scope": "both"}, r"teacher.scope is 'both', expected single .* or multi"),
        ("student", {"scope": None}, r"student.scope is None, expected single .* or multi"),
        ("teacher", {"tasks": ["rte"]}, r"teacher.tasks is \['rte'\], expected all, or .*=\{rte: all, mnli: null\}"),
        ("teacher", {"tasks": dict.fromkeys(RUN["task"])}, r"teacher.tasks leaves no task with a teacher"),
        ("teacher", {"tasks": "rte"}, r"teacher.tasks is 'rte', expected all, or who teaches each task"),
        ("teacher", {"tasks": {"rte": "all"}}, r"teacher.tasks says nothing of cola: give it all, null, or"),
        ("teacher", {"tasks": {"rte": "all", "x": None}}, r"says nothing of cola: .*; x is no task of this run"),
        (
            "teacher",
            {"tasks": {"qqp": None, "colla": "all", "rte": "all"}},
            r"says nothing of cola: .*teachers; colla is no task of this run$",
        ),
        (
            "teacher",
            {"tasks": {"qqp": None, "wnli": None, "rte": "all"}},
            r"says nothing of cola: .* a list of teachers$",
        ),
        ("teacher", {"members": {"a": None, "b": None}}, r"teacher.members leaves out all of a, b: keep one"),
        (
            "teacher",
            {"members": {"a": {}, "b": {}}, "tasks": {"rte": ["a"], "cola": ["a"], "mnli": None}},
            r"teacher.tasks gives the teacher b no task: name it there, or leave it out",
        ),
        ("teacher", {"tasks": {"rte": ["a"], "cola": None, "mnli": None}}, r"teacher.tasks.rte names the teacher a"),
        (
            "teacher",
            {"tasks": {"rte": [], "cola": None, "mnli": None}},
            r"teacher.tasks.rte is \[\], expected all, null",
        ),
        ("teacher", {"members": ["a"]}, r"teacher.members is \['a'\], expected \{NAME"),
        ("teacher", {"members": {"a": 3}}, r"teacher.members.a is 3, expected settings"),
        ("teacher", {"members": {"a b": {}}}, r"teacher.members.a b: expected a name of letters"),
        ("teacher", {"members": {"a": {"encodr": {}}}}, r"teacher.members.a has encodr, .*did you mean 'encoder'"),
        ("teacher", {"members": {"a": {"encoder": "bert"}}}, r"teacher.members.a.encoder is 'bert', expected its"),
        ("teacher", {"members": {"a": {"seed": -1}}}, r"teacher.members.a.seed is -1, expected a whole number"),
        ("teacher", {"members": {"a": {"batching": {"batch": 3}}}}, r"members.a.batching has batch, expected .*window"),
        ("teacher", {"select": {"best": 3}}, r"teacher.select.best is 3, expected 1 to 1, the number of teachers"),
        (
            "teacher",
            {"select": {"bets": 1}},
            r"teacher.select has bets, expected some of best, by; did you mean 'best'",
        ),
        ("teacher", {"select": 3}, r"teacher.select is 3, expected settings: best, by"),
        ("teacher", {"select": {"best": 1, "by": []}}, r"teacher.select.by is \[\], expected all, or a list"),
        ("teacher", {"select": {"best": 1, "by": ["rt"]}}, r"teacher.select.by names the task rt.*did you mean 'rte'"),
        (
            "teacher",
            {"select": {"best": 1, "by": ["rte/acuracy"]}},
            r"by names rte/acuracy, expected a metric of rte: .*mean 'accuracy'",
        ),
        ("teacher", {"select": {"best": 1, "by": ["rte", "rte"]}}, r"teacher.select.by names rte twice, expected each"),
        (
            "teacher",
            {"scope": "single", "select": {"best": 1, "by": ["rte"]}},
            r"teacher.select.by is for models of all tasks .*by its main metric: leave it out",
        ),
        (
            "teacher",
            {"seeds": [1, 2], "select": {"best": 1}, "tasks": {"rte": [1], "cola": "all", "mnli": "all"}},
            r"teacher.tasks names teachers that teacher.select may not choose",
        ),
        ("teacher", {"ensemble": {"mean": "median", "weights": "equal"}}, r"teacher.ensemble.mean is 'median'"),
        (
            "teacher",
            {"ensemble": {"mean": "logits", "weights": "best"}},
            r"weights is 'best', expected equal, score, or",
        ),
        (
            "teacher",
            {"ensemble": {"mean": "logits", "weights": {"a": 1}}},
            r"weights has a, there is one teacher: several are teacher.members, or teacher.seeds",
        ),
        (
            "teacher",
            {"members": THREE, "ensemble": {"mean": "logits", "weights": {"a": 1}}},
            r"weights has a, expected one for each teacher: a, b, c",
        ),
        (
            "teacher",
            {"seeds": [1, 2], "ensemble": {"mean": "logits", "weights": {1: 1, 2: 0}}},
            r"weights.2 is 0, expected a number above 0",
        ),
        (
            "teacher",
            {"seeds": [1, 2], "select": {"best": 1}, "ensemble": {"mean": "logits", "weights": {1: 1, 2: 2}}},
            r"weights names teachers that teacher.select may not choose",
        ),
        ("teacher", {"fine_tune": {"heads": "fresh"}}, r"teacher.fine_tune.heads is 'fresh', expected kept"),
        (
            "teacher",
            {"tasks": {"rte": "all", "cola": None, "mnli": None}, "fine_tune": {"tasks": ["cola"]}},
            r"tasks names cola, which has no teacher",
        ),
        ("student", {"fine_tune": {"tasks": []}}, r"student.fine_tune.tasks is \[\], expected all or some tasks"),
        ("student", {"fine_tune": {"optimiser": {}}}, r"student.fine_tune has optimiser, .*did you mean 'optimizer'"),
        ("student", {"fine_tune": {"encoder": {}}}, r"student.fine_tune has encoder, expected some of tasks, heads"),
        ("student", {"fine_tune": True}, r"student.fine_tune is True, expected settings"),
        ("student", {"fine_tune": {"batching": {"unlabelled": True}}}, r"fine_tune.batching has unlabelled, expected"),
        ("teacher", {"members": {"a": {"batching": {"unlabelled": True}}}}, r"a.batching has unlabelled, expected"),
        (
            "teacher",
            {"system": {"task_heads": {"rte": 0.3}}},
            r"teacher.system.task_heads.rte is 0.3, expected settings",
        ),
        ("teacher", {"system": {"task_heads": ["rte"]}}, r"task_heads is \['rte'\], expected settings by task"),
        ("student", {"fine_tune": {"system": {"task_heads": {"rte": 1}}}}, r"fine_tune.system.task_heads.rte is 1"),
        ("student", {"fine_tune": {"batching": {"batch_sizes": 2}}}, r"fine_tune.batching has batch_sizes, .*mean"),
    ],
)
def test_what_is_wrong_is_told(role, settings, message):
    with pytest.raises(UserError, match=message):
        check_stages(run(role, **settings))


def test_nothing_heavy_is_loaded_for_it():
    """Five seconds of imports before a word that is misspelt."""
    heavy = "{'torch', 'transformers', 'pytorch_lightning'}"
    code = f"import sys, kd_lightning.apps.settings.early; print({heavy} & {{*sys.modules}})"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "set()"
