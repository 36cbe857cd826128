"""Word vectors from a text file, as GloVe and word2vec write them."""

from __future__ import annotations

import math
import re
from collections.abc import Container, Iterable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from kd_lightning.errors import UserError
from kd_lightning.progress import track

LONGEST = 1 << 20
"""Bytes of a line: what is longer is no text of vectors."""

BOM, COMPRESSED = b"\xef\xbb\xbf", (b"\x1f\x8b", b"PK\x03\x04", b"BZh", b"\xfd7zXZ")
"""How some files begin: texts of Windows; gzip, zip, bzip2 and xz."""


def read_vectors(path: Path, words: Iterable[str]) -> tuple[int, dict[str, Tensor]]:
    """Return E, and word -> vector ``[E]`` for those of the words that the file has; memory grows with them alone.

    Each line is a word and E numbers with a space before each; as GloVe has words with spaces, the word is what stands
    before the last E of them. A first line of two whole numbers is word2vec's: how many lines follow, and E. Of words
    that are not wanted, the numbers are counted and not read.

    Args:
        path: A text file in UTF-8.
        words: The words that are wanted, spelled as in the file.

    Raises:
        UserError: If the file cannot be read, or a line does not fit; names the line, what was found and expected.
    """
    try:
        with path.open("rb") as file, track(f"read {path.name}", path.stat().st_size, "bytes") as advance:
            first = file.readline(LONGEST)
            if first.startswith(COMPRESSED):
                raise UserError(f"{path} is compressed: unpack it first, expected a text file of word vectors")
            bom = len(first) - len(first.removeprefix(BOM))
            first = first[bom:]
            header = re.fullmatch(rb"(\d+) (\d+)\s*", first)
            if not header:
                file.seek(bom)
            size = int(header[2]) if header else first.rstrip().count(b" ")
            vectors, rows = _Vectors(path, size, words), 0
            while line := file.readline(LONGEST):
                rows += 1
                vectors.add(rows + bool(header), line.rstrip(b" \r\n"))
                advance(len(line))
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}, expected a text file of word vectors") from error
    if not rows:
        raise UserError(f"{path}: found no vectors, expected a word and its numbers in each line")
    if header and rows != int(header[1]):
        raise UserError(
            f"{path}: found {rows:,} vectors, expected {int(header[1]):,} by its first line; is the file cut off?"
        )
    return size, vectors.found


def _is_vector(parts: list[bytes], wanted: Container[bytes]) -> bool:
    """Tell whether what stands before the last E numbers is a word and further numbers, and no word with spaces."""
    if parts[0] not in wanted:
        return False
    try:
        np.array(parts[1:], dtype=np.float32)
    except ValueError:
        return False
    return True


class _Vectors:
    """The vectors found so far, of a file whose lines have ``size`` numbers."""

    def __init__(self, path: Path, size: int, words: Iterable[str]) -> None:
        self.path, self.size = path, size
        self.wanted = {word.encode(): word for word in words}
        self.found: dict[str, Tensor] = {}

    def add(self, number: int, line: bytes) -> None:
        """Take the vector of a line, if its word is wanted."""
        spaces = line.count(b" ")
        word = line.partition(b" ")[0] if spaces == self.size else line.rsplit(b" ", self.size)[0]
        if self.size < 1 or spaces < self.size or not word or b"  " in line:
            expected = f"a word and {self.size} numbers" if self.size else "a word and its numbers"
            raise self._unfit(number, line, f"expected {expected} in text, with one space between them")
        if word not in self.wanted:
            if b" " in word and _is_vector(word.split(b" "), self.wanted):
                raise self._unfit(number, line, f"expected {self.size} numbers, as the file's other lines have")
            return
        if self.wanted[word] in self.found:
            raise self._unfit(number, line, "expected each word once; take this line out")
        try:
            vector = np.array(line.rsplit(b" ", self.size)[1:], dtype=np.float32)
        except ValueError as error:
            raise self._unfit(number, self._odd(line), f"expected {self.size} numbers after the word") from error
        if not np.isfinite(vector).all():
            raise self._unfit(number, self._odd(line), "expected finite numbers")
        self.found[self.wanted[word]] = torch.from_numpy(vector)

    def _odd(self, line: bytes) -> bytes:
        """Return the first of a line's numbers that is none, or not finite."""

        def is_finite(part: bytes) -> bool:
            try:
                return math.isfinite(float(part))
            except ValueError:
                return False

        return next((part for part in line.rsplit(b" ", self.size)[1:] if not is_finite(part)), line)

    def _unfit(self, number: int, line: bytes, expected: str) -> UserError:
        start = line[:40].decode(errors="replace").replace("\t", "\\t")
        return UserError(f"{self.path}, line {number}: found '{start}{'...' if len(line) > 40 else ''}', {expected}")
