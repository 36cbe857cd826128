"""Commands that train with two processes, started as users start them."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

SCRIPTS = Path(sys.executable).parent
TRAIN = [
    "task=[toy_sentiment,toy_preference]",
    "data=embedded",
    "encoder=tiny",
    "encoder.hidden_size=32",
    "encoder.num_layers=1",
]
TRAIN += ["trainer.precision=32-true", "encoder.dropout=0", "system.head.dropout=0", "trainer.log_every_n_steps=1"]
TOGETHER = ["accelerator=ddp_cpu"]


def ours_and(folder):
    """Return where modules are looked for, with a folder before all others."""
    return os.pathsep.join(filter(None, (str(folder), os.environ.get("PYTHONPATH"))))


def environment(**more):
    """Return the environment of a user: no wandb, one thread."""
    known = {name: value for name, value in os.environ.items() if not name.startswith(("WANDB", "COMP_"))}
    return {**known, "OMP_NUM_THREADS": "1", **more}


def said_by(command, cwd, code=0):
    """Run a command, and return what it said; its exit code must be the one that is given."""
    done = subprocess.run(command, cwd=cwd, env=environment(), capture_output=True, text=True, timeout=300)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def loss_of(run):
    """Return a run's loss, step by step."""
    return pd.read_csv(run / "metrics.csv")["train/loss"].dropna().to_numpy()


@pytest.mark.slow
@pytest.mark.parametrize(
    "start", [[str(SCRIPTS / "kd-train")], [sys.executable, "-m", "kd_lightning.train"]], ids=["script", "module"]
)
def test_jobs_of_one_and_of_two_processes_in_a_sweep(tmp_path, start):
    """Lightning would start the whole sweep again in each process, and train alone after a job of one process."""
    said_by([*start, "-m", *TRAIN, *TOGETHER, "trainer.max_epochs=2", "trainer.devices=1,2,1"], tmp_path)
    (sweep,) = tmp_path.glob("outputs/train/*")
    runs = sorted(path.parent for path in sweep.glob("*/summary.json"))
    assert [run.name for run in runs] == ["0", "1", "2"]
    assert {json.loads((run / "summary.json").read_text())["status"] for run in runs} == {"finished"}
    one, two, again = (loss_of(run) for run in runs)
    assert len(one) > 8
    assert two == pytest.approx(one, abs=1e-4)
    assert again == pytest.approx(one, abs=0)


@pytest.mark.slow
@pytest.mark.parametrize(
    "start", [[str(SCRIPTS / "kd-train")], [sys.executable, "-m", "kd_lightning.train"]], ids=["script", "module"]
)
def test_one_command_of_two_processes_has_one_folder(tmp_path, start):
    """Lightning's children have a folder of the next second, with a log of their own."""
    said = said_by([*start, *TRAIN, *TOGETHER, "trainer.max_epochs=1"], tmp_path)
    (run,) = tmp_path.glob("outputs/train/*")
    assert len(loss_of(run)) > 4
    assert said.count(" steps, 32-true") == 1
    assert [path.name for path in run.glob("*.log")] == ["train.log"]
    assert len([*tmp_path.rglob(".hydra")]) == 1


