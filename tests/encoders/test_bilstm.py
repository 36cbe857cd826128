"""The BiLSTM: what packed sequences give, whatever the padding; pairs by one reader; vectors that train, or stay."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence

from kd_lightning.apps.fits.identity import FORMAT
from kd_lightning.encoders import BiLstmEncoder, NewBiLstm, TrainingWords, WordEmbedding
from kd_lightning.encoders.vocabulary import train_word_tokenizer
from kd_lightning.errors import UserError
from kd_lightning.heads import siamese_head
from kd_lightning.tasks import Task

V, E, H = 30, 6, 5


def encoder(channels: str = "trained", **settings) -> BiLstmEncoder:
    """Return a small random encoder."""
    torch.manual_seed(0)
    return BiLstmEncoder(WordEmbedding(torch.randn(V, E), channels, **settings), H).eval()


def single(*texts: list[int], length: int | None = None) -> dict[str, torch.Tensor]:
    """Return single texts as a batch, padded to the longest or to a length."""
    longest = length or max(map(len, texts))
    ids = torch.tensor([text + [0] * (longest - len(text)) for text in texts])
    mask = torch.tensor([[1] * len(text) + [0] * (longest - len(text)) for text in texts])
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": torch.zeros_like(ids)}


def pairs(*texts: tuple[list[int], list[int]], length: int | None = None) -> dict[str, torch.Tensor]:
    """Return pairs of texts as a batch: first text, second text, padding."""
    batch = single(*(a + b for a, b in texts), length=length)
    for row, (a, b) in enumerate(texts):
        batch["token_type_ids"][row, len(a) : len(a) + len(b)] = 1
    return batch


TEXTS = [[3, 4, 5, 6], [7], [8, 9], [10, 11, 12, 13, 14, 15]]


def test_it_is_what_packed_sequences_give():
    """A backward direction that begins with padding, or a state of another length: both train, and worse."""
    model, batch = encoder(), single(*TEXTS)
    reference = nn.LSTM(E, H, batch_first=True, bidirectional=True)
    for name, direction, ending in (("l0", model.forward_lstm, ""), ("l0", model.backward_lstm, "_reverse")):
        for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
            getattr(reference, f"{kind}_{name}{ending}").data = getattr(direction, f"{kind}_{name}").data
    lengths = batch["attention_mask"].sum(1)
    words = model.embedding(batch["input_ids"])
    packed = pack_padded_sequence(words, lengths, batch_first=True, enforce_sorted=False)
    _, (last, _) = reference(packed)  # [2, B, H]
    torch.testing.assert_close(model(**batch)[:, : 2 * H], torch.cat([last[0], last[1]], dim=1))


@pytest.mark.parametrize("make", [single, pairs])
def test_padding_changes_nothing(make):
    """Alone, padded, and among longer ones."""
    model = encoder()
    rows = TEXTS if make is single else [(TEXTS[0], TEXTS[1]), (TEXTS[2], TEXTS[3]), (TEXTS[3], TEXTS[1])]
    together = model(**make(*rows, length=20))
    for row, found in zip(rows, together, strict=True):
        torch.testing.assert_close(model(**make(row))[0], found)


def test_both_texts_have_one_reader():
    """Two readers have twice the weights, and a pair the other way round is another pair."""
    model = encoder()
    there, back = model(**pairs((TEXTS[0], TEXTS[2]), (TEXTS[1], TEXTS[3]))).chunk(2, dim=1)
    again, turned = model(**pairs((TEXTS[2], TEXTS[0]), (TEXTS[3], TEXTS[1]))).chunk(2, dim=1)
    torch.testing.assert_close(there, turned)
    torch.testing.assert_close(back, again)
    torch.testing.assert_close(there[0], model(**single(TEXTS[0]))[0, : 2 * H])


def test_types_of_padding_are_not_read():
    """Some tokenizers give padding the type of the second text."""
    model, batch = encoder(), pairs((TEXTS[0], TEXTS[1]), (TEXTS[2], TEXTS[2]), length=12)
    expected = model(**batch)
    batch["token_type_ids"][batch["attention_mask"] == 0] = 1
    torch.testing.assert_close(model(**batch), expected)


def test_a_text_alone_has_no_second():
    """Also in a batch with pairs, where its second text is empty."""
    model = encoder()
    assert model(**single(*TEXTS))[:, 2 * H :].eq(0).all()
    mixed = model(**pairs((TEXTS[0], []), (TEXTS[1], TEXTS[3])))
    assert mixed[0, 2 * H :].eq(0).all()
    torch.testing.assert_close(mixed[0], model(**single(TEXTS[0]))[0])


def test_the_gradient_of_few_rows_is_that_of_all():
    """Sparse gradients save the optimiser's time; they must be the same numbers."""
    dense, sparse = encoder(), encoder(sparse=True)
    for model in (dense, sparse):
        model(**single(*TEXTS)).square().sum().backward()
    assert sparse.embedding.trained.weight.grad.is_sparse
    torch.testing.assert_close(sparse.embedding.trained.weight.grad.to_dense(), dense.embedding.trained.weight.grad)


