"""The jobs of a sweep over a grid, as Hydra's own sweeper makes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from kd_lightning.apps.arguments import name_of
from kd_lightning.apps.command_line.going_on import is_search


def jobs_of_grid(sweeper: Mapping[str, Any], overrides: list[str]) -> list[list[str]] | None:
    """Return what each job of a sweep is told, in their order; None where it follows from more than these.

    ``glob(*)`` is known to the command that launches, which has the config groups.

    Args:
        sweeper: The sweeper's settings; ``params`` come before what the command was told.
        overrides: What it was told.

    Example:
        >>> jobs_of_grid({}, ["task=[rte]", "seed=1,2"])
        [['task=[rte]', 'seed=1'], ['task=[rte]', 'seed=2']]
        >>> jobs_of_grid({"n_trials": 20}, ["seed=1,2"])
        >>> jobs_of_grid({}, ["lr=interval(0,1)"])
    """
    if is_search(sweeper) or not str(sweeper.get("_target_", "BasicSweeper")).endswith("BasicSweeper"):
        return None  # jobs of a search follow from results
    running = GlobalHydra.instance()
    loader = running.config_loader() if running.is_initialized() else None
    try:
        parsed = OverridesParser.create(loader).parse_overrides([*sweeper_params(sweeper), *overrides])
        (jobs,) = BasicSweeper.split_arguments(parsed, max_batch_size=None)
    except (HydraException, AssertionError, ValueError):  # interval(0,1) needs a sampler, glob(*) the config groups
        return None
    return [list(job) for job in jobs]


def swept(sweeper: Mapping[str, Any], overrides: list[str]) -> list[str]:
    """Return the names of the settings, and config groups, that differ between the jobs of a sweep or a search.

    Example:
        >>> swept({"params": {"seed": "1,2"}}, ["lr=interval(0,1)", "name=x"])
        ['seed', 'lr']
    """
    try:
        parsed = OverridesParser.create().parse_overrides([*sweeper_params(sweeper), *overrides])
    except HydraException:  # it is told when jobs are made of it
        return []
    return list(dict.fromkeys(name_of(one.get_key_element()) for one in parsed if one.is_sweep_override()))


def sweeper_params(sweeper: Mapping[str, Any]) -> list[str]:
    """Return what a sweeper's own settings tell each job, as arguments."""
    return [f"{name}={value}" for name, value in (sweeper.get("params") or {}).items()]
