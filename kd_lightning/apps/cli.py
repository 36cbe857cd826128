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

    GlobalHydra.instance().clear()
    where = config_dir()
    start = hydra.initialize_config_module if where.startswith("pkg://") else hydra.initialize_config_dir
    with start(where.removeprefix("pkg://"), version_base="1.3"):
        groups = GlobalHydra.instance().config_loader().list_groups("")
        options = [argument for argument in arguments if re.split("[@=]", argument)[0] in groups]
        try:
            cfg = hydra.compose(name, overrides=options)
        except HydraException:  # one of the user's own is not to be found here, and `-m` has several of a group
            cfg = hydra.compose(name)
        return list(names(OmegaConf.to_container(cfg, resolve=False), ""))


def one_line(message: str, settings: Callable[[], Iterable[str]] = tuple) -> str:
    """Return Hydra's message about a wrong configuration as one line, with the nearest name if one is near.

    Args:
        message: What Hydra says.
        settings: Returns the names of the settings that there are; called only if one is not.
    """
    text = message.split("Config search path:")[0].split("Set the environment variable")[0]
    found = re.search(r"Could not find '(.+?)'\s+Available options in '(.+?)':\s+(.*)", text, flags=re.DOTALL)
    if found is not None:
        group, _, name = found[1].rpartition("/")
        options = found[3].split()
        near = difflib.get_close_matches(name, options, n=1)
        own = f"; one of your own needs --config-dir FOLDER, with FOLDER/{group}/{name}.yaml"
        hint = f"did you mean {group}={near[0]}?" if near else f"expected one of {', '.join(options)}{own}"
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
        return f"there is no setting {_nearest(found[1], list(settings()))}"
    if "Traceback (most recent call last)" in text:  # what is said at its end is all that helps
        last = list(re.finditer(r"^\w[\w.]*(?:Error|Exception)\b: ?", text, flags=re.MULTILINE))
        text = text[last[-1].end() :] if last else text
    return " ".join(line.strip() for line in text.splitlines() if line.strip())


def _nearest(name: str, known: Sequence[str]) -> str:
    """Return a setting that is not there, where it would be, and which was meant."""
    group, last = name.partition(".")[0], name.rpartition(".")[2]
    inside = [one for one in known if one.startswith(f"{group}.") and not one.endswith("_")]
    where = f" in the chosen option of {group}" if "." in name and group in known else ""
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
        how = {"distill": "; the same command goes on from here", "train": "; ckpt_path=last goes on from here"}
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


def command(name: str, run: str) -> Callable[[], None]:
    """Return the console script ``kd-NAME``: compose ``conf/NAME.yaml``, check it, then import and call ``run``.

    Args:
        name: The primary config, also the name of the command.
        run: ``module:function`` that takes the composed config; imported only when the config is right.

    Wrong configurations and other errors of the user are one line on standard error, and exit code 2.
    """
    said = io.StringIO()  # what Hydra says while it composes

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
        sys.argv = encoder_shorthand(sys.argv)
        quiet()  # a user's own Hydra callbacks may import anything
        if "HYDRA_FULL_ERROR" not in os.environ:
            sys.stderr = said
        try:
            task()
            sys.stdout.flush()
        except BrokenPipeError:  # who read our output has gone, as `| head` does
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(1)
        except SystemExit as exit_:
            if exit_.code == 1 and sys.stderr is said:  # the configuration is wrong
                print(
                    f"kd-{name}: error: {one_line(said.getvalue(), partial(setting_names, name, sys.argv[1:]))}",
                    file=sys.__stderr__,
                )
                said.truncate(said.seek(0))
                sys.exit(2)
            raise
        finally:
            if sys.stderr is said:
                sys.stderr = sys.__stderr__
                print(said.getvalue(), end="", file=sys.stderr)

    return main
