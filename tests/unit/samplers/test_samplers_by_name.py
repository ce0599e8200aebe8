"""A run.yaml's sampler: by name, from a file, a module or an installed package; its options; and its errors."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from candidates import SECTIONS, candidates, places, sample

from fedpkg.config import dump_config
from fedpkg.config_reading import config_from_json, render
from fedpkg.config_shape import Places
from fedpkg.errors import ConfigError, DataError
from fedpkg.files import sha256_file
from fedpkg.samplers import make_sampler, resolve_sampler
from fedpkg.samplers.registry import SAMPLERS
from fedpkg.session.configuration import load

HEAD = "package: p\nrounds: 1\nclients: {count: 9}\nsampler:\n"
HERE = Places("here")


def resolved(folder: Path, text: str, *overrides: str) -> dict[str, object]:
    folder.mkdir(exist_ok=True)
    (folder / "run.yaml").write_text(HEAD + text)
    return load(folder / "run.yaml", overrides).config.sampler


@pytest.mark.parametrize("name", SECTIONS)
def test_every_name_resolves_to_all_its_keys_and_again_to_the_same(name: str) -> None:
    once = resolve_sampler({"name": name, **SECTIONS[name]}, HERE)
    spec = SAMPLERS.find("sampler", name, HERE, ())
    assert set(once) == {"name", *SAMPLERS.options, *spec.parameters}
    assert resolve_sampler(once, HERE) == once
    assert spec.about.endswith(".") and len(spec.about) < 120 and spec.equation


def test_keys_of_sessions_before_there_were_names_still_mean_the_same() -> None:
    stored = {"name": "uniform", "fraction_train": 0.5, "min_clients": 2, "over_selection": 1.0}
    found = sample(stored, candidates(8))
    assert (found.target, len(found.clients)) == (4, 8)
    assert resolve_sampler({}, HERE)["fraction_train"] == 1.0


def test_overrides_set_options_and_null_takes_one_back(tmp_path: Path) -> None:
    text = "  fraction_train: 0.5\n"
    assert resolved(tmp_path, text, "sampler.dropout=0.1")["dropout"] == 0.1
    counted = resolved(tmp_path, text, "sampler.fraction_train=null", "sampler.count=3")
    assert (counted["fraction_train"], counted["count"]) == (None, 3)
    rows = {key: (value, origin) for key, value, origin in render(load(tmp_path / "run.yaml"))}
    assert rows["sampler.fraction_train"] == (0.5, f"{tmp_path}/run.yaml:5")
    assert rows["sampler.over_selection"] == (0.0, "default")


def test_stored_configuration_has_all_keys_and_comes_back(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(HEAD + "  {name: importance, groups: {slow: 2, fast: 1.0}, held_out: [a, b*]}\n")
    config = load(tmp_path / "run.yaml").config
    assert config_from_json(dump_config(config)) == config
    assert config.sampler["explore"] == 0.1 and config.sampler["groups"] == {"slow": 2, "fast": 1.0}


ERRORS = {
    "unknown name": ("  name: powerofchoice\n", "line 5: there is no sampler 'powerofchoice'; did you mean"),
    "unknown key": (
        "  fraction_trian: 0.5\n",
        "line 5: unknown key 'fraction_trian' in 'sampler'; did you mean 'fraction_train'?",
    ),
    "unknown parameter": (
        "  name: importance\n  metrics: x\n",
        "line 6: unknown key 'metrics' in 'sampler'; did you mean 'metric'?",
    ),
    "parameter of another": ("  name: uniform\n  metric: x\n", "line 6: unknown key 'metric' in 'sampler'"),
    "no share": ("  fraction_train: 0\n", "line 5: 'sampler.fraction_train' must be a number above 0, at most 1 or"),
    "no number": ("  fraction_train: .nan\n", "'sampler.fraction_train' must be a number above 0, at most 1 or null"),
    "no minimum": ("  min_clients: 0\n", "line 5: 'sampler.min_clients' must be a whole number from 1, found 0"),
    "fewer than none": ("  over_selection: -0.1\n", "line 5: 'sampler.over_selection' must be a number from 0, found"),
    "no count": ("  count: 0\n", "line 5: 'sampler.count' must be a whole number from 1 or null, found 0"),
    "share and count": (
        "  fraction_train: 0.5\n  count: 3\n",
        "line 6: 'sampler.count' excludes 'sampler.fraction_train': each of them sets the number of clients",
    ),
    "count and groups": ("  count: 3\n  groups: {a: 1}\n", "line 6: 'sampler.groups' excludes 'sampler.count'"),
    "minimum and groups": (
        "  min_clients: 2\n  groups: {a: 1}\n",
        "line 5: 'sampler.min_clients' has no effect with 'sampler.groups'",
    ),
    "no groups": ("  groups: {}\n", "line 5: 'sampler.groups' is empty"),
    "group without a number": ("  groups: {a: half}\n", "line 5: 'sampler.groups.a' must be a whole number from 1 or"),
    "certain drop-out": ("  dropout: 1\n", "line 5: 'sampler.dropout' must be a number from 0, below 1, found 1"),
    "all held out": ("  held_out: 1.0\n", "line 5: 'sampler.held_out' must be a whole number from 1 or a number above"),
    "no availability": ("  availability: {}\n", "line 5: 'sampler.availability' needs either a trace or a rate"),
    "both": ("  availability: {rate: 0.5, trace: t.csv}\n", "'sampler.availability' needs either a trace or a rate"),
    "a rate alone": ("  availability: 0.5\n", "line 5: 'sampler.availability' must be a section"),
    "unknown key in it": (
        "  availability:\n    rates: 0.5\n",
        "line 6: unknown key 'rates' in 'sampler.availability'; did you mean 'rate'?",
    ),
    "minimum of poisson": (
        "  name: poisson\n  min_clients: 2\n",
        "line 6: 'sampler.min_clients' cannot be used with the sampler 'poisson'",
    ),
    "over-selection of groups": (
        "  over_selection: 0.5\n  groups: {a: 1}\n",
        "line 5: 'sampler.over_selection' cannot be used with 'sampler.groups'",
    ),
    "over-selection of poisson": (
        "  name: poisson\n  over_selection: 0.5\n",
        "line 6: 'sampler.over_selection' cannot",
    ),
    "no module": ("  name: 'no_such:Mine'\n", "line 5: 'no_such:Mine' cannot be imported: ModuleNotFoundError"),
    "no file": ("  file: mine.py\n", "mine.py: the Python file cannot be read: No such file"),
    "file that is no path": ("  file: 3\n", "line 5: 'sampler.file' must be the path of a Python file"),
}


@pytest.mark.parametrize("case", ERRORS)
def test_errors_say_the_line_and_what_is_near(case: str, tmp_path: Path) -> None:
    text, words = ERRORS[case]
    with pytest.raises(ConfigError) as caught:
        resolved(tmp_path / "Läufe und mehr", text)
    assert words in caught.value.message


def test_metric_that_nobody_reports_is_an_error_with_those_that_are_there() -> None:
    for name in ("importance", "power_of_choice"):
        with pytest.raises(
            ConfigError, match=r"it needs the metric 'los', which no client has reported; did you mean 'loss'"
        ):
            sample({"name": name, "metric": "los", "count": 1}, candidates(3, losses=[1.0, None, None]))


MINE = """
from __future__ import annotations
from dataclasses import dataclass
from fedpkg.samplers import register_sampler

