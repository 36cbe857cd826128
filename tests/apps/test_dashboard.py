"""kd-dashboard: what its panels show is what runs log; what is wrong is one line."""

import json
import re
from pathlib import Path

import pytest
import yaml

pytest.importorskip("wandb_workspaces")

from hydra import compose, initialize_config_dir

from kd_lightning.apps import dashboard
from kd_lightning.apps.dashboard import main

ROOT = Path(__file__).parents[2]

pytestmark = [
    pytest.mark.usefixtures("no_key"),
    pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecatedSince20"),  # of wandb-workspaces
]


def strings(node):
    """Yield all strings of a specification."""
    if isinstance(node, dict):
        for value in node.values():
            yield from strings(value)
    elif isinstance(node, list):
        for value in node:
            yield from strings(value)
    elif isinstance(node, str):
        yield node


def metrics(specification):
    """Return the metrics that a specification names."""
    names = {text.removeprefix("summary:") for text in strings(specification)}
    known = ("train/", "val/", "tasks/", "average/", "latency_ms/", "parameters/", "trainer/")
    return {name for name in names if name.startswith(known)}


def panels_of(specification):
    """Return the settings of the panels of a specification."""
    sections = specification["spec"]["section"]["panelBankConfig"]["sections"]
    return [panel["config"] for section in sections for panel in section["panels"]]


def test_panels_show_what_runs_log(kd, workplace, capsys, wandb_runs):
    """An empty panel for every key that was misspelt."""
    main(["--output", str(workplace / "of" / "mine.json"), "--tasks", "animals"])
    assert capsys.readouterr().out == f"written: {workplace / 'of' / 'mine.json'}\n"
    specification = json.loads((workplace / "of" / "mine.json").read_text())
    shown = metrics(specification)
    short = ["trainer.max_epochs=1", "teacher.trainer.max_epochs=1", "logger=wandb"]
    kd("distill", "task=[animals]", *short)
    rows = [row for run in wandb_runs(workplace / "outputs") for row in run["history"]]
    assert shown <= {key for row in rows for key in row}
    lines = [panel for panel in panels_of(specification) if {"xAxis", "metrics"} <= panel.keys()]
    for line in lines:
        assert any({line["xAxis"], *line["metrics"]} <= row.keys() for row in rows), f"{line['chartTitle']} is empty"
    over = {line["chartTitle"]: line["xAxis"] for line in lines}
    assert {over[title] for title in ("Gold weight", "Loss", "Losses, animals")} == {"train/progress"}
    annealed = [row for row in rows if "train/gold_weight" in row]
    assert [row["train/progress"] for row in annealed] == [row["train/gold_weight"] for row in annealed], "linear"
    wanted = {"tasks/animals/gain", "average/gain", "train/gold_weight", "train/animals/soft_loss"}
    assert wanted | {"latency_ms/student", "average/student", "parameters/student"} <= shown


def test_bands_are_over_seeds(kd, workplace, wandb_runs):
    """A band from the loss of the teacher to that of the student; or none, since a seed was trained elsewhere."""
    main(["--output", "mine.json", "--tasks", "animals"])
    panels = panels_of(json.loads(Path("mine.json").read_text()))
    banded = {panel["chartTitle"]: panel for panel in panels if "groupBy" in panel}
    assert {"Gold weight", "Loss", "Average score", "Losses, animals", "Gain, average"} <= set(banded)
    for panel in banded.values():
        assert (panel["groupAgg"], panel["groupArea"]) == ("mean", "minmax")
    short = ["task=[animals]", "trainer.max_epochs=1", "teacher.trainer.max_epochs=1", "logger=wandb"]
    kd("distill", *short, "seed=1", "teacher.seeds=[1,2]")
    elsewhere = [
        "skip_finished=true",
        "+trainer.num_nodes=1",
        "+teacher.trainer.devices=1",
        "trainer.log_every_n_steps=1",
    ]
    kd("distill", "seed=2", "teacher.seeds=[1,2]", *reversed(short), *elsewhere, "callbacks=default")
    runs = wandb_runs(workplace / "outputs")
    for key in {panel["groupBy"] for panel in banded.values()}:
        first, value, *rest = key.split(".")
        assert value == "value", "as the service keeps a configuration"
        bands = {}
        for run in runs:
            node = run["config"][first]
            for part in rest:
                node = node[part]
            bands.setdefault(node, []).append((run["config"]["job"]["stage"], run["config"]["seed"]))
        expected = [[(stage, seed) for seed in (1, 2)] for stage in ("distill", "student", "baseline")]
        expected += [[("teacher animals 1", 1)], [("teacher animals 2", 2)]]
        assert sorted(map(sorted, bands.values())) == sorted(expected)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "nothing says where to: give ENTITY/PROJECT, or --output FILE.json"),
        (["mine"], "project is 'mine', expected ENTITY/PROJECT, as in the address of its page"),
        (["a/b"], "no key for Weights & Biases: set WANDB_API_KEY, or wandb login; --output FILE.json needs none"),
        (["a/b", "--nope"], "unrecognized arguments: --nope; kd-dashboard --help shows what there is"),
        (["--output", "/proc/none/x.json"], "No such file or directory: /proc/none; check that the path is right"),
    ],
)
def test_a_mistake_is_one_line(arguments, message, capsys):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith(f"kd-dashboard: error: {message}")
    assert said.count("\n") == 1


