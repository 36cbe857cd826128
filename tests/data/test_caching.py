"""Caches: built once, whole or not at all, and never served when damaged."""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import shutil
import time
from pathlib import Path

import numpy as np
import pytest

from kd_lightning import files
from kd_lightning.data import Rows
from kd_lightning.data.caching import cached
from kd_lightning.data.rows import cache_rows
from kd_lightning.files import file_hash, locked, new_folder, replacing, write_text

FACTS = {"count": 3, "name": "toy"}
PROCESSES = multiprocessing.get_context("fork")  # these processes touch files only; others import torch for seconds
forks = pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")


def build(part: Path) -> dict[str, object]:
    """Write two files and return facts about them."""
    (part / "a.bin").write_bytes(bytes(1000))
    (part / "b.bin").write_bytes(b"")
    return FACTS


def never(part: Path) -> dict[str, object]:
    """Fail if a folder is built."""
    pytest.fail(f"{part} is built")


def edit(folder: Path, **changes: object) -> None:
    """Change fields of meta.json."""
    path = folder / "meta.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def put(name: str, content: bytes):
    """Return the function that writes a file of the folder."""
    return lambda folder: (folder / name).write_bytes(content)


DAMAGES = {
    "one byte": put("a.bin", bytes(999) + b"\1"),
    "cut": put("a.bin", bytes(999)),
    "longer": put("b.bin", b"1"),
    "gone": lambda folder: (folder / "a.bin").unlink(),
    "no meta": lambda folder: (folder / "meta.json").unlink(),
    "meta cut": lambda folder: os.truncate(folder / "meta.json", 20),
    "meta empty": put("meta.json", b""),
    "meta a word": put("meta.json", b"x"),
    "meta a list": put("meta.json", b"[]"),
    "meta a number": put("meta.json", b"7"),
    "meta an empty object": put("meta.json", b"{}"),
    "meta not UTF-8": put("meta.json", b"\xff"),
    "files a list": lambda folder: edit(folder, files=["a.bin"]),
    "no files": lambda folder: edit(folder, files={}),
    "other facts": lambda folder: edit(folder, facts={"count": 4, "name": "toy"}),
    "a file": lambda folder: (shutil.rmtree(folder), folder.write_text("x")),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_built_again(tmp_path, caplog, damage):
    """A bad sector, an editor, a copy that stopped: what was another text or label trains without a word."""
    folder = tmp_path / "cache" / "toy"
    cached(folder, build)
    DAMAGES[damage](folder)
    assert cached(folder, build) == FACTS
    assert caplog.messages == [f"{folder} is damaged: building it again"]
    assert cached(folder, never) == FACTS
    assert (folder / "a.bin").read_bytes() == bytes(1000)


def test_built_once(tmp_path, caplog):
    """A cache that is never hit is a cost at each start."""
    assert cached(tmp_path / "toy", build) == cached(tmp_path / "toy", never) == FACTS
    assert caplog.messages == []


def slowly(folder: Path, log: Path) -> None:
    """Ask for the folder, as a job of a sweep does; note each time it is built."""

    def count(part: Path) -> dict[str, object]:
        with log.open("a") as file:
            file.write("built\n")
        time.sleep(0.5)
        return build(part)

    assert cached(folder, count) == FACTS


@forks
def test_two_processes_build_it_once(tmp_path):
    """Ten jobs of a sweep that all tokenise the same text, over each other's files."""
    log = tmp_path / "log"
    jobs = [PROCESSES.Process(target=slowly, args=(tmp_path / "toy", log)) for _ in range(2)]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join(60)
    assert [job.exitcode for job in jobs] == [0, 0]
    assert log.read_text() == "built\n"


def half(folder: Path, ready: object) -> None:
    """Build half of the folder, and no more."""

    def hang(part: Path) -> dict[str, object]:
        (part / "a.bin").write_bytes(bytes(500))
        ready.set()
        time.sleep(60)
        return FACTS

    cached(folder, hang)


@forks
def test_a_killed_builder_leaves_nothing(tmp_path, caplog):
    """kill -9, or the end of a cluster's time limit: half a cache that the next run takes for a whole one."""
    folder, ready = tmp_path / "toy", PROCESSES.Event()
    job = PROCESSES.Process(target=half, args=(folder, ready))
    job.start()
    assert ready.wait(30)
    job.kill()
    job.join()
    (part,) = tmp_path.glob(".toy.*.part")
    assert (part / "a.bin").stat().st_size == 500
    assert not folder.exists()
    assert cached(folder, build) == FACTS
    assert list(tmp_path.glob(".*.part")) == []
    assert caplog.messages == []


def test_only_the_folders_own_remains_are_removed(tmp_path):
    """The folder "toy" must not clear what is being built for "toy.2"."""
    kept = [tmp_path / name for name in (".toy.2.77.part", ".toys.77.part", ".toy.x.part", "toy.77.part")]
    for path in [*kept, tmp_path / ".toy.77.part"]:
        path.mkdir()
    (tmp_path / ".toy.78.part").write_text("half a file")
    with locked(tmp_path / "toy"):
        pass
    assert sorted(path for path in tmp_path.iterdir() if path.name.endswith(".part")) == sorted(kept)


def hold(folder: Path, ready: object, waits: object) -> None:
    """Hold the folder's lock until the other waits."""
    with locked(folder):
        ready.set()
        assert waits.wait(60)


@forks
@pytest.mark.parametrize("what", [None, "teacher rte"])
def test_waiting_is_said(tmp_path, caplog, monkeypatch, what):
    """A job that waits an hour for another one's teacher, without a word, is killed as hung."""
    monkeypatch.setattr(files, "PATIENCE", 0.1)
    folder, ready, waits = tmp_path / "toy", PROCESSES.Event(), PROCESSES.Event()
    say = files.log.info
    monkeypatch.setattr(files.log, "info", lambda *said: (say(*said), waits.set()))
    job = PROCESSES.Process(target=hold, args=(folder, ready, waits))
    job.start()
    assert ready.wait(30)
    with caplog.at_level(logging.INFO), locked(folder, what):
        assert caplog.messages == [f"waiting for another run to finish {what or folder}"]
    job.join(60)
    assert job.exitcode == 0
    caplog.clear()
    with caplog.at_level(logging.INFO), locked(folder):
        assert caplog.messages == []


def test_a_lock_is_free_after_an_error(tmp_path):
    """A run that fails and holds its lock stops all others."""
    for _ in range(2):
        with pytest.raises(ZeroDivisionError), locked(tmp_path / "toy"):
            1 / 0  # noqa: B018


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_a_file_is_whole_or_not_at_all(tmp_path, error):
    """Ctrl-C while a summary is written: half a summary that a report reads."""
    path = tmp_path / "a.txt"
    write_text(path, "old")
    with pytest.raises(error), replacing(path) as temporary:  # noqa: PT012
        temporary.write_text("ne")
        raise error
    assert path.read_text() == "old"
    with replacing(path) as temporary:
        temporary.write_text("new")
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.txt"]
    assert path.read_text() == "new"


def test_a_folder_is_replaced_whole(tmp_path):
    """Files of the old folder among those of the new."""
    for name in ("old", "new"):
        with new_folder(tmp_path / "toy") as part:
            (part / name).write_text(name)
    assert [entry.name for entry in (tmp_path / "toy").iterdir()] == ["new"]


def test_the_hash_is_of_all_content(tmp_path):
    """A hash of the first block lets the rest change."""
    path = tmp_path / "a.bin"
    path.write_bytes(bytes(10**6))
    before = file_hash(path)
    path.write_bytes(bytes(10**6 - 1) + b"\1")
    assert file_hash(path) != before
    assert len(before) == 64


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="only Linux tells what is mapped where")
def test_rows_are_read_a_batch_at_a_time_not_mapped(toys):
    """Pages of a mapped file stay in memory as they are read: it would grow with the data."""
    batches = toys["mood"].rows.batches(7)
    next(batches)
    assert "rows.arrow" not in Path("/proc/self/maps").read_text()


