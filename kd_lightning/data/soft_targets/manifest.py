"""What a folder of soft targets is about; readers say what they expect, and are refused on any difference."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from kd_lightning.errors import UserError
from kd_lightning.files import file_hash, read_json

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
        precision: The precision they were computed in.
        both_orders: Whether swapped pairs are there, too.
        augmenter: Fingerprint of the augmentation, None without one.
        format: Version of the layout.
        versions: Of the libraries they were computed with: a record, which readers neither expect nor refuse.
    """

    task: str
    split: str
    labels: tuple[str, ...]
    rows: int
    data: str
    teacher: str
    tokenizer: str
    max_length: int
    precision: str
    both_orders: bool
    augmenter: str | None = None
    format: int = FORMAT
    versions: Mapping[str, str] = field(default_factory=dict)

    def key(self) -> str:
        """Return the content address: a short hash of all fields that readers expect something of."""
        values = {name: getattr(self, name) for name in EXPECTED}
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]


EXPECTED = tuple(field.name for field in fields(Manifest) if field.name != "versions")
"""The fields that readers expect something of."""


def read_manifest(folder: Path, expected: Manifest | None) -> tuple[Manifest, str]:
    """Return the manifest of a folder whose logits are as they were written, and the hash of their file.

    Raises:
        UserError: If anything is missing, damaged or not as expected; the message names the field and both values.
    """
    path = folder / "manifest.json"
    if not path.is_file():
        raise refusal(folder, "manifest.json is missing, expected a complete folder of soft targets")
    try:
        found: dict[str, Any] = read_json(path)
    except ValueError as error:
        raise refusal(folder, f"manifest.json is not JSON ({error})") from error
    if not isinstance(found, dict):
        raise refusal(folder, "manifest.json holds no object with the manifest's fields")
    digest = found.pop("sha256", None)
    names = {*EXPECTED, "versions"}
    if set(found) != names:
        different = ", ".join(sorted(set(found) ^ names))
        raise refusal(folder, f"manifest.json lacks or adds the field {different}")
    if not isinstance(found["labels"], list):
        raise refusal(folder, f"field labels is {found['labels']}, expected a list of names")
    manifest = Manifest(**{**found, "labels": tuple(found["labels"])})
    if manifest.format != FORMAT:
        raise refusal(folder, f"format is {manifest.format}, expected {FORMAT}")
    if expected is not None:
        check_expected(folder, manifest, expected)
    logits = folder / "logits.safetensors"
    if not logits.is_file():
        raise refusal(folder, "logits.safetensors is missing")
    actual = file_hash(logits)
    if actual != digest:
        raise refusal(folder, f"field sha256 is {show(digest)}, the file has {show(actual)} (cut short or changed)")
    return manifest, actual


def check_expected(folder: Path, manifest: Manifest, expected: Manifest) -> None:
    """Check that soft targets are what a reader wants.

    Raises:
        UserError: At the first field that differs; the message names it and both values.
    """
    for name in EXPECTED:
        have, want = getattr(manifest, name), getattr(expected, name)
        if have != want:
            raise refusal(folder, f"field {name} is {show(have)}, expected {show(want)}")


def refusal(folder: Path, reason: str) -> UserError:
    """Return the error that names the folder, the reason and the remedy."""
    return UserError(f"soft targets {folder}: {reason}; delete the folder and write them again")


def show(value: object) -> str:
    """Return a field's value as errors show it, long hashes cut."""
    text = str(list(value) if isinstance(value, tuple) else value)
    return text if len(text) <= 40 else text[:12] + "..."
