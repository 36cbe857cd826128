"""The plots of a report, as SVG that takes the colours of the page it stands in. Needs matplotlib (extra ``plots``)."""

from __future__ import annotations

import io
import itertools
import math
import re
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np
import pandas as pd

from kd_lightning.apps.reports.cells import task_name
from kd_lightning.apps.reports.legend import INK, MARKERS, Mark, draw_legend, legend_height, marks_of, write_number
from kd_lightning.apps.reports.scores import array, averaged, cases, values
from kd_lightning.apps.reports.statistics import Array, interval

COSTS = {"parameters": "size, in millions of weights", "latency_ms": "latency, in ms for one row"}
SCALES = {"parameters": 1e-6, "latency_ms": 1.0}
WIDTH = 9.0
GAIN_LINE = 0.25
"""Inches of a group's line."""

SPREAD = 0.4
"""Inches over which groups of one panel lie beside each other, at most."""


def can_plot() -> bool:
    """Tell whether matplotlib is installed."""
    return find_spec("matplotlib") is not None


def plots(table: pd.DataFrame, scores: pd.DataFrame) -> dict[str, str]:
    """Return title -> SVG: score against size, score against latency, gain per task.

    Args:
        table: All scores, with the costs of the models.
        scores: The main scores and gains.
    """
    import matplotlib as mpl

    style = {"svg.fonttype": "none", "svg.hashsalt": "kd-report", "font.size": 10, "font.family": "sans-serif"}
    ink = ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color")
    with mpl.rc_context(style | dict.fromkeys(ink, INK)):
        marks = marks_of(scores.index.get_level_values("group"))
        against = {what.partition(",")[0]: score_plot(table, cost, marks) for cost, what in COSTS.items()}
        found = {f"Score against {what}": svg for what, svg in against.items()} | {
            "Gain per task": gain_plot(scores, marks)
        }
        return {title: svg for title, svg in found.items() if svg}


def _svg(figure: Any, title: str) -> str:
    """Return a figure as an element of a page."""
    file = io.StringIO()
    figure.savefig(file, format="svg", transparent=True, bbox_inches="tight", metadata={"Date": None})
    text = file.getvalue()
    text = text[text.index("<svg") :].replace(INK, "currentColor")
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    own = re.sub(r"\W+", "-", title)  # ids are those of the whole page
    text = re.sub(r'(id="|href="#|url\(#)', rf"\1{own}-", text)
    text = re.sub(r'width="[\d.]+pt" height="[\d.]+pt"', "", text, count=1)
    return text.replace("<svg", f'<svg role="img" aria-label="{title}"', 1)


def _plain(axes: Any) -> None:
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.grid(color="#808080", alpha=0.25, linewidth=0.6)
    axes.set_axisbelow(True)


def score_plot(table: pd.DataFrame, cost: str, marks: Mapping[str, Mark]) -> str | None:
    """Return score against a cost: a panel for the groups of the same tasks, bars from the lowest to the highest seed.

    The score is the average, or that of the only task; what costs the same lies side by side. None where the cost is
    not known.
    """
    from matplotlib.figure import Figure
    from matplotlib.transforms import ScaledTranslation

    known = table[table["main"] & table[cost].notna() & table["role"].isin(MARKERS)]
    if known.empty:
        return None
    plotted = list(dict.fromkeys(known["group"]))
    panels = _panels(table, plotted)
    marks = {group: mark for group, mark in marks.items() if group in plotted}
    rows = math.ceil(len(panels) / 2)
    roles = [role for role in MARKERS if role in set(known["role"])]
    figure = Figure(figsize=(WIDTH, 3.4 * rows + legend_height(marks, roles)), layout="constrained")
    each = figure.subplots(rows, min(2, len(panels)), squeeze=False).flat
    for axes, (title, groups) in zip(each, panels.items(), strict=False):
        for group, inches in beside(known, groups, cost).items():
            moved = axes.transData + ScaledTranslation(inches, 0, figure.dpi_scale_trans)
            _score_points(axes, known[known["group"] == group], cost, marks[group], moved)
        _plain(axes)
        _scale(axes, SCALES[cost] * known[known["group"].isin(groups)][cost])
        axes.set(xlabel=COSTS[cost], ylabel="score, in percent", title=title if len(title) < 60 else "")
    for axes in list(figure.axes)[len(panels) :]:
        axes.set_visible(False)
    draw_legend(figure, marks, roles)
    return _svg(figure, f"score against {cost}")


def beside(known: pd.DataFrame, groups: Sequence[str], cost: str) -> dict[str, float]:
    """Return by how many inches a group's points are moved, so that those of one cost do not hide each other."""
    costs = {group: known.loc[known["group"] == group, cost].min() for group in groups}
    found = {}
    for group in groups:
        alike = [other for other in groups if costs[other] == costs[group]]
        step = min(1 / 12, SPREAD / len(alike))
        found[group] = (alike.index(group) - (len(alike) - 1) / 2) * step
    return found


