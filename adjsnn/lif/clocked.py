"""LIF layers on a clock, equations (5.1), (5.1a): the exact flow over steps of h, spikes on the grid. Plain torch operations.

A learning rule that needs a grid runs this program, and says how it differentiates a spike. What comes from the
network's tensors, time constants included, is on torch's tape; delays and refractory times are rounded to steps, without
gradient. Layers follow one another: all of a layer's steps are taken before the next one's.
"""

from collections.abc import Callable, Iterator
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from adjsnn.kept import Recorded
from adjsnn.lif.clocked_adaptation import Adaptation
from adjsnn.lif.structure import AdaptiveState, AnyState, LIFLayer, state_of
from adjsnn.numerics.first_order import FirstOrder, first_order
from adjsnn.numerics.memory import fresh

Reset = Literal["to", "by"]
RESETS = ("to", "by")
SERIES_BELOW = 1e-2  # |x| under which (1 - e^{-x})/x and its derivative are summed as a series, to rounding


@runtime_checkable
class Differentiated(Protocol):
    """A spike, and what a rule takes for its derivative."""

    def fire(self, x: Tensor) -> Tensor:
        """S of x = v - v_th, 0 or 1, with the gradient of `derivative`."""
        ...

    def derivative(self, x: Tensor) -> Tensor:
        """σ′ of x."""
        ...


class Slope(NamedTuple):
    """A σ′ that compiled loops know, height · shape(γ x); a rule's spike has it as `loops`, one that they do not know has none.

    Attributes:
        shape: one of SHAPES.
        gamma: γ, 1/voltage.
        height: at 0.
    """

    shape: str
    gamma: float
    height: float


SHAPES = ("fast sigmoid", "triangle", "rectified linear", "boxcar", "arctangent")


class ClockedLayer(NamedTuple):
    """What a step of a layer needs.

    Attributes:
        w_in: (N, M).
        w_rec: (N, N), or None.
        bias: (N,).
        v_th: (N,).
        v_reset: (N,).
        alpha: α = e^{-h/τ_s}, (N,).
        beta: β = e^{-h/τ_m}, (N,).
        kappa: κ = K(h)/τ_m, (N,), what a current of 1 adds to the voltage in a step.
        hold: steps for which a neuron stays where its reset has put it, (N,).
        lags: steps from a spike to its arrival, (M,) or (N, M).
        rec_lags: likewise, (N,) or (N, N); None without recurrence.
        own: what its neurons' spikes do to themselves beside the reset; None for nothing.
    """

    w_in: Float[Tensor, "N M"]
    w_rec: Float[Tensor, "N N"] | None
    bias: Float[Tensor, " N"]
    v_th: Float[Tensor, " N"]
    v_reset: Float[Tensor, " N"]
    alpha: Float[Tensor, " N"]
    beta: Float[Tensor, " N"]
    kappa: Float[Tensor, " N"]
    hold: Int[Tensor, " N"]
    lags: Int[Tensor, "..."]
    rec_lags: Int[Tensor, "..."] | None
    own: Adaptation | None = None


class Feedback(NamedTuple):
    """What errors go back through in the place of a layer's weights, each of their shape; None for the weights themselves.

    Zeros cut a path.

    Attributes:
        w_in: (N, M).
        w_rec: (N, N).
    """

    w_in: Float[Tensor, "N M"] | None = None
    w_rec: Float[Tensor, "N N"] | None = None


EXACT = Feedback()


class Sent(NamedTuple):
    """What `arrivals` sums up.

    Attributes:
        w: (N, M).
        lags: steps from a spike to its arrival, (M,) or (N, M).
        spikes: (T+1, B, M).
        back: what errors go back through in the place of w.
    """

    w: Float[Tensor, "N M"]
    lags: Int[Tensor, "..."]
    spikes: Float[Tensor, "T1 B M"]
    back: Tensor | None = None


