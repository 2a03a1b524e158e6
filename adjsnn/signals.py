"""Input signals: random sums of sinusoids, low-pass targets, and recordings from files."""

from collections.abc import Callable
from math import pi
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from adjsnn.checks import Count, Number, count, positive, steps_in
from adjsnn.errors import ConfigurationError

BASE_PERIOD = 1200.0  # ms
HARMONICS = 17
MEAN_NORM = 0.467  # mean of ‖u(t)‖ over time


class Stream:
    """An input too long for memory: read piece by piece, as often as a solve with checkpoints needs it.

    Args:
        source: an array (T, B, C), for example `np.load(path, mmap_mode="r")`; or a function source(start, stop) that returns
            u of the steps start … stop-1, a tensor or array (stop - start, B, C), the same whenever it is asked.
        steps: T, where the source is a function.

    Raises:
        ConfigurationError: a source that is neither, a shape that is not (T, B, C), or steps missing.
    """

    def __init__(self, source: Callable[[int, int], Tensor | np.ndarray] | np.ndarray, steps: Count | None = None) -> None:
        if isinstance(source, np.ndarray):
            if source.ndim != 3 or (steps is not None and count("steps", steps) != len(source)):
                raise ConfigurationError(f"an array of shape {source.shape}, steps={steps}", "(T, B, C)", "Stream(array)")
            self.steps = len(source)
        elif callable(source):
            self.steps = count("steps", steps, 1, "the number of steps of a function", "Stream(source, steps=100_000)")
        else:
            raise ConfigurationError(f"a source of type {type(source).__name__}", "an array or a function", "Stream(array)")
        self._source = source
        self.batch, self.channels = (int(n) for n in self._piece(0, 1).shape[1:])

    def read(self, start: int, stop: int, like: Tensor) -> Float[Tensor, "T B C"]:
        """u of steps start … stop-1, with the dtype and device of `like`.

        Raises:
            ConfigurationError: another shape than the first piece, or entries that are not finite.
        """
        piece = self._piece(start, stop)
        if piece.shape != (stop - start, self.batch, self.channels):
            raise ConfigurationError(
                f"a piece of shape {tuple(piece.shape)} for steps {start} to {stop}",
                f"({stop - start}, {self.batch}, {self.channels})",
                "a source that returns u[start:stop]",
            )
        # A copy: files are mapped read-only, and a function may use its memory again.
        u = piece.to(like, copy=True) if isinstance(piece, Tensor) else torch.from_numpy(np.array(piece)).to(like)
        # On the CPU by numpy, in this thread: torch's idle ones would spin on their cores.
        if not (np.isfinite(u.numpy()).all() if u.device.type == "cpu" else bool(u.isfinite().all())):
            step = start + int((~u.isfinite()).nonzero()[0][0])
            raise ConfigurationError(f"an input that is not finite in step {step}", "finite inputs", "interpolating the gap")
        return u

    def _piece(self, start: int, stop: int) -> np.ndarray | Tensor:
        piece = self._source[start:stop] if isinstance(self._source, np.ndarray) else self._source(start, stop)
        piece = piece.detach() if isinstance(piece, Tensor) else np.asarray(piece)
        if piece.ndim != 3:
            raise ConfigurationError(f"a piece of shape {piece.shape}", "(steps, B, C)", "a source that returns u[start:stop]")
        return piece


def random_sinusoids(
    steps: Count,
    batch: Count,
    channels: Count,
    dt: Number,
    *,
    base_period: Number = BASE_PERIOD,
    harmonics: Count = HARMONICS,
    mean_norm: Number = MEAN_NORM,
    generator: torch.Generator | None = None,
    dtype: torch.dtype | None = None,
) -> Float[Tensor, "T B C"]:
    """Random periodic signals u_c(t) = s Σ_k α_kc sin(2πkt/P) + β_kc cos(2πkt/P), k = 1 … harmonics, α and β standard normal.

    Args:
        steps: T.
        batch: B.
        channels: C.
        dt: step, ms.
        base_period: P, ms.
        harmonics: number of harmonics of the base frequency.
        mean_norm: mean over one period of ‖u(t)‖ across channels; s is set to reach it for each sample.
        generator: source of randomness; default torch's global one.
        dtype: default torch's default.

    Raises:
        ConfigurationError: a size, step, period or norm that is not positive.
    """
    steps, batch, channels = count("steps", steps), count("batch", batch), count("channels", channels)
    dt, base_period, harmonics = positive("dt", dt), positive("base_period", base_period), count("harmonics", harmonics)
    mean_norm = positive("mean_norm", mean_norm, "a positive number")
    order = torch.arange(1, harmonics + 1, dtype=torch.float64)
    weights = torch.randn(2, harmonics, batch * channels, generator=generator, dtype=torch.float64)

    def evaluate(times: Tensor) -> Tensor:
        phase = 2 * pi / base_period * times[:, None] * order
        return (phase.sin() @ weights[0] + phase.cos() @ weights[1]).view(-1, batch, channels)

    period = torch.arange(8 * harmonics, dtype=torch.float64) * (base_period / (8 * harmonics))
    norm = evaluate(period).norm(dim=2).mean(0)
    u = evaluate(torch.arange(steps, dtype=torch.float64) * dt) * (mean_norm / norm)[:, None]
    return u.to(torch.get_default_dtype() if dtype is None else dtype)


