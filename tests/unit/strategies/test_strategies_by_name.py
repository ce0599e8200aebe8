"""A run.yaml's strategy: by name, composed, from a file, a module or an installed package; and its errors."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cohorts import STRATEGY_NAMES, close, flat, section_of, stacked, told, weights

from fedpkg.config import dump_config
from fedpkg.config_reading import render
from fedpkg.config_shape import Places
from fedpkg.errors import ConfigError
from fedpkg.session.configuration import load
from fedpkg.strategies import make_strategy, resolve_strategy
from fedpkg.strategies.aggregators.bucketing import Bucketing
from fedpkg.strategies.aggregators.krum import Krum
from fedpkg.strategies.aggregators.mean import WeightedMean
from fedpkg.strategies.aggregators.median import Median
from fedpkg.strategies.pipeline import Pipeline
from fedpkg.strategies.registry import STRATEGIES
from fedpkg.strategies.server_optimisers.fedopt import Adam
from fedpkg.strategies.server_optimisers.schedules import Cosine
from fedpkg.strategies.server_optimisers.sgd import Sgd
from fedpkg.weights.weights import Weights

HEAD = "package: p\nrounds: 1\nclients: {count: 9}\nstrategy:\n"


def resolved(folder: Path, text: str, *overrides: str) -> dict[str, object]:
    folder.mkdir(exist_ok=True)
    (folder / "run.yaml").write_text(HEAD + text)
    return load(folder / "run.yaml", overrides).config.strategy


@pytest.mark.parametrize("name", STRATEGY_NAMES)
def test_every_name_resolves_to_all_its_parameters_and_again_to_the_same(name: str) -> None:
    places = Places("here")
    once = resolve_strategy(section_of(name), places)
    assert set(STRATEGIES.find("strategy", name, places, ()).parameters) <= set(once)
    assert resolve_strategy(once, places) == once
    assert isinstance(make_strategy(once), Pipeline)


@pytest.mark.parametrize("name", STRATEGY_NAMES)
def test_every_strategy_says_what_it_is(name: str) -> None:
    spec = STRATEGIES.find("strategy", name, Places("here"), ())
    assert spec.about.endswith(".") and len(spec.about) < 120
    assert spec.equation and spec.attackers
    assert spec.paper or name in ("uniform_mean", "fedopt", "pipeline")


def test_default_is_fedavg(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(HEAD.removesuffix("strategy:\n"))
    transforms = {"transforms": [], "server_transforms": [], "download_transforms": []}
    assert load(tmp_path / "run.yaml").config.strategy == {
        "name": "fedavg",
        **transforms,
        "reply": "weights",
        "parameters": None,
    }
    assert make_strategy({"name": "fedavg"}) == Pipeline(WeightedMean())


@pytest.mark.parametrize(
    ("section", "parameters"),
    [
        ({"name": "fedadam", "parameters": {"proximal_mu": 0.5}}, {"proximal_mu": 0.5}),
        ({"aggregator": "median", "parameters": {"a": [1]}}, {"a": [1]}),
        (
            {"name": "fedprox", "proximal_mu": 0.2, "aggregator": "median", "server_optimiser": "adam"},
            {"proximal_mu": 0.2},
        ),
        ({"name": "moon", "mu": 2, "temperature": 0.1}, {"moon_mu": 2, "moon_temperature": 0.1}),
        ({"name": "fedlc"}, {"fedlc_tau": 1.0}),
        ({"name": "lg_fedavg", "local": ["body.*"]}, {"local_names": ["body.*"]}),
        ({"name": "fedbn"}, {"local_norms": True}),
        (
            {"name": "fedper", "local": ["head.*"], "parameters": {"proximal_mu": 0.1}},
            {"local_names": ["head.*"], "proximal_mu": 0.1},
        ),
        ({"name": "ditto", "lam": 0.3}, {"ditto_lambda": 0.3}),
        ({"name": "pfedme", "lam": 3, "eta": 0.1, "transforms": ["bfloat16"]}, {"pfedme_lambda": 3, "pfedme_eta": 0.1}),
    ],
)
def test_clients_are_told_the_parameters_of_their_part(section: dict[str, Any], parameters: dict[str, Any]) -> None:
    strategy = make_strategy(section)
    assert isinstance(strategy, Pipeline)
    _, (request,) = strategy.ask(strategy.init(Weights({"w": torch.zeros(1)})), np.random.default_rng(0))
    assert request.parameters == parameters


@pytest.mark.parametrize(
    ("section", "says"),
    [
        ({"name": "fedprox", "parameters": {"proximal_mu": 1}}, "proximal_mu is set by the strategy's own keys"),
        ({"name": "fedper", "local": []}, "local is empty"),
    ],
)
def test_a_method_of_the_clients_is_said_once_and_of_something(section: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        make_strategy(section)


def test_pfedmes_server_goes_beta_of_the_way() -> None:
    start, ends = weights(0), [weights(1), weights(2)]
    section = {
        "name": "pfedme",
        "aggregator": "uniform_mean",
        "server_optimiser": {"name": "sgd", "learning_rate": 0.25, "momentum": 0},
    }
    model = told(section, start, ends, examples=[1, 99])
    close(model, 0.75 * flat(start) + 0.25 * stacked(ends).mean(0))


def test_parts_nest(tmp_path: Path) -> None:
    text = """
  aggregator: {name: bucketing, inner: {name: krum, attackers: 2}, size: 3}
  server_optimiser: {name: adam, learning_rate: 0.5, schedule: {name: cosine, rounds: 7}}
