"""The executor's contract (docs/reference/executor-contract.md), tested alike on every executor."""

from __future__ import annotations

import contextlib
import os
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from desk import Desk
from workbench import NOBODY, PATIENCE_S, is_alive, wait_until

from fedpkg.errors import DispatchError
from fedpkg.formats.records_file import read_records
from fedpkg.types import ReplyKind
from fedpkg.waist.answer import Answer
from fedpkg.waist.order import ALL, Limits, Order, ReplySpec, digest_of
from fedpkg.waist.wire import from_json, to_json

DATA = "os.environ['FEDN_DATA_PATH']"
# Says that it runs, and then runs until it is ended.
FOREVER = f"import time\nopen({DATA} + '/' + NAME, 'w').write(str(os.getpid()))\ntime.sleep(600)"
COUNT = "open('calls', 'a').write('x')\ntell(calls=len(open('calls').read()))"


def forever(desk: Desk, name: str) -> tuple[str, Callable[[], int]]:
    """A task's code, and a wait for its process's id."""
    path = desk.data / name
    return FOREVER.replace("NAME", repr(name)), lambda: int(
        wait_until(lambda: path.exists() and path.read_text(), name)
    )


def failure(desk: Desk, code: str, **fields: object) -> tuple[str, str]:
    _, answer = desk.run(code, **fields)
    assert answer.status == "failed" and answer.failure is not None, answer
    assert (answer.reply, answer.num_examples, answer.metrics, answer.state) == (None, None, None, None)
    return answer.failure.kind, answer.failure.message


# ---- orders and answers


@pytest.mark.slow
def test_orders_are_answered_each_by_its_own_answer_whatever_becomes_of_them(desk: Desk) -> None:
    codes = ["tell(a=1)", "raise SystemExit(3)", "pass", "tell(b=2)", "os.kill(os.getpid(), 9)", "tell(c='ü')"]
    waiting = [desk.submit(code) for code in codes]
    answers = [answered.result(PATIENCE_S) for _, answered in reversed(waiting)][::-1]
    assert [answer.task_id for answer in answers] == [order.task_id for order, _ in waiting]
    assert [answer.metrics for answer in answers] == [{"a": 1}, None, None, {"b": 2}, None, {"c": "ü"}]
    kinds = [answer.failure and answer.failure.kind for answer in answers]
    assert kinds == [None, "exit_code", "no_file", None, "signal", None]
    assert [answer.exit_code for answer in answers] == [0, 3, 0, 0, None, 0]


def test_answer_says_what_ran_how_long_and_what_it_said(desk: Desk) -> None:
    order, answer = desk.run("print('out')\nprint('the last word', file=sys.stderr)\nraise SystemExit(4)")
    assert answer.log_tail == "the last word"
    assert answer.command.startswith("python entrypoint.py validate ") and answer.started_at > 1e9
    assert answer.wall_s >= answer.phases["stage"] > 0
    assert answer.usage.cpu_s is not None and answer.usage.peak_memory_bytes is not None
    assert order.client_id in answer.folder and not Path(answer.folder).is_absolute()


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("send(3, w=np.full((2, 3), np.nan, 'f'), n=np.array(3))", "not_finite"),
        ("send(3, w=np.zeros((3, 2), 'f'), n=np.array(3))", "mismatch"),
        ("send(0, w=np.zeros((2, 3), 'f'), n=np.array(3))", "num_examples"),
        ("open(out, 'w').write('junk')", "bad_file"),
        ("os.symlink('/etc/hostname', out)", "not_a_file"),
    ],
)
@pytest.mark.every_push("forkserver|socket")
def test_update_that_is_not_as_asked_is_a_failure(desk: Desk, code: str, kind: str) -> None:
    file, spec = desk.model()
    assert failure(desk, f"import numpy as np\n{code}", input=file, spec=spec)[0] == kind


RECORDS = "import numpy as np, json\nfrom fedpkg import client\n"


