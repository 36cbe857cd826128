"""The plots of a report, as SVG that takes the colours of the page it stands in. Needs matplotlib (extra ``plots``)."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

import pandas as pd

from kd_lightning.apps.reports.cells import task_name
from kd_lightning.apps.reports.scores import array, averaged, cases, values
from kd_lightning.apps.reports.statistics import interval

INK = "#010203"
"""Becomes the colour of the page's text."""

COLOURS = ("#0e8ac8", "#e07b00", "#00a17b", "#cc6ba0", "#8c7ae6", "#c0392b", "#8a8d00", "#7f8c8d")
"""Of groups, legible on white and on black."""

MARKERS = {"teacher": "D", "baseline": "o", "student": "o", "student_fine_tuned": "s"}
COSTS = {"parameters": "size, in millions of weights", "latency_ms": "latency, in ms for one row"}
WIDTH = 9.0


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
        found = {f"Score against {what.partition(',')[0]}": score_plot(table, cost) for cost, what in COSTS.items()}
        return {title: svg for title, svg in {**found, "Gain per task": gain_plot(scores)}.items() if svg}


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


def _colours(groups: Sequence[str]) -> dict[str, str]:
    return {group: COLOURS[i % len(COLOURS)] for i, group in enumerate(dict.fromkeys(groups))}


def _plain(axes: Any) -> None:
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.grid(color="#808080", alpha=0.25, linewidth=0.6)
    axes.set_axisbelow(True)


def score_plot(table: pd.DataFrame, cost: str) -> str | None:
    """Return score against a cost: a panel for the groups of the same tasks, bars from the lowest to the highest seed.

    The score is the average, or that of the only task. None where the cost is not known.
    """
    from matplotlib.figure import Figure
    from matplotlib.transforms import ScaledTranslation

    known = table[table["main"] & table[cost].notna() & table["role"].isin(MARKERS)]
    if known.empty:
        return None
    panels = _panels(table, list(dict.fromkeys(known["group"])))
    colours = _colours(list(table["group"]))
    rows = math.ceil(len(panels) / 2)
    figure = Figure(figsize=(WIDTH, 3.4 * rows + 0.13 * len(colours)), layout="constrained")
    each = figure.subplots(rows, min(2, len(panels)), squeeze=False).flat
    for axes, (title, groups) in zip(each, panels.items(), strict=False):
        for i, group in enumerate(groups):
            beside = ScaledTranslation((i - (len(groups) - 1) / 2) / 12, 0, figure.dpi_scale_trans)  # in inches
            _score_points(axes, known[known["group"] == group], cost, colours[group], beside)
        _plain(axes)
        _scale(axes, known[known["group"].isin(groups)][cost])
        axes.set(xlabel=COSTS[cost], ylabel="score, in percent", title=title if len(title) < 60 else "")
    for axes in list(figure.axes)[len(panels) :]:
        axes.set_visible(False)
    _legend(figure, colours, [role for role in MARKERS if role in set(known["role"])])
    return _svg(figure, f"score against {cost}")


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
        axes.set_xlim(left=0)


def _score_points(axes: Any, found: pd.DataFrame, cost: str, colour: str, beside: Any) -> None:
    """Draw the models of a group, each role's median and its lowest and highest seed, a little beside other groups."""
    task = "average" if (found["task"] == "average").any() else found["task"].iloc[0]
    scale = 1e-6 if cost == "parameters" else 1.0
    for role, of_role in found[found["task"] == task].groupby("role"):
        y, x = 100 * of_role["value"], scale * of_role[cost].median()
        bars = [[y.median() - y.min()], [y.max() - y.median()]]
        filled = colour if role != "baseline" else "none"
        form = {"fmt": MARKERS[str(role)], "color": colour, "mfc": filled, "mec": colour, "ms": 7, "lw": 1.2}
        axes.update_datalim([(x, y.min()), (x, y.max())])  # matplotlib leaves out what is moved
        axes.errorbar(x, y.median(), bars, capsize=2, transform=axes.transData + beside, **form)


def _legend(figure: Any, colours: dict[str, str], roles: Sequence[str]) -> None:
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], marker="o", ls="", color=colour, label=group) for group, colour in colours.items()]
    for role in roles:
        filled = "none" if role == "baseline" else INK
        label = role.replace("_fine_tuned", ", fine-tuned")
        handles.append(Line2D([], [], marker=MARKERS[role], ls="", color=INK, mfc=filled, label=label))
    if len(colours) == 1:
        handles = handles[1:]
    if handles:
        columns = 1 if max(map(len, colours)) > 50 else 2 if max(map(len, colours)) > 24 else 4
        figure.legend(handles=handles, loc="outside lower center", ncols=columns, frameon=False)


def gain_plot(scores: pd.DataFrame) -> str | None:
    """Return the gain per task: the mean with its interval of 95 %, and each seed; None without a baseline."""
    from matplotlib.figure import Figure

    colours = _colours(list(scores.index.get_level_values("group")))
    all_gains = {case: 100 * array(values(scores, case, "gain")) for case in cases(scores)}
    found = {case: gains for case, gains in all_gains.items() if len(gains)}
    if not found:
        return None
    shown = list(dict.fromkeys((task, metric) for task, metric, _ in found))
    tasks = [task for task, _ in shown]
    names = [task if tasks.count(task) == 1 else task_name(task, metric) for task, metric in shown]
    figure = Figure(figsize=(WIDTH, 1.4 + max(0.5, 0.24 * len(colours)) * len(shown)), layout="constrained")
    axes = figure.subplots()
    for (task, metric, group), gains in found.items():
        place = list(colours).index(group)
        y = shown.index((task, metric)) + 0.7 * ((place + 0.5) / len(colours) - 0.5)
        axes.plot(gains, [y] * len(gains), "|", color=colours[group], ms=7, alpha=0.7)
        ends = interval(gains) or (gains.mean(), gains.mean())
        axes.plot(ends, [y, y], color=colours[group], lw=2, alpha=0.55)
        axes.plot(gains.mean(), y, "o", color=colours[group], ms=6)
    axes.axvline(0, color=INK, lw=1)
    axes.set_yticks(range(len(shown)), names)
    axes.set_ylim(len(shown) - 0.4, -0.6)
    axes.set_xlabel("gain, in points: mean and 95 % over seeds; a stroke for each seed")
    _plain(axes)
    _legend(figure, {group: colours[group] for *_, group in found}, [])
    return _svg(figure, "gain per task")
