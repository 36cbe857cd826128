"""``kd-dashboard``: a workspace of Weights & Biases for the runs of ``kd-distill``, saved there or in a file."""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from kd_lightning.apps.command_line.plain import OneLineParser, ended_in_one_line
from kd_lightning.apps.command_line.shipped_conf import options_of
from kd_lightning.apps.settings.wandb_key import has_wandb_key
from kd_lightning.errors import UserError, did_you_mean, first_line, to_install

HELP = """Build a workspace of Weights & Biases for the runs of kd-distill logger=wandb: a table of the sweep, gains
over the baseline, gold weight and losses, seeds as bands, quality against latency and size.

  kd-dashboard ENTITY/PROJECT --tasks rte mrpc stsb               save it there, as a new view
  kd-dashboard --output workspace.json --tasks rte mrpc stsb      write it to a file; needs no account
"""

OF_A_WORKSPACE = frozenset({"entity", "project", "displayName", "spec"})
"""What the specification of a workspace has."""


def parser() -> OneLineParser:
    """Return the parser of the arguments."""
    found = OneLineParser("dashboard", HELP)
    found.add_argument("project", nargs="?", metavar="ENTITY/PROJECT", help="where the runs are, and the view will be")
    found.add_argument("--tasks", nargs="+", default=[], metavar="TASK", help="tasks that get panels of their own")
    found.add_argument("--output", type=Path, metavar="FILE.json", help="write the workspace there, do not save it")
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command; what is wrong is one line, and exit code 2."""
    with ended_in_one_line("dashboard"):
        run(parser().parse_args(arguments))


def run(asked: argparse.Namespace) -> None:
    """Build the workspace, then write or save it.

    Raises:
        UserError: If nothing says where to, the library or a key is missing, or the service refuses.
    """
    if asked.project is None and asked.output is None:
        raise UserError("nothing says where to: give ENTITY/PROJECT, or --output FILE.json")
    entity, project = owner_and_name(asked.project or "entity/kd_lightning")
    if find_spec("wandb_workspaces") is None:
        raise UserError(f"package wandb-workspaces is not installed: {to_install('dashboard')}")
    if asked.output is not None:
        check_output(asked.output)
    elif not has_wandb_key():
        raise UserError("no key for Weights & Biases: set WANDB_API_KEY, or wandb login; --output FILE.json needs none")
    os.environ.setdefault("WANDB_SILENT", "true")

    from kd_lightning.apps.dashboards.workspace import build_workspace, specification
    from kd_lightning.files import write_text

    warn_of_tasks(asked.tasks, options_of("train", (), "task"))
    workspace = build_workspace(entity, project, asked.tasks)
    if asked.output is not None:
        asked.output.parent.mkdir(parents=True, exist_ok=True)
        write_text(asked.output, specification(workspace))
        print(f"written: {asked.output}")
        return
    try:
        workspace.save()
    except Exception as error:
        raise UserError(f"{asked.project}: the service refuses, or is not there: {first_line(error)}") from error
    print(f"saved: {workspace.url}")


def check_output(file: Path) -> None:
    """Check that the file of a specification is new, or holds another one.

    Raises:
        UserError: If it is something else.
    """
    if not file.exists():
        return
    try:
        found = set(json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        found = set()
    if not found >= OF_A_WORKSPACE:
        raise UserError(f"--output {file} is there, and is no workspace of kd-dashboard: choose another file")


def warn_of_tasks(tasks: Sequence[str], known: Sequence[str]) -> None:
    """Say which tasks are nearly, but not quite, among those that are known: their panels would stay empty."""
    for task in tasks:
        if task not in known and (near := did_you_mean(task, known)):
            print(f"kd-dashboard: warning: --tasks {task} is no task of the package{near}", file=sys.stderr)


def owner_and_name(project: str) -> tuple[str, str]:
    """Return entity and project of ``ENTITY/PROJECT``.

    Raises:
        UserError: If it is something else.
    """
    found = re.fullmatch(r"([\w.-]+)/([\w.-]+)", project)
    if found is None:
        raise UserError(f"project is '{project}', expected ENTITY/PROJECT, as in the address of its page")
    return found[1], found[2]