def test_records_go_there_and_come_back_by_an_entry_point_of_any_name(desk: Desk) -> None:
    code = f"""{RECORDS}
task, found = client.task(), client.load_records(given)
data = [task.entry_point, task.reply_kind, list(found.sets), found.data, os.path.basename(os.path.dirname(given))]
client.save_records(out, {{"a/b %": {{"x": found.sets["edges/of x"][""], "nan": np.nan}}, "": {{}}}}, data)
"""
    spec, fields = ReplySpec(kind=ReplyKind.RECORDS), {"entry_point": "column.sums-of_all", "input": desk.records()}
    order, answer = desk.run(code, spec=spec, **fields)
    records = read_records(desk.fetched(order, answer))
    name = "column.sums-of_all"
    assert records.data == [name, "records", ["edges/of x", "none"], {"column": "größe"}, name]
    assert [(name, list(one)) for name, one in records.sets.items()] == [("a/b %", ["x", "nan"]), ("", [])]
    assert records.sets["a/b %"]["x"].tolist() == [0.0, 1.0, 2.0]
    assert (answer.num_examples, answer.metrics) == (1.0, None)
    for said, expected in (("num_examples=0", 0.0), ("data={'num_examples': 7}", 7.0)):
        _, answer = desk.run(f"{RECORDS}client.save_records(out, {said})", spec=spec, **fields)
        assert answer.num_examples == expected


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("client.save_records(out, num_examples=-1)", "num_examples"),
        ("client.save_records(out, data={'num_examples': 'many'})", "num_examples"),
        ("np.savez(out, w=np.ones(3))", "bad_file"),
        ("np.savez(out, **{'s/t': np.array([{}], dtype=object)})", "bad_file"),
        ("np.savez(out, **{'a/b': 1, '%61/b': 1})", "bad_file"),
        ("np.savez(out, **{'%json': np.frombuffer(b'[' * 99, np.uint8)})", "bad_file"),
        ("client.save_records(out, {'s': {'t': np.zeros(2 << 20, 'u1')}})", "too_big"),
        ("np.savez_compressed(out, **{'s/t': np.zeros(2 << 20, 'u1')})", "bad_file"),
        ("os.symlink('/etc/hostname', out)", "not_a_file"),
        ("pass", "no_file"),
    ],
)
@pytest.mark.every_push("forkserver|socket")
def test_records_that_are_none_are_a_failure(desk: Desk, code: str, kind: str) -> None:
    spec = ReplySpec(kind=ReplyKind.RECORDS, max_bytes=1 << 20)
    assert failure(desk, f"{RECORDS}{code}", input=desk.records(), spec=spec)[0] == kind


def test_reply_larger_than_allowed_is_a_failure(desk: Desk) -> None:
    file, spec = desk.model()
    spec = ReplySpec(kind=spec.kind, tensors=spec.tensors, max_bytes=100)
    code = "import numpy as np\nsend(3, w=np.zeros((2, 3), 'f'), n=np.array(3))"
    assert failure(desk, code, input=file, spec=spec)[0] == "too_big"


def test_specification_may_be_handed_over_again_and_what_is_not_known_is_refused_at_once(desk: Desk) -> None:
    spec = ReplySpec(kind=ReplyKind.METRICS)
    for _ in range(2):
        desk.executor.know(spec, digest_of(spec))
    order = desk.order()
    for name, what in (("package", "compute package"), ("reply_spec", "specification of replies")):
        with pytest.raises(DispatchError, match=f"names a {what} that this executor was not given"):
            desk.executor.submit(from_json(to_json(order).replace(getattr(order, name).encode(), b"0" * 64), Order))
    assert desk.executor.submit(order).result(PATIENCE_S).status == "ok"
    assert desk.executor.slots == 2


# ---- what a task is told


