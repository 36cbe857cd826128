"""Commands with a head for each teacher: how many there are, who speaks to which, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from kd_lightning.apps.fits.fit import Fit
from kd_lightning.apps.fits.inputs import FitInputs
from kd_lightning.apps.fits.shared import Shared
from kd_lightning.apps.fits.trained_model import TrainedModel
from kd_lightning.apps.results.scoring import scores_from_logits
from kd_lightning.data import Part, SoftTargets, collate
from kd_lightning.errors import UserError
from kd_lightning.systems import TmkdStudent
from tests.apps.conftest import sameness, write_pairs

THREE = ("system=tmkd", "task=animals", "teacher.seeds=[1,2,3]", "teacher.trainer.max_epochs=2", "trainer.max_epochs=2")
APART = "teacher.ensemble.mean=null"


def summary(folder):
    """Return a run's summary."""
    return json.loads((folder / "summary.json").read_text())


def heads(folder):
    """Return the names of a student's heads."""
    return {name.rpartition(".output")[0] for name in load_file(folder / "student" / "heads.safetensors")}


def test_each_teacher_has_a_head(kd, workplace):
    """Three teachers, one average: the student would be 1avg-o-1 under the name of m-o-1."""
    run = kd("distill", *THREE, APART)
    soft = {f"animals.soft.{number}" for number in range(3)}
    assert heads(run) == {"animals.gold", *soft}
    assert TrainedModel.open(run / "student").cfg["system"]["teachers"] == {"animals": 3}
    found = summary(run)["tasks"]["animals"]
    assert all(found[role] is not None for role in ("teacher", "ensemble", "baseline", "student"))


@pytest.mark.parametrize("mean", ["probabilities", "logits"])
def test_a_mean_is_one_teacher(kd, mean):
    """1avg-o-1: the same student with one soft head; the teachers are found in the store."""
    run = kd("distill", *THREE, f"teacher.ensemble.mean={mean}")
    assert heads(run) == {"animals.gold", "animals.soft.0"}


@pytest.mark.parametrize("scope", ["single", "multi"])
def test_the_best_is_one_teacher(kd, scope):
    """1-o-1: of three teachers the best alone."""
    run = kd("distill", *THREE, "topology=one_o_one", f"teacher.scope={scope}")
    assert heads(run) == {"animals.gold", "animals.soft.0"}
    found = summary(run)
    scores = [teacher["scores"]["animals"]["accuracy"] for teacher in found["teachers"]]
    assert len(scores) == 3
    assert [bool(teacher["chosen"]) for teacher in found["teachers"]].index(True) == scores.index(max(scores))
    assert found["tasks"]["animals"]["teacher"] == pytest.approx(max(scores))
    assert found["tasks"]["animals"]["ensemble"] is None


TOPOLOGIES = {
    "one_o_one": {"student": 1},
    "one_avg_o_one": {"student": 1},
    "m_o_m": {"student-1": 1, "student-2": 1, "student-3": 1},
    "m_o_1": {"student": 3},
}


def test_topologies_are_what_their_names_say(kd, fits):
    """Which students there are, with how many soft heads; teachers, and what they say, are there once for all four."""
    for topology, expected in TOPOLOGIES.items():
        run = kd("distill", *THREE, f"topology={topology}", "baseline=false")
        found = {folder.name: TrainedModel.open(folder).system for folder in sorted(run.glob("student*"))}
        assert {name: len(system.heads["animals"].soft) for name, system in found.items()} == expected
    assert [stage for stage in fits if stage.startswith("teacher")] == [f"teacher animals {i}" for i in (1, 2, 3)]
    assert len(list(Path("outputs/store/soft_targets").glob("animals-*"))) == 3


def test_the_head_of_1avg_o_1_hears_the_mean_of_logits(kd, monkeypatch):
    """The best of them, or a mean of probabilities, under the name of the average."""
    heard, run = {}, Fit.run

    def listens(fit, folder, checkpoint=None):
        heard[fit.stage] = fit.soft_targets
        return run(fit, folder, checkpoint)

    monkeypatch.setattr(Fit, "run", listens)
    kd("distill", *THREE, "topology=one_avg_o_one", "baseline=false")
    said = heard["student"]["animals", "train"]
    each = [SoftTargets.open(folder) for folder in Path("outputs/store/soft_targets").glob("animals-*")]
    ids = each[0].example_id
    logits = torch.stack([one.logits[torch.from_numpy(one.find(ids))] for one in each], dim=1)
    assert logits.shape[1] == 3
    assert not torch.allclose(logits[:, 0], logits[:, 1], atol=1e-3)
    torch.testing.assert_close(said.of(ids), logits.mean(1, keepdim=True), atol=1e-6, rtol=0)


