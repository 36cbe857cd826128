"""The data that the fits of one run have in common."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, field
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from kd_lightning.apps.fits.build import build
from kd_lightning.apps.fits.own_code import own_code
from kd_lightning.apps.settings.config import Config
from kd_lightning.data import Corpus, Rows
from kd_lightning.data.evaluation_rows import check_evaluation_rows
from kd_lightning.errors import UserError, did_you_mean
from kd_lightning.tasks import Task

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Shared:
    """What the fits of one run have in common: no split is opened, no vocabulary learned twice."""

    corpus: Corpus
    opened: dict[str, Rows | None] = field(default_factory=dict)
    written: dict[str, Rows] = field(default_factory=dict)
    tokenizers: dict[str, PreTrainedTokenizerBase] = field(default_factory=dict)
    told: set[str] = field(default_factory=set)

    @classmethod
    def of(cls, cfg: Config) -> Shared:
        """Return the data of a configuration, nothing of it read yet."""
        source = dict(cfg["data"])
        unlabelled, limit = source.pop("unlabelled", None), source.pop("limit", None)
        return cls(Corpus(build(source, "data"), Path(cfg["paths"]["cache"]), unlabelled, limit))

    def rows(self, task: Task, split: str) -> Rows | None:
        """Return a split's rows, opened once; a split that is evaluated must have labels.

        Raises:
            UserError: If the split is there and wrong.
        """
        asked = f"{task}/{split}"
        if asked not in self.opened:
            labelled = True if split in task.evaluation else None
            self.opened[asked] = self.corpus.rows(task, split, labelled=labelled)
            if split == "unlabelled" and self.corpus.unlabelled and self.opened[asked] is not None:
                log.info("%s: unlabelled texts are those of %s", task.name, self.corpus.where(task, split))
        return self.opened[asked]

    def optional(self, task: Task, split: str, without: str) -> Rows | None:
        """Return a split's rows; where there are none, say once what becomes of the task without them."""
        found, asked = self.rows(task, split), f"{task}/{split}"
        if found is None and asked not in self.told:
            self.told.add(asked)
            where, hint = self.corpus.where(task, split), did_you_mean(split, task.files)
            log.warning("%s: there is no split %s, expected at %s%s; %s", task.name, split, where, hint, without)
        return found

    def check_evaluation_rows(self, task: Task, split: str, rows: Rows) -> None:
        """Say once which rows count in no score, and which scores tell nothing; see the function of this name."""
        asked = f"what {task.name}/{split} tells"
        if asked not in self.told:
            check_evaluation_rows(task, split, rows)
            self.told.add(asked)

    def synthetic(self, task: Task, recipe: Config) -> Rows:
        """Return the rows that the recipe's augmenter writes from ``train``; see ``Corpus.synthetic``."""
        asked = f"{task} {json.dumps(recipe, sort_keys=True)}"
        if asked not in self.written:
            if task.kind == "ranking":
                raise UserError(f"task {task.name} ranks whole groups, which no augmenter writes: set augmenter=none")
            train = self.require(task, "train")
            found = self.corpus.synthetic(task, train, build(recipe, "augmenter"), own_code(recipe))
            log.info("%s: %s synthetic rows from %s", task.name, f"{found.count:,}", f"{train.count:,}")
            self.written[asked] = found
        return self.written[asked]

    def require(self, task: Task, split: str) -> Rows:
        """Return a split's rows, which must be there; see ``rows``."""
        found = self.rows(task, split)
        return self.corpus.require(task, split) if found is None else found  # the corpus says where it should be
