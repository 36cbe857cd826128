"""How groups are told apart in the plots of a report, and the legend that says so."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

INK = "#010203"
"""Becomes the colour of the page's text."""

COLOURS = ("#0e8ac8", "#e07b00", "#00a17b", "#cc6ba0", "#8c7ae6", "#c0392b", "#8a8d00", "#7f8c8d")
"""Of groups, legible on white and on black."""

MARKERS = {"teacher": "D", "baseline": "o", "student": "o", "student_fine_tuned": "s"}

LINE = 0.22
"""Inches of a line of a legend."""


@dataclass(frozen=True)
class Mark:
    """How a group is marked.

    Args:
        colour: Of its points.
        number: Beside them, where there are more groups than colours; else empty.
        label: In a legend; empty where there is no other group.
    """

    colour: str
    number: str
    label: str


def marks_of(groups: Iterable[str]) -> dict[str, Mark]:
    """Return the mark of each group, in their order."""
    names = list(dict.fromkeys(groups))
    if len(names) < 2:
        return {name: Mark(COLOURS[0], "", "") for name in names}
    numbers = [str(i + 1) if len(names) > len(COLOURS) else "" for i in range(len(names))]
    labels = [f"{number}  {name}" if number else name for number, name in zip(numbers, names, strict=True)]
    return {name: Mark(COLOURS[i % len(COLOURS)], numbers[i], labels[i]) for i, name in enumerate(names)}


def write_number(axes: Any, mark: Mark, place: tuple[float, float], transform: Any) -> None:
    """Write a group's number, if it has one, beside a point."""
    if mark.number:
        axes.annotate(mark.number, place, (5, 3), transform, "offset points", color=mark.colour, fontsize=7)


def legend_height(marks: Mapping[str, Mark], roles: Sequence[str]) -> float:
    """Return the inches that a legend takes."""
    return LINE * math.ceil((len(_named(marks)) + len(roles)) / _columns(marks))


def draw_legend(figure: Any, marks: Mapping[str, Mark], roles: Sequence[str]) -> None:
    """Draw the legend of groups, if there are several, and of roles below a figure."""
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], marker="o", ls="", color=each.colour, label=each.label) for each in _named(marks)]
    for role in roles:
        filled = "none" if role == "baseline" else INK
        label = role.replace("_fine_tuned", ", fine-tuned")
        handles.append(Line2D([], [], marker=MARKERS[role], ls="", color=INK, mfc=filled, label=label))
    if handles:
        figure.legend(handles=handles, loc="outside lower center", ncols=_columns(marks), frameon=False)


def _named(marks: Mapping[str, Mark]) -> list[Mark]:
    return [mark for mark in marks.values() if mark.label]


def _columns(marks: Mapping[str, Mark]) -> int:
    longest = max(map(len, marks))
    return 1 if longest > 50 else 2 if longest > 24 else 4
