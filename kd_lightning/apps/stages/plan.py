"""What a distillation trains, in order, and the checks of all of it before the first fit."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

from kd_lightning.apps.fits.build import learns_from_teachers, system_class
from kd_lightning.apps.fits.fit import Fit
from kd_lightning.apps.fits.fit_checks import check_fit, warn_of_few_steps
from kd_lightning.apps.fits.inputs import FitInputs, check_unlabelled
from kd_lightning.apps.fits.shared import Shared
from kd_lightning.apps.fits.start import Shapes, check_kept_heads
from kd_lightning.apps.settings.config import Config
from kd_lightning.apps.settings.first_stage import first_stage
from kd_lightning.apps.settings.stages import teachers_heard, who_teaches
from kd_lightning.apps.stages.member_checks import check_given_scores, check_members
from kd_lightning.apps.stages.teachers import keeps_heads
from kd_lightning.apps.stages.variants import Member, baseline_fits, fine_tuned_students, members, student_fits
from kd_lightning.encoders import Encoder
from kd_lightning.errors import UserError, told_in
from kd_lightning.tasks import Task

log = logging.getLogger(__name__)


def _check_teacher_heads(cfg: Config) -> None:
    """Check that several teachers have a head each, or a mean."""
    system, several = system_class(cfg), max(teachers_heard(cfg).values()) > 1
    if system.learns_from_teachers and several and not system.has_teacher_heads:
        raise UserError(
            f"teacher.ensemble.mean is null, but {system.__name__} hears one teacher: expected probabilities or "
            "logits, or system=tmkd, which has a head for each"
        )


@dataclass(frozen=True)
class Plan:
    """The fits of a distillation, in the order in which they are trained.

    Args:
        inputs: Settings, tasks and rows of the whole run.
        teachers: The members of the ensemble, or the only teacher; none of a system that learns from labels alone.
        students: One per task, or one of all tasks; their soft targets are still to come.
        fine_tuned: Task -> the fit that goes on from its student, on this task alone.
        first: The distillation before it, from whose student the encoders of this one's go on; mostly None.
        where: Where its settings stand in the command's, for messages: ``pretrain.``, or nowhere.
    """

    inputs: FitInputs
    teachers: list[Member]
    students: list[Fit]
    fine_tuned: dict[str, Fit]
    first: Plan | None = None
    where: str = ""

    @classmethod
    def of(cls, cfg: Config) -> Plan:
        """Return the plan of a configuration."""
        check_unlabelled(cfg)
        shared = Shared.of(cfg)
        learns = learns_from_teachers(cfg)
        _check_teacher_heads(cfg)
        if learns and all(
            node["_target_"].endswith(".NewBiLstm") for node in (cfg["encoder"], cfg["teacher"]["encoder"])
        ):
            log.info("the teacher is a BiLSTM, too; encoder@teacher.encoder=minilm, for example, is another")
        untaught = tuple(name for name in cfg["task"] if learns and name not in who_teaches(cfg))
        inputs = FitInputs(cfg, shared, untaught=untaught)
        first = cls._first_of(cfg) if cfg["pretrain"] else None
        plan = cls(
            inputs,
            list(members(inputs)) if learns else [],
            list(student_fits(cfg, shared, untaught)),
            fine_tuned_students(cfg, "student", shared),
            first,
        )
        return plan._of_one_vocabulary(first) if first else plan

    @classmethod
    def _first_of(cls, cfg: Config) -> Plan:
        with told_in("pretrain"):
            plan = cls.of(first_stage(cfg))
        students = [replace(fit, stage=f"pretrain {fit.stage}") for fit in plan.students]
        return replace(plan, students=students, where="pretrain.")

    def _of_one_vocabulary(self, first: Plan) -> Plan:
        """Return the plan with students, of both stages, that have the words of both: the second goes on with them."""
        spoken = (first.inputs, self.inputs)
        before, after = ([replace(fit, spoken=spoken) for fit in plan.students] for plan in (first, self))
        return replace(self, students=after, first=replace(first, students=before))

    @cached_property
    def baselines(self) -> list[Fit]:
        """The students without a teacher; none without teachers. Their budget counts the synthetic rows: write them."""
        inputs = self.inputs
        wanted = self.teachers and inputs.cfg["baseline"]
        for task in self.taught if wanted else ():
            if inputs.shared.rows(task, "train") is None and inputs.cfg["batching"]["unlabelled"] == "only":
                raise UserError(
                    f"task {task.name} has no train split, whose labels the baseline would learn from: add "
                    "baseline=false"
                )
        spoken = self.students[0].spoken
        fits = baseline_fits(inputs.cfg, inputs.shared, inputs.untaught) if wanted else ()
        return [replace(fit, spoken=spoken) for fit in fits]

    @cached_property
    def fine_tuned_baselines(self) -> dict[str, Fit]:
        """Task -> the fit that goes on from its baseline."""
        return fine_tuned_students(self.inputs.cfg, "baseline", self.inputs.shared) if self.baselines else {}

    @property
    def teacher_fits(self) -> list[Fit]:
        """The fits of the teachers, before they are fine-tuned."""
        return [fit for member in self.teachers for fit in member.fits]

    @property
    def taught(self) -> list[Task]:
        """The tasks that have a teacher."""
        return [task for task in self.inputs.tasks if self.teachers and task.name not in self.inputs.untaught]

    def __iter__(self) -> Iterator[Fit]:
        """Yield the fits, the baselines last."""
        yield from self.fits_of_teachers_and_students()
        yield from self.baselines
        yield from self.fine_tuned_baselines.values()

    def fits_of_teachers_and_students(self) -> Iterator[Fit]:
        """Yield the fits without the baselines, for which texts may have to be written."""
        for member in self.teachers:
            yield from member.fits
            yield from member.fine_tuned.values()
        yield from self.students
        yield from self.fine_tuned.values()

    @cached_property
    def processes(self) -> int:
        """The number of processes that the job needs: its fits have one, or as many as any other.

        Raises:
            UserError: If two fits need different numbers.
        """
        wanted: dict[int, str] = {}
        if self.first:
            with told_in("pretrain"):
                wanted[self.first.processes] = "pretrain"
        for fit in self.fits_of_teachers_and_students():  # a baseline has the processes of its student
            with fit.told_where():
                wanted[fit.processes] = fit.stage
        wanted.pop(1, None)
        if len(wanted) > 1:
            (few, one), (many, other), *_ = sorted(wanted.items())
            raise UserError(
                f"trainer.devices: {one} is trained by {few} processes and {other} by {many}, expected one process, or "
                "as many as any other"
            )
        return next(iter(wanted), 1)

    def check(self) -> None:
        """Tell mistakes of any fit before the first is trained.

        Raises:
            UserError: If data or settings of a fit are wrong.
        """
        if self.first:
            with told_in("pretrain"):
                self.first.check()
        check_given_scores(self.inputs, self.teachers)
        encoders: dict[str, Encoder] = {}
        heads: dict[str, Shapes] = {}
        for fit in self:
            with fit.told_where():
                heads[fit.stage] = check_fit(fit, encoders)
        check_members(self.teachers, self.baselines)
        for begun, tuned, where in self._continued():
            if keeps_heads(self.inputs.cfg[where]["fine_tune"]):
                check_kept_heads(f"{where}.fine_tune", heads[begun.stage], heads[tuned.stage])

    def warn_of_few_steps(self) -> None:
        """Say which fits are too short to expect anything of them; a teacher of both stages is one of the second's."""
        own = {fit.identity for fit in self.teacher_fits}
        for fit in [*self.teacher_fits, *self.students]:
            warn_of_few_steps(fit)
        for fit in [*self.first.teacher_fits, *self.first.students] if self.first else ():
            if fit.identity not in own:
                warn_of_few_steps(fit, self.first.where if self.first else "")

    def _continued(self) -> Iterator[tuple[Fit, Fit, str]]:
        """Yield each fit that another goes on from, that other, and whose settings these are."""
        stages: list[tuple[str, Iterable[Fit], Mapping[str, Fit]]] = [
            *(("teacher", member.fits, member.fine_tuned) for member in self.teachers),
            ("student", self.students, self.fine_tuned),
            ("student", self.baselines, self.fine_tuned_baselines),
        ]
        for where, fits, fine_tuned in stages:
            begun = {task.name: fit for fit in fits for task in fit.inputs.tasks}
            for task, tuned in fine_tuned.items():
                yield begun[task], tuned, where
