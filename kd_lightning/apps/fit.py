"""One fit of one system: from a resolved configuration to a folder that holds the trained model and its scores."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import sys
import time
import warnings
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from omegaconf import OmegaConf
from safetensors.torch import save_file
from transformers.utils.logging import disable_progress_bar

from kd_lightning import __version__
from kd_lightning.apps.build import Config, Materials, build, build_system, choose_precision, parameter_count
from kd_lightning.callbacks import resume_path
from kd_lightning.data import MultiTaskData, Part, SoftTargets
from kd_lightning.data.folders import locked, read_json, write_json, write_text
from kd_lightning.encoders.vocabulary import tokenizer_fingerprint
from kd_lightning.errors import UserError
from kd_lightning.systems import NLUSystem

log = logging.getLogger(__name__)

SoftTargetMap = Mapping[tuple[str, str], SoftTargets]
"""(task, split) -> the soft targets of its teacher."""

NOT_OF_THE_RESULT = {"accelerator", "devices", "strategy", "log_every_n_steps", "profiler", "precision"}
"""Trainer settings that do not belong to a fit's identity; the chosen precision enters by itself."""

LIBRARIES = ("torch", "pytorch-lightning", "transformers", "tokenizers", "torchmetrics", "hydra-core", "numpy")


def versions() -> dict[str, str]:
    """Return the versions of Python, of this package and of the libraries that results depend on."""
    found = {name: version(name) for name in LIBRARIES}
    return {"python": sys.version.split()[0], "kd_lightning": __version__, **found}


def identity(cfg: Config, materials: Materials, soft_targets: SoftTargetMap) -> str:
    """Return the content address of a fit: a hash of all that its result depends on, and of no path."""
    value = {
        "encoder": materials.spec.fingerprint(),
        "tasks": [{**asdict(task), "files": None} for task in materials.tasks],
        "rows": {
            f"{t}/{s}": r.fingerprint for (t, s), r in {**materials.training_rows, **materials.evaluation_rows}.items()
        },
        "soft_targets": {f"{t}/{s}": found.identity for (t, s), found in soft_targets.items()},
        "trainer": {k: v for k, v in cfg["trainer"].items() if k not in NOT_OF_THE_RESULT},
        "precision": choose_precision(cfg),
        "version": __version__,
        **{name: cfg[name] for name in ("system", "optimizer", "scheduler", "task_sampler", "batching", "seed")},
    }
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def finished(folder: Path) -> Config | None:
    """Return the result of the fit in the folder (``fit.json``), or None if it has not finished."""
    return read_json(folder / "fit.json") if (folder / "fit.json").is_file() else None


def stored_fit(cfg: Config, stage: str, soft_targets: SoftTargetMap) -> tuple[Path, bool]:
    """Return the folder of a fit in the store, and whether it had to be trained (or trained to the end) now.

    Folders are named by content, so any run with the same settings and data finds them; a lock keeps two runs from
    training the same model at once, and an interrupted fit continues from its checkpoint.

    Args:
        cfg: The fit's configuration.
        stage: What the fit is for, in messages and in the folder's name: ``teacher rte``, ``baseline``, ...
        soft_targets: The teachers' logits, empty for a fit on gold labels.
    """
    materials = Materials(cfg)
    address = identity(cfg, materials, soft_targets)
    folder = Path(cfg["paths"]["store"]) / "fits" / f"{stage.replace(' ', '-')}-{address}"
    with locked(folder):
        if finished(folder) is not None:
            log.info("%s: already trained, %s", stage, folder)
            return folder, False
        checkpoint = resume_path(folder)
        run_fit(cfg, folder, stage, materials, soft_targets, checkpoint if checkpoint.is_file() else None)
        shutil.rmtree(checkpoint.parent, ignore_errors=True)  # the model stays, its optimiser's state goes
    return folder, True


