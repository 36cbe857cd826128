"""Arguments that are short for what Hydra asks for."""

from __future__ import annotations

import re
from pathlib import Path

from kd_lightning.apps.settings.names import names_quoted

OPEN = ("system.task_heads",)
"""Settings whose keys are names of the user's own: tasks, teachers, or the settings of a fit that differ."""

OPEN_IN_DISTILL = (
    "pretrain",
    "student.fine_tune",
    "teacher.ensemble.weights",
    "teacher.fine_tune",
    "teacher.members",
    "teacher.scores",
    "teacher.select",
    "teacher.system.task_heads",
    "teacher.tasks",
)


def spelled_out(argv: list[str]) -> list[str]:
    """Return the arguments of a command in the words that Hydra takes."""
    return open_shorthand(sweep_shorthand(encoder_shorthand(names_quoted(options_first(argv)))))


def options_first(argv: list[str]) -> list[str]:
    """Return the arguments with ``-m`` and ``--config-dir`` in front: behind settings Hydra knows none that follow."""
    front: list[str] = []
    rest: list[str] = []
    arguments = iter(argv[1:])
    for argument in arguments:
        if argument in ("--config-dir", "-cd"):
            front += [argument, *(value for value in [next(arguments, None)] if value is not None)]
        elif argument in ("-m", "--multirun") or argument.startswith(("--config-dir=", "-cd=")):
            front.append(argument)
        else:
            rest.append(argument)
    return [*argv[:1], *front, *rest]


def is_distill(argv: list[str]) -> bool:
    """Tell whether the command is ``kd-distill``."""
    return Path(argv[0]).name.startswith(("kd-distill", "distill"))


def encoder_shorthand(argv: list[str]) -> list[str]:
    """Return the arguments with ``encoder=OWNER/MODEL`` spelled out as ``encoder=pretrained encoder.path=...``.

    A value with a ``/`` is taken for a name or a folder (``./mine`` for one in the working directory). In
    ``kd-distill`` the teacher's encoder follows, unless it is chosen as well.
    """
    spelled = []
    for argument in argv:
        group, _, value = argument.partition("=")
        if group in ("encoder", "encoder@teacher.encoder") and "/" in value and "," not in value:
            node = "teacher.encoder" if "@" in group else "encoder"
            spelled += [f"{group}=pretrained", f"{node}.path='{value}'"]
            follows = not any(a.startswith(("encoder@teacher.encoder=", "teacher.encoder.path=")) for a in argv)
            if node == "encoder" and follows and is_distill(argv):
                spelled.append(f"teacher.encoder.path='{value}'")
        else:
            spelled.append(argument)
    return spelled


def sweep_shorthand(argv: list[str]) -> list[str]:
    """Return the arguments of a sweep in a form in which options that are swept over can have settings.

    Of ``augmenter=masking,ngrams augmenter.n_iter=2`` Hydra puts the second into a configuration without the first,
    where there is no such setting. As ``augmenter.n_iter=choice(2)``, a sweep over one value, it waits for the jobs.
    """
    if not {"-m", "--multirun"} & {*argv}:
        return argv
    swept = {group for group, _, value in (a.partition("=") for a in argv) if is_swept(value)}
    spelled = []
    for argument in argv:
        name, _, value = argument.partition("=")
        inside = "." in name and name.lstrip("+").partition(".")[0] in swept
        waits = inside and value and name[0] not in "-~" and not is_swept(value)
        spelled.append(f"{name}=choice({value})" if waits else argument)
    return spelled


def open_shorthand(argv: list[str]) -> list[str]:
    """Return the arguments with ``++`` in front of settings whose keys are free: Hydra asks for it where a key is new.

    A mapping comes beside the one that is there: ``teacher.members={more: {...}}`` adds a teacher to a recipe's.
    """
    known = (*OPEN, *OPEN_IN_DISTILL) if is_distill(argv) else OPEN
    spelled = []
    for argument in argv:
        name, equals, _ = argument.partition("=")
        free = name in known or name.startswith(tuple(f"{one}." for one in known))
        spelled.append(f"++{argument}" if equals and free else argument)  # else the value of an option: --package NAME
    return spelled


def is_swept(value: str) -> bool:
    """Tell whether a value is several: ``a,b``, ``choice(a,b)``, ``range(1,3)``; a list in brackets is one."""
    outside = re.sub(r"\[[^\]]*\]|\{[^}]*\}|'[^']*'|\"[^\"]*\"", "", value)
    return "," in outside or re.match(r"(choice|range|interval|glob)\(", value) is not None
