"""``fedpkg home``: what a check finds, and what pruning removes and leaves."""

import os
import re
import shutil
import sqlite3
from contextlib import closing

import numpy as np
import pytest
from cli_support import MISBEHAVE, fedpkg, write_run_yaml

from fedpkg.config import ClientsConfig, DataConfig
from fedpkg.data.clients import prepare_clients
from fedpkg.stores.home import Home
from fedpkg.stores.opening import open_store


@pytest.fixture
def home(finished, here):
    """A copy of a finished session's home, to be damaged."""
    shutil.copytree(finished[0], here / "ett hem", symlinks=True)
    return Home.open(here / "ett hem", create=False)


def model_file(home, ref):
    with open_store(home, read_only=True) as store:
        model = store.get_model(f"{store.list_sessions()[-1].session_id}.{ref}")
    return home.models / model.digest[:2] / f"{model.digest}{model.suffix}"


def session_folder(home):
    return next(folder for folder in sorted(home.sessions.iterdir()) if folder.name not in ("begun-1", "nobody-1"))


def check(home):
    ended = fedpkg("home", "check", "--home", home.root, "--json")
    return ended.code, ended.json()["findings"]


def test_a_sound_home_is_clean_and_the_check_says_what_it_read(home):
    assert check(home) == (0, [])
    checked, verdict = fedpkg("home", "check", "--home", home.root).out.splitlines()
    assert re.fullmatch(r"checked 1 session, 3 models, 1 package.*; [1-9][0-9.]* [kM]B were read", checked)
    assert verdict == "nothing damaged, 0 notes"


def change_model(home):
    path = model_file(home, 1)
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    return path, "its bytes changed"


def remove_model(home):
    path = model_file(home, 1)
    path.unlink()
    return path, "is missing"


def make_model_a_pipe(home):
    path = remove_model(home)[0]
    os.mkfifo(path)
    return path, "not a regular file"


def change_row(home):
    with closing(sqlite3.connect(home.state_db)) as connection, connection:
        connection.execute("update rounds set metrics = '7'")
    return home.state_db, "rounds.metrics of session_id"


def remove_client_state(home):
    with closing(sqlite3.connect(home.state_db)) as connection, connection:
        connection.execute("update clients set state_version = '2-train' where client_id = 'client-0'")
    return session_folder(home) / "clients" / "client-0" / "2-train", "the state of client-0 in session"


def package(home):
    (entry,) = home.packages.glob("[0-9a-f]*")
    return entry


def change_package(home):
    path = package(home) / "files" / "misbehave" / "entrypoint.py"
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    return package(home), "'misbehave/entrypoint.py' was changed"


def add_to_package(home):
    (package(home) / "files" / "misbehave" / "numpy.py").touch()
    return package(home), "'misbehave/numpy.py' does not belong to it"


def remove_from_package(home):
    (package(home) / "files" / "misbehave" / "entrypoint.py").unlink()
    return package(home), "'misbehave/entrypoint.py' is missing"


def half_unpack(home):
    (package(home) / "package.json").write_text('{"folder": "misbe')
    return package(home), "not unpacked completely"


def remove_package_of_unfinished(home):
    with closing(sqlite3.connect(home.state_db)) as connection, connection:
        connection.execute("update sessions set status = 'failed'")
    path = package(home)
    shutil.rmtree(path)
    return path, "package of a session that is not finished is missing"


def remove_session_folder(home):
    path = session_folder(home)
    shutil.rmtree(path)
    return path, "folder of session"


def break_database(home):
    with open(home.state_db, "r+b") as file:
        file.write(b"not a database at all")
    return home.state_db, "not a database"


def remove_database(home):
    home.state_db.unlink()
    return home.state_db, "no state database"


def break_rows(home):
    with closing(sqlite3.connect(home.state_db)) as connection, connection:
        connection.execute("update models set parent_id = 'nobody.7' where round_number = 2")
    return home.state_db, "a row of models refers to a row of models"


@pytest.mark.parametrize(
    "damage",
    [
        change_model,
        remove_model,
        make_model_a_pipe,
        change_row,
        remove_client_state,
        change_package,
        add_to_package,
        remove_from_package,
        half_unpack,
        remove_package_of_unfinished,
        remove_session_folder,
        break_database,
        remove_database,
        break_rows,
    ],
)
def test_damage_is_found_with_its_place_and_exit_code_7(damage, home):
    place, problem = damage(home)
    code, findings = check(home)
    assert code == 7
    damaged = [finding for finding in findings if finding["damaged"]]
    assert [finding["place"] for finding in damaged] == [str(place)]
    assert problem in damaged[0]["problem"]
    assert damaged[0]["advice"]
    assert "1 damaged" in fedpkg("home", "check", "--home", home.root).out


def test_damaged_package_is_whole_again_after_what_the_check_advises(home):
    path, _ = change_package(home)
    (finding,) = check(home)[1]
    assert finding["advice"].endswith("(or folder) again: fedpkg package inspect ARCHIVE")
    shutil.rmtree(path)
    assert fedpkg("package", "inspect", MISBEHAVE, "--home", home.root).code == 0
    assert check(home) == (0, [])


