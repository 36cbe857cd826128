"""What a BiLSTM reads: words with vectors of a file, or the pieces and vectors of a pre-trained model."""

from __future__ import annotations

import logging

import pytest
import torch
from transformers import BertConfig, BertModel

from kd_lightning.encoders import (
    NewBiLstm,
    PretrainedTransformer,
    TrainingWords,
    WordPieces,
    train_tokenizer,
    vector_file,
)
from kd_lightning.encoders import words as words_module
from kd_lightning.encoders.vector_file import read_vectors
from kd_lightning.errors import UserError

TEXTS = ["the red cup", "the cup sees"]


@pytest.fixture
def glove(tmp_path):
    """Write a file of vectors, by default one in GloVe's layout."""

    def write(content: str | bytes = "the 1 2\nnew york 3 4\ncup -5e-1 .5\n"):
        path = tmp_path / "vectors.txt"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


def test_words_of_the_file_have_its_vectors(glove):
    """The others start at random, padding is 0, and the size is the file's."""
    words = TrainingWords(size=300, vectors_file=str(glove()))
    tokenizer = words.tokenizer(TEXTS)
    vectors, numbers = words.vectors(tokenizer), tokenizer.get_vocab()
    assert vectors.shape == (len(tokenizer), 2)
    assert vectors[numbers["the"]].tolist() == [1, 2]
    assert vectors[numbers["cup"]].tolist() == [-0.5, 0.5]
    assert vectors[tokenizer.pad_token_id].tolist() == [0, 0]
    others = vectors[[numbers["red"], numbers["sees"], tokenizer.unk_token_id]]
    assert 0 < others.abs().min() <= others.abs().max() <= 0.25
    assert len(others.unique()) == 6


@pytest.mark.parametrize(
    "content",
    ["2 2\nthe 1 2\nin the red 3 4\n", "2 2\nthe 1 2 \nin the red 3 4 \n", "the 1 2\r\nin the red 3 4\r\n"],
    ids=["word2vec", "trailing-space", "windows"],
)
def test_both_layouts_are_read(glove, content):
    """word2vec ends its lines with a space; GloVe has words with spaces, and some at which Python would split."""
    size, found = read_vectors(glove(content), ["the", "in the red", "absent", "\x85"])
    assert size == 2
    assert {word: vector.tolist() for word, vector in found.items()} == {"the": [1, 2], "in the red": [3, 4]}
    assert read_vectors(glove("\ufeffthe 1 2\n"), ["the"])[1]["the"].tolist() == [1, 2]
    assert read_vectors(glove("the 1 2\n\x85 3 4\n"), ["\x85"])[1]["\x85"].tolist() == [3, 4]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("the 1 2\ncup 1\n", r"line 2: found 'cup 1', expected a word and 2 numbers in text"),
        ("the 1 2\ncup 1 2 3\n", r"line 2: found 'cup 1 2 3', expected 2 numbers, as the file's other lines have"),
        ("2 1\nthe 1 2\ncup 3 4\n", r"line 2: found 'the 1 2', expected 1 numbers, as the file's other lines have"),
        ("the 1 2\ncup 1 x\n", r"line 2: found 'x', expected 2 numbers after the word"),
        ("the 1 2\ncup 1 nan\n", r"line 2: found 'nan', expected finite numbers"),
        ("the\t1\t2\n", r"line 1: found 'the\\t1\\t2', expected a word and its numbers"),
        (b"\x1f\x8b\x08\x00", r"is compressed: unpack it first"),
        ("the 1 2\nthe 3 4\n", r"line 2: found 'the 3 4', expected each word once"),
        ("the 1 2\nthe  3 4\n", r"line 2: found 'the 3 4', expected a word and 2 numbers in text, with one space"),
        ("the\n", r"line 1: found 'the', expected a word and its numbers"),
        ("", r"found no vectors, expected"),
        ("3 2\nthe 1 2\ncup 3 4\n", r"found 2 vectors, expected 3 by its first line; is the file cut off\?"),
        (b"3 2\nthe \x00\x01\x02\x03\ncup \x00\n", r"line 2: found 'the .*expected a word and 2 numbers in text"),
    ],
)
def test_a_file_that_does_not_fit_is_told(glove, content, message):
    """The line, what was found, what was expected."""
    with pytest.raises(UserError, match=rf"vectors\.txt[,: ].*{message}"):
        read_vectors(glove(content), ["the", "cup"])


def test_a_line_without_an_end_is_told(glove, monkeypatch):
    """A file of another kind may have no line break in gigabytes: no more than a piece of it is ever read."""
    monkeypatch.setattr(vector_file, "LONGEST", 8)
    with pytest.raises(UserError, match=r"line 2: found '\?{8}', expected a word and 2 numbers"):
        read_vectors(glove("the 1 2\n" + 50 * "?"), ["the", "cup"])


def test_a_file_is_read_once(glove, monkeypatch):
    """By the student, its baseline and the check before them; a file that is written anew is read again."""
    path, reads = glove("the 1 2\ncup 3 4\n"), []
    monkeypatch.setattr(words_module, "read_vectors", lambda *asked: reads.append(1) or read_vectors(*asked))
    words = TrainingWords(vectors_file=str(path))
    tokenizer = words.tokenizer(TEXTS)
    number = tokenizer.get_vocab()["cup"]
    assert words.vectors(tokenizer)[number].tolist() == words.vectors(tokenizer)[number].tolist() == [3, 4]
    assert len(reads) == 1
    path.write_text("the 1 2\ncup 3 456\n")
    assert words.vectors(tokenizer)[number].tolist() == [3, 456]


