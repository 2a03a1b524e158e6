"""Experiments: a task, a network and a cost are given; flags, loop, run folders, figures and reports are written once here."""

from adjsnn.training.experiment import Column, Cost, Curve, Experiment, Metrics, Split, TrainingConfig
from adjsnn.training.main import main
from adjsnn.training.processes import batch_mean
from adjsnn.training.runs import RunFolder

__all__ = ["Column", "Cost", "Curve", "Experiment", "Metrics", "RunFolder", "Split", "TrainingConfig", "batch_mean", "main"]
