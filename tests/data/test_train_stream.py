"""The order of training: it follows the law, misses no example, and continues to the row."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import chi2

from kd_lightning.data import Part, TokenTable, TrainStream
from kd_lightning.data.batches.grouping import GroupWalk
from kd_lightning.data.batches.train_stream import RELEASE_EVERY
from kd_lightning.data.sampling import (
    annealed,
    epoch_batches,
    probabilities,
    proportional,
    size_power,
    sqrt,
    temperature,
    uniform,
)
from kd_lightning.errors import UserError
from kd_lightning.tasks import Task

SAMPLERS = [
    pytest.param(proportional, id="proportional"),
    pytest.param(uniform, id="uniform"),
    pytest.param(size_power, id="size_power"),
    pytest.param(sqrt, id="sqrt"),
    pytest.param(annealed, id="annealed"),
    pytest.param(partial(temperature, temperature=3.0, cap=40.0), id="temperature"),
]


SIZES = {"a": 7, "b": 40, "c": 133}


def part(name: str, count: int, split: str = "train", first: int = 0, label: float = 0.0, length: int = 0) -> Part:
    """Return examples whose tokens tell their task and id; task names are of one letter; a length is that of all.

    The task ``r`` ranks: its rows are of questions with 1 to 7 candidates, that of its first row has 13.
    """
    kind = {"kind": "ranking", "group": "text", "metrics": ("map",)} if name == "r" else {"kind": "classification"}
    task = Task(**{"name": name, "texts": ("text",), "labels": ("x", "y"), "metrics": ("accuracy",), **kind})
    lengths = np.random.default_rng([ord(name), first]).integers(length or 3, length + 1 if length else 40, count)
    ids = np.arange(first, first + count) * 2 + 1
    tokens = TokenTable(
        input_ids=np.repeat(1000 * ord(name) + ids, lengths).astype(np.int32),
        ends=np.cumsum(lengths),
        second=lengths.astype(np.int32),
        example_id=ids,
        label=np.full(count, label, np.float32) if name != "r" else np.arange(count, dtype=np.float32) % 2,
        group=questions(count) if name == "r" else np.full(count, -1),
        cut=0,
        fingerprint=name,
    )
    return Part(task, split, tokens)


def questions(count: int) -> np.ndarray:
    """Return the question of each row, int64 ``[count]``, its candidates next to each other."""
    random = np.random.default_rng(8)
    sizes = [13, *random.integers(2, 8, count)]
    return np.repeat(random.permutation(len(sizes)) * 10**10, sizes)[:count]


def stream(sizes: dict[str, int] = SIZES, **settings: Any) -> TrainStream:
    """Return a stream over one part per task."""
    settings = {"task_sampler": proportional, "batch_size": 10, "pad_id": 0, "window": 4, **settings}
    rows = settings.get("epoch_rows") or sum(sizes.values())
    settings["total_batches"] = settings.pop("epochs", 3) * epoch_batches(rows, settings["batch_size"])
    return TrainStream([part(name, count) for name, count in sizes.items()], **settings)


def examples(batch: dict[str, Any]) -> list[tuple[str, int]]:
    """Return (task, example id) of the batch's rows, each checked against its tokens."""
    found = [("", 0)] * len(batch["example_id"])
    for name, rows in batch["tasks"].items():
        for row in rows["rows"].tolist():
            found[row] = (name, int(batch["example_id"][row]))
            assert batch["input_ids"][row, 0] == 1000 * ord(name) + found[row][1]
    return found


def drawn(found: TrainStream, batches: int) -> list[list[tuple[str, int]]]:
    """Return the examples of the next batches, over as many epochs as it takes."""
    left, taken = batches, []
    while left:
        epoch = [examples(batch) for batch in islice(found, left)]
        taken += epoch
        left -= len(epoch)
    return taken


def equal(a: Any, b: Any) -> bool:
    """Tell whether two batches are the same to the bit, missing teachers (NaN) included."""
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[name], b[name]) for name in a)
    return torch.equal(torch.nan_to_num(a), torch.nan_to_num(b)) if isinstance(a, torch.Tensor) else a == b


