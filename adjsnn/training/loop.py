"""The training loop, once for all experiments: step, judge, save, stop, go on to the bit."""

import math
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm import tqdm

from adjsnn.errors import ConfigurationError, IntegrationError, MissingPackageError
from adjsnn.numerics.threads import one_torch_thread
from adjsnn.training.angles import angles
from adjsnn.training.batches import share_of
from adjsnn.training.experiment import Cost, Experiment
from adjsnn.training.files import load_checkpoint
from adjsnn.training.processes import Processes
from adjsnn.training.runs import RunFolder
from adjsnn.training.stopping import Stop

MOST_SKIPPED = 10  # steps in a row


@dataclass
class Training:
    """A training between two steps: what a checkpoint holds.

    Attributes:
        net: the network that learns.
        average: its exponential average, if the configuration asks for one.
        generator: source of all training trials.
        done: steps done.
        seconds: time these steps took, without evaluations.
        best: lowest objective so far, whose network is in best.safetensors.
        skipped: steps in a row whose gradient overflowed.
        sums: sums since the last row of metrics.csv.
        start: what the network at its start was judged to be in a rehearsal, until it is written down.
    """

    experiment: Experiment[Any]
    net: nn.Module
    average: AveragedModel | None
    optimiser: torch.optim.Optimizer
    generator: torch.Generator
    done: int = 0
    seconds: float = 0.0
    best: float = math.inf
    skipped: int = 0
    sums: dict[str, float] = field(default_factory=dict)
    start: dict[str, float] | None = None

    @property
    def judged(self) -> nn.Module:
        """The network that is evaluated and kept."""
        return self.net if self.average is None else self.average.module

    @property
    def weights(self) -> dict[str, nn.Module]:
        return {"weights": self.net} if self.average is None else {"weights": self.net, "average": self.average}

    def state(self) -> dict[str, Any]:
        """Everything but the weights."""
        return {
            "done": self.done,
            "seconds": self.seconds,
            "best": self.best,
            "skipped": self.skipped,
            "sums": self.sums,
            "optimiser": self.optimiser.state_dict(),
            "generator": self.generator.get_state(),
            "torch_generator": torch.get_rng_state(),
            "experiment": self.experiment.state(),
        }

    def load(self, path: Path) -> None:
        """Go back to the last checkpoint of a run folder.

        Raises:
            ConfigurationError: no checkpoint, a damaged one, or one of another network.
        """
        try:
            state = load_checkpoint(path, self.weights)
            self.optimiser.load_state_dict(state["optimiser"])
            self.generator.set_state(state["generator"])
            self.experiment.load_state(state["experiment"])
            torch.set_rng_state(state["torch_generator"])
            self.done, self.seconds, self.best = state["done"], state["seconds"], state["best"]
            self.skipped, self.sums = state["skipped"], state["sums"]
        except (RuntimeError, KeyError, ValueError, TypeError) as error:
            if isinstance(error, ConfigurationError):
                raise
            raise ConfigurationError(
                f"the checkpoint of {path} does not fit: {error}", "one of the same network", "the version that made the run"
            ) from error


def new_training(experiment: Experiment[Any]) -> Training:
    """A training before its first step."""
    config = experiment.config
    torch.manual_seed(config.seed)
    net = experiment.network().to(experiment.device, experiment.dtype)
    average = AveragedModel(net, multi_avg_fn=get_ema_multi_avg_fn(config.averaging)) if config.averaging else None
    return Training(experiment, net, average, experiment.optimiser(net), experiment.generator())


