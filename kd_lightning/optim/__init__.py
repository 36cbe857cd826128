"""Optimisers, learning rates by depth and by progress, clipping."""

from kd_lightning.optim.adadelta import AdaDelta
from kd_lightning.optim.bert_adam import BertAdam
from kd_lightning.optim.clipping import clip_norm, clip_values
from kd_lightning.optim.layerwise import LayerwiseOptimizer, TorchOptimizer, layerwise_groups
from kd_lightning.optim.lazy_adam import LazyAdam
from kd_lightning.optim.schedules import ConstantRate, LearningRateSchedule, LinearWarmup
from kd_lightning.optim.sparse import has_sparse_gradients

__all__ = [
    "AdaDelta",
    "BertAdam",
    "ConstantRate",
    "LayerwiseOptimizer",
    "LazyAdam",
    "LearningRateSchedule",
    "LinearWarmup",
    "TorchOptimizer",
    "clip_norm",
    "clip_values",
    "has_sparse_gradients",
    "layerwise_groups",
]
