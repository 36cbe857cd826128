"""From rows to tokens to batches, in one direction; soft targets join by example id."""

from kd_lightning.data.collation import Part, collate
from kd_lightning.data.datamodule import MultiTaskData
from kd_lightning.data.rows import Rows
from kd_lightning.data.soft_targets import Manifest, SoftTargets, ensemble, stack
from kd_lightning.data.sources import Corpus, Embedded, Files, ParquetFolder
from kd_lightning.data.stream import EvaluationStream, TrainStream
from kd_lightning.data.tokens import TokenTable, tokenise

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
    "TokenTable",
    "TrainStream",
    "collate",
    "ensemble",
    "stack",
    "tokenise",
]
