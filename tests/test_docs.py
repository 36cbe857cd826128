"""What the documentation says can be done: every kd- command in it composes, every link leads somewhere."""

import re
import shlex
from pathlib import Path

import pytest
import yaml
from hydra import compose, initialize_config_dir

from kd_lightning.apps.cli import encoder_shorthand
from kd_lightning.tasks import Task

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
PAGES += [*sorted((ROOT / "experiments").rglob("*.md")), ROOT / "benchmarks" / "README.md"]


def blocks(page, language):
    """Return the code blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), flags=re.DOTALL | re.MULTILINE)


def commands():
    """Yield (page, words) of every kd- command in a block or between backticks."""
    for page in PAGES:
        lines = [line for block in blocks(page, "") for line in block.splitlines()]
        lines += re.findall(r"`(kd-(?:train|distill|predict|evaluate) [^`]+)`", page.read_text())
        for line in lines:
            found = re.search(r"kd-(train|distill|predict|evaluate) (.*)", line.split("    #")[0])
            if found and "error:" not in line and " ... " not in f" {line} ":
                yield pytest.param(found[1], shlex.split(found[2]), id=f"{page.name}: {line.strip()[:70]}")


@pytest.fixture
def mine(tmp_path):
    """A folder of one's own configurations, as the pages describe it."""
    for page in PAGES:
        for block in blocks(page, "yaml"):
            if (name := re.match(r"# mine/(\S+)", block)) is not None:
                (tmp_path / name[1]).parent.mkdir(parents=True, exist_ok=True)
                (tmp_path / name[1]).write_text(block)
    return tmp_path


def test_there_are_commands_to_check():
    assert len(list(commands())) > 15


@pytest.mark.parametrize(("command", "words"), list(commands()))
def test_every_command_composes(command, words, mine):
    words = encoder_shorthand([f"kd-{command}", *words])[1:]
    overrides = [word for word in words if "=" in word]
    if "--config-dir" in words:
        overrides.append(f"hydra.searchpath=[file://{mine}]")
    if "-m" in words:
        overrides = [re.sub(r"=([^\[\]]*?),.*", r"=\1", word) for word in overrides]
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        compose(command, overrides=overrides)


def test_the_task_of_the_readme_is_a_task(mine):
    node = yaml.safe_load((mine / "task" / "reviews.yaml").read_text())["reviews"]
    node.pop("_target_")
    assert Task(**node).metric == "accuracy"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page):
    for target in re.findall(r"\]\((?!http)([^)#]+)", page.read_text()):
        assert (page.parent / target).exists(), target