"""
    section = resolved(tmp_path, text)
    assert make_strategy(section) == Pipeline(
        Bucketing(Krum(attackers=2), 3), Adam(learning_rate=0.5, schedule=Cosine(rounds=7))
    )
    assert section["server_optimiser"] == {
        "name": "adam",
        "learning_rate": 0.5,
        "beta_1": 0.9,
        "beta_2": 0.99,
        "tau": 0.001,
        "schedule": {"name": "cosine", "rounds": 7, "final": 0.0, "warmup": 0},
    }


def test_either_part_alone(tmp_path: Path) -> None:
    assert make_strategy(resolved(tmp_path, "  aggregator: median\n")) == Pipeline(Median())
    only = resolved(tmp_path, "  server_optimiser: {name: sgd, momentum: 0}\n")
    assert make_strategy(only) == Pipeline(WeightedMean(), Sgd(momentum=0))


def test_overrides_set_parameters_and_null_takes_one_back(tmp_path: Path) -> None:
    text = "  name: krum\n  attackers: 3\n"
    assert resolved(tmp_path, text, "strategy.attackers=2")["attackers"] == 2
    assert resolved(tmp_path, text, "strategy.attackers=null")["attackers"] == 1
    other = resolved(tmp_path, text, "strategy.name=fedadam", "strategy.attackers=null", "strategy.tau=1e-4")
    assert (other["name"], other["tau"]) == ("fedadam", 1e-4) and "attackers" not in other


def test_config_show_lists_what_was_given_and_the_defaults(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(HEAD + "  name: multikrum\n  attackers: 3\n")
    rows = {key: (value, origin) for key, value, origin in render(load(tmp_path / "run.yaml"))}
    assert rows["strategy.attackers"] == (3, f"{tmp_path}/run.yaml:6")
    assert rows["strategy.select"] == (None, "default")


ERRORS = {
    "unknown name": ("  name: fedadm\n", "line 5: there is no strategy 'fedadm'; did you mean 'fedadam'?"),
    "unknown parameter": (
        "  name: krum\n  atackers: 2\n",
        "line 6: unknown key 'atackers' in 'strategy'; did you mean 'attackers'?",
    ),
    "wrong type": ("  name: krum\n  attackers: two\n", "line 6: 'strategy.attackers' must be a whole number from 0"),
    "out of bounds": (
        "  name: fedtrimmedavg\n  beta: 0.5\n",
        "line 6: 'strategy.beta' must be a number from 0, below 0.5",
    ),
    "infinite": (
        "  name: fedavgm\n  learning_rate: .inf\n",
        "line 6: 'strategy.learning_rate' must be a number above 0",
    ),
    "missing": ("  aggregator: fltrust\n", "missing key 'trusted' in 'strategy.aggregator'"),
    "unknown part": (
        "  aggregator:\n    name: medain\n",
        "line 6: there is no aggregator 'medain'; did you mean 'median'?",
    ),
    "unknown parameter of a part": (
        "  server_optimiser:\n    name: adam\n    schedule: {name: cosine, round: 3}\n",
        "line 7: unknown key 'round' in 'strategy.server_optimiser.schedule'; did you mean 'rounds'?",
    ),
    "part that is no name": ("  aggregator: 3\n", "line 5: 'strategy.aggregator' must be the name of an aggregator"),
    "name that is no text": ("  name: 3\n", "line 5: 'strategy.name' must be the name of a strategy, found 3"),
    "no module": (
        "  name: 'no_such_module:Mine'\n",
        "line 5: 'no_such_module:Mine' cannot be imported: ModuleNotFoundError",
    ),
    "no object": ("  name: 'json:Mine'\n", "line 5: 'json:Mine' cannot be imported: AttributeError"),
    "no class": ("  name: 'json:__name__'\n", "line 5: 'json:__name__' is neither a class nor a function"),
    "part of another kind": (
        "  aggregator: adam\n",
        "line 5: there is no aggregator 'adam'; there is a server optimiser of that name",
    ),
    "no file": ("  file: mine.py\n", "mine.py: the Python file cannot be read: No such file"),
    "nothing composed": ("  name: null\n  size: 3\n", "line 6: unknown key 'size' in 'strategy'"),
}


@pytest.mark.parametrize("case", ERRORS)
def test_errors_say_the_line_and_what_is_near(case: str, tmp_path: Path) -> None:
    text, words = ERRORS[case]
    with pytest.raises(ConfigError) as caught:
        resolved(tmp_path / "Läufe und mehr", text)
    assert words in caught.value.message


def test_parameters_that_do_not_go_together_are_an_error() -> None:
    with pytest.raises(ConfigError, match="strategy 'fedavgm': nesterov needs momentum"):
        make_strategy({"name": "fedavgm", "nesterov": True, "momentum": 0})
    with pytest.raises(ConfigError, match="aggregator 'bucketing': inner must be a robust aggregator"):
        make_strategy({"aggregator": {"name": "bucketing", "inner": "fedavg"}})
    by_client: list[Any] = ["bucketing", {"name": "fltrust", "trusted": "a"}]
    for inner in (*by_client, {"name": "norm_bounding", "by_examples": True}):
        with pytest.raises(ConfigError, match="inner must be an aggregator that accepts means of several updates"):
            make_strategy({"aggregator": {"name": "bucketing", "inner": inner}})


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ({"name": "os:getcwd"}, "strategy 'os:getcwd', of os, makes a str, which is no strategy"),
        ({"name": "fedpkg.strategies.aggregators.krum:Krum"}, "makes a Krum, which is no strategy"),
        ({"name": "os:getpgid", "pid": "x"}, "strategy 'os:getpgid', of os: TypeError"),
    ],
)
def test_what_is_made_must_be_a_strategy(section: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        make_strategy(section)


def test_hint_of_an_unknown_part_is_a_command_that_there_is() -> None:
    with pytest.raises(ConfigError) as caught:
        make_strategy({"aggregator": "quantise"})
    assert caught.value.hint == "fedpkg strategy list"


MINE = """
from __future__ import annotations
from dataclasses import dataclass
from fedpkg.strategies import register_strategy, register_aggregator
from fedpkg.strategies.pipeline import Pipeline
from fedpkg.strategies.aggregators.mean import WeightedMean

