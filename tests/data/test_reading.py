"""Reading is strict: what fits comes back exactly, and what does not is named by file, row, column and remedy."""

from __future__ import annotations

import csv
import json
import math
import os
from contextlib import closing
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from kd_lightning.data.reading.formats import read_chunks
from kd_lightning.data.reading.reader import ROWS, check_columns, read_file
from kd_lightning.errors import UserError
from kd_lightning.tasks import Task

ROOT = Path(__file__).parents[2]


def classification(*texts: str, labels: tuple[str, ...] = ("negative", "positive"), **more: Any) -> Task:
    """Return a task of two classes over the text columns, by default one named "text"."""
    more = {"name": "toy", "kind": "classification", "metrics": ("accuracy",), **more}
    return Task(texts=texts or ("text",), labels=labels, **more)


def regression(*texts: str, score_range: tuple[float, float] = (0, 5), **more: Any) -> Task:
    """Return a regression task over the text columns, by default one named "text"."""
    more = {"name": "toy", "kind": "regression", "metrics": ("pearson",), **more}
    return Task(texts=texts or ("text",), score_range=score_range, **more)


ONE, SCORE, WITH_ID = classification(), regression(), classification(id="id")


def put(folder: Path, name: str, content: str | bytes | pa.Table) -> Path:
    """Write a file as it is given and return its path."""
    path = folder / name
    if isinstance(content, pa.Table):
        pq.write_table(content, path)
    else:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def put_rows(folder: Path, ending: str, rows: list[dict[str, Any]]) -> Path:
    """Write the rows in the format of the ending."""
    path = folder / f"rows{ending}"
    if ending == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif ending == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    elif ending == ".tsv":
        lines = [list(rows[0]), *(map(str, row.values()) for row in rows)]
        path.write_text("".join("\t".join(line) + "\n" for line in lines), encoding="utf-8", newline="")
    else:
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    return path


def read(path: Path, task: Task, *, labelled: bool = True, batch_rows: int = 10_000) -> dict[str, list[Any]]:
    """Return the whole file, column by column."""
    batches = list(read_file(path, task, labelled=labelled, batch_rows=batch_rows))
    assert all(0 < len(batch) <= batch_rows for batch in batches)
    columns: dict[str, list[Any]] = pa.Table.from_batches(batches, ROWS).to_pydict()
    if task.group is None:
        assert not any(columns.pop("group"))
    return columns


def refusal(path: Path, task: Task, *, labelled: bool = True) -> str:
    """Return the one line with which the file is refused."""
    with pytest.raises(UserError) as caught:
        read(path, task, labelled=labelled)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def class_label(labels: list[int], names: list[str]) -> pa.Table:
    """Return a table as Hugging Face datasets write it: integer labels, their names in the schema."""
    features = {"text": {"dtype": "string"}, "label": {"names": names, "_type": "ClassLabel"}}
    table = pa.table({"text": [f"row {i}" for i in range(len(labels))], "label": labels})
    return table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})


# What fits


@pytest.mark.parametrize("batch_rows", [1, 2, 10_000])
@pytest.mark.parametrize("ending", [".csv", ".tsv", ".jsonl", ".parquet"])
def test_the_four_formats_give_the_same_rows(tmp_path: Path, ending: str, batch_rows: int) -> None:
    """A quote, a space or a batch border that alters a text alters what teacher and student learn from."""
    rows: list[dict[str, Any]] = [
        {"q": ' said "no", twice ', "a": "caf\u00e9 \u2028 \U0001f600", "label": "positive", "id": 7},
        {"q": "broken \ufffd", "a": '"', "label": "negative", "id": 0},
        {"q": "NaN", "a": "null", "label": "positive", "id": 2**63 - 1},
    ]
    found = read(put_rows(tmp_path, ending, rows), classification("q", "a", id="id"), batch_rows=batch_rows)
    assert found == {
        "example_id": [7, 0, 2**63 - 1],
        "row_id": ["7", "0", str(2**63 - 1)],
        "text_a": [row["q"] for row in rows],
        "text_b": [row["a"] for row in rows],
        "label": [1.0, 0.0, 1.0],
    }


