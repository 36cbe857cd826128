"""What ``kd-predict`` has written of which model, noted in the folder of the command, and who writes it in a sweep."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kd_lightning.apps.command_line.notes import NOTED
from kd_lightning.errors import UserError
from kd_lightning.files import files_named, last_change, read_json, write_json

PREDICTED = "predictions.json"
"""The file, in ``.hydra``, that says what a command was to write; its paths are as seen from the command's folder."""


@dataclass(frozen=True)
class Predicted:
    """What a command has written, or is about to.

    Args:
        folder: Of the command.
        model: The folder of the trained model.
        files: Tables, and folders of soft targets.
        since: When it was noted; what is older there is another command's.
    """

    folder: Path
    model: Path
    files: list[Path]
    since: float

    @classmethod
    def read(cls, note: Path) -> Predicted:
        """Return what a command has noted.

        Raises:
            UserError: If the note is damaged.
        """
        folder, since = note.parents[1], last_change(note)
        try:
            told = read_json(note)
            files = [(folder / file).resolve() for file in told["files"]]
            return cls(folder, (folder / told["run"]).resolve(), files, since)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{note} cannot be read ({type(error).__name__})") from error


def note_predicted(folder: Path, model: Path, files: Sequence[Path], sweep: Path | None = None) -> None:
    """Note in a command's folder what it is about to write, before it does.

    Args:
        folder: Of the command.
        model: The folder of the trained model.
        files: Tables, and folders of soft targets.
        sweep: The folder of its sweep, if it is a job of one.

    Raises:
        UserError: If another job of the sweep writes one of them: the later would replace the earlier.
    """
    own, note = os.path.realpath(folder), folder / NOTED / PREDICTED
    seen = [os.path.relpath(os.path.realpath(path), own) for path in (model, *files)]
    note.parent.mkdir(parents=True, exist_ok=True)
    write_json(note, {"run": seen[0], "files": seen[1:]})
    if sweep is None:
        return
    ours = Predicted.read(note)
    for other in files_named(PREDICTED, sweep):
        theirs = Predicted.read(other)
        earlier = (theirs.since, str(theirs.folder)) < (ours.since, str(ours.folder))
        if earlier and theirs.folder.resolve() != Path(own) and (taken := {*theirs.files} & {*ours.files}):
            note.unlink()
            raise UserError(
                f"{min(taken)} is written by another job of this sweep ({theirs.folder}): with "
                "output='FOLDER/${hydra:job.num}' each has a folder of its own"
            )