@register_strategy("mine", equation="w <- w")
@dataclass(frozen=True)
class Mine(Pipeline):
    '''My own.'''
    strength: float = 0.25
"""


def test_a_file_beside_the_run_yaml_registers_a_strategy(tmp_path: Path) -> None:
    folder = tmp_path / "mein Ordner ü"
    folder.mkdir()
    (folder / "mine.py").write_text(MINE)
    section = resolved(folder, "  file: mine.py\n  strength: 2\n")
    assert section["name"] == "mine" and section["file"] == str(folder / "mine.py") and section["strength"] == 2
    made = make_strategy(section)
    assert type(made).__name__ == "Mine" and made.strength == 2  # type: ignore[attr-defined]
    with pytest.raises(ConfigError, match=r"unknown key 'stength' in 'strategy'; did you mean 'strength'\?"):
        resolved(folder, "  file: mine.py\n  stength: 2\n")


def test_a_file_may_register_several_and_then_the_name_is_needed(tmp_path: Path) -> None:
    (tmp_path / "two.py").write_text(MINE.replace('"mine"', '"one"') + "\nregister_aggregator('two')(Mine)\n")
    assert resolved(tmp_path, "  file: two.py\n  name: one\n")["name"] == "one"
    with pytest.raises(ConfigError, match="'strategy' has a file, but no name") as caught:
        resolved(tmp_path, "  file: two.py\n")
    assert "one" in (caught.value.hint or "") and "two" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("x = 1\n", "has a file, but no name"),
        ("raise RuntimeError('oh')\n", "RuntimeError: oh"),
        ("def f(:\n", "SyntaxError"),
        ("import sys; sys.exit(3)\n", "SystemExit: 3"),
        (MINE.replace('"mine"', '"krum"'), "the name 'krum' is taken: fedpkg has a strategy of that name"),
    ],
)
def test_files_that_cannot_be_used_are_clear_errors(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "bad.py").write_text(text)
    with pytest.raises(ConfigError) as caught:
        resolved(tmp_path, "  file: bad.py\n")
    assert words in str(caught.value)
    assert make_strategy({"name": "krum"}) == Pipeline(Krum())


def test_dotted_path_of_a_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "module_of_mine.py").write_text(MINE.replace('@register_strategy("mine", equation="w <- w")', ""))
    monkeypatch.syspath_prepend(tmp_path)
    section = resolved(tmp_path, "  name: module_of_mine:Mine\n  strength: 3\n")
    assert make_strategy(section).strength == 3  # type: ignore[attr-defined]
    del sys.modules["module_of_mine"]


def test_installed_package_adds_a_strategy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = tmp_path / "their_strategies-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: their-strategies\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text(
        "[fedpkg.strategies]\ntheirs = their_module:Mine\nbroken = their_module:No\n"
    )
    (tmp_path / "their_module.py").write_text(MINE.replace('"mine"', '"theirs"'))
    monkeypatch.syspath_prepend(tmp_path)
    assert STRATEGIES.installed() == {"theirs": "their_module:Mine", "broken": "their_module:No"}
    section = resolved(tmp_path, "  name: theirs\n  strength: 5\n")
    assert make_strategy(section).strength == 5  # type: ignore[attr-defined]
    with pytest.raises(ConfigError, match=r"'broken', of the package their-strategies 1.2: 'their_module:No' cannot"):
        resolved(tmp_path, "  name: broken\n")


def test_stored_configuration_has_all_parameters(tmp_path: Path) -> None:
    """A session that resumes under a fedpkg with other defaults keeps its own."""
    (tmp_path / "run.yaml").write_text(HEAD + "  name: fedyogi\n")
    stored = dump_config(load(tmp_path / "run.yaml").config)["strategy"]
    assert isinstance(stored, dict) and stored["learning_rate"] == 0.01 and stored["tau"] == 1e-3
