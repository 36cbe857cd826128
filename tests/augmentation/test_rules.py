"""Masking, replacement, n-grams: what the paper says, word by word, against the arrays; rates; what depends on what."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import zipfile
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest

from kd_lightning.augmentation import MASKED, RuleAugmenter, rule_augmenter, tagging
from kd_lightning.augmentation.draws import combined, uniform
from kd_lightning.augmentation.replacement import TaggedWords
from kd_lightning.augmentation.rules import NGRAM_LENGTH, NGRAM_START, OTHER_WORD, TAKE_NGRAM, WORD_RULE
from kd_lightning.augmentation.spellings import Spellings
from kd_lightning.data.reading.reader import ROWS
from kd_lightning.errors import UserError


class Texts:
    """Rows in memory."""

    def __init__(self, texts, ids=None):
        """Take texts, or pairs of texts."""
        pairs = [text if isinstance(text, tuple) else (text, None) for text in texts]
        ids = list(range(len(pairs))) if ids is None else ids
        columns = [ids, [f"r{i}" for i in ids], *(list(side) for side in zip(*pairs, strict=True)), [0.0] * len(pairs)]
        columns.append([None] * len(pairs))
        self.table = pa.Table.from_arrays(
            [pa.array(c, f.type) for c, f in zip(columns, ROWS, strict=True)], schema=ROWS
        )
        self.count = len(pairs)

    def batches(self, size=10_000):
        """Yield the rows."""
        return iter(self.table.combine_chunks().to_batches(max_chunksize=size))


class Tagger:
    """Words of one letter, and others."""

    def tag(self, words):
        """Return (word, tag) for each word."""
        return [(word, "LETTER" if len(word) == 1 else "LONG") for word in words]


@pytest.fixture
def tagger(monkeypatch):
    """Tag without NLTK."""
    monkeypatch.setattr(tagging, "load_tagger", Tagger)
    monkeypatch.setattr(rule_augmenter, "tagger_fingerprint", lambda: "letters")


def variants(texts, **settings) -> list[tuple]:
    """Return (row id, first text, second text) of the synthetic rows."""
    rows = texts if isinstance(texts, Texts) else Texts(texts)
    table = pa.Table.from_batches(RuleAugmenter(**settings).augment(rows, "test"), ROWS)
    assert table["example_id"].to_pylist() == list(range(len(table)))
    assert np.isnan(table["label"].to_numpy()).all()
    return list(zip(*(table[name].to_pylist() for name in ("row_id", "text_a", "text_b")), strict=True))


def draw(*keys) -> float:
    """Return one random number."""
    return float(uniform(*keys)[0])


def by_the_paper(texts, *, p_mask=0.1, p_pos=0.1, p_ng=0.25, max_ngram=5, n_iter=20, seed=1) -> list[tuple]:
    """Return what the paper describes, one word after the other, with the same random numbers."""
    rows = [text if isinstance(text, tuple) else (text,) for text in texts]
    tagged = [(tag, word) for row in rows for text in row for word, tag in Tagger().tag(text.split())]
    met, found = set(rows), []
    alphabet = sorted({word for _, word in tagged})
    for example, row in enumerate(rows):
        for k in range(n_iter):
            written = []
            for side, text in enumerate(row):
                words, keys = text.split(), combined(seed, example, k, side)
                if len(row) == 1 or k % 3 in (side, 2):
                    new = []
                    for place, (word, tag) in enumerate(Tagger().tag(words)):
                        rule = draw(keys, place, WORD_RULE)
                        if rule < p_mask:
                            word = MASKED
                        elif rule < p_mask + p_pos:
                            others = Counter(w for t, w in tagged if t == tag and w != word)
                            urn = [w for w in alphabet for _ in range(others[w])]
                            word = urn[int(draw(keys, place, OTHER_WORD) * len(urn))] if urn else word
                        new.append(word)
                    if draw(keys, TAKE_NGRAM) < p_ng:
                        length = min(1 + int(draw(keys, NGRAM_LENGTH) * max_ngram), len(words))
                        start = int(draw(keys, NGRAM_START) * (len(words) - length + 1))
                        new = new[start : start + length]
                    words = new
                written.append(" ".join(words))
            if tuple(written) not in met:
                met.add(tuple(written))
                found.append((f"r{example}.{k}", *written, *([None] if len(row) == 1 else [])))
    return found


SINGLES = ["a b c d e f g h", "one two a b", "x", "a b c", "two one two one", "only"]
PAIRS = [("a b c d", "one two three a"), ("x y z", "x"), ("b", "two c d e f g"), ("a b", "c d")]


@pytest.mark.parametrize("texts", [SINGLES, PAIRS], ids=["singles", "pairs"])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"p_pos": 0.0, "p_ng": 0.0, "p_mask": 0.5},
        {"p_mask": 0.0, "p_ng": 0.0, "p_pos": 1.0},
        {"p_mask": 0.0, "p_pos": 0.0, "p_ng": 1.0, "max_ngram": 3},
        {"p_mask": 0.3, "p_pos": 0.4, "p_ng": 0.5, "n_iter": 7, "seed": 5},
    ],
    ids=["paper", "masking", "replacement", "ngrams", "much"],
)
def test_it_is_what_the_paper_describes(tagger, texts, settings):
    """A plain version, word by word; the same random numbers."""
    assert variants(texts, **settings) == by_the_paper(texts, **settings)


def test_pairs_change_in_turn(tagger):
    """First, second, both."""
    for row, first, second in variants([("a b c d", "e f g h")], p_mask=0.6, p_pos=0.0, p_ng=0.0, n_iter=30):
        changed = (first != "a b c d", second != "e f g h")
        assert (
            changed
            in {0: [(True, False)], 1: [(False, True)], 2: [(True, True), (True, False), (False, True)]}[
                int(row.partition(".")[2]) % 3
            ]
        )


def test_rates_are_the_papers(tagger, monkeypatch):
    """A tenth masked, a tenth replaced, never both; a quarter of the texts are n-grams, each length as often."""
    monkeypatch.setattr(rule_augmenter.Distinct, "first_met", lambda self, rows: np.ones(len(rows), bool))
    text = " ".join("abcdefghij")
    words = [row[1].split() for row in variants([text] * 2000, n_iter=5)]
    whole = [found for found in words if len(found) == 10]
    assert 1 - len(whole) / 10_000 == pytest.approx(0.25, abs=0.015)
    flat = [(new, old) for found in whole for new, old in zip(found, text.split(), strict=True)]
    assert sum(new == MASKED for new, _ in flat) / len(flat) == pytest.approx(0.1, abs=0.005)
    replaced = [new for new, old in flat if new not in (old, MASKED)]
    assert len(replaced) / len(flat) == pytest.approx(0.1, abs=0.005)
    assert max(Counter(replaced).values()) < 1.2 * min(Counter(replaced).values())
    lengths = Counter(len(found) for found in words if len(found) < 10)
    assert sorted(lengths) == [1, 2, 3, 4, 5]
    assert max(lengths.values()) < 1.25 * min(lengths.values())


def test_replacements_are_drawn_as_often_as_they_occur():
    """Exactly, without the word itself; where it is alone with its tag, it stays."""
    counts = {"a": 5, "b": 3, "c": 2}
    keys = Counter({(1 << 32) | number: count for number, count in enumerate(counts.values())})
    keys[(2 << 32) | 1] = 9
    tagged = TaggedWords(keys, np.array([2, 0, 1]), np.arange(3))
    for word in range(3):
        others = 10 - list(counts.values())[word]
        grid = (np.arange(others) + 0.5) / others
        found = tagged.others(np.full(others, 1, np.uint8), np.full(others, word, np.int32), grid)
        assert Counter(found.tolist()) == {n: c for n, c in enumerate(counts.values()) if n != word}
    assert tagged.others(np.array([2], np.uint8), np.array([1], np.int32), np.array([0.9])).tolist() == [1]


def test_a_word_in_another_case_is_no_other_word():
    """``The`` in the place of ``the`` changes nothing for most models; both are drawn for a third word."""
    spellings = Spellings()
    spellings.read(pa.array(["the The cup it\u2019s it's CUP bowl"]))
    names = ["the", "The", "cup", "\u2019s", "'s", "CUP", "bowl"]
    found = [spellings.read(pa.array([name])).numbers[0] for name in names]
    tagged = TaggedWords(Counter({(1 << 32) | int(number): 2 for number in found}), *spellings.ranks())
    grid = (np.arange(10) + 0.5) / 10
    for name, number in zip(names, found, strict=True):
        drawn = tagged.others(np.full(10, 1, np.uint8), np.full(10, number, np.int32), grid)
        kin = {
            other
            for other in names
            if other.casefold().replace("\u2019", "'") == name.casefold().replace("\u2019", "'")
        }
        expected = Counter({n: 2 for n, other in zip(found, names, strict=True) if other not in kin})
        if name != "bowl":
            assert Counter(drawn.tolist()) == expected


def test_the_tagger_reads_what_the_treebank_writes(monkeypatch):
    """Quotation marks of other kinds and curly apostrophes, which it never met, would be nouns to it."""
    seen = []

    class Reader:
        """Remembers what it was shown."""

        def tag(self, words):
            """Find nouns."""
            seen.extend(words)
            return [(word, "NN") for word in words]

    monkeypatch.setattr(tagging, "load_tagger", Reader)
    assert tagging.tags_of([["\u201c", "it", "\u2019s", "\u201d"], ['"', "do", "n\u2019t"]]) == ["NN"] * 7
    assert seen == ["``", "it", "'s", "''", "''", "do", "n't"]


def test_no_punctuation_takes_the_place_of_a_word(monkeypatch):
    """A tagger takes what it never met for a noun: nouns would become dashes, and dashes nouns."""
    noun = type("Noun", (), {"tag": lambda self, words: [(word, "NN") for word in words]})
    monkeypatch.setattr(tagging, "load_tagger", noun)
    monkeypatch.setattr(rule_augmenter, "tagger_fingerprint", lambda: "nouns")
    for _, text, _ in variants(['a "b" (c) ?', 'd , e ; "f" !'], p_mask=0.0, p_ng=0.0, p_pos=1.0, n_iter=40):
        kinds = "".join("w" if letter.isalnum() else "." for letter in text.replace(" ", ""))
        assert kinds == "w.w..w.."


def test_what_replaces_a_clitic_stands_apart(tagger):
    """``do`` and ``n't`` are two words; ``donever`` is none."""
    found = {text for _, text, _ in variants(["I don't", "we never"], p_mask=0.0, p_ng=0.0, p_pos=0.5, n_iter=60)}
    assert "I do never" in found
    assert not [text for text in found if "donever" in text or "dowe" in text]


