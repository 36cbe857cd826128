"""Compiled encoders: the filling of a batch changes nothing, and the number of graphs is bounded."""

from __future__ import annotations

import copy
import pickle
from functools import partial
from itertools import pairwise

import pytest
import torch
from torch._dynamo.testing import CompileCounter
from transformers import BertConfig, BertModel, RobertaConfig, RobertaModel

from kd_lightning.encoders import CompiledReading, NewBiLstm, TrainingWords, TransformerEncoder
from kd_lightning.encoders.compiled import can_be_compiled, padded_lengths
from kd_lightning.encoders.vocabulary import train_word_tokenizer

SIZES = {"vocab_size": 90, "hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 32, "num_hidden_layers": 2}
RATES = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "initializer_range": 0.4}
LONGEST = 100
PAD = 1


@pytest.fixture
def as_it_is():
    """Nothing is compiled: what is tested is the filling."""
    with torch.compiler.set_stance("force_eager"):
        yield


def bert(layers=2, **more):
    """Return a random BERT."""
    config = BertConfig(**{**SIZES, "num_hidden_layers": layers}, **RATES, max_position_embeddings=LONGEST)
    return TransformerEncoder(BertModel(config), **more)


def roberta():
    """Return a random RoBERTa, which counts positions by the ids of padding, and has none after the longest input."""
    config = RobertaConfig(**SIZES, **RATES, max_position_embeddings=LONGEST + PAD + 1, pad_token_id=PAD)
    return TransformerEncoder(RobertaModel(config))


def texts(*lengths):
    """Return ids, mask and types of rows of these lengths, padded to the longest."""
    mask = (torch.arange(max(lengths)) < torch.tensor(lengths).unsqueeze(1)).long()
    ids = torch.where(mask.bool(), torch.randint(5, 90, mask.shape), PAD)
    return ids, mask, mask * 0


def reading(backend="eager"):
    """Return a reading of 4 rows in training, 8 in evaluation; graphs are traced, and run as they are."""
    return CompiledReading(rows=4, evaluation_rows=8, max_length=LONGEST, pad_id=PAD, backend=backend)


@pytest.mark.parametrize("longest", [8, 32, 33, 47, 48, 64, 100, 128, 512, 8192])
def test_few_lengths_hold_all_texts(longest):
    """A bucket for each multiple of 8: 64 graphs of a model of 512 tokens, each compiled for half a minute."""
    lengths = padded_lengths(longest)
    assert lengths[-1] == longest
    assert len(lengths) <= 2 + 2 * max(0, (longest - 1).bit_length() - 5)
    assert list(lengths) == sorted(set(lengths))
    assert all(after <= 1.5 * before for before, after in pairwise(lengths))
    assert lengths[0] == min(32, longest)


@pytest.mark.parametrize("make", [bert, roberta, partial(bert, pooling="mean")], ids=["bert", "roberta", "mean"])
@pytest.mark.parametrize("lengths", [(5, 9, 3), (33, 7), (100, 99, 2, 1), (1,), (12, 4, 3, 2, 1)], ids=str)
@pytest.mark.usefixtures("as_it_is")
def test_the_filling_changes_nothing(make, lengths):
    """Texts that see padding, positions that move, gradients that are not numbers: of vectors and of weights."""
    encoder, inputs = make().train(), texts(*lengths)
    expected = encoder(*inputs)
    weights = torch.randn_like(expected)
    wanted = torch.autograd.grad((expected * weights).sum(), list(encoder.parameters()), allow_unused=True)
    found = reading().read(encoder, *inputs)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    given = torch.autograd.grad((found * weights).sum(), list(encoder.parameters()), allow_unused=True)
    for one, other in zip(given, wanted, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


def test_states_of_tokens_are_cut_like_their_texts():
    """A head over tokens that attends to the filling."""
    encoder, inputs = bert(layers=1).eval(), texts(5, 37, 3)
    expected, found = encoder.tokens(*inputs), reading().read(encoder, *inputs, tokens=True)
    real = inputs[1].bool()
    torch.testing.assert_close(found.text, expected.text)
    torch.testing.assert_close(found.tokens[real], expected.tokens[real])
    assert torch.equal(found.first, expected.first)
    assert torch.equal(found.second, expected.second)


@pytest.mark.parametrize(("training", "rows"), [(True, 4), (False, 8)])
def test_batches_have_few_shapes(training, rows):
    """The last, smaller batch of each split is a shape of its own, as are whole questions."""
    shapes = set()
    for lengths in ((3, 4), (9,) * 5, (33,) * 8, (100,)):
        filled = reading().filled(*texts(*lengths), rows)
        assert {x.shape for x in filled} == {filled[0].shape}
        assert filled[1].any(1).all(), "a row without a token"
        shapes.add((filled[0].shape[0] % rows, filled[0].shape[1]))
    assert shapes == {(0, 32), (0, 48), (0, 100)}


def test_an_epoch_of_all_lengths_compiles_once_for_each_shape():
    """A graph for each length, until PyTorch gives up, warns, and compiles no more."""
    counter = CompileCounter()
    encoder, read = bert(layers=1), reading(counter)
    for training in (True, False, True, False):
        encoder.train(training)
        for length in range(1, LONGEST + 1, 3):
            with torch.set_grad_enabled(training):
                read.read(encoder, *texts(*[length] * (1 + length % 4)))
    assert len(read.lengths) == 5
    assert counter.frame_count == 2 * 5


def test_without_the_filling_every_length_would_be_compiled():
    """What the count above is worth: the same encoder, compiled, on batches as they are."""
    counter = CompileCounter()
    torch.compiler.reset()
    compiled = torch.compile(bert(layers=1).eval(), dynamic=False, backend=counter)
    with torch.no_grad():
        for length in range(1, 4):
            compiled(*texts(length, length))
    assert counter.frame_count == 3


def test_the_encoder_stays_as_it_is():
    """Names with ``_orig_mod.`` in checkpoints; a system that cannot be copied or sent to another process."""
    encoder, read = bert(layers=1).eval(), reading()
    names = list(encoder.state_dict())
    found = read.read(encoder, *(inputs := texts(4, 6)))
    assert list(encoder.state_dict()) == names
    other, again = pickle.loads(pickle.dumps((copy.deepcopy(encoder), read)))
    torch.testing.assert_close(again.read(other, *inputs), found)


def test_an_lstm_is_not_compiled():
    """PyTorch breaks its graph there, and again for each length that the encoder asks the data for."""
    words = NewBiLstm(words=TrainingWords(size=8), hidden_size=4).build(train_word_tokenizer(["one two"], 10))
    assert not can_be_compiled(words)
    assert can_be_compiled(bert())
