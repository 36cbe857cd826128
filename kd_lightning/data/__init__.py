"""From rows to tokens to batches, in one direction; soft targets join by example id."""

from kd_lightning.data.batches.collation import Part, collate
from kd_lightning.data.batches.evaluation_stream import EvaluationStream
from kd_lightning.data.batches.train_stream import TrainStream
from kd_lightning.data.corpus import Corpus
from kd_lightning.data.datamodule import MultiTaskData
from kd_lightning.data.rows import Rows
from kd_lightning.data.soft_targets.ensembles import StackedTeachers, TeacherLogits, ensemble
from kd_lightning.data.soft_targets.manifest import Manifest
from kd_lightning.data.soft_targets.table import SoftTargets
from kd_lightning.data.sources import Embedded, Files, ParquetFolder
from kd_lightning.data.tokenising import tokenise
from kd_lightning.data.tokens import TokenTable

__all__ = [
    "Corpus",
    "Embedded",
    "EvaluationStream",
    "Files",
    "Manifest",
    "MultiTaskData",
    "ParquetFolder",
    "Part",
    "Rows",
    "SoftTargets",
    "StackedTeachers",
    "TeacherLogits",
    "TokenTable",
    "TrainStream",
    "collate",
    "ensemble",
    "tokenise",
]
