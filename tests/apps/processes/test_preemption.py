"""A job that loses its place: once queued again, whatever else it is told meanwhile, and told where it is not."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCONTROL = '#!/bin/sh\n{}\necho "$@" >> asked\n'
SCRIPT = """
import os, signal, sys, time
from kd_lightning.apps.processes.preemption import preemption_deferred, requeued_when_preempted

def told(number=signal.SIGUSR1):
    os.kill(os.getpid(), number)

with requeued_when_preempted(lambda why: print("refused:", why, file=sys.stderr)):
{body}
    print("it has gone on")
"""


@pytest.fixture
def job(tmp_path):
    """Return a function that runs lines of Python in a job of SLURM, with a scheduler that does something first."""

    def job(*lines, scheduler="", **environment):
        (tmp_path / "scontrol").write_text(SCONTROL.format(scheduler))
        (tmp_path / "scontrol").chmod(0o755)
        script = SCRIPT.format(body="\n".join(f"    {line}" for line in lines))
        known = {**os.environ, "SLURM_JOB_ID": "7", "PATH": f"{tmp_path}:{os.environ['PATH']}", **environment}
        command = [sys.executable, "-c", script]
        return subprocess.run(command, cwd=tmp_path, env=known, capture_output=True, text=True, timeout=60)

    return job


def asked(folder):
    """Return what the scheduler was asked for."""
    path = Path(folder, "asked")
    return path.read_text().splitlines() if path.exists() else []


def test_it_is_queued_again_and_has_not_failed(job, tmp_path):
    done = job("told()")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert asked(tmp_path) == ["requeue 7"]


def test_of_an_array_it_is_its_own_part(job, tmp_path):
    """All jobs of a sweep, queued again by one of them."""
    assert job("told()", SLURM_ARRAY_JOB_ID="6", SLURM_ARRAY_TASK_ID="2").returncode == 0
    assert asked(tmp_path) == ["requeue 6_2"]


@pytest.mark.parametrize("number", ["SIGUSR1", "SIGUSR2"])
def test_a_second_signal_changes_nothing(job, tmp_path, number):
    """It comes while files are closed: an exception from there is a crash, and the job is lost."""
    done = job("try:", "    told()", "finally:", f"    told(signal.{number})")
    assert (done.returncode, done.stderr) == (0, "")
    assert asked(tmp_path) == ["requeue 7"]


def test_who_is_queued_again_is_told_to_end(job, tmp_path):
    """SLURM ends a job that asks for it, while the answer is on its way."""
    done = job("told()", scheduler="kill -TERM $PPID; kill -USR2 $PPID; sleep 0.3")
    assert (done.returncode, done.stderr) == (0, "")
    assert asked(tmp_path) == ["requeue 7"]


@pytest.mark.parametrize(
    ("scheduler", "said"),
    [
        ("echo 'Requested operation is presently disabled' >&2; exit 1", "Requested operation is presently disabled"),
        ("exit 1", "returned non-zero exit status 1"),
    ],
)
def test_what_the_scheduler_refuses_is_told(job, tmp_path, scheduler, said):
    """A job that says that it is queued, and is not; or success."""
    done = job("told()", scheduler=scheduler)
    assert done.returncode == 1
    assert asked(tmp_path) == []
    (line,) = done.stderr.splitlines()
    assert line.startswith("refused: ")
    assert said in line


def test_a_block_ends_where_it_chooses(job, tmp_path):
    """An import that takes the exception for a missing package, and a job that then goes on."""
    nested = ["with preemption_deferred():", "    with preemption_deferred():", "        told()"]
    done = job(*nested, "        print('ends')", "    print('then')")
    assert (done.returncode, done.stdout) == (0, "ends\nthen\n")
    assert asked(tmp_path) == ["requeue 7"]


def test_outside_of_slurm_nothing_changes():
    """A signal of the user's own."""
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            SCRIPT.format(body="    signal.signal(signal.SIGUSR1, lambda *_: print('mine')); told()"),
        ],
        env={name: value for name, value in os.environ.items() if not name.startswith("SLURM_")},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (0, "mine\nit has gone on\n")


def test_while_libraries_are_imported_it_waits_for_their_end(job, tmp_path):
    """Half an import is an error of somebody else's words, in the place of a job that is queued again."""
    (tmp_path / "sitecustomize.py").write_text(
        "import importlib.abc, os, signal, sys\n"
        "class Told(importlib.abc.MetaPathFinder):\n"
        "    def find_spec(self, name, path, target=None):\n"
        "        if name == 'torch._C' and signal.getsignal(signal.SIGUSR1) is not signal.SIG_DFL:\n"
        "            os.kill(os.getpid(), signal.SIGUSR1)\n"
        "sys.meta_path.insert(0, Told())\n"
    )
    done = job("pass")  # writes the scheduler
    assert done.stdout == "it has gone on\n", done.stderr
    known = {
        **os.environ,
        "SLURM_JOB_ID": "7",
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join(filter(None, (str(tmp_path), os.environ.get("PYTHONPATH")))),
    }
    command = [sys.executable, "-m", "kd_lightning.train", "data=embedded", "task=toy_sentiment", "encoder=tiny"]
    done = subprocess.run(command, cwd=tmp_path, env=known, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    assert "this job is queued again, and goes on from its last step" in done.stdout
    assert asked(tmp_path) == ["requeue 7"]
    job("pass", scheduler="echo 'it is disabled' >&2; exit 1")
    done = subprocess.run([*command, "-m"], cwd=tmp_path, env=known, capture_output=True, text=True, timeout=120)
    goes_on = "the same command with ckpt_path=last skip_finished=true goes on"
    assert f"this job lost its place, and is not queued again: it is disabled; {goes_on}" in done.stdout
    (error,) = tmp_path.glob("outputs/train/*/0/error.txt")
    assert error.read_text() == "interrupted: it was ended from outside\n"
