"""What the documentation and the help say can be done: every command in them is one, every example runs or composes.

A code block without a language holds commands, one per line; output and layouts are ``text``. A command that no check
below knows fails, so that none goes unchecked.
"""

import argparse
import configparser
import importlib.util
import re
import shlex
import sys
from pathlib import Path

import pytest
import torch
import yaml
from hydra import compose, initialize_config_dir
from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from hydra.utils import instantiate

import kd_lightning.apps.command_line.cli  # noqa: F401  registers the resolvers
from kd_lightning.apps import report
from kd_lightning.apps.command_line.shorthands import spelled_out
from kd_lightning.apps.dashboard import parser as dashboard_parser
from kd_lightning.apps.fits.model_folder import save_system
from kd_lightning.apps.settings.early import check_early
from kd_lightning.data import Manifest, SoftTargets
from kd_lightning.data.reading.reader import read_file
from kd_lightning.encoders import NewBiLstm, NewTransformer, TrainingWords
from kd_lightning.errors import UserError
from kd_lightning.heads import siamese_head
from kd_lightning.losses import LogitMSE
from kd_lightning.systems import BiLstmStudent
from kd_lightning.tasks import Task

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
PAGES += [*sorted((ROOT / "experiments").rglob("*.md")), ROOT / "benchmarks" / "README.md"]
MAKEFILE = (ROOT / "Makefile").read_text()
PLUGINS = {
    "hydra/launcher=joblib": "joblib_launcher",
    "hydra/launcher=ours": "submitit_launcher",
    "hydra/launcher=slurm_gpu": "submitit_launcher",
    "hydra/launcher=submitit_local": "submitit_launcher",
    "hydra/sweeper=search": "optuna_sweeper",
}
KD = {"kd-train", "kd-distill", "kd-predict", "kd-evaluate"}


def blocks(page, language):
    """Return the code blocks of a language."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    return [block for name, block in found if name == language]


def said():
    """Yield (where, line) of every command in a block, between backticks, in a benchmark's docstring or in a help."""
    for page in PAGES:
        lines = [line for block in blocks(page, "") for line in block.splitlines() if line.strip()]
        lines += re.findall(
            r"`((?:kd-[a-z]+|make |python -m kd_|python benchmarks/|pip |eval \")[^`]*)`", page.read_text()
        )
        yield from ((page.name, line) for line in lines)
    for script in sorted((ROOT / "benchmarks").glob("*.py")):
        for line in re.findall(r"^    (python benchmarks/.*)$", script.read_text(), flags=re.MULTILINE):
            yield script.name, line
    for config in sorted((ROOT / "conf").glob("*.yaml")):
        template = (yaml.safe_load(config.read_text()).get("hydra") or {}).get("help", {}).get("template", "")
        for line in re.findall(r"\bkd-[a-z]+ [^ ].*", template.replace("kd-distill: ", "").replace("kd-train: ", "")):
            if "=" in line:
                yield config.name, re.split(r"\s{2,}", line)[0]


def words_of(line):
    """Return the words of a command; what follows `` # `` or stands for more (``...``) is left out."""
    line = re.split(r"\s+# ?", line)[0]
    if (found := re.fullmatch(r'eval "\$\((.*)\)"', line)) is not None:
        line = found[1]
    words = [word for word in shlex.split(line) if word not in ("...", "\\")]
    return [words[0].removeprefix(".venv/bin/"), *words[1:]]


SAID = [pytest.param(words_of(line), id=f"{where}: {line.strip()[:70]}") for where, line in said()]


@pytest.fixture
def mine(tmp_path):
    """A folder of one's own configurations, as the pages describe it."""
    for page in PAGES:
        for block in blocks(page, "yaml"):
            name = re.match(r"# mine/(\S+)", block)
            assert name is not None, f"{page.name}: a yaml block begins with its place, # mine/..."
            (tmp_path / name[1]).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name[1]).write_text(block)
    return tmp_path


def values_of(override):
    """Return the values of a sweep, or the bounds of an interval; None alone stands for the value of no sweep."""
    if override.is_interval_sweep():
        return [override.value().start, override.value().end]
    return list(override.sweep_string_iterator()) if override.is_sweep_override() else [None]


