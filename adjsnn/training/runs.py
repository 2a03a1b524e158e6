"""Run folders: everything a training run leaves behind, written so that a run killed at any moment loses nothing saved."""

import csv
import dataclasses
import fcntl
import json
import os
import platform
import shlex
import shutil
import subprocess
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn

import adjsnn
from adjsnn.errors import ConfigurationError

State = dict[str, Any]
KEPT_CHECKPOINTS = 2
TOGETHER = "ADJSNN_RUNS_AT_A_TIME"  # set by a sweep: times of runs beside others are not those of a run alone


class RunFolder:
    """A folder `<root>/<experiment>/<utc>-s<seed>-<hash of the config>` with

        config.json         the configuration, the command, versions, the state of the source
        metrics.csv         one row per evaluation, flushed row by row
        log.txt             what happened when
        checkpoints/<step>/ weights.safetensors, average.safetensors where weights are averaged, state.pt (optimiser, random
                            numbers, counters; loads with weights_only=True), manifest.json with their SHA-256; the last two
        best.safetensors    weights of the best network so far
        summary.json        final numbers
        figures/            pictures
        report.html         all of it on one page

    Every file except metrics.csv and log.txt is written beside its place and moved there in one step; so is each checkpoint.
    A process that writes into the folder holds a lock on it.

    Raises:
        ConfigurationError: the folder is in use by another process.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        lock = os.open(path / ".lock", os.O_RDWR | os.O_CREAT)
        self._unlock = weakref.finalize(self, os.close, lock)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self.close()
            raise ConfigurationError(
                f"run folder {path} is in use by another process", "one process at a time", "waiting for it, or stopping it"
            ) from error

    def close(self) -> None:
        """Let other processes write into the folder."""
        self._unlock()

    @classmethod
    def new(cls, root: str | Path, experiment: str, config: Any, command: str, arguments: Sequence[str]) -> "RunFolder":
        """Make a folder for a new run.

        Args:
            root: where runs are collected.
            experiment: name of the experiment.
            config: a dataclass with the configuration; a field `seed` names the folder.
            command: how the experiment is started, for example "python experiments/predictive_coding.py".
            arguments: what follows it.

        Raises:
            ConfigurationError: the folder cannot be made.
        """
        settings = settings_of(config)
        digest = sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:6]
        started = datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
        name = f"{started}-s{settings.get('seed', 0)}-{digest}"
        path = Path(root) / experiment / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            turn = 1
            while True:
                try:
                    path.mkdir()
                    break
                except FileExistsError:
                    turn += 1
                    path = path.with_name(f"{name}-{turn}")
            (path / "figures").mkdir()
            (path / "checkpoints").mkdir()
        except OSError as error:
            raise ConfigurationError(
                f"run folder {path} cannot be made: {error}", "a new folder in a writable place", "another --runs folder"
            ) from error
        run = cls(path)
        about = {
            "experiment": experiment,
            "command": f"{command} {shlex.join(arguments)}".strip(),
            "arguments": list(arguments),
            "config": settings,
            "started": started,
            "versions": versions(),
            "source": source_state(),
        }
        run.write_json("config.json", about)
        return run

    @classmethod
    def existing(cls, path: str | Path, experiment: str) -> "RunFolder":
        """Open the folder of an earlier run.

        Raises:
            ConfigurationError: no run folder, one of another experiment, or one in use.
        """
        about = read_about(Path(path))
        if about["experiment"] != experiment:
            raise ConfigurationError(
                f"{path} holds a run of {about['experiment']!r}", f"one of {experiment!r}", "the script that made it"
            )
        return cls(Path(path))

    @property
    def about(self) -> State:
        """Contents of config.json."""
        return read_about(self.path)

    def note(self, text: str) -> None:
        """Append a line to log.txt."""
        with open(self.path / "log.txt", "a") as file:
            file.write(f"{datetime.now(UTC).strftime('%Y-%m-%d %H:%M:%S')} {text}\n")

    def log(self, row: Mapping[str, float]) -> None:
        """Append one row to metrics.csv; every row has the columns of the first.

        Raises:
            ConfigurationError: other columns than the first row's.
        """
        path = self.path / "metrics.csv"
        columns = self._columns()
        if columns and list(row) != columns:
            raise ConfigurationError(
                f"a row with columns {list(row)}", f"those of the first row, {columns}", "the same in each"
            )
        with open(path, "a", newline="") as file:
            writer = csv.writer(file)
            if not columns:
                writer.writerow(row)
            writer.writerow(row.values())

    def metrics(self) -> dict[str, list[float]]:
        """The columns of metrics.csv."""
        return read_metrics(self.path)

    def keep_rows_up_to(self, step: int) -> None:
        """Drop what metrics.csv says about later steps, for a run that goes on from `step`."""
        path = self.path / "metrics.csv"
        if not path.exists():
            return
        header, *rows = path.read_text().splitlines(keepends=True) or [""]
        if not header.endswith("\n"):  # killed in its first line
            path.unlink()
            return
        kept = [row for row in rows if row.endswith("\n") and float(row.split(",", 1)[0]) <= step]
        with self._replacing("metrics.csv") as beside:
            beside.write_text(header + "".join(kept))

    def save_best(self, net: nn.Module) -> None:
        """Write the network's weights to best.safetensors."""
        with self._replacing("best.safetensors") as path:
            path.write_bytes(save(tensors_of(net)))

    def load_best(self, net: nn.Module) -> None:
        """Load best.safetensors into `net`."""
        net.load_state_dict(load_file(self.path / "best.safetensors"))

    def save_checkpoint(self, step: int, weights: Mapping[str, nn.Module], state: State) -> None:
        """Write checkpoints/<step>, and drop all but the last two.

        Args:
            step: steps done.
            weights: networks by file name, each saved as <name>.safetensors.
            state: anything that torch.load reads with weights_only=True.
        """
        beside = self.path / "checkpoints" / f".partial-{step}"
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir()
        try:
            for name, net in weights.items():
                (beside / f"{name}.safetensors").write_bytes(save(tensors_of(net)))
            packed = BytesIO()  # torch reports a full disk as a RuntimeError
            torch.save(state, packed)
            (beside / "state.pt").write_bytes(packed.getvalue())
            digests = {path.name: sha256(path.read_bytes()).hexdigest() for path in sorted(beside.iterdir())}
            (beside / "manifest.json").write_text(json.dumps({"step": step, "sha256": digests}, indent=2) + "\n")
            place = self.path / "checkpoints" / f"{step:08d}"
            shutil.rmtree(place, ignore_errors=True)
            os.replace(beside, place)
        except OSError:
            shutil.rmtree(beside, ignore_errors=True)
            raise
        for old in checkpoints(self.path)[:-KEPT_CHECKPOINTS]:
            shutil.rmtree(old, ignore_errors=True)

    def write_json(self, name: str, content: Mapping[str, Any]) -> None:
        """Write a JSON file."""
        with self._replacing(name) as path:
            path.write_text(json.dumps(content, indent=2, default=str) + "\n")

    def write_text(self, name: str, content: str) -> None:
        """Write a text file."""
        with self._replacing(name) as path:
            path.write_text(content)

    def save_figure(self, name: str, figure: Any) -> Path:
        """Write figures/<name>.png."""
        with self._replacing(f"figures/{name}.png") as path:
            figure.savefig(path, format="png")
        return self.path / "figures" / f"{name}.png"

    def _columns(self) -> list[str]:
        path = self.path / "metrics.csv"
        if not path.exists():
            return []
        with open(path, newline="") as file:
            return next(csv.reader(file), [])

    @contextmanager
    def _replacing(self, name: str) -> Iterator[Path]:
        place = self.path / name
        beside = place.with_name(f".{place.name}.partial")
        try:
            yield beside
            os.replace(beside, place)
        finally:
            beside.unlink(missing_ok=True)