LAUNCHERS = {
    "joblib": ("joblib_launcher", ["hydra/launcher=joblib", "hydra.launcher.n_jobs=1", "trainer.devices=1,2"]),
    "submitit_local": ("submitit_launcher", ["hydra/launcher=submitit_local", "trainer.devices=1,2"]),
    "optuna": (
        "optuna_sweeper",
        ["hydra/sweeper=search", "hydra.sweeper.n_trials=2", "batching.eval_batch_size=choice(64,128)"],
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_other_launchers_and_a_search_have_jobs_of_two_processes(tmp_path, launcher):
    """A search that is begun again in a child, a job that trains alone since its worker has trained alone before."""
    package, settings = LAUNCHERS[launcher]
    pytest.importorskip(f"hydra_plugins.hydra_{package}")
    said_by([str(SCRIPTS / "kd-train"), "-m", *TRAIN, *TOGETHER, "trainer.max_epochs=1", *settings], tmp_path)
    said_by([str(SCRIPTS / "kd-train"), *TRAIN, "trainer.max_epochs=1", "hydra.run.dir=alone"], tmp_path)
    alone, runs = loss_of(tmp_path / "alone"), [path.parent for path in tmp_path.rglob("summary.json")]
    assert len(runs) == 2 + 1, runs
    for run in runs:
        assert json.loads((run / "summary.json").read_text())["status"] == "finished"
        assert loss_of(run) == pytest.approx(alone, abs=1e-4)


@pytest.mark.slow
def test_heads_that_nobody_uses_rest(tmp_path):
    """Moved by their own momentum, and weight decay, in all batches of other tasks."""
    train = [
        str(SCRIPTS / "kd-train"),
        *TRAIN,
        "trainer.max_epochs=1",
        "batching.single_task=true",
        "optimizer.lr=1e-2",
    ]
    for name, more in {"one": [], "two": ["accelerator=fsdp_cpu"]}.items():
        said_by([*train, *more, f"hydra.run.dir={name}"], tmp_path)
    of = [load_file(tmp_path / name / "heads.safetensors") for name in ("one", "two")]
    for name, weight in of[0].items():
        torch.testing.assert_close(of[1][name], weight, atol=1e-4, rtol=0, msg=name)


@pytest.mark.slow
def test_a_model_that_is_divided_learns_the_same(tmp_path):
    """A batch that lacks a task in one process, whose head then waits for ever; half a model in a folder."""
    train = [str(SCRIPTS / "kd-train"), *TRAIN, "encoder.num_layers=2", "trainer.max_epochs=2"]
    train += ["trainer.gradient_clip_val=0.5", "trainer.check_val_every_n_epoch=2", "batching.batch_size=4"]
    train += ["batching.epoch_rows=120"]
    for name, more in {"one": [], "two": ["accelerator=fsdp_cpu"], "ddp": TOGETHER}.items():
        said_by([*train, *more, f"hydra.run.dir={name}"], tmp_path)
    one, two, ddp = (tmp_path / name for name in ("one", "two", "ddp"))
    assert len(loss_of(one)) == 60
    assert loss_of(two) == pytest.approx(loss_of(one), abs=1e-4)
    assert loss_of(two) == pytest.approx(loss_of(ddp), abs=1e-4)
    of = [
        load_file(folder / "encoder" / "model.safetensors") | load_file(folder / "heads.safetensors")
        for folder in (one, two)
    ]
    assert of[0].keys() == of[1].keys()
    for name, weight in of[0].items():
        torch.testing.assert_close(of[1][name], weight, atol=1e-3, rtol=0, msg=name)
    scores = [json.loads((folder / "fit.json").read_text())["scores"] for folder in (one, two)]
    assert scores[0]["toy_sentiment"] == pytest.approx(scores[1]["toy_sentiment"], abs=0.02)
    said_by([str(SCRIPTS / "kd-evaluate"), f"run={two}", "hydra.run.dir=evaluated"], tmp_path)
    again = json.loads((tmp_path / "evaluated" / "evaluation.json").read_text())["scores"]
    assert again["toy_sentiment"] == pytest.approx(scores[1]["toy_sentiment"], abs=1e-6)


SIZES = """
import json
import pytorch_lightning as pl

class Sizes(pl.Callback):
    def on_train_end(self, trainer, system):
        (optimizer,) = trainer.optimizers
        kept = [value for state in optimizer.state.values() for value in state.values() if value.ndim]
        own = [sum(tensor.to_local().numel() for tensor in some) for some in (system.parameters(), kept)]
        every = [sum(tensor.numel() for tensor in some) for some in (system.parameters(), kept)]
        json.dump([own, every], open(f"sizes-{trainer.global_rank}.json", "w"))
"""


@pytest.mark.slow
def test_each_process_keeps_its_part(tmp_path):
    """Whole weights in all of them, under the name of a model that is divided."""
    (tmp_path / "sizes.py").write_text(SIZES)
    train = [str(SCRIPTS / "kd-train"), *TRAIN, "trainer.max_epochs=1", "accelerator=fsdp_cpu"]
    done = subprocess.run(
        [*train, "+callbacks.sizes._target_=sizes.Sizes"],
        cwd=tmp_path,
        env=environment(PYTHONPATH=ours_and(tmp_path)),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    (first, every), (second, _) = (json.loads((tmp_path / f"sizes-{rank}.json").read_text()) for rank in (0, 1))
    for one, other, total in zip(first, second, every, strict=True):
        assert one + other == total
        assert 0.45 < one / total < 0.55


@pytest.mark.slow
def test_every_system_can_be_divided(tmp_path):
    """Heads of teachers, and heads that read tokens."""
    distill = [str(SCRIPTS / "kd-distill"), *TRAIN, "system=tmkd", "accelerator=fsdp_cpu", "teacher.seeds=[1,2]"]
    distill += ["encoder@teacher.encoder=tiny", "teacher.encoder.hidden_size=32", "trainer.max_epochs=1"]
    distill += ["topology=m_o_1", "baseline=false", "task=[toy_sentiment,toy_comparison]"]
    distill += ["+system.task_heads.toy_comparison._target_=kd_lightning.heads.san_head"]
    said_by([*distill, "hydra.run.dir=run"], tmp_path)
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["tasks"]["toy_sentiment"]["student"] is not None


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["encoder=bilstm"], "trainer.strategy is fsdp, which divides stacks of layers, and a BiLstmEncoder is none"),
        (["encoder=tiny", "compile=true"], "trainer.strategy is fsdp, which takes networks as they are: use compile=f"),
        (["encoder=tiny", "trainer.strategy=fsdp_cpu_offload"], "are not put together here: use trainer.strategy=fsdp"),
    ],
)
def test_what_cannot_be_divided_is_refused(tmp_path, settings, said):
    train = [str(SCRIPTS / "kd-train"), "task=toy_sentiment", "data=embedded", "accelerator=fsdp_cpu", *settings]
    (line,) = said_by(train, tmp_path, code=2).splitlines()[-1:]
    assert said in line


