"""What the fused loops are given, by name. Arrays are contiguous, numbers of the arrays' type unless said otherwise."""

from typing import Any, NamedTuple

import numpy as np

NIF, LIF, QIF = range(3)  # membranes
RECTANGULAR, RAISED_COSINE = range(2)  # gates
TOGETHER = 4  # samples, and rows of a matrix, that Euler steps multiply at a time
WHOLE = -1  # in place of a number of neurons: all of them
FEW_CHANNELS = 8  # readouts that are cheaper for all neurons than for those in the zone
SPARE = 16  # places that an index has beside those for all neurons
PENDING = 16  # samples, of one step or several, whose charges and cotangents wait for a product


class Network(NamedTuple):
    """A network and the step it is solved with.

    Attributes:
        membrane: NIF, LIF or QIF.
        gate: RECTANGULAR or RAISED_COSINE.
        two_sided: whether the zone is mirrored and G odd.
        zone: (1/Δ, 1 - θ/Δ).
        h: the step, ms.
        constants: (2, N), 1/τ and v_r of each neuron; zeros where the membrane has none. In Euler steps (2, S·N), once for
            each sample of a tile.
        w_rec_t: (N, N), a row per presynaptic neuron.
        w_rec: (N, N), a row per postsynaptic neuron.
        w_in_t: (C, N), a row per channel.
        bias: (N,), in Euler steps (S·N,).
        w_out: (C_out, N).
        w_out_t: (N, C_out).
    """

    membrane: int
    gate: int
    two_sided: bool
    zone: tuple[Any, Any]
    h: Any
    constants: np.ndarray
    w_rec_t: np.ndarray
    w_rec: np.ndarray
    w_in_t: np.ndarray
    bias: np.ndarray
    w_out: np.ndarray
    w_out_t: np.ndarray


class Synapses(NamedTuple):
    """Time constants of both synaptic filters, ms."""

    tau_fast: Any
    tau_slow: Any


class Filter(NamedTuple):
    """One synaptic filter at the stages and the end of a Runge–Kutta step, (1.14), or its derivative by τ.

    Attributes:
        keep: α, (s+1,).
        gain: C/τ, (s+1, s+1).
    """

    keep: np.ndarray
    gain: np.ndarray


class Method(NamedTuple):
    """A Runge–Kutta method.

    Attributes:
        a: (s, s).
        b: (s,).
        c: (s,), float64.
        dense: (s, degree + 1), float64, the polynomials of the dense output.
        along: (s, degree + 1), float64, those of the current.
    """

    a: np.ndarray
    b: np.ndarray
    c: np.ndarray
    dense: np.ndarray
    along: np.ndarray


class RungeKutta(NamedTuple):
    """A method and both filters it gives.

    Attributes:
        method: Method.
        fast: Filter of a_f.
        slow: Filter of a_s.
        d_fast: the derivative of `fast` by τ_f.
        d_slow: that of `slow` by τ_s.
    """

    method: Method
    fast: Filter
    slow: Filter
    d_fast: Filter
    d_slow: Filter


class Path(NamedTuple):
    """A block of a trajectory with T steps.

    Attributes:
        u: (T, B, C).
        v: (T+1, B, N); of a thin trajectory the row before every KEPT-th step, and the last one.
        a_fast: (T+1, B, N); of a lean or thin trajectory the row before the first step and the last one, or the last alone.
        a_slow: likewise.
        readout: (T+1, B, C_out).
        current: I of each step, (T, B, N).
        crossings: thresholds crossed in each step, (T, B, N), int8; of a thin trajectory (0, B, N).
    """

    u: np.ndarray
    v: np.ndarray
    a_fast: np.ndarray
    a_slow: np.ndarray
    readout: np.ndarray
    current: np.ndarray
    crossings: np.ndarray


class Taken(NamedTuple):
    """A step of a tile as it was taken, each (S·N,).

    Attributes:
        v: before it.
        after: v⁺.
        current: I.
        crossings: thresholds crossed, int8.
    """

    v: np.ndarray
    after: np.ndarray
    current: np.ndarray
    crossings: np.ndarray


