"""The command ``kd-dashboard``; see ``kd-dashboard --help``."""

from __future__ import annotations

from kd_lightning.apps.dashboard import main

__all__ = ["main"]

if __name__ == "__main__":
    main()
