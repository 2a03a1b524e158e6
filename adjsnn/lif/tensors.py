"""A layer of a LIF network, and its state, as the tensors that a solve depends on."""

from collections.abc import Sequence
from functools import cached_property
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from torch import Tensor

from adjsnn.checks import as_array
from adjsnn.kept import kept
from adjsnn.lif.structure import Structure


class LIFState(NamedTuple):
    """State of one layer at one time.

    Attributes:
        v: membrane voltage, (B, N), dimensionless.
        i: synaptic current, (B, N), or (B, K, N) of K receptors, dimensionless.
    """

    v: Tensor
    i: Tensor


class AdaptiveState(NamedTuple):
    """State at one time of a layer whose spikes trigger currents or move its threshold, or whose threshold follows its voltage.

    Attributes:
        v: membrane voltage, (B, N), dimensionless.
        i: synaptic current, (B, N), or (B, K, N) of K receptors.
        a: spike-triggered currents, (B, J, N).
        h: components of the threshold beside v_th, (B, H, N); with `tau_follow` (B, H+1, N), what follows the voltage last.
    """

    v: Tensor
    i: Tensor
    a: Tensor
    h: Tensor


AnyState: TypeAlias = LIFState | AdaptiveState
PER_SYNAPSE = ("w_in", "w_rec", "delays", "rec_delays")  # of a layer, or of an axon: what may be large


def four(state: AnyState) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
    """v, i, a and h, the last two None where there are none."""
    return state if isinstance(state, AdaptiveState) else (state.v, state.i, None, None)


def state_of(v: Tensor, i: Tensor, a: Tensor | None, h: Tensor | None) -> AnyState:
    """The other way."""
    return LIFState(v, i) if a is None or h is None else AdaptiveState(v, i, a, h)


class LIFLayer(NamedTuple):
    """Everything the flow and the jumps of one layer depend on, as explicit tensors.

    Attributes:
        w_in: (N, M), or (K, N, M) of K receptors, or (W,) of W different weights of a list of synapses.
        w_rec: (N, N), (K, N, N) or (W,), or None without recurrence.
        bias: (N,).
        tau_mem: (N,), ms.
        tau_syn: (N,), or (K, N), ms.
        v_th: (N,).
        v_reset: (N,).
        refractory: (N,), ms.
        delays: (M,) per axon or (N, M) per synapse, (E,) of a list of synapses, ms, or None.
        rec_delays: (N,) or (N, N) or (E,), ms, or None.
        tau_adapt: (J, N), ms, or None without spike-triggered currents.
        jump_adapt: (J, N).
        scale_adapt: (J, N), or None for 1.
        tau_th: (H, N), ms, or None for a threshold that does not move.
        jump_th: (H, N).
        scale_th: (H, N), or None for 1.
        tau_follow: (N,), ms, or None for a threshold that does not follow the voltage.
        gain_follow: (N,).
    """

    w_in: Tensor
    w_rec: Tensor | None
    bias: Tensor
    tau_mem: Tensor
    tau_syn: Tensor
    v_th: Tensor
    v_reset: Tensor
    refractory: Tensor
    delays: Tensor | None
    rec_delays: Tensor | None
    tau_adapt: Tensor | None = None
    jump_adapt: Tensor | None = None
    scale_adapt: Tensor | None = None
    tau_th: Tensor | None = None
    jump_th: Tensor | None = None
    scale_th: Tensor | None = None
    tau_follow: Tensor | None = None
    gain_follow: Tensor | None = None

    @property
    def adaptive(self) -> bool:
        """Whether its state has more to it than voltages and synaptic currents."""
        return any(x is not None for x in (self.tau_adapt, self.tau_th, self.tau_follow))

    def kept(self) -> "LIFLayer":
        """Private copies on the tape, which later changes of the network do not reach."""
        return _KeptLayer._make([None if x is None else kept(x) for x in self])

    @property
    def constants(self) -> dict[str, np.ndarray]:
        """All but weights and delays by name, as float64 arrays on the host."""
        return _constants(self)


class _KeptLayer(LIFLayer):
    """One whose tensors nobody writes to, so that its arrays, which a solve asks for several times, stay what they are."""

    @cached_property
    def constants(self) -> dict[str, np.ndarray]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return _constants(self)


def _constants(layer: LIFLayer) -> dict[str, np.ndarray]:
    pairs = zip(LIFLayer._fields, layer, strict=True)
    return {name: as_array(x) for name, x in pairs if x is not None and name not in PER_SYNAPSE}


def at_rest(shape: tuple[int, int], own: Structure, layer: Sequence[Any]) -> AnyState:
    """State of rest of a layer, of `shape` (B, N), from its v_th, tau_adapt, tau_th and tau_follow."""
    v_th, tau_adapt, tau_th, tau_follow = layer
    batch, n = shape

    def zeros(*rows: int) -> Tensor:
        return v_th.new_zeros(batch, *rows, n)

    v, i = zeros(), zeros() if own.receptors is None else zeros(own.receptors)
    if tau_adapt is None and tau_th is None and tau_follow is None:
        return LIFState(v, i)
    # As the shapes of a solve: parameters may be replaced by one number for all components.
    j, h = (0 if x is None else len(x) if x.dim() else 1 for x in (tau_adapt, tau_th))
    return AdaptiveState(v, i, zeros(j), zeros(h + (tau_follow is not None)))
