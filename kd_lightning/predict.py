"""The command ``kd-predict``; see ``kd-predict --help``."""

from __future__ import annotations

from kd_lightning.apps.command_line.interrupts import interrupt_at_once

with interrupt_at_once("predict"):
    from kd_lightning.apps.command_line.cli import command

main = command("predict", "kd_lightning.apps.predict:run")

if __name__ == "__main__":
    main()
