"""The command ``kd-train``; see ``kd-train --help``."""

from __future__ import annotations

from kd_lightning.apps.command_line.interrupts import interrupt_at_once

with interrupt_at_once("train"):
    from kd_lightning.apps.command_line.cli import command

main = command("train", "kd_lightning.apps.train:run")

if __name__ == "__main__":
    main()
