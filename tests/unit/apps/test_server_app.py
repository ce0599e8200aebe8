"""ServerApps as coordinators: rounds, replies, errors, and the same bits after a kill."""

from __future__ import annotations

import json
import subprocess
import threading
import time
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import msgspec
import pytest
from federation import Federation
from records_at_once import PACKAGE, RecordsAtOnce
from server_apps import IMPORTS, ROUNDS, dying
from warm import warm_python

from fedpkg.cli.main import run_command
from fedpkg.config import ExecutorConfig, RunConfig, dump_config
from fedpkg.errors import Interrupted, SessionFailed
from fedpkg.session import beginning, executors
from fedpkg.session.control import Control
from fedpkg.session.session import Session
from fedpkg.waist.answer import Answer
from fedpkg.waist.order import Order

DRIVE = Path(__file__).resolve().parents[1] / "controller" / "drive.py"


def config_of(federation: Federation, tmp_path: Path, app: str, **changes: Any) -> RunConfig:
    folder = tmp_path / "my app ü"
    (folder / "my_app").mkdir(parents=True, exist_ok=True)
    (folder / "my_app" / "server_app.py").write_text(app)
    strategy = {"name": "server_app", "folder": str(folder), "app": "my_app.server_app:app"}
    return federation.config(
        **{
            "package": str(PACKAGE),
            "clients": 4,
            "rounds": None,
            "run_config": {"num-server-rounds": 3},
            "strategy": {**strategy, **changes.pop("strategy", {})},
            **changes,
        }
    )


def main_of(lines: str) -> str:
    """An app whose main function has these lines."""
    body = "".join(f"    {line}\n" for line in lines.strip().splitlines())
    return f"{IMPORTS}\n@app.main()\ndef main(grid, context):\n{body}"


def outcome_of(federation: Federation, session_id: str) -> list[object]:
    rounds = federation.store.list_rounds(session_id)
    return [
        federation.digests(session_id),
        [(row.cohort, row.num_ok, row.strategy_metrics, row.train_metrics, row.metrics) for row in rounds],
    ]


def test_an_app_runs_in_rounds_that_are_shown_as_those_of_any_session(
    federation: Federation, tmp_path: Path, at_once: RecordsAtOnce, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", logger="fedpkg.server_app"):
        session = federation.run(config_of(federation, tmp_path, dying(ROUNDS, "")))
    assert (session.status, session.error, session.num_rounds) == ("finished", None, 3)
    rounds = federation.store.list_rounds(session.session_id)
    assert [row.round_number for row in rounds] == [1, 2, 3]
    assert all(set(row.train_metrics) == set(row.metrics) == {"loss", "num_examples"} for row in rounds)
    assert all(row.strategy_metrics["strange"] is None for row in rounds)
    assert [row.round_number for row in federation.store.list_models(session.session_id)] == [1, 2, 3]
    assert list(federation.model(f"{session.session_id}.3")) == ["w", "b"]
    told = [record.getMessage() for record in caplog.records if record.name == "fedpkg.server_app"]
    assert told == [f"round {number} of ['num-server-rounds']" for number in (1, 2, 3)]


def test_messages_are_of_the_time_when_the_session_was_created(
    federation: Federation, tmp_path: Path, at_once: RecordsAtOnce
) -> None:
    app = main_of(
        """
message = Message(RecordDict({"config": ConfigRecord({"lr": 0.1})}), 1, "query")
[reply] = grid.send_and_receive([message])
grid.end_round(None, {"message": message.metadata.created_at, "reply": reply.metadata.created_at})
"""
    )
    session = federation.run(config_of(federation, tmp_path, app))
    [row] = federation.store.list_rounds(session.session_id)
    assert row.strategy_metrics == {"message": session.created_at, "reply": session.created_at}


@pytest.mark.parametrize("places", [("begun-2", "ends-3"), ("asked-1", "asked-3"), ("ends-2",)])
@pytest.mark.every_push("places0")
def test_an_app_that_is_killed_goes_on_to_the_same_bits(
    federation: Federation, tmp_path: Path, at_once: RecordsAtOnce, places: tuple[str, ...]
) -> None:
    marks = tmp_path / "marks"
    marks.mkdir()
    killed = federation.run(config_of(federation, tmp_path, dying(ROUNDS, str(marks), *places)))
    assert {path.name for path in marks.iterdir()} == set(places)
    whole = federation.run(config_of(federation, tmp_path, dying(ROUNDS, "")))
    assert outcome_of(federation, killed.session_id) == outcome_of(federation, whole.session_id)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("executor", "kill_at"), [("process", 4), ("forkserver", 9), ("resident", 14), ("forkserver", 17)]
)
@pytest.mark.every_push("forkserver-9")
def test_a_session_that_is_killed_goes_on_to_the_same_bits(
    federation: Federation, tmp_path: Path, executor: str, kill_at: int
) -> None:
    config = config_of(
        federation, tmp_path, dying(ROUNDS, ""), executor={"name": executor, "workers": 2}, python_env="current"
    )
    path = tmp_path / "config.json"
    path.write_text(json.dumps(dump_config(config)))
    words = ["--run", str(path), "--kill-at", str(kill_at)]
    assert subprocess.run([*warm_python(), str(DRIVE), str(federation.home.root), *words]).returncode == -9
    [killed] = federation.store.list_sessions()
    session = federation.resume(killed.session_id)
    assert session.status == "finished"
    whole = federation.run(msgspec.structs.replace(config, executor=ExecutorConfig(name="forkserver", workers=1)))
    assert outcome_of(federation, session.session_id) == outcome_of(federation, whole.session_id)


