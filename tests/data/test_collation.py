"""Batches: each row keeps its own text, label and teacher, and what is missing stays missing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from kd_lightning.data import Part, collate, tokenise
from kd_lightning.data.batches.collation import check_teachable
from kd_lightning.encoders.vocabulary import train_tokenizer
from kd_lightning.errors import UserError


@pytest.fixture
def whole(tokenizer):
    """Return a function: parts -> one batch of all their rows, in a random order."""

    def whole(*parts, seed=0):
        part_of = np.repeat(np.arange(len(parts)), [len(part.tokens) for part in parts])
        rows = np.concatenate([np.arange(len(part.tokens)) for part in parts])
        order = np.random.default_rng(seed).permutation(len(rows))
        return collate(parts, part_of[order], rows[order], tokenizer.pad_token_id)

    return whole


@pytest.fixture
def tokens_of(tmp_path, tokenizer, write_rows):
    """Return a function: task, columns -> their token table."""

    def tokens_of(task, columns, *, labelled=True, words=tokenizer, name="more"):
        rows = write_rows(name, task, columns, labelled=labelled)
        return tokenise(rows, words, max_length=32, both_orders=task.both_orders, cache=tmp_path, name=name)

    return tokens_of


def texts(batch, name, tokenizer):
    """Return example id -> the row's text, special tokens included, padding left out."""
    found = {}
    for row in batch["tasks"][name]["rows"].tolist():
        ids = batch["input_ids"][row][batch["attention_mask"][row] == 1]
        found[int(batch["example_id"][row])] = tokenizer.decode(ids)
    return found


def by_id(batch, name, field):
    """Return example id -> the row's value of a field of its task."""
    rows = batch["tasks"][name]
    return dict(zip(batch["example_id"][rows["rows"]].tolist(), rows[field].tolist(), strict=True))


def test_every_row_has_its_task(whole, parts):
    """A row that no head reads, or that two read."""
    batch = whole(*parts)
    rows = torch.cat([rows["rows"] for rows in batch["tasks"].values()])
    assert sorted(rows.tolist()) == list(range(len(batch["example_id"])))
    assert {name: len(rows["rows"]) for name, rows in batch["tasks"].items()} == {"mood": 24, "nli": 18, "near": 28}


@pytest.mark.parametrize("seed", [0, 1])
def test_class_labels(whole, parts, toys, seed):
    """Labels by position instead of by row: half of them right by chance, and a student that learns slowly."""
    batch = whole(*parts, seed=seed)
    for name in ("mood", "nli"):
        toy = toys[name]
        expected = {i: toy.task.labels.index(y) for i, y in zip(toy.columns["id"], toy.columns["label"], strict=True)}
        assert by_id(batch, name, "labels") == expected
        assert batch["tasks"][name]["labels"].dtype == torch.int64


def test_texts_follow_their_ids(whole, parts, toys, tokenizer):
    """Tokens of the neighbouring example: the labels are right, the words are not."""
    found = texts(whole(*parts), "nli", tokenizer)
    columns = toys["nli"].columns
    for number, a, b in zip(columns["id"], columns["first"], columns["second"], strict=True):
        assert found[number] == f"[CLS] {a} [SEP] {b} [SEP]"


def test_swapped_copies(whole, parts, toys, tokenizer):
    """Copies under the original's id take the original's soft targets; swapped types but not texts are no copies."""
    batch = whole(*parts)
    found, labels, columns = texts(batch, "near", tokenizer), by_id(batch, "near", "labels"), toys["near"].columns
    assert set(found) == {*columns["id"], *(~i for i in columns["id"])}
    for number, a, b in zip(columns["id"], columns["first"], columns["second"], strict=True):
        assert found[number] == f"[CLS] {a} [SEP] {b} [SEP]"
        assert found[~number] == f"[CLS] {b} [SEP] {a} [SEP]"
        assert labels[number] == labels[~number]


