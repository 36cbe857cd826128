"""The data of a fit: each rank's share, the true end of the run, and the position after a restart."""

from __future__ import annotations

from itertools import islice
from types import SimpleNamespace
from typing import Any

import pytest
import pytorch_lightning as pl
import torch

from kd_lightning.data import EvaluationStream, TrainStream
from kd_lightning.data.datamodule import run_batches
from kd_lightning.data.sampling import annealed
from kd_lightning.errors import UserError


def trainer(**settings: Any) -> Any:
    """Return what the data ask of a trainer."""
    settings = {"global_rank": 0, "world_size": 1, "max_epochs": -1, "max_steps": -1, **settings}
    return SimpleNamespace(**{"limit_train_batches": 1.0, "accumulate_grad_batches": 1, **settings})


def drawn(stream: Any, epochs: int = 1) -> list[list[int]]:
    """Return the example ids of each batch."""
    return [batch["example_id"].tolist() for _ in range(epochs) for batch in stream]


RUNS = [
    # settings of the trainer, batches of the run; the loader has 12 batches an epoch
    ({"max_epochs": 2}, 24),
    ({"max_steps": 31}, 31),
    ({"max_epochs": 2, "max_steps": 31}, 24),
    ({"max_epochs": 3, "max_steps": 31}, 31),
    ({"max_epochs": 3, "limit_train_batches": 5}, 15),
    ({"max_epochs": 2, "limit_train_batches": 100}, 24),
    ({"max_epochs": 2, "limit_train_batches": 0.55}, 12),
    ({"max_steps": 14, "limit_train_batches": 5}, 14),
    ({"max_epochs": 2, "accumulate_grad_batches": 5}, 24),
    ({"max_steps": 7, "accumulate_grad_batches": 5}, 29),
    ({"max_steps": 6, "accumulate_grad_batches": 4, "limit_train_batches": 6}, 18),
    ({"fast_dev_run": True}, 1),
    ({"overfit_batches": 2, "max_epochs": 3}, 6),
]


class Constant(pl.LightningModule):
    """A model that learns nothing and counts its batches."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.batches = torch.nn.Parameter(torch.zeros(())), 0

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        self.batches += 1
        return self.weight * 0

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Do nothing; there is nothing to evaluate."""

    def configure_optimizers(self) -> torch.optim.Optimizer:
        self.steps = self.trainer.estimated_stepping_batches
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.mark.parametrize(("settings", "batches"), [pytest.param(*run, id=str(run[0])) for run in RUNS])
def test_progress_ends_with_the_run(parts, make_data, make_trainer, settings, batches):
    """max_epochs is -1 where max_steps ends the run: an annealing that goes backwards; a limit, and it never ends."""
    progress = []

    def watched(sizes: Any, now: float) -> Any:
        progress.append(now)
        return annealed(sizes, now)

    data = make_data(parts, task_sampler=watched, batch_size=6, window=1)
    fit, model = make_trainer(**{"max_epochs": -1, **settings}), Constant()
    fit.fit(model, data)
    assert model.batches == batches
    assert fit.global_step == model.steps == data.total_steps
    assert progress[0] == 0.0
    assert max(progress) == pytest.approx((batches - 1) / batches)


def test_a_run_without_a_batch_is_refused(make_trainer):
    """A model that was never trained, with scores like any other."""
    with pytest.raises(UserError, match=r"limit_train_batches is 0\.05, expected at least one of the 12 batches"):
        run_batches(make_trainer(max_epochs=1, limit_train_batches=0.05), 12)


def test_a_run_without_end_is_refused():
    """Progress in a run of unknown length is a number that means nothing."""
    with pytest.raises(UserError, match=r"trainer\.max_epochs and trainer\.max_steps are both -1, expected one of"):
        run_batches(trainer(), 12)


def test_data_of_a_rank(parts, make_data):
    """What the stream can do and the datamodule forgets to ask for: every rank trains on rank 0's rows."""
    data = make_data(parts, epoch_rows=60)
    data.trainer = trainer(global_rank=1, world_size=2, max_epochs=3)
    settings = {name: getattr(data, name) for name in ("task_sampler", "batch_size", "window", "seed", "pad_id")}
    expected = TrainStream(parts, total_batches=18, epoch_rows=60, rank=1, world_size=2, **settings)
    found = data.train_dataloader()
    assert len(found) == len(expected) == 6
    assert drawn(found, 3) == drawn(expected, 3)
    for stream, part in zip(data.val_dataloader(), data.evaluation, strict=True):
        other = EvaluationStream(part, batch_size=16, pad_id=data.pad_id, rank=1, world_size=2)
        assert drawn(stream) == drawn(other)
        assert sum(map(len, drawn(stream))) == len(part.tokens) // 2


def test_data_resumes_loaders_made_before_and_after(parts, make_data):
    """Lightning asks for a loader before it reads the checkpoint, to count steps, and may ask again after."""
    one, two, three = (make_data(parts) for _ in range(3))
    for data in (one, two, three):
        data.trainer = trainer(max_epochs=3)
    assert one.state_dict() == {}
    first = one.train_dataloader()
    before = drawn(islice(first, 5))
    state = one.state_dict()
    early = two.train_dataloader()
    two.load_state_dict(state)
    three.load_state_dict(state)
    again = drawn(islice(one.train_dataloader(), 5))
    assert again == before  # a new loader of a run that was not resumed starts at the beginning
    following = drawn(first)
    assert len(following) == 7
    assert following[:5] != before
    assert drawn(early) == drawn(three.train_dataloader()) == following