@pytest.mark.parametrize("ending", [".csv", ".jsonl", ".parquet"])
def test_line_ends_inside_texts_are_kept(tmp_path: Path, ending: str) -> None:
    """Universal newlines would turn CR LF into LF without a word."""
    texts = ["a\r\nb", "c\nd\n", "e\rf"]
    rows = [{"text": text, "label": 0} for text in texts]
    assert read(put_rows(tmp_path, ending, rows), ONE)["text_a"] == texts


@pytest.mark.parametrize("name", ["rows.csv", "rows.tsv", "ROWS.CSV"])
@pytest.mark.parametrize("end", ["\n", "\r\n"], ids=["lf", "crlf"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"], ids=["plain", "bom"])
def test_byte_order_marks_and_line_ends_are_no_text(tmp_path: Path, name: str, end: str, mark: bytes) -> None:
    """A spreadsheet writes both, and neither belongs to a column's name or to a text."""
    tab = "," if name.lower().endswith("csv") else "\t"
    content = end.join([f"label{tab}text", f"1{tab}so", f"0{tab} so ", ""]).encode()
    found = read(put(tmp_path, name, mark + content), ONE)
    assert (found["text_a"], found["label"]) == (["so", " so "], [1.0, 0.0])


def test_rows_without_id_are_numbered_over_the_whole_file(tmp_path: Path) -> None:
    """Numbers that start again with each batch would give one example's soft targets to another."""
    path = put(tmp_path, "a.csv", "text\n" + "so\n" * 5)
    found = read(path, ONE, labelled=False, batch_rows=2)
    assert found["example_id"] == [0, 1, 2, 3, 4]
    assert found["row_id"] == ["0", "1", "2", "3", "4"]
    assert found["text_b"] == [None] * 5
    assert all(map(math.isnan, found["label"]))


def test_ids_that_are_no_whole_numbers_are_hashed(tmp_path: Path) -> None:
    """The ids "007" and "7" are two; int("007") would make them one."""
    hashed = ["007", "-3", "row-1", str(2**63), "1.0", "7 "]
    content = "id,text\n" + "".join(f"{name},so\n" for name in ["7", *hashed])
    found = read(put(tmp_path, "a.csv", content), WITH_ID, labelled=False)
    digests = [int.from_bytes(blake2b(name.encode()).digest()[:8], "big") >> 1 for name in hashed]
    assert found["example_id"] == [7, *digests]
    assert found["row_id"] == ["7", *hashed]


@pytest.mark.parametrize(
    ("labels", "column", "expected"),
    [
        pytest.param(("no", "yes"), ["yes", "no"], [1, 0], id="names"),
        pytest.param(("no", "yes"), [1, 0], [1, 0], id="indices"),
        pytest.param(("no", "yes"), ["1", "0"], [1, 0], id="indices-as-digits"),
        pytest.param(("no", "yes"), ["yes", 0], [1, 0], id="names-and-indices"),
        pytest.param(("1", "0"), [1, 0], [0, 1], id="a-name-wins-over-an-index"),
        pytest.param(("-1", "1"), [1, -1], [1, 0], id="minus-one-may-be-a-name"),
        pytest.param(("no", "yes"), pa.array(["yes", "no"]).dictionary_encode(), [1, 0], id="dictionary"),
        pytest.param(("no", "yes"), pa.array([1, 0], pa.uint8()), [1, 0], id="small-integers"),
    ],
)
def test_labels_are_names_or_indices(labels: tuple[str, ...], column: Any, expected: list[int]) -> None:
    """A label read in the wrong order trains happily, on the wrong class."""
    columns = {"text": ["a", "b"], "label": column}
    assert (
        check_columns(columns, classification(labels=labels), labelled=True, source="x")["label"].to_pylist()
        == expected
    )


@pytest.mark.parametrize("column", [["2.5", "5", "0"], [2.5, 5, 0], ["2.5", 5, 0.0]], ids=["text", "numbers", "mixed"])
def test_scores_are_read_as_they_stand(column: list[Any]) -> None:
    """Mapping to [0, 1] is the task's business, not the reader's."""
    columns = {"text": ["a", "b", "c"], "label": column}
    assert check_columns(columns, SCORE, labelled=True, source="x")["label"].to_pylist() == [2.5, 5, 0]


def test_a_score_of_single_precision_may_touch_the_end_of_the_range() -> None:
    """float32(0.1) > 0.1: comparing in double precision refuses correct files."""
    columns = {"text": ["a"], "label": pa.array([0.1], pa.float32())}
    check_columns(columns, regression(score_range=(0, 0.1)), labelled=True, source="x")


def test_class_names_in_the_file_decide_over_its_label_order(tmp_path: Path) -> None:
    """Two exports of one data set may number the classes differently; indices alone would swap them."""
    path = put(tmp_path, "a.parquet", class_label([0, 1, 1], ["positive", "negative"]))
    assert read(path, ONE)["label"] == [1.0, 0.0, 0.0]


def test_an_early_stop_closes_the_file(tmp_path: Path) -> None:
    """A reader that only wants the first batch must not pay for, or trip over, the rest."""
    path = put(tmp_path, "a.csv", "text,label\nso,1\nso,no\n")
    batches = read_file(path, ONE, labelled=True, batch_rows=1)
    assert next(batches)["label"].to_pylist() == [1.0]
    batches.close()  # type: ignore[attr-defined]
    path.unlink()


@pytest.mark.parametrize("group", [500, 8_000], ids=["row groups", "one row group"])
def test_parquet_is_not_fetched_ahead(tmp_path: Path, group: int) -> None:
    """Arrow would hold all row groups, or a whole group's columns: memory must not grow with the file."""
    random = np.random.default_rng(0)
    texts = [random.bytes(1_000).hex() for _ in range(8_000)]
    path = tmp_path / "a.parquet"
    pq.write_table(
        pa.table({"text": texts, "label": [1] * len(texts)}), path, row_group_size=group, use_dictionary=False
    )
    before = pa.total_allocated_bytes()
    with closing(read_chunks(path, ["text", "label"], 100)) as chunks:
        next(chunks)
        assert pa.total_allocated_bytes() - before < path.stat().st_size / 3


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="only Linux tells which files are open")
@pytest.mark.parametrize("label", ["1", "never"], ids=["column", "label"])
@pytest.mark.parametrize("ending", [".csv", ".tsv", ".jsonl", ".parquet"])
def test_an_error_closes_the_file(tmp_path: Path, ending: str, label: str) -> None:
    """An exception keeps the frames it passed, and with them the file: until somebody collects garbage."""
    path = put_rows(tmp_path, ending, [{"text": "so", "label": label}])
    with pytest.raises(UserError) as caught:
        read(path, classification("txt") if label == "1" else ONE)
    opened = {os.path.realpath(file) for file in Path("/proc/self/fd").iterdir()}
    assert caught.tb is not None
    assert str(path.resolve()) not in opened


# What does not

LINES = [
    # name, file, content, task (those with ids are read without labels), what the error must say
    ("empty-text", "a.csv", "text,label\nso,1\n,1\n", ONE, "line 3, column 'text' .. found '' .. not empty"),
    ("blank-text", "a.tsv", "text\tlabel\n \u00a0\t1\n", ONE, "line 2, column 'text' .. not empty"),
    ("blank-second-text", "a.csv", "q,a,label\nso, ,1\n", classification("q", "a"), "line 2, column 'a' .. ' '"),
    ("null-text", "a.jsonl", '{"text": null, "label": 1}\n', ONE, "line 1, column 'text' .. found null"),
    ("absent-key", "a.jsonl", '{"text": "so", "label": 1}\n{"label": 1}\n', ONE, "line 2, column 'text' .. no value"),
    ("number-as-text", "a.jsonl", '{"text": 12, "label": 1}', ONE, "line 1, column 'text' .. 12 (int) .. as a string"),
    (
        "float-among-texts",
        "a.jsonl",
        '{"text": "so", "label": 1}\n{"text": 1.5, "label": 1}',
        ONE,
        "line 2, column 'text' .. 1.5 (float)",
    ),
    ("list-as-text", "a.jsonl", '{"text": ["so"], "label": 1}', ONE, "line 1, column 'text' .. ['so'] (list)"),
    (
        "half-a-surrogate",
        "a.jsonl",
        '{"text": "\\ud83d!", "label": 1}',
        ONE,
        "line 1, column 'text' .. surrogate .. mend",
    ),
    ("nul-escaped", "a.jsonl", '{"text": "a\\u0000b", "label": 1}', ONE, "line 1, column 'text' .. NUL byte"),
    ("nul", "a.csv", "text,label\nso\0,1\n", ONE, "line 2, column 'text' .. NUL byte .. take the byte out"),
    ("utf-16-without-mark", "a.csv", "text,label\n".encode("utf-16-le"), ONE, "line 1 .. NUL byte .. UTF-8"),
    (
        "label-near-a-name",
        "a.csv",
        "text,label\nso,Postive\n",
        ONE,
        "line 2, column 'label' .. 'Postive' .. 'positive'?",
    ),
    ("label-far-off", "a.csv", "text,label\nso,7\n", ONE, "'7' .. 'negative', 'positive' or an index 0 to 1 .. mend"),
    ("label-null", "a.jsonl", '{"text": "so", "label": null}', ONE, "line 1, column 'label' .. found null"),
    ("label-true", "a.jsonl", '{"text": "so", "label": true}', ONE, "column 'label' .. True .. one of 'negative'"),
    ("label-float", "a.jsonl", '{"text": "so", "label": 1.0}', ONE, "column 'label' .. 1.0 .. one of 'negative'"),
    ("label-hidden", "a.csv", "text,label\nso,1\nso,-1\n", ONE, "line 3 .. -1 marks a hidden label .. unlabelled"),
    ("score-hidden", "a.csv", "text,label\nso,-1\n", SCORE, "line 2 .. -1 marks a hidden label .. unlabelled"),
    ("score-too-high", "a.csv", "text,label\nso,5\nso,5.1\n", SCORE, "line 3, column 'label' .. '5.1' .. from 0 to 5"),
    ("score-nan", "a.jsonl", '{"text": "so", "label": NaN}', SCORE, "line 1, column 'label' .. found nan .. from 0"),
    ("score-huge", "a.csv", "text,label\nso,1e300\n", SCORE, "line 2 .. '1e300' .. from 0 to 5"),
    ("score-comma", "a.tsv", "text\tlabel\nso\t3,5\n", SCORE, "line 2, column 'label' .. '3,5' .. a number"),
    ("score-true", "a.jsonl", '{"text": "so", "label": true}', SCORE, "line 1, column 'label' .. True .. a number"),
    ("column-missing", "a.csv", "text,lable\nso,1\n", ONE, "columns 'text', 'lable' .. 'label' .. you mean 'lable'?"),
    ("id-missing", "a.tsv", "text\tlabel\nso\t1\n", WITH_ID, "columns 'text', 'label' .. expected 'id'"),
    ("key-missing", "a.jsonl", '{"txt": "so"}\n', ONE, "line 1 .. columns 'txt' .. 'text' .. you mean 'txt'?"),
    ("column-twice", "a.csv", "text,label,text\nso,1,so\n", ONE, "2 columns 'text' .. expected one"),
    ("key-twice", "a.jsonl", '{"text": "a", "text": "b"}\n', ONE, "line 1 .. duplicate key 'text'"),
    ("id-twice", "a.csv", "id,text\n1,a\n2,b\n1,c\n", WITH_ID, "line 4, column 'id' .. '1' of line 2 .. unique"),
    ("id-twice-text", "a.jsonl", '{"id": "x", "text": "a"}\n' * 2, WITH_ID, "line 2, column 'id' .. 'x' of line 1"),
    ("id-empty", "a.csv", "id,text\n1,a\n,b\n", WITH_ID, "line 3, column 'id' .. found '' .. an id"),
    ("id-float", "a.jsonl", '{"id": 1.5, "text": "a"}', WITH_ID, "line 1, column 'id' .. 1.5 .. an integer or a text"),
    (
        "quote-never-closed",
        "a.csv",
        'text,label\nso,1\n"so,1\nso,1\n',
        ONE,
        "line 3, column 'text' .. never closes .. close it",
    ),
    ("quote-closed-by-next", "a.csv", 'text,label\n"so,1\n"so",1\n', ONE, "line 2, column 'text' .. noticed in line 3"),
    ("quote-after-lines", "a.csv", 'text,label\n"a\nb",1\n"c\nd","1\n', ONE, "line 5, column 'label' .. never closes"),
    ("quote-in-quoted", "a.csv", 'label,text\n1,"so "so" so"\n', ONE, "line 2, column 'text' .. after a closing quote"),
    ("quote-in-header", "a.csv", 'text,"label\nso,1\n', ONE, "line 1, field 2 .. never closes"),
    (
        "field-endless",
        "a.csv",
        'text,label\n"so,1\n' + "so,1\n" * 40_000,
        ONE,
        "line 2, column 'text' .. close its quote",
    ),
    ("line-ends-cr", "a.csv", "text,label\rso,1\r", ONE, "line 1 .. carriage return .. LF or CR LF"),
    (
        "field-too-many",
        "a.csv",
        "text,label\nso, so,1\n",
        ONE,
        "line 2 .. 3 fields .. expected 2 fields (text, label) .. quote texts",
    ),
    (
        "field-too-few",
        "a.csv",
        "text,label\nso\n",
        ONE,
        "line 2 .. found 1 field, none for 'label' .. expected 2 fields",
    ),
    ("tab-astray", "a.tsv", "text\tlabel\nso\tso\t1\n", ONE, "line 2 .. 3 fields .. expected 2 .. take tabs"),
    (
        "line-empty-csv",
        "a.csv",
        "text,label\nso,1\n\nso,1\n",
        ONE,
        "line 3 .. an empty line .. expected 2 fields (text, label)",
    ),
    (
        "line-empty-tsv",
        "a.tsv",
        "text\tlabel\n\nso\t1\n",
        ONE,
        "line 2 .. an empty line .. expected 2 fields (text, label)",
    ),
    (
        "line-empty-jsonl",
        "a.jsonl",
        '{"text": "so", "label": 1}\n\n',
        ONE,
        "line 2 .. an empty line .. one JSON object",
    ),
    ("line-after-lines", "a.csv", 'text,label\n"a\n\nb",1\n,1\n', ONE, "line 5, column 'text' .. found ''"),
    (
        "json-invalid",
        "a.jsonl",
        '{"text": "so", "label": 1}\n{"text": so}\n',
        ONE,
        "line 2 .. invalid JSON .. character 10",
    ),
    ("json-list", "a.jsonl", '["so", 1]\n', ONE, "line 1 .. found a list .. one JSON object"),
    ("json-deep", "a.jsonl", "[" * 100_000, ONE, "line 1 .. invalid JSON .. one JSON object"),
    (
        "latin-1",
        "a.csv",
        "text,label\nso,1\ncaf\u00e9,1\n".encode("latin-1"),
        ONE,
        "line 3 .. 0xe9 at byte offset 19 .. UTF-8",
    ),
    (
        "utf-16",
        "a.jsonl",
        '{"text": "so"}\n'.encode("utf-16"),
        ONE,
        "line 1 .. 0xff .. UTF-16? .. save the file as UTF-8",
    ),
    ("empty-csv", "a.csv", "", ONE, "found no rows .. at least one"),
    ("empty-jsonl", "a.jsonl", "", ONE, "found no rows .. at least one"),
    ("header-only", "a.tsv", "text\tlabel\n", ONE, "found no rows .. at least one"),
    ("header-empty", "a.csv", "\nso,1\n", ONE, "found the columns none .. 'text'"),
    ("extension", "a.csv.gz", "", ONE, "the extension .csv.gz .. .csv, .tsv, .jsonl or .parquet .. unpack"),
    ("no-extension", "a", "", ONE, "the extension none .. .csv, .tsv, .jsonl or .parquet"),
    ("not-parquet", "a.parquet", "version https://git-lfs.github.com", ONE, "no readable parquet .. again"),
]


@pytest.mark.parametrize(("name", "content", "task", "said"), [pytest.param(*case[1:], id=case[0]) for case in LINES])
def test_a_file_that_does_not_fit_is_refused(
    tmp_path: Path, name: str, content: str | bytes, task: Task, said: str
) -> None:
    """A row dropped or guessed at is a result nobody can explain; so is an error without its place."""
    path = put(tmp_path, name, content)
    message = refusal(path, task, labelled=task is not WITH_ID)
    assert message.startswith(str(path))
    assert [words for words in said.split(" .. ") if words not in message] == [], message


def not_utf8(kind: pa.DataType) -> pa.Array:
    """Return two texts, the second in Latin-1, as a careless writer leaves them in a parquet file."""
    return pa.array([b"so", b"caf\xe9"], pa.binary()).view(pa.string()).cast(kind)


TABLES = [
    ("text-null", {"text": ["so", None]}, ONE, "row 1, column 'text' .. found null .. fill it in"),
    ("text-blank", {"text": ["so", "\t\n"]}, ONE, r"row 1, column 'text' .. '\t\n' .. not empty"),
    ("text-integer", {"text": [12]}, ONE, "row 0, column 'text' .. 12 (int) .. as a string"),
    ("text-latin-1", {"text": not_utf8(pa.string())}, ONE, r"row 1, column 'text' .. b'caf\xe9' .. UTF-8"),
    ("label-null", {"text": ["a", "b"], "label": [1, None]}, ONE, "row 1, column 'label' .. found null"),
    ("label-hidden", {"text": ["a", "b"], "label": [1, -1]}, ONE, "row 1, column 'label' .. -1 marks a hidden"),
    ("label-float", {"text": ["a"], "label": [1.0]}, ONE, "row 0, column 'label' .. 1.0 .. one of 'negative'"),
    ("label-out", {"text": ["a", "b"], "label": ["negative", "neg"]}, ONE, "row 1 .. 'neg' .. 'negative', 'positive'"),
    ("index-of-numbers", {"text": ["a"], "label": [0]}, classification(labels=("1", "2")), "row 0 .. one of '1', '2';"),
    ("score-infinite", {"text": ["a"], "label": [math.inf]}, SCORE, "row 0, column 'label' .. found inf"),
    ("score-missing", {"text": ["a", "b"], "label": [1.5, None]}, SCORE, "row 1, column 'label' .. found null"),
    ("id-twice", {"text": ["a", "b", "c"], "id": [5, 6, 5]}, WITH_ID, "row 2, column 'id' .. id 5 of row 0"),
    ("ids-twice", {"text": list("abcd"), "id": list("xyyx")}, WITH_ID, "column 'id' .. 2 ids are repeated"),
    ("id-null", {"text": ["a", "b"], "id": [5, None]}, WITH_ID, "row 1, column 'id' .. found null"),
    ("column-missing", {"txt": ["a"]}, ONE, "columns 'txt' .. expected 'text' .. did you mean 'txt'?"),
    ("no-rows", {"text": pa.array([], pa.string())}, ONE, "found no rows"),
]


@pytest.mark.parametrize("in_memory", [False, True], ids=["parquet", "memory"])
@pytest.mark.parametrize(("columns", "task", "said"), [pytest.param(*case[1:], id=case[0]) for case in TABLES])
def test_a_table_that_does_not_fit_is_refused(
    tmp_path: Path, columns: dict[str, Any], task: Task, said: str, in_memory: bool
) -> None:
    """Rows in memory pass the same gate as rows of a file, and are counted from 0."""
    if in_memory:
        with pytest.raises(UserError) as caught:
            check_columns(columns, task, labelled="label" in columns, source="embedded toy train")
        source, message = "embedded toy train", str(caught.value)
    else:
        path = put(tmp_path, "a.parquet", pa.table(columns))
        source, message = str(path), refusal(path, task, labelled="label" in columns)
    assert message.startswith(source)
    assert [words for words in said.split(" .. ") if words not in message] == [], message


def test_a_column_that_stands_twice_in_parquet_is_refused(tmp_path: Path) -> None:
    """Which of the two is meant, only the user knows."""
    path = put(tmp_path, "a.parquet", pa.table([["a"], ["b"]], names=["text", "text"]))
    assert "found 2 columns 'text', expected one" in refusal(path, ONE, labelled=False)


def test_other_class_names_in_the_file_are_refused(tmp_path: Path) -> None:
    """Index 1 of other classes is another meaning under the same number."""
    path = put(tmp_path, "a.parquet", class_label([0, 1], ["irrelevant", "relevant"]))
    message = refusal(path, ONE)
    assert f"{path}, column 'label': found the classes 'irrelevant', 'relevant'" in message
    assert "task toy: 'negative', 'positive'" in message


def test_a_hidden_label_under_class_names_is_refused(tmp_path: Path) -> None:
    """GLUE's test splits state class names and hide every label behind -1."""
    message = refusal(put(tmp_path, "a.parquet", class_label([1, -1], ["positive", "negative"])), ONE)
    assert "row 1, column 'label': found the unknown label -1" in message
    assert "use this split as unlabelled" in message


def test_an_id_repeated_across_batches_is_refused(tmp_path: Path) -> None:
    """A check within batches alone lets two rows share one row of soft targets."""
    path = put(tmp_path, "a.csv", 'id,text\nx,"a\nb"\ny,c\nx,d\n')
    with pytest.raises(UserError, match=r"line 5, column 'id': found the id 'x' of line 2 again"):
        list(read_file(path, WITH_ID, labelled=False, batch_rows=1))


def test_row_numbers_in_errors_count_over_the_whole_file(tmp_path: Path) -> None:
    """The second row of the third batch is nothing a user can look up."""
    path = put(tmp_path, "a.parquet", pa.table({"text": ["a"] * 5 + [""]}))
    with pytest.raises(UserError, match="row 5, column 'text'"):
        list(read_file(path, ONE, labelled=False, batch_rows=2))


def test_a_missing_file_is_named_whole_with_its_neighbours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative path in an error does not say relative to what; Hydra changes the folder."""
    put(tmp_path, "train.csv", "")
    monkeypatch.chdir(tmp_path)
    message = refusal(Path("trian.csv"), ONE)
    assert message.startswith(str(tmp_path / "trian.csv"))
    assert "did you mean 'train.csv'?" in message
    assert f"found no folder {tmp_path / 'deep'}" in refusal(Path("deep/train.csv"), ONE)


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    """`files: {train: data}` is the natural slip."""
    assert refusal(tmp_path, ONE).startswith(f"{tmp_path}: found a folder, expected a .csv")


# Real data


def shipped(name: str) -> Task:
    """Return a task as conf/task has it."""
    node = yaml.safe_load((ROOT / "conf" / "task" / f"{name}.yaml").read_text())[name]
    return Task(**{key: value for key, value in node.items() if key != "_target_"})


OFFICIAL = {  # Wang et al. 2019, arXiv:1804.07461, table 1
    "cola": ("matthews_corrcoef",),
    "sst2": ("accuracy",),
    "mrpc": ("accuracy", "f1"),
    "stsb": ("pearson", "spearman"),
    "qqp": ("accuracy", "f1"),
    "mnli": ("accuracy",),
    "qnli": ("accuracy",),
    "rte": ("accuracy",),
    "wnli": ("accuracy",),
    "ax": ("matthews_corrcoef",),
}


@pytest.mark.parametrize("name", OFFICIAL)
def test_the_shipped_tasks_are_glues(name: str) -> None:
    """Another metric, or doubled pairs where order matters: numbers that look like the paper's and are not."""
    task = shipped(name)
    assert set(task.metrics) == set(OFFICIAL[name])
    assert task.both_orders == (name in ("mrpc", "stsb"))
    splits = {"mnli": ("validation_matched", "validation_mismatched"), "ax": ("test",)}
    assert task.evaluation == splits.get(name, ("validation",))
    assert task.head == ("mnli" if name == "ax" else None)
    if task.head is not None:
        assert task.labels == shipped(task.head).labels  # the order of the head's logits


@pytest.mark.parametrize("name", OFFICIAL)
def test_real_data_comes_back_row_for_row(name: str, glue: Path) -> None:
    """Whatever GLUE holds (repeated phrases, raw quotes, U+FFFD) is a row."""
    files = sorted(glue.glob(f"{name}/*.parquet"))
    if not files:
        pytest.skip(f"no real data under {glue / name}: set KD_GLUE to a folder with TASK/SPLIT.parquet")
    task = shipped(name)
    for path in files:
        labelled = path.stem != "test"
        expected, found = pq.read_table(path), read(path, task, labelled=labelled)
        for number, column in enumerate(task.texts):
            assert found[("text_a", "text_b")[number]] == expected[column].to_pylist()
        assert found["example_id"] == list(range(len(expected)))
        assert not labelled or found["label"] == expected["label"].to_pylist()
