"""Soft targets of many rows, written chunk by chunk: by several jobs at once, and on from where a killed one was."""

from __future__ import annotations

import gc
import json
import logging
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

from torch import Tensor

from kd_lightning.data.soft_targets.files import write_file
from kd_lightning.data.soft_targets.manifest import EXPECTED, Manifest
from kd_lightning.data.soft_targets.table import SoftTargets
from kd_lightning.files import locked, locked_if_free, read_json, replacing

log = logging.getLogger(__name__)

CHUNK = 50_000
"""Examples of a chunk."""

PAUSE = 1.0
"""Seconds between two looks at the chunks that other jobs write."""

Predict = Callable[[slice], tuple[Tensor, Tensor]]
"""Examples, as a slice of all of them -> their ids ``[n]`` and logits ``[n, C]``."""


def write_in_chunks(folder: Path, manifest: Manifest, predict: Predict, chunk: int | None = None) -> None:
    """Write soft targets into a new folder, together with any other job that does the same.

    Each chunk is predicted once: by the job that comes to it first, or, if that is killed, by another. What is there of
    an earlier call is not predicted again. The last chunk makes the folder, which is whole or not there at all.

    Args:
        folder: See ``SoftTargets.write``.
        manifest: See ``SoftTargets.write``.
        predict: Predicts some of the examples; their number is the manifest's.
        chunk: Examples of a chunk, ``CHUNK`` if it is not told.

    Raises:
        UserError: See ``SoftTargets.write``.
    """
    chunk = chunk or CHUNK
    if manifest.rows <= chunk:
        with locked(folder):
            if not is_of(folder, manifest):
                SoftTargets.write(folder, manifest, *predict(slice(0, manifest.rows)))
        return
    chunks_folder = folder.with_name(f".{folder.name}.{manifest.key()}.chunks")
    files = [chunks_folder / f"{start:012d}-{end:012d}.safetensors" for start, end in _cuts(manifest, chunk)]
    found = sum(path.exists() for path in files)
    if found:
        log.info("soft targets for %s %s: %d of %d chunks are there", manifest.task, manifest.split, found, len(files))
    while not is_of(folder, manifest) and (missing := [path for path in files if not path.exists()]):
        try:
            chunks_folder.mkdir(parents=True, exist_ok=True)
            written = [_write_if_free(path, predict, lambda: is_of(folder, manifest)) for path in missing]
        except OSError:
            if is_of(folder, manifest):  # by another job, which has removed the chunks' folder under this one
                break
            raise
        if not any(written):
            time.sleep(PAUSE)
    with locked(folder):
        if not is_of(folder, manifest):
            SoftTargets.join(folder, manifest, files)
        shutil.rmtree(chunks_folder, ignore_errors=True)


def _cuts(manifest: Manifest, chunk: int) -> Iterator[tuple[int, int]]:
    """Yield where chunks begin and end; none has rows and swapped copies both, so that ids ascend in all of them."""
    whole = manifest.rows // 2 if manifest.both_orders else manifest.rows
    for begin in range(0, manifest.rows, whole):
        for start in range(begin, begin + whole, chunk):
            yield start, min(start + chunk, begin + whole)


def is_of(folder: Path, manifest: Manifest) -> bool:
    """Tell whether a folder holds soft targets that say of themselves what the manifest does; its file is not read."""
    try:
        found = read_json(folder / "manifest.json")
        return all(
            found[name] == value for name, value in json.loads(json.dumps(asdict(manifest))).items() if name in EXPECTED
        )
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _write_if_free(path: Path, predict: Predict, is_done: Callable[[], bool]) -> bool:
    """Write a chunk, unless another job is about to or has; tell whether it was written here."""
    start, end = map(int, path.stem.split("-"))
    with locked_if_free(path) as ours:
        if not ours or path.exists() or is_done():
            return False
        ids, logits = predict(slice(start, end))
        with replacing(path) as temporary:
            write_file(temporary, ids, logits)
    gc.collect()  # a trainer is in cycles of references, with all that it has mapped
    return True
