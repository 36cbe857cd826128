"""kd-train, kd-evaluate and kd-predict, from files of one's own to predictions."""

import json
import os
import signal
import threading
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import pytorch_lightning as pl
import torch
from omegaconf import OmegaConf
from safetensors.torch import load_file

from kd_lightning.apps.command_line.tasks_of_run import tasks_of_run
from kd_lightning.apps.fits import identity
from kd_lightning.apps.fits import trainer as trainer_module
from kd_lightning.apps.fits.fit import Fit
from kd_lightning.apps.fits.resume import claimed, find_checkpoint
from kd_lightning.apps.fits.stopping import ByEpochs
from kd_lightning.apps.processes.termination import ended_by_sigterm
from kd_lightning.callbacks import ResumeCheckpoint
from kd_lightning.errors import Terminated, UserError
from kd_lightning.files import read_json
from kd_lightning.systems import Teacher
from kd_lightning.tasks import glue_average


def weights(folder):
    """Return the bytes of a run's weights."""
    return [(folder / name).read_bytes() for name in ("encoder/model.safetensors", "heads.safetensors")]


@pytest.fixture
def slurm(monkeypatch):
    """The environment of a SLURM job of one process, as Lightning detects it."""
    names = {"NTASKS": 1, "NTASKS_PER_NODE": 1, "PROCID": 0, "LOCALID": 0, "NODEID": 0, "JOB_ID": 1, "JOB_NAME": "kd"}
    for name, value in names.items():
        monkeypatch.setenv(f"SLURM_{name}", str(value))


def test_a_run_folder_holds_what_is_promised(kd):
    folder = kd("train", "task=[animals,beasts]", "trainer.max_epochs=1")
    for name in ("config.yaml", "summary.json", "metrics.csv", "report.md", "checkpoints/last.ckpt", "fit.json"):
        assert (folder / name).is_file(), name
    summary = read_json(folder / "summary.json")
    assert summary["status"] == "finished"
    assert summary["data"]["animals"]["train"] == 96
    assert set(summary["tasks"]["beasts"]["metrics"]["student"]) == {"accuracy", "f1"}
    torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)


def test_evaluate_gives_the_scores_of_training(kd):
    """A head restored wrongly, or dropout left on, changes them."""
    folder = kd("train", "task=[animals,beasts]", "trainer.max_epochs=2")
    evaluation = read_json(kd("evaluate", f"run={folder}") / "evaluation.json")
    trained = read_json(folder / "fit.json")["scores"]
    for task in ("animals", "beasts"):
        assert evaluation["scores"][task] == pytest.approx(trained[task], abs=1e-6)


def test_predictions_come_in_the_order_of_the_file(kd, workplace):
    folder = kd("train", "task=animals", "trainer.max_epochs=1")
    pd.read_csv("animals-dev.csv").iloc[::-1].to_csv("reversed.csv", index=False)
    forwards = pd.read_csv(kd("predict", f"run={folder}") / "animals-validation.csv")
    backwards = pd.read_csv(kd("predict", f"run={folder}", "file=reversed.csv") / "animals-reversed.csv")
    pd.testing.assert_series_equal(forwards["p_same"], backwards["p_same"][::-1].reset_index(drop=True), atol=1e-5)
    assert set(forwards["prediction"]) <= {"different", "same"}
    assert forwards["label"].tolist() == pd.read_csv("animals-dev.csv")["label"].tolist()
    assert "label" not in backwards, "a file of one's own need not have any"
    assert forwards[["p_different", "p_same"]].sum(axis=1).to_numpy() == pytest.approx(1, abs=1e-5)


def test_scores_come_in_the_range_of_the_task(kd):
    """Predictions in [0, 1] for a task from 1 to 5."""
    folder = kd("train", "task=close", "trainer.max_epochs=1")
    table = pd.read_csv(kd("predict", f"run={folder}") / "close-validation.csv")
    lines = pd.read_json(kd("predict", f"run={folder}", "format=jsonl") / "close-validation.jsonl", lines=True)
    assert list(table) == ["id", "prediction", "label"]
    assert table["prediction"].between(1, 5).all()
    assert table["prediction"].max() > 1.5
    pd.testing.assert_frame_equal(table, lines, atol=1e-5, check_dtype=False)  # JSON has one kind of number
    gold = pd.read_csv("close-dev.csv")["label"]
    assert table["label"].tolist() == gold.tolist()
    pearson = read_json(folder / "fit.json")["scores"]["close"]["pearson"]
    assert table["prediction"].corr(gold) == pytest.approx(pearson, abs=1e-4)


def test_a_file_to_predict_needs_no_labels(kd):
    folder = kd("train", "task=animals", "trainer.max_epochs=1")
    pd.read_csv("animals-dev.csv").drop(columns="label").to_csv("new.csv", index=False)
    assert len(pd.read_csv(kd("predict", f"run={folder}", "file=new.csv") / "animals-new.csv")) == 32