def check_kd(command, words, mine):
    """Parse the words as Hydra does, and compose every job that they ask for."""
    parser = get_args_parser()
    parser.exit_on_error = False
    found = parser.parse_args(spelled_out([f"kd-{command}", *words])[1:])
    if found.shell_completion:
        assert re.fullmatch(r"(un)?install=(bash|zsh|fish)", found.overrides[0])
        return None
    if found.config_dir is not None:
        assert found.config_dir == "mine"
    parsed = OverridesParser.create().parse_overrides(found.overrides)
    assert found.multirun or not [one for one in parsed if one.is_sweep_override()], "several values need -m"
    for argument in found.overrides:
        if argument in PLUGINS:
            pytest.importorskip(f"hydra_plugins.hydra_{PLUGINS[argument]}")
    choices = [values_of(one) for one in parsed]
    cfg = None
    for job in range(max(map(len, choices), default=1)):
        overrides = [
            one.input_line if values == [None] else f"{one.get_key_element()}={values[job % len(values)]}"
            for one, values in zip(parsed, choices, strict=True)
        ]
        with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
            cfg = compose(command, overrides=[f"hydra.searchpath=[file://{mine}]", *overrides])
    return cfg


def check_make(words):
    """Fail on a target or a variable that the Makefile does not have."""
    for word in words:
        name, equals, _ = word.partition("=")
        assert re.search(rf"^{name} \?=" if equals else rf"^{name}:.*##", MAKEFILE, flags=re.MULTILINE), word


def script(path):
    """Return a benchmark, or a script of the experiments, as a module."""
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        spec = importlib.util.spec_from_file_location(f"script_{Path(path).stem}", ROOT / path)
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module  # its dataclasses look there
        spec.loader.exec_module(module)
    finally:
        sys.path.pop(0)
    return module


def check_pip(words):
    """Fail on an unknown option, a file that is not there, an extra that is not declared."""
    parser = argparse.ArgumentParser(exit_on_error=False)
    parser.add_argument("verb", choices=["install"])
    parser.add_argument("what", nargs="*")
    parser.add_argument("-e", "--editable", action="append", default=[])
    for short, long in (("-c", "--constraint"), ("-r", "--requirement"), ("-i", "--index-url")):
        parser.add_argument(short, long)
    parser.add_argument("--no-deps", action="store_true")
    found = parser.parse_args(words)
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    for path in (found.constraint, found.requirement):
        assert path is None or (ROOT / path).is_file(), path
    for what in [*found.what, *found.editable]:
        name, _, extras = what.rstrip("]").partition("[")
        assert name in (".", "kd_lightning", "torch"), what
        assert set(filter(None, extras.split(","))) <= set(setup["options.extras_require"]), what
    assert found.what or found.editable or found.requirement


@pytest.mark.filterwarnings("ignore")  # of libraries that benchmarks import
@pytest.mark.parametrize("words", SAID)
def test_every_command_is_one(words, mine):
    command, *rest = words
    if command in ("python", "torchrun") and "-m" in rest:
        module = rest.index("-m") + 1
        command, rest = rest[module].replace("kd_lightning.", "kd-"), rest[module + 1 :]
    if command in KD:
        check_kd(command.removeprefix("kd-"), rest, mine)
    elif command == "kd-dashboard":
        dashboard_parser().parse_args(rest)
    elif command == "kd-report":
        report.parser().parse_args(rest or ["outputs"])  # named alone, it is no call
    elif command == "make":
        check_make(rest)
    elif command == "sbatch":
        assert any(f"\n# {rest[-1]}\n" in block for page in PAGES for block in blocks(page, "sh")), rest[-1]
    elif command == "pip":
        check_pip(rest)
    elif command == "nltk.downloader":
        assert f"python -m nltk.downloader {rest[0]}" in (ROOT / "kd_lightning/augmentation/tagging.py").read_text()
    elif command == "python" and rest[0].startswith(("benchmarks/", "experiments/")):
        script(rest[0]).parser().parse_args(rest[1:])
    else:
        pytest.fail(f"no check for {words}; if it is not a command, make its block a ```text")


