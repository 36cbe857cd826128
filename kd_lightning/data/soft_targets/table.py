"""Soft targets on disk: a teacher's logits by example id, with a manifest that says what they are the logits of.

One folder holds one (teacher, task, split): ``logits.safetensors`` with ``example_id`` int64 ``[N]`` and ``logits``
float32 ``[N, C]``, and ``manifest.json``. Logits, not probabilities, are stored: temperature stays a choice of the
student. Readers state what they expect and are refused on any difference.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from torch import Tensor

from kd_lightning.data.soft_targets.files import join_files, read_file, write_file
from kd_lightning.data.soft_targets.manifest import Manifest, read_manifest, refusal
from kd_lightning.errors import UserError
from kd_lightning.files import file_hash, new_folder, write_json

SLICE = 65_536
"""Examples that are looked at at once."""


@dataclass(frozen=True)
class SoftTargets:
    """A teacher's logits, memory-mapped and joined by example id.

    Args:
        example_id: int64 ``[N]``, ascending.
        order: Row of ``logits`` that belongs to each of ``example_id``, int64 ``[N]``; None if they are in order.
        logits: float32 ``[N, C]``.
        manifest: What they are.
        folder: Where they are, for messages.
        identity: Content address: of manifest and logits, or of all members.
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
        _check_shapes(where, manifest, example_id, logits)
        _check_values(where, example_id.numpy(), logits)
        with new_folder(folder, known_by="manifest.json") as made:
            write_file(made / "logits.safetensors", example_id, logits)
            _finish(made, manifest)

    @classmethod
    def join(cls, folder: Path, manifest: Manifest, chunks: Sequence[Path]) -> None:
        """Write the soft targets of some files into a new folder, whole or not at all, one file at a time.

        Args:
            folder: See ``write``.
            manifest: See ``write``.
            chunks: Written by ``write_file``; in any order.

        Raises:
            UserError: See ``write``.
        """
        where = f"soft targets for {manifest.task} {manifest.split}"
        with new_folder(folder, known_by="manifest.json") as made:
            path = made / "logits.safetensors"
            join_files(chunks, path)
            tables = read_file(path)
            _check_shapes(where, manifest, *tables)
            _check_values(where, tables[0].numpy(), tables[1])
            _finish(made, manifest)

    @classmethod
    def open(cls, folder: Path, expected: Manifest | None = None) -> SoftTargets:
        """Return the soft targets of a folder.

        Args:
            folder: Written by ``write``.
            expected: What the reader wants; None takes them as they are.

        Raises:
            UserError: If anything is missing, damaged or not as expected; the message names the field and both values.
        """
        manifest, digest = read_manifest(folder, expected)
        identity = hashlib.sha256(f"{manifest.key()} {digest}".encode()).hexdigest()[:16]
        path = folder / "logits.safetensors"
        try:
            ids, logits = read_file(path)
        except (OSError, SafetensorError) as error:
            raise refusal(folder, f"logits.safetensors cannot be read ({error})") from error
        example_id, shape = ids.numpy(), (manifest.rows, len(manifest.labels) or 1)
        if tuple(logits.shape) != shape or example_id.shape != shape[:1]:
            raise refusal(folder, f"rows is {tuple(logits.shape)} in the file, expected {shape} by the manifest")
        _check_values(f"soft targets {folder}", example_id, logits)
        if _ascending(example_id):  # as they are written by us: no copies
            return cls(example_id, None, logits, manifest, folder, identity)
        order = np.argsort(example_id, kind="stable")
        return cls(example_id[order], order, logits, manifest, folder, identity)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of an example's logits."""
        return tuple(self.logits.shape[1:])

    def of(self, example_id: NDArray[np.int64]) -> Tensor:
        """Return the logits of the given ids, ``[n, C]``.

        Raises:
            UserError: See ``find``.
        """
        return self.logits[torch.from_numpy(self.find(example_id))]

    def require(self, example_id: NDArray[np.int64]) -> None:
        """Check that there are logits of the given ids.

        Raises:
            UserError: See ``find``.
        """
        self.find(example_id)

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
            raise refusal(
                self.folder, f"{len(missing)} of {len(example_id)} example_id have no soft target, first: {first}"
            )
        return place if self.order is None else self.order[place]


def _finish(folder: Path, manifest: Manifest) -> None:
    digest = file_hash(folder / "logits.safetensors")
    write_json(folder / "manifest.json", {**asdict(manifest), "sha256": digest})
    shutil.copymode(folder / "manifest.json", folder / "logits.safetensors")  # else its owner's alone


def _check_shapes(where: str, manifest: Manifest, example_id: Tensor, logits: Tensor) -> None:
    classes = len(manifest.labels) or 1
    if example_id.shape != (manifest.rows,) or logits.shape != (manifest.rows, classes):
        shapes = f"{tuple(example_id.shape)} and {tuple(logits.shape)}"
        raise UserError(f"{where}: ids and logits have the shapes {shapes}, expected {manifest.rows} x {classes}")


def _ascending(ids: NDArray[np.int64]) -> bool:
    return bool((ids[1:] > ids[:-1]).all())


def _check_values(where: str, example_id: NDArray[np.int64], logits: Tensor) -> None:
    if not _ascending(example_id):
        ids, counts = np.unique(example_id, return_counts=True)
        if len(ids) < len(example_id):
            first = ids[counts > 1][0]
            raise UserError(f"{where}: example_id {first} occurs {counts.max()} times, expected unique ids")
    for start in range(0, len(logits), SLICE):
        finite = logits[start : start + SLICE].isfinite().all(1)
        if not finite.all():
            row = start + int((~finite).nonzero()[0])
            values = logits[row].tolist()
            raise UserError(f"{where}: logits of example_id {example_id[row]} are {values}, expected finite numbers")
