"""What the pages of experiments/ are made with, and what they show: the script that compares students, its tables."""

import re
import runpy
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

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


@pytest.fixture(scope="module")
def parts():
    """Return what the script consists of."""
    return runpy.run_path(str(SCRIPT))


@pytest.fixture
def students(tmp_path):
    """Return labels, predictions of two groups, and the files of kd-predict that hold them."""
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 2, 400)
    hits = {"good": 0.9, "poor": 0.75}
    found, files = {}, []
    for group, share in hits.items():
        for seed in (1, 2, 3):
            own = np.where(rng.random(400) < share, labels, 1 - labels)
            found[f"{group}/{seed}"] = own
            path = tmp_path / f"{group}{seed}.csv"
            names = np.array(["no", "yes"])[own]
            table = {"id": range(400), "prediction": names, "p_no": 1.0 - own, "p_yes": own}
            pd.DataFrame(table).to_csv(path, index=False)
            files.append(f"{group}/{seed}={path}")
    pd.DataFrame({"idx": range(400), "label": labels}).to_parquet(tmp_path / "labels.parquet")
    return labels, found, files


def test_students_are_compared(compare, students, tmp_path):
    """Numbers of the wrong rows, or of another seed; checked against scipy."""
    labels, found, files = students
    joined = tmp_path / "predictions.csv"
    joined.write_text(compare("join", *files))
    said = compare("test", joined, tmp_path / "labels.parquet", "good-poor", "good-good")
    scores = {name: 100 * (own == labels).mean() for name, own in found.items()}
    good, poor = (np.array([scores[f"{group}/{seed}"] for seed in (1, 2, 3)]) for group in ("good", "poor"))
    shown = ", ".join(f"{score:.1f}" for score in good)
    assert f"| good | 1, 2, 3 | {shown} | {good.mean():.1f} | {good.std(ddof=1):.1f} |" in said
    low, high = stats.ttest_rel(good, poor).confidence_interval()
    assert f"| good - poor | 3 | {(good - poor).mean():+.1f} | {low:+.1f} to {high:+.1f} |" in said
    assert "| good - good | 3 | +0.0 | +0.0 to +0.0 | +0.0 to +0.0 | 1.0000 |" in said


def test_intervals_over_rows(parts):
    """A bootstrap of something else than the mean; checked against the standard error, and Pearson's r by numpy."""
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 2, 500).astype(float)
    one = np.stack([np.where(rng.random(500) < 0.8, labels, 1 - labels) for _ in range(2)])
    other = np.stack([np.where(rng.random(500) < 0.7, labels, 1 - labels) for _ in range(2)])
    rows = 100 * ((one == labels).mean(0) - (other == labels).mean(0))
    low, high = parts["over_rows"]("accuracy", one, other, labels, rng)
    half = 1.96 * stats.sem(rows)
    assert low == pytest.approx(rows.mean() - half, abs=0.4)
    assert high == pytest.approx(rows.mean() + half, abs=0.4)
    assert parts["pearson"](rng.normal(size=(2, 500)), labels).shape == (2,)
    values = rng.normal(size=500)
    assert parts["pearson"](values, labels) == pytest.approx(100 * np.corrcoef(values, labels)[0, 1])


def test_sign_flips_find_what_is_there_and_no_more(parts):
    """Two students of one rate are as often found apart as p says; a better one always."""
    rng = np.random.default_rng(4)
    labels = np.zeros(300)
    same = [parts["sign_flips"](*(rng.random((2, 1, 300)) < 0.3), labels, rng) for _ in range(20)]
    assert np.mean(np.array(same) < 0.05) <= 0.2
    assert parts["sign_flips"](rng.random((1, 300)) < 0.1, rng.random((1, 300)) < 0.4, labels, rng) < 0.001


def test_files_of_other_rows_are_refused(compare, students, tmp_path):
    """Joined by position, each student would have the labels of other rows."""
    _, _, files = students
    short = tmp_path / "good1.csv"
    short.write_text("\n".join(short.read_text().splitlines()[:-1]))
    with pytest.raises(SystemExit, match="the files do not have the same rows"):
        compare("join", *files)


@pytest.mark.parametrize("page", sorted((ROOT / "experiments").glob("*/predictions.csv")), ids=lambda p: p.parent.name)
def test_a_page_shows_what_its_predictions_score(page, glue, parts):
    """Scores on a page that nobody can compute again."""
    table = pd.read_csv(page, dtype={"id": str}).set_index("id")
    task = page.parent.name.partition("_")[2]
    known = pd.read_parquet(glue / task / "validation.parquet")
    labels = pd.Series(known["label"].to_numpy(float), known["idx"].astype(str)).loc[table.index].to_numpy()
    metric = parts["METRICS"]["pearson" if task == "stsb" else "accuracy"]
    text = (page.parent / "README.md").read_text()
    for group in {name.partition("/")[0] for name in table}:
        own = [name for name in table if name.partition("/")[0] == group]
        scores = ", ".join(f"{metric(table[name].to_numpy(float), labels):.1f}" for name in own)
        assert re.search(rf"\b{re.escape(scores)}\b", text), f"{group}: {scores}"
