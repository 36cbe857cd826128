"""What a fit's result depends on, as one hash: the name under which the store keeps it."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from kd_lightning import __version__
from kd_lightning.apps.fits.build import own_task_heads
from kd_lightning.apps.fits.inputs import FitInputs
from kd_lightning.apps.fits.own_code import own_code
from kd_lightning.apps.fits.trainer import choose_precision
from kd_lightning.apps.settings.config import Config
from kd_lightning.apps.settings.config_hash import NOT_OF_THE_RESULT
from kd_lightning.data import TeacherLogits

SoftTargetMap = Mapping[tuple[str, str], TeacherLogits]
"""(task, split) -> the soft targets of its teacher."""

FORMAT = 5
"""Version of what a fit trains and keeps; raise it when weights get other names, or the same settings other results."""

IDENTITY = "identity"
"""File of a run's folder that holds it."""

NOT_IN_THE_ADDRESS = NOT_OF_THE_RESULT | {"precision"}
"""Trainer settings that do not belong to a fit's identity; the chosen precision enters by itself."""

PARTS = ("system", "optimizer", "scheduler", "task_sampler")
"""Groups whose settings a fit's result depends on as they stand."""

LIBRARIES = ("torch", "pytorch-lightning", "transformers", "tokenizers", "torchmetrics", "hydra-core", "numpy")


def identity_in(folder: Path) -> str:
    """Return the identity of the fit that is, or was, trained in a folder; nothing if none was."""
    try:
        return (folder / IDENTITY).read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""


def versions() -> dict[str, str]:
    """Return the versions of Python, of this package and of the libraries that results depend on."""
    tagger = ("nltk",) if find_spec("nltk") else ()  # an extra
    found = {name: version(name) for name in (*LIBRARIES, *tagger)}
    return {"python": sys.version.split()[0], "kd_lightning": __version__, **found}


def content_address(cfg: Config, inputs: FitInputs, soft_targets: SoftTargetMap, more: Mapping[str, Any]) -> str:
    """Return the hash of all that a fit's result depends on, and of no path.

    Args:
        cfg: The fit's configuration.
        inputs: Its tasks, rows and encoder.
        soft_targets: The teachers' logits.
        more: What else it depends on: the trained model that the fit goes on from.
    """
    batching = {name: value for name, value in cfg["batching"].items() if name != "eval_batch_size"}
    callbacks = [node for node in (cfg["callbacks"] or {}).values() if node]
    value = {
        "encoder": [cfg["encoder"]["_target_"], inputs.spec.fingerprint()],
        "tasks": [{**asdict(task), "files": None} for task in inputs.tasks],
        "rows": {f"{task}/{split}": rows.fingerprint for (task, split), rows in inputs.rows.items()},
        "soft_targets": {f"{task}/{split}": found.identity for (task, split), found in soft_targets.items()},
        "trainer": {name: value for name, value in cfg["trainer"].items() if name not in NOT_IN_THE_ADDRESS},
        "callbacks": [node for node in callbacks if not node["_target_"].endswith(".ResumeCheckpoint")],
        "precision": choose_precision(cfg),
        "batching": {**batching, "epoch_rows": cfg["batching"]["epoch_rows"] or inputs.examples},
        "more": dict(more),
        "version": [__version__, FORMAT],
        "own_code": own_code([cfg[name] for name in (*PARTS, "encoder")] + callbacks),
        **{name: cfg[name] for name in (*PARTS, "seed")},
        "system": own_task_heads(cfg["system"], [*cfg["task"]]),
    }
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]