FAILURES = """
contents = [RecordDict({"config": ConfigRecord({"number": number})}) for number in range(8)]
messages = [Message(content, 1 + number % 4, "query.look") for number, content in enumerate(contents)]
replies = grid.send_and_receive(messages)
assert [one.metadata.reply_to_message_id for one in replies] == [one.metadata.message_id for one in messages]
assert [one.metadata.src_node_id for one in replies] == [1, 2, 3, 4, 1, 2, 3, 4]
assert [one.has_error() for one in replies] == [False, True, False, False] * 2, replies
assert replies[1].error.code == 2 and replies[1].error.reason.startswith("exit_code: it fails")
grid.end_round(metrics={"replies": len(replies)})
"""


def test_a_node_that_fails_has_an_error_and_replies_keep_the_order_of_messages(
    federation: Federation, tmp_path: Path, at_once: RecordsAtOnce
) -> None:
    at_once.fails = {"client-1@all"}
    session = federation.run(config_of(federation, tmp_path, main_of(FAILURES)))
    assert session.status == "finished", session.error
    [row] = federation.store.list_rounds(session.session_id)
    assert (row.num_ok, row.num_failed, row.strategy_metrics) == (6, 2, {"replies": 8})


ALL_FAIL = """
for number in range(2):
    messages = [Message(RecordDict(), node, "train") for node in grid.get_node_ids()]
    assert all(one.has_error() for one in grid.send_and_receive(messages))
"""


def test_an_app_goes_on_when_all_nodes_fail_and_its_session_has_failed(
    federation: Federation, tmp_path: Path, at_once: RecordsAtOnce
) -> None:
    at_once.fails = {f"client-{number}@all" for number in range(4)}
    with pytest.raises(SessionFailed, match="ended, but all 8 calls of its clients have failed"):
        federation.run(config_of(federation, tmp_path, main_of(ALL_FAIL)))
    [session] = federation.store.list_sessions()
    assert (session.status, "all 8 calls" in (session.error or "")) == ("failed", True)
    rounds = federation.store.list_rounds(session.session_id)
    assert [(row.status, row.num_failed) for row in rounds] == [("finished", 4)] * 2
    asked, at_once.fails = len(at_once.asked), set()
    with pytest.raises(SessionFailed, match="all 8 calls") as told:
        federation.resume(session.session_id)
    assert "--fresh" in (told.value.hint or "") and len(at_once.asked) == asked, "its program has ended"


PUSHES = """
nodes = grid.get_node_ids()
first = grid.push_messages([Message(RecordDict(), node, "query") for node in nodes])
assert len(set(first)) == len(nodes)
waited = grid.send_and_receive([Message(RecordDict(), nodes[0], "query")], timeout=60)
assert [one.has_content() for one in waited] == [True]
found = []
while len(found) < len(first):
    found += grid.pull_messages(first)
assert sorted(one.metadata.reply_to_message_id for one in found) == sorted(first)
assert grid.pull_messages(first) == []
[again] = grid.send_and_receive([Message(RecordDict(), nodes[0], "query")])
try:
    grid.pull_messages(["nothing"])
except ValueError as error:
    assert "no message with the id 'nothing' was pushed" in str(error)
"""