def test_arguments_environment_and_parameters_reach_the_task(desk: Desk) -> None:
    code = """
task = json.load(open(os.environ["FEDPKG_TASK"]))
names = "round_number client_id partition_id num_partitions entry_point attempt seed run_config parameters".split()
tell(words=words[-2:], who=os.environ["WHO"], threads=os.environ["OMP_NUM_THREADS"], **{n: task[n] for n in names})
"""
    fields = {
        "client_id": "Zürich",
        "round_number": 7,
        "partition_id": 3,
        "num_partitions": 9,
        "attempt": 2,
        "seed": 2**62 + 1,
        "run_config": {"a": [1, {"b": None}]},
        "parameters": {"proximal_mu": 0.1},
    }
    arguments = {"lr": 0.01, "text": "a 'b' $HOME ü"}
    told = desk.told(
        code, **fields, arguments=arguments, environment={"WHO": "{client_id} of {num_partitions}"}, threads=2
    )
    own = {"entry_point": "validate", "who": "Zürich of 9", "threads": "2"}
    assert told == {**fields, **own, "words": ["--lr=0.01", "--text=a 'b' $HOME ü"]}


def test_variables_of_one_task_do_not_reach_the_next(desk: Desk) -> None:
    for _ in range(3):
        desk.told("os.environ['LEAK'] = '1'; os.chdir('/'); sys.path.clear(); tell()", environment={"ONCE": "x"})
        assert desk.told("tell(names=[os.environ.get('LEAK'), os.environ.get('ONCE')])") == {"names": [None, None]}


def test_data_are_named_by_the_order_and_lie_where_the_task_runs(desk: Desk) -> None:
    folder = desk.data / "Teil 3"
    folder.mkdir()
    folder.joinpath("x.txt").write_text("drei")
    code = f"tell(data=open({DATA} + '/x.txt').read(), linked=open('hier/x.txt').read())"
    assert desk.told(code, data="Daten/Teil 3", links={"hier": "."}) == {"data": "drei", "linked": "drei"}


def test_input_reaches_the_task_as_it_is(desk: Desk) -> None:
    file, _ = desk.model()
    code = "import numpy as np\ntell(w=np.load(given)['w'].tolist(), mode=os.stat(given).st_mode & 0o777)"
    for _ in range(2):
        assert desk.told(code, input=file) == {"w": [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]], "mode": 0o444}


DRAWS = (
    "import random\ntell(draws=[random.random(), random.getrandbits(64)], hash=hash('x'), order=list({'a', 'b', 'c'}))"
)


def test_seed_reaches_the_generators_and_fixes_hashes(desk: Desk) -> None:
    told = [desk.told(DRAWS, seed=seed) for seed in (5, 5, 6)]
    generator = random.Random(5)
    assert told[0] == told[1]
    assert told[0]["draws"] == [generator.random(), generator.getrandbits(64)]
    assert told[2]["draws"] != told[0]["draws"]
    assert (told[2]["hash"], told[2]["order"]) == (told[0]["hash"], told[0]["order"])


def test_reply_of_a_draw_that_nobody_seeds_has_the_same_bits_everywhere(desk: Desk) -> None:
    file, spec = desk.model()
    code = "import numpy as np\nw = np.load(given)['w'] + np.random.standard_normal((2, 3))\n"
    order, answer = desk.run(f"{code}send(7, w=w.astype('f'), n=np.array(4))", input=file, spec=spec, seed=2**40 + 3)
    path = desk.fetched(order, answer)
    assert answer.num_examples == 7.0 and answer.metadata == {"num_examples": 7}
    drawn = np.random.RandomState((2**40 + 3) % 2**32).standard_normal((2, 3))
    with np.load(path) as arrays:
        assert np.array_equal(arrays["w"], (np.arange(6, dtype="f").reshape(2, 3) + drawn).astype("f"))


# ---- startup, limits


def test_startup_runs_before_a_clients_first_task_in_the_same_place(desk: Desk) -> None:
    environment = {"AT_STARTUP": "open('begun', 'w').write('by startup')"}
    code = "tell(begun=os.path.exists('begun') and open('begun').read())"
    assert desk.told(code, environment=environment, starts_up=True) == {"begun": "by startup"}
    assert desk.told(code, environment=environment) == {"begun": False}
    kind, message = failure(desk, code, environment={"AT_STARTUP": "raise SystemExit(5)"}, starts_up=True)
    assert kind == "exit_code" and message.startswith("'startup' exited with code 5")


