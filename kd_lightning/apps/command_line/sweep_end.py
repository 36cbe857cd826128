"""A sweep ends: which of its jobs have not finished, and how to go on."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from kd_lightning.apps.arguments import name_of, told_by
from kd_lightning.apps.command_line import sweeps
from kd_lightning.apps.command_line.going_on import ADDS, LEFT_AS_IT_IS, MEND, MEND_TRIALS, is_search, more_to_tell
from kd_lightning.apps.command_line.grids import swept
from kd_lightning.apps.command_line.jobs import (
    BUSY,
    FINISHED,
    GOES_ON,
    INTERRUPTED,
    KILLED,
    QUEUED,
    REFUSED,
    RUNNING,
)
from kd_lightning.apps.command_line.one_line import MAKE_ROOM, NO_TRIAL
from kd_lightning.apps.command_line.sweeps import NOT_STARTED, TAKEN, Job, Sweep, on_cluster, release
from kd_lightning.apps.processes.seat import own_seat

SHOWN = 8
"""At most so many jobs are named in the last line."""

NOTHING_TO_MEND = (KILLED, INTERRUPTED, QUEUED, BUSY, RUNNING, NOT_STARTED)
"""Ends after which the same command is worth giving again as it is."""

WITHOUT_WORD = (KILLED, RUNNING, NOT_STARTED, TAKEN)
"""Ends that leave no ``error.txt``."""


def end_of_sweep(name: str) -> None:
    """Say which jobs of the sweep have not finished and how to go on, and leave with exit code 2; 1 if one crashed.

    Args:
        name: Of the command.
    """
    if not (sweeps.begun and own_seat().leads):
        return
    sweep = sweeps.begun[0]
    if sweep.stopped:
        sweep.close()
    jobs = sweep.jobs()
    sweep.remove_notes()
    release(sweep.lock)
    missing = [job for job in jobs if job.state != FINISHED]
    if sweep.stopped:
        more = "" if missing or not is_search(sweep.config.hydra.sweeper) else f"; {ADDS}"
        what = "the search has no result" if sweep.stopped == NO_TRIAL else "the sweep stopped"
        print(f"kd-{name}: error: {what}: {sweep.stopped}{more}", file=sys.stderr)
    if on_cluster(sweep.config):
        for job in missing:  # what they said stands in files of submitit's
            if job.error:
                print(f"kd-{name}: error: job {job.name}: {job.error}", file=sys.stderr)
    if missing:
        print(f"kd-{name}: error: {_last_line(name, jobs, missing, sweep)}", file=sys.stderr)
    if missing or sweep.stopped:
        refused = bool(missing) and all(job.state in (REFUSED, BUSY, TAKEN) for job in missing)
        sys.exit(2 if refused and (not sweep.stopped or is_search(sweep.config.hydra.sweeper)) else 1)


def _needs_no_mending(job: Job) -> bool:
    """Tell whether the same command is worth giving again as it is."""
    return job.state in NOTHING_TO_MEND or LEFT_AS_IT_IS in job.error or GOES_ON in job.error


def _named(missing: Sequence[Job], common: set[str], with_state: bool) -> str:
    """Return the names of jobs, with what the others were not told, and how they stand."""
    named = []
    for job in missing[:SHOWN]:
        own = " ".join(told for told in job.told if told not in common)
        in_brackets = ", ".join(filter(None, [own, job.state if with_state else ""]))
        named.append(f"{job.name} ({in_brackets})" if in_brackets else job.name)
    return ", ".join([*named, *([f"and {len(missing) - SHOWN} more"] if len(missing) > SHOWN else [])])


def _last_line(name: str, jobs: Sequence[Job], missing: Sequence[Job], sweep: Sweep) -> str:
    common = set.intersection(*(set(job.told) for job in jobs))
    searches = is_search(sweep.config.hydra.sweeper)
    done_before = all(LEFT_AS_IT_IS in job.error for job in missing)
    if searches:  # two trials may have the same
        differ = swept(sweep.config.hydra.sweeper, told_by(sweep.config.hydra))
        common = {one for one in common if name_of(one) not in differ}
    deep = "/*" * max(1 + job.name.count("/") for job in missing)
    tells = not done_before and any(job.state not in WITHOUT_WORD for job in missing)
    see = f"; see {sweep.folder}{deep}/error.txt" if tells else ""
    what = "had finished before" if done_before else "did not finish"
    line = f"{len(missing)} of {len(jobs)} jobs {what}: {_named(missing, common, not done_before)}{see}"
    if name not in ("train", "distill"):
        return line
    at_work = any(job.state in (BUSY, RUNNING) or GOES_ON in job.error for job in missing)
    mend = "wait for those that go on, then " if at_work else ""
    if not all(_needs_no_mending(job) for job in missing):
        mend = MEND_TRIALS if searches and sweep.config.hydra.sweeper.get("storage") else MEND
    if searches:
        return f"{line}; {mend}{ADDS}"
    goes_on = any(job.state in (KILLED, INTERRUPTED) or MAKE_ROOM in job.error for job in missing)
    more = more_to_tell(name if goes_on else "", in_sweep=True)
    return f"{line}; {mend}the same command with {more} runs only what is missing"
