"""The command ``kd-report``; see ``kd-report --help``."""

from __future__ import annotations

from kd_lightning.apps.command_line.interrupts import interrupt_at_once

with interrupt_at_once("report"):
    from kd_lightning.apps.report import main

if __name__ == "__main__":
    main()
