"""Soft targets: what a teacher said comes back for the same example, and anything else is refused by name."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from kd_lightning.data import Manifest, SoftTargets, StackedTeachers, ensemble
from kd_lightning.data.soft_targets import table as module
from kd_lightning.errors import UserError

LABELS = ("no", "maybe", "yes")
MANIFEST = Manifest(
    task="toy",
    split="train",
    labels=LABELS,
    rows=7,
    data="data " * 10,
    teacher="teacher",
    tokenizer="words",
    max_length=32,
    precision="32-true",
    both_orders=True,
)
IDS = torch.tensor([40, 3, ~3, 12, 7, ~40, 2**62])
LOGITS = 2 * torch.randn(7, 3, generator=torch.Generator().manual_seed(0))


def put(folder: Path, manifest: Manifest = MANIFEST, ids=IDS, logits=LOGITS) -> SoftTargets:
    """Return soft targets, written and opened."""
    SoftTargets.write(folder, manifest, ids, logits)
    return SoftTargets.open(folder, manifest)


def by_id(found: SoftTargets) -> dict[int, list]:
    """Return example id -> logits."""
    rows = found.find(found.example_id)
    return dict(zip(found.example_id.tolist(), found.logits[torch.from_numpy(rows)].tolist(), strict=True))


def test_round_trip(tmp_path):
    """Sorted ids beside unsorted logits: every example gets another one's teacher."""
    found = put(tmp_path / "store")
    assert by_id(found) == dict(zip(IDS.tolist(), LOGITS.tolist(), strict=True))
    assert found.manifest == MANIFEST
    assert found.logits.dtype == torch.float32
    assert (np.diff(found.example_id) > 0).all()
    some = np.array([12, ~3, 40, 12])
    torch.testing.assert_close(found.logits[torch.from_numpy(found.find(some))], LOGITS[[3, 2, 0, 3]], rtol=0, atol=0)


def test_half_precision_is_stored_as_float32(tmp_path):
    """A bf16 teacher must not make a bf16 store that mixes with others."""
    assert put(tmp_path / "store", logits=LOGITS.bfloat16()).logits.dtype == torch.float32


def test_views_are_stored_whole(tmp_path):
    """Slices of a larger tensor share its memory; safetensors would refuse or store all of it."""
    wide = torch.cat([LOGITS, LOGITS], dim=1)
    assert by_id(put(tmp_path / "store", logits=wide[:, 3:])) == by_id(put(tmp_path / "other"))


def test_key_is_the_content(tmp_path):
    """Two teachers under one address: the second student learns from the first one's teacher."""
    changes = {
        "task": "other",
        "split": "unlabelled",
        "labels": ("yes", "maybe", "no"),
        "rows": 8,
        "data": "other",
        "teacher": "other",
        "tokenizer": "other",
        "max_length": 64,
        "precision": "bf16-mixed",
        "both_orders": False,
        "augmenter": "pos",
        "format": 2,
    }
    assert set(changes) == {field.name for field in fields(Manifest)} - {"versions"}
    keys = {MANIFEST.key(), *(replace(MANIFEST, **{name: value}).key() for name, value in changes.items())}
    assert len(keys) == len(changes) + 1
    assert replace(MANIFEST, versions={"torch": "3"}).key() == MANIFEST.key()


def test_identity_is_of_manifest_and_logits(tmp_path):
    """Other logits under the same manifest: the student of the first would be found for the second."""
    found = put(tmp_path / "store")
    assert found.identity == put(tmp_path / "again").identity
    assert found.identity != put(tmp_path / "others", logits=-LOGITS).identity
    assert found.identity != put(tmp_path / "longer", replace(MANIFEST, max_length=64)).identity


def test_versions_are_recorded_and_not_refused(tmp_path):
    """A new version of a library must not throw a store away; what wrote it stays on record."""
    put(tmp_path / "store", replace(MANIFEST, versions={"torch": "2.13.0"}))
    found = SoftTargets.open(tmp_path / "store", replace(MANIFEST, versions={"torch": "3.0.0"}))
    assert found.manifest.versions == {"torch": "2.13.0"}


