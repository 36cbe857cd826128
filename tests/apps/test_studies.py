"""A search goes on with trials whose scores can be compared with those that it will draw."""

import atexit
import logging
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import ConfigCompositionException
from omegaconf import OmegaConf

from kd_lightning.apps.command_line import studies
from kd_lightning.apps.command_line.one_line import in_plain_words
from kd_lightning.apps.command_line.search_space import search_space, spelled
from kd_lightning.apps.command_line.studies import check_study, follow_trials
from kd_lightning.errors import UserError

optuna = pytest.importorskip("optuna")

LR = "optimizer.lr=interval(0.0,1.0)"
TRIAL = {"name": "x", "seed": "1", "logger": "csv", "+data.limit": "64"}


@pytest.fixture
def search(tmp_path, monkeypatch):
    """Return what makes the configuration of a search with some arguments, and settings of its sweeper."""
    options = {"distill_loss": ["kl", "soft_ce"], "encoder": ["tiny"]}

    def compose(config, told):
        if any(one.startswith("++encoder=") for one in told):
            raise ConfigCompositionException("a group has options")
        seed = 3 if "distill_loss=soft_ce" in told else 1  # as a recipe may have its own
        own = {"name": "x", "seed": seed, "optimizer": {"lr": 1e-4}, "scheduler": "constant", "hydra": {}}
        return OmegaConf.merge(OmegaConf.create(own), OmegaConf.from_dotlist([one.lstrip("+") for one in told]))

    loader = SimpleNamespace(get_group_options=lambda group, **hydra: options.get(group, []), load_sweep_config=compose)
    monkeypatch.setattr(GlobalHydra, "instance", lambda: SimpleNamespace(config_loader=lambda: loader))

    def make(*arguments, **sweeper):
        if not any(one.endswith(")") for one in arguments):
            arguments += (LR,)
        sweeper = {"storage": f"sqlite:///{tmp_path}/search.db", "study_name": "s", "n_trials": 2, **sweeper}
        told = {"task": list(arguments), "hydra": ["hydra.sweep.subdir=x_${hydra.job.num}"]}
        job = {"config_name": "distill", "num": "???"}
        return OmegaConf.create({"hydra": {"sweeper": sweeper, "overrides": told, "job": job}})

    return make


@pytest.fixture
def study(tmp_path):
    """A study of three trials: one has finished, one failed under another setting, one was killed."""
    study = optuna.create_study(study_name="s", storage=f"sqlite:///{tmp_path}/search.db", direction="maximize")
    for told, end in ((TRIAL, 0.5), ({"seed": "-1"}, None), ({"seed": "1"}, "killed")):
        trial = study.ask()
        trial.suggest_uniform("optimizer.lr", 0, 1)
        for name, value in told.items():
            trial.set_user_attr(name, value)
        if end != "killed":
            study.tell(trial, end, state=optuna.trial.TrialState["FAIL" if end is None else "COMPLETE"])
    return study


ALIKE = ["name=x", "seed=1", "+data.limit=64", LR]


@pytest.mark.parametrize("more", [[], ["logger=wandb"], ["trainer.devices=2"], ["data.root=elsewhere"], ["++seed=1"]])
def test_a_study_goes_on_under_its_settings(search, study, caplog, more):
    """Where it computes, and what it shows of it, may change."""
    caplog.set_level(logging.INFO)
    check_study(search(*ALIKE, *more))
    assert caplog.messages == ["Study goes on: 3 trials before, 1 of them finished, 1 failed, 1 running or killed"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["name=x", "seed=2", "+data.limit=64"], "with seed=1:"),
        ([*ALIKE, "encoder=tiny"], "without encoder=tiny:"),
        ([*ALIKE[:2], "data.limit=interval(1,9)", LR], "with data.limit=64:"),
    ],
)
def test_a_study_does_not_go_on_under_others(search, study, arguments, said):
    """The best of its trials would be the one with the best settings, not with the best values."""
    with pytest.raises(UserError, match="study_name=NAME begins another") as error:
        check_study(search(*arguments))
    assert f"the study s has trials {said}" in str(error.value)


