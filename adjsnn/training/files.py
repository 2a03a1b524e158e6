"""What lies in a run folder, read with care: every file that matters says whether it is what was written."""

import csv
import json
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from adjsnn.errors import ConfigurationError

State = dict[str, Any]
ABOUT = ("experiment", "command", "arguments", "config", "started", "versions", "source")  # parts of config.json
SUMMARY = ("title", "held_out", "training", "columns", "versions")  # and of summary.json
END = "</body></html>\n"  # of a whole report.html


def sealed(content: Mapping[str, Any]) -> State:
    """Content of a JSON file together with the SHA-256 of itself."""
    known = json.loads(json.dumps(content, default=str))
    return {**known, "sha256": _digest_of(known)}


def read_sealed(path: Path, parts: tuple[str, ...]) -> State:
    """A JSON file that has these parts and is what was written; one without a SHA-256 is taken as it is.

    Raises:
        OSError: there is no such file, or it cannot be read.
        ValueError: no JSON, a part missing, or other content than was written.
    """
    content = json.loads(path.read_text())
    if not isinstance(content, dict) or not set(parts) <= content.keys():
        raise ValueError(f"it lacks {', '.join(sorted(set(parts) - set(content)))}")
    digest = content.pop("sha256", None)
    if digest is not None and digest != _digest_of(content):
        raise ValueError("its content is not what was written")
    return content


def packed(net: nn.Module) -> bytes:
    """The network's weights as a safetensors file that carries the SHA-256 of its own tensors."""
    # Each tensor in memory of its own, as safetensors wants it.
    return sealed_weights({name: tensor.detach().clone().contiguous() for name, tensor in net.state_dict().items()})


def sealed_weights(tensors: dict[str, Tensor]) -> bytes:
    """Tensors as a safetensors file that carries their SHA-256."""
    return save(tensors, metadata={"sha256": _digest_of_tensors(save(tensors))})


def unpacked(data: bytes) -> dict[str, Tensor]:
    """The tensors of a file made by `packed`.

    Raises:
        ValueError: no safetensors file, or other tensors than were written.
    """
    try:
        written = _header(data)["__metadata__"]["sha256"]
        intact = written == _digest_of_tensors(data)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError("it is no file of weights that carries its SHA-256") from error
    if not intact:
        raise ValueError("its weights are not what was written")
    return load(data)


def checkpoints(path: Path) -> list[Path]:
    """Checkpoint folders of a run, the earliest first."""
    return sorted(folder for folder in (path / "checkpoints").glob("*") if folder.name.isdigit())


def load_checkpoint(path: Path, weights: Mapping[str, nn.Module]) -> State:
    """Load a run's last checkpoint into networks; returns its state.

    Raises:
        ConfigurationError: there is none, or a file of it is missing or changed.
    """
    saved = checkpoints(path)
    if not saved:
        raise ConfigurationError(f"{path}: no checkpoint", "a run that saved at least one", "starting the run again")
    names = [f"{name}.safetensors" for name in weights]
    check_manifest(saved[-1], [*names, "state.pt"])
    for file, net in zip(names, weights.values(), strict=True):
        net.load_state_dict(load((saved[-1] / file).read_bytes()))
    return torch.load(saved[-1] / "state.pt", weights_only=True)


def check_manifest(path: Path, names: list[str]) -> None:
    """See that the files of a checkpoint are those that were written, and these among them.

    Raises:
        ConfigurationError: a file is missing or changed.
    """
    remedy = f"removing {path}: the run then goes on from the checkpoint before it"
    try:
        digests = json.loads((path / "manifest.json").read_text())["sha256"]
        if lacking := set(names) - set(digests):
            raise ValueError(f"manifest.json does not tell of {', '.join(sorted(lacking))}")
        changed = [name for name, digest in digests.items() if sha256((path / name).read_bytes()).hexdigest() != digest]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigurationError(
            f"checkpoint {path} cannot be read: {error!r}", "the files that were written", remedy
        ) from error
    if changed:
        raise ConfigurationError(f"checkpoint {path}: damaged {', '.join(changed)}", "the files that were written", remedy)


def read_about(path: Path) -> State:
    """config.json of a run folder.

    Raises:
        ConfigurationError: there is none, or it is none of a run, or not what was written.
    """
    try:
        return read_sealed(path / "config.json", ABOUT)
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            f"{path} is no run folder: config.json: {error}", "a folder made by an experiment", "runs/<experiment>/<run>"
        ) from error


def read_summary(path: Path) -> State:
    """summary.json of a finished run.

    Raises:
        ConfigurationError: there is none, or it is damaged.
    """
    try:
        summary = read_sealed(path / "summary.json", SUMMARY)
        numbers = {**summary["held_out"], **summary["training"], "seconds": summary["training"]["seconds"]}
        for name, (_, form) in summary["columns"].items():
            format(numbers.get(name, 0.0), form)
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ConfigurationError(
            f"{path}: summary.json cannot be read: {error}",
            "that of a finished run",
            f"--resume {path}, which finishes it or judges it again",
        ) from error
    return summary


def read_metrics(path: Path) -> dict[str, list[float]]:
    """The columns of a run's metrics.csv; empty if there is none.

    Raises:
        ConfigurationError: a row that has not a number for each column.
    """
    place = path / "metrics.csv"
    if not place.exists():
        return {}
    try:
        with open(place, newline="") as file:
            names, *rows = csv.reader(file)
        columns = {name: [float(row[k]) for row in rows] for k, name in enumerate(names)}
        if any(len(row) != len(names) for row in rows):
            raise ValueError("a row of another length than the first")
    except (OSError, ValueError, IndexError, csv.Error) as error:
        raise ConfigurationError(
            f"{place} cannot be read: {error}",
            "a line of names, then rows of as many numbers",
            f"--resume {path}, which writes it again from the last checkpoint",
        ) from error
    return columns


def lost_files(path: Path) -> list[str]:
    """Files of a finished run that are missing or damaged; none: it is whole."""
    try:
        summary = read_summary(path)
    except ConfigurationError:
        return ["summary.json"]
    digests = summary.get("files", {})  # runs of earlier versions tell of none
    lost = [name for name, digest in digests.items() if digest_of(path / name) != digest]
    report = path / "report.html"
    if not report.exists() or not report.read_bytes().endswith(END.encode()):
        lost.append("report.html")
    return lost


def digests_of(path: Path) -> dict[str, str]:
    """SHA-256 of what a finished run is made of, beside summary.json and report.html."""
    files = [path / "best.safetensors", path / "metrics.csv", *sorted((path / "figures").glob("*.png"))]
    return {str(file.relative_to(path)): digest_of(file) for file in files}


def digest_of(path: Path) -> str:
    """SHA-256 of a file; empty if there is none."""
    return sha256(path.read_bytes()).hexdigest() if path.exists() else ""


def _digest_of(content: Mapping[str, Any]) -> str:
    return sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _digest_of_tensors(data: bytes) -> str:
    """SHA-256 of names, types, shapes and bytes in a safetensors file, whatever else it carries."""
    header = _header(data)
    header.pop("__metadata__", None)
    start = 8 + int.from_bytes(data[:8], "little")
    return sha256(json.dumps(header, sort_keys=True).encode() + data[start:]).hexdigest()


def _header(data: bytes) -> State:
    return json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