@pytest.mark.parametrize(
    ("change", "found", "expected"),
    [
        pytest.param({"task": "rte"}, "toy", "rte", id="task"),
        pytest.param({"split": "validation"}, "train", "validation", id="split"),
        pytest.param({"labels": ("yes", "maybe", "no")}, r"\['no', 'maybe', 'yes'\]", r"\['yes', 'maybe'", id="labels"),
        pytest.param({"rows": 8}, "7", "8", id="rows"),
        pytest.param({"data": "other rows"}, "data data da...", "other rows", id="data"),
        pytest.param({"teacher": "younger"}, "teacher", "younger", id="teacher"),
        pytest.param({"tokenizer": "letters"}, "words", "letters", id="tokenizer"),
        pytest.param({"max_length": 64}, "32", "64", id="max_length"),
        pytest.param({"precision": "bf16-mixed"}, "32-true", "bf16-mixed", id="precision"),
        pytest.param({"both_orders": False}, "True", "False", id="both_orders"),
        pytest.param({"augmenter": "pos"}, "None", "pos", id="augmenter"),
    ],
)
def test_another_manifest_is_refused(tmp_path, change, found, expected):
    """Logits in another label order teach the opposite, and the student's loss still falls."""
    put(tmp_path / "store")
    (name,) = change
    message = f"store: field {name} is {found}, expected {expected}.*; delete the folder and write them again"
    with pytest.raises(UserError, match=message):
        SoftTargets.open(tmp_path / "store", replace(MANIFEST, **change))
    assert SoftTargets.open(tmp_path / "store").manifest == MANIFEST


def rewrite(folder: Path, ids: torch.Tensor, logits: torch.Tensor, *, digest: bool) -> None:
    """Replace the tensors; with the digest, as a writer that checks nothing would."""
    save_file({"example_id": ids, "logits": logits}, folder / "logits.safetensors")
    if digest:
        actual = hashlib.sha256((folder / "logits.safetensors").read_bytes()).hexdigest()
        edit(folder, sha256=actual)


def edit(folder: Path, **changes: object) -> None:
    """Change fields of the manifest; None takes one out."""
    found = json.loads((folder / "manifest.json").read_text())
    found = {name: value for name, value in (found | changes).items() if value != "take out"}
    (folder / "manifest.json").write_text(json.dumps(found))


def with_value(value: float) -> torch.Tensor:
    """Return the logits with one value changed."""
    logits = LOGITS.clone()
    logits[4, 1] = value
    return logits


DAMAGES = {
    "rows in another order": (lambda f: rewrite(f, IDS.flip(0), LOGITS, digest=False), "field sha256 is"),
    "one logit changed": (lambda f: rewrite(f, IDS, with_value(0.0), digest=False), "field sha256 is"),
    "one byte changed": (lambda f: flip_byte(f / "logits.safetensors"), "field sha256 is"),
    "file cut short": (lambda f: os.truncate(f / "logits.safetensors", 100), "field sha256 is"),
    "file emptied": (lambda f: os.truncate(f / "logits.safetensors", 0), "field sha256 is"),
    "no digest": (lambda f: edit(f, sha256="take out"), "field sha256 is None"),
    "an id twice": (
        lambda f: rewrite(f, torch.tensor([*IDS[:6], 40]), LOGITS, digest=True),
        "example_id 40 occurs 2 tim",
    ),
    "not a number": (lambda f: rewrite(f, IDS, with_value(float("nan")), digest=True), "logits of example_id 7 are"),
    "infinite": (lambda f: rewrite(f, IDS, with_value(float("inf")), digest=True), "logits of example_id 7 are"),
    "a row less": (lambda f: rewrite(f, IDS[1:], LOGITS[1:], digest=True), r"rows is \(6, 3\) .*, expected \(7, 3\)"),
    "ids and logits of other lengths": (lambda f: rewrite(f, IDS[1:], LOGITS, digest=True), "rows is"),
    "a class less": (lambda f: rewrite(f, IDS, LOGITS[:, 1:].clone(), digest=True), r"rows is \(7, 2\) .* \(7, 3\)"),
    "no manifest": (lambda f: (f / "manifest.json").unlink(), "manifest.json is missing, expected a complete folder"),
    "no logits": (lambda f: (f / "logits.safetensors").unlink(), "logits.safetensors is missing"),
    "manifest cut short": (lambda f: os.truncate(f / "manifest.json", 40), "manifest.json is not JSON"),
    "unknown field": (lambda f: edit(f, temperature=2.0), "manifest.json lacks or adds the field temperature"),
    "missing field": (lambda f: edit(f, teacher="take out"), "manifest.json lacks or adds the field teacher"),
    "other format": (lambda f: edit(f, format=2), "format is 2, expected 1"),
    "relabelled": (lambda f: edit(f, labels=["yes", "maybe", "no"]), "field labels is"),
    "nothing there": (lambda f: [path.unlink() for path in f.iterdir()], "manifest.json is missing"),
    "not safetensors": (lambda f: garbage(f), "logits.safetensors cannot be read"),
}


def flip_byte(path: Path) -> None:
    """Change the last byte of a file."""
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