def test_a_student_for_each_teacher(kd):
    """m-o-m: each student hears one teacher; the score is that of their averaged predictions."""
    run = kd("distill", *THREE, APART, "student.per_teacher=true")
    found, models = summary(run), [TrainedModel.open(run / f"student-{number}") for number in (1, 2, 3)]
    inputs = FitInputs(models[0].cfg, Shared.of(models[0].cfg))
    (task,), rows = inputs.tasks, inputs.evaluation_rows["animals", "validation"]
    each = torch.stack([model.logits(task, "validation", rows)[1] for model in models])
    assert not torch.allclose(each[0], each[1])
    scores = scores_from_logits(task, each.softmax(-1).mean(0).log(), rows)
    assert found["tasks"]["animals"]["metrics"]["student"] == pytest.approx(scores)
    for model in models:
        assert len(model.system.heads["animals"].soft) == 1
    assert "Those of the student are of its 3 models together." in (run / "report.md").read_text()
    one = sum(weight.numel() for weight in models[0].system.state_dict().values())
    assert found["parameters"]["student"] == 3 * one
    kd("evaluate", f"run={run}", folder="evaluated")
    assert json.loads(Path("evaluated/evaluation.json").read_text())["scores"]["animals"] == pytest.approx(scores)
    kd("predict", f"run={run}", "output=said")
    said = pd.read_csv("said/animals-validation.csv").filter(like="p_").to_numpy()
    np.testing.assert_allclose(said, each.softmax(-1).mean(0), atol=1e-5)
    with pytest.raises(UserError, match=r"3 students of animals, and soft targets are of one model: .*student-1"):
        kd("predict", f"run={run}", "format=soft_targets")
    one = kd("distill", *THREE[:2], *THREE[3:], APART, "teacher.seeds=[2]")
    torch.testing.assert_close(
        TrainedModel.open(one / "student").logits(task, "validation", rows)[1], each[1], rtol=0, atol=0
    )


def test_heads_learn_from_their_own_teachers(kd):
    """Teachers in another order than heads: what a head says is nearest to what its own teacher says."""
    run = kd("distill", *THREE, APART, "trainer.max_epochs=30", "system.gold_weight=0", "optimizer.lr=3e-3")
    student = TrainedModel.open(run / "student")
    inputs = FitInputs(student.cfg, Shared.of(student.cfg))
    (task,), rows = inputs.tasks, inputs.training_rows["animals", "train"]
    part = Part(task, "train", student.tokens(task, "train", rows))
    batch = collate([part], np.zeros(len(part.tokens), int), np.arange(len(part.tokens)), 0)
    with torch.no_grad():
        said = student.system.logits("animals", student.system.encode(batch), batch["tasks"]["animals"]["rows"])[:, 1:]
    teachers = [TrainedModel.open(Path(folder)) for folder in summary(run)["folders"]["teacher"]["animals"]]
    order = batch["example_id"].argsort()
    taught = torch.stack([teacher.logits(task, "train", rows)[1] for teacher in teachers], dim=1)
    distance = (said[order][:, :, None] - taught[:, None]).square().mean((0, 3))  # [heads, teachers]
    assert distance.argmin(1).tolist() == distance.argmin(0).tolist() == [0, 1, 2], distance


@pytest.fixture
def stored(kd, workplace):
    """Return a function: seed -> the soft targets of a teacher of this seed."""

    def stored(seed):
        folder = workplace / f"soft-{seed}"
        if not folder.exists():
            run = kd("train", "task=animals", f"seed={seed}", "trainer.max_epochs=1")
            kd("predict", f"run={run}", "task=animals", "split=train", "format=soft_targets", f"output={folder}")
        (found,) = (path for path in folder.iterdir() if path.is_dir())
        return found

    return stored


def test_one_fit_has_the_teachers_that_are_named(kd, stored):
    """``kd-train``: a list of folders are as many teachers; a single folder is one."""
    one, other = stored(1), stored(2)
    for named, count in ((f"[{one},{other}]", 2), (f"{{train: [{one},{other}]}}", 2), (one, 1)):
        run = kd("train", "system=tmkd", "task=animals", f"+soft_targets.animals={named}", "trainer.max_epochs=1")
        model = TrainedModel.open(run)
        assert model.cfg["system"]["teachers"] == {"animals": count}
        assert len(model.system.heads["animals"].soft) == count