class Carry(NamedTuple):
    """What the forward loop hands from one block to the next beside the state: J, G(v), and Σ|q| so far, each (B, N)."""

    recurrent: np.ndarray
    level: np.ndarray
    spent: np.ndarray


class Outcome(NamedTuple):
    """What one group of samples came to.

    Attributes:
        broken: (2,), int64, the step and sample at which a state was not finite or not below the threshold; -1 if none.
        extremes: (2,), int64, the smallest and largest number of crossings of a step.
    """

    broken: np.ndarray
    extremes: np.ndarray


class Cotangents(NamedTuple):
    """Cotangents of a block's results, of first length 0 where the loss has none.

    Attributes:
        readout: (T, B, C_out), before each step.
        v: (T, B, N).
        a_fast: (T, B, N).
        a_slow: (T, B, N).
        charge: of the number of spikes Σ|q|, (B, N).
    """

    readout: np.ndarray
    v: np.ndarray
    a_fast: np.ndarray
    a_slow: np.ndarray
    charge: np.ndarray


class Want(NamedTuple):
    """Which gradients are asked for, and whether the loss reads a_f and a_s themselves at any time."""

    w_rec: bool
    w_in: bool
    w_out: bool
    u: bool
    tau_fast: bool
    tau_slow: bool
    reads_fast: bool
    reads_slow: bool


class Costate(NamedTuple):
    """The costate between two blocks, moved along.

    Attributes:
        lam_v: λ_v, (B, N).
        zeta: ζ, the cotangent of J, (B, N).
        eta: η, that of the readout, (B, C_out).
        fast: λ_f/τ_f, or λ_f with Runge–Kutta, of a loss that reads a_f itself, (B, N).
        slow: likewise of a_s.
    """

    lam_v: np.ndarray
    zeta: np.ndarray
    eta: np.ndarray
    fast: np.ndarray
    slow: np.ndarray


class Sums(NamedTuple):
    """Gradients, added to.

    Attributes:
        u: (T, B, C), written.
        w_rec_t: (N, N).
        w_in_t: (C, N).
        w_out_t: (N, C_out).
        bias: (N,), in Euler steps (S·N,), for each sample of a tile.
        c0: likewise, of τ_m or τ_v.
        c1: likewise, of v_r.
        w_out: (C_out, N), to be added to w_out_t; of Euler steps alone.
        tau: (2,), float64, of τ_f and τ_s.
    """

    u: np.ndarray
    w_rec_t: np.ndarray
    w_in_t: np.ndarray
    w_out_t: np.ndarray
    bias: np.ndarray
    c0: np.ndarray
    c1: np.ndarray
    w_out: np.ndarray
    tau: np.ndarray


class EulerMemory(NamedTuple):
    """Vectors of one thread, for a tile of S samples (S·N,) unless said otherwise, in the order of their use.

    Attributes:
        active: (N+SPARE,), indices of neurons that release charge.
        turns: thresholds crossed.
        q: the charge released, then q/τ_f.
        charge: G(v⁺).
        weight: q/τ_f of the active neurons.
        now: v of a thin trajectory before the even steps.
        next: before the odd ones.
        crossings: thresholds crossed, int8, where they are not stored.
    """

    active: np.ndarray
    turns: np.ndarray
    q: np.ndarray
    charge: np.ndarray
    weight: np.ndarray
    now: np.ndarray
    next: np.ndarray
    crossings: np.ndarray


class Pending(NamedTuple):
    """Charges and cotangents, N of each of PENDING samples, that wait to be multiplied into the gradient of W_rec together.

    Attributes:
        waiting: (1,), samples that wait, a multiple of TOGETHER.
        charges: (PENDING·N,).
        cotangents: (PENDING·N,).
    """

    waiting: np.ndarray
    charges: np.ndarray
    cotangents: np.ndarray