def test_predictions_say_how_they_came_about(kd, caplog):
    """Six decimals of bf16, and a table of before that is gone without a word."""
    folder = kd("train", "task=animals", "trainer.max_epochs=1")
    for precision, replaced in (("32-true", ""), ("bf16-mixed", " (replaced)")):
        with caplog.at_level("INFO"):
            kd("predict", f"run={folder}", "output=found", f"trainer.precision={precision}")
        where = f"found/animals-validation.csv{replaced}"
        assert caplog.messages[-1] == f"animals validation: 32 rows, {precision}, {where}"


def test_a_task_of_other_labels_is_not_given_to_the_head(kd, workplace):
    """Labels in another order: every prediction is the opposite."""
    folder = kd("train", "task=animals", "trainer.max_epochs=1")
    path = workplace / "mine" / "task" / "animals.yaml"
    path.write_text(path.read_text().replace("- different\n  - same", "- same\n  - different"))
    for command in ("predict", "evaluate"):
        with pytest.raises(UserError, match=r"task animals: labels is .*the head of animals .* was trained with"):
            kd(command, f"run={folder}", "task=animals")


def test_the_objective_of_a_sweep_is_the_average(kd):
    """None for every run: a sweeper that optimises nothing."""
    folder = kd("train", "task=[animals,close]", "trainer.max_epochs=1")
    average = glue_average(read_json(folder / "fit.json")["scores"])
    assert kd.returned == pytest.approx(average)
    assert read_json(folder / "summary.json")["average"]["student"] == pytest.approx(average)
    kd("evaluate", f"run={folder}")
    assert kd.returned == pytest.approx(average, abs=1e-6)


def test_scores_are_those_of_the_last_step(kd):
    """Stopped inside an epoch, a run's scores would be those of the epoch before, or none."""
    folder = kd("train", "task=animals", "trainer.max_epochs=-1", "trainer.max_steps=8", "batching.batch_size=32")
    result = read_json(folder / "fit.json")
    assert result["steps"] == 8
    assert pd.read_csv(folder / "metrics.csv")["step"].max() >= 7
    evaluation = read_json(kd("evaluate", f"run={folder}") / "evaluation.json")
    assert evaluation["scores"]["animals"] == pytest.approx(result["scores"]["animals"], abs=1e-6)


def test_teachers_and_students_are_not_confused(kd):
    """BAM without a teacher is its baseline; soft targets that nobody reads teach nothing."""
    with pytest.raises(UserError, match=r"BamStudent learns from teachers, but no soft targets are named"):
        kd("train", "system=bam", "task=animals")
    with pytest.raises(UserError, match="Teacher learns from gold labels alone"):
        kd("train", "task=animals", "+soft_targets.animals=nowhere")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("+soft_targets.animals.unlabelled=x", "names the split unlabelled, which is not trained: train is"),
        ("+soft_targets.animals={train: 3}", "soft_targets.animals.train is 3, expected a folder"),
        ("soft_targets=x", r"soft_targets is 'x', expected a folder per task: \+soft_targets.TASK=FOLDER"),
    ],
)
def test_soft_targets_that_are_no_folder(kd, override, message):
    with pytest.raises(UserError, match=message):
        kd("train", "system=bam", "task=animals", override)


def test_soft_targets_in_another_order_of_labels_are_refused(kd, workplace):
    """Unlabelled rows have no label that could tell: the student learns the opposite."""
    path = workplace / "mine" / "task" / "animals.yaml"
    pd.read_csv("animals-dev.csv").drop(columns="label").to_csv("more.csv", index=False)
    path.write_text(path.read_text().replace("files:", "files:\n    unlabelled: more.csv"))
    teacher = kd("train", "task=animals", "trainer.max_epochs=1")
    kd("predict", f"run={teacher}", "split=unlabelled", "format=soft_targets", "output=targets")
    path.write_text(path.read_text().replace("- different\n  - same", "- same\n  - different"))
    named = "+soft_targets.animals.unlabelled=targets/animals-unlabelled"
    with pytest.raises(UserError, match="field labels"):
        kd("train", "system=bam", "task=animals", "batching.unlabelled=true", named)


def test_soft_targets_by_hand(kd):
    """kd-predict writes what kd-train's BAM student reads; other data is refused."""
    teacher = kd("train", "task=animals", "trainer.max_epochs=1")
    kd("predict", f"run={teacher}", "split=train", "format=soft_targets", "output=targets")
    student = kd(
        "train", "system=bam", "task=animals", "+soft_targets.animals=targets/animals-train", "trainer.max_epochs=1"
    )
    assert "train/gold_weight" in (student / "metrics.csv").read_text()
    with open("animals-train.csv", "a") as file:
        file.write("red cat,red dog,different\n")
    with pytest.raises(UserError, match="field data"):
        kd("train", "system=bam", "task=animals", "+soft_targets.animals=targets/animals-train")


def test_a_model_predicts_in_the_precision_that_is_asked_for(kd):
    """A model that was trained in fp16 on a GPU could never be used without one."""
    teacher = kd("train", "task=animals", "trainer.max_epochs=1")
    for number, (given, expected) in enumerate((([], "32-true"), (["trainer.precision=bf16-mixed"], "bf16-mixed"))):
        kd("predict", f"run={teacher}", "split=train", "format=soft_targets", f"output=targets{number}", *given)
        assert read_json(Path(f"targets{number}/animals-train/manifest.json"))["precision"] == expected


