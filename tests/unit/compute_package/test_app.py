"""A message app as a compute package: what its pyproject.toml says, and each way in which it can be wrong."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest
from message_apps import CLIENT, PYPROJECT, make_app

from fedpkg.compute_package.algorithm import SERVED, spec_text
from fedpkg.compute_package.app import App, convert, is_app, read_app
from fedpkg.compute_package.build import build_package
from fedpkg.compute_package.spec import parse_spec, read_spec, spec_path
from fedpkg.compute_package.unpack import open_package
from fedpkg.dispatch.forkserver import preloads_for
from fedpkg.dispatch.site import PackageOnDisk
from fedpkg.environments.wanted import read_wanted
from fedpkg.errors import ArchiveError, FedpkgError, PackageError, SpecError
from fedpkg.toml_places import line_of

QUICK = {"quick/__init__.py", "quick/client_app.py", "quick/server_app.py", "quick/task.py"}


@pytest.fixture
def app(tmp_path: Path) -> Path:
    return make_app(tmp_path / "my app")


def test_everything_is_read_and_nested_tables_become_dotted_keys(app: Path) -> None:
    config = {"num-server-rounds": 3, "learning-rate": 0.1, "use-gpu": False, "name": "a", "train.lr": 0.5}
    config["deep.er.value"] = -1
    assert read_app(app / "pyproject.toml") == App(
        name="my-app",
        version="1.2.0",
        server="quick.server_app:app",
        client="quick.client_app:app",
        config=config,
        lines=dict(zip(config, (15, 16, 17, 18, 19, 21), strict=True)),
        nodes=4,
        federations={"local": 4, "big": 100},
        exclude=("data/**",),
    )


def test_an_app_is_a_package_with_an_entry_point_for_each_category_of_messages(app: Path, tmp_path: Path) -> None:
    (app / "data").mkdir()
    (app / "data" / "big.csv").write_text("1")
    folder = open_package(app, tmp_path / "cache")
    archive = build_package(app, tmp_path / "app.tar.gz")
    package = open_package(tmp_path / "app.tar.gz", tmp_path / "cache")
    assert folder.digest == archive.digest == package.digest
    assert {name: one.command for name, one in package.spec.entry_points.items()} == dict.fromkeys(
        ("train", "evaluate", "query"), "python -m _fedpkg_client_app quick.client_app:app"
    )
    assert package.spec.app is not None and package.spec.app.name == "my-app"
    assert not [file.name for file in package.files if "data" in file.name]  # as fab-exclude says
    assert package.warnings() == ()


@pytest.mark.parametrize(
    ("include", "packed"),
    [
        ('["quick/**/*.py"]', QUICK),
        ('["/quick/", "**/words.txt"]', QUICK | {"words.txt", "deep/words.txt"}),
        ('["quick/*_app.py", "deep/words.txt"]', {"quick/client_app.py", "quick/server_app.py", "deep/words.txt"}),
    ],
)
def test_only_files_of_fab_include_are_packed(app: Path, tmp_path: Path, include: str, packed: set[str]) -> None:
    (app / "deep").mkdir()
    for name in ("words.txt", "deep/words.txt", "deep/other.txt"):
        (app / name).write_text("a")
    text = (app / "pyproject.toml").read_text()
    (app / "pyproject.toml").write_text(text.replace("[tool.flwr.app]", f"[tool.flwr.app]\nfab-include = {include}"))
    names = {file.name for file in open_package(app, tmp_path / "cache").files}
    assert names == {f"my app/{name}" for name in (*packed, "pyproject.toml")}


def test_an_archive_made_by_tar_is_an_app_too(app: Path, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "plain.tgz", "w:gz") as tar:
        tar.add(app, arcname="app")
    assert open_package(tmp_path / "plain.tgz", tmp_path / "cache").spec.app is not None


def test_a_module_may_be_a_link_inside_the_archive(app: Path, tmp_path: Path) -> None:
    (app / "quick/server_app.py").rename(app / "quick/server.py")
    (app / "quick/server_app.py").symlink_to("server.py")
    assert open_package(app, tmp_path / "cache").spec.app is not None


def test_an_archive_whose_pyproject_is_of_no_app_is_refused(tmp_path: Path) -> None:
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib/pyproject.toml").write_text("[project]\nname = 'lib'\n")
    with tarfile.open(tmp_path / "lib.tgz", "w:gz") as tar:
        tar.add(tmp_path / "lib", arcname="lib")
    with pytest.raises(FedpkgError, match=r"has no fedn\.yaml") as caught:
        open_package(tmp_path / "lib.tgz", tmp_path / "cache")
    assert isinstance(caught.value, ArchiveError)
    with pytest.raises(PackageError, match=r"has no fedn\.yaml"):
        open_package(tmp_path / "lib", tmp_path / "cache")


def test_a_fedn_yaml_takes_precedence(app: Path) -> None:
    (app / "fedn.yaml").write_text("entry_points: {train: {command: python train.py}}\n")
    assert read_spec(spec_path(app)).app is None


def test_the_clients_module_is_followed_for_the_warm_interpreter(app: Path, tmp_path: Path) -> None:
    (app / "quick/client_app.py").write_text(f"import os\nos.environ['SETTING'] = '1'\n{CLIENT}")
    (app / "quick/server_app.py").write_text("import os\nos.environ['OTHER'] = '2'\napp = 1\n")
    package = open_package(app, tmp_path / "cache")
    found = preloads_for(PackageOnDisk(package.digest, package.root, package.folder, package.spec))
    preload = found["-m _fedpkg_client_app"]
    assert preload.settings == ["os.environ['SETTING'] = '1'"]
    assert preload.steps[0] == ("import", "fedpkg.apps.client_program", ())  # before the app's settings, as in a task
    assert {"torch", "flwr.clientapp.ClientApp", "xml.dom", "numpy"} <= set(preload.modules)


def test_served_distributions_are_not_required(app: Path, tmp_path: Path) -> None:
    served = open_package(app, tmp_path / "cache").spec.served
    wanted = read_wanted(app, python_env="pyproject.toml", served=served)
    assert wanted is not None and [item.name for item in wanted.items] == ["numpy"]
    algorithm = parse_spec(spec_text("summary"), "fedn.yaml")
    assert algorithm.served == SERVED and "flwr" not in SERVED


@pytest.mark.parametrize(
    ("old", "new", "message", "hint"),
    [
        ('name = "my-app"\n', "", r"pyproject.toml, line 1: \[project\] has no 'name'", "name = "),
        ('name = "my-app"', "name = 3", "'project.name' must be a text", "name = "),
        ('name = "my-app"', 'name = "a\\u001b[2J"', "visible characters", "name = "),
        ("learning-rate = 0.1", '"a\\nb" = 0.1', "'a.nb', in which a part is empty or a character is invisible", None),
        ("learning-rate = 0.1", '"a." = 0.1', "'a.', in which a part is empty", None),
        ("[tool.flwr.app.components]", "[other]", r"line 6: it has no table \[tool.flwr.app.components\]", "serverapp"),
        ("clientapp =", "client_app =", r"line 10: .* has no 'clientapp'; did you mean 'client_app'", "client_app:app"),
        ('"quick.client_app:app"', "3", "line 12: 'clientapp' is 3, which is not 'module:object'", "clientapp = "),
        ("quick.client_app:app", "quick.client-app:app", "line 12: .*is not 'module:object'", None),
        ("quick.client_app:app", "quick.client_ap:app", "line 12: .*'quick.client_ap'.*mean 'quick.client_app'", "cre"),
        ("quick.client_app:app", "os:app", "line 12: .* module 'os', which is not in the app", r"create os.py"),
        ("quick.client_app:app", "quick.client_app:ap", "quick/client_app.py defines no 'ap'; did you mean 'app'", "a"),
        ("learning-rate = 0.1", "learning-rate = [1, 2]", "line 16: 'learning-rate' .* is a list", "1,2,3"),
        ("learning-rate = 0.1", "when = 2024-01-01", "line 16: 'when' .* is a date", "a number"),
        ("learning-rate = 0.1", "learning-rate = inf", "line 16: .*not a finite number", None),
        ("learning-rate = 0.1", "learning-rate = 18446744073709551616", "line 16: .*64 bits", None),
        ("train.lr = 0.5", '"deep.er.value" = 0.5', r"line 21: .* has 'deep.er.value' twice", None),
        ("train.lr = 0.5", 'train = 1\n"train.momentum" = 2', "line 20: .*contradicts itself: 'train'", "rename"),
        ("train.lr = 0.5", 'train.lr = 0.5\n"train" = 2', "line 20: not valid TOML", None),
        ("train.lr = 0.5", "train.lr = ", "line 19: not valid TOML", None),
        ('default = "local"', 'default = "lokal"', "line 24: .*'lokal' is not there; did you mean 'local'", "options"),
        ("num-supernodes = 4", "num-supernodes = 0", "line 26: .*a whole number from 1", None),
    ],
)  # fmt: skip
def test_a_wrong_file_is_refused_with_its_line(
    tmp_path: Path, old: str, new: str, message: str, hint: str | None
) -> None:
    assert PYPROJECT.count(old) == 1
    folder = make_app(tmp_path / "app", PYPROJECT.replace(old, new))
    assert is_app(folder)
    with pytest.raises(SpecError, match=message) as caught:
        open_package(folder, tmp_path / "cache")
    assert "pyproject.toml, line " in caught.value.message
    assert hint is None or hint in (caught.value.hint or "")


def test_objects_that_only_running_the_module_could_tell_are_accepted(tmp_path: Path) -> None:
    for number, client in enumerate(
        ("from quick.task import *", "globals()['app'] = 1", "if 1:\n    app = 2", "def (")
    ):
        assert read_app(make_app(tmp_path / str(number), client=client) / "pyproject.toml").client


def test_a_file_that_is_not_text_or_too_big_is_refused(app: Path) -> None:
    (app / "pyproject.toml").write_bytes(b"[tool.flwr]\nx = '\xff'\n")
    with pytest.raises(SpecError, match="line 2: not UTF-8"):
        read_app(app / "pyproject.toml")
    (app / "pyproject.toml").write_text("[tool.flwr]\n" + "#" * (64 << 10))
    with pytest.raises(SpecError, match="larger than 64 KiB"):
        read_app(app / "pyproject.toml")


def test_a_missing_entry_point_names_the_server_app(app: Path) -> None:
    with pytest.raises(SpecError) as caught:
        read_spec(app / "pyproject.toml").entry_point("validate")
    assert "message app" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("text", "like", "value"),
    [
        ("5", 3, 5),
        ("5", 0.1, 5.0),
        ("1e-3", 0.1, 0.001),
        ("TRUE", False, True),
        ("a b", "x", "a b"),
        ("'3'", "x", "3"),
        ("3", "x", "3"),
        ('""', "x", ""),
    ],
)
def test_a_text_becomes_a_value_of_the_files_type(text: str, like: object, value: object) -> None:
    found = convert("key", text, like)  # type: ignore[arg-type]
    assert (type(found), found) == (type(value), value)


@pytest.mark.parametrize(
    ("text", "like", "message"),
    [("2.5", 3, "whole number"), ("x", 0.1, "a number"), ("1", True, "true or false"), ("nan", 0.1, "out of range")],
)
def test_a_text_of_another_type_is_refused(text: str, like: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        convert("key", text, like)  # type: ignore[arg-type]


def test_lines_of_keys_in_all_spellings() -> None:
    text = "a = 1\n[ 'b' . \"c.d\" ]\ne.f = 2\ng = {h = 3}\n[[list]]\n"
    assert line_of(text, ["a"]) == 1
    assert line_of(text, ["b", "c.d"]) == 2
    assert line_of(text, ["b", "c.d", "e", "f"]) == 3
    assert line_of(text, ["b", "c.d", "g", "h"]) == 4
    assert line_of(text, ["b", "c.d", "not", "found"]) == 2
    assert line_of(text, ["z"]) is None
