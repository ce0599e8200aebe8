"""``fedpkg init``, and what ``fedpkg`` alone says in a folder with a run.yaml or a package."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import jsonschema
import pytest
import yaml
from cli_support import MISBEHAVE, REPO, fedpkg
from test_run_package import WAYS, write_package, write_sites

from fedpkg.session.configuration import load

COMMENTED = re.compile(r"^( *)# ((?:[a-z_]+|  dataset|  partition|  train):(?: .*)?)$", re.MULTILINE)


def test_init_writes_a_run_yaml_that_runs_as_it_stands(here: Path) -> None:
    package = here / "my packages" / "nr 1 #é"
    shutil.copytree(MISBEHAVE, package)
    made = fedpkg("init", package, "--clients", "3")
    assert made.code == 0, made.err
    assert "fedpkg run run.yaml" in made.out
    text = (here / "run.yaml").read_text()
    assert text.startswith("# yaml-language-server: $schema=run.schema.json\n")
    schema = json.loads((here / "run.schema.json").read_text())
    assert schema == fedpkg("config", "schema").json()
    jsonschema.validate(yaml.safe_load(text), schema)
    assert max(map(len, text.splitlines())) <= 120
    assert 'package: "my packages/nr 1 #é"' in text, "relative to the run.yaml, and quoted where YAML wants it"
    ended = fedpkg("run", "run.yaml", "rounds=1")
    assert ended.code == 0, ended.err
    assert re.search(r"^ +1 +3 +0 ", ended.out, re.MULTILINE), "three clients answered"


@pytest.mark.parametrize(
    "way", [pytest.param(way, marks=() if way in ("folder", "parameter") else pytest.mark.soak) for way in WAYS]
)
def test_init_gives_clients_their_data_as_a_run_of_the_package_does(here: Path, way: str) -> None:
    train, command, _words = WAYS[way]
    write_package(here, train, command)
    write_sites(here)
    (here / "runs").mkdir()
    data = "data/clients/*" if way in ("folder", "client.yaml") else "data/clients/*/site.npz"
    assert fedpkg("init", "--data", data, "-o", "runs/of all.yaml").code == 0
    assert f"folders: ../{data}" in (here / "runs" / "of all.yaml").read_text()
    ended = fedpkg("run", "runs/of all.yaml", "rounds=1", "validation.every=0", "--json")
    assert ended.code == 0, ended.err
    same = fedpkg("run", "--package", "client", "--data", data, "--rounds", "1", "validation.every=0")
    assert same.code == 0, same.err
    models = json.loads(fedpkg("model", "list", "--all", "--json").out)
    assert len({model["digest"] for model in models if model["round_number"] == 1}) == 1


def test_init_overwrites_nothing_without_force(here: Path) -> None:
    (here / "run.yaml").write_text("mine")
    ended = fedpkg("init", MISBEHAVE)
    assert ended.code != 0 and "run.yaml exists already" in ended.err and "--force" in ended.err
    assert (here / "run.yaml").read_text() == "mine"
    (here / "run.schema.json").write_text("mine")
    assert fedpkg("init", MISBEHAVE, "-o", "other.yaml").code == 0
    assert (here / "run.schema.json").read_text() == "mine"
    assert fedpkg("init", MISBEHAVE, "--force").code == 0
    assert load(here / "run.yaml").config.package == str(MISBEHAVE)


def test_what_init_comments_out_is_right_when_it_is_commented_in(here: Path) -> None:
    shutil.copytree(MISBEHAVE, here / "client")
    (here / "data" / "clients" / "a").mkdir(parents=True)
    assert fedpkg("init").code == 0
    text = (here / "run.yaml").read_text()
    found = [match[2].strip().partition(":")[0] for match in COMMENTED.finditer(text)]
    assert found == ["seed_model", "folders", "data", "dataset", "partition", "arguments", "train"]
    without = re.sub(r" *# (folders):.*\n", "", text)
    for one in (without, re.sub(r" *# (data:|  dataset|  partition).*\n", "", text)):
        (here / "run.yaml").write_text(COMMENTED.sub(r"\1\2", one))
        config = load(here / "run.yaml").config
        assert config.seed_model == str(here / "seed.npz")
        assert config.arguments == {"train": {"lr": 0.01}}
        assert bool(config.clients.data) != bool(config.clients.folders)


def test_init_without_a_package_says_which_there_are(here: Path) -> None:
    shutil.copytree(MISBEHAVE, here / "packages" / "one")
    ended = fedpkg("init")
    assert ended.code != 0 and "found: packages/one" in ended.err


def test_a_package_without_build_gets_the_seed_model_beside_it(here: Path) -> None:
    package = here / "stations"
    shutil.copytree(REPO / "packages" / "shell-mean", package)
    text = (package / "fedn.yaml").read_text()
    (package / "fedn.yaml").write_text(re.sub(r"  build:\n.*\n", "", text))
    told = fedpkg("init", package).err
    assert "the package has no entry point build" in told
    shutil.copy(REPO / "seed_models" / "shell-mean.safetensors", here / "seed.safetensors")
    data = REPO / "examples" / "shell-mean" / "data" / "clients"
    ended = fedpkg("init", package, "--force", "--data", f"{data}/*")
    assert ended.err == ""
    assert fedpkg("run", "run.yaml", "rounds=1").code == 0


# --- fedpkg alone


def test_fedpkg_alone_shows_its_help_where_there_is_nothing_to_do(here: Path) -> None:
    assert fedpkg() == fedpkg("--help")
    assert fedpkg("--json").json() == {"found": {}, "next": []}


def commands() -> list[str]:
    return [step["command"] for step in fedpkg("--json").json()["next"]]


def test_fedpkg_alone_finds_the_package_in_the_folder_client_as_init_does(here: Path) -> None:
    (here / "client").mkdir()
    (here / "client" / "fedn.yaml").write_text("entry_points: {train: {command: python train.py}}\n")
    assert {"fedpkg init", "fedpkg package inspect client"} <= set(commands())


def test_fedpkg_alone_says_what_to_do_with_a_package_a_run_yaml_and_the_newest_session(here: Path) -> None:
    for file in MISBEHAVE.iterdir():
        if file.is_file():
            shutil.copy(file, here)
    assert "fedpkg init" in commands() and not any("run.yaml" in one for one in commands())
    assert fedpkg("init").code == 0
    assert {"fedpkg run run.yaml", "fedpkg package inspect ."} <= set(commands())
    assert "fedpkg init" not in commands()
    assert fedpkg("run", "run.yaml", "rounds=1").code == 0
    assert {"fedpkg session show", "fedpkg model export latest -o"} <= {
        one.rpartition(" ")[0] for one in commands()
    } | {*commands()}
    ended = fedpkg()
    assert (ended.code, ended.err) == (0, "")
    assert re.search(r"newest session +\S+, finished", ended.out)
    assert fedpkg("session", "stop").code == 0


def test_fedpkg_alone_says_what_is_wrong_with_a_run_yaml(here: Path) -> None:
    (here / "run.yaml").write_text("package: x\nrounds: 1\nclients: {count: 1}\nroundz: 3\n")
    ended = fedpkg()
    assert ended.code == 0
    assert "run.yaml, line 4: unknown key 'roundz'" in ended.out and "fedpkg config show run.yaml" in ended.out


def test_fedpkg_alone_says_how_to_go_on_with_a_session_that_was_cut_off(here: Path, finished: object) -> None:
    import sqlite3

    home = here / ".fedpkg"
    shutil.copytree(finished[0], home, symlinks=True)  # type: ignore[index]
    with sqlite3.connect(home / "state.db") as connection:
        connection.execute("update sessions set status = 'running'")
    connection.close()
    (here / "run.yaml").write_text(f"package: {MISBEHAVE}\nrounds: 1\nclients: {{count: 1}}\n")
    assert "fedpkg session resume" in commands()
