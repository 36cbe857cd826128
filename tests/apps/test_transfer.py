"""What students learn from besides labelled rows: synthetic texts, and unlabelled texts of the user's own."""

import csv
import importlib
import logging
import re
import sys

import pytest

from kd_lightning.data import SoftTargets
from kd_lightning.data.folders import read_json
from kd_lightning.errors import UserError

SMALL = ["task=[animals]", "trainer.max_epochs=1", "teacher.trainer.max_epochs=1"]
MASKS = ["augmenter=masking", "augmenter.p_mask=0.4", "augmenter.n_iter=3"]


def fit_of(workplace, role):
    """Return the one folder of a role in the store, and its fit.json."""
    (folder,) = (workplace / "outputs" / "store" / "fits").glob(f"{role}-*")
    return folder, read_json(folder / "fit.json")


def test_students_alone_learn_from_synthetic_texts(kd, workplace):
    """The teacher scores them; it and the baseline are trained on gold labels, the baseline for as many steps."""
    folder = kd("distill", *SMALL, *MASKS, "batching.batch_size=16")
    _, student = fit_of(workplace, "student")
    written = student["data"]["animals"]["synthetic"]
    assert 100 < written <= 3 * 96
    assert student["steps"] == -(-2 * (96 + written) // 16)
    for role in ("teacher", "baseline"):
        assert fit_of(workplace, role)[1]["data"]["animals"]["synthetic"] == 0
    assert fit_of(workplace, "baseline")[1]["steps"] == student["steps"]
    assert f"96 train, 0 unlabelled, {written} synthetic, 32 validation rows" in (folder / "report.md").read_text()
    (targets,) = (workplace / "outputs" / "store" / "soft_targets").glob("animals-synthetic-*")
    found = SoftTargets.open(targets)
    assert len(found.logits) == 2 * written
    assert found.manifest.augmenter is not None


def test_a_sweep_writes_its_texts_once(kd, workplace, caplog):
    """Another seed of the student has the same texts and soft targets; another seed of the augmenter has others."""
    kd("distill", *SMALL, *MASKS)
    cache = workplace / ".cache" / "kd_lightning" / "rows"
    (rows,) = cache.glob("animals-synthetic-*/rows.arrow")
    before = rows.stat().st_mtime_ns
    kd("distill", *SMALL, *MASKS, "seed=2")
    assert list(cache.glob("animals-synthetic-*/rows.arrow")) == [rows]
    assert rows.stat().st_mtime_ns == before
    kd("distill", *SMALL, *MASKS, "augmenter.seed=2")
    assert len(list(cache.glob("animals-synthetic-*"))) == 2


def test_an_augmenter_of_ones_own_is_known_by_its_file(kd, workplace, monkeypatch):
    """Change the file, and the texts are written again, though its settings are the same."""
    monkeypatch.syspath_prepend(str(workplace))
    source = (
        "from kd_lightning.augmentation import RuleAugmenter\n"
        "class Mine(RuleAugmenter):\n"
        "    def augment(self, rows, name):\n"
        "        for batch in rows.batches():\n"
        "            texts = [[text + ' WORD' for text in batch.column(c).to_pylist()] for c in ('text_a', 'text_b')]\n"
        "            values = [*batch.columns[:2], *texts, [float('nan')] * batch.num_rows]\n"
        "            yield type(batch).from_pydict(dict(zip(batch.schema.names, values)), schema=batch.schema)\n"
    )
    (workplace / "mine" / "augmenter").mkdir()
    (workplace / "mine" / "augmenter" / "own.yaml").write_text("_target_: my_augmenter.Mine\np_pos: 0.0\n")
    for number, word in enumerate(("one", "two"), start=1):
        (workplace / "my_augmenter.py").write_text(source.replace("WORD", word))
        sys.modules.pop("my_augmenter", None)
        importlib.invalidate_caches()
        folder = kd("distill", *SMALL, "augmenter=own")
        assert read_json(folder / "summary.json")["data"]["animals"]["synthetic"] == 96
        assert len(list((workplace / ".cache" / "kd_lightning" / "rows").glob("animals-synthetic-*"))) == number


def test_soft_targets_of_synthetic_texts_by_hand(kd, workplace):
    """Two commands: the teacher predicts what the student's augmenter writes."""
    teacher = kd("train", "task=animals", "trainer.max_epochs=1")
    named = []
    for split, augmenter in (("train", []), ("synthetic", MASKS)):
        kd("predict", f"run={teacher}", f"split={split}", "format=soft_targets", "output=targets", *augmenter)
        named.append(f"{split}: targets/animals-{split}")
    student = ["system=bam", "task=animals", "trainer.max_epochs=1", *MASKS]
    kd("train", *student, f"+soft_targets.animals={{{', '.join(named)}}}")
    with pytest.raises(UserError, match=r"soft_targets.animals names no soft targets of the rows that the augmenter"):
        kd("train", *student, "+soft_targets.animals=targets/animals-train")
    with pytest.raises(UserError, match=r"Teacher learns from gold labels alone, and synthetic rows have none"):
        kd("train", "task=animals", *MASKS)
    with pytest.raises(UserError, match=r"field data"):
        kd("train", *student, "augmenter.seed=9", f"+soft_targets.animals={{{', '.join(named)}}}")
    with pytest.raises(UserError, match=r"split=synthetic is what an augmenter writes.*: add augmenter=rules"):
        kd("predict", f"run={teacher}", "split=synthetic")
    with pytest.raises(UserError, match=r"augmenter writes texts of its own, but split is validation: add split=synth"):
        kd("predict", f"run={teacher}", "augmenter=masking")


BILSTM = [
    *("system=bilstm", "distill_loss=logit_l2", "encoder=bilstm", "encoder.sparse=true", "optimizer=adadelta"),
    *("scheduler=constant", "encoder.hidden_size=8", "encoder.words.size=12", "system.head.hidden_size=8"),
]


def test_the_method_of_tang_et_al(kd, workplace):
    """Teacher, synthetic pairs, siamese student of words; it comes back from disk with the scores that it had."""
    teacher = "encoder@teacher.encoder=toy_student"
    folder = kd(
        "distill", *SMALL, *BILSTM, *MASKS, teacher, "teacher.encoder.hidden_size=16", "teacher.encoder.num_heads=2"
    )
    summary = read_json(folder / "summary.json")
    assert summary["data"]["animals"]["synthetic"] > 96
    words = {word for path in ("train",) for row in texts_of(workplace, path) for word in row}
    embeddings = 12 * (len(words) + 2)
    lstms = 2 * 4 * 8 * (12 + 8 + 2)
    head = (4 * 16 * 8 + 8) + (8 * 2 + 2)
    assert summary["parameters"]["student"] == embeddings + lstms + head
    assert summary["parameters"]["student_without_embeddings"] == lstms + head
    evaluated = read_json(kd("evaluate", f"run={folder / 'student'}") / "evaluation.json")
    assert evaluated["scores"]["animals"] == pytest.approx(summary["tasks"]["animals"]["metrics"]["student"])
    kd("predict", f"run={folder / 'student'}", "split=validation", "output=found")
    assert len((workplace / "found" / "animals-validation.csv").read_text().splitlines()) == 33


def texts_of(workplace, split):
    """Return the words of each row of the animals."""
    with (workplace / f"animals-{split}.csv").open() as file:
        return [(row["first"] + " " + row["second"]).split() for row in csv.DictReader(file)]


def test_texts_of_equal_budget_share_a_baseline(kd, workplace):
    """In a sweep over augmenters with ``max_steps``: what is learned without a teacher is the same each time."""
    budget = ["batching.epoch_rows=96", "trainer.max_epochs=-1", "trainer.max_steps=6"]
    for variants in (1, 2):
        kd("distill", SMALL[0], SMALL[2], *budget, *MASKS[:2], f"augmenter.n_iter={variants}")
    assert len(list((workplace / "outputs" / "store" / "fits").glob("student-*"))) == 2
    assert len(list((workplace / "outputs" / "store" / "fits").glob("baseline-*"))) == 1


def test_synthetic_texts_to_look_at(kd, workplace):
    """A table of predictions has the texts that no file has, masked words as the model reads them."""
    teacher = kd("train", "task=animals", "trainer.max_epochs=1")
    kd("predict", f"run={teacher}", "split=synthetic", "output=looked_at", *MASKS)
    with (workplace / "looked_at" / "animals-synthetic.csv").open() as file:
        written = list(csv.DictReader(file))
    assert list(written[0]) == ["id", "first", "second", "prediction", "p_different", "p_same"]
    assert len(written) > 96
    assert all("[MASK]" in row["first"] + row["second"] for row in written)
    with (workplace / "animals-train.csv").open() as file:
        words = {word for row in csv.reader(file) for text in row for word in text.split()}
    assert {word for row in written for word in row["first"].split()} <= words | {"[MASK]"}


@pytest.fixture
def texts(workplace):
    """Write a file of the animals' texts without labels."""
    with (workplace / "animals-train.csv").open() as file:
        rows = [[row["second"], row["first"]] for row in csv.DictReader(file)]
    with (workplace / "more.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["first", "second"], *rows])
    return "more.csv"


@pytest.mark.parametrize("given", ["data.unlabelled={}", "data.unlabelled={{animals: {}}}"])
def test_unlabelled_texts_of_ones_own(kd, workplace, texts, given, caplog):
    """``data.unlabelled=FILE`` and no more: the student learns from them, the teacher does not."""
    caplog.set_level(logging.INFO, "kd_lightning")
    folder = kd("distill", *SMALL, given.format(texts))
    assert fit_of(workplace, "student")[1]["data"]["animals"]["unlabelled"] == 96
    assert fit_of(workplace, "teacher")[1]["data"]["animals"]["unlabelled"] == 0
    assert read_json(folder / "summary.json")["data"]["animals"]["train"] == 96
    assert re.search(r"animals: unlabelled texts are those of \S*more.csv", caplog.text)


def test_unlabelled_texts_that_are_not_there_are_told(kd, texts):
    """Before anything is trained: the file, or the task's name in the option."""
    with pytest.raises(UserError, match=r"mor\.csv: found no such file.*did you mean 'more.csv'"):
        kd("distill", *SMALL, "data.unlabelled=mor.csv")
    with pytest.raises(UserError, match=r"names the task animal, expected some of animals; did you mean 'animals'"):
        kd("distill", *SMALL, f"data.unlabelled={{animal: {texts}}}")


def test_mistakes_are_told_before_texts_are_written(kd, workplace):
    """Writing and tagging takes minutes where the data is large."""
    for mistake in ("optimizer.lr=-1", "teacher.optimizer.lr=-1", "system.head.dropout=2"):
        with pytest.raises(UserError):
            kd("distill", *SMALL, *MASKS, mistake)
    assert not list((workplace / ".cache" / "kd_lightning" / "rows").glob("animals-synthetic-*"))


def test_settings_without_an_augmenter_are_told(kd, workplace):
    """An experiment's own ``augmenter: {n_iter: 10}`` under ``augmenter=none``: a dictionary is no augmenter."""
    with pytest.raises(UserError, match=r"found the settings \{'n_iter': 10\} without a _target_"):
        kd("distill", *SMALL, "+augmenter.n_iter=10")
