"""A page of results, written from run folders: what was trained, how, with which seeds, on what, and what it reached."""

import json
import re
from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path

from adjsnn.errors import ConfigurationError
from adjsnn.training.compare import Finished, Group, finished, grouped, same_numbers, shown_columns, spread, table
from adjsnn.training.curves import draw
from adjsnn.training.experiment import Curve
from adjsnn.training.files import State

FAMILIES = {"gated": "gated synapses", "lif": "LIF with jumps"}


def record(paths: Sequence[Path], page: Path, heading: str) -> None:
    """Add finished runs to the records beside a page of results, and write the page again.

    The records are JSON files in a folder named like the page, one for each group of runs that differ in their seed alone.

    Args:
        paths: run folders, or folders of them.
        page: for example experiments/RESULTS.md.
        heading: what is special about these runs, for their heading; may be empty.

    Raises:
        ConfigurationError: no finished runs, or runs of one group on several machines or versions.
    """
    folder = page.with_suffix("")
    groups = grouped(finished(paths))
    for group in groups:
        _check_alike(group)
    folder.mkdir(parents=True, exist_ok=True)
    for group in groups:
        family = FAMILIES.get(group.runs[0].about["config"].get("network", ""), "")
        parts = [group.runs[0].summary["title"], family, heading, group.label if len(groups) > 1 else ""]
        title = ", ".join(part for part in parts if part)
        content = {"title": title, "runs": [kept(run) for run in group.runs]}
        (folder / f"{_file_name(title)}.json").write_text(json.dumps(content, indent=1) + "\n")
    write_page(page)


def add_section(page: Path, title: str, text: str) -> None:
    """Put a section of a script's own into a page of results, in the place of an earlier one of that title."""
    folder = page.with_suffix("")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"z-{_file_name(title)}.json").write_text(json.dumps({"title": title, "text": text}, indent=1) + "\n")
    write_page(page)


