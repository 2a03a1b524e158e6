"""The command `adjsnn`, also `python -m adjsnn`."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import adjsnn
from adjsnn.errors import AdjsnnError

COMMANDS = {
    "demo": "train a small network of predictive coding, in some seconds to minutes, with a report of figures",
    "experiment": "run an experiment by name; without a name: list them",
    "gradcheck": "check the gradients of a random network against independent judges",
    "sweep": "run an experiment with several seeds, or a grid of settings, in parallel",
    "resume": "go on with a sweep that was stopped or killed",
    "finish": "judge and report a run that was stopped, as it is",
    "compare": "mean ± sd over runs, and their curves over each other",
    "results": "add runs to a page of results",
    "report": "write a run's report.html again",
    "compile": "compile loops ahead of their first use, several at a time, and keep them",
    "doctor": "what runs here: versions, threads, compiled loops, GPU, and a gradient of each family",
}


def experiments() -> Path:
    """The folder of experiment scripts: in an installed library, or beside one in its checkout."""
    library = Path(adjsnn.__file__).parent
    inside = library / "experiments"
    return inside if inside.is_dir() else library.parent / "experiments"


def names() -> dict[str, Path]:
    """Scripts that can be run, by name: those that end with a call of `main`."""
    return {path.stem: path for path in sorted(experiments().glob("*.py")) if "sys.exit(main(" in path.read_text()}


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns the exit status."""
    listed = "\n".join(f"  {name:<12}{about}" for name, about in COMMANDS.items())
    parser = argparse.ArgumentParser(
        prog="adjsnn", description=adjsnn.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=f"commands, each with a --help of its own:\n{listed}",
    )  # fmt: skip
    parser.add_argument("--version", action="version", version=f"adjsnn {adjsnn.__version__}")
    parser.add_argument("command", choices=COMMANDS, metavar="command")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="of the command")
    given = list(sys.argv[1:] if argv is None else argv)
    if not given:
        parser.print_help()
        return 0
    options = parser.parse_args(given)
    try:
        return _run(options.command, options.arguments)
    except AdjsnnError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def _run(command: str, arguments: list[str]) -> int:
    # What a command needs is loaded when it is asked for: packages of extras may be missing.
    match command:
        case "demo":
            return _experiment("predictive_coding", ["--quick", *arguments])
        case "experiment":
            if not arguments or arguments[0] in ("-h", "--help"):
                print("adjsnn experiment NAME, with --help for its settings. Experiments:", *names(), sep="\n  ")
                return 0
            return _experiment(arguments[0], arguments[1:])
        case "gradcheck":
            from adjsnn.gradcheck.__main__ import main as gradcheck  # noqa: PLC0415

            return gradcheck(arguments, prog="adjsnn gradcheck")
        case "compile" | "doctor":
            return {"compile": _compile, "doctor": _doctor}[command](arguments)
        case _:
            from adjsnn.training.__main__ import main as training  # noqa: PLC0415

            return training([command, *arguments], prog="adjsnn", scripts=names())


def _experiment(name: str, arguments: list[str]) -> int:
    script = names().get(name)
    if script is None:
        raise adjsnn.ConfigurationError(f"experiment {name!r}", f"one of {', '.join(names())}", "adjsnn experiment")
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, str(script), *arguments])  # so that Ctrl-C and SIGTERM reach the script alone


def _compile(arguments: list[str]) -> int:
    from adjsnn.ahead import KINDS, compile_ahead  # noqa: PLC0415

    parser = argparse.ArgumentParser(
        prog="adjsnn compile", formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Compile loops ahead of their first use, several at a time, and keep them: after an installation,\n"
        "while a container is built, or before an array of jobs, each of which would compile them itself.\n"
        "They are kept where `adjsnn doctor` says, or in NUMBA_CACHE_DIR.",
        epilog="kinds:\n" + "\n".join(f"  {kind}" for kind in KINDS),
    )  # fmt: skip
    parser.add_argument("kinds", nargs="*", help="kinds of networks, or how their names begin; default all")
    parser.add_argument("--parallel", type=int, help="processes at a time, of some 400 MB each; default one for each CPU")
    options = parser.parse_args(arguments)
    faults = 0
    for row in compile_ahead(options.kinds, options.parallel):
        print(row, flush=True)
        faults += bool(row.fault)
    return 1 if faults else 0


def _doctor(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="adjsnn doctor", description=COMMANDS["doctor"])
    parser.parse_args(arguments)
    from adjsnn.doctor import doctor  # noqa: PLC0415

    found = doctor()
    print(*found, sep="\n")
    faults = sum(not finding.well for finding in found)
    print(f"{faults} faults" if faults else "all is well")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
