"""Runs that have finished, or are being run: what a job need not, or must not, do again."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from kd_lightning.apps.arguments import told_by
from kd_lightning.apps.command_line.jobs import ELSEWHERE, FINISHED, MARK, goes_on, remove_if_empty
from kd_lightning.apps.command_line.notes import OF_A_SWEEP, command_of, if_told, overrides_of
from kd_lightning.apps.processes.preemption import LATE, started_before
from kd_lightning.apps.settings.config_hash import changes_result, config_hash
from kd_lightning.apps.settings.paths import FIT
from kd_lightning.errors import UserError
from kd_lightning.files import GLANCE, files_named, from_here, is_held, write_text

if TYPE_CHECKING:
    from kd_lightning.apps.processes.team import Team

log = logging.getLogger(__name__)


class RunsElsewhereError(UserError):
    """Another process is at what a job asks for."""


def result_of_job(folder: Path) -> Path | None:
    """Return the folder of the finished run that has a job's results: its own, or an earlier one."""
    run = noted_elsewhere(folder) or folder
    return run if read_summary(run / "summary.json").get("status") == FINISHED else None


def noted_elsewhere(folder: Path) -> Path | None:
    """Return the folder that is noted to have a job's results in the place of its own, None if none is."""
    try:
        run = folder / (folder / ELSEWHERE).read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return None
    plain, real = Path(os.path.normpath(run)), Path(os.path.realpath(run))
    return plain if os.path.realpath(plain) == str(real) else real  # a link is on the way


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
        if now.mode is not RunMode.MULTIRUN:
            remove_if_empty()
        elif found[0] != Path(os.path.realpath(now.runtime.output_dir)):
            note_elsewhere(Path(now.runtime.output_dir), found[0])
    return found and (str(found[0]), found[1])


def note_elsewhere(folder: Path, run: Path) -> None:
    """Note in a job's folder where its results are."""
    write_text(folder / ELSEWHERE, f"{os.path.relpath(os.path.realpath(run), os.path.realpath(folder))}\n")


def skipped_by_all(cfg: DictConfig, team: Team) -> tuple[str, float | None] | None:
    """Return what the first of several processes that were started for a job says: see ``skipped``.

    Args:
        cfg: The job's configuration, checked and resolved.
        team: The processes. One that has started the others has looked before it did.
    """
    started = team.size > 1 and team.seat.started_by != "us"
    return team.agree(lambda: skipped(cfg)) if started else None


def finished_before(cfg: DictConfig) -> tuple[Path, Any] | None:
    """Return the folder and the objective of a finished run of this command and these settings, if there is one.

    Args:
        cfg: The job's configuration, checked and resolved.

    Raises:
        RunsElsewhereError: If there is none, but such a run goes on.
    """
    plain: Any = OmegaConf.to_container(cfg, resolve=True)
    now, own = HydraConfig.get(), config_hash(plain)
    ours = Path(os.path.realpath(now.runtime.output_dir))
    found = {*files_of_runs("summary.json", plain), ours / "summary.json"}
    paths = sorted(found, key=lambda path: (path.parent != ours, path))  # its own results first
    summaries = {path.parent: read_summary(path, own) for path in paths if path.parent.name != "pretrain"}
    alike = {folder: summary for folder, summary in summaries.items() if summary.get("config_hash") == own}
    if done := _finished_one(alike):
        return done
    begun = dict.fromkeys([*alike, *_begun_alike(files_of_runs(MARK, plain), now.job.config_name, told_by(now))])
    for folder in begun:
        if folder != ours and (_is_trained(folder) or (goes_on(folder) and not _is_later(folder, ours))):
            raise RunsElsewhereError(
                f"{from_here(folder)} has these settings, and goes on: wait for its end, then the same command again"
            )
    # one may have ended while we looked
    since = {folder: read_summary(folder / "summary.json", own) for folder in begun}
    return _finished_one({folder: summary for folder, summary in since.items() if summary.get("config_hash") == own})


def files_of_runs(name: str, cfg: Mapping[str, Any]) -> Iterator[Path]:
    """Yield the files of a name in runs, where those lie that may have what a job asks for, without links.

    They are looked for under the job's own name, in the sweeps in the output and one folder below, since jobs of
    several names lie there, and in the job's own sweep.

    Args:
        name: Of the files.
        cfg: The configuration of the job.
    """
    now, output = HydraConfig.get(), Path(os.path.realpath(cfg["paths"]["output"]))
    sweeps = (path.parent for depth in ("*", "*/*") for path in sorted(output.glob(f"{depth}/{OF_A_SWEEP}")))
    places = [output / cfg["name"], *sweeps]
    if now.mode is RunMode.MULTIRUN:
        places.append(Path(os.path.realpath(Path(now.runtime.cwd, now.sweep.dir))))  # hydra.job.chdir may be true
    outermost = (place for place in dict.fromkeys(places) if not {*places} & {*place.parents})
    found = (path for place in outermost for path in files_named(name, place))  # nothing is walked twice
    for folder in dict.fromkeys(os.path.realpath(path.parent) for path in found):
        yield Path(folder, name)


def _finished_one(summaries: Mapping[Path, dict[str, Any]]) -> tuple[Path, Any] | None:
    """Return the first folder whose run has finished, and its objective."""
    found = ((folder, each["objective"]) for folder, each in summaries.items() if each["status"] == FINISHED)
    return next(found, None)


def _begun_alike(marks: Iterable[Path], command: str | None, told: Sequence[str]) -> Iterator[Path]:
    """Yield the folders of a command's jobs that were told the same, and may not have written yet what they are."""
    counted = set(filter(changes_result, told))
    for folder in sorted({path.parent for path in marks}):
        with if_told():
            if command_of(folder) == command and set(filter(changes_result, overrides_of(folder))) == counted:
                yield folder


def _is_later(folder: Path, ours: Path) -> bool:
    """Tell whether a job has begun after ours: of two that begin together one leaves it to the other."""
    try:
        began = [(place / MARK).stat().st_mtime_ns for place in (folder, ours)]
    except OSError:
        return False
    return (began[0], str(folder)) > (began[1], str(ours))


def _is_trained(folder: Path) -> bool:
    """Tell whether a process trains in a folder; of a machine that was lost a file server learns late."""
    return is_held(folder / FIT, patience=LATE if started_before() else GLANCE, unknown=False)


def read_summary(path: Path, text: str = "") -> dict[str, Any]:
    """Return the summary of a run, nothing of one that is damaged, or without this text."""
    try:
        content = path.read_text(encoding="utf-8")
        return dict(json.loads(content)) if text in content else {}
    except (OSError, ValueError, TypeError):
        return {}