@pytest.mark.parametrize("window", [1, 6])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_frequencies_follow_the_law(sampler, window):
    """Every paper's result stands on its sampling; a stream of another law trains without a word."""
    found = stream(task_sampler=sampler, window=window, epochs=10)
    windows = 10 * len(found) // window
    counts = Counter(name for batch in drawn(found, windows * window) for name, _ in batch)
    progress = np.arange(windows) / windows
    expected = window * 10 * sum(probabilities(sampler, SIZES, p) for p in progress)
    observed = np.array([counts[name] for name in SIZES])
    assert observed.sum() == pytest.approx(expected.sum())
    assert ((observed - expected) ** 2 / expected).sum() < chi2.ppf(0.5, df=len(SIZES) - 1)
    assert abs(observed - expected).max() <= 1 + 0.01 * observed.sum() * (sampler is annealed)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_window_keeps_its_due(sampler):
    """Fractions that are dropped: a task with less than a row per window is never drawn at all."""
    found = stream({"a": 1, "b": 40, "c": 400}, task_sampler=sampler, window=1, batch_size=6, epochs=2)
    due, done = np.zeros(3), np.zeros(3)
    for number in range(150):
        p = probabilities(sampler, found.sizes, min(1.0, number * found.window / (2 * len(found))))
        due += 6 * p
        part_of, _ = found.plan(number)
        done += np.bincount(part_of.ravel(), minlength=3)
        assert abs(done - due).max() < 1 + 1e-9


def test_annealed_goes_from_one_law_to_another():
    """Progress that stays 0, or that counts one epoch for all, keeps PALs at proportional or ends it early."""
    found = stream(task_sampler=partial(annealed, decay=1.0), epochs=4, window=3, batch_size=9)
    batches = drawn(found, 4 * len(found))
    tenth = len(batches) // 10
    first, last = (Counter(n for b in some for n, _ in b) for some in (batches[:tenth], batches[-tenth:]))
    np.testing.assert_allclose([first[n] / first.total() for n in SIZES], [7 / 180, 40 / 180, 133 / 180], atol=0.04)
    np.testing.assert_allclose([last[n] / last.total() for n in SIZES], [0.31, 0.335, 0.355], atol=0.04)


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("window", [1, 5])
def test_all_before_any_again(sampler, window):
    """Drawing with replacement leaves a third of a small task unseen for an epoch."""
    found = stream(task_sampler=sampler, window=window, epochs=6)
    seen: Counter[tuple[str, int]] = Counter()
    for number in range(60):
        part_of, rows = found.plan(number)
        seen.update(zip(part_of.ravel().tolist(), rows.ravel().tolist(), strict=True))
        for task, size in enumerate(SIZES.values()):
            counts = [seen[task, row] for row in range(size)]
            assert max(counts) - min(counts) <= 1


