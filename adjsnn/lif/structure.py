"""What a LIF layer is beside its parameters: receptors, leak, reset and wiring, of which a state_dict holds the last three."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from adjsnn.checks import count, flag, is_flag, number
from adjsnn.errors import ConfigurationError
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


def keep_structure(net: nn.Module) -> None:
    """Let the state_dict of a LIF network hold what its layers are, and hold that against a state that is loaded.

    An entry wiring.<layer>.synapses or wiring.<layer>.rec_synapses has the rows pre, post, receptor and, of shared weights,
    their numbers, (3 or 4, E): `Synapses(*state["wiring.0.synapses"])` is the list again. An entry neuron.<layer>, (2,), has
    whether v decays, and ρ of its reset, where they are not 1 and 0. A state that has none, of an earlier version or without
    torch's metadata, is loaded as it is.
    """
    net.register_state_dict_post_hook(_save)
    net.register_load_state_dict_pre_hook(_compare)


def _save(net: Any, state: dict[str, Any], prefix: str, _metadata: Any) -> None:
    for layer, own in enumerate(net.structure):
        if _kind(own) != USUAL:
            state[f"{prefix}neuron.{layer}"] = torch.tensor(_kind(own), dtype=torch.float64)
        for name in LISTS:
            rows = _rows(own, name)
            if rows is not None:
                state[f"{prefix}wiring.{layer}.{name}"] = rows


def _compare(net: Any, state: dict[str, Any], prefix: str, metadata: dict[str, Any], *_others: Any) -> None:
    """Take what layers are out of the state, where torch would not expect it.

    Raises:
        ConfigurationError: not the network's.
    """
    _compare_kinds(net, state, f"{prefix}neuron.", (metadata.get("version") or 0) >= VERSION)
    for key in [key for key in state if key.startswith(f"{prefix}wiring.")]:
        saved, place = state.pop(key), key.removeprefix(f"{prefix}wiring.")
        layer, _dot, name = place.partition(".")
        known = layer.isdecimal() and int(layer) < len(net.structure) and name in LISTS
        rows = _rows(net.structure[int(layer)], name) if known else None
        if rows is not None and isinstance(saved, Tensor) and torch.equal(saved.to("cpu", torch.int64), rows.long()):
            continue
        mine = f"other {name}, {rows.shape[1]} of them" if rows is not None else "no such list"
        raise ConfigurationError(
            f'a state with "{key}" for a network that has {mine}',
            "the wiring that its weights were saved with",
            f'a network with {name}=Synapses(*state["{key}"]) in layer {layer}, or the same stack of a LIFConv2d',
        )


def _compare_kinds(net: Any, state: dict[str, Any], begin: str, complete: bool) -> None:
    """Of a state that is known to be complete, a layer without an entry has leak and the reset "to"."""
    saved = {key.removeprefix(begin): state.pop(key) for key in [key for key in state if key.startswith(begin)]}
    if not (saved or complete):
        return
    for layer, own in enumerate(net.structure):
        found = saved.pop(str(layer), torch.tensor(USUAL))
        kind = tuple(found.tolist()) if isinstance(found, Tensor) and found.shape == (2,) else ()
        if kind != _kind(own):
            told = f"leak={bool(kind[0])}, reset={kind[1]:g}" if kind else "neurons that cannot be read"
            raise ConfigurationError(
                f"a state of {told} for layer {layer} with leak={own.leak}, reset={own.reset:g}",
                "what its weights were saved with",
                f"LIFNetwork(…, {told})" if kind else "the state as it was saved",
            )
    if saved:
        raise ConfigurationError(
            f"a state with neurons of layer {', '.join(saved)}", f"one of {len(net.structure)} layers", "the same network"
        )


def _kind(own: Structure) -> tuple[float, float]:
    return float(own.leak), own.reset


def _rows(own: Structure, name: str) -> Tensor | None:
    """The columns of a list; None of a layer without one."""
    listed: Synapses | None = getattr(own, name)
    return None if listed is None else listed.rows
