"""What a fit writes while it runs, beside Lightning's own loggers."""

from kd_lightning.loggers.metrics_csv import MetricsCsv
from kd_lightning.loggers.wandb_run import WandbRun, finished

__all__ = ["MetricsCsv", "WandbRun", "finished"]
