"""Transformers: cutting keeps the first layers, padding changes nothing, what is saved comes back."""

from __future__ import annotations

import copy
import shutil
from dataclasses import replace
from functools import partial

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertModel, DistilBertConfig, DistilBertModel

from kd_lightning.encoders import NewTransformer, PretrainedTransformer, TransformerEncoder, load_tokenizer
from kd_lightning.encoders.vocabulary import tokenizer_fingerprint, train_tokenizer
from kd_lightning.errors import UserError

SIZES = {"vocab_size": 40, "hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 32}


def bert(layers: int = 4, **more) -> BertModel:
    """Return a random BERT whose output depends on every layer."""
    pooler = more.pop("pooler", True)
    config = BertConfig(**SIZES, num_hidden_layers=layers, max_position_embeddings=16, initializer_range=0.4, **more)
    return BertModel(config, add_pooling_layer=pooler).eval()


def distilbert(layers: int = 3) -> DistilBertModel:
    """Return a random DistilBERT: no pooler, no token types, other names."""
    config = DistilBertConfig(
        vocab_size=40, dim=16, n_heads=2, hidden_dim=32, n_layers=layers, max_position_embeddings=16
    )
    return DistilBertModel(config).eval()


def inputs(rows: int = 3, length: int = 7) -> dict[str, torch.Tensor]:
    """Return rows of full length, with two token types."""
    ids = torch.randint(5, 40, (rows, length))
    types = (torch.arange(length) > 3).long().expand(rows, length)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "token_type_ids": types}


def padded(batch: dict[str, torch.Tensor], by: int) -> dict[str, torch.Tensor]:
    """Return the rows with padding at their ends."""
    return {name: torch.nn.functional.pad(x, (0, by)) for name, x in batch.items()}


@pytest.mark.parametrize("layers", [1, 2, 4])
def test_cut_is_a_hidden_state(layers):
    """Keeping the last layers, or every second one, starts the student from weights that never met."""
    model, batch = bert(), inputs()
    with torch.no_grad():
        states = model(**batch, output_hidden_states=True).hidden_states
        expected = model.pooler(states[layers])
        found = TransformerEncoder(copy.deepcopy(model), num_layers=layers)(**batch)
        other = model.pooler(states[layers - 1])
    torch.testing.assert_close(found, expected)
    assert not torch.allclose(found, other, atol=1e-2)


def test_cut_keeps_embeddings_and_pooler():
    """Weights drawn anew beside the layers that stay: the student is half random."""
    model = bert()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    encoder = TransformerEncoder(model, num_layers=2)
    after = encoder.model.state_dict()
    assert {name for name in before if "layer.2." not in name and "layer.3." not in name} == set(after)
    assert all(torch.equal(value, before[name]) for name, value in after.items())
    assert encoder.num_layers == encoder.model.config.num_hidden_layers == 2


@pytest.mark.parametrize("layers", [0, 5, -1])
def test_too_many_layers_are_refused(layers):
    """A "12-layer student" of a 6-layer model has 6 layers and a table that says 12."""
    with pytest.raises(UserError, match=f"encoder.num_layers is {layers}, the model has 4: choose 1 to 4"):
        TransformerEncoder(bert(), num_layers=layers)


@pytest.mark.parametrize("model", [partial(bert, pooler=False), distilbert])
def test_no_pooler_is_refused(model):
    """A pooler that is not there would be left out, or made up at random."""
    with pytest.raises(UserError, match=r"has no pooler: set encoder.pooling=first_token or mean"):
        TransformerEncoder(model(), pooling="pooler")


@pytest.mark.parametrize(
    ("model", "expected"),
    [(bert, "pooler"), (partial(bert, pooler=False), "first_token"), (distilbert, "first_token")],
)
def test_auto_takes_the_pooler_where_there_is_one(model, expected):
    """DistilBERT under BERT's setting: an error to read, and a setting to find, before the first run."""
    assert TransformerEncoder(model()).pooling == expected


