"""Token tables: what the tokenizer says, row by row, built once, and never a row fewer."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from tokenizers.processors import RobertaProcessing

from kd_lightning.augmentation import MASKED
from kd_lightning.data import TokenTable, caching, tokenise, tokenising
from kd_lightning.data.reading.reader import ROWS
from kd_lightning.data.rows import cache_rows
from kd_lightning.encoders.vocabulary import tokenizer_fingerprint, train_tokenizer, train_word_tokenizer


@pytest.fixture
def table(tmp_path, toys, tokenizer):
    """Return a function: task name, changes -> its token table, cached in the test's folder."""

    def table(name, **changes):
        toy = toys[name]
        settings = {"tokenizer": tokenizer, "max_length": 32, "both_orders": toy.task.both_orders, "rows": toy.rows}
        settings |= {"cache": tmp_path / "cache", "name": name, **changes}
        return tokenise(settings.pop("rows"), settings.pop("tokenizer"), **settings)

    return table


def row(found: TokenTable, number: int) -> list[int]:
    """Return the token ids of an example."""
    start = found.starts(np.array([number]))[0]
    return found.input_ids[start : found.ends[number]].tolist()


@pytest.mark.parametrize("max_length", [32, 8])
@pytest.mark.parametrize("name", ["mood", "nli", "near"])
def test_rows_are_the_tokenizers(table, toys, tokenizer, name, max_length):
    """An offset wrong by one shifts every text after the first."""
    found, toy = table(name, max_length=max_length), toys[name]
    texts = [toy.columns[column] for column in toy.task.texts]
    count = len(toy.columns["id"])
    for number in range(count):
        pair = [column[number] for column in texts]
        for place, words in [(number, pair)] + ([(count + number, pair[::-1])] if toy.task.both_orders else []):
            expected = tokenizer(*words, truncation="longest_first", max_length=max_length)
            assert row(found, place) == expected["input_ids"]
            types = expected["token_type_ids"]
            assert found.second[place] == (types.index(1) if 1 in types else len(types))
            assert found.lengths(np.array([place])) == len(types) <= max_length


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("max_length", [6, 11, 200])
@pytest.mark.parametrize("columns", [("a",), ("a", "b")], ids=["one text", "pair"])
def test_the_engine_is_the_tokenizer(columns, max_length, side):
    """Calling the engine itself saves time; it must give what ``tokenizer(...)`` gives, special words and all."""
    random = np.random.default_rng(1)
    words = ["the", "red", "cup", "sees", "[SEP]", "[MASK]", "unheard-of", "\u00e9t\u00e9", "?", ""]
    texts = {name: [" ".join(random.choice(words, random.integers(1, 40))) for _ in range(60)] for name in "ab"}
    words_known = train_tokenizer(texts["a"] + texts["b"], 80)
    words_known.truncation_side = side
    given = [texts[name] for name in columns]
    second = pa.array(texts["b"]) if len(columns) == 2 else pa.nulls(60, pa.string())
    values = [
        pa.array(range(60)),
        pa.nulls(60, pa.string()),
        pa.array(texts["a"]),
        second,
        pa.array(np.zeros(60, np.float32)),
        pa.nulls(60, pa.int64()),
    ]
    batch = pa.record_batch(values, names=["example_id", "row_id", "text_a", "text_b", "label", "group"])
    for swapped in (False, True):
        found = tokenising.encode(batch, tokenising.backend_of(words_known, max_length), swapped, None)
        expected = words_known(*given[:: -1 if swapped else 1], truncation="longest_first", max_length=max_length)
        for number, ids in enumerate(expected["input_ids"]):
            start, end = found["ends"][number] - len(ids), found["ends"][number]
            assert found["input_ids"][start:end].tolist() == ids
            assert [int(i >= found["second"][number]) for i in range(len(ids))] == expected["token_type_ids"][number]
        assert found["ends"][-1] == len(found["input_ids"])


