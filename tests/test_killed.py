"""A command that is killed again and again ends where one that was left alone does, to the bit."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress

import pytest

TOY = ["data=embedded", "task=toy_sentiment", "encoder=tiny", "encoder.hidden_size=32", "encoder.num_layers=1"]
TOY += [
    "encoder@teacher.encoder=tiny",
    "teacher.encoder.hidden_size=32",
    "accelerator=cpu",
    "trainer.precision=32-true",
]
TOY += ["trainer.max_epochs=60", "teacher.trainer.max_epochs=60", "callbacks.resume_checkpoint.every_n_steps=10"]
TOY += ["trainer.log_every_n_steps=7", "batching.unlabelled=true", "batching.epoch_rows=224"]
DIES = """
import os, signal
import pytorch_lightning as pl

class Dies(pl.Callback):
    left = int(os.environ.get("STEPS_TO_LIVE", 0))  # of the whole command, whatever it trains

    def on_train_batch_end(self, trainer, *_):
        Dies.left -= 1
        if not Dies.left and trainer.global_rank == int(os.environ.get("WHO_DIES", 0)):
            os.kill(os.getpid(), signal.SIGKILL)
"""
DYING = "+callbacks.dies._target_=dies.Dies"


def begin(folder, command, *settings, **environment):
    """Start a command; its lines go to a file. It is killed after ``STEPS_TO_LIVE``, if they are told."""
    (folder / "dies.py").write_text(DIES)
    path = os.pathsep.join(filter(None, (str(folder), os.environ.get("PYTHONPATH"))))
    with (folder / "said.txt").open("w") as said:
        return subprocess.Popen(
            [sys.executable, "-m", f"kd_lightning.{command}", *settings, DYING],
            cwd=folder,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path, **environment},
            stdout=said,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def said(folder):
    """Return what the last command said."""
    return (folder / "said.txt").read_text()


def trains(folder, process, seconds=120):
    """Wait until a fit of the command has begun, or begun again; tell whether it has before the command ended."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and process.poll() is None:
        if " steps, " in said(folder):
            return True
        time.sleep(0.05)
    return False


def results(folder, name):
    """Return all that the distillation has made: models, what the teacher said, curves and scores."""
    found = {}
    for path in sorted((folder / name / "fits").glob("*/fit.json")):
        fit = json.loads(path.read_text())
        found[path.parent.name] = fit["weights"], fit["scores"], (path.parent / "metrics.csv").read_bytes()
    for path in sorted((folder / name / "soft_targets").glob("*/*.safetensors")):
        found[f"{path.parent.name}/{path.name}"] = path.read_bytes()
    summaries = [json.loads(path.read_text()) for path in (folder / "outputs" / name).glob("*/summary.json")]
    (finished,) = [summary for summary in summaries if summary["status"] == "finished"]
    return found | {key: finished[key] for key in ("tasks", "average", "data", "parameters")}


@pytest.mark.slow
def test_what_is_killed_at_any_moment_ends_as_what_was_left_alone(tmp_path):
    """Half a file taken for a whole one, a step twice, soft targets of a teacher that was not yet trained.

    Three times it dies at a step that is drawn, three times at a moment.
    """

    def distilled(name, **environment):
        return begin(tmp_path, "distill", *TOY, f"name={name}", f"paths.store={name}", **environment)

    assert distilled("alone").wait(300) == 0, said(tmp_path)
    draw, resumed = random.Random(7), 0
    for kill in range(6):
        steps = str(draw.randrange(5, 400)) if kill % 2 else "0"
        process = distilled("killed", STEPS_TO_LIVE=steps)
        assert trains(tmp_path, process), "it has ended before it was killed so often: more epochs"
        if not kill % 2:
            time.sleep(draw.uniform(0.0, 1.5))
            assert process.poll() is None, said(tmp_path)
            process.send_signal(signal.SIGKILL)
        assert process.wait(120) == -signal.SIGKILL, said(tmp_path)
        resumed += "from step" in said(tmp_path)
    assert distilled("killed").wait(300) == 0, said(tmp_path)
    assert resumed >= 2, "most of the kills fall into a fit that goes on"
    alone, disturbed = (results(tmp_path, name) for name in ("alone", "killed"))
    assert alone.keys() == disturbed.keys()
    assert len(alone) >= 3 + 1 + 4, "teacher, student, baseline, soft targets, and what the summary says"
    for name, one in alone.items():
        assert disturbed[name] == one, name


@pytest.mark.slow
@pytest.mark.parametrize("accelerator", ["ddp_cpu", "fsdp_cpu"])
def test_of_two_processes_either_may_be_killed(tmp_path, accelerator):
    """A checkpoint of one of them, or of one's part; losses that were summed twice, or by one."""
    both = [f"accelerator={accelerator}", "trainer.max_epochs=9"]
    alone = [
        "hydra.run.dir=alone",
        *(setting for setting in TOY if "teacher" not in setting and "batching" not in setting),
    ]
    killed = [setting.replace("run.dir=alone", "run.dir=killed") for setting in alone]
    assert begin(tmp_path, "train", *alone, *both).wait(300) == 0, said(tmp_path)
    draw, since = random.Random(3), []
    for rank in ("0", "1", "0"):
        process = begin(
            tmp_path, "train", *killed, *both, *since, STEPS_TO_LIVE=str(draw.randrange(15, 25)), WHO_DIES=rank
        )
        code = process.wait(120)
        assert code == (2 if rank == "1" else -signal.SIGKILL), said(tmp_path)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # who is left would end by itself within half a minute
        since = ["ckpt_path=last"]
    assert "from step" in said(tmp_path)
    assert begin(tmp_path, "train", *killed, *both, *since).wait(300) == 0, said(tmp_path)
    of = [json.loads((tmp_path / name / "fit.json").read_text()) for name in ("alone", "killed")]
    assert of[0]["weights"] == of[1]["weights"]
    assert of[0]["scores"] == of[1]["scores"]
    assert (tmp_path / "alone" / "metrics.csv").read_bytes() == (tmp_path / "killed" / "metrics.csv").read_bytes()