def test_a_task_that_is_not_trained_here_is_refused(kd):
    with pytest.raises(UserError, match="names the task beasts"):
        kd("train", "system=bam", "task=animals", "+soft_targets.beasts=nowhere")


LIMITS = {
    "epochs": {"max_epochs": 2},
    "steps before epochs": {"max_epochs": 3, "max_steps": 15},
    "epochs before steps": {"max_epochs": 3, "max_steps": 500},
    "steps": {"max_epochs": -1, "max_steps": 15},
    "steps of whole epochs": {"max_epochs": -1, "max_steps": 12},
    "batches that share a step": {"max_epochs": 5, "max_steps": 14, "accumulate_grad_batches": 2},
    "every second epoch is evaluated": {"max_epochs": -1, "max_steps": 15, "check_val_every_n_epoch": 2},
    "each third step is evaluated": {"max_epochs": -1, "max_steps": 15, "val_check_interval": 3},
    "half epochs are evaluated": {"max_epochs": 2, "val_check_interval": 0.5},
}
"""How a fit ends, and when it is evaluated; 6 steps an epoch."""

MOMENTS = [(how, step) for how in LIMITS for step in ((1, 4, 6, 9, 11) if how == "epochs" else (6, 9))]


class Killed(BaseException):
    """Stands for the end of the process."""


@pytest.mark.parametrize(("how", "step"), MOMENTS)
def test_an_interrupted_run_equals_an_uninterrupted_one(kd, monkeypatch, how, step):
    """To the bit: optimiser, schedule, gold weight, dropout, position in the data, metrics.csv. 6 steps an epoch."""
    settings = ["task=[animals]", "batching.batch_size=32", "trainer.log_every_n_steps=1"]
    settings += [f"++trainer.{name}={value}" for name, value in LIMITS[how].items()]
    settings += ["callbacks.resume_checkpoint.every_n_steps=1"]
    whole = kd("train", *settings)
    save = ResumeCheckpoint.save

    def save_and_die(self, trainer):
        save(self, trainer)
        if trainer.global_step >= step:  # a step that is evaluated is saved with the next
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(ResumeCheckpoint, "save", save_and_die)
        with pytest.raises(Killed):
            kd("train", *settings, folder="outputs/train/interrupted")
    assert not (whole.parent / "interrupted" / "fit.json").exists()
    kd("train", *settings, "ckpt_path=last")
    resumed = whole.parent / "interrupted"
    assert weights(resumed) == weights(whole)
    assert (resumed / "metrics.csv").read_text() == (whole / "metrics.csv").read_text()