def test_messages_that_are_pushed_are_pulled_once(
    federation: Federation, tmp_path: Path, at_once: RecordsAtOnce
) -> None:
    session = federation.run(config_of(federation, tmp_path, main_of(PUSHES)))
    assert session.status == "finished", session.error
    assert [row.num_ok for row in federation.store.list_rounds(session.session_id)] == [5, 1]


MANY = """
nodes = grid.get_node_ids()
contents = [RecordDict({"config": ConfigRecord({"text": "x" * 1000, "node": node})}) for node in nodes]
began = time.perf_counter()
replies = grid.send_and_receive([Message(one, node, "query") for node, one in zip(nodes, contents)])
print(time.perf_counter() - began)
assert [one.metadata.src_node_id for one in replies] == nodes and all(one.has_content() for one in replies)
"""


# 10,000 nodes take some 10 calls of the file system each, which on a busy disk is minutes.
MANY_NODES = pytest.param(10_000, marks=[pytest.mark.soak, pytest.mark.timeout(1200)])


@pytest.mark.parametrize("number", [300, MANY_NODES])
def test_many_nodes_get_their_own_messages(
    federation: Federation, tmp_path: Path, at_once: RecordsAtOnce, number: int
) -> None:
    session = federation.run(config_of(federation, tmp_path, main_of(MANY), clients=number))
    assert session.status == "finished", session.error
    [row] = federation.store.list_rounds(session.session_id)
    assert row.num_ok == number
    folder = federation.home.session_folder(session.session_id) / "coordinator" / "files"
    assert len(list(folder.iterdir())) < 20


def test_an_app_that_sends_nothing_for_too_long_ends_the_session(
    federation: Federation, tmp_path: Path, at_once: RecordsAtOnce
) -> None:
    never = main_of("time.sleep(600)")
    with pytest.raises(SessionFailed, match=r"the coordinator: it sent nothing for 2 s"):
        federation.run(config_of(federation, tmp_path, never, strategy={"timeout_s": 2}))


def test_an_app_that_never_ends_is_stopped(federation: Federation, tmp_path: Path, at_once: RecordsAtOnce) -> None:
    forever = main_of("""
while True:
    grid.send_and_receive([Message(RecordDict(), 1, "query")])
    open(MARK, "w").close()
    time.sleep(600)
""")
    mark = tmp_path / "sent"
    config = config_of(federation, tmp_path, f"MARK = {str(mark)!r}\n{forever}")
    control = Control()

    def stop() -> None:
        while not mark.exists():
            time.sleep(0.02)
        control.stop()

    stopping = threading.Thread(target=stop)
    stopping.start()
    with pytest.raises(Interrupted):
        beginning.run(config, federation.home, lambda event: None, control)
    stopping.join()
    [session] = federation.store.list_sessions()
    assert session.status == "interrupted"


CLIENT = """
from fedpkg.apps import ClientApp, Error, Message, MetricRecord, RecordDict

app = ClientApp()

@app.query()
def query(message, context):
    assert message.metadata.dst_node_id == context.node_id == context.node_config["partition-id"] + 1
    if context.node_id == 2:
        return None
    if context.node_id == 3:
        raise ValueError("no data here")
    if context.node_id == 4:
        return Message(Error(77, "too few rows"), reply_to=message)
    return Message(RecordDict({"metrics": MetricRecord({"node": context.node_id})}), reply_to=message)
"""
ASKS = """
replies = grid.send_and_receive([Message(RecordDict(), node, "query") for node in grid.get_node_ids()])
told = [r.error.code if r.has_error() else r.content["metrics"]["node"] * 100 for r in replies]
grid.end_round(metrics={"told": told, "reasons": [replies[2].error.reason, replies[3].error.reason]})
"""


