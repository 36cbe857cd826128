"""What it costs two processes to look for heads without gradients in each step.

Compared: ``find_unused_parameters=True``, as ``accelerator=ddp`` has it, and heads of absent tasks that take part with
a gradient of zero, which needs no search but changes what Adam does to them. An encoder of the chosen size, four tasks,
of which each process has three in a step; forward, backward and the sum over processes, no optimiser. The two take
turns step by step; ratios are of medians, and of minima.

    python benchmarks/unused_heads.py
    python benchmarks/unused_heads.py --layers 2 --hidden 64 --rows 4
"""

from __future__ import annotations

import argparse
import copy
import os
import statistics
import tempfile
import time
from typing import Any

import measure
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.multiprocessing.spawn import spawn
from torch.nn.parallel import DistributedDataParallel

TASKS = 4


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    made = measure.parser(__doc__)
    made.add_argument("--layers", type=int, default=6, help="of the encoder (%(default)s)")
    made.add_argument("--hidden", type=int, default=384, help="its size (%(default)s)")
    made.add_argument("--rows", type=int, default=8, help="of a process in a step (%(default)s)")
    made.add_argument("--length", type=int, default=32, help="tokens of a row (%(default)s)")
    made.add_argument("--steps", type=int, default=20, help="of a round (%(default)s)")
    return made


class Model(nn.Module):
    """A transformer with a head for each task.

    Args:
        args: The command line's.
        zeros: Whether heads of absent tasks take part with a gradient of zero.
    """

    def __init__(self, args: argparse.Namespace, zeros: bool = False) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(args.hidden, 4, 4 * args.hidden, dropout=0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, args.layers, enable_nested_tensor=False)
        self.heads = nn.ModuleList(nn.Linear(args.hidden, 2) for _ in range(TASKS))
        self.zeros = zeros

    def forward(self, states: Tensor, absent: int) -> Tensor:
        """Return a loss of all tasks but one."""
        text = self.encoder(states)[:, 0]
        loss = torch.stack([h(text).square().mean() for i, h in enumerate(self.heads) if i != absent]).sum()
        if self.zeros:
            loss = loss + sum(p.sum() for p in self.heads[absent].parameters()) * 0.0
        return loss


def work(rank: int, args: argparse.Namespace, place: str) -> None:
    """Train both in turns; the first process prints."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{place}", rank=rank, world_size=2)
    torch.manual_seed(0)
    searching = Model(args)
    taking_part = copy.deepcopy(searching)
    taking_part.zeros = True
    systems = {
        "search": DistributedDataParallel(searching, find_unused_parameters=True),
        "zeros": DistributedDataParallel(taking_part),
    }
    states = torch.randn(args.rows, args.length, args.hidden)
    times: dict[str, list[float]] = {name: [] for name in systems}
    for step in range(args.rounds * args.steps + 3):
        for name, system in systems.items():
            system.zero_grad(set_to_none=True)
            dist.barrier()
            began = time.perf_counter()
            system(states, (step + rank) % TASKS).backward()
            times[name].append(time.perf_counter() - began)
        if step == 0:
            for one, other in zip(searching.parameters(), taking_part.parameters(), strict=True):
                torch.testing.assert_close(one.grad, other.grad)
    if rank == 0:
        kept = {name: each[3:] for name, each in times.items()}
        print("| | median ms | minimum ms |\n| --- | ---: | ---: |")
        for name, each in kept.items():
            print(f"| {name} | {1e3 * statistics.median(each):.2f} | {1e3 * min(each):.2f} |")
        ratios = [of(kept["search"]) / of(kept["zeros"]) for of in (statistics.median, min)]
        print(f"| search / zeros | {ratios[0]:.3f} | {ratios[1]:.3f} |")
    dist.destroy_process_group()


def main() -> None:
    """Start the two processes."""
    args = parser().parse_args()
    os.environ.update(measure.ENVIRONMENT)
    with tempfile.TemporaryDirectory() as folder:
        start: Any = spawn  # untyped
        start(work, (args, f"{folder}/place"), nprocs=2)


if __name__ == "__main__":
    main()
