"""Soft targets on disk: a teacher's logits by example id, with a manifest that says what they are the logits of.

One folder holds one (teacher, task, split): ``logits.safetensors`` with ``example_id`` int64 ``[N]`` and ``logits``
float32 ``[N, C]``, and ``manifest.json``. Logits, not probabilities, are stored: temperature stays a choice of the
student. Readers state what they expect and are refused on any difference.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from kd_lightning.data.folders import file_hash, new_folder, read_json, write_json
from kd_lightning.errors import UserError

FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What a folder of soft targets is about.

    Args:
        task: Name of the task.
        split: Name of the split.
        labels: Class names in the order of the logits; empty for scores.
        rows: Number of examples.
        data: Fingerprint of the split's rows.
        teacher: Hash of the teacher's weights.
        tokenizer: Hash of the teacher's tokenizer.
        max_length: The teacher's longest input in tokens.
        both_orders: Whether swapped pairs are there, too.
        augmenter: Fingerprint of the augmentation, None without one.
        format: Version of the layout.
    """

    task: str
    split: str
    labels: tuple[str, ...]
    rows: int
    data: str
    teacher: str
    tokenizer: str
    max_length: int
    both_orders: bool
    augmenter: str | None = None
    format: int = FORMAT

    def key(self) -> str:
        """Return the content address: a short hash of all fields."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class SoftTargets:
    """A teacher's logits, memory-mapped and joined by example id.

    Args:
        example_id: int64 ``[N]``, ascending.
        order: Row of ``logits`` that belongs to each of ``example_id``, int64 ``[N]``; None if they are in order.
        logits: float32 ``[N, C]``, or ``[N, T, C]`` of several teachers.
        manifest: What they are.
        folder: Where they are, for messages.
        identity: Content address: of the manifest, or of all members' manifests.
    """

    example_id: NDArray[np.int64]
    order: NDArray[np.int64] | None
    logits: Tensor
    manifest: Manifest
    folder: Path
    identity: str

    @classmethod
    def write(cls, folder: Path, manifest: Manifest, example_id: Tensor, logits: Tensor) -> None:
        """Write soft targets into a new folder, whole or not at all.

        Args:
            folder: The folder; an old one of this name is replaced.
            manifest: Says what is written; its number of rows and classes must be that of the tensors.
            example_id: int64 ``[N]``, unique.
            logits: float32 ``[N, C]``, finite.

        Raises:
            UserError: If ids repeat, a logit is not finite, or the shapes are not the manifest's.
        """
        where = f"soft targets for {manifest.task} {manifest.split}"
        classes = len(manifest.labels) or 1
        if example_id.shape != (manifest.rows,) or logits.shape != (manifest.rows, classes):
            shapes = f"{tuple(example_id.shape)} and {tuple(logits.shape)}"
            raise UserError(f"{where}: ids and logits have the shapes {shapes}, expected {manifest.rows} x {classes}")
        _check_values(where, example_id.numpy(), logits)
        with new_folder(folder) as part:
            tensors = {"example_id": example_id.contiguous(), "logits": logits.float().contiguous()}
            save_file(tensors, part / "logits.safetensors")
            digest = file_hash(part / "logits.safetensors")
            write_json(part / "manifest.json", {**asdict(manifest), "sha256": digest})

    @classmethod
    def open(cls, folder: Path, expected: Manifest | None = None) -> SoftTargets:
        """Return the soft targets of a folder.

        Args:
            folder: Written by ``write``.
            expected: What the reader wants; None takes them as they are.

        Raises:
            UserError: If anything is missing, damaged or not as expected; the message names the field and both values.
        """
        manifest = _read_manifest(folder, expected)
        path = folder / "logits.safetensors"
        try:
            with safe_open(path, framework="pt") as file:
                example_id, logits = file.get_tensor("example_id").numpy(), file.get_tensor("logits")
        except (OSError, SafetensorError) as error:
            raise _refusal(folder, f"logits.safetensors cannot be read ({error})") from error
        shape = (manifest.rows, len(manifest.labels) or 1)
        if tuple(logits.shape) != shape or example_id.shape != shape[:1]:
            raise _refusal(folder, f"rows is {tuple(logits.shape)} in the file, expected {shape} by the manifest")
        _check_values(f"soft targets {folder}", example_id, logits)
        if (np.diff(example_id) > 0).all():  # as they are written by us: no copies
            return cls(example_id, None, logits, manifest, folder, manifest.key())
        order = np.argsort(example_id, kind="stable")
        return cls(example_id[order], order, logits, manifest, folder, manifest.key())

    def find(self, example_id: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the rows of ``logits`` that belong to the given ids, ``[n]``.

        Raises:
            UserError: If an id has no soft target; the message counts them and names the first.
        """
        place = np.searchsorted(self.example_id, example_id)
        place = np.minimum(place, len(self.example_id) - 1)
        missing = example_id[self.example_id[place] != example_id]
        if len(missing):
            first = ", ".join(map(str, missing[:3]))
            raise _refusal(
                self.folder, f"{len(missing)} of {len(example_id)} example_id have no soft target, first: {first}"
            )
        return place if self.order is None else self.order[place]