@pytest.mark.parametrize(("train", "token"), [(train_tokenizer, "[MASK]"), (train_word_tokenizer, "[UNK]")])
def test_a_masked_word_is_each_models_own(tmp_path, train, token):
    """A transformer reads its mask, a student of words the unknown word: one text, rendered twice."""
    texts = ["the red cup", "a cup sees"]
    words = train(texts, 60)
    values = [
        [0, 1],
        ["0", "1"],
        [f"the {MASKED} cup", MASKED],
        [f"{MASKED}{MASKED}!", "the"],
        [0.0, 0.0],
        [None, None],
    ]
    names = ["example_id", "row_id", "text_a", "text_b", "label", "group"]
    batch = pa.record_batch([pa.array(v, f.type) for v, f in zip(values, ROWS, strict=True)], names=names)
    rows = replace(cache_rows(tmp_path / "rows", lambda: [batch], "test"), augmenter="test")
    found = tokenise(rows, words, max_length=32, both_orders=False, cache=tmp_path / "tokens", name="test")
    masked = words.convert_tokens_to_ids(token)
    for number, expected in enumerate([("the [M] cup", "[M][M]!"), ("[M]", "the")]):
        ids = row(found, number)
        assert ids == words(*(text.replace("[M]", token) for text in expected))["input_ids"]
        assert ids.count(masked) == sum(text.count("[M]") for text in expected) + (token == "[UNK]") * (number == 0)
    words.mask_token = "cup"  # a name among the special tokens, not a rule of the engine
    other = tokenise(rows, words, max_length=32, both_orders=False, cache=tmp_path / "tokens", name="test")
    assert row(other, 1) == words("cup", "the")["input_ids"]


def test_a_second_text_without_types():
    """RoBERTa's texts have one type: a head that reads the second one's tokens would find none."""
    words = train_tokenizer(["the red cup", "a cup sees"], 60)
    marks = [(name, words.convert_tokens_to_ids(name)) for name in ("[SEP]", "[CLS]")]
    words.backend_tokenizer.post_processor = RobertaProcessing(*marks)
    first, second = ["the cup", "a"], ["red cup sees", "cup"]
    values = [range(2), "ab", first, second, [0.0] * 2, [None] * 2]
    batch = pa.record_batch([pa.array(v, f.type) for v, f in zip(values, ROWS, strict=True)], schema=ROWS)
    found = tokenising.encode(batch, tokenising.backend_of(words, 32), False, None)
    for number, text in enumerate(first):
        assert found["second"][number] == len(words.tokenize(text)) + 3  # <s> text </s> </s>


@pytest.mark.parametrize("pair", [False, True])
def test_texts_without_a_word(tmp_path, pair):
    """A character that the tokenizer drops, at the end of a chunk and in its middle."""
    words = train_word_tokenizer(["the cup"], 60)
    first, second = (
        ["the", "\u200b", "cup the", "\u200b", "\u200b"],
        ["\u200b", "the cup", "\u200b", "\u200b", "\u200b"],
    )
    values = [range(5), "abcde", first, second if pair else [None] * 5, [0.0] * 5, [None] * 5]
    batch = pa.record_batch([pa.array(v, f.type) for v, f in zip(values, ROWS, strict=True)], schema=ROWS)
    found = tokenising.encode(batch, tokenising.backend_of(words, 8), False, None)
    for number, texts in enumerate(zip(first, second, strict=True)):
        expected = words(*(texts if pair else texts[:1]))
        start = 0 if not number else found["ends"][number - 1]
        assert found["input_ids"][start : found["ends"][number]].tolist() == expected["input_ids"]
        assert found["second"][number] == expected["token_type_ids"].count(0)


def test_cut_takes_the_longer_text_first(table):
    """Cut from the end, a long premise leaves no hypothesis at all."""
    found = table("nli", max_length=9)
    lengths = found.lengths(np.arange(len(found)))
    second = lengths - found.second - 1
    first = found.second - 2
    cut = lengths == 9
    assert cut.sum() > 10
    assert (first[cut] > 0).all()
    assert (second[cut] > 0).all()
    assert found.cut == cut.sum() == (table("nli").lengths(np.arange(len(found))) > 9).sum()
    assert table("nli").cut == 0


@pytest.mark.parametrize("name", ["mood", "nli", "near"])
def test_no_row_is_lost(table, toys, name):
    """Counts before and after: a filter that drops the last incomplete chunk loses rows in silence."""
    found, toy = table(name), toys[name]
    copies = 2 if toy.task.both_orders else 1
    assert len(found) == copies * toy.rows.count == copies * len(toy.columns["id"])
    ids = toy.columns["id"]
    assert found.example_id.tolist() == ids + ([~i for i in ids] if copies == 2 else [])
    labels = [toy.task.labels.index(y) if toy.task.labels else y for y in toy.columns["label"]]
    assert found.label.tolist() == labels * copies


def test_chunks_are_one_table(table, monkeypatch):
    """Ends that start again at 0 with each chunk: all chunks after the first read the first one's tokens."""
    whole = table("near")
    monkeypatch.setattr(tokenising, "CHUNK", 5)
    pieces = table("near", cache=whole.input_ids.filename.parents[2] / "other")
    for name in tokenising.ARRAYS:
        np.testing.assert_array_equal(getattr(whole, name), getattr(pieces, name))


