"""What students learn from besides labelled rows: synthetic texts, and unlabelled texts of the user's own."""

import csv
import importlib
import logging
import re
import shutil
import sys

import pytest
from omegaconf import OmegaConf

from kd_lightning.augmentation import tagging
from kd_lightning.data import SoftTargets
from kd_lightning.encoders import WordEmbedding
from kd_lightning.errors import UserError
from kd_lightning.files import read_json

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


def test_other_training_texts_have_other_variants(kd, workplace):
    """A row that was mended leaves no variant of what it was."""
    kd("distill", *SMALL, *MASKS)
    path = workplace / "animals-train.csv"
    header, _, *rest = path.read_text().splitlines()
    path.write_text("\n".join([header, "a white owl,a white owl,same", *rest]) + "\n")
    kd("distill", *SMALL, *MASKS)
    cache = workplace / ".cache" / "kd_lightning" / "rows"
    first, second = sorted(cache.glob("animals-synthetic-*/rows.arrow"), key=lambda path: path.stat().st_mtime_ns)
    assert b"owl" not in first.read_bytes()
    assert b"owl" in second.read_bytes()


def test_each_task_has_its_variants(kd, workplace):
    folder = kd("distill", "task=[animals,beasts]", *SMALL[1:], *MASKS, "teacher.scope=multi")
    rows = read_json(folder / "summary.json")["data"]
    assert rows["animals"]["synthetic"] > rows["animals"]["train"]
    assert rows["beasts"]["synthetic"] > rows["beasts"]["train"]


@pytest.mark.slow
def test_the_rules_with_the_real_tagger(kd, workplace, nltk_data, monkeypatch):
    """The whole method from a command: words of the texts take each other's place, and the same texts come again."""
    monkeypatch.setattr(pytest.importorskip("nltk").data, "path", [str(nltk_data)])
    tagging.load_tagger.cache_clear()
    teacher = kd("train", "task=animals", "trainer.max_epochs=1")
    rules = ["augmenter=rules", "augmenter.n_iter=4", "augmenter.p_pos=0.5", "augmenter.p_mask=0", "augmenter.p_ng=0"]
    written = []
    for output in ("once", "again"):
        kd("predict", f"run={teacher}", "split=synthetic", f"output={output}", *rules)
        written.append((workplace / output / "animals-synthetic.csv").read_text())
        for path in (workplace / ".cache" / "kd_lightning" / "rows").glob("animals-synthetic-*"):
            shutil.rmtree(path)
    assert written[0] == written[1]
    texts = [(row["first"].split(), row["second"].split()) for row in csv.DictReader(written[0].splitlines())]
    assert len(texts) > 96  # none of them is an example, and nothing but replacement makes another text
    assert {len(words) for pair in texts for words in pair} == {2}
    assert {word for pair in texts for words in pair for word in words} == {
        word for words in texts_of(workplace, "train") for word in words
    }


def test_the_vocabulary_is_of_the_labelled_training_texts(kd, workplace, texts):
    """Tang et al.'s code takes that of train, dev and test: a score on words that no user's text will have."""
    with (workplace / "animals-dev.csv").open("a") as file:
        file.write("a violet cat,a violet cat,same\n")
    with (workplace / "more.csv").open("a") as file:
        file.write("a purple cat,a purple cat\n")
    folder = kd("distill", *SMALL, *BILSTM, *MASKS, "data.unlabelled=more.csv")
    vocabulary = set(read_json(folder / "student" / "encoder" / "tokenizer.json")["model"]["vocab"])
    words = {word for row in texts_of(workplace, "train") for word in row}
    assert vocabulary == words | {"[PAD]", "[UNK]"}


OWN = """
import pyarrow as pa
from kd_lightning.augmentation import RuleAugmenter
class Mine(RuleAugmenter):
    def augment(self, rows, name):
        for batch in rows.batches():
            texts = [[text + " WORD" for text in batch.column(c).to_pylist()] for c in ("text_a", "text_b")]
            values = [*batch.columns[:2], *texts, [float("nan")] * batch.num_rows, [None] * batch.num_rows]
            found = dict(zip(batch.schema.names, values))
            CHANGE
            yield pa.RecordBatch.from_pydict(found, schema=SCHEMA)
"""