def start_for_all(desk: Desk, code: str) -> Answer:
    """The answer to a startup for all clients of a session."""
    spec = ReplySpec(kind=ReplyKind.NOTHING)
    return desk.run(spec=spec, entry_point="startup", client_id=ALL, round_number=0, environment={"AT_STARTUP": code})[
        1
    ]


FOR_ALL = """
os.makedirs('data')
open('data/big', 'wb').write(b'x' * (3 << 20))
open('data/small', 'w').write('x')
open('../beside the package', 'w').write('x')
open(os.environ['FEDPKG_STATE_DIR'] + '/kept', 'w').write('x')
"""
READ = """
import stat
big = 'data/big'
found = [open(path).read(9).strip('x') for path in (big, 'data/small', '../beside the package')]
found.append(open(os.environ['FEDPKG_STATE_DIR'] + '/kept').read().strip('x'))
"""
WRITE = (
    READ
    + """
os.chmod(big, 0o600)
for path in (big, 'data/small', '../beside the package', os.environ['FEDPKG_STATE_DIR'] + '/kept'):
    open(path, 'r+').write('mine')
"""
)


def test_clients_begin_from_what_a_startup_for_all_left_and_none_writes_to_it(desk: Desk) -> None:
    left = start_for_all(desk, FOR_ALL)
    assert left.status == "ok" and left.state is not None, (left.failure, left.log_tail)
    assert desk.told(f"{READ}\ntell(found=found)", started=left.state) == {"found": [""] * 4}
    order, answer = desk.run(f"{WRITE}\ntell(found=found)", started=left.state)
    assert answer.metrics == {"found": [""] * 4}, (answer.failure, answer.log_tail)
    assert desk.told(f"{READ}\ntell(found=found)", started=left.state) == {"found": [""] * 4}, "another client"
    again = {"client_id": order.client_id, "state": answer.state, "started": left.state, "round_number": 2}
    assert desk.told(f"{READ}\ntell(found=found)", **again) == {"found": ["mine"] * 4}
    assert desk.executor.states.damage("s-1", ALL, left.state, left.state_checksum) == ""
    assert desk.told("tell(there=os.path.exists('data'))") == {"there": False}, "a session without such a startup"


def test_big_files_of_a_startup_for_all_are_one_file_for_its_clients(desk: Desk) -> None:
    left = start_for_all(desk, "open('big', 'wb').write(b'x' * (3 << 20))")
    code = "facts = os.stat('big')\ntell(inode=facts.st_ino, writable=bool(facts.st_mode & 0o222))"
    told = [desk.told(code, started=left.state) for _ in range(3)]
    if told[0]["writable"]:
        pytest.skip("this file system has copies that share their blocks, so each client has one")
    assert len({one["inode"] for one in told}) == 1


def test_startup_for_all_that_fails_or_leaves_no_package_leaves_nothing(desk: Desk) -> None:
    failed = start_for_all(desk, "open('x', 'w')\nraise SystemExit(5)")
    assert failed.failure is not None and failed.failure.message.startswith("'startup' exited with code 5")
    gone = start_for_all(desk, "import shutil\nshutil.rmtree(os.getcwd())")
    assert gone.failure is not None and gone.failure.kind == "bad_state", gone
    assert "no longer has the folder of fedn.yaml" in gone.failure.message
    nothing = start_for_all(desk, "")
    assert (failed.state, gone.state, nothing.state, nothing.status) == (None, None, None, "ok")


@pytest.mark.every_push("resident|socket")
def test_task_that_takes_longer_than_it_may_is_ended(desk: Desk) -> None:
    code, pid = forever(desk, "too long")
    kind, message = failure(desk, code, data="Daten", timeout_s=1.0)
    assert (kind, message) == ("timeout", "'validate' was ended after its time limit of 1 s")
    assert not is_alive(pid())


