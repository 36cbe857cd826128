"""Seconds until a command answers: its help, and two mistakes that must be found before anything heavy is loaded.

Compared: ``kd-train --help``, ``kd-train foo=1`` (no such setting), ``kd-train task=rtx`` (no such task), beside
``python -c "import torch"`` and ``python -c "import transformers, pytorch_lightning"``, which any command that loads
its libraries first would pay. Checked first: help ends with 0, the mistakes with 2 and one line that names them.
Target: below 2 s each.

    python benchmarks/startup.py
"""

from __future__ import annotations

import argparse
import statistics
import sys
from pathlib import Path

import measure
from measure import Sample

TARGET = 2.0


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    return measure.parser(__doc__)


def main() -> None:
    args = parser().parse_args()
    env = measure.environment(args.threads)
    kd_train = str(Path(sys.executable).parent / "kd-train")
    heavy = "from transformers import AutoModel; import pytorch_lightning"
    commands = {
        "kd-train --help": [kd_train, "--help"],
        "kd-train foo=1": [kd_train, "foo=1"],
        "kd-train task=rtx": [kd_train, "task=rtx"],
        "python, import torch": [sys.executable, "-c", "import torch"],
        "python, import transformers and Lightning": [sys.executable, "-c", heavy],
    }
    measure.machine(args.threads)
    for name, word, expected in (
        ("kd-train --help", "", 0),
        ("kd-train foo=1", "foo", 2),
        ("kd-train task=rtx", "rtx", 2),
    ):
        _, code, _, errors = measure.run_command(commands[name], env)  # also warms the file cache
        lines = [line for line in errors.splitlines() if line.strip()]
        if code != expected or len(lines) != bool(word) or word not in "".join(lines):
            sys.exit(f"{name}: exit code {code}, expected {expected}; it said:\n{errors}")
        print(f"{name}: exit code {code}" + "".join(f", says: {line}" for line in lines))

    def run(argv: list[str]) -> Sample:
        return measure.run_command(argv, env)[0]

    systems = {name: (lambda number, argv=argv: run(argv)) for name, argv in commands.items()}
    samples = measure.alternate(systems, args.rounds)
    measure.show("Start-up", samples, "kd-train --help")
    for name in list(commands)[:3]:
        median = statistics.median(sample.wall for sample in samples[name])
        measure.verdict(f"{name}, seconds (median)", median, TARGET, at_most=True)


if __name__ == "__main__":
    main()
