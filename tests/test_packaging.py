"""What is installed is what is here: the built wheel, in a clean environment, outside the checkout."""

import configparser
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def test_setup_lists_every_package():
    """A folder that is missing there is missing in the wheel."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    listed = set(setup["options"]["packages"].split())
    there = {".".join(path.parent.relative_to(ROOT).parts) for path in (ROOT / "kd_lightning").rglob("__init__.py")}
    assert listed == there | {"kd_lightning.conf"}


@pytest.fixture(scope="module")
def archives(tmp_path_factory):
    """The wheel, built from the source archive as an installer would."""
    source, built = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("built")
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    for name in filter(None, tracked.decode().split("\0")):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).is_file():
            shutil.copy2(ROOT / name, source / name)
    subprocess.run([sys.executable, "-m", "build", "--outdir", built, source], check=True, capture_output=True)
    return built


@pytest.mark.slow
def test_the_wheel_works_outside_the_checkout(archives, tmp_path):
    (wheel,) = archives.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert "kd_lightning/conf/task/rte.yaml" in names
    assert "kd_lightning/py.typed" in names
    assert not [name for name in names if name.startswith(("conf/", "tests/", "experiments/", "benchmarks/"))]

    site = tmp_path / "site"
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", site, wheel],
        check=True,
    )
    environment = {**os.environ, "PYTHONPATH": str(site)}
    script = site / "bin" / "kd-train"
    assert script.is_file()
    code = "import kd_lightning, sys; print(kd_lightning.__file__)"
    found = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert str(site) in found.stdout, "the wheel is used, not the checkout"
    run = [sys.executable, "-m", "kd_lightning.train", "--info", "searchpath"]
    done = subprocess.run(run, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert "pkg://kd_lightning.conf" in done.stdout
    train = ["data=embedded", "task=toy_sentiment", "encoder=tiny", "debug=fast_dev_run", "accelerator=cpu"]
    run = [sys.executable, "-m", "kd_lightning.train", *train]
    done = subprocess.run(run, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.glob("outputs/train/*/summary.json"))


@pytest.mark.slow
def test_the_source_archive_holds_the_configurations(archives):
    (archive,) = archives.glob("*.tar.gz")
    listed = subprocess.run(["tar", "tzf", archive], capture_output=True, text=True, check=True).stdout
    assert "/conf/task/rte.yaml" in listed
