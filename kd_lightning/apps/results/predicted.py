"""What ``kd-predict`` has written of which model, noted in the folder of the command, and who writes it in a sweep."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from kd_lightning.apps.command_line.notes import NOTED, OF_A_SWEEP
from kd_lightning.errors import UserError
from kd_lightning.files import files_named, last_change, locked, read_json, write_json

PREDICTED = "predictions.json"
"""The file, in ``.hydra``, that says what a command was to write; its paths are as seen from the command's folder."""


@dataclass(frozen=True)
class Predicted:
    """What a command has written, or is about to.

    Args:
        folder: Of the command.
        model: The folder of the trained model.
        files: Tables, and folders of soft targets -> when they were noted; what is older there is another command's.
    """

    folder: Path
    model: Path
    files: dict[Path, float]

    @classmethod
    def read(cls, note: Path) -> Predicted:
        """Return what a command has noted.

        Raises:
            UserError: If the note is damaged.
        """
        folder = Path(os.path.realpath(note.parents[1]))
        try:
            told = read_json(note)
            files = {Path(os.path.realpath(folder / file)): float(since) for file, since in told["files"].items()}
            return cls(folder, Path(os.path.realpath(folder / told["run"])), files)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{note} cannot be read ({type(error).__name__})") from error

    def write(self) -> None:
        """Leave the note in the command's folder."""
        model, *files = (os.path.relpath(path, self.folder) for path in (self.model, *self.files))
        (self.folder / NOTED).mkdir(parents=True, exist_ok=True)
        since = dict(zip(files, self.files.values(), strict=True))
        write_json(self.folder / NOTED / PREDICTED, {"run": model, "files": since})


def note_predicted(folder: Path, model: Path, files: Sequence[Path], sweep: Path | None = None) -> None:
    """Note in a command's folder what it is about to write, beside what was written there of the same model.

    Args:
        folder: Of the command.
        model: The folder of the trained model.
        files: Tables, and folders of soft targets.
        sweep: The folder of its sweep, if it is a job of one.

    Raises:
        UserError: If another job of the sweep writes one of them: the later would replace the earlier.
    """
    own, read, *asked = (Path(os.path.realpath(path)) for path in (folder, model, *files))
    with nullcontext() if sweep is None else locked(sweep / PREDICTED, f"predictions of {sweep}"):
        if sweep is not None:
            _check_nobody_writes(asked, own, sweep)
        earlier = _earlier(own, read)
        Predicted(own, read, earlier).write()
        now = last_change(own / NOTED / PREDICTED)  # by the clock of the file's machine, as the files' own
        Predicted(own, read, earlier | dict.fromkeys(asked, now)).write()


def _earlier(folder: Path, model: Path) -> dict[Path, float]:
    """Return what a command has noted in a folder before, of the same model."""
    try:
        known = Predicted.read(folder / NOTED / PREDICTED)
    except UserError:  # there is none, or half of one
        return {}
    return {file: since for file, since in known.files.items() if known.model == model and file.exists()}


def _check_nobody_writes(files: Sequence[Path], folder: Path, sweep: Path) -> None:
    """Check that no other job of a sweep writes some files; those of an earlier sweep in its folder may have."""
    began = last_change(sweep / OF_A_SWEEP)
    for note in files_named(PREDICTED, sweep):
        try:
            theirs = Predicted.read(note)
        except UserError:  # a report says so
            continue
        taken = [file for file in files if theirs.files.get(file, -1.0) >= began]
        if taken and theirs.folder != folder:
            raise UserError(
                f"{taken[0]} is written by another job of this sweep ({theirs.folder}): with "
                "output='FOLDER/${hydra:job.num}' each has a folder of its own"
            )