@pytest.mark.slow
def test_a_fit_of_two_processes_before_one_of_one(tmp_path):
    """What the second goes on from is written by the first process, and the other would write over it."""
    distill = [str(SCRIPTS / "kd-distill"), "experiment=quickstart", "task=[toy_sentiment]", *TOGETHER]
    distill += ["trainer.max_epochs=1", "teacher.trainer.max_epochs=1", "baseline=false"]
    distill += ["student.fine_tune={tasks: all, trainer: {devices: 1, max_epochs: 1}}"]
    said = said_by(distill, tmp_path)
    assert said.count("\nstudent toy_sentiment fine-tuned: toy_sentiment accuracy") == 1, said
    (run,) = tmp_path.glob("outputs/quickstart/*")
    assert json.loads((run / "summary.json").read_text())["tasks"]["toy_sentiment"]["student_fine_tuned"] is not None
    assert said_by(distill, tmp_path).count("already trained") == 4


@pytest.mark.slow
def test_a_distillation_of_two_processes_whose_teacher_has_one(tmp_path):
    """Each stage once, whoever trains it: a process that repeated the teacher's would overwrite its files."""
    distill = [str(SCRIPTS / "kd-distill"), "experiment=quickstart", "task=[toy_sentiment,toy_preference]", *TOGETHER]
    distill += [
        "trainer.max_epochs=1",
        "teacher.trainer.max_epochs=2",
        "teacher.seeds=[1]",
        "+teacher.trainer.devices=1",
    ]
    said = said_by(distill, tmp_path)
    for stage in ("teacher", "student", "baseline"):
        assert said.count(f"\n{stage}: toy_sentiment accuracy") == 1, said
    assert said_by(distill, tmp_path).count("already trained") == 3
    assert {path.name for path in tmp_path.glob("outputs/*")} == {"quickstart", "store"}
    first, second = sorted(tmp_path.glob("outputs/quickstart/*"))
    assert {path.name for path in first.iterdir()} == {path.name for path in second.iterdir()}


def children_of(process):
    """Return the numbers of a process's children that are commands of ours."""
    found = subprocess.run(["pgrep", "-P", str(process.pid), "-f", "kd_lightning"], capture_output=True, text=True)
    return [int(line) for line in found.stdout.split()]


