"""What a solve of a gated network returns; its face is that of `adjsnn.solutions`, with one layer."""

from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int, Int8
from torch import Tensor

from adjsnn.bodies import Ran
from adjsnn.checks import index
from adjsnn.errors import NotKeptError
from adjsnn.gated.engine import Engine
from adjsnn.gated.network import GatedState, GatedTensors
from adjsnn.gated.program import GatedProgram, GatedTrajectory, Located
from adjsnn.gated.segmented import Record
from adjsnn.kept import Recorded, Seal, alone, computed_once
from adjsnn.solutions import described, summed_errors
from adjsnn.spikes import GRAZING_SPEED, SpikeTrains
from adjsnn.untraced import untraced

NOT_KEPT = ("v", "a_fast", "a_slow", "charge", "crossings", "spikes", "spike_speeds", "layer_spikes", "layer_speeds")

FOUND = ("sol.v", "sol.crossings")  # found when asked for, where the trajectory is thin


@dataclass(frozen=True)
class Stats:
    """Figures about one solve.

    Attributes:
        steps: time steps taken.
        recomputed_steps: steps the backward pass takes again.
        spikes: threshold crossings in the whole batch.
        min_speed_at_spike: smallest |dv/dt| at a threshold crossing, 1/ms; inf without spikes.
        grazing_samples: samples with a crossing slower than GRAZING_SPEED.
        overlong_steps: neuron-steps that ran through several thresholds, or backward through one.
        stored_bytes: memory of the stored trajectory, its peak between forward and backward pass.
        kernel: which body of code took the steps: "fused", compiled loops, or "plain", torch operations.
        kernel_reason: why this one.
    """

    steps: int
    recomputed_steps: int
    spikes: int
    min_speed_at_spike: float
    grazing_samples: list[int]
    overlong_steps: int
    stored_bytes: int
    kernel: str
    kernel_reason: str

    @property
    def layer_spikes(self) -> tuple[int, ...]:
        """`spikes` of the one layer."""
        return (self.spikes,)


class Unread(NamedTuple):
    """What has the gradients of figures that the trajectory does not hold.

    Attributes:
        spent: Σ|q| of each neuron, (B, N).
        states: zeros in place of v, a_fast and a_slow, (T+1, B, N) each, where the trajectory is thin; without memory of their
            own.
    """

    spent: Tensor
    states: GatedState


