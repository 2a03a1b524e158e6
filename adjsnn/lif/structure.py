"""What a LIF layer is: the tensors that a solve depends on, its state, and what stands beside its parameters: receptors, leak,
reset and wiring, of which a state_dict holds the last three."""

from collections.abc import Sequence
from functools import cached_property
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from adjsnn.checks import as_array, count, flag, is_flag, number
from adjsnn.errors import ConfigurationError
from adjsnn.kept import kept
from adjsnn.lif.given import Given, equal_rows, put_here
from adjsnn.lif.synapses import Synapses

RESETS = {"to": 0.0, "by": 1.0}
LISTS = ("synapses", "rec_synapses")
VERSION = 2  # of a state_dict, from which on it holds leak and reset
USUAL = (1.0, 0.0)  # leak, and ρ of the reset


class Structure(NamedTuple):
    """Of one layer.

    Attributes:
        sources: M, the number of neurons that feed it.
        receptors: K, or None for one, without a dimension of its own.
        leak: whether v decays.
        reset: ρ, what is left at a spike of the distance of v from v_th, (6.2): 0 for "to", 1 for "by".
        synapses: of its inputs, or None for a weight for each pair.
        rec_synapses: of its own neurons, likewise.
    """

    sources: int
    receptors: int | None = None
    leak: bool = True
    reset: float = 0.0
    synapses: Synapses | None = None
    rec_synapses: Synapses | None = None

    @property
    def ordinary(self) -> bool:
        """Whether nothing of it is beyond (2.1) and (2.2) and weights for each pair."""
        return self[1:] == (None, True, 0.0, None, None)

    @property
    def currents(self) -> int:
        """K, the number of synaptic currents of a neuron."""
        return self.receptors or 1


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


def structures(
    sources: Sequence[int], receptors: object, leak: object, reset: object, synapses: object, rec_synapses: object
) -> tuple[Structure, ...]:
    """One for each layer; each argument but the first one for all of them or a tuple with one for each.

    Raises:
        ConfigurationError: what is no number of receptors, no flag, no reset, or no Synapses.
    """
    layers = len(sources)

    def each(name: str, value: object) -> tuple[Any, ...]:
        entries = value if isinstance(value, tuple) else (value,) * layers
        if len(entries) != layers:
            raise ConfigurationError(
                f"{name} with {len(entries)} entries", f"one for each of {layers} layers", f"a tuple of {name}"
            )
        return entries

    for name, value in (("synapses", synapses), ("rec_synapses", rec_synapses)):
        if value is not None and not isinstance(value, tuple) and layers > 1:
            raise ConfigurationError(
                f"{name} of one layer for {layers}", "a tuple, None for a dense layer", f"{name}=(x, None)"
            )
    columns = zip(
        *(
            each(name, value)
            for name, value in (
                ("receptors", receptors),
                ("leak", leak),
                ("reset", reset),
                ("synapses", synapses),
                ("rec_synapses", rec_synapses),
            )
        ),
        strict=True,
    )
    return tuple(
        Structure(
            m,
            None if k is None else count("receptors", k, remedy="receptors=2"),
            flag("leak", leaks),
            _reset(back),
            _synapses("synapses", wired),
            _synapses("rec_synapses", rec_wired),
        )
        for m, (k, leaks, back, wired, rec_wired) in zip(sources, columns, strict=True)
    )


def _reset(given: object) -> float:
    expected, remedy = '"to", "by", or what is left of the distance from v_th, 0 to 1', 'reset="to"'
    if isinstance(given, str):
        if given not in RESETS:
            raise ConfigurationError(f"reset={given!r}", expected, remedy)
        return RESETS[given]
    if given is None or is_flag(given):
        raise ConfigurationError(f"reset={given!r}", expected, remedy)
    factor = number("reset", given, expected, remedy)
    if not 0.0 <= factor <= 1.0:
        raise ConfigurationError(f"reset={factor!r}", expected, remedy)
    return factor


def _synapses(name: str, given: object) -> Synapses | None:
    if given is not None and not isinstance(given, Synapses):
        raise ConfigurationError(f"{name} of type {type(given).__name__}", "adjsnn.Synapses", "Synapses(pre, post)")
    return given


