"""A search goes on with its study: under the settings that its trials had, and not without a word."""

from __future__ import annotations

import atexit
import logging
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.utils import instantiate
from omegaconf import DictConfig

from kd_lightning.apps.command_line.grids import sweeper_params
from kd_lightning.apps.command_line.search_space import has_more, other_range, search_space
from kd_lightning.apps.settings.config_hash import changes_result, is_place
from kd_lightning.errors import UserError, first_line
from kd_lightning.files import IN_A_FILE

OTHERS = {"PRUNED": "pruned", "FAIL": "failed", "WAITING": "waiting", "RUNNING": "running or killed"}
"""States of trials that have no score -> what we call them."""

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
    if sweeper.n_trials < 1:
        raise UserError(f"hydra.sweeper.n_trials is {sweeper.n_trials}, expected at least 1")
    asked = search_space(sweeper, config.hydra.overrides.task)
    if not (sweeper.get("storage") and sweeper.get("study_name")):
        return  # it ends with the command
    trials = _trials(sweeper)
    finished = [trial for trial in trials if trial.state.name == "COMPLETE"]
    if finished:
        own = fixed_settings([*sweeper_params(sweeper), *config.hydra.overrides.task])
        each = [_counted(trial.user_attrs.items()) for trial in finished]
        if differs := next(filter(None, (difference(theirs, own) for theirs in each)), ""):
            raise UserError(
                f"the study {sweeper.study_name} has trials {differs}: its scores are not to be compared with those "
                "of this search; hydra.sweeper.study_name=NAME begins another"
            )
    for trial in trials:
        scored = trial in finished and not has_more(sweeper)
        if differs := other_range(trial.distributions, asked, scored):
            raise UserError(
                f"the study {sweeper.study_name} has trials with {differs}: the same range goes on with it, "
                "hydra.sweeper.study_name=NAME begins another"
            )
    if trials:
        log.info("Study goes on: %s", before(Counter(trial.state.name for trial in trials)))
    fail_what_is_not_told()


def fixed_settings(arguments: list[str]) -> dict[str, str]:
    """Return the settings that all trials of a search share, and on which their results depend.

    Args:
        arguments: Of the search; the last of two of a name counts.

    Example:
        >>> fixed_settings(["seed=1", "optimizer.lr=interval(1e-4,1e-2)", "logger=wandb", "seed=2"])
        {'seed': '2'}
    """
    parsed = OverridesParser.create().parse_overrides(arguments)
    each = {one.get_key_element(): one for one in parsed}
    return _counted((name, one.get_value_element_as_str()) for name, one in each.items() if not one.is_sweep_override())


def _counted(settings: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return the settings on which a result depends, as they are called whether or not they are new."""
    found = ((name.lstrip("+"), value) for name, value in settings if changes_result(name))
    return {name: value for name, value in found if not is_place(name)}


def difference(theirs: Mapping[str, str], own: Mapping[str, str]) -> str:
    """Return how the settings of earlier trials differ from those of a search.

    Example:
        >>> difference({"seed": "1", "data.limit": "64"}, {"seed": "2", "encoder": "tiny"})
        'with data.limit=64 seed=1, without encoder=tiny'
    """
    other = " ".join(f"{name}={value}" for name, value in sorted(theirs.items()) if own.get(name) != value)
    more = " ".join(f"{name}={value}" for name, value in sorted(own.items()) if name not in theirs)
    return ", ".join([*([f"with {other}"] if other else []), *([f"without {more}"] if more else [])])


def before(states: Mapping[str, int]) -> str:
    """Return how many trials a study has, and how they stand.

    Example:
        >>> before({"COMPLETE": 4, "FAIL": 1, "RUNNING": 2})
        '7 trials before, 4 of them finished, 1 failed, 2 running or killed'
    """
    more = [f"{states[state]} {how}" for state, how in OTHERS.items() if states.get(state)]
    return ", ".join([f"{sum(states.values())} trials before, {states.get('COMPLETE', 0)} of them finished", *more])


def fail_what_is_not_told() -> None:
    """Let the trials that this process has begun count as failed at its end, if it has not told how they ended."""
    import optuna

    begun: list[tuple[optuna.Study, optuna.Trial]] = []
    ask = optuna.Study.ask

    def noted(study: optuna.Study, fixed_distributions: Any = None) -> optuna.Trial:
        trial = ask(study, fixed_distributions)
        begun.append((study, trial))
        return trial

    def fail() -> None:
        for study, trial in begun:
            with suppress(Exception):  # of those that were told, and of a database's driver
                study.tell(trial, state=optuna.trial.TrialState.FAIL)

    optuna.Study.ask = noted  # type: ignore[method-assign,assignment]  # neither Optuna nor its sweeper has a hook for it
    atexit.register(fail)


def _trials(sweeper: DictConfig) -> list[Any]:
    """Return the trials of a study that have begun."""
    import optuna  # of an extra, and slow to load

    storage = sweeper.storage
    try:
        if str(storage).startswith(IN_A_FILE):
            Path(str(storage).removeprefix(IN_A_FILE)).parent.mkdir(parents=True, exist_ok=True)
        storage = instantiate(storage) if isinstance(storage, DictConfig) else storage
        return list(optuna.load_study(study_name=sweeper.study_name, storage=storage).trials)
    except KeyError:  # it begins
        return []
    except Exception as error:  # of a database's driver
        raise UserError(
            f"hydra.sweeper.storage is {storage}, where no study can be kept: {first_line(error)}"
        ) from error