def test_an_unknown_pooling_is_refused():
    """``max`` that quietly pools the first token."""
    with pytest.raises(UserError, match=r"encoder\.pooling is 'max', expected one of auto, pooler, first_token, mean"):
        TransformerEncoder(bert(), pooling="max")


def test_mean():
    """A mean over padding as well, or over all rows' longest length."""
    model, batch = bert(), inputs()
    batch["attention_mask"][1, 4:] = 0
    with torch.no_grad():
        state = model(**batch).last_hidden_state
        found = TransformerEncoder(model, pooling="mean")(**batch)
    torch.testing.assert_close(found, torch.stack([state[0].mean(0), state[1, :4].mean(0), state[2].mean(0)]))


@pytest.mark.parametrize("model", [bert, distilbert])
def test_first_token(model):
    """The mean, or the last token, under the name of the first."""
    model, batch = model(), inputs()
    types = {} if isinstance(model, DistilBertModel) else {"token_type_ids": batch["token_type_ids"]}
    with torch.no_grad():
        state = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], **types).last_hidden_state
        found = TransformerEncoder(model, pooling="first_token")(**batch)
    torch.testing.assert_close(found, state[:, 0])


@pytest.mark.parametrize("pooling", ["first_token", "mean"])
def test_no_pooler_without_need(pooling):
    """A pooler that nobody reads gets no gradient, and DDP stops at the second step."""
    names = [name for name, _ in TransformerEncoder(bert(), pooling=pooling).named_parameters()]
    assert not any("pooler" in name for name in names)


@pytest.mark.parametrize(
    ("model", "pooling"), [(bert, "pooler"), (bert, "first_token"), (bert, "mean"), (distilbert, "first_token")]
)
def test_padding_changes_nothing(model, pooling):
    """Without the mask an example's prediction depends on who else is in its batch."""
    encoder, batch = TransformerEncoder(model(), pooling=pooling), inputs()
    with torch.no_grad():
        torch.testing.assert_close(encoder(**padded(batch, 7)), encoder(**batch), rtol=1e-4, atol=1e-5)
        junk = padded(batch, 7)
        junk["input_ids"][:, 7:] = 9
        torch.testing.assert_close(encoder(**junk), encoder(**batch), rtol=1e-4, atol=1e-5)


def test_token_types_reach_bert():
    """Without them BERT reads a pair as one text."""
    encoder, batch = TransformerEncoder(bert()), inputs()
    with torch.no_grad():
        other = encoder(**{**batch, "token_type_ids": torch.zeros_like(batch["token_type_ids"])})
        assert not torch.allclose(encoder(**batch), other, atol=1e-3)


@pytest.mark.parametrize(
    ("model", "pooling", "expected"),
    [
        pytest.param(bert, "pooler", {"embeddings.word": 0, "layer.0.": 1, "layer.3.": 4, "pooler": 5}, id="bert"),
        pytest.param(distilbert, "first_token", {"embeddings.word": 0, "layer.0.": 1, "layer.2.": 3}, id="distilbert"),
    ],
)
def test_depth(model, pooling, expected):
    """A layer that is taken for the top learns at another rate, in one architecture only."""
    encoder = TransformerEncoder(model(), pooling=pooling)
    names = [name for name, _ in encoder.named_parameters()]
    for part, depth in expected.items():
        assert {encoder.depth(name) for name in names if part in name} == {depth}, part
    top = max(expected.values())
    assert {encoder.depth(name) for name in names} == set(range(top + 1))


def test_layers_beyond_nine_are_not_layer_one():
    """Layer 10 begins with "1"."""
    encoder = TransformerEncoder(bert(12))
    assert {encoder.depth(n) for n, _ in encoder.named_parameters() if "layer.10." in n} == {11}


def test_saved_comes_back(tmp_path, spec, tokenizer):
    """A folder that loads with a random pooler or without the last layer: a teacher that was never trained."""
    encoder, batch = spec.build(tokenizer).eval(), inputs()
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
        encoder.save(tmp_path)
        again = spec.saved(tmp_path).build(tokenizer).eval()
        torch.testing.assert_close(again(**batch), encoder(**batch), rtol=0, atol=0)
    assert again.state_dict().keys() == encoder.state_dict().keys()
    assert spec.saved(tmp_path).max_length == spec.max_length


