"""Synapses as a list, for wiring that is sparse or shares its weights; a network without one has a weight for each pair."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from adjsnn.checks import count, kind, tensor
from adjsnn.errors import ConfigurationError


@dataclass(frozen=True, eq=False)
class Synapses:
    """Which neuron projects to which, one entry for each synapse; two neurons may be joined several times.

    Args:
        pre: the source of each synapse, (E,), whole numbers: an input or neuron of the layer below, or of the same layer.
        post: the neuron it ends on, (E,).
        receptor: which of the layer's receptors it acts through, (E,) or one for all; default the first.
        shared: number of the weight of each synapse, (E,), where several have one, as in a convolution; default its own.

    Raises:
        ConfigurationError: no whole numbers ≥ 0, or of different lengths.
    """

    pre: Tensor
    post: Tensor
    receptor: Tensor | int = 0
    shared: Tensor | None = None

    def __post_init__(self) -> None:
        pre = _numbers("pre", self.pre)
        columns = {"pre": pre, "post": _numbers("post", self.post)}
        one = not isinstance(self.receptor, Tensor) and not hasattr(self.receptor, "__len__")
        columns["receptor"] = (
            torch.full_like(pre, count("receptor", self.receptor, 0)) if one else _numbers("receptor", self.receptor)
        )
        if self.shared is not None:
            columns["shared"] = _numbers("shared", self.shared)
        for name, column in columns.items():
            if len(column) != len(pre):
                raise ConfigurationError(f"{name} of {len(column)} synapses, pre of {len(pre)}", "as many", "one for each")
            object.__setattr__(self, name, column)

    @staticmethod
    def from_csr(matrix: Any, receptor: int = 0) -> tuple[Synapses, Tensor]:
        """Synapses of a sparse matrix (out, in), of scipy or torch, and their weights in the same order.

        An entry that is stored is a synapse, be it zero.

        Args:
            matrix: of scipy.sparse in any format, or a sparse tensor of torch, (N, M).
            receptor: which receptor they act through.

        Raises:
            ConfigurationError: no sparse matrix.
        """
        from scipy.sparse import issparse  # noqa: PLC0415  slow to import

        if isinstance(matrix, Tensor) and matrix.layout != torch.strided and matrix.dim() == 2 and not matrix.dense_dim():
            entries = matrix.detach().cpu().to_sparse_coo()
            (post, pre), weights = entries._indices(), entries._values().clone()
        elif not isinstance(matrix, Tensor) and issparse(matrix) and matrix.ndim == 2:
            entries: Any = matrix.tocoo()
            post, pre = (torch.as_tensor(x.astype("int64")) for x in (entries.row, entries.col))
            weights = torch.as_tensor(entries.data.astype("float64" if entries.data.dtype.kind == "f" else entries.data.dtype))
        else:
            raise ConfigurationError(
                f"a matrix of type {type(matrix).__name__}",
                "a sparse matrix of scipy or torch with two dimensions, (out, in)",
                "scipy.sparse.csr_array(w)",
            )
        if weights.is_complex():
            raise ConfigurationError(f"a matrix of {weights.dtype}", "real numbers", "matrix.real")
        return Synapses(pre, post, receptor), weights

    def __repr__(self) -> str:
        shared = "" if self.shared is None else f", {self.weights} weights"
        return f"Synapses({len(self)} synapses{shared})"

    def __len__(self) -> int:
        return len(self.pre)

    @cached_property
    def weights(self) -> int:
        """Number of different weights."""
        if self.shared is None:
            return len(self)
        return int(self.shared.max()) + 1 if len(self) else 0

    @property
    def rows(self) -> Tensor:
        """The columns pre, post, receptor and, of shared weights, their numbers, (3 or 4, E), in the fewest bytes."""
        rows = torch.stack([x for x in (self.pre, self.post, self.receptor, self.shared) if isinstance(x, Tensor)])
        return rows.int() if not rows.numel() or int(rows.max()) < 2**31 else rows

    @cached_property
    def by_pre(self) -> Tensor:
        """The order of the synapses by their sources, (E,)."""
        return self.pre.argsort(stable=True)

    @cached_property
    def in_order(self) -> tuple[Tensor, Tensor, Tensor]:
        """pre, post and receptor by their sources."""
        assert isinstance(self.receptor, Tensor)
        return self.pre[self.by_pre], self.post[self.by_pre], self.receptor[self.by_pre]

    def check(self, name: str, sources: int, neurons: int, receptors: int) -> None:
        """Refuse synapses that a layer of that many sources, neurons and receptors does not have.

        Raises:
            ConfigurationError: says which.
        """
        kind(name, self, Synapses)
        for what, column, most in (
            ("pre", self.pre, sources),
            ("post", self.post, neurons),
            ("receptor", self.receptor, receptors),
            ("shared", torch.zeros(0) if self.shared is None else self.shared, self.weights),
        ):
            assert isinstance(column, Tensor)
            low, high = (int(x) for x in column.aminmax()) if len(column) else (0, 0)
            if low < 0 or (high >= most and len(column)):
                raise ConfigurationError(
                    f"{name}.{what} {f'down to {low}' if low < 0 else f'up to {high}'}",
                    f"numbers from 0 to {most - 1}",
                    "numbers from 0 on, or a larger layer",
                )


def _numbers(name: str, given: object) -> Tensor:
    expected, remedy = "whole numbers ≥ 0, (E,)", f"{name}=torch.tensor([0, 1])"
    column = tensor(name, given, expected, remedy)
    if not column.numel() and column.dim() == 1:
        column = column.long()
    if column.dim() != 1 or column.is_floating_point() or column.is_complex() or column.dtype == torch.bool:
        raise ConfigurationError(f"{name} of shape {tuple(column.shape)}, {column.dtype}", expected, remedy)
    column = column.detach().to("cpu", torch.int64, copy=True)
    if len(column) and int(column.min()) < 0:
        raise ConfigurationError(f"{name} down to {int(column.min())}", expected, remedy)
    return column
