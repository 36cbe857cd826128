"""What all commands share before anything heavy is imported: configs, resolvers, early checks, one-line errors."""

from __future__ import annotations

import importlib
import io
import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from kd_lightning import __version__
from kd_lightning.apps.command_line import sweeps
from kd_lightning.apps.command_line.ending import no_litter, tell_not_queued, told_in_one_line
from kd_lightning.apps.command_line.finished import skipped
from kd_lightning.apps.command_line.interrupts import interrupt_at_once, interrupt_in_one_line
from kd_lightning.apps.command_line.jobs import NotOursError
from kd_lightning.apps.command_line.notes import note_told
from kd_lightning.apps.command_line.occupied import check_is_ours
from kd_lightning.apps.command_line.one_line import in_plain_words, last_error, one_line
from kd_lightning.apps.command_line.shipped_conf import config_dir, options_of, options_with, setting_names
from kd_lightning.apps.command_line.shorthands import spelled_out
from kd_lightning.apps.command_line.sweep_end import end_of_sweep
from kd_lightning.apps.command_line.tasks_of_run import tasks_of_run
from kd_lightning.apps.command_line.workers import (
    leaving_with_launcher,
    settle_worker,
    silence_if_led,
    silent_if_led,
)
from kd_lightning.apps.processes.preemption import preemption_deferred, requeued_when_preempted
from kd_lightning.apps.processes.seat import own_seat
from kd_lightning.apps.processes.termination import ended_by_sigterm
from kd_lightning.apps.settings.early import check_early
from kd_lightning.apps.settings.wandb_key import wandb_offline
from kd_lightning.errors import UserError, to_install
from kd_lightning.fields import is_whole


def _installed_folder(package: str, folder: str, extra: str) -> str:
    """Resolve ``${installed_folder:PACKAGE,FOLDER,EXTRA}``: a folder of an installed package."""
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise UserError(f"package {package} is not installed: {to_install(extra)}")
    return str(Path(spec.origin).parent / folder)


def _number_of_devices(devices: Any) -> int:
    """Resolve ``${number_of_devices:${trainer.devices}}``: what a cluster is asked for has a number."""
    if not is_whole(devices, 1):
        raise UserError(f"trainer.devices is {devices}, but a cluster is asked for a number of them: trainer.devices=2")
    return int(devices)


OmegaConf.register_new_resolver("given", bool, replace=True)
OmegaConf.register_new_resolver("installed_folder", _installed_folder, replace=True)
OmegaConf.register_new_resolver("number_of_devices", _number_of_devices, replace=True)
OmegaConf.register_new_resolver("wandb_offline", wandb_offline, replace=True)


def quiet() -> None:
    """Keep other libraries' chatter out of our output, and idle threads off the processor; must precede their import.

    Threads that spin without end while they wait cost a second process on the same cores up to ten times its speed;
    threads that sleep at once cost a small model a third of its own. A short spin costs neither.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    for cache in ("LRU_CACHE_CAPACITY", "ONEDNN_PRIMITIVE_CACHE_CAPACITY"):
        os.environ.setdefault(cache, "64")  # torch keeps what it compiles for 1,024 shapes in bf16, with their buffers
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    os.environ.setdefault("WANDB_SILENT", "true")
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
    for name in ("pytorch_lightning", "lightning_fabric", "lightning.pytorch"):
        logging.getLogger(name).setLevel(logging.ERROR)
    for name in ("alembic", "optuna.storages", "optuna.study"):  # a search's file; Hydra says what matters
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("hydra_plugins.hydra_optuna_sweeper._impl").addFilter(in_plain_words)
    logging.getLogger("torch._subclasses.fake_tensor").setLevel(logging.WARNING)  # its counts, at the end
    logging.getLogger("filelock").setLevel(logging.WARNING)  # of the folders of others
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # each of its attempts without a network
    for name in ("huggingface_hub", "datasets"):  # they print what they say themselves; our log would say it twice
        logging.getLogger(name).propagate = False


@contextmanager
def composed_in_one_line(name: str, said: io.StringIO) -> Iterator[None]:
    """End the command with one line and exit code 2 where Hydra refuses its arguments.

    Where its launcher or sweeper stops, once jobs have begun, the command ends as a sweep does.

    Args:
        name: Of the command.
        said: What Hydra says while it composes and between the jobs of a sweep, in the place of standard error.
    """
    if "HYDRA_FULL_ERROR" not in os.environ:
        sys.stderr = said
    try:
        yield
    except SystemExit as exit_:
        if exit_.code != 1 or sys.stderr is not said:  # the configuration is right
            raise
        if any(sweep.has_jobs() for sweep in sweeps.begun):
            sweeps.begun[0].stopped = last_error(said.getvalue())
            said.truncate(said.seek(0))
            return
        arguments = sys.argv[1:]
        lookups = partial(setting_names, name, arguments), partial(options_with, name)
        message = one_line(said.getvalue(), *lookups, arguments, partial(options_of, name, arguments))
        said.truncate(said.seek(0))
        sweeps.forget()
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
        here = sys.stderr is said  # not in the process of another launcher than Hydra's own
        if here:
            sys.stderr = sys.__stderr__
        quiet()  # in a launcher's process, too
        try:
            with (
                leaving_with_launcher(),
                ended_by_sigterm(),
                requeued_when_preempted(partial(tell_not_queued, name)),
                interrupt_in_one_line(name),
                told_in_one_line(name, partial(check_is_ours, cfg), partial(note_told, cfg)),
                no_litter(),
            ):
                return _checked_and_run(name, run, cfg)
        except NotOursError:  # a job of a sweep, which is told; others follow
            return None
        finally:
            if here and HydraConfig.get().mode is RunMode.MULTIRUN:
                sys.stderr = said

    return partial(_main, name, task, said)


def _checked_and_run(name: str, run: str, cfg: DictConfig) -> Any:
    """Check a job's configuration, then import and call what runs it, unless it is skipped."""
    silence_if_led()
    check_early(cfg)
    if own_seat().size == 1 and (found := skipped(cfg)) is not None:
        return found[1]
    settle_worker()
    module, function = run.split(":")
    with preemption_deferred(), interrupt_at_once(name):
        imported = importlib.import_module(module)
    return getattr(imported, function)(cfg)


def _main(name: str, task: Callable[[], Any], said: io.StringIO) -> None:
    """Do what a console script does.

    Args:
        name: Of the command.
        task: Hydra's entry.
        said: See ``composed_in_one_line``.
    """
    if "--version" in sys.argv[1:]:
        print(f"kd_lightning {__version__}, Hydra {hydra.__version__}")
        return
    quiet()  # a user's own Hydra callbacks may import anything
    sweeps.begun.clear()
    try:
        with interrupt_in_one_line(name), ended_by_sigterm(), composed_in_one_line(name, said):
            sys.argv = silent_if_led(tasks_of_run(spelled_out(sys.argv)))
            task()
            sys.stdout.flush()
        with interrupt_in_one_line(name), ended_by_sigterm():
            end_of_sweep(name)
            sys.stdout.flush()
    except BrokenPipeError:  # who read our output has gone, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
