"""Texts as words and back: nothing is lost but the kind of space."""

import numpy as np
import pyarrow as pa
import pytest

from kd_lightning.augmentation.words import MASKED, Spellings, TokenizedTexts


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("it 's a charming journey ", ["it", "'s", "a", "charming", "journey"]),
        (
            "The dog's owner didn't pay 3.5% (e.g.)!",
            ["The", "dog's", "owner", "didn't", "pay", "3.5", "%", *"(", "e.g", *".)!"],
        ),
        ("well-made , n't", ["well-made", ",", "n't"]),
        ("'hello'", ["'", "hello", "'"]),
        ("  two\t tabs\nand\u00a0no break ", ["two", "tabs", "and", "no", "break"]),
        ("na\u00efve cafe\u0301 \u6771\u4eac", ["na\u00efve", "cafe\u0301", "\u6771\u4eac"]),
        ("It\u2019s \U0001f600\u200d", ["It\u2019s", "\U0001f600", "\u200d"]),
        ("cut\x1fhere", ["cut", "here"]),
    ],
)
def test_words_stand_between_spaces_and_punctuation(text, words):
    """And the text comes back, its spaces as one each."""
    spellings = Spellings()
    found = spellings.read(pa.array([text]))
    assert spellings.lists(found) == [words]
    written = spellings.write(found)[0].as_py()
    assert written == " ".join(text.replace("\x1f", " ").split())


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
