"""What a constructor refuses, as one line for the user: the setting by its whole name, and the nearest one there is."""

from __future__ import annotations

import importlib
import inspect
import re
import sysconfig
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import get_object
from lightning_fabric.utilities.exceptions import MisconfigurationException

import kd_lightning
from kd_lightning.errors import UserError, did_you_mean

REFUSALS = (UserError, ValueError, TypeError, ImportError, AssertionError, MisconfigurationException)
"""How constructors refuse their arguments."""

Node = tuple[str, Mapping[str, Any]]
"""Where settings stand, and the settings."""


def refused_by(where: str, settings: Mapping[str, Any], make: Callable[..., Any], /, *args: Any, **values: Any) -> Any:
    """Return ``make(*args, **values)``.

    Args:
        where: Where the settings stand in the configuration.
        settings: Those that ``make`` goes by, to find the one that is refused.
        make: What may refuse.
        *args: For it.
        **values: For it.

    Raises:
        UserError: If it refuses them; the message begins with the place, unless it is for the user already.
    """
    try:
        return make(*args, **values)
    except (InstantiationException, *REFUSALS) as error:
        cause: BaseException = error
        while isinstance(cause, InstantiationException) and cause.__cause__ is not None:
            inside = re.search(r"^full_key: (.+)$", str(cause), flags=re.MULTILINE)
            if inside is not None:
                where, settings = _inside((where, settings), inside[1])
            cause = cause.__cause__
        if isinstance(cause, UserError):
            raise cause from error
        if isinstance(cause, REFUSALS):
            raise UserError(_refusal((where, settings), str(cause)) + _own_line(cause)) from error
        raise


def _own_line(error: BaseException) -> str:
    """Return where a user's own code was when something was raised; nothing of the code of libraries."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if _is_own(Path(frame.filename))]
    return f" ({frames[-1].filename}, line {frames[-1].lineno})" if frames else ""


def _is_own(file: Path) -> bool:
    libraries = [Path(kd_lightning.__file__).parent, *map(Path, sysconfig.get_paths().values())]
    installed = {"site-packages", "dist-packages"} & set(file.parts)
    return file.is_file() and not installed and not any(file.is_relative_to(folder) for folder in libraries)


def _inside(node: Node, path: str) -> Node:
    """Return the settings at a path below others; none if they are not there."""
    where, settings = node
    for part in path.split("."):
        found = settings.get(part)
        settings = found if isinstance(found, Mapping) else {}
    return f"{where}.{path}", settings


def _nodes(node: Node) -> Iterator[Node]:
    """Yield settings, and all below them."""
    where, settings = node
    yield node
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from _nodes((f"{where}.{name}", value))


def _refusal(node: Node, message: str) -> str:
    """Return a constructor's message with the place of the setting that it is about, in the words of settings."""
    unknown = re.search(r"(\w+)(?:\.__init__)?\(\) got an unexpected keyword argument '(\w+)'", message)
    if unknown is not None:
        made, name = unknown.groups()
        having = [found for found in _nodes(node) if name in found[1]]
        if not having:
            return f"{node[0]}: {made} has no setting '{name}'"
        where, settings = next((found for found in having if _made(found[1]) == made), having[0])
        near = did_you_mean(name, [known for known in _known(settings) if known != name])
        return f"{where}: {_made(settings) or made} has no setting '{name}'{near}"
    absent = re.search(r"Error (?:loading|locating target) '([^']+)'", message)
    if absent is not None:
        target = absent[1]
        where = next((where for where, settings in _nodes(node) if settings.get("_target_") == target), node[0])
        module, _, name = target.rpartition(".")
        near = did_you_mean(name, _names_in(module))
        return f"{where}._target_ is '{target}', which cannot be imported{near or f' ({message})'}"
    first = re.match(r"\w+", message)
    places = [where for where, settings in _nodes(node) if first is not None and first[0] in settings]
    where = next((where for where in places if where == node[0] or len(places) == 1), "")
    return f"{where}.{message}" if where else f"{node[0]}: {message}"


def _names_in(module: str) -> list[str]:
    """Return the public names of a module; none if there is no such module, or it cannot be imported."""
    try:
        return [name for name in vars(importlib.import_module(module)) if not name.startswith("_")]
    except Exception:  # a user's own module may raise anything; the message says what
        return []


def _made(settings: Mapping[str, Any]) -> str:
    """Return the name of what settings make."""
    return str(settings.get("_target_", "")).rpartition(".")[2]


def _known(settings: Mapping[str, Any]) -> list[str]:
    """Return the names of settings: those that are given, and those that what they make has by default.

    What has no default, and is not given, is what the program fills in.
    """
    names = [name for name in map(str, settings) if not name.startswith("_")]
    if "_target_" in settings:
        with suppress(TypeError, ValueError):  # of a class of C, which does not tell
            parameters = inspect.signature(get_object(settings["_target_"])).parameters.values()
            names += [parameter.name for parameter in parameters if parameter.default is not parameter.empty]
    return names