@pytest.mark.slow
def test_clients_that_return_nothing_or_raise_cost_their_replies_alone(federation: Federation, tmp_path: Path) -> None:
    config = config_of(federation, tmp_path, main_of(ASKS), package=str(tmp_path / "my app ü"), run_config={})
    folder = Path(config.package)
    (folder / "my_app" / "client_app.py").write_text(CLIENT)
    components = 'serverapp = "my_app.server_app:app"\nclientapp = "my_app.client_app:app"'
    head = '[project]\nname = "my-app"\n[tool.flwr.app.components]\n'
    (folder / "pyproject.toml").write_text(head + components)
    session = federation.run(config)
    assert session.status == "finished", session.error
    [row] = federation.store.list_rounds(session.session_id)
    assert row.strategy_metrics["told"] == [100, 2, 2, 77]
    raised, replied = row.strategy_metrics["reasons"]  # type: ignore[misc]
    assert "no data here" in raised and "too few rows" in replied


RAISES = """
for number in range(3):
    if number == 2:
        raise RuntimeError("there is no round 3")
    grid.send_and_receive([Message(RecordDict(), node, "train") for node in grid.get_node_ids()])
"""


def test_an_app_that_raises_after_two_rounds_goes_on_when_it_is_mended(
    federation: Federation, tmp_path: Path, at_once: RecordsAtOnce
) -> None:
    config = config_of(federation, tmp_path, main_of(RAISES))
    with pytest.raises(
        SessionFailed, match=r"(?s)round 2: .*gave up.*line \d+, in main.*RuntimeError: there is no round 3"
    ):
        federation.run(config)
    [failed] = federation.store.list_sessions()
    assert failed.status == "failed"
    told = failed.error or ""
    assert 'File "my_app/server_app.py", line ' in told, "the path of the app's file, not that of a copy"
    assert "server_program.py" not in told and "frozen" not in told, "lines of others are left out"
    asked = len(at_once.asked)
    assert asked == 8
    config_of(federation, tmp_path, main_of(RAISES.replace("number == 2", "False")))
    assert federation.resume(failed.session_id).status == "finished"
    assert len(at_once.asked) - asked == 4, "recorded replies are used again"
    assert len(federation.store.list_rounds(failed.session_id)) == 3


def test_an_app_that_sends_something_else_when_it_is_resumed_is_told_where(
    federation: Federation, tmp_path: Path, at_once: RecordsAtOnce
) -> None:
    config = config_of(federation, tmp_path, main_of(RAISES))
    with pytest.raises(SessionFailed):
        federation.run(config)
    [failed] = federation.store.list_sessions()
    config_of(federation, tmp_path, main_of(RAISES.replace('"train"', '"train.other"')))
    with pytest.raises(SessionFailed, match="message 1 of round 1 differs from the recorded one") as told:
        federation.resume(failed.session_id)
    assert "fedpkg session resume --fresh" in (told.value.hint or "")
    config_of(federation, tmp_path, main_of(RAISES.replace("number == 2", "False").replace('"train"', '"train.other"')))
    session = Session(federation.home, session_id=failed.session_id).fresh().run()
    assert (session.status, session.session_id != failed.session_id) == ("finished", True)


class OneIsSilent(RecordsAtOnce):
    """The client ``silent`` answers only when its task is cancelled."""

    silent: str | None = None

    def __init__(self) -> None:
        super().__init__()
        self._waiting: dict[str, Future[Answer]] = {}

    def submit(self, order: Order) -> Future[Answer]:
        if order.client_id != self.silent:
            return super().submit(order)
        self.asked.append((order.client_id, order.entry_point))
        return self._waiting.setdefault(order.task_id, Future())

    def cancel(self, task_id: str) -> None:
        self._waiting.pop(task_id).set_result(Answer(task_id=task_id, status="cancelled"))


LATE = """
nodes = grid.get_node_ids()
replies = grid.send_and_receive([Message(RecordDict(), node, "query") for node in nodes], timeout=0.2)
codes = [one.error.code if one.has_error() else 0 for one in replies]
assert codes == [0, 0, 4, 0], replies
grid.send_and_receive([Message(RecordDict(), nodes[0], "train")])
raise RuntimeError("not yet mended")
grid.end_round(metrics={"late": replies[2].error.reason})
"""


