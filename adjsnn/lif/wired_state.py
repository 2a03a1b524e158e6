"""Lists of synapses as part of a network's state_dict, so that weights are not loaded onto other wiring."""

from typing import Any

import torch
from torch import Tensor, nn

from adjsnn.errors import ConfigurationError
from adjsnn.lif.structure import Structure
from adjsnn.lif.synapses import Synapses

LISTS = ("synapses", "rec_synapses")


def keep_wiring(net: nn.Module) -> None:
    """Let the state_dict of a LIF network hold its lists of synapses, and hold them against those of a state that is loaded.

    An entry wiring.<layer>.synapses or wiring.<layer>.rec_synapses has the rows pre, post, receptor and, of shared weights,
    their numbers, (3 or 4, E): `Synapses(*state["wiring.0.synapses"])` is the list again. A state that has none, of an earlier
    version, is loaded as it is.
    """
    net.register_state_dict_post_hook(_save)
    net.register_load_state_dict_pre_hook(_compare)


def _save(net: Any, state: dict[str, Any], prefix: str, _metadata: Any) -> None:
    for layer, own in enumerate(net.structure):
        for name in LISTS:
            rows = _rows(own, name)
            if rows is not None:
                state[f"{prefix}wiring.{layer}.{name}"] = rows


def _compare(net: Any, state: dict[str, Any], prefix: str, *_others: Any) -> None:
    """Take the lists out of the state, which torch would not expect there.

    Raises:
        ConfigurationError: lists that are not the network's.
    """
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


def _rows(own: Structure, name: str) -> Tensor | None:
    """The columns of a list, (3 or 4, E), in the fewest bytes; None of a layer without one."""
    listed: Synapses | None = getattr(own, name)
    if listed is None:
        return None
    columns = [x for x in (listed.pre, listed.post, listed.receptor, listed.shared) if isinstance(x, Tensor)]
    rows = torch.stack(columns)
    return rows.int() if not rows.numel() or int(rows.max()) < 2**31 else rows