def test_spaces_stay_natural(monkeypatch):
    """No space after a bracket or before a clitic, whatever stands there instead."""
    noun = type("Noun", (), {"tag": lambda self, words: [(word, "NN") for word in words]})
    monkeypatch.setattr(tagging, "load_tagger", noun)
    monkeypatch.setattr(rule_augmenter, "tagger_fingerprint", lambda: "nouns")
    texts = ["(old) it's", "we've $10"]
    found = [text for _, text, _ in variants(texts, p_mask=0.0, p_ng=0.0, p_pos=0.5, n_iter=300)]
    assert not [text for text in found if re.match(r"\W ", text) or re.search(r"\w '(?:s|ve)$", text)]
    assert {"(we) it's", "(old) it've"} <= set(found)


def test_a_word_alone_with_its_tag_stays_as_it_is(monkeypatch):
    """No space either: such a text would be no variant, though it looks like one."""
    alone = type("Alone", (), {"tag": lambda self, words: [(word, word) for word in words]})
    monkeypatch.setattr(tagging, "load_tagger", alone)
    monkeypatch.setattr(rule_augmenter, "tagger_fingerprint", lambda: "alone")
    assert variants(["I don't go", "good, bad (old)"], p_mask=0.0, p_ng=0.0, p_pos=1.0) == []


