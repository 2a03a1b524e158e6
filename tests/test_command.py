"""The command `adjsnn`: what it forwards, what it says of the machine, and what it says when asked for what is not there."""

import os
import re
import signal
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

import adjsnn
from adjsnn import ahead
from adjsnn import doctor as machine
from adjsnn.__main__ import COMMANDS, main, names
from adjsnn.training import __main__ as training

ROOT = Path(adjsnn.__file__).parents[1]


def test_the_version_is_one_wherever_it_stands(capsys):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    with pytest.raises(SystemExit) as stopped:
        main(["--version"])
    assert stopped.value.code == 0
    assert capsys.readouterr().out.split() == ["adjsnn", adjsnn.__version__]
    assert project["version"] == adjsnn.__version__
    assert re.search(r"^version: (\S+)", (ROOT / "CITATION.cff").read_text(), re.MULTILINE)[1] == adjsnn.__version__
    assert project["scripts"] == {"adjsnn": "adjsnn.__main__:main"}


def test_help_names_every_command_and_each_has_help_of_its_own(capsys):
    assert main([]) == 0
    told = capsys.readouterr().out
    assert all(name in told for name in COMMANDS)
    for name in COMMANDS:
        if name == "demo":
            continue  # that of the experiment
        try:
            status = main([name, "--help"])
        except SystemExit as stopped:
            status = stopped.code
        assert status == 0
        assert f"adjsnn {name}" in capsys.readouterr().out


@pytest.mark.slow
def test_the_demo_has_the_help_of_its_experiment():
    done = subprocess.run([sys.executable, "-m", "adjsnn", "demo", "--help"], capture_output=True, text=True, check=True)
    assert "--quick" in done.stdout
    assert "--activity-cost" in done.stdout


def test_experiments_are_found_by_name(capsys):
    assert {"predictive_coding", "delayed_xor", "yin_yang", "digits"} <= names().keys()
    assert "coding" not in names()  # a module of others
    assert main(["experiment"]) == 0
    assert "yin_yang" in capsys.readouterr().out
    assert main(["experiment", "yin_jang"]) == 1
    assert "expected one of" in capsys.readouterr().err
    assert main(["sweep", "yin_jang"]) == 1
    assert "no such script" in capsys.readouterr().err


SAVES = """
import signal, sys, time
def save(*_):
    time.sleep(1.0)
    print("saved")
    sys.exit(130)
signal.signal(signal.SIGINT, save)
print("ready", sys.argv[1:], flush=True)
time.sleep(60.0)
"""
NAMED = """
import sys
from adjsnn import __main__ as command
command.names = lambda: {"saves": sys.argv[1]}
sys.exit(command.main(["experiment", "saves", "-x"]))
"""


