"""What all commands share before anything heavy is imported: configs, resolvers, early checks, one-line errors."""

from __future__ import annotations

import difflib
import importlib
import io
import logging
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from kd_lightning import __version__
from kd_lightning.apps.early import check_early
from kd_lightning.errors import UserError, did_you_mean

CHECK_PATH = "check that the path is right, and that it can be written"


def config_dir() -> str:
    """Return where the shipped configs live: in the installed package, or beside it in a bare checkout."""
    if find_spec("kd_lightning.conf") is not None:
        return "pkg://kd_lightning.conf"
    return str(Path(__file__).parents[2] / "conf")


def _installed_folder(package: str, folder: str, extra: str) -> str:
    """Resolve ``${installed_folder:PACKAGE,FOLDER,EXTRA}``: a folder of an installed package."""
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise UserError(
            f"package {package} is not installed: in the checkout, pip install -e '.[{extra}]' -c constraints.txt"
        )
    return str(Path(spec.origin).parent / folder)


def _wandb_offline() -> bool:
    """Resolve ``${wandb_offline:}``: whether no key for wandb is at hand."""
    if os.environ.get("WANDB_MODE"):
        return os.environ["WANDB_MODE"] != "online"
    netrc = Path(os.environ.get("NETRC", "~/.netrc")).expanduser()
    return not (os.environ.get("WANDB_API_KEY") or (netrc.is_file() and "wandb" in netrc.read_text(errors="ignore")))


OmegaConf.register_new_resolver("given", bool, replace=True)
OmegaConf.register_new_resolver("installed_folder", _installed_folder, replace=True)
OmegaConf.register_new_resolver("wandb_offline", _wandb_offline, replace=True)


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
    swept = {group for group, _, value in (a.partition("=") for a in argv) if _is_swept(value)}
    spelled = []
    for argument in argv:
        name, _, value = argument.partition("=")
        inside = "." in name and name.lstrip("+").partition(".")[0] in swept
        waits = inside and value and name[0] not in "-~" and not _is_swept(value)
        spelled.append(f"{name}=choice({value})" if waits else argument)
    return spelled


def _is_swept(value: str) -> bool:
    """Tell whether a value is several: ``a,b``, ``choice(a,b)``, ``range(1,3)``; a list in brackets is one."""
    outside = re.sub(r"\[[^\]]*\]|\{[^}]*\}|'[^']*'|\"[^\"]*\"", "", value)
    return "," in outside or re.match(r"(choice|range|interval|glob)\(", value) is not None