def garbage(folder: Path) -> None:
    """Write a file that is no safetensors, with its own digest."""
    rewrite(folder, IDS, LOGITS, digest=False)
    (folder / "logits.safetensors").write_bytes(b"pickle")
    edit(folder, sha256=hashlib.sha256(b"pickle").hexdigest())


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_refused(tmp_path, damage):
    """A stale or broken store is a teacher that was never there; it must not be a silent, plausible, wrong one."""
    break_it, message = DAMAGES[damage]
    put(tmp_path / "store")
    break_it(tmp_path / "store")
    for expected in (MANIFEST, None):
        if damage == "relabelled" and expected is None:
            continue  # only who knows better can tell
        with pytest.raises(UserError, match=message) as caught:
            SoftTargets.open(tmp_path / "store", expected)
        assert str(tmp_path / "store") in str(caught.value)


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        pytest.param([5], "1 of 1 example_id have no soft target, first: 5;", id="one"),
        pytest.param([40, 1, 3, 2**63 - 1, ~12], "3 of 5 .*, first: 1, 9223372036854775807, -13;", id="several"),
        pytest.param([~7], "first: -8;", id="no swapped copy"),
    ],
)
def test_missing_ids_are_refused(tmp_path, wanted, message):
    """The nearest id instead of the missing one, or a row of zeros."""
    with pytest.raises(UserError, match=message):
        put(tmp_path / "store").find(np.array(wanted))