@pytest.mark.parametrize(
    ("command", "settings", "said"),
    [
        ("distill", ["system=bam", "teacher.seeds=[1,2]", APART], "BamStudent hears one teacher: expected probabilit"),
        ("distill", ["system=tmkd", APART, "teacher.ensemble.weights=score"], "what is not averaged has no weights"),
        ("distill", ["system=tmkd", "teacher.ensemble.mean=median"], "'median', expected probabilities, logits, or"),
        ("distill", ["student.per_teacher=true", "student.fine_tune.tasks=all"], "student.fine_tune goes on from one"),
        (
            "distill",
            ["student.per_teacher=true", "teacher.ensemble.weights=score"],
            "expected teacher.ensemble.weights=eq",
        ),
        ("distill", ["student.per_teacher=1"], "student.per_teacher is 1, expected true or false"),
        ("train", ["system=bam", "+soft_targets.animals=[A,B]"], "names 2 folders, but BamStudent hears one teacher"),
        ("train", ["system=tmkd", "+soft_targets.animals=[]"], r"animals.train is \[\], expected a folder, or a list"),
        (
            "train",
            ["system=tmkd", "+soft_targets.animals=[3]"],
            r"animals.train is \[3\], expected a folder, or a list",
        ),
    ],
)
def test_what_fits_no_student_is_refused(kd, command, settings, said):
    """A system that hears the first of the teachers, or their mean by a weight that is not applied."""
    with pytest.raises(UserError, match=said):
        kd(command, "task=animals", *settings)


FIRST = (
    "+task@pretrain.task=animals",
    "+pretrain.task.animals.files.unlabelled=animals-more.csv",
    "+pretrain.batching.unlabelled=only",
    "+pretrain.system.gold_weight=0",
    "+pretrain.system.predicts=soft",
)


@pytest.fixture
def two_stages(kd, workplace):
    """Return a function that distils twice: on pairs without labels, then on another task."""
    write_pairs(workplace / "animals-more.csv", 150, 5, sameness)
    settings = ("system=tmkd", "task=beasts", "teacher.seeds=[1,2]", APART, "teacher.trainer.max_epochs=1")
    return lambda *changes: kd("distill", *settings, *FIRST, "trainer.max_epochs=1", *changes)


def test_the_second_stage_goes_on_from_the_encoder_of_the_first(two_stages):
    """A second stage that begins anew, or with the heads of another task."""
    run = two_stages("optimizer.lr=1e-12", "+pretrain.optimizer.lr=3e-3")
    (baseline,) = Path("outputs/store/fits").glob("baseline-*")
    folders = {"first": run / "pretrain" / "student", "second": run / "student", "new": baseline}
    weights = {name: TrainedModel.open(folder).system.encoder.state_dict() for name, folder in folders.items()}
    moved = 0
    for name, weight in weights["first"].items():
        torch.testing.assert_close(weights["second"][name], weight, msg=name)
        moved += not torch.allclose(weights["new"][name], weight, rtol=0, atol=1e-4)
    assert moved > 5


def test_the_first_stage_learns_from_teachers_alone(two_stages, workplace):
    """Labelled rows, or labels, in distillation pre-training."""
    run = two_stages()
    found = summary(run)["pretrain"]
    assert found["status"] == "finished"
    assert [len(list(Path("outputs/store/fits").glob(f"{stage}-*"))) for stage in ("pretrain-student", "student")] == [
        1,
        1,
    ]
    assert found["data"]["animals"]["train"] == 0
    assert found["data"]["animals"]["unlabelled"] == 150
    assert found["tasks"]["animals"]["student"] is not None
    assert summary(run)["data"]["beasts"]["train"] == 48
    assert (run / "pretrain" / "report.md").is_file()
    metrics = (run / "pretrain" / "metrics.csv").read_text()
    assert "train/animals/soft_loss" in metrics
    assert "gold_loss" not in metrics.splitlines()[0]


def test_each_student_goes_on_from_its_own(two_stages):
    """m-o-m in both stages: students of several teachers, then of one; or all of them from the first."""
    run = two_stages("topology=m_o_m", "optimizer.lr=1e-12")
    for number in (1, 2):
        first, second = (
            TrainedModel.open(folder / f"student-{number}").system.encoder.state_dict()
            for folder in (run / "pretrain", run)
        )
        for name, weight in first.items():
            torch.testing.assert_close(second[name], weight, msg=name)
    one, other = (TrainedModel.open(run / f"student-{number}").system.encoder.state_dict() for number in (1, 2))
    assert any(not torch.equal(one[name], other[name]) for name in one)