@pytest.mark.parametrize(("step", "ends_at"), [(2, 2), (3, 4), (6, 6)])
def test_one_that_is_told_to_end_evaluates_what_is_due(kd, monkeypatch, step, ends_at):
    """At its next step; of one that is evaluated, as each third is here, at the one after, or the end of the epoch."""
    settings = [
        "task=[animals]",
        "batching.batch_size=32",
        "trainer.log_every_n_steps=1",
        "+trainer.val_check_interval=3",
    ]
    whole, train = kd("train", *settings), Teacher.training_step

    def train_and_tell(self, *arguments):
        if self.global_step == step - 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return train(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Teacher, "training_step", train_and_tell)
        with pytest.raises(Terminated), ended_by_sigterm():
            kd("train", *settings, folder="outputs/train/told")
    told = Path("outputs/train/told")
    assert torch.load(told / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == ends_at
    kd("train", *settings, "ckpt_path=last")
    assert weights(told) == weights(whole)
    assert (told / "metrics.csv").read_text() == (whole / "metrics.csv").read_text()


@pytest.mark.parametrize("moment", ["last step", "end"])
@pytest.mark.parametrize("how", ["epochs", "steps", "steps of whole epochs", "batches that share a step"])
def test_one_that_was_interrupted_at_its_end_does_not_log_it_again(kd, monkeypatch, how, moment):
    """After its last step nothing is left but to evaluate, where the fit has not, and to write the result."""
    settings = ["task=[animals]", "batching.batch_size=32", "trainer.log_every_n_steps=1"]
    settings += [f"++trainer.{name}={value}" for name, value in LIMITS[how].items()]
    settings += ["callbacks.resume_checkpoint.every_n_steps=1"]
    whole = kd("train", *settings)
    last, save = read_json(whole / "fit.json")["steps"], ResumeCheckpoint.save

    def die(*_):
        raise Killed

    def save_and_die(self, trainer):
        save(self, trainer)
        if trainer.global_step == last:
            raise Killed

    with monkeypatch.context() as patch:
        if moment == "end":
            patch.setattr(trainer_module, "evaluated_at_the_end", die)
        else:
            patch.setattr(ResumeCheckpoint, "save", save_and_die)
        with pytest.raises(Killed):
            kd("train", *settings, folder="outputs/train/interrupted")
    resumed = Path("outputs/train/interrupted")
    kd("train", *settings, "ckpt_path=last")
    assert weights(resumed) == weights(whole)
    assert read_json(resumed / "fit.json")["scores"] == read_json(whole / "fit.json")["scores"]
    assert (resumed / "metrics.csv").read_text() == (whole / "metrics.csv").read_text()


def test_a_callback_may_end_a_fit(kd):
    """At chance there is no progress: it ends after its second epoch, and that is its result."""
    early = "{_target_: pytorch_lightning.callbacks.EarlyStopping, monitor: val/average, patience: 1, mode: max}"
    settings = ["task=[animals]", "batching.batch_size=32", "trainer.max_epochs=5", "optimizer.lr=1e-9"]
    folder = kd("train", *settings, f"+callbacks.early={early}")
    state = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    assert state["global_step"] == read_json(folder / "fit.json")["steps"] == 12
    assert read_json(folder / "summary.json")["status"] == "finished"


def test_a_fit_that_ends_too_soon_is_no_result(kd, monkeypatch):
    """Lightning's own loop goes on from the end of an epoch without the next one, where steps are limited, too."""
    settings = ["task=[animals]", "batching.batch_size=32", "trainer.max_epochs=3", "trainer.max_steps=500"]
    save = ResumeCheckpoint.save

    def save_and_die(self, trainer):
        save(self, trainer)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(ResumeCheckpoint, "save", save_and_die)
        with pytest.raises(Killed):
            kd("train", *settings, folder="outputs/train/interrupted")
    monkeypatch.setattr(ByEpochs, "_iteration_based_training", lambda loop: True)
    with pytest.raises(RuntimeError, match="the fit has ended after step 12 of 18"):
        kd("train", *settings, "ckpt_path=last")
    assert not Path("outputs/train/interrupted/fit.json").exists()


def test_last_is_unfinished_and_of_the_same_settings(kd):
    folder = kd("train", "task=animals", "trainer.max_epochs=1")
    with pytest.raises(
        UserError, match=r"ckpt_path=last: \S+/train/1 has these settings and this data, and has finished"
    ):
        kd("train", "task=animals", "trainer.max_epochs=1", "ckpt_path=last")
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and ".hydra" not in path.parts}
    with pytest.raises(UserError, match="ckpt_path=last: outputs/train/1 has finished; skip_finished=true leaves it"):
        kd("train", "task=animals", "trainer.max_epochs=1", "ckpt_path=last", folder="outputs/train/1")
    assert {path: path.read_bytes() for path in before} == before
    with pytest.raises(UserError, match="is of a fit with other settings, data or code"):
        kd("train", "task=animals", "trainer.max_epochs=1", "seed=2", "ckpt_path=last", folder="outputs/train/1")
    assert {path: path.read_bytes() for path in before} == before
    (folder / "fit.json").unlink()
    with pytest.raises(
        UserError, match=r"\S+/train/1, the newest unfinished run of this name, has other settings, data or code"
    ):
        kd("train", "task=animals", "trainer.max_epochs=1", "optimizer.lr=0.5", "ckpt_path=last")


def test_a_checkpoint_is_of_the_same_settings(kd):
    """Another system, rate or annealing has the same tensors: it would go on as if nothing were."""
    folder = kd("train", "task=animals", "trainer.max_epochs=1")
    checkpoint = folder / "checkpoints" / "last.ckpt"
    with pytest.raises(UserError, match="is of a fit with other settings, data or code"):
        kd("train", "task=animals", "trainer.max_epochs=1", "optimizer.lr=0.5", f"ckpt_path={checkpoint}")
    checkpoint.write_bytes(checkpoint.read_bytes()[:1000])
    with pytest.raises(UserError, match="is no whole checkpoint"):
        kd("train", "task=animals", "trainer.max_epochs=1", f"ckpt_path={checkpoint}")


def test_a_stale_slurm_checkpoint_is_not_picked_up(kd, workplace, slurm):
    """Under SLURM, Lightning resumes from any hpc_ckpt in the root folder: a student would start as its teacher."""
    first = kd("train", "task=animals", "trainer.max_epochs=2")
    wanted = kd("train", "task=animals", "trainer.max_epochs=1")
    folder = workplace / "outputs" / "slurm"
    folder.mkdir(parents=True)
    (first / "checkpoints" / "last.ckpt").rename(folder / "hpc_ckpt_1.ckpt")
    kd("train", "task=animals", "trainer.max_epochs=1", folder="outputs/slurm")
    assert weights(folder) == weights(wanted)


def test_a_model_predicts_with_its_own_weights_beside_a_requeue_checkpoint(kd, slurm):
    """Soft targets of a half-trained teacher, under the manifest of the whole one."""
    half = kd("train", "task=animals", "trainer.max_epochs=2", "optimizer.lr=0.01")
    folder = kd("train", "task=animals", "trainer.max_epochs=1")
    scores = read_json(folder / "fit.json")["scores"]["animals"]
    before = (kd("predict", f"run={folder}") / "animals-validation.csv").read_text()
    (half / "checkpoints" / "last.ckpt").rename(folder / "hpc_ckpt_1.ckpt")
    assert (kd("predict", f"run={folder}") / "animals-validation.csv").read_text() == before
    found = read_json(kd("evaluate", f"run={folder}") / "evaluation.json")["scores"]["animals"]
    assert found == pytest.approx(scores, abs=1e-6)


