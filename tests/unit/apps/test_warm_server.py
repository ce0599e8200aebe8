"""A ServerApp in a fork of its tasks' warm interpreter: the same bits as in a new process, whatever is killed."""

from __future__ import annotations

import dataclasses
import shutil
import sqlite3
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from federation import Federation

from fedpkg.compute_package.spec import read_spec
from fedpkg.config import RunConfig
from fedpkg.dispatch.forkserver import ForkserverLauncher
from fedpkg.dispatch.keepers import Call
from fedpkg.dispatch.site import PackageOnDisk
from fedpkg.dispatch.staging import base_environ
from fedpkg.errors import Interrupted, SessionFailed
from fedpkg.session import beginning
from fedpkg.session.control import Control

WARM = ("forkserver", "resident")
PYPROJECT = """
[project]
name = "my-app"
[tool.flwr.app.components]
serverapp = "my_app.server_app:app"
clientapp = "my_app.client_app:app"
"""
CLIENT = """
import os
import drawing
from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()

@app.train()
def train(message, context):
    w = message.content["arrays"]["w"].numpy() + context.node_id
    about = {"num-examples": context.node_id, "former": float("FEDPKG_IMPORTS_DRAW" in os.environ)}
    return Message(RecordDict({"arrays": ArrayRecord({"w": w}), "metrics": MetricRecord(about)}), reply_to=message)
"""
# Installed modules that draw at import, one of them in the second round only.
DRAWING = "import os, random\nimport numpy as np\nPID = os.getpid()\nrandom.random()\nnp.random.rand()\n"
SERVER = """
import os, random, signal, sys, time
import drawing
import numpy as np
from flwr.app import ArrayRecord, Message, RecordDict
from flwr.serverapp import ServerApp

app = ServerApp()
IS_WARM = drawing.PID != os.getpid()

@app.main()
def main(grid, context):
    print("warm" if IS_WARM else "cold", os.getpid(), os.environ.get("FEDPKG_IMPORTS_DRAW"))
    w = np.random.rand(3)
    grid.announce(3)
    for number in range(1, 4):
        if number == 2:
            __import__("drawing_" + "later")
        nodes = random.sample(grid.get_node_ids(), 3)
        content = RecordDict({"arrays": ArrayRecord({"w": w})})
        replies = grid.send_and_receive([Message(content, node, "train") for node in nodes])
        w = np.mean([one.content["arrays"]["w"].numpy() for one in replies], axis=0) + np.random.rand(3)
        beside(number)
        grid.end_round(ArrayRecord({"w": w}), {"drawn": random.random()})
"""
BESIDE = """
def parent_of(pid):
    with open(f"/proc/{pid}/stat") as file:
        return int(file.read().rpartition(")")[2].split()[1])

def beside(number):
    keeper = os.getppid()
    if (number, MARK) == (2, MARK) and not os.path.exists(MARK):
        open(MARK, "x").close()
        KILLS
        time.sleep(600)
"""
KILLS = {
    "its keeper": "os.kill(keeper, signal.SIGKILL)",
    "its interpreter and its keeper": "[os.kill(one, signal.SIGKILL) for one in (parent_of(keeper), keeper)]",
    "itself": "os.kill(os.getpid(), signal.SIGKILL)",
}
NOTHING = "def beside(number):\n    pass\n"