def test_there_are_commands_to_check():
    """Of each kind, so that a pattern that finds nothing is noticed."""
    found = [" ".join(param.values[0]) for param in SAID]
    for kind, least in (
        ("kd-distill", 15),
        ("kd-train", 8),
        ("kd-predict", 3),
        ("kd-report", 2),
        ("make", 5),
        ("pip", 3),
    ):
        assert len([line for line in found if line.startswith(kind)]) >= least, kind
    assert len([line for line in found if line.startswith("python benchmarks/")]) >= 10
    assert "python -m kd_lightning.distill --config-dir mine experiment=quickstart distill_loss=cosine" in found
    assert "kd-distill -sc install=bash" in found


@pytest.mark.parametrize(
    "line",
    [
        "kd-distill --multrun seed=1,2",
        "kd-distill seed=1,2",
        "kd-distill experiment",
        "kd-train experiment=quickstart",
        "kd-train sead=1",
        "make quickstrat",
        "make quickstart TORCH_INDX=x",
        "python benchmarks/padding.py --ruonds 3",
        "pip install .[ofline]",
        "pip install -r requirements.txt",
        "kd-distil experiment=quickstart",
        "kd-report outputs --outptu x",
    ],
)
def test_mistakes_are_found(line, mine):
    """The checks above can fail: a misspelt flag, word, setting, target, variable, extra, file, command."""
    with pytest.raises(
        (SystemExit, AssertionError, HydraException, argparse.ArgumentError, pytest.fail.Exception, UserError)
    ):
        test_every_command_is_one(words_of(line), mine)


def settings():
    """Yield (where, settings) of every ``name=value``, or several of them, between backticks."""
    for page in PAGES:
        one = r"[a-z_@.]+=(?:\{[^`]+\}|[^`\s]+)"
        for found in re.findall(rf"`({one}(?:\s+{one})*)`", page.read_text()):
            if found not in ("foo=1", "task=rtx"):  # the mistakes that startup.py makes
                words = re.findall(one, found)
                yield pytest.param(words, id=f"{page.name}: {' '.join(words)}")


@pytest.mark.parametrize("found", list(settings()))
def test_every_setting_exists(found, mine):
    """In the command that has it: one of the four takes all that stand together."""
    failures = []
    for command in ("distill", "train", "predict", "evaluate"):
        try:
            check_kd(command, ["-m", *found], mine)
        except HydraException as error:
            failures.append(error)
        else:
            return
    raise failures[0]


@pytest.mark.parametrize("found", [one for one in settings() if one.id.startswith("mt_dnn_kd.md")])
def test_the_settings_of_the_page_fit_its_recipe(found, mine):
    """What the recipe has set already can be changed in the words of the page."""
    check_early(check_kd("distill", ["experiment=mt_dnn_kd_glue", "data.root=.", *found], mine))


def test_the_tasks_of_the_pages_are_tasks(mine):
    for path in (mine / "task").glob("*.yaml"):
        node = yaml.safe_load(path.read_text())[path.stem]
        node.pop("_target_")
        assert Task(**node).metric == "accuracy"


def test_the_loss_of_the_page_is_a_loss(mine, monkeypatch):
    (block,) = blocks(ROOT / "docs" / "extend.md", "python")
    (mine / block.split()[1]).write_text(block)
    monkeypatch.syspath_prepend(str(mine))
    cfg = check_kd("distill", ["--config-dir", "mine", "experiment=quickstart", "distill_loss=cosine"], mine)
    loss = instantiate(cfg.system.distill_loss)
    same = torch.randn(5, 3)
    torch.testing.assert_close(loss(same, same), torch.zeros(5))


@pytest.mark.parametrize("words", [param for param in SAID if "optimizer" in " ".join(param.values[0])])
def test_the_optimisers_of_the_pages_can_be_built(words, mine):
    """Composing says nothing of what the optimiser's constructor takes."""
    command, *rest = words
    cfg = check_kd(command.removeprefix("kd-"), rest, mine)
    encoder = NewTransformer(hidden_size=16, num_layers=1, num_heads=2, max_length=8).build(range(20))
    optimizer = instantiate(cfg.optimizer, _convert_="all")(encoder, torch.nn.Linear(16, 2))
    assert type(optimizer).__name__ == cfg.optimizer.optimizer._target_.rpartition(".")[2]


