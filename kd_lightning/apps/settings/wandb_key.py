"""Whether a key for Weights & Biases is at hand: nobody is ever asked for one."""

from __future__ import annotations

import os
from pathlib import Path


def has_wandb_key() -> bool:
    """Tell whether the environment or a netrc file has a key for Weights & Biases."""
    netrc = Path(os.environ.get("NETRC", "~/.netrc")).expanduser()
    named = os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE")
    return bool(named) or (netrc.is_file() and "wandb" in netrc.read_text(errors="ignore"))


def wandb_offline() -> bool:
    """Tell whether runs are only written to files: as ``WANDB_MODE`` says, or for want of a key."""
    return os.environ.get("WANDB_MODE", "online") not in ("online", "shared") or not has_wandb_key()