@pytest.mark.parametrize(
    ("ids", "logits", "message"),
    [
        pytest.param(torch.tensor([3, *IDS[1:]]), LOGITS, "toy train: example_id 3 occurs 2 times", id="duplicate"),
        pytest.param(IDS, with_value(float("nan")), "logits of example_id 7 are .* expected finite", id="nan"),
        pytest.param(IDS, with_value(-float("inf")), "logits of example_id 7 are .* expected finite", id="inf"),
        pytest.param(IDS[1:], LOGITS[1:], r"shapes \(6,\) and \(6, 3\), expected 7 x 3", id="a row less"),
        pytest.param(IDS, LOGITS[1:], r"shapes \(7,\) and \(6, 3\), expected 7 x 3", id="unequal"),
        pytest.param(IDS, LOGITS[:, :2], r"shapes \(7,\) and \(7, 2\), expected 7 x 3", id="a class less"),
    ],
)
def test_nothing_wrong_is_written(tmp_path, ids, logits, message):
    """Trap 3: 96 rows, 32 distinct, found when a student has already learned from them."""
    with pytest.raises(UserError, match=message):
        SoftTargets.write(tmp_path / "store", MANIFEST, ids, logits)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("broken", ["write_file", "write_json"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_whole_or_not_at_all(tmp_path, monkeypatch, broken, error):
    """A full disk or Ctrl-C between logits and manifest: half a store that another job picks up."""

    def stop(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(module, broken, stop)
    with pytest.raises(error):
        put(tmp_path / "store")
    assert list(tmp_path.iterdir()) == []


def test_a_failure_keeps_the_old_one(tmp_path, monkeypatch):
    """A store that is cleared before its successor is whole."""
    put(tmp_path / "store")
    with monkeypatch.context() as patch:
        patch.setattr(module, "write_json", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            put(tmp_path / "store", logits=LOGITS + 1)
    assert by_id(SoftTargets.open(tmp_path / "store", MANIFEST)) == dict(
        zip(IDS.tolist(), LOGITS.tolist(), strict=True)
    )
    again = put(tmp_path / "store", logits=LOGITS + 1)
    assert by_id(again)[40] == (LOGITS[0] + 1).tolist()
    assert sorted(path.name for path in (tmp_path / "store").iterdir()) == ["logits.safetensors", "manifest.json"]


def members(folder: Path, count: int = 3, scores: bool = False) -> list[SoftTargets]:
    """Return teachers of the same examples, each with its rows in an order of its own."""
    random = np.random.default_rng(2)
    found = []
    for number in range(count):
        order = torch.from_numpy(random.permutation(7))
        logits = torch.from_numpy(random.normal(size=(7, 1 if scores else 3)).astype(np.float32))
        manifest = replace(MANIFEST, teacher=f"t{number}", labels=() if scores else LABELS, max_length=32 + number)
        found.append(put(folder / str(number), manifest, IDS[order], logits))
    return found


def test_teachers_side_by_side_are_joined_by_id(tmp_path):
    """Teachers stacked by position are teachers of different examples."""
    teachers = members(tmp_path)
    found = StackedTeachers(teachers)
    assert found.shape == (3, 3)
    for number in IDS.tolist():
        (said,) = found.of(np.array([number]))
        assert said.tolist() == [by_id(teacher)[number] for teacher in teachers]
    assert found.of(IDS.numpy()).shape == (7, 3, 3)


@pytest.mark.parametrize("at_once", [1, 3, 7])
def test_the_mean_is_the_same_in_slices(tmp_path, monkeypatch, at_once):
    """Rows twice, or none, where two slices meet; the rows of another file in another order."""
    whole = ensemble(members(tmp_path))
    monkeypatch.setattr("kd_lightning.data.soft_targets.ensembles.SLICE", at_once)
    found = ensemble(members(tmp_path))
    assert torch.equal(found.of(IDS.numpy()), whole.of(IDS.numpy()))


@pytest.mark.parametrize("times", [1, 2, 5])
def test_an_ensemble_of_equals_is_any_of_them(tmp_path, times):
    """Logits, not probabilities, at the teachers' own level: the squared distance from them must not know how many."""
    (teacher,) = members(tmp_path, 1)
    found = ensemble([teacher] * times)
    for number, values in by_id(found).items():
        assert values == pytest.approx(by_id(teacher)[number], rel=1e-5, abs=1e-5)


def test_ensemble_is_the_mean_of_probabilities(tmp_path):
    """The mean of logits lets the surest teacher decide alone; MT-DNN-KD averages probabilities."""
    teachers = members(tmp_path)
    found = ensemble(teachers)
    for number, values in by_id(found).items():
        x = np.array([by_id(teacher)[number] for teacher in teachers], dtype=np.float64)
        expected = (np.exp(x) / np.exp(x).sum(-1, keepdims=True)).mean(0)
        np.testing.assert_allclose(np.exp(values) / np.exp(values).sum(), expected, rtol=1e-5)
        levels = np.log(np.exp(x).sum(-1))
        assert np.log(np.exp(values).sum()) == pytest.approx(levels.mean(), abs=1e-5)


def test_ensemble_of_scores_is_their_mean(tmp_path):
    """A softmax over one score is 1 for every example."""
    teachers = members(tmp_path, scores=True)
    for number, values in by_id(ensemble(teachers)).items():
        assert values == pytest.approx([np.mean([by_id(teacher)[number] for teacher in teachers])])


def test_identity_of_an_ensemble(tmp_path):
    """An ensemble under its first member's address: the student of one teacher is taken for that of five."""
    one, two, three = members(tmp_path)
    found = [one.identity, *(ensemble(some).identity for some in ([one], [one, two], [one, three], [one, two, three]))]
    assert len({*found, StackedTeachers([one, two]).identity}) == 6
    assert ensemble([one, two]).identity == ensemble([one, two]).identity


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param({"task": "rte"}, "field task is rte, expected toy as in", id="task"),
        pytest.param({"split": "test"}, "field split is test, expected train as in", id="split"),
        pytest.param({"labels": ("yes", "no", "maybe")}, r"field labels is \['yes', 'no', 'maybe'\]", id="labels"),
        pytest.param({"data": "other"}, "field data is other, expected data data da", id="data"),
        pytest.param({"both_orders": False}, "field both_orders is False, expected True", id="orders"),
        pytest.param({"augmenter": "pos"}, "field augmenter is pos, expected None", id="augmenter"),
    ],
)
def test_strangers_are_refused(tmp_path, change, message):
    """Teachers of other data, or with classes in another order, are no ensemble."""
    first, *_ = members(tmp_path, 1)
    other = put(tmp_path / "other", replace(first.manifest, **change))
    with pytest.raises(UserError, match=message):
        StackedTeachers([first, other])
    with pytest.raises(UserError, match=message):
        ensemble([first, other])


def test_strangers_with_other_ids_are_refused(tmp_path):
    """The same fingerprint, by mistake, over other examples."""
    (first,) = members(tmp_path, 1)
    other = put(tmp_path / "other", ids=torch.tensor([*IDS[:6], 99]))
    with pytest.raises(UserError, match="1 of 7 example_id have no soft target, first: 4611686018427387904"):
        StackedTeachers([first, other]).require(first.example_id)
    with pytest.raises(UserError, match="1 of 7 example_id have no soft target"):
        ensemble([first, other])


def mapped(address: int) -> str:
    """Return the file that the system maps at an address of this process, or nothing."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        span, *_, name = line.split(maxsplit=5)
        first, last = (int(end, 16) for end in span.split("-"))
        if first <= address < last:
            return name
    return ""


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="only Linux tells what is mapped where")
def test_logits_are_not_copied(tmp_path):
    """Twenty students of one teacher, each with a copy of its million logits in memory."""
    ids = torch.arange(7)
    found = put(tmp_path / "store", ids=ids)
    file = str((tmp_path / "store" / "logits.safetensors").resolve())
    assert mapped(found.logits.data_ptr()) == file
    assert mapped(found.example_id.__array_interface__["data"][0]) == file
    tensors = load_file(file)
    assert {name: (tuple(x.shape), x.dtype) for name, x in tensors.items()} == {
        "example_id": ((7,), torch.int64),
        "logits": ((7, 3), torch.float32),
    }
