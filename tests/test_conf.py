"""Every configuration composes, and every ``_target_`` in it exists and takes what the file gives."""

import inspect
from pathlib import Path

import pytest
import yaml
from hydra import compose, initialize_config_dir
from hydra.utils import get_object
from omegaconf import OmegaConf

CONF = Path(__file__).parents[1] / "conf"
FILES = sorted(path.relative_to(CONF) for path in CONF.rglob("*.yaml"))
GROUPS = {"data", "task", "system", "encoder", "distill_loss", "annealing", "task_sampler", "optimizer", "scheduler"}
GROUPS |= {"trainer", "accelerator", "callbacks", "logger", "paths", "debug", "experiment"}


def targets(node):
    """Yield every node with a ``_target_``."""
    if isinstance(node, dict):
        if "_target_" in node:
            yield node
        for value in node.values():
            yield from targets(value)
    elif isinstance(node, list):
        for value in node:
            yield from targets(value)


def test_the_list_is_complete():
    """A glob that finds nothing would pass every other test."""
    assert {str(path.parent) for path in FILES} == GROUPS | {"."}
    assert {path.stem for path in FILES if path.parent == Path()} == {"fit", "train", "distill", "predict", "evaluate"}
    names = {"cola", "sst2", "mrpc", "stsb", "qqp", "mnli", "qnli", "rte", "wnli", "ax", "glue"}
    names |= {"toy_sentiment", "toy_comparison", "toy_preference"}
    assert {path.stem for path in FILES if path.parent == Path("task")} == names


@pytest.mark.parametrize("path", [p for p in FILES if p.parent != Path()], ids=str)
def test_every_option_composes_and_says_what_it_is(path):
    command = "distill" if str(path.parent) in ("experiment", "debug") else "train"
    option = f"{path.parent}={path.stem}"
    overrides = [option, *(["encoder.path=somewhere"] if option == "encoder=pretrained" else [])]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose(command, overrides=overrides)
    OmegaConf.to_container(cfg, resolve=False)
    assert "\n# " in "\n" + (CONF / path).read_text(), "the first lines say what the option is"


@pytest.mark.parametrize("path", FILES, ids=str)
def test_every_target_exists_and_takes_what_it_is_given(path):
    for node in targets(yaml.safe_load((CONF / path).read_text()) or {}):
        found = get_object(node["_target_"])
        given = {key for key in node if not key.startswith("_")}
        parameters = inspect.signature(found).parameters.values()
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            assert given <= {p.name for p in parameters}, node["_target_"]


@pytest.mark.parametrize("path", [p for p in FILES if p.parent == Path("task") and p.stem != "glue"], ids=str)
def test_a_task_file_is_named_like_its_task(path):
    node = yaml.safe_load((CONF / path).read_text())
    assert list(node) == [path.stem]
    assert get_object(node[path.stem].pop("_target_"))(**node[path.stem]).name == path.stem
