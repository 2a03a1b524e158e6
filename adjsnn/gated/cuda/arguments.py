"""What the GPU loops are given, by name: contiguous tensors of the network's dtype and numbers of it, unless said otherwise."""

from typing import Any, NamedTuple

NOTHING, COLUMNS, ROWS = range(3)  # of W_rec
VOLT, FLOW, CURRENT, CHARGE, COLUMN = range(5)  # rows of Memory.stages
RECURRENT, LEVEL, G, DENSITY, LAM, RELEASED, END, MOVED, BAR = range(9)  # rows of Memory.back


class Network(NamedTuple):
    """A network and the step it is solved with.

    Attributes:
        membrane: NIF, LIF or QIF.
        gate: RECTANGULAR or RAISED_COSINE.
        two_sided: 1 where the zone is mirrored and G odd, else 0.
        slope: 1/Δ.
        offset: 1 - θ/Δ.
        h: the step, ms.
        constants: (2, N), 1/τ and v_r of each neuron; zeros where the membrane has none.
        w_t: (N·N,), W_rec, a row per presynaptic neuron.
        w: (N·N,), W_rec, a row per postsynaptic neuron.
        copied: what a block copies into its shared memory: NOTHING, COLUMNS (w_t) or ROWS (w).
        ints: where the integers in shared memory begin, counted in integers.
    """

    membrane: int
    gate: int
    two_sided: int
    slope: Any
    offset: Any
    h: Any
    constants: Any
    w_t: Any
    w: Any
    copied: int
    ints: int


class Synapses(NamedTuple):
    """Both synaptic filters over an Euler step: 1 - h/τ and 1/τ."""

    keep_fast: Any
    keep_slow: Any
    gain_fast: Any
    gain_slow: Any


class Scheme(NamedTuple):
    """A Runge–Kutta method with s stages, and the filters (1.14) it gives; the last row of each is the end of the step.

    Attributes:
        a: (s, s).
        b: (s,).
        c: (s,), float64.
        dense: (s, degree + 1), float64, the polynomials of the dense output.
        along: (s, degree + 1), float64, those of the current.
        keep_fast: α of a_f, (s+1,).
        gain_fast: C/τ of a_f, (s+1, s+1).
        keep_slow: of a_s, likewise.
        gain_slow: of a_s, likewise.
        d_keep_fast: the derivative by τ_f.
        d_gain_fast: likewise.
        d_keep_slow: the derivative by τ_s.
        d_gain_slow: likewise.
    """

    a: Any
    b: Any
    c: Any
    dense: Any
    along: Any
    keep_fast: Any
    gain_fast: Any
    keep_slow: Any
    gain_slow: Any
    d_keep_fast: Any
    d_gain_fast: Any
    d_keep_slow: Any
    d_gain_slow: Any


class Path(NamedTuple):
    """A block of a trajectory with T steps.

    Attributes:
        v: (T+1, B, N).
        a_fast: (T+1, B, N).
        a_slow: (T+1, B, N).
        current: I of each step, (T, B, N); forward W_in u + b, which I takes the place of.
        crossings: thresholds crossed in each step, (T, B, N), int8.
    """

    v: Any
    a_fast: Any
    a_slow: Any
    current: Any
    crossings: Any


class Carry(NamedTuple):
    """What the steps hand on beside the state: J = W_rec a_f, G(v), and Σ|q| so far, each (B, N)."""

    recurrent: Any
    level: Any
    spent: Any


class Memory(NamedTuple):
    """What neurons keep during a Runge–Kutta step, of which only their own thread knows.

    Attributes:
        stages: (5, B, s+1, N), voltages without whole turns, of the stages after the first; f; I; ΔG, and W_rec ΔG, where row
            s is the end of the step.
        back: (B, BAR + 2s, N), backward: J, G(v) and g(v) before the step; g at the stage that is being swept, or at the end;
            λ_v before the step as far as gathered; cotangents of G(v) and of v⁺; ṽ; then those of the flows, and of the
            currents.
        drive: (T, B, N), backward: W_in u + b of each step.
    """

    stages: Any
    back: Any
    drive: Any


class Cotangents(NamedTuple):
    """Cotangents of what is stored, those before each step, in the form in which the costate is carried.

    Attributes:
        reads_v: 1 where the loss reads v itself, else 0, and `v` holds anything.
        reads_fast: likewise of a_f at any time, the end of the trial included.
        reads_slow: 1 where it reads a_s or the readout at any time.
        reads_charge: 1 where it reads the number of spikes Σ|q|.
        given_fast: 1 where `fast` holds cotangents, 0 where a_f is read at the end of the trial alone.
        given_slow: likewise.
        v: (T, B, N).
        fast: of a_f, (T, B, N).
        slow: of a_s, that of the readout included, (T, B, N).
        charge: (B, N).
    """

    reads_v: int
    reads_fast: int
    reads_slow: int
    reads_charge: int
    given_fast: int
    given_slow: int
    v: Any
    fast: Any
    slow: Any
    charge: Any


class Costate(NamedTuple):
    """The costate between two blocks of steps, moved along, each (B, N).

    Attributes:
        lam_v: λ_v.
        zeta: ζ, the cotangent of J.
        fast: λ_f/τ_f, or λ_f with Runge–Kutta steps, of a loss that reads a_f itself.
        slow: λ_s/τ_s, or λ_s.
    """

    lam_v: Any
    zeta: Any
    fast: Any
    slow: Any


class Found(NamedTuple):
    """What a sweep through a block leaves, to be summed over steps and samples.

    Attributes:
        constants: 1 where a gradient of the membrane's constants is asked for, else 0.
        tau_fast: likewise of τ_f.
        tau_slow: likewise.
        w: cotangent of I in Euler steps, (1, T, B, N), or of each stage's, (s, T, B, N).
        zeta: in Euler steps ζ after each step, (T, B, N), where the gradient of τ_f is asked for.
        activity: in Runge–Kutta steps a_f at each stage, (s, T, B, N).
        c0: of τ_m or τ_v, (B, N), added to.
        c1: of v_r, likewise.
        d_fast: of τ_f, likewise; in Euler steps without the part of ζ.
        d_slow: of τ_s, likewise.
    """

    constants: int
    tau_fast: int
    tau_slow: int
    w: Any
    zeta: Any
    activity: Any
    c0: Any
    c1: Any
    d_fast: Any
    d_slow: Any