@pytest.mark.parametrize("score_range", [(1.0, 5.0), (0.0, 5.0), (-2.0, 6.0)], ids=str)
def test_scores_by_the_true_range(whole, toys, score_range):
    """Divided by the maximum (BAM's code) a range from 1 to 5 becomes 0.2 to 1."""
    toy = toys["near"]
    low, high = score_range
    batch = whole(replace(toy.part, task=replace(toy.task, score_range=score_range)))
    labels = by_id(batch, "near", "labels")
    for number, score in zip(toy.columns["id"], toy.columns["label"], strict=True):
        assert labels[number] == pytest.approx((score - low) / (high - low))
    assert batch["tasks"]["near"]["labels"].dtype == torch.float32
    if score_range == (1.0, 5.0):
        assert (min(labels.values()), max(labels.values())) == (0.0, 1.0)


def test_padding_and_types(whole, parts, tokenizer):
    """Padding that counts as text, or a second text of type 0."""
    batch = whole(*parts)
    ids, mask, types = batch["input_ids"], batch["attention_mask"], batch["token_type_ids"]
    assert ids.shape == mask.shape == types.shape
    assert {x.dtype for x in (ids, mask, types)} == {torch.int64}
    assert mask.sum(1).max() == mask.shape[1]
    assert (mask.diff(dim=1) <= 0).all()
    assert (ids[mask == 0] == tokenizer.pad_token_id).all()
    assert (types[mask == 0] == 0).all()
    pairs = torch.cat([batch["tasks"][name]["rows"] for name in ("nli", "near")])
    for row in pairs.tolist():
        first_end = (ids[row] == tokenizer.sep_token_id).nonzero()[0].item()
        expected = (torch.arange(ids.shape[1]) > first_end) & (mask[row] == 1)
        assert torch.equal(types[row], expected.long())
    assert not types[batch["tasks"]["mood"]["rows"]].any()


def test_a_row_is_the_same_in_any_company(parts, tokenizer):
    """A row that takes over its neighbour's tokens where lengths differ."""
    random = np.random.default_rng(5)
    for _ in range(20):
        part_of = random.integers(0, 3, 6)
        rows = np.array([random.integers(len(parts[p].tokens)) for p in part_of])
        batch = collate(parts, part_of, rows, tokenizer.pad_token_id)
        for p, row in zip(part_of, rows, strict=True):
            alone = collate(parts, np.array([p]), np.array([row]), tokenizer.pad_token_id)
            name, number = parts[p].task.name, alone["example_id"].item()
            for place in batch["tasks"][name]["rows"].tolist():
                if batch["example_id"][place] == number:
                    length = alone["input_ids"].shape[1]
                    for field in ("input_ids", "attention_mask", "token_type_ids"):
                        assert torch.equal(batch[field][place, :length], alone[field][0])
                        assert not batch["attention_mask"][place, length:].any()
                    break
            else:
                pytest.fail(f"{name} {number} is not in the batch")


def test_no_teacher_is_nan(whole, parts, teach):
    """A zero for a missing teacher is a plausible logit: the student learns to be unsure."""
    batch = whole(parts[0], teach(parts[1]))
    missing, present = batch["tasks"]["mood"], batch["tasks"]["nli"]
    assert missing["teacher_logits"].isnan().all()
    assert missing["teacher_logits"].shape == (24, 2)
    assert not missing["has_teacher"].any()
    assert present["has_teacher"].all()
    assert present["teacher_logits"].isfinite().all()
    assert {rows["has_teacher"].dtype for rows in batch["tasks"].values()} == {torch.bool}


def test_teachers_are_found_by_id(whole, parts, teach):
    """Joined by position each example gets another one's teacher, and the loss still falls."""
    taught = [teach(part, seed) for seed, part in enumerate(parts)]
    batch = whole(*taught)
    for part in taught:
        store, found = part.soft_targets, by_id(batch, part.task.name, "teacher_logits")
        assert not np.array_equal(store.example_id, part.tokens.example_id)
        for place, number in zip(store.order, store.example_id, strict=True):
            assert found[number] == store.logits[place].tolist()


