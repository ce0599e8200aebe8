"""`fedpkg run APP`: the configuration that comes from a message app and the command line; other commands on one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from message_apps import PYPROJECT, make_app

from fedpkg.cli.main import run_command
from fedpkg.config import dump_config
from fedpkg.errors import ConfigError
from fedpkg.session.app_run import AppOptions
from fedpkg.session.configuration import load
from fedpkg.session.package_run import load_app, run_of_package


@pytest.fixture
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return make_app(tmp_path / "app")


def values_of(app: Path, *words: str, **options: object) -> dict[str, object]:
    return load_app(app, words, AppOptions(**options), cache=app.parent / "cache").config.run_config  # type: ignore[arg-type]


def test_the_apps_file_gives_everything(app: Path) -> None:
    loaded = load_app(app, (), AppOptions(), cache=app.parent / "cache")
    config = loaded.config
    assert (config.package, config.name, config.clients.count) == (str(app), "my-app", 4)
    assert config.strategy["name"] == "server_app"
    assert (config.strategy["folder"], config.strategy["app"]) == (str(app), "quick.server_app:app")
    assert config.run_config["train.lr"] == 0.5
    assert config.python_env == "current"
    assert loaded.origins["run_config.train.lr"] == f"{app}/pyproject.toml:19"


def test_a_bare_key_is_the_apps_and_run_dot_one_of_the_run_yaml(app: Path) -> None:
    words = ("learning-rate=1", "train.lr=2", "name='3'", "use-gpu=true", "run.seed=7", "run.executor.workers=2")
    loaded = load_app(app, words, AppOptions(), cache=app.parent / "cache")
    given = loaded.config.run_config
    assert [given[key] for key in ("learning-rate", "train.lr", "name", "use-gpu")] == [1.0, 2.0, "3", True]
    assert isinstance(given["learning-rate"], float)
    assert (loaded.config.seed, loaded.config.executor.workers, loaded.config.name) == (7, 2, "my-app")
    assert loaded.origins["run_config.train.lr"] == "command line"


def test_what_looks_like_a_reference_to_another_key_is_text(app: Path) -> None:
    assert values_of(app, "name=${oc.env:HOME}")["name"] == "${oc.env:HOME}"


def test_the_references_way_to_set_values(app: Path) -> None:
    (app.parent / "more.toml").write_text("use-gpu = true\nname = 'toml'\n[train]\nlr = 3\n")
    given = values_of(app, "learning-rate=4", run_config=('learning-rate=2 name="a b"', "more.toml"))
    assert [given[key] for key in ("learning-rate", "use-gpu", "name", "train.lr")] == [4.0, True, "toml", 3.0]


def test_the_number_of_nodes(app: Path, tmp_path: Path) -> None:
    def nodes(**options: object) -> int | None:
        return load_app(app, (), AppOptions(**options), cache=tmp_path / "cache").config.clients.count  # type: ignore[arg-type]

    assert (nodes(), nodes(federation="big"), nodes(federation="big", nodes=3)) == (4, 100, 3)
    make_app(app, PYPROJECT.partition("[tool.flwr.federations]")[0])
    assert nodes() == 10


def test_rounds_are_the_apps_own(app: Path) -> None:
    assert values_of(app, rounds=9)["num-server-rounds"] == 9


def test_an_archive_is_run_like_its_folder(app: Path, tmp_path: Path) -> None:
    assert run_command(["package", "build", str(app), "-o", "app.tar.gz"]) == 0
    config = load_app(tmp_path / "app.tar.gz", (), AppOptions(), cache=tmp_path / "cache").config
    assert Path(str(config.strategy["folder"]), "quick/server_app.py").is_file()


def test_python_and_package_run_an_app_as_the_command_does(app: Path, tmp_path: Path) -> None:
    config, ways = run_of_package(app, ["learning-rate=0.3", "run.seed=2"], cache=tmp_path / "cache", clients=5)
    assert (config.run_config["learning-rate"], config.seed, config.clients.count, ways.ways) == (0.3, 2, 5, ())


@pytest.mark.parametrize(
    ("words", "options", "message", "hint"),
    [
        (("lerning-rate=1",), {}, "has no key 'lerning-rate'; did you mean 'learning-rate'", "num-server-rounds"),
        (("seed=1",), {}, "has no key 'seed'", "run.seed=1"),
        (("learning-rate=fast",), {}, "'learning-rate' must be a number", None),
        (("num-server-rounds=2.5",), {}, "must be a whole number", None),
        (("use-gpu",), {}, "'use-gpu' is not key=value", "num-server-rounds=3"),
        (("run.sed=1",), {}, "sed", None),
        ((), {"federation": "lokal"}, "no federation 'lokal'; did you mean 'local'", "local, big"),
        ((), {"run_config": ("name='",)}, "no closing quotation", "-c"),
        ((), {"run_config": ("none.toml",)}, "none.toml: cannot be read", None),
    ],
)
def test_what_is_wrong_is_named(
    app: Path, words: tuple[str, ...], options: dict[str, object], message: str, hint: str | None
) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        values_of(app, *words, **options)
    assert hint is None or hint in (caught.value.hint or "")


def test_a_run_yaml_may_name_an_app(app: Path) -> None:
    text = "package: app\nrounds: 3\nclients: {count: 2}\nstrategy: {name: server_app}\nrun_config: {train: {lr: 9}}\n"
    Path("run.yaml").write_text(text)
    config = load(Path("run.yaml")).config
    assert config.strategy["app"] == "quick.server_app:app"
    assert (config.run_config["train.lr"], config.run_config["learning-rate"]) == (9, 0.1)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            "{learning-rat: 1}",
            r"run.yaml, line 5: the app my-app has no key 'learning-rat'; did you mean 'learning-rate'\?",
        ),
        ("{train: {lrr: 1}}", "the app my-app has no key 'train.lrr'"),
        ("{learning-rate: fast}", "'learning-rate' must be a number, as in the app's pyproject.toml, not 'fast'"),
        ("{use-gpu: 1}", "'use-gpu' must be true or false"),
        ("{num-server-rounds: 2.5}", "'num-server-rounds' must be a whole number"),
        ("{name: 3}", "'name' must be a text"),
    ],
)
def test_a_run_yaml_sets_only_what_the_app_has(app: Path, values: str, message: str) -> None:
    text = "package: app\nrounds: null\nclients: {count: 2}\nstrategy: {name: server_app}\n"
    Path("run.yaml").write_text(f"{text}run_config: {values}\n")
    with pytest.raises(ConfigError, match=message):
        load(Path("run.yaml"))
    assert load(Path("run.yaml"), ["run_config={learning-rate: 2}"]).config.run_config["learning-rate"] == 2.0


def test_a_run_yaml_may_name_another_server_app(app: Path) -> None:
    (app / "other.py").write_text("app = 1\n")
    strategy = "{name: server_app, folder: app, app: 'other:app'}"
    Path("run.yaml").write_text(f"package: app\nrounds: null\nclients: {{count: 2}}\nstrategy: {strategy}\n")
    config = load(Path("run.yaml")).config
    assert (config.strategy["app"], config.run_config["learning-rate"]) == ("other:app", 0.1)


def test_init_writes_a_run_yaml_for_an_app(app: Path) -> None:
    assert run_command(["init", "app"]) == 0
    config, of_app = load(Path("run.yaml")).config, load_app(app, (), AppOptions(), cache=app.parent / "cache").config
    assert dump_config(config) == dump_config(of_app)


def test_a_sweep_of_an_app_is_one_of_its_run_yaml(app: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["experiment", "sweep", "app", "learning-rate=0.1,0.2"]) == 3
    assert f"fedpkg init {app} writes a run.yaml" in capsys.readouterr().err


def test_a_run_yaml_whose_package_is_no_app_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text("package: .\nrounds: 3\nclients: {count: 2}\nstrategy: {name: server_app}\n")
    with pytest.raises(ConfigError, match="line 4: 'server_app' needs a message app"):
        load(tmp_path / "run.yaml")


def test_config_shows_and_explains_an_app(app: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["config", "show", "app", "learning-rate=0.4", "--json"]) == 0
    leaves = {one["key"]: (one["value"], one["origin"]) for one in json.loads(capsys.readouterr().out)}
    assert leaves["run_config.learning-rate"] == (0.4, "command line")
    assert leaves["run_config.num-server-rounds"] == (3, "app/pyproject.toml:15")
    assert run_command(["config", "explain", "app", "--json"]) == 0
    explained = json.loads(capsys.readouterr().out)
    assert explained[1] == {"key": "learning-rate", "value": "number", "default": 0.1, "line": 16}


def test_an_apps_folder_names_what_comes_next(
    app: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(app)
    assert run_command([]) == 0
    out = capsys.readouterr().out
    assert "message app  this folder" in out and "fedpkg run ." in out and "fedpkg init" not in out


def test_a_package_inspected_is_a_message_app(app: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["package", "inspect", "app"]) == 0
    out = capsys.readouterr().out
    assert "message app  my-app 1.2.0" in out and "quick.server_app:app" in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["run", "app", "--seed-model", "x.npz"], "makes its own model"),
        (["run", "--federation", "local"], "need a message app"),
        (["run", "lib.tar.gz"], "compute package with a fedn.yaml"),
    ],
)
def test_options_that_do_not_fit(app: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    (app.parent / "lib").mkdir()
    (app.parent / "lib/fedn.yaml").write_text("entry_points: {train: {command: 'true'}}\n")
    assert run_command(["package", "build", "lib", "-o", "lib.tar.gz"]) == 0
    assert run_command(words) in (2, 3)
    assert message in capsys.readouterr().err


def test_keys_of_an_app_are_completed(app: Path) -> None:
    from fedpkg.cli.completing_keys import of_app

    def completed(incomplete: str) -> list[str]:
        return [item.value for item in of_app(app, (), incomplete) or ()]

    assert completed("le") == ["learning-rate="]
    assert completed("use-gpu=") == ["use-gpu=true", "use-gpu=false"]
    assert "run.executor." in completed("run.ex")
    assert of_app(app / "quick", (), "") is None


ONE_ROUND = """\
import numpy as np
from flwr.app import ArrayRecord
from flwr.serverapp import ServerApp
from flwr.serverapp.strategy import FedAvg

app = ServerApp()

@app.main()
def main(grid, context):
    FedAvg(fraction_evaluate=0.0).start(grid, ArrayRecord([np.zeros(2)]), num_rounds=1)
"""


@pytest.mark.slow
def test_a_run_whose_clients_have_all_failed_ends_with_an_error(app: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_app(app, client="import nothing_of_this_name\nfrom flwr.clientapp import ClientApp\napp = ClientApp()\n")
    (app / "quick/server_app.py").write_text(ONE_ROUND)
    assert run_command(["run", "app", "--nodes", "2"]) == 10
    told = capsys.readouterr().err
    assert "ModuleNotFoundError: No module named 'nothing_of_this_name'" in told
    assert "ended, but all 2 calls of its clients have failed" in told
    assert "fedpkg session resume --fresh" in told
