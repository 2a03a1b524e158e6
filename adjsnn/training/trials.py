"""Trials cut from signals without end, or from a recording of the user's, with parts held out."""

from pathlib import Path

import torch
from torch import Tensor

from adjsnn.errors import ConfigurationError
from adjsnn.signals import load_signal, random_sinusoids
from adjsnn.training.experiment import Split

OFFSETS: dict[Split, int] = {"validation": 1_000_000, "held_out": 2_000_000}  # added to the seed


class SignalTrials:
    """Trials of several channels: random sums of sinusoids, or windows of a recording.

    Of a recording, training windows come from the first 70 %, validation trials from the next 15 %, held-out trials from the
    last 15 %. Random signals are drawn anew for every batch, and held-out ones from other seeds.

    Args:
        seed: of the validation and held-out signals.
        channels: number of channels, where there is no recording.
        dt: step, ms.
        window: length of training trials, ms.
        held_out_window: length of validation and held-out trials, ms.
        signal: .npy or .csv recording, one row per time; None for random signals.
        signal_dt: time between the recording's samples, ms.
        held_out: largest number of validation and of held-out trials.

    Attributes:
        channels: number of channels.
        fixed: "validation" and "held_out" trials, (T, B, C).

    Raises:
        ConfigurationError: a recording that cannot be read, or is too short for one trial in each part.
    """

    def __init__(
        self,
        seed: int,
        channels: int,
        dt: float,
        window: float,
        held_out_window: float,
        *,
        signal: Path | None = None,
        signal_dt: float = 1.0,
        held_out: int = 16,
    ) -> None:
        if not min(window, held_out_window) >= dt > 0.0:
            raise ConfigurationError(
                f"window={window}, held_out_window={held_out_window} with dt={dt}", "one step or more in each", "--window 100"
            )
        self._dt, self._window = dt, window
        self._recording: Tensor | None = None
        self.channels = channels
        self.fixed: dict[Split, Tensor] = {}
        if signal is None:
            for split, offset in OFFSETS.items():
                self.fixed[split] = self._random(held_out_window, held_out, torch.Generator().manual_seed(seed + offset))
            return
        recording = load_signal(signal, signal_dt, dt)
        self.channels = recording.shape[1]
        cut, end = int(0.7 * len(recording)), int(0.85 * len(recording))
        self._recording = recording[:cut]
        steps = round(held_out_window / dt)
        parts: dict[Split, Tensor] = {"validation": recording[cut:end], "held_out": recording[end:]}
        for split, part in parts.items():
            if len(part) < steps:
                raise ConfigurationError(
                    f"{signal}: {len(part) * dt:g} ms in each held-out part of the recording",
                    f"at least one held-out trial of {held_out_window:g} ms, so about {held_out_window / 0.15:g} ms in all",
                    "a longer recording or a smaller --held-out-window",
                )
            self.fixed[split] = torch.stack(part[: len(part) // steps * steps].split(steps)[:held_out], dim=1)

    def training(self, batch: int, generator: torch.Generator) -> Tensor:
        """New training trials, (T, B, C)."""
        if self._recording is None:
            return self._random(self._window, batch, generator)
        steps = min(round(self._window / self._dt), len(self._recording))
        starts = torch.randint(len(self._recording) - steps + 1, (batch,), generator=generator)
        return torch.stack([self._recording[s : s + steps] for s in starts.tolist()], dim=1)

    def _random(self, duration: float, batch: int, generator: torch.Generator) -> Tensor:
        return random_sinusoids(round(duration / self._dt), batch, self.channels, self._dt, generator=generator)
