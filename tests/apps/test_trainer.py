"""The trainer of a fit: the precision that it computes in, the loggers that it always has."""

from types import SimpleNamespace

import pytest
import torch

from kd_lightning.apps.fits.sparse_gradients import refuse_sparse_gradients
from kd_lightning.apps.fits.trainer import choose_precision
from kd_lightning.errors import UserError


def settings(**trainer):
    """Return a configuration's trainer."""
    return {"trainer": {"accelerator": "auto", **trainer}}


@pytest.mark.parametrize(("fast", "expected"), [((False, False), "32-true"), ((True, False), "bf16-mixed")])
def test_auto_is_what_the_processor_computes_in(monkeypatch, fast, expected):
    """Emulated bf16 is slower than float32; float32 where bf16 is there takes twice the time."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for name, answer in zip(("_is_avx512_bf16_supported", "_is_amx_tile_supported"), fast, strict=True):
        monkeypatch.setattr(torch.cpu, name, lambda answer=answer: answer)
    assert choose_precision(settings(precision="auto")) == expected


@pytest.mark.parametrize(("ampere", "expected"), [(True, "bf16-mixed"), (False, "32-true")])
def test_auto_is_what_the_gpu_computes_in(monkeypatch, ampere, expected):
    """A T4 emulates bf16; torch's question says yes to that unless it is asked not to."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation or ampere)
    assert choose_precision(settings(precision="auto")) == expected


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_what_is_asked_for_is_taken(precision):
    assert choose_precision(settings(precision=precision)) == precision


@pytest.mark.parametrize("precision", ["16-mixed", "16-true"])
def test_half_precision_needs_a_gpu(monkeypatch, precision):
    """A traceback of Lightning's, or numbers that overflow."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(UserError, match=f"trainer.precision is {precision}: fp16 needs a GPU; use bf16-mixed"):
        choose_precision(settings(precision=precision, accelerator="cpu"))


def test_sparse_gradients_of_several_gpus_are_refused():
    """NCCL takes none, and says so in the first step, after the teachers; gloo does."""
    sparse, dense = torch.nn.Embedding(3, 2, sparse=True), torch.nn.Embedding(3, 2)

    def trainer(device, processes):
        return SimpleNamespace(world_size=processes, strategy=SimpleNamespace(root_device=torch.device(device)))

    with pytest.raises(UserError, match=r"the gradients of 2 GPUs, .*; set encoder.sparse=null"):
        refuse_sparse_gradients(trainer("cuda", 2), sparse)
    refuse_sparse_gradients(trainer("cuda", 2), dense)
    refuse_sparse_gradients(trainer("cuda", 1), sparse)
    refuse_sparse_gradients(trainer("cpu", 2), sparse)