def test_a_file_with_few_of_the_words_is_told(glove, caplog):
    """Most words at random is no mistake that stops a run, and none that should pass unseen."""
    caplog.set_level(logging.INFO)
    for content, level in (("the 1 2\n", "WARNING"), ("the 1 2\ncup 3 4\nred 5 6\n", "INFO")):
        words = TrainingWords(vectors_file=str(glove(content)), vocab_size=6)
        words.vectors(words.tokenizer(TEXTS))
        assert caplog.records[-1].levelname == level
    assert caplog.messages[-1].endswith("vectors for 3 of 4 words, the others start at random")


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"vocab_size": 2}, "vocab_size is 2, expected at least 3"), ({"size": 0}, "size is 0, expected at least 1")],
)
def test_sizes_out_of_range_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        TrainingWords(**settings)


def test_a_file_of_other_words_is_told(glove, tmp_path):
    """Vectors of another language, or in capitals, would leave all words at random, and nobody would notice."""
    words = TrainingWords(vectors_file=str(glove("THE 1 2\nCUP 3 4\n")))
    tokenizer = words.tokenizer(TEXTS)
    with pytest.raises(UserError, match=r"found none of the words \(cup, the, red, \.\.\.\)"):
        words.vectors(tokenizer)
    with pytest.raises(UserError, match=r"absent\.txt: No such file.*expected a text file of word vectors"):
        TrainingWords(vectors_file=str(tmp_path / "absent.txt")).fingerprint()


def test_the_fingerprint_is_of_the_content(glove, tmp_path):
    """Two paths of one file are one recipe, another content is another."""
    first = TrainingWords(vectors_file=str(glove())).fingerprint()
    copy = tmp_path / "copy.txt"
    copy.write_bytes(glove().read_bytes())
    assert TrainingWords(vectors_file=str(copy)).fingerprint() == first
    copy.write_text("the 1 2\n")
    assert TrainingWords(vectors_file=str(copy)).fingerprint() != first != TrainingWords().fingerprint()


@pytest.fixture
def bert(tmp_path):
    """Write a tiny BERT with its tokenizer."""
    tokenizer = train_tokenizer(TEXTS, 40)
    sizes = {"hidden_size": 8, "num_attention_heads": 2, "num_hidden_layers": 1, "intermediate_size": 8}
    model = BertModel(BertConfig(vocab_size=len(tokenizer), **sizes))
    model.save_pretrained(tmp_path / "bert")
    tokenizer.save_pretrained(tmp_path / "bert")
    return tmp_path / "bert", tokenizer, model


def test_word_pieces_are_the_models(bert):
    """Its ids and its vectors; nothing around or between the texts, and a masked word is an unknown one."""
    path, own, model = bert
    words = WordPieces(model=str(path))
    tokenizer = words.tokenizer(["not looked at"])
    torch.testing.assert_close(words.vectors(tokenizer), model.get_input_embeddings().weight.detach())
    found, expected = tokenizer("the cup", "red"), own("the cup", "red")
    around = (own.cls_token_id, own.sep_token_id)
    assert found["input_ids"] == [number for number in expected["input_ids"] if number not in around]
    assert found["token_type_ids"] == [0, 0, 1]
    assert own.mask_token == "[MASK]"
    assert tokenizer.mask_token is None
    assert WordPieces(model=str(path), size=5).vectors(tokenizer).shape == (len(own), 5)


def test_a_model_of_word_pieces_is_loaded_once(bert, monkeypatch):
    """Check, student and baseline begin with the same vectors; a model of 1.3 GB is not read for each of them."""
    path, _, model = bert
    loaded = []
    load = PretrainedTransformer.build
    monkeypatch.setattr(PretrainedTransformer, "build", lambda self, t: loaded.append(self.path) or load(self, t))
    for _ in range(3):
        words = WordPieces(model=str(path))
        found = words.vectors(words.tokenizer([]))
    assert len(loaded) == 1
    torch.testing.assert_close(found, model.get_input_embeddings().weight.detach())
    with torch.no_grad():
        model.get_input_embeddings().weight.mul_(2)
    model.save_pretrained(path)
    words = WordPieces(model=str(path))
    torch.testing.assert_close(words.vectors(words.tokenizer([])), 2 * found)


def test_a_student_of_word_pieces_comes_back(bert, tmp_path):
    """The tokenizer's layout and the vectors are of the saved folder, wherever the model has gone."""
    path, _, _ = bert
    recipe = NewBiLstm(words=WordPieces(model=str(path)), hidden_size=3, channels="both")
    tokenizer = recipe.tokenizer([])
    encoder = recipe.build(tokenizer)
    encoder.save(tmp_path / "saved")
    tokenizer.save_pretrained(tmp_path / "saved")
    again = recipe.saved(tmp_path / "saved")
    batch = again.tokenizer([])(["the cup", "red"], padding=True, return_tensors="pt")
    torch.testing.assert_close(again.build(tokenizer)(**batch), encoder(**batch))
    assert again.tokenizer([])("the cup", "red") == tokenizer("the cup", "red")
    assert encoder.embedding.output_dim == 16
    assert recipe.fingerprint() != NewBiLstm(words=WordPieces(model=str(path), size=8), hidden_size=3).fingerprint()
