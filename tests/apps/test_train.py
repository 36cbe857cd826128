"""kd-train, kd-evaluate and kd-predict, from files of one's own to predictions."""

import json

import pandas as pd
import pytest
import torch

from kd_lightning.callbacks import ResumeCheckpoint
from kd_lightning.data.folders import read_json
from kd_lightning.errors import UserError


def weights(folder):
    """Return the bytes of a run's weights."""
    return [(folder / name).read_bytes() for name in ("encoder/model.safetensors", "heads.safetensors")]


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
    backwards = pd.read_csv(kd("predict", f"run={folder}", "file=reversed.csv") / "animals-validation.csv")
    pd.testing.assert_series_equal(forwards["p_same"], backwards["p_same"][::-1].reset_index(drop=True), atol=1e-5)
    assert set(forwards["prediction"]) <= {"different", "same"}
    assert forwards[["p_different", "p_same"]].sum(axis=1).to_numpy() == pytest.approx(1, abs=1e-5)


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


def test_a_task_that_is_not_trained_here_is_refused(kd):
    with pytest.raises(UserError, match="names the task beasts"):
        kd("train", "system=bam", "task=animals", "+soft_targets.beasts=nowhere")


class Killed(BaseException):
    """Stands for the end of the process."""


@pytest.mark.parametrize("step", [1, 4, 6, 9, 11])
def test_an_interrupted_run_equals_an_uninterrupted_one(kd, monkeypatch, step):
    """To the bit: optimiser, schedule, gold weight, dropout, position in the data, metrics.csv. 6 steps an epoch."""
    settings = ["task=[animals]", "batching.batch_size=32", "trainer.max_epochs=2", "trainer.log_every_n_steps=1"]
    settings += ["callbacks.resume_checkpoint.every_n_steps=1"]
    whole = kd("train", *settings)
    save = ResumeCheckpoint.save

    def save_and_die(self, trainer):
        save(self, trainer)
        if trainer.global_step == step:
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


def test_last_is_of_the_same_settings_only(kd):
    kd("train", "task=animals", "trainer.max_epochs=1")
    with pytest.raises(UserError, match="ckpt_path=last: none of the 1 runs"):
        kd("train", "task=animals", "trainer.max_epochs=1", "optimizer.lr=0.5", "ckpt_path=last")


def test_a_stale_slurm_checkpoint_is_not_picked_up(kd, workplace, monkeypatch):
    """Under SLURM, Lightning resumes from any hpc_ckpt in the root folder: a student would start as its teacher."""
    first = kd("train", "task=animals", "trainer.max_epochs=2")
    wanted = kd("train", "task=animals", "trainer.max_epochs=1")
    folder = workplace / "outputs" / "slurm"
    folder.mkdir(parents=True)
    (first / "checkpoints" / "last.ckpt").rename(folder / "hpc_ckpt_1.ckpt")
    slurm = {"NTASKS": 1, "NTASKS_PER_NODE": 1, "PROCID": 0, "LOCALID": 0, "NODEID": 0, "JOB_ID": 1, "JOB_NAME": "kd"}
    for name, value in slurm.items():
        monkeypatch.setenv(f"SLURM_{name}", str(value))
    kd("train", "task=animals", "trainer.max_epochs=1", folder="outputs/slurm")
    assert weights(folder) == weights(wanted)


def test_two_processes_give_the_curve_of_one(kd):
    """At the same global batch, dropout off: shards that overlap, or a loss averaged twice, bend it."""
    settings = ["task=[animals,beasts]", "encoder.dropout=0", "system.head.dropout=0", "trainer.log_every_n_steps=1"]
    settings += ["trainer.max_epochs=2"]
    one = pd.read_csv(kd("train", *settings) / "metrics.csv")
    two = pd.read_csv(kd("train", *settings, "accelerator=ddp_cpu") / "metrics.csv")
    assert len(one) == len(two) > 8
    for column in ("train/loss", "train/animals/gold_loss", "val/beasts/accuracy"):
        assert two[column].to_numpy() == pytest.approx(one[column].to_numpy(), abs=1e-4, nan_ok=True), column


def test_a_batch_that_processes_cannot_share_is_refused(kd):
    with pytest.raises(UserError, match="multiple of the 2 processes"):
        kd("train", "task=animals", "accelerator=ddp_cpu", "batching.batch_size=31")


def test_summaries_are_json_without_nan(kd):
    folder = kd("train", "task=animals", "trainer.max_epochs=1")
    json.loads((folder / "summary.json").read_text(), parse_constant=pytest.fail)
