"""What a job or a search was told: the settings on which its result depends, and how those of two differ."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from hydra.core.override_parser.overrides_parser import OverridesParser

from kd_lightning.apps.settings.config_hash import changes_result, is_place


def told_settings(arguments: list[str]) -> dict[str, str]:
    """Return the settings that arguments fix, and on which results depend.

    Args:
        arguments: Of a job, or of a search; the last of two of a name counts, one that is drawn is not fixed.

    Example:
        >>> told_settings(["seed=1", "optimizer.lr=interval(1e-4,1e-2)", "logger=wandb", "seed=2"])
        {'seed': '2'}
    """
    parsed = OverridesParser.create().parse_overrides(arguments)
    each = {one.get_key_element(): one for one in parsed}
    return counted((name, one.get_value_element_as_str()) for name, one in each.items() if not one.is_sweep_override())


def counted(settings: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return the settings on which a result depends, as they are called whether or not they are new."""
    found = ((name.lstrip("+"), value) for name, value in settings if changes_result(name))
    return {name: value for name, value in found if not is_place(name)}


def difference(theirs: Mapping[str, str], own: Mapping[str, str]) -> str:
    """Return how the settings of an earlier job differ from one's own.

    Example:
        >>> difference({"seed": "1", "data.limit": "64"}, {"seed": "2", "encoder": "tiny"})
        'with data.limit=64 seed=1, without encoder=tiny'
    """
    other = " ".join(f"{name}={value}" for name, value in sorted(theirs.items()) if own.get(name) != value)
    more = " ".join(f"{name}={value}" for name, value in sorted(own.items()) if name not in theirs)
    return ", ".join([*([f"with {other}"] if other else []), *([f"without {more}"] if more else [])])
