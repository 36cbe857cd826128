"""What is logged of losses: means over all batches since the last time."""

from __future__ import annotations

import pytest
import torch

from kd_lightning.systems.loss_means import FOLD, LossMeans


def alone(sums):
    """Return the sums of one rank."""
    return sums


def batches(count):
    """Return batches of one of two tasks each: gold losses of some of the rows, and what is trained on."""
    random = torch.Generator().manual_seed(5)
    found = []
    for number in range(count):
        rows = 1 + number % 4
        each, every = torch.randn(2, rows, generator=random), torch.ones(rows, dtype=torch.bool)
        some = torch.rand(rows, generator=random) < 0.5
        found.append({"ab"[number % 3 == 0]: {"gold_loss": (each[0], some), "loss": (each[1], every)}})
    return found


def expected(some):
    """Return the means, row by row."""
    rows = {}
    for batch in some:
        for task, by_name in batch.items():
            for name, (each, counts) in by_name.items():
                rows.setdefault(f"{task}/{name}", []).extend(each[counts].tolist())
    every = [value for name in ("a/loss", "b/loss") for value in rows.get(name, [])]
    return {name: sum(of) / len(of) for name, of in rows.items() if of}, sum(every) / len(every)


@pytest.mark.parametrize("count", [1, 7, FOLD, FOLD + 1, 3 * FOLD + 5])
def test_the_means_are_those_of_all_rows(count):
    """The last batch alone: of twenty tasks nineteen have no losses in the log. Or the mean of means of batches."""
    means, some = LossMeans(["a", "b"]), batches(count)
    for batch in some:
        means.add(batch)
    by_name, loss = means.take(alone)
    known, of_all = expected(some)
    assert by_name == pytest.approx(known)
    assert loss == pytest.approx(of_all)


def test_what_was_taken_is_forgotten():
    means, some = LossMeans(["a", "b"]), batches(9)
    for number, batch in enumerate(some):
        means.add(batch)
        if number == 4:
            means.take(alone)
    assert means.take(alone) == (pytest.approx(expected(some[5:])[0]), pytest.approx(expected(some[5:])[1]))


@pytest.mark.parametrize("cut", [1, 5, FOLD + 3])
def test_an_interruption_changes_nothing(cut):
    """To the bit: the logs of a run that was interrupted would differ from those of one that was not."""
    some, whole, first, second = batches(FOLD + 20), *(LossMeans(["a", "b"]) for _ in range(3))
    for batch in some:
        whole.add(batch)
    for batch in some[:cut]:
        first.add(batch)
    second.load(first.state(alone))
    for batch in some[cut:]:
        second.add(batch)
    assert second.take(alone) == whole.take(alone)


def test_rows_that_do_not_count_cannot_spoil_a_mean():
    """A loss of a row without a teacher or label may be anything: one NaN, and fifty steps have none."""
    means, counts = LossMeans(["a"]), torch.tensor([True, False, True, False])
    means.add({"a": {"loss": (torch.tensor([1.0, float("nan"), 3.0, float("inf")]), counts)}})
    assert means.take(alone) == ({"a/loss": 2.0}, 2.0)


def test_what_was_loaded_goes_where_the_losses_are():
    """A checkpoint is read before the system is on its GPU: the first log of a resumed run ended it."""
    means = LossMeans(["a", "b"])
    means.load({"a/loss": [1.0, 2.0], "b/loss": [3.0, 4.0]})
    with torch.device("meta"):
        means.add({"b": {"loss": (torch.ones(2), torch.ones(2, dtype=torch.bool))}})
    seen = []
    with pytest.raises(NotImplementedError):  # a meta tensor has no values
        means.take(lambda sums: seen.append(sums) or sums)
    assert (seen[0].device.type, seen[0].shape) == ("meta", (2, 2))


def test_ranks_are_added():
    """A collective of another shape on each rank, where batches are of other tasks: it hangs."""
    one, other, shapes = LossMeans(["a", "b"]), LossMeans(["a", "b"]), []
    one.add(batches(2)[0])
    other.add(batches(2)[1])
    other.take(lambda sums: shapes.append(sums.clone()) or sums)
    by_name, loss = one.take(lambda sums: sums + shapes[0])
    assert (by_name, loss) == (pytest.approx(expected(batches(2))[0]), pytest.approx(expected(batches(2))[1]))


def test_an_interruption_of_several_ranks_changes_nothing():
    """What the others had added was forgotten: the next value in the log was the first rank's alone."""

    def ranks(some):
        both = LossMeans(["a", "b"]), LossMeans(["a", "b"])
        for number, batch in enumerate(some):
            both[number % 2].add(batch)
        return both

    def together(method, both):
        shapes = []
        getattr(both[1], method)(lambda sums: shapes.append(sums.clone()) or sums)
        return getattr(both[0], method)(lambda sums: sums + shapes[0])

    some = batches(12)
    kept = together("state", ranks(some[:6]))
    again = LossMeans(["a", "b"]), LossMeans(["a", "b"])
    for first, means in zip((True, False), again, strict=True):
        means.load(kept, first=first)
    assert together("state", again) == kept
    for number, batch in enumerate(some[6:]):
        again[number % 2].add(batch)
    assert together("take", again) == together("take", ranks(some))


def test_few_batches_are_kept():
    """Losses that are logged every ten thousand steps, all of them in memory until then."""
    means = LossMeans(["a", "b"])
    for batch in batches(3 * FOLD + 5):
        means.add(batch)
    assert sum(len(kept) for kept in means._kept.values()) < 2 * FOLD + 1


def test_losses_keep_no_graph():
    """Fifty steps of activations in memory."""
    means, x = LossMeans(["a"]), torch.ones(2, requires_grad=True)
    means.add({"a": {"loss": (x * 2, torch.ones(2, dtype=torch.bool))}})
    assert not any(each.requires_grad for kept in means._kept.values() for each, _ in kept)
