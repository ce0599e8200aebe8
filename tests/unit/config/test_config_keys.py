"""What is said about the keys of a run.yaml: on the command line, and to editors."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
import yaml

from fedpkg.config import RunConfig
from fedpkg.config_keys import Key, find_key, json_schema, run_keys
from fedpkg.config_shape import Places, check_shape
from fedpkg.errors import ConfigError
from tests.unit.cli.cli_support import fedpkg

EXAMPLES = Path(__file__).parents[3] / "examples"


def all_keys() -> list[Key]:
    found = list(run_keys())
    for key in found:
        found += key.keys
    return found


@pytest.mark.parametrize("key", all_keys(), ids=lambda key: key.name)
def test_every_key_is_explained_in_sentences(key: Key) -> None:
    assert key.about[0].isupper() or key.about[0] == "`"
    assert key.about.endswith(".")


@pytest.mark.parametrize("key", all_keys(), ids=lambda key: key.name)
def test_examples_of_a_key_are_values_that_it_can_have(key: Key) -> None:
    for example in key.examples:
        tree: dict[str, object] = {"package": "client", "rounds": 1, "clients": {"count": 1}}
        *sections, last = key.name.split(".")
        section = tree
        for number, name in enumerate(sections):
            whole = find_key(".".join(sections[: number + 1]))
            required = {each.name.rpartition(".")[2]: "digits.npz" for each in whole.keys if each.is_required}
            section = section.setdefault(name, {} if name == "clients" else required)  # type: ignore[assignment]
        section[last] = example
        check_shape(tree, RunConfig, Places("the example"))


@pytest.mark.parametrize("file", sorted(EXAMPLES.glob("*/*.yaml")), ids=lambda file: f"{file.parent.name}/{file.name}")
def test_lessons_are_what_the_schema_allows(file: Path) -> None:
    tree = yaml.safe_load(file.read_text())
    if "package" not in tree or "defaults" in tree:
        pytest.skip("not a run.yaml")
    jsonschema.Draft202012Validator(json_schema()).validate(tree)
    assert file.read_text().splitlines()[0] == "# yaml-language-server: $schema=../run.schema.json"


def test_schema_beside_the_lessons_is_the_one_that_the_program_prints() -> None:
    assert json.loads((EXAMPLES / "run.schema.json").read_text()) == json_schema()


def test_schema_finds_a_misspelt_key() -> None:
    tree = {"package": "client", "rounds": 1, "clients": {"count": 1}, "round": {"requird": 2}}
    with pytest.raises(jsonschema.ValidationError, match="requird"):
        jsonschema.Draft202012Validator(json_schema()).validate(tree)


def test_explain_shows_one_key_a_section_or_all() -> None:
    one = fedpkg("config", "explain", "round.timeout_s").out
    assert one.startswith("Wall-clock limit of a round in seconds")
    assert "round.timeout_s: 60" in one
    section = json.loads(fedpkg("config", "explain", "limits", "--json").out)
    assert [each["key"] for each in section][:2] == ["limits.memory_bytes", "limits.cpu_s"]
    every = json.loads(fedpkg("config", "explain", "--json").out)
    assert {each["key"] for each in every} > {each["key"] for each in section}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("rond", "a run.yaml has no key 'rond'; did you mean 'round'?"),
        ("strategy.momentum", "the keys of 'strategy' depend on strategy.name"),
    ],
)
def test_unknown_key_is_an_error_that_says_the_nearest(name: str, message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        find_key(name)
    assert raised.value.message == message
