"""What Hydra and the system refuse, as one line for people."""

from __future__ import annotations

import difflib
import errno
import logging
import re
import shutil
from collections.abc import Callable, Iterable, Sequence

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from kd_lightning.errors import did_you_mean, to_install

CHECK_PATH = "check that the path is right, and that it can be written"

MAKE_ROOM = "make room, then the same command again"

PART = r"(?:^|(?<=/))\.([^/]+)\.\d+\.part(?=$|/)"
"""Of a path: what we call a file, or a folder, while it is written."""

ERRNO = r"\[Errno (\d+)\] ([^:\n]+)(?:: '(.+?)')?"
"""How the system's errors are written: number, what was refused, and where."""

FULL = (errno.ENOSPC, errno.EDQUOT)
"""Numbers of the errors of a disk that is full."""

EXTRAS = {
    "hydra/launcher/joblib": "joblib",
    "hydra/launcher/submitit_local": "slurm",
    "hydra/launcher/submitit_slurm": "slurm",
    "hydra/sweeper/optuna": "sweep",
}
"""Options of Hydra's plugins -> the extra that brings them."""

KINDS = {"Integer": "a whole number", "Float": "a number", "bool": "true or false", "Optional": "a value"}
"""What a setting is to be, in OmegaConf's words and in ours."""

GRAMMAR = "https://hydra.cc/docs/1.2/advanced/override_grammar/basic"
"""Where Hydra tells how arguments are written."""

SPECIAL = "letters that mean something to Hydra stand in quotes within quotes, 'NAME=\"VALUE\"'"

OTHERWISE = "over other values; hydra.sweeper.study_name=NAME begins another"

NO_TRIAL = "none of its trials has finished"

SEARCHES = {
    "Record does not exist": NO_TRIAL,
    "does not support dynamic value space": f"its study has trials {OTHERWISE}",
    "Cannot set different distribution kind": f"its study has trials {OTHERWISE}",
}
"""What Optuna says at the end of a search -> what that means."""

RAISED = r"^\w[\w.]*(?:Error|Exception)\b: ?"
"""Where a traceback ends."""


def one_line(
    message: str,
    settings: Callable[[], Iterable[str]] = tuple,
    options: Callable[[str], Sequence[str]] = lambda setting: (),
    arguments: Sequence[str] = (),
    options_of: Callable[[str], Sequence[str]] = lambda group: (),
) -> str:
    """Return Hydra's message about a wrong configuration as one line, with the nearest name if one is near.

    Args:
        message: What Hydra says.
        settings: Returns the names of the settings that there are; called only if one is not.
        options: Returns which options have a setting; called only if the chosen ones have not.
        arguments: Of the command.
        options_of: Returns the options of a group; called only if one of a list is not there.
    """
    text = message.split("Config search path:")[0].split("Set the environment variable")[0]
    found = re.search(r"Could not find '(.+?)'\s+Available options in '(.+?)':\s+(.*)", text, flags=re.DOTALL)
    if found is not None:
        group, _, name = found[1].rpartition("/")
        return no_option(group, name, found[3].split(), arguments)
    found = re.search(r"Could not load '(.+)/(.+?)'", text)
    if found is not None and (known := options_of(found[1])):
        return no_option(found[1], found[2], known, arguments)
    refused = [found for found in re.finditer(ERRNO, text) if found[3]]
    if refused:  # of a chain, the last is what one did in the end
        return os_error(OSError(int(refused[-1][1]), refused[-1][2], refused[-1][3]))
    if GRAMMAR in text and (unread := next((a for a in arguments if not _is_read(a)), None)):
        return f"the argument {unread} cannot be read; {SPECIAL}: {GRAMMAR}"
    found = re.search(r"Could not override '(.+?)'", text)
    if found is not None:
        return _not_there(found[1], settings, options)
    if not_merged := _not_merged(text):
        return not_merged
    if "Traceback (most recent call last)" in text:  # what is said at its end is all that helps
        last = list(re.finditer(RAISED, text, flags=re.MULTILINE))
        text = text[last[-1].end() :] if last else text
    line = " ".join(line.strip() for line in text.splitlines() if line.strip())
    return _in_plain_words(line.removeprefix("UserError raised while resolving interpolation: "))


def _not_merged(text: str) -> str:
    """Return what a setting is, and what it is to be, if that is what Hydra says."""
    found = re.search(
        r"Error merging override \+*(\S+?)=(.*?)\s+"
        r"(?:Value .*? (?:could not be converted to|is not a valid)|field '\S+' is not) (\w+)",
        text,
    )
    if found is not None:
        return f"{found[1]} is {found[2]}, expected {KINDS.get(found[3], found[3])}"
    found = re.search(r"Error merging override \+*(\S+?)=(.*?)\s+Cannot merge DictConfig", text, flags=re.DOTALL)
    if found is None:
        return ""
    if found[1].endswith(".task"):
        return f"{found[1]}={found[2]}: tasks are chosen by task@{found[1]}={found[2]}"
    return f"{found[1]} is {found[2]}, expected settings by their names: {found[1]}.NAME=VALUE"


