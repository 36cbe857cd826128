"""What is installed is what is here: the built wheel, in a new environment, outside the checkout."""

import ast
import configparser
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from contextlib import nullcontext
from importlib.metadata import distribution, packages_distributions
from pathlib import Path

import pytest
import yaml
from hydra import compose, initialize_config_dir
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from kd_lightning.files import write_json

ROOT = Path(__file__).parents[1]
SETUP = configparser.ConfigParser()
SETUP.read(ROOT / "setup.cfg")

in_checkout = pytest.mark.skipif(not (ROOT / ".git").exists(), reason="what is tracked is asked of git: no checkout")

IMPORTED_EXTRAS = ("augment", "dashboard", "plots", "slurm", "sweep")
"""Extras that modules import, where they are used."""

PLUGINS = {"hydra-submitit-launcher", "hydra-optuna-sweeper", "sqlalchemy"}
"""What Hydra imports by itself, all as ``hydra_plugins``, and Optuna for a study in a file."""

NOT_IMPORTED: dict[str, str] = {}
"""Requirements that no import of ours shows, and why they are there."""
LOGGERS = {"MlflowRun": "mlflow-skinny", "TensorBoardLogger": "tensorboard"}
"""Classes of other packages that import a package of their own."""


def declared(*extras):
    """Return the names of the required packages, with those of some extras."""
    lines = SETUP["options"]["install_requires"].split("\n")
    lines += [line for extra in extras for line in SETUP["options.extras_require"][extra].split("\n")]
    return {canonicalize_name(Requirement(line).name) for line in lines if line.strip()}


def imported():
    """Return the packages that the modules import, anywhere in them, and that the configurations name."""
    modules = set()
    for path in (ROOT / "kd_lightning").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                modules |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                modules.add(node.module)
    for path in (ROOT / "conf").rglob("*.yaml"):
        modules |= set(re.findall(r"_target_: ([\w.]+)", path.read_text()))
    found = {name.split(".")[0] for name in modules} - set(sys.stdlib_module_names) - {"kd_lightning", "hydra_plugins"}
    owners = packages_distributions()
    return {canonicalize_name(owners[name][0]) for name in found}


def test_setup_lists_every_package():
    """A folder that is missing there is missing in the wheel."""
    listed = set(SETUP["options"]["packages"].split())
    there = {".".join(path.parent.relative_to(ROOT).parts) for path in (ROOT / "kd_lightning").rglob("__init__.py")}
    assert listed == there | {"kd_lightning.conf"}


def test_what_is_imported_is_required_and_what_is_required_is_imported():
    """A package that comes along with another today may not tomorrow."""
    assert imported() <= declared(*IMPORTED_EXTRAS)
    assert imported() - declared() == declared(*IMPORTED_EXTRAS) - declared() - PLUGINS
    assert declared() - imported() == set(NOT_IMPORTED)


def test_what_configurations_need_beside_is_an_extra():
    for path in (ROOT / "conf").rglob("*.yaml"):
        for package, extra in re.findall(r"installed_folder:(\w+),\w+,(\w+)", path.read_text()):
            assert canonicalize_name(package) in declared(extra), path
        for name, package in LOGGERS.items():
            if name in path.read_text():
                assert package in declared("tensorboard", "mlflow"), path


def test_the_tested_set_covers_what_is_required():
    pinned = {}
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            name, _, version = line.partition("==")
            pinned[canonicalize_name(name)] = version
    for line in [
        *SETUP["options"]["install_requires"].split("\n"),
        *SETUP["options.extras_require"]["dev"].split("\n"),
    ]:
        if line.strip():
            requirement = Requirement(line)
            assert requirement.specifier.contains(pinned[canonicalize_name(requirement.name)]), line


@in_checkout
def test_the_workflow_runs_what_is_there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())["jobs"]
    commands = [step["run"] for job in jobs.values() for step in job["steps"] if "run" in step]
    called = re.findall(r"bash .ci/run|make \w+", "\n".join(commands))
    assert called == ["bash .ci/run", "make slurm", "make quickstart"]
    script = commands[-1]
    script = script.partition("<<'END'\n")[2].partition("END")[0]
    paths = {}
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        for number, name in enumerate(("quickstart", "quickstart_bilstm")):
            told = [f"experiment={name}", f"hydra.job.num={number}", f"paths.output={tmp_path}/outputs"]
            sweep = compose("distill", told, return_hydra_config=True).hydra.sweep
            folder = Path(sweep.dir, str(sweep.subdir))
            folder.mkdir(parents=True)
            paths[name] = folder / "summary.json"
            with pytest.raises(ValueError, match="not enough values") if number == 0 else nullcontext():
                write_json(paths[name], {"average": {"student": 0.8, "baseline": 0.7}})
                exec(script, {})
    exec(script, {})
    for name, path in paths.items():
        for student in (0.7, 0.6):
            write_json(path, {"average": {"student": student, "baseline": 0.7}})
            with pytest.raises(AssertionError, match=rf"/{name}/"):
                exec(script, {})
        write_json(path, {"average": {"student": 0.8, "baseline": 0.7}})