@pytest.mark.parametrize(
    ("told", "said"),
    [
        (
            "distill_loss=kl,soft_cee",
            r"^no option 'soft_cee' in the group distill_loss: did you mean distill_loss=soft_ce",
        ),
        ("+encoder@teacher.encoder=tiny,tinny", "^no option 'tinny' in the group encoder: did you mean encoder"),
        ("distill_loss=[kl],[kl,typo]", "^no option 'typo' in the group distill_loss: expected one of kl, soft_ce"),
        ("distill_loss=kl,soft_ce,null", None),
        ("distill_loss=[kl],[kl,soft_ce]", None),
        ("encoder=tiny,'{_target_: x}'", None),
        ("seed=1,2", None),
    ],
)
def test_options_of_a_search_are_there(search, tmp_path, told, said):
    """The study of a misspelt one draws it again, and is of no range that is mended."""
    if said is None:
        check_study(search(told))
        return
    with pytest.raises(UserError, match=said):
        check_study(search(told))
    assert not (tmp_path / "search.db").exists()


def test_a_setting_counts_as_it_was_told(search, study):
    """``name='x_${seed}'``: a search was refused its own study, whose trials had not been told ``x_1``."""
    trial = optuna.create_study(study_name="own", storage=study._storage, direction="maximize")
    asked = trial.ask()
    asked.suggest_uniform("optimizer.lr", 0, 1)
    asked.set_user_attr("name", "'x_${seed}'")
    trial.tell(asked, 0.5)
    check_study(search("name='x_${seed}'", LR, study_name="own"))


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ("seed=1", ""),
        ("scheduler=constant", ""),
        ("+data.limit=64", "without data.limit=64:"),
        ("seed=2", "without seed=2:"),
    ],
)
def test_a_default_may_be_told(search, study, told, said):
    """``seed=1``, which it is without a word: its scores were "not to be compared" with themselves."""
    own = optuna.create_study(study_name="own", storage=study._storage, direction="maximize")
    for more in ({}, {"seed": "1"}):
        asked = own.ask()
        asked.suggest_uniform("optimizer.lr", 0, 1)
        for name, value in ({"name": "x"} | more).items():
            asked.set_user_attr(name, value)
        own.tell(asked, 0.5)
    with pytest.raises(UserError, match=said) if said else nullcontext():
        check_study(search("name=x", told, LR, study_name="own"))


@pytest.mark.parametrize(("setting", "said"), [("scheduler=constant", ""), ("seed=1", "with seed=1:")])
def test_a_default_may_be_that_of_an_option(search, study, monkeypatch, setting, said):
    """``experiment=a,b``: of each recipe the default may be another, and that of none of them says nothing."""
    own = optuna.create_study(study_name="own", storage=study._storage, direction="maximize")
    asked = own.ask()
    asked.suggest_categorical("distill_loss", ["kl", "soft_ce"])
    asked.set_user_attr("name", "x")
    asked.set_user_attr(*setting.split("="))
    own.tell(asked, 0.5)
    with pytest.raises(UserError, match=said) if said else nullcontext():
        check_study(search("name=x", "distill_loss=choice(kl,soft_ce)", study_name="own"))
    monkeypatch.setattr(studies, "MANY", 2)
    with pytest.raises(UserError, match=f"with {setting}:"):
        check_study(search("name=x", "distill_loss=choice(kl,soft_ce)", study_name="own"))


def test_a_study_is_of_one_command(search, study):
    """A teacher's score was the best of a search for students."""
    study.set_user_attr("command", "distill")
    check_study(search(*ALIKE))
    study.set_user_attr("command", "train")
    with pytest.raises(
        UserError, match=r"^the study s is of kd-train: its scores are .* of kd-distill; hydra.sweeper.st"
    ):
        check_study(search(*ALIKE))


def test_settings_of_the_sweeper_count_too(search, study):
    """``hydra.sweeper.params`` tells each job as the command does, which comes after it."""
    check_study(search(*ALIKE, params={"seed": 7}))
    with pytest.raises(UserError, match="with seed=1:"):
        check_study(search("name=x", "+data.limit=64", params={"seed": 7}))


