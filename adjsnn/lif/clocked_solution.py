"""What a solve of a LIF network on a clock returns; its face is that of `adjsnn.solutions`."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor

from adjsnn.bodies import Ran
from adjsnn.checks import Number, index, positive
from adjsnn.errors import ConfigurationError
from adjsnn.kept import Recorded, Seal, computed_once
from adjsnn.lif.clocked import ClockedRun, spiking
from adjsnn.lif.clocked_readout import error_integral, filtered, integral, square_integral
from adjsnn.lif.readout import Readout, target_at, target_square, windows
from adjsnn.lif.structure import AnyState, LIFLayer
from adjsnn.solutions import described
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
class ClockedSolution(Recorded):
    """Solution of a LIF network on a clock, (5.1). Its gradients are those of the learning rule that made it.

    A copy by `copy.deepcopy` or `torch.save` holds the numbers without a gradient, which lies on the tape of the solve.

    Attributes:
        ts: (T,), the times asked for, ms; all of the grid where none were.
        i: current of each layer at these times, each (T, B, N_l); differentiable.
        a: spike-triggered currents of each layer, (T, B, J, N_l), after spikes; None for a layer without adaptation.
        h: components of the threshold of each layer beside v_th, (T, B, H, N_l), likewise.
        t_end: end of the trial, ms.
        dt: the step, ms.

    Raises:
        ConfigurationError: a figure is asked for after a state or the spikes that it is computed from were changed in place.
    """

    ts: Float[Tensor, " T"]
    i: list[Tensor]
    a: list[Tensor | None]
    h: list[Tensor | None]
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

    __repr__ = described

    def __post_init__(self) -> None:
        parts = {}
        for k, run in enumerate(self._runs):
            if run.held is not None:
                parts[f"sol.v[{k}]"] = run.held
            parts |= {f"sol.spikes_on_grid({k})": run.spikes, f"sol.i[{k}]": run.i}
            parts |= {f"sol.{name}[{k}]": x for name, x in (("a", run.a), ("h", run.h)) if x is not None}
        object.__setattr__(self, "_seal", Seal(**parts))

    @computed_once
    @untraced
    def v(self) -> list[Tensor]:
        """Voltage of each layer at the times ts, each (T, B, N_l), after resets; differentiable."""
        self._seal.check()
        whole = len(self._rows) == len(self._runs[0].spikes)
        return [run.v if whole else run.v[self._rows] for run in self._runs]

    @computed_once
    @untraced
    def final_state(self) -> list[AnyState]:
        """Voltage and current of each layer at t_end, and what its spikes triggered; differentiable."""
        self._seal.check()
        return [run.last() for run in self._runs]

    @untraced
    def threshold(self, layer: int = -1) -> Float[Tensor, "T B N"]:
        """Threshold of each neuron at the times ts, v_th and what its spikes have added, (5.1a); differentiable."""
        self._seal.check()
        k = index("layer", layer, len(self._runs))
        v_th, h = self._layers[k].v_th, self.h[k]
        return v_th.expand_as(self.i[k]).clone() if h is None else v_th + h.sum(2)

    @untraced
    def currents(self, layer: int = -1) -> Float[Tensor, "T B N"]:
        """All current into each neuron at the times ts, synaptic and triggered by its spikes, without bias and drive."""
        self._seal.check()
        k = index("layer", layer, len(self._runs))
        a = self.a[k]
        return self.i[k].clone() if a is None else self.i[k] + a.sum(2)

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

    def spike_counts(self, layer: int = -1) -> Int[Tensor, "B N"]:
        """The same as `layer_counts`."""
        return self.layer_counts(layer)

    @untraced
    def spike_count(self, layer: int = -1) -> Float[Tensor, "B N"]:
        """Σ_n S[n] of each neuron, differentiable by the rule."""
        return self._run(layer).spikes.sum(0)

    @untraced
    def voltage_max(self, layer: int = -1) -> Float[Tensor, "B N"]:
        """Largest voltage of each neuron over the grid; differentiable. The threshold for a neuron that spikes."""
        k, run = index("layer", layer, len(self._runs)), self._run(layer)
        return torch.where(spiking(run).any(0), self._layers[k].v_th, run.peak.amax(0))

    def voltage_gap(self, layer: int = -1) -> Float[Tensor, "B N"]:
        """v_th - max v of each neuron that is silent, and 0 of one that spikes; differentiable, by v_th too.

        Where y0 has a threshold raised or lowered it is the least of θ - v.
        """
        k, run = index("layer", layer, len(self._runs)), self._run(layer)
        over = run.peak if run.h is None else run.peak - run.h.sum(2)  # h after spikes is h of a neuron without any
        return torch.where(spiking(run).any(0), 0.0, self._layers[k].v_th - over.amax(0))

    @untraced
    def layer_speeds(self, layer: int = -1) -> Float[Tensor, " S"]:
        """Mean dv/dt of the step that ends at each spike, of a threshold that moves relative to it, 1/ms, in no order."""
        run, own = self._run(layer), self._layers[index("layer", layer, len(self._layers))]
        rise = (run.peak[1:] - run.v[:-1]).detach()
        if run.h is not None and own.tau_th is not None:  # which falls back by h (1 - e^{-dt/τ})
            rise = rise - (torch.expm1(-self.dt / own.tau_th) * run.h[:-1]).sum(2).detach()
        return (rise / self.dt)[spiking(run)[1:]]

    @computed_once
    @untraced
    def readout(self) -> Float[Tensor, "T B C"]:
        """Filtered linear readout of the last layer's spikes at the times ts, (2.13); differentiable by the rule.

        Raises:
            ConfigurationError: a network without readout.
        """
        readout, sent = self._read()
        return filtered(sent, self.dt, readout.tau_out)[self._rows]

    @untraced
    def readout_error(self, target: Float[Tensor, "T B C"]) -> Float[Tensor, " B"]:
        """∫ ‖o - o_d‖² dt over ts[0] … ts[-1] for each sample, exact, (2.17); differentiable by the rule.

        Args:
            target: o_d at the times ts, linear between them; without gradient.

        Raises:
            ConfigurationError: a network without readout, fewer than two times ts, or a target of another shape.
        """
        target, (first, last) = self._target(target), (int(self._rows[0]), int(self._rows[-1]))
        readout, sent = self._read()
        o = filtered(sent, self.dt, readout.tau_out)[first : last + 1]
        own = torch.arange(first, last + 1, device=self._rows.device)
        after = torch.searchsorted(self._rows, own).clamp(1, len(self._rows) - 1)
        start, stop = self._rows[after - 1], self._rows[after]
        part = ((own - start).double() / (stop - start).clamp(min=1).double())[:, None, None].to(o)
        between = torch.lerp(target[after - 1], target[after], part)
        error = error_integral(o.double(), between.double(), self.dt, readout.tau_out)
        return error.to(o) + self.error_of_silence(target)

    @untraced
    def error_of_silence(self, target: Float[Tensor, "T B C"]) -> Float[Tensor, " B"]:
        """∫ ‖o_d‖² dt, what `readout_error` is for a network without spikes."""
        target = self._target(target)
        return target_square(self._rows.double() * self.dt, target.double()).to(self.ts)

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
        """`readout_error` and `error_of_silence`, each summed over the batch."""
        return self.readout_error(target).sum(), self.error_of_silence(target).sum()

    @untraced
    def readout_integral(self, start: Float[Tensor, " B"], stop: Float[Tensor, " B"]) -> Float[Tensor, "B C"]:
        """∫ o dt over windows as `LIFSolution.readout_integral` takes them, (2.18); differentiable by the rule."""
        readout, sent = self._read()
        return integral(sent, self.dt, readout.tau_out, *windows(start, stop, sent.shape[1]))

    @untraced
    def squared_rate(self, tau: Number = 20.0, layer: int = -1) -> Float[Tensor, "B N"]:
        """Mean over time of the square of each neuron's filtered rate, (spikes/s)², (2.19); differentiable by the rule.

        Args:
            tau: time constant of the filter, ms.
            layer: its number; default the last.

        Raises:
            ConfigurationError: tau not positive.
        """
        tau = positive("tau", tau, remedy="tau=20.0")
        return square_integral(filtered(self._run(layer).spikes, self.dt, tau), self.dt, tau) * (1e6 / self.t_end)

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
            stored_bytes=sum(x.nbytes for run in self._runs for x in run if x is not None),
            kernel=self._ran.kernel,
            kernel_reason=self._ran.reason,
        )

    def _read(self) -> tuple[Readout, Tensor]:
        """The readout, where there is one, and W_out S."""
        if self._readout is None or self._sent is None:
            raise ConfigurationError("the readout of a network without one", "a network with n_out", "LIFNetwork(..., n_out=1)")
        return self._readout, self._sent

    def _target(self, target: object) -> Tensor:
        """A target of the readout's shape."""
        _, sent = self._read()
        return target_at(target, (len(self._rows), *sent.shape[1:])).detach().to(sent)

    def _run(self, layer: object) -> ClockedRun:
        self._seal.check()
        return self._runs[index("layer", layer, len(self._runs))]

    def _trains(self, run: ClockedRun) -> SpikeTrains:
        step, sample, neuron = spiking(run).nonzero().unbind(1)
        _, batch, n = run.spikes.shape
        time = (step.double() * self.dt).clamp(max=self.t_end).to(self.ts)
        sign = torch.ones_like(step)
        return SpikeTrains.from_events(sample, neuron, time, sign, batch=batch, n_neurons=n, t_max=self.t_end)