@pytest.fixture
def own_augmenter(workplace, monkeypatch):
    """Return a function: a word, a change of what is written -> an augmenter of one's own, ``augmenter=own``."""
    monkeypatch.syspath_prepend(str(workplace))
    (workplace / "mine" / "augmenter").mkdir()
    (workplace / "mine" / "augmenter" / "own.yaml").write_text("_target_: my_augmenter.Mine\np_pos: 0.0\n")

    def write(word, change="pass", schema="batch.schema"):
        source = OWN.replace("WORD", word).replace("CHANGE", change).replace("SCHEMA", schema)
        (workplace / "my_augmenter.py").write_text(source)
        sys.modules.pop("my_augmenter", None)
        importlib.invalidate_caches()

    return write


@pytest.mark.parametrize(
    ("change", "schema", "message"),
    [
        ("found['label'][3] = 1.0", "batch.schema", r"found labels, expected NaN: no one has labelled"),
        ("found['label'][3] = None", "batch.schema", r"found labels, expected NaN"),
        ("found['text_b'][3] = None", "batch.schema", r"found text_b empty, expected a text that is not empty"),
        ("found['text_a'][3] = ' '", "batch.schema", r"found text_a empty"),
        ("found['text_b'][3] = 'a\\0b'", "batch.schema", r"found a NUL byte in text_b"),
        ("found['row_id'] = [None] * 96", "batch.schema", r"found row_id null"),
        ("found['example_id'] = [*range(95), 7]", "batch.schema", r"found example_id 7 more than once"),
        ("found['example_id'] = [*range(95), -7]", "batch.schema", r"found an example_id that is null or below 0"),
        ("found['example_id'] = [*range(95), None]", "batch.schema", r"found an example_id that is null or below 0"),
        (
            "found.pop('label')",
            "batch.schema.remove(4)",
            r"found the columns example_id .*group \(int64\), expected",
        ),
    ],
)
def test_what_an_augmenter_writes_is_looked_at(kd, workplace, own_augmenter, change, schema, message):
    """Labels would be learned as gold, and a text that is missing would take all second texts with it."""
    own_augmenter("one", change, schema)
    with pytest.raises(UserError, match=rf"^augmenter Mine, task animals: {message}"):
        kd("distill", *SMALL, "augmenter=own")
    assert not list((workplace / ".cache" / "kd_lightning" / "rows").glob("animals-synthetic-????????????????"))


def test_an_augmenter_of_ones_own_is_known_by_its_file(kd, workplace, own_augmenter):
    """Change the file, and the texts are written again, though its settings are the same."""
    for number, word in enumerate(("one", "two"), start=1):
        own_augmenter(word)
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
    *("system=bilstm", "encoder=bilstm", "optimizer=adadelta"),
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


@pytest.mark.parametrize(
    ("settings", "adds_up", "sparse"),
    [
        ([], True, True),
        ([], False, False),
        (["optimizer=lazy_adam"], True, True),
        (["optimizer=adam"], True, False),
        (["encoder.sparse=false"], True, False),
    ],
)
def test_gradients_are_sparse_where_nothing_is_in_the_way(kd, monkeypatch, settings, adds_up, sparse):
    """The optimiser takes rows, and the processes can add them up: no setting is needed."""
    asked = []

    class Watched(WordEmbedding):
        def __init__(self, *args, **options):
            super().__init__(*args, **options)
            asked.append(self.sparse)

    monkeypatch.setattr("kd_lightning.encoders.new_bilstm.WordEmbedding", Watched)
    monkeypatch.setattr("kd_lightning.apps.fits.sparse_gradients.adds_up_sparse_gradients", lambda _: adds_up)
    kd("distill", *SMALL, *BILSTM, "baseline=false", *settings)
    assert asked[0] is any(asked) is sparse  # models that predict have no gradients


