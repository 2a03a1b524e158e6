"""The built-in membranes for the fused loops, a neuron at a time: flow, Euler step and reset (1.6), and their derivatives.

A membrane more needs a branch in each function here and a number in `arguments`; `kernels="plain"` needs none of it.
"""

from math import copysign

import numpy as np

from adjsnn.gated.cpu.arguments import LIF, NIF, QIF
from adjsnn.gated.cpu.vectors import LOOP, OPTIONS, copy, fill, sine
from adjsnn.numerics.compiled import compiled


@compiled(**LOOP)
def flow_of(membrane, v, current, c, flow):
    """f(v, I); |v| ≤ 1 for QIF."""
    rate = c[0]
    if membrane == NIF:
        copy(current, flow)
    elif membrane == LIF:
        for n in range(v.shape[0]):
            flow[n] = rate[n] * (current[n] - v[n])
    else:
        half = v.dtype.type(0.5)
        for n in range(v.shape[0]):
            s = sine(half - abs(abs(v[n]) - half))
            x = rate[n] + s * s * (current[n] - rate[n])
            flow[n] = x + x


@compiled(**LOOP)
def partials(membrane, v, current, c, d_current, d_v):
    """∂_I f and ∂_v f."""
    one = v.dtype.type(1.0)
    rate = c[0]
    if membrane == NIF:
        fill(d_current, one)
        fill(d_v, v.dtype.type(0.0))
    elif membrane == LIF:
        for n in range(v.shape[0]):
            d_current[n] = rate[n]
            d_v[n] = -rate[n]
    else:
        half, two_pi = v.dtype.type(0.5), v.dtype.type(2 * np.pi)
        for n in range(v.shape[0]):
            s = sine(half - abs(abs(v[n]) - half))
            d_current[n] = s * s + s * s
            both = sine(half - abs(v[n])) * copysign(s, v[n])  # ½ sin 2πv
            d_v[n] = (both + both) * two_pi * (current[n] - rate[n])


@compiled(**LOOP)
def constants_back(membrane, v, current, c, flow_bar, d_current, d_c0):
    """dC/dτ_m or dC/dτ_v through f at one stage."""
    if membrane == LIF:
        for n in range(v.shape[0]):
            d_c0[n] -= flow_bar[n] * c[0, n] * c[0, n] * (current[n] - v[n])
    elif membrane == QIF:
        two = v.dtype.type(2.0)
        for n in range(v.shape[0]):
            d_c0[n] -= flow_bar[n] * c[0, n] * c[0, n] * (two - d_current[n])


@compiled(**LOOP)
def advance(membrane, v, current, c, h, moved):
    """ṽ = v + h f(v, I); c[0] is 1/τ for each neuron."""
    rate = c[0]
    if membrane == NIF:
        for n in range(v.shape[0]):
            moved[n] = v[n] + h * current[n]
    elif membrane == LIF:
        for n in range(v.shape[0]):
            moved[n] = v[n] + h * rate[n] * (current[n] - v[n])
    else:
        half = v.dtype.type(0.5)
        for n in range(v.shape[0]):
            s = sine(half - abs(abs(v[n]) - half))
            flow = rate[n] + s * s * (current[n] - rate[n])
            moved[n] = v[n] + h * (flow + flow)


@compiled(**OPTIONS)
def reset(membrane, current, c, v, crossings):
    """v becomes v⁺; crossings the signed number of thresholds, as numbers of v's type."""
    if membrane == LIF:
        reset_at_threshold(current, c, v, crossings)
    else:
        for n in range(v.shape[0]):
            turns = np.trunc(v[n])
            crossings[n] = turns
            v[n] -= turns


@compiled(**LOOP)
def reset_at_threshold(current, c, v, crossings):
    """The reset of LIF."""
    zero, one = v.dtype.type(0.0), v.dtype.type(1.0)
    v_reset = c[1]
    for n in range(v.shape[0]):
        crossings[n] = one if v[n] >= one else zero
    for n in range(v.shape[0]):
        after = v_reset[n] + (v[n] - one) * ((current[n] - v_reset[n]) / (current[n] - one))
        v[n] = after if v[n] >= one else v[n]


@compiled(**LOOP)
def step_partials(membrane, v, current, c, h, push, pull):
    """push = h ∂_I f and pull = 1 + h ∂_v f at the state before a step."""
    one = v.dtype.type(1.0)
    rate = c[0]
    if membrane == NIF:
        fill(push, h)
        fill(pull, one)
    elif membrane == LIF:
        for n in range(v.shape[0]):
            push[n] = h * rate[n]
            pull[n] = one - push[n]
    else:
        half, two_pi = v.dtype.type(0.5), v.dtype.type(2 * np.pi)
        for n in range(v.shape[0]):
            s = sine(half - abs(abs(v[n]) - half))
            push[n] = h * (s * s + s * s)
            both = sine(half - abs(v[n])) * copysign(s, v[n])  # ½ sin 2πv; sin π(½ - |v|) = cos πv
            pull[n] = one + (both + both) * two_pi * h * (current[n] - rate[n])


@compiled(**LOOP)
def reset_back(v, current, c, h, crossed, w, mu, d_reset):
    """Where a LIF neuron was reset: μ = ρ p_v and the part p_v ∂v⁺/∂I of w; adds to the gradient of v_r. mu holds p_v."""
    one = v.dtype.type(1.0)
    for n in range(v.shape[0]):
        if crossed[n] != 0:
            moved = v[n] + h * c[0, n] * (current[n] - v[n])
            above, speed, v_reset = moved - one, current[n] - one, c[1, n]
            d_reset[n] += mu[n] * (one - above / speed)
            w[n] = mu[n] * above * (v_reset - one) / (speed * speed)
            mu[n] *= (current[n] - v_reset) / speed
