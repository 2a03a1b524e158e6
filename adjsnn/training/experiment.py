"""What an experiment is: a configuration, a network, batches, a cost and an evaluation. Everything else is written once."""

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Generic, Literal, NamedTuple, Self, TypedDict, TypeVar

import torch
from torch import Tensor, nn

from adjsnn.training.batches import moved
from adjsnn.training.optimiser import SizedAdam, scaled_norm
from adjsnn.training.ranges import Count, NotNegative, Positive, Range, Seed, Threads
from adjsnn.training.rules import BY_NAME, Adjoint, Known, adjoint_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Split = Literal["validation", "held_out"]
Metrics = dict[str, list[float]]


@dataclass(frozen=True)
class TrainingConfig:
    """What every training has. An experiment's configuration derives from it and may give other defaults.

    Each field becomes a command-line flag; a string under a field is its help. An annotation such as `Positive` or `Count` of
    `adjsnn.training.ranges` refuses other numbers before a run has a folder.
    """

    seed: Seed = 0
    iterations: Count = 200
    """steps of the optimiser"""
    batch: Count = 32
    learning_rate: Positive = 0.01
    """of Adam with betas 0.9 and 0.99; how it changes is the experiment's schedule"""
    clip: NotNegative = 1.0
    """largest norm of the gradient; 0: any"""
    averaging: Annotated[float, Range(0.0, 1.0, below=True)] = 0.0
    """if not 0, the network judged and kept is the exponential average of the weights over about 1 / (1 - this) steps"""
    log_every: Count = 10
    """steps between evaluations on the validation set, each a row of metrics.csv"""
    save_every: Count = 50
    """steps between checkpoints"""
    adjoint: Adjoint = "default"
    """method of the gradient, or a learning rule; default: discrete for gated networks, event for LIF networks with jumps"""
    clock: Positive = 0.5
    """step of learning rules that solve on a clock, ms"""
    slope: Positive = 10.0
    """of their surrogate, a fast sigmoid, 1/voltage"""
    angles: tuple[str, ...] = ()
    """learning rules whose angle to the exact gradient is measured at each evaluation; surrogate@100 is one of that slope"""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto: cuda where there is one"""
    dtype: Literal["float32", "float64"] = "float32"
    threads: Threads = 1
    """threads of the compiled loops; of torch's own operations where no compiled loop covers the network"""
    tensorboard: bool = False
    """write TensorBoard events beside metrics.csv"""
    runs: Path = Path("runs")
    """where run folders are made"""
    resume: Path | None = None
    """a run folder to go on with from its last checkpoint; no other flag is needed or allowed"""
    finish: Path | None = None
    """a run folder whose best network so far is judged and reported as it is, without further steps; likewise"""

    def settled(self) -> Self:
        """The configuration that is meant: for flags that stand for several others, over which those given by hand count.

        Default: itself.
        """
        return self


class Clock(TypedDict, total=False):
    """The step of a clock, ms, where there is one."""

    dt: float


class Cost(NamedTuple):
    """The cost of one batch, and the solution it was taken from."""

    value: Tensor
    sol: Any


class Column(NamedTuple):
    """How a number of a summary is shown in tables."""

    label: str
    format: str


class Curve(NamedTuple):
    """How a number of a trained network depends on a condition.

    Attributes:
        x_label: name of the abscissa, with its unit.
        y_label: name of the ordinate, with its unit.
        x: the condition.
        y: the number.
        shaded: a range of x to shade, such as the trained one.
        shaded_label: its name.
        marked: a height to mark, such as chance.
    """

    x_label: str
    y_label: str
    x: Sequence[float]
    y: Sequence[float]
    shaded: tuple[float, float] | None = None
    shaded_label: str = "trained"
    marked: float | None = None
    marked_label: str = "chance"


C = TypeVar("C", bound=TrainingConfig)