@register_sampler("last_ones")
@dataclass(frozen=True)
class LastOnes:
    '''The last of the clients.'''
    skip: int = 0

    def choose(self, candidates, number, rng):
        return range(len(candidates) - self.skip - number, len(candidates) - self.skip)
"""


def test_a_file_beside_the_run_yaml_registers_a_sampler(tmp_path: Path) -> None:
    folder = tmp_path / "mein Ordner ü"
    folder.mkdir()
    (folder / "mine.py").write_text(MINE)
    section = resolved(folder, "  file: mine.py\n  skip: 2\n  count: 3\n")
    assert section["name"] == "last_ones" and section["file"] == str(folder / "mine.py")
    assert section["file_sha256"] == sha256_file(folder / "mine.py")
    of = candidates(9)
    assert places(sample(section, of), of) == [4, 5, 6]
    with pytest.raises(ConfigError, match=r"unknown key 'skp' in 'sampler'; did you mean 'skip'\?"):
        resolved(folder, "  file: mine.py\n  skp: 2\n")


def test_files_that_cannot_be_used_are_clear_errors(tmp_path: Path) -> None:
    for text, words in {
        "x = 1\n": "has a file, but no name",
        MINE.replace("last_ones", "uniform"): "the name 'uniform' is taken: fedpkg has a sampler of that name",
        MINE.replace("last_ones", "mine").replace("skip", "dropout"): "its parameter 'dropout' is a key that every",
    }.items():
        (tmp_path / "bad.py").write_text(text)
        with pytest.raises(ConfigError) as caught:
            resolved(tmp_path, "  file: bad.py\n")
        assert words in str(caught.value)


def test_dotted_path_and_installed_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = tmp_path / "their_samplers-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: their-samplers\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text("[fedpkg.samplers]\ntheirs = their_sampler_module:LastOnes\n")
    (tmp_path / "their_sampler_module.py").write_text(MINE.replace('@register_sampler("last_ones")', ""))
    monkeypatch.syspath_prepend(tmp_path)
    assert SAMPLERS.installed() == {"theirs": "their_sampler_module:LastOnes"}
    of = candidates(5)
    for name in ("theirs", "their_sampler_module:LastOnes"):
        assert places(sample(resolved(tmp_path, f"  name: {name}\n  count: 2\n  skip: 1\n"), of), of) == [2, 3]
    del sys.modules["their_sampler_module"]


def test_trace_is_found_beside_the_run_yaml_and_must_stay_as_it_was(tmp_path: Path) -> None:
    folder = tmp_path / "Läufe"
    folder.mkdir()
    (folder / "wer da ist.csv").write_text("client,from_round,to_round\nclient-1,2,\n")
    section = resolved(folder, "  availability: {trace: wer da ist.csv}\n")
    availability = section["availability"]
    assert isinstance(availability, dict) and availability["trace"] == str(folder / "wer da ist.csv")
    assert make_sampler(section).availability is not None
    (folder / "wer da ist.csv").write_text("client,from_round,to_round\nclient-2,2,\n")
    with pytest.raises(
        ConfigError, match=r"wer da ist.csv is not the trace with which the session began \(sha256 [0-9a-f]{64}\)"
    ):
        make_sampler(section)
    (folder / "wer da ist.csv").unlink()
    with pytest.raises(DataError, match=r"wer da ist.csv: the trace cannot be read: No such file"):
        make_sampler(section)
