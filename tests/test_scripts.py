"""The installed commands in processes of their own, from an own task to predictions, as the pages show them."""

import contextlib
import json
import os
import pty
import random
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from kd_lightning.apps.settings.wandb_key import wandb_offline

ROOT = Path(__file__).parents[1]
SCRIPTS = Path(sys.executable).parent
SMALL = ["encoder.hidden_size=32", "encoder.num_layers=1", "accelerator=cpu", "trainer.precision=32-true"]
SMALL += ["trainer.max_epochs=1"]
TEACHER = ["teacher.encoder.hidden_size=32", "teacher.encoder.num_layers=1", "teacher.trainer.max_epochs=1"]


def kd(name, *arguments, cwd, **environment):
    """Run the script ``kd-NAME`` and return what it said; its exit code must be 0."""
    known = {name: value for name, value in os.environ.items() if not name.startswith(("WANDB", "COMP_"))}
    done = subprocess.run(
        [SCRIPTS / f"kd-{name}", *arguments],
        cwd=cwd,
        env={**known, "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def block(page, start):
    """Return the code block of a page that begins with a line."""
    (found,) = re.findall(
        rf"^```\w*\n({re.escape(start)}\n.*?)^```", (ROOT / page).read_text(), re.DOTALL | re.MULTILINE
    )
    return found


@pytest.fixture(scope="module")
def reviews(tmp_path_factory):
    """A folder with the task of the README, its files, and a sweep over it by the README's command."""
    folder, draw = tmp_path_factory.mktemp("reviews"), random.Random(0)
    (folder / "mine" / "task").mkdir(parents=True)
    (folder / "mine" / "task" / "reviews.yaml").write_text(block("README.md", "# mine/task/reviews.yaml"))
    (folder / "data").mkdir()

    def rows(count, labelled):
        labels = [draw.choice(["negative", "positive"]) for _ in range(count)]
        texts = [
            f"a {'lovely' if label == 'positive' else 'bland'} {draw.choice(['film', 'plot'])}" for label in labels
        ]
        return pd.DataFrame({"text": texts, **({"sentiment": labels} if labelled else {})})

    for name, count, labelled in (("train", 96, True), ("dev", 32, True), ("more", 64, False), ("new", 5, False)):
        rows(count, labelled).to_csv(folder / "data" / f"{name}.csv", index=False)
    (command,) = re.findall(
        r"^\.venv/bin/kd-distill (--config-dir mine .*)$", (ROOT / "README.md").read_text(), re.MULTILINE
    )
    short = ["encoder.num_layers=1", "teacher.encoder.num_layers=1", *SMALL[2:], *TEACHER[2:]]
    said = kd("distill", "-m", *command.split(), "seed=1,2", *short, cwd=folder)
    (folder / "said.txt").write_text(said)
    return folder


def runs(folder):
    """Return the run folders of the sweep."""
    return sorted(path.parent for path in folder.glob("outputs/distill/sweep_*/*/summary.json"))


@pytest.mark.slow
def test_a_sweep_trains_its_teacher_once(reviews):
    first, second = runs(reviews)
    assert [json.loads((run / "summary.json").read_text())["seed"] for run in (first, second)] == [1, 2]
    store = reviews / "outputs" / "store"
    assert len(list(store.glob("fits/teacher*/fit.json"))) == 1
    assert len(list(store.glob("fits/*/fit.json"))) == 5, "and two students, and two baselines"
    assert len(list(store.glob("soft_targets/*/manifest.json"))) == 2, "of train and unlabelled"


@pytest.mark.slow
def test_the_run_folder_holds_what_the_page_says(reviews):
    """docs/results.md: the files, and every key of summary.json."""
    run = runs(reviews)[0]
    page = (ROOT / "docs" / "results.md").read_text()
    for name in re.findall(
        r"^([\w./]+)  ", block("docs/results.md", "config.yaml      the whole configuration, resolved"), re.MULTILINE
    ):
        assert (run / name.replace("NAME", "distill")).exists(), name
    summary = json.loads((run / "summary.json").read_text())
    assert summary["experiment"] == "distill"
    told = re.findall(r"^\| (`.*?) \|", page, flags=re.MULTILINE)
    keys = {key.split(".")[0] for cell in told for key in re.findall(r"`(\w[\w.]*)`", cell)}
    assert set(summary) - {"folders"} == keys
    task = summary["tasks"]["reviews"]
    roles = {"teacher", "ensemble", "baseline", "student", "baseline_fine_tuned", "student_fine_tuned"}
    assert set(task) == {"metric", "metrics", *roles}
    assert summary["data"]["reviews"].keys() == {"train", "validation", "unlabelled", "synthetic", "fingerprint"}
    roles = ("teacher", "baseline", "student")
    assert summary["parameters"].keys() == {f"{role}{part}" for role in roles for part in ("", "_without_embeddings")}
    assert summary["latency_ms"].keys() == {*roles}
    assert summary["average"].keys() >= {"teacher", "baseline", "student"}


@pytest.mark.slow
def test_output_without_a_terminal_is_plain(reviews):
    """Neither bars nor carriage returns nor colours: the lines go to log files."""
    said = (reviews / "said.txt").read_text()
    assert "student: " in said
    for mark in ("\r", "\x1b", "█", "it/s", "%|"):
        assert mark not in said, mark


@pytest.mark.slow
def test_a_student_is_evaluated_and_predicts_and_is_the_same_in_python(reviews, monkeypatch):
    run = runs(reviews)[0]
    kd("evaluate", f"run={run}", cwd=reviews)
    (evaluation,) = reviews.glob("outputs/evaluate/*/evaluation.json")
    task = json.loads((run / "summary.json").read_text())["tasks"]["reviews"]
    scores = json.loads(evaluation.read_text())["scores"]["reviews"]
    assert scores == pytest.approx(task["metrics"]["student"], abs=1e-6)

    (command,) = re.findall(r"^kd-predict (run=.*)$", (ROOT / "docs" / "own_data.md").read_text(), re.MULTILINE)
    kd("predict", *command.replace("RUN_FOLDER", str(run)).split(), f"output={reviews / 'predictions'}", cwd=reviews)
    (file,) = (reviews / "predictions").iterdir()
    assert file.name == "reviews-new.csv"
    predicted = pd.read_csv(file)

    text = pd.read_csv(reviews / "data" / "new.csv")["text"][0]
    code = block("docs/results.md", "# student.py").replace("RUN_FOLDER", str(run)).replace("toy_sentiment", "reviews")
    values = {}
    exec(code.replace("the plot was not dull", text), values)
    found = values["probabilities"][0].tolist()
    assert found == pytest.approx(predicted.loc[0, ["p_negative", "p_positive"]].tolist(), abs=1e-4)


@pytest.mark.slow
def test_every_logger_writes_its_files(tmp_path):
    """One word each; wandb offline, for want of a key."""
    train = ["-m", "logger=csv,tensorboard,wandb", "data=embedded", "task=toy_sentiment", "encoder=tiny", *SMALL]
    said = kd("train", *train, "debug=fast_dev_run", cwd=tmp_path, NETRC=str(tmp_path / "none"))
    (sweep,) = tmp_path.glob("outputs/fast_dev_run/sweep_*")
    for job in ("0", "1", "2"):
        assert (sweep / job / "metrics.csv").is_file()
    assert list((sweep / "1").glob("**/events.out.tfevents.*"))
    assert list((sweep / "2").glob("**/offline-run-*/*.wandb"))
    assert not list((sweep / "0").glob("**/events.*")) + list((sweep / "0").glob("**/*.wandb"))
    assert "\r" not in said


@pytest.mark.slow
def test_glue_in_a_folder_with_the_offline_encoder(tmp_path):
    """The README's way to real data: a wrong path of the encoder, a wrong name of a column."""
    (tmp_path / "glue" / "rte").mkdir(parents=True)
    for split, rows in (("train", 12), ("validation", 4)):
        table = {"sentence1": ["It rains."] * rows, "sentence2": ["It is wet."] * rows}
        table |= {"label": [0, 1] * (rows // 2), "idx": list(range(rows))}
        pd.DataFrame(table).to_parquet(tmp_path / "glue" / "rte" / f"{split}.parquet", index=False)
    settings = ["task=[rte]", "encoder=minilm", "encoder.num_layers=1", "data.root=glue", "batching.batch_size=4"]
    said = kd("train", *settings, "accelerator=cpu", "trainer.max_epochs=1", cwd=tmp_path)
    assert "train: 12 examples, 3 batches an epoch, 3 steps" in said
    assert "train: 3 steps are few; if it stays at chance, raise trainer.max_epochs" in said
    (summary,) = tmp_path.glob("outputs/train/*/summary.json")
    parameters = json.loads(summary.read_text())["parameters"]
    assert parameters["student"] - parameters["student_without_embeddings"] == (30522 + 512 + 2 + 2) * 384


@pytest.mark.slow
def test_a_terminal_sees_how_far_it_is(tmp_path):
    """Minutes of silence look like a command that hangs."""
    ours, theirs = pty.openpty()
    line = [SCRIPTS / "kd-train", "data=embedded", "task=toy_sentiment", "encoder=tiny", *SMALL]
    process = subprocess.Popen([*line, "debug=fast_dev_run"], cwd=tmp_path, stdout=theirs, stderr=theirs)
    os.close(theirs)
    seen = b""
    with contextlib.suppress(OSError):  # how Linux says that the other end has closed
        while more := os.read(ours, 4096):
            seen += more
    os.close(ours)
    assert process.wait(timeout=60) == 0
    for mark in ("tokenise toy_sentiment-train", "Epoch 0/0", "3/3"):
        assert mark in seen.decode(), mark


@pytest.mark.parametrize(
    ("name", "line", "wanted"),
    [
        ("distill", "kd-distill experiment=bam_g", {"experiment=bam_glue"}),
        ("train", "kd-train optimizer.l", {"optimizer.lr=", "optimizer.layer_decay="}),
        ("predict", "kd-predict form", {"format="}),
        ("evaluate", "kd-evaluate accelerator=ddp", {"accelerator=ddp", "accelerator=ddp_cpu"}),
    ],
)
def test_the_tab_key_completes(name, line, wanted, tmp_path):
    environment = {"COMP_LINE": line, "COMP_POINT": str(len(line)), "COMP_CWORD": "1"}
    assert set(kd(name, "-sc", "query=bash", cwd=tmp_path, **environment).split()) == wanted


def test_completion_is_installed_as_the_page_says(tmp_path):
    """In bash itself: the page's line, then what bash calls at the tab key."""
    (line,) = [line for line in (ROOT / "docs" / "running.md").read_text().splitlines() if line.startswith("eval ")]
    typed = "kd-distill experiment=bam_g"
    script = f'{line}\nCOMP_LINE="{typed}" COMP_POINT={len(typed)} COMP_CWORD=1\nCOMP_WORDS=({typed})\n'
    script += 'hydra_bash_completion\necho "${COMPREPLY[@]}"\ncomplete -p kd-distill\n'
    environment = {**os.environ, "PATH": f"{SCRIPTS}:{os.environ['PATH']}"}
    done = subprocess.run(["bash", "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.stdout.splitlines() == [
        "experiment=bam_glue",
        "complete -o default -o nospace -F hydra_bash_completion kd-distill",
    ]


@pytest.mark.parametrize(
    ("command", "mistake"),
    [
        *((command, mistake) for command in ("train", "distill") for mistake in ("foo=1", "task=rtx", "seed=-1")),
        ("predict", "foo=1"),
        ("evaluate", "eval_batch_size=0"),
        *((command, "accelerator=cpu trainer.precision=16-mixed") for command in ("train", "distill", "predict")),
    ],
)
def test_a_mistake_is_found_before_anything_heavy_is_loaded(command, mistake, tmp_path):
    code = (
        f"import sys, atexit; sys.argv = {[f'kd-{command}', *mistake.split()]}\n"
        f"from kd_lightning.{command} import main\n"
        "heavy = ('torch', 'transformers', 'pytorch_lightning', 'pandas', 'pyarrow', 'wandb')\n"
        "atexit.register(lambda: print('HEAVY', [name for name in heavy if name in sys.modules]))\n"
        "main()"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2, done.stderr
    assert done.stdout.strip() == "HEAVY []"


@pytest.mark.parametrize("command", ["train", "distill", "predict", "evaluate"])
def test_libraries_are_told_to_be_quiet_before_they_are_loaded(command, tmp_path):
    """Threads that spin while they wait, in every fit of a command: a second process takes ten times as long."""
    code = (
        f"import sys, types; sys.argv = ['kd-{command}']\n"
        "from kd_lightning.apps.command_line import cli\n"
        "quiet, late = cli.quiet, []\n"
        "cli.quiet = lambda: (late.append('torch' in sys.modules), quiet())\n"
        f"from kd_lightning.{command} import main\n"
        "cli.check_early = lambda cfg: None\n"
        "cli.importlib = types.SimpleNamespace(import_module=lambda name: sys.exit(f'LATE {late}'))\n"
        "main()"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert "LATE [False, False]" in done.stderr, done.stderr


@pytest.mark.parametrize(
    ("environment", "netrc", "offline"),
    [
        ({}, "", True),
        ({}, "machine elsewhere.example", True),
        ({}, "machine api.wandb.ai login user password x", False),
        ({"WANDB_API_KEY": "x"}, "", False),
        ({"WANDB_API_KEY": "x", "WANDB_MODE": "offline"}, "", True),
        ({"WANDB_API_KEY": "x", "WANDB_MODE": "disabled"}, "", True),
        ({"WANDB_MODE": "online"}, "", True),
        ({"WANDB_API_KEY": "x", "WANDB_MODE": "online"}, "", False),
    ],
)
def test_wandb_is_offline_without_a_key(environment, netrc, offline, monkeypatch, tmp_path):
    """Else a first run stops and asks for an account."""
    for name in ("WANDB_MODE", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "netrc").write_text(netrc)
    for name, value in {"NETRC": str(tmp_path / "netrc"), **environment}.items():
        monkeypatch.setenv(name, value)
    assert wandb_offline() is offline


@pytest.mark.slow
def test_a_short_quickstart_shows_that_distillation_pays(tmp_path):
    """Seeds 1 to 3, each with the teacher of its seed, gained 5.6, 54.1 and 27.3 points; seed 2 has room."""
    short = ["experiment=quickstart", "task=[toy_comparison,toy_preference]", "seed=2", "teacher.seeds=[2]"]
    short += ["teacher.trainer.max_epochs=120", "trainer.max_epochs=6"]
    kd("distill", *short, cwd=tmp_path)
    (file,) = tmp_path.glob("outputs/quickstart/*/summary.json")
    average = json.loads(file.read_text())["average"]
    assert average["student"] > average["baseline"]
    assert average["student"] > average["teacher"] - 0.15
    assert average["teacher"] > 0.7
