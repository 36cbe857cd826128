"""The command ``kd-evaluate``; see ``kd-evaluate --help``."""

from __future__ import annotations

from kd_lightning.apps.command_line.interrupts import interrupt_at_once

with interrupt_at_once("evaluate"):
    from kd_lightning.apps.command_line.cli import command

main = command("evaluate", "kd_lightning.apps.evaluate:run")

if __name__ == "__main__":
    main()
