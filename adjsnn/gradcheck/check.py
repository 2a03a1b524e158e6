"""The check itself: which judges are asked, and what each of them finds."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from adjsnn.checks import Count, count
from adjsnn.errors import ConfigurationError, GradientCheckError
from adjsnn.gated.network import GatedSynapseNetwork
from adjsnn.gradcheck.report import NEGLIGIBLE, GradcheckReport, GradcheckRow, relative
from adjsnn.hybrid.system import HybridSystem
from adjsnn.lif.network import LIFNetwork
from adjsnn.numerics.tableaus import TABLEAUS
from adjsnn.spikes import SpikeTrains

if TYPE_CHECKING:
    from adjsnn.gradcheck.probe import Probe

JUDGES = ("bptt", "forward", "plain", "finite_difference")
Loss = Callable[[Any], Tensor]


def gradcheck(
    system: GatedSynapseNetwork | HybridSystem | LIFNetwork,
    inputs: Any,
    loss: Loss,
    against: Sequence[str] | None = None,
    *,
    entries: Count = 6,
    seed: Count = 0,
    verbose: bool = True,
    **solve_kwargs: Any,
) -> GradcheckReport:
    """Compare the adjoint gradients of `loss(solve(system, inputs, **solve_kwargs))` with independent ones, in float64.

    Checked are all parameters that require a gradient, the inputs, and the initial state. Central differences use four
    points and are taken only where every perturbed solution has each spike in the same step and, for a gate with edges, the
    same neurons in the active zone, and where two perturbations ten times apart agree; smaller ones are tried, then the entry
    is counted as skipped. They judge the program exactly as it runs. BPTT runs by plain operations, so there the adjoint is
    given the states of plain operations too, even where fused loops compute the gradient: a chaotic network would turn another
    order of rounding into other states, and hide what is asked. The system itself is not touched.

    LIF networks are event-exact, so differences are taken where every layer's spikes come from the same neurons in the same
    order; entries whose perturbed value would not be accepted, such as an input spike that would overtake the next one, are
    skipped. In the place of BPTT there is the other of their two engines, fused loops or plain code.

    Adaptive steps depend on the parameters, while a gradient takes where they end as constants, events excepted. So there a
    perturbed solution takes the steps of the one that is checked, and locates each of its events anew. Of `Equations` with
    synapses, whose steps torch cannot find, BPTT takes these steps, too. Methods of torchdiffeq, whose steps are not known,
    cannot be judged by differences. The judges know the gradient of the computed loss; for ContinuousAdjoint and Backsolve,
    which compute another, see `convergence`.

    Args:
        system: a gated network, a LIF network or a HybridSystem; a float64 copy is checked.
        inputs: u, (T, B, C_in); for LIF networks their input spikes; for HybridSystems also u(t) or None.
        loss: a scalar function of the solution.
        against: judges, any of "bptt", "finite_difference" and, for HybridSystems, "forward"; for LIF networks "plain"
            and "finite_difference". None: "bptt" or "plain", and "finite_difference" unless the method is torchdiffeq's.
        entries: entries probed by central differences in each tensor: the largest gradient and random others.
        seed: of the choice of entries.
        verbose: print the table.
        solve_kwargs: passed on to `solve`: dt, method, adjoint, y0; ts, rtol, atol, substeps for HybridSystems;
            t_end, ts, currents, dt, kernels for LIF networks.

    Raises:
        ConfigurationError: unknown judge, one that does not fit the system or method, or a loss that is not a scalar.
        GradientCheckError: a relative difference above 1e-10 (BPTT), 1e-9 (forward, plain) or 1e-6 (central differences), or
            a tensor of which central differences could judge no entry.
    """
    entries, seed = count("entries", entries), count("seed", seed, 0)
    against = _judges(system, against, solve_kwargs.get("method"))
    probe = _probe(system, inputs, loss, solve_kwargs)
    adjoint = solve_kwargs.get("adjoint")
    value, spikes, gradients = probe.gradients(adjoint)
    own, judged = probe.on_the_same_states(adjoint) if "bptt" in against else (None, None)
    carried = probe.by_forward_sensitivities() if "forward" in against else None
    other = probe.by_the_other_engine() if "plain" in against else None
    generator = torch.Generator().manual_seed(seed)
    floor = NEGLIGIBLE * max(float(gradient.norm()) for gradient in gradients.values())
    rows = []
    for name, gradient in gradients.items():
        bptt = None if own is None or judged is None else relative(own[name], judged[name], floor)
        forward = None if carried is None else relative(gradient, carried[name], floor)
        plain = None if other is None else relative(gradient, other[name], floor)
        difference: float | None = None
        probed, skipped = 0, 0
        if "finite_difference" in against:
            difference, probed, skipped = probe.finite_difference(name, gradient, entries, generator, floor)
        size = float(gradient.norm())
        rows.append(GradcheckRow(name, tuple(gradient.shape), size, bptt, difference, probed, skipped, forward, plain))
    failures = tuple(failure for row in rows for failure in row.failures())
    report = GradcheckReport(tuple(rows), value, spikes, failures)
    if verbose:
        print(report)
    if failures:
        raise GradientCheckError(
            "; ".join(failures),
            "agreement of the adjoint with its judges",
            "a shorter or less chaotic trial, to tell an ill-conditioned network from a wrong derivative",
        )
    return report


def _judges(system: object, against: Sequence[str] | None, method: object) -> Sequence[str]:
    """The judges to ask, checked."""
    smooth, lif = isinstance(system, HybridSystem), isinstance(system, LIFNetwork)
    # What is in no tableau is torchdiffeq's, or refused by solve.
    foreign = smooth and method is not None and method not in TABLEAUS
    if against is None:
        own = "plain" if lif else "bptt"
        return (own,) if foreign else (own, "finite_difference")
    if unknown := [judge for judge in against if judge not in JUDGES]:
        raise ConfigurationError(f"against={unknown}", f"judges among {list(JUDGES)}", 'against=("finite_difference",)')
    if lif and (unfit := [judge for judge in against if judge in ("bptt", "forward")]):
        raise ConfigurationError(
            f"against={unfit} for a LIF network", '"plain" and "finite_difference"', 'against=("plain", "finite_difference")'
        )
    if "plain" in against and not lif:
        raise ConfigurationError('against="plain"', "the other engine of LIF networks only", 'against=("bptt",)')
    if "forward" in against and not smooth:
        raise ConfigurationError(
            'against="forward" for a gated network', "forward sensitivities for HybridSystems only", 'against=("bptt",)'
        )
    if "finite_difference" in against and foreign:
        raise ConfigurationError(
            f'against="finite_difference" with method={method!r}',
            "a method whose steps are known, so that perturbed solutions can take the same ones",
            'method="dopri5", or against=("bptt",)',
        )
    return against


def _probe(system: object, inputs: Any, loss: Loss, solve_kwargs: dict[str, Any]) -> "Probe":
    if isinstance(system, HybridSystem):
        from adjsnn.gradcheck.hybrid import HybridProbe  # noqa: PLC0415  what one kind of system needs

        return HybridProbe(system, inputs, loss, solve_kwargs)
    if isinstance(system, LIFNetwork):
        if not isinstance(inputs, (SpikeTrains, Tensor)):
            raise ConfigurationError(
                f"inputs of type {type(inputs).__name__}", "adjsnn.SpikeTrains", "SpikeTrains.from_list or from_dense"
            )
        from adjsnn.gradcheck.lif import LIFProbe  # noqa: PLC0415

        return LIFProbe(system, inputs, loss, solve_kwargs)
    if not isinstance(system, GatedSynapseNetwork):
        raise ConfigurationError(
            f"a system of type {type(system).__name__}",
            "a GatedSynapseNetwork, a LIFNetwork or a HybridSystem",
            "building or subclassing one",
        )
    if not isinstance(inputs, Tensor):
        raise ConfigurationError(f"inputs of type {type(inputs).__name__}", "a tensor (T, B, C_in)", "torch.as_tensor(inputs)")
    from adjsnn.gradcheck.gated import GatedProbe  # noqa: PLC0415

    return GatedProbe(system, inputs, loss, solve_kwargs)
