"""Experiments: a task, a network and a cost are given; flags, loop, run folders, figures and reports are written once here.

Needs the packages of the extra `experiments`.
"""

from adjsnn.errors import MissingPackageError

try:
    import safetensors  # noqa: F401  asked for first, so that a missing one is told before anything else is loaded
    import tqdm  # noqa: F401
    import tyro  # noqa: F401
except ImportError as error:
    raise MissingPackageError(error.name, "experiments") from error

from adjsnn.training.experiment import Column, Cost, Curve, Experiment, Metrics, Split, TrainingConfig
from adjsnn.training.main import main
from adjsnn.training.processes import batch_mean
from adjsnn.training.runs import RunFolder

__all__ = ["Column", "Cost", "Curve", "Experiment", "Metrics", "RunFolder", "Split", "TrainingConfig", "batch_mean", "main"]
