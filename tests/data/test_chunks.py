"""Soft targets written chunk by chunk: whole, once, by one job or by several, and on from where a killed one was."""

import errno
import multiprocessing
import os
import shutil
import time

import pytest
import torch

from kd_lightning.data import Manifest, SoftTargets
from kd_lightning.data.soft_targets import chunks
from kd_lightning.data.soft_targets.chunks import is_of, write_in_chunks
from kd_lightning.files import locked_if_free

ROWS = 23
IDS = torch.randperm(1000, generator=torch.Generator().manual_seed(0))[:ROWS]
LOGITS = torch.randn(ROWS, 2, generator=torch.Generator().manual_seed(1))


def manifest(**changes):
    """Return what the soft targets say of themselves."""
    facts = {"task": "x", "split": "train", "labels": ("a", "b"), "rows": ROWS, "data": "d", "teacher": "t"}
    facts |= {"tokenizer": "k", "max_length": 8, "precision": "32-true", "both_orders": False}
    return Manifest(**{**facts, **changes})


def predict(some):
    """Return the logits of some examples."""
    return IDS[some], LOGITS[some]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder to write into, in chunks of five."""
    monkeypatch.setattr(chunks, "CHUNK", 5)
    monkeypatch.setattr(chunks, "PAUSE", 0.01)
    return tmp_path / "store" / "x-train"


def check(folder):
    """Fail unless the folder holds all soft targets, and nothing lies beside it but locks."""
    found = SoftTargets.open(folder, manifest())
    assert found.example_id.tolist() == IDS.sort().values.tolist()
    assert torch.equal(found.logits[torch.from_numpy(found.find(IDS.numpy()))], LOGITS)
    assert [path.name for path in folder.parent.iterdir() if path.is_dir()] == [folder.name]


def test_chunks_come_together(folder):
    """A row twice, none, or another's; in the order of chunks in the place of ids."""
    asked = []
    write_in_chunks(folder, manifest(), lambda some: asked.append(some) or predict(some))
    check(folder)
    assert [some.start for some in asked] == [0, 5, 10, 15, 20]
    write_in_chunks(folder, manifest(), lambda some: pytest.fail("what is there is predicted again"))


@pytest.mark.parametrize("doubled", [False, True])
def test_the_file_is_that_of_one_write(folder, tmp_path, doubled):
    """Swapped copies in a chunk with originals; rows at a place of another part; a file that is read another way."""
    ids = torch.arange(ROWS)
    ids, logits = (torch.cat([ids, ~ids]), torch.cat([LOGITS, -LOGITS])) if doubled else (ids, LOGITS)
    facts = manifest(rows=len(ids), both_orders=doubled)

    def sorted_by_id(some):
        order = ids[some].argsort()
        return ids[some][order], logits[some][order]

    write_in_chunks(folder, facts, sorted_by_id)
    SoftTargets.write(tmp_path / "whole", facts, *sorted_by_id(slice(None)))
    found, whole = (SoftTargets.open(path, facts) for path in (folder, tmp_path / "whole"))
    assert found.order is None
    assert found.example_id.tolist() == whole.example_id.tolist()
    assert torch.equal(found.logits, whole.logits)


def test_few_rows_are_one_chunk(folder, monkeypatch):
    monkeypatch.setattr(chunks, "CHUNK", ROWS)
    asked = []
    write_in_chunks(folder, manifest(), lambda some: asked.append(some) or predict(some))
    check(folder)
    assert len(asked) == 1


def test_a_killed_job_goes_on_where_it_was(folder, caplog):
    """Hours of labelling, once more from the first row."""
    asked = []

    def dies(some):
        if len(asked) == 3:
            raise KeyboardInterrupt
        asked.append(some.start)
        return predict(some)

    with pytest.raises(KeyboardInterrupt):
        write_in_chunks(folder, manifest(), dies)
    assert not folder.exists()
    again = []
    with caplog.at_level("INFO"):
        write_in_chunks(folder, manifest(), lambda some: again.append(some.start) or predict(some))
    assert (asked, again) == ([0, 5, 10], [15, 20])
    assert "soft targets for x train: 3 of 5 chunks are there" in caplog.text
    check(folder)


