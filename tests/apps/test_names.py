"""What names a file or a folder is what was written, also where Hydra reads a number."""

from contextlib import nullcontext

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from kd_lightning.apps.command_line.shorthands import spelled_out
from kd_lightning.apps.settings.early import resolve
from kd_lightning.apps.settings.names import NAMES, OF_HYDRA, as_name, check_apart, check_name, names_quoted
from kd_lightning.errors import UserError


@pytest.mark.parametrize("name", [*NAMES, *OF_HYDRA])
@pytest.mark.parametrize(
    "text",
    [
        "1_2",
        "2026_11_30",
        "0",
        "12",
        "1e3",
        "1.50",
        "1.5",
        "007",
        "-1",
        "-1_0",
        "true",
        "nan",
        "True",
        "FALSE",
        "inf",
        "x_1",
        "a/b",
    ],
)
def test_a_name_is_what_was_written(name, text):
    """``kd-evaluate run=1_2`` evaluated the model in ``12``, and ``name=1.50`` wrote over ``name=1.5``."""
    argv = spelled_out(["kd-train", f"{name}={text}"])
    value = OverridesParser.create().parse_override(argv[1]).value()
    assert as_name(value) == text


@pytest.mark.parametrize(
    ("told", "quoted"),
    [
        ("run=1_2,12", "run='1_2',12"),
        ("+run=1_0", "+run='1_0'"),
        ("run='1_2'", "run='1_2'"),
        ("run=[1_2]", "run=[1_2]"),
        ("run=1, 12", "run=1, 12"),
        ("run=1_2 , 12", "run='1_2' , 12"),
        ("run=choice(1_2,12)", "run=choice('1_2',12)"),
        ("run=sort(1_2, 1_1)", "run=sort('1_2', '1_1')"),
        ("run=range(1,3)", "run=range(1,3)"),
        ("+soft_targets.rte=12", "+soft_targets.rte='12'"),
        ("+soft_targets.rte=[12,13]", "+soft_targets.rte=[12,13]"),
        ("+soft_targets.rte=[12,13,14]", "+soft_targets.rte=[12,13,14]"),
        ("+soft_targets.rte=[a,b],2026_11,[c]", "+soft_targets.rte=[a,b],'2026_11',[c]"),
        ("+soft_targets.rte={a:b},2026_11,{a:c}", "+soft_targets.rte={a:b},'2026_11',{a:c}"),
        ("data.unlabelled='a,7,b'", "data.unlabelled='a,7,b'"),
        ("run='a,7',1_2", "run='a,7','1_2'"),
        ("encoder.path=1_2", "encoder.path='1_2'"),
        ("teacher.data.root=7", "teacher.data.root='7'"),
        ("task.rte.files.test=7", "task.rte.files.test='7'"),
        ("data.unlabelled=3", "data.unlabelled='3'"),
        ("batching.unlabelled=true", "batching.unlabelled=true"),
        ("output=null", "output=null"),
        ("output=", "output="),
        ("seed=1_000", "seed=1_000"),
        ("optimizer.lr=1e-3", "optimizer.lr=1e-3"),
        ("run=${oc.env:RUN}", "run=${oc.env:RUN}"),
        ("--run", "--run"),
    ],
)
def test_only_what_would_be_read_otherwise_is_quoted(told, quoted):
    """What people have written is what they find in tables and dashboards."""
    assert names_quoted(["kd-evaluate", told]) == ["kd-evaluate", quoted]
    assert names_quoted(["kd-evaluate", quoted])[1] == quoted


def settings(**changed):
    """Return a configuration that has names."""
    paths = {"output": "outputs", "store": "${paths.output}/store", "cache": ".cache"}
    logger = {"experiment_name": "${name}", "folder": "${paths.output}/${name}"}
    return OmegaConf.merge(
        {"name": "x", "seed": 3, "paths": paths, "run": None, "logger": logger}, OmegaConf.create(changed)
    )


@pytest.mark.parametrize(("told", "name"), [(2026, "2026"), ("${seed}", "3"), (1.5, "1.5"), ("x", "x")])
def test_a_number_is_a_name_wherever_it_is_asked_for(told, name):
    """``unsupported operand type(s) for /``; MLflow expects a string; two groups in a report."""
    cfg = settings(name=told)
    resolve(cfg)
    assert cfg.name == cfg.logger.experiment_name == name
    assert cfg.logger.folder == f"outputs/{name}"


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("value", [True, [1], {"a": 1}])
def test_what_is_no_name_is_told(name, value):
    cfg = settings()
    OmegaConf.update(cfg, name, value, force_add=True)
    with pytest.raises(UserError, match=rf"^{name} is .*, expected the name of a file or a folder$"):
        resolve(cfg)
    OmegaConf.update(cfg, name, 7)
    resolve(cfg)
    assert OmegaConf.select(cfg, name) == "7"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("x", ""),
        ("2026-11-30 a.b", ""),
        (7, ""),
        ("a/b", "name is 'a/b'"),
        ("../up", "name is '../up'"),
        ("/x", "name is '/x'"),
        ("x/", "name is 'x/'"),
        ("..", "name is '..'"),
        (".", "name is '.'"),
        ("", "name is ''"),
        (None, "name is null"),
        (OmegaConf.create([1]), r"name is \[1\]"),
        (True, "name is True"),
    ],
)
def test_a_run_has_a_name_that_a_folder_can_have(name, said):
    """``name=a/b``: the path of a log that no one had asked for was not right."""
    with (
        pytest.raises(UserError, match=rf"^{said}.*, expected the name of a folder \(no path\)")
        if said
        else nullcontext()
    ):
        check_name(name)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({}, ""),
        ({"name": "stores"}, ""),
        ({"paths": {"store": "x"}}, ""),
        ({"name": "store"}, "name is store: runs would lie in outputs/store, which is paths.store"),
        ({"paths": {"store": "outputs/x"}}, "name is x: runs would lie in outputs/x, which is paths.store"),
        ({"paths": {"store": "outputs"}}, ""),
        ({"paths": {"output": "a/b", "cache": "."}}, ""),
    ],
)
def test_runs_do_not_lie_in_what_may_be_deleted(changed, said):
    """``name=store``."""
    cfg = settings(**changed)
    resolve(cfg)
    with pytest.raises(UserError, match=f"^{said}$") if said else nullcontext():
        check_apart(cfg)