def test_a_cut_encoder_is_saved_cut(tmp_path):
    """Cut twice: a 3-layer student that loads as the first 3 of 3, or not at all."""
    bert().save_pretrained(tmp_path / "teacher")
    recipe = PretrainedTransformer(path=str(tmp_path / "teacher"), num_layers=3, max_length=16)
    student, batch = recipe.build(range(40)).eval(), inputs()
    student.save(tmp_path / "student")
    again = recipe.saved(tmp_path / "student").build(range(40)).eval()
    assert again.num_layers == 3
    with torch.no_grad():
        torch.testing.assert_close(again(**batch), student(**batch), rtol=0, atol=0)


def test_fingerprint_is_the_content(tmp_path):
    """A hash of the path trains every teacher twice; one without the weights never again."""
    bert().save_pretrained(tmp_path / "one")
    shutil.copytree(tmp_path / "one", tmp_path / "moved")
    bert().save_pretrained(tmp_path / "other")
    recipe = PretrainedTransformer(path=str(tmp_path / "one"), max_length=16)
    assert replace(recipe, path=str(tmp_path / "moved")).fingerprint() == recipe.fingerprint()
    changed = [{"path": str(tmp_path / "other")}, {"num_layers": 2}, {"pooling": "first_token"}, {"max_length": 8}]
    assert len({recipe.fingerprint(), *(replace(recipe, **change).fingerprint() for change in changed)}) == 5


@pytest.mark.parametrize(
    "change",
    [{"hidden_size": 32}, {"num_layers": 3}, {"num_heads": 4}, {"vocab_size": 9}, {"max_length": 9}, {"dropout": 0.2}],
    ids=str,
)
def test_fingerprint_of_a_new_one(spec, change):
    """Two recipes under one address: the second student is the first one's."""
    assert replace(spec, **change).fingerprint() != spec.fingerprint()
    assert replace(spec).fingerprint() == spec.fingerprint()


@pytest.mark.parametrize(("rate", "said"), [(None, "null"), ("0.1", "0.1"), (1.0, "1.0"), (-0.1, "-0.1")])
def test_a_dropout_that_is_no_rate(spec, rate, said):
    """Four hundred letters of a library's own check."""
    with pytest.raises(ValueError, match=rf"^dropout is {said}, expected a number in \[0, 1\)"):
        replace(spec, dropout=rate).build(range(50))


def test_new_transformer_is_as_ordered(spec):
    """Settings that do not arrive: a "64-dimensional" student of 128."""
    encoder = NewTransformer(hidden_size=24, num_layers=3, num_heads=3, max_length=10, dropout=0.2).build(range(50))
    config = encoder.model.config
    assert (encoder.output_dim, encoder.num_layers, config.num_attention_heads) == (24, 3, 3)
    assert (config.vocab_size, config.intermediate_size) == (50, 96)
    assert {m.p for m in encoder.modules() if isinstance(m, torch.nn.Dropout)} == {0.2}


def test_new_transformer_reads_its_longest_input():
    """One position too few: an index out of range at the first text that is cut, in the middle of an epoch."""
    encoder = NewTransformer(hidden_size=8, num_layers=1, max_length=10).build(range(40)).eval()
    full = inputs(length=10)
    with torch.no_grad():
        assert encoder(**full).shape == (3, 8)
        torch.testing.assert_close(encoder(**full), encoder(**full), rtol=0, atol=0)
        one_type = {**full, "token_type_ids": torch.zeros_like(full["token_type_ids"])}
        assert not torch.allclose(encoder(**full), encoder(**one_type), atol=1e-4)


@pytest.mark.parametrize("length", [1, 5, 9])
def test_padding_changes_nothing_in_a_new_one(length):
    """Positions that count the padding, or a mask that is not passed on."""
    encoder = NewTransformer(hidden_size=16, num_layers=2, max_length=10).build(range(40)).eval()
    batch = inputs(length=length)
    batch["token_type_ids"] = torch.zeros_like(batch["input_ids"])
    with torch.no_grad():
        torch.testing.assert_close(encoder(**padded(batch, 10 - length)), encoder(**batch), rtol=1e-4, atol=1e-5)