def _file_name(title: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")


def kept(run: Finished) -> State:
    """What a record keeps of a run: nothing about where it lay."""
    config = {name: value for name, value in run.about["config"].items() if name not in ("runs", "resume")}
    command = re.sub(r" --(seed|runs)[ =]\S+", "", run.about["command"])
    about = {name: run.about[name] for name in ("experiment", "started", "source") if name in run.about}
    summary = {name: part for name, part in run.summary.items() if name != "files"}
    return {"about": {**about, "command": command, "config": config}, "summary": summary}


def write_page(page: Path) -> None:
    """Write a page of results from the records in the folder beside it."""
    records = [_record(path) for path in sorted(page.with_suffix("").glob("*.json"))]
    overview, sections = {}, []
    curves: dict[str, dict[str, list[Curve]]] = {}
    for entry in records:
        if "text" in entry:  # a section that a script wrote
            sections.append(f"## {entry['title']}\n\n{entry['text']}\n")
            continue
        runs = [Finished(Path(), run["about"], run["summary"]) for run in entry["runs"]]
        overview[entry["title"]] = _line(runs)
        sections.append(_section(entry["title"], runs))
        for name, each in _curves(runs).items():
            curves.setdefault(name, {})[entry["title"]] = each
    sections += [_curve_section(page, name, groups) for name, groups in curves.items()]
    top = table(overview, "task", ["network", "adjoint", "seeds", "reached (mean ± sd)", "spikes/s", "training s", "hardware"])
    head = "# Results\n\nOn held-out trials. Written by `python -m adjsnn.training results`."
    page.write_text("\n\n".join([head, top, "\n".join(sections)]))


def _record(path: Path) -> State:
    """A record of a page: a group of runs, or a section that a script wrote.

    Raises:
        ConfigurationError: it is damaged.
    """
    try:
        entry = json.loads(path.read_text())
        complete = "title" in entry and ("text" in entry or all({"about", "summary"} <= run.keys() for run in entry["runs"]))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigurationError(f"{path} cannot be read: {error!r}", "a record of a page", "removing it") from error
    if not complete:
        raise ConfigurationError(f"{path} lacks its title or its runs", "a record of a page", "removing it")
    return entry


def _line(runs: Sequence[Finished]) -> list[str]:
    config, columns = runs[0].about["config"], shown_columns(runs)
    name, (label, form) = next(iter(columns.items()))
    rate = [run.numbers["spikes_per_s"] for run in runs if "spikes_per_s" in run.numbers]
    return [
        FAMILIES.get(config.get("network", ""), ""),
        _adjoint(config),
        str(len(runs)),
        f"{label} {spread([run.numbers[name] for run in runs], form)}",
        spread(rate, ".1f") if rate else "",
        spread([run.numbers["seconds"] for run in runs], ".0f"),
        _hardware(runs[0]),
    ]


def _section(title: str, runs: Sequence[Finished]) -> str:
    columns, about = shown_columns(runs), runs[0].about
    rows = {
        str(run.about["config"]["seed"]): [format(run.numbers[name], form) for name, (_, form) in columns.items()]
        for run in runs
    }
    if len(runs) > 1:
        rows["mean ± sd"] = [spread([run.numbers[name] for run in runs], form) for name, (_, form) in columns.items()]
    versions = runs[0].summary["versions"]
    started = min(run.about["started"] for run in runs)
    date = f"{started[:4]}-{started[4:6]}-{started[6:8]}"
    return (
        f"## {title}\n\n`{about['command']}`: {about['config']['iterations']} steps of {about['config']['batch']} trials, "
        f"{FAMILIES.get(about['config'].get('network', ''), 'network')}, {_adjoint(about['config'])}. {_hardware(runs[0])}; "
        f"torch {versions['torch']}; {date}.\n\n" + table(rows, "seed", [label for label, _ in columns.values()]) + "\n"
    )


def _curves(runs: Sequence[Finished]) -> dict[str, list[Curve]]:
    """Curves that all these runs have, over the same values."""
    every = [{name: Curve(**curve) for name, curve in run.summary.get("curves", {}).items()} for run in runs]
    shared = [name for name in every[0] if all(name in each and each[name].x == every[0][name].x for each in every)]
    return {name: [each[name] for each in every] for name in shared}


def _curve_section(page: Path, name: str, groups: dict[str, list[Curve]]) -> str:
    """Tables of one curve of all groups of runs that have it, and a picture of it beside the records."""
    picture = page.with_suffix("") / f"{name.replace('_', '-')}.png"
    groups = _shortened(groups)
    draw(groups).savefig(picture, dpi=160)
    first = next(iter(groups.values()))[0]
    places = sorted({x for runs in groups.values() for x in runs[0].x})
    cells = {label: {x: spread(y, ".1f") for x, *y in _columns(runs)} for label, runs in groups.items()}
    rows = {f"{x:g}": [cells[label].get(x, "") for label in groups] for x in places}
    labels = [f"{label}{_shaded(runs[0])}" for label, runs in groups.items()]
    title = name.replace("_", " ")
    about = f" Hollow points lie outside the range {first.shaded_label}." if first.shaded and len(groups) > 1 else ""
    return (
        f"## {title[0].upper()}{title[1:]}\n\n{first.y_label}, mean ± sd.{about}\n\n"
        f"![{title}]({picture.relative_to(page.parent)})\n\n{table(rows, first.x_label, labels)}\n"
    )


def _shortened(groups: dict[str, list[Curve]]) -> dict[str, list[Curve]]:
    """Without the parts of their titles that all begin with."""
    parts = [title.split(", ") for title in groups]
    least = min(len(part) for part in parts) - 1 if len(parts) > 1 else 0
    shared = len(list(takewhile(lambda k: len({part[k] for part in parts}) == 1, range(least))))
    return {", ".join(part[shared:]): runs for part, runs in zip(parts, groups.values(), strict=True)}


def _columns(runs: Sequence[Curve]) -> list[tuple[float, ...]]:
    """x, and y of each run there."""
    return list(zip(runs[0].x, *(run.y for run in runs), strict=True))


def _shaded(curve: Curve) -> str:
    return f" ({curve.shaded_label} {curve.shaded[0]:g} to {curve.shaded[1]:g})" if curve.shaded else ""


def _adjoint(config: State) -> str:
    default = "event" if config.get("network") == "lif" else "discrete"
    return default if config["adjoint"] == "default" else config["adjoint"]


def _hardware(run: Finished) -> str:
    versions, device = run.summary["versions"], run.about["config"]["device"]
    together = int(versions["runs at a time"])
    beside = f", {together} runs at a time" if together > 1 else ""
    threads = f"{versions['machine']}, {versions['threads']} thread(s){beside}"
    return versions["gpu"] if device != "cpu" and versions["gpu"] != "none" else threads


def _check_alike(group: Group) -> None:
    last = {run.about["config"]["seed"]: run for run in group.runs}
    others = [run for run in group.again if not same_numbers(run, last[run.about["config"]["seed"]])]
    kinds = {json.dumps(run.summary["versions"], sort_keys=True) for run in [*group.runs, *others]}
    seeds = sorted(run.about["config"]["seed"] for run in [*group.runs, *others])
    if len(kinds) > 1 or others:
        raise ConfigurationError(
            f"{group.label}: seeds {seeds} from {len(kinds)} kinds of machine or version",
            "one run for each seed, all alike",
            "a sweep, which makes them in one go",
        )
