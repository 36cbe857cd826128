"""Which teachers teach, with which weights, and from where fits go on: with models that are scores alone."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest

from kd_lightning.apps.fits.build import own_task_heads, with_task_heads
from kd_lightning.apps.fits.inputs import FitInputs
from kd_lightning.apps.fits.shared import Shared
from kd_lightning.apps.fits.start import Start
from kd_lightning.apps.stages import teachers
from kd_lightning.apps.stages.member_checks import check_members
from kd_lightning.apps.stages.teachers import TrainedMember, best, ensemble_of, train_members
from kd_lightning.apps.stages.variants import Member, baseline_fits, fine_tuned, gold_only
from kd_lightning.apps.stages.variants import members as planned_members
from kd_lightning.errors import UserError
from tests.apps.test_stages import run

TASKS = [SimpleNamespace(name=name, metric="accuracy", kind="classification") for name in ("rte", "cola", "mnli")]
THREE = {"a": {}, "b": {"seed": 2}, "c": {"seed": 3}}


def model(name, **scores):
    """Return a model with scores: ``task=(accuracy, f1)``."""
    found = {task: {"accuracy": both[0], "f1": both[1]} for task, both in scores.items()}
    return SimpleNamespace(name=name, folder=name, result={"scores": found, "weights": f"weights of {name}"})


def of_all(name, *scores):
    """Return task -> a model of all tasks."""
    found = model(name, **dict(zip(("rte", "cola", "mnli"), scores, strict=True)))
    return dict.fromkeys(("rte", "cola", "mnli"), found)


TRAINED = {
    "a": of_all("a", (0.5, 0.9), (0.9, 0.9), (0.4, 0.4)),
    "b": of_all("b", (0.6, 0.6), (0.1, 0.1), (0.8, 0.5)),
    "c": of_all("c", (0.7, 0.8), (0.2, 0.2), (0.6, 0.8)),
}


@dataclass(frozen=True)
class FakeFit:
    """What is asked of a fit that is there already."""

    stage: str
    inputs: Any
    model: Any
    start: Any = None


@pytest.mark.parametrize(
    ("select", "expected"),
    [
        ({"best": 2, "by": ["mnli", "rte"]}, ["b", "c"]),  # 0.45, 0.70, 0.65
        ({"best": 1, "by": ["mnli/f1", "rte/f1"]}, ["c"]),  # 0.65, 0.55, 0.80
        ({"best": 1, "by": ["rte"]}, ["c"]),
        ({"best": 1, "by": ["rte/f1"]}, ["a"]),
        ({"best": 1, "by": ["rte/accuracy", "rte/f1", "mnli"]}, ["c"]),  # 0.60, 0.67, 0.70
        ({"best": 1, "by": ["mnli", "rte/accuracy", "rte/f1"]}, ["c"]),
        ({"best": 2}, ["a", "b"]),  # 0.60, 0.50, 0.50: of equal ones the first
        (None, ["a", "b", "c"]),
    ],
)
def test_the_best_are_those_of_the_highest_means(select, expected):
    """The first instead of the best; by one task of two, or by the main metric where another is named."""
    found = best(TRAINED, run(members=THREE, select=select), TASKS)
    assert found == dict.fromkeys(("rte", "cola", "mnli"), expected)


def test_models_of_single_tasks_are_chosen_task_by_task():
    """The best of one task, under the name of its seed, in all of them; or a model that its task has not."""
    of_single = {name: dict(models) for name, models in TRAINED.items()}
    del of_single["b"]["mnli"]
    found = best(of_single, run(scope="single", members=THREE, select={"best": 1}), TASKS)
    assert found == {"rte": ["c"], "cola": ["a"], "mnli": ["c"]}


def test_those_that_are_not_chosen_are_not_fine_tuned(monkeypatch):
    """Hours of training of models that nobody reads."""
    trained = []
    monkeypatch.setattr(teachers, "stored", lambda fit: trained.append(fit.stage) or fit.model)

    def fit(name, fine_tuned=""):
        inputs = SimpleNamespace(tasks=TASKS)
        return FakeFit(f"teacher {name}{fine_tuned}", inputs, TRAINED[name]["rte"])

    planned = [Member(name, (fit(name),), {"rte": fit(name, " rte fine-tuned")}) for name in TRAINED]
    cfg = run(members=THREE, select={"best": 1, "by": ["mnli"]}, fine_tune={"tasks": ["rte"]})
    found = train_members(planned, cfg, TASKS)
    assert {teacher.name: list(teacher.chosen) for teacher in found} == {"a": [], "b": ["rte", "cola", "mnli"], "c": []}
    assert trained == ["teacher a", "teacher b", "teacher c", "teacher b rte fine-tuned"]


def test_weights_by_score_are_those_of_what_teaches():
    """Weights upside down, of another metric, of another task, or from before fine-tuning."""
    members = [
        TrainedMember("a", TRAINED["a"], {}, TRAINED["a"]),
        TrainedMember("b", TRAINED["b"], {"rte": model("t", rte=(0.75, 1))}, TRAINED["b"]),
    ]
    cfg = run(members={"a": {}, "b": {}}, ensemble={"mean": "logits", "weights": "score"})
    found = ensemble_of(members, cfg, TASKS)
    assert found.mean == "logits"
    assert {task.name: found.recipe(task, None)["weights"] for task in TASKS} == {
        "rte": [0.5, 0.75],
        "cola": [0.9, 0.1],
        "mnli": [0.4, 0.8],
    }
    cfg["teacher"]["ensemble"]["weights"] = {"b": 3, "a": 1}
    assert ensemble_of(members, cfg, TASKS).recipe(TASKS[0], None)["weights"] == [1, 3]
    cfg["teacher"]["ensemble"]["weights"] = "equal"
    assert ensemble_of(members, cfg, TASKS).recipe(TASKS[0], None) == {"mean": "logits", "weights": None, "group": None}


HEAD = {"_target_": "linear_head", "dropout": 0.1, "sigmoid": False}


def head_of_any_settings(task, input_dim, **settings):
    """Return the settings."""
    return settings


def test_heads_of_single_tasks_are_what_differs():
    """A rate of one task that never applies; settings of all that another head loses; or null, as an error."""
    own = {"rte": {"dropout": 0.3}, "cola": None, "mnli": {"_target_": "san_head"}, "qqp": {"dropout": 0.9}}
    node = {"head": HEAD, "task_heads": own, "reduction": "mean"}
    found = with_task_heads(node, ["rte", "cola", "mnli"])
    assert found["task_heads"] == {
        "rte": {"_partial_": True, "_target_": "linear_head", "dropout": 0.3, "sigmoid": False},
        "mnli": {"_partial_": True, "_target_": "san_head", "dropout": 0.1, "sigmoid": False},
    }
    san = {**HEAD, "_target_": "kd_lightning.heads.san_head", "num_steps": 3}
    linear = {"rte": {"_target_": "kd_lightning.heads.linear_head"}}
    assert with_task_heads({"head": san, "task_heads": linear}, ["rte"])["task_heads"]["rte"] == {
        "_partial_": True,
        "_target_": "kd_lightning.heads.linear_head",
        "dropout": 0.1,
        "sigmoid": False,
    }
    any_settings = {"rte": {"_target_": f"{__name__}.head_of_any_settings"}}
    assert with_task_heads({"head": HEAD, "task_heads": any_settings}, ["rte"])["task_heads"]["rte"]["dropout"] == 0.1
    assert own_task_heads(node, ["cola", "x"]) == {"head": HEAD, "task_heads": None, "reduction": "mean"}
    assert own_task_heads({"head": HEAD}, ["rte"]) == {"head": HEAD}


def whole_run(**teacher):
    """Return settings of a run with those of its fits."""
    cfg = run(**teacher)
    cfg |= {"system": {"head": HEAD, "task_heads": {"rte": {"dropout": 0.3}}, "reduction": "mean", "gold_weight": 0.5}}
    cfg |= {"optimizer": {"lr": 1}, "trainer": {"max_epochs": 5, "precision": "auto"}, "augmenter": {}, "seed": 1}
    cfg["batching"] |= {"epoch_rows": 7, "unlabelled": False}
    cfg["teacher"] |= {"system": {"reduction": "sum"}, "batching": {"batch_size": 8}, "trainer": {"max_epochs": 2}}
    cfg["teacher"] |= {"optimizer": {"lr": 2}}
    return cfg


def test_fine_tuning_changes_what_it_says():
    """Settings that are dropped: as many epochs as before, at the rate of before."""
    changes = {"tasks": ["rte"], "trainer": {"max_epochs": 1}, "batching": {"window": 3}, "optimizer": {"lr": 3}}
    cfg = whole_run(fine_tune={**changes, "system": {"head": {"dropout": 0.5}}})
    fits = fine_tuned(cfg, "teacher.fine_tune", "teacher a", Shared(None), ["rte", "cola"])
    assert {task: fit.stage for task, fit in fits.items()} == {
        "rte": "teacher a rte fine-tuned",
        "cola": "teacher a cola fine-tuned",
    }
    found = fits["rte"].cfg
    assert list(found["task"]) == ["rte"]
    assert found["trainer"] == {"max_epochs": 1, "precision": "auto"}
    assert found["batching"] == {"batch_size": 32, "window": 3, "epoch_rows": None, "unlabelled": False}
    assert found["optimizer"] == {"lr": 3}
    assert found["system"]["head"] == {**HEAD, "dropout": 0.5}


@pytest.mark.parametrize(("identity", "told"), [("same", True), ("other", False)])
def test_a_teacher_that_is_the_baseline_is_told(caplog, identity, told):
    """The gain over the baseline would be that over one's own teacher, without a word."""
    fits = {name: SimpleNamespace(identity=name) for name in ("first", "same")}
    check_members([Member(name, (fit,), {}) for name, fit in fits.items()], [SimpleNamespace(identity=identity)])
    assert ("the teacher same is the baseline itself: give it another seed" in caplog.text) == told


