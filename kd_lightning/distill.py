"""The command ``kd-distill``; see ``kd-distill --help``."""

from __future__ import annotations

from kd_lightning.apps.command_line.interrupts import interrupt_at_once

with interrupt_at_once("distill"):
    from kd_lightning.apps.command_line.cli import command

main = command("distill", "kd_lightning.apps.distill:run")

if __name__ == "__main__":
    main()
