"""What can be wrong with teachers as a whole: scores that are missing, models that are there twice."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence

from kd_lightning.apps.fits.fit import Fit
from kd_lightning.apps.fits.inputs import FitInputs
from kd_lightning.apps.settings.stages import who_teaches
from kd_lightning.apps.stages.given_scores import GivenScores
from kd_lightning.apps.stages.teaching import is_stored
from kd_lightning.apps.stages.variants import Member
from kd_lightning.errors import UserError
from kd_lightning.tasks import Task

log = logging.getLogger(__name__)


def check_given_scores(inputs: FitInputs, teachers: Sequence[Member]) -> None:
    """Check that given scores are there for all rows that they teach or are compared by.

    Args:
        inputs: The run's tasks and rows.
        teachers: Some of whom may have said it all already.

    Raises:
        UserError: If scores are missing, or are of other rows.
    """
    by_name, taught = {task.name: task for task in inputs.tasks}, who_teaches(inputs.cfg)
    for member in teachers:
        given = member.scores
        if given is None:
            continue
        own = [task for task in inputs.tasks if member.name in taught.get(task.name, ())]
        _check_splits(inputs, member, given, own)
        asked = {key: rows for key, rows in inputs.training_rows.items() if by_name[key[0]] in own}
        for (name, split), rows in {**asked, **inputs.evaluation_rows}.items():
            if given.knows(name, split) and not is_stored(given, by_name[name], split, rows):
                given.check(by_name[name], split, rows)


def _check_splits(inputs: FitInputs, member: Member, given: GivenScores, taught: Sequence[Task]) -> None:
    """Check that there are files of the splits that a member teaches, and of those by which teachers are compared."""
    where, own = f"teacher.members.{member.name}.scores", inputs.cfg["teacher"]
    compared = own["select"] is not None or own["ensemble"]["weights"] == "score"
    for task in taught:
        for split in (split for name, split in inputs.training_rows if name == task.name):
            if not given.knows(task.name, split):
                raise UserError(
                    f"{where}.{task.name} has no file of the split {split}, which is trained: {{{split}: FILE}}"
                )
        first = task.evaluation[0]
        if compared and not given.knows(task.name, first):
            raise UserError(
                f"{where}.{task.name} has no file of the split {first}, by which teachers are compared: give "
                f"{{{first}: FILE}}, or teacher.ensemble.weights=equal and teacher.select=null"
            )


def check_members(teachers: Sequence[Member], baselines: Iterable[Fit]) -> None:
    """Check that no model is two members of an ensemble, under the names of both; tell if one is the baseline.

    Args:
        teachers: The members.
        baselines: The students without a teacher.

    Raises:
        UserError: If one is.
    """
    seen: dict[str, str] = {}
    for member in teachers:
        given = [member.scores.identity] if member.scores else []
        for identity in [*(fit.identity for fit in member.fits), *given]:
            other = seen.setdefault(identity, member.name)
            if other != member.name:
                both = f"{other} and {member.name} are the same model"
                raise UserError(f"teacher.members: {both}: change one of them (its seed), or leave it out")
    for fit in baselines:
        if fit.identity in seen:
            teacher = f"the teacher {seen[fit.identity]}".strip()
            log.warning("%s is the baseline itself: give it another seed, or the gain is that over a teacher", teacher)