class _Given(torch.autograd.Function):
    """Values with the gradient of something else of their shape."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, unread: Tensor) -> Tensor:
        del ctx, unread
        return values.detach()

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> tuple[None, Tensor]:  # pyright: ignore[reportIncompatibleMethodOverride]
        del ctx
        return None, cotangent


def given(values: Tensor, unread: Tensor) -> Tensor:
    """`values`, with the gradient of `unread`."""
    if not unread.requires_grad:
        return values
    if torch._C._are_functorch_transforms_active():  # which take no Function as short as this one
        return values + unread
    result: Any = _Given.apply(values, unread)
    return result


@dataclass(frozen=True)
class GatedSolution(Recorded):
    """Solution of a gated-synapse network.

    Figures are computed when asked for, from what was solved: the network may have learnt meanwhile.

    A copy by `copy.deepcopy` or `torch.save` holds the numbers without a gradient, which lies on the tape of the solve.

    Attributes:
        ts: the T+1 times, ms.
        readout: o = W_out a_s, (T+1, B, C_out); differentiable.
        t_end: the last time, ms.

    Raises:
        ConfigurationError: a figure is asked for after a state it is computed from was changed in place; of Heun and RK4 steps
            also after the input was.
    """

    ts: Float[Tensor, " T1"]
    readout: Float[Tensor, "T1 B C"]
    t_end: float
    _engine: Engine = field(repr=False)
    _ran: Ran = field(repr=False)
    _tensors: GatedTensors = field(repr=False)
    _trajectory: GatedTrajectory = field(repr=False)
    _u: Tensor = field(repr=False)
    _unread: Unread | None = field(repr=False)
    _seal: Seal = field(init=False, repr=False)

    __repr__ = described

    def __post_init__(self) -> None:
        t, inputs = self._trajectory, {"inputs": self._u} if self._program.reads_input_again else {}
        object.__setattr__(self, "_seal", Seal(**{"sol.a_fast": t.a_fast, "sol.a_slow": t.a_slow}, **inputs))
        found = vars(self).pop("_found", None if t.thin else (t.v, t.crossings))
        if found is not None:
            self._seal.add(**dict(zip(FOUND, found, strict=True)))

    def __getstate__(self) -> dict[str, Any]:
        # A copy holds numbers, rather than what finds them on the machine where it is made.
        return super().__getstate__() | ({"_found": self._found} if self._trajectory.thin else {})

    @property
    def _program(self) -> GatedProgram:
        return self._engine.program

    @property
    def _found(self) -> tuple[Tensor, Tensor]:
        """Voltages and crossings of all steps, found again where the trajectory is thin; kept in the seal, which other names
        for the solution share."""
        found = self._seal.get(*FOUND)
        if found is None:
            with torch.inference_mode(mode=False), torch.no_grad():
                found = alone(lambda t: self._engine.again(self._tensors).voltages(t), self._trajectory)
            self._seal.add(**dict(zip(FOUND, found, strict=True)))
            return self._found
        v, crossings = found
        return v, crossings

    @computed_once
    @untraced
    def v(self) -> Float[Tensor, "T1 B N"]:
        """Voltages at the times ts, dimensionless, equation (1.1); differentiable."""
        return given(self._found[0], self._unread.states.v) if self._unread and self._trajectory.thin else self._found[0]

    @computed_once
    @untraced
    def a_fast(self) -> Float[Tensor, "T1 B N"]:
        """Recurrent synaptic activities at the times ts, equation (1.2); differentiable."""
        return self._activity("a_fast", self._tensors.tau_fast, 0)

    @computed_once
    @untraced
    def a_slow(self) -> Float[Tensor, "T1 B N"]:
        """Readout synaptic activities at the times ts, equation (1.2); differentiable."""
        return self._activity("a_slow", self._tensors.tau_slow, 1)

    def _activity(self, name: str, tau: Tensor, synapse: int) -> Tensor:
        """A synapse's activities, found again where the trajectory is thin."""
        stored, found = getattr(self._trajectory, name), self._found
        if not self._trajectory.thin:
            return stored
        assert self._unread is not None
        self._seal.check(*FOUND)
        with torch.no_grad():
            values = self._engine.again(self._tensors).activities(stored[0], tau, *found)
        return given(values, getattr(self._unread.states, name))

    @property
    @untraced
    def charge(self) -> Float[Tensor, "T B N"]:
        """Charge q released in each step, equation (1.6), differentiable: its sum over a full crossing is 1."""
        v, crossings = self.v, self.crossings
        self._seal.check(*FOUND)
        return self._program.charge(v, crossings)

    @property
    @untraced
    def spike_charge(self) -> Float[Tensor, "B N"]:
        """Σ|q| of each neuron, its differentiable number of spikes."""
        return self.charge.abs().sum(0) if self._unread is None else self._unread.spent.clone()

    @property
    @untraced
    def crossings(self) -> Int8[Tensor, "T B N"]:
        """Thresholds crossed by each neuron in each step, negative for the lower threshold."""
        return self._found[1]

    @property
    def final_state(self) -> GatedState:
        """State at the last time, to go on from with `solve(..., y0=...)`."""
        return alone(self._final_state, self._trajectory)

    def _final_state(self, t: GatedTrajectory) -> GatedState:
        last = GatedState(t.v[-1].clone(), t.a_fast[-1].clone(), t.a_slow[-1].clone())
        if not t.thin:
            return last
        assert self._unread is not None
        return GatedState._make(given(x, y[-1]) for x, y in zip(last, self._unread.states, strict=True))

    @computed_once
    @untraced
    def spikes(self) -> SpikeTrains:
        """Threshold crossings, each located inside its step; where a step has several, evenly between the first and the last
        threshold it passes."""
        found, two_sided = self._located, self._program.neuron.two_sided
        repeats = found.crossings.abs().long()
        first = repeats.cumsum(0) - repeats
        turn = torch.arange(int(repeats.sum()), device=repeats.device) - first.repeat_interleave(repeats)
        v, moved, fraction, crossings, step, sample, neuron = (
            x.repeat_interleave(repeats)
            for x in (found.v, found.moved, found.fraction, found.crossings, found.step, found.sample, found.neuron)
        )
        # The k-th crossing within a step is k turns beyond the first, in the direction of the movement.
        turns = turn.to(v.dtype) * (moved.sign() if two_sided else torch.where(moved >= v, 1.0, -1.0).to(v.dtype))
        fraction = (fraction + turns / (moved - v)).clamp_(0.0, 1.0)
        times = ((step + fraction) * self._program.dt).clamp(max=self.t_end)
        batch, n_neurons = self._trajectory.v.shape[1:]
        return SpikeTrains.from_events(
            sample, neuron, times, crossings.sign(), batch=batch, n_neurons=n_neurons, t_max=self.t_end
        )

    @property
    @untraced
    def spike_speeds(self) -> Float[Tensor, " S"]:
        """|dv/dt| of each step that crosses a threshold, 1/ms, in no order."""
        return self._located.speed.abs()

    @property
    def layer_spikes(self) -> list[SpikeTrains]:
        """`spikes` of the one layer."""
        return [self.spikes]

    @untraced
    def layer_counts(self, layer: int = -1) -> Int[Tensor, "B N"]:
        """Thresholds crossed by each neuron, in either direction; a whole number, without gradient."""
        _check_layer(layer)
        return self.crossings.abs().sum(0, dtype=torch.long)

    def layer_speeds(self, layer: int = -1) -> Float[Tensor, " S"]:
        """`spike_speeds` of the one layer."""
        _check_layer(layer)
        return self.spike_speeds

    def spike_count(self, layer: int = -1) -> Float[Tensor, "B N"]:
        """`spike_charge` of the one layer."""
        _check_layer(layer)
        return self.spike_charge

    @untraced
    def squared_errors(self, target: Float[Tensor, "T1 B C"]) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """Σ ‖o - o_d‖² and Σ ‖o_d‖² over times and batch.

        Args:
            target: o_d at the times ts.

        Raises:
            ConfigurationError: target and readout differ in shape.
        """
        return summed_errors(self.readout, target)

    @computed_once
    @untraced
    def stats(self) -> Stats:
        """Figures about this solve; computed when first asked for."""
        trajectory, located = self._trajectory, self._located
        speed, crossings = located.speed.abs(), located.crossings
        overlong = (crossings > 1) | (crossings < (-1 if self._program.neuron.two_sided else 0))
        return Stats(
            steps=len(trajectory.current),
            recomputed_steps=0,
            spikes=int(crossings.abs().sum(dtype=torch.long)),
            min_speed_at_spike=float(speed.min()) if len(speed) else float("inf"),
            grazing_samples=located.sample[speed < GRAZING_SPEED].unique().tolist(),
            overlong_steps=int(overlong.sum()),
            stored_bytes=sum(x.numel() * x.element_size() for x in trajectory.flat()),
            kernel=self._ran.kernel,
            kernel_reason=self._ran.reason,
        )

    @computed_once
    @untraced
    def _located(self) -> Located:
        v, crossings = self._found
        self._seal.check()
        return self._program.locate(self._tensors, self._u, replace(self._trajectory, v=v, crossings=crossings))