def build_data(cfg: Config, materials: Materials, soft_targets: SoftTargetMap) -> MultiTaskData:
    """Return the tokenised data of a fit, joined with its soft targets."""
    by_name = {task.name: task for task in materials.tasks}
    train = [
        Part(by_name[name], split, materials.tokens(by_name[name], split, rows), soft_targets.get((name, split)))
        for (name, split), rows in materials.training_rows.items()
    ]
    evaluation = [
        Part(by_name[name], split, materials.tokens(by_name[name], split, rows))
        for (name, split), rows in materials.evaluation_rows.items()
    ]
    settings = {k: cfg["batching"][k] for k in ("batch_size", "eval_batch_size", "window", "epoch_rows")}
    return MultiTaskData(
        train=train,
        evaluation=evaluation,
        task_sampler=build(cfg["task_sampler"]),
        seed=cfg["seed"],
        pad_id=materials.tokenizer.pad_token_id,
        **settings,
    )


def build_trainer(cfg: Config, folder: Path, stage: str, **settings: Any) -> pl.Trainer:
    """Return Lightning's trainer for a stage; its root folder is the stage's own, and logs go there."""
    on_terminal = sys.stderr.isatty()
    callbacks = [build(node) for node in cfg["callbacks"].values() if node]
    if on_terminal:
        callbacks.append(pl.callbacks.RichProgressBar(refresh_rate=10, leave=False))
    trainer: pl.Trainer = build(
        cfg["trainer"],
        precision=choose_precision(cfg),
        default_root_dir=str(folder),
        callbacks=callbacks,
        logger=[build(node, save_dir=str(folder)) for node in cfg["logger"].values() if node],
        enable_checkpointing=False,
        enable_progress_bar=on_terminal,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        **settings,
    )
    return trainer


def silence_libraries() -> None:
    """Drop advice that does not hold here (batches are built without loader processes on purpose), and foreign bars."""
    disable_progress_bar()
    for name in ("pytorch_lightning", "lightning_fabric", "pytorch_lightning.utilities.rank_zero"):
        logging.getLogger(name).setLevel(logging.ERROR)
    for message in (
        ".*does not have many workers.*",
        ".*`srun` command is available.*",
        ".*smaller than the logging interval.*",
        ".*GPU available but not used.*",
        ".*overridden `transfer_batch_to_device`.*",
        ".*isinstance.treespec, LeafSpec.*",
        ".*will save all targets and predictions in the buffer.*",
    ):
        warnings.filterwarnings("ignore", message=message)


def run_fit(
    cfg: Config,
    folder: Path,
    stage: str,
    materials: Materials,
    soft_targets: SoftTargetMap,
    checkpoint: Path | None = None,
) -> Config:
    """Train and evaluate a system; write the model, its configuration and its scores into the folder.

    Args:
        cfg: The fit's configuration.
        folder: Of this fit alone; it gets ``config.yaml``, ``encoder/`` (a Hugging Face folder with the tokenizer),
            ``heads.safetensors``, ``metrics.csv``, ``checkpoints/`` and, at the very end, ``fit.json``.
        stage: What the fit is for, in messages.
        materials: Tasks, rows and tokens.
        soft_targets: The teachers' logits.
        checkpoint: Where to continue; None starts anew. Never left to Lightning, which under SLURM would take up any
            ``hpc_ckpt_*.ckpt`` that lies in the folder.

    Returns:
        The content of ``fit.json``: scores, steps, seconds, parameters, data and versions.
    """
    silence_libraries()
    started = time.perf_counter()
    data = build_data(cfg, materials, soft_targets)
    pl.seed_everything(cfg["seed"], verbose=False)
    system = build_system(cfg, materials.tasks, materials.spec, materials.tokenizer)
    system.train()  # pre-trained models come in evaluation mode, and Lightning leaves it so
    folder.mkdir(parents=True, exist_ok=True)
    write_config(folder, cfg)
    address = identity(cfg, materials, soft_targets)
    write_text(folder / "identity", address)
    trainer = build_trainer(cfg, folder, stage)
    data.trainer = trainer
    rows = sum(len(part.tokens) for part in data.train)
    how = f"{rows:,} examples, {len(data.train_dataloader()):,} steps an epoch, {trainer.precision}"
    log.info("%s: %s%s", stage, how, f", from {checkpoint}" if checkpoint else "")
    for stale in folder.glob("hpc_ckpt_*.ckpt"):
        stale.unlink()
    try:
        resume = None if checkpoint is None else str(checkpoint)
        trainer.fit(system, datamodule=data, ckpt_path=resume, weights_only=True)
    finally:
        if "wandb" in sys.modules:
            sys.modules["wandb"].finish()
    if trainer.interrupted:
        raise KeyboardInterrupt
    if not scores_of(trainer.callback_metrics) or (trainer.max_epochs or 1) % (trainer.check_val_every_n_epoch or 1):
        trainer.validate(system, datamodule=data, verbose=False)
    result: Config = {
        "stage": stage,
        "identity": address,
        "scores": scores_of(trainer.callback_metrics),
        "parameters": parameter_count(system.state_dict()),
        "parameters_without_embeddings": parameter_count(system.state_dict(), embeddings=False),
        "seconds": round(time.perf_counter() - started, 1),
        "steps": len(data.train_dataloader()) * (trainer.max_epochs or 1),
        "tokenizer": tokenizer_fingerprint(materials.tokenizer),
        "data": data_facts(materials),
        "versions": versions(),
    }
    if trainer.is_global_zero:
        save_system(system, materials, folder)
        result["weights"] = weights_hash(folder)
        write_json(folder / "fit.json", result)
    shown = ", ".join(f"{t} {m} {100 * v:.1f}" for t, scores in result["scores"].items() for m, v in scores.items())
    log.info("%s: %s (%.0f s)", stage, shown, result["seconds"])
    return result


