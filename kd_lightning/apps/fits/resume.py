"""Where an interrupted fit goes on: its checkpoint, found and checked."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from textwrap import shorten

import torch

from kd_lightning.apps.fits.identity import identity_in
from kd_lightning.apps.processes.preemption import LATE, started_before
from kd_lightning.apps.processes.team import team
from kd_lightning.apps.settings.config import Config
from kd_lightning.apps.settings.paths import FIT
from kd_lightning.callbacks import resume_path
from kd_lightning.errors import UserError, first_line
from kd_lightning.files import LOOK, from_here, last_change, locked_if_free


@contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Hold a run's folder while it is trained; of several processes the first holds it for all.

    A job that is started again may find the lock of the process that it goes on for: of a machine that was lost a file
    server learns late.

    Raises:
        UserError: If another command is training there.
    """
    if not team().leads:
        yield
        return
    folder.mkdir(parents=True, exist_ok=True)
    with locked_if_free(folder / FIT, LATE if started_before() else LOOK) as ours:
        if not ours:
            raise UserError(f"{folder} is being trained by another command: wait for its end")
        yield


def read_checkpoint(path: Path, identity: str) -> Config:
    """Return the content of a checkpoint of a fit; its tensors stay on disk.

    Raises:
        UserError: If it is damaged, or of other settings, data or code.
    """
    try:
        state: Config = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
        found = state["hyper_parameters"]["identity"]
    except Exception as error:
        raise UserError(
            f"{path} is no whole checkpoint of this version ({type(error).__name__}: "
            f"{shorten(first_line(error), 100, placeholder='...')}); take it away to start anew"
        ) from error
    if found != identity:
        raise UserError(
            f"{path} is of a fit with other settings, data or code (identity {found}, expected {identity}); "
            "leave ckpt_path out to start anew"
        )
    return state


def find_checkpoint(
    wanted: str | None, folder: Path, identity: str, begun: Iterable[Path], in_sweep: bool = False
) -> tuple[Path, Path | None]:
    """Return the folder to train in and the checkpoint to continue from.

    Args:
        wanted: None starts anew; ``last`` continues the newest unfinished run of the same name, settings, data and
            code, in its own folder; anything else is a checkpoint file.
        folder: This run's folder.
        identity: This run's content address.
        begun: The folders of earlier runs of this name; looked at only if ``last`` is asked for.
        in_sweep: Whether other jobs are told the same: then ``last`` begins anew what has not begun.

    Raises:
        UserError: If there is no such run, or no such file.
    """
    if wanted is None:
        return folder, None
    if wanted != "last":
        if not Path(wanted).is_file():
            raise UserError(f"ckpt_path is '{wanted}', expected 'last' or a file ({Path(wanted).absolute()})")
        return folder, Path(wanted)
    if resume_path(folder).is_file():
        return folder, resume_path(folder)
    saved = [place for place in {run.absolute() for run in begun} if resume_path(place).is_file()]
    saved.sort(key=lambda place: last_change(resume_path(place)), reverse=True)
    for place in saved:
        if not _has_finished(place) and identity_in(place) == identity:
            return place, resume_path(place)
    if in_sweep:
        return folder, None
    if same := [place for place in saved if identity_in(place) == identity]:
        why = f"{from_here(same[0])} has these settings and this data, and has finished"
    elif others := [place for place in saved if not _has_finished(place)]:
        why = f"{from_here(others[0])}, the newest unfinished run of this name, has other settings, data or code"
    else:
        why = "no unfinished run of this name with a checkpoint was found (ckpt_path=FILE goes on from one)"
    raise UserError(f"ckpt_path=last: {why}; leave ckpt_path out to start anew")


def _has_finished(run: Path) -> bool:
    return (run / "fit.json").exists()
