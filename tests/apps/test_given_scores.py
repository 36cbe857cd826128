"""Commands with a file of scores in the place of a teacher."""

from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml

from kd_lightning.apps.fits.trained_model import TrainedModel
from kd_lightning.data import SoftTargets
from kd_lightning.errors import UserError
from kd_lightning.files import read_json
from tests.apps.conftest import sameness, write_pairs

SHORT = ("task=animals", "trainer.max_epochs=1", "baseline=false")
GIVEN = (*SHORT, "system=tmkd", "teacher=scores_file")


@pytest.fixture
def teacher(kd, workplace):
    """A trained teacher, and what it says of train and validation in tables."""
    write_pairs(workplace / "animals-more.csv", 40, 5, sameness)
    run = kd("train", "task=animals", "trainer.max_epochs=2", "optimizer.lr=2e-3")
    for split in ("train", "validation"):
        kd("predict", f"run={run}", "+task.animals={}", f"split={split}", "output=scores")
    kd("predict", f"run={run}", "+task.animals={}", "file=animals-more.csv", "output=scores")
    return run


def test_scores_teach_what_their_teacher_teaches(kd, workplace, teacher):
    """Scores of other rows, of the other class, or on another scale than a teacher's logits."""
    files = "{train: scores/animals-train.csv, validation: scores/animals-validation.csv}"
    run = kd("distill", *GIVEN, f"teacher.scores.animals={files}")
    (folder,) = Path("outputs/store/soft_targets").glob("animals-train-*")
    given = SoftTargets.open(folder)
    kd("predict", f"run={teacher}", "+task.animals={}", "split=train", "format=soft_targets", "output=soft")
    own = SoftTargets.open(Path("soft/animals-train"))
    ids = given.example_id[given.example_id >= 0]  # the other order of a pair has the same scores
    said, meant = (found.logits[torch.from_numpy(found.find(ids))] for found in (given, own))
    torch.testing.assert_close(said.softmax(-1), meant.softmax(-1), atol=2e-6, rtol=0)
    swapped = given.logits[torch.from_numpy(given.find(~ids))]
    torch.testing.assert_close(swapped, said, atol=0, rtol=0)
    summary = read_json(run / "summary.json")
    scores = read_json(teacher / "fit.json")["scores"]["animals"]
    assert summary["tasks"]["animals"]["metrics"]["teacher"] == pytest.approx(scores, abs=1e-6)
    assert summary["parameters"]["teacher"] is None
    assert summary["latency_ms"]["teacher"] is None
    assert "| animals (accuracy) |" in (run / "report.md").read_text()


def test_rows_without_labels_have_scores_alone(kd, workplace, teacher):
    """A train split that has no labels is no train split; or one that is asked for, though nobody reads it."""
    path = workplace / "mine" / "task" / "animals.yaml"
    task = yaml.safe_load(path.read_text())
    task["animals"]["files"] = {"unlabelled": "animals-more.csv", "validation": "animals-dev.csv"}
    path.write_text(yaml.safe_dump(task))
    scores = "teacher.scores.animals={unlabelled: scores/animals-animals-more.csv}"
    only = ["batching.unlabelled=only", "system.predicts=soft"]
    run = kd("distill", *GIVEN, scores, *only)
    summary = read_json(run / "summary.json")
    assert (summary["data"]["animals"]["train"], summary["data"]["animals"]["unlabelled"]) == (0, 40)
    assert summary["tasks"]["animals"]["teacher"] is None, "nobody scored the validation split"
    assert summary["tasks"]["animals"]["student"] is not None
    with pytest.raises(UserError, match=r"animals has no train split, whose labels .*: add baseline=false"):
        kd("distill", *GIVEN, scores, *only, "baseline=true")


def test_scores_stand_beside_trained_teachers(kd, workplace, teacher):
    """Two teachers and an API: a head for each of them, and a score of what they say together where it is known."""
    members = "teacher.members={a: {}, api: {scores: {animals: {train: scores/animals-train.csv}}}}"
    settings = [*SHORT, "system=tmkd", "teacher.seeds=[1,2]", "teacher.trainer.max_epochs=1"]
    run = kd("distill", *settings, members, "topology=m_o_1")
    assert TrainedModel.open(run / "student").cfg["system"]["teachers"] == {"animals": 3}
    summary = read_json(run / "summary.json")
    assert [teacher["name"] for teacher in summary["teachers"]] == ["a 1", "a 2", "api"]
    assert summary["tasks"]["animals"]["ensemble"] is None, "the API has said nothing of the validation split"
    both = "{train: scores/animals-train.csv, validation: scores/animals-validation.csv}"
    run = kd(
        "distill", *settings, f"teacher.members={{a: {{}}, api: {{scores: {{animals: {both}}}}}}}", "topology=one_o_one"
    )
    summary = read_json(run / "summary.json")
    scores = {teacher["name"]: teacher["scores"]["animals"]["accuracy"] for teacher in summary["teachers"]}
    (chosen,) = [teacher["name"] for teacher in summary["teachers"] if teacher["chosen"]]
    assert scores[chosen] == max(scores.values())


