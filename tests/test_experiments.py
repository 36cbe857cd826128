"""What the pages of experiments/ are made with, and what they show: the script that compares students, its tables."""

import re
import runpy
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats
from torchmetrics.functional.retrieval import retrieval_average_precision

from kd_lightning.apps.reports.paired_rows import pearson
from kd_lightning.metrics import MeanAveragePrecision, MeanReciprocalRank

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "experiments" / "compare.py"


@pytest.fixture
def compare(monkeypatch, capsys):
    """Return a function: arguments -> what the script prints."""

    def compare(*arguments):
        monkeypatch.setattr(sys, "argv", [str(SCRIPT), *map(str, arguments)])
        runpy.run_path(str(SCRIPT), run_name="__main__")
        return capsys.readouterr().out

    return compare


def test_the_first_stages_pairs(tmp_path, monkeypatch, capsys):
    """A pair twice, one that is evaluated, or another column; QNLI's names."""
    rows = {
        "glue/qnli": {"train": ["a", "b", "b"], "validation": ["v"]},
        "other/webqa_kd": {"train": ["b", "c", "t"], "test": ["t"]},
        "other/wikiqa": {"train": ["v", "d"], "validation": ["x"]},
        "other/trecqa": {"train": ["e"], "validation": ["y"]},
    }
    for folder, splits in rows.items():
        (tmp_path / folder).mkdir(parents=True)
        second = "sentence" if folder == "glue/qnli" else "answer"
        for split, texts in splits.items():
            table = pd.DataFrame({"label": 0, "question": texts, second: [f"{text} passage" for text in texts]})
            table.to_parquet(tmp_path / folder / f"{split}.parquet")
    script, output = ROOT / "experiments" / "tmkd" / "pairs.py", tmp_path / "pairs.parquet"
    monkeypatch.setattr(sys, "argv", [str(script), str(tmp_path), str(output)])
    runpy.run_path(str(script), run_name="__main__")
    found = pd.read_parquet(output)
    assert list(found) == ["question", "sentence"]
    assert found["question"].tolist() == ["a", "b", "c", "d", "e"]
    assert (found["sentence"] == found["question"] + " passage").all()
    assert "glue/qnli: 2 pairs" in capsys.readouterr().out


@pytest.fixture(scope="module")
def parts():
    """Return what the script consists of."""
    return runpy.run_path(str(SCRIPT))


@pytest.fixture
def students(tmp_path):
    """Return labels, predictions of two groups, and the files of kd-predict that hold them, each in its own order.

    The groups have two seeds in common, in another order, and the split's file has a third order.
    """
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 2, 400)
    found, files = {}, []
    for group, share, seeds in (("good", 0.9, (1, 2, 3)), ("poor", 0.75, (3, 4, 2))):
        for seed in seeds:
            own = np.where(rng.random(400) < share, labels, 1 - labels)
            found[f"{group}/{seed}"] = own
            path = tmp_path / f"{group}{seed}.csv"
            names = np.array(["no", "yes"])[own]
            table = {"id": range(400), "prediction": names, "p_no": 1.0 - own, "p_yes": own}
            pd.DataFrame(table).sample(frac=1, random_state=len(files)).to_csv(path, index=False)
            files.append(f"{group}/{seed}={path}")
    known = pd.DataFrame({"idx": range(400), "label": labels}).sample(frac=1, random_state=9)
    known.to_parquet(tmp_path / "labels.parquet")
    return labels, found, files


