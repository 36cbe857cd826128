"""What a fit writes while it runs, beside Lightning's own loggers."""

from kd_lightning.loggers.ending import finished
from kd_lightning.loggers.metrics_csv import MetricsCsv
from kd_lightning.loggers.mlflow_run import MlflowRun
from kd_lightning.loggers.wandb_run import WandbRun

__all__ = ["MetricsCsv", "MlflowRun", "WandbRun", "finished"]
