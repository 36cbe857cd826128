"""Commands in this process: compose as the console script does, then call the command's function."""

import csv
import random
from pathlib import Path

import pytest
import yaml
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf, open_dict

import kd_lightning.apps.command_line.cli  # noqa: F401  registers the resolvers
from kd_lightning.apps import distill, evaluate, predict, train
from kd_lightning.apps.command_line.shorthands import spelled_out
from kd_lightning.apps.fits.fit import Fit
from kd_lightning.apps.settings.early import check_early

CONF = Path(__file__).parents[2] / "conf"
RUN = {"train": train.run, "predict": predict.run, "evaluate": evaluate.run, "distill": distill.run}
COLOURS, ANIMALS = ["red", "blue", "green", "black"], ["cat", "dog", "bird", "fish"]


def write_pairs(path, rows, seed, pair):
    """Write rows of two texts and a label, each drawn by ``pair``."""
    generator = random.Random(seed)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["first", "second", "label"])
        writer.writerows(pair(generator) for _ in range(rows))


def closeness(generator):
    """Return two animals and how alike they are, from 1 to 5."""
    colour, animal = generator.choice(COLOURS), generator.choice(ANIMALS)
    other_colour = colour if generator.random() < 0.5 else generator.choice(COLOURS)
    other_animal = animal if generator.random() < 0.5 else generator.choice(ANIMALS)
    score = 1 + (other_colour == colour) + 3 * (other_animal == animal)
    return [f"{colour} {animal}", f"{other_colour} {other_animal}", score]


def sameness(generator):
    """Return two animals that are the same or not."""
    one = f"{generator.choice(COLOURS)} {generator.choice(ANIMALS)}"
    other = one if generator.random() < 0.5 else f"{generator.choice(COLOURS)} {generator.choice(ANIMALS)}"
    return [one, other, "same" if one == other else "different"]


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    """A working directory with two small tasks of one's own in ``mine/task``."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine" / "task").mkdir(parents=True)
    for name, rows in (("animals", 96), ("beasts", 48)):
        write_pairs(tmp_path / f"{name}-train.csv", rows, 1, sameness)
        write_pairs(tmp_path / f"{name}-dev.csv", 32, 2, sameness)
        task = {
            "_target_": "kd_lightning.tasks.Task",
            "name": name,
            "kind": "classification",
            "texts": ["first", "second"],
            "labels": ["different", "same"],
            "metrics": ["accuracy", "f1"],
            "both_orders": True,
            "files": {"train": f"{name}-train.csv", "validation": f"{name}-dev.csv"},
        }
        (tmp_path / "mine" / "task" / f"{name}.yaml").write_text(yaml.safe_dump({name: task}))
    for split, rows in (("train", 64), ("dev", 32)):
        write_pairs(tmp_path / f"close-{split}.csv", rows, rows, closeness)
    close = {**task, "name": "close", "kind": "regression", "labels": [], "score_range": [1, 5]}
    close |= {"metrics": ["pearson", "spearman"], "files": {"train": "close-train.csv", "validation": "close-dev.csv"}}
    (tmp_path / "mine" / "task" / "close.yaml").write_text(yaml.safe_dump({"close": close}))
    return tmp_path


@pytest.fixture
def kd(workplace):
    """Call a command: ``kd("train", "task=animals")`` returns its run folder; ``kd.returned`` is what it gave Hydra."""
    count = 0
    before = HydraConfig.instance().cfg

    def call(command, *overrides, folder=None):
        nonlocal count
        count += 1
        output = workplace / (folder or f"outputs/{command}/{count}")
        output.mkdir(parents=True, exist_ok=True)
        common = [f"hydra.searchpath=[file://{workplace}/mine]", f"hydra.run.dir={output}"]
        if command in ("train", "distill"):
            common += ["data=files", "trainer.precision=32-true", "accelerator=cpu"]
            if not any(override.startswith("encoder=") for override in overrides):
                common += ["encoder=tiny", "encoder.hidden_size=32", "encoder.num_layers=1"]
        if command == "distill":
            common += ["encoder@teacher.encoder=tiny", "teacher.encoder.hidden_size=48"]
            common += ["teacher.encoder.num_layers=2", "teacher.optimizer.lr=2e-3"]
        GlobalHydra.instance().clear()
        with initialize_config_dir(str(CONF), version_base="1.3"):
            arguments = spelled_out([f"kd-{command}", *common, *overrides])[1:]
            cfg = compose(command, overrides=arguments, return_hydra_config=True)
            with open_dict(cfg):
                cfg.hydra.runtime.output_dir = str(output)
            HydraConfig.instance().set_config(cfg)
            plain = OmegaConf.masked_copy(cfg, [key for key in cfg if key != "hydra"])
            check_early(plain)
            call.returned = RUN[command](plain)
        return output

    yield call
    HydraConfig.instance().cfg = before


@pytest.fixture
def fits(monkeypatch):
    """The stages that were trained, in order."""
    trained = []
    run = Fit.run

    def record(fit, folder, checkpoint=None):
        trained.append(fit.stage)
        return run(fit, folder, checkpoint)

    monkeypatch.setattr(Fit, "run", record)
    return trained
