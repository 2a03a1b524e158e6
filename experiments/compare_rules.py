"""Every learning rule on every task, beside the exact gradient: what it reaches, what it costs, and how far it points away.

    python experiments/compare_rules.py --page docs/credit_assignment.md

trains each task of `experiments/credit_assignment.py` by each rule that applies, with five seeds, and measures the angle of the
rule to the exact gradient of the same cost at the same weights on the same batch, in float64, at every evaluation. Along
trainings by the exact gradient the angles of all rules are measured, and of surrogates with slopes over two decades; of delayed
XOR also on finer clocks, where few neurons spike more or less often than event-exactly (`compare_clocks.py`). Runs lie in
runs/compare_rules; what is finished there is not run again, so that a stopped comparison goes on. Page and figures are written
from the runs alone (`compare_page.py`).
"""

import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from compare_page import written
from comparison import FLAGS, RULES, TASKS, Config, Run, angles_of, collected, done

import adjsnn
from adjsnn.training.ranges import check_ranges
from adjsnn.training.sweep import joined

# isort: split
import tyro  # after adjsnn.training, which says what to install

HERE = Path(__file__).parent


def without_gradient(run: Run, root: Path, generations: int) -> None:
    """One search without a gradient in a process of its own, unless it is done already.

    Raises:
        ConfigurationError: it failed.
    """
    into = run.folder(root) / "found.json"
    if into.exists():
        return
    given = {"task": run.task, "way": run.rule, "seed": run.seed, "generations": generations, "into": into}
    _started(run, "without_gradient.py", [str(x) for name, value in given.items() for x in (f"--{name}", value)])


def _started(run: Run, script: str, flags: Sequence[str]) -> None:
    command = [sys.executable, str(HERE / script), *flags]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    if ended.returncode != 0:
        word = (ended.stderr.strip() or "no word").splitlines()[-1]
        raise adjsnn.ConfigurationError(f"{run} failed: {word}", "a training", " ".join(command))
    label = RULES[run.rule].label if run.rule in RULES else run.rule
    print(f"{run.task}, {label}, seed {run.seed}: done", flush=True)


def train(run: Run, root: Path, flags: Sequence[str]) -> None:
    """One training in a process of its own, unless it is finished already.

    Raises:
        ConfigurationError: it failed.
    """
    if done(run, root) is not None:
        return
    given = {"task": run.task, "adjoint": run.rule, "seed": run.seed, "threads": 1, "device": "cpu", "runs": run.folder(root)}
    own = [str(x) for name, value in given.items() for x in (f"--{name}", value)]
    measured = ["--angles", *angles_of(run.task, run.rule)]
    _started(run, "credit_assignment.py", [*own, *measured, *FLAGS.get(run.rule, ()), *flags])


def on_clocks(run: Run, root: Path) -> None:
    """Cosines on several clocks, of one exact training, unless they are measured already.

    Raises:
        ConfigurationError: it failed.
    """
    into = run.folder(root) / "found.json"
    trained = done(run._replace(rule="event"), root)
    if into.exists() or trained is None:
        return
    clocks = [f"{clock:g}" for clock in TASKS[run.task].clocks]
    _started(run, "compare_clocks.py", ["--run", str(trained.path), "--clocks", *clocks, "--into", str(into)])


def main(argv: list[str] | None = None) -> int:
    config = tyro.cli(Config, args=joined(sys.argv[1:] if argv is None else argv))
    root = config.runs / "compare_rules"
    try:
        check_ranges(config)
        if unknown := [task for task in config.tasks if task not in TASKS]:
            raise adjsnn.ConfigurationError(f"--tasks {' '.join(unknown)}", f"of {', '.join(TASKS)}", "leaving it out")
        seeds = range(config.first_seed, config.first_seed + config.seeds)
        runs = [Run(task, rule, seed) for seed in seeds for task in config.tasks for rule in TASKS[task].rules]
        searches = [Run(task, way, seed) for seed in seeds for task in config.tasks for way in TASKS[task].ways]
        clocks = [Run(task, "clocks", seed) for seed in seeds for task in config.tasks if TASKS[task].clocks]
        with ThreadPoolExecutor(config.parallel) as pool:
            waiting = [pool.submit(train, run, root, config.flags.split()) for run in runs]
            waiting += [pool.submit(without_gradient, run, root, config.generations) for run in searches]
            for result in waiting:
                result.result()
            for result in [pool.submit(on_clocks, run, root) for run in clocks]:
                result.result()
        page = config.page or root / "credit_assignment.md"
        written(collected(config, root), config, root, page)
    except (adjsnn.AdjsnnError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{page}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