def test_padding_does_not_learn():
    """Its vector stands in every batch; where a model's result depends on it, it must stay as it is."""
    embedding = WordEmbedding(torch.randn(V, E), pad_id=3)
    embedding(torch.tensor([[1, 2, 3, 3]])).sum().backward()
    assert embedding.trained.weight.grad.ne(0).any(1).nonzero().flatten().tolist() == [1, 2]


@pytest.mark.parametrize(("channels", "width", "trainable"), [("trained", E, 1), ("frozen", E, 0), ("both", 2 * E, 1)])
def test_channels(channels, width, trainable):
    """Tang et al.'s multichannel embedding is a frozen and a trained copy of the same vectors."""
    model = encoder(channels)
    words = model.embedding(torch.arange(V))
    assert words.shape == (V, width)
    assert all(part.equal(words[:, :E]) for part in words.split(E, dim=1))
    vectors = [parameter for name, parameter in model.named_parameters() if name.startswith("embedding.")]
    assert sum(parameter.requires_grad for parameter in vectors) == trainable
    assert sum(parameter.numel() for parameter in vectors) == V * width, "a frozen vector is a weight, too"
    assert not list(model.buffers()), "DDP sends buffers at each step"
    assert [name for name in model.state_dict() if name.startswith("embedding.")]
    assert {model.depth(name) for name, _ in model.named_parameters()} == {0, 1}


def test_dropout_is_on_the_words():
    """A rate that is taken and not used."""
    model, batch = encoder().train(), single(*TEXTS)
    model.dropout.p = 0.5
    assert not model(**batch).equal(model(**batch))
    model.eval()
    torch.testing.assert_close(model(**batch), encoder().eval()(**batch))
    words = TrainingWords(vocab_size=20, size=6)
    recipe = NewBiLstm(words=words, hidden_size=4, dropout=0.25)
    assert recipe.build(recipe.tokenizer(["a red cup"])).dropout.p == 0.25


@pytest.mark.parametrize(("sparse", "expected"), [(None, False), (False, False), (True, True)])
def test_gradients_of_single_rows_are_asked_for(tmp_path, sparse, expected):
    """Left open, they are dense; so are those of an encoder that is trained on from a folder."""
    recipe = NewBiLstm(words=TrainingWords(vocab_size=20, size=6), hidden_size=4, sparse=sparse)
    tokenizer = recipe.tokenizer(["the red cup"])
    model = recipe.build(tokenizer)
    model.save(tmp_path)
    assert model.embedding.trained.sparse is expected
    saved = recipe.saved(tmp_path)
    assert saved.sparse is sparse
    assert saved.build(tokenizer).embedding.trained.sparse is expected


def test_unknown_channels_are_refused():
    with pytest.raises(ValueError, match="channels is 'half', expected one of trained, frozen, both"):
        encoder("half")


def test_the_size_is_the_papers():
    """0.96 M without the word vectors, multichannel, as in the paper's table 2; siamese with three classes 1.14 M."""
    with torch.device("meta"):
        model = BiLstmEncoder(WordEmbedding(torch.empty(10, 300), "both"), 150)
    lstm = sum(p.numel() for name, p in model.named_parameters() if model.depth(name) == 1)
    assert lstm == 902_400
    for texts, labels, expected in ((("a",), "xy", 963_002), (("a", "b"), "xyz", 1_143_203)):
        task = Task(name="t", kind="classification", texts=texts, labels=tuple(labels), metrics=("accuracy",))
        head = siamese_head(task, model.output_dim, hidden_size=200)
        assert lstm + sum(p.numel() for p in head.parameters()) == expected