def test_task_that_fills_its_folders_is_refused(desk: Desk) -> None:
    code = "open('big', 'wb').write(b'x' * (3 << 20))\ntell()"
    kind, _ = failure(desk, code, limits=Limits(folder_bytes=1 << 20))
    assert kind == "folder_size"


# ---- cancel, close


def test_running_task_is_cancelled_and_an_unknown_id_is_ignored(desk: Desk) -> None:
    code, pid = forever(desk, "cancelled")
    order, answered = desk.submit(code, data="Daten", timeout_s=None)
    process = pid()
    desk.executor.cancel("nobody")
    desk.executor.cancel(order.task_id)
    answer = answered.result(PATIENCE_S)
    assert (answer.status, answer.failure, answer.reply, answer.state) == ("cancelled", None, None, None)
    assert not is_alive(process)
    desk.executor.cancel(order.task_id)
    assert desk.told("tell(next=True)") == {"next": True}


def test_cancelled_task_in_the_queue_never_starts(desk: Desk) -> None:
    tasks = [forever(desk, name) for name in ("first", "second")]
    running = [desk.submit(code, data="Daten", timeout_s=None) for code, _ in tasks]
    for _, pid in tasks:
        pid()
    code, _ = forever(desk, "queued")
    order, queued = desk.submit(code, data="Daten")
    later, last = desk.submit("tell(last=True)")
    desk.executor.cancel(order.task_id)
    assert queued.result(PATIENCE_S).status == "cancelled", "without waiting for the others"
    assert not any(answered.done() for _, answered in running) and not last.done()
    for before, _ in running:
        desk.executor.cancel(before.task_id)
    assert last.result(PATIENCE_S).metrics == {"last": True}
    assert not (desk.data / "queued").exists()
    order = from_json(to_json(later).replace(later.task_id.encode(), order.task_id.encode()), Order)
    assert desk.executor.submit(order).result(PATIENCE_S).status == "ok", "the id means nothing now"


def test_close_ends_everything(open_desk: Callable[..., Desk]) -> None:
    desk = open_desk(slots=1)
    code, pid = forever(desk, "running")
    waiting = [desk.submit(code, data="Daten", timeout_s=None)[1]]
    process = pid()
    waiting += [desk.submit(code, data="Daten", timeout_s=None)[1] for _ in range(3)]
    desk.executor.close()
    assert [answered.result(0).status for answered in waiting] == ["cancelled"] * 4
    assert not is_alive(process)
    desk.executor.close()
    spec = ReplySpec(kind=ReplyKind.METRICS)
    order = Order(
        task_id="t",
        session_id="s",
        round_number=1,
        client_id="c",
        entry_point="validate",
        package=desk.digest,
        reply_spec=digest_of(spec),
    )
    with pytest.raises(DispatchError, match="closed"):
        desk.executor.submit(order)


# ---- replies and states


def test_reply_is_fetched_once_into_a_folder_of_its_own(desk: Desk) -> None:
    file, spec = desk.model()
    code = "import numpy as np\nsend(3, w=np.load(given)['w'], n=np.array(3))"
    order, answer = desk.run(code, input=file, spec=spec)
    into = desk.home / "einmal"
    into.mkdir()
    into.joinpath("old").write_text("from before")
    desk.executor.fetch(order, answer, into)
    assert sorted(path.name for path in into.iterdir()) == ["out.npz", "out.npz-metadata"]
    assert answer.reply is not None and into.joinpath("out.npz").stat().st_size == answer.reply.size_bytes
    with pytest.raises(OSError):
        desk.executor.fetch(order, answer, desk.home / "nochmal")
    desk.executor.discard(order, answer)
    assert into.joinpath("out.npz").exists()


