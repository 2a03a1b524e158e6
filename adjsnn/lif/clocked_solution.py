"""What a solve of a LIF network on a clock returns; its face is that of `adjsnn.solutions`."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor

from adjsnn.bodies import Ran
from adjsnn.checks import index
from adjsnn.errors import ConfigurationError
from adjsnn.kept import Seal, computed_once
from adjsnn.lif.clocked import ClockedRun, spiking
from adjsnn.lif.network import LIFLayer, LIFState
from adjsnn.lif.readout import Readout
from adjsnn.solutions import summed_errors
from adjsnn.spikes import SpikeTrains
from adjsnn.untraced import untraced


@dataclass(frozen=True)
class ClockedStats:
    """Figures about one solve on a clock.

    Attributes:
        steps: T, time steps taken.
        spikes: number of spikes of each layer in the whole batch.
        silent_neurons: number of neurons of each layer that spike in no sample.
        stored_bytes: memory held of states and spikes, without what torch's tape holds.
        kernel: which body of code took the steps: "plain", torch operations, or "fused", compiled loops.
        kernel_reason: why this one.
    """

    steps: int
    spikes: tuple[int, ...]
    silent_neurons: tuple[int, ...]
    stored_bytes: int
    kernel: str
    kernel_reason: str

    @property
    def layer_spikes(self) -> tuple[int, ...]:
        """The same as `spikes`."""
        return self.spikes


@dataclass(frozen=True)
class ClockedSolution:
    """Solution of a LIF network on a clock, (5.1). Its gradients are those of the learning rule that made it.

    Attributes:
        ts: (T,), the times asked for, ms; all of the grid where none were.
        v: voltage of each layer at these times, each (T, B, N_l), after resets; differentiable.
        i: current of each layer, likewise.
        final_state: voltage and current of each layer at t_end; differentiable.
        t_end: end of the trial, ms.
        dt: the step, ms.

    Raises:
        ConfigurationError: a figure is asked for after a state or the spikes that it is computed from were changed in place.
    """

    ts: Float[Tensor, " T"]
    v: list[Tensor]
    i: list[Tensor]
    final_state: list[LIFState]
    t_end: float
    dt: float
    _rows: Int[Tensor, " T"] = field(repr=False)
    _layers: Sequence[LIFLayer] = field(repr=False)
    _runs: Sequence[ClockedRun] = field(repr=False)
    _readout: Readout | None = field(repr=False)
    _sent: Tensor | None = field(repr=False)
    _ran: Ran = field(repr=False)
    _local: Sequence[Tensor] = field(default=(), repr=False)  # G of each layer, by a rule of local errors
    _seal: Seal = field(init=False, repr=False)

    def __post_init__(self) -> None:
        parts = {}
        for k, run in enumerate(self._runs):
            parts |= {f"sol.spikes_on_grid({k})": run.spikes, f"sol.v[{k}]": run.v, f"sol.i[{k}]": run.i}
        object.__setattr__(self, "_seal", Seal(**parts))

    @untraced
    def spikes_on_grid(self, layer: int = -1) -> Float[Tensor, "T1 B N"]:
        """S at the times 0, h, … t_end: 1 where a neuron spikes, else 0; differentiable by the rule."""
        return self._run(layer).spikes

    @untraced
    def weighted_spikes(self, layer: int = -1) -> tuple[Int[Tensor, " S"], Float[Tensor, " S"], Float[Tensor, " S"]]:
        """Every place where a neuron may spike: sample · N + neuron, the time, ms, and S, differentiable by the rule.

        A sum over spikes of a function of their times, such as the van Rossum distance, is one over these with the weights S.
        """
        s = self._run(layer).spikes
        steps, batch, n = s.shape
        group = torch.arange(batch * n, device=s.device).repeat(steps)
        time = (self.dt * torch.arange(steps, device=s.device, dtype=torch.float64)).repeat_interleave(batch * n)
        return group, time, s.flatten()

    @computed_once
    @untraced
    def layer_spikes(self) -> list[SpikeTrains]:
        """Spikes of each layer; their times, on the grid, without gradient."""
        self._seal.check()
        return [self._trains(run) for run in self._runs]

    @untraced
    def first_spike_times(self, layer: int = -1) -> Float[Tensor, "B N"]:
        """First spike time of each neuron, ms; inf for a neuron that is silent, without gradient.

        It is h Σ_n Π_{m≤n} (1 - S[m]) and has the derivative of that by S.
        """
        run = self._run(layer)
        time = self.dt * torch.cumprod(1.0 - run.spikes, 0)[:-1].sum(0)
        return torch.where(spiking(run).any(0), time, float("inf"))

    @untraced
    def layer_counts(self, layer: int = -1) -> Int[Tensor, "B N"]:
        """Number of spikes of each neuron; a whole number, without gradient."""
        return spiking(self._run(layer)).sum(0)

    @untraced
    def spike_count(self, layer: int = -1) -> Float[Tensor, "B N"]:
        """Σ_n S[n] of each neuron, differentiable by the rule."""
        return self._run(layer).spikes.sum(0)

    @untraced
    def voltage_max(self, layer: int = -1) -> Float[Tensor, "B N"]:
        """Largest voltage of each neuron over the grid; differentiable. The threshold for a neuron that spikes."""
        k, run = index("layer", layer, len(self._runs)), self._run(layer)
        return torch.where(spiking(run).any(0), self._layers[k].v_th, run.peak.amax(0))

    @untraced
    def layer_speeds(self, layer: int = -1) -> Float[Tensor, " S"]:
        """Mean dv/dt of the step that ends at each spike, 1/ms, in no order."""
        run = self._run(layer)
        speed = (run.peak[1:] - run.v[:-1]).detach() / self.dt
        return speed[spiking(run)[1:]]

    @computed_once
    @untraced
    def readout(self) -> Float[Tensor, "T B C"]:
        """Filtered linear readout of the last layer's spikes at the times ts, (2.13); differentiable by the rule.

        Raises:
            ConfigurationError: a network without readout.
        """
        if self._readout is None or self._sent is None:
            raise ConfigurationError("the readout of a network without one", "a network with n_out", "LIFNetwork(..., n_out=1)")
        tau = self._readout.tau_out
        decay = float(torch.exp(torch.tensor(-self.dt / tau, dtype=torch.float64)))
        rows: list[Tensor] = []
        for sent in (self._sent / tau).unbind():
            rows.append(sent + decay * rows[-1] if rows else sent)
        return torch.stack(rows)[self._rows]

    @untraced
    def local_readout(self, layer: int = -1) -> Float[Tensor, "T1 B C"]:
        """y = G S of a layer at the times 0, h, … t_end, G its fixed readout (5.6); its error stays in the layer.

        Raises:
            ConfigurationError: a rule without local readouts.
        """
        s = self._run(layer).spikes
        if not self._local:
            raise ConfigurationError(
                "the local readout of a solve by a rule without one",
                "a solve by LocalErrors",
                "adjoint=adjsnn.rules.LocalErrors(), or sol.readout of a network with n_out",
            )
        return torch.nn.functional.linear(s, self._local[index("layer", layer, len(self._local))])

    @untraced
    def squared_errors(self, target: Float[Tensor, "T B C"]) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """Σ ‖o - o_d‖² and Σ ‖o_d‖² over the times ts and the batch."""
        return summed_errors(self.readout, target)

    @computed_once
    @untraced
    def stats(self) -> ClockedStats:
        """Figures about this solve; computed when first asked for."""
        self._seal.check()
        fired = [spiking(run) for run in self._runs]
        return ClockedStats(
            steps=len(self._runs[0].spikes) - 1,
            spikes=tuple(int(x.sum()) for x in fired),
            silent_neurons=tuple(int((~x.flatten(0, 1).any(0)).sum()) for x in fired),
            stored_bytes=sum(x.nbytes for run in self._runs for x in run),
            kernel=self._ran.kernel,
            kernel_reason=self._ran.reason,
        )

    def _run(self, layer: object) -> ClockedRun:
        self._seal.check()
        return self._runs[index("layer", layer, len(self._runs))]

    def _trains(self, run: ClockedRun) -> SpikeTrains:
        step, sample, neuron = spiking(run).nonzero().unbind(1)
        _, batch, n = run.spikes.shape
        time = (step.double() * self.dt).clamp(max=self.t_end).to(self.ts)
        sign = torch.ones_like(step)
        return SpikeTrains.from_events(sample, neuron, time, sign, batch=batch, n_neurons=n, t_max=self.t_end)