class ClockedRun(Recorded):
    """What a layer did, at the times 0, h, … T h.

    Args:
        spikes: S, 0 or 1, (T+1, B, N); its gradient is the rule's.
        peak: v before the reset, (T+1, B, N).
        v: v⁺, after it; or what finds it when it is asked for, from `spikes` and `peak`, since few losses read it.
        i: the current, arrivals included, (T+1, B, N).
        a: a⁺, currents that spikes trigger, after them, (T+1, B, J, N); None for a layer without adaptation.
        h: h⁺, parts of the threshold, likewise, (T+1, B, H, N).

    Attributes:
        spikes: as given.
        peak: as given.
        i: as given.
        a: as given.
        h: as given.
        v: v⁺.
    """

    def __init__(
        self,
        spikes: Tensor,
        peak: Tensor,
        v: Tensor | Callable[[], Tensor],
        i: Tensor,
        a: Tensor | None = None,
        h: Tensor | None = None,
    ) -> None:
        self.spikes, self.peak, self.i, self.a, self.h = spikes, peak, i, a, h
        self._v = v

    @property
    def v(self) -> Float[Tensor, "T1 B N"]:
        return self._v if isinstance(self._v, Tensor) else self._v()

    @property
    def held(self) -> Tensor | None:
        """v⁺ where it is kept, and not found when asked for."""
        return self._v if isinstance(self._v, Tensor) else None

    def __getstate__(self) -> dict[str, Any]:
        return super().__getstate__() | {"_v": self.v.detach()}

    def last(self) -> AnyState:
        """The state at the end."""
        own = (None if x is None else x[-1].clone() for x in (self.a, self.h))
        return state_of(self.v[-1].clone(), self.i[-1].clone(), *own)

    def __iter__(self) -> Iterator[Tensor | None]:
        return iter((self.spikes, self.peak, self.v, self.i, self.a, self.h))

    def each(self, change: Callable[[Tensor], Tensor]) -> "ClockedRun":
        """A run of what is made of its tensors."""
        spikes, peak, v, i, a, h = (None if x is None else change(x) for x in self)
        assert spikes is not None
        assert peak is not None
        assert v is not None
        assert i is not None
        return ClockedRun(spikes, peak, v, i, a, h)


def after_reset(
    peak: Float[Tensor, "*T B N"], s: Float[Tensor, "*T B N"], layer: ClockedLayer, reset: Reset, through: bool
) -> Float[Tensor, "*T B N"]:
    """v⁺ of v and S."""
    gate = s if through else s.detach()
    return peak + gate * (layer.v_reset - (peak if reset == "to" else layer.v_th))


def clocked_layer(layer: LIFLayer, dt: float, first: bool) -> ClockedLayer:
    """A layer in steps of dt. Delays are rounded to steps; a spike of the network arrives one step later at the earliest."""
    least = 0 if first else 1
    rate = 1.0 / layer.tau_syn - 1.0 / layer.tau_mem
    beta = torch.exp(-dt / layer.tau_mem)
    return ClockedLayer(
        w_in=layer.w_in,
        w_rec=layer.w_rec,
        bias=layer.bias,
        v_th=layer.v_th,
        v_reset=layer.v_reset,
        alpha=torch.exp(-dt / layer.tau_syn),
        beta=beta,
        kappa=_gain(layer, rate, beta, dt),
        hold=_steps(layer.refractory, dt),
        lags=_lags(layer.delays, dt, layer.w_in, least),
        rec_lags=None if layer.w_rec is None else _lags(layer.rec_delays, dt, layer.w_rec, 1),
        own=None if layer.tau_adapt is None and layer.tau_th is None else _adaptation(layer, beta, dt),
    )


def _adaptation(layer: LIFLayer, beta: Tensor, dt: float) -> Adaptation:
    """Of one that has none of the one kind, no rows of it."""
    none = layer.v_th.new_zeros(0, len(layer.v_th))
    tau_a, jump_a, scale_a = layer.tau_adapt, layer.jump_adapt, layer.scale_adapt
    tau_h, jump_h, scale_h = layer.tau_th, layer.jump_th, layer.scale_th
    jump_a, jump_h = none if jump_a is None else jump_a, none if jump_h is None else jump_h
    return Adaptation(
        decay_a=none if tau_a is None else torch.exp(-dt / tau_a),
        gain_a=none if tau_a is None else _gain(layer, 1.0 / tau_a - 1.0 / layer.tau_mem, beta, dt),
        jump_a=jump_a,
        scale_a=torch.ones_like(jump_a) if scale_a is None else scale_a,
        decay_h=none if tau_h is None else torch.exp(-dt / tau_h),
        jump_h=jump_h,
        scale_h=torch.ones_like(jump_h) if scale_h is None else scale_h,
    )


def _gain(layer: LIFLayer, rate: Tensor, beta: Tensor, dt: float) -> Tensor:
    """κ = K(h)/τ_m of currents of a time constant τ, rate = 1/τ - 1/τ_m."""
    return (dt / layer.tau_mem) * beta * _relative_gain(dt * rate)


