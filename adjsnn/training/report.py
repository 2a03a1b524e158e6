"""report.html of a run: figures, numbers, configuration and how to do it again, on one page that needs nothing else."""

import json
from base64 import b64encode
from collections.abc import Iterable, Mapping
from html import escape
from pathlib import Path
from typing import Any

from adjsnn.errors import ConfigurationError
from adjsnn.training.files import END, lost_files, read_about, read_summary

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #222; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; margin-bottom: 0; } h2 { font-size: 1.1rem; margin-top: 2rem; border-bottom: 1px solid #ccc; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
td, th { text-align: left; padding: .15rem 1.2rem .15rem 0; }
th { font-weight: 600; } figure { margin: 1rem 0; } img { max-width: 100%; } figcaption, .quiet { color: #666; }
code, pre { font: 13px/1.5 ui-monospace, monospace; background: #f5f5f5; } pre { padding: .6rem; overflow-x: auto; }
.headline { display: flex; flex-wrap: wrap; gap: 2rem; margin: 1rem 0; }
.headline b { display: block; font-size: 1.6rem; font-weight: 600; }
@media print { body { max-width: none; } figure { break-inside: avoid; } }
"""


# What every experiment may draw; an experiment says the rest.
CAPTIONS = {
    "events": "What the spikes are like on held-out trials: how fast they cross the threshold, how far apart those of a neuron "
    "are, and how many each neuron has. Slow crossings make large gradients.",
    "history": "How the training went, step by step: figures on validation trials, and cost and gradient of the steps between.",
    "raster": "The spikes of one trial, a row for each neuron.",
    "readout": "The readout of a held-out trial against its target, and the spikes that it is made of.",
}


def write_report(run: Path, summary: Mapping[str, Any] | None = None) -> Path:
    """Write report.html into a run folder that has figures.

    Args:
        run: the folder.
        summary: what summary.json will say; default what it says.

    Raises:
        ConfigurationError: no run folder; without a summary, a run that is not finished or has lost figures.
    """
    about = read_about(run)
    if summary is None:
        summary = read_summary(run)
        if lost := [name for name in lost_files(run) if name.startswith("figures")]:
            raise ConfigurationError(
                f"{run} has lost {', '.join(lost)}",
                "the figures of the finished run",
                f"--resume {run}, which draws them again",
            )
    numbers: dict[str, float] = {**summary["held_out"], **summary["training"]}
    headline = "".join(
        f"<div><b>{numbers[name]:{form}}</b>{escape(label)}</div>"
        for name, (label, form) in summary["columns"].items()
        if name in numbers
    )
    captions = {**CAPTIONS, **summary.get("captions", {})}
    figures = "".join(_figure(path, captions) for path in sorted((run / "figures").glob("*.png")))
    command = about["command"]
    source = about["source"]
    again = command
    if source:  # an installed library is in no checkout
        again = f"git checkout {source['commit']}{'   # and the changes made to it' * (source['changed'] == 'yes')}\n{command}"
    steps = f"{numbers.get('iterations', 0):.0f} of {about['config'].get('iterations')}"
    stopped = f"; the best network of a run that was stopped after step {steps}" if summary.get("stopped") else ""
    parts = [
        f"<h1>{escape(summary['title'])}</h1><p class=quiet>{escape(run.name)}{stopped}</p>",
        f"<h2>Result on held-out trials</h2><div class=headline>{headline}</div>",
        f"<h2>Figures</h2>{figures}",
        f"<h2>Do it again</h2><pre>{escape(again)}</pre>",
        f"<h2>All numbers</h2>{_table({**summary['held_out'], **summary['training']}.items())}",
        f"<h2>Configuration</h2>{_table(about['config'].items())}",
        f"<h2>Versions and hardware</h2>{_table({**about['versions'], 'started (UTC)': about['started'], **source}.items())}",
    ]
    title = escape(f"{summary['title']}, {run.name}")
    page = (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f"<style>{STYLE}</style></head><body>{''.join(parts)}{END}"
    )
    place = run / "report.html"
    partial = place.with_name(".report.html.partial")
    try:
        partial.write_text(page)
        return partial.replace(place)
    finally:
        partial.unlink(missing_ok=True)


def _figure(path: Path, captions: Mapping[str, str]) -> str:
    data = b64encode(path.read_bytes()).decode()
    name = path.stem.replace("_", " ")
    told = captions.get(path.stem, f"{name[:1].upper()}{name[1:]} of the best network.")
    return (
        f'<figure><img alt="{escape(name)}" src="data:image/png;base64,{data}"><figcaption>{escape(told)}</figcaption></figure>'
    )


def _table(rows: Iterable[tuple[str, object]]) -> str:
    shown = "".join(f"<tr><th>{escape(str(name))}</th><td>{escape(_shown(value))}</td></tr>" for name, value in rows)
    return f"<table>{shown}</table>"


def _shown(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, Mapping):
        return json.dumps(value)
    return "none" if value is None else str(value)
