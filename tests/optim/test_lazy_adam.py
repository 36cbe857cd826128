"""LazyAdam is Adam for all rows that have a gradient, and leaves the others alone."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import pytest
import torch

from kd_lightning.encoders import WordEmbedding
from kd_lightning.optim import LayerwiseOptimizer, LazyAdam


def table(sparse: bool) -> WordEmbedding:
    """Return word vectors."""
    return WordEmbedding(torch.randn(12, 3, generator=torch.Generator().manual_seed(0)), sparse=sparse)


def train(
    model: WordEmbedding, line: torch.nn.Linear, optimizer: torch.optim.Optimizer, steps: range, words: int
) -> None:
    """Train on some words at each step; a row of the line's matrix has no gradient at every third step."""
    for step in steps:
        draw = torch.Generator().manual_seed(step)
        ids = torch.randint(12, (1, words), generator=draw) if words < 12 else torch.arange(12).unsqueeze(0)
        weights = torch.randn(1, ids.shape[1], 1, generator=draw)
        optimizer.zero_grad()
        out = line(model(ids) * weights).square().sum((0, 1)) * torch.tensor([1.0, float(step % 3 > 0)])
        out.sum().backward()
        optimizer.step()
        optimizer.param_groups[0]["lr"] *= 0.97  # as a schedule does


def parts(sparse: bool) -> tuple[WordEmbedding, torch.nn.Linear]:
    """Return word vectors and a layer over them."""
    torch.manual_seed(1)
    return table(sparse), torch.nn.Linear(3, 2)


@pytest.mark.parametrize("settings", [{"lr": 1e-2}, {"lr": 3e-2, "betas": (0.5, 0.9), "eps": 1e-4}])
def test_sparse_gradients_lead_where_dense_ones_do(settings):
    """On one GPU and on several: another rule on each is another model."""
    found = []
    for sparse in (True, False):
        model, line = parts(sparse)
        train(model, line, LazyAdam([*model.parameters(), *line.parameters()], **settings), range(40), 4)
        found.append([p.detach() for p in (*model.parameters(), *line.parameters())])
    torch.testing.assert_close(found[0], found[1])