def test_teachers_that_share_a_file_are_two(kd, workplace, teacher):
    """One of them under both heads, since their first file is the same."""
    first, dev = Path("scores/animals-train.csv"), "validation: scores/animals-validation.csv"
    table = pd.read_csv(first)
    classes = [name for name in table if name.startswith("p_")]
    table[classes] = table[classes[::-1]].to_numpy()
    table.to_csv("scores/other.csv", index=False)
    files = {"one": f"{{{dev}, train: {first}}}", "two": f"{{{dev}, train: scores/other.csv}}"}
    members = ", ".join(f"{name}: {{scores: {{animals: {each}}}}}" for name, each in files.items())
    settings = [*SHORT, "system=tmkd", "topology=m_o_1"]
    kd("distill", *settings, f"teacher.members={{{members}}}")
    said = [SoftTargets.open(folder) for folder in Path("outputs/store/soft_targets").glob("animals-train-*")]
    assert len(said) == 2
    batches = next(iter(Path("outputs/store/fits").glob("student-*")))
    assert TrainedModel.open(batches).cfg["system"]["teachers"] == {"animals": 2}
    same = members.replace("scores/other.csv", str(first))
    with pytest.raises(UserError, match="one and two are the same model"):
        kd("distill", *settings, f"teacher.members={{{same}}}")


def test_scores_teach_where_they_are_told_to(kd, workplace, teacher):
    """Scores that are compared in a task which others teach."""
    both = "{train: scores/animals-train.csv, validation: scores/animals-validation.csv}"
    members = f"teacher.members={{a: {{}}, api: {{scores: {{animals: {both}}}}}}}"
    both_tasks = members.replace("}}}}", "}, beasts: {train: scores/beasts-train.csv}}}}")
    pd.read_csv("scores/animals-train.csv")[:48].to_csv("scores/beasts-train.csv", index=False)
    settings = [*SHORT[1:], "system=tmkd", "task=[animals,beasts]", "teacher.select={best: 1}"]
    run = kd(
        "distill", *settings, both_tasks, "teacher.tasks={animals: all, beasts: [a]}", "teacher.trainer.max_epochs=1"
    )
    chosen = {found["name"]: found["chosen"] for found in read_json(run / "summary.json")["teachers"]}
    assert "beasts" in chosen["a"]
    assert "beasts" not in chosen["api"]


def test_scores_of_the_second_stage_are_not_of_the_first(kd, workplace, teacher):
    """A first stage that is refused for scores of another task; or one that hears them."""
    members = "teacher.members={a: {}, api: {scores: {animals: {train: scores/animals-train.csv}}}}"
    settings = [*SHORT, "system=tmkd", members, "teacher.trainer.max_epochs=1", "topology=m_o_1"]
    run = kd("distill", *settings, "+task@pretrain.task=beasts")
    assert TrainedModel.open(run / "student").cfg["system"]["teachers"] == {"animals": 2}
    assert TrainedModel.open(run / "pretrain" / "student").cfg["system"]["teachers"] == {"beasts": 1}


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            ["teacher.scores.animals={validation: scores/animals-validation.csv}"],
            r"no file of the split train, which is",
        ),
        (["teacher.scores.animal=x.csv"], r"teacher.scores names the task animal, expected some of animals; did you"),
        (["teacher.scores.animals=3"], r"teacher.scores.animals is 3, expected a file, or \{SPLIT: FILE\}"),
        ([], r"teacher.scores is \{\}, expected \{TASK: FILE\}"),
        (["teacher.scores.animals=none.csv"], r"none.csv: found no such file"),
        (["teacher.scores.animals=animals-train.csv"], r"found the columns 'first', .* expected 'id' among them"),
        (
            ["task=[animals,beasts]", "teacher.scores.animals=scores/animals-train.csv"],
            r"there are no scores of beasts",
        ),
        (
            ["teacher.scores.animals=scores/animals-train.csv", "teacher.ensemble={mean: logits, weights: score}"],
            r"no file of the split validation, by which teachers are compared",
        ),
        (["teacher.members.given.seed=3"], r"teacher.members.given has seed, expected some of scores"),
    ],
)
def test_scores_that_cannot_teach_are_refused(kd, teacher, settings, said):
    """An hour of training, and then a row without a score."""
    with pytest.raises(UserError, match=said):
        kd("distill", *GIVEN, *settings)
    assert not list(Path("outputs/store").glob("fits/*"))


def test_a_damaged_file_is_refused_by_its_row(kd, workplace, teacher):
    """A line that was cut: the row's name, before anything is trained."""
    path = workplace / "scores" / "animals-train.csv"
    path.write_text("\n".join([*path.read_text().splitlines()[:-1], ""]))
    with pytest.raises(UserError, match=r"animals-train.csv: 1 of 96 rows of animals have no score there.* id 95"):
        kd("distill", *GIVEN, "teacher.scores.animals=scores/animals-train.csv")
