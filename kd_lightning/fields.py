"""What fields and settings may hold, whoever wrote them: YAML brings numbers, booleans and nulls for words."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from kd_lightning.errors import UserError


def check_name(name: Any) -> None:
    """Check that a name can be that of a task, and so of a head (a submodule), of files and of logged scores.

    Raises:
        UserError: If it is no letter followed by letters, digits, ``_`` and ``-``, or an attribute of modules.
    """
    from torch import nn

    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]*", name):
        raise UserError(f"task {name}: name is {name!r}, expected a letter, then letters, digits, _ and -; rename it")
    if hasattr(nn.ModuleDict(), name):
        raise UserError(f"task {name}: name is '{name}', which PyTorch keeps for its modules; rename the task")


def is_whole(value: Any, low: int) -> bool:
    """Tell whether a value is a whole number of at least ``low``; true and false are none."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= low


def distinct_texts(where: str, value: Any) -> tuple[str, ...]:
    """Return a list of distinct texts as a tuple.

    Args:
        where: Names task and field in errors.
        value: What the field holds.

    Raises:
        UserError: If it is no list, an entry is no text, or an entry stands there twice.
    """
    if not isinstance(value, list | tuple):
        found = f"the text '{value}'" if isinstance(value, str) else value
        raise UserError(f"{where} is {found}, expected a list: [{value}]")
    for entry in value:
        if not isinstance(entry, str):
            hint = "the words 'yes' and 'no'" if isinstance(entry, bool) else f"it: '{entry}'"
            raise UserError(f"{where} has {entry!r} ({type(entry).__name__}), expected texts only; quote {hint}")
        if value.count(entry) > 1:
            raise UserError(f"{where} has '{entry}' {value.count(entry)} times, expected distinct names; take one out")
    return tuple(value)


def two_numbers(where: str, value: Any) -> tuple[float, float]:
    """Return a range as its lowest and highest number.

    Args:
        where: Names task and field in errors.
        value: What the field holds.

    Raises:
        UserError: If these are not two finite numbers, the lower first.
    """
    match value:
        case [int() | float() as low, int() | float() as high] if -math.inf < low < high < math.inf:
            return float(low), float(high)
    raise UserError(f"{where} is {value}, expected [lowest, highest], two finite numbers")


def check_splits(where: str, evaluation: Sequence[str], files: Mapping[Any, Any]) -> None:
    """Check which splits are evaluated and which files they are read from.

    Args:
        where: Names the task in errors.
        evaluation: The evaluated splits.
        files: Split -> file.

    Raises:
        UserError: If no split is evaluated, one is trained on, or a split or a path is no text.
    """
    if not evaluation:
        raise UserError(f"{where} evaluation is empty, expected the names of splits: [validation]")
    for split in ("train", "unlabelled", "synthetic"):
        if split in evaluation:
            raise UserError(f"{where} evaluation has '{split}', which is trained on; name other splits: [validation]")
    for split, path in files.items():
        if not isinstance(split, str) or not isinstance(path, str):
            raise UserError(f"{where} files has {split!r}: {path!r}, expected SPLIT: PATH, both texts")