def rehearse(experiment: Experiment[Any], training: Training, team: Processes) -> str:
    """Solve and differentiate the next batch once, and judge a start, without a trace in the training.

    Done before there is a folder: what a configuration cannot do is met here, by its own error. And compiled loops are ready
    when time is taken.

    Returns:
        which body of code solved it, as `sol.stats.kernel`; "plain" where the solution does not say.
    """
    state = torch.get_rng_state()
    buffers = {name: buffer.clone() for name, buffer in training.net.named_buffers()}
    generator = torch.Generator().manual_seed(0)
    generator.set_state(training.generator.get_state())
    batch = share_of(experiment.place(experiment.batch(generator, training.done)), team.rank, team.count)
    cost = experiment.cost(training.net, batch)
    cost.value.backward()
    training.optimiser.zero_grad()
    with torch.no_grad():
        for name, buffer in training.net.named_buffers():
            buffer.copy_(buffers[name])
        torch.set_rng_state(state)
        if team.first and training.done == 0:
            training.start = _evaluated(experiment, training)
    return getattr(getattr(cost.sol, "stats", None), "kernel", "plain")


def train(experiment: Experiment[Any], training: Training, run: RunFolder | None, team: Processes, stop: Stop) -> None:
    """Take the steps that are left; the first process writes metrics, the best network and checkpoints into `run`.

    Returns early, with a checkpoint of the last step, if a stop is asked for.

    A gradient that overflows, as those of chaotic stretches can, is not followed; `skipped_steps` in metrics.csv counts them.

    Raises:
        IntegrationError: the cost is not finite, or the gradient overflows several times in a row.
    """
    config = experiment.config
    team.same(training.net)
    rates = [group["lr"] for group in training.optimiser.param_groups]
    for group, rate in zip(training.optimiser.param_groups, rates, strict=True):
        group.setdefault("initial_lr", rate)  # the state of a resumed one has it, beside the rate of its last step
    writer = _Writer(experiment, run, training.done)
    if training.done == 0:
        _judge(experiment, training, run, writer, None, team)
        _save(training, run)
    elif run is not None and not run.has_best:
        run.tell(f"the best network of {run.path} is lost; that of step {training.done} is judged in its place")
        with torch.no_grad():
            training.best = experiment.objective(experiment.evaluate(training.judged, "validation"))
        run.save_best(training.judged)
    while training.done < config.iterations:
        started = time.perf_counter()
        cost, asked = _step(experiment, training, team, stop)
        training.seconds += time.perf_counter() - started
        last = training.done == config.iterations
        if training.done % config.log_every == 0 or last:
            _judge(experiment, training, run, writer, cost, team)
        if team.count == 1:
            asked = stop.signal  # of the time since the step's message, too, which others would not know of
        if training.done % config.save_every == 0 or last or asked:
            _save(training, run)
        if asked:
            stop.signal = asked
            break
        writer.tick()
    writer.close()
    team.wait()


def _step(experiment: Experiment[Any], training: Training, team: Processes, stop: Stop) -> tuple[Cost, int]:
    """One step of the optimiser: the cost of this process's samples, and the signal that a process was asked to stop by."""
    config, optimiser = experiment.config, training.optimiser
    factor = experiment.schedule(training.done / config.iterations)
    for group in optimiser.param_groups:
        group["lr"] = group["initial_lr"] * factor
    batch = share_of(experiment.place(experiment.batch(training.generator, training.done)), team.rank, team.count)
    optimiser.zero_grad()
    found = experiment.cost(training.net, batch)
    found.value.backward()
    cost, asked = team.mean(training.net, found.value, stop.signal)
    norm = experiment.limit_gradient(training.net)
    overflow = math.isfinite(cost) and not math.isfinite(norm)
    training.skipped = training.skipped + 1 if overflow else 0
    if not math.isfinite(cost) or training.skipped > MOST_SKIPPED:
        raise IntegrationError(
            f"cost {cost:g} with a gradient of norm {norm:g} in step {training.done + 1}",
            "finite numbers",
            "a shorter dt, weaker weights at the start, a smaller --learning-rate, or --dtype float64",
        )
    if overflow:
        with torch.no_grad():
            experiment.after_overflow(training.net)
    else:
        with one_torch_thread():
            optimiser.step()
        with torch.no_grad():
            experiment.after_step(training.net, batch, found, optimiser.param_groups[0]["lr"])
    if training.average is not None:
        training.average.update_parameters(training.net)
    training.done += 1
    added = {"steps": 1.0, "cost": cost, "skipped": float(overflow), "norm": 0.0 if overflow else norm}
    for name, number in added.items():
        training.sums[name] = training.sums.get(name, 0.0) + number
    return found, asked


