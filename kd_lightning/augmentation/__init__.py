"""Synthetic texts from the training texts, for teachers to score and students to learn from."""

from kd_lightning.augmentation.base import Augmenter
from kd_lightning.augmentation.rule_augmenter import RuleAugmenter
from kd_lightning.augmentation.spellings import MASKED, texts_of

__all__ = ["MASKED", "Augmenter", "RuleAugmenter", "texts_of"]