def carried(spikes: Float[Tensor, "*T B M"], w: Float[Tensor, "N M"], back: Tensor | None) -> Float[Tensor, "*T B N"]:
    """Σ_m w_nm S_m; errors go back through `back` where it is given."""
    if back is None:
        return torch.nn.functional.linear(spikes, w)
    result: Tensor = _Carried.apply(spikes, w, back)  # pyright: ignore[reportAssignmentType]
    return result


class _Carried(FirstOrder):
    @staticmethod
    def forward(ctx, spikes, w, back):
        ctx.save_for_backward(spikes, back)
        return torch.nn.functional.linear(spikes, w)

    @staticmethod
    def backward(ctx, *cotangents):
        return _carried_back(ctx, *cotangents)


@first_order
def _carried_back(ctx, cotangent):
    spikes, back = ctx.saved_tensors
    return cotangent @ back, cotangent.flatten(0, -2).T @ spikes.flatten(0, -2), None


def arrivals(
    w: Float[Tensor, "N M"], lags: Int[Tensor, "..."], spikes: Float[Tensor, "T1 B M"], back: Tensor | None = None
) -> Float[Tensor, "T1 B N"]:
    """What arrives at each time: Σ_m w_nm S_m, each a lag earlier; errors go back through `back` where it is given.

    Nothing else refers to the result's memory.
    """
    result: Tensor = _Arrivals.apply(w, lags, spikes, back)  # pyright: ignore[reportAssignmentType]
    return result


class _Arrivals(FirstOrder):
    @staticmethod
    def forward(ctx, w, lags, spikes, back):
        ctx.parts = by_lag(lags, spikes)
        ctx.save_for_backward(w, spikes, back)
        steps, batch, _ = spikes.shape
        total = fresh((steps, batch, len(w)), spikes)
        total[: ctx.parts[0][0] if ctx.parts and ctx.parts[0][1] is None else steps] = 0.0
        for lag, these in ctx.parts:
            sent, arriving = spikes[: steps - lag].flatten(0, 1), total[lag:].flatten(0, 1)
            if these is None:
                torch.mm(sent, w.T, out=arriving)
            else:
                arriving.addmm_(sent, (w * these).T)
        return total

    @staticmethod
    def backward(ctx, *cotangents):
        return _arrivals_back(ctx, *cotangents)


@first_order
def _arrivals_back(ctx, cotangent):
    w, spikes, back = ctx.saved_tensors
    steps, through = len(spikes), w if back is None else back
    needs_w, _, needs_spikes, _ = ctx.needs_input_grad
    d_w = weights_told(torch.zeros_like(w), cotangent, spikes, ctx.parts) if needs_w else None
    if not needs_spikes:
        return d_w, None, None, None
    d_spikes = fresh(spikes.shape, spikes)
    d_spikes[steps - ctx.parts[0][0] if ctx.parts and ctx.parts[0][1] is None else 0 :] = 0.0
    for lag, these in ctx.parts:
        told, sending = cotangent[lag:].flatten(0, 1), d_spikes[: steps - lag].flatten(0, 1)
        if these is None:
            torch.mm(told, through, out=sending)
        else:
            sending.addmm_(told, through * these)
    return d_w, None, d_spikes, None


def by_lag(lags: Int[Tensor, "..."], spikes: Float[Tensor, "T1 B M"]) -> list[tuple[int, Tensor | None]]:
    """Each lag within the trial, and where weights have it: 1 or 0; None for everywhere."""
    found = sorted(set(lags.flatten().tolist()))
    return [(lag, None if len(found) == 1 else (lags == lag).to(spikes)) for lag in found if lag < len(spikes)]


def weights_told(
    total: Float[Tensor, "N M"],
    told: Float[Tensor, "T1 B N"],
    sent: Float[Tensor, "T1 B M"],
    parts: list[tuple[int, Tensor | None]],
) -> Float[Tensor, "N M"]:
    """Σ_n told[n + lag] sent[n]ᵀ added to a total, over the lags of `by_lag`."""
    for lag, these in parts:
        whole = outer_sum(told[lag:].flatten(0, 1), sent[: len(sent) - lag].flatten(0, 1))
        total += whole if these is None else whole * these
    return total