def _not_there(name: str, settings: Callable[[], Iterable[str]], options: Callable[[str], Sequence[str]]) -> str:
    """Return that there is nothing of a name that could be set, and what is meant."""
    if name.startswith("teacher@"):
        where = name.removeprefix("teacher@")
        return f"{name}: teachers are chosen by {where}.members, scores too: {{NAME: {{scores: {{TASK: FILE}}}}}}"
    if "@" in name:
        return f"there is no choice {name} yet: a new one needs a + in front, +{name}=OPTION"
    if name == "experiment":
        return "experiments are kd-distill's: choose system=, encoder=, task= and their settings here"
    if name == "ckpt_path":
        return "ckpt_path is kd-train's; kd-distill goes on by itself, with the same command"
    known = list(settings())
    if re.match("hydra[./]", name):
        inside = {one[len("hydra.") :]: one for one in known if one.startswith(name[: len("hydra.")])}
        near = difflib.get_close_matches(name[len("hydra.") :], inside, n=1)
        hint = f"did you mean '{inside[near[0]]}'?" if near else "--hydra-help lists what Hydra has"
        return f"there is no setting '{name}'; {hint}"
    return f"there is no setting {_nearest(name, [one for one in known if not one.startswith('hydra')], options)}"


def _is_read(argument: str) -> bool:
    """Tell whether Hydra's grammar has an argument."""
    try:
        OverridesParser.create().parse_overrides([argument])
    except HydraException:
        return argument.startswith("-")
    return True


def last_error(text: str) -> str:
    """Return the first line of the exception that a traceback ends with."""
    raised = re.split(RAISED, text.split("Set the environment variable")[0], flags=re.MULTILINE)
    lines = [line.strip() for line in raised[-1].splitlines() if line.strip()]
    return _in_plain_words(lines[0] if lines else "it does not say why")


def _in_plain_words(line: str) -> str:
    refused = re.match(f"{ERRNO}$", line)
    if refused is not None:
        return os_error(OSError(int(refused[1]), refused[2], refused[3]))
    return next((plain for said, plain in SEARCHES.items() if said in line), line)


def in_plain_words(record: logging.LogRecord) -> bool:
    """Say of a trial that failed what that means; why is its job's to say. A filter of Optuna's sweeper."""
    if "Return value must be float-castable" in str(record.msg):
        record.msg, record.args = "Trial failed: its job has no score", ()
    return True


def no_option(group: str, name: str, known: Sequence[str], arguments: Sequence[str]) -> str:
    """Return that a group has no such option, and the nearest, or all of them.

    Args:
        group: The config group.
        name: What is asked for.
        known: Its options.
        arguments: Of the command.
    """
    if (extra := EXTRAS.get(f"{group}/{name}")) is not None:
        return f"{group}={name} needs a package that is not installed: {to_install(extra)}"
    near = difflib.get_close_matches(name, known, n=1)
    told = (a.partition("=") for a in arguments)
    key = next((key for key, _, value in told if value == name and key.partition("@")[0] == group), group)
    own = f"; one of your own needs --config-dir FOLDER, with FOLDER/{group}/{name}.yaml"
    hint = f"did you mean {key}={near[0]}?" if near else f"expected one of {', '.join(known)}{own}"
    if group.startswith("encoder") and "-" in name:
        hint += f"; on the Hub, a model's name has its owner's in front: {group}=OWNER/{name}"
    return f"no option '{name}' in the group {group}: {hint}"


def _nearest(name: str, known: Sequence[str], options: Callable[[str], Sequence[str]]) -> str:
    """Return a setting that is not there, where it would be, and which was meant."""
    group, last = name.partition(".")[0], name.rpartition(".")[2]
    if name in known:  # so it is another job of the sweep that has none
        return f"'{name}' with every option of {group} that this sweep takes: leave those out that have none"
    if group in ("teacher", "student") and not any(one.startswith(f"{group}.") for one in known):
        return f"'{name}': {group}s are kd-distill's"
    inside = [one for one in known if one.startswith(f"{group}.") and not one.endswith("_")]
    where = f" in the chosen option of {group}" if "." in name and group in known else ""
    if where and (others := options(name)):
        return f"'{name}'{where}; {', '.join(others)} {'have' if len(others) > 1 else 'has'} it"
    if where:  # optimizer.optimizer.rho for optimizer.rho
        by_last = {one.rpartition(".")[2]: one for one in inside}
        meant = [f"; did you mean '{by_last[near]}'?" for near in difflib.get_close_matches(last, by_last, n=1)]
    else:
        meant = [did_you_mean(name, known)]
    unknown = "; --help beside the same choices lists all (a new one needs a + in front)"
    return f"'{name}'{where}{''.join(meant) or unknown}"


def os_error(error: OSError) -> str:
    """Return what the system refused, and where, as one line."""
    if isinstance(error, shutil.Error) and isinstance(error.args[0], list):  # of a folder that was copied
        _, to, why = error.args[0][0]
        found = re.match(ERRNO, str(why))
        return os_error(OSError(int(found[1]), found[2], to)) if found else f"{why}: {to}; {CHECK_PATH}"
    file = error.filename2 or error.filename  # of a copy, where it was to be
    shown = re.sub(PART, r"\1", str(file or ""))
    where = f": {shown}" if shown else ""
    return f"{error.strerror or error}{where}; {MAKE_ROOM if error.errno in FULL else CHECK_PATH}"
