"""Short names of groups of runs: the settings in which they differ, each told once."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

Settings = dict[str, Any]
"""Dotted name -> value."""

NOT_NAMED = ("experiment", "debug", "accelerator", "logger", "callbacks", "paths", "trainer", "data", "task")
"""Config groups whose options name nothing: what they set is told, or does not count."""


SIDES = ("teacher", "pretrain", "student")
"""Of whom a setting is, if it is not the run's own."""


def names_of(groups: Sequence[Settings], choices: Sequence[Mapping[str, str]]) -> list[str]:
    """Return a name for each group: of the settings in which some differ, those that the others do not follow from.

    A setting follows from the experiment's name, from the option that its config group was told
    (``distill_loss=soft_ce``; from that of a group that is no node, as ``topology``, any setting may), from the class
    it belongs to, or from an equal one elsewhere; what a task's rows were (``task.NAME.rows``) follows from any.

    Args:
        groups: The settings of each, by dotted names.
        choices: The options that each group of runs chose, by config group or package.
    """
    if len(groups) < 2:
        return [str(settings.get("name", "")) for settings in groups]
    differing = _differing(choices).items()
    options = {name: values for name, values in differing if name.rpartition(".")[2] not in NOT_NAMED}
    values = _differing([_written(settings) for settings in groups])
    found = values | options
    nodes = {part for name in values for part in name.split(".")}
    of_all = {"name", *(name for name in options if name not in nodes)}

    def order(name: str) -> tuple[bool, bool, bool, int, int, str]:
        return name != "name", name.endswith(".rows"), name not in options, name.count("."), len(name), name

    kept: dict[str, list[str]] = {}
    for name in sorted(found, key=order):
        speak = [known for known in kept if known in of_all or name.endswith(".rows") or _speaks_of(known, name)]
        if not _is_told(name, found[name], kept) and not _follows(found[name], [kept[known] for known in speak]):
            kept[name] = found[name]
    words = shortest(list(kept))
    names = [_name({words[name]: values[i] for name, values in kept.items()}) for i in range(len(groups))]
    return [name if names.count(name) == 1 else f"{name} ({i + 1})" for i, name in enumerate(names)]


def _name(told: Mapping[str, str]) -> str:
    """Return the settings that a group has, in one line; of one that has none of them, that."""
    there = [value if word == "name" else f"{word}={value}" for word, value in told.items() if value != "-"]
    return " ".join(there) or f"no {', '.join(told)}"


def _written(settings: Settings) -> dict[str, str]:
    """Return the settings as people write them; a class by its own name, under that of its node."""
    found = {}
    for name, value in settings.items():
        text = value if isinstance(value, str) else json.dumps(value, default=str).replace('"', "").replace(" ", "")
        is_class = name.endswith("._target_")
        found[name.removesuffix("._target_")] = text.rpartition(".")[2] if is_class else text
    return found


def _differing(each: Sequence[Mapping[str, str]]) -> dict[str, list[str]]:
    """Return name -> the value of each group, ``-`` where it has none, of those that are not the same in all."""
    names = dict.fromkeys(name for one in each for name in one)
    found = {name: [one.get(name, "-") for one in each] for name in names}
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
    """
    found = {}
    for name in names:
        side = f"{_side(name)}." if _side(name) not in ("", name) else ""
        parts = name.removeprefix(side).split(".")
        tails = [side + ".".join(parts[-count:]) for count in range(1, len(parts) + 1)]
        rivals = [other for other in names if other != name and _side(other) == _side(name)]
        unlike = [tail for tail in tails if not any(f".{one}".endswith(f".{tail}") for one in rivals)]
        found[name] = unlike[0] if unlike else name
    return found