@pytest.mark.parametrize("window", [1, 8, 64, 1000])
@pytest.mark.parametrize("sizes", [{"a": 320}, {"a": 30, "b": 90}, {"a": 7, "b": 40, "c": 133}], ids=str)
def test_proportional_covers_each_epoch(sizes, window):
    """A window longer than an epoch: after three of them a fifth of a small data set unseen, other rows 7 times."""
    found = stream(sizes, window=window)
    total = sum(sizes.values())
    assert len(found) == -(-total // 10)
    seen: Counter[tuple[str, int]] = Counter()
    for epoch in range(1, 4):
        seen.update(row for batch in drawn(found, len(found)) for row in batch)
        assert len(seen) == total
        assert set(seen.values()) <= {epoch, epoch + 1}
        assert sum(seen.values()) == epoch * 10 * len(found)


@pytest.mark.parametrize("window", [1, 8])
def test_large_windows_end_near_the_epoch(window):
    """The same law where an epoch is no whole number of windows: few rows are early or late."""
    found = stream({"a": 830, "b": 170}, window=window, batch_size=9, epochs=3)
    seen = Counter(row for batch in drawn(found, 3 * len(found)) for row in batch)
    assert len(seen) == 1000
    assert sum(count == 3 for count in seen.values()) > 940


def test_seed_is_the_order():
    """Runs that cannot be repeated, or five seeds that are one."""
    one, same, other = (drawn(stream(seed=seed), 40) for seed in (3, 3, 4))
    assert one == same
    assert one != other
    assert drawn(stream(seed=3), 18) == one[:18]
    rows = [
        frozenset(map(tuple, np.stack(stream(seed=seed, epoch_rows=40).plan(0)).reshape(2, -1).T)) for seed in (3, 4)
    ]
    assert rows[0] != rows[1]  # who is drawn, not only in which batch


def test_order_differs_from_epoch_to_epoch():
    """Trap 2: a batch sampler that Lightning never tells the epoch replays one order."""
    found = stream()
    epochs = [drawn(found, len(found)) for _ in range(4)]
    assert len({tuple(batch[0] for batch in epoch) for epoch in epochs}) == 4
    batches = [frozenset(batch) for epoch in epochs for batch in epoch]
    assert len(set(batches)) > 0.95 * len(batches)


@pytest.mark.parametrize("window", [1, 5, 64])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_batches_of_one_task_follow_the_law(sampler, window):
    """MT-DNN's algorithm 1: a batch that mixes tasks, or a small task that no window draws."""
    found = stream(task_sampler=sampler, window=window, single_task=True, epochs=10)
    batches = drawn(found, 10 * len(found))
    assert all(len({name for name, _ in batch}) == 1 for batch in batches)
    counts = Counter(batch[0][0] for batch in batches)
    starts = [(e * len(found) + w) / (10 * len(found)) for e in range(10) for w in range(0, len(found), found.window)]
    each = [min(found.window, len(found) - w) for _ in range(10) for w in range(0, len(found), found.window)]
    due = sum(n * probabilities(sampler, SIZES, p) for n, p in zip(each, starts, strict=True))
    assert abs(np.array([counts[name] for name in SIZES]) - due).max() < 1 + 1e-9


def test_batches_of_one_task_see_all_rows():
    """Rows at the end of a shuffle that fill no batch of their own, and are never seen."""
    found = stream(single_task=True, epochs=9)
    seen = Counter(row for batch in drawn(found, 9 * len(found)) for row in batch)
    for name, size in SIZES.items():
        counts = [seen[name, 2 * row + 1] for row in range(size)]
        assert max(counts) - min(counts) <= 1
        assert min(counts) >= 7


def test_batches_of_one_task_have_one_length():
    """Rows of a task in the order of the draw: padding as without windows."""
    wide = [stream({"a": 400, "b": 400}, single_task=True, window=w, batch_size=20) for w in (1, 40)]
    padded = [sum(int((batch["attention_mask"] == 0).sum()) for batch in found) for found in wide]
    assert padded[1] < 0.4 * padded[0]


RANKED = {"a": 40, "r": 133}


def ranked(world_size: int = 1, **settings: Any) -> list[TrainStream]:
    """Return the streams of all ranks, of a task that ranks and another."""
    settings = {"single_task": True, "epochs": 6, **settings}
    return [stream(RANKED, rank=rank, world_size=world_size, **settings) for rank in range(world_size)]


def groups_of(batch: dict[str, Any]) -> list[int]:
    """Return the questions of a batch's rows; none of another task."""
    return batch["tasks"]["r"]["group"].tolist() if "r" in batch["tasks"] else []


@pytest.mark.parametrize("world_size", [1, 2])
@pytest.mark.parametrize("window", [1, 4, 64])
def test_questions_stay_whole(world_size, window):
    """A candidate list cut in two: the relevant one in one batch, those it must beat in the other."""
    count = Counter(part("r", RANKED["r"]).groups.tolist())
    for found in ranked(world_size, window=window):
        for batch in islice(found, len(found)):
            here = Counter(groups_of(batch))
            assert all(count[question] == rows for question, rows in here.items())


@pytest.mark.parametrize("world_size", [1, 2])
def test_all_questions_before_any_again(world_size):
    """An epoch that misses questions is no pass over the data: batches have their number of rows on average."""
    found = ranked(world_size, window=1)
    seen: Counter[int] = Counter()
    for epoch in range(1, 6):
        for batches in zip(*found, strict=True):
            seen.update(question for batch in batches for question in set(groups_of(batch)))
            counts = [seen[question] for question in set(part("r", RANKED["r"]).groups.tolist())]
            assert max(counts) - min(counts) <= 1
        assert min(counts) >= epoch - 1
        assert max(counts) <= epoch + 1
    assert sum(counts) / len(counts) == pytest.approx(5, abs=0.5)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("pack_rows", [1, 4, 16, 64, 10_000])
def test_packs_are_as_large_as_whole_questions_let_them_be(seed, pack_rows):
    """As a plain loop finds the nearest cuts, where every question is small; a large one is a pack, or ends one."""
    random = np.random.default_rng(seed)
    sizes = random.integers(1, 6, random.integers(1, 80))
    group = random.permutation(np.repeat(np.arange(len(sizes)) * 7, sizes))
    walk = GroupWalk(group, pack_rows, seed=[seed])
    packs = walk.packs(0, 2 * walk.round_packs)
    for cut in (packs[: walk.round_packs], packs[walk.round_packs :]):
        assert sorted(np.concatenate(cut)) == list(range(len(group)))
        assert sum(len(set(group[pack])) for pack in cut) == len(sizes)
        share = len(group) / walk.round_packs
        if pack_rows >= 16:
            wanted = np.arange(1, walk.round_packs) * share
            assert (np.abs(np.cumsum([len(pack) for pack in cut])[:-1] - wanted) <= 2.5).all()
    assert walk.round_packs == min(len(sizes), max(1, round(len(group) / pack_rows)))
    assert [pack.tolist() for pack in walk.packs(3, 4)] == [walk.packs(3 + i, 1)[0].tolist() for i in range(4)]


def test_a_huge_question_is_a_pack():
    """Packs of no row beside it, or one question in several."""
    group = np.repeat([5, 1, 2, 3, 4], [500, 2, 2, 2, 2])
    walk = GroupWalk(group, 100, seed=[3])
    packs = walk.packs(0, 5)
    assert sorted(len(pack) for pack in packs) == [2, 2, 2, 2, 500]


def test_questions_are_drawn_by_the_law():
    """Batches of questions have more or fewer rows than others; they must be neither more nor fewer."""
    found = ranked()[0]
    batches = [groups_of(batch) for _ in range(6) for batch in found]
    share = sum(bool(batch) for batch in batches) / len(batches)
    assert share == pytest.approx(133 / 173, abs=1 / len(batches))


def test_questions_are_shuffled_anew():
    found = ranked(window=64)[0]
    packs = [tuple(sorted(set(groups_of(batch)))) for _ in range(6) for batch in found if groups_of(batch)]
    assert len(set(packs)) > 0.7 * len(packs)  # a large one is often alone


@pytest.mark.parametrize("taken", [3, 17, 40])
def test_questions_go_on_where_they_were(taken):
    """The packs of a later round follow from all before."""
    straight, cut, again = (ranked(window=3)[0] for _ in range(3))
    expected = drawn(straight, 60)[taken:]
    drawn(cut, taken)
    again.load_state_dict(cut.state_dict())
    assert drawn(again, 60 - taken) == expected


def test_ranks_have_questions_of_their_own():
    """Questions on two ranks count twice."""
    ranks = [iter(found) for found in ranked(2)]
    for one, two in zip(*(list(islice(rank, 17)) for rank in ranks), strict=True):
        assert not set(groups_of(one)) & set(groups_of(two))
        assert bool(groups_of(one)) == bool(groups_of(two))


def test_questions_need_batches_of_one_task():
    with pytest.raises(UserError, match=r"task r ranks the candidates of a question.*: set batching.single_task=true"):
        ranked(single_task=False)


def test_questions_of_two_files_are_two():
    """Numbered from 0 in each: candidates without a label among those that are irrelevant."""
    train, more = part("r", 40), replace(part("r", 40, first=100), split="unlabelled")
    assert not set(train.groups) & set(more.groups)
    assert len(set(train.groups)) == len(set(train.tokens.group))


def test_tasks_are_shuffled_apart():
    """Two tasks of one size that walk in step: row i of one always meets row i of the other."""
    part_of, rows = stream({"a": 100, "b": 100}, epoch_rows=40).plan(0)
    assert set(rows[part_of == 0]) != set(rows[part_of == 1])


def test_each_window_is_shuffled_anew():
    """The longest batch always at the same place of its window: a rhythm in the loss that nobody asked for."""
    found = stream({"a": 600}, window=6)
    lengths = np.array([batch["input_ids"].shape[1] for batch in found]).reshape(-1, 6)
    assert len({tuple(window.argsort()) for window in lengths}) > 5


def test_rows_of_one_length_are_mixed():
    """Sorting that keeps ties in the order of tasks makes batches of one task each."""
    parts = [part("a", 160, length=9), part("b", 160, length=9)]
    found = TrainStream(parts, task_sampler=uniform, batch_size=40, pad_id=0, window=8)
    shares = [Counter(name for name, _ in batch)["a"] / 40 for batch in drawn(found, 8)]
    assert 0.2 < min(shares) < max(shares) < 0.8


def test_window_one_is_a_plain_shuffle():
    """Without buckets batches must not be sorted by length, nor by task."""
    batches = drawn(stream({"a": 90, "b": 90}, window=1, task_sampler=uniform, batch_size=30), 60)
    for batch in batches:
        assert Counter(name for name, _ in batch) == {"a": 15, "b": 15}
    first = [batch[0][1] for batch in batches]
    assert np.corrcoef(first, np.arange(60))[0, 1] < 0.5


@pytest.mark.parametrize("world_size", [2, 5])
@pytest.mark.parametrize("window", [1, 4])
def test_ranks_share_the_global_batch(world_size, window):
    """Ranks that draw for themselves see examples twice, and two processes are another experiment than one."""
    alone = stream(window=window)
    ranks = [stream(window=window, rank=rank, world_size=world_size) for rank in range(world_size)]
    assert {len(rank) for rank in ranks} == {len(alone)}
    for whole, *shares in zip(drawn(alone, 40), *(drawn(rank, 40) for rank in ranks), strict=True):
        assert {len(share) for share in shares} == {10 // world_size}
        assert Counter(row for share in shares for row in share) == Counter(whole)


def test_ranks_have_texts_of_one_length():
    """Cut in two halves, the rank of the long texts lets the others wait at every step."""
    ranks = [stream({"a": 1000}, batch_size=50, rank=rank, world_size=2) for rank in range(2)]
    whole = drawn(stream({"a": 1000}, batch_size=50), 20)
    for rank, found in enumerate(ranks):
        assert drawn(found, 20) == [batch[rank::2] for batch in whole]


def test_ranks_must_divide_the_batch():
    """A batch of 10 on 3 processes would be of 9 or of 12 rows."""
    with pytest.raises(UserError, match="batch_size is 10, expected a multiple of the 3 processes"):
        stream(rank=0, world_size=3)


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param({"window": 1}, id="window 1"),
        pytest.param({"window": 4}, id="window 4"),
        pytest.param({"window": 1000}, id="one window an epoch"),
        pytest.param({"task_sampler": annealed, "window": 4}, id="annealed"),
        pytest.param({"task_sampler": size_power, "window": 3, "epoch_rows": 70}, id="short epochs"),
        pytest.param({"task_sampler": size_power, "rank": 1, "world_size": 2}, id="rank 1 of 2"),
        pytest.param({"single_task": True, "window": 3}, id="one task"),
    ],
)
def test_resume_anywhere(settings):
    """A resumed run that repeats or skips rows is another run; one that rewinds the annealing is another method."""
    whole = stream(**settings)
    epochs = [list(whole) for _ in range(3)]
    batches = [batch for epoch in epochs for batch in epoch]
    for position in range(len(batches)):
        again = stream(**settings)
        again.load_state_dict({**whole.state_dict(), "taken": position})
        assert again.state_dict()["taken"] == position
        following = list(islice(again, 2)) + list(islice(again, 2))
        assert len(following) == 4
        for found, expected in zip(following, batches[position : position + 4], strict=False):
            assert equal(found, expected), position