@pytest.fixture
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of an app, whose process has nothing to do beside its rounds."""
    installed = tmp_path / "site-packages"
    installed.mkdir()
    for name in ("drawing", "drawing_later"):
        (installed / f"{name}.py").write_text(DRAWING)
    monkeypatch.setenv("PYTHONPATH", str(installed))
    folder = tmp_path / "my app ü"
    (folder / "my_app").mkdir(parents=True)
    (folder / "pyproject.toml").write_text(PYPROJECT)
    (folder / "my_app" / "client_app.py").write_text(CLIENT)
    write_server(folder, NOTHING)
    return folder


def write_server(app: Path, beside: str, *, above: str = "") -> None:
    (app / "my_app" / "server_app.py").write_text(above + SERVER + beside)


def config_of(federation: Federation, app: Path, executor: str = "forkserver", **changes: Any) -> RunConfig:
    return federation.config(
        package=str(app),
        clients=5,
        rounds=None,
        python_env="current",
        executor={"name": executor, "workers": 2},
        strategy={"name": "server_app", "folder": str(app), "app": "my_app.server_app:app"},
        **changes,
    )


def starts(federation: Federation, session_id: str) -> list[list[str]]:
    """What each process of the ServerApp has told of itself: warm or cold, its id, its variable."""
    folder = federation.home.session_folder(session_id) / "coordinator" / "starts"
    return [(one / "stdout.log").read_text().split() for one in sorted(folder.iterdir(), key=lambda one: int(one.name))]


def outcome_of(federation: Federation, session_id: str) -> list[object]:
    rounds = federation.store.list_rounds(session_id)
    told = [(row.cohort, row.num_ok, row.strategy_metrics, row.train_metrics) for row in rounds]
    return [federation.digests(session_id), told]


@pytest.mark.slow
def test_a_warm_server_draws_the_same_nodes_and_gives_the_same_models_as_a_cold_one(
    federation: Federation, app: Path
) -> None:
    found = []
    for executor in ("process", *WARM):
        session = federation.run(config_of(federation, app, executor))
        assert session.status == "finished", session.error
        [[how, *_]] = starts(federation, session.session_id)
        assert how == ("warm" if executor in WARM else "cold")
        found.append(outcome_of(federation, session.session_id))
    assert found[0] == found[1] == found[2]
    assert len({tuple(cohort) for cohort, *_ in found[0][1]}) > 1, "rounds have different nodes"  # type: ignore[attr-defined]


@pytest.mark.slow
@pytest.mark.parametrize("what", KILLS)
@pytest.mark.every_push("itself")
def test_a_warm_server_goes_on_to_the_same_bits_when_something_is_killed(
    federation: Federation, app: Path, tmp_path: Path, what: str
) -> None:
    mark = tmp_path / "mark"
    write_server(app, f"MARK = {str(mark)!r}\n{BESIDE.replace('KILLS', KILLS[what])}")
    killed = federation.run(config_of(federation, app))
    assert killed.status == "finished" and mark.exists()
    assert [how for how, *_ in starts(federation, killed.session_id)] == ["warm", "warm"]
    write_server(app, NOTHING)
    whole = federation.run(config_of(federation, app, "process"))
    assert outcome_of(federation, killed.session_id) == outcome_of(federation, whole.session_id)


@pytest.mark.slow
def test_a_warm_server_ends_with_its_session(federation: Federation, app: Path, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    write_server(app, f"def beside(number):\n    open({str(mark)!r}, 'w').close()\n    time.sleep(600)\n")
    control = Control()
    stopping = threading.Thread(target=stop_at, args=(mark, control))
    stopping.start()
    with pytest.raises(Interrupted):
        beginning.run(config_of(federation, app), federation.home, lambda event: None, control)
    stopping.join()
    [session] = federation.store.list_sessions()
    [[how, pid, _]] = starts(federation, session.session_id)
    assert how == "warm" and not Path(f"/proc/{pid}").exists()


HANGS = """
import os, time
open({mark!r}, "w").close()
deadline = time.monotonic() + 60
while time.monotonic() < deadline:
    time.sleep(0.1)
