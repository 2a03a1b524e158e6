"""How far a learning rule is from the exact gradient of the same loss, at the same weights, on the same batch."""

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from adjsnn.adjoints import DiscreteAdjoint
from adjsnn.checks import Number, positive
from adjsnn.errors import ConfigurationError
from adjsnn.gated.network import GatedState, GatedSynapseNetwork
from adjsnn.lif.adjoint import EventAdjoint, has_clock, lif_adjoint
from adjsnn.lif.network import LIFNetwork
from adjsnn.lif.structure import AdaptiveState, LIFState
from adjsnn.solve import solve
from adjsnn.spikes import SpikeTrains

ALL = "all"


@dataclass(frozen=True)
class AngleRow:
    """A rule's r beside the exact gradient g of one parameter.

    Attributes:
        rule: its name.
        parameter: the parameter's name, that of a layer ending in its number; "all" for all of them as one vector.
        cosine: ⟨r, g⟩/(‖r‖ ‖g‖); NaN where one of them is zero.
        ratio: ‖r‖/‖g‖; NaN where g is zero.
        signs: share of the entries with a gradient that have the sign of the exact one; NaN where none has one.
        entries: how many entries have a gradient, g ≠ 0.
    """

    rule: str
    parameter: str
    cosine: float
    ratio: float
    signs: float
    entries: int

    @property
    def degrees(self) -> float:
        """The angle, degrees."""
        return math.degrees(math.acos(max(-1.0, min(1.0, self.cosine)))) if math.isfinite(self.cosine) else math.nan


@dataclass(frozen=True)
class AngleReport:
    """What `angle` found. str() is the table.

    Attributes:
        rows: for each rule one row of every parameter and one of all together.
        loss: of the exact network.
        losses: of the network as each rule solves it, by the rule's name.
        miscounted: by the rule's name, the share of (sample, neuron) pairs of all layers whose number of spikes is not that of
            the exact network: where it is large, the two are not the same network.
    """

    rows: tuple[AngleRow, ...]
    loss: float
    losses: Mapping[str, float]
    miscounted: Mapping[str, float]

    def row(self, rule: str, parameter: str = ALL) -> AngleRow:
        """The row of a rule and a parameter.

        Raises:
            ConfigurationError: there is none.
        """
        for row in self.rows:
            if (row.rule, row.parameter) == (rule, parameter):
                return row
        known = sorted({f"{row.rule}, {row.parameter}" for row in self.rows})
        raise ConfigurationError(f"{rule!r}, {parameter!r}", f"one of {known}", "report.rows for all of them")

    def __str__(self) -> str:
        wide = max(len(row.rule) for row in self.rows) + 2
        named = max(12, max(len(row.parameter) for row in self.rows) + 2)
        head = f"{'rule':<{wide}}{'parameter':<{named}}{'cosine':>8}{'degrees':>9}{'|r|/|g|':>10}{'same sign':>11}"
        lines = [f"exact loss {self.loss:.6g}", head, "-" * len(head)]
        for row in self.rows:
            numbers = f"{row.cosine:>8.4f}{row.degrees:>9.1f}{row.ratio:>10.3g}{row.signs:>11.3f}"
            lines.append(f"{row.rule:<{wide}}{row.parameter:<{named}}{numbers}")
        for rule, loss in self.losses.items():
            lines.append(
                f"{rule}: loss {loss:.6g}, {100.0 * self.miscounted[rule]:.2g} % of the neurons spike more or less often"
            )
        return "\n".join(lines)