def lowpass(u: Float[Tensor, "T B C"], dt: Number, tau: Number) -> Float[Tensor, "T1 B C"]:
    """o_d of τ ȯ_d = -o_d + u, o_d(0) = 0, by Euler steps like those of the network: o_d ← o_d + (dt/τ)(u - o_d).

    Args:
        u: signal held constant over each step, (T, B, C).
        dt: step, ms.
        tau: τ, ms, longer than dt.

    Returns:
        o_d at the T+1 times.
    """
    dt, tau = positive("dt", dt), positive("tau", tau)
    if not dt < tau:
        raise ConfigurationError(f"dt={dt!r} with tau={tau!r}", "0 < dt < tau, in ms", "a shorter step")
    from scipy.signal import lfilter  # noqa: PLC0415 - it takes as long to load as half of torch

    share = dt / tau
    filtered = lfilter([share], [1.0, share - 1.0], u.detach().cpu().double().numpy(), axis=0)
    start = np.zeros_like(filtered[:1])
    return torch.as_tensor(np.concatenate([start, filtered])).to(u)


def load_signal(path: str | Path, signal_dt: Number, dt: Number, *, mean_norm: Number = MEAN_NORM) -> Float[Tensor, "T C"]:
    """A recording from a .npy or .csv file, resampled to `dt` and scaled.

    Between samples the signal is taken as linear; each value returned is its mean over one step of length dt. Every channel
    is centred, then all are scaled together so that the mean of ‖u(t)‖ is `mean_norm`.

    Args:
        path: .npy of shape (T,) or (T, C), or .csv with one row per time and one column per channel (one header line allowed).
        signal_dt: time between the file's samples, ms.
        dt: step of the result, ms.
        mean_norm: mean of ‖u(t)‖ after scaling.

    Raises:
        ConfigurationError: unreadable file, wrong shape, fewer than two samples, NaN, or a constant signal.
    """
    signal_dt, dt = positive("signal_dt", signal_dt), positive("dt", dt)
    mean_norm = positive("mean_norm", mean_norm, "a positive number")
    values = read_columns(path)
    if (values == values[0]).all():  # here already: resampling leaves a rounding error, which scaling would blow up
        raise ConfigurationError(f"{path}: a constant signal", "a signal that varies", "another column or file")
    times = np.arange(len(values)) * signal_dt
    steps, _ = steps_in(float(times[-1]), dt)
    if steps < 1:
        raise ConfigurationError(f"{path}: {times[-1]:g} ms long", f"at least one step of {dt:g} ms", "a larger signal_dt")
    # The mean over a step is the difference of the integral, which is quadratic between samples.
    integral = np.concatenate([np.zeros((1, values.shape[1])), np.cumsum((values[1:] + values[:-1]) / 2 * signal_dt, axis=0)])
    edges = np.arange(steps + 1) * dt
    index = np.minimum((edges / signal_dt).astype(int), len(values) - 2)
    rest = (edges - times[index])[:, None]
    slope = (values[index + 1] - values[index]) / signal_dt
    resampled = np.diff(integral[index] + rest * values[index] + rest**2 / 2 * slope, axis=0) / dt
    resampled -= resampled.mean(0)
    norm = np.linalg.norm(resampled, axis=1).mean()
    if norm == 0.0:
        raise ConfigurationError(f"{path}: a constant signal", "a signal that varies", "another column or file")
    return torch.as_tensor(resampled * (mean_norm / norm)).to(torch.get_default_dtype())


def read_columns(path: str | Path) -> np.ndarray:
    """Numbers of a .npy or .csv file, as they are: one row per time, (T, C), float64.

    Args:
        path: .npy of shape (T,) or (T, C), or .csv with one row per time and one column per channel (one header line allowed).

    Raises:
        ConfigurationError: unreadable file, wrong shape, fewer than two rows, or NaN.
    """
    path = Path(path)
    try:
        if path.suffix == ".npy":
            values = np.load(path, allow_pickle=False)
        elif path.suffix == ".csv":
            lines = path.read_text().splitlines()
            if not lines:
                raise ValueError("it is empty")
            header = any(c.isalpha() for c in lines[0].replace("nan", "").replace("e", ""))
            values = np.loadtxt(lines[int(header) :], delimiter=",", ndmin=2)
        else:
            raise ConfigurationError(f"{path}: suffix {path.suffix!r}", "a .npy or .csv file", "converting the recording")
        values = np.asarray(values, dtype=np.float64)
    except (OSError, ValueError, TypeError) as error:
        if isinstance(error, ConfigurationError):
            raise
        raise ConfigurationError(
            f"{path} cannot be read: {error}", "a readable file of numbers", "checking path and format"
        ) from error
    values = values[:, None] if values.ndim == 1 else values
    if values.ndim != 2 or len(values) < 2:
        raise ConfigurationError(f"{path}: shape {values.shape}", "(T,) or (T, C) with T ≥ 2", "one row per time")
    if not np.isfinite(values).all():
        row, column = np.argwhere(~np.isfinite(values))[0]
        raise ConfigurationError(
            f"{path}: {values[row, column]} in row {row}, column {column}",
            "finite numbers",
            "interpolating or cutting the gap",
        )
    return values
