"""Whether a key for Weights & Biases is at hand: nobody is ever asked for one."""

from __future__ import annotations

import configparser
import netrc
import os
from pathlib import Path
from urllib.parse import urlsplit

DEFAULT_HOST = "api.forge.coreweave.com"
"""Of the service itself, in wandb 0.31."""

ALSO = {DEFAULT_HOST: "api.wandb.ai"}
"""Host -> what a netrc file may call it, too."""


def has_wandb_key() -> bool:
    """Tell whether the environment, or a netrc file, has a key for the server of Weights & Biases."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    try:
        known = netrc.netrc(_netrc_file())
    except (OSError, netrc.NetrcParseError, UnicodeDecodeError):
        return False
    host = wandb_host()
    found = known.authenticators(host) or known.authenticators(ALSO.get(host, host))
    return found is not None and bool(found[2])


def wandb_host() -> str:
    """Return the server's host, with its port if it has one: of ``WANDB_BASE_URL``, or as ``wandb login`` noted it."""
    return urlsplit(os.environ.get("WANDB_BASE_URL") or _noted_url()).netloc or DEFAULT_HOST


def wandb_offline() -> bool:
    """Tell whether runs are only written to files: as ``WANDB_MODE`` says, or for want of a key."""
    return os.environ.get("WANDB_MODE", "online") not in ("online", "shared") or not has_wandb_key()


def _noted_url() -> str:
    """Return the address that wandb's own settings name, those of the working directory first; or nothing."""
    folder = Path(os.environ.get("WANDB_CONFIG_DIR") or "~/.config/wandb").expanduser()
    noted = configparser.ConfigParser(interpolation=None, default_section="")
    try:
        noted.read([folder / "settings", Path("wandb", "settings")])
    except (configparser.Error, UnicodeDecodeError):
        return ""
    return noted.get("default", "base_url", fallback="")


def _netrc_file() -> Path:
    if named := os.environ.get("NETRC"):
        return Path(named).expanduser()
    places = [Path(name).expanduser() for name in ("~/.netrc", "~/_netrc")]
    return next((place for place in places if place.exists()), places[0])
