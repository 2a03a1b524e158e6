"""Convolutions and pooling of NIR, whose weights are shared, beside the layers of a LIFConv2d; equation (7.5)."""

from typing import Any, NamedTuple, TypeAlias

import nir
import numpy as np

from adjsnn.errors import ConfigurationError
from adjsnn.lif.conv import Conv2d, Pool2d
from adjsnn.lif.synapses import Synapses

MAPS = (nir.Conv2d, nir.SumPool2d, nir.AvgPool2d)
EQUAL = 8.0 * float(np.finfo(np.float64).eps)  # how far numbers of one map may be apart by rounding
Shape: TypeAlias = tuple[int, ...]


def refuse(seen: str, expected: str, remedy: str) -> ConfigurationError:
    return ConfigurationError(f"a NIR graph with {seen}", expected, remedy)


class Shared(NamedTuple):
    """Weights of a layer of maps.

    Attributes:
        part: the layer.
        below: (C, H, W) of the maps that it hears.
        values: as LIFConv2d has them, flat.
    """

    part: Conv2d | Pool2d
    below: tuple[int, int, int]
    values: np.ndarray

    def wiring(self) -> tuple[Synapses, tuple[int, int, int]]:
        return self.part.wiring(self.below)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of the layer."""
        return self.wiring()[1]

    def scaled(self, row: np.ndarray) -> "Shared":
        """The weights times a number for each neuron, (N,), equal within each map."""
        return self._replace(values=self.values * per_weight(row, self.shape[0], len(self.values)))

    def delays(self, row: np.ndarray) -> Any:
        """Delays of the neurons below, (M,), as LIFConv2d takes them: one for all, or for each synapse."""
        return float(row[0]) if bool((row == row[0]).all()) else row[self.wiring()[0].pre.numpy()]

    def before(self, weight: np.ndarray) -> np.ndarray:
        """weight (K, N) times the whole matrix, (K, M)."""
        synapses, (maps, height, width) = self.wiring()
        pre, post = synapses.pre.numpy(), synapses.post.numpy()
        shared = np.arange(len(pre)) if synapses.shared is None else synapses.shared.numpy()
        whole = np.zeros((int(np.prod(self.below)), len(weight)))
        np.add.at(whole, pre, self.values[shared, None] * weight.reshape(-1, maps * height * width).T[post])
        return whole.T


def per_weight(row: np.ndarray, maps: int, weights: int) -> np.ndarray:
    """Of numbers of neurons, (N,), those of the shared weights, (weights,), map by map.

    Raises:
        ConfigurationError: unlike numbers within a map.
    """
    each = row.reshape(maps, -1)
    if bool((np.abs(each - each[:, :1]) > EQUAL * np.abs(each[:, :1])).any()):
        raise ConfigurationError(
            "neurons of a map whose inputs are scaled unlike one another", "one factor for each map, as its weights are shared",
            "one tau_mem and tau_syn for each map, or one scale",
        )  # fmt: skip
    return np.repeat(each[:, 0], weights // maps)


def of_node(name: str, node: Any, below: Shape, array: Any) -> tuple[Shared, np.ndarray | None]:
    """What a Conv or pooling node does to maps, and its bias, (N,), or None; `array` reads a parameter.

    Raises:
        ConfigurationError: what a LIFConv2d does otherwise.
    """
    if len(below) != 3:
        raise refuse(f"{name!r} of type {type(node).__name__} on {below} values", "(C, H, W)", "an Input of that shape")
    maps = (below[0], below[1], below[2])
    if isinstance(node, nir.Conv2d):
        if _pair(name, node, "dilation", 1) != (1, 1) or np.ravel(node.groups).tolist() != [1]:
            raise refuse(f"dilation {node.dilation} and groups {node.groups} of {name!r}", "1 and 1", "Conv2d nodes without")
        weight, bias = array(name, "weight"), array(name, "bias")
        if weight.ndim != 4 or weight.shape[1] != maps[0] or bias.shape not in ((), (1,), weight.shape[:1]):
            raise refuse(f"weight {weight.shape} of {name!r} on {below}", f"(C, {maps[0]}, h, w), bias (C,)", "other shapes")
        if node.input_shape is not None and tuple(np.ravel(node.input_shape).tolist()) != maps[1:]:
            raise refuse(f"{name!r} for maps of {node.input_shape}, which get {maps[1:]}", "the same", "input_shape=None")
        kernel, stride = weight.shape[2:], _pair(name, node, "stride", 1)
        padding = _padding(name, node, kernel, stride)
        part = Conv2d(len(weight), _short(kernel), _short(stride), _short(padding))
        shared = Shared(part, maps, weight.ravel())
        spread = np.repeat(np.broadcast_to(bias, weight.shape[:1]), int(np.prod(shared.shape[1:])))
        return shared, spread if spread.any() else None
    kernel, stride = _pair(name, node, "kernel_size", 1), _pair(name, node, "stride", 1)
    if _pair(name, node, "padding", 0) != (0, 0):
        raise refuse(f"padding {node.padding} of the pooling {name!r}", "0, as a Pool2d has no edge", "maps with an edge")
    mean = 1.0 / (kernel[0] * kernel[1]) if isinstance(node, nir.AvgPool2d) else 1.0
    part = Pool2d(_short(kernel), None if stride == kernel else _short(stride))
    return Shared(part, maps, np.full(maps[0], mean)), None


def _padding(name: str, node: Any, kernel: Shape, stride: Shape) -> Shape:
    """Rows and columns beyond the edge; those of "same" where they are as many on both sides."""
    given = node.padding.decode() if isinstance(node.padding, bytes) else node.padding
    if not isinstance(given, str):
        return _pair(name, node, "padding", 0)
    if given == "valid":
        return 0, 0
    if given != "same" or stride != (1, 1) or any(k % 2 == 0 for k in kernel):
        raise refuse(
            f"padding {given!r} of {name!r} with a kernel of {kernel} and stride {stride}",
            "numbers, 'valid', or 'same' of an odd kernel with stride 1",
            "padding in numbers",
        )
    return (kernel[0] - 1) // 2, (kernel[1] - 1) // 2


def _pair(name: str, node: Any, field: str, least: int) -> tuple[int, int]:
    given = np.ravel(getattr(node, field))
    if given.dtype.kind not in "iu" or len(given) not in (1, 2) or bool((given < least).any()):
        raise refuse(f"{field} {getattr(node, field)!r} of {name!r}", f"one or two whole numbers ≥ {least}", "others")
    both = [int(x) for x in given]
    return both[0], both[-1]


def _short(pair: Shape) -> Any:
    """One number where both are the same."""
    return pair[0] if pair[0] == pair[1] else (pair[0], pair[1])


def behind(name: str, first: Shared, second: Shared) -> Shared:
    """A convolution of pooled maps as one convolution: its kernel has an entry for each neuron below a window.

    Raises:
        ConfigurationError: other maps in a row, or windows that overlap or leave neurons out where that counts.
    """
    conv, pool = second.part, first.part
    if not (isinstance(conv, Conv2d) and isinstance(pool, Pool2d)):
        raise refuse(
            f"{name!r} behind another Conv or pooling node", "neurons between them, or a Conv2d behind a pooling", "a CubaLIF"
        )
    kernel, stride, padding = (two(x) for x in (conv.kernel, conv.stride, conv.padding))
    tile, below = two(pool.kernel), first.below[1:]
    step = tile if pool.stride is None else two(pool.stride)
    left_out = any(n % t for n, t in zip(below, tile, strict=True))
    if step != tile or (left_out and any(padding)):
        raise refuse(
            f"{name!r} behind pooling of {tile} in steps of {step} on maps of {below}",
            "windows side by side, and where the convolution is padded a whole number of them",
            "a CubaLIF between them",
        )
    weight = second.values.reshape(len(second.values) // (first.below[0] * kernel[0] * kernel[1]), first.below[0], *kernel)
    wide = np.kron(weight * first.values[:, None, None], np.ones((1, 1, *tile)))
    grown = [tuple(x * t for x, t in zip(pair, tile, strict=True)) for pair in (kernel, stride, padding)]
    return Shared(Conv2d(len(weight), *(_short(x) for x in grown)), first.below, wide.ravel())


def two(given: Any) -> tuple[int, int]:
    """Rows and columns of one number or two."""
    down, right = (int(x) for x in np.broadcast_to(given, 2))
    return down, right


def nodes(shared: Shared, added: np.ndarray) -> list[tuple[str, nir.NIRNode]]:
    """Nodes of a layer's weights, by the ends of their names; `added` (N,) is what a bias brings."""
    part, (maps, height, width) = shared.part, shared.shape
    bias = per_weight(added, maps, maps)
    if isinstance(part, Conv2d):
        weight = shared.values.reshape(maps, shared.below[0], *two(part.kernel))
        conv = nir.Conv2d(shared.below[1:], weight, two(part.stride), two(part.padding), (1, 1), 1, bias)
        conv.output_type = {"output": np.array(shared.shape)}  # nir takes kernels to be square
        return [("weight", conv)]
    if bias.any():
        raise ConfigurationError("a bias of pooled maps driven by currents", "what nodes of NIR can say", "bias=False")
    stride = part.kernel if part.stride is None else part.stride
    pool = nir.SumPool2d(np.array(two(part.kernel)), np.array(two(stride)), np.zeros(2, dtype=int))
    scale = np.broadcast_to(shared.values[:, None, None], (maps, height, width)).copy()
    return [("pool", pool), ("weight", nir.Scale(scale))]