def test_as_many_students_in_both_stages(two_stages):
    """A student that goes on from another teacher's."""
    with pytest.raises(UserError, match=r"pretrain: student\.per_teacher trains 3 students there and 2 after it"):
        two_stages("topology=m_o_m", "+pretrain.teacher.seeds=[1,2,3]")


def test_pairs_of_the_first_stage_from_a_file(two_stages, kd, workplace):
    """Settings of the data, as the page has them, in the place of the whole of it."""
    (workplace / "more").mkdir()
    (workplace / "animals-more.csv").rename(workplace / "more" / "pairs.csv")
    settings = [*FIRST[:1], "+pretrain.data.unlabelled=more/pairs.csv", *FIRST[2:], "system=tmkd", "task=beasts"]
    run = kd("distill", *settings, "teacher.trainer.max_epochs=1", "trainer.max_epochs=1")
    found = summary(run)
    assert found["pretrain"]["data"]["animals"]["unlabelled"] == 150
    first = TrainedModel.open(run / "pretrain" / "student").cfg
    assert Path(first["data"]["unlabelled"]) == workplace / "more" / "pairs.csv"
    assert found["data"]["beasts"]["unlabelled"] == 0


def test_both_stages_and_the_baseline_have_the_words_of_both(two_stages, workplace):
    """A student of the first stage's words alone, beside a baseline that knows those of the task."""
    with (workplace / "animals-more.csv").open("a") as file:
        file.write("lilac walrus,lilac walrus,same\n")
    with (workplace / "beasts-train.csv").open("a") as file:
        file.write("ochre gecko,ochre gecko,same\n")
    run = two_stages()
    (baseline,) = Path("outputs/store/fits").glob("baseline-*")
    first, second, alone = (
        TrainedModel.open(folder).tokenizer.get_vocab()
        for folder in (run / "pretrain" / "student", run / "student", baseline)
    )
    assert first == second == alone
    assert {"walrus", "gecko"} <= {*first}
    found = summary(run)
    encoders = {role: found["parameters"][f"{role}_without_embeddings"] for role in ("student", "baseline")}
    assert encoders["student"] > encoders["baseline"], "it has a head for each teacher"
    assert found["latency_ms"]["baseline"] > 0


def test_words_of_others_make_other_fits(two_stages, kd, workplace):
    """A baseline of one vocabulary beside a student of another, since the store had it of a run with a first stage."""
    with (workplace / "animals-more.csv").open("a") as file:
        file.write("lilac walrus,lilac walrus,same\n")
    more = summary(two_stages())
    second = ["system=tmkd", "task=beasts", "teacher.seeds=[1,2]", APART, "teacher.trainer.max_epochs=1"]
    own = summary(kd("distill", *second, "trainer.max_epochs=1"))
    size = "baseline_without_embeddings"
    assert own["parameters"][size] == more["parameters"][size]
    assert own["parameters"]["baseline"] < more["parameters"]["baseline"]
    fresh = summary(kd("distill", *second, "trainer.max_epochs=1", "paths.store=fresh"))
    assert own["tasks"] == fresh["tasks"]
    assert own["parameters"] == fresh["parameters"]
    with (workplace / "animals-more.csv").open("a") as file:
        file.write("ochre gecko,ochre gecko,same\n")
    assert summary(two_stages())["parameters"]["baseline"] > more["parameters"]["baseline"]


@pytest.mark.parametrize("killed", ["pretrain student", "student"])
def test_each_stage_goes_on_where_it_was(two_stages, fits, monkeypatch, killed):
    """Hours of a first stage again, since the second was killed; or teachers of both stages, once for each of them."""
    run = Fit.run

    def dies(fit, folder, checkpoint=None):
        if fit.stage == killed:
            raise KeyboardInterrupt
        return run(fit, folder, checkpoint)

    before = [f"teacher animals {seed}" for seed in (1, 2)]
    if killed == "student":
        before += ["pretrain student", *(f"teacher beasts {seed}" for seed in (1, 2))]
    with monkeypatch.context() as patched:
        patched.setattr(Fit, "run", dies)
        with pytest.raises(KeyboardInterrupt):
            two_stages()
    assert fits == before
    fits.clear()
    found = two_stages()
    assert killed == fits[0]
    assert summary(found)["pretrain"]["status"] == "finished"