def test_students_are_compared(compare, students, tmp_path):
    """Numbers of the wrong rows, or of another seed; checked against scipy."""
    labels, found, files = students
    joined = tmp_path / "predictions.csv"
    teacher = files[0].replace("good/1", "teacher/1")
    joined.write_text(compare("join", *files, teacher))
    said = compare("test", joined, tmp_path / "labels.parquet", "good-poor", "good-good")
    scores = {name: 100 * (own == labels).mean() for name, own in found.items()}
    good = np.array([scores[f"good/{seed}"] for seed in (1, 2, 3)])
    shown = ", ".join(f"{score:.1f}" for score in good)
    agreement = 100 * np.mean([found[f"good/{seed}"] == found["good/1"] for seed in (1, 2, 3)])
    assert f"| good | 1, 2, 3 | {shown} | {good.mean():.1f} | {good.std(ddof=1):.1f} | {agreement:.1f} |" in said
    a, b = (np.array([scores[f"{group}/{seed}"] for seed in (2, 3)]) for group in ("good", "poor"))
    low, high = stats.ttest_rel(a, b).confidence_interval()
    assert f"| good - poor | 2 | {(a - b).mean():+.1f} | {low:+.1f} to {high:+.1f} |" in said
    assert "| good - good | 3 | +0.0 | +0.0 to +0.0 | +0.0 to +0.0 | 1.0000 |" in said


def test_scores_are_compared(compare, tmp_path):
    """A regression has no column of a class."""
    rng = np.random.default_rng(2)
    labels = rng.normal(size=50)
    own = labels + rng.normal(size=50)
    pd.DataFrame({"id": range(50), "prediction": own}).to_csv(tmp_path / "one.csv", index=False)
    pd.DataFrame({"label": labels}).to_parquet(tmp_path / "labels.parquet")
    joined = tmp_path / "predictions.csv"
    joined.write_text(compare("join", f"a/1={tmp_path / 'one.csv'}"))
    said = compare("test", joined, tmp_path / "labels.parquet", "--metric", "pearson")
    assert f"| a | 1 | {100 * np.corrcoef(own, labels)[0, 1]:.1f} |" in said
    with pytest.raises(SystemExit):
        compare("test", joined, tmp_path / "labels.parquet")


def test_intervals_over_rows(parts):
    """A bootstrap of something else than the mean; checked against the standard error, and Pearson's r by numpy."""
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 2, 500).astype(float)
    one = np.stack([np.where(rng.random(500) < 0.8, labels, 1 - labels) for _ in range(2)])
    other = np.stack([np.where(rng.random(500) < 0.7, labels, 1 - labels) for _ in range(2)])
    rows = 100 * ((one == labels).mean(0) - (other == labels).mean(0))
    metric = parts["Metric"]("accuracy", labels, None)
    low, high = parts["over_rows"](metric, metric.units(one), metric.units(other), rng)
    half = 1.96 * stats.sem(rows)
    assert low == pytest.approx(rows.mean() - half, abs=0.4)
    assert high == pytest.approx(rows.mean() + half, abs=0.4)
    assert pearson(rng.normal(size=(2, 500)), labels).shape == (2,)
    values = rng.normal(size=500)
    assert pearson(values, labels) == pytest.approx(100 * np.corrcoef(values, labels)[0, 1])


def test_sign_flips_find_what_is_there_and_no_more(parts):
    """Two students of one rate are as often found apart as p says; a better one always."""
    rng = np.random.default_rng(4)
    same = [parts["sign_flips"](*100.0 * (rng.random((2, 1, 300)) < 0.7), rng) for _ in range(20)]
    assert np.mean(np.array(same) < 0.05) <= 0.2
    one, other = (100.0 * (rng.random((1, 300)) < rate) for rate in (0.9, 0.6))
    assert parts["sign_flips"](one, other, rng) < 0.001


def test_a_sign_flip_is_a_sign_test(parts):
    """Of two students the rows that one alone has right are tosses of a coin; one side would halve p."""
    one, other = np.full((1, 200), 100.0), np.full((1, 200), 100.0)
    one[0, :14], other[0, 14:40] = 0, 0
    expected = stats.binomtest(14, 40).pvalue
    assert parts["sign_flips"](one, other, np.random.default_rng(5)) == pytest.approx(expected, abs=0.01)


