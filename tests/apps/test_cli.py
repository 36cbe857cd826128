"""The console scripts as people call them: quick answers, one-line errors, exit code 2."""

import subprocess
import sys

import pytest

from kd_lightning.apps.cli import encoder_shorthand, one_line


def call(command, *arguments):
    """Run ``python -m kd_lightning.COMMAND``."""
    line = [sys.executable, "-m", f"kd_lightning.{command}", *arguments]
    return subprocess.run(line, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("command", ["train", "predict", "evaluate", "distill"])
def test_help_teaches_and_needs_nothing_heavy(command):
    code = (
        "import sys, atexit; sys.argv = ['kd', '--help']\n"
        f"from kd_lightning.{command} import main\n"
        "heavy = ('torch', 'transformers', 'pytorch_lightning', 'pandas', 'pyarrow', 'wandb')\n"
        "atexit.register(lambda: print('HEAVY', [name for name in heavy if name in sys.modules]))\n"
        "main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert f"kd-{command}: " in done.stdout
    assert "Settings:" in done.stdout
    assert done.stdout.rstrip().endswith("HEAVY []")


@pytest.mark.parametrize(
    ("overrides", "wanted"),
    [
        pytest.param(["foo=1"], "there is no setting 'foo'", id="unknown setting"),
        pytest.param(["task=rtx"], "did you mean task=rte?", id="near miss"),
        pytest.param(["task=zzzz"], "expected one of ax, cola", id="unknown option"),
        pytest.param(["seed=-1"], "seed is -1, expected a whole number of at least 0", id="seed below zero"),
        pytest.param(["batching.batch_size=many"], "batching.batch_size is 'many'", id="batch size in words"),
        pytest.param(["optimizer.lr=quick"], "optimizer.lr is 'quick', expected a number", id="rate in words"),
        pytest.param(["encoder=pretrained"], "encoder.path has no value: give encoder.path=VALUE", id="missing value"),
        pytest.param(["data.root=/no/such"], "data.root is '/no/such', expected a folder", id="missing folder"),
    ],
)
def test_a_wrong_configuration_is_one_line_and_code_2(overrides, wanted, tmp_path):
    done = call("train", *overrides, f"hydra.run.dir={tmp_path}/run")
    assert done.returncode == 2
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("kd-train: error: ")
    assert wanted in line


def test_an_encoder_by_name_or_folder():
    """``encoder=HUB-NAME`` is short for two settings; the teacher follows unless it is chosen."""
    assert encoder_shorthand(["kd-train", "encoder=a/b-c"]) == [
        "kd-train",
        "encoder=pretrained",
        "encoder.path='a/b-c'",
    ]
    assert "teacher.encoder.path='./x'" in encoder_shorthand(["kd-distill", "encoder=./x"])
    chosen = encoder_shorthand(["kd-distill", "encoder=./x", "encoder@teacher.encoder=tiny"])
    assert not [argument for argument in chosen if argument.startswith("teacher.encoder.path")]
    assert encoder_shorthand(["kd-train", "encoder=tiny", "seed=1"]) == ["kd-train", "encoder=tiny", "seed=1"]


def test_other_messages_of_hydra_become_one_line():
    assert one_line("first\n  second\n\nSet the environment variable HYDRA_FULL_ERROR=1") == "first second"
