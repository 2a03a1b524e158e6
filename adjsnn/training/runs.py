"""Run folders: everything a training run leaves behind, written so that a run killed at any moment loses nothing saved."""

import csv
import dataclasses
import json
import os
import platform
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from torch import nn

import adjsnn
from adjsnn.errors import ConfigurationError


class RunFolder:
    """A folder `<root>/<experiment>/<utc>-s<seed>-<hash of the config>` with

        config.json    the configuration, the command, versions
        metrics.csv    one row per logged iteration, flushed row by row
        best.pt        state_dict of the best network so far; loads with weights_only=True
        summary.json   final numbers
        figures/       pictures

    Every file except metrics.csv is written beside its place and moved there in one step.

    Args:
        root: where runs are collected.
        experiment: name of the experiment.
        config: a dataclass with the configuration; a field `seed` names the folder.
        command: the command line that started the run.

    Raises:
        ConfigurationError: the folder exists or cannot be made.
    """

    def __init__(self, root: str | Path, experiment: str, config: Any, command: list[str]) -> None:
        settings = dataclasses.asdict(config)
        digest = sha256(json.dumps(settings, sort_keys=True, default=str).encode()).hexdigest()[:6]
        started = datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
        self.path = Path(root) / experiment / f"{started}-s{settings.get('seed', 0)}-{digest}"
        try:
            self.path.mkdir(parents=True)
            (self.path / "figures").mkdir()
        except OSError as error:
            raise ConfigurationError(
                f"run folder {self.path} cannot be made: {error}",
                "a new folder in a writable place",
                "another --runs folder",
            ) from error
        self._columns: list[str] | None = None
        about = {"command": command, "config": settings, "started": started, "versions": versions()}
        self.write_json("config.json", about)

    def log(self, row: Mapping[str, float]) -> None:
        """Append one row to metrics.csv; every row has the columns of the first."""
        with open(self.path / "metrics.csv", "a", newline="") as file:
            writer = csv.writer(file)
            if self._columns is None:
                self._columns = list(row)
                writer.writerow(self._columns)
            writer.writerow([row[name] for name in self._columns])

    def metrics(self) -> dict[str, list[float]]:
        """The columns of metrics.csv."""
        with open(self.path / "metrics.csv", newline="") as file:
            rows = list(csv.DictReader(file))
        return {name: [float(row[name]) for row in rows] for name in (self._columns or [])}

    def save_best(self, net: nn.Module) -> None:
        """Write the network's state_dict to best.pt."""
        with self._replacing("best.pt") as path:
            torch.save(net.state_dict(), path)

    def load_best(self, net: nn.Module) -> None:
        """Load best.pt into `net`."""
        net.load_state_dict(torch.load(self.path / "best.pt", weights_only=True))

    def write_json(self, name: str, content: Mapping[str, Any]) -> None:
        """Write a JSON file."""
        with self._replacing(name) as path:
            path.write_text(json.dumps(content, indent=2, default=str) + "\n")

    @contextmanager
    def _replacing(self, name: str) -> Iterator[Path]:
        partial = self.path / f".{name}.partial"
        yield partial
        os.replace(partial, self.path / name)


def versions() -> dict[str, str]:
    """Versions and hardware that a result depends on."""
    return {
        "adjsnn": adjsnn.__version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "machine": processor(),
        "threads": str(torch.get_num_threads()),
    }


def processor() -> str:
    """Name of the processor and its number of cores."""
    name = platform.processor() or platform.machine()
    about = Path("/proc/cpuinfo")  # Linux tells more than platform does
    if about.exists():
        lines = about.read_text().splitlines()
        name = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), name)
    return f"{name}, {os.cpu_count()} cores"