def test_rows_are_the_same_however_they_come(toys, tmp_path):
    """A file that is read in other batches: every teacher is trained again."""
    toy = toys["mood"]
    whole = cache_rows(tmp_path / "whole", lambda: toy.rows.batches(10_000), "mood")
    cut = cache_rows(tmp_path / "cut", lambda: toy.rows.batches(7), "mood")
    assert (cut.count, cut.fingerprint) == (whole.count, whole.fingerprint)
    fewer = cache_rows(tmp_path / "fewer", lambda: list(toy.rows.batches(7))[1:], "mood")
    assert fewer.fingerprint != whole.fingerprint


def test_damaged_rows_are_read_again(toys, tmp_path, caplog):
    """A label or a text changed in the cache: the wrong row, under the right fingerprint."""
    toy = toys["mood"]

    def rows() -> Rows:
        return cache_rows(tmp_path / "mood", toy.rows.batches, "mood")

    first = rows()
    path = first.folder / "rows.arrow"
    content = path.read_bytes()
    place = content.index(b"good")
    path.write_bytes(content[:place] + b"evil" + content[place + 4 :])
    again = rows()
    assert "is damaged: building it again" in caplog.text
    assert (again, path.read_bytes()) == (first, content)
    assert again.fingerprint == toy.rows.fingerprint
    np.testing.assert_equal(list(again.texts()), toy.columns["text"])


def test_a_folder_is_replaced_by_its_own_kind_alone(tmp_path):
    """``kd-dashboard --output outputs`` took away all runs, and left a file in their place."""
    runs, file, targets = tmp_path / "outputs", tmp_path / "file", tmp_path / "targets"
    (runs / "1").mkdir(parents=True)
    (runs / "1" / "fit.json").touch()
    file.touch()
    with pytest.raises(IsADirectoryError, match="Is a directory"):
        write_text(runs, "text")
    for other in (runs, file):
        with pytest.raises(FileExistsError, match="something else"), new_folder(other, known_by="manifest.json"):
            pass
    assert (runs / "1" / "fit.json").exists()
    assert file.is_file()
    for content in ("old", "new"):
        with new_folder(targets, known_by="manifest.json") as made:
            (made / "manifest.json").write_text(content)
    assert (targets / "manifest.json").read_text() == "new"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "outputs", "targets"]
