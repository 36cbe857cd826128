"""The published methods, one final LightningModule each."""

from kd_lightning.systems.bam import BamStudent
from kd_lightning.systems.base import NLUSystem
from kd_lightning.systems.bilstm import BiLstmStudent
from kd_lightning.systems.mt_dnn_kd import MtDnnKdStudent
from kd_lightning.systems.sharding import is_sharded
from kd_lightning.systems.teacher import Teacher
from kd_lightning.systems.tmkd import TmkdStudent

__all__ = ["BamStudent", "BiLstmStudent", "MtDnnKdStudent", "NLUSystem", "Teacher", "TmkdStudent", "is_sharded"]