@pytest.mark.parametrize("texts", [[*SINGLES * 3, "b a", "e f g"], PAIRS * 5], ids=["singles", "pairs"])
def test_nothing_depends_on_the_batches(tagger, monkeypatch, texts):
    """Two rows at a time, or all; chunks by words, or by rows: other words are met first."""
    texts = Texts(texts, ids=list(range(40, 60)))
    whole = variants(texts, p_pos=0.5)
    for name, value in (("CHUNK", 2), ("CHUNK", 3), ("CHUNK_WORDS", 300)):
        with monkeypatch.context() as patch:
            patch.setattr(rule_augmenter, name, value)
            assert variants(texts, p_pos=0.5) == whole


def test_the_random_numbers_of_a_row_follow_from_its_id():
    """Wherever it stands, whatever stands beside it: without replacement, seed and id decide."""
    settings = {"p_pos": 0.0, "n_iter": 8}
    alone = variants(Texts(["k l m n o p"], ids=[7]), **settings)
    among = variants(Texts(["q r s t", "k l m n o p", "u v w"], ids=[3, 7, 9]), **settings)
    assert [row for row in among if row[0].startswith("r7.")] == alone
    assert variants(Texts(["k l m n o p"], ids=[8]), **settings) != alone
    assert variants(Texts(["k l m n o p"], ids=[7]), **settings, seed=2) != alone