def test_a_lost_row_is_an_error(table, monkeypatch):
    """If the tokenizer ever returns fewer rows than it was given, nobody may train on the rest."""
    encode = tokenising.encode
    monkeypatch.setattr(tokenising, "encode", lambda batch, *others: encode(batch.slice(1), *others))
    with pytest.raises(RuntimeError, match="23 examples from 24 rows, expected 24"):
        table("mood")


def test_built_once(table, monkeypatch):
    """A cache that is never hit tokenises millions of rows at each start."""
    first = table("mood")
    monkeypatch.setattr(tokenising, "encode", lambda *_: pytest.fail("tokenised again"))
    again = table("mood")
    assert again.fingerprint == first.fingerprint
    np.testing.assert_array_equal(again.input_ids, first.input_ids)


def test_the_tokenizer_stays_as_it_was(table, toys):
    """It remembers how it last truncated: its hash, and with it every cache, would depend on what was read before."""
    fresh = train_tokenizer(toys["near"].columns["first"], 40)
    before = tokenizer_fingerprint(fresh)
    table("near", tokenizer=fresh, max_length=8)
    assert tokenizer_fingerprint(fresh) == before
    assert len(fresh("the " * 20)["input_ids"]) >= 22


def test_memory_mapped(table):
    """Tables in memory, one per process, are what stops large data."""
    found = table("mood")
    assert all(isinstance(getattr(found, name), np.memmap) for name in tokenising.ARRAYS)
    found.release()
    assert row(found, 0) == row(table("mood"), 0)


@pytest.fixture
def changes(write_rows, toys):
    """Return what a table depends on, each in another value."""
    toy = toys["near"]
    fewer = {name: values[1:] for name, values in toy.columns.items()}
    relabelled = {**toy.columns, "label": [6 - y for y in toy.columns["label"]]}
    return {
        "tokenizer": {"tokenizer": train_tokenizer(toy.columns["first"], 40)},
        "max_length": {"max_length": 31},
        "both_orders": {"both_orders": False},
        "rows": {"rows": write_rows("fewer", toy.task, fewer)},
        "labels": {"rows": write_rows("relabelled", toy.task, relabelled)},
    }


@pytest.mark.parametrize("change", ["tokenizer", "max_length", "both_orders", "rows", "labels"])
def test_another_input_another_folder(table, changes, tmp_path, change):
    """Cached features reused by name: BAM's code trains on the old task set after a change."""
    one, other = table("near"), table("near", **changes[change])
    assert one.fingerprint != other.fingerprint
    assert one.input_ids.filename.parent != other.input_ids.filename.parent
    assert len([folder for folder in (tmp_path / "cache").iterdir() if folder.is_dir()]) == 2


def test_another_format_another_folder(table, monkeypatch):
    """A release that stores something else under the same key reads the old release's arrays."""
    one = table("mood")
    monkeypatch.setattr(tokenising, "FORMAT", tokenising.FORMAT + 1)
    assert table("mood").fingerprint != one.fingerprint


@pytest.mark.parametrize("array", list(tokenising.ARRAYS))
@pytest.mark.parametrize("damage", ["cut", "gone", "changed"])
def test_a_damaged_file_is_built_again(table, caplog, array, damage):
    """Half a file ends in a crash or in other texts; a token id 99999 in the place of another, in the embedding."""
    found = table("mood")
    expected = {name: np.array(getattr(found, name)) for name in tokenising.ARRAYS}
    path = getattr(found, array).filename
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-4])
    elif damage == "changed":
        path.write_bytes(np.int32(99999).tobytes() + path.read_bytes()[4:])
    else:
        path.unlink()
    again = table("mood")
    assert "is damaged: building it again" in caplog.text
    for name, values in expected.items():
        np.testing.assert_array_equal(getattr(again, name), values)


def test_a_failure_leaves_nothing(table, tmp_path, monkeypatch):
    """Half a table under its final name is a whole one to the next run."""
    monkeypatch.setattr(caching, "write_json", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        table("mood")
    assert not [path for path in (tmp_path / "cache").iterdir() if path.is_dir()]
    monkeypatch.undo()
    assert len(table("mood")) == 24


def test_another_layout_of_pairs_is_refused(table, tokenizer):
    """A tokenizer that puts the second text first: the student reads every pair the wrong way round."""
    from tokenizers import processors

    other = train_tokenizer(["the cup sees"] * 5, 40)
    ids = [(token, other.convert_tokens_to_ids(token)) for token in ("[CLS]", "[SEP]")]
    other.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $B:1 [SEP]:1 $A [SEP]", special_tokens=ids
    )
    with pytest.raises(Exception, match="does not lay out a pair as first text, second text: cannot be used"):
        table("nli", tokenizer=other)
