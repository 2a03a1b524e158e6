"""What the loops call and count by, for which each system of equations has its own.

`adjsnn.equations.link` puts the functions that `adjsnn.equations.generate` wrote in the place of these, which say what they
are given and leave, and the numbers of the model and of the method in the place of these here. Arrays, all float64: y (D,)
state; u (C,) held inputs; p (P,) parameters that all samples share, matrices by columns; q (Q,) those of the sample; w and wb
(ROOM,) room to work in; yb, ub, pb, qb, to which cotangents are added.
"""

import numpy as np

D = C = G = P = Q = ROOM = 1
WATCHED: tuple[int, ...] = (0,)  # entries of the state that guards are functions of
# Of the Runge–Kutta method: stages, those that a step that is known needs, whether the last is the first of the next step.
STAGES = COUNT = 1
SAME: bool = False
A = np.zeros((1, 1))
B = np.zeros(1)
NODES = np.zeros(1)
ERROR = np.zeros(1)
DENSE = np.zeros((1, 1))


def stage_state(i, h, y, slopes, state):
    """state ← y + h Σ_{j<i} a_ij k_j."""
    raise NotImplementedError


def end_state(h, y, slopes, new):
    """new ← y + h Σ b_i k_i."""
    raise NotImplementedError


def error_of(h, slopes, error):
    """error ← h Σ (b_i - b̂_i) k_i."""
    raise NotImplementedError


def slope_cotangent(i, h, bar, bars, out):
    """out ← h (b_i bar + Σ_{j>i} a_ji bars_j)."""
    raise NotImplementedError


def extend(h, slopes, powers):
    """powers ← coefficients of the powers of σ in y(t + σh) - y of the watched entries, the lowest first, (Q, W)."""
    raise NotImplementedError


# Of synapses: kinds of them, the first guard of each that is sent, packets that one event sends at most.
KINDS = MOST = 0
FIRSTS: tuple[int, ...] = (0,)


def packets_of(s, g, wiring):
    """Number of packets that guard g sends by synapses s: with one delay for all targets one, else one for each target; those
    of a list of synapses stand in `wiring`."""
    raise NotImplementedError


def delay_place(s, j, i, wiring):
    """Where in p the delay of a packet from unit j, the i-th of its event, stands."""
    raise NotImplementedError


def deliver(s, j, i, wiring, p, y):
    """Add to y what a packet brings."""
    raise NotImplementedError


def pull_delivery(s, j, i, wiring, bar, pb):
    """Add to pb what the weights of a packet are owed."""
    raise NotImplementedError


def field(t, y, u, p, q, w, dy):
    """dy ← f(t, y, u)."""
    raise NotImplementedError


def pull_field(t, y, u, p, q, w, wb, bar, yb, ub, pb, qb):
    """Add f_yᵀ bar, f_uᵀ bar, … ; returns f_tᵀ bar. In w stands what `field` left there for the same t, y and u."""
    raise NotImplementedError


def levels_of(t, y, p, q, w, levels):
    """levels ← φ, (G,)."""
    raise NotImplementedError


def level_of(g, t, y, p, q, w):
    """φ of guard g."""
    raise NotImplementedError


def pull_level(g, t, y, p, q, w, wb, scale, yb, pb, qb):
    """Add scale · φ_y, … of guard g; returns scale · φ_t."""
    raise NotImplementedError


def jump(g, t, y, p, q, w, plus):
    """plus ← the state after an event of guard g."""
    raise NotImplementedError


def pull_jump(g, t, y, p, q, w, wb, bar, yb, pb, qb):
    """Add r_yᵀ bar, … ; returns r_tᵀ bar."""
    raise NotImplementedError
