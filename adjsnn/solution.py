"""What a solve returns."""

from dataclasses import dataclass, field
from functools import cached_property

import torch
from jaxtyping import Float, Int8
from torch import Tensor

from adjsnn.integrate.gated_euler import GatedEuler, GatedTrajectory
from adjsnn.spikes import SpikeTrains
from adjsnn.systems.gated_network import GatedState, GatedTensors
from adjsnn.systems.membranes import Constants

GRAZING_SPEED = 1e-6  # 1/ms: a spike slower than this grazes its threshold, and its gradient is not to be trusted


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
    """

    steps: int
    recomputed_steps: int
    spikes: int
    min_speed_at_spike: float
    grazing_samples: list[int]
    overlong_steps: int
    stored_bytes: int


@dataclass(frozen=True)
class GatedSolution:
    """Solution of a gated-synapse network.

    Attributes:
        ts: the T+1 times, ms.
        v, a_fast, a_slow: states at these times, each (T+1, B, N), dimensionless; differentiable.
        readout: o = W_out a_s, (T+1, B, C_out); differentiable.
    """

    ts: Float[Tensor, " T1"]
    v: Float[Tensor, "T1 B N"]
    a_fast: Float[Tensor, "T1 B N"]
    a_slow: Float[Tensor, "T1 B N"]
    readout: Float[Tensor, "T1 B C"]
    _program: GatedEuler = field(repr=False)
    _tensors: GatedTensors = field(repr=False)
    _trajectory: GatedTrajectory = field(repr=False)

    @property
    def charge(self) -> Float[Tensor, "T B N"]:
        """Charge q released in each step, equation (1.6), differentiable: its sum over a full crossing is 1.

        Recovered from the slow synapse, q = τ_s (a⁺ - a) + h a.
        """
        before, after = self.a_slow[:-1], self.a_slow[1:]
        return self._tensors.tau_slow * (after - before) + self._program.dt * before

    @property
    def crossings(self) -> Int8[Tensor, "T B N"]:
        """Thresholds crossed by each neuron in each step, negative for the lower threshold."""
        return self._trajectory.crossings

    @property
    def final_state(self) -> GatedState:
        """State at the last time, to go on from with `solve(..., y0=...)`."""
        return GatedState(self.v[-1], self.a_fast[-1], self.a_slow[-1])

    @cached_property
    def spikes(self) -> SpikeTrains:
        """Threshold crossings, located inside their steps: within an Euler step v moves on a straight line."""
        at, v, moved, _, _ = self._crossing_steps
        if len(v) == 0:
            times, repeats = v, at[0]
        else:
            repeats = self._trajectory.crossings[at].abs().long()
            first = repeats.cumsum(0) - repeats
            turn = torch.arange(int(repeats.sum()), device=v.device) - first.repeat_interleave(repeats)
            v, moved = (x.repeat_interleave(repeats) for x in (v, moved))
            # The k-th crossing within a step is that of level θ + k turns, or the mirror image.
            level = self._program.neuron.threshold + turn.to(v.dtype)
            level = torch.where(moved >= v, level, 1.0 - level) if not self._two_sided else level * moved.sign()
            fraction = ((level - v) / (moved - v)).clamp_(0.0, 1.0)
            times = (at[0].repeat_interleave(repeats) + fraction) * self._program.dt
        sign = self._trajectory.crossings[at]
        sample, neuron, sign = (x.repeat_interleave(repeats) if len(v) else x for x in (at[1], at[2], sign))
        batch, n_neurons = self.v.shape[1:]
        t_max = float(self.ts[-1])
        return SpikeTrains.from_events(
            sample, neuron, times.clamp(max=t_max), sign.sign(), batch=batch, n_neurons=n_neurons, t_max=t_max
        )

    @cached_property
    def stats(self) -> Stats:
        """Figures about this solve; computed when first asked for."""
        trajectory, neuron = self._trajectory, self._program.neuron
        at, _, moved, current, constants = self._crossing_steps
        speed = neuron.speed_at_threshold(moved, current, constants).abs()
        crossings = trajectory.crossings
        overlong = (crossings > 1) | (crossings < (-1 if self._two_sided else 0))
        return Stats(
            steps=len(trajectory.current),
            recomputed_steps=0,
            spikes=int(crossings[at].abs().sum()),
            min_speed_at_spike=float(speed.min()) if len(speed) else float("inf"),
            grazing_samples=at[1][speed < GRAZING_SPEED].unique().tolist(),
            overlong_steps=int(overlong.sum()),
            stored_bytes=sum(x.numel() * x.element_size() for x in trajectory.flat()),
        )

    @property
    def _two_sided(self) -> bool:
        return self._program.neuron.two_sided

    @cached_property
    def _crossing_steps(self) -> tuple[tuple[Tensor, ...], Tensor, Tensor, Tensor, Constants]:
        """Index (step, sample, neuron) of each step with a crossing, and v, ṽ, I and the constants there."""
        trajectory = self._trajectory
        with torch.no_grad():
            at = trajectory.crossings.nonzero(as_tuple=True)
            v, current = trajectory.v[:-1][at], trajectory.current[at]
            constants = {name: x.detach()[at[2]] if x.dim() else x.detach() for name, x in self._tensors.constants.items()}
            constants = self._program.neuron.prepare(constants)
            moved = self._program.neuron.advance(v, current, constants, self._program.dt)
        return at, v, moved, current, constants