def test_no_variant_is_an_example_or_twice(tagger):
    """Over examples, too: "a b" is an n-gram of two of them, and stands among them."""
    texts = ["a b c", "a b d", "a b", "a b c"]
    found = [row[1] for row in variants(texts, p_mask=0.0, p_pos=0.0, p_ng=1.0, n_iter=50)]
    assert len(set(found)) == len(found)
    assert set(found) == {"a", "b", "c", "d", "b c", "b d"}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"p_mask": 1.5}, "p_mask is 1.5, expected a probability"),
        ({"p_mask": 0.6, "p_pos": 0.5}, "p_mask \\+ p_pos is 1.1, expected at most 1"),
        ({"p_mask": 0.0, "p_pos": 0.0, "p_ng": 0.0}, "nothing would change"),
        ({"n_iter": 0}, "n_iter is 0, expected a whole number of at least 1"),
        ({"n_iter": 2.5}, "n_iter is 2.5, expected a whole number"),
        ({"seed": 1.7}, "seed is 1.7, expected a whole number"),
        ({"seed": 2**63}, "seed is 9223372036854775808, expected a whole number below 9223372036854775808"),
        ({"max_ngram": 0}, "max_ngram is 0, expected a whole number of at least 1"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        RuleAugmenter(**settings)


GOLDEN_SINGLES = [
    "The cat doesn't like cats -- at all!",
    '"A \u201cfine\u201d film", said Mr. Smith (twice) ...',
    "It's 3.5% of the U.S. market, isn\u2019t it?",
    "no  spaces ,only commas",
    "caf\u00e9 \U0001f44d\U0001f3fd \u7535\u5f71",
    "x",
]
GOLDEN_PAIRS = [("a b c d, e", "The the THE two"), ("can't stop", "won't \u2014 stop"), ("x", "y z")]


@pytest.mark.parametrize(
    ("texts", "expected"),
    [(GOLDEN_SINGLES, "d982a3e201c96113"), (GOLDEN_PAIRS, "34c387fc7403aaa4")],
    ids=["singles", "pairs"],
)
def test_other_texts_need_another_version(tagger, texts, expected):
    """Texts under the address of others: the soft targets of a text that is no longer there."""
    written = json.dumps(variants(texts, p_mask=0.2, p_pos=0.3, p_ng=0.3), ensure_ascii=True)
    found = hashlib.sha256(written.encode()).hexdigest()[:16]
    why = "the same settings give other texts: raise rule_augmenter.VERSION, and only then write the new hash here"
    assert (rule_augmenter.VERSION, found) == (4, expected), why


def test_no_rows_have_no_variants():
    """The end of an iterator within a generator is a traceback of Python's."""
    assert list(RuleAugmenter().augment(SimpleNamespace(count=0), "test")) == []


def test_a_text_without_words_has_no_variants():
    """A pair with one side of control characters: half of it can still change."""
    texts = [("one two three", "\x7f"), ("four five six", "seven")]
    found = variants(texts, p_pos=0.0, p_mask=0.5)
    assert {row.partition(".")[0] for row, *_ in found} == {"r1"}
    assert all(first and second for _, first, second in found)


def test_the_fingerprint_is_of_the_settings_and_the_tagger(tagger, monkeypatch):
    first, masking = RuleAugmenter().fingerprint(), RuleAugmenter(p_pos=0.0).fingerprint()
    assert first == RuleAugmenter(n_iter=20).fingerprint()
    assert masking == RuleAugmenter(p_pos=0).fingerprint()
    assert first != RuleAugmenter(seed=2).fingerprint()
    monkeypatch.setattr(rule_augmenter, "tagger_fingerprint", lambda: "a newer one")
    assert first != RuleAugmenter().fingerprint()
    assert masking == RuleAugmenter(p_pos=0.0).fingerprint()
    monkeypatch.setattr(rule_augmenter, "VERSION", 0)
    assert masking != RuleAugmenter(p_pos=0.0).fingerprint(), "texts of other code, under the same address"


def test_what_is_absent_is_told(monkeypatch):
    """The package, or its data; masks and n-grams need neither."""
    tagging.load_tagger.cache_clear()
    nltk = pytest.importorskip("nltk")
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "nltk", None)
        with pytest.raises(
            UserError, match=r"needs NLTK: in the checkout, pip install -e '.\[augment\]' .*or set augmenter.p_pos=0"
        ):
            variants(["a b"])
        assert variants(["a b"], p_pos=0.0)
    monkeypatch.setattr(nltk.data, "path", [])
    with pytest.raises(
        UserError, match=r"tagger's data is absent: expected .* in one of its folders or in \$NLTK_DATA"
    ):
        variants(["a b"])


