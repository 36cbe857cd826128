"""A command that is killed again and again ends where one that was left alone does, to the bit."""

import json
import os
import random
import signal
import subprocess
import sys
import time

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
KILLS = 5


def begin(folder, name):
    """Start the distillation; its lines go to a file."""
    with (folder / "said.txt").open("w") as said:
        return subprocess.Popen(
            [sys.executable, "-m", "kd_lightning.distill", *TOY, f"name={name}", f"paths.store={name}"],
            cwd=folder,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=said,
            stderr=subprocess.STDOUT,
        )


def trains(folder, process, seconds=120):
    """Wait until a fit of the command has begun, or begun again; tell whether it has before the command ended."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and process.poll() is None:
        if " steps, " in (folder / "said.txt").read_text():
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
    """Half a file taken for a whole one, a step twice, soft targets of a teacher that was not yet trained."""
    assert begin(tmp_path, "alone").wait(300) == 0, (tmp_path / "said.txt").read_text()
    draw, resumed, killed = random.Random(7), 0, 0
    while killed < KILLS:
        process = begin(tmp_path, "killed")
        assert trains(tmp_path, process), "it has ended before it was killed so often: more epochs"
        time.sleep(draw.uniform(0.0, 1.5))
        assert process.poll() is None, (tmp_path / "said.txt").read_text()
        process.send_signal(signal.SIGKILL)
        process.wait()
        killed += 1
        resumed += "from step" in (tmp_path / "said.txt").read_text()
    assert begin(tmp_path, "killed").wait(300) == 0, (tmp_path / "said.txt").read_text()
    assert resumed >= 2, "most of the kills fall into a fit that goes on"
    alone, disturbed = (results(tmp_path, name) for name in ("alone", "killed"))
    assert alone.keys() == disturbed.keys()
    assert len(alone) >= 3 + 1 + 4, "teacher, student, baseline, soft targets, and what the summary says"
    for name, one in alone.items():
        assert disturbed[name] == one, name