def _judge(
    experiment: Experiment[Any],
    training: Training,
    run: RunFolder | None,
    writer: "_Writer",
    last: Cost | None,
    team: Processes,
) -> None:
    """Evaluate on the validation set, write a row, keep the network if it is the best; by the first process alone.

    The slowest spike is that of the last batch in all processes, as the network was when it was solved.
    """
    sums, training.sums = training.sums, {}
    speed = math.nan if last is None else team.least(slowest(last.sol))
    if run is None:
        return
    numbers, training.start = training.start, None
    if numbers is None:
        with torch.no_grad():
            numbers = _evaluated(experiment, training)
    steps = sums.get("steps", math.nan)
    row = {
        "iteration": training.done,
        "seconds": training.seconds,
        "train_cost": sums.get("cost", math.nan) / steps,
        "gradient_norm": sums.get("norm", math.nan) / (steps - sums.get("skipped", 0.0) or math.nan),
        "skipped_steps": sums.get("skipped", 0.0),
        "min_speed_at_spike": speed,
        **numbers,
    }
    objective = experiment.objective(numbers)
    if objective < training.best or training.done == 0:
        training.best = objective
        run.save_best(training.judged)
    run.log(row)
    writer.row(row)


def _evaluated(experiment: Experiment[Any], training: Training) -> dict[str, float]:
    """Numbers of the network that is kept, and angles of the one that learns."""
    return {**experiment.evaluate(training.judged, "validation"), **angles(experiment, training.net)}


def _save(training: Training, run: RunFolder | None) -> None:
    if run is not None:
        run.save_checkpoint(training.done, training.weights, training.state())


def slowest(sol: object) -> float:
    """Smallest |dv/dt| at a spike of a solution, 1/ms; nan where it has none to tell."""
    return float(getattr(getattr(sol, "stats", None), "min_speed_at_spike", math.nan))


class _Writer:
    """Rows to a progress line on a terminal, as lines elsewhere, to log.txt, and to TensorBoard if asked for."""

    def __init__(self, experiment: Experiment[Any], run: RunFolder | None, done: int) -> None:
        self._run, self._columns = run, experiment.columns
        self._board, self._bar = None, None
        if run is None:
            return
        if experiment.config.tensorboard:
            self._board = _board(run.path / "tensorboard", done)
        if sys.stderr.isatty():
            self._bar = tqdm(total=experiment.config.iterations, initial=done, unit="it", dynamic_ncols=True)
        self._iterations = experiment.config.iterations

    def row(self, row: dict[str, float]) -> None:
        assert self._run is not None
        own = {name.replace("_", " "): row[name] for name in row if name in self._columns or not self._columns}
        rest = {"|grad|": row["gradient_norm"], "min |dv/dt|": row["min_speed_at_spike"]}
        told = {"loss": row["train_cost"], **own, **rest}
        text = "  ".join(f"{name} {number:.3g}" for name, number in told.items() if not math.isnan(number))
        self._run.note(f"step {row['iteration']:.0f}  {text}")
        if self._bar is not None:
            self._bar.set_postfix_str(text)
        else:
            done = row["iteration"]
            left = f"  {row['seconds'] / done * (self._iterations - done):.0f} s left" if done else ""
            print(f"step {done:.0f} of {self._iterations}  {text}{left}", flush=True)
        if self._board is not None:
            for name, number in row.items():
                self._board.add_scalar(name, number, int(row["iteration"]))

    def tick(self) -> None:
        if self._bar is not None:
            self._bar.update()

    def close(self) -> None:
        for part in (self._bar, self._board):
            if part is not None:
                part.close()


def _board(path: Path, done: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415  optional
    except ImportError as error:
        raise MissingPackageError("tensorboard", "tensorboard") from error
    return SummaryWriter(str(path), purge_step=done)