def test_chunks_of_other_soft_targets_are_not_theirs(folder):
    """A teacher that was trained again, and half of what the old one said; or an old folder of the same name."""
    with pytest.raises(KeyboardInterrupt):
        write_in_chunks(folder, manifest(teacher="old"), lambda some: predict(some) if some.start < 10 else quit_now())
    asked = []
    write_in_chunks(folder, manifest(), lambda some: asked.append(some.start) or predict(some))
    assert len(asked) == 5
    assert is_of(folder, manifest())
    assert not is_of(folder, manifest(teacher="old"))
    write_in_chunks(folder, manifest(teacher="new"), predict)
    assert is_of(folder, manifest(teacher="new"))


def quit_now():
    """End as Ctrl-C does."""
    raise KeyboardInterrupt


def test_a_chunk_that_another_job_writes_is_left_to_it(folder, monkeypatch):
    """The same rows predicted by both; or a job that waits for one that was killed."""
    key = manifest().key()
    parts = folder.with_name(f".{folder.name}.{key}.chunks")
    parts.mkdir(parents=True)
    asked = []
    with locked_if_free(parts / f"{5:012d}-{10:012d}.safetensors") as ours:
        assert ours

        def one(some):
            asked.append(some.start)
            return predict(some)

        sleeps = []

        def sleep(seconds):
            sleeps.append(seconds)
            raise TimeoutError

        monkeypatch.setattr(time, "sleep", sleep)
        with pytest.raises(TimeoutError):
            write_in_chunks(folder, manifest(), one)
    assert asked == [0, 10, 15, 20]
    assert len(sleeps) == 1
    write_in_chunks(folder, manifest(), one)  # the other is dead, its lock free
    assert asked == [0, 10, 15, 20, 5]
    check(folder)


@pytest.mark.parametrize("error", [None, FileNotFoundError, FileExistsError])
def test_another_job_is_done_meanwhile(folder, monkeypatch, error):
    """A job that fails because another has made what both are for, and removed its chunks, between two looks."""

    def late(path):
        SoftTargets.write(folder, manifest(), IDS, LOGITS)
        shutil.rmtree(path.parent)
        if error:  # of the lock in a folder that is gone; of mkdir, which has found a folder and then none
            raise error
        return locked_if_free(path)

    monkeypatch.setattr(chunks, "locked_if_free", late)
    write_in_chunks(folder, manifest(), lambda some: pytest.fail("what is there is predicted again"))
    check(folder)


def test_what_cannot_be_written_is_told(folder, monkeypatch):
    """A full disk that passes for another job's success."""

    def full(path, *tables):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(chunks, "write_file", full)
    with pytest.raises(OSError, match="No space left"):
        write_in_chunks(folder, manifest(), predict)


def work(folder, seen, all_there):
    """Write in a process of its own, which waits at its first chunk until the others have theirs."""
    chunks.CHUNK, chunks.PAUSE = 2, 0.01

    def waiting(some):
        if os.getpid() not in [pid for pid, _ in seen]:
            all_there.wait(timeout=60)
        seen.append((os.getpid(), some.start))
        return predict(some)

    write_in_chunks(folder, manifest(), waiting)


def test_jobs_share_the_work(tmp_path):
    """Two jobs, each with all of the work; or a folder that one writes while the other still reads its chunks."""
    folder = tmp_path / "store" / "x-train"
    context = multiprocessing.get_context("fork")
    with context.Manager() as manager:
        seen = manager.list()
        all_there = context.Barrier(3)
        jobs = [context.Process(target=work, args=(folder, seen, all_there)) for _ in range(3)]
        for job in jobs:
            job.start()
        for job in jobs:
            job.join(timeout=60)
        assert [job.exitcode for job in jobs] == [0, 0, 0]
        starts = [start for _, start in seen]
        assert sorted(starts) == list(range(0, ROWS, 2)), "each chunk once"
        assert len({pid for pid, _ in seen}) == 3, "each job some"
    check(folder)
