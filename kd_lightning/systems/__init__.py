"""The published methods, one final LightningModule each."""

from kd_lightning.systems.bam import BamStudent
from kd_lightning.systems.base import NLUSystem
from kd_lightning.systems.teacher import Teacher

__all__ = ["BamStudent", "NLUSystem", "Teacher"]