def test_a_model_that_many_trained_is_asked_by_one(kd, monkeypatch):
    """Processes ask the models one after another, each by itself; of two nodes they waited for others."""

    def meets(*_, **__):
        pytest.fail("who predicts waits for another process")

    folder = kd("train", "task=animals", "trainer.max_epochs=1")
    before = (kd("predict", f"run={folder}") / "animals-validation.csv").read_text()
    cfg = OmegaConf.load(folder / "config.yaml")
    cfg.trainer.update({"devices": 2, "num_nodes": 2, "strategy": "ddp_find_unused_parameters_true"})
    OmegaConf.save(cfg, folder / "config.yaml")
    monkeypatch.setattr(torch.distributed, "init_process_group", meets)
    assert (kd("predict", f"run={folder}") / "animals-validation.csv").read_text() == before


def test_a_requeue_that_failed_leaves_the_trained_weights(kd, slurm, monkeypatch):
    """Lightning saves when it is told to requeue, trains on, and loads that file to validate at the end."""
    settings = ["task=animals", "trainer.max_epochs=-1", "trainer.max_steps=8", "batching.batch_size=32"]
    wanted = kd("train", *settings)

    class Requeued(pl.Callback):
        def on_train_batch_end(self, trainer, *_):
            if trainer.global_step == 2:
                trainer.save_checkpoint(f"{trainer.default_root_dir}/hpc_ckpt_1.ckpt")

    built = trainer_module.build_trainer

    def build_trainer(*args, **kwargs):
        trainer = built(*args, **kwargs)
        trainer.callbacks.append(Requeued())
        return trainer

    monkeypatch.setattr("kd_lightning.apps.fits.fit.build_trainer", build_trainer)
    folder = kd("train", *settings)
    assert weights(folder) == weights(wanted)
    assert read_json(folder / "fit.json")["scores"] == read_json(wanted / "fit.json")["scores"]


def test_an_interrupt_is_told_as_one(kd, monkeypatch, workplace):
    """Lightning ends the process with code 1 at Ctrl-C: a run that was stopped would count as one that failed."""

    def stop(self, trainer):
        raise KeyboardInterrupt

    monkeypatch.setattr(ResumeCheckpoint, "save", stop)
    with pytest.raises(KeyboardInterrupt):
        kd("train", "task=animals", folder="outputs/train/stopped")
    summary = read_json(workplace / "outputs" / "train" / "stopped" / "summary.json")
    assert summary["status"] == "interrupted"
    assert summary["average"]["student"] is None


def test_a_run_that_is_being_trained_is_not_joined(kd):
    """Two processes that write the same checkpoint, table and weights."""
    settings = ["task=animals", "trainer.max_epochs=1"]
    folder = kd("train", *settings)
    (folder / "fit.json").unlink()
    with claimed(folder), pytest.raises(UserError, match="is being trained by another command"):
        kd("train", *settings, "ckpt_path=last")
    kd("train", *settings, "ckpt_path=last")


def test_a_job_that_is_started_again_waits_for_its_first_life_to_end(tmp_path, monkeypatch):
    """A file server that has not yet heard of the end: the job is refused, and lost."""
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    held, free = threading.Event(), threading.Event()

    def hold():
        with claimed(tmp_path / "run"):
            held.set()
            free.wait(60)

    other = threading.Thread(target=hold)
    other.start()
    assert held.wait(60)
    threading.Timer(0.3, free.set).start()
    with claimed(tmp_path / "run"):
        assert free.is_set()
    other.join()


def test_a_job_that_is_started_again_after_its_end_ends_well(kd, monkeypatch):
    """It was preempted when all was written: told that it has finished, it would end as refused."""
    settings = ["task=animals", "trainer.max_epochs=1", "ckpt_path=last"]
    folder = kd("train", *settings[:2])
    before = {path: path.read_bytes() for path in folder.rglob("*.safetensors")}
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert kd("train", *settings, folder="outputs/train/1") == folder
    assert read_json(folder / "summary.json")["status"] == "finished"
    assert before
    assert {path: path.read_bytes() for path in before} == before


def test_the_mark_of_a_job_is_its_own(kd):
    """It stays where a full disk keeps the job from saying how it ended; that of a job that was killed goes."""
    settings = ["task=animals", "trainer.max_epochs=1"]
    folder = Path("outputs/train/own")
    folder.mkdir(parents=True)
    (folder / ".running").touch()
    kd("train", *settings, folder=folder)
    assert (folder / ".running").exists()
    (folder / "fit.json").unlink()
    kd("train", *settings, "ckpt_path=last")
    assert (folder / "fit.json").exists()
    assert not (folder / ".running").exists()


