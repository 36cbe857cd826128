"""``trainer.strategy=fsdp``: a fit whose model is divided over the processes of the job."""

from __future__ import annotations

from typing import Any

from pytorch_lightning.strategies import ModelParallelStrategy
from torch import Tensor
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

from kd_lightning.apps.settings.config import Config
from kd_lightning.errors import UserError
from kd_lightning.systems import NLUSystem, is_sharded

FSDP = "fsdp"
"""The strategy's name, as Lightning's registry has it; there it is the first FSDP, of flat parameters."""


class ShardedStrategy(ModelParallelStrategy):
    """Lightning's strategy for FSDP2, over all processes; a checkpoint is one file, as with other strategies."""

    def __init__(self) -> None:
        super().__init__(tensor_parallel_size=1, save_distributed_checkpoint=False)

    def setup_environment(self) -> None:
        """Divide over all processes, of all nodes."""
        self._data_parallel_size = self.num_nodes * self.num_processes
        super().setup_environment()


def strategy_of(settings: Config) -> Any:
    """Return what Lightning's trainer takes as ``strategy``."""
    return ShardedStrategy() if settings.get("strategy") == FSDP else settings.get("strategy", "auto")


def refuse_undivided(cfg: Config, system: NLUSystem, processes: int) -> None:
    """Refuse what cannot be divided.

    Raises:
        UserError: If the fit is to be divided, and its encoder is no stack of layers, or is compiled.
    """
    if cfg["trainer"].get("strategy") != FSDP or processes == 1:
        return
    if not hasattr(system.encoder, "layers"):
        raise UserError(
            f"trainer.strategy is fsdp, which divides stacks of layers, and a {type(system.encoder).__name__} is none: "
            "use accelerator=ddp"
        )
    if cfg.get("compile") or cfg["trainer"].get("compile"):
        raise UserError("trainer.strategy is fsdp, which takes networks as they are: use compile=false")


def whole_state(system: NLUSystem) -> dict[str, Tensor]:
    """Return the parameters of a system that is divided, in the first process; all take part. Of another, nothing."""
    if not is_sharded(system):
        return {}
    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    state: Any = get_model_state_dict(system, options=options)
    return dict(state)
