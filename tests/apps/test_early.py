"""What is refused before anything heavy is imported, and what the configuration becomes."""

from contextlib import nullcontext
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

import kd_lightning.apps.command_line.cli  # noqa: F401  registers the resolvers
from kd_lightning.apps.settings.early import check_early
from kd_lightning.apps.settings.unused import check_unused, warn_of_overridden
from kd_lightning.errors import UserError

CONF = Path(__file__).parents[2] / "conf"


def composed(command, *overrides):
    """Return a command's configuration."""
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose(command, overrides=[*["encoder=tiny"] * (command in ("train", "distill")), *overrides])


@pytest.mark.parametrize(
    ("command", "override", "message"),
    [
        ("train", "trainer.max_epochs=0", "trainer.max_epochs is 0, expected a whole number of at least 1"),
        ("train", "trainer.max_epochs=-1", r"trainer.max_epochs is -1, expected .* \(or -1 with trainer.max_steps\)"),
        ("train", "trainer.max_epochs=many", "trainer.max_epochs is 'many'"),
        ("train", "trainer.log_every_n_steps=0", "trainer.log_every_n_steps is 0, expected a whole number of at least"),
        ("train", "batching.epoch_rows=0", "batching.epoch_rows is 0"),
        ("train", "encoder.max_length=2", "encoder.max_length is 2, expected a whole number of at least 8"),
        ("train", "trainer.limit_val_batches=0", "trainer.limit_val_batches is 0, expected something to score"),
        ("train", "trainer.limit_train_batches=0", "trainer.limit_train_batches is 0, expected something to train on"),
        ("train", "trainer.max_steps=0", "trainer.max_steps is 0, expected something to train for"),
        ("distill", "teacher.trainer.limit_train_batches=0.0", "teacher.trainer.limit_train_batches is 0, expected"),
        ("train", "trainer.strategy=ddp_fork", "is ddp_fork, whose .*: use trainer.strategy=ddp$"),
        (
            "distill",
            "+teacher.trainer.strategy=ddp_spawn_find_unused_parameters_true",
            "teacher.trainer.strategy is ddp_spawn.*: use teacher.trainer.strategy=ddp_find_unused_parameters_true$",
        ),
        ("train", "trainer.strategy=ddp_notebook_find_unused_parameters_false", "=ddp_find_unused_parameters_false$"),
        ("train", f"paths.store={__file__}", "^paths.store is .*, expected a folder: it is a file$"),
        ("train", f"paths.cache={__file__}/x", "^paths.cache is .*, expected a folder: .*py is a file$"),
        ("distill", "paths.output=null", "^paths.output is null, expected a folder$"),
        ("train", "paths.store=''", "^paths.store is '', expected a folder$"),
        ("train", "optimizer.lr=true", "optimizer.lr is True, expected a number"),
        ("distill", "teacher.trainer.max_epochs=0", "teacher.trainer.max_epochs is 0"),
        ("distill", "teacher.batching.batch_size=0", "teacher.batching.batch_size is 0"),
        ("distill", "teacher.seeds=1", r"teacher.seeds is 1, expected a list of distinct whole numbers"),
        ("distill", "teacher.seeds=[]", r"teacher.seeds is \[\], expected"),
        ("distill", "teacher.seeds=[1,1]", r"teacher.seeds is \[1, 1\], expected"),
        ("distill", "teacher.seeds=[a]", r"teacher.seeds is \['a'\], expected"),
    ],
)
def test_values_that_break_later_are_refused_at_once(command, override, message):
    """A rate that stays 0 for ever, a division by zero after an hour, texts cut to nothing."""
    with pytest.raises(UserError, match=message):
        check_early(composed(command, override))


HALF = "16-mixed"


