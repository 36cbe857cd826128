"""What commands without Hydra share: options, and one line of what is wrong."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

from kd_lightning import __version__
from kd_lightning.apps.command_line.interrupts import interrupt_in_one_line
from kd_lightning.apps.command_line.one_line import os_error
from kd_lightning.errors import UserError


class OneLineParser(argparse.ArgumentParser):
    """A parser that tells what is wrong in one line.

    Args:
        name: Of the command, without ``kd-``.
        description: What it does.
        epilog: What else its help says.
    """

    def __init__(self, name: str, description: str, epilog: str | None = None) -> None:
        form = argparse.RawDescriptionHelpFormatter
        super().__init__(f"kd-{name}", None, description, epilog, formatter_class=form, allow_abbrev=False)
        self.add_argument("--version", action="version", version=f"kd_lightning {__version__}")

    def error(self, message: str) -> NoReturn:
        """Refuse the arguments.

        Raises:
            UserError: Always.
        """
        raise UserError(f"{message}; {self.prog} --help shows what there is")


@contextmanager
def ended_in_one_line(name: str) -> Iterator[None]:
    """End the command with one line where the block meets a mistake of the user, the disk, Ctrl-C or SIGTERM.

    Args:
        name: Of the command, without ``kd-``.
    """
    try:
        with interrupt_in_one_line(name):
            yield
            sys.stdout.flush()
    except UserError as error:
        sys.exit(_told(name, str(error)))
    except BrokenPipeError:  # who read our output has gone, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        sys.exit(_told(name, os_error(error)))


def _told(name: str, message: str) -> int:
    print(f"kd-{name}: error: {message}", file=sys.stderr)
    return 2
