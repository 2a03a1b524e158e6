"""A layer of generalised LIF neurons as arrays: what every body takes and gives back, equations (6.1), (6.2).

All of a neuron's currents, K through receptors and then J that its own spikes trigger, are P = K + J exponentials c_p:

    v̇ = -μ v + G (Σ_p c_p + b + D)      ċ_p = -r_p c_p      θ = v_th + Σ_m h_m,  ḣ_m = -s_m h_m
    at a spike: v ← ρ (v - v_th) + v_reset, held for the refractory time; a_j ← f_j a_j + Δa_j; h_m ← g_m h_m + Δh_m

The last of the h may follow the voltage, ẇ = -q w + κ v (6.9); it is held while v is. All this
with μ = G = 1/τ_m, or μ = 0, G = 1 without leak; D is the drive (2.16). Gradients are by these rates; that by time constants
follows on torch's tape.
"""

from typing import Any, NamedTuple

import numpy as np

from adjsnn.lif.layer import Events

X = np.ndarray


class Neurons(NamedTuple):
    """What the flow and the jumps of N neurons depend on.

    Attributes:
        leak_rate: μ, (N,), 1/ms, 0 without leak.
        gain: G, (N,), 1/ms, or 1 without leak.
        bias: b, (N,).
        v_th: (N,).
        v_reset: (N,).
        reset_factor: ρ, (N,), 0 for a reset to v_reset, 1 for one by v_th - v_reset.
        refractory: (N,), ms.
        rate: r, (P, N), 1/ms, of the receptors' currents and then of the spike-triggered ones.
        jump: Δa, (J, N).
        scale: f, (J, N).
        th_rate: s, (H, N), 1/ms, and q last where there is one that follows the voltage.
        th_jump: Δh, (H, N); 0 of one that follows.
        th_scale: g, (H, N); 1 of one that follows.
        follow: κ, (1, N), 1/ms, of the last of the h, or (0, N) where none follows the voltage.
    """

    leak_rate: X
    gain: X
    bias: X
    v_th: X
    v_reset: X
    reset_factor: X
    refractory: X
    rate: X
    jump: X
    scale: X
    th_rate: X
    th_jump: X
    th_scale: X
    follow: X


class Wiring(NamedTuple):
    """Synapses of M sources, those of one source together, in groups that arrive together.

    Attributes:
        first: (M+1,), int64; the groups of source m are first[m] … first[m+1]-1, sorted by their delays.
        delay: (Q,), of each group, ms.
        edge: (Q+1,), int64; the synapses of group q are edge[q] … edge[q+1]-1.
        post: (E,), int64, the neuron of each synapse; several synapses may join the same two neurons.
        receptor: (E,), int64, which current it adds to, 0 … K-1.
        weight: (E,).
    """

    first: X
    delay: X
    edge: X
    post: X
    receptor: X
    weight: X


class GLIF(NamedTuple):
    """A layer: its neurons, synapses from its inputs, and those from its own neurons (M = 0 sources where none)."""

    neurons: Neurons
    incoming: Wiring
    recurrent: Wiring


class GLIFState(NamedTuple):
    """State at one time, or at the probes with P_t in front: v (B, N), c (B, P, N), h (B, H, N)."""

    v: Any
    c: Any
    h: Any


class GLIFRun(NamedTuple):
    """What a batch of one layer did.

    Attributes:
        spikes: Events.
        speed: (S,), v̇ - θ̇ just before each spike, 1/ms.
        states: at the probes, v (T, B, N), c (T, B, P, N), h (T, B, H, N); at an instant of events that after all of them.
        record: what the adjoint of the same body reads beside.
    """

    spikes: Events
    speed: X
    states: GLIFState
    record: Any


class GLIFCotangents(NamedTuple):
    """Cotangents of a layer's results: time (S,), and of the states at the probes, None where the loss has none."""

    time: X
    v: X | None
    c: X | None
    h: X | None


class GLIFGradients(NamedTuple):
    """dC/d of all that a layer depends on.

    Attributes:
        neurons: each field as in Neurons. Those of leak_rate, gain, rate, th_rate, scale, th_scale and follow need the states
            along the run, and may be zero where `rates` was not asked for.
        in_weight: of each synapse of the inputs, (E,).
        in_delay: of the delay of each of them, (E,).
        rec_weight: of each recurrent synapse, (E_rec,).
        rec_delay: likewise.
        time: of the times of the input spikes, (S_in,).
        v: of v(0), (B, N).
        c: of c(0), (B, P, N).
        h: of h(0), (B, H, N).
        drive: of the drive, (T, B, N).
    """

    neurons: Neurons
    in_weight: X
    in_delay: X
    rec_weight: X
    rec_delay: X
    time: X
    v: X
    c: X
    h: X
    drive: X
