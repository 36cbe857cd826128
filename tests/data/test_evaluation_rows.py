"""Rows whose scores tell nothing are told; others are not."""

import pytest

from kd_lightning.data.evaluation_rows import check_evaluation_rows
from kd_lightning.data.reading.reader import check_columns
from kd_lightning.data.rows import cache_rows
from kd_lightning.tasks import Task

CLASSES = Task(name="x", kind="classification", texts=("text",), labels=("no", "yes"), metrics=("accuracy",))
SCORES = Task(name="x", kind="regression", texts=("text",), score_range=(0, 5), metrics=("pearson",))


@pytest.mark.parametrize(
    ("task", "labels", "told"),
    [
        (CLASSES, ["yes", "yes", "yes"], "x dev: of 3 rows all are yes: scores tell nothing"),
        (CLASSES, ["no", "yes", "no"], ""),
        (SCORES, [2.5, 2.5], "x dev: of 2 rows all are 2.5: scores tell nothing"),
        (SCORES, [2.5], "x dev: of 1 rows all are 2.5: scores tell nothing"),
        (SCORES, [2.5, 2], ""),
    ],
)
def test_one_label_alone_is_told(tmp_path, caplog, task, labels, told):
    """100 for a model that always says so, or a correlation of 0 that is none."""
    columns = {"text": ["a"] * len(labels), "label": labels}
    rows = cache_rows(tmp_path / "r", lambda: [check_columns(columns, task, labelled=True, source="x")], "x")
    with caplog.at_level("WARNING"):
        check_evaluation_rows(task, "dev", rows)
    assert caplog.messages == ([told] if told else [])
