"""The folder of a trained model, as a fit writes it."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

from omegaconf import OmegaConf
from safetensors.torch import save_file
from transformers import PreTrainedTokenizerBase

from kd_lightning.apps.settings.config import Config
from kd_lightning.errors import UserError
from kd_lightning.files import file_hash, read_json, replacing, write_text
from kd_lightning.systems import NLUSystem

PARTS = ("config.yaml", "encoder", "fit.json", "heads.safetensors")
"""What makes a trained model's folder; beside it lie the fit's logs."""


def write_config(folder: Path, cfg: Config) -> None:
    """Write ``config.yaml``, resolved."""
    write_text(folder / "config.yaml", OmegaConf.to_yaml(OmegaConf.create(cfg)))


def save_system(system: NLUSystem, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Write ``encoder/`` (a Hugging Face folder with the tokenizer) and ``heads.safetensors``."""
    system.encoder.save(folder / "encoder")
    tokenizer.save_pretrained(folder / "encoder")
    with replacing(folder / "heads.safetensors") as temporary:
        save_file({name: tensor.contiguous() for name, tensor in system.heads.state_dict().items()}, temporary)
    for path in folder.glob("**/*.safetensors"):
        shutil.copymode(folder / "config.yaml", path)  # safetensors keeps its files to their owner


def weights_hash(folder: Path) -> str:
    """Return a hash of a model's weights: encoder and heads."""
    digest = hashlib.sha256()
    for path in [*sorted((folder / "encoder").glob("*.safetensors")), folder / "heads.safetensors"]:
        digest.update(bytes.fromhex(file_hash(path)))
    return digest.hexdigest()


def result_of(folder: Path) -> Config | None:
    """Return what a fit left in ``fit.json``, its last file; None if it has not finished.

    Raises:
        UserError: If the file is damaged.
    """
    path = folder / "fit.json"
    if not path.is_file():
        return None
    try:
        found = read_json(path)
        return {"scores": found["scores"], "weights": found["weights"], **found}
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path} is damaged ({type(error).__name__}); take the folder away to train it again"
        ) from error
