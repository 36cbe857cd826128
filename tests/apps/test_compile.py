"""Compiled networks through the commands: the same runs under the same names, with and without."""

import csv
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from kd_lightning.callbacks import ResumeCheckpoint
from kd_lightning.encoders import CompiledReading

STILL = ["encoder.dropout=0", "system.head.dropout=0"]
SETTINGS = ["task=[animals]", "trainer.max_epochs=2", "trainer.log_every_n_steps=1", "encoder.max_length=32", *STILL]


@pytest.fixture
def traced(monkeypatch):
    """Graphs are traced as they would be, and run as they are: compilers take their time."""
    monkeypatch.setitem(CompiledReading.__init__.__kwdefaults__, "backend", "eager")


@pytest.fixture
def read(monkeypatch):
    """The encoders that were read compiled: their numbers of layers, in order, each once in a row."""
    found, before = [], CompiledReading.read

    def recorded(self, encoder, *inputs, **more):
        if found[-1:] != [encoder.num_layers]:
            found.append(encoder.num_layers)
        return before(self, encoder, *inputs, **more)

    monkeypatch.setattr(CompiledReading, "read", recorded)
    return found


def losses(folder):
    """Return the training losses by step."""
    with (folder / "metrics.csv").open() as file:
        return torch.tensor([float(row["train/loss"]) for row in csv.DictReader(file) if row["train/loss"]])


def predicted(kd, run, *overrides):
    """Return the probabilities that a run's model gives to its rows."""
    with (
        kd("predict", f"run={run}", "trainer.precision=32-true", *overrides) / "animals-validation.csv"
    ).open() as file:
        return torch.tensor([float(row["p_same"]) for row in csv.DictReader(file)])


def test_a_compiled_run_is_the_same_run(kd):
    """Losses of another curve, weights under other names, a model that only a compiled system can load."""
    plain, compiled = kd("train", *SETTINGS), kd("train", *SETTINGS, "compile=true")
    assert len(losses(plain)) == 12
    torch.testing.assert_close(losses(compiled), losses(plain), atol=1e-4, rtol=1e-4)
    kept = [load_file(run / "encoder" / "model.safetensors") for run in (plain, compiled)]
    assert [*kept[0]] == [*kept[1]]
    identities = [json.loads((run / "fit.json").read_text())["identity"] for run in (plain, compiled)]
    assert identities[0] == identities[1]


def test_a_compiled_model_predicts_as_it_is(kd, traced, read):
    run = kd("train", *SETTINGS, "compile=true")
    assert read == [1]
    as_it_is = predicted(kd, run)
    assert read == [1], "a compiled run is not predicted compiled unless it is asked for"
    torch.testing.assert_close(predicted(kd, run, "compile=true"), as_it_is, atol=1e-5, rtol=1e-4)
    assert len(read) == 1
    kd("evaluate", f"run={run}", "compile=true")


@pytest.mark.parametrize("first", ["compile=true", "compile=false"])
def test_an_interrupted_run_goes_on_compiled_or_not(kd, traced, monkeypatch, first):
    """A checkpoint that names its weights after the compiler, or is of another identity."""
    second = {"compile=true": "compile=false", "compile=false": "compile=true"}[first]
    settings = [*SETTINGS, "callbacks.resume_checkpoint.every_n_steps=1"]
    whole, save = kd("train", *settings), ResumeCheckpoint.save

    def save_and_die(self, trainer):
        save(self, trainer)
        if trainer.global_step == 4:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(ResumeCheckpoint, "save", save_and_die)
        with pytest.raises(KeyboardInterrupt):
            kd("train", *settings, first, folder="outputs/train/cut")
    checkpoint = next(Path("outputs/train/cut").glob("**/*.ckpt"))
    names = torch.load(checkpoint, weights_only=True)["state_dict"]
    assert not [name for name in names if "_orig_mod" in name]
    found = kd("train", *settings, second, f"ckpt_path={checkpoint}")
    torch.testing.assert_close(losses(found)[-8:], losses(whole)[-8:], atol=1e-4, rtol=1e-4)


def test_teachers_are_shared_by_runs_that_compile_and_runs_that_do_not(kd, traced, read, fits):
    """A sweep on GPUs that trains its teachers again because it compiles them; a teacher has two layers here."""
    settings = ["task=[animals]", "system=bam", "trainer.max_epochs=1", "teacher.trainer.max_epochs=1"]
    kd("distill", *settings, "compile=true", "+teacher.trainer.compile=false")
    assert sorted(fits) == ["baseline", "student", "teacher animals"]
    assert set(read) == {1}, "the teacher is not compiled"
    kd("distill", *settings)
    assert len(fits) == 3
    kd("distill", *settings, "seed=2", "+teacher.trainer.compile=true")
    assert len(fits) == 5


def test_a_bilstm_is_left_as_it_is_and_says_so(kd, traced, read, caplog):
    """An LSTM is no reason to refuse a run whose teacher can be compiled."""
    settings = ["task=[animals]", "system=bilstm", "encoder=bilstm", "trainer.max_epochs=1", "compile=true"]
    with caplog.at_level("INFO"):
        kd("distill", *settings, "teacher.trainer.max_epochs=1", "baseline=false")
    assert set(read) == {2}
    assert "student: compile=true: PyTorch compiles no LSTM, this encoder is not compiled" in caplog.text
