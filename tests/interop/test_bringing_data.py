"""The page docs/bringing_data.md: its blocks run one after the other, and print what it says."""

import re
from pathlib import Path

import adjsnn

PAGE = Path(adjsnn.__file__).parents[1] / "docs" / "bringing_data.md"


def test_the_blocks_of_the_page_run_and_print_what_they_say(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```{code-cell}\n(.*?)```", PAGE.read_text(), re.S)
    assert len(blocks) == 6
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), names)
        printed = capsys.readouterr().out.splitlines()
        said = re.findall(r"^print\(.*\)  # (.*)$", block, re.M)
        assert len(printed) == len(said)
        for line, comment in zip(printed, said, strict=True):
            assert comment == line or comment.startswith(f"{line}:")


def test_every_name_is_found_and_listed():
    assert {name for name in adjsnn.interop.__all__ if not hasattr(adjsnn.interop, name)} == set()
    assert set(adjsnn.interop._HOME) == set(adjsnn.interop.__all__) <= set(dir(adjsnn.interop))