def angle(
    system: LIFNetwork | GatedSynapseNetwork,
    inputs: Any,
    loss: Callable[[Any], Tensor],
    rules: Sequence[Any] | Mapping[str, Any],
    *,
    dt: Number = 0.1,
    **solve_kwargs: Any,
) -> AngleReport:
    """Hold learning rules against the exact gradient: EventAdjoint of a LIF network, DiscreteAdjoint of a gated one.

    A float64 copy of the network is solved, exactly and as each rule does, and the same loss differentiated by every parameter
    that requires a gradient. The network itself is not touched.

    Args:
        system: a LIFNetwork or a GatedSynapseNetwork.
        inputs: as in `solve`.
        loss: a scalar function of either kind of solution, such as `losses.first_spike_cross_entropy`, `losses.van_rossum`,
            or one of voltages; not of a number of spikes, which has no exact gradient.
        rules: values of `adjoint=`; or a dict, by the names that the table shall have.
        dt: the step of rules on a clock, and of a gated network, ms.
        solve_kwargs: what else `solve` takes: t_end, ts, currents, y0.

    Returns:
        AngleReport.

    Raises:
        ConfigurationError: another system, no rules, two of one name, a loss that is no scalar or has no exact gradient.
    """
    if not isinstance(system, (LIFNetwork, GatedSynapseNetwork)):
        raise ConfigurationError(
            f"a system of type {type(system).__name__}", "a LIFNetwork or a GatedSynapseNetwork", "one of these"
        )
    if "adjoint" in solve_kwargs:
        raise ConfigurationError("adjoint in angle", "rules, and the exact adjoint in its place", "leaving it out")
    named = _named(rules)
    dt = positive("dt", dt, remedy="dt=0.1")
    net = copy.deepcopy(system).double()
    inputs = _double(inputs)
    options = {name: _double(x) for name, x in solve_kwargs.items()}
    leaves = {name: p for name, p in net.named_parameters() if p.requires_grad}
    if not leaves:
        raise ConfigurationError("a network in which nothing learns", "parameters that require a gradient", "learn=")
    gated = isinstance(net, GatedSynapseNetwork)

    def solved(adjoint: Any, clocked: bool) -> Any:
        given: dict[str, Any] = {"dt": dt} if clocked else {}
        return solve(net, inputs, adjoint=adjoint, **options, **given)

    exact = solved(DiscreteAdjoint() if gated else EventAdjoint(), gated)
    value, g = valued(exact, loss, leaves)
    if not any(bool(x.any()) for x in g.values()):
        raise ConfigurationError(
            "a loss without exact gradient", "one of spike times, voltages or the readout", "losses.van_rossum"
        )
    rows, found, miscounted = list[AngleRow](), dict[str, float](), dict[str, float]()
    for name, rule in named.items():
        sol = solved(rule, gated or has_clock(lif_adjoint(rule)))
        found[name], r = valued(sol, loss, leaves)
        miscounted[name] = share_miscounted(sol, exact)
        whole, of_exact = (torch.cat([x.flatten() for x in y.values()]) for y in (r, g))
        rows += [compared(name, parameter, r[parameter], g[parameter]) for parameter in leaves]
        rows.append(compared(name, ALL, whole, of_exact))
    return AngleReport(tuple(rows), value, found, miscounted)


def compared(rule: str, parameter: str, r: Tensor, g: Tensor) -> AngleRow:
    """A row, of a rule's r and the exact gradient g."""
    norm_r, norm_g, with_one = float(r.norm()), float(g.norm()), g != 0
    entries = int(with_one.sum())
    return AngleRow(
        rule=rule,
        parameter=parameter,
        cosine=float((r * g).sum()) / (norm_r * norm_g) if norm_r > 0.0 and norm_g > 0.0 else math.nan,
        ratio=norm_r / norm_g if norm_g > 0.0 else math.nan,
        signs=int((r.sign() == g.sign())[with_one].sum()) / entries if entries else math.nan,
        entries=entries,
    )


def _named(rules: Sequence[Any] | Mapping[str, Any]) -> dict[str, Any]:
    if not isinstance(rules, Mapping | list | tuple):
        raise ConfigurationError(f"rules of type {type(rules).__name__}", "a list of them, or a dict by name", "rules=[...]")
    named = dict(rules) if isinstance(rules, Mapping) else {}
    for rule in () if isinstance(rules, Mapping) else rules:
        name = type(rule).__name__
        if name in named:
            raise ConfigurationError(f"two rules of the name {name}", "a name for each", f'rules={{"{name}, one": ..., ...}}')
        named[name] = rule
    if not named:
        raise ConfigurationError("no rules", "at least one", "rules=[adjsnn.rules.SurrogateBPTT()]")
    return named


def valued(sol: Any, loss: Callable[[Any], Tensor], leaves: Mapping[str, Tensor]) -> tuple[float, dict[str, Tensor]]:
    """The loss of a solution, and its gradients."""
    value = loss(sol)
    if not isinstance(value, Tensor) or value.dim():
        raise ConfigurationError(f"a loss of type {type(value).__name__}", "a tensor, one number", "loss.sum() or loss.mean()")
    return float(value.detach()), gradients(value, leaves)


def gradients(value: Tensor, leaves: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Of one number by each leaf, zeros where it does not depend on it."""
    if not value.requires_grad:
        return {name: torch.zeros_like(p) for name, p in leaves.items()}
    found = torch.autograd.grad(value, list(leaves.values()), allow_unused=True, materialize_grads=True)
    return dict(zip(leaves, found, strict=True))


def share_miscounted(sol: Any, exact: Any) -> float:
    """Share of neurons of the batch with another number of spikes."""
    layers = range(len(exact.stats.layer_spikes))
    off = [(sol.layer_counts(k) != exact.layer_counts(k)).flatten() for k in layers]
    return float(torch.cat(off).double().mean())


def _double(given: object) -> Any:
    """Tensors, and what is made of them, in float64."""
    x: Any = given
    if isinstance(x, Tensor):
        return x.detach().double() if x.is_floating_point() else x
    if isinstance(x, SpikeTrains):
        return x.to(dtype=torch.float64)
    if isinstance(x, LIFState | AdaptiveState | GatedState):
        return type(x)(*(_double(y) for y in x))
    return [_double(y) for y in x] if isinstance(x, list | tuple) else x
