"""What the folder of a sweep's job says to whoever looks there: that it runs, has finished, or why it has not."""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from kd_lightning.apps.settings.config_hash import config_hash
from kd_lightning.files import locked_if_free, write_text

if TYPE_CHECKING:
    from kd_lightning.apps.processes.team import Team

log = logging.getLogger(__name__)

ERROR = "error.txt"
"""One line: how the job was ended, and by what; there until it succeeds."""

ELSEWHERE = "finished_in.txt"
"""Holds the folder of the run that has a job's results in the place of its own, as seen from there."""

MARK = ".running"
"""There while the job runs; left behind if its process was killed, or could not say how it ended."""

JOB = "job"
"""Gives the lock its name that the job's process holds while it runs."""

LOOK = 2.0
"""Seconds in which whoever looks at a job has looked."""

FINISHED, RUNNING, REFUSED, INTERRUPTED, CRASHED, KILLED, QUEUED = (
    "finished",
    "running",
    "refused",
    "interrupted",
    "crashed",
    "killed",
    "queued again",
)
"""How a job stands."""


@contextmanager
def marked_as_running(folder: Path) -> Iterator[Callable[[str], None]]:
    """Let others see that the job of a folder runs; of several processes of one job the first does.

    Args:
        folder: The job's.

    Yields:
        What notes how the job has ended, if it has not finished. On a full disk the mark stays instead.
    """
    stays = False

    def note(end: str) -> None:
        nonlocal stays
        try:
            write_text(folder / ERROR, f"{end}\n")
        except OSError:
            stays = True

    with locked_if_free(folder / JOB, LOOK) as ours:
        (folder / ELSEWHERE).unlink(missing_ok=True)
        (folder / MARK).touch()
        try:
            yield note
        finally:
            if not stays:
                (folder / MARK).unlink(missing_ok=True)
            if ours:
                (folder / f".{JOB}.lock").unlink(missing_ok=True)


def state_of(folder: Path) -> str:
    """Return how the job of a folder stands; in a folder that is not ours, one that was killed seems to run."""
    if not (folder / MARK).exists():
        return error_of(folder).partition(":")[0] or FINISHED
    if not (folder / f".{JOB}.lock").exists():
        return KILLED
    with suppress(OSError), locked_if_free(folder / JOB) as free:
        return KILLED if free else RUNNING
    return RUNNING


def error_of(folder: Path) -> str:
    """Return the line that tells how the job ended, nothing if it has finished."""
    try:
        return (folder / ERROR).read_text(encoding="utf-8", errors="replace").strip()
    except FileNotFoundError:
        return ""


def result_of_job(folder: Path) -> Path | None:
    """Return the folder of the finished run that has a job's results: its own, or an earlier one."""
    elsewhere = folder / ELSEWHERE
    run = folder / elsewhere.read_text(encoding="utf-8").strip() if elsewhere.is_file() else folder
    return run if _finished(run / "summary.json") is not None else None


def skipped(cfg: DictConfig) -> tuple[str, float | None] | None:
    """Tell whether the job need not run, since the settings ask to skip what has finished, and it has.

    Of several processes one decides: a run may finish while they look.

    Args:
        cfg: The job's configuration, checked and resolved.

    Returns:
        The folder and the objective of the finished run.
    """
    found = finished_before(cfg) if cfg.get("skip_finished") else None
    if found is not None:
        log.info("already finished: %s", found[0])
        now = HydraConfig.get()
        if now.mode is RunMode.MULTIRUN:
            note_elsewhere(Path(now.runtime.output_dir), found[0])
        else:
            remove_if_empty()
    return found and (str(found[0]), found[1])


def note_elsewhere(folder: Path, run: Path) -> None:
    """Note in a job's folder where its results are."""
    write_text(folder / ELSEWHERE, f"{os.path.relpath(run, folder)}\n")


def skipped_by_all(cfg: DictConfig, team: Team) -> tuple[str, float | None] | None:
    """Return what the first of several processes that were started for a job says: see ``skipped``.

    Args:
        cfg: The job's configuration, checked and resolved.
        team: The processes. One that has started the others has looked before it did.
    """
    started = team.size > 1 and team.seat.started_by != "us"
    return team.agree(lambda: skipped(cfg)) if started else None


def remove_if_empty() -> None:
    """Take a run's folder away if nothing but Hydra wrote there; those of a sweep stay."""
    now = HydraConfig.get()
    folder = Path(now.runtime.output_dir)
    hydras = {".hydra", f"{now.job.name}.log"}
    if now.mode is RunMode.RUN and folder != Path.cwd() and {path.name for path in folder.iterdir()} <= hydras:
        shutil.rmtree(folder, ignore_errors=True)
        with suppress(OSError):
            folder.parent.rmdir()  # of the experiment, if it was its first run


def finished_before(cfg: DictConfig) -> tuple[Path, Any] | None:
    """Return the folder and the objective of a finished run of this command and these settings, if there is one.

    Args:
        cfg: The job's configuration, checked and resolved.
    """
    plain: Any = OmegaConf.to_container(cfg, resolve=True)
    now, own = HydraConfig.get(), config_hash(plain)
    places = {Path(plain["paths"]["output"], plain["name"])}
    if now.mode is RunMode.MULTIRUN:
        places.add(Path(now.sweep.dir))
    for path in sorted({path.absolute() for place in places for path in place.rglob("summary.json")}):
        summary = _finished(path, own) if path.parent.name != "pretrain" else None
        if summary is not None and summary["config_hash"] == own:
            return path.parent, summary["objective"]
    return None


def _finished(path: Path, text: str = "") -> Any | None:
    """Return the summary of a run that has finished, nothing of another, or of one without this text."""
    try:
        content = path.read_text(encoding="utf-8")
        summary = json.loads(content) if text in content else {}
    except (OSError, ValueError):
        return None
    return summary if summary.get("status") == "finished" else None


def job_folders(sweep: Path, name: str, since: float) -> list[Path]:
    """Return the folders of a sweep's jobs that have begun, in their order.

    Args:
        sweep: The sweep's folder. If it is ``OUTPUT/NAME/SWEEP``, jobs of other experiments lie under their own names.
        name: The experiment's.
        since: When the sweep began; jobs of an earlier one into the same folder do not count.
    """
    roots = {sweep}
    if sweep.parent.name == name:
        roots |= {*sweep.parent.parent.glob(f"*/{sweep.name}")}
    told = (path for root in roots for path in root.rglob(".hydra/overrides.yaml"))
    found = [path.parents[1] for path in told if path.stat().st_mtime >= since]
    return sorted(found, key=lambda folder: [_counting(part) for part in (folder.name, *folder.parts)])


def _counting(name: str) -> list[tuple[int, str]]:
    """Return a key by which ten comes after nine."""
    return [(len(part), part) for part in re.split(r"(\d+)", name)]


def overrides_of(folder: Path) -> list[str]:
    """Return what a job was told."""
    return [str(override) for override in OmegaConf.load(folder / ".hydra" / "overrides.yaml")]