def test_state_follows_the_batches():
    """A position that runs ahead of training by a prefetched batch loses a batch at each interruption."""
    found = stream()
    assert found.state_dict()["taken"] == 0
    for number, _ in enumerate(found, start=1):
        assert found.state_dict()["taken"] == number
    assert len(list(found)) == len(found)
    assert found.state_dict()["taken"] == 2 * len(found)


def test_position_moves_a_stream_in_use():
    """Lightning asks for the loader first and restores it later: a plan made before must not be used after."""
    found, other = stream(), stream()
    batches = drawn(other, 30)
    drawn(found, 6)
    found.load_state_dict({**found.state_dict(), "taken": 20})
    assert drawn(found, 4) == batches[20:24]
    found.load_state_dict({**found.state_dict(), "taken": 1})
    assert drawn(found, 4) == batches[1:5]


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        pytest.param({"seed": 1}, "seed", id="seed"),
        pytest.param({"batch_size": 5}, "batch_size", id="batch size"),
        pytest.param({"window": 3}, "window", id="window"),
        pytest.param({"sizes": {"a": 7, "b": 40, "c": 134}}, "sizes", id="another row"),
        pytest.param({"sizes": {"a": 7, "b": 40}}, "sizes", id="a task less"),
        pytest.param({"task_sampler": uniform}, "shares", id="another law"),
        pytest.param({"epochs": 4}, "steps", id="a longer run"),
    ],
)
def test_state_of_other_settings_is_refused(changes, name):
    """A position counted in other batches points at other rows."""
    state = stream(window=1).state_dict()
    with pytest.raises(UserError, match=f"the checkpoint's data stream has {name} .*, this run .*: cannot continue"):
        stream(**{"window": 1, **changes}).load_state_dict(state)


