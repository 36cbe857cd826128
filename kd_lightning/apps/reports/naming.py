"""Short names of groups of runs: the settings in which they differ, each told once."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

from kd_lightning.apps.results.tables import briefly

Settings = dict[str, Any]
"""Dotted name -> value."""

NOT_NAMED = ("experiment", "debug", "accelerator", "logger", "callbacks", "paths", "trainer", "data", "task")
"""Config groups whose options name nothing: what they set is told, or does not count."""

NOTHING = "-"
"""The value of a setting that a group has not."""

SIDES = ("teacher", "pretrain", "student")
"""Of whom a setting is, if it is not the run's own."""


def names_of(
    groups: Sequence[Settings], choices: Sequence[Mapping[str, str]], told: Sequence[AbstractSet[str]]
) -> list[str]:
    """Return a name for each group, of the settings in which some differ.

    A name tells what the group's runs were told, and where most groups of its recipe (the setting ``name``) have
    another value. No setting is told that follows: from the recipe, from the option that its config group was told
    (``distill_loss=soft_ce``; from that of a group that is no node, as ``topology``, any setting may), from the class
    it belongs to, or from an equal one elsewhere; what a task's rows were (``task.NAME.rows``) follows from any.

    Args:
        groups: The settings of each, by dotted names.
        choices: The options that each group of runs chose, by config group or package.
        told: What the runs of each group were told on the command line, without values.
    """
    recipes = [str(settings.get("name", "")) for settings in groups]
    if len(groups) < 2:
        return recipes
    kept = _kept(groups, choices, frozenset().union(*told))
    words = shortest(list(kept))
    own = []
    for i, recipe in enumerate(recipes):
        alike = [j for j, other in enumerate(recipes) if other == recipe]
        unlike = {name for name, values in kept.items() if not _is_usual(values, i, alike)}
        says = [name for name in kept if name == "name" or name in unlike or _was_told(name, told[i], choices)]
        own.append({words[name]: kept[name][i] for name in says})
    names = [_name(each) or recipe for each, recipe in zip(own, recipes, strict=True)]
    for i in [i for i, name in enumerate(names) if not name or names.count(name) > 1]:
        names[i] = _name(own[i], lacking=True) or recipes[i]
    return [name if names.count(name) == 1 else f"{name} ({i + 1})".strip() for i, name in enumerate(names)]


def _kept(
    groups: Sequence[Settings], choices: Sequence[Mapping[str, str]], told: AbstractSet[str]
) -> dict[str, list[str]]:
    """Return the settings in which some groups differ and that follow from no other -> the value of each group."""
    differing = _differing(choices).items()
    options = {name: values for name, values in differing if name.rpartition(".")[2] not in NOT_NAMED}
    values = _differing([_written(settings) for settings in groups])
    found = values | options
    nodes = {part for name in values for part in name.split(".")}
    of_all = {"name", *(name for name in options if name not in nodes)}

    def order(name: str) -> tuple[bool, bool, bool, bool, int, int, str]:
        rows = name.endswith(".rows")
        last = name not in options, not _was_told(name, told, choices), name.count("."), len(name), name
        return name != "name", rows, *last

    kept: dict[str, list[str]] = {}
    for name in sorted(found, key=order):
        speak = [known for known in kept if known in of_all or name.endswith(".rows") or _speaks_of(known, name)]
        brief = briefly(found[name])
        if not _is_told(name, found[name], kept) and not _follows(found[name], [kept[known] for known in speak]):
            kept[name] = [brief[value] for value in found[name]]
    return kept


def _was_told(name: str, told: AbstractSet[str], choices: Sequence[Mapping[str, str]]) -> bool:
    """Tell whether a setting was told, or the node that it is of; what an option sets was not."""
    parts = name.split(".")
    nodes = [".".join(parts[:count]) for count in range(1, len(parts))]
    return name in told or any(node in told and not any(node in one for one in choices) for node in nodes)


def _is_usual(values: Sequence[str], i: int, alike: Sequence[int]) -> bool:
    """Tell whether more than half of the groups like one have its value."""
    return 2 * sum(values[j] == values[i] for j in alike) > len(alike)


def _name(told: Mapping[str, str], lacking: bool = False) -> str:
    """Return settings in one line; if it has to tell a group from others, those that it lacks, too."""
    there = [value if word == "name" else f"{word}={value}" for word, value in told.items() if value != NOTHING]
    without = [word for word, value in told.items() if value == NOTHING]
    return " ".join(there + ([f"no {', '.join(without)}"] if lacking and without else []))


def _written(settings: Settings) -> dict[str, str]:
    """Return the settings as people write them; a class by its own name, under that of its node."""
    found = {}
    for name, value in settings.items():
        text = value if isinstance(value, str) else json.dumps(value, default=str).replace('"', "").replace(" ", "")
        is_class = name.endswith("._target_")
        found[name.removesuffix("._target_")] = text.rpartition(".")[2] if is_class else text
    return found


def _differing(each: Sequence[Mapping[str, str]]) -> dict[str, list[str]]:
    """Return name -> the value of each group, ``NOTHING`` where it has none, of those that are not the same in all."""
    names = dict.fromkeys(name for one in each for name in one)
    found = {name: [one.get(name, NOTHING) for one in each] for name in names}
    return {name: values for name, values in found.items() if len(set(values)) > 1}


def _is_told(name: str, values: Sequence[str], kept: Mapping[str, Sequence[str]]) -> bool:
    """Tell whether an equal setting is kept, as that of the student where the teacher's is the same."""
    last = name.rpartition(".")[2]
    return any(known.rpartition(".")[2] == last and of == values for known, of in kept.items())


def _follows(values: Sequence[str], above: Sequence[Sequence[str]]) -> bool:
    """Tell whether groups that are told the same of ``above`` have the same value."""
    told = list(zip(*above, strict=True))
    return bool(above) and len(set(told)) == len(set(zip(told, values, strict=True)))


def _speaks_of(known: str, name: str) -> bool:
    """Tell whether a setting is one of the node that an option or a class is of, wherever that stands."""
    return _side(known) == _side(name) and known.rpartition(".")[2] in name.split(".")


def _side(name: str) -> str:
    first = name.partition(".")[0]
    return first if first in SIDES else ""


def shortest(names: Sequence[str]) -> dict[str, str]:
    """Return dotted name -> its last words, as few as tell it from the others; whose it is stays.

    Example:
        >>> shortest(["optimizer.lr", "system.gold_weight"])
        {'optimizer.lr': 'lr', 'system.gold_weight': 'gold_weight'}
        >>> shortest(["optimizer.lr", "teacher.optimizer.lr"])
        {'optimizer.lr': 'lr', 'teacher.optimizer.lr': 'teacher.lr'}
        >>> shortest(["pretrain.data.limit", "pretrain.batching.limit"])
        {'pretrain.data.limit': 'pretrain.data.limit', 'pretrain.batching.limit': 'pretrain.batching.limit'}
    """
    found = {}
    for name in names:
        side = f"{_side(name)}." if _side(name) not in ("", name) else ""
        rivals = [f".{other.removeprefix(side)}" for other in names if other != name and _side(other) == _side(name)]
        parts = name.removeprefix(side).split(".")
        tails = [".".join(parts[-count:]) for count in range(1, len(parts) + 1)]
        unlike = [tail for tail in tails if not any(rival.endswith(f".{tail}") for rival in rivals)]
        found[name] = side + unlike[0] if unlike else name
    return found