@pytest.fixture
def scheduler(tmp_path):
    """The environment of a job of SLURM; what is asked of SLURM goes into a file."""
    (tmp_path / "scontrol").write_text('#!/bin/sh\necho "$@" >> asked\n')
    (tmp_path / "scontrol").chmod(0o755)
    return {"SLURM_JOB_ID": "7", "PATH": f"{tmp_path}:{os.environ['PATH']}"}


@pytest.fixture
def leader(tmp_path, scheduler):
    """A command that trains with a process that it has started, and has come to its first checkpoint."""
    command = [SCRIPTS / "kd-train", *TRAIN, *TOGETHER, "trainer.max_epochs=10000"]
    known = environment(**scheduler)
    with subprocess.Popen(command, cwd=tmp_path, env=known, stderr=subprocess.PIPE, text=True) as process:
        until = time.monotonic() + 120
        while not [*tmp_path.glob("outputs/train/*/checkpoints/last.ckpt")]:
            assert time.monotonic() < until, "no checkpoint"
            time.sleep(0.2)
        yield process
        process.kill()


@pytest.mark.slow
def test_a_process_that_is_killed_is_told_of(leader):
    """The first would wait for its gradients."""
    (child,) = children_of(leader)
    os.kill(child, signal.SIGKILL)
    said = leader.communicate(timeout=60)[1]
    assert leader.returncode == 2
    assert "kd-train: error: process 1 of 2 has ended with exit code -9, see above" in said
    assert "Traceback" not in said


@pytest.mark.slow
def test_the_end_of_the_first_is_the_end_of_all(leader):
    (child,) = children_of(leader)
    leader.terminate()
    said = leader.communicate(timeout=60)[1]
    assert leader.returncode == 128 + signal.SIGTERM
    assert said.count("kd-train: interrupted") == 1
    assert "Traceback" not in said
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)


@pytest.mark.slow
def test_who_was_told_to_leave_and_who_to_end_do_the_same(leader, tmp_path):
    """One would queue the job again, and the other call it interrupted."""
    (child,) = children_of(leader)
    os.kill(child, signal.SIGTERM)
    leader.send_signal(signal.SIGUSR1)
    said = leader.communicate(timeout=60)[1]
    assert leader.returncode == 0, said
    assert said == ""
    assert (tmp_path / "asked").read_text() == "requeue 7\n"
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_a_signal_in_the_last_validation_ends_the_command(tmp_path, rank):
    """It is after the last step of the fit, and before the next fit of the command."""
    (tmp_path / "ends.py").write_text(
        "import os, signal\n"
        "import pytorch_lightning as pl\n"
        "class AtLastValidation(pl.Callback):\n"
        "    def on_validation_start(self, trainer, pl_module):\n"
        f"        if trainer.current_epoch == 1 and trainer.global_rank == {rank} and 'ENDS' in os.environ:\n"
        "            os.kill(os.getpid(), signal.SIGTERM)\n"
    )
    command = [
        str(SCRIPTS / "kd-train"),
        *TRAIN,
        "+callbacks.ends._target_=ends.AtLastValidation",
        "trainer.max_epochs=2",
    ]
    command += TOGETHER if rank else []
    known = environment(PYTHONPATH=ours_and(tmp_path))
    done = subprocess.run(command, cwd=tmp_path, env={**known, "ENDS": ""}, capture_output=True, text=True, timeout=120)
    assert done.returncode == 128 + signal.SIGTERM, done.stderr
    said = "kd-train: interrupted; ckpt_path=last goes on from the last checkpoint, if there is one\n"
    assert done.stderr == said
    (run,) = tmp_path.glob("outputs/train/*")
    assert json.loads((run / "summary.json").read_text())["status"] == "interrupted"
    steps = len(loss_of(run))
    said = subprocess.run([*command, "ckpt_path=last"], cwd=tmp_path, env=known, capture_output=True, text=True).stdout
    assert f"from step {steps}" in said
    assert len(loss_of(run)) == steps
    assert (run / "fit.json").exists()
