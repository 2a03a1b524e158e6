"""What a solve of a LIF network returns; its face is that of `adjsnn.solutions`."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import pad

from adjsnn.bodies import Ran
from adjsnn.checks import Number, index, positive
from adjsnn.errors import ConfigurationError
from adjsnn.kept import Recorded, Seal, computed_once
from adjsnn.lif.glif import voltage as glif
from adjsnn.lif.layer import Drive, Events, counts_of, first_of, sample_of
from adjsnn.lif.readout import (
    Readout,
    filtered_readout,
    readout_error,
    readout_integral,
    squared_activity,
    target_at,
    target_square,
    windows,
)
from adjsnn.lif.run import LayerResult
from adjsnn.lif.structure import AdaptiveState, AnyState, LIFLayer, LIFState, Structure, state_of
from adjsnn.lif.voltage import voltage_integral, voltage_max
from adjsnn.solutions import described
from adjsnn.spikes import GRAZING_SPEED, SpikeTrains
from adjsnn.untraced import untraced


@dataclass(frozen=True)
class LIFStats:
    """Figures about one solve of a LIF network.

    Attributes:
        spikes: number of spikes of each layer in the whole batch.
        silent_neurons: number of neurons of each layer that spike in no sample; they get no gradient from spike times.
        silent: number of (sample, neuron) pairs of each layer without a spike.
        min_speed_at_spike: smallest dv/dt at a spike, 1/ms; inf without spikes.
        grazing: (layer, sample, neuron) of spikes slower than GRAZING_SPEED, whose gradient is not to be trusted.
        stored_bytes: memory held between forward and backward pass.
        kernel: which body of code solved it: "fused", compiled loops; "cuda", loops compiled for a GPU; or "plain", an event
            queue in numpy.
        kernel_reason: why this one.
    """

    spikes: tuple[int, ...]
    silent_neurons: tuple[int, ...]
    silent: tuple[int, ...]
    min_speed_at_spike: float
    grazing: list[tuple[int, int, int]]
    stored_bytes: int
    kernel: str
    kernel_reason: str

    @property
    def layer_spikes(self) -> tuple[int, ...]:
        """The same as `spikes`."""
        return self.spikes


@dataclass(frozen=True)
class LIFSolution(Recorded):
    """Solution of a LIF network, exact to rounding.

    Figures are computed when asked for, from what was solved: the network may have learnt meanwhile.

    A copy by `copy.deepcopy` or `torch.save` holds the numbers without a gradient, which lies on the tape of the solve.

    Attributes:
        t_end: end of the trial, ms.
        ts: (T,), times at which states were asked for, ms; empty without.

    Raises:
        ConfigurationError: a figure is asked for after the spike times it is computed from were changed in place.
    """

    t_end: float
    ts: Float[Tensor, " T"]
    _layers: list[LIFLayer] = field(repr=False)
    _results: list[LayerResult] = field(repr=False)
    _inputs: tuple[Tensor, Events] = field(repr=False)
    _y0: Sequence[AnyState] = field(repr=False)
    _times: Tensor = field(repr=False)
    _readout: Readout | None = field(repr=False)
    _ran: Ran = field(repr=False)
    _drive: Drive | None = field(repr=False, default=None)
    _structures: Sequence[Structure | None] = field(repr=False, default=())
    _voltages_read: list[int] = field(repr=False, default_factory=list)
    _seal: Seal = field(init=False, repr=False)

    _described: ClassVar = ("v", "i", "a", "h", "final_state")
    __repr__ = described

    def __post_init__(self) -> None:
        times = {f"sol.spike_times({k})": result.time for k, result in enumerate(self._results)}
        object.__setattr__(self, "_seal", Seal(**times))

    @computed_once
    @untraced
    def v(self) -> list[Tensor]:
        """Voltage of each layer at the times ts, each (T, B, N_l); differentiable. At the instant of an event that after it."""
        return [result.v[:-1] for result in self._results]

    @computed_once
    @untraced
    def i(self) -> list[Tensor]:
        """Current of each layer, likewise, or (T, B, K, N_l) of K receptors."""
        return [result.i[:-1] for result in self._results]

    @computed_once
    @untraced
    def a(self) -> list[Tensor | None]:
        """Spike-triggered currents of each layer, (T, B, J, N_l), or None without."""
        return [None if result.a is None else result.a[:-1] for result in self._results]

    @computed_once
    @untraced
    def h(self) -> list[Tensor | None]:
        """Components of the threshold of each layer beside v_th, (T, B, H, N_l), or None without; what follows v last."""
        return [None if result.h is None else result.h[:-1] for result in self._results]

    @computed_once
    @untraced
    def final_state(self) -> list[AnyState]:
        """The state of each layer at t_end; differentiable.

        It holds neither what is left of refractory times nor spikes on their way through delays: where there are any, no solve
        that starts from it is the continuation.
        """
        ends = [self._end(k) for k in range(len(self._results))]
        return [end._make(x.clone() for x in end) for end in ends]

    @computed_once
    @untraced
    def layer_spikes(self) -> list[SpikeTrains]:
        """Spikes of each layer, their times differentiable."""
        return [self._trains(layer, self._result(k)) for k, layer in enumerate(self._layers)]

    @untraced
    def threshold(self, layer: int = -1) -> Float[Tensor, "T B N"]:
        """Threshold of each neuron at the times ts, v_th and all that moves it, (6.1), (6.9); differentiable."""
        k = self._number(layer)
        v_th, h = self._layers[k].v_th, self.h[k]
        return v_th.expand_as(self.v[k]).clone() if h is None else v_th + h.sum(2)

    @untraced
    def currents(self, layer: int = -1) -> Float[Tensor, "T B N"]:
        """All current into each neuron at the times ts, synaptic and triggered by its spikes, without bias and drive."""
        k = self._number(layer)
        i, a = self.i[k], self.a[k]
        synaptic = i if i.dim() == 3 else i.sum(2)
        return synaptic if a is None else synaptic + a.sum(2)

    @untraced
    def spike_times(self, layer: int = -1) -> Float[Tensor, " S"]:
        """Times of all spikes of a layer in one column, sample by sample, sorted within a sample; differentiable."""
        return self._results[self._number(layer)].time

    @untraced
    def first_spike_times(self, layer: int = -1) -> Float[Tensor, "B N"]:
        """First spike time of each neuron, ms; differentiable; inf for a neuron that is silent, without gradient."""
        k = self._number(layer)
        result = self._result(k)
        time, spikes, n = result.time, result.run.spikes, self._layers[k].v_th.shape[0]
        return pad(time, (0, 1), value=math.inf).index_select(0, first_of(spikes, n)).view(spikes.batch, n)

    @untraced
    def spike_counts(self, layer: int = -1) -> Int[Tensor, "B N"]:
        """Number of spikes of each neuron; a whole number, without gradient."""
        k = self._number(layer)
        return self._counts(k)

    def layer_counts(self, layer: int = -1) -> Int[Tensor, "B N"]:
        """The same as `spike_counts`."""
        return self.spike_counts(layer)

    @untraced
    def spike_count(self, layer: int = -1) -> Float[Tensor, "B N"]:
        """Number of spikes of each neuron in the dtype of the network; without gradient, which `voltage_max` has."""
        return self.spike_counts(layer).to(self.ts)

    @computed_once
    @untraced
    def readout(self) -> Float[Tensor, "T B C"]:
        """Filtered linear readout of the last layer's spikes at the times ts, (2.13); differentiable.

        Raises:
            ConfigurationError: a network without readout, or a solve without ts.
        """
        return filtered_readout(self._read(1), self._result(-1), self._times)

    @untraced
    def readout_error(self, target: Float[Tensor, "T B C"]) -> Float[Tensor, " B"]:
        """∫ ‖o - o_d‖² dt over ts[0] … ts[-1] for each sample, exact (2.17); differentiable.

        The gradient of a sum over sampled values is another: between samples it does not see a spike move, and it does not see
        one pass a sample at all. This integral changes smoothly with every spike time.

        Args:
            target: o_d at the times ts, linear between them; without gradient.

        Raises:
            ConfigurationError: a network without readout, fewer than two times ts, or a target of another shape.
        """
        readout, target = self._read_against(target)
        return readout_error(readout, self._result(-1), self._times, target.detach()).to(readout.w_out)

    @untraced
    def error_of_silence(self, target: Float[Tensor, "T B C"]) -> Float[Tensor, " B"]:
        """∫ ‖o_d‖² dt, what `readout_error` is for a network without spikes."""
        readout, target = self._read_against(target)
        return target_square(self._times.double(), target.detach().double()).to(readout.w_out)

    @untraced
    def squared_errors(self, target: Float[Tensor, "T B C"]) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """`readout_error` and `error_of_silence`, each summed over the batch."""
        return self.readout_error(target).sum(), self.error_of_silence(target).sum()

    @untraced
    def readout_integral(self, start: Float[Tensor, " B"], stop: Float[Tensor, " B"]) -> Float[Tensor, "B C"]:
        """∫ o dt over a window of each sample, exact (2.18); needs no times ts; differentiable in all but the window.

        Args:
            start: when the windows begin, ms.
            stop: when they end, ms, start ≤ stop.

        Raises:
            ConfigurationError: a network without readout, or windows of another shape or backward in time.
        """
        readout, batch = self._read(0), self._results[-1].run.spikes.batch
        start, stop = windows(start, stop, batch)
        return readout_integral(readout, self._result(-1), start, stop)

    def _read(self, times: int) -> Readout:
        """The readout, where there is one and as many times ts as needed."""
        if self._readout is None:
            raise ConfigurationError("the readout of a network without one", "a network with n_out", "LIFNetwork(..., n_out=1)")
        if len(self._times) < times:
            raise ConfigurationError(
                f"the readout of a solve with {len(self._times)} times ts",
                f"at least {times} to read it at",
                "solve(..., ts=...)",
            )
        return self._readout

    def _read_against(self, target: object) -> tuple[Readout, Tensor]:
        """The readout, and a target of its shape."""
        readout = self._read(0)
        batch = self._results[-1].run.spikes.batch
        return readout, target_at(target, (len(self._times), batch, len(readout.w_out)))

    @untraced
    def squared_rate(self, tau: Number = 20.0, layer: int = -1) -> Float[Tensor, "B N"]:
        """Mean over time of the square of each neuron's filtered rate, (spikes/s)², exact (2.19); differentiable.

        A price on activity that has a gradient, which a count of spikes has not: it pushes the spikes of a neuron apart. For a
        neuron of rate r it is about r² + 500 r/τ.

        Args:
            tau: time constant of the filter, ms.
            layer: its number; default the last.

        Raises:
            ConfigurationError: tau not positive.
        """
        tau = positive("tau", tau, remedy="tau=20.0")
        if not self.t_end > 0.0:
            raise ConfigurationError("a rate over a trial of 0 ms", "a trial that lasts", "t_end=60.0")
        k = self._number(layer)
        energy = squared_activity(self._result(k), len(self._layers[k].v_th), tau)
        return (energy * (1e6 / self.t_end)).to(self._layers[k].v_th)

    @untraced
    def voltage_max(self, layer: int = -1) -> Float[Tensor, "B N"]:
        """Largest voltage of each neuron over the trial, (2.11); differentiable. Of one that spikes v_th, also where its
        threshold moves.

        Of generalised layers, (6.5), it is searched neuron by neuron in Python, of those that are silent.
        """
        k = self._number(layer)
        self._voltages_read.append(k)
        drive, own, start = self._drive if k == 0 else None, self._structures[k], self._y0[k]
        if own is not None:
            return glif.voltage_max(self._layers[k], own, self._fed_by(k), self._result(k), start, self.t_end, drive)
        assert isinstance(start, LIFState)
        return voltage_max(self._layers[k], self._fed_by(k), self._result(k), start, self.t_end, drive)

    def voltage_gap(self, layer: int = -1) -> Float[Tensor, "B N"]:
        """v_th - max v of each neuron that is silent, and 0 of one that spikes; differentiable, by v_th too.

        Raises:
            ConfigurationError: a layer whose thresholds move without a spike: they follow the voltage, or y0 has them raised or
                lowered. v_th is not what a silent neuron is below.
        """
        k = self._number(layer)
        own, start = self._layers[k], self._y0[k]
        if own.tau_follow is not None or (isinstance(start, AdaptiveState) and bool((start.h != 0.0).any())):
            raise ConfigurationError(
                f"the distance to the threshold of layer {k}, which moves without a spike",
                "one that only spikes move, without tau_follow and with h = 0 in y0",
                f"sol.voltage_max({k}), or a loss of sol.threshold({k}) - sol.v[{k}] at times ts",
            )
        return own.v_th - self.voltage_max(k)

    @untraced
    def voltage_integral(self, layer: int = -1) -> Float[Tensor, "B N"]:
        """∫ v dt of each neuron over the trial, ms; differentiable.

        Raises:
            ConfigurationError: a layer with refractory times, for which there is no balance to compute it from; a generalised
                one without leak, with factors at spikes, or whose reset leaves out a moving threshold.
        """
        k = self._number(layer)
        self._voltages_read.append(k)
        if bool((self._layers[k].refractory != 0.0).any()):
            raise ConfigurationError(
                f"the integral of v of layer {k}, which has refractory times", "refractory=0.0", "the voltages at times ts"
            )
        result, own, start, end = self._result(k), self._structures[k], self._y0[k], self._end(k)
        if own is not None:
            integral = glif.voltage_integral(self._layers[k], own, self._fed_by(k), result, start, end, self.t_end)
        else:
            assert isinstance(start, LIFState)
            assert isinstance(end, LIFState)
            integral = voltage_integral(self._layers[k], self._fed_by(k), result, start, end, self.t_end)
        if k == 0 and self._drive is not None:
            return integral + (self._drive.values.sum(0) * self._drive.dt).to(integral)
        return integral

    def _number(self, layer: object) -> int:
        return index("layer", layer, len(self._layers))

    def _end(self, layer: int) -> AnyState:
        """The state of a layer at t_end."""
        result = self._results[layer]
        return state_of(result.v[-1], result.i[-1], *(None if x is None else x[-1] for x in (result.a, result.h)))

    def _fed_by(self, layer: int) -> tuple[Tensor, Events]:
        """Times and events of the spikes that a layer receives."""
        if not layer:
            return self._inputs
        below = self._result(layer - 1)
        return below.time, below.run.spikes

    def _result(self, layer: int) -> LayerResult:
        """What was solved of a layer, where its spike times still are those of the solve."""
        self._seal.check(f"sol.spike_times({range(len(self._results))[layer]})")
        return self._results[layer]

    @untraced
    def spike_speeds(self, layer: int = -1) -> Float[Tensor, " S"]:
        """dv/dt just before each spike of a layer, 1/ms, sample by sample in order of time, equation (2.7)."""
        k = self._number(layer)
        return _speeds(self._layers[k], self._results[k]).cpu()

    def layer_speeds(self, layer: int = -1) -> Float[Tensor, " S"]:
        """The same as `spike_speeds`."""
        return self.spike_speeds(layer)

    @computed_once
    @untraced
    def stats(self) -> LIFStats:
        """Figures about this solve; computed when first asked for."""
        counts = [self._counts(k) for k in range(len(self._results))]
        speeds = [_speeds(layer, result) for layer, result in zip(self._layers, self._results, strict=True)]
        slow = [
            (k, int(sample_of(result.run.spikes)[s]), int(result.run.spikes.neuron[s]))
            for k, (result, speed) in enumerate(zip(self._results, speeds, strict=True))
            for s in (~(speed >= GRAZING_SPEED)).nonzero()[:, 0].tolist()
        ]
        return LIFStats(
            spikes=tuple(len(result.time) for result in self._results),
            silent_neurons=tuple(int((c.sum(0) == 0).sum()) for c in counts),
            silent=tuple(int((c == 0).sum()) for c in counts),
            min_speed_at_spike=min((float(x.min()) for x in speeds if len(x)), default=float("inf")),
            grazing=slow,
            stored_bytes=sum(result.run.stored_bytes for result in self._results)
            + (0 if self._drive is None else self._drive.values.nbytes),
            kernel=self._ran.kernel,
            kernel_reason=self._ran.reason,
        )

    def _counts(self, layer: int) -> Tensor:
        spikes, n = self._results[layer].run.spikes, len(self._layers[layer].v_th)
        return counts_of(spikes, n)

    def _trains(self, layer: LIFLayer, result: LayerResult) -> SpikeTrains:
        spikes, time = result.run.spikes, result.time
        counts, sample = spikes.first.diff(), sample_of(spikes)
        entries = (sample, torch.arange(len(sample), device=sample.device) - spikes.first[sample])
        shape, neuron = (spikes.batch, int(counts.max()) if len(counts) else 0), spikes.neuron
        idx = neuron.new_full(shape, -1).index_put(entries, neuron)
        return SpikeTrains(idx, time.new_full(shape, float("inf")).index_put(entries, time), len(layer.v_th), self.t_end)


def _speeds(layer: LIFLayer, result: LayerResult) -> Tensor:
    """v̇ just before each spike, 1/ms, (2.7); of a generalised layer v̇ - θ̇, (6.4)."""
    if result.run.speed is not None:
        return result.run.speed.clone()  # the backward pass reads it
    n = result.run.spikes.neuron
    v_th, bias, tau_mem = (x.detach().double() for x in (layer.v_th, layer.bias, layer.tau_mem))
    return (result.run.current + bias[n] - v_th[n]) / tau_mem[n]