def test_longer_than_the_positions_is_refused(tmp_path):
    """An index out of range in the middle of an epoch, at the first long text."""
    bert().save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"encoder.max_length is 17, .* reads at most 16 tokens"):
        PretrainedTransformer(path=str(tmp_path), max_length=17).build(range(40))


def test_missing_weights_are_refused(tmp_path):
    """Names that another library wrote: transformers fills in random weights, and the teacher knows nothing."""
    model = bert()
    model.save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    renamed = {name.replace("encoder.layer.0.", "blocks.0."): value for name, value in load_file(path).items()}
    save_file(renamed, path, metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"lacks 16 of its weights, first encoder\.layer\.0\..*: expected all"):
        PretrainedTransformer(path=str(tmp_path), max_length=16).build(range(40))


@pytest.mark.parametrize(("pooling", "expected"), [("auto", "first_token"), ("pooler", "pooler"), ("mean", "mean")])
def test_a_pooler_without_weights(tmp_path, caplog, pooling, expected):
    """Random weights on top of everything, under ``auto``, in silence; asked for, they are RoBERTa's usual head."""
    bert(pooler=False).save_pretrained(tmp_path)
    encoder = PretrainedTransformer(path=str(tmp_path), max_length=16, pooling=pooling).build(range(40))
    assert encoder.pooling == expected
    assert ("a new pooler is trained" in caplog.text) == (pooling == "pooler")


@pytest.mark.parametrize("family", ["bert", "distilbert"])
@pytest.mark.parametrize(("dropout", "expected"), [(None, 0.1), (0.0, 0.0), (0.3, 0.3)])
def test_dropout_is_that_of_all_layers(tmp_path, family, dropout, expected):
    """Members of an ensemble that differ in name alone; or attention that keeps the model's own rate."""
    (bert() if family == "bert" else distilbert()).save_pretrained(tmp_path)
    encoder = PretrainedTransformer(path=str(tmp_path), max_length=16, dropout=dropout).build(range(40))
    rates = {module.p for module in encoder.modules() if isinstance(module, torch.nn.Dropout)}
    assert rates == {expected}
    attention = [
        getattr(module, "dropout", None) for module in encoder.modules() if "Attention" in type(module).__name__
    ]
    assert {rate.p if isinstance(rate, torch.nn.Module) else rate for rate in attention} <= {expected, None}


def test_tokens_are_those_of_the_two_texts():
    """A vector that differs from that without tokens; padding or the other text among a text's tokens."""
    encoder, batch = TransformerEncoder(bert()).eval(), padded(inputs(), 3)
    with torch.no_grad():
        found, states = encoder.tokens(**batch), encoder.model(**batch).last_hidden_state
        torch.testing.assert_close(found.text, encoder(**batch))
    torch.testing.assert_close(found.tokens, states)
    assert not (found.first & found.second).any()
    assert torch.equal(found.first | found.second, batch["attention_mask"].bool())
    assert torch.equal(found.second, batch["token_type_ids"].bool() & batch["attention_mask"].bool())
    one = found[torch.tensor([2])]
    assert [tuple(x.shape) for x in (one.text, one.tokens, one.first)] == [
        (1, 16),
        (1, *states.shape[1:]),
        (1, states.shape[1]),
    ]


def test_pickled_weights_are_refused(tmp_path):
    """A pickle can run code: weights come from safetensors or not at all."""
    model = bert()
    model.config.save_pretrained(tmp_path)
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(UserError, match=r"cannot be loaded: expected a folder with config.json and model.safetensors"):
        PretrainedTransformer(path=str(tmp_path), max_length=16).build(range(40))