open({mark!r} + "-imported", "w").close()
"""


@pytest.mark.slow
def test_a_session_stops_while_its_server_waits_for_the_imports(
    federation: Federation, app: Path, tmp_path: Path
) -> None:
    mark = tmp_path / "mark"
    (tmp_path / "site-packages" / "drawing.py").write_text(HANGS.format(mark=str(mark)))
    control = Control()
    stopping = threading.Thread(target=stop_at, args=(mark, control))
    stopping.start()
    with pytest.raises(Interrupted):
        beginning.run(config_of(federation, app), federation.home, lambda event: None, control)
    stopping.join()
    assert not mark.with_name("mark-imported").exists()


def stop_at(mark: Path, control: Control) -> None:
    while not mark.exists():
        time.sleep(0.02)
    control.stop()


@pytest.mark.slow
def test_a_warm_server_has_the_limits_of_the_run(federation: Federation, app: Path) -> None:
    write_server(app, "def beside(number):\n    whole = b'x' * (600 << 20)\n    time.sleep(600)\n")
    with pytest.raises(SessionFailed, match=r"(?s)round 1: .*the program.*memory"):
        federation.run(config_of(federation, app, limits={"memory_bytes": 300 << 20}))
    [session] = federation.store.list_sessions()
    assert [how for how, *_ in starts(federation, session.session_id)] == ["warm"]


@pytest.mark.soak
@pytest.mark.slow
def test_a_session_of_older_rules_goes_on_with_a_cold_server_and_its_draws(federation: Federation, app: Path) -> None:
    write_server(app, "def beside(number):\n    assert number < 2\n")
    with pytest.raises(SessionFailed, match="assert number < 2"):
        federation.run(config_of(federation, app, "process"))
    [session] = federation.store.list_sessions()
    with sqlite3.connect(federation.home.state_db) as connection:
        connection.execute("UPDATE sessions SET rules = 5, config = json_set(config, '$.executor.name', 'forkserver')")
    connection.close()
    write_server(app, NOTHING)
    with pytest.raises(SessionFailed, match="differs from the recorded one"):  # it was recorded by the rules of now
        federation.resume(session.session_id)
    assert [told[0::2] for told in starts(federation, session.session_id)] == [["cold", "None"], ["cold", "1"]]


COLD = {
    "the server makes a setting": lambda app: write_server(app, NOTHING, above="import os\nos.environ['A'] = '1'\n"),
    "the clients make a setting": lambda app: (app / "my_app/client_app.py").write_text(
        f"import os\nos.environ['A'] = '1'\n{CLIENT}"
    ),
    "the clients filter warnings": lambda app: (app / "my_app/client_app.py").write_text(
        f"import warnings\nwarnings.simplefilter('ignore')\n{CLIENT}"
    ),
}


@pytest.mark.parametrize("why", COLD)
def test_a_server_that_would_find_other_settings_starts_cold(app: Path, tmp_path: Path, why: str) -> None:
    change: Callable[[Path], Any] = COLD[why]
    change(app)
    with closing(ForkserverLauncher({}, tmp_path / "logs")) as launcher:
        assert launcher.warm_program(package_of(app), call_of(app)) is None


def test_a_warm_interpreter_is_used_only_where_it_is_that_of_the_program(app: Path, tmp_path: Path) -> None:
    package, call = package_of(app), call_of(app)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").symlink_to(sys.executable)
    other = dataclasses.replace(package, python=tmp_path / "bin" / "python")
    changed = Path(shutil.copytree(app, tmp_path / "changed"))
    (changed / "drawing.py").write_text("")  # a module of its own that the interpreter would hide
    with (
        closing(ForkserverLauncher({}, tmp_path / "logs")) as launcher,
        closing(ForkserverLauncher({}, tmp_path / "logs", isolated=True)) as isolated,
    ):
        found = launcher.warm_program(package, call)
        assert found is not None and (found[1].module, found[1].shell) == ("_fedpkg_server_app", None)
        assert launcher.warm_program(other, call) is None
        assert launcher.warm_program(package, dataclasses.replace(call, cwd=changed)) is None
        assert launcher.warm_program(package, dataclasses.replace(call, shell="python server.py")) is None
        assert launcher.warm_program(package, dataclasses.replace(call, shell=f"cd . && {call.shell}")) is None
        assert isolated.warm_program(package, call) is None


def package_of(app: Path) -> PackageOnDisk:
    return PackageOnDisk("the app", app, app, read_spec(app / "pyproject.toml"))


def call_of(app: Path) -> Call:
    """The cold call of the app's server."""
    return Call(
        cwd=app,
        environ=base_environ({}, threads=1),
        stdout=app.parent / "stdout.log",
        stderr=app.parent / "stderr.log",
        log_bytes=1000,
        timeout_s=None,
        shell="python -m _fedpkg_server_app my_app.server_app:app",
    )
