"""Texts as words and back: nothing is lost but the kind of space."""

import unicodedata

import numpy as np
import pyarrow as pa
import pytest

from kd_lightning.augmentation.spellings import MASKED, Spellings, TokenizedTexts
from kd_lightning.encoders.vocabulary import train_word_tokenizer

TEXTS = [
    ("it 's a charming journey ", ["it", "'s", "a", "charming", "journey"]),
    ("The dog's owner didn't pay!", ["The", "dog", "'s", "owner", "did", "n't", "pay", "!"]),
    (
        "3.5% of $1,000-strong (e.g.) U.S. p.m",
        ["3.5", "%", "of", "$", "1,000-strong", "(", "e.g.", ")", "U.S.", "p.m"],
    ),
    ("good,bad end.Start well-made , n't", ["good", ",", "bad", "end", ".", "Start", "well-made", ",", "n't"]),
    ("'hello' I'M 'tis O'Brien", ["'", "hello", "'", "I", "'M", "'", "tis", "O'Brien"]),
    ("they're y'all d'etre I'd've", ["they", "'re", "y'all", "d'etre", "I", "'d", "'ve"]),
    ("doesn 't don't-care can't.", ["doesn", "'t", "do", "n't", "-", "care", "ca", "n't", "."]),
    ("CAN'T won\u2019t it\u2019s n'tish", ["CA", "N'T", "wo", "n\u2019t", "it", "\u2019s", "n'tish"]),
    ("Mr. Ho vs. Dr. No. drams.", ["Mr.", "Ho", "vs.", "Dr.", "No", ".", "drams", "."]),
    ("well -- ``ok''... 20--30!!", ["well", "--", "``", "ok", "''", "...", "20", "--", "30", "!", "!"]),
    ("  two\t tabs\nand\u00a0no break ", ["two", "tabs", "and", "no", "break"]),
    ("na\u00efve cafe\u0301 it's\u00e9 o'M\u00e4lley", ["na\u00efve", "cafe\u0301", "it's\u00e9", "o'M\u00e4lley"]),
    ("\u6771\u4eac \U0001f600\u200d", ["\u6771\u4eac", "\U0001f600", "\u200d"]),
    ("ok\U0001f44d\U0001f3fd!", ["ok", "\U0001f44d\U0001f3fd", "!"]),
    ("cut\x1fhere\x1ethere", ["cut", "here", "there"]),
    ("", []),
]


@pytest.mark.parametrize(("text", "words"), TEXTS)
def test_words_are_nearly_those_of_the_treebank(text, words):
    """And the text comes back, its spaces as one each."""
    spellings = Spellings()
    found = spellings.read(pa.array([text]))
    assert spellings.lists(found) == [words]
    written = spellings.write(found)[0].as_py()
    assert written == " ".join(text.replace("\x1f", " ").replace("\x1e", " ").split())


def test_a_text_of_the_treebank_is_left_as_it_is():
    """SST-2 is one: of its 633,724 words all but 614 (0.1 %) stay whole."""
    text = "it 's n't `` mr. o'hara '' -- or is it ? ... 3.5 u.s. sci-fi , ca n't well-made $ 9 a.m. ; 'd ''"
    spellings = Spellings()
    found = spellings.read(pa.array([text]))
    assert spellings.lists(found) == [text.split()]
    assert not found.spaced[0]
    assert found.spaced[1:].all()


@pytest.mark.parametrize(
    ("text", "words"), [pair for pair in TEXTS if "\u6771" not in pair[0] and "\x1f" not in pair[0]]
)
def test_the_students_words_are_the_same(text, words):
    """A word that is masked or replaced is one that the student reads as one, in lower case and without accents.

    Not so Chinese characters, which BERT's normaliser sets apart, and control characters, which it drops.
    """
    found = train_word_tokenizer([text], 100).tokenize(text)
    plain = (unicodedata.normalize("NFD", word.lower().replace("\u2019", "'")) for word in words)
    assert found == ["".join(letter for letter in word if not unicodedata.combining(letter)) for word in plain]


def test_texts_come_back_in_any_selection():
    """Equal words have equal numbers; a text cut out of another one does not begin with a space."""
    spellings = Spellings()
    texts = ["a b c", "b", "c, a", "b c"]
    found = spellings.read(pa.array(texts))
    assert spellings.write(found).to_pylist() == texts
    some = TokenizedTexts(found.numbers, found.spaced, found.starts[[2, 0]], found.lengths[[2, 0]])
    assert spellings.write(some).to_pylist() == ["c, a", "a b c"]
    cut = TokenizedTexts(found.numbers, found.spaced, found.starts[:1] + 1, np.array([2]))
    assert spellings.write(cut).to_pylist() == ["b c"]
    hashes = found.hashes()
    assert len(set(hashes.tolist())) == 4
    assert cut.hashes()[0] == hashes[3]  # "b c" of "a b c" is "b c"


def test_hashes_know_the_order_and_the_spaces():
    """A bag of words would drop most variants as duplicates."""
    found = Spellings().read(pa.array(["a b", "b a", "a, b", "a , b", "a b", "a a", "a"]))
    hashes = found.hashes().tolist()
    assert len(set(hashes)) == 6
    assert hashes[0] == hashes[4]


def test_a_masked_word_is_word_0():
    """It is met in no text, and written as itself."""
    spellings = Spellings()
    found = spellings.read(pa.array(["a b"]))
    assert 0 not in found.numbers
    found.numbers[1] = 0
    assert spellings.write(found).to_pylist() == [f"a {MASKED}"]
