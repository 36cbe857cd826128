"""Some rows of a source, column by column, as they stand there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import pyarrow as pa

from kd_lightning.errors import UserError, did_you_mean

Column: TypeAlias = "Sequence[Any] | pa.Array"


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """Some rows of a source, column by column, as they stand there: nothing is checked yet.

    Args:
        columns: Column name -> values, all of one length.
        source: What errors call the source: the path of a file.
        first: Number of the first row, counted from 0 over the whole source.
        places: Where each row stands: the line on which it starts (from 1), or its row number (from 0).
        unit: What ``places`` counts, ``"line"`` or ``"row"``.
        classes: Column name -> names of its integer classes, where the source states them.
    """

    columns: Mapping[str, Column]
    source: str
    first: int
    places: Sequence[int]
    unit: str
    classes: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def place(self, row: int) -> str:
        """Return where row number ``row`` of this chunk stands, as in "line 7"."""
        return f"{self.unit} {self.places[row]}"

    def value(self, row: int, column: str) -> Any:
        """Return a value as a Python object; text that is not UTF-8 comes back as bytes."""
        values = self.columns[column]
        if not isinstance(values, pa.Array):
            return values[row]
        try:
            return values[row].as_py()
        except UnicodeDecodeError:
            return values[row].cast(pa.binary()).as_py()

    def error(self, row: int, column: str, text: str) -> UserError:
        """Return the error that names source, place and column before ``text``."""
        return UserError(f"{self.source}, {self.place(row)}, column '{column}': {text}")


def check_header(found: Sequence[str], names: Sequence[str], source: str) -> None:
    """Check that every named column is there, and none twice.

    Raises:
        UserError: If a column is missing (lists those found) or stands twice.
    """
    for name in found:
        if found.count(name) > 1:
            raise UserError(f"{source}: found {found.count(name)} columns '{name}', expected one; rename the others")
    for name in names:
        if name not in found:
            listed = ", ".join(map(repr, found)) or "none"
            hint = did_you_mean(name, found) or "; rename a column, or name another in the task"
            if len(found) == 1 and any(mark in found[0] for mark in ";\t"):
                hint = "; are they separated by semicolons or tabs? .csv has commas, .tsv has tabs"
            raise UserError(f"{source}: found the columns {listed}, expected '{name}' among them{hint}")