def checkpoints(path: Path) -> list[Path]:
    """Checkpoint folders of a run, the earliest first."""
    return sorted(found for found in (path / "checkpoints").glob("*") if found.name.isdigit())


def load_checkpoint(path: Path, weights: Mapping[str, nn.Module]) -> State:
    """Load a run's last checkpoint into networks; returns its state.

    Raises:
        ConfigurationError: there is none, or a file of it is missing or changed.
    """
    found = checkpoints(path)
    if not found:
        raise ConfigurationError(f"{path}: no checkpoint", "a run that saved at least one", "starting the run again")
    check_manifest(found[-1])
    for name, net in weights.items():
        net.load_state_dict(load_file(found[-1] / f"{name}.safetensors"))
    return torch.load(found[-1] / "state.pt", weights_only=True)


def tensors_of(net: nn.Module) -> dict[str, Tensor]:
    """state_dict of a network with each tensor in memory of its own, as safetensors wants it."""
    return {name: tensor.detach().clone().contiguous() for name, tensor in net.state_dict().items()}


def check_manifest(path: Path) -> None:
    """See that the files of a checkpoint are those that were written.

    Raises:
        ConfigurationError: a file is missing or changed.
    """
    remedy = f"removing {path}: the run then goes on from the checkpoint before it"
    try:
        digests = json.loads((path / "manifest.json").read_text())["sha256"]
        changed = [name for name, digest in digests.items() if sha256((path / name).read_bytes()).hexdigest() != digest]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigurationError(
            f"checkpoint {path} cannot be read: {error!r}", "the files that were written", remedy
        ) from error
    if changed:
        raise ConfigurationError(f"checkpoint {path}: damaged {', '.join(changed)}", "the files that were written", remedy)