def test_a_run_whose_checkpoints_lie_elsewhere_goes_on(tmp_path):
    """``checkpoints`` may be a link, as to scratch; a folder may vanish while one looks."""
    run, scratch = tmp_path / "x" / "1", tmp_path / "scratch"
    for folder in (run, scratch, tmp_path / "x" / "2"):
        folder.mkdir(parents=True)
    (scratch / "last.ckpt").touch()
    (run / "checkpoints").symlink_to(scratch)
    (run / "identity").write_text("abc")
    found = find_checkpoint("last", tmp_path / "x" / "2", "abc", [run, tmp_path / "gone", scratch])
    assert found == (run, run / "checkpoints" / "last.ckpt")


def test_of_several_the_newest_unfinished_goes_on(tmp_path):
    """By its last checkpoint; a finished one that is newer is no reason to refuse them, or told as unfinished."""
    runs = {name: tmp_path / name for name in ("older", "newer", "done", "other")}
    for when, (name, run) in enumerate(runs.items()):
        (run / "checkpoints").mkdir(parents=True)
        (run / "checkpoints" / "last.ckpt").touch()
        os.utime(run / "checkpoints" / "last.ckpt", (when, when))
        (run / "identity").write_text("xyz" if name == "other" else "abc")
    for name in ("done", "other"):
        (runs[name] / "fit.json").touch()
    found, checkpoint = find_checkpoint("last", tmp_path / "ours", "abc", runs.values())
    assert (found, checkpoint) == (runs["newer"], runs["newer"] / "checkpoints" / "last.ckpt")
    with pytest.raises(UserError, match="/newer, the newest unfinished run of this name, has other settings, data or"):
        find_checkpoint("last", tmp_path / "ours", "other", runs.values())
    with pytest.raises(UserError, match=r"last: /.*/done has these settings and this data, and has finished"):
        find_checkpoint("last", tmp_path / "ours", "abc", [runs["done"], runs["other"]])


def test_a_run_in_a_folder_of_ones_own_goes_on_beside_it(kd):
    """``hydra.run.dir=mine/1`` was killed; ``mine/2`` is no place where runs of a name lie."""
    settings = ["task=animals", "trainer.max_epochs=1"]
    before = kd("train", *settings, folder="mine/1")
    (before / "fit.json").unlink()
    kd("train", *settings, "ckpt_path=last", folder="mine/2")
    assert (before / "fit.json").exists()


def test_a_run_of_another_name_is_left_alone(kd):
    """``ckpt_path=last`` took it, and its summary was that of the other."""
    settings = ["task=animals", "trainer.max_epochs=1"]
    other = kd("train", *settings, "name=a", folder="outputs/train/sweep_1/0")
    (other / "fit.json").unlink()
    (other.parent / "multirun.yaml").touch()
    with pytest.raises(UserError, match="ckpt_path=last: no unfinished run of this name with a checkpoint"):
        kd("train", *settings, "ckpt_path=last")
    kd("train", *settings, "name=a", "ckpt_path=last", folder="outputs/a/1")
    assert (other / "fit.json").exists()


def test_a_run_knows_its_own_tasks(kd, workplace):
    """``task=NAME`` asks for a folder of options again, for a task that the run describes."""
    run = kd("train", "task=[animals,beasts]", "trainer.max_epochs=1")
    line = ["kd-predict", f"run={run}", "task=animals", "file=beasts-dev.csv", "output=out"]
    assert tasks_of_run(line) == [*line[:2], "+task.animals={}", *line[3:]]
    assert tasks_of_run([*line[:2], "task=[animals, rte]"])[2:] == ["+task.animals={}", "task=[rte]"]
    assert tasks_of_run([line[0], f"run='{run}'", "task='beasts'"])[2:] == ["+task.beasts={}"]
    assert tasks_of_run([*line, "task.animals.files.test=x"])[-1] == "++task.animals.files.test=x"
    for asked in ("task=rte", "task=animal", "task=", "split=train", "task=animals,beasts", "task=[animals"):
        assert tasks_of_run([*line[:2], asked])[2:] == [asked]
    assert tasks_of_run(["kd-predict", "run=nowhere", "task=animals"])[2:] == ["task=animals"]
    assert tasks_of_run(["kd-train", "task=animals"]) == ["kd-train", "task=animals"]
    for own in (["--config-dir", "mine"], ["hydra.searchpath=[file://mine]"]):
        assert tasks_of_run([*line, *own]) == [*line, *own]
    (workplace / "broken").mkdir()
    (workplace / "broken" / "config.yaml").write_text("task: [")
    assert tasks_of_run(["kd-predict", "run=broken", "task=animals"])[2:] == ["task=animals"]


