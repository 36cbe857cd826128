"""How what was interrupted goes on, in words for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

TOLD = {"distill": "", "train": "ckpt_path=last"}
"""Commands that go on where they were -> what the same command is told for it, if anything."""

FROM_THERE = "goes on from the last checkpoint, if there is one"

ADDS = "the same command (without hydra.sweep.dir) adds trials, with other values"
"""How a search is continued: what was drawn is not drawn again, and its trials have folders of their own."""

MEND = "mend them, then "
"""What comes before the same command is given again."""

MEND_TRIALS = "mend them (another range is another study's: hydra.sweeper.study_name=NAME), then "
"""The same, of a search: what its trials drew from stays as it is."""

LEFT_AS_IT_IS = "skip_finished=true leaves it as it is"
"""What is said of a job that has finished, where it was told to go on."""


def is_search(sweeper: Mapping[str, Any]) -> bool:
    """Tell by a sweeper's settings whether its jobs follow from results."""
    return "n_trials" in sweeper


def more_to_tell(name: str, in_sweep: bool) -> str:
    """Return what else a command is told to go on.

    Args:
        name: Of the command.
        in_sweep: Whether other jobs, which may have finished, are told the same.

    Example:
        >>> more_to_tell("train", True)
        'ckpt_path=last skip_finished=true'
    """
    return " ".join(filter(None, [TOLD.get(name, ""), "skip_finished=true" * in_sweep]))


def how_it_goes_on(name: str, sweeper: Mapping[str, Any] | None = None, apart: bool = False) -> str:
    """Return how what was interrupted is continued, nothing of a command that is not.

    Args:
        name: Of the command.
        sweeper: The settings of its sweep; None of a single job.
        apart: Whether its jobs are processes of their own, which may go on where the command's own has ended.
    """
    if name not in TOLD:
        return ""
    if sweeper is None:
        return f"; {TOLD[name] or 'the same command'} {FROM_THERE}"
    how = ADDS if is_search(sweeper) else f"the same command with {more_to_tell(name, in_sweep=True)} goes on"
    return f"; once its jobs have ended, {how}" if apart else f"; {how}"