def quiet() -> None:
    """Keep other libraries' chatter out of our output, and idle threads off the processor; must precede their import.

    Threads that spin without end while they wait cost a second process on the same cores up to ten times its speed;
    threads that sleep at once cost a small model a third of its own. A short spin costs neither.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    os.environ.setdefault("WANDB_SILENT", "true")
    for name in ("pytorch_lightning", "lightning_fabric", "lightning.pytorch"):
        logging.getLogger(name).setLevel(logging.ERROR)
    for name in ("huggingface_hub", "datasets"):  # they print what they say themselves; our log would say it twice
        logging.getLogger(name).propagate = False


def setting_names(name: str, arguments: Sequence[str]) -> list[str]:
    """Return the dotted names of all settings of the command ``kd-NAME`` under the options that it was given."""

    def names(node: Any, prefix: str) -> Iterator[str]:
        for key, value in node.items() if isinstance(node, dict) else ():
            yield prefix + str(key)
            yield from names(value, f"{prefix}{key}.")

    with _composing():
        groups = GlobalHydra.instance().config_loader().list_groups("")
        options = [a for a in arguments if re.split("[@=]", a)[0] in groups and not _is_swept(a.partition("=")[2])]
        try:
            cfg = hydra.compose(name, overrides=[*_own_folder(arguments), *options])
        except HydraException:
            cfg = hydra.compose(name)
        return list(names(OmegaConf.to_container(cfg, resolve=False), ""))


def options_with(name: str, setting: str) -> list[str]:
    """Return which options of its group have a setting of the command ``kd-NAME``, as ``GROUP=OPTION``."""
    group = setting.partition(".")[0]
    with _composing():
        loader = GlobalHydra.instance().config_loader()
        found: list[str] = []
        for option in loader.get_group_options(group) if group in loader.list_groups("") else ():
            with suppress(HydraException):
                cfg = hydra.compose(name, overrides=[f"{group}={option}"])
                found += [f"{group}={option}"] * (OmegaConf.select(cfg, setting, default=found) is not found)
        return found


@contextmanager
def _composing() -> Iterator[None]:
    """Let Hydra compose the shipped configurations."""
    GlobalHydra.instance().clear()
    where = config_dir()
    start = hydra.initialize_config_module if where.startswith("pkg://") else hydra.initialize_config_dir
    with start(where.removeprefix("pkg://"), version_base="1.3"):
        yield


def _own_folder(arguments: Sequence[str]) -> list[str]:
    """Return what lets Hydra find the options of ``--config-dir FOLDER``."""
    for i, argument in enumerate(arguments):
        flag, _, value = argument.partition("=")
        if flag in ("--config-dir", "-cd"):
            folder = value or "".join(arguments[i + 1 : i + 2])
            return [f"hydra.searchpath=['file://{Path(folder).absolute()}']"]
    return [argument for argument in arguments if argument.startswith("hydra.searchpath=")]


def one_line(
    message: str,
    settings: Callable[[], Iterable[str]] = tuple,
    options: Callable[[str], Sequence[str]] = lambda setting: (),
    arguments: Sequence[str] = (),
) -> str:
    """Return Hydra's message about a wrong configuration as one line, with the nearest name if one is near.

    Args:
        message: What Hydra says.
        settings: Returns the names of the settings that there are; called only if one is not.
        options: Returns which options have a setting; called only if the chosen ones have not.
        arguments: Of the command.
    """
    text = message.split("Config search path:")[0].split("Set the environment variable")[0]
    found = re.search(r"Could not find '(.+?)'\s+Available options in '(.+?)':\s+(.*)", text, flags=re.DOTALL)
    if found is not None:
        group, _, name = found[1].rpartition("/")
        known = found[3].split()
        near = difflib.get_close_matches(name, known, n=1)
        own = f"; one of your own needs --config-dir FOLDER, with FOLDER/{group}/{name}.yaml"
        told = (a.partition("=") for a in arguments)
        key = next((key for key, _, value in told if value == name and key.partition("@")[0] == group), group)
        hint = f"did you mean {key}={near[0]}?" if near else f"expected one of {', '.join(known)}{own}"
        if group.startswith("encoder") and "-" in name:
            hint += f"; on the Hub, a model's name has its owner's in front: {group}=OWNER/{name}"
        return f"no option '{name}' in the group {group}: {hint}"
    found = re.search(r"\[Errno \d+\] (.+?): '(.+?)'", text)
    if found is not None:
        return f"{found[1]}: {found[2]}; {CHECK_PATH}"
    found = re.search(r"Could not override '(.+?)'", text)
    if found is not None and found[1] == "experiment":
        return "experiments are kd-distill's: choose system=, encoder=, task= and their settings here"
    if found is not None:
        return f"there is no setting {_nearest(found[1], list(settings()), options)}"
    if "Traceback (most recent call last)" in text:  # what is said at its end is all that helps
        last = list(re.finditer(r"^\w[\w.]*(?:Error|Exception)\b: ?", text, flags=re.MULTILINE))
        text = text[last[-1].end() :] if last else text
    return " ".join(line.strip() for line in text.splitlines() if line.strip())


def _nearest(name: str, known: Sequence[str], options: Callable[[str], Sequence[str]]) -> str:
    """Return a setting that is not there, where it would be, and which was meant."""
    group, last = name.partition(".")[0], name.rpartition(".")[2]
    if name in known:  # so it is another job of the sweep that has none
        return f"'{name}' with every option of {group} that this sweep takes: leave those out that have none"
    inside = [one for one in known if one.startswith(f"{group}.") and not one.endswith("_")]
    where = f" in the chosen option of {group}" if "." in name and group in known else ""
    if where and (others := options(name)):
        return f"'{name}'{where}; it is one of {', '.join(others)}"
    if where:  # optimizer.optimizer.rho for optimizer.rho
        by_last = {one.rpartition(".")[2]: one for one in inside}
        meant = [f"; did you mean '{by_last[near]}'?" for near in difflib.get_close_matches(last, by_last, n=1)]
    else:
        meant = [did_you_mean(name, known)]
    unknown = "; --help beside the same choices lists all (a new one needs a + in front)"
    return f"'{name}'{where}{''.join(meant) or unknown}"


def os_error(error: OSError) -> str:
    """Return what the system refused, and where, as one line."""
    where = f": {error.filename}" if error.filename else ""
    return f"{error.strerror or error}{where}; {CHECK_PATH}"


@contextmanager
def told_in_one_line(name: str) -> Iterator[None]:
    """End the command with one line and exit code 2 where the block meets a mistake of the user, or of the disk.

    An interrupt (Ctrl-C) is one line, too, and exit code 130, as shells count it.
    """
    try:
        yield
    except KeyboardInterrupt:
        where = "goes on from the last checkpoint"
        how = {"distill": f"; the same command {where}", "train": f"; ckpt_path=last {where}"}
        print(f"kd-{name}: interrupted{how.get(name, '')}", file=sys.stderr)
        sys.exit(130)
    except UserError as error:
        print(f"kd-{name}: error: {error}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        if isinstance(error, BrokenPipeError) or "HYDRA_FULL_ERROR" in os.environ:
            raise
        print(f"kd-{name}: error: {os_error(error)}", file=sys.stderr)
        sys.exit(2)


@contextmanager
def no_litter() -> Iterator[None]:
    """Take a run's folder away if the command fails before it wrote anything there; those of a sweep stay."""
    try:
        yield
    except (UserError, OSError):
        now = HydraConfig.get()
        folder = Path(now.runtime.output_dir)
        hydras = {".hydra", f"{now.job.name}.log"}
        if now.mode is RunMode.RUN and folder != Path.cwd() and {path.name for path in folder.iterdir()} <= hydras:
            shutil.rmtree(folder, ignore_errors=True)
            with suppress(OSError):
                folder.parent.rmdir()  # of the experiment, if it was its first run
        raise