def test_what_is_not_said_of_a_runs_task_is_the_runs(kd, workplace):
    """The labels of an option of this name, or a file that takes away those that the run has."""
    run = kd("train", "task=[animals,beasts]", "trainer.max_epochs=1")
    kd("predict", f"run={run}", "+task.animals={}", "file=beasts-dev.csv", "output=out")
    assert len((workplace / "out" / "animals-beasts-dev.csv").read_text().splitlines()) == 33
    evaluation = kd("evaluate", f"run={run}", "+task.beasts={}") / "evaluation.json"
    assert set(read_json(evaluation)["scores"]) == {"beasts"}
    files = ["+task.beasts={}", "++task.beasts.files.test=animals-train.csv"]
    kd("predict", f"run={run}", *files, "split=test", "output=out")
    assert len((workplace / "out" / "beasts-test.csv").read_text().splitlines()) == 97
    kd("predict", f"run={run}", *files, "output=out")
    assert len((workplace / "out" / "beasts-validation.csv").read_text().splitlines()) == 33
    whole = {"_target_": "kd_lightning.tasks.Task", "name": "animals", "kind": "classification"}
    whole |= {"labels": "[same,different]", "metrics": "[accuracy]", "texts": "[first,second]"}
    node = ", ".join(f"{name}: {value}" for name, value in {**whole, "files": "{validation: animals-dev.csv}"}.items())
    with pytest.raises(UserError, match=r"labels is .*was trained with"):  # a task that is said whole is what it says
        kd("evaluate", f"run={run}", f"+task.animals={{{node}}}")
    with pytest.raises(UserError, match="task beasts has no _target_"):
        kd("evaluate", f"run={run}", "+task.beasts=null")


def test_a_model_that_diverges_is_no_result(kd, monkeypatch, workplace):
    """Predictions that are not a number are class 0 to an argmax: a score that looks like one."""
    monkeypatch.setattr(Teacher, "logits", lambda self, task, hidden, rows: hidden[rows, :2] * float("nan"))
    with pytest.raises(UserError, match=r"task animals: after 6 steps the model predicts .* lower optimizer\.lr"):
        kd("train", "task=animals", "trainer.max_epochs=1", folder="outputs/train/nan")
    assert not (workplace / "outputs" / "train" / "nan" / "fit.json").exists()


def test_the_profiler_says_where_the_time_went(kd):
    """Its report goes to a logger that is silenced."""
    folder = kd("train", "task=animals", "debug=profiler")
    (report,) = folder.glob("fit-profile*.txt")
    assert "training_step" in report.read_text()


@pytest.fixture
def plain_descent(workplace):
    """Settings under which a gradient of another size is another run: no Adam, no clip, no dropout."""
    (workplace / "mine" / "optimizer").mkdir()
    sgd = "lr: 1\nlayer_decay: 1.0\nweight_decay: 0.0\noptimizer: {_target_: torch.optim.SGD, _partial_: true}\n"
    plain = workplace / "mine" / "optimizer" / "plain.yaml"
    plain.write_text(f"_target_: kd_lightning.optim.LayerwiseOptimizer\n{sgd}")
    settings = ["task=[animals,beasts]", "optimizer=plain", "trainer.gradient_clip_val=null", "trainer.max_epochs=2"]
    return [*settings, "encoder.dropout=0", "system.head.dropout=0", "trainer.log_every_n_steps=1"]


@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_two_processes_give_the_curve_of_one(kd, plain_descent, reduction):
    """At the same global batch: shards that overlap, or a gradient that is averaged twice or not at all, bend it."""
    settings = [*plain_descent, f"system.reduction={reduction}", f"optimizer.lr={0.01 if reduction == 'sum' else 0.3}"]
    one = pd.read_csv(kd("train", *settings) / "metrics.csv")
    two = pd.read_csv(kd("train", *settings, "accelerator=ddp_cpu") / "metrics.csv")
    assert len(one) == len(two) > 8
    assert one["train/loss"].diff().abs().mean() > 0.02, "a curve that is flat bends nowhere"
    for column in ("train/loss", "train/animals/gold_loss", "val/beasts/accuracy"):
        assert two[column].to_numpy() == pytest.approx(one[column].to_numpy(), abs=1e-4, nan_ok=True), column


def test_two_processes_anneal_as_one(kd, plain_descent):
    """BAM, one task with a teacher and one without: a count, gold weight or position of one process would show."""
    teacher = kd("train", "task=animals", "trainer.max_epochs=1")
    kd("predict", f"run={teacher}", "split=train", "format=soft_targets", "output=targets")
    settings = [*plain_descent, "system=bam", "+soft_targets.animals=targets/animals-train", "optimizer.lr=0.01"]
    one = pd.read_csv(kd("train", *settings) / "metrics.csv")
    two = pd.read_csv(kd("train", *settings, "accelerator=ddp_cpu") / "metrics.csv")
    assert one["train/gold_weight"].dropna().is_monotonic_increasing
    for column in ("train/loss", "train/gold_weight", "train/animals/soft_loss", "train/beasts/gold_loss"):
        assert two[column].to_numpy() == pytest.approx(one[column].to_numpy(), abs=1e-4, nan_ok=True), column


@pytest.mark.parametrize(
    "optimizer",
    [["optimizer.lr=3"], ["optimizer=adadelta", "optimizer.lr=30"], ["optimizer=lazy_adam", "optimizer.lr=0.3"]],
    ids=["descent", "adadelta", "lazy_adam"],
)
def test_two_processes_share_sparse_gradients(kd, plain_descent, optimizer):
    """The rows that one process touches, and those of the other; a repeated word is in both, one that rests in none."""
    settings = [word for word in plain_descent if not word.startswith("encoder.")]
    settings += ["encoder=bilstm", "encoder.sparse=true", "encoder.words.size=8", "encoder.hidden_size=4"]
    settings += ["system.reduction=mean", *optimizer]
    one = pd.read_csv(kd("train", *settings) / "metrics.csv")
    two = pd.read_csv(kd("train", *settings, "accelerator=ddp_cpu") / "metrics.csv")
    assert one["train/loss"].diff().abs().mean() > 0.02, "a curve that is flat bends nowhere"
    assert two["train/loss"].to_numpy() == pytest.approx(one["train/loss"].to_numpy(), abs=1e-4, nan_ok=True)


