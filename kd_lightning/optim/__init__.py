"""Optimisers, learning rates by depth and by progress, clipping."""

from kd_lightning.optim.adadelta import AdaDelta
from kd_lightning.optim.bert_adam import BertAdam
from kd_lightning.optim.clipping import clip_norm, clip_values
from kd_lightning.optim.layerwise import LayerwiseOptimizer, TorchOptimizer, has_sparse_gradients, layerwise_groups
from kd_lightning.optim.schedules import ConstantRate, LearningRateSchedule, LinearWarmup

__all__ = [
    "AdaDelta",
    "BertAdam",
    "ConstantRate",
    "LayerwiseOptimizer",
    "LearningRateSchedule",
    "LinearWarmup",
    "TorchOptimizer",
    "clip_norm",
    "clip_values",
    "has_sparse_gradients",
    "layerwise_groups",
]
