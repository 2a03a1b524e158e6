"""The face of solutions: what losses, figures and experiments see of one, whatever kind of network was solved.

A kind of network whose solutions have these members needs nothing else to be trained and drawn. What was not kept raises
NotKeptError; what a kind of network does not have is no attribute of its solutions.
"""

from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from typing import Protocol

from jaxtyping import Float, Int
from torch import Tensor

from adjsnn.checks import real
from adjsnn.errors import ConfigurationError
from adjsnn.spikes import SpikeTrains


class SpikeFigures(Protocol):
    """What `stats` of every solution with spikes says."""

    @property
    def layer_spikes(self) -> tuple[int, ...]:
        """Spikes of each layer in the whole batch."""
        ...


class ReadoutSolution(Protocol):
    """A solution that is read at times."""

    @property
    def ts(self) -> Float[Tensor, " T"]:
        """The times, ms."""
        ...

    @property
    def t_end(self) -> float:
        """End of the trial, ms."""
        ...

    @property
    def readout(self) -> Float[Tensor, "T B C"]:
        """o at these times; differentiable."""
        ...

    def squared_errors(self, target: Tensor) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """∫ ‖o - o_d‖² dt and ∫ ‖o_d‖² dt over the batch, both by the same sum over times or the same integral."""
        ...


class SpikingSolution(ReadoutSolution, Protocol):
    """A solution whose layers spike. Layers are counted from 0, or by a negative number from the last."""

    @property
    def stats(self) -> SpikeFigures:
        """Figures about the solve."""
        ...

    @property
    def layer_spikes(self) -> Sequence[SpikeTrains]:
        """Spikes of each layer."""
        ...

    def layer_counts(self, layer: int = -1) -> Int[Tensor, "B N"]:
        """Number of spikes of each neuron of a layer."""
        ...

    def layer_speeds(self, layer: int = -1) -> Float[Tensor, " S"]:
        """|dv/dt| at the spikes of a layer, 1/ms."""
        ...

    def spike_count(self, layer: int = -1) -> Float[Tensor, "B N"]:
        """Number of spikes of each neuron of a layer as a loss takes it: differentiable where there is such a count."""
        ...


class FirstSpikeSolution(SpikingSolution, Protocol):
    """A solution whose spike times and voltages are differentiable."""

    def first_spike_times(self, layer: int = -1) -> Float[Tensor, "B N"]:
        """First spike time of each neuron, ms; inf where it is silent."""
        ...

    def voltage_max(self, layer: int = -1) -> Float[Tensor, "B N"]:
        """Largest voltage of each neuron."""
        ...

    def voltage_gap(self, layer: int = -1) -> Float[Tensor, "B N"]:
        """What it falls short of the threshold by; 0 for a neuron that spikes."""
        ...


class LocalSolution(Protocol):
    """A solution whose layers are each read by a fixed matrix."""

    @property
    def dt(self) -> float:
        """The step of its grid, ms."""
        ...

    @property
    def v(self) -> Sequence[Tensor]:
        """Voltages of each layer."""
        ...

    def local_readout(self, layer: int = -1) -> Float[Tensor, "T1 B C"]:
        """What is read of a layer at all times of the grid; differentiable by the rule."""
        ...


def described(self: object) -> str:
    """The `__repr__` of solutions: shapes in the place of tensors, without what is computed when asked for, but for the names
    that a class has as `_described`."""
    if isinstance(self, Tensor):
        return str(tuple(self.shape))
    if is_dataclass(self):
        names = [*(x.name for x in fields(self) if x.repr), *getattr(type(self), "_described", ())]
        parts = {name: getattr(self, name) for name in names}
    elif isinstance(self, tuple) and (named := getattr(self, "_fields", ())):
        parts = dict(zip(named, self, strict=True))  # a state of a network
    elif isinstance(self, list):
        return f"[{', '.join(map(described, self))}]"
    else:
        return repr(self)
    return f"{type(self).__name__}({', '.join(f'{name}={described(x)}' for name, x in parts.items())})"


def check_face(sol: object, method: str, example: str) -> None:
    """Refuse what has no such method; it is looked for without computing what a solution computes when asked."""
    if not callable(getattr(type(sol), method, None)):
        raise ConfigurationError(
            f"sol of type {type(sol).__name__}", f"a solution with {method}, such as {example}", "what adjsnn.solve returned"
        )


def target_of(readout: Tensor, target: object) -> Tensor:
    """A target of a readout (T, B, C), of its shape.

    Raises:
        ConfigurationError: another shape, or no real numbers.
    """
    target = real("target", target, "values of the readout at the times sol.ts", "torch.as_tensor(target)")
    if target.shape != readout.shape:
        raise ConfigurationError(
            f"a target of shape {tuple(target.shape)}",
            f"the readout's shape {tuple(readout.shape)}: one value at each of the T+1 times",
            "adjsnn.signals.lowpass, which returns T+1 values for T inputs",
        )
    return target


def summed_errors(readout: Tensor, target: object) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """Σ ‖o - o_d‖² and Σ ‖o_d‖² over times and batch."""
    target = target_of(readout, target)
    return (readout - target).square().sum(), target.square().sum()
