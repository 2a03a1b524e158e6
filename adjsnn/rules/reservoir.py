"""A reservoir: a spiking network that never learns, and a linear readout found by ridge regression, equation (5.11)."""

from collections.abc import Sequence
from copy import deepcopy
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn

from adjsnn.checks import Number, finite, flag, positive, real, times
from adjsnn.errors import ConfigurationError, MissingPackageError
from adjsnn.gated.network import GatedSynapseNetwork
from adjsnn.lif.network import LIFNetwork
from adjsnn.rules.stated import Stated
from adjsnn.solve import solve
from adjsnn.spikes import SpikeTrains

Features = Literal["filtered", "counts", "first"]
FEATURES = ("filtered", "counts", "first")


class Reservoir:
    """A frozen network with a ridge readout, in closed form; nothing spiking learns (5.11). Maass 2002, Jaeger 2001.

    Features are those of the last layer. Penalty and errors are summed over times, samples and channels,
    Σ ‖o - o_d‖² + α ‖W‖², and solved by scikit-learn in float64.

    Args:
        net: a LIFNetwork or a GatedSynapseNetwork. It is copied: what it learns later changes nothing here.
        alpha: α, a positive number; or several, of which leave-one-out errors choose one. Filtered spikes are rates in 1/ms, of
            which the squares are small: an α that is small for counts may leave nothing of their readout.
        features: "filtered", spikes filtered as a readout does it (2.13), or a_s of a gated network (1.3), at the times `ts`
            of the solve; "counts", the number of spikes; "first", e^{-t/τ} of the first spike, 0 of a silent neuron.
        tau: time constant of the filter or of "first", ms; default the network's tau_out. A gated network filters by its own
            tau_slow; there it is that of "first" alone, 20 ms by default.
        intercept: whether a constant, without penalty, is added to the readout. Networks have none in theirs.
        solve_kwargs: options of `adjsnn.solve`: ts, t_end, dt, adjoint, …

    Attributes:
        net: the network that was given.
        coef: W, float64, (C, N); of labels (1 or classes, F). None before `fit`.
        constant: of each channel, float64, (C,); zeros without intercept. None before `fit`.
        chosen: the α that was used. None before `fit`.

    Raises:
        ConfigurationError: another kind of network or value; a w_out that is parametrized or pruned.
        MissingPackageError: scikit-learn is not installed.
    """

    stated: ClassVar[Stated] = Stated(
        "every gradient of what spikes; the readout is exact (5.11)",
        (),
        "the features, B T N, and N² of the readout",
        "a solve, then N² B T + N³, once",
    )

    def __init__(
        self,
        net: LIFNetwork | GatedSynapseNetwork,
        alpha: Number | Sequence[float] = 1e-3,
        features: Features = "filtered",
        tau: Number | None = None,
        *,
        intercept: bool = False,
        **solve_kwargs: Any,
    ) -> None:
        if not isinstance(net, LIFNetwork | GatedSynapseNetwork):
            raise ConfigurationError(
                f"a network of type {type(net).__name__}", "a LIFNetwork or a GatedSynapseNetwork", "one of these"
            )
        if features not in FEATURES:
            raise ConfigurationError(f"features={features!r}", f"one of {list(FEATURES)}", 'features="filtered"')
        gated = isinstance(net, GatedSynapseNetwork)
        if gated and features == "filtered" and tau is not None:
            raise ConfigurationError("tau for a gated network", "none: it filters by its tau_slow", "leaving it out")
        self.net, self.features = net, features
        self.tau = positive("tau", (20.0 if gated else net.tau_out) if tau is None else tau)
        self.alpha = _penalties(alpha)
        self.intercept = flag("intercept", intercept)
        self.solve_kwargs = solve_kwargs
        self.coef: Tensor | None = None
        self.constant: Tensor | None = None
        self.chosen: float | None = None
        self._model: Any = None
        self._labels = False
        self._frozen = self._with_identity(net)
        self._linear_models()  # tells of a missing package before anything is solved

    def fit(self, x: SpikeTrains | Tensor, target: Tensor) -> "Reservoir":
        """Find the readout.

        Args:
            x: inputs, as `adjsnn.solve` takes them.
            target: values of the readout at the times of the solution, (T, B, C), for "filtered", or (B, C) for one set of
                features a sample; or labels (B,), integers, where features of all times are one row of B.

        Returns:
            the same reservoir.

        Raises:
            ConfigurationError: targets of another shape, or that are not finite.
        """
        features = self._solved(x)
        rows, wanted, labels = self._rows(features, target)
        model = self._model_for(labels).fit(rows, wanted)
        self._model, self._labels = model, labels
        self.coef = torch.from_numpy(np.atleast_2d(model.coef_).astype(np.float64))
        self.constant = torch.zeros(len(self.coef), dtype=torch.float64) + torch.from_numpy(np.asarray(model.intercept_))
        self.chosen = float(getattr(model, "alpha_", model.alpha if hasattr(model, "alpha") else np.nan))
        return self

    def predict(self, x: SpikeTrains | Tensor) -> Tensor:
        """The readout, (T, B, C) or (B, C) in the network's dtype; or labels, (B,), whatever was fitted.

        Args:
            x: inputs, as in `fit`.

        Raises:
            ConfigurationError: before `fit`.
        """
        coef, constant = self._fitted()
        features = self._solved(x)
        if self._labels:
            return torch.from_numpy(self._model.predict(_per_sample(features))).to(features.device)
        return (features.double() @ coef.to(features.device).T + constant.to(features.device)).to(features.dtype)

    def score(self, x: SpikeTrains | Tensor, target: Tensor) -> float:
        """R², the mean over channels, or of labels the share that is right.

        Args:
            x: inputs, as in `fit`.
            target: as in `fit`.

        Raises:
            ConfigurationError: before `fit`, or targets of another kind than there.
        """
        self._fitted()
        rows, wanted, labels = self._rows(self._solved(x), target)
        if labels != self._labels:
            kinds = ("values of a readout", "labels")
            raise ConfigurationError(f"{kinds[labels]} for a reservoir fitted to {kinds[self._labels]}", "the same", "fit anew")
        return float(self._model.score(rows, wanted))

    def write_(self) -> LIFNetwork | GatedSynapseNetwork:
        """Put the readout into the network's w_out, so that `sol.readout` is what `predict` gives.

        Returns:
            the network.

        Raises:
            ConfigurationError: before `fit`; a readout that w_out cannot hold: of labels, of counts, with an intercept, of
                another number of channels or time constant; a network that has changed since it was frozen.
        """
        coef, _ = self._fitted()
        net = self.net
        if self._labels or self.features != "filtered":
            raise ConfigurationError("a readout of labels or counts", "one of filtered spikes over time", "predict(x)")
        if self.intercept:
            raise ConfigurationError("a readout with an intercept", "one without", "intercept=False")
        if net.w_out is None or tuple(net.w_out.shape) != tuple(coef.shape):
            seen = None if net.w_out is None else tuple(net.w_out.shape)
            raise ConfigurationError(
                f"w_out of shape {seen} for a readout {tuple(coef.shape)}", "the same shape", f"n_out={len(coef)}"
            )
        if isinstance(net, LIFNetwork) and net.tau_out != self.tau:
            raise ConfigurationError(f"tau_out={net.tau_out!r}, and a filter of {self.tau:g} ms", "the same", "tau=None")
        now = dict(net.named_parameters())
        frozen = {name: p for name, p in self._frozen.named_parameters() if name != "w_out"}
        if any(now[name].dtype != p.dtype for name, p in frozen.items()):
            raise ConfigurationError(
                f"a network of {net.w_out.dtype} frozen in another dtype", "the same", "net.to(dtype) before Reservoir(net)"
            )
        moved = [name for name, p in frozen.items() if not torch.equal(p, now[name])]
        if moved:
            raise ConfigurationError(
                f"a network whose {', '.join(moved)} changed since it was frozen", "the frozen one", "Reservoir(net).fit(...)"
            )
        with torch.no_grad():
            net.w_out.copy_(coef)
        return net

    def _with_identity(self, net: LIFNetwork | GatedSynapseNetwork) -> LIFNetwork | GatedSynapseNetwork:
        """A frozen copy whose readout is every neuron's filtered spikes, so that (2.13) and (1.3) stand in one place."""
        if net.w_out is not None and not isinstance(net.w_out, nn.Parameter):
            raise ConfigurationError("a w_out that is parametrized or pruned", "a plain parameter", "removing what computes it")
        frozen = deepcopy(net).requires_grad_(False)
        like = frozen.w_in[-1] if isinstance(frozen, LIFNetwork) else frozen.w_in
        frozen.w_out = nn.Parameter(torch.eye(len(like), dtype=like.dtype, device=like.device), requires_grad=False)
        frozen.n_out = len(like)
        if isinstance(frozen, LIFNetwork):
            frozen.tau_out = self.tau
        return frozen

    @torch.no_grad()
    def _solved(self, x: SpikeTrains | Tensor) -> Tensor:
        """Features, (T, B, N), or (B, N)."""
        sol: Any = solve(self._frozen, x, **self.solve_kwargs)  # pyright: ignore[reportArgumentType, reportCallIssue]
        if self.features == "filtered":
            return sol.readout
        like = self._frozen.w_out
        assert like is not None
        if self.features == "counts":
            return sol.layer_counts().to(like.dtype)
        trains: SpikeTrains = sol.layer_spikes[-1]
        sample, k = (trains.idx >= 0).nonzero(as_tuple=True)
        place = sample * trains.n_neurons + trains.idx[sample, k]
        first = like.new_full((trains.batch * trains.n_neurons,), float("inf"))
        first.scatter_reduce_(0, place, trains.time[sample, k].to(like.dtype), "amin")
        return torch.exp(-first / self.tau).view(trains.batch, trains.n_neurons)

    def _rows(self, features: Tensor, target: object) -> tuple[np.ndarray, np.ndarray, bool]:
        """Rows of features and what each shall give; whether these are labels."""
        remedy = "targets (T, B, C) at the times ts, or labels (B,)"
        given = real("target", target, remedy, "torch.as_tensor(target)").detach()
        batch = features.shape[-2]
        if not given.is_floating_point():
            if given.shape != (batch,):
                raise ConfigurationError(f"labels of shape {tuple(given.shape)}", f"({batch},)", remedy)
            if len(given.unique()) < 2:
                raise ConfigurationError("labels of one class", "two or more", "values, as floating-point numbers")
            return _per_sample(features), given.cpu().numpy(), True
        if given.dim() != features.dim() or given.shape[:-1] != features.shape[:-1] or not given.shape[-1]:
            shape = (*features.shape[:-1], "C")
            raise ConfigurationError(f"a target of shape {tuple(given.shape)}", f"({', '.join(map(str, shape))})", remedy)
        finite("target", given, "finite values", "checking where they come from")
        return _numpy(features.flatten(0, -2)), _numpy(given.flatten(0, -2)), False

    def _model_for(self, labels: bool) -> Any:
        """scikit-learn's, not fitted."""
        plain, chosen, classes, chosen_classes = self._linear_models()
        if len(self.alpha) == 1:
            return (classes if labels else plain)(self.alpha[0], fit_intercept=self.intercept)
        return (chosen_classes if labels else chosen)(self.alpha, fit_intercept=self.intercept)

    @staticmethod
    def _linear_models() -> tuple[Any, ...]:
        try:
            from sklearn.linear_model import Ridge, RidgeClassifier, RidgeClassifierCV, RidgeCV  # noqa: PLC0415  takes a second
        except ImportError as error:
            raise MissingPackageError("scikit-learn", "rules") from error
        return Ridge, RidgeCV, RidgeClassifier, RidgeClassifierCV

    def _fitted(self) -> tuple[Tensor, Tensor]:
        if self.coef is None or self.constant is None:
            raise ConfigurationError("a reservoir that was not fitted", "fit(x, target) first", "reservoir.fit(x, target)")
        return self.coef, self.constant


def _penalties(alpha: Any) -> tuple[float, ...]:
    """One α or several."""
    expected, remedy = "a positive number, or several", "alpha=0.001"
    if isinstance(alpha, Sequence) or (isinstance(alpha, Tensor | np.ndarray) and alpha.ndim == 1):
        several = times("alpha", alpha, expected, remedy).tolist()
        if not several:
            raise ConfigurationError("alpha of no numbers", expected, remedy)
        return tuple(positive("alpha", x, expected, remedy) for x in several)
    return (positive("alpha", alpha, expected, remedy),)


def _per_sample(features: Tensor) -> np.ndarray:
    """One row a sample: (B, N), or (B, T·N) of features at T times."""
    return _numpy(features if features.dim() == 2 else features.transpose(0, 1).flatten(1))


def _numpy(x: Tensor) -> np.ndarray:
    return x.cpu().double().numpy()