def closure(names):
    """Return the distributions that an installer would bring for these names."""
    found, open_names = {}, set(names)
    while open_names:
        name = open_names.pop()
        found[name] = distribution(name)
        for line in found[name].requires or []:
            requirement = Requirement(line)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                open_names |= {canonicalize_name(requirement.name)} - set(found)
    return found.values()


@pytest.fixture(scope="module")
def archives(tmp_path_factory):
    """The wheel, built from the source archive as an installer would, with what is installed here."""
    source, built = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("built")
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    for name in filter(None, tracked.decode().split("\0")):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).is_file():
            shutil.copy2(ROOT / name, source / name)
    build = [sys.executable, "-m", "build", "--no-isolation", "--outdir", built, source]
    done = subprocess.run(build, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return built


@pytest.fixture(scope="module")
def installed(archives, tmp_path_factory):
    """The folder of the commands of a new environment that has the wheel, what it requires, and nothing else."""
    fresh = tmp_path_factory.mktemp("fresh")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", fresh], check=True)
    (site,) = fresh.glob("lib/python*/site-packages")
    for package in closure(declared()):
        for top in {file.parts[0] for file in package.files if file.parts[0] not in ("..", "__pycache__")}:
            if not (site / top).exists():
                (site / top).symlink_to(package.locate_file(top))
    (wheel,) = archives.glob("*.whl")
    pip = [sys.executable, "-m", "pip", "--python", fresh / "bin" / "python", "--quiet", "install"]
    subprocess.run([*pip, "--no-deps", "--no-index", wheel], check=True)
    return fresh / "bin"


def call(command, *arguments, cwd):
    """Run a command outside the checkout; return its result."""
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    return subprocess.run([command, *arguments], cwd=cwd, env=environment, capture_output=True, text=True, timeout=300)


@pytest.mark.slow
@in_checkout
def test_the_wheel_holds_the_package_alone(archives):
    (wheel,) = archives.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert "kd_lightning/conf/task/rte.yaml" in names
    assert "kd_lightning/py.typed" in names
    assert {name.split("/")[0].partition("-")[0] for name in names} == {"kd_lightning"}


@pytest.mark.slow
@in_checkout
def test_the_source_archive_holds_what_its_tests_need(archives):
    (archive,) = archives.glob("*.tar.gz")
    with tarfile.open(archive) as file:
        names = {name.partition("/")[2] for name in file.getnames()}
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    hidden = (".ci/", ".github/", ".gitignore")
    assert {name for name in tracked.splitlines() if not name.startswith(hidden)} <= names
    assert {"CHANGELOG.md", "constraints.txt", "docs/running.md", "tests/conftest.py", "conf/task/rte.yaml"} <= names


@pytest.mark.slow
@in_checkout
def test_the_commands_work_outside_the_checkout(installed, tmp_path):
    """The real scripts, with what is required and nothing else: a missing requirement, a wrong entry point fails."""
    found = call(installed / "python", "-c", "import kd_lightning; print(kd_lightning.__file__)", cwd=tmp_path)
    assert str(installed.parent) in found.stdout, "the wheel is used, not the checkout"
    assert call(installed / "python", "-c", "import pytest", cwd=tmp_path).returncode == 1, "nothing else is there"
    for name in ("train", "distill", "predict", "evaluate"):
        done = call(installed / f"kd-{name}", "--help", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith(f"kd-{name}: ")
    assert "pkg://kd_lightning.conf" in call(installed / "kd-train", "--info", "searchpath", cwd=tmp_path).stdout
    train = ["data=embedded", "task=toy_sentiment", "encoder=tiny", "debug=fast_dev_run", "accelerator=cpu"]
    done = call(installed / "kd-train", *train, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.glob("outputs/fast_dev_run/*/summary.json"))
    done = call(installed / "kd-report", "outputs", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "plots are left out" in done.stderr, "matplotlib is an extra"
    assert (tmp_path / "outputs" / "report" / "report.html").is_file()