def test_a_reply_that_was_too_late_is_so_after_a_resume(
    federation: Federation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    executor = OneIsSilent()
    executor.silent = "client-2"
    monkeypatch.setattr(executors, "make_executor", executor.make)
    with pytest.raises(SessionFailed, match="not yet mended"):
        federation.run(config_of(federation, tmp_path, main_of(LATE)))
    [failed] = federation.store.list_sessions()
    asked, executor.silent = len(executor.asked), None  # now it would answer
    config_of(federation, tmp_path, main_of(LATE.replace("raise ", "")))
    session = federation.resume(failed.session_id)
    assert (session.status, len(executor.asked)) == ("finished", asked)
    [row] = federation.store.list_rounds(session.session_id)
    assert (row.num_ok, row.num_failed) == (4, 1)
    assert str(row.strategy_metrics["late"]).startswith("round_timeout: ")


BAD = {
    r"there is no node 17: grid\.get_node_ids\(\) gives the 4 nodes": main_of(
        'grid.send_and_receive([Message(RecordDict(), 17, "train")])'
    ),
    r"messages\[0\] is a dict, not a Message": main_of("grid.send_and_receive([{}])"),
    r"has one main function, not two: main \(.*line \d+\), other \(": main_of("pass")
    + "\n@app.main()\ndef other(grid, context): pass\n",
    "the ServerApp has no main function": IMPORTS,
    "No module named 'nothing_of_this_name'": "import nothing_of_this_name",
    "has no 'app'; write: app = ServerApp": "import os",
    r"the app called sys\.exit\('enough'\)": main_of("sys.exit('enough')"),
    "'server' of ServerAppComponents cannot be used": IMPORTS.replace("ServerApp()", "ServerApp(server=object())"),
    "the main function is gone": "raise RuntimeError('the main function is gone')",
}


@pytest.mark.parametrize("words", BAD, ids=range(len(BAD)))
def test_a_bad_app_is_a_clear_error(federation: Federation, tmp_path: Path, at_once: RecordsAtOnce, words: str) -> None:
    with pytest.raises(SessionFailed, match=f"(?s){words}"):
        federation.run(config_of(federation, tmp_path, BAD[words]))
    [session] = federation.store.list_sessions()
    assert session.status == "failed"


@pytest.mark.parametrize("mebibytes", [64, pytest.param(1024, marks=pytest.mark.soak)])
def test_an_app_that_prints_without_end_is_cut(
    federation: Federation, tmp_path: Path, at_once: RecordsAtOnce, mebibytes: int
) -> None:
    prints = main_of(f"for _ in range({mebibytes}):\n        sys.stdout.write('x' * (1 << 20))")
    session = federation.run(config_of(federation, tmp_path, prints, limits={"log_bytes": 100_000}))
    assert session.status == "finished"
    [log] = (federation.home.session_folder(session.session_id) / "coordinator").rglob("stdout.log")
    assert log.stat().st_size < 300_000


def test_a_session_of_an_app_is_shown_reported_and_tracked_as_any_other(
    federation: Federation, tmp_path: Path, at_once: RecordsAtOnce, capsys: pytest.CaptureFixture[str]
) -> None:
    at_once.fails = {"client-1@2"}
    session = federation.run(config_of(federation, tmp_path, dying(ROUNDS, ""), tracking=[{"name": "csv"}]))
    folder = federation.home.session_folder(session.session_id)
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [sorted(one["metrics"]) for one in lines] == [["strategy", "train", "validate"]] * 3
    of_server = [row.strategy_metrics["server-loss"] for row in federation.store.list_rounds(session.session_id)]
    assert [one["metrics"]["strategy"]["server-loss"]["weighted_mean"] for one in lines] == of_server
    assert f"2,strategy,server-loss,,{of_server[1]}," in (folder / "metrics.csv").read_text()

    home, page = ["--home", str(federation.home.root)], tmp_path / "report.html"
    for words, said in (
        (["show"], ("rounds      3, as its program says", "server-loss", "client-1, round 2: it fails")),
        (["show", "--round", "2"], (f"{of_server[1]:.3f}", "train", "evaluate", "failed")),
        (["report", "-o", str(page)], ("report.html",)),
    ):
        assert run_command(["session", *words, *home]) == 0
        printed = capsys.readouterr().out
        assert all(one in printed for one in said)
    assert all(one in page.read_text() for one in ("server-loss", "my_app.server_app:app", "it fails"))
