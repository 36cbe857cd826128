"""Task heads: from an encoded text ``[n, H]`` (or its tokens) to logits ``[n, C]``, or to a score ``[n, 1]``."""

from kd_lightning.heads.base import HeadFactory, build_heads, check_readers
from kd_lightning.heads.linear import ClassificationHead, RegressionHead, linear_head
from kd_lightning.heads.san import SanHead, san_head
from kd_lightning.heads.siamese import SiameseHead, siamese_head
from kd_lightning.heads.teacher_heads import TeacherHeads, teacher_heads

__all__ = [
    "ClassificationHead",
    "HeadFactory",
    "RegressionHead",
    "SanHead",
    "SiameseHead",
    "TeacherHeads",
    "build_heads",
    "check_readers",
    "linear_head",
    "san_head",
    "siamese_head",
    "teacher_heads",
]
