"""The console scripts as people call them: quick answers, one-line errors, exit code 2."""

import errno
import shutil
import signal
import subprocess
import sys

import pytest
from omegaconf import OmegaConf

from kd_lightning import __version__
from kd_lightning.apps.command_line import sweeps
from kd_lightning.apps.command_line.interrupts import interrupt_in_one_line, tell
from kd_lightning.apps.command_line.one_line import one_line, os_error
from kd_lightning.apps.command_line.shorthands import encoder_shorthand, spelled_out, sweep_shorthand
from kd_lightning.errors import Terminated


def call(command, *arguments):
    """Run ``python -m kd_lightning.COMMAND``."""
    line = [sys.executable, "-m", f"kd_lightning.{command}", *arguments]
    return subprocess.run(line, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("command", ["train", "predict", "evaluate", "distill"])
def test_help_teaches_and_needs_nothing_heavy(command):
    code = (
        "import sys, atexit; sys.argv = ['kd', '--help']\n"
        f"from kd_lightning.{command} import main\n"
        "heavy = ('torch', 'transformers', 'pytorch_lightning', 'pandas', 'pyarrow', 'wandb')\n"
        "atexit.register(lambda: print('HEAVY', [name for name in heavy if name in sys.modules]))\n"
        "main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert f"kd-{command}: " in done.stdout
    assert "Settings:" in done.stdout
    assert done.stdout.rstrip().endswith("HEAVY []")


TOY = ["data=embedded", "task=toy_sentiment"]

BEFORE_A_JOB = """
from hydra._internal.config_loader_impl import ConfigLoaderImpl
ConfigLoaderImpl.load_sweep_config = lambda *args, **values: os.kill(os.getpid(), signal.SIGINT) or time.sleep(60)
"""
IN_AN_IMPORT = """
class Swallows:
    def find_spec(self, name, path, target=None):
        if name == "PACKAGE":
            try:
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(0.1)
            except KeyboardInterrupt:
                raise ImportError("no torch, it seems")
sys.meta_path.insert(0, Swallows())
"""


@pytest.mark.parametrize(
    ("moment", "how"),
    [
        pytest.param(BEFORE_A_JOB, "SIGINT", id="before a job"),
        pytest.param(BEFORE_A_JOB, "SIGTERM", id="told to end before a job"),
        pytest.param(IN_AN_IMPORT.replace("PACKAGE", "hydra"), "SIGINT", id="at the first import"),
        pytest.param(IN_AN_IMPORT.replace("PACKAGE", "torch"), "SIGINT", id="at a later one"),
        pytest.param(IN_AN_IMPORT.replace("PACKAGE", "torch"), "SIGTERM", id="told to end at a later one"),
    ],
)
def test_an_interrupt_is_one_line(moment, how, tmp_path):
    """Hydra's traceback, or that of a library which takes it for a missing package."""
    arguments = ["-m"] * (moment is BEFORE_A_JOB) + ["experiment=quickstart", f"paths.output={tmp_path}"]
    code = (
        "import os, signal, sys, time\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # ignored where tests run in the background
        f"sys.argv = ['kd-distill', *{arguments}]\n{moment.replace('SIGINT', how)}"
        "from kd_lightning.distill import main\n"
        "main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, cwd=tmp_path)
    assert done.returncode == 128 + signal.Signals[how], done.stderr
    assert "Traceback" not in done.stderr
    goes_on = (
        "with skip_finished=true goes on" if "-m" in arguments else "goes on from the last checkpoint, if there is one"
    )
    assert done.stderr.splitlines()[-1] == f"kd-distill: interrupted; the same command {goes_on}"


def test_an_interrupt_in_an_import_ends_the_trial_of_a_search(tmp_path):
    """The process leaves at once, and the study would take the trial for one that runs for ever."""
    optuna = pytest.importorskip("optuna")
    storage = f"sqlite:///{tmp_path}/search.db"
    arguments = ["-m", *TOY, f"paths.output={tmp_path}", "hydra/sweeper=search", "hydra.sweeper.study_name=s"]
    arguments += [f"hydra.sweeper.storage={storage}", "optimizer.lr=tag(log,interval(1e-4,1e-2))"]
    code = (
        "import os, signal, sys, time\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        f"sys.argv = ['kd-train', *{arguments}]\n{IN_AN_IMPORT.replace('PACKAGE', 'torch')}"
        "from kd_lightning.train import main\n"
        "main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, cwd=tmp_path)
    assert done.returncode == 130, done.stderr
    assert (
        done.stderr
        == "kd-train: interrupted; the same command (without hydra.sweep.dir) adds trials, with other values\n"
    )
    study = optuna.load_study(study_name="s", storage=storage)
    assert [trial.state.name for trial in study.trials] == ["FAIL"]


def test_a_sweep_that_has_not_begun_is_not_gone_on_with(monkeypatch, capfd):
    """``ckpt_path=last`` of a single run."""
    monkeypatch.setattr(sweeps, "begun", [])
    monkeypatch.setattr(sys, "argv", ["kd-train", "seed=1,2", "--multirun"])
    tell("train")
    assert capfd.readouterr().err == "kd-train: interrupted; no job had begun\n"


def test_kd_distill_goes_on_by_itself():
    done = call("distill", "experiment=quickstart", "ckpt_path=last")
    said = "ckpt_path is kd-train's; kd-distill goes on by itself, with the same command"
    assert (done.returncode, done.stderr) == (2, f"kd-distill: error: {said}\n")


@pytest.mark.parametrize(
    ("command", "sweeper", "launcher", "how"),
    [
        (
            "train",
            {"n_trials": 2},
            "Basic",
            "the same command (without hydra.sweep.dir) adds trials, with other values",
        ),
        ("distill", {}, "Basic", "the same command with skip_finished=true goes on"),
        ("train", {}, "Basic", "the same command with ckpt_path=last skip_finished=true goes on"),
        ("distill", {}, "Local", "once its jobs have ended, the same command with skip_finished=true goes on"),
        ("distill", {}, "Joblib", "the same command with skip_finished=true goes on"),
        ("distill", {}, "Slurm", "jobs that were submitted go on: squeue --me lists them, scancel ends them"),
    ],
)
def test_an_interrupted_sweep_is_told_how_it_goes_on(monkeypatch, capfd, command, sweeper, launcher, how):
    """A search not from a checkpoint; where ckpt_path=last alone is told, what has finished is trained once more.

    Jobs of submitit_local go on where the command alone was told to end: one that is given again is refused meanwhile.
    """
    config = OmegaConf.create({"hydra": {"sweeper": sweeper, "launcher": {"_target_": f"x.{launcher}Launcher"}}})
    monkeypatch.setattr(sweeps, "begun", [sweeps.Sweep(config, 0.0)])
    tell(command)
    assert capfd.readouterr().err == f"kd-{command}: interrupted; {how}\n"


@pytest.mark.parametrize(
    ("overrides", "wanted"),
    [
        pytest.param(["foo=1"], "there is no setting 'foo'", id="unknown setting"),
        pytest.param(["ckpt_pth=x"], "did you mean 'ckpt_path'?", id="misspelt setting"),
        pytest.param(["hydra.swep.dir=x"], "did you mean 'hydra.sweep.dir'?", id="misspelt setting of Hydra"),
        pytest.param(["hydra/launchr=basic"], "did you mean 'hydra/launcher'?", id="misspelt group of Hydra"),
        pytest.param(["hydra.xyzzy=1"], "'hydra.xyzzy'; --hydra-help lists", id="unknown setting of Hydra"),
        pytest.param(
            ["hydra.job.chdir=maybe"], "error: hydra.job.chdir is maybe, expected true or false", id="wrong for Hydra"
        ),
        pytest.param(
            ["encoder=pretrained", "encoder.path=${installed_folder:no_such_package,model,offline}"],
            "package no_such_package is not installed: in the checkout, pip install -e",
            id="an extra that is not installed",
        ),
        pytest.param(
            ["optimizer=adadelta", "optimizer.rho=0.9"],
            "no setting 'optimizer.rho' in the chosen option of optimizer; did you mean 'optimizer.optimizer.rho'?",
            id="setting further inside",
        ),
        pytest.param(
            ["augmenter=rules", "augmenter.n_itr=2"], "mean 'augmenter.n_iter'?", id="misspelt setting of an option"
        ),
        pytest.param(["encoder=bilstm", "encoder.sparse=maybe"], "'maybe', expected true or false", id="no boolean"),
        pytest.param(
            ["encoder=bilstm", "encoder.words.vocab_size=1e4"],
            "encoder.words.vocab_size is 10000.0, expected a whole number of at least 3",
            id="no whole number",
        ),
        pytest.param(
            ["data=embedded", "task=toy_sentiment", "encoder=bilstm_pieces"],
            "error: encoder.words.model is null, since the teacher's encoder is not pre-trained",
            id="setting further inside that is refused",
        ),
        pytest.param(["augmenter=rules", "augmenter.n_iter=0"], "augmenter.n_iter is 0, expected", id="no variants"),
        pytest.param(
            ["--config-dir", "broken", "task=whole", "augmenter=rules", "augmenter.n_itr=2"],
            "mean 'augmenter.n_iter'?",
            id="misspelt setting beside an option of one's own",
        ),
        pytest.param(
            ["augmenter=rules", "augmenter.p_ng=true"], "augmenter.p_ng is True, expected a number", id="no number"
        ),
        pytest.param(
            ["system.head.dropout=null"], "system.head.dropout is null, expected a number", id="null for a number"
        ),
        pytest.param(
            ["optimizer.optimizer.betas=0.9"], "optimizer.betas is 0.9, expected two numbers", id="one number for two"
        ),
        pytest.param(
            ["optimizer.optimizer.betas=[0.9]"], "betas is [0.9], expected two numbers: [0.9,0.999]", id="one of two"
        ),
        pytest.param(
            ["optimizer=adamw", "optimizer.optimizer.rho=0.9"],
            "'optimizer.optimizer.rho' in the chosen option of optimizer; optimizer=adadelta has it",
            id="setting of another option",
        ),
        pytest.param(["trainer.max_epoch=3"], "did you mean 'trainer.max_epochs'?", id="misspelt setting"),
        pytest.param(["+task.rte.metric=f1"], "task rte: there is no field 'metric'; did you mean", id="unknown field"),
        pytest.param(["task=rtx"], "did you mean task=rte?", id="near miss"),
        pytest.param(["task=zzzz"], "expected one of ax, cola", id="unknown option"),
        pytest.param(["task=[rtx,mrpc]"], "'rtx' in the group task: did you mean task=rte?", id="near miss in a list"),
        pytest.param(
            ["--config-dir", "broken", "task=[broke,mrpc]"], "did you mean task=broken?", id="near miss of one's own"
        ),
        pytest.param(
            ["encoder=tiny", *TOY, "system.head._target_=kd_lightning.heads.sann_head"],
            "head._target_ is 'kd_lightning.heads.sann_head', which cannot be imported; did you mean 'san_head'?",
            id="misspelt head",
        ),
        pytest.param(
            ["encoder=tiny", *TOY, "system.task_heads.toy_sentiment.droput=0.3"],
            "system.task_heads.toy_sentiment: linear_head has no setting 'droput'; did you mean 'dropout'?",
            id="misspelt setting of one task's head",
        ),
        pytest.param(
            ["encoder=tiny", *TOY, "system.task_heads.toy_sentiment.dropout=1.3"],
            "system: dropout probability has to be between 0 and 1, but got 1.3 (the head of toy_sentiment)",
            id="wrong setting of one task's head",
        ),
        pytest.param(
            ["encoder=tiny", *TOY, "system.task_heads.toy_sentimen.dropout=0.3"],
            "system.task_heads.toy_sentimen: toy_sentimen is no task of this run; did you mean 'toy_sentiment'?",
            id="head of a misspelt task",
        ),
        pytest.param(["encoder=bert-base-uncased"], "encoder=OWNER/bert-base-uncased", id="hub name without owner"),
        pytest.param(["seed=-1"], "seed is -1, expected a whole number of at least 0", id="seed below zero"),
        pytest.param(["batching.batch_size=many"], "batching.batch_size is 'many'", id="batch size in words"),
        pytest.param(["optimizer.lr=quick"], "optimizer.lr is 'quick', expected a number", id="rate in words"),
        pytest.param(["encoder=pretrained"], "encoder.path has no value: give encoder.path=VALUE", id="missing value"),
        pytest.param(["data.root=/no/such"], "data.root is '/no/such', expected a folder", id="missing folder"),
        pytest.param(["experiment=quickstart"], "experiments are kd-distill's", id="experiment"),
        pytest.param(["teacher.seeds=[1]"], "no setting 'teacher.seeds': teachers are kd-distill's", id="teachers"),
        pytest.param(["debgu=overfit"], "no setting 'debgu'; did you mean 'debug'?", id="misspelt group"),
        pytest.param(["seed=1", "task=[a,]"], "the argument task=[a,] cannot be read; letters that", id="grammar"),
        pytest.param(["system.head=[1,2]"], "system.head is [1,2], expected settings by their names", id="a list"),
        pytest.param(["hydra/launcher=basic"], "hydra/launcher=basic is for sweeps: give -m, else", id="no sweep"),
        pytest.param(["--config-dir", "broken", "task=broken"], "task/broken.yaml", id="broken yaml"),
        pytest.param(["--config-dir", "broken", "task=bare"], "a file of task/ begins with _target_", id="bare task"),
        pytest.param(["--config-dir", "broken", "task=hollow"], "task hollow has no _target_", id="hollow task"),
        pytest.param(
            ["paths.cache=file", "data=embedded", "task=toy_sentiment", "encoder=tiny"], "file", id="no folder"
        ),
    ],
)
def test_a_wrong_configuration_is_one_line_and_code_2(overrides, wanted, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken" / "task").mkdir(parents=True)
    (tmp_path / "file").touch()
    whole = "whole: {_target_: kd_lightning.tasks.Task, name: whole}"
    texts = {
        "whole": whole,
        "broken": "a: [1",
        "bare": "_target_: kd_lightning.tasks.Task\nname: bare",
        "hollow": "hollow: {name: x}",
    }
    for name, text in texts.items():
        (tmp_path / "broken" / "task" / f"{name}.yaml").write_text(text + "\n")
    done = call("train", *overrides, f"hydra.run.dir={tmp_path}/run")
    assert done.returncode == 2
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("kd-train: error: ")
    assert wanted in line
    assert len(line) < 400


def test_a_reader_that_goes_away_is_no_error():
    """``kd-train --help | head``."""
    line = f"{sys.executable} -m kd_lightning.train --help | head -1"
    done = subprocess.run(line, shell=True, capture_output=True, text=True, timeout=120)
    assert done.stdout.startswith("kd-train: ")
    assert done.stderr == ""


def test_an_encoder_by_name_or_folder():
    """``encoder=HUB-NAME`` is short for two settings; the teacher follows unless it is chosen."""
    assert encoder_shorthand(["kd-train", "encoder=a/b-c"]) == [
        "kd-train",
        "encoder=pretrained",
        "encoder.path='a/b-c'",
    ]
    assert "teacher.encoder.path='./x'" in encoder_shorthand(["kd-distill", "encoder=./x"])
    chosen = encoder_shorthand(["kd-distill", "encoder=./x", "encoder@teacher.encoder=tiny"])
    assert not [argument for argument in chosen if argument.startswith("teacher.encoder.path")]
    own = ["kd-train", "--config-dir", "mine", "encoder=my-bert.v2"]
    assert encoder_shorthand(own) == own
    assert encoder_shorthand(["kd-train", "encoder=tiny", "seed=1"]) == ["kd-train", "encoder=tiny", "seed=1"]


@pytest.mark.parametrize(
    ("command", "argument", "expected"),
    [
        ("kd-distill", "teacher.members={a: {}}", "++"),
        ("kd-distill", "teacher.members.a.optimizer.lr=1", "++"),
        ("kd-distill", "teacher.tasks={rte: all}", "++"),
        ("kd-distill", "student.fine_tune.heads=new", "++"),
        ("kd-distill", "system.task_heads={rte: {dropout: 0.3}}", "++"),
        ("kd-train", "system.task_heads.rte.dropout=0.3", "++"),
        ("kd-train", "teacher.members={a: {}}", ""),
        ("kd-distill", "teacher.member={a: {}}", ""),
        ("kd-distill", "teacher.members_of=1", ""),
        ("kd-distill", "~teacher.members.a", ""),
        ("kd-distill", "teacher.members", ""),
        ("kd-distill", "+teacher.members={a: {}}", ""),
        ("kd-distill", "teacher.seeds=[1]", ""),
    ],
)
def test_free_keys_can_be_new(command, argument, expected):
    """Hydra refuses a key that a recipe has not: a teacher beside its own, a task's head, a stage's setting."""
    assert spelled_out([command, argument]) == [command, expected + argument]
    assert spelled_out([command, "-m", argument])[2] == expected + argument


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("-m augmenter=masking,ngrams augmenter.n_iter=2", "-m augmenter=masking,ngrams augmenter.n_iter=choice(2)"),
        ("-m augmenter.p_ng=0 augmenter=choice(a,b)", "-m augmenter.p_ng=choice(0) augmenter=choice(a,b)"),
        ("augmenter=masking,ngrams augmenter.n_iter=2", None),
        ("-m augmenter=masking augmenter.n_iter=2 seed=1,2", None),
        ("-m augmenter=a,b augmenter.n_iter=2,3", None),
        ("-m task=[rte,mrpc] task.rte.label=x", None),
        ("--multirun task=[rte],[mrpc] task.rte.id=x", "--multirun task=[rte],[mrpc] task.rte.id=choice(x)"),
        ("-m a=1,2 ~a.b a.c=", None),
    ],
)
def test_settings_of_swept_options_wait_for_the_jobs(arguments, expected):
    """Hydra puts them into a configuration without the option, and finds that there is no such setting."""
    found = sweep_shorthand(arguments.split())
    assert found == (expected or arguments).split()


def test_a_sweep_over_options_takes_their_settings(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = call("distill", "-m", "experiment=quickstart", "augmenter=masking,replacement", "augmenter.n_iter=0")
    assert "augmenter=masking augmenter.n_iter=0" in done.stdout
    refused = "augmenter.n_iter is 0, expected a whole number of at least 1"
    *said, last = done.stderr.splitlines()
    assert said == [f"kd-distill: error: job {number}: {refused}" for number in (0, 1)]
    assert "2 of 2 jobs did not finish: 0 (augmenter=masking, refused), 1 (augmenter=replacement, refused)" in last
    assert done.returncode == 2
    done = call("distill", "-m", "experiment=bilstm_sst2_rules", "augmenter.n_iter=1")  # one of its values is none
    assert done.stderr.strip() == (
        "kd-distill: error: there is no setting 'augmenter.n_iter' with every option of augmenter that this sweep "
        "takes: leave those out that have none"
    )
    assert done.returncode == 2


def test_signals_have_exit_codes_of_their_own():
    """A scheduler that ends a job by SIGTERM reads Ctrl-C."""
    for interrupt, code in ((KeyboardInterrupt, 130), (Terminated, 143)):
        with pytest.raises(SystemExit) as left, interrupt_in_one_line("train"):
            raise interrupt
        assert left.value.code == code


def test_a_setting_that_cannot_be_null_is_one_line():
    """Of a search, with the class of its settings."""
    said = (
        "Error merging override hydra.sweeper.n_trials=null\n"
        "field 'hydra.sweeper.n_trials' is not Optional\n"
        "    full_key: hydra.sweeper.n_trials\n    object_type=OptunaSweeperConf\n\n"
    )
    assert one_line(said) == "hydra.sweeper.n_trials is null, expected a value"


def test_what_hydra_cannot_do_at_once_is_one_line():
    done = call("distill", "-m", "seed=1,2", "--cfg", "job")
    assert done.returncode == 2
    assert done.stderr.startswith("kd-distill: error: Only one of --run, --multirun, --cfg")
    assert len(done.stderr.splitlines()) == 1


def test_a_teachers_option_is_meant_where_it_is_misspelt():
    done = call("distill", "encoder@teacher.encoder=minilmm")
    assert done.stderr.strip().endswith("did you mean encoder@teacher.encoder=minilm?")


def test_the_version_is_ours():
    done = call("train", "--version")
    assert done.stdout.startswith(f"kd_lightning {__version__}, Hydra ")


def test_what_the_system_refuses_says_where_and_what_to_do():
    """A disk that is full is told as one, at the file that was to be written; of a chain, what came last counts."""
    full = os_error(OSError(errno.ENOSPC, "No space left on device", "/tmp/x", None, "run/last.ckpt"))
    assert full == "No space left on device: run/last.ckpt; make room, then the same command again"
    copied = shutil.Error([("a", "b", "[Errno 28] No space left on device: 'a'"), ("c", "d", "[Errno 2] no: 'c'")])
    assert os_error(copied) == "No space left on device: b; make room, then the same command again"
    chain = "FileNotFoundError: [Errno 2] No such file or directory: 'a/b'\n\nOSError: [Errno 30] Read-only: 'a'\n"
    assert one_line(chain) == "Read-only: a; check that the path is right, and that it can be written"
    part = OSError(errno.EACCES, "Permission denied", "out/.report.csv.123.part")
    assert os_error(part).startswith("Permission denied: out/report.csv; check")
    part = OSError(errno.EACCES, "Permission denied", "/store/.model.77.part/a.bin")
    assert os_error(part).startswith("Permission denied: /store/model/a.bin; check")


def test_other_messages_of_hydra_become_one_line():
    assert one_line("first\n  second\n\nSet the environment variable HYDRA_FULL_ERROR=1") == "first second"


def test_what_the_hub_says_is_said_once():
    """Its library prints by itself, and Hydra's log would print it once more."""
    code = (
        "import logging; from kd_lightning.apps.command_line.cli import quiet\n"
        "logging.basicConfig(format='%(message)s'); quiet()\n"
        "import datasets.utils.logging as data, huggingface_hub.utils.logging as hub\n"
        "hub.get_logger('huggingface_hub.x').warning('no network'); data.get_logger('datasets.x').warning('no data')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stderr.splitlines() == ["no network", "no data"]


def test_a_command_that_could_not_begin_leaves_no_run(tmp_path, monkeypatch):
    """``ls outputs/train | tail -1`` is how people find their run; a sweep's folders tell which jobs failed."""
    monkeypatch.chdir(tmp_path)
    assert call("train", "seed=-1").returncode == 2
    assert call("train", "data=embedded", "task=toy_sentiment", "encoder=tiny", "ckpt_path=last").returncode == 2
    assert not list(tmp_path.glob("outputs/train/*"))
    assert call("train", "-m", "seed=-1").returncode == 2
    assert list(tmp_path.glob("outputs/train/sweep_*/0/.hydra"))


def test_a_folder_of_the_users_is_no_litter(tmp_path, monkeypatch):
    """``hydra.run.dir=.``: whatever lies there is not ours to take away."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.log").write_text("of weeks")
    for folder in (".", "mine"):
        assert call("train", "seed=-1", f"hydra.run.dir={folder}").returncode == 2
    assert (tmp_path / "mine" / "notes.log").read_text() == "of weeks"


@pytest.mark.parametrize("options", [["-m"], ["--multirun"], ["--config-dir", "mine"], ["--config-dir=mine", "-m"]])
def test_options_may_stand_anywhere(options):
    """A page of Hydra's usage, for ``kd-train task=x -m seed=1,2``."""
    expected = ["kd-train", *options, "task=x", "seed=1,2"]
    assert spelled_out(["kd-train", "task=x", *options, "seed=1,2"]) == spelled_out(expected) == expected


def test_an_option_without_its_value_is_hydras_to_refuse():
    assert spelled_out(["kd-train", "task=x", "--config-dir"]) == ["kd-train", "--config-dir", "task=x"]