def scores_of(metrics: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Return task -> metric -> value from the trainer's ``val/TASK/METRIC``."""
    scores: dict[str, dict[str, float]] = {}
    for name, value in metrics.items():
        task, _, metric = name.removeprefix("val/").rpartition("/")
        if name.startswith("val/") and task:
            scores.setdefault(task, {})[metric] = float(value)
    return scores


def data_facts(materials: Materials) -> dict[str, Any]:
    """Return, for each task, the rows of each split and one fingerprint of all of them."""
    facts: dict[str, Any] = {}
    for (task, split), rows in {**materials.training_rows, **materials.evaluation_rows}.items():
        entry = facts.setdefault(task, {"train": 0, "validation": 0, "unlabelled": 0, "fingerprint": ""})
        entry[split if split in entry else "validation"] += rows.count
        entry["fingerprint"] = hashlib.sha256((entry["fingerprint"] + rows.fingerprint).encode()).hexdigest()[:16]
    return facts


def save_system(system: NLUSystem, materials: Materials, folder: Path) -> None:
    """Write ``encoder/`` with the tokenizer, and ``heads.safetensors``."""
    system.encoder.save(folder / "encoder")
    materials.tokenizer.save_pretrained(folder / "encoder")
    temporary = folder / ".heads.part"
    save_file({name: tensor.contiguous() for name, tensor in system.heads.state_dict().items()}, temporary)
    os.replace(temporary, folder / "heads.safetensors")


def weights_hash(folder: Path) -> str:
    """Return a hash of a fit's weights: encoder and heads."""
    digest = hashlib.sha256()
    for path in [*sorted((folder / "encoder").glob("*.safetensors")), folder / "heads.safetensors"]:
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def write_config(folder: Path, cfg: Config) -> None:
    """Write ``config.yaml``, resolved."""
    write_text(folder / "config.yaml", OmegaConf.to_yaml(OmegaConf.create(cfg)))


def read_config(folder: Path) -> Config:
    """Return the configuration of a fit's folder.

    Raises:
        UserError: If the folder holds no trained model.
    """
    for name in ("config.yaml", "heads.safetensors", "encoder"):
        if not (folder / name).exists():
            raise UserError(
                f"{folder} holds no {name}, expected the folder of a finished fit (kd-train's, or .../student)"
            )
    cfg = OmegaConf.to_container(OmegaConf.load(folder / "config.yaml"))
    assert isinstance(cfg, dict)
    return {str(key): value for key, value in cfg.items()}
