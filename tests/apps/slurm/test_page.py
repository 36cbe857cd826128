"""docs/clusters.md as a newcomer follows it: each of its commands in turn, of little models, on two nodes."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from kd_lightning.apps.command_line.grids import jobs_of_grid

pytestmark = pytest.mark.slurm

PAGE = (Path(__file__).parents[3] / "docs" / "clusters.md").read_text()
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE, flags=re.DOTALL | re.MULTILINE)
COMMANDS = [line for language, block in BLOCKS if language == "" for line in block.splitlines()]
LITTLE = "data.limit=64 trainer.max_epochs=1 teacher.trainer.max_epochs=1"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A working directory with the files that the page shows, each under the name that it begins with."""
    folder = tmp_path_factory.mktemp("newcomer")
    for _, block in BLOCKS:
        if name := re.search(r"^# (mine/\S+|\S+\.sh)$", block, flags=re.MULTILINE):
            file = folder / name[1]
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(re.sub(r"kd-distill .*", rf"\g<0> {LITTLE}", block))
    return folder


@pytest.fixture
def run(place, slurm):
    """Return a function that runs a line in the shell, and returns how it ended; its models are little."""
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
    environment = {name: value for name, value in os.environ.items() if name != "WANDB_API_KEY"}
    environment |= {"PATH": path, "OMP_NUM_THREADS": "1", "HOME": str(place)}

    def ended(line):
        line = f"{line} {LITTLE}" if "experiment=" in line else line
        return subprocess.run(line, shell=True, cwd=place, env=environment, capture_output=True, text=True)

    return ended


@pytest.mark.parametrize("line", [line for line in COMMANDS if not line.startswith(("pip ", "kd-dashboard ENTITY"))])
def test_a_command_of_the_page_runs(line, run, place):
    """A sweep has each of its jobs finished, here or elsewhere; a first wave has no students."""
    ended = run(line)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    words = shlex.split(line)
    if "-m" not in words or words[0] != "kd-distill":
        return
    sweep = max(place.glob("outputs/quickstart/sweep_*"))
    ran = [json.loads(path.read_text()) for path in sweep.glob("*/summary.json")]
    found = list(sweep.glob("*/finished_in.txt"))
    assert len(ran) + len(found) == len(jobs_of_grid({}, [word for word in words if "=" in word]))
    assert bool(found) is ("skip_finished=true" in words)
    assert {"until" in summary for summary in ran} <= {"until=soft_targets" in words}


def test_the_other_commands_have_left_their_results(place):
    """Each of a script's tasks knows its place: one run of two processes; the report; the dashboard."""
    (by_script,) = place.glob("outputs/quickstart/job_*")
    for folder in (by_script, place / "outputs" / "quickstart" / "by_torchrun"):
        assert (folder / "summary.json").exists()
    assert (place / "outputs" / "quickstart" / "report" / "report.html").exists()
    assert (place / "workspace.json").exists()


def test_who_has_no_account_is_told_so(run):
    """The only command of the page that needs one."""
    (line,) = [line for line in COMMANDS if line.startswith("kd-dashboard ENTITY")]
    ended = run(line)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert f"\n{ended.stderr.strip()}\n" in PAGE