def test_what_is_discarded_is_gone(desk: Desk) -> None:
    order, answer = desk.run(COUNT)
    assert answer.state is not None
    desk.executor.discard(order, answer)
    with pytest.raises(OSError):
        desk.executor.fetch(order, answer, desk.home / "weg")
    assert desk.executor.states.damage("s-1", order.client_id, answer.state) != ""


def test_state_goes_from_task_to_task_and_a_failure_leaves_no_trace(desk: Desk) -> None:
    first, one = desk.run(COUNT)
    failed = f"{COUNT}\nraise SystemExit(3)"
    assert failure(desk, failed, client_id=first.client_id, state=one.state, round_number=2)[0] == "exit_code"
    _, two = desk.run(COUNT, client_id=first.client_id, state=one.state, round_number=3)
    _, again = desk.run(COUNT, client_id=first.client_id, state=one.state, round_number=4)
    assert [answer.metrics["calls"] for answer in (one, two, again)] == [1, 2, 2]
    assert len({one.state, two.state, again.state}) == 3
    _, untouched = desk.run("tell()", client_id=first.client_id)
    assert untouched.state is None, "it left nothing: the next task starts from the package"


def test_states_are_checked_committed_and_forgotten_by_their_tokens(desk: Desk) -> None:
    states = desk.executor.states
    order, one = desk.run(COUNT)
    _, two = desk.run(COUNT, client_id=order.client_id, state=one.state, round_number=2)
    ids = ("s-1", order.client_id)
    assert one.state is not None and two.state is not None
    assert states.damage(*ids, two.state) == states.damage(*ids, two.state, two.state_checksum) == ""
    assert "checksum" in states.damage(*ids, two.state, one.state_checksum[::-1] + "0")
    for token in ("no such token", "..", ".", "", "../../..", "/"):
        assert states.damage(*ids, token) != "" != states.damage(*ids, token, two.state_checksum)
        with contextlib.suppress(OSError):
            states.discard(*ids, token)
    states.commit("s-1", {order.client_id: two.state, "another": None})
    states.forget("s-1", {order.client_id: two.state, "unknown": None})
    assert states.damage(*ids, one.state) != "" == states.damage(*ids, two.state)
    _, three = desk.run(COUNT, client_id=order.client_id, state=two.state, round_number=3)
    assert three.metrics == {"calls": 3} and three.state is not None
    states.discard(*ids, three.state)
    assert states.damage(*ids, three.state) != "" == states.damage(*ids, two.state)
    states.forget("s-1", {order.client_id: None})
    assert states.damage(*ids, two.state) != ""


# ---- the far end

ACROSS = pytest.mark.parametrize("open_desk", ["socket"], indirect=True)


@ACROSS
def test_far_end_is_another_user_in_another_tree(open_desk: Callable[..., Desk]) -> None:
    desk = open_desk(slots=1)
    assert desk.far is not None
    if not desk.far.is_another_user:
        pytest.skip("not root, or an ordinary user can read neither this Python nor fedpkg: it is the same user")
    told = desk.told(f"tell(user=os.getuid(), cwd=os.getcwd(), sees=os.access({str(desk.home)!r}, os.R_OK))")
    assert told["user"] == NOBODY and not told["sees"]
    assert told["cwd"].startswith(f"{desk.far.home}{os.sep}")


@pytest.mark.slow
@ACROSS
def test_far_end_that_is_gone_fails_its_tasks_and_nothing_hangs(open_desk: Callable[..., Desk]) -> None:
    desk = open_desk(slots=1)
    assert desk.far is not None
    code, pid = forever(desk, "lost")
    waiting = [desk.submit(code, data="Daten", timeout_s=None) for _ in range(2)]
    process = pid()
    desk.far.kill()
    for _, answered in waiting:
        answer = answered.result(PATIENCE_S)
        assert (answer.status, answer.failure and answer.failure.kind) == ("failed", "executor")
    wait_until(lambda: not is_alive(process), "the end of the task")
    order, _ = waiting[0]
    assert desk.executor.submit(order).result(PATIENCE_S).status == "failed"
    desk.executor.cancel(order.task_id)