def _panels(table: pd.DataFrame, groups: Sequence[str]) -> dict[str, list[str]]:
    """Return the tasks, in one line -> the groups that have them: averages of others are not to be compared.

    Metrics are told where groups have the same tasks by others.
    """
    panels: dict[frozenset[tuple[str, str]], list[str]] = {}
    for group in groups:
        panels.setdefault(_plotted(table, group), []).append(group)
    order = list(dict.fromkeys(zip(table["task"], table["metric"], strict=True)))
    tasks = [", ".join(dict.fromkeys(task for task, metric in order if (task, metric) in of)) for of in panels]
    told = [", ".join(task_name(*each) for each in order if each in of) for of in panels]
    names = [long if tasks.count(short) > 1 else short for short, long in zip(tasks, told, strict=True)]
    return dict(zip(names, panels.values(), strict=True))


def _plotted(table: pd.DataFrame, group: str) -> frozenset[tuple[str, str]]:
    """Return the tasks and metrics of which a group's points are the average, or its only task and main metric."""
    own = table[(table["group"] == group) & table["main"]]
    has_average = (own["task"] == "average").any()
    return averaged(table, group) if has_average else frozenset(zip(own["task"], own["metric"], strict=True))


def _scale(axes: Any, costs: pd.Series) -> None:
    """Take a logarithmic axis where costs differ much, with numbers as people write them."""
    axes.margins(0.15)
    axes.autoscale_view()
    if costs.max() > 5 * costs.min():
        axes.set_xscale("log", subs=[2, 5])
        axes.xaxis.set_major_formatter(lambda x, _: f"{x:g}")
        axes.xaxis.set_minor_formatter(lambda x, _: f"{x:g}")
    else:
        axes.set_xlim(0, 1.12 * costs.max())


def _score_points(axes: Any, found: pd.DataFrame, cost: str, mark: Mark, moved: Any) -> None:
    """Draw the models of a group, each role's median and its lowest and highest seed."""
    task = "average" if (found["task"] == "average").any() else found["task"].iloc[0]
    for role, of_role in found[found["task"] == task].groupby("role"):
        y, x = 100 * of_role["value"], SCALES[cost] * of_role[cost].median()
        bars = [[y.median() - y.min()], [y.max() - y.median()]]
        filled = mark.colour if role != "baseline" else "none"
        form = {"fmt": MARKERS[str(role)], "color": mark.colour, "mfc": filled, "mec": mark.colour, "ms": 7, "lw": 1.2}
        axes.update_datalim([(x, y.min()), (x, y.max())])  # matplotlib leaves out what is moved
        axes.errorbar(x, y.median(), bars, capsize=2, transform=moved, **form)
        if str(role).startswith("student"):
            write_number(axes, mark, (float(x), float(y.median())), moved)


def gain_plot(scores: pd.DataFrame, marks: Mapping[str, Mark]) -> str | None:
    """Return the gain per task: the mean with its interval of 95 %, and each seed; None without a baseline."""
    from matplotlib.figure import Figure

    all_gains = {case: 100 * array(values(scores, case, "gain")) for case in cases(scores)}
    found = {case: gains for case, gains in all_gains.items() if len(gains)}
    if not found:
        return None
    marks = {group: mark for group, mark in marks.items() if any(group == of for *_, of in found)}
    places = _lines([(task, metric) for task, metric, _ in found])
    height = 1.2 + GAIN_LINE * (places[-1] + 1) + legend_height(marks, [])
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    axes = figure.subplots()
    for ((*_, group), gains), y in zip(found.items(), places, strict=True):
        colour, mean = marks[group].colour, float(gains.mean())
        axes.plot(gains, [y] * len(gains), "|", color=colour, ms=7, alpha=0.7)
        axes.plot(interval(gains) or (mean, mean), [y, y], color=colour, lw=2, alpha=0.55)
        axes.plot(mean, y, "o", color=colour, ms=6)
        write_number(axes, marks[group], (mean, y), axes.transData)
    axes.axvline(0, color=INK, lw=1)
    _name_tasks(axes, [(task, metric) for task, metric, _ in found], places)
    axes.set_xlim(*within(np.concatenate([*found.values()]), axes.get_xlim()))
    axes.set_xlabel("gain, in points: mean and 95 % over seeds, cut at the edge; a stroke for each seed")
    _plain(axes)
    draw_legend(figure, marks, [])
    return _svg(figure, "gain per task")


def within(gains: Array, ends: tuple[float, float]) -> tuple[float, float]:
    """Return the ends of an axis, no further from the gains than those, and nought, lie apart: two seeds say little."""
    low, high = min(0.0, float(gains.min())), max(0.0, float(gains.max()))
    room = (high - low) or 1.0
    return max(ends[0], low - room), min(ends[1], high + room)


def _lines(tasks: Sequence[tuple[str, str]]) -> list[float]:
    """Return a line for each group of each task, those of a task together."""
    gaps = itertools.accumulate(one != before for before, one in itertools.pairwise(tasks))
    return [0.0, *(i + 1.0 + gap for i, gap in enumerate(gaps))]


def _name_tasks(axes: Any, tasks: Sequence[tuple[str, str]], places: Sequence[float]) -> None:
    """Write each task in the middle of its lines, with its metric if there is another."""
    shown = list(dict.fromkeys(tasks))
    alike = [task for task, _ in shown]
    names = [task if alike.count(task) == 1 else task_name(task, metric) for task, metric in shown]
    lines = [[place for of, place in zip(tasks, places, strict=True) if of == one] for one in shown]
    axes.set_yticks([(of[0] + of[-1]) / 2 for of in lines], names)
    axes.set_ylim(places[-1] + 1, -1)