@contextmanager
def composed_in_one_line(name: str, said: io.StringIO) -> Iterator[None]:
    """End the command with one line and exit code 2 where Hydra refuses its arguments.

    Args:
        name: Of the command.
        said: What Hydra says while it composes, in the place of standard error.
    """
    if "HYDRA_FULL_ERROR" not in os.environ:
        sys.stderr = said
    try:
        yield
    except SystemExit as exit_:
        if exit_.code != 1 or sys.stderr is not said:  # the configuration is right
            raise
        arguments = sys.argv[1:]
        lookups = partial(setting_names, name, arguments), partial(options_with, name)
        message = one_line(said.getvalue(), *lookups, arguments)
        said.truncate(said.seek(0))
        print(f"kd-{name}: error: {message}", file=sys.__stderr__)
        sys.exit(2)
    except ValueError as error:
        if not str(error).startswith("Only one of --"):
            raise
        print(f"kd-{name}: error: {error}", file=sys.__stderr__)
        sys.exit(2)
    finally:
        if sys.stderr is said:
            sys.stderr = sys.__stderr__
            print(said.getvalue(), end="", file=sys.stderr)


def command(name: str, run: str) -> Callable[[], None]:
    """Return the console script ``kd-NAME``: compose ``conf/NAME.yaml``, check it, then import and call ``run``.

    Args:
        name: The primary config, also the name of the command.
        run: ``module:function`` that takes the composed config; imported only when the config is right.

    Wrong configurations and other errors of the user are one line on standard error, and exit code 2.
    """
    said = io.StringIO()

    @hydra.main(version_base="1.3", config_path=config_dir(), config_name=name)
    def task(cfg: DictConfig) -> Any:
        if sys.stderr is said:
            sys.stderr = sys.__stderr__
        with told_in_one_line(name), no_litter():
            check_early(cfg)
            quiet()  # in a launcher's process, too
            module, function = run.split(":")
            return getattr(importlib.import_module(module), function)(cfg)

    def main() -> None:
        if "--version" in sys.argv[1:]:
            print(f"kd_lightning {__version__}, Hydra {hydra.__version__}")
            return
        sys.argv = sweep_shorthand(encoder_shorthand(sys.argv))
        quiet()  # a user's own Hydra callbacks may import anything
        try:
            with composed_in_one_line(name, said):
                task()
                sys.stdout.flush()
        except BrokenPipeError:  # who read our output has gone, as `| head` does
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(1)

    return main