def test_another_head_keeps_what_it_has():
    """A member, or a fine-tuning, with the linear head under a recipe of SAN: an error of a setting that it has not."""
    san = {**HEAD, "_target_": "kd_lightning.heads.san_head", "num_steps": 3}
    linear = {"_target_": "kd_lightning.heads.linear_head"}
    cfg = whole_run(fine_tune={"system": {"head": linear}}, members={"a": {}, "b": {"system": {"head": linear}}})
    cfg["system"] |= {"head": san}
    cfg["teacher"]["system"] |= {"head": san}
    one, other = (member.fits[0].cfg["system"]["head"] for member in planned_members(FitInputs(cfg, Shared(None))))
    assert one == san
    assert other == {**linear, "dropout": 0.1, "sigmoid": False}
    (fit,) = fine_tuned(cfg, "teacher.fine_tune", "teacher a", Shared(None), ["rte"]).values()
    assert fit.cfg["system"]["head"] == other
    assert cfg["system"]["head"] == san


def test_the_baseline_is_the_student_without_a_teacher(monkeypatch):
    """Other heads than the student's: a gain that is theirs."""
    cfg = whole_run()
    found = gold_only(cfg)["system"]
    assert found == {"reduction": "mean", "head": HEAD, "task_heads": {"rte": {"dropout": 0.3}}}
    monkeypatch.setattr(
        "kd_lightning.apps.stages.variants.FitInputs", lambda *args, **kwargs: SimpleNamespace(examples=99)
    )
    (fit,) = baseline_fits(cfg, Shared(None), ())
    assert fit.cfg["system"] == found
    assert fit.cfg["batching"]["epoch_rows"] == 7
    cfg["batching"]["epoch_rows"] = None
    (fit,) = baseline_fits(cfg, Shared(None), ())
    assert fit.cfg["batching"]["epoch_rows"] == 99, "as many steps as the student, which has unlabelled rows, too"


def test_members_have_their_settings_and_their_place():
    cfg = whole_run(members={"a": {"optimizer": {"lr": 9}}, "b": {}}, scope="multi")
    a, b = planned_members(FitInputs(cfg, Shared(None)))
    assert [member.fits[0].cfg["optimizer"]["lr"] for member in (a, b)] == [9, 2]
    assert [member.fits[0].prefix for member in (a, b)] == ["teacher.members.a.", "teacher."], "b has none of its own"
    assert [member.fits[0].cfg["trainer"]["max_epochs"] for member in (a, b)] == [2, 2]


def test_where_a_fit_begins_is_a_part_of_its_name():
    """Kept and new heads, or another trained model, found in the store under one name."""
    one, other = model("one"), model("other")
    names = [Start(*some).identity() for some in ((one, True), (one, False), (other, True))]
    assert len({str(name) for name in names}) == 3


def test_a_model_that_was_changed_is_not_gone_on_from():
    """A student of weights that nobody trained."""

    def refuse():
        raise UserError("the weights are others")

    changed = SimpleNamespace(check_weights=refuse, tokenizer=None)
    with pytest.raises(UserError, match="the weights are others"):
        Start(changed, True).encoder(SimpleNamespace(build=lambda tokenizer: None))
