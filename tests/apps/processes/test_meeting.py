"""Commands whose processes SLURM or torchrun have started, by the environment that these give them."""

import json
import os
import signal
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path

import pandas as pd
import pytest

from kd_lightning.apps.command_line import workers
from kd_lightning.apps.processes import meeting
from kd_lightning.apps.processes.seat import Seat
from kd_lightning.errors import UserError

TRAIN = ["task=toy_sentiment", "data=embedded", "encoder=tiny", "encoder.hidden_size=32", "encoder.num_layers=1"]
TRAIN += ["trainer.precision=32-true", "encoder.dropout=0", "system.head.dropout=0", "trainer.log_every_n_steps=1"]
TOGETHER = [*TRAIN, "accelerator=ddp_cpu", "hydra.run.dir=run"]
SWEEP = ["-m", *TRAIN, "accelerator=ddp_cpu", "hydra.sweep.dir=sweep"]

OWN = """
import time
import pytorch_lightning as pl

class Late(pl.Callback):
    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        time.sleep(0.3 * trainer.global_rank)

class Crash(pl.Callback):
    def on_train_start(self, trainer, pl_module):
        if trainer.global_rank == 1:
            raise RuntimeError("no step")
"""


@pytest.fixture
def start(tmp_path):
    """Return a function: arguments -> the two tasks of a step, started as ``srun`` does; they end with the test.

    ``own`` is the environment of each alone.
    """
    started = []
    (tmp_path / "own.py").write_text(OWN)

    def start(*arguments, command="train", own=({}, {}), **more):
        for rank in range(2):
            told = {"SLURM_JOB_ID": "7", "SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "2", "SLURM_STEP_NUM_NODES": "1"}
            told |= {"SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank), "SLURM_NODEID": "0", "OMP_NUM_THREADS": "1"}
            told |= {
                "SLURM_JOB_NAME": "x",
                "PYTHONPATH": os.pathsep.join(filter(None, (str(tmp_path), os.environ.get("PYTHONPATH")))),
            }
            line = [sys.executable, "-m", f"kd_lightning.{command}", *arguments]
            known = {**os.environ, **told, **more, **own[rank]}
            pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
            started.append(subprocess.Popen(line, cwd=tmp_path, env=known, stdin=subprocess.DEVNULL, **pipes))
        return started[-2:]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def said_by(processes):
    """Return exit codes, and what each process has written to its two streams."""
    said = [process.communicate(timeout=120) for process in processes]
    return [process.returncode for process in processes], said


def until_trained(folder):
    """Wait for a checkpoint."""
    until = time.monotonic() + 120
    while not (folder / "run" / "checkpoints" / "last.ckpt").exists():
        assert time.monotonic() < until, "no checkpoint"
        time.sleep(0.2)


@pytest.mark.slow
def test_two_tasks_of_slurm_train_together_and_one_speaks(start, tmp_path):
    """A sweep in one step; the second of its jobs is refused, by the first process alone."""
    codes, ((out, errors), peer) = said_by(
        start(*SWEEP, "trainer.max_epochs=1", "seed=1,2", "batching.batch_size=32,31")
    )
    assert codes == [2, 0]
    assert peer == ("", "")
    assert "2 of 4 jobs did not finish" in errors
    assert errors.count("31, expected a multiple of the 2 processes") == 2
    assert out.count("toy_sentiment accuracy") >= 2
    runs = [path.parent for path in sorted(tmp_path.glob("sweep/*/fit.json"))]
    assert [run.name for run in runs] == ["0", "2"]
    for run in runs:
        assert (run / "train.log").read_text().count("examples, ") == 1
    assert not list(tmp_path.rglob(".meeting-*"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("seed", "process 1 has settings, data or code "),
        ("trainer.devices", "process 1 has trainer.devices and trainer.num_nodes that come to 1, process 0 2: start"),
    ],
)
def test_processes_that_are_told_otherwise_do_not_train(start, tmp_path, setting, said):
    """One gradient of two models, or two processes that wait for each other and give signs of life."""
    codes, ((_, first), _) = said_by(
        start(
            *TOGETHER,
            "trainer.max_epochs=1",
            setting + "='${oc.decode:${oc.env:OWN}}'",
            own=({"OWN": "2"}, {"OWN": "1"}),
        )
    )
    assert codes[0] == 2
    assert codes[1] > 0
    assert said in first
    assert "start all of them with the same command" in first
    assert not (tmp_path / "run" / "fit.json").exists()


@pytest.mark.slow
def test_the_first_decides_what_has_finished(start, tmp_path):
    """A run that has finished before the one has looked, and after the other has: one leaves and one waits."""
    first = [*TRAIN, "accelerator=ddp_cpu", "trainer.max_epochs=1", "hydra.run.dir=outputs/train/one"]
    assert said_by(start(*first))[0] == [0, 0]
    again = [*first[:-1], "hydra.run.dir=outputs/train/two", "skip_finished=true", "paths.output=${oc.env:PLACE}"]
    places = {"PLACE": "outputs"}, {"PLACE": "nowhere"}
    codes, ((out, errors), peer) = said_by(start(*again, own=places))
    assert (codes, errors, peer) == ([0, 0], "", ("", ""))
    assert out.count("already finished: ") == 1
    assert [path.name for path in (tmp_path / "outputs" / "train").iterdir()] == ["one"]
    codes, ((out, _), _) = said_by(start(*again, own=places[::-1]))
    assert codes == [0, 0]
    assert "already finished" not in out
    assert (tmp_path / "outputs" / "train" / "two" / "fit.json").exists()


@pytest.mark.slow
def test_a_node_may_have_a_name_that_nobody_knows(start):
    """Both wait for minutes, and nobody says for what."""
    codes, said = said_by(
        start(*TOGETHER, "trainer.max_epochs=1", SLURM_STEP_NUM_NODES="2", SLURMD_NODENAME="n.invalid")
    )
    assert codes == [0, 0], said


def test_a_machine_without_an_address_is_told(monkeypatch):
    def nowhere(name, port):
        raise OSError("Name or service not known")

    monkeypatch.setattr(meeting.socket, "getaddrinfo", nowhere)
    monkeypatch.setenv("MASTER_ADDR", "there")
    monkeypatch.setenv("SLURMD_NODENAME", "here")
    with pytest.raises(UserError, match=r"there, here, .* cannot be resolved; set MASTER_ADDR to a name by which"):
        meeting._name_of_machine()


@pytest.mark.slow
def test_torchrun_gives_the_same(start, tmp_path):
    """The same losses as tasks of SLURM; the agent keeps the store."""
    said_by(start(*TOGETHER, "trainer.max_epochs=1"))
    line = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone"]
    line += ["-m", "kd_lightning.train"]
    arguments = [*TOGETHER, "trainer.max_epochs=1", "hydra.run.dir=other"]
    known = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*line, *arguments], cwd=tmp_path, env=known, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("examples, ") == 1
    losses = [pd.read_csv(tmp_path / run / "metrics.csv")["train/loss"].dropna().tolist() for run in ("run", "other")]
    assert len(losses[0]) > 4
    assert losses[0] == losses[1]


@pytest.mark.slow
def test_a_crash_of_one_is_told_by_both(start, tmp_path):
    """Each in its way: the traceback where it was, and a line that says where to look."""
    codes, ((_, first), (_, second)) = said_by(start(*TOGETHER, "+callbacks.own._target_=own.Crash"))
    assert codes == [2, 1]
    assert first.endswith("kd-train: error: process 1 of 2 has ended: RuntimeError: no step\n")
    assert "RuntimeError: no step" in second


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_one_that_is_killed_is_missed(start, tmp_path, rank):
    """For ever, where it is waited for."""
    processes = start(*TOGETHER, "trainer.max_epochs=10000")
    until_trained(tmp_path)
    os.kill(processes[rank].pid, signal.SIGKILL)
    codes, said = said_by(processes)
    assert codes[rank] == -signal.SIGKILL
    assert codes[1 - rank] == 2
    assert f"kd-train: error: process {rank} of 2 has " in said[1 - rank][1]
    assert "Traceback" not in said[1 - rank][1]


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_who_loses_its_place_takes_the_other_along(start, tmp_path, rank):
    """One is told in the middle of a step that the other has not begun: they save the same step, and go on from it."""
    (tmp_path / "scontrol").write_text('#!/bin/sh\necho "$@" >> asked\n')
    (tmp_path / "scontrol").chmod(0o755)
    known = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    line = [*TOGETHER, "trainer.max_epochs=3", "+callbacks.own._target_=own.Late"]
    processes = start(*line, **known)
    until_trained(tmp_path)
    os.kill(processes[rank].pid, signal.SIGUSR1)
    codes, ((out, errors), _) = said_by(processes)
    assert (codes, errors) == ([0, 0], "")
    assert "this job is queued again" in out
    assert (tmp_path / "asked").read_text() == "requeue 7\n"
    assert not (tmp_path / "run" / "fit.json").exists()
    codes, ((out, errors), _) = said_by(start(*line, SLURM_RESTART_COUNT="1", **known))
    assert (codes, errors) == ([0, 0], "")
    assert ", from step " in out
    assert said_by(start(*line[:-1], "hydra.run.dir=alone"))[0] == [0, 0]
    assert (tmp_path / "run" / "metrics.csv").read_bytes() == (tmp_path / "alone" / "metrics.csv").read_bytes()


@pytest.mark.slow
def test_both_end_when_both_are_told_to(start, tmp_path):
    """``scancel``."""
    processes = start(*TOGETHER, "trainer.max_epochs=10000")
    until_trained(tmp_path)
    for process in processes:
        process.terminate()
    codes, said = said_by(processes)
    assert codes == [143, 143]
    assert [errors.count("interrupted") for _, errors in said] == [1, 0]
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["status"] == "interrupted"
    assert not list(tmp_path.rglob(".meeting-*"))


def test_who_is_led_is_silent_wherever_options_stand(monkeypatch):
    """Between settings, an option makes the parser refuse those that follow."""
    monkeypatch.setattr(workers, "own_seat", lambda: Seat(1, 2, 1, 0, "slurm"))
    for line in ("kd-train -m a=1 b=2", "kd-train a=1 b=2 -m", "kd-train --config-dir x a=1", "kd-train -m"):
        told = workers.silent_if_led(line.split())
        assert [part for part in told if part not in workers.SILENT] == line.split()
        settings = ["=" in part for part in told]
        assert "".join("01"[found] for found in settings).strip("0") == "1" * sum(settings)
    monkeypatch.setattr(workers, "own_seat", Seat)
    assert workers.silent_if_led(["kd-train", "a=1"]) == ["kd-train", "a=1"]


def test_the_first_may_leave_while_another_reads_where_it_is(tmp_path, monkeypatch):
    """``No such file or directory``, in the place of who has not come."""
    monkeypatch.setattr(meeting, "PATIENCE", timedelta(seconds=0.5))
    (tmp_path / "note").write_text("127.0.0.1:1")
    read = Path.read_text

    def gone(path, *args, **more):
        path.unlink(missing_ok=True)
        return read(path, *args, **more)

    monkeypatch.setattr(Path, "read_text", gone)
    with pytest.raises(UserError, match="has not come"):
        meeting._read_when_there(tmp_path / "note")
