"""Where trained models are kept, named by content: what was trained once is found, what was interrupted goes on."""

from __future__ import annotations

import logging
import shutil
from contextlib import nullcontext
from pathlib import Path

from kd_lightning.apps.fits.fit import Fit
from kd_lightning.apps.fits.model_folder import result_of
from kd_lightning.apps.fits.trained_model import TrainedModel
from kd_lightning.apps.processes.team import team
from kd_lightning.callbacks import resume_path
from kd_lightning.files import locked

log = logging.getLogger(__name__)


def stored(fit: Fit) -> TrainedModel:
    """Return the model of a fit from the store, trained now (or to its end) if it is not there.

    Any run with the same settings and data finds it, whatever it calls it: BAM's Single is its teachers. A lock keeps
    two runs from training the same model at once.
    """
    fits = Path(fit.cfg["paths"]["store"]) / "fits"
    own = fits / f"{fit.stage.replace(' ', '-')}-{fit.identity}"
    with locked(fits / fit.identity, f"{fit.stage}, {own}") if team().leads else nullcontext():
        place, checkpoint, finished = team().agree(lambda: _look(fits, own, fit.identity))
        folder = Path(place)
        if finished:
            log.info("%s: already trained, %s", fit.stage, folder)
        elif team().leads or fit.processes > 1:
            fit.run(folder, Path(checkpoint) if checkpoint else None)
        team().wait()
        if team().leads:
            shutil.rmtree(resume_path(folder).parent, ignore_errors=True)  # the model stays, its optimiser's state goes
    return TrainedModel(folder, fit.cfg)


def _look(fits: Path, own: Path, identity: str) -> tuple[str, str | None, bool]:
    """Return the folder of a fit, the checkpoint to go on from, and whether it has finished."""
    folder = next(iter(sorted(fits.glob(f"*-{identity}"))), own)
    checkpoint = resume_path(folder)
    return str(folder), str(checkpoint) if checkpoint.is_file() else None, result_of(folder) is not None
