"""Commands in this process: compose as the console script does, then call the command's function."""

import csv
import json
import os
import random
import struct
import time
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
from kd_lightning.apps.processes.termination import ended_by_sigterm
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


def wandb_records(path):
    """Yield the records of a run's file: a header of 7 bytes, then a log in blocks of 32 KiB."""
    from wandb.proto import wandb_internal_pb2 as pb

    data, position, parts = path.read_bytes(), 7, []
    assert data[:4] in (b":W&B", b"")
    while position + 7 <= len(data):
        left = 32768 - position % 32768
        if left < 7:
            position += left
            continue
        _, size, kind = struct.unpack_from("<IHB", data, position)
        if kind == 0 and size == 0:  # padding
            position += left
            continue
        if position + 7 + size > len(data):  # the library's own process still writes
            return
        parts.append(data[position + 7 : position + 7 + size])
        position += 7 + size
        if kind in (1, 4):  # a whole record, or its last part
            record = pb.Record()
            record.ParseFromString(b"".join(parts))
            parts = []
            yield record


def read_run(path):
    """Return what a run's file says: of the run, its configuration, its rows, its summary, how it ended."""
    found = {"config": {}, "history": [], "summary": {}, "exit": None, "began": 0}
    for record in wandb_records(path):
        kind = record.WhichOneof("record_type")
        if kind == "run":
            run = record.run
            found |= {"id": run.run_id, "name": run.display_name, "group": run.run_group, "kind": run.job_type}
            found |= {"tags": list(run.tags), "project": run.project, "began": run.start_time.ToNanoseconds()}
            found["config"] |= {item.key: json.loads(item.value_json) for item in run.config.update}
        elif kind == "history":
            found["history"].append({key(item): json.loads(item.value_json) for item in record.history.item})
        elif kind == "summary":
            found["summary"] |= {key(item): json.loads(item.value_json) for item in record.summary.update}
        elif kind == "exit":
            found["exit"] = record.exit.exit_code
    return found


def key(item):
    """Return the name of a value."""
    return ".".join(item.nested_key) or item.key


@pytest.fixture
def wandb_runs():
    """Return a function: folder -> all runs whose files lie below it, in the order in which they began."""

    def read_all(folder, patience=20):
        paths = list(folder.glob("**/offline-run-*/*.wandb"))
        until = time.monotonic() + patience  # the library's own process writes the last bytes after the run has ended
        while True:
            found = [read_run(path) for path in paths]
            if all(run["exit"] is not None for run in found) or time.monotonic() > until:
                return sorted(found, key=lambda run: run["began"])
            time.sleep(0.05)

    return read_all


@pytest.fixture
def no_key(monkeypatch, tmp_path):
    """Nobody's account of Weights & Biases, and no sweep of theirs."""
    for name in [name for name in os.environ if name.startswith("WANDB_") and name != "WANDB_SERVICE"]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))


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
            with ended_by_sigterm():
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
