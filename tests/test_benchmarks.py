"""What benchmarks/ promises apart from numbers: every script starts, refuses to measure nothing, decides rightly."""

import os
import re
import runpy
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCRIPTS = sorted(path for path in (ROOT / "benchmarks").glob("*.py") if path.stem != "measure")


@pytest.fixture
def script(monkeypatch):
    """Run a script here: ``script(path, "--help")``."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))

    def run(path, *arguments):
        monkeypatch.setattr(sys, "argv", [str(path), *arguments])
        runpy.run_path(str(path), run_name="__main__")

    return run


@pytest.fixture
def measure(monkeypatch):
    """Return the module that the scripts share."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import measure

    return measure


@pytest.mark.filterwarnings("ignore")  # of libraries that rivals import
@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_every_script_says_what_it_does(script, path, capsys):
    with pytest.raises(SystemExit) as ended:
        script(path, "--help")
    assert ended.value.code == 0
    said = capsys.readouterr().out
    assert "--rounds" in said
    assert f"python benchmarks/{path.name}" in said


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "name",
    [
        "padding",
        "finetune",
        "many_students",
        "bilstm_training",
        "bilstm_inference",
        "augmentation",
        "labelling",
        "cases_per_second",
        "compiled",
    ],
)
def test_nothing_measured_is_not_a_success(script, name, tmp_path):
    """``make bench`` must not pass where there are no data."""
    with pytest.raises(SystemExit) as ended:
        script(ROOT / "benchmarks" / f"{name}.py", "--data", str(tmp_path))
    assert str(ended.value.code).startswith("not measured: no ")


def test_a_missing_rival_is_not_a_success(measure):
    with pytest.raises(SystemExit, match="not measured: no_such_rival is not installed"):
        measure.need_packages("no_such_rival")


def test_make_bench_runs_what_the_page_says():
    page = (ROOT / "benchmarks" / "README.md").read_text()
    block = re.search(r"What `make bench.*?```\n(.*?)```", page, flags=re.DOTALL)
    made = re.findall(r"^\t\$\(BIN\)/(python benchmarks/.*)\$\(ON\)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert made == block[1].splitlines()
    assert {path.name for path in SCRIPTS} == {line.split()[1].partition("/")[2] for line in made}


def test_threads_wait_as_in_the_commands(measure, monkeypatch):
    """A benchmark in another environment measures something else than what people run."""
    from kd_lightning.apps.command_line.cli import quiet

    ours = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "LRU_CACHE_CAPACITY", "ONEDNN_PRIMITIVE_CACHE_CAPACITY")
    for name in ours:
        monkeypatch.setenv(name, "")  # to have it restored
        monkeypatch.delenv(name)
    for name in ("TOKENIZERS_PARALLELISM", "HF_HUB_DISABLE_PROGRESS_BARS", "TRANSFORMERS_VERBOSITY"):
        monkeypatch.setenv(name, "x")
    monkeypatch.setenv("TORCH_CPP_LOG_LEVEL", "ERROR")
    monkeypatch.setenv("WANDB_SILENT", "true")
    quiet()
    for name in ours:
        assert measure.ENVIRONMENT[name] == os.environ[name]


def test_no_worse_is_about_pairs(measure):
    """By hand: differences 1, 2, 3 have the mean 2 and the spread 1; t(0.95, 2) = 2.92, so the bound is 0.314."""
    found = measure.paired([11.0, 22.0, 33.0], [10.0, 20.0, 30.0])
    assert found.each == [1.0, 2.0, 3.0]
    assert (found.mean, found.spread) == (2.0, 1.0)
    assert found.low == pytest.approx(2 - 2.91999 / 3**0.5, abs=1e-4)
    assert measure.no_worse("same", measure.paired([90.0, 91.0], [90.0, 91.0]), 1.0)
    assert not measure.no_worse("worse", measure.paired([88.0, 89.0], [90.0, 91.0]), 1.0)
    assert not measure.no_worse("too noisy to tell", measure.paired([90.0, 95.0], [95.0, 90.0]), 1.0)
    assert not measure.no_worse("one seed", measure.paired([90.0], [90.0]), 1.0)


def test_noise_is_that_of_the_seeds(measure):
    single = [90.0, 91.0, 92.0]
    assert measure.within_noise("half a point", measure.paired([90.5, 91.5, 92.5], single), single)
    assert not measure.within_noise("two points", measure.paired([88.0, 89.0, 90.0], single), single)