class Experiment(ABC, Generic[C]):
    """A task for a spiking network. `adjsnn.training.main(MyExperiment)` makes a command of it.

    A subclass must give `config_type`, `network`, `batch`, `cost` and `evaluate`; the rest has defaults.

    Attributes:
        config_type: its configuration, a frozen dataclass derived from TrainingConfig.
        columns: numbers of `evaluate("held_out")`, `summary` and `seconds` that tables show, in order; default all.
        captions: a sentence for each of its `figures` and `curves` in the report, by their names.
        adjoints: adjoints and learning rules by the names that its configuration has for them; one that needs a cost of its own
            is an entry of a subclass.
        config: the configuration.
        device: where the networks run, from the configuration.
        dtype: in what they run, from the configuration.
    """

    config_type: ClassVar[type[TrainingConfig]] = TrainingConfig
    columns: ClassVar[Mapping[str, Column]] = {}
    captions: ClassVar[Mapping[str, str]] = {}
    adjoints: ClassVar[Known] = BY_NAME

    def __init__(self, config: C) -> None:
        self.config = config
        self.dtype = getattr(torch, config.dtype)
        cuda = config.device == "cuda" or (config.device == "auto" and torch.cuda.is_available())
        self.device = torch.device("cuda" if cuda else "cpu")

    @classmethod
    def name(cls) -> str:
        """Name of its folder of runs: the class's name in snake case."""
        return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", cls.__name__).lower()

    @property
    def title(self) -> str:
        """Heading of its tables and reports."""
        return self.name().replace("_", " ").capitalize()

    @abstractmethod
    def network(self) -> nn.Module:
        """A new network at its random start, which depends on `config.seed` alone. It is moved to device and dtype."""

    @abstractmethod
    def batch(self, generator: torch.Generator, step: int) -> Any:
        """Training trials of a step, 0 to `config.iterations` - 1.

        All randomness comes from `generator`, or is seeded by `step`, so that a resumed run draws the same.

        Trials are tensors, SpikeTrains, and tuples of them; they are moved to device and dtype. Of a tensor with three
        dimensions or more the second counts samples (time first), of others the first; see `adjsnn.training.batches`.
        """

    @abstractmethod
    def cost(self, net: Any, batch: Any) -> Cost:
        """The cost of a batch: a mean over its samples, or a function of `batch_mean`s, so that processes can share a batch."""

    @abstractmethod
    def evaluate(self, net: Any, split: Split) -> dict[str, float]:
        """Numbers on trials that are never trained on; the same names and trials at every call."""

    def objective(self, found: dict[str, float]) -> float:
        """Of `evaluate("validation")`: the network with the lowest is kept. Default: its `cost`."""
        return found["cost"]

    def sizes(self, net: Any) -> dict[str, float | Tensor]:
        """Typical sizes of parameters by their names, 1 where none is given: steps and gradient norms are in these units."""
        return {}

    def _sized(self, net: Any) -> dict[nn.Parameter, float | Tensor]:
        given = self.sizes(net)
        return {p: given.get(name, 1.0) for name, p in net.named_parameters() if p.requires_grad}

    def optimiser(self, net: Any) -> torch.optim.Optimizer:
        """Default: Adam on every parameter that learns, in units of its size."""
        return SizedAdam(self._sized(net), lr=self.config.learning_rate, betas=(0.9, 0.99))

    def schedule(self, progress: float) -> float:
        """Factor of the learning rates at a progress from 0 to 1. Default: a half cosine down to 1 %."""
        return 0.01 + 0.99 * 0.5 * (1.0 + math.cos(math.pi * progress))

    def limit_gradient(self, net: Any) -> float:
        """Scale the gradient if it is too large; returns its norm before. Default: to `config.clip`, in units of sizes."""
        sized = self._sized(net)
        norm = scaled_norm(sized)
        if self.config.clip and norm > self.config.clip:
            for p in sized:
                if p.grad is not None:
                    p.grad.mul_(self.config.clip / norm)
        return norm

    def after_step(self, net: Any, batch: Any, cost: Cost, rate: float) -> None:
        """What is done to the network after a step of the optimiser whose learning rate was `rate`. Default: nothing."""

    def after_overflow(self, net: Any) -> None:
        """What is done to the network where the gradient overflowed, and no step was taken. Default: nothing."""

    def state(self) -> dict[str, Any]:
        """What the experiment itself has come to know in training, for checkpoints. Default: nothing."""
        return {}

    def load_state(self, state: dict[str, Any]) -> None:
        """Go back to a `state`."""

    def summary(self, metrics: Metrics) -> dict[str, float]:
        """Further numbers of a finished training, from the columns of its metrics.csv. Default: none."""
        return {}

    def curves(self, net: Any) -> dict[str, Curve]:
        """Curves of the kept network, by name: each a figure, a part of summary.json and of pages of results. Default: none."""
        return {}

    def figures(self, net: Any) -> "dict[str, Figure]":
        """Figures of the kept network, by name. Default: none."""
        return {}

    def adjoint(self) -> Any:
        """The adjoint that the configuration names, for `adjsnn.solve(..., adjoint=...)`; None: the solver's own choice."""
        return adjoint_of(self.config.adjoint, self.config.slope, self.config.seed, self.adjoints)

    def clock(self) -> Clock:
        """What `adjsnn.solve` needs beside it: the step `dt` where the adjoint is a rule on a clock, else nothing."""
        return {"dt": self.config.clock} if getattr(self.adjoint(), "clocked", False) else {}

    @property
    def in_charge_form(self) -> bool:
        """Whether gated networks are solved in the charge form, which the continuous adjoint needs."""
        return self.config.adjoint == "continuous"

    def place(self, batch: Any) -> Any:
        """A batch on the experiment's device, floating-point tensors in its dtype."""
        return moved(batch, self.device, self.dtype)

    def generator(self, offset: int = 0) -> torch.Generator:
        """A source of randomness seeded by `config.seed` + `offset`."""
        return torch.Generator().manual_seed(self.config.seed + offset)