def test_an_experiment_that_is_stopped_has_time_to_save(tmp_path):
    """Ctrl-C goes to all processes of a terminal: one that waits for the script must not kill it."""
    (tmp_path / "saves.py").write_text(SAVES)
    started = subprocess.Popen(
        [sys.executable, "-c", NAMED, tmp_path / "saves.py"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    assert started.stdout is not None
    assert started.stdout.readline() == "ready ['-x']\n"
    os.killpg(started.pid, signal.SIGINT)
    out, err = started.communicate(timeout=60.0)
    assert (started.returncode, out, err) == (130, "saved\n", "")


@pytest.mark.parametrize("where", [0, 2, 4])
def test_a_sweep_finds_an_experiment_wherever_its_name_stands(monkeypatch, tmp_path, where):
    asked = []
    monkeypatch.setattr(training, "sweep", lambda settings: asked.append(settings) or 0)
    arguments = ["--seeds", "2", "--flags", "--hidden 3"]
    arguments.insert(where, "yin_yang")
    assert main(["sweep", *arguments]) == 0
    monkeypatch.chdir(tmp_path)
    Path("yin_yang").touch()  # a file that is there is meant itself
    assert main(["sweep", *arguments]) == 0
    assert [x.script for x in asked] == [names()["yin_yang"], Path("yin_yang")]
    assert {(x.seeds, x.flags) for x in asked} == {(2, "--hidden 3")}


def test_an_unknown_command_names_those_there_are(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["docter"])
    assert stopped.value.code == 2
    assert "'doctor'" in capsys.readouterr().err


def test_the_doctor_judges_a_gradient_of_each_family(capsys):
    assert main(["doctor"]) == 0
    told = capsys.readouterr().out
    for family in ("gated network", "LIF network", "own system"):
        assert re.search(rf"{family} .* within \S+ of central differences", told)
    assert metadata.version("torch") in told
    assert all(re.search(rf" {package} +\S", told) for package in ("neo", "pynwb", "nir", "distributed", "submitit"))
    assert "FAULT" not in told


def test_the_doctor_sees_all_of_a_machine_without_a_compiler(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "numba.core", None)
    monkeypatch.setattr(machine, "_cache", lambda told: 1 / 0)
    assert main(["doctor"]) == 1
    told = capsys.readouterr().out
    assert re.search(r"FAULT +exponentials +ModuleNotFoundError", told)
    assert re.search(r"FAULT +kept loops +ZeroDivisionError", told)
    assert " GPU " in told


def test_the_doctor_tells_what_does_not_work(monkeypatch, capsys):
    def broken():
        raise RuntimeError("no loops here")

    monkeypatch.setattr(machine, "_lif", broken)
    assert main(["doctor"]) == 1
    told = capsys.readouterr().out
    assert re.search(r"FAULT +LIF network +RuntimeError: no loops here", told)
    assert told.endswith("1 faults\n")


@pytest.mark.slow
def test_loops_are_compiled_ahead_and_kept(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    for done in ("compiled", "kept already"):
        assert main(["compile", "clocked", "--parallel", "1"]) == 0
        assert re.fullmatch(rf" +clocked +[0-9.]+ s +{done}\n", capsys.readouterr().out)
    assert list(tmp_path.glob("adjsnn.lif.cpu-*/clocked*.code"))


def test_what_cannot_be_compiled_ahead_is_told(capsys):
    assert main(["compile", "gates"]) == 1
    assert re.search(r"kind 'gates'; expected one of adaptive, .*gated-euler-float32", capsys.readouterr().err)
    assert main(["compile", "clocked", "--parallel", "0"]) == 1
    assert "parallel=0" in capsys.readouterr().err


@pytest.mark.slow
def test_that_nothing_can_be_kept_is_a_fault(tmp_path, monkeypatch, capsys):
    (tmp_path / "file").touch()
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "file"))  # where nothing can be kept
    assert main(["compile", "clocked"]) == 1
    assert re.search(r"FAULT  clocked .* cannot be kept", capsys.readouterr().out)


def test_a_compiling_process_that_dies_is_a_fault_of_its_kind(monkeypatch):
    begin = ahead.subprocess.Popen

    def killed(*arguments, **options):
        worker = begin(*arguments, **options)
        worker.kill()
        return worker

    monkeypatch.setattr(ahead.subprocess, "Popen", killed)
    rows = list(ahead.compile_ahead(("clocked", "gated-euler"), 2))
    assert {row.kind for row in rows} == {"clocked", "gated-euler-float32", "gated-euler-float64"}
    assert all("ended with status -9" in row.fault for row in rows)


def test_what_waits_for_a_compiling_process_that_dies_is_compiled_by_the_next(monkeypatch):
    """A stand-in that dies of one kind, and says of the others that they are done."""
    served = """
import json, os, sys
for line in sys.stdin:
    if "heun-float32" in line:
        os.kill(os.getpid(), 9)
    print(json.dumps([line.strip(), 0.0, True]), flush=True)
"""
    begin = ahead.subprocess.Popen
    monkeypatch.setattr(ahead.subprocess, "Popen", lambda _, **options: begin([sys.executable, "-c", served], **options))
    rows = {row.kind: row.fault for row in ahead.compile_ahead(("gated",), 1)}
    assert len(rows) == 6
    assert {kind for kind, fault in rows.items() if fault} == {"gated-heun-float32"}