def _check_values(where: str, example_id: NDArray[np.int64], logits: Tensor) -> None:
    if not (np.diff(example_id) > 0).all():
        ids, counts = np.unique(example_id, return_counts=True)
        if len(ids) < len(example_id):
            first = ids[counts > 1][0]
            raise UserError(f"{where}: example_id {first} occurs {counts.max()} times, expected unique ids")
    if not logits.isfinite().all():
        row = int((~logits.isfinite()).flatten(1).any(1).nonzero()[0])
        values = logits[row].tolist()
        raise UserError(f"{where}: logits of example_id {example_id[row]} are {values}, expected finite numbers")


def _refusal(folder: Path, reason: str) -> UserError:
    return UserError(f"soft targets {folder}: {reason}; delete the folder and write them again")


def _read_manifest(folder: Path, expected: Manifest | None) -> Manifest:
    path = folder / "manifest.json"
    if not path.is_file():
        raise _refusal(folder, "manifest.json is missing, expected a complete folder of soft targets")
    try:
        found: dict[str, Any] = read_json(path)
    except ValueError as error:
        raise _refusal(folder, f"manifest.json is not JSON ({error})") from error
    if not isinstance(found, dict):
        raise _refusal(folder, "manifest.json holds no object with the manifest's fields")
    digest = found.pop("sha256", None)
    names = {field.name for field in fields(Manifest)}
    if set(found) != names:
        different = ", ".join(sorted(set(found) ^ names))
        raise _refusal(folder, f"manifest.json lacks or adds the field {different}")
    if not isinstance(found["labels"], list):
        raise _refusal(folder, f"field labels is {found['labels']}, expected a list of names")
    manifest = Manifest(**{**found, "labels": tuple(found["labels"])})
    if manifest.format != FORMAT:
        raise _refusal(folder, f"format is {manifest.format}, expected {FORMAT}")
    if expected is not None:
        _check_expected(folder, manifest, expected)
    logits = folder / "logits.safetensors"
    if not logits.is_file():
        raise _refusal(folder, "logits.safetensors is missing")
    actual = file_hash(logits)
    if actual != digest:
        raise _refusal(folder, f"field sha256 is {_show(digest)}, the file has {_show(actual)} (cut short or changed)")
    return manifest


def _check_expected(folder: Path, manifest: Manifest, expected: Manifest) -> None:
    for field in fields(Manifest):
        have, want = getattr(manifest, field.name), getattr(expected, field.name)
        if have != want:
            raise _refusal(folder, f"field {field.name} is {_show(have)}, expected {_show(want)}")


def _show(value: object) -> str:
    text = str(list(value) if isinstance(value, tuple) else value)
    return text if len(text) <= 40 else text[:12] + "..."


def stack(members: Sequence[SoftTargets]) -> SoftTargets:
    """Return the logits of several teachers side by side, ``[N, T, C]``, joined by id.

    Raises:
        UserError: If the members differ in task, split, labels or data; the message names the field and both values.
    """
    first, *others = members
    for other in others:
        for name in ("task", "split", "labels", "data", "rows", "both_orders", "augmenter"):
            have, want = getattr(other.manifest, name), getattr(first.manifest, name)
            if have != want:
                reason = f"field {name} is {_show(have)}, expected {_show(want)} as in {first.folder}"
                raise _refusal(other.folder, reason)
    ids = first.example_id
    logits = torch.stack([m.logits[torch.from_numpy(m.find(ids))] for m in members], dim=1)
    identity = hashlib.sha256(" ".join(m.identity for m in members).encode()).hexdigest()[:16]
    return SoftTargets(ids, None, logits, first.manifest, first.folder, identity)


def ensemble(members: Sequence[SoftTargets]) -> SoftTargets:
    """Return the mean of the teachers' probabilities, stored as their logarithm; of scores, their mean.

    Source: Liu et al. 2019 (MT-DNN-KD), arXiv:1904.09482, section 3.

    Raises:
        UserError: If the members do not belong together (see ``stack``).
    """
    stacked = stack(members)
    if stacked.manifest.labels:
        count = torch.tensor(float(len(members)))
        logits = F.log_softmax(stacked.logits, dim=-1).logsumexp(dim=1) - count.log()
    else:
        logits = stacked.logits.mean(dim=1)
    return replace(stacked, logits=logits, identity=f"mean-{stacked.identity}")
