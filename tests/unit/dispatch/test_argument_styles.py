"""Programs that take their settings otherwise than as --key=value run as they are: hydra, argparse, click, spock."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

import fedpkg
from fedpkg.cli.main import run_command
from fedpkg.compute_package.arguments import fill_command, format_arguments, problem_of_style, takes_paths
from fedpkg.compute_package.spec import parse_spec
from fedpkg.config_reading import config_of
from fedpkg.errors import ConfigError, SpecError
from fedpkg.session.configuration import resolved
from fedpkg.stores.base import UpdateRow
from fedpkg.stores.opening import open_store

PACKAGES = Path(__file__).parents[2] / "packages" / "styles"
NOTE = 'it\'s {client_id}, a "test" of $x, a=b\\'
STYLES = {"hydra": "hydra", "argparse": None, "click": None, "words": None, "spock": "spock"}
TEXTS = st.text(st.characters(exclude_characters="\0\r\n", exclude_categories=["Cs"]), max_size=12)


@pytest.fixture(params=STYLES)
def package(request: pytest.FixtureRequest) -> Path:
    if library := STYLES[request.param]:
        pytest.importorskip(library)
    return PACKAGES / str(request.param)


def arguments(config: dict[str, object]) -> dict[str, object]:
    return {"rounds": 2, "clients": {"count": 2}, "arguments": {"train": {"theta": 0.5, "note": NOTE}}, **config}


def updates_of(session: fedpkg.Session) -> list[UpdateRow]:
    with open_store(session.home, read_only=True) as store:
        return store.list_updates(session.id)


@pytest.mark.slow
def test_a_run_gives_the_same_models_whatever_the_style(package: Path, tmp_path: Path) -> None:
    home = tmp_path / "a home"
    config = arguments({"package": str(package), "executor": {"name": "forkserver"}, "keep": {"updates": True}})
    session = fedpkg.run(config, home, progress=False)
    assert session.model()["w"].tolist() == [1.0, 1.0, 1.0]
    notes = [update.metadata["note"] for update in updates_of(session)]
    assert notes == [NOTE.replace("{client_id}", f"client-{k}") for k in (0, 1, 0, 1)]


@pytest.mark.soak
@pytest.mark.parametrize("executor", ["process", "resident", "isolated"])
def test_every_executor_gives_these_models(package: Path, executor: str, tmp_path: Path) -> None:
    name = "forkserver" if executor == "isolated" else executor
    options = {"executor": {"name": name}, "isolate": {"enabled": executor == "isolated"}}
    session = fedpkg.run(arguments({"package": str(package), **options}), tmp_path / "home", progress=False)
    assert session.model()["w"].tolist() == [1.0, 1.0, 1.0]


@pytest.mark.slow
def test_an_entry_point_is_called_by_hand_in_its_style(package: Path, tmp_path: Path) -> None:
    out = tmp_path / "seed.npz"
    assert run_command(["package", "call", str(package), "build", "-o", str(out)]) == 0
    update = tmp_path / "update.npz"
    words = [
        "package",
        "call",
        str(package),
        "train",
        "-i",
        str(out),
        "-o",
        str(update),
        "--",
        "--theta=0.25",
        "--note=x",
    ]
    assert run_command(words) == 0
    assert fedpkg.load(update)["w"].tolist() == [0.25] * 3


def test_a_run_yaml_can_set_the_style_of_a_package_that_does_not() -> None:
    tree = {"package": "p", "rounds": 1, "clients": {"count": 1}, "argument_style": "assignment"}
    with pytest.raises(ConfigError, match="'assignment' is not an argument style; did you mean 'assignments'"):
        config_of(tree, resolve=resolved)
    assert config_of({**tree, "argument_style": "-o {name}={value}"}, resolve=resolved).argument_style


def test_config_has_exactly_the_arguments_and_the_run_config_of_the_call(tmp_path: Path) -> None:
    (tmp_path / "fedn.yaml").write_text(
        "entry_points:\n  train: {command: python train.py {config} {in_model} {out_model} {client_number}}\n".replace(
            "{command: ", "\n    command: "
        ).replace("}}", "}")
    )
    (tmp_path / "train.py").write_text(
        "import json, shutil, sys\n"
        "config, given, out, number = sys.argv[1:]\n"
        "shutil.copy(given, out)\n"
        "open(out + '-metadata', 'w').write(json.dumps({'num_examples': 1, 'config': open(config).read()}))\n"
    )
    seed = tmp_path / "seed.npz"
    run_command(["package", "call", str(PACKAGES / "words"), "build", "-o", str(seed)])
    config = {
        "package": str(tmp_path),
        "seed_model": str(seed),
        "rounds": 1,
        "clients": {"count": 1},
        "validation": {"every": 0},
        "keep": {"updates": True},
        "run_config": {"depth": [1, 2], "lr": 1.0},
        "arguments": {"all": {"who": "{client_id}"}, "train": {"lr": 0.5, "nested": {"a": True}}},
    }
    session = fedpkg.run(config, tmp_path / "home", progress=False)
    (one,) = updates_of(session)
    merged = {"depth": [1, 2], "lr": 0.5, "who": "client-0", "nested": {"a": True}}
    assert yaml.safe_load(one.metadata["config"]) == merged


@given(TEXTS)
@example("it's \\'")
@settings(max_examples=60, deadline=None)
def test_placeholders_reach_the_program_as_they_are_whatever_the_quotes(value: str) -> None:
    command = fill_command(
        "printf '%s\\0' a={client_id} \"b {client_id}\" 'c {client_id}' \\{client_id} ${client_id}",
        {"client_id": value},
    )
    done = subprocess.run(["bash", "-c", command], capture_output=True, check=True, timeout=60, env={"client_id": ""})
    assert done.stdout.decode().split("\0") == [f"a={value}", f"b {value}", f"c {value}", "{client_id}", ""]


VALUES = st.recursive(
    st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=4,
)


@given(VALUES)
@example("true")
@example("1e3")
@example("${x}")
@example("\\'")
@example("ends \\")
@example("a:b")
def test_hydra_reads_assignments_as_the_values_they_were(value: object) -> None:
    overrides = pytest.importorskip("hydra.core.override_parser.overrides_parser").OverridesParser.create()
    from omegaconf import OmegaConf

    (word,) = format_arguments({"key": value}, "assignments")  # type: ignore[dict-item]
    read = OmegaConf.create({"key": overrides.parse_override(word).value()})
    assert OmegaConf.to_container(read, resolve=True)["key"] == value  # type: ignore[index, call-overload]


def test_arguments_become_words_in_each_style() -> None:
    given = {"lr": 0.1, "none": None, "on": True, "optimizer": {"name": "a b"}}
    assert format_arguments(given, "flags") == ["--lr=0.1", "--on=True", '--optimizer={"name": "a b"}']
    assert format_arguments(given, "assignments") == ["lr=0.1", "on=true", "optimizer.name='a b'"]
    assert format_arguments(given, "words") == ["0.1", "True", "a b"]
    assert format_arguments(given, "--set {name}={value}") == [
        *("--set", "lr=0.1", "--set", "on=True", "--set", "optimizer.name=a b")
    ]


def test_paths_are_appended_unless_the_command_has_placeholders_for_them() -> None:
    assert takes_paths("python train.py {client_id} {config}")
    assert not takes_paths("python train.py in={in_model} out={out_model}")
    assert takes_paths("python train.py ${in_model}")  # a variable of bash


@pytest.mark.parametrize(
    ("command", "problem"),
    [
        ("train: {command: 'python a.py {in_modle} {out_model}'}", "there is no placeholder {in_modle}; did you mean"),
        ("train: {command: 'python a.py {in_model}'}", "the command has {in_model} but not {out_model}"),
        ("validate: {command: 'python a.py {out_model}'}", "the command has {out_model} but not {in_model}"),
        ("build: {command: 'python a.py {in_model} {out_model}'}", "'build' gets no input model"),
        ("startup: {command: 'python a.py {out_model}'}", "'startup' writes no model"),
        (
            "train: {command: python a.py, argument_style: wrds}",
            "'wrds' is not an argument style; did you mean 'words'",
        ),
        ("train: {command: python a.py, argument_style: '-o \"{value}'}", "has an open quote"),
    ],
)
def test_a_wrong_placeholder_or_style_is_refused_with_its_line(command: str, problem: str) -> None:
    with pytest.raises(SpecError) as caught:
        parse_spec(f"entry_points:\n  {command}\n", "fedn.yaml")
    assert "fedn.yaml, line 2: " in str(caught.value)
    assert problem in str(caught.value)


def test_a_template_needs_the_value() -> None:
    assert "a template with {value}" in str(problem_of_style("--{name}"))
    assert problem_of_style("--{name} {value}") is None
