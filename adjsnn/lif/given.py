"""What a network is beside its parameters, as persistent buffers: tools of torch take an entry of a state for one."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from adjsnn.lif.synapses import Synapses

PARTS = ("neuron", "wiring")  # of a network, where they stand
Entries = Mapping[str, Synapses | tuple[float, ...]]


class Given(nn.Module):
    """Buffers that say what the weights of a state belong to: lists of synapses, or numbers.

    A solve does not read them, so averages of all buffers, casts and `to_empty` do no harm, and what is saved is what was
    given. The network that it is a part of compares those that are loaded, or put here by `torch.func.functional_call`.

    Args:
        entries: by the names of their buffers.
        device: of the buffers; those without values stay so until they are loaded.
    """

    def __init__(self, entries: Entries, device: torch.device) -> None:
        super().__init__()
        self.entries = dict(entries)
        for name in entries:
            self.register_buffer(name, self._own(name).to(device))
        self._known = dict(self._buffers)

    def _own(self, name: str) -> Tensor:
        """On the host, whatever the default device is."""
        own = self.entries[name]
        return own.rows if isinstance(own, Synapses) else torch.tensor(own, dtype=torch.float64, device="cpu")

    @property
    def replaced(self) -> bool:
        """Whether a buffer is none that was made here."""
        return any(x is not self._known[name] for name, x in self._buffers.items())

    def _restore(self) -> None:
        for name, x in self._buffers.items():
            own = self._own(name)
            assert x is not None
            if not x.is_meta and (x.dtype != own.dtype or not torch.equal(x.detach().cpu(), own)):
                self._buffers[name] = own.to(x.device)
        self._known = dict(self._buffers)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Given":
        super()._apply(fn, recurse)
        self._restore()
        return self

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        self._restore()
        super()._save_to_state_dict(destination, prefix, keep_vars)

    def _load_from_state_dict(  # as torch names them
        self,
        state_dict: Any,
        prefix: str,
        local_metadata: Any,
        strict: bool,
        missing_keys: Any,
        unexpected_keys: Any,
        error_msgs: Any,
    ) -> None:
        """Entries that are here were compared; states of earlier versions have none."""
        for name, x in self._buffers.items():
            assert x is not None
            saved = state_dict.get(prefix + name, x)
            state_dict[prefix + name] = self._own(name).to("cpu" if saved.is_meta else saved.device)
        super()._load_from_state_dict(state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs)
        self._restore()

    def extra_repr(self) -> str:
        return ", ".join(f"{name}={entry}" for name, entry in self.entries.items())


def given_of(net: nn.Module) -> Iterator[tuple[str, Given]]:
    """Those of a network, with what their names begin with in its state."""
    for name, part in ((name, net._modules.get(name)) for name in PARTS):
        for path, module in () if part is None else part.named_modules(prefix=name):
            if isinstance(module, Given):
                yield f"{path}.", module


def put_here(net: nn.Module) -> dict[str, Tensor]:
    """Buffers that `torch.func.functional_call` or others put in the place of those of a network, and the rest, by the names
    of its state; empty where all are its own."""
    held = list(given_of(net))
    if not any(given.replaced for _, given in held):
        return {}
    return {path + name: x for path, given in held for name, x in given.named_buffers()}


def equal_rows(saved: object, synapses: Synapses) -> bool:
    """Whether what a state holds is a list of synapses."""
    if not isinstance(saved, Tensor) or saved.is_meta:
        return False
    return torch.equal(saved.detach().to("cpu", torch.int64), synapses.rows.long())