@pytest.mark.parametrize("killed", ["pretrain student", "student"])
def test_a_stage_that_is_killed_ends_as_one_that_was_left_alone(two_stages, monkeypatch, killed):
    """A first stage that begins anew in its middle, or goes on with other pairs: weights of both stages, to the bit."""
    often = ("callbacks.resume_checkpoint.every_n_steps=2", "+pretrain.trainer.max_epochs=2", "batching.batch_size=16")
    alone = summary(two_stages(*often, "paths.store=alone"))
    run, step, steps = Fit.run, TmkdStudent.training_step, []
    at_work = []

    def tells(fit, folder, checkpoint=None):
        at_work[:] = [fit.stage]
        return run(fit, folder, checkpoint)

    def dies(system, batch, batch_idx):
        if at_work == [killed]:
            steps.append(system.trainer.global_step)
            if len(steps) == 4:
                raise KeyboardInterrupt
        return step(system, batch, batch_idx)

    monkeypatch.setattr(Fit, "run", tells)
    monkeypatch.setattr(TmkdStudent, "training_step", dies)
    with pytest.raises(KeyboardInterrupt):
        two_stages(*often, "paths.store=killed")
    disturbed = summary(two_stages(*often, "paths.store=killed"))
    assert steps[:5] == [0, 1, 2, 3, 2], "it goes on from the checkpoint"
    weights = [
        {path.parent.name: json.loads(path.read_text())["weights"] for path in Path(store).glob("fits/*/fit.json")}
        for store in ("alone", "killed")
    ]
    assert weights[0] == weights[1]
    assert sum("pretrain" in name for name in weights[0]) == 1
    assert disturbed["tasks"] == alone["tasks"]
    assert disturbed["pretrain"]["tasks"] == alone["pretrain"]["tasks"]


def test_teachers_of_both_stages_are_trained_once(kd, workplace, fits, caplog):
    """The same teachers under two names; a first stage again, since the second has another rate."""
    write_pairs(workplace / "animals-more.csv", 40, 5, sameness)
    settings = (*THREE, "topology=m_o_1", *FIRST, "baseline=false")
    run = kd("distill", *settings)
    assert fits == [*(f"teacher animals {seed}" for seed in (1, 2, 3)), "pretrain student", "student"]
    few = [said.getMessage() for said in caplog.records if "steps are few" in said.getMessage()]
    assert sorted(said.partition(":")[0] for said in few) == sorted(fits), "each is told once"
    settings_told = [said.rpartition(" ")[2] for said in few]
    assert settings_told == ["teacher.trainer.max_epochs"] * 3 + ["trainer.max_epochs", "pretrain.trainer.max_epochs"]
    assert (run / "pretrain" / "config.yaml").is_file()
    fits.clear()
    kd("distill", *settings, "optimizer.lr=1e-4", "+pretrain.optimizer.lr=1e-3")
    assert fits == ["pretrain student", "student"]


def test_texts_alone_and_a_baseline_that_has_labels(kd, workplace):
    """A report that divides by the labelled rows of a student that reads none."""
    write_pairs(workplace / "animals-more.csv", 40, 5, sameness)
    only = ["data.unlabelled=animals-more.csv", "batching.unlabelled=only", "trainer.max_epochs=1"]
    with pytest.raises(UserError, match=r"leaves no labels to the golden head, .*: set system\.predicts=soft"):
        kd("distill", *THREE[:2], *only)
    settings = [*only, "system.predicts=soft"]
    run = kd("distill", *THREE[:2], "teacher.trainer.max_epochs=1", *settings)
    assert summary(run)["data"]["animals"]["train"] == 0
    assert "gain" in (run / "report.md").read_text()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            ["pretrain.teacher.slect={best: 1}"],
            r"pretrain\.teacher has slect, .*did you mean 'select'",
        ),
        (["pretrain.data.unlabeled=x.csv"], r"pretrain\.data has unlabeled, expected some of .*unlabelled"),
        (
            ["pretrain.teacher.encoder=tiny"],
            r"pretrain\.teacher\.encoder is 'tiny', expected .*encoder@pretrain\.teacher",
        ),
        (["teacher.encoder=tiny"], r"teacher\.encoder is 'tiny', expected its settings; an option is chosen by enc"),
        (["pretrain.teacher.members={minlm: null}"], r"members\.minlm is null, which leaves a member out, and there"),
        (
            ["pretrain=null", "pretrain.trainer.max_epochs=2"],
            r"pretrain=null trains no first stage, and .*max_epochs=2",
        ),
        (["pretrain.task=[animals]"], r"pretrain\.task is \['animals'\], expected .*: \+task@pretrain\.task="),
    ],
)
def test_settings_of_the_first_stage_are_known(kd, settings, said):
    """Settings that nobody reads: a run that is another than what was asked for."""
    with pytest.raises(UserError, match=said):
        kd("distill", *THREE, *settings)