@pytest.mark.parametrize(("version", "words"), [(99, "was written by a newer fedpkg"), (1, "by an older fedpkg")])
def test_database_of_another_fedpkg_is_told_as_such_and_not_as_damage(home, version, words):
    with closing(sqlite3.connect(home.state_db)) as connection, connection:
        connection.execute("update schema_version set version = ?", (version,))
    ended = fedpkg("home", "check", "--home", home.root)
    assert (ended.code, ended.out) == (7, "")
    assert words in ended.err
    assert "damage" not in ended.err
    assert fedpkg("home", "check", "--home", home.root, "--json").json()["error"]["type"] == "OtherSchema"


def leave_things(home):
    """Leftovers of every kind: what a prune removes, and what it only removes as orphans."""
    session = session_folder(home)
    clients, tasks = session / "clients", session / "round-1" / "client-0"
    leftovers = [
        home.models / ".123.abc.tmp",
        home.root / ".lock.json.1.ab.tmp",
        home.data / ".partition.tmp",
        home.packages / ".unpack-abc",
        home.packages / ("ab" * 32),
        clients / "client-0" / "9-train",
        session / "build.reply",
        session / "executor" / "models",
        session / "round-1" / ".payload-1-1.npz",
        tasks / "train-9.again-1",
        tasks / "train-9.reply",
        home.sessions / "begun-1",
    ]
    (tasks / "notes.txt").write_text("of the person who looks at this task")
    (home.sessions / "begun-1").mkdir()
    (home.sessions / "begun-1" / ".beginning").touch()
    orphans = [home.models / "ab" / f"ab{'0' * 62}.npz", home.sessions / "nobody-1"]
    for path in (*leftovers, orphans[1]):
        if path.suffix == ".tmp" and path.parent != home.data:
            path.write_bytes(b"12345")
        else:
            path.mkdir(parents=True, exist_ok=True)
            (path / "file").write_bytes(b"12345")
    orphans[0].parent.mkdir(exist_ok=True)
    shutil.copy(model_file(home, 0), orphans[0])
    return leftovers, orphans


def test_leftovers_are_notes_and_pruning_removes_them(home):
    leftovers, orphans = leave_things(home)
    orphans[0].unlink()  # its digest would be wrong
    code, findings = check(home)
    assert code == 0
    assert {finding["place"] for finding in findings} == {str(path) for path in (*leftovers, orphans[1])}
    before = fedpkg("home", "prune", "--home", home.root, "--dry-run", "--json").json()
    assert all(path.exists() for path in leftovers)
    document = fedpkg("home", "prune", "--home", home.root, "--json").json()
    assert document == {**before, "dry_run": False}
    assert {removal["path"] for removal in document["removed"]} == {str(path) for path in leftovers}
    assert document["size_bytes"] == 5 * len(leftovers)
    assert [path.name for path in leftovers if path.exists()] == ["train-9.again-1"], "no attempt may have that again"
    assert check(home)[1] == [finding for finding in findings if finding["place"] == str(orphans[1])]
    assert orphans[1].exists(), "what is not on record goes only on request"
    assert (session_folder(home) / "round-1" / "client-0" / "notes.txt").exists()


def split_by_references(home, here, name):
    """A split whose references lead to a copy, as compressed arrays cannot be mapped: its folder, and the copy."""
    x = np.full((300, 100), len(name), np.float32)
    np.savez_compressed(here / name, x_train=x, y_train=np.arange(300) % 3)
    before = set((home.data / "sources").glob("*"))
    clients = ClientsConfig(count=3, data=DataConfig(dataset=str(here / name), form="references"))
    files = prepare_clients(clients, cache=home.data, seed=1)
    (copy,) = set((home.data / "sources").glob("*")) - before
    return files[0].path.parent, copy


def test_a_copy_of_a_dataset_goes_when_no_split_refers_to_it(home, here):
    (_, needed), (folder, copy) = (split_by_references(home, here, name) for name in ("a.npz", "bb.npz"))
    of_a_killed_run = copy.with_name(f".{copy.stem}.tmp.npz")
    of_a_killed_run.write_bytes(b"half")
    copy.with_name("mine.npz").write_bytes(b"not of fedpkg")
    assert [row["path"] for row in pruned(home)] == [str(of_a_killed_run)]
    manifest = folder / "partition.json"
    content = manifest.read_text()
    shutil.rmtree(folder)
    code, (note,) = check(home)
    assert (code, note["place"], note["problem"]) == (0, str(copy), "a copy of a dataset to which no split refers")
    folder.mkdir()
    manifest.write_text(content[:-9])
    assert pruned(home, "--dry-run") == [], "a damaged split may refer to it"
    shutil.rmtree(folder)
    for words in (["--dry-run"], []):
        (row,) = pruned(home, *words)
        assert row["path"] == str(copy) and row["size_bytes"] > 120_000
    assert sorted(path.name for path in copy.parent.iterdir()) == sorted([needed.name, "mine.npz"])


