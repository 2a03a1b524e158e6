"""Losses. Each sees only a Solution; what it differentiates is found by the adjoint that made the solution."""

from jaxtyping import Float
from torch import Tensor

from adjsnn.errors import ConfigurationError
from adjsnn.solution import CheckpointedSolution, GatedSolution

MS_PER_SECOND = 1000.0


def readout_mse(sol: GatedSolution | CheckpointedSolution, target: Float[Tensor, "T1 B C"]) -> Float[Tensor, ""]:
    """Mean of (o - o_d)² over times, samples and channels.

    Args:
        sol: the solution.
        target: o_d at the times sol.ts, (T+1, B, C_out).

    Raises:
        ConfigurationError: target and readout differ in shape.
    """
    _check_target(sol, target)
    return (sol.readout - target).square().mean()


def normalised_cost(sol: GatedSolution | CheckpointedSolution, target: Float[Tensor, "T1 B C"]) -> Float[Tensor, ""]:
    """∫‖o - o_d‖² dt / ∫‖o_d‖² dt over the whole batch: 0 is perfect, 1 is a silent network.

    Args:
        sol: the solution.
        target: o_d at the times sol.ts, (T+1, B, C_out).

    Raises:
        ConfigurationError: target and readout differ in shape.
    """
    _check_target(sol, target)
    return (sol.readout - target).square().sum() / target.square().sum()


def spike_count(sol: GatedSolution | CheckpointedSolution) -> Float[Tensor, "B N"]:
    """Differentiable number of spikes of each neuron: Σ|q|, the absolute charge released.

    A full crossing of the active zone counts 1, a partial one its part (equation 1.4). The located spikes themselves, a
    whole number whose derivative is zero, are in sol.spikes.
    """
    return sol.spike_charge


def firing_rate(sol: GatedSolution | CheckpointedSolution) -> Float[Tensor, "B N"]:
    """Differentiable firing rate of each neuron in spikes/s: spike_count over the length of the trial."""
    return spike_count(sol) * (MS_PER_SECOND / float(sol.ts[-1]))


def _check_target(sol: GatedSolution | CheckpointedSolution, target: Tensor) -> None:
    if target.shape != sol.readout.shape:
        raise ConfigurationError(
            f"a target of shape {tuple(target.shape)}",
            f"the readout's shape {tuple(sol.readout.shape)}: one value at each of the T+1 times",
            "adjsnn.signals.lowpass, which returns T+1 values for T inputs",
        )