class EulerAdjointMemory(NamedTuple):
    """Vectors of one thread, for a tile of S samples (S·N,) unless said otherwise. Those from v to q_slow are of the neurons
    that matter: those of some samples in the zone, or all of them. The first four are (2·S·N,), before and after the step.

    Attributes:
        active: (S·N+SPARE,), indices of neurons in the zone before or after the step, those of each sample one after the other.
        ends: (S,), where those of each sample end.
        m: not 0 for neurons in the zone before or after, or through it.
        to_now: m g(v) of (4.1).
        to_after: m g(v⁺).
        v: v, v⁺.
        x: marks of the neurons in the zone before.
        g: g, then its product with m.
        level: G.
        crossed: thresholds crossed.
        projected: W_recᵀ ζ.
        slow: W_outᵀ η.
        share: the same of all neurons.
        own: λ_f/τ_f + λ_s/τ_s of a loss that reads a_f or a_s itself.
        counted: cotangent of the number of spikes.
        chosen: m of (4.1), the cotangent of the charge.
        q_fast: q/τ_f.
        q_slow: q/τ_s.
        mu: cotangent of ṽ.
        w: cotangent of I.
        push: h ∂_I f.
        pull: 1 + h ∂_v f.
        pending: Pending, empty.
        volts: v of a thin trajectory before and after KEPT steps, (KEPT+1, S·N).
        crossings: thresholds crossed in these, (KEPT, S·N), int8.
    """

    active: np.ndarray
    ends: np.ndarray
    m: np.ndarray
    to_now: np.ndarray
    to_after: np.ndarray
    v: np.ndarray
    x: np.ndarray
    g: np.ndarray
    level: np.ndarray
    crossed: np.ndarray
    projected: np.ndarray
    slow: np.ndarray
    share: np.ndarray
    own: np.ndarray
    counted: np.ndarray
    chosen: np.ndarray
    q_fast: np.ndarray
    q_slow: np.ndarray
    mu: np.ndarray
    w: np.ndarray
    push: np.ndarray
    pull: np.ndarray
    pending: Pending
    volts: np.ndarray
    crossings: np.ndarray


class StageMemory(NamedTuple):
    """The stages of one step of a tile of S samples, each (s+1, S·N), the last row the end of the step; vectors (S·N,).

    Attributes:
        active: (N+SPARE,), neurons of a sample that release charge.
        volts: voltages, without whole turns.
        flows: f.
        currents: I.
        charges: ΔG.
        columns: Ω = W_rec ΔG.
        turns: thresholds crossed.
        x: zone coordinate.
        weight: of the active neurons, (N,).
        drive: W_in u + b.
        slopes: (s,), float64, of the stages after a reset.
    """

    active: np.ndarray
    volts: np.ndarray
    flows: np.ndarray
    currents: np.ndarray
    charges: np.ndarray
    columns: np.ndarray
    turns: np.ndarray
    x: np.ndarray
    weight: np.ndarray
    drive: np.ndarray
    slopes: np.ndarray


class StageAdjointMemory(NamedTuple):
    """Cotangents of the stages, each (s+1, S·N), vectors (S·N,), and (s,) in float64.

    Attributes:
        bars: of the flows.
        amps: of the currents.
        omega: ω, of Ω over τ_f.
        density: g at each stage and at the end.
        by_current: ∂_I f.
        by_v: ∂_v f.
        level: G(v) before the step.
        recurrent: J before it.
        end: of v⁺.
        lam: λ_v before the step as far as gathered.
        released: of G(v).
        moved: ṽ.
        w: of the input current.
        share: W_outᵀ η.
        reset_bars: of the flows after a reset, float64.
        pending: Pending, empty.
        active: (S·N+SPARE,), indices of the neurons of each sample that matter, from N times the sample on.
        chosen: (S,), how many these are, or WHOLE.
    """

    bars: np.ndarray
    amps: np.ndarray
    omega: np.ndarray
    density: np.ndarray
    by_current: np.ndarray
    by_v: np.ndarray
    level: np.ndarray
    recurrent: np.ndarray
    end: np.ndarray
    lam: np.ndarray
    released: np.ndarray
    moved: np.ndarray
    w: np.ndarray
    share: np.ndarray
    reset_bars: np.ndarray
    pending: Pending
    active: np.ndarray
    chosen: np.ndarray
