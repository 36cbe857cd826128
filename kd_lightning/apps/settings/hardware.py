"""What settings ask of the machine: half precision needs a GPU, compiling a compiler."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
import sysconfig
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from kd_lightning.errors import UserError

GPUS = ("auto", "gpu", "cuda")
"""Accelerators that take a GPU where there is one."""

DEFAULT_COMPILERS = {"darwin": "clang++", "win32": "cl"}
"""Platform -> the compiler of C++ that PyTorch takes where ``CXX`` is not set; elsewhere g++."""


def takes_gpu(accelerator: Any) -> bool:
    """Tell whether an accelerator's work is done on a GPU; torch is imported only where it has to be asked."""
    if accelerator not in GPUS:
        return False
    import torch

    return torch.cuda.is_available()


def check_precision(cfg: DictConfig, prefix: str) -> None:
    """Check that half precision (fp16) has a GPU.

    Args:
        cfg: The run's configuration.
        prefix: Where the settings of a fit stand: what comes before their names.

    Raises:
        UserError: If it has none.
    """
    where, precision = _of_trainer(cfg, prefix, "precision")
    if str(precision).startswith("16") and not takes_gpu(_of_trainer(cfg, prefix, "accelerator")[1]):
        raise no_half_precision(where, precision)


def no_half_precision(where: str, precision: Any) -> UserError:
    """Return the refusal of half precision on a processor."""
    return UserError(f"{where} is {precision}: fp16 needs a GPU; use bf16-mixed, 32-true or auto")


def check_compiler(cfg: DictConfig, prefix: str) -> None:
    """Check that PyTorch has what it compiles with, where networks are to be compiled: a compiler, Python's headers.

    Args:
        cfg: The run's configuration.
        prefix: Where the settings of a fit stand: what comes before their names.

    Raises:
        UserError: If it has not.
    """
    where, wanted = _of_trainer(cfg, prefix, "compile")
    if wanted is not True:
        return
    known = _compilers(takes_gpu(_of_trainer(cfg, prefix, "accelerator")[1]))
    headers = Path(sysconfig.get_path("include"), "Python.h")
    if not any(map(shutil.which, known)):
        missing, package = " or ".join(known), "g++"
    elif not headers.is_file():
        missing, package = str(headers), "python3-dev"
    else:
        return
    if where == "trainer.compile" and cfg.get("compile"):
        where = "compile"  # which it is taken from
    raise UserError(
        f"{where} is true: PyTorch compiles with {missing}, which is not there; install it (Debian: apt install "
        f"{package}), or set it to false"
    )


def _compilers(gpu: bool) -> list[str]:
    """Return the compilers that PyTorch would take: of C for what calls a GPU's kernels, else of C++."""
    name, default = ("CC", ["gcc", "clang", "cc"]) if gpu else ("CXX", [DEFAULT_COMPILERS.get(sys.platform, "g++")])
    given = shlex.split(os.environ.get(name, ""))[:1]
    return given or default


def _of_trainer(cfg: DictConfig, prefix: str, name: str) -> tuple[str, Any]:
    """Return where a fit's setting of the trainer stands and what it is: its own, a teacher's, or the run's."""
    places = [prefix, *["teacher."] * prefix.startswith("teacher."), ""]
    found = [(f"{place}trainer.{name}", OmegaConf.select(cfg, f"{place}trainer.{name}")) for place in places]
    return next((one for one in found if one[1] is not None), found[-1])
