"""How far learning rules are from the exact gradient of an experiment's own cost, through a training."""

import copy
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from adjsnn.errors import ConfigurationError
from adjsnn.gradcheck.yardstick import compared, gradients, share_miscounted
from adjsnn.training.batches import moved
from adjsnn.training.experiment import Experiment
from adjsnn.training.rules import named

FIGURES = ("cosine", "ratio", "signs", "miscounted")
BATCH = 4_000_000  # offset of the seed of the batch that they are measured on


def angles(experiment: Experiment[Any], net: nn.Module) -> dict[str, float]:
    """Figures of each rule of `config.angles`, on one batch that is the same throughout a training, in float64.

    Each rule differentiates the experiment's cost of a copy of the network, and so does the exact adjoint. A rule r beside the
    exact g, all parameters as one vector: cosine_<rule> is ⟨r, g⟩/(‖r‖‖g‖), ratio_<rule> ‖r‖/‖g‖, signs_<rule> the share of
    entries of equal sign, and miscounted_<rule> that of the (sample, neuron) pairs with another number of spikes.

    A rule whose cost is its own, such as a likelihood, is held against the exact gradient of the experiment's cost.

    Args:
        experiment: what is trained; neither it nor the network changes.
        net: the network as it is.

    Raises:
        ConfigurationError: a rule that does not cover the network or the cost.
    """
    config = experiment.config
    if not config.angles:
        return {}
    state, measured = torch.get_rng_state(), copy.deepcopy(net).double()
    try:
        batch = moved(experiment.batch(experiment.generator(BATCH), 0), experiment.device, torch.float64)
        with torch.enable_grad():
            g, exact = _of(experiment, measured, batch, "default", config.slope)
            figures: dict[str, float] = {}
            for rule in config.angles:
                torch.manual_seed(config.seed + BATCH)  # of a rule that draws spikes the same ones at each evaluation
                r, sol = _of(experiment, measured, batch, *named(rule, config.slope, experiment.adjoints))
                row = compared(rule, "all", r, g)
                off = share_miscounted(sol, exact)
                figures |= {
                    f"{name}_{rule}": x for name, x in zip(FIGURES, (row.cosine, row.ratio, row.signs, off), strict=True)
                }
    finally:
        torch.set_rng_state(state)
    return figures


def check_angles(experiment: Experiment[Any], processes: int) -> None:
    """See that angles can be measured.

    Raises:
        ConfigurationError: an unknown rule, or several processes, of which one alone measures.
    """
    for rule in experiment.config.angles:
        named(rule, experiment.config.slope, experiment.adjoints)
    if experiment.config.angles and processes > 1:
        raise ConfigurationError(f"--angles in {processes} processes", "one", "no torchrun, or no --angles")


def _of(experiment: Experiment[Any], net: nn.Module, batch: Any, name: str, slope: float) -> tuple[Tensor, Any]:
    """The gradient of all parameters as one vector, and the solution."""
    other = copy.copy(experiment)
    other.config, other.dtype = replace(experiment.config, adjoint=name, slope=slope), torch.float64
    cost = other.cost(net, batch)
    leaves = {name: p for name, p in net.named_parameters() if p.requires_grad}
    return torch.cat([x.flatten() for x in gradients(cost.value, leaves).values()]), cost.sol