@pytest.mark.parametrize("sweeper", [{}, {"storage": None}, {"study_name": None}, {"study_name": "other"}])
def test_a_study_begins_without_a_word(search, sweeper, caplog):
    """In a file that is not there yet, or in none."""
    caplog.set_level(logging.INFO)
    check_study(search("seed=9", **sweeper))
    assert not caplog.messages


@pytest.mark.parametrize("storage", ["sqlite:///setup.cfg/x.db", 3, {"_target_": "nowhere.X"}])
def test_a_study_that_cannot_be_kept_is_told_in_one_line(search, storage, tmp_path, monkeypatch):
    """Of a database's driver come several."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "setup.cfg").touch()
    with pytest.raises(UserError, match=r"^hydra\.sweeper\.storage is .*, where no study can be kept: "):
        check_study(search(storage=storage))


def test_any_trial_of_other_settings_counts(search, study):
    """Of a study that was mixed already the last trial may be alike."""
    trial = study.ask()
    trial.suggest_uniform("optimizer.lr", 0, 1)
    for name, value in (TRIAL | {"seed": "5"}).items():
        trial.set_user_attr(name, value)
    study.tell(trial, 0.25)
    for seed, other in ((1, 5), (5, 1)):
        with pytest.raises(UserError, match=f"has trials with seed={other}:"):
            check_study(search("name=x", f"seed={seed}", "data.limit=64"))


def test_a_study_has_its_folder(search, tmp_path):
    """Its file is under the name of the search, wherever the sweep is."""
    check_study(search("seed=1", storage=f"sqlite:///{tmp_path}/outputs/new/search.db"))
    assert (tmp_path / "outputs" / "new").is_dir()


@pytest.mark.parametrize(
    ("sweeper", "said"),
    [
        ({"n_trials": 0}, "n_trials is 0, expected at least 1"),
        ({"n_jobs": 0}, "n_jobs is 0, expected at least 1"),
        ({"direction": "minimize"}, "direction is minimize, but maximize in the study s; hydra.sweeper.study_name="),
        ({"direction": ["maximize", "minimize"]}, "direction is maximize, minimize, expected one: a run has one score"),
        ({"direction": []}, "direction is , expected one: a run has one score"),
        ({"direction": "up"}, "direction is up, expected maximize or minimize"),
    ],
)
def test_settings_of_a_search_that_cannot_be(search, study, sweeper, said):
    """Of no trials there is no best; of no jobs at once Python divides by zero."""
    with pytest.raises(UserError, match=f"^hydra.sweeper.{said}"):
        check_study(search(*ALIKE, **sweeper))


BEGINS = "the same range goes on with it, hydra.sweeper.study_name=NAME begins another"


@pytest.mark.parametrize(
    ("arguments", "differs"),
    [
        (["optimizer.lr=interval(0.0,0.5)"], "optimizer.lr from interval(0.0,1.0), this search from interval(0.0,0.5)"),
        (["++optimizer.lr=range(0,1)"], "optimizer.lr from interval(0.0,1.0), this search from range(0,1)"),
        (
            ["optimizer.lr=tag(log,interval(1e-4,1.0))"],
            "optimizer.lr from interval(0.0,1.0), this search from tag(log,interval(0.0001,1.0))",
        ),
        ([LR, "distill_loss=kl,soft_ce"], "distill_loss from no range, this search from kl,soft_ce"),
        (["x=range(0.0,1.0,0.25)"], "optimizer.lr from interval(0.0,1.0), this search from no range"),
    ],
)
def test_a_study_does_not_go_on_over_other_ranges(search, study, arguments, differs):
    """Its best trial would be the best of both."""
    with pytest.raises(UserError) as error:
        check_study(search(*ALIKE[:3], *arguments))
    assert str(error.value).startswith(f"the study s has trials with {differs}")
    assert str(error.value).endswith(BEGINS)


def test_a_range_of_trials_without_a_score_may_change(search, study):
    """As one that was mistyped; of lists Optuna keeps the first, which it says after it has begun a trial."""
    trial = optuna.create_study(study_name="none", storage=study._storage, direction="maximize").ask()
    trial.suggest_uniform("optimizer.lr", 0, 1)
    trial.suggest_categorical("scheduler", ["a", "b"])
    check_study(search("optimizer.lr=interval(0.0,9.0)", "scheduler=a,b", study_name="none"))
    with pytest.raises(UserError, match="trials with scheduler from a,b, this search from a,c:"):
        check_study(search("scheduler=a,c", LR, study_name="none"))
    with pytest.raises(UserError, match=r"trials with optimizer\.lr from interval\(0\.0,1\.0\), this search from 1,2:"):
        check_study(search("optimizer.lr=1,2", "x=interval(0,1)", study_name="none"))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["seed=1"], "a search has nothing to search: expected a setting with values A,B or an interval, as "),
        (["seed=1", "seed=range(1,3)"], r"seed is told as 1 and as range\(1,3\), expected one: a search takes the"),
        (
            ["x=interval(1e-2,1e-4)"],
            r"x is interval\(1e-2,1e-4\), from which nothing can be drawn; expected values A,B",
        ),
        (["x=tag(log,interval(0,1))"], r"x is tag\(log,interval\(0,1\)\), from which .* LOW is above 0 in tag\(log"),
        (["x=range(1,2,0)"], r"x is range\(1,2,0\), from which nothing can be drawn"),
        (["x=glob(*)"], r"x is glob\(\*\), from which nothing can be drawn"),
        (["x=interval(0,inf)"], r"x is interval\(0,inf\), from which nothing can be drawn"),
        (["x=interval(nan,1)"], r"x is interval\(nan,1\), from which nothing can be drawn"),
        (["x=shuffle(a,b)"], r"x is shuffle\(a,b\), expected without shuffle: a search draws in an order of its own"),
    ],
)
def test_a_search_has_what_it_can_draw_from(arguments, said):
    """Not so, the same run is done each time, or Optuna refuses in words of its own."""
    with pytest.raises(UserError, match=f"^{said}"):
        search_space({}, arguments)


def test_the_last_of_two_counts():
    """A value after a range is a value; so the command's takes the place of the sweeper's."""
    sweeper = {"params": {"seed": "range(1,3)", "x": "1,2"}}
    assert list(search_space(sweeper, ["seed=3"])) == ["x"]
    assert search_space({"custom_search_space": "mine.more"}, ["seed=3"]) == {}


@pytest.mark.parametrize(
    "told",
    [
        "a,b",
        "interval(0.5,1.0)",
        "range(1,3)",
        "range(1,5,2)",
        "range(0.0,1.0,0.25)",
        "tag(log,interval(0.5,1.0))",
        "tag(log,int(interval(1,4)))",
    ],
)
def test_ranges_are_told_as_they_are_asked(told):
    assert spelled(search_space({}, [f"x={told}"])["x"]) == told


def test_trials_of_which_nothing_is_told_count_as_failed(study, monkeypatch):
    """Those of this process alone: in the same study another one may search."""
    ends = []
    monkeypatch.setattr(optuna.Study, "ask", optuna.Study.ask)
    monkeypatch.setattr(atexit, "register", ends.append)
    follow_trials("train")
    own = optuna.load_study(study_name="s", storage=study._storage)
    told, _ = own.ask(), own.ask()
    own.tell(told, 0.25)
    (end,) = ends
    end()
    assert [trial.state.name for trial in study.trials] == ["COMPLETE", "FAIL", "RUNNING", "COMPLETE", "FAIL"]
    assert study.trials[3].value == 0.25
    assert own.user_attrs == {"command": "train"}


def test_a_failed_trial_is_told_in_plain_words():
    """``Return value must be float-castable. Got 'None'.``"""
    text = "Failed experiment: Return value must be float-castable. Got 'None'."
    records = [logging.makeLogRecord({"msg": said}) for said in (text, "Study name: s")]
    assert all(map(in_plain_words, records))
    assert [record.getMessage() for record in records] == ["Trial failed: its job has no score", "Study name: s"]
