"""Which networks are compiled: those of fits whose settings ask for it, where PyTorch can."""

from __future__ import annotations

import logging

from transformers import PreTrainedTokenizerBase

from kd_lightning.apps.settings.config import Config
from kd_lightning.encoders import EncoderSpec
from kd_lightning.encoders.compiled import CompiledReading, can_be_compiled
from kd_lightning.systems import NLUSystem

log = logging.getLogger(__name__)


def compiled_reading(
    cfg: Config,
    system: NLUSystem,
    spec: EncoderSpec,
    tokenizer: PreTrainedTokenizerBase,
    *,
    stage: str,
    processes: int = 1,
) -> CompiledReading | None:
    """Return what reads batches with a system's encoder compiled; None where it is not asked for, or impossible.

    Args:
        cfg: The fit's configuration.
        system: Its system.
        spec: The recipe of its encoder.
        tokenizer: What the encoder reads.
        stage: What the fit is called, in the log.
        processes: That share a training batch.
    """
    if not cfg["trainer"].get("compile"):
        return None
    if not can_be_compiled(system.encoder):
        log.info("%s: compile=true: PyTorch compiles no LSTM, this encoder is not compiled", stage)
        return None
    batching = cfg["batching"]
    found = CompiledReading(
        rows=batching["batch_size"] // processes,
        evaluation_rows=batching["eval_batch_size"],
        max_length=spec.max_length,
        pad_id=tokenizer.pad_token_id,
    )
    lengths = ", ".join(map(str, found.lengths))
    log.info("%s: compiled when first needed, for texts of %s tokens", stage, lengths)
    return found