def test_the_features_of_a_pair_are_the_papers():
    """``|a - b|`` and ``a * b`` do not know which text came first, ``[a ; b]`` does."""
    task = Task(name="t", kind="classification", texts=("a", "b"), labels=("x", "y"), metrics=("accuracy",))
    head, hidden = siamese_head(task, 8, hidden_size=3), torch.randn(5, 8)
    a, b = hidden[:, :4], hidden[:, 4:]
    features = torch.cat([a, b, a * b, (a - b).abs()], dim=1)
    expected = torch.relu(features @ head.hidden.weight.T + head.hidden.bias) @ head.output.weight.T + head.output.bias
    torch.testing.assert_close(head(hidden), expected)
    score = Task(name="s", kind="regression", texts=("a", "b"), score_range=(0, 5), metrics=("pearson",))
    found = siamese_head(score, 8)(100 * hidden)
    assert found.shape == (5, 1)
    assert ((found >= 0) & (found <= 1)).all()


@pytest.mark.parametrize("channels", ["trained", "frozen", "both"])
def test_saved_comes_back(tmp_path, channels):
    """A frozen channel that is not saved is one of noise."""
    recipe = NewBiLstm(words=TrainingWords(vocab_size=20, size=6), hidden_size=4, channels=channels, dropout=0.25)
    tokenizer = recipe.tokenizer(["the red cup", "the cup sees"])
    model = recipe.build(tokenizer).eval()
    model.save(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    again = recipe.saved(tmp_path)
    batch = single([2, 3, 4], [5])
    torch.testing.assert_close(again.build(tokenizer).eval()(**batch), model(**batch))
    assert again.build(tokenizer).dropout.p == 0.25
    assert again.tokenizer([]).get_vocab() == tokenizer.get_vocab()
    assert again.fingerprint() != recipe.fingerprint()
    assert again.saved(tmp_path).fingerprint() == again.fingerprint()
    older = {name.replace("forward_lstm", "forwards"): weight for name, weight in model.state_dict().items()}
    save_file(older, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match=r"of a BiLSTM of this version \(RuntimeError: .*\"forward_lstm.weight_ih_l0\""):
        again.build(tokenizer)
    (tmp_path / "model.safetensors").write_bytes(b"cut off")
    with pytest.raises(UserError, match="of a BiLSTM"):
        again.build(tokenizer)


def test_texts_of_pairs_are_read_at_their_own_lengths(monkeypatch):
    """At the length of both together: twice the work for the same states."""
    model, read = encoder(), []
    monkeypatch.setattr(model, "read", lambda ids, lengths: read.append(ids.shape) or torch.zeros(len(ids), 2 * H))
    model(**pairs(([3, 4, 5], [6]), ([7], [8, 9, 10, 11]), length=12))
    assert read == [(4, 4)]


def test_other_names_of_weights_need_another_format():
    """A student that is stored with names of before has the address of the one with names of now."""
    names = {name.partition(".")[0] for name in encoder("both").state_dict()}
    why = "what is stored cannot be read any more: raise identity.FORMAT, and only then write the new names here"
    assert (FORMAT, names) == (5, {"embedding", "forward_lstm", "backward_lstm"}), why


def test_words_are_of_the_training_texts():
    """Most frequent first, ties by the alphabet; no special tokens, and types that tell the texts apart."""
    tokenizer = train_word_tokenizer(["The cup, the cup!", "A red CUP"], 6)
    assert tokenizer.get_vocab() == {"[PAD]": 0, "[UNK]": 1, "cup": 2, "the": 3, "!": 4, ",": 5}
    text = "The dog's don't, U.S. 3.5% does n't it 's can\u2019t ..."
    cut = "the dog 's do n't , u.s. 3.5 % does n't it 's ca n't ..."
    treebank = train_word_tokenizer([text], 60)
    assert " ".join(treebank.convert_ids_to_tokens(treebank(text)["input_ids"])) == cut
    found = tokenizer("the dog", "cup")
    assert found["input_ids"] == [3, 1, 2]
    assert found["token_type_ids"] == [0, 0, 1]


class Reader(nn.Module):
    """What is exported of a student of single texts: the encoder's ``read`` and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.head = encoder("both"), nn.Linear(2 * H, 3)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Return logits."""
        return self.head(self.encoder.read(input_ids, attention_mask.sum(1)))


class PairStudent(nn.Module):
    """What is exported of a student of pairs: the encoder, as it is called in training, and a head."""

    def __init__(self) -> None:
        super().__init__()
        task = Task(name="t", kind="classification", texts=("a", "b"), labels=("x", "y"), metrics=("accuracy",))
        self.encoder, self.head = encoder("trained"), siamese_head(task, 4 * H)

    def forward(self, input_ids: torch.Tensor, mask: torch.Tensor, types: torch.Tensor) -> torch.Tensor:
        """Return logits."""
        return self.head(self.encoder(input_ids, mask, types))


NAMES = ["input_ids", "attention_mask"]
LONGEST = 20
BATCHES = [[[3]], TEXTS, [[5] * length for length in range(1, 21)]]


def given(texts: list[list[int]], length: int | None = None) -> tuple[torch.Tensor, ...]:
    """Return token ids and mask."""
    batch = single(*texts, length=length)
    return tuple(batch[name] for name in NAMES)


@pytest.mark.filterwarnings("ignore:The tensor attributes .*_flat_weights")  # of every nn.LSTM
def test_what_is_trained_is_what_is_exported():
    """One graph for all sizes of batch; PyTorch unrolls an LSTM, so the length is one, and shorter texts are padded."""
    model, batch = Reader().eval(), {0: torch.export.Dim("B", min=1, max=512)}
    exported = torch.export.export(model, given(TEXTS, LONGEST), dynamic_shapes=(batch, batch)).module()
    for texts in BATCHES:
        torch.testing.assert_close(exported(*given(texts, LONGEST)), model(*given(texts)))


PAIR_BATCHES = [
    pairs(([3, 4], [9]), ([5], [3, 4, 5, 6]), ([6, 7, 8], [2]), length=LONGEST),
    pairs(([3], []), ([4, 5], [6, 7]), length=LONGEST),
    pairs(([7] * 11, [8] * 9), length=LONGEST),
    single(*TEXTS, length=LONGEST),
]


@pytest.mark.filterwarnings("ignore:The tensor attributes .*_flat_weights")
def test_pairs_are_exported():
    """The very call that is trained; a size that depends on the data has no place in a graph."""
    model, batch = PairStudent().eval(), {0: torch.export.Dim("B", min=1, max=512)}
    exported = torch.export.export(model, (*PAIR_BATCHES[0].values(),), dynamic_shapes=(batch,) * 3).module()
    for found in PAIR_BATCHES:
        torch.testing.assert_close(exported(*found.values()), model(*found.values()))


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # the exporters use much that is deprecated
@pytest.mark.parametrize("dynamo", [True, False])
def test_onnx_runtime_gives_what_is_trained(tmp_path, dynamo):
    """Both of PyTorch's exporters, which fail on packed sequences; the older one for all lengths."""
    runtime = pytest.importorskip("onnxruntime", reason="pip install 'kd_lightning[export]'")
    pytest.importorskip("onnxscript", reason="pip install 'kd_lightning[export]'")
    model, path, length = Reader().eval(), str(tmp_path / "model.onnx"), LONGEST if dynamo else None
    axes = {"dynamic_axes": {name: {0: "B", 1: "L"} for name in NAMES}}
    if dynamo:
        batch = {0: torch.export.Dim("B", min=1, max=512)}
        axes = {"dynamic_shapes": (batch, batch), "verbose": False}
    names = {"input_names": NAMES, "output_names": ["logits"]}
    torch.onnx.export(model, given(TEXTS, length), path, dynamo=dynamo, **names, **axes)
    session = runtime.InferenceSession(path)
    for texts in BATCHES:
        batch = dict(zip(NAMES, (part.numpy() for part in given(texts, length)), strict=True))
        (found,) = session.run(None, batch)
        torch.testing.assert_close(torch.from_numpy(found), model(*given(texts)).detach())


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_onnx_runtime_reads_pairs_of_any_length(tmp_path):
    """A length of the traced batch that stays in the graph fails on longer texts, or cuts them."""
    runtime = pytest.importorskip("onnxruntime", reason="pip install 'kd_lightning[export]'")
    model, path, names = PairStudent().eval(), str(tmp_path / "model.onnx"), ["input_ids", "mask", "types"]
    axes = {name: {0: "B", 1: "L"} for name in names}
    traced = pairs(([3, 4], [9]), ([5], [3, 4]))
    torch.onnx.export(model, (*traced.values(),), path, dynamo=False, input_names=names, dynamic_axes=axes)
    session = runtime.InferenceSession(path)
    for batch in (*PAIR_BATCHES, pairs(([5] * 30, [6] * 12), ([7], [8]))):
        (found,) = session.run(None, {n: part.numpy() for n, part in zip(names, batch.values(), strict=True)})
        torch.testing.assert_close(torch.from_numpy(found), model(*batch.values()).detach())