def test_any_number_of_ranks_continues():
    """A run that was interrupted on one process may go on on two."""
    alone = stream()
    whole = drawn(alone, 30)
    ranks = [stream(rank=rank, world_size=2) for rank in range(2)]
    for rank in ranks:
        rank.load_state_dict({**alone.state_dict(), "taken": 25})
    shares = [drawn(rank, 5) for rank in ranks]
    assert [Counter(a + b) for a, b in zip(*shares, strict=True)] == [Counter(batch) for batch in whole[25:]]


def waste(found: TrainStream, batches: int) -> float:
    """Return the padding's share of all positions."""
    masks = [batch["attention_mask"] for batch in islice(found, batches)]
    return 1 - sum(int(mask.sum()) for mask in masks) / sum(mask.numel() for mask in masks)


def test_windows_save_padding_and_nothing_else():
    """Buckets that change who is drawn buy speed with another law of sampling."""
    sizes = {"a": 400, "b": 1600}
    settings = {"task_sampler": uniform, "batch_size": 16, "epoch_rows": 16 * 128}
    plain, bucketed = stream(sizes, window=1, **settings), stream(sizes, window=64, **settings)
    assert waste(bucketed, 128) < 0.05 < 0.3 < waste(plain, 128)
    for number in range(3):
        rows = [Counter(), Counter()]
        part_of, row = bucketed.plan(number)
        rows[0].update(zip(part_of.ravel().tolist(), row.ravel().tolist(), strict=True))
        for small in range(64 * number, 64 * number + 64):
            part_of, row = plain.plan(small)
            rows[1].update(zip(part_of.ravel().tolist(), row.ravel().tolist(), strict=True))
        assert rows[0] == rows[1]


