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
import sys
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from hashlib import sha256
from io import BytesIO, StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import nn

import adjsnn
from adjsnn.errors import ConfigurationError
from adjsnn.numerics.machine import processor
from adjsnn.numerics.threads import loop_threads
from adjsnn.training.files import (
    State,
    checkpoints,
    digest_of,
    packed,
    read_about,
    read_metrics,
    sealed,
    sealed_weights,
    unpacked,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

KEPT_CHECKPOINTS = 2
TOGETHER = "ADJSNN_RUNS_AT_A_TIME"  # set by a sweep: times of runs beside others are not those of a run alone


class RunFolder:
    """A folder `<root>/<experiment>/<utc>-s<seed>-<hash of the config>` with

        config.json         the configuration, the command, versions, the state of the source
        metrics.csv         one row per evaluation, flushed row by row
        log.txt             what happened when
        checkpoints/<step>/ weights.safetensors, average.safetensors where weights are averaged, state.pt (optimiser, random
                            numbers, counters; loads with weights_only=True), best.safetensors and metrics.csv as they were,
                            manifest.json with the SHA-256 of each; the last two
        best.safetensors    weights of the best network so far, with their SHA-256
        figures/            pictures
        report.html         all of it on one page
        summary.json        final numbers, and the SHA-256 of what they come with; the last to be written

    Every file except metrics.csv and log.txt is written beside its place and moved there in one step; so is each checkpoint.
    A run is finished when summary.json and all that it tells of are whole (`adjsnn.training.files.lost_files`).
    A process that writes into the folder holds a lock on it.

    Raises:
        ConfigurationError: the folder is in use by another process.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._best: bytes | None = None  # what best.safetensors and metrics.csv should be; None: not known
        self._rows: bytes | None = None
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
        run.write_json("config.json", sealed(about))
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

    def tell(self, text: str) -> None:
        """Tell on stderr what is wrong in the folder, and append it to log.txt."""
        print(f"warning: {text}", file=sys.stderr)
        self.note(text)

    def log(self, row: Mapping[str, float]) -> None:
        """Append one row to metrics.csv; every row has the columns of the first.

        Raises:
            ConfigurationError: other columns than the first row's.
        """
        columns = self._columns()
        if columns and list(row) != columns:
            raise ConfigurationError(
                f"a row with columns {list(row)}", f"those of the first row, {columns}", "the same in each"
            )
        text = StringIO()
        csv.writer(text).writerows([row.values()] if columns else [row, row.values()])
        with open(self.path / "metrics.csv", "ab") as file:
            file.write(text.getvalue().encode())
        self._rows = self.rows + text.getvalue().encode()

    @property
    def rows(self) -> bytes:
        """What metrics.csv should be."""
        if self._rows is None:
            place = self.path / "metrics.csv"
            self._rows = place.read_bytes() if place.exists() else b""
        return self._rows

    def metrics(self) -> dict[str, list[float]]:
        """The columns of metrics.csv; if it is not what was written, it is written again and told."""
        place = self.path / "metrics.csv"
        if self.rows and (not place.exists() or place.read_bytes() != self.rows):
            self.tell(f"{place} was damaged; it is written again")
            with self._replacing("metrics.csv") as beside:
                beside.write_bytes(self.rows)
        return read_metrics(self.path)

    def go_back(self, step: int) -> None:
        """Make best.safetensors and metrics.csv what they were at the last checkpoint, of `step`; tell what was damaged.

        Before the first step both start anew.
        """
        if step == 0:
            (self.path / "metrics.csv").unlink(missing_ok=True)
            self._rows = b""
            return
        checkpoint = checkpoints(self.path)[-1]
        if not (checkpoint / "metrics.csv").exists():  # of an earlier version
            self._keep_rows_up_to(step)
        else:
            rows, place = (checkpoint / "metrics.csv").read_bytes(), self.path / "metrics.csv"
            if not place.exists() or not place.read_bytes().startswith(rows):
                self.tell(f"{place} was damaged; it is written again from the checkpoint of step {step}")
            with self._replacing("metrics.csv") as beside:
                beside.write_bytes(rows)
            self._rows = rows
        place = self.path / "best.safetensors"
        if (checkpoint / "best.safetensors").exists():
            self._best = (checkpoint / "best.safetensors").read_bytes()
            try:
                unpacked(place.read_bytes())
            except (OSError, ValueError) as error:
                self.tell(f"{place} was damaged: {error}; it is written again from the checkpoint of step {step}")
            with self._replacing("best.safetensors") as beside:  # a later one is found again
                beside.write_bytes(self._best)
        elif place.exists():
            with suppress(SafetensorError):  # without a SHA-256; if it cannot be read, the present network is judged again
                self._best = sealed_weights(load(place.read_bytes()))

    def _keep_rows_up_to(self, step: int) -> None:
        """Drop what metrics.csv says about later steps."""
        path = self.path / "metrics.csv"
        if not path.exists():
            return
        header, *rows = path.read_text().splitlines(keepends=True) or [""]
        if not header.endswith("\n"):  # killed in its first line
            path.unlink()
            self._rows = b""
            return
        try:
            kept = [row for row in rows if row.endswith("\n") and float(row.split(",", 1)[0]) <= step]
        except ValueError as error:
            raise ConfigurationError(f"{path} is damaged: {error}", "rows that begin with a step", "removing it") from error
        with self._replacing("metrics.csv") as beside:
            beside.write_text(header + "".join(kept))
        self._rows = path.read_bytes()

    def is_whole(self, net: nn.Module) -> bool:
        """Whether best.safetensors, loaded into `net`, and metrics.csv can be read as they lie there."""
        try:
            self.load_best(net)
            return bool(read_metrics(self.path))
        except ConfigurationError:
            return False

    @property
    def has_best(self) -> bool:
        """Whether the best network so far is known."""
        return self._best is not None

    def save_best(self, net: nn.Module) -> None:
        """Write the network's weights to best.safetensors."""
        self._best = packed(net)
        self._write_best()

    def load_best(self, net: nn.Module) -> None:
        """Load best.safetensors into `net`; if it is not what was written, write it again and tell.

        Raises:
            ConfigurationError: it is missing or damaged, and what was written is not known.
        """
        place = self.path / "best.safetensors"
        data = place.read_bytes() if place.exists() else b""
        if self._best is not None and data != self._best:
            self.tell(f"{place} was {'damaged' if data else 'missing'}; it is written again")
            data = self._best
            self._write_best()
        try:
            tensors = unpacked(data)
        except ValueError as error:
            raise ConfigurationError(
                f"{place}: {error}", "the weights that were written", f"removing it, and --resume {self.path}"
            ) from error
        net.load_state_dict(tensors)

    def _write_best(self) -> None:
        assert self._best is not None
        with self._replacing("best.safetensors") as path:
            path.write_bytes(self._best)

    def save_checkpoint(self, step: int, weights: Mapping[str, nn.Module], state: State) -> None:
        """Write checkpoints/<step>, and drop all but the last two.

        Args:
            step: steps done.
            weights: networks by file name, each saved as <name>.safetensors.
            state: anything that torch.load reads with weights_only=True.
        """
        beside = self.path / "checkpoints" / f".partial-{step}"
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir(parents=True)
        try:
            for name, net in weights.items():
                (beside / f"{name}.safetensors").write_bytes(packed(net))
            if self._best is not None:
                (beside / "best.safetensors").write_bytes(self._best)
            (beside / "metrics.csv").write_bytes(self.rows)
            saved = BytesIO()  # torch reports a full disk as a RuntimeError
            torch.save(state, saved)
            (beside / "state.pt").write_bytes(saved.getvalue())
            digests = {path.name: digest_of(path) for path in sorted(beside.iterdir())}
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

    def save_figure(self, name: str, figure: "Figure") -> Path:
        """Write figures/<name>.png."""
        with self._replacing(f"figures/{name}.png") as path:
            figure.savefig(path, format="png")
        return self.path / "figures" / f"{name}.png"

    def _columns(self) -> list[str]:
        return next(csv.reader(StringIO(self.rows.decode())), [])

    @contextmanager
    def _replacing(self, name: str) -> Iterator[Path]:
        place = self.path / name
        beside = place.with_name(f".{place.name}.partial")
        place.parent.mkdir(exist_ok=True)  # figures/ may have been removed
        try:
            yield beside
            os.replace(beside, place)
        finally:
            beside.unlink(missing_ok=True)


def settings_of(config: Any) -> State:
    """A configuration as JSON knows it, without what is asked of a run that is there."""
    settings = json.loads(json.dumps(dataclasses.asdict(config), default=str))
    settings.pop("finish", None)
    return settings


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
        "threads": str(loop_threads()),
        "runs at a time": os.environ.get(TOGETHER, "1"),
    }
