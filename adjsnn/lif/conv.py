"""Convolution and pooling of spikes: wiring whose weights are shared, for the same engine as any other."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from adjsnn.checks import Count, count, index, on_the_host
from adjsnn.errors import ConfigurationError
from adjsnn.lif.network import LIFNetwork
from adjsnn.lif.synapses import Synapses

Pair = Count | tuple[Count, Count]


@dataclass(frozen=True)
class Conv2d:
    """A layer of maps, each neuron of which hears a window of all maps below through the weights of its map.

    Args:
        channels: number of maps.
        kernel: height and width of the window, one number for both.
        stride: between windows of neighbours, likewise.
        padding: rows and columns beyond the edge, which are silent.
    """

    channels: Count
    kernel: Pair
    stride: Pair = 1
    padding: Pair = 0

    def wiring(self, shape: tuple[int, int, int]) -> tuple[Synapses, tuple[int, int, int]]:
        """Synapses from maps of a shape (C, H, W), the shape of this layer; weights are those of torch's conv2d, flattened.

        Raises:
            ConfigurationError: a window that does not fit.
        """
        with torch.device("cpu"):
            pre, height, width = _windows(shape, self.kernel, self.stride, self.padding)
            maps, inside = count("channels", self.channels), pre.shape[1]
            places = height * width
            weight = torch.arange(maps)[:, None, None] * inside + torch.arange(
                inside
            )  # of each map, place and entry of the window
            post = torch.arange(maps * places).view(maps, places, 1)
            there = (pre >= 0).expand(maps, places, inside)
            columns = (x.expand(maps, places, inside)[there] for x in (pre, post, weight))
            pre, post, shared = columns
        return Synapses(pre, post, shared=shared), (maps, height, width)


@dataclass(frozen=True)
class Pool2d:
    """A layer of as many maps, each neuron of which hears a window of its own map through one weight of that map.

    Args:
        kernel: height and width of the window, one number for both.
        stride: between windows of neighbours; default the window.
    """

    kernel: Pair
    stride: Pair | None = None

    def wiring(self, shape: tuple[int, int, int]) -> tuple[Synapses, tuple[int, int, int]]:
        """As of Conv2d; a weight for each map, (C,)."""
        with torch.device("cpu"):
            maps = shape[0]
            one, height, width = _windows((1, *shape[1:]), self.kernel, self.kernel if self.stride is None else self.stride, 0)
            places, inside = one.shape
            number = torch.arange(maps)[:, None, None]
            pre = one + number * (shape[1] * shape[2])
            post = torch.arange(maps * places).view(maps, places, 1)
            columns = (x.expand(maps, places, inside).reshape(-1) for x in (pre, post, number))
            pre, post, shared = columns
        return Synapses(pre, post, shared=shared), (maps, height, width)


class LIFConv2d(LIFNetwork):
    """A LIF network of convolutional, pooling and dense layers; weights that are shared get the sum of their gradients.

    Args:
        shape: of the input, (C, H, W); input neuron c H W + y W + x.
        stack: the layers, each a Conv2d, a Pool2d, or a number of neurons.
        options: as of LIFNetwork, but for its sizes and wiring.

    Attributes:
        shapes: of each layer, (C, H, W), or (N,) of a dense one.
        w_in: (channels · C · kernel · kernel,) of a Conv2d, see `kernels`; (C,) of a Pool2d; (N, M) of a dense layer.

    Raises:
        ConfigurationError: a layer that does not fit on the one below, or options of LIFNetwork that cannot be right.
    """

    @on_the_host
    def __init__(self, shape: Sequence[int], stack: Sequence[Conv2d | Pool2d | int], **options: Any) -> None:
        given = [*shape] if isinstance(shape, (tuple, list, np.ndarray)) else []
        if not isinstance(stack, Sequence):
            raise ConfigurationError(f"stack of type {type(stack).__name__}", "a list of layers", "stack=[Conv2d(8, 3), 10]")
        if len(given) != 3:
            raise ConfigurationError(f"shape={shape!r}", "(channels, height, width)", "shape=(1, 28, 28)")
        for name in ("n_in", "layers", "synapses"):
            if name in options:
                raise ConfigurationError(f"{name} of a LIFConv2d", "shape and stack, which say it", "leaving it out")
        first = tuple(count("shape", n) for n in given)
        below: tuple[int, ...] = first
        wired, shapes = list[Synapses | None](), list[tuple[int, ...]]()
        for k, part in enumerate(stack):
            if isinstance(part, (Conv2d, Pool2d)):
                if len(below) != 3:
                    raise ConfigurationError(f"stack[{k}]={part} on a dense layer", "maps below it", "dense layers last")
                synapses, below = part.wiring((below[0], below[1], below[2]))
            else:
                synapses, below = None, (count(f"stack[{k}]", part),)
            wired.append(synapses)
            shapes.append(below)
        sizes = [int(torch.Size(x).numel()) for x in shapes]
        super().__init__(int(torch.Size(first).numel()), sizes, synapses=tuple(wired), **options)
        self.stack, self.shape, self.shapes = tuple(stack), first, tuple(shapes)

    def kernels(self, layer: int) -> Tensor:
        """Weights of a Conv2d as torch has them, (channels, C, height, width); differentiable."""
        layer = index("layer", layer, len(self.stack))
        part = self.stack[layer]
        if not isinstance(part, Conv2d):
            raise ConfigurationError(f"kernels of layer {layer}, {part}", "a Conv2d", "lif.w_in[layer]")
        below = self.shapes[layer - 1] if layer else self.shape
        weights: nn.Parameter = self.w_in[layer]
        return weights.view(count("channels", part.channels), below[0], *_pair("kernel", part.kernel, 1))


def _windows(shape: tuple[int, int, int], kernel: Pair, stride: Pair, padding: Pair) -> tuple[Tensor, int, int]:
    """Sources of each window, -1 beyond the edge, (places, C · kernel · kernel), and numbers of rows and columns of places."""
    (tall, wide), (down, right), (above, left) = (
        _pair("kernel", kernel, 1),
        _pair("stride", stride, 1),
        _pair("padding", padding, 0),
    )
    maps, height, width = shape
    rows, columns = (height + 2 * above - tall) // down + 1, (width + 2 * left - wide) // right + 1
    if height + 2 * above < tall or width + 2 * left < wide:
        raise ConfigurationError(
            f"a window of {tall} × {wide} on {height} × {width}", "one that fits", "a smaller kernel, or padding"
        )
    y = (torch.arange(rows) * down)[:, None] + torch.arange(tall) - above
    x = (torch.arange(columns) * right)[:, None] + torch.arange(wide) - left
    y, x = y[:, None, None, :, None], x[None, :, None, None, :]
    number = torch.arange(maps)[:, None, None] * (height * width) + y * width + x
    there = (y >= 0) & (y < height) & (x >= 0) & (x < width)
    return torch.where(there, number, -1).reshape(rows * columns, maps * tall * wide), rows, columns


def _pair(name: str, given: Pair, least: int) -> tuple[int, int]:
    both = tuple(given) if isinstance(given, (tuple, list)) else (given, given)
    if len(both) != 2:
        raise ConfigurationError(f"{name}={given!r}", "one number, or one for rows and one for columns", f"{name}=3")
    return count(name, both[0], least), count(name, both[1], least)
