"""The tensors of a network as its equations take them: kind, dtype, device and shape of each, checked before any loop.

A parameter may be replaced after construction, parametrized, or returned by an overridden `tensors`, so that nothing is known
of it. The compiled loops index by the sizes of the network and would read beyond a shorter array.
"""

import torch
from torch import Tensor, nn

from adjsnn.errors import ConfigurationError

REAL = (torch.float32, torch.float64)
ONE = ((), (1,))  # one number, for all


def checked(name: str, x: object, like: Tensor | None) -> Tensor:
    """x, once it is a dense real tensor on a device that holds numbers, of the dtype and device of `like`."""
    if not isinstance(x, Tensor):
        raise ConfigurationError(f"{name} is {type(x).__name__}", "a tensor", "a torch.nn.Parameter there")
    if like is not None and x.dtype == like.dtype and x.device == like.device and x.layout == torch.strided:
        return x
    if x.layout != torch.strided:
        raise ConfigurationError(f"{name} of layout {x.layout}", "a dense tensor", f"{name}.to_dense()")
    if x.is_meta:
        raise without_numbers(name)
    if x.dtype not in REAL:
        raise ConfigurationError(f"{name} is {x.dtype}", "torch.float32 or torch.float64", "net.float() or net.double()")
    if like is not None:
        raise ConfigurationError(
            f"{name} is {x.dtype} on {x.device} while the weights are {like.dtype} on {like.device}",
            "one dtype and device for the whole network",
            "net.to(dtype) or net.to(device)",
        )
    return x


def refuse_meta(net: nn.Module) -> None:
    """Refuse a network on the device meta, where its numbers are read.

    Raises:
        ConfigurationError: names the first such parameter.
    """
    for name, x in net.named_parameters():
        if x.is_meta:
            raise without_numbers(name)


def without_numbers(name: str) -> ConfigurationError:
    """The error of a tensor on the device meta."""
    return ConfigurationError(
        f"{name} on the device meta, which holds no numbers",
        "a CPU or CUDA tensor",
        'net.to_empty(device="cpu"), then net.load_state_dict(...)',
    )


def spread(name: str, x: object, like: Tensor, n: int) -> Tensor:
    """(N,) of a constant per neuron, or of one for all of them."""
    x = checked(name, x, like)
    if x.shape == (n,):
        return x
    if x.shape not in ONE:
        raise wrong(name, x, f"({n},), one number per neuron, or one number for all")
    return x.expand(n)


def matrix(name: str, x: object, like: Tensor, shape: tuple[int, int]) -> Tensor:
    """x, once it is of that shape."""
    x = checked(name, x, like)
    if x.shape != shape:
        raise wrong(name, x, f"{shape}, (out, in)")
    return x


def wrong(name: str, x: Tensor, expected: str) -> ConfigurationError:
    """The error of a tensor of another shape."""
    return ConfigurationError(
        f"{name} of shape {tuple(x.shape)}", f"shape {expected}", "a parameter of that shape, or a network of other sizes"
    )