def test_questions_are_scored_as_in_training(parts):
    """A mean over questions of another definition than the metrics of a task that ranks; of ties, too."""
    rng = np.random.default_rng(6)
    group = rng.permutation(np.repeat(np.arange(40), 5))
    labels = (rng.random(200) < 0.25).astype(float)
    scores = rng.normal(size=(3, 200)).round(1)  # some are equal
    for name, ours in (("map", MeanAveragePrecision), ("mrr", MeanReciprocalRank)):
        metric = parts["Metric"](name, labels, group)
        units = metric.units(scores)
        assert units.shape == (3, len(np.unique(group[labels == 1])))
        for found, own in zip(metric.score(units), torch.from_numpy(scores), strict=True):
            known = ours()
            known.update(own, torch.from_numpy(labels).long(), relevance=own, group=torch.from_numpy(group))
            assert found == pytest.approx(100 * known.compute().item(), abs=1e-3)


def test_rankings_are_compared(compare, tmp_path, capsys):
    """A classifier is compared by its classes, and ranks nothing; a sample of rows tears questions apart."""
    rng = np.random.default_rng(7)
    labels, question = (rng.random(120) < 0.3).astype(int), np.repeat([f"q{n}" for n in range(20)], 6)
    score = labels + rng.normal(size=120) + 9  # none below 0, which torchmetrics takes for one not found
    pd.DataFrame({"label": labels, "qid": question}).to_parquet(tmp_path / "labels.parquet")
    pd.DataFrame({"id": range(120), "prediction": score}).to_csv(tmp_path / "ranker.csv", index=False)
    share = 1 / (1 + np.exp(9 - score))  # in the same order
    classes = {"id": range(120), "prediction": "no", "p_no": 1 - share, "p_yes": share}
    pd.DataFrame(classes).to_csv(tmp_path / "classifier.csv", index=False)
    joined, files = (
        tmp_path / "predictions.csv",
        [f"{name}/1={tmp_path / name}.csv" for name in ("ranker", "classifier")],
    )
    joined.write_text(compare("join", "--relevance", *files))
    said = compare(
        "test", joined, tmp_path / "labels.parquet", "ranker-classifier", "--metric", "map", "--group", "qid"
    )
    known = pd.read_parquet(tmp_path / "labels.parquet")
    known.loc[3, "qid"] = None
    known.to_parquet(tmp_path / "holes.parquet")
    (tmp_path / "classes.csv").write_text(compare("join", *files))
    for predictions, named, message in (
        ("predictions.csv", "holes.parquet", "found rows without a 'qid', expected the question of each"),
        ("classes.csv", "labels.parquet", "classifier/1 has classes, which rank nothing: join with --relevance"),
    ):
        with pytest.raises(SystemExit):
            compare("test", tmp_path / predictions, tmp_path / named, "--metric", "map", "--group", "qid")
        assert message in capsys.readouterr().err
    precision = [
        retrieval_average_precision(torch.from_numpy(score[question == q]), torch.from_numpy(labels[question == q]))
        for q in np.unique(question)
        if labels[question == q].any()
    ]
    assert f"| ranker | 1 | {100 * np.mean(precision):.1f} |" in said
    assert "| ranker - classifier | 1 | +0.0 |  | +0.0 to +0.0 | 1.0000 |" in said


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: "\n".join(text.splitlines()[:-1]), "does not have the rows of the first file"),
        (lambda text: "\n".join([*text.splitlines(), text.splitlines()[-1]]), "stands there 2 times"),
        (lambda text: text.replace("id,", "number,", 1), "expected 'id' among them"),
    ],
    ids=["other rows", "a row twice", "no id"],
)
def test_files_of_other_rows_are_refused(compare, students, capsys, change, message):
    """Joined by position, each student would have the labels of other rows."""
    _, _, files = students
    path = Path(files[3].partition("=")[2])
    path.write_text(change(path.read_text()))
    with pytest.raises(SystemExit) as left:
        compare("join", *files)
    found = capsys.readouterr()
    assert left.value.code == 2
    assert found.out == ""
    assert found.err.count("\n") == 1
    assert message in found.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["join", "good1.csv"], "found 'good1.csv', expected GROUP/SEED=FILE.csv"),
        (["join", "good/1=absent.csv"], "absent.csv"),
        (["join", "good/1=good1.csv", "good/1=good2.csv"], "each once"),
        (
            ["test", "predictions.csv", "labels.parquet", "good-por"],
            "good-por: no seed of both, expected two of the groups",
        ),
        (["test", "predictions.csv", "more.parquet"], "more.parquet has 401 rows, the predictions 400"),
        (["test", "predictions.csv", "good1.csv"], "good1.csv: expected a .parquet file"),
        (["test", "predictions.csv", "named.parquet"], "named.parquet: expected a column label of numbers"),
        (["join", "a/1=empty.csv"], "No columns to parse from file"),
        (["join", "--relevance", "a/1=three.csv"], "three.csv has 3 classes, --relevance expects two"),
        (
            ["test", "predictions.csv", "labels.parquet", "--metric", "map"],
            "--group COLUMN goes with --metric map or mrr",
        ),
        (
            ["test", "predictions.csv", "labels.parquet", "--metric", "map", "--group", "qid"],
            "labels.parquet: found the columns label, expected 'qid' among them",
        ),
    ],
    ids=[
        "no name",
        "no file",
        "twice",
        "no group",
        "other labels",
        "no parquet",
        "no numbers",
        "empty",
        "three classes",
        "no group",
        "no question",
    ],
)
def test_mistakes_are_told_in_one_line(compare, students, tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    Path("predictions.csv").write_text(compare("join", *students[2]))
    pd.DataFrame({"label": np.zeros(401)}).to_parquet("more.parquet")
    pd.DataFrame({"label": np.zeros(400)}).to_parquet("labels.parquet")
    pd.DataFrame({"id": [0], "prediction": "a", "p_a": 1, "p_b": 0, "p_c": 0}).to_csv("three.csv", index=False)
    pd.DataFrame({"label": ["no"] * 400}).to_parquet("named.parquet")
    Path("empty.csv").touch()
    with pytest.raises(SystemExit) as left:
        compare(*arguments)
    found = capsys.readouterr()
    assert left.value.code == 2
    assert found.out == ""
    assert message in found.err


COMPARED = [
    pytest.param(page, command, id=f"{page.parent.name}: {command.split()[1].rpartition('/')[2]} {command.split()[-1]}")
    for page in sorted((ROOT / "experiments").glob("*/README.md"))
    for command in re.findall(r"^python experiments/compare.py (test .+)$", page.read_text(), flags=re.MULTILINE)
]


@pytest.mark.parametrize(("page", "command"), COMPARED)
def test_a_page_shows_what_its_predictions_score(page, command, glue, compare):
    """Scores on a page that nobody can compute again; each group and each difference, by the page's own command."""
    text = page.read_text().replace("**", "")
    for name, folder in (
        ("PATH/glue", glue),
        ("PATH/other", glue.parent / "other"),
        ("experiments/", f"{ROOT}/experiments/"),
    ):
        command = command.replace(name, str(folder))
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in compare(*command.split()).splitlines() if line
    ]
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]
    shown = (
        {tuple(line[2:]) for line in lines}
        | {tuple(line[2:5]) for line in lines}
        | {tuple(line[1:4]) for line in lines}
    )
    begin = next(number for number, row in enumerate(rows) if row[0] == "difference")
    groups, differences = rows[2:begin], rows[begin + 2 :]
    assert len(groups) > 1
    assert differences
    for name, _, scores, mean, sd, agreement in groups:
        if name == "teacher":
            assert scores in text
        else:
            own = (scores, mean if sd else "", sd, agreement) if "agrees with" in text else (scores, mean, sd)
            assert own in shown, f"{name}: {own}"
    for name, _, mean, over_seeds, over_rows, _ in differences:
        assert (mean, over_seeds, over_rows) in shown, name


def test_predictions_are_compared():
    """Predictions that no command of their page reads: evidence of nothing."""
    read = {command.values[1].split()[1] for command in COMPARED}
    assert read == {str(path.relative_to(ROOT)) for path in (ROOT / "experiments").glob("*/*.csv")}
    assert len(COMPARED) >= 2
