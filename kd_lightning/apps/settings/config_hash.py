"""Which job a configuration describes, as one hash: the same wherever it runs and wherever it writes."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from typing import Any

from kd_lightning.apps.arguments import name_of

NOT_OF_THE_RESULT = frozenset(
    {"accelerator", "devices", "num_nodes", "strategy", "log_every_n_steps", "profiler", "compile"}
)
"""Trainer settings that say where a fit computes and what it shows of it."""

LEFT_OUT = {
    "": frozenset({"paths", "logger", "callbacks", "ckpt_path", "skip_finished", "compile"}),
    "trainer": NOT_OF_THE_RESULT,
    "batching": frozenset({"eval_batch_size"}),
}
"""Group -> its settings that change no result; under no name, those of the whole configuration."""

OF_A_SEED = ("seed", "baseline")
"""Settings in which runs may differ that are seeds of one group; a baseline makes no other student."""

PLACES = ("root", "download")
"""Settings of ``data`` that say where rows lie, in which such runs may differ, too."""


def config_hash(cfg: Mapping[str, Any]) -> str:
    """Return a hash of a job's settings without those that change no result: places, loggers, devices.

    Args:
        cfg: The resolved configuration in plain containers. What its files hold does not count, nor how the folder of
            the model is told that it reads.
    """
    counted = of_the_result(cfg)
    if "run" in counted:
        counted["run"] = os.path.realpath(str(counted["run"]))
    return hashlib.sha256(json.dumps(counted, sort_keys=True).encode()).hexdigest()[:16]


def changes_result(argument: str) -> bool:
    """Tell whether a job's result depends on what an argument of its command sets.

    Example:
        >>> [changes_result(one) for one in ("seed=1", "skip_finished=true", "+teacher.trainer.devices=2")]
        [True, False, False]
        >>> [changes_result(one) for one in ("encoder@teacher.encoder=tiny", "accelerator@teacher.trainer=ddp")]
        [True, False]
    """
    group, _, package = name_of(argument).partition("@")
    parts = re.split("[./]", package or group)
    apart = group.partition("/")[0] in ("accelerator", "hydra") or parts[0] == "hydra"
    return not (apart or any(part in LEFT_OUT.get(of, ()) for of, part in zip(["", *parts], parts, strict=False)))


def of_the_result(cfg: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings on which a job's result depends, at any depth.

    Args:
        cfg: The resolved configuration in plain containers.
    """
    return {str(name): _counted(node, str(name)) for name, node in cfg.items() if name not in LEFT_OUT[""]}


def counted_settings(cfg: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings on which a job's result depends, by their dotted names, wherever its data lie.

    Args:
        cfg: The configuration in plain containers.
    """
    return {name: value for name, value in _flat("", of_the_result(cfg)) if not is_place(name)}


def _flat(prefix: str, node: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in node.items():
        if isinstance(value, dict) and value:
            yield from _flat(f"{prefix}{name}.", value)
        else:
            yield f"{prefix}{name}", value


def is_place(name: str) -> bool:
    """Tell whether a setting, by its dotted name, says where data lie."""
    *_, node, last = "", *name.split(".")
    return node == "data" and last in PLACES


def _counted(node: Any, group: str) -> Any:
    """Return the settings of a node that count; teachers and members have groups of their own."""
    if not isinstance(node, Mapping):
        return node
    apart = LEFT_OUT.get(group, frozenset())
    return {str(name): _counted(value, str(name)) for name, value in node.items() if name not in apart}
