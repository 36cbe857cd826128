"""What a fit is made from: tasks, rows, tokenizer, tokens."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from kd_lightning.apps.fits.build import build, build_tasks, learns_from_teachers
from kd_lightning.apps.fits.refusals import refused_by
from kd_lightning.apps.fits.shared import Shared
from kd_lightning.apps.settings.config import Config
from kd_lightning.data import Rows, TokenTable, tokenise
from kd_lightning.encoders import EncoderSpec
from kd_lightning.encoders.vocabulary import tokenizer_fingerprint
from kd_lightning.errors import UserError, did_you_mean
from kd_lightning.tasks import Task

log = logging.getLogger(__name__)


def check_unlabelled(cfg: Config) -> None:
    """Check that rows without labels are those of tasks of the run, and that its system can learn from them.

    Raises:
        UserError: If ``data.unlabelled`` names another task, or the system learns from gold labels alone.
    """
    named = cfg["data"].get("unlabelled")
    for name in named if isinstance(named, dict) else ():
        if name not in cfg["task"]:
            hint = did_you_mean(name, cfg["task"])
            raise UserError(f"data.unlabelled names the task {name}, expected some of {', '.join(cfg['task'])}{hint}")
    if named and not cfg["batching"]["unlabelled"]:
        log.warning("data.unlabelled: not read, since batching.unlabelled is false")
    if cfg["batching"]["unlabelled"] == "only" and cfg["system"].get("predicts", "soft") != "soft":
        raise UserError(
            "batching.unlabelled=only leaves no labels to the golden head, which would predict: set "
            "system.predicts=soft"
        )
    wanted = {
        "synthetic rows": ("augmenter=none", cfg["augmenter"]),
        "unlabelled rows": ("batching.unlabelled=false", cfg["batching"]["unlabelled"]),
    }
    for rows, (instead, asked) in wanted.items():
        if asked and not learns_from_teachers(cfg):
            system = cfg["system"]["_target_"].rpartition(".")[2]
            raise UserError(f"{system} learns from gold labels alone, and {rows} have none: set {instead}")


@dataclass(frozen=True)
class FitInputs:
    """Tasks, rows, tokenizer and tokens of a fit, each made when first asked for.

    Args:
        cfg: The fit's configuration.
        shared: What it has in common with the run's other fits.
        trained: The tokenizer of the model that the fit goes on from, if it does.
        untaught: The tasks that have no teacher: there, rows without labels teach nothing.
        spoken: Whose texts a new vocabulary is learned from, where others go on with it, or are compared; else its own.
    """

    cfg: Config
    shared: Shared
    trained: PreTrainedTokenizerBase | None = None
    untaught: tuple[str, ...] = ()
    spoken: tuple[FitInputs, ...] = ()

    @cached_property
    def tasks(self) -> list[Task]:
        """The tasks, in order."""
        return build_tasks(self.cfg)

    @cached_property
    def spec(self) -> EncoderSpec:
        """The recipe of the encoder, as it is configured."""
        return build(self.cfg["encoder"], "encoder")

    @cached_property
    def labelled_rows(self) -> dict[tuple[str, str], Rows]:
        """The rows to train on by (task, split) that have labels: ``train``, where it is trained on.

        Raises:
            UserError: If a task cannot be trained.
        """
        for task in self.tasks:
            if task.head is not None:
                raise UserError(f"task {task.name} is not trained: it is predicted with the head of {task.head}")
        return {
            (task.name, "train"): self.shared.require(task, "train") for task in self.tasks if self._reads_labels(task)
        }

    def _reads_labels(self, task: Task) -> bool:
        """Tell whether a task's labels are read: with a teacher they are not if unlabelled rows only are wanted."""
        return self.cfg["batching"]["unlabelled"] != "only" or task.name in self.untaught

    @cached_property
    def training_splits(self) -> list[tuple[str, str]]:
        """What is trained on, as (task, split): ``train``, ``unlabelled`` if it is wanted, ``synthetic`` if augmented.

        Where unlabelled rows ``only`` are wanted, a task that has a teacher is trained on nothing else.

        Raises:
            UserError: If a task cannot be trained, or ``unlabelled`` is wanted and no task has it.
        """
        splits = []
        wanted = self.cfg["batching"]["unlabelled"]
        taught = [task for task in self.tasks if task.name not in self.untaught]
        if wanted and taught and all(self.shared.rows(task, "unlabelled") is None for task in taught):
            self.shared.require(taught[0], "unlabelled")  # says where it should be
        for task in self.tasks:
            wants = wanted and task in taught
            more = self.shared.optional(task, "unlabelled", "it is trained without") if wants else None
            synthetic = task in taught and bool(self.cfg["augmenter"])
            found = {"train": self._reads_labels(task), "unlabelled": more is not None, "synthetic": synthetic}
            splits += [(task.name, split) for split, there in found.items() if there]
        return splits

    @cached_property
    def training_rows(self) -> dict[tuple[str, str], Rows]:
        """The rows to train on by (task, split); synthetic ones are written now if they are not there."""
        labelled, by_name = self.labelled_rows, {task.name: task for task in self.tasks}
        rows = {}
        for name, split in self.training_splits:
            if split == "train":
                rows[name, split] = labelled[name, split]
            elif split == "synthetic":
                rows[name, split] = self.shared.synthetic(by_name[name], self.cfg["augmenter"])
            else:
                rows[name, split] = self.shared.require(by_name[name], split)
        return rows

    @cached_property
    def evaluation_rows(self) -> dict[tuple[str, str], Rows]:
        """The rows to evaluate by (task, split), with labels; each task's first evaluation split must be there."""
        rows = {}
        for task in self.tasks:
            first, *others = task.evaluation
            rows[task.name, first] = self.shared.require(task, first)
            for split in others:
                more = self.shared.optional(task, split, "it is not evaluated")
                if more is not None:
                    rows[task.name, split] = more
        by_name = {task.name: task for task in self.tasks}
        for (name, split), found in rows.items():
            self.shared.check_evaluation_rows(by_name[name], split, found)
        return rows

    @property
    def rows(self) -> dict[tuple[str, str], Rows]:
        """All rows by (task, split)."""
        return {**self.training_rows, **self.evaluation_rows}

    @property
    def sizes(self) -> dict[str, int]:
        """Examples to train on by task: its rows, those of symmetric pairs twice."""
        sizes = dict.fromkeys((task.name for task in self.tasks), 0)
        doubled = {task.name: 2 if task.both_orders else 1 for task in self.tasks}
        for (name, _), rows in self.training_rows.items():
            sizes[name] += rows.count * doubled[name]
        return sizes

    @property
    def examples(self) -> int:
        """Examples to train on."""
        return sum(self.sizes.values())

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The encoder's tokenizer; a new vocabulary is learned from ``train`` splits alone, where there are some."""
        if self.trained is not None:
            return self.trained
        each = [of.labelled_rows or of.training_rows for of in self.spoken or (self,)]
        rows = [some for found in each for some in found.values()]
        key = json.dumps([self.cfg["encoder"], [some.fingerprint for some in rows]], sort_keys=True)
        if key not in self.shared.tokenizers:
            texts = (text for some in rows for text in some.texts())
            self.shared.tokenizers[key] = refused_by("encoder", self.cfg["encoder"], self.spec.tokenizer, texts)
        return self.shared.tokenizers[key]

    @cached_property
    def foreign_words(self) -> str | None:
        """What names the vocabulary, where texts of others have made it another than the fit's own would have."""
        if self.trained is not None or not self.spoken:
            return None
        own, found = (tokenizer_fingerprint(one.tokenizer) for one in (replace(self, spoken=()), self))
        return None if own == found else found

    def tokens(self, task: Task, split: str) -> TokenTable:
        """Return a split's token table; to train on, symmetric pairs get their swapped copies."""
        return token_table(
            task, split, self.rows[task.name, split], self.tokenizer, self.spec, self.cfg, swapped_copies(task, split)
        )


def swapped_copies(task: Task, split: str) -> bool:
    """Tell whether a split's pairs stand in the data in both orders: a task may ask it of those that are trained on."""
    return task.both_orders and split not in task.evaluation


def token_table(
    task: Task,
    split: str,
    rows: Rows,
    tokenizer: PreTrainedTokenizerBase,
    spec: EncoderSpec,
    cfg: Config,
    both_orders: bool,
) -> TokenTable:
    """Return rows in an encoder's tokens, from the cache if they are there."""
    table = tokenise(
        rows,
        tokenizer,
        max_length=spec.max_length,
        both_orders=both_orders,
        cache=Path(cfg["paths"]["cache"]) / "tokens",
        name=f"{task.name}-{split}",
    )
    log.debug("%s %s: %d rows, %d examples, %d at the limit", task.name, split, rows.count, len(table), table.cut)
    return table
