"""Parts of speech, by NLTK's perceptron tagger."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import cache
from multiprocessing import connection
from pathlib import Path
from typing import Any

from kd_lightning.errors import UserError, first_line, to_install

QUOTES = {'"': "''", "\u201c": "``", "\u201d": "''"}
"""How the Treebank writes quotation marks; a tagger that never met one takes it for a noun."""

APOSTROPHE = "\u2019"
"""As above: the Treebank's are straight."""

TAGGER, PARTS = "averaged_perceptron_tagger_eng", ("weights", "tagdict", "classes")
INSTEAD = "python -m nltk.downloader averaged_perceptron_tagger_eng fetches it, augmenter.p_pos=0 does without"

WORDS_PER_PROCESS = 100_000
"""Below it another process costs more time to start than it saves."""


@cache
def load_tagger() -> Any:
    """Return NLTK's perceptron tagger of English, Penn Treebank tags.

    Raises:
        UserError: If NLTK or its data is absent.
    """
    folder = tagger_data()
    from nltk.tag.perceptron import PerceptronTagger

    try:
        return PerceptronTagger()
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise UserError(f"{folder} is damaged ({type(error).__name__}: {first_line(error)}); {INSTEAD}") from error


def tagger_data() -> Path:
    """Return the folder of the tagger's data.

    Raises:
        UserError: If NLTK or its data is absent.
    """
    try:
        import nltk

        found = nltk.data.find(f"taggers/{TAGGER}/")
    except ImportError as error:
        raise UserError(
            f"replacing words by their part of speech needs NLTK: {to_install('augment')}, or set augmenter.p_pos=0"
        ) from error
    except LookupError as error:
        raise UserError(
            f"the tagger's data is absent: expected NLTK's {TAGGER} in one of its folders or in $NLTK_DATA; {INSTEAD}"
        ) from error
    if not isinstance(found, str) or any(not _file(Path(found), part).is_file() for part in PARTS):
        expected = ", ".join(_file(Path(), part).name for part in PARTS)
        raise UserError(f"{found}: expected a folder with {expected}; unzip what is zipped, or: {INSTEAD}")
    return Path(found)


def tagger_fingerprint() -> str:
    """Return a hash of NLTK's version and of its tagger's data.

    Raises:
        UserError: If NLTK or its data is absent.
    """
    folder = tagger_data()
    import nltk

    digest = hashlib.sha256(nltk.__version__.encode())
    for part in PARTS:
        digest.update(hashlib.sha256(_file(folder, part).read_bytes()).digest())
    return digest.hexdigest()


def _file(folder: Path, part: str) -> Path:
    return folder / f"{TAGGER}.{part}.json"


def tags_of(texts: Sequence[list[str]]) -> list[str]:
    """Return the tags of all words of the texts, text after text."""
    tagger = load_tagger()  # once in each process
    return [
        tag
        for text in texts
        for _, tag in tagger.tag([QUOTES.get(word, word.replace(APOSTROPHE, "'")) for word in text])
    ]


class PosTagger:
    """A tagger in this process, or one in each of some processes.

    Args:
        pool: The processes, None for this one.
        workers: How many there are.
    """

    def __init__(self, pool: ProcessPoolExecutor | None, workers: int) -> None:
        self.pool, self.workers = pool, workers

    def __call__(self, texts: Sequence[list[str]]) -> list[str]:
        """Return the tags of all words of the texts, text after text."""
        if self.pool is None:
            return tags_of(texts)
        share = -(-len(texts) // self.workers)
        parts = [texts[start : start + share] for start in range(0, len(texts), share)]
        return [tag for part in self.pool.map(tags_of, parts) for tag in part]


@contextmanager
def pos_tagger(words: int) -> Iterator[PosTagger]:
    """Give a tagger for about so many words, on as many cores as are worth it.

    Raises:
        UserError: If NLTK or its data is absent.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    workers = min(cores, words // WORDS_PER_PROCESS)
    if workers < 2:
        yield PosTagger(None, 1)
        return
    tagger_data()  # what is absent is told here, not in a process
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), initializer=_end_with_parent) as pool:
        yield PosTagger(pool, workers)


def _end_with_parent() -> None:
    """Leave Ctrl-C to the parent, and end when it has ended, whatever ended it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def wait() -> None:
        connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