def test_batches_of_a_window_come_in_no_order():
    """Sorted batches that also arrive sorted: short texts first is a curriculum nobody asked for."""
    found = stream({"a": 2000}, window=64, batch_size=10)
    lengths = [batch["input_ids"].shape[1] for batch in islice(found, 50)]
    assert abs(np.corrcoef(lengths, np.arange(50))[0, 1]) < 0.5


def test_parts_of_a_task_are_one_task():
    """Unlabelled rows counted as a task of their own take another share."""
    parts = [part("a", 20), part("a", 60, split="unlabelled", first=500), part("b", 40)]
    found = TrainStream(parts, task_sampler=uniform, batch_size=8, pad_id=0, window=5)
    assert found.sizes == {"a": 80, "b": 40}
    batches = drawn(found, 20)
    assert Counter(name for batch in batches for name, _ in batch) == {"a": 80, "b": 80}
    assert len({row for batch in batches for row in batch if row[0] == "a"}) == 80


@pytest.mark.parametrize(("epoch_rows", "expected"), [(None, 18), (10, 1), (11, 2), (1, 1), (1000, 100)])
def test_length_of_an_epoch(epoch_rows, expected):
    """Progress, schedules and evaluation all count in epochs."""
    found = stream(epoch_rows=epoch_rows)
    assert len(found) == len(list(found)) == expected


def test_mapped_pages_go_back_every_few_batches(monkeypatch):
    """Random rows touch pages all over the arrays: resident memory would grow to their size."""
    released = Counter()
    monkeypatch.setattr(TokenTable, "release", lambda self: released.update([self.fingerprint]))
    drawn(stream(batch_size=4), 2 * RELEASE_EVERY)
    assert released == dict.fromkeys(SIZES, 2)


def test_full_batches_only():
    """A short last batch weighs its rows more, and gives ranks unequal shares."""
    assert {len(batch["example_id"]) for _ in range(2) for batch in stream({"a": 13}, batch_size=5)} == {5}


def test_nothing_to_learn_from_is_refused():
    """Rows without label and teacher would be trained as class 0."""
    with pytest.raises(UserError, match="task a: the unlabelled rows have neither labels nor a teacher"):
        TrainStream([part("a", 5, split="unlabelled", label=np.nan)], task_sampler=uniform, batch_size=2, pad_id=0)
