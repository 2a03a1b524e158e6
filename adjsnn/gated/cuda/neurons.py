"""One neuron of a gated network on a GPU: the mathematics of `gated/cpu/`, of vectors of one number each."""

from math import copysign

import numpy as np

from adjsnn.gated.cpu.arguments import LIF
from adjsnn.gated.cpu.membranes import advance, constants_back, flow_of, partials, reset_at_threshold, step_partials
from adjsnn.gated.cpu.vectors import inside, integral, mirrored, slope, zone
from adjsnn.gated.limits import MOST_COUNTED, MOST_CROSSINGS
from adjsnn.numerics.device import cuda


@cuda.jit(device=True)
def charge_level(network, v):
    """G(v)."""
    rows = cuda.local.array((3, 1), network.constants.dtype)
    volt, x, charge = rows[0], rows[1], rows[2]
    volt[0] = v
    zone(volt, (network.slope, network.offset), network.two_sided, x)
    integral(network.gate, x, charge)
    if network.two_sided:
        mirrored(volt, charge)
    return charge[0]


@cuda.jit(device=True)
def density(network, v):
    """g(v)."""
    rows = cuda.local.array((3, 1), network.constants.dtype)
    volt, x, g = rows[0], rows[1], rows[2]
    volt[0] = v
    zone(volt, (network.slope, network.offset), network.two_sided, x)
    slope(network.gate, volt, x, (network.slope, network.offset), network.two_sided, g)
    return g[0]


@cuda.jit(device=True)
def in_zone(network, v):
    """1 in the zone, edges included, else 0."""
    rows = cuda.local.array((2, 1), network.constants.dtype)
    volt, mark = rows[0], rows[1]
    volt[0] = v
    inside(volt, (network.slope, network.offset), network.two_sided, mark)
    return mark[0]


@cuda.jit(device=True)
def flow(network, n, v, current):
    """f(v, I) of neuron n."""
    rows = cuda.local.array((5, 1), network.constants.dtype)
    rows[0, 0], rows[1, 0] = v, current
    rows[2, 0], rows[3, 0] = network.constants[0, n], network.constants[1, n]
    flow_of(network.membrane, rows[0], rows[1], rows[2:4], rows[4])
    return rows[4, 0]


@cuda.jit(device=True)
def moved(network, n, v, current):
    """ṽ = v + h f(v, I) of neuron n."""
    rows = cuda.local.array((5, 1), network.constants.dtype)
    rows[0, 0], rows[1, 0] = v, current
    rows[2, 0], rows[3, 0] = network.constants[0, n], network.constants[1, n]
    advance(network.membrane, rows[0], rows[1], rows[2:4], network.h, rows[4])
    return rows[4, 0]


@cuda.jit(device=True)
def reset(network, n, v, current):
    """v⁺ and the thresholds crossed, of ṽ after an Euler step."""
    if network.membrane != LIF:
        return unwrapped(network, v)
    rows = cuda.local.array((5, 1), network.constants.dtype)
    rows[0, 0], rows[1, 0] = v, current
    rows[2, 0], rows[3, 0] = network.constants[0, n], network.constants[1, n]
    reset_at_threshold(rows[1], rows[2:4], rows[0], rows[4])
    return rows[0, 0], rows[4, 0]


@cuda.jit(device=True)
def unwrapped(network, v):
    """A voltage without its whole turns, and these; as it is where the reset is no translation. GPU code has no np.trunc."""
    zero, one = network.constants.dtype.type(0.0), network.constants.dtype.type(1.0)
    if network.membrane == LIF:
        return v, zero
    turns = copysign(abs(v) - abs(v) % one, v)
    return v - turns, turns


@cuda.jit(device=True)
def counted(turns):
    """Thresholds crossed as they are stored."""
    return np.int8(turns) if abs(turns) <= MOST_COUNTED else np.int8(MOST_COUNTED if turns > 0 else -MOST_COUNTED)


@cuda.jit(device=True)
def sound(network, v, current, turns):
    """Whether the state after a step is finite, below the threshold, and not run away."""
    one, infinite = network.constants.dtype.type(1.0), network.constants.dtype.type(np.inf)
    return v < one and abs(v) + abs(current) < infinite and abs(turns) <= MOST_CROSSINGS


@cuda.jit(device=True)
def step_slopes(network, n, v, current):
    """h ∂_I f and 1 + h ∂_v f of neuron n."""
    rows = cuda.local.array((6, 1), network.constants.dtype)
    rows[0, 0], rows[1, 0] = v, current
    rows[2, 0], rows[3, 0] = network.constants[0, n], network.constants[1, n]
    step_partials(network.membrane, rows[0], rows[1], rows[2:4], network.h, rows[4], rows[5])
    return rows[4, 0], rows[5, 0]


@cuda.jit(device=True)
def slopes(network, n, v, current):
    """∂_I f and ∂_v f of neuron n."""
    rows = cuda.local.array((6, 1), network.constants.dtype)
    rows[0, 0], rows[1, 0] = v, current
    rows[2, 0], rows[3, 0] = network.constants[0, n], network.constants[1, n]
    partials(network.membrane, rows[0], rows[1], rows[2:4], rows[4], rows[5])
    return rows[4, 0], rows[5, 0]


@cuda.jit(device=True)
def by_time_constant(network, n, v, current, flow_bar, by_current):
    """What the cotangent of f at a stage adds to dC/dτ_m or dC/dτ_v of neuron n."""
    rows = cuda.local.array((7, 1), network.constants.dtype)
    rows[0, 0], rows[1, 0] = v, current
    rows[2, 0], rows[3, 0] = network.constants[0, n], network.constants[1, n]
    rows[4, 0], rows[5, 0], rows[6, 0] = flow_bar, by_current, network.constants.dtype.type(0.0)
    constants_back(network.membrane, rows[0], rows[1], rows[2:4], rows[4], rows[5], rows[6])
    return rows[6, 0]
