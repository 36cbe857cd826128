"""Arguments that are short for what Hydra asks for."""

from __future__ import annotations

import re
from pathlib import Path


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
            if node == "encoder" and follows and Path(argv[0]).name.startswith(("kd-distill", "distill")):
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


def is_swept(value: str) -> bool:
    """Tell whether a value is several: ``a,b``, ``choice(a,b)``, ``range(1,3)``; a list in brackets is one."""
    outside = re.sub(r"\[[^\]]*\]|\{[^}]*\}|'[^']*'|\"[^\"]*\"", "", value)
    return "," in outside or re.match(r"(choice|range|interval|glob)\(", value) is not None