def keep_structure(net: Any) -> None:
    """Let the state_dict of a LIF network hold what its layers are, and hold that against a state that is loaded.

    An entry wiring.<layer>.synapses or wiring.<layer>.rec_synapses has the rows pre, post, receptor and, of shared weights,
    their numbers, (3 or 4, E): `Synapses(*state["wiring.0.synapses"])` is the list again. An entry neuron.<layer>, (2,), has
    whether v decays, and ρ of its reset, where they are not 1 and 0. Both are persistent buffers. A state that has none, of an
    earlier version or without torch's metadata, is loaded as it is.
    """
    device = net.w_in[0].device
    kinds = {str(k): _kind(own) for k, own in enumerate(net.structure) if _kind(own) != USUAL}
    lists = {str(k): {name: x for name in LISTS if (x := getattr(own, name))} for k, own in enumerate(net.structure)}
    if kinds:
        net.neuron = Given(kinds, device)
    if any(lists.values()):
        net.wiring = nn.ModuleDict({k: Given(entries, device) for k, entries in lists.items() if entries})
    net.register_load_state_dict_pre_hook(_compare)


def check_put_here(net: nn.Module) -> None:
    """Refuse what another network is, where `torch.func.functional_call` has put its state.

    Raises:
        ConfigurationError: as on loading it.
    """
    if state := put_here(net):
        _compare(net, state, "", {})


def _compare(net: Any, state: dict[str, Any], prefix: str, metadata: dict[str, Any], *_others: Any) -> None:
    """Hold what layers are in a state against what they are here; takes out entries that are the usual ones.

    Raises:
        ConfigurationError: not the network's.
    """
    _compare_kinds(net, state, f"{prefix}neuron.", (metadata.get("version") or 0) >= VERSION)
    for key in [key for key in state if key.startswith(f"{prefix}wiring.")]:
        saved, place = state[key], key.removeprefix(f"{prefix}wiring.")
        layer, _dot, name = place.partition(".")
        known = layer.isdecimal() and int(layer) < len(net.structure) and name in LISTS
        listed: Synapses | None = getattr(net.structure[int(layer)], name) if known else None
        if listed is not None and equal_rows(saved, listed):
            continue
        mine = "no such list" if listed is None else f"other {name}, {len(listed)} of them"
        raise ConfigurationError(
            f'a state with "{key}" for a network that has {mine}',
            "the wiring that its weights were saved with",
            f'a network with {name}=Synapses(*state["{key}"]) in layer {layer}, or the same stack of a LIFConv2d',
        )


def _compare_kinds(net: Any, state: dict[str, Any], begin: str, complete: bool) -> None:
    """Of a state that is known to be complete, a layer without an entry has leak and the reset "to"."""
    saved = {key.removeprefix(begin): x for key, x in state.items() if key.startswith(begin)}
    if not (saved or complete):
        return
    for layer, own in enumerate(net.structure):
        found = saved.pop(str(layer), torch.tensor(USUAL, device="cpu"))
        readable = isinstance(found, Tensor) and found.shape == (2,) and not found.is_meta
        kind = tuple(found.tolist()) if readable else ()
        if not readable or kind != tuple(torch.tensor(_kind(own), dtype=found.dtype, device="cpu").tolist()):  # may be cast
            told = f"leak={bool(kind[0])}, reset={kind[1]:g}" if kind else "neurons that cannot be read"
            raise ConfigurationError(
                f"a state of {told} for layer {layer} with leak={own.leak}, reset={own.reset:g}",
                "what its weights were saved with",
                f"LIFNetwork(…, {told})" if kind else "the state as it was saved",
            )
        if _kind(own) == USUAL:
            state.pop(f"{begin}{layer}", None)
    if saved:
        raise ConfigurationError(
            f"a state with neurons of layer {', '.join(saved)}", f"one of {len(net.structure)} layers", "the same network"
        )


def _kind(own: Structure) -> tuple[float, float]:
    return float(own.leak), own.reset
