"""Training on gold labels alone: the teachers, and the Single and Multi baselines of BAM's table 1."""

from __future__ import annotations

from torch import Tensor

from kd_lightning.batch import Batch
from kd_lightning.systems.base import NLUSystem
from kd_lightning.systems.task_losses import task_gold_loss


class Teacher(NLUSystem):
    """Fine-tune an encoder with one head per task on gold labels.

    The loss is the unweighted sum (or mean) over the rows of all tasks; see ``NLUSystem`` for the arguments.

    Source: Clark et al. 2019 (BAM), arXiv:1907.04829, section 2 (multi-task objective).
    """

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the loss of the batch against gold labels."""
        hidden = self.encode(batch)  # [B, H]
        losses, logged = [], {}
        for name, rows in batch["tasks"].items():
            logits = self.logits(name, hidden, rows["rows"])  # [n, C]
            gold = task_gold_loss(self.kinds[name], logits, rows["labels"], rows["group"], rows["has_label"])  # [n]
            losses.append(gold * rows["has_label"])
            logged[name] = {"gold_loss": (gold, rows["has_label"])}
        self.log_losses(logged)
        return self.reduce(losses)
