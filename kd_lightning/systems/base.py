"""What all systems share: encoder, heads, optimisation. The method is each child's training step."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from kd_lightning.batch import Batch
from kd_lightning.encoders import CompiledReading, Encoder, TokenStates, read_by_length
from kd_lightning.errors import UserError
from kd_lightning.heads import HeadFactory, build_heads, check_readers
from kd_lightning.optim import LearningRateSchedule, clip_norm, clip_values
from kd_lightning.progress import PROGRESS
from kd_lightning.systems.evaluation import EvaluatedModule
from kd_lightning.systems.loss_means import CountedLosses, LossMeans
from kd_lightning.systems.sharding import divide_again, gather, is_sharded, shard
from kd_lightning.tasks import Task


class NLUSystem(EvaluatedModule):
    """An encoder, one head per task, and everything except the training step.

    Args:
        encoder: Shared by all tasks.
        tasks: The tasks that are trained; each gets a head of its own.
        head: Builds a task's head.
        task_heads: Task -> what builds its head instead.
        optimizer: (encoder, heads) -> torch optimiser.
        scheduler: Progress in [0, 1] -> factor on the learning rate.
        reduction: ``"mean"`` over the rows of the global batch, or their ``"sum"`` as in BAM's code (there the global
            norm is clipped at 1, so the clip is nearly always active).
        seed: Dropout masks are a function of (seed, batch number, rank): an interrupted run continues to the bit.
        log_every_n_steps: How often losses go to the loggers.

    Raises:
        ValueError: If a setting is out of range, or the head does not fit the encoder.
        TypeError: If the encoder is no ``torch.nn.Module``: nothing of it would be trained, saved or evaluated rightly.
    """

    learns_from_teachers: ClassVar[bool] = False
    """Whether the training step reads soft targets."""
    has_teacher_heads: ClassVar[bool] = False
    """Whether each teacher has a head of its own: their logits come side by side, ``[n, T, C]``."""

    def __init__(
        self,
        *,
        encoder: Encoder,
        tasks: Sequence[Task],
        head: HeadFactory,
        task_heads: Mapping[str, HeadFactory] | None = None,
        optimizer: Callable[[Encoder, nn.Module], torch.optim.Optimizer],
        scheduler: LearningRateSchedule,
        reduction: Literal["mean", "sum"] = "mean",
        seed: int = 0,
        log_every_n_steps: int = 50,
    ) -> None:
        super().__init__(tasks)
        if reduction not in ("mean", "sum"):
            raise ValueError(f"reduction is '{reduction}', expected 'mean' or 'sum'")
        if log_every_n_steps < 1:
            raise ValueError(f"log_every_n_steps is {log_every_n_steps}, expected at least 1")
        if not isinstance(encoder, nn.Module):
            raise TypeError(f"the encoder is a {type(encoder).__name__}, expected a torch.nn.Module")
        self.encoder = encoder
        self.heads = build_heads(tasks, encoder.output_dim, head, task_heads)
        check_readers(self.heads, encoder)
        self.kinds = {task.name: task.kind for task in tasks}
        self.make_optimizer, self.schedule = optimizer, scheduler
        self.reduction, self.seed, self.log_every_n_steps = reduction, seed, log_every_n_steps
        self.compiled: CompiledReading | None = None
        self._losses = LossMeans([task.name for task in tasks])
        self._used: set[str] = set()  # heads since the last step

    @property
    def progress(self) -> float:
        """Optimiser steps done over the true total of the run: 0 at the first step, below 1 before the last."""
        return self.trainer.global_step / self.trainer.estimated_stepping_batches

    def encode(self, batch: Batch) -> Tensor | TokenStates:
        """Return one vector per row, ``[B, H]``; with the tokens' where a head of the batch's tasks reads them."""
        encoder: Any = self.encoder
        inputs = (batch["input_ids"], batch["attention_mask"], batch["token_type_ids"])
        if self.training and is_sharded(self):
            self._used.update(batch["tasks"])
        reads_tokens = any(getattr(self.heads[name], "reads_tokens", False) for name in batch["tasks"])
        if self.compiled is not None:
            return self.compiled.read(encoder, *inputs, tokens=reads_tokens)
        if reads_tokens:
            return encoder.tokens(*inputs)
        return encoder(*inputs) if is_sharded(self) else read_by_length(encoder, *inputs)  # as often on all ranks

    def logits(self, task: str, hidden: Tensor | TokenStates, rows: Tensor) -> Tensor:
        """Return the logits ``[n, C]`` of the task's head for the rows ``[n]`` of what ``encode`` returned.

        Heads compute in their own precision also where the encoder runs in bfloat16: they cost nothing, and rounded
        scores tie.
        """
        head = self.heads[task]
        if isinstance(hidden, TokenStates) and not getattr(head, "reads_tokens", False):
            hidden = hidden.text
        parameter = next(head.parameters())
        with torch.autocast(parameter.device.type, enabled=False):
            return head(hidden[rows].to(parameter.dtype))

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Return task -> logits ``[n, C]`` of the task's rows."""
        hidden = self.encode(batch)
        return {name: self.logits(name, hidden, rows["rows"]) for name, rows in batch["tasks"].items()}

    def reduce(self, losses: Sequence[Tensor]) -> Tensor:
        """Return the batch's loss from losses per row ``[n]``; its gradient does not depend on the number of ranks.

        Of whole questions ranks have more or fewer rows: there, it is the mean of the ranks' own means.
        """
        rows = torch.cat(list(losses))
        if is_sharded(self):  # which adds up the gradients of all heads; see on_before_optimizer_step
            rows = rows + 0.0 * torch.stack([parameter.sum() for parameter in self.heads.parameters()]).sum()
        if self.reduction == "sum":  # the gradients of ranks, and of batches that share a step, are averaged
            return rows.sum() * self.trainer.world_size * self.trainer.accumulate_grad_batches
        return rows.mean()

    def log_losses(self, tasks: Mapping[str, Mapping[str, CountedLosses]], **values: float) -> None:
        """Send mean losses per row to the loggers every ``log_every_n_steps`` steps, over all batches since the last.

        Args:
            tasks: Task -> name -> (losses ``[n]``, which rows count ``[n]``); all tasks have the same names, and train
                on the last of them.
            **values: Further scalars, the same on all ranks.
        """
        self._losses.add(tasks)
        step, last = self.trainer.global_step, self.trainer.estimated_stepping_batches - 1
        if (step % self.log_every_n_steps and step != last) or not self._ends_step:
            return
        means, loss = self._losses.take(self._sum_over_ranks)
        scalars = {f"train/{name}": value for name, value in means.items()}
        scalars |= {"train/loss": loss, "train/lr": self.trainer.optimizers[0].param_groups[-1]["lr"]}
        scalars |= {PROGRESS: self.progress, **{f"train/{name}": value for name, value in values.items()}}
        for logger in self.trainer.loggers:
            logger.log_metrics(scalars, step=step)
        self.log("loss", loss, prog_bar=True, logger=False, batch_size=1)

    @property
    def _ends_step(self) -> bool:
        """Whether this batch is the last of those that share an optimiser step."""
        number, trainer = self.trainer.fit_loop.batch_idx + 1, self.trainer
        return number % trainer.accumulate_grad_batches == 0 or trainer.is_last_batch

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the losses that are still to be logged, of all ranks, which save together."""
        checkpoint["losses"] = self._losses.state(self._sum_over_ranks)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take them up: the first rank does, for all."""
        self._losses.load(checkpoint.get("losses", {}), first=self.global_rank == 0)

    def _sum_over_ranks(self, values: Tensor) -> Tensor:
        return values if self.trainer.world_size == 1 else self.trainer.strategy.reduce(values, reduce_op="sum")

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        """Return the batch on the device; on the processor it is there already."""
        if device.type == "cpu":
            return batch
        return super().transfer_batch_to_device(batch, device, dataloader_idx)

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Seed dropout from (seed, batch number, rank)."""
        number = self.trainer.fit_loop.total_batch_idx
        value = ((self.seed * 1_000_003 + number) * 1_009 + self.global_rank) % 2**63
        torch.default_generator.manual_seed(value)  # torch.manual_seed asks every kind of device, at half a millisecond
        if self.device.type != "cpu":
            torch.manual_seed(value)

    def configure_model(self) -> None:
        """Divide the parameters over the processes, where Lightning has laid these out for it; see ``shard``."""
        if self.device_mesh is not None and not is_sharded(self):
            shard(self, self.encoder, self.device_mesh["data_parallel"])

    def on_validation_start(self) -> None:
        """Gather divided parameters: processes have more or fewer batches to evaluate."""
        gather(self)

    def on_validation_end(self) -> None:
        """Divide them again."""
        divide_again(self)

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Take the gradients of 0 from heads that no rank has used: an optimiser lets them rest, as undivided."""
        if not is_sharded(self):
            return
        used = torch.tensor([float(name in self._used) for name in self.heads], device=self.device)
        self._used.clear()
        for head, anywhere in zip(self.heads.values(), self._sum_over_ranks(used), strict=True):
            if not anywhere:
                head.zero_grad(set_to_none=True)

    @property
    def _gradients_are_scaled(self) -> bool:
        return getattr(self.trainer.precision_plugin, "scaler", None) is not None

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip the global norm of the gradient, or its numbers, at ``gradient_clip_val``.

        Lightning's own clipping knows no sparse gradients, and refuses fused optimisers under mixed precision: rightly
        with fp16 (see ``configure_optimizers``; of others the gradients are unscaled by now), needlessly with bf16.
        """
        if gradient_clip_val:
            clip = clip_values if gradient_clip_algorithm == "value" else clip_norm
            clip([p for group in optimizer.param_groups for p in group["params"]], gradient_clip_val)

    def configure_optimizers(self) -> Any:
        """Return the optimiser and the schedule over the true total of steps.

        Raises:
            UserError: If gradients are to be clipped that a fused optimiser unscales only in its own step (fp16).
        """
        optimizer = self.make_optimizer(self.encoder, self.heads)
        if self.trainer.gradient_clip_val and self._gradients_are_scaled and optimizer.param_groups[0].get("fused"):
            raise UserError(
                f"trainer.precision={self.trainer.precision} cannot clip gradients with a fused optimiser: add "
                "optimizer.optimizer.fused=false, or use bf16-mixed"
            )
        total = self.trainer.estimated_stepping_batches
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: self.schedule(step / total))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}