def test_the_error_of_the_data_page_is_the_real_one(mine, monkeypatch):
    monkeypatch.chdir(mine)
    Path("data").mkdir()
    Path("data/train.csv").write_text("text,sentiment\nlovely,positive\nwarm,postive\n")
    node = yaml.safe_load((mine / "task" / "reviews.yaml").read_text())["reviews"]
    node.pop("_target_")
    with pytest.raises(UserError) as error:
        list(read_file(Path("data/train.csv"), Task(**node), labelled=True))
    (shown,) = blocks(ROOT / "docs" / "own_data.md", "text")
    assert shown.strip() == f"kd-distill: error: {error.value}"


def test_the_refusal_of_the_soft_targets_page_is_the_real_one(mine, monkeypatch):
    monkeypatch.chdir(mine)
    facts = {"task": "rte", "split": "train", "rows": 1, "data": "d", "teacher": "t", "tokenizer": "t"}
    facts |= {"max_length": 8, "precision": "32-true", "both_orders": False}
    folder = Path("targets/rte-train")
    folder.parent.mkdir()
    SoftTargets.write(folder, Manifest(labels=("no", "yes"), **facts), torch.tensor([0]), torch.zeros(1, 2))
    with pytest.raises(UserError) as error:
        SoftTargets.open(folder, Manifest(labels=("yes", "no"), **facts))
    (shown,) = blocks(ROOT / "docs" / "soft_targets.md", "text")
    assert shown.strip().endswith(str(error.value))


def test_the_floors_of_the_page_are_those_that_are_checked():
    """One map: that of CONTRIBUTING.md is the layers of setup.cfg."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    layers = setup["importlinter:contract:floors"]["layers"].replace("kd_lightning.", "").strip().splitlines()
    (shown,) = blocks(ROOT / "CONTRIBUTING.md", "text")
    floors = [re.split(r"\s{3,}", line.strip())[0] for line in shown.strip().splitlines()]
    assert [set(re.findall(r"\w+", floor)) for floor in floors] == [set(re.findall(r"\w+", one)) for one in layers]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page):
    for target in re.findall(r"\]\((?!http)([^)#]+)", page.read_text()):
        assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_file_of_ours_is_there(page):
    for name in re.findall(r"`((?:kd_lightning|conf|tests|benchmarks|experiments)/[^` ]+)`", page.read_text()):
        assert (ROOT / name).exists(), name


@pytest.mark.filterwarnings("ignore")
def test_the_bilstm_of_the_page_is_the_student(tmp_path, caplog):
    """The lines that load it by hand give its logits, and so does what they export; no warning that it is no BERT."""
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    (code,) = [block for block in blocks(ROOT / "docs" / "results.md", "python") if block.startswith("# bilstm.py")]
    task = Task(name="toy_sentiment", kind="classification", texts=("text",), labels=("a", "b"), metrics=("accuracy",))
    recipe = NewBiLstm(words=TrainingWords(size=8), hidden_size=4)
    tokenizer = recipe.tokenizer(["the plot was not dull", "a cup"])
    parts = {"encoder": recipe.build(tokenizer), "tasks": [task], "head": siamese_head}
    student = BiLstmStudent(distill_loss=LogitMSE(), optimizer=None, scheduler=None, **parts).eval()
    (tmp_path / "student").mkdir()
    (tmp_path / "student" / "config.yaml").touch()
    save_system(student, tokenizer, tmp_path / "student")
    values = {}
    exec(code.replace("RUN_FOLDER", str(tmp_path)), values)
    assert "model of type" not in caplog.text
    (code,) = [block for block in blocks(ROOT / "docs" / "results.md", "python") if block.startswith("# export.py")]
    exec(code.replace("student.onnx", str(tmp_path / "student.onnx")), values)
    batch = tokenizer(["the plot was not dull"], return_tensors="pt")
    with torch.inference_mode():
        expected = student.logits("toy_sentiment", student.encoder(**batch), torch.tensor([0]))
    torch.testing.assert_close(values["logits"], expected)
    session = onnxruntime.InferenceSession(str(tmp_path / "student.onnx"))
    texts = tokenizer(["a cup", "the cup was not a plot"], padding=True, return_tensors="pt")
    found = session.run(None, {name: texts[name].numpy() for name in ("input_ids", "attention_mask")})
    with torch.inference_mode():
        expected = student.logits("toy_sentiment", student.encoder(**texts), torch.tensor([0, 1]))
    torch.testing.assert_close(torch.from_numpy(found[0]), expected)
