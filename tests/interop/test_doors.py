"""Every importer and writer, given what is no recording: a typed error, at once."""

from datetime import UTC, datetime

import pynwb
import pytest
import torch

from adjsnn import ConfigurationError, SpikeTrains, interop

TRAINS = SpikeTrains.poisson(torch.full((1, 2), 50.0), 20.0, generator=torch.Generator().manual_seed(0))
FILES = ("h5", "nwb", "nir", "dat", "raw", "aedat4", "es")
WRONG = {
    "int": lambda _, __: 3,
    "number": lambda _, __: 1.5,
    "bool": lambda _, __: True,
    "None": lambda _, __: None,
    "bytes": lambda _, __: b"abc",
    "object": lambda _, __: object(),
    "dict": lambda _, __: {},
    "list": lambda _, __: [3],
    "nothing": lambda _, __: [],
    "no name": lambda _, __: "",
    "no file": lambda folder, suffix: folder / f"none.{suffix}",
    "folder": lambda folder, suffix: folder / f"folder.{suffix}",
    "empty": lambda folder, suffix: folder / f"empty.{suffix}",
    "text": lambda folder, suffix: str(folder / f"text.{suffix}"),
}
DOORS = {
    "SHDDataset": lambda x: interop.SHDDataset(x, t_stop=1.4),
    "from_shd": lambda x: interop.from_shd(x, t_stop=1.4),
    "from_nwb": interop.from_nwb,
    "from_neo": interop.from_neo,
    "from_events": lambda x: interop.from_events(x, t_stop="last"),
    "from_arrays": lambda x: interop.from_arrays(x, [0], t_stop=1.0, unit="s", n_neurons=1),
    "from_arrays, ids": lambda x: interop.from_arrays([0.5], x, t_stop=1.0, unit="s", n_neurons=1),
    "from_nir": interop.from_nir,
    "to_nir": interop.to_nir,
    "to_neo": interop.to_neo,
    "to_arrays": lambda x: interop.to_arrays(x, unit="s"),
    "to_nwb": lambda x: interop.to_nwb(x, pynwb.NWBFile("session", "id", datetime.now(UTC))),
    "to_nwb, file": lambda x: interop.to_nwb(TRAINS, x),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("doors")
    for suffix in FILES:
        (made / f"folder.{suffix}").mkdir()
        (made / f"empty.{suffix}").touch()
        (made / f"text.{suffix}").write_text("no recording")
    return made


@pytest.mark.parametrize("door", DOORS)
def test_what_is_no_recording(door, folder):
    for name, make in WRONG.items():
        for suffix in FILES if name in ("no file", "folder", "empty", "text") else FILES[:1]:
            with pytest.raises(ConfigurationError, match=r"expected .* Try: "):
                pytest.fail(f"{name}: {DOORS[door](make(folder, suffix))}")
