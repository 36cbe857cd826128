"""Caches that are checked whenever they are opened: what is damaged is built again, never served."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kd_lightning.files import file_hash, locked, new_folder, read_json, write_json

log = logging.getLogger(__name__)

Facts = dict[str, Any]


def cached(folder: Path, build: Callable[[Path], Facts]) -> Facts:
    """Return what is known of a folder's files; the first time, and where a file is damaged, build the folder.

    Every file is hashed whenever the folder is opened, at about 0.6 s per GB: 0.1 s for the rows of a million
    sentence pairs, 0.1 s for their tokens. Processes that ask for the same folder build it once.

    Args:
        folder: Its name must depend on all that its content depends on, the version of its format among it.
        build: Writes the files into the folder it is given, and returns facts about them that JSON can hold.
    """
    with locked(folder):
        facts = _verified(folder)
        if facts is None:
            with new_folder(folder) as part:
                facts = build(part)
                files = {path.name: file_hash(path) for path in sorted(part.iterdir())}
                write_json(part / "meta.json", {"facts": facts, "files": files, "sha256": _digest(facts, files)})
    return facts


def _verified(folder: Path) -> Facts | None:
    """Return the facts if all files are as they were written, or None."""
    if not folder.exists():
        return None
    try:
        meta = read_json(folder / "meta.json")
        facts, files = meta["facts"], meta["files"]
        sound = meta["sha256"] == _digest(facts, files)
        sound = sound and all(file_hash(folder / name) == digest for name, digest in files.items())
    except (OSError, ValueError, LookupError, TypeError):  # a file is gone, or meta.json is not ours
        sound = False
    if not sound:
        log.warning("%s is damaged: building it again", folder)
    return facts if sound else None


def _digest(facts: Facts, files: dict[str, str]) -> str:
    return hashlib.sha256(json.dumps([facts, files]).encode()).hexdigest()
