"""A search goes on with its study: under the settings that its trials had, and not without a word."""

from __future__ import annotations

import atexit
import logging
import re
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from itertools import islice, product
from pathlib import Path
from typing import Any

from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from hydra.utils import instantiate
from omegaconf import DictConfig, ListConfig

from kd_lightning.apps.arguments import as_told, told_by
from kd_lightning.apps.command_line.grids import sweeper_params
from kd_lightning.apps.command_line.occupied import composed_settings
from kd_lightning.apps.command_line.one_line import no_option
from kd_lightning.apps.command_line.search_space import has_more, other_range, search_space
from kd_lightning.apps.command_line.told import counted, difference, told_settings
from kd_lightning.errors import UserError, first_line
from kd_lightning.files import IN_A_FILE

OTHERS = {"PRUNED": "pruned", "FAIL": "failed", "WAITING": "waiting", "RUNNING": "running or killed"}
"""States of trials that have no score -> what we call them."""

MANY = 16
"""From so many combinations of options on it is not looked whether a setting is the default of each."""

COMMAND = "command"
"""The attribute of a study that says whose trials it has."""

log = logging.getLogger(__name__)


def check_study(config: DictConfig) -> None:
    """Check that a search can go on with its study, and say so if it does.

    Args:
        config: Of the launching command, with Hydra's part.

    Raises:
        UserError: If the study's trials had other settings, or drew theirs from other ranges: their scores are not to
            be compared.
    """
    sweeper = config.hydra.sweeper
    for name in ("n_trials", "n_jobs"):
        if sweeper.get(name, 1) < 1:
            raise UserError(f"hydra.sweeper.{name} is {sweeper[name]}, expected at least 1")
    directions = _directions(sweeper.get("direction", "maximize"))
    asked = search_space(sweeper, told_by(config.hydra))
    _check_options(config, asked)
    if not (sweeper.get("storage") and sweeper.get("study_name")):
        return  # it ends with the command
    study = _study(sweeper)
    trials = study.trials if study else []
    own = config.hydra.job.config_name
    if study and (command := study.user_attrs.get(COMMAND, own)) != own:
        raise UserError(
            f"the study {sweeper.study_name} is of kd-{command}: its scores are not to be compared with those of "
            f"kd-{own}; hydra.sweeper.study_name=NAME begins another"
        )
    if study and (theirs := [one.name for one in study.directions]) != directions:
        raise UserError(
            f"hydra.sweeper.direction is {', '.join(directions).lower()}, but {', '.join(theirs).lower()} in the study "
            f"{sweeper.study_name}; hydra.sweeper.study_name=NAME begins another"
        )
    _check_trials(trials, config, asked)
    if trials:
        log.info("Study goes on: %s", before(Counter(trial.state.name for trial in trials)))


def _check_options(config: DictConfig, asked: Mapping[str, Any]) -> None:
    """Check that the options are there which a search chooses from: their study would go on with one that is not.

    Those of folders within a group are not looked at.
    """
    for name, found in asked.items():
        group, known = name.partition("@")[0], _options(config, name)
        parts = (part for one in getattr(found, "choices", ()) for part in str(one).strip("[]").split(","))
        named = (part.strip() for part in parts if re.fullmatch(r"[\w-]+", part.strip()) and part.strip() != "null")
        if known and (other := next((one for one in named if one not in known), "")):
            raise UserError(no_option(group, other, known, [f"{name}={other}"]))


def _check_trials(trials: list[Any], config: DictConfig, asked: Mapping[str, Any]) -> None:
    """Check that the trials of a study had the settings of a search, and drew from its ranges."""
    sweeper = config.hydra.sweeper
    finished = [trial for trial in trials if trial.state.name == "COMPLETE"]
    if finished:
        own = told_settings([*sweeper_params(sweeper), *told_by(config.hydra)])
        each = {tuple(sorted(counted(trial.user_attrs.items()).items())): None for trial in finished}
        others = (theirs for theirs in map(dict, each) if theirs != own and not _is_same(config, asked, theirs, own))
        if differs := next((difference(theirs, own) for theirs in others), ""):
            raise UserError(
                f"the study {sweeper.study_name} has trials {differs}: its scores are not to be compared with those "
                "of this search; hydra.sweeper.study_name=NAME begins another"
            )
    for trial in trials:
        scored = trial.state.name == "COMPLETE" and not has_more(sweeper)
        if differs := other_range(trial.distributions, asked, scored):
            raise UserError(
                f"the study {sweeper.study_name} has trials with {differs}: the same range goes on with it, "
                "hydra.sweeper.study_name=NAME begins another"
            )