def test_heads_at_rest_rest_in_two_processes_as_well(kd):
    """A gradient of zero is none: Adam would move the head of a task that a batch lacks, and weight decay shrink it."""
    settings = ["task=[animals,beasts]", "batching.single_task=true", "trainer.max_epochs=2", "optimizer.lr=0.01"]
    settings += [
        "optimizer.weight_decay=1",
        "encoder.dropout=0",
        "system.head.dropout=0",
        "trainer.log_every_n_steps=1",
    ]
    runs = [kd("train", *settings), kd("train", *settings, "accelerator=ddp_cpu")]
    one, two = (load_file(run / "heads.safetensors") for run in runs)
    losses = [pd.read_csv(run / "metrics.csv")["train/loss"].to_numpy() for run in runs]
    assert losses[1] == pytest.approx(losses[0], abs=1e-4, nan_ok=True)
    for name, weight in one.items():
        torch.testing.assert_close(two[name], weight, rtol=1e-3, atol=1e-4)


def test_a_fit_of_another_format_is_another(kd, monkeypatch):
    """Weights of other code, under the same address: a student that is found and cannot be loaded."""
    once = ["task=animals", "trainer.max_epochs=-1", "trainer.max_steps=1"]
    addresses = {read_json(kd("train", *once) / "fit.json")["identity"] for _ in range(2)}
    monkeypatch.setattr(identity, "FORMAT", 0)
    addresses.add(read_json(kd("train", *once) / "fit.json")["identity"])
    assert len(addresses) == 2


def test_processes_that_wait_for_all_heads_are_refused(kd):
    """Torch's traceback at the first batch without one of the tasks."""
    length = ["accelerator=ddp_cpu", "trainer.max_epochs=-1", "trainer.max_steps=1"]
    for strategy in ("auto", "ddp", "ddp_find_unused_parameters_false"):
        use = "accelerator=ddp .ddp_cpu without GPUs.$" if strategy == "auto" else "ddp_find_unused_parameters_true$"
        told = rf"trainer.strategy is {strategy}, .* one of 2 tasks: use {use}"
        with pytest.raises(UserError, match=told):
            kd("train", "task=[animals,beasts]", *length, f"trainer.strategy={strategy}")
    kd("train", "task=animals", *length, f"trainer.strategy={strategy}")


def test_a_batch_that_processes_cannot_share_is_refused(kd):
    with pytest.raises(UserError, match="multiple of the 2 processes"):
        kd("train", "task=animals", "accelerator=ddp_cpu", "batching.batch_size=31")


def test_summaries_are_json_without_nan(kd):
    """A model that says the same of everything has no correlation; a bare NaN is no JSON."""
    folder = kd("train", "task=close", "trainer.max_epochs=1", "optimizer.lr=1e-12", "system.head.dropout=0")
    json.loads((folder / "summary.json").read_text(), parse_constant=pytest.fail)


def test_both_orders_are_trained_on(kd):
    """Symmetric pairs in one order only: half of BAM's examples."""
    folder = kd("train", "task=animals", "trainer.max_epochs=1", "batching.batch_size=16")
    assert read_json(folder / "fit.json")["steps"] == 12  # 96 pairs, twice, by 16


def test_the_chosen_sampler_is_the_one_that_samples(kd, monkeypatch):
    """Uniform sampling by configuration, by size in the stream."""
    taken = []
    build_data = Fit.build_data
    monkeypatch.setattr(Fit, "build_data", lambda fit: taken.append(build_data(fit)) or taken[-1])
    kd("train", "task=[animals,beasts]", "trainer.max_epochs=1", "task_sampler=uniform")
    plan, _ = taken[0].train_dataloader().plan(0)
    assert np.bincount(plan.ravel()).tolist() == [plan.size / 2, plan.size / 2]


def test_a_metric_is_of_its_split(kd, workplace):
    """Two evaluation splits, the second with every label turned: one accuracy is one minus the other."""
    dev = pd.read_csv("animals-dev.csv")
    dev.assign(label=dev["label"].map({"same": "different", "different": "same"})).to_csv("turned.csv", index=False)
    path = workplace / "mine" / "task" / "animals.yaml"
    path.write_text(
        path.read_text().replace("files:", "evaluation: [validation, turned]\n  files:\n    turned: turned.csv")
    )
    scores = read_json(kd("train", "task=animals", "trainer.max_epochs=1") / "fit.json")["scores"]
    assert scores["animals"]["accuracy"] + scores["animals/turned"]["accuracy"] == pytest.approx(1)
    assert scores["animals"]["accuracy"] != pytest.approx(0.5)