@dataclass(frozen=True)
class CheckpointedSolution(Recorded):
    """Solution of a gated-synapse network of which only the checkpoints of a trajectory are kept.

    A copy by `copy.deepcopy` or `torch.save` holds the numbers without a gradient, which lies on the tape of the solve.

    Attributes:
        ts: the T+1 times, ms.
        readout: o = W_out a_s, (T+1, B, C_out); differentiable.
        final_state: state at the last time; differentiable.
        spike_charge: Σ|q| of each neuron, its differentiable number of spikes, (B, N).
        spike_counts: its number of spikes of either sign, (B, N).
        t_end: the last time, ms.
    """

    ts: Float[Tensor, " T1"]
    readout: Float[Tensor, "T1 B C"]
    final_state: GatedState
    spike_charge: Float[Tensor, "B N"]
    spike_counts: Tensor
    t_end: float
    _record: Record = field(repr=False)
    _ran: Ran = field(repr=False)

    __repr__ = described

    @property
    @untraced
    def stats(self) -> Stats:
        """Figures about this solve; speeds at spikes are not known (NaN), recomputed_steps counts the last backward pass."""
        assert self._record.counts is not None
        return Stats(
            steps=len(self.ts) - 1,
            recomputed_steps=self._record.recomputed,
            spikes=int(self._record.counts.sum()),
            min_speed_at_spike=float("nan"),
            grazing_samples=[],
            overlong_steps=self._record.overlong,
            stored_bytes=self._record.kept_bytes,
            kernel=self._ran.kernel,
            kernel_reason=self._ran.reason,
        )

    def layer_counts(self, layer: int = -1) -> Int[Tensor, "B N"]:
        """`spike_counts` of the one layer."""
        _check_layer(layer)
        return self.spike_counts

    def spike_count(self, layer: int = -1) -> Float[Tensor, "B N"]:
        """`spike_charge` of the one layer."""
        _check_layer(layer)
        return self.spike_charge

    @untraced
    def squared_errors(self, target: Float[Tensor, "T1 B C"]) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """As of a GatedSolution."""
        return summed_errors(self.readout, target)

    def __getattr__(self, name: str) -> Any:
        if name in NOT_KEPT:
            raise NotKeptError(
                f"sol.{name} of a solve with checkpoints, which keeps no trajectory",
                "readout, final_state, spike_charge, spike_counts or stats",
                "adjoint=adjsnn.DiscreteAdjoint() without checkpoints",
            )
        raise AttributeError(name)


def _check_layer(layer: int) -> None:
    index("layer", layer, 1)