def test_vocabulary_is_of_the_given_texts():
    """A vocabulary trained on the test split knows its words: the score is not honest."""
    tokenizer = train_tokenizer(["cats purr", "Cats sleep"] * 5, 60)
    known = set(tokenizer.get_vocab())
    assert {"cats", "purr", "sleep"} <= known
    letters = set("catspurrsleep")
    assert all(word.startswith("[") or set(word.removeprefix("##")) <= letters for word in known)
    assert tokenizer.tokenize("CATS purr dog") == ["cats", "purr", "[UNK]"]
    texts = ["cats purr and dogs bark while birds sing songs of springtime"] * 5
    assert len(train_tokenizer(texts, 50)) <= 50 < len(train_tokenizer(texts, 90))


def test_one_text_one_tokenizer():
    """Ties broken by a hash table: each process has a vocabulary of its own, and no cache fits another."""
    texts = ["the old man sees a red dog", "a new cup holds the film and a plot"] * 3
    one, other = (train_tokenizer(texts, 60) for _ in range(2))
    assert one.get_vocab() == other.get_vocab()
    assert tokenizer_fingerprint(one) == tokenizer_fingerprint(other)


@pytest.mark.parametrize("letter", ["\U0001f600", "\U0002ceb0", "\U00030000", "\U000f1234", "\u0301"], ids=ascii)
def test_rare_letters_do_no_harm(letter):
    """One rare letter in a million rows must not stop the fit before its first step."""
    tokenizer = train_tokenizer([f"cats a{letter}b purr"] * 3, 60)
    assert tokenizer.tokenize(f"cats a{letter}b purr")[0] == "cats"
    assert tokenizer.tokenize(f"cats a{letter}b purr")[-1] == "purr"


def test_layout_is_berts():
    """A pair without its separator, or all of one type, is one text."""
    tokenizer = train_tokenizer(["cats purr"] * 5, 60)
    pair = tokenizer("cats", "purr purr")
    assert tokenizer.convert_ids_to_tokens(pair["input_ids"]) == ["[CLS]", "cats", "[SEP]", "purr", "purr", "[SEP]"]
    assert pair["token_type_ids"] == [0, 0, 0, 1, 1, 1]
    assert tokenizer.convert_ids_to_tokens(tokenizer("purr")["input_ids"]) == ["[CLS]", "purr", "[SEP]"]


def test_tokenizer_comes_back(tmp_path, tokenizer):
    """A tokenizer that changes on its way to disk makes every cached token another word."""
    tokenizer.save_pretrained(tmp_path)
    again = load_tokenizer(str(tmp_path))
    text = "The man sees a GOOD film near the dog zebra"
    assert again(text, "not bad")["input_ids"] == tokenizer(text, "not bad")["input_ids"]
    assert again.pad_token_id == tokenizer.pad_token_id
    assert tokenizer_fingerprint(again) == tokenizer_fingerprint(tokenizer)


def test_no_tokenizer_is_refused(tmp_path):
    """A folder without one must not fall back on some default vocabulary."""
    bert().save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"no tokenizer at .* expected a tokenizer.json"):
        load_tokenizer(str(tmp_path))


@pytest.mark.parametrize("content", [b"version https://git-lfs.github.com/spec/v1", None], ids=["pointer", "cut off"])
def test_weights_that_are_not_whole_are_refused(tmp_path, content):
    """A clone without git-lfs, a download that was interrupted."""
    bert().save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100] if content is None else content)
    with pytest.raises(UserError, match=r"cannot be loaded: expected a folder with config.json and model.safetensors"):
        PretrainedTransformer(path=str(tmp_path), max_length=16).build(range(40))


@pytest.mark.parametrize("change", [{"truncation_side": "left"}, {"split_special_tokens": True}])
def test_the_fingerprint_counts_how_texts_are_cut(tokenizer, change):
    """Tokens cut on the other side, out of the cache."""
    other = copy.deepcopy(tokenizer)
    for name, value in change.items():
        setattr(other, name, value)
    assert tokenizer_fingerprint(other) != tokenizer_fingerprint(tokenizer)
    assert tokenizer_fingerprint(copy.deepcopy(tokenizer)) == tokenizer_fingerprint(tokenizer)