@pytest.mark.parametrize(
    ("command", "overrides", "where"),
    [
        ("train", [f"trainer.precision={HALF}"], "trainer"),
        ("predict", [f"trainer.precision={HALF}", "run=."], "trainer"),
        ("evaluate", [f"trainer.precision={HALF}", "run=."], "trainer"),
        ("distill", [f"trainer.precision={HALF}"], "trainer"),
        ("distill", [f"+teacher.trainer.precision={HALF}"], "teacher.trainer"),
        ("distill", ["+teacher.trainer.accelerator=cpu", "accelerator=gpu", f"trainer.precision={HALF}"], "trainer"),
        ("distill", [f"teacher.members={{a: {{trainer: {{precision: {HALF}}}}}}}"], "teacher.members.a.trainer"),
        ("distill", [f"student.fine_tune={{trainer: {{precision: {HALF}}}}}"], "student.fine_tune.trainer"),
        ("distill", [f"pretrain={{trainer: {{precision: {HALF}}}}}"], "pretrain: pretrain.trainer"),
    ],
)
def test_half_precision_is_refused_without_a_gpu(monkeypatch, command, overrides, where):
    """Lightning's refusal is a traceback after minutes; a teacher's setting is not the run's."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: "accelerator=gpu" in overrides)
    message = rf"^{where}.precision is {HALF}: fp16 needs a GPU; use bf16-mixed, 32-true or auto$"
    with pytest.raises(UserError, match=message):
        check_early(composed(command, *overrides))


@pytest.mark.parametrize("precision", [HALF, "16-true", "16"])
@pytest.mark.parametrize("accelerator", ["auto", "gpu", "cpu"])
def test_half_precision_is_a_gpus(monkeypatch, precision, accelerator):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    cfg = composed("train", f"trainer.precision={precision}", f"accelerator={accelerator}")
    with pytest.raises(UserError, match="fp16") if accelerator == "cpu" else nullcontext():
        check_early(cfg)


CXX = r"PyTorch compiles with g\+\+, which is not there; install it \(Debian: apt install g\+\+\), or set it to false$"


@pytest.mark.parametrize(
    ("command", "overrides", "message"),
    [
        ("train", ["compile=true"], rf"^compile is true: {CXX}"),
        ("predict", ["compile=true", "run=."], rf"^compile is true: {CXX}"),
        ("evaluate", ["compile=true", "run=."], rf"^compile is true: {CXX}"),
        ("distill", ["+teacher.trainer.compile=true"], rf"^teacher\.trainer\.compile is true: {CXX}"),
        ("distill", ["pretrain={trainer: {compile: true}}"], rf"^pretrain: pretrain.trainer.compile is true: {CXX}"),
        ("train", ["compile=yes please"], "^compile is 'yes please', expected true or false"),
        ("distill", ["+teacher.trainer.compile=1"], "^teacher.trainer.compile is 1, expected true or false"),
    ],
)
def test_what_cannot_be_compiled_is_refused_at_once(monkeypatch, command, overrides, message):
    """A page of PyTorch's, in the first step, after the teachers."""
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(UserError, match=message):
        check_early(composed(command, *overrides))
    check_early(composed(command, *(each for each in overrides if "compile" not in each)))


@pytest.mark.parametrize(
    ("gpu", "there", "environment", "missing"),
    [
        (False, ["gcc"], {}, r"g\+\+"),
        (False, ["g++"], {}, None),
        (False, ["g++"], {"CXX": "my-c++ -O2"}, r"my-c\+\+"),
        (False, ["my-c++"], {"CXX": "my-c++ -O2"}, None),
        (True, [], {}, "gcc or clang or cc"),
        (True, ["cc"], {}, None),
    ],
)
def test_the_compiler_is_the_one_that_is_taken(monkeypatch, gpu, there, environment, missing):
    """What calls the kernels of a GPU is in C, what the processor computes in C++."""
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setattr("torch.cuda.is_available", lambda: gpu)
    monkeypatch.setattr("shutil.which", lambda name: name if name in there else None)
    monkeypatch.setattr("sysconfig.get_path", lambda name: str(Path(__file__).parent))
    for name in ("CC", "CXX"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=f"compiles with {missing or '.*Python.h'}, which is not there"):
        check_early(composed("train", "compile=true"))


@pytest.mark.parametrize("overrides", [[], ["trainer.max_epochs=-1", "trainer.max_steps=10"], ["encoder.max_length=8"]])
def test_values_that_work(overrides):
    check_early(composed("train", *overrides))


def test_a_folder_may_be_named_by_a_number(tmp_path, monkeypatch):
    """``expected str, bytes or os.PathLike object, not int``; what is one's own among the paths is not looked at."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "2024").mkdir()
    (tmp_path / "glove.txt").touch()
    cfg = composed("train", "paths.output=2024", "data.root=2024", "+paths.glove=glove.txt", "+paths.none=null")
    check_early(cfg)
    assert (cfg.paths.output, cfg.data.root) == ("2024", str(tmp_path / "2024"))
    cfg = composed("predict", "run=0", "output=5", "file=7")
    check_early(cfg)
    assert (cfg.run, cfg.output, cfg.file) == ("0", "5", "7")


def test_the_data_is_found_from_any_folder(tmp_path, monkeypatch):
    """A run that is evaluated from another working directory, or a root with a tilde."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "glue").mkdir()
    for root in ("glue", "~/glue"):
        cfg = composed("train", f"data.root='{root}'")
        check_early(cfg)
        assert cfg.data.root == str(tmp_path / "glue")
    for given, expected in (("a.csv", str(tmp_path / "a.csv")), ("{rte: '~/a.csv'}", {"rte": str(tmp_path / "a.csv")})):
        cfg = composed("distill", f"data.unlabelled={given}")
        check_early(cfg)
        assert cfg.data.unlabelled == expected
        assert cfg.batching.unlabelled is True
    cfg = composed("train", "+task.rte.files={train: a.csv, validation: /b.csv}")
    check_early(cfg)
    assert dict(cfg.task.rte.files) == {"train": str(tmp_path / "a.csv"), "validation": "/b.csv"}


