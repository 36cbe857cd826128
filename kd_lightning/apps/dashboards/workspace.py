"""A workspace of Weights & Biases for the runs of ``kd-distill``: what it shows, in its library's words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import wandb_workspaces.reports.v2
import wandb_workspaces.workspaces

from kd_lightning.progress import PROGRESS, STEP

reports: Any = wandb_workspaces.reports.v2  # their names are not declared as public
workspaces: Any = wandb_workspaces.workspaces

SETTINGS = reports.Config("job.settings")
"""What jobs that differ in their seeds alone have in common."""

SERIES = reports.Config("job.series")
"""What jobs, or fits for the same purpose, have in common that differ in their seeds alone; a panel takes one key."""

OVER_SEEDS: dict[str, Any] = {"groupby": SERIES, "groupby_aggfunc": "mean", "groupby_rangefunc": "minmax"}
"""Seeds as one line, or bar: their mean, in a band from the lowest to the highest."""


def build_workspace(entity: str, project: str, tasks: Sequence[str]) -> Any:
    """Return the workspace of a project; nothing is asked of the service.

    Args:
        entity: Whose project it is.
        project: Of the runs.
        tasks: Those that get panels of their own.
    """
    columns = ["average/student", "average/gain", *(f"tasks/{t}/{what}" for t in tasks for what in ("student", "gain"))]
    pinned = ["run:displayName", "config:seed.value", *(f"summary:{name}" for name in columns)]
    return workspaces.Workspace(
        entity=entity,
        project=project,
        name="Distillation",
        sections=[sweep(tasks), gains(tasks), fits(tasks), costs()],
        settings=workspaces.WorkspaceSettings(x_axis=STEP, max_runs=50),
        runset_settings=workspaces.RunsetSettings(
            groupby=[workspaces.Metric("JobType"), workspaces.Config("job.series")], pinned_columns=pinned
        ),
    )


def sweep(tasks: Sequence[str]) -> Any:
    """Return the section of a sweep as a whole: which settings lead to which scores."""
    scores = [f"tasks/{task}/student" for task in tasks]
    lines = ["average/baseline", *scores, "average/student"]
    columns = [reports.ParallelCoordinatesPlotColumn(metric=reports.SummaryMetric(name)) for name in lines]
    columns.insert(0, reports.ParallelCoordinatesPlotColumn(metric=SETTINGS, display_name="settings"))
    panels = [
        reports.ParallelCoordinatesPlot(title="Settings and scores", columns=columns),
        reports.BarPlot(title="Student, average", metrics=[reports.SummaryMetric("average/student")], **OVER_SEEDS),
        reports.RunComparer(diff_only="split"),
    ]
    return workspaces.Section(name="Sweep", panels=panels, is_open=True)


def gains(tasks: Sequence[str]) -> Any:
    """Return the section of the gains over the baseline: of the average, and of each task."""
    shown = {"average": "average/gain", **{task: f"tasks/{task}/gain" for task in tasks}}
    panels = [
        reports.BarPlot(title=f"Gain, {name}", metrics=[reports.SummaryMetric(key)], **OVER_SEEDS)
        for name, key in shown.items()
    ]
    return workspaces.Section(name="Gain over the baseline", panels=panels, is_open=True)


def fits(tasks: Sequence[str]) -> Any:
    """Return the section of what fits log: gold weight and losses over progress, scores over steps."""
    shown = {"Gold weight": ["train/gold_weight"], "Loss": ["train/loss"]}
    for task in tasks:
        shown[f"Losses, {task}"] = [f"train/{task}/gold_loss", f"train/{task}/soft_loss"]
    panels = [reports.LinePlot(title=title, x=PROGRESS, y=keys, **OVER_SEEDS) for title, keys in shown.items()]
    panels.append(reports.LinePlot(title="Average score", x=STEP, y=["val/average"], **OVER_SEEDS))
    return workspaces.Section(name="Fits", panels=panels, is_open=True)


def costs() -> Any:
    """Return the section of quality against what it costs."""
    shown = {"latency (ms, 1 row)": "latency_ms/student", "parameters": "parameters/student"}
    panels = [
        reports.ScatterPlot(
            title=f"Score against {name}", x=reports.SummaryMetric(key), y=reports.SummaryMetric("average/student")
        )
        for name, key in shown.items()
    ]
    return workspaces.Section(name="Quality and cost", panels=panels, is_open=True)


def specification(workspace: Any) -> str:
    """Return the workspace as JSON, as the service gets it."""
    return f"{workspace._to_model().model_dump_json(by_alias=True, exclude_none=True, indent=2)}\n"  # no public way