def _is_same(config: DictConfig, asked: Mapping[str, Any], theirs: Mapping[str, str], own: Mapping[str, str]) -> bool:
    """Tell whether settings are the same that are told otherwise: one of them may be told what it is by default.

    Args:
        config: Of the launching command, with Hydra's part.
        asked: What is drawn, and from what; of an option the defaults of others may follow.
        theirs: Settings that trials were told.
        own: Those of the search.
    """
    loader = GlobalHydra.instance().config_loader()
    of_groups = {name: getattr(found, "choices", ()) for name, found in asked.items() if _options(config, name)}
    drawn = [*islice(product(*([f"{name}={one}" for one in each] for name, each in of_groups.items())), MANY)]
    if not drawn or len(drawn) == MANY:
        return False
    told = [[f"{'' if _options(config, n) else '++'}{n}={v}" for n, v in one.items()] for one in (theirs, own)]
    try:
        for options in drawn:
            first, second = (composed_settings(loader.load_sweep_config(config, [*options, *one])) for one in told)
            if first != second:
                return False
    except HydraException:
        return False
    return True


def _options(config: DictConfig, name: str) -> list[str]:
    """Return the options of a config group; of what is a setting there are none."""
    told = as_told(config.hydra.overrides.hydra)
    return (
        GlobalHydra.instance()
        .config_loader()
        .get_group_options(name.partition("@")[0], config_name=config.hydra.job.config_name, overrides=told)
    )


def before(states: Mapping[str, int]) -> str:
    """Return how many trials a study has, and how they stand.

    Example:
        >>> before({"COMPLETE": 4, "FAIL": 1, "RUNNING": 2})
        '7 trials before, 4 of them finished, 1 failed, 2 running or killed'
    """
    more = [f"{states[state]} {how}" for state, how in OTHERS.items() if states.get(state)]
    return ", ".join([f"{sum(states.values())} trials before, {states.get('COMPLETE', 0)} of them finished", *more])


def follow_trials(command: str) -> Callable[[], None]:
    """Note in a study whose it is, and let trials of this process that it has not told of at its end count as failed.

    Args:
        command: Of the search.

    Returns:
        What lets them count so, for an end at which Python calls nothing.
    """
    import optuna

    begun: list[tuple[optuna.Study, optuna.Trial]] = []
    ask = optuna.Study.ask

    def noted(study: optuna.Study, fixed_distributions: Any = None) -> optuna.Trial:
        trial = ask(study, fixed_distributions)
        if COMMAND not in study.user_attrs:
            study.set_user_attr(COMMAND, command)
        begun.append((study, trial))
        return trial

    def fail() -> None:
        for study, trial in begun:
            with suppress(Exception):  # of those that were told, and of a database's driver
                study.tell(trial, state=optuna.trial.TrialState.FAIL)

    optuna.Study.ask = noted  # type: ignore[method-assign,assignment]  # neither Optuna nor its sweeper has a hook for it
    atexit.register(fail)
    return fail


def _directions(told: Any) -> list[str]:
    """Return the way in which scores are better, as Optuna calls it.

    Raises:
        UserError: If it is another, or not one.
    """
    ways = [str(getattr(one, "name", one)).upper() for one in (told if isinstance(told, ListConfig) else [told])]
    if other := [way for way in ways if way not in ("MINIMIZE", "MAXIMIZE")]:
        raise UserError(f"hydra.sweeper.direction is {other[0].lower()}, expected maximize or minimize")
    if len(ways) != 1:
        raise UserError(f"hydra.sweeper.direction is {', '.join(ways).lower()}, expected one: a run has one score")
    return ways


def _study(sweeper: DictConfig) -> Any:
    """Return the study of a search, None if it begins."""
    import optuna  # of an extra, and slow to load

    storage = sweeper.storage
    try:
        if str(storage).startswith(IN_A_FILE):
            Path(str(storage).removeprefix(IN_A_FILE)).parent.mkdir(parents=True, exist_ok=True)
        storage = instantiate(storage) if isinstance(storage, DictConfig) else storage
        return optuna.load_study(study_name=sweeper.study_name, storage=storage)
    except KeyError:  # it begins
        return None
    except Exception as error:  # of a database's driver
        raise UserError(
            f"hydra.sweeper.storage is {storage}, where no study can be kept: {first_line(error)}"
        ) from error