def given(*heads, **more):
    """Return a configuration with heads of these tasks, of a run of ``sent`` and ``mnli``."""
    cfg = {"task": {"sent": {}, "mnli": {}}, "system": {"task_heads": dict.fromkeys(heads)}}
    return {**cfg, **more}


TYPO = given("snt")
OF_TEACHERS = {"system": {"task_heads": {"snt": {}}}}


@pytest.mark.parametrize(
    ("cfg", "argument"),
    [
        (TYPO, "+system.task_heads.snt.dropout=0.3"),
        (TYPO, "++system.task_heads={snt: {dropout: 0.3}}"),
        (TYPO, "system={task_heads: {snt: {dropout: 0.3}}}"),
        (given(teacher=OF_TEACHERS), "teacher.system.task_heads.snt.dropout=0.3"),
        (given(teacher={"members": {"a": OF_TEACHERS}}), "++teacher.members.a.system.task_heads.snt.dropout=0.3"),
        (given(teacher={"fine_tune": OF_TEACHERS}), "++teacher.fine_tune.system.task_heads.snt.dropout=0.3"),
        (given(student={"fine_tune": OF_TEACHERS}), "++student.fine_tune.system.task_heads.snt.dropout=0.3"),
    ],
)
def test_settings_of_a_misspelt_task_are_refused(cfg, argument):
    """A rate of one task that never applies, wherever it may stand."""
    with pytest.raises(UserError, match=r"task_heads\.snt: snt is no task of this run; did you mean 'sent'\?"):
        check_unused(cfg, [argument])


@pytest.mark.parametrize(
    ("cfg", "arguments", "told"),
    [
        (
            TYPO,
            ["name=snt", "data.root=./snt", "~task.snt", "+system.task_heads.mnli.dropout=0.3"],
            "did you mean 'sent'",
        ),
        (given("qnli"), ["data.root=./qnli"], "did you mean 'mnli'"),  # a recipe's, near to one of the run's
        (given("qnli", "mnli"), [], ""),  # a recipe's, and all of the run's have settings
        (given("cola"), ["task=mnli"], ""),
        (given("cola"), ["system.task_heads.cola.dropout=0.3"], "system.task_heads.cola: cola is no task of this run"),
        (given("cola"), ["system.task_heads={no-cola: {dropout: 0.3}}"], ""),
        (
            given(teacher={"tasks": {"sent": "all", "x": "all"}}),
            ["teacher.tasks.x=all"],
            "teacher.tasks.x: x is no task",
        ),
        (given("sent"), ["system.task_heads.sent.dropout=0.3"], ""),
        (given(teacher={"members": {"a": None}, "fine_tune": None}), [], ""),
    ],
)
def test_a_recipes_settings_are_not_the_users_mistakes(caplog, cfg, arguments, told):
    """Three lines at every run about what nobody wrote; or a run refused for the name of a folder."""
    with caplog.at_level("INFO"):
        check_unused(cfg, arguments)
    assert told in caplog.text
    assert bool(caplog.text) is bool(told)


@pytest.mark.parametrize(
    ("argument", "members", "told"),
    [
        ("teacher.optimizer.lr=1", {"a": {"optimizer": {"lr": 2}}, "b": {"optimizer": {"lr": 3}}}, True),
        ("++teacher.optimizer.lr=1", {"a": {"optimizer": {"lr": 2}}, "b": None}, True),
        ("teacher.optimizer.lr=1", {"a": {"optimizer": {"lr": 2}}, "b": {}}, False),
        ("teacher.optimizer.lr=1", {"a": {"optimizer": {"lr": 1}}}, False),
        ("teacher.optimizer.eps=1", {"a": {"optimizer": {"lr": 2}}}, False),
        ("teacher.members.a.optimizer.lr=1", {"a": {"optimizer": {"lr": 1}}}, False),
        ("optimizer.lr=1", {"a": {"optimizer": {"lr": 2}}}, False),
        ("teacher.optimizer.lr=1", {"a": "a folder"}, False),
        ("teacher.optimizer.lr=1", None, False),
    ],
)
def test_what_each_teacher_has_of_its_own_is_not_given_to_all(caplog, argument, members, told):
    """A learning rate that would change nothing, of teachers that differ in theirs; not one that refers to it."""
    warn_of_overridden({"teacher": {"members": members, "optimizer": {"lr": 1}}}, [argument])
    said = f"{argument} changes nothing: each of teacher.members has its own, as teacher.members.a.optimizer.lr"
    assert caplog.messages == ([said] if told else [])