def by_the_formula(
    weight: torch.Tensor, gradients: list[torch.Tensor], lr: float, betas: tuple[float, float], eps: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return what row after row comes to, and its moments: plain Adam's lines, skipped where there is no gradient."""
    weight = weight.clone()
    m, v = torch.zeros_like(weight), torch.zeros_like(weight)
    for step, gradient in enumerate(gradients, 1):
        for row in range(len(weight)):
            g = gradient[row]
            if g.any():
                m[row] = betas[0] * m[row] + (1 - betas[0]) * g
                v[row] = betas[1] * v[row] + (1 - betas[1]) * g**2
                corrected = m[row] / (1 - betas[0] ** step), v[row] / (1 - betas[1] ** step)
                weight[row] -= lr * corrected[0] / (corrected[1].sqrt() + eps)
    return weight, m, v


def rare_gradients(steps: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield gradients of a table, dense and sparse: rows often, rarely, after long, twice in one step, and of zeros."""
    for step in range(steps):
        draw = torch.Generator().manual_seed(step)
        rows = (12 * torch.rand(5, generator=draw) ** 3).long()
        values = torch.randn(5, 3, generator=draw)
        values[-1] = 0
        sparse = torch.sparse_coo_tensor(rows.unsqueeze(0), values, (12, 3), check_invariants=False)
        yield sparse.to_dense(), sparse


@pytest.mark.parametrize("kind", ["dense", "sparse"])
@pytest.mark.parametrize("settings", [(1e-2, (0.9, 0.999), 1e-8), (3e-2, (0.5, 0.9), 1e-3)])
def test_it_is_adams_formula_row_by_row(kind, settings):
    """A sign, a rate, a correction or a moment that is right only where all rows have a gradient."""
    lr, betas, eps = settings
    weight = torch.nn.Parameter(torch.randn(12, 3, generator=torch.Generator().manual_seed(5)))
    both = list(rare_gradients(60))
    expected = by_the_formula(weight.detach(), [dense for dense, _ in both], lr, betas, eps)
    optimizer = LazyAdam([weight], lr=lr, betas=betas, eps=eps)
    for dense, sparse in both:
        weight.grad = dense if kind == "dense" else sparse
        optimizer.step()
    state = optimizer.state[weight]
    torch.testing.assert_close((weight.detach(), state["m"], state["v"]), expected)


def test_it_is_torchs_sparse_adam():
    """Another rule under the name of a known one. (Where eps is not small, torch adds it elsewhere.)"""
    found = []
    for make in (LazyAdam, torch.optim.SparseAdam):
        model = table(True)
        optimizer = make(model.parameters(), lr=3e-2, betas=(0.5, 0.9), eps=1e-8)
        for step in range(60):
            draw = torch.Generator().manual_seed(step)
            ids, target = torch.randint(12, (1, 4), generator=draw), torch.randn(3, generator=draw)
            optimizer.zero_grad()
            (model(ids) - target).square().sum().backward()
            optimizer.step()
        found.append(model.trained.weight.detach())
    torch.testing.assert_close(found[0], found[1])


def test_vectors_never_rest():
    """A bias whose gradient is 0 moves on with its moment, as Adam's does, however its gradient comes."""
    found = []
    for sparse in (False, True):
        bias = torch.nn.Parameter(torch.ones(3))
        optimizer = LazyAdam([bias], lr=0.1)
        for gradient in ([1.0, 2.0, 0.0], [0.0, 1.0, 0.0]):
            bias.grad = torch.tensor(gradient).to_sparse() if sparse else torch.tensor(gradient)
            optimizer.step()
        found.append(bias.detach())
    torch.testing.assert_close(found[0], found[1])
    assert found[0][0] < 0.85
    assert found[0][2] == 1


def test_it_is_adam_where_all_rows_have_a_gradient():
    """A moment or a correction that is not Adam's."""
    found = []
    for make in (LazyAdam, torch.optim.Adam):
        weight = torch.nn.Parameter(torch.randn(5, 4, generator=torch.Generator().manual_seed(3)))
        bias = torch.nn.Parameter(torch.zeros(4))
        optimizer = make([weight, bias], lr=0.02, betas=(0.8, 0.95), eps=1e-5)
        for step in range(30):
            optimizer.zero_grad()
            target = torch.randn(5, 4, generator=torch.Generator().manual_seed(step))
            (weight + bias * (step % 2) - target).square().sum().backward()
            optimizer.step()
        found.append([weight.detach(), bias.detach()])
    torch.testing.assert_close(found[0], found[1])


@pytest.mark.parametrize("sparse", [True, False])
def test_a_row_without_a_gradient_rests(sparse):
    """Adam moves it on by what is left of its first moment, torch's at every step, whatever the batch has."""
    model, line = parts(sparse)
    optimizer = LazyAdam([*model.parameters(), *line.parameters()], lr=0.05)
    train(model, line, optimizer, range(5), 12)
    before, moments = model.trained.weight.detach().clone(), optimizer.state[model.trained.weight]["m"].clone()
    optimizer.zero_grad()
    line(model(torch.tensor([[2, 7]]))).square().sum().backward()
    optimizer.step()
    moved = (model.trained.weight != before).any(1)
    assert moved.nonzero().squeeze(1).tolist() == [2, 7]
    still = optimizer.state[model.trained.weight]["m"]
    assert torch.equal(still[~moved], moments[~moved])
    assert not torch.equal(still[moved], moments[moved])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_row_rests_in_half_precision(dtype):
    """In float16 the usual eps is 0: a row that rests would be 0 / 0."""
    parameter = torch.nn.Parameter(torch.ones(3, 2, dtype=dtype))
    optimizer = LazyAdam([parameter], lr=0.5)
    parameter.grad = torch.tensor([[1.0, -1.0], [0.0, 0.0], [0.0, 2.0]], dtype=dtype)
    optimizer.step()
    assert parameter[1].tolist() == [1.0, 1.0]
    torch.testing.assert_close(parameter[0], torch.tensor([0.5, 1.5], dtype=dtype))


def test_a_scalar_never_rests():
    """A temperature of a head of one's own."""
    scale = torch.nn.Parameter(torch.tensor(1.0))
    optimizer = LazyAdam([scale], lr=0.1)
    for gradient, expected in ((2.0, 0.9), (0.0, None)):
        before, scale.grad = scale.item(), torch.tensor(gradient)
        optimizer.step()
        assert expected is None or scale.item() == pytest.approx(expected)
        assert scale.item() != before


def test_a_gradient_that_is_not_finite_shows():
    """A row that rests on NaN keeps a diverged model looking well."""
    weight = torch.nn.Parameter(torch.ones(3, 2))
    weight.grad = torch.tensor([[0.0, 0.0], [torch.nan, 0.0], [1.0, 0.0]])
    LazyAdam([weight]).step()
    assert weight.isfinite().all(1).tolist() == [True, False, True]


def test_a_resumed_optimizer_goes_on():
    whole, half = parts(True), parts(True)
    optimizer = LazyAdam([p for part in whole for p in part.parameters()], lr=0.02)
    train(*whole, optimizer, range(20), 3)
    first = LazyAdam([p for part in half for p in part.parameters()], lr=0.02)
    train(*half, first, range(10), 3)
    second = LazyAdam([p for part in half for p in part.parameters()], lr=0.02)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    train(*half, second, range(10, 20), 3)
    for one, other in zip(whole, half, strict=True):
        for a, b in zip(one.parameters(), other.parameters(), strict=True):
            torch.testing.assert_close(b, a, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lr": -1.0}, "lr is -1.0"),
        ({"betas": (0.9, 1.0)}, r"betas are \(0.9, 1.0\), expected two numbers in \[0, 1\)"),
        ({"betas": (0.9,)}, r"betas are \(0.9,\), expected two numbers in \[0, 1\)"),
        ({"eps": 0.0}, "eps is 0.0"),
    ],
)
def test_values_out_of_range_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        LazyAdam(table(False).parameters(), **settings)


def test_weight_decay_is_refused():
    """It would move the rows that rest."""
    with pytest.raises(ValueError, match=r"set optimizer.weight_decay=0"):
        LazyAdam([{"params": [torch.nn.Parameter(torch.zeros(2))], "weight_decay": 0.01}])
    assert LayerwiseOptimizer(LazyAdam, lr=0.1).takes_rows
