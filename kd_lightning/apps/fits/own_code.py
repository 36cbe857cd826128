"""A user's own code, by content: what a configuration names and no library of ours has."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hydra.utils import get_object

from kd_lightning.apps.fits.refusals import refused_by
from kd_lightning.files import file_hash

TRUSTED = {"kd_lightning", "torch", "pytorch_lightning", "torchmetrics", "transformers"}
"""Packages whose code is known by its version."""


def own_code(node: Any) -> dict[str, str]:
    """Return ``_target_`` -> hash of its source file, for each one that is of no library of ours: a user's own code.

    Args:
        node: A configuration, searched at every depth.

    Raises:
        UserError: If a ``_target_`` cannot be imported.
    """
    if isinstance(node, Mapping):
        inside = [own_code(value) for value in node.values()]
        named = node.get("_target_")
        if isinstance(named, str) and named.partition(".")[0] not in TRUSTED | sys.stdlib_module_names:
            module = sys.modules.get(getattr(refused_by("_target_", {}, get_object, named), "__module__", ""))
            source = getattr(module, "__file__", None)
            inside.append({named: file_hash(Path(source))} if source else {})
    else:
        inside = [own_code(value) for value in node] if isinstance(node, list) else []
    return {name: code for found in inside for name, code in found.items()}
