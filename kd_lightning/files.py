"""Files and folders that appear whole or not at all, and are built once however many jobs ask for them."""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

log = logging.getLogger(__name__)

PATIENCE = 2.0
"""Seconds of waiting for another run before it is said that, and for what, one waits."""

IN_A_FILE = "sqlite:///"
"""How the address of a database begins that is a file."""

GLANCE, LOOK = 0.2, 2.0
"""Seconds in which whoever looks at a lock has looked, most likely, and surely: meanwhile it is held."""


@contextmanager
def locked(folder: Path, what: str | None = None) -> Iterator[None]:
    """Hold the lock that belongs to a folder; other processes wait, and say so.

    Whoever builds the folder holds its lock, so what is left of earlier builders is of dead processes: it is removed.

    Args:
        folder: Gives the lock its name.
        what: What one waits for; the folder, if it is not told.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder.with_name(f".{folder.name}.lock"))
    try:
        lock.acquire(timeout=PATIENCE)
    except Timeout:
        log.info("waiting for another run to finish %s", what or folder)
        lock.acquire()
    try:
        for entry in folder.parent.iterdir():
            if re.fullmatch(rf"\.{re.escape(folder.name)}\.\d+\.part", entry.name):
                _remove(entry)
        yield
    finally:
        lock.release()


@contextmanager
def locked_if_free(path: Path, patience: float = 0.0) -> Iterator[bool]:
    """Hold the lock that belongs to a path unless another process does, and tell whether it is held here.

    Args:
        path: Gives the lock its name.
        patience: Seconds that the other process has to end.
    """
    lock = FileLock(path.with_name(f".{path.name}.lock"))
    try:
        lock.acquire(timeout=patience)
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


def is_held(path: Path, *, patience: float = GLANCE, unknown: bool = True) -> bool:
    """Tell whether a process holds the lock that belongs to a path.

    Args:
        path: Gives the lock its name.
        patience: Seconds in which it may still come free: others look, too.
        unknown: The answer where one may not look.
    """
    if not path.with_name(f".{path.name}.lock").exists():
        return False
    with suppress(OSError), locked_if_free(path, patience) as free:
        return not free
    return unknown


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary name; what the block writes there becomes ``path`` if it ends well, and vanishes if not.

    Raises:
        IsADirectoryError: If a file would take the place of a folder, with all that it holds.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    _remove(temporary)
    try:
        yield temporary
        if path.is_dir() and not temporary.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if temporary.is_dir():  # only a file replaces a file in one step
            _remove(path)
        os.replace(temporary, path)
    except BaseException:
        _remove(temporary)
        raise


@contextmanager
def new_folder(folder: Path, known_by: str | None = None) -> Iterator[Path]:
    """Give a temporary folder that becomes ``folder`` when the block ends well, and vanishes when it fails.

    Args:
        folder: The folder; an old one of this name is replaced.
        known_by: A file that each folder of its kind has.

    Raises:
        FileExistsError: If there is something of another kind.
    """
    empty = folder.is_dir() and not any(folder.iterdir())
    if known_by and folder.exists() and not empty and not (folder / known_by).exists():
        raise FileExistsError(errno.EEXIST, f"there is something else ({known_by} is not in it)", str(folder))
    with replacing(folder) as part:
        part.mkdir(parents=True)
        yield part


def files_named(name: str, folder: Path) -> Iterator[Path]:
    """Yield the files of a name anywhere below a folder; what vanishes while one looks is passed over."""
    for found, _, files in os.walk(folder):
        if name in files:
            yield Path(found, name)


def last_change(path: Path) -> float:
    """Return when a file was last written, in seconds; 0 of one that has vanished while one looked."""
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def from_here(path: Path) -> Path:
    """Return a path as seen from the working directory, if it is below it."""
    return path.relative_to(Path.cwd()) if Path.cwd() in path.parents else path


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a file, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write JSON, indented, whole or not at all.

    Raises:
        ValueError: If a number is not finite: JSON has none such.
    """
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Return the value of a JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file's content, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