def test_sparse_gradients_that_cannot_be_are_told_first(kd, workplace, monkeypatch):
    """Before the teacher is trained."""
    with pytest.raises(UserError, match=r"encoder.sparse is true, but AdamW does not take"):
        kd("distill", *SMALL, *BILSTM, "encoder.sparse=true", "optimizer=adamw")
    monkeypatch.setattr("kd_lightning.apps.fits.sparse_gradients.adds_up_sparse_gradients", lambda _: False)
    with pytest.raises(UserError, match=r"encoder.sparse=true: NCCL"):
        kd("distill", *SMALL, *BILSTM, "encoder.sparse=true")
    assert not (workplace / "outputs" / "store").exists()


def test_vectors_are_found_from_anywhere(kd, workplace, monkeypatch):
    """``~``, and a path that still holds in the run's own configuration."""
    (workplace / "vectors.txt").write_text("red 1 2\ncat 3 4\n")
    monkeypatch.setenv("HOME", str(workplace))
    folder = kd("distill", *SMALL, *BILSTM, "encoder.words.vectors_file='~/vectors.txt'", "baseline=false")
    config = OmegaConf.load(folder / "config.yaml")
    assert config.encoder.words.vectors_file == str(workplace / "vectors.txt")


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


def test_soft_targets_of_unlabelled_texts_by_hand(kd, workplace, texts):
    """Two commands, as for synthetic texts: the teacher reads the student's file."""
    teacher = kd("train", "task=animals", "trainer.max_epochs=1")
    kd("predict", f"run={teacher}", "split=train", "format=soft_targets", "output=targets")
    kd("predict", f"run={teacher}", f"file={texts}", "split=unlabelled", "format=soft_targets", "output=targets")
    named = "{train: targets/animals-train, unlabelled: targets/animals-unlabelled}"
    student = ["system=bam", "task=animals", "trainer.max_epochs=1", f"data.unlabelled={texts}"]
    folder = kd("train", *student, f"+soft_targets.animals={named}")
    assert read_json(folder / "fit.json")["data"]["animals"]["unlabelled"] == 96


def test_unlabelled_texts_that_are_left_out_are_told(kd, texts, caplog):
    """A file that is named and not read, in silence; a sweep over ``batching.unlabelled`` wants just that."""
    kd("distill", *SMALL, f"data.unlabelled={texts}", "batching.unlabelled=false", "baseline=false")
    assert "data.unlabelled: not read, since batching.unlabelled is false" in caplog.text


def test_unlabelled_texts_that_are_not_there_are_told(kd, texts):
    """Before anything is trained: the file, or the task's name in the option."""
    with pytest.raises(UserError, match=r"mor\.csv: found no such file.*did you mean 'more.csv'"):
        kd("distill", *SMALL, "data.unlabelled=mor.csv")
    with pytest.raises(UserError, match=r"names the task animal, expected some of animals; did you mean 'animals'"):
        kd("distill", *SMALL, f"data.unlabelled={{animal: {texts}}}")
    with pytest.raises(UserError, match=r"gold labels alone, and unlabelled rows have none: set batching.unlabelled="):
        kd("distill", *SMALL, f"data.unlabelled={texts}", "system=teacher")


def test_mistakes_are_told_before_texts_are_written(kd, workplace):
    """Writing and tagging takes minutes where the data is large."""
    for mistake in ("optimizer.lr=-1", "teacher.optimizer.lr=-1", "system.head.dropout=2"):
        with pytest.raises(UserError):
            kd("distill", *SMALL, *MASKS, mistake)
    gold_only = "Teacher learns from gold labels alone, and synthetic rows have none: set augmenter=none"
    with pytest.raises(UserError, match=gold_only):
        kd("distill", *SMALL, *MASKS, "system=teacher")
    student = ["system=bam", "task=animals", *MASKS]
    by_hand = "+soft_targets.animals={train: nowhere, synthetic: nowhere}"
    with pytest.raises(UserError, match=r"soft targets nowhere: manifest.json is missing"):
        kd("train", *student, by_hand)
    assert not list((workplace / ".cache" / "kd_lightning" / "rows").glob("animals-synthetic-*"))


def test_settings_without_an_augmenter_are_told(kd, workplace):
    """An experiment's own ``augmenter: {n_iter: 10}`` under ``augmenter=none``: a dictionary is no augmenter."""
    with pytest.raises(UserError, match=r"found the settings \{'n_iter': 10\} without a _target_"):
        kd("distill", *SMALL, "+augmenter.n_iter=10")