def test_subsets_and_other_tokenizers_keep_their_teacher(whole, teach, toys, tokens_of):
    """Teacher and student of different vocabularies, the student on a tenth of the data: ids are all they share."""
    toy = toys["nli"]
    taught = teach(toy.part)
    expected = by_id(whole(taught), "nli", "teacher_logits")
    keep = [11, 3, 7, 0]
    columns = {name: [values[i] for i in keep] for name, values in toy.columns.items()}
    words = train_tokenizer(toy.columns["first"], 30)
    tokens = tokens_of(toy.task, columns, words=words)
    batch = whole(Part(toy.task, "train", tokens, taught.soft_targets))
    assert not np.array_equal(tokens.input_ids, tokens_of(toy.task, columns, name="same").input_ids)
    assert by_id(batch, "nli", "teacher_logits") == {i: expected[i] for i in columns["id"]}


def test_swapped_copies_have_their_own_teacher(whole, toys, teach):
    """BAM's teacher reads both orders, and its scores of them differ."""
    found = by_id(whole(teach(toys["near"].part)), "near", "teacher_logits")
    assert all(found[i] != found[~i] for i in toys["near"].columns["id"])


def test_an_example_without_soft_target_is_refused(teach, toys):
    """Left out quietly, the rows of a stale store are trained without their teacher."""
    part = toys["mood"].part
    ids = part.tokens.example_id
    with pytest.raises(UserError, match=f"2 of 24 example_id have no soft target, first: {ids[0]}, {ids[5]}"):
        teach(part, only=[i for i in ids if i not in (ids[0], ids[5])])


def test_parts_of_a_task_merge(whole, toys, teach, tokens_of):
    """The second part of a task must not take the place of the first, nor its missing labels become class 0."""
    toy = toys["mood"]
    plain = {"text": ["the cup sees good", "the man has bad"], "id": [9001, 9000]}
    unlabelled = Part(toy.task, "unlabelled", tokens_of(toy.task, plain, labelled=False))
    unlabelled = teach(unlabelled, seed=4)
    batch = whole(toy.part, unlabelled)
    rows = batch["tasks"]["mood"]
    assert len(rows["rows"]) == len(rows["labels"]) == len(rows["teacher_logits"]) == 26
    assert sorted(rows["rows"].tolist()) == list(range(26))
    has_label, has_teacher = by_id(batch, "mood", "has_label"), by_id(batch, "mood", "has_teacher")
    assert {i for i, known in has_label.items() if not known} == {9000, 9001}
    assert {i for i, known in has_teacher.items() if known} == {9000, 9001}
    expected = {i: unlabelled.soft_targets.logits[unlabelled.soft_targets.find(np.array([i]))[0]] for i in plain["id"]}
    found = by_id(batch, "mood", "teacher_logits")
    assert {i: found[i] for i in plain["id"]} == {i: x.tolist() for i, x in expected.items()}


@pytest.mark.parametrize("name", ["mood", "near"])
def test_unlabelled_rows(whole, toys, teach, tokens_of, name):
    """NaN turned into an integer is some class; NaN left in is a loss of NaN (0 * nan is nan)."""
    toy = toys[name]
    columns = {column: values for column, values in toy.columns.items() if column != "label"}
    part = Part(toy.task, "unlabelled", tokens_of(toy.task, columns, labelled=False))
    assert not part.labelled
    rows = whole(teach(part))["tasks"][name]
    assert not rows["has_label"].any()
    assert rows["labels"].isfinite().all()
    with pytest.raises(UserError, match=f"task {name}: the unlabelled rows have neither labels nor a teacher"):
        check_teachable([toy.part, part])
    check_teachable([toy.part, teach(part)])