def outer_sum(told: Float[Tensor, "K N"], sent: Float[Tensor, "K M"]) -> Float[Tensor, "N M"]:
    """Σ_k told_k sent_kᵀ, the few columns first: the other way round takes a matrix product several times as long."""
    return told.T @ sent if told.shape[1] <= sent.shape[1] else (sent.T @ told).T


def unroll(
    layer: ClockedLayer,
    arriving: Float[Tensor, "T1 B N"] | Sent,
    start: AnyState,
    drive: Float[Tensor, "T B N"] | None,
    spike: Differentiated,
    reset: Reset = "to",
    through_reset: bool = False,
    rec_back: Tensor | None = None,
) -> ClockedRun:
    """The program (5.1), (5.1a) of one layer on torch's tape.

    Args:
        layer: in steps.
        arriving: what arrives from outside the layer at each time, or the spikes that it comes from.
        start: state at time 0, before what arrives there.
        drive: what is added to b in each step.
        spike: S of v - v_th, with the gradient that a rule gives it.
        reset: "to" v_reset, or "by" v_th - v_reset.
        through_reset: whether gradients go through S in the reset; they always do in jumps of a and h.
        rec_back: what errors go back through in the place of w_rec.
    """
    arriving = arriving if isinstance(arriving, Tensor) else arrivals(*arriving)
    (v, i, *adapted), own = start, layer.own
    held = torch.zeros_like(v, dtype=torch.long)
    rows: list[tuple[Tensor, ...]] = []
    sent: list[Tensor] = []
    recurrent = _by_lag(layer, rec_back)
    for n, arrives in enumerate(arriving.unbind()):
        i = i + arrives
        for lag, w, back in recurrent:
            if lag <= n:
                i = i + carried(sent[n - lag], w, back)
        threshold = layer.v_th if own is None else own.threshold(layer.v_th, adapted[1])
        s = spike.fire(v - threshold) * (held == 0)
        after = after_reset(v, s, layer, reset, through_reset)
        if own is not None:
            adapted = own.after(s, *adapted)
        rows.append((s, v, after, i, *adapted))
        sent.append(s)
        if n + 1 < len(arriving):
            held = torch.where(s > 0, layer.hold, (held - 1).clamp(min=0))
            bias = layer.bias if drive is None else layer.bias + drive[n]
            v = bias + layer.beta * (after - bias) + layer.kappa * i
            if own is not None:
                v = own.driven(v, adapted[0])
                adapted = own.decay_a * adapted[0], own.decay_h * adapted[1]
            v = torch.where(held > 0, after, v)
            i = layer.alpha * i
    return ClockedRun(*(torch.stack(column) for column in zip(*rows, strict=True)))


def over_resting(layer: ClockedLayer, run: ClockedRun, start: AnyState) -> Float[Tensor, "T1 B N"]:
    """v before resets, less what earlier spikes have added to the threshold: a neuron spikes where this reaches v_th."""
    if layer.own is None or run.h is None or not isinstance(start, AdaptiveState):
        return run.peak
    return run.peak - layer.own.raised(run.h, start.h)


def spiking(run: ClockedRun) -> Bool[Tensor, "T1 B N"]:
    """Where neurons spike."""
    return run.spikes.detach() > 0


def _by_lag(layer: ClockedLayer, back: Tensor | None) -> list[tuple[int, Tensor, Tensor | None]]:
    """Recurrent weights of each lag, and what errors go back through."""
    if layer.w_rec is None or layer.rec_lags is None:
        return []
    w, lags = layer.w_rec, layer.rec_lags
    these = {lag: (lags == lag).to(w) for lag in lags.unique().tolist()}
    return [(lag, w * x, None if back is None else back * x) for lag, x in these.items()]


def _lags(delays: Tensor | None, dt: float, w: Tensor, least: int) -> Tensor:
    if delays is None:
        return torch.full((w.shape[1],), least, dtype=torch.long, device=w.device)
    return _steps(delays, dt).clamp(min=least)


def _steps(times: Tensor, dt: float) -> Tensor:
    return (times.detach().double() / dt).round().long()


def _relative_gain(x: Tensor) -> Tensor:
    """(1 - e^{-x})/x, 1 where x is 0; its derivative too is free of cancellation."""
    near = x.abs() < SERIES_BELOW
    small, large = torch.where(near, x, 0.0), torch.where(near, 1.0, x)
    series = torch.ones_like(x)
    for k in range(8, 1, -1):
        series = 1.0 - series * small / k
    return torch.where(near, series, -torch.expm1(-large) / large)
