"""Losses per example: pure functions with a thin module each, ``(student, teacher) -> [B]``."""

from kd_lightning.losses.gold import gold_loss
from kd_lightning.losses.kl_divergence import KLDivergence, kl_divergence
from kd_lightning.losses.logit_mse import LogitMSE, logit_mse
from kd_lightning.losses.ranking import ranking_cross_entropy, ranking_loss, top_candidates
from kd_lightning.losses.soft_cross_entropy import SoftCrossEntropy, soft_cross_entropy

__all__ = [
    "KLDivergence",
    "LogitMSE",
    "SoftCrossEntropy",
    "gold_loss",
    "kl_divergence",
    "logit_mse",
    "ranking_cross_entropy",
    "ranking_loss",
    "soft_cross_entropy",
    "top_candidates",
]
