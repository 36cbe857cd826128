"""AdaDelta by rows is AdaDelta."""

import copy
from functools import partial

import pytest
import torch

from kd_lightning.encoders import BiLstmEncoder, WordEmbedding
from kd_lightning.optim import AdaDelta, LayerwiseOptimizer, clip_norm, clip_values


def table(sparse: bool) -> WordEmbedding:
    """Return word vectors."""
    return WordEmbedding(torch.randn(12, 3, generator=torch.Generator().manual_seed(0)), sparse=sparse)


def losses(model: WordEmbedding, optimizer: torch.optim.Optimizer, steps: int, first: int = 0) -> None:
    """Train on other words at each step; some come often, some after a long while."""
    for step in range(first, first + steps):
        draw = torch.Generator().manual_seed(step)
        words = (12 * torch.rand(1, 4, generator=draw) ** 3).long()  # small numbers are frequent words
        target = torch.randn(3, generator=draw)
        optimizer.zero_grad()
        (model(words) - target).square().sum().backward()
        optimizer.step()
        optimizer.param_groups[0]["lr"] *= 0.97  # as a schedule does


@pytest.mark.parametrize("settings", [{"lr": 1.0, "rho": 0.95, "eps": 1e-6}, {"lr": 0.3, "rho": 0.8, "eps": 1e-3}])
def test_rows_that_rest_are_made_up_for(settings):
    """Averages that do not shrink while a row rests give it steps of another size when it is next seen."""
    dense, sparse, torchs = table(False), table(True), table(False)
    for model, optimizer in (
        (dense, AdaDelta(dense.parameters(), **settings)),
        (sparse, AdaDelta(sparse.parameters(), **settings)),
        (torchs, torch.optim.Adadelta(torchs.parameters(), **settings)),
    ):
        losses(model, optimizer, 60)
    torch.testing.assert_close(dense.trained.weight, torchs.trained.weight)
    torch.testing.assert_close(sparse.trained.weight, torchs.trained.weight)
    assert not sparse.trained.weight.equal(table(True).trained.weight)


def test_a_resumed_optimizer_goes_on():
    """When a row was last seen is a part of the state."""
    whole, half = table(True), table(True)
    losses(whole, AdaDelta(whole.parameters()), 30)
    first = AdaDelta(half.parameters())
    losses(half, first, 15)
    second = AdaDelta(half.parameters())
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    assert second.param_groups[0]["lr"] == pytest.approx(0.97**15)
    losses(half, second, 15, first=15)
    torch.testing.assert_close(half.trained.weight, whole.trained.weight, rtol=0, atol=0)
    assert second.state[half.trained.weight]["last"].dtype == torch.int64


@pytest.mark.parametrize("begun", [True, False], ids=["sparse first", "dense first"])
def test_a_run_goes_on_with_the_other_kind_of_gradients(begun):
    """From one GPU to several, or back: averages of rows that rested and never shrank, or a state that is not there."""
    torchs, switching = table(False), table(begun)
    losses(torchs, torch.optim.Adadelta(torchs.parameters(), lr=1.0, rho=0.95, eps=1e-6), 60)
    optimizer = AdaDelta(switching.parameters())
    losses(switching, optimizer, 20)
    for first, sparse in ((20, not begun), (40, begun)):
        again = table(sparse)
        again.load_state_dict(switching.state_dict())
        resumed = AdaDelta(again.parameters())
        resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
        losses(again, resumed, 20, first=first)
        switching, optimizer = again, resumed
    torch.testing.assert_close(switching.trained.weight, torchs.trained.weight)


def test_weight_decay_is_refused():
    with pytest.raises(ValueError, match=r"set optimizer.weight_decay=0"):
        AdaDelta([{"params": [torch.nn.Parameter(torch.zeros(2))], "weight_decay": 0.01}])


@pytest.mark.parametrize("limit", [0.1, 1e6])
@pytest.mark.parametrize("clip", [clip_norm, clip_values])
def test_sparse_gradients_are_clipped_as_dense_ones(clip, limit):
    """A word that occurs twice counted as two: another norm, another step."""
    words, target = torch.tensor([[1, 2, 2, 5]]), torch.ones(3)
    both = []
    for sparse in (False, True):
        model, line = table(sparse), torch.nn.Linear(3, 3, bias=False)
        torch.nn.init.eye_(line.weight)
        (line(model(words)) - target).square().sum().backward()
        parameters = [*model.parameters(), line.weight]
        clip(parameters, limit)
        both.append([p.grad.to_dense() if p.grad.is_sparse else p.grad for p in parameters])
    torch.testing.assert_close(both[0], both[1])
    numbers = torch.cat([g.flatten() for g in both[0]])
    found = numbers.norm() if clip is clip_norm else numbers.abs().max()
    assert (found < 0.11) == (limit == 0.1)


def test_an_optimizer_without_rows_is_told_before_it_trains():
    """torch says so in the first step, in a traceback."""
    encoder, head = BiLstmEncoder(table(sparse=True), hidden_size=2), torch.nn.Linear(8, 2)
    for make, settings, name in (
        (torch.optim.AdamW, {}, "AdamW"),
        (partial(torch.optim.AdamW, fused=True), {"weight_decay": 0.01}, "AdamW"),  # nor would it without these
        (torch.optim.SparseAdam, {}, "SparseAdam"),  # it takes no others
        (torch.optim.SGD, {"weight_decay": 0.01}, "SGD with weight_decay"),
        (partial(torch.optim.SGD, fused=True), {}, "SGD with fused"),
    ):
        with pytest.raises(ValueError, match=f"{name} does not take sparse and dense .*: encoder.sparse=null, or"):
            LayerwiseOptimizer(make, lr=0.1, **settings)(encoder, head)
    for make in (AdaDelta, torch.optim.SGD, partial(torch.optim.Adagrad), Mine):
        LayerwiseOptimizer(make, lr=0.1)(encoder, head)
    frozen = WordEmbedding(torch.randn(12, 3), "frozen", sparse=True)
    LayerwiseOptimizer(torch.optim.AdamW, lr=0.1)(BiLstmEncoder(frozen, hidden_size=2), head)  # it has no gradient


class Mine(torch.optim.SGD):
    """An optimiser of one's own."""

    takes_rows = True


@pytest.mark.parametrize(
    ("make", "expected"),
    [(AdaDelta, True), (partial(AdaDelta, rho=0.9), True), (Mine, True), (torch.optim.SGD, False)],
)
def test_who_takes_rows_says_so(make, expected):
    """Of others the gradients are dense, unless they are asked to be sparse."""
    assert LayerwiseOptimizer(make, lr=0.1).takes_rows is expected


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lr": -1.0}, "lr is -1.0"),
        ({"rho": 1.0}, r"rho is 1.0, expected a number in \[0, 1\)"),
        ({"eps": 0.0}, "eps is 0.0"),
    ],
)
def test_values_out_of_range_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        AdaDelta(table(False).parameters(), **settings)
