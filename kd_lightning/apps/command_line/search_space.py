"""What a search draws from: the range of each of its settings, for Optuna and in Hydra's words."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override

from kd_lightning.apps.command_line.grids import sweeper_params
from kd_lightning.errors import UserError

EXPECTED = (
    "expected values A,B, or range(LOW,HIGH,STEP) or interval(LOW,HIGH) with LOW at most HIGH; "
    "LOW is above 0 in tag(log,interval(LOW,HIGH)), of whole numbers at least 1"
)


def search_space(sweeper: Mapping[str, Any], arguments: Sequence[str]) -> dict[str, Any]:
    """Return what a search draws each of its settings from: name -> Optuna's distribution.

    Args:
        sweeper: The sweeper's settings; ``params`` come before what the command was told.
        arguments: What it was told.

    Raises:
        UserError: If there is no range, one from which nothing can be drawn, or one after a value of the same setting:
            the sweeper takes the value.
    """
    ranges: dict[str, Any] = {}
    fixed: dict[str, str] = {}
    for one in OverridesParser.create().parse_overrides([*sweeper_params(sweeper), *arguments]):
        name, value = one.get_key_element().lstrip("+"), str(one.input_line).partition("=")[2]
        if not one.is_sweep_override():
            fixed[name] = value
            ranges.pop(name, None)
        elif name in fixed:
            raise UserError(f"{name} is told as {fixed[name]} and as {value}, expected one: a search takes the value")
        else:
            ranges[name] = _distribution(name, value, one)
    if not (ranges or has_more(sweeper)):
        raise UserError(
            "a search has nothing to search: expected a setting with values A,B or an interval, as "
            "'optimizer.lr=tag(log,interval(1e-4,1e-2))'"
        )
    return ranges


def has_more(sweeper: Mapping[str, Any]) -> bool:
    """Tell whether a search draws settings that its arguments do not tell."""
    return bool(sweeper.get("custom_search_space") or sweeper.get("search_space"))


def _distribution(name: str, value: str, override: Override) -> Any:
    from hydra_plugins.hydra_optuna_sweeper._impl import create_optuna_distribution_from_override  # slow to load

    if getattr(override.value(), "shuffle", False):
        raise UserError(f"{name} is {value}, expected without shuffle: a search draws in an order of its own")
    try:
        with warnings.catch_warnings(action="ignore"):  # the sweeper makes it again, and warns
            found = create_optuna_distribution_from_override(override)
        ends = [end for end in (getattr(found, "low", 0), getattr(found, "high", 0)) if not math.isfinite(end)]
        if ends:
            raise ValueError(f"{ends[0]} is no end")
    except (ValueError, AssertionError, ArithmeticError, NotImplementedError) as error:
        raise UserError(f"{name} is {value}, from which nothing can be drawn; {EXPECTED}") from error
    return found


def other_range(drawn: Mapping[str, Any], asked: Mapping[str, Any], scored: bool = True) -> str:
    """Return which setting a trial drew from another range than a search asks for, and both; nothing if none.

    Args:
        drawn: What the trial drew its settings from.
        asked: What the search draws from.
        scored: Whether the trial has a score; if not, only what Optuna does not take beside it counts.
    """
    drawn = {name.lstrip("+"): found for name, found in drawn.items()}
    for name in sorted(drawn.keys() | asked.keys() if scored else drawn.keys() & asked.keys()):
        old, new = drawn.get(name), asked.get(name)
        if old != new and (scored or type(old) is not type(new) or hasattr(old, "choices")):
            return f"{name} from {spelled(old)}, this search from {spelled(new)}"
    return ""


def spelled(distribution: Any) -> str:
    """Return a range as it is told; ``no range`` of none."""
    if distribution is None:
        return "no range"
    if hasattr(distribution, "choices"):
        return ",".join(map(str, distribution.choices))
    parts = distribution._asdict()
    ends, step = f"{parts['low']},{parts['high']}", parts.get("q", parts.get("step"))
    if "Log" in type(distribution).__name__:
        return f"tag(log,interval({ends}))" if step is None else f"tag(log,int(interval({ends})))"
    if step is None:
        return f"interval({ends})"
    return f"range({ends})" if step == 1 else f"range({ends},{step})"