def test_only_a_workspace_is_written_over(tmp_path, capsys):
    """It took the place of a run's summary, and of rows to learn from, without a word."""
    for name, content in (
        ("summary.json", '{"status": "finished"}'),
        ("train.csv", "text,label\n"),
        ("list.json", "[[]]"),
    ):
        (tmp_path / name).write_text(content)
        with pytest.raises(SystemExit):
            main(["--output", str(tmp_path / name), "--tasks", "rte"])
        assert capsys.readouterr().err.endswith("is there, and is no workspace of kd-dashboard: choose another file\n")
        assert (tmp_path / name).read_text() == content
    with pytest.raises(SystemExit):
        main(["--output", str(tmp_path), "--tasks", "rte"])
    for tasks in ("rte", "mrpc"):
        main(["--output", str(tmp_path / "new.json"), "--tasks", tasks])
    assert "mrpc" in (tmp_path / "new.json").read_text()


def test_a_task_that_is_nearly_one_is_told(tmp_path, capsys):
    """Its panels stay empty; one of one's own is nothing to speak of."""
    main(["--output", str(tmp_path / "x.json"), "--tasks", "mrcp", "rte", "tickets"])
    said = capsys.readouterr()
    assert said.err == "kd-dashboard: warning: --tasks mrcp is no task of the package; did you mean 'mrpc'?\n"
    assert said.out.startswith("written: ")


def test_a_library_that_is_missing_is_one_line(monkeypatch, capsys):
    monkeypatch.setattr(dashboard, "find_spec", lambda name: None)
    with pytest.raises(SystemExit):
        main(["a/b"])
    assert (
        "wandb-workspaces is not installed: in the checkout, pip install -e '.[dashboard]'" in capsys.readouterr().err
    )


def test_the_sweep_of_the_service_runs_our_command(kd, wandb_runs):
    """Every parameter composes with every value; its metric is one that a job's run logs."""
    sweep = yaml.safe_load((ROOT / "docs" / "wandb_sweep.yaml").read_text())
    assert set(sweep) <= {"program", "command", "project", "method", "metric", "parameters"}
    assert sweep["method"] in ("grid", "random", "bayes")
    command, *fixed, rest = sweep["command"]
    assert (command, rest) == ("kd-distill", "${args_no_hyphens}")
    given = {
        name: node.get("values", [node.get("value", node.get("min"))]) for name, node in sweep["parameters"].items()
    }
    for name, node in sweep["parameters"].items():
        assert set(node) <= {"value", "values", "distribution", "min", "max"}, name
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        for name, values in given.items():
            for value in values:
                told = {key: each[0] for key, each in given.items()} | {name: value}
                cfg = compose("distill", overrides=[*fixed, *(f"{key}={each}" for key, each in told.items())])
                assert cfg.optimizer.lr == told["optimizer.lr"]
                assert re.match(r"kd_lightning\.annealing\.", cfg.annealing._target_)
    assert sweep["metric"]["goal"] == "maximize"
    (run,) = wandb_runs(
        kd("distill", "task=[animals]", "trainer.max_epochs=1", "teacher.trainer.max_epochs=1", "logger=wandb")
    )
    assert sweep["metric"]["name"] in run["history"][-1]
