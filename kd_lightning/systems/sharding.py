"""Parameters, gradients and optimiser states divided over processes, each with its part (FSDP2)."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method


def shard(system: nn.Module, encoder: nn.Module, mesh: DeviceMesh) -> None:
    """Divide a system in place: each layer of its encoder is gathered when it computes, all the rest at each step.

    Args:
        system: Its methods ``forward`` and ``training_step`` find whole parameters.
        encoder: With ``layers``, a stack of modules.
        mesh: The processes, along one dimension.

    Raises:
        ValueError: If the encoder has no such stack.
    """
    layers = getattr(encoder, "layers", None)
    if not isinstance(layers, nn.ModuleList):
        raise ValueError(f"a {type(encoder).__name__} has no stack of layers that could be divided")
    for layer in layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(system, mesh=mesh)
    register_fsdp_forward_method(system, "training_step")


def is_sharded(system: nn.Module) -> bool:
    """Tell whether a system is divided."""
    return isinstance(system, FSDPModule)


def gather(system: nn.Module) -> None:
    """Gather all parameters in every process, to stay: what follows may be of another length in each."""
    for module in _divided(system):
        module.set_reshard_after_forward(False, recurse=False)
        module.unshard()


def divide_again(system: nn.Module) -> None:
    """Give up what ``gather`` has gathered."""
    for module in _divided(system):
        module.set_reshard_after_forward(id(module) != id(system), recurse=False)
        module.reshard()


def _divided(system: nn.Module) -> Iterator[FSDPModule]:
    return (module for module in system.modules() if isinstance(module, FSDPModule))