@pytest.mark.parametrize("found", ["folder", "zip"])
def test_damaged_data_of_the_tagger_is_told(monkeypatch, tmp_path, found):
    """A folder without its files, and what NLTK's downloader leaves where nothing unzips."""
    tagging.load_tagger.cache_clear()
    nltk = pytest.importorskip("nltk")
    monkeypatch.setattr(nltk.data, "path", [str(tmp_path)])
    name = "averaged_perceptron_tagger_eng"
    if found == "folder":
        (tmp_path / "taggers" / name).mkdir(parents=True)
    else:
        (tmp_path / "taggers").mkdir()
        with zipfile.ZipFile(tmp_path / "taggers" / f"{name}.zip", "w") as archive:
            archive.writestr(f"{name}/", "")
            archive.writestr(f"{name}/{name}.weights.json", "{}")
    with pytest.raises(UserError, match=rf"{name}.*: expected a folder with {name}.weights.json, .*; unzip what is"):
        RuleAugmenter().fingerprint()


def test_a_cut_file_of_the_tagger_is_told(monkeypatch, tmp_path):
    """As a download that was broken off leaves it."""
    monkeypatch.setattr(tagging, "tagger_data", lambda: tmp_path)
    perceptron = pytest.importorskip("nltk.tag.perceptron")
    monkeypatch.setattr(perceptron, "PerceptronTagger", lambda: json.loads('{"weig'))
    tagging.load_tagger.cache_clear()
    with pytest.raises(UserError, match=r"is damaged \(JSONDecodeError: .*\); python -m nltk.downloader"):
        tagging.load_tagger()


def test_the_fingerprint_of_the_tagger_is_of_its_three_files(monkeypatch, tmp_path):
    """Other weights give other tags; a file manager's litter does not, and would have all texts written anew."""
    pytest.importorskip("nltk")
    monkeypatch.setattr(tagging, "tagger_data", lambda: tmp_path)
    files = [tmp_path / f"{tagging.TAGGER}.{part}.json" for part in tagging.PARTS]
    for path in files:
        path.write_text("{}")
    first = tagging.tagger_fingerprint()
    (tmp_path / ".ipynb_checkpoints").mkdir()
    (tmp_path / "README").write_text("of the tagger")
    assert tagging.tagger_fingerprint() == first
    for path in files:
        path.write_text('{"": 1}')
        assert tagging.tagger_fingerprint() != first
        path.write_text("{}")


@pytest.mark.slow
def test_the_tagger_of_many_processes_is_that_of_one(nltk_data, tmp_path):
    """In its own process: the pool starts others, which begin with the program's own file."""
    program = tmp_path / "program.py"
    program.write_text(
        "from kd_lightning.augmentation.tagging import PosTagger, pos_tagger, WORDS_PER_PROCESS\n"
        "if __name__ == '__main__':\n"
        "    texts = ['the dog sees a red cup'.split(), 'it runs'.split(), ['Paris']] * 5\n"
        "    with pos_tagger(2 * WORDS_PER_PROCESS) as many:\n"
        "        assert many.pool is None or many.workers == 2\n"
        "        found = many(texts)\n"
        "    assert found == PosTagger(None, 1)(texts)\n"
        "    print(*found[:6])\n"
    )
    environment = {**os.environ, "NLTK_DATA": str(nltk_data)}
    done = subprocess.run([sys.executable, program], env=environment, capture_output=True, text=True, check=False)
    assert done.stdout == "DT NN VBZ DT JJ NN\n", done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_no_process_outlives_the_command(nltk_data, tmp_path, how):
    """Taggers of 260 MB each that no one waits for, and their tracebacks after Ctrl-C."""
    program = tmp_path / "program.py"
    program.write_text(
        "import multiprocessing, os, signal, time\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # ignored where tests run in the background
        "os.sched_getaffinity = lambda _: {0, 1}\n"
        "from kd_lightning.augmentation.tagging import pos_tagger, WORDS_PER_PROCESS\n"
        "if __name__ == '__main__':\n"
        "    with pos_tagger(2 * WORDS_PER_PROCESS) as tagger:\n"
        "        tagger([['it', 'runs']] * 2)\n"
        "        print(*(child.pid for child in multiprocessing.active_children()), flush=True)\n"
        "        time.sleep(60)\n"
    )
    environment = {**os.environ, "NLTK_DATA": str(nltk_data)}
    with subprocess.Popen(
        [sys.executable, program],
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    ) as running:
        assert running.stdout is not None
        assert len(running.stdout.readline().split()) == 2
        if how == signal.SIGINT:
            os.killpg(running.pid, how)  # as a terminal sends it
        else:
            running.send_signal(how)
        _, errors = running.communicate(timeout=60)  # which waits until no process holds the other ends
    assert "SpawnProcess" not in errors
    assert ("KeyboardInterrupt" in errors) == (how == signal.SIGINT)