def read_about(path: Path) -> State:
    """config.json of a run folder.

    Raises:
        ConfigurationError: there is none, or it is none of a run.
    """
    try:
        about = json.loads((path / "config.json").read_text())
        if not {"experiment", "command", "arguments", "config"} <= about.keys():
            raise ValueError("it lacks experiment, command, arguments or config")
    except (OSError, ValueError, AttributeError) as error:
        raise ConfigurationError(
            f"{path} is no run folder: config.json: {error}", "a folder made by an experiment", "runs/<experiment>/<run>"
        ) from error
    return about


def read_metrics(path: Path) -> dict[str, list[float]]:
    """The columns of a run's metrics.csv; empty if there is none."""
    if not (path / "metrics.csv").exists():
        return {}
    with open(path / "metrics.csv", newline="") as file:
        reader = csv.DictReader(file)
        rows = list(reader)
        return {name: [float(row[name]) for row in rows] for name in reader.fieldnames or []}


def settings_of(config: Any) -> State:
    """A configuration as JSON knows it."""
    return json.loads(json.dumps(dataclasses.asdict(config), default=str))


def source_state() -> dict[str, str]:
    """Commit of the source that ran and whether it was changed since; empty outside a git checkout."""
    git = partial(subprocess.run, capture_output=True, text=True, check=True, timeout=20, cwd=Path(adjsnn.__file__).parent)
    try:
        git(["git", "ls-files", "--error-unmatch", "__init__.py"])  # an installed copy may lie in another project's checkout
        commit = git(["git", "rev-parse", "HEAD"]).stdout.strip()
        changes = git(["git", "status", "--porcelain", "--untracked-files=no"]).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return {}
    return {"commit": commit, "changed": "yes" if changes else "no"}


def versions() -> dict[str, str]:
    """Versions and hardware that a result depends on."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    return {
        "adjsnn": adjsnn.__version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "machine": processor(),
        "gpu": gpu,
        "threads": str(torch.get_num_threads()),
        "runs at a time": os.environ.get(TOGETHER, "1"),
    }


def processor() -> str:
    """Name of the processor and its number of cores."""
    name = platform.processor() or platform.machine()
    about = Path("/proc/cpuinfo")  # Linux tells more than platform does
    if about.exists():
        lines = about.read_text().splitlines()
        name = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), name)
    return f"{name}, {os.cpu_count()} cores"