def pruned(home, *words):
    return fedpkg("home", "prune", *words, "--home", home.root, "--json").json()["removed"]


def test_a_link_in_the_place_of_a_task_is_not_followed(home, here):
    (here / "elsewhere" / "train").mkdir(parents=True)
    (here / "elsewhere" / "train" / "precious").touch()
    tasks = session_folder(home) / "round-1"
    (tasks / "client-9").symlink_to(here / "elsewhere")
    (tasks / "client-0" / "train-9").symlink_to(here / "elsewhere" / "train")
    assert [finding["place"] for finding in check(home)[1]] == [str(tasks / "client-0" / "train-9")]
    assert fedpkg("home", "prune", "--home", home.root).code == 0
    assert (here / "elsewhere" / "train" / "precious").exists()
    assert not (tasks / "client-0" / "train-9").is_symlink()


def test_orphans_go_on_request(home):
    _, orphans = leave_things(home)
    assert fedpkg("home", "prune", "--home", home.root).code == 0
    assert all(path.exists() for path in orphans)
    assert fedpkg("home", "prune", "--home", home.root, "--orphans").code == 0
    assert not any(path.exists() for path in orphans)
    assert check(home) == (0, [])


def test_what_an_unfinished_session_needs_is_never_pruned(home):
    with open_store(home) as store:
        session = store.list_sessions()[-1].session_id
    rules = ["--keep-models", "last 1", "--keep-task-folders", "last 1"]
    with closing(sqlite3.connect(home.state_db)) as connection, connection:
        connection.execute("update rounds set status = 'training' where round_number = 2")
        connection.execute("update sessions set status = 'failed'")
        connection.execute("update tasks set state_version = '2-train' where round_number = 2 and status = 'ok'")
        connection.execute("update clients set state_version = '1-train' where client_id = 'client-0'")
    states = [session_folder(home) / "clients" / "client-0" / version for version in ("1-train", "2-train")]
    for state in states:
        state.mkdir(parents=True)
    assert fedpkg("home", "prune", "--home", home.root, *rules).code == 0
    assert sorted(session_folder(home).glob("clients/*/*")) == states
    assert all(model_file(home, number).exists() for number in range(3))
    assert sorted(path.name for path in session_folder(home).glob("round-*")) == ["round-1", "round-2"]
    assert fedpkg("session", "show", session, "--home", home.root).code == 0


def test_pruned_models_are_named_by_lists_and_refused_by_export(home):
    assert fedpkg("session", "resume", "--rounds", "4", "--home", home.root).code == 0
    ended = fedpkg("home", "prune", "--home", home.root, "--session", "try", "--keep-models", "last 1")
    assert ended.code == 0
    assert ended.out.count("models: keep last 1") == 2
    assert [model_file(home, number).exists() for number in range(5)] == [True, False, False, True, True]
    assert fedpkg("model", "list", "--home", home.root).out.count("pruned (kept: last 1)") == 2
    export = fedpkg("model", "export", "latest.1", "-o", "model.npz", "--home", home.root)
    assert export.code == 7
    assert "was pruned by the rule keep last 1" in export.err
    assert fedpkg("model", "export", "latest", "-o", "model.npz", "--home", home.root).code == 0
    assert check(home) == (0, [])


@pytest.mark.parametrize("rule", ["last", "last 0", "every", "first 3", "last -1", "3", ""])
def test_a_wrong_rule_is_refused(rule, home):
    ended = fedpkg("home", "prune", "--home", home.root, "--keep-models", rule)
    assert ended.code == 3
    assert "'all', 'last N' or 'every N'" in ended.err


def test_pruning_a_home_without_a_database_removes_nothing(home):
    _, orphans = leave_things(home)
    home.state_db.unlink()
    ended = fedpkg("home", "prune", "--home", home.root, "--orphans")
    assert ended.code == 7
    assert "no state database" in ended.err
    assert not home.state_db.exists()
    assert all(path.exists() for path in orphans)


def test_pruning_waits_for_nobody(home):
    with home.lock():
        assert fedpkg("home", "prune", "--home", home.root).code == 7
        checked = fedpkg("home", "check", "--home", home.root)
    assert checked.code == 0
    assert "another process uses this home" in checked.err


def test_logs_of_a_failed_build_outlive_the_next_run(here):
    package = here / "bygger inte"
    package.mkdir()
    command = "{command: sh -c 'echo why >&2; exit 3'}"
    (package / "fedn.yaml").write_text(f"entry_points:\n  build: {command}\n  train: {command}\n")
    run_yaml = write_run_yaml(here, package=str(package))
    for _ in range(2):
        assert fedpkg("run", run_yaml, "--home", "home").code == 8
    logs = sorted((here / "home" / "sessions").glob("*/build/stderr.log"))
    assert [path.read_text() for path in logs] == ["why\n"] * 2
