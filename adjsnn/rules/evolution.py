"""Evolution of a network's parameters by CMA-ES: costs alone, no gradient, equation (5.12)."""

from collections.abc import Callable, Mapping, Sequence
from copy import copy
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector

from adjsnn.checks import Count, Number, count, flag, number, positive
from adjsnn.errors import ConfigurationError, MissingPackageError
from adjsnn.lif.network import LIFNetwork
from adjsnn.rules.stated import REWARD, Stated
from adjsnn.shapes import refuse_meta

Keep = Literal["best", "mean"]
KEEP = ("best", "mean")
FULL = 500  # parameters, beyond which a covariance matrix takes longer than most costs
STATE = ("cma", "seed", "sigma", "population", "diagonal", "start", "scale", "costs", "mean")


class Evolution:
    """CMA-ES over all parameters of a network that learn (5.12): networks are drawn, ranked by a cost, and drawn anew:

        evolution = Evolution(net, sigma=0.2, seed=0)
        for _ in range(100):
            evolution.step(lambda net: losses.first_spike_cross_entropy(adjsnn.solve(net, x), labels))

    The strategy is that of the package `cma` (Hansen 2006), with random numbers of its own: neither numpy's nor torch's global
    generator is read or moved. After each generation the network holds the best parameters so far, or the mean.

    Args:
        net: any module; its parameters that require a gradient evolve. It is written to, projected onto what a solve accepts.
        sigma: standard deviation of the first networks, in units of the root mean square of each parameter, of its tensor as
            it is now; of 1 where that is 0.
        population: networks of a generation, at least 4; default 4 + 3 log P of P parameters.
        seed: of the random numbers.
        diagonal: whether the covariance is kept diagonal, for memory and time of P instead of P²; default for more than 500.
        keep: what the network holds after a generation, "best" of all that were tried, or "mean" of the distribution, which
            is the better one of a noisy cost.
        project: called with the network after every change, to move parameters to values that a solve accepts; default
            `net.project_()` of a LIFNetwork, and for others nothing, since a gated network's bound depends on dt:
            `lambda net: net.project_(tau_min=1.0)`. A network is judged by its projection.

    Attributes:
        net: the network.
        generation: how many were told.
        best_cost: lowest cost so far; inf before the first.
        sigma: σ of the distribution now, in the same units.

    Raises:
        ConfigurationError: fewer than two parameters that learn, or values that cannot be right.
        MissingPackageError: cma is not installed.
    """

    stated: ClassVar[Stated] = Stated(
        "every gradient: networks drawn at random are ranked (5.12)",
        (REWARD,),
        "a covariance of all W weights, W², or W if diagonal",
        "a generation of 4 + 3 log W costs, and there are many",
    )

    def __init__(
        self,
        net: nn.Module,
        sigma: Number = 0.1,
        population: Count | None = None,
        *,
        seed: Count = 0,
        diagonal: bool | None = None,
        keep: Keep = "best",
        project: Callable[[Any], Any] | None = None,
    ) -> None:
        if not isinstance(net, nn.Module):
            raise ConfigurationError(f"a network of type {type(net).__name__}", "a torch.nn.Module", "a LIFNetwork")
        if keep not in KEEP:
            raise ConfigurationError(f"keep={keep!r}", f"one of {list(KEEP)}", 'keep="best"')
        if project is not None and not callable(project):
            raise ConfigurationError(f"project of type {type(project).__name__}", "a function of the network", "None")
        self.net, self.keep = net, keep
        self._project = _project if project is None and isinstance(net, LIFNetwork) else project
        self._leaves = [p for p in net.parameters() if p.requires_grad]
        size = sum(p.numel() for p in self._leaves)
        if size < 2 or any(p.is_complex() for p in self._leaves):
            raise ConfigurationError(f"{size} parameters that learn", "two or more real ones", "learn=, or requires_grad_()")
        refuse_meta(net)
        start = self._vector()
        if not bool(start.isfinite().all()):
            raise ConfigurationError("parameters that are not finite", "finite ones to start from", "another start")
        spans = [p.detach().double().square().mean().sqrt() for p in self._leaves for _ in range(p.numel())]
        scale = torch.stack(spans).cpu()
        population = int(4 + 3 * np.log(size)) if population is None else count("population", population, 4)
        diagonal = size > FULL if diagonal is None else flag("diagonal", diagonal)
        sigma = positive("sigma", sigma, "a positive number", "sigma=0.1")
        self._begin(count("seed", seed, 0), sigma, population, diagonal, start, torch.where(scale > 0.0, scale, 1.0))

    @property
    def sigma(self) -> float:
        """σ of the distribution now."""
        return float(self._strategy.sigma)

    @property
    def generation(self) -> int:
        """How many generations were told."""
        return len(self._costs)

    def step(self, cost: Callable[[Any], Any]) -> float:
        """One generation.

        Args:
            cost: of the network, in which candidates stand one after the other: a finite number, or a tensor of one. It is
                called without a tape.

        Returns:
            the lowest cost of this generation.

        Raises:
            ConfigurationError: a cost that is no finite number. The network is then what it was, and the generation is not
                told: the next step draws it again.
        """
        before, costs = self._vector(), list[float]()
        try:
            with torch.no_grad():
                for x in self.ask():
                    self.write_(x)
                    costs.append(self._number(cost(self.net), len(costs)))
        except BaseException:
            self._put(before)
            raise
        self.tell(costs)
        return min(costs)

    def ask(self) -> Tensor:
        """The networks of this generation, their parameters in one row each, not projected, (population, P), float64.

        They are the same until `tell`.
        """
        asked = self._strategy.ask() if self._asked is None else self._asked
        self._asked = asked
        return self._parameters(np.stack(asked))

    def write_(self, x: Tensor | None = None) -> None:
        """Put parameters into the network, and project them.

        Args:
            x: (P,), such as a row of `ask`; default what is kept, the best or the mean.

        Raises:
            ConfigurationError: another number of parameters.
        """
        row = self._kept() if x is None else x
        if not isinstance(row, Tensor) or row.shape != self._start.shape:
            seen = tuple(row.shape) if isinstance(row, Tensor) else type(row).__name__
            raise ConfigurationError(f"parameters {seen}", f"a tensor {tuple(self._start.shape)}", "a row of ask()")
        self._put(row)
        if self._project is not None:
            self._project(self.net)

    def tell(self, costs: Sequence[float] | Tensor) -> None:
        """Rank the networks of `ask`, and move the distribution; the network then holds what is kept.

        Args:
            costs: one finite number for each network of this generation.

        Raises:
            ConfigurationError: nothing was asked, or costs that are no finite numbers, one for each.
        """
        self._tell([self._number(x, k) for k, x in enumerate(costs)])
        self.write_()

    def state_dict(self) -> dict[str, Any]:
        """What `load_state_dict` goes on from: numbers, text and tensors only, that `torch.save` and `torch.load` take.

        The strategy itself is not stored, which would be code to load; it is a function of the seed and of all costs.
        """
        costs = torch.tensor(self._costs, dtype=torch.float64).view(self.generation, self._population)
        values = (_version(), self._seed, self._first_sigma, self._population, self._diagonal)
        tensors = (self._start.clone(), self._scale.clone(), costs, torch.from_numpy(self._strategy.mean.copy()))
        return dict(zip(STATE, (*values, *tensors), strict=True))

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state: all generations are drawn again and told the costs that they had, and nothing is evaluated.

        Args:
            state: of an Evolution of a network with as many parameters; its seed, sigma and population count.

        Raises:
            ConfigurationError: a state of another network or another version of cma, or one that gives other networks here,
                as rounding on another machine may.
        """
        if not isinstance(state, Mapping) or set(state) != set(STATE):
            raise ConfigurationError("a state that is none of an Evolution", f"the entries {list(STATE)}", "state_dict()")
        if state["cma"] != _version():
            raise ConfigurationError(
                f"a state of cma {state['cma']}", f"that of cma {_version()}, which draws the same", f"cma=={state['cma']}"
            )
        seed, population = count("seed", state["seed"], 0), count("population", state["population"], 4)
        sigma, diagonal = positive("sigma", state["sigma"]), flag("diagonal", state["diagonal"])
        tensors: list[Any] = [state[name] for name in STATE[5:]]
        size, rows = len(self._start), len(tensors[2]) if isinstance(tensors[2], Tensor) and tensors[2].dim() else 0
        for name, x, shape in zip(STATE[5:], tensors, [(size,), (size,), (rows, population), (size,)], strict=True):
            if not isinstance(x, Tensor) or x.shape != shape or not bool(x.isfinite().all()):
                raise ConfigurationError(f"{name} of another shape, or not finite", f"{shape}", "a state of the same network")
        start, scale, costs, mean = (x.cpu().double() for x in tensors)
        drawn = copy(self)
        drawn._begin(seed, sigma, population, diagonal, start.clone(), scale.clone())
        for row in costs.tolist():
            drawn.ask()
            drawn._tell(row)
        if not np.allclose(drawn._strategy.mean, mean.numpy(), rtol=1e-6, atol=1e-9):
            raise ConfigurationError("a state that gives other networks here", "the same", "the machine that it was made on")
        vars(self).update(vars(drawn))
        self.write_()

    def _begin(self, seed: int, sigma: float, population: int, diagonal: bool, start: Tensor, scale: Tensor) -> None:
        self._seed, self._first_sigma, self._population, self._diagonal = seed, sigma, population, diagonal
        self._start, self._scale = start, scale
        self._costs: list[list[float]] = []
        self._asked: list[np.ndarray] | None = None
        self.best_cost, self._best = float("inf"), start
        # Its own numbers: with the default `randn`, cma seeds numpy's global generator and draws from it. No files either.
        options = {"randn": _Normal(seed), "seed": np.nan, "popsize": population, "CMA_diagonal": diagonal}
        quiet = {"verbose": -10, "verb_disp": 0, "verb_log": 0}
        self._strategy = _cma().CMAEvolutionStrategy(np.zeros(len(start)), sigma, {**options, **quiet})

    def _tell(self, costs: list[float]) -> None:
        if self._asked is None:
            raise ConfigurationError("costs of no generation", "ask() first", "step(cost)")
        if len(costs) != len(self._asked):
            raise ConfigurationError(f"{len(costs)} costs", f"{len(self._asked)}, one for each network", "all rows of ask()")
        k = int(np.argmin(costs))
        if costs[k] < self.best_cost:
            self.best_cost, self._best = costs[k], self._parameters(self._asked[k])
        self._strategy.tell(self._asked, costs)
        self._costs.append(costs)
        self._asked = None

    def _kept(self) -> Tensor:
        return self._best if self.keep == "best" else self._parameters(self._strategy.mean)

    def _parameters(self, z: np.ndarray) -> Tensor:
        """Parameters of points of the strategy, whose coordinates are distances from the start in units of the scale."""
        return self._start + self._scale * torch.from_numpy(z)

    def _vector(self) -> Tensor:
        return parameters_to_vector([p.detach() for p in self._leaves]).cpu().double()

    @torch.no_grad()
    def _put(self, x: Tensor) -> None:
        for p, part in zip(self._leaves, x.split([p.numel() for p in self._leaves]), strict=True):
            p.copy_(part.view(p.shape))

    def _number(self, value: Any, k: int) -> float:
        name = f"the cost of network {k} of generation {self.generation}"
        value = value.detach() if isinstance(value, Tensor) else value
        return number(name, value, "a finite number", "a large number for a network that cannot be judged")


class _Normal:
    """Gaussian numbers, (population, P), from a generator of their own."""

    def __init__(self, seed: int) -> None:
        self._generator = np.random.default_rng(seed)

    def __call__(self, *shape: int) -> np.ndarray:
        return self._generator.standard_normal(shape)


def _project(net: Any) -> None:
    net.project_()


def _cma() -> Any:
    try:
        import cma  # noqa: PLC0415  takes two seconds
    except ImportError as error:
        raise MissingPackageError("cma", "rules") from error
    return cma


def _version() -> str:
    return str(_cma().__version__)
