"""Nothing lost, and bit-identical: whatever ends a controller, resuming gives the model of an undisturbed run."""

from __future__ import annotations

import random
import re
import signal
from pathlib import Path

import pytest
from driven import drive, killed, outcome_of, wait_until_gone, write_config
from federation import DRIFTING, Arrivals, Federation, feasible

from fedpkg.cli.main import run_command
from fedpkg.config import RunConfig
from fedpkg.errors import SessionFailed
from fedpkg.stores.home import Home


def config_of(federation: Federation, **changes: object) -> RunConfig:
    """Four clients of which three are asked and some fail; draws that nobody seeds; state; weights; validation."""
    return federation.config(
        **{
            "package": str(DRIFTING),
            "clients": 4,
            "rounds": 3,
            "sampler": {"fraction_train": 0.75},
            "validation": {"every": 2, "fraction": 0.5},
            "arguments": {"train": {"fails": "client-1@2,client-2@3,client-0@1"}},
            **changes,
        }
    )


@pytest.fixture(scope="module")
def sampled(tmp_path_factory: pytest.TempPathFactory) -> Federation:
    """One session of `config_of`, which nobody disturbs."""
    federation = Federation(Home.open(tmp_path_factory.mktemp("in aller Ruhe") / ".fedpkg"))
    federation.run(config_of(federation))
    return federation


def outcome_of_only(federation: Federation) -> list[object]:
    (session,) = federation.store.list_sessions()
    return outcome_of(federation, session.session_id)


@pytest.mark.timeout(400)  # a new controller for every event: a minute, on a quiet machine
@pytest.mark.parametrize(
    "every", [pytest.param(9, marks=pytest.mark.slow), pytest.param(1, marks=pytest.mark.soak)], ids=str
)
def test_killed_at_any_event_a_session_resumes_to_the_same_bits(
    federation: Federation, sampled: Federation, every: int
) -> None:
    expected = outcome_of_only(sampled)
    assert any(row[3] for row in expected[1]), "some client failed"  # type: ignore[attr-defined]
    events = len(sampled.events)
    config = write_config(federation, config_of(federation))
    for kill_at in range(1, events, every):
        killed(federation, "--run", config, "--kill-at", str(kill_at))
        wait_until_gone(federation)
        session = federation.store.list_sessions()[-1]
        assert federation.resume(session.session_id).status == "finished"
        assert outcome_of(federation, session.session_id) == expected, f"killed at event {kill_at}"


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("step", ["begin_round", "record_requests", "commit_round", "finish_round"])
@pytest.mark.every_push("record_requests-before|commit_round-after|finish_round-before")
def test_killed_at_a_commit_a_session_resumes_to_the_same_bits(
    federation: Federation, sampled: Federation, step: str, moment: str
) -> None:
    config = write_config(federation, config_of(federation))
    killed(federation, "--run", config, "--kill-at-step", f"{moment}:{step}:2")
    session = federation.store.list_sessions()[-1]
    assert federation.resume(session.session_id).status == "finished"
    assert outcome_of(federation, session.session_id) == outcome_of_only(sampled)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Federation:
    """One session in which all is as it comes: two workers, forked, nobody waits for anybody, nobody is killed."""
    federation = Federation(Home.open(tmp_path_factory.mktemp("in aller Ruhe") / ".fedpkg"))
    federation.run(config_of(federation, sampler={}))
    return federation


@pytest.mark.parametrize(
    ("executor", "workers"),
    [
        pytest.param(executor, workers, marks=pytest.mark.slow if is_sample else pytest.mark.soak)
        for executor, sampled in (("process", 1), ("forkserver", 2), ("resident", 4))
        for workers in (1, 2, 4)
        for is_sample in [workers == sampled]
    ],
)
@pytest.mark.every_push("forkserver")
def test_killed_at_random_instants_a_session_resumes_to_the_same_bits(
    federation: Federation, undisturbed: Federation, tmp_path: Path, executor: str, workers: int
) -> None:
    """Whatever runs the tasks, however many at a time, in whatever order they end, however often it is killed."""
    seed = f"{executor} {workers}"
    rng = random.Random(seed)
    arrivals = Arrivals(tmp_path / "angekommen")
    orders = {number: feasible([f"client-{k}" for k in range(4)], workers, rng) for number in (1, 2, 3)}
    train = {"fails": "client-1@2,client-2@3,client-0@1", **arrivals.arguments(orders)}
    config = config_of(
        federation, sampler={}, executor={"name": executor, "workers": workers}, arguments={"train": train}
    )
    kills = [f"{rng.randint(1, len(undisturbed.events) // 2)}:{rng.uniform(0, 0.05):.3f}"]
    kills += [f"{rng.randint(0, 3)}:{rng.uniform(0, 0.3):.3f}"]
    about = f"seed {seed!r}, kills {kills}, orders {orders}"
    words = ["--run", write_config(federation, config)]
    printed = ""
    for kill in kills:
        process = drive(federation, *words, "--kill-after", kill, "--arrivals", str(arrivals.folder))
        printed += process.communicate(timeout=200)[0]
        assert process.returncode in (-signal.SIGKILL, 0), about
        session_id = federation.store.list_sessions()[-1].session_id
        words = ["--resume", session_id]
        assert not [finding for finding in federation.findings() if finding.damaged], about
    arrivals.catch_up(federation.home, session_id)
    federation.resume(session_id, watch=arrivals)
    assert len(federation.store.list_sessions()) == 1
    assert outcome_of(federation, session_id) == outcome_of(
        undisturbed, undisturbed.store.list_sessions()[0].session_id
    ), about
    ended = [line.split("/")[1:3] for line in printed.splitlines() if line.startswith("TaskEnded") and "/train" in line]
    for number, order in orders.items():
        # One that was told just before a kill was not yet on record: it has run again.
        came = list(dict.fromkeys(client for round_number, client in ended if round_number == str(number)))
        assert came == [client for client in order if client in came], about


@pytest.mark.slow
def test_killed_at_every_step_of_keeping_a_model_a_session_resumes_to_the_same_bits(
    federation: Federation, undisturbed: Federation
) -> None:
    config = write_config(federation, config_of(federation, sampler={}))
    killed(federation, "--run", config, "--kill-at-step", "after:create_session:1")
    (session,) = federation.store.list_sessions()
    # Whether there is a half written file then: from the rename on it is the model itself, which the next one finds.
    steps = {"before:write:1": True, "after:write:2": True, "before:fsync:1": True, "before:rename:1": True}
    steps |= {"after:rename:1": False, "after:fsync:3": True, "before:commit_round:1": False}
    steps |= {"after:commit_round:1": False}
    for step, is_half_written in steps.items():
        killed(federation, "--kill-at-step", step, "--resume", session.session_id)
        findings = federation.findings()
        assert not [finding for finding in findings if finding.damaged], step
        in_models = [finding for finding in findings if finding.place.startswith(f"{federation.home.models}/.")]
        assert [finding.problem for finding in in_models] == ["half written"] * is_half_written, step
    with drive(federation, "--prune") as pruning:
        assert pruning.wait(60) == 0
    assert federation.findings() == []
    federation.resume(session.session_id)
    expected = outcome_of(undisturbed, undisturbed.store.list_sessions()[0].session_id)
    assert outcome_of(federation, session.session_id) == expected


def files_of(federation: Federation) -> list[str]:
    """Files of a home with one session, by what they are for: a later attempt at a task has other folders."""
    found = []
    for path in federation.home.root.rglob("*"):
        name = str(path.relative_to(federation.home.root)).replace(federation.store.list_sessions()[0].session_id, "ID")
        is_of_checkout = "/uncommitted-" in name  # one for each start, in a repository with changes
        if path.is_file() and not is_of_checkout and not name.startswith(("state.db", "config.json", "lock")):
            found.append(re.sub(r"(train|validate)(-\d+)?(\.again-\d+)?", r"\1", name))
    return sorted(found)


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_killed_controllers_leave_no_files(federation: Federation, undisturbed: Federation) -> None:
    """Killed again and again, a home holds in the end what an undisturbed one holds; whatever is left over is seen."""
    config = write_config(federation, config_of(federation, sampler={}))
    killed(federation, "--run", config, "--kill-at-step", "before:create_session:1")
    assert federation.store.list_sessions() == []
    (folder,) = federation.home.sessions.iterdir()
    assert ("a session that ended before it was on record", False) in [
        (finding.problem.removeprefix("of "), finding.damaged) for finding in federation.findings()
    ]
    mark = folder / "left"  # the next session may have the same second, and so the same name
    mark.touch()
    killed(federation, "--run", config, "--kill-at-step", "after:create_session:1")
    assert not mark.exists()
    (session,) = federation.store.list_sessions()
    words = ["--resume", session.session_id]
    # Tasks in flight and ended, before and after a commit, while the second round's model is validated, and after that.
    steps = ("before:record_task:2", "before:commit_round:1", "after:commit_round:1", "before:record_task:6")
    for step in (*steps, "after:finish_round:1"):
        killed(federation, *words, "--kill-at-step", step)
        wait_until_gone(federation)
        findings = federation.findings()
        assert findings, step
        assert not [finding for finding in findings if finding.damaged], step
    federation.resume(session.session_id)
    assert federation.findings() == []
    assert outcome_of(federation, session.session_id) == outcome_of(
        undisturbed, undisturbed.store.list_sessions()[0].session_id
    )
    assert files_of(federation) == files_of(undisturbed)


@pytest.mark.soak
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("executor", ["process", "forkserver", "resident"])
def test_killed_around_every_record_a_session_leaves_the_files_of_an_undisturbed_one(
    tmp_path: Path, undisturbed: Federation, executor: str
) -> None:
    expected = outcome_of(undisturbed, undisturbed.store.list_sessions()[0].session_id)
    steps = [("record_task", 16), ("record_requests", 6), ("begin_round", 3), ("commit_round", 3), ("finish_round", 3)]
    for step in [f"{moment}:{name}:{k + 1}" for name, n in steps for k in range(n) for moment in ("before", "after")]:
        federation = Federation(Home.open(tmp_path / step.replace(":", " ") / ".fedpkg"))
        config = config_of(federation, sampler={}, executor={"name": executor, "workers": 2})
        killed(federation, "--run", write_config(federation, config), "--kill-at-step", step)
        wait_until_gone(federation)
        session_id = federation.store.list_sessions()[0].session_id
        federation.resume(session_id)
        assert outcome_of(federation, session_id) == expected, step
        assert federation.findings() == [], step
        logs = {"process": "cold", "forkserver": "warm-0", "resident": "warm-0"}
        left = [name.replace("executor/warm-0", f"executor/{logs[executor]}") for name in files_of(undisturbed)]
        assert files_of(federation) == sorted(left), step


@pytest.mark.slow
def test_answers_that_counted_still_do_when_a_controller_is_killed(federation: Federation, tmp_path: Path) -> None:
    """Of four clients the first three to answer count: who they were is not decided again."""
    arrivals = Arrivals(tmp_path / "angekommen")
    clients = [f"client-{k}" for k in range(4)]
    orders = {1: clients[::-1], 2: [clients[k] for k in (2, 0, 3, 1)], 3: clients}
    config = config_of(
        federation,
        sampler={"fraction_train": 0.75, "over_selection": 0.3},
        executor={"workers": 4},
        arguments={"train": arrivals.arguments(orders)},
    )
    undisturbed = federation.run(config, watch=arrivals)
    expected = outcome_of(federation, undisturbed.session_id)
    assert [row[1] for row in expected[1]] == [sorted(order[:3]) for order in orders.values()]  # type: ignore[attr-defined]
    for path in arrivals.folder.iterdir():
        path.unlink()
    told = ["--arrivals", str(arrivals.folder)]
    killed(federation, "--run", write_config(federation, config), *told, "--kill-at-step", "after:record_requests:2")
    session_id = federation.store.list_sessions()[-1].session_id
    killed(federation, "--resume", session_id, *told, "--kill-at-step", "before:record_requests:2")
    killed(federation, "--resume", session_id, *told, "--kill-at-step", "after:record_task:1")
    arrivals.catch_up(federation.home, session_id)
    federation.resume(session_id, watch=arrivals)
    assert outcome_of(federation, session_id) == expected


@pytest.mark.slow
def test_moved_home_shows_checks_and_resumes_to_the_same_bits(
    federation: Federation, capsys: pytest.CaptureFixture[str]
) -> None:
    data = {"count": 4, "data": {"dataset": "sklearn/iris"}}
    config = config_of(federation, sampler={}, clients=data, round={"required": 2}, keep={"updates": True})
    expected = outcome_of(federation, federation.run(config).session_id)
    killed(federation, "--run", write_config(federation, config), "--kill-at-step", "before:record_requests:4")
    wait_until_gone(federation)
    moved = Federation(Home(federation.home.root.rename(federation.home.root.with_name("umgezogen nach hier"))))
    assert [finding for finding in moved.findings() if finding.damaged] == []
    session = moved.store.list_sessions()[-1]
    assert run_command(["session", "show", session.session_id, "--home", str(moved.home.root)]) == 0
    failures = [line for line in capsys.readouterr().out.splitlines() if "stderr.log" in line]
    assert failures and all("umgezogen nach hier" in line for line in failures)
    moved.resume(session.session_id)
    assert outcome_of(moved, session.session_id) == expected
    tasks = moved.store.list_tasks(session.session_id)
    assert not [task for task in tasks if task.status == "cancelled"], "what was on record was not run again"


@pytest.mark.slow
def test_retry_that_is_killed_is_a_retry_again(federation: Federation) -> None:
    config = config_of(federation, sampler={}, round={"required": 4}, arguments={"train": {"fails": "client-1@1"}})
    with pytest.raises(SessionFailed):
        federation.run(config)
    session = federation.store.list_sessions()[-1]
    killed(federation, "--kill-at-step", "after:begin_round:1", "--resume", session.session_id)
    with pytest.raises(SessionFailed):
        federation.resume(session.session_id)
    assert federation.task(session, "client-1").attempt >= 2, "the client that failed was asked again"
    assert federation.task(session, "client-0").attempt == 1, "the others were not"


def test_killed_twice_in_a_round_a_session_loses_only_tasks_in_flight(
    federation: Federation, sampled: Federation
) -> None:
    config = write_config(federation, config_of(federation))
    killed(federation, "--run", config, "--kill-at-step", "after:record_task:2")
    session = federation.store.list_sessions()[-1]
    assert len(federation.store.list_tasks(session.session_id, round_number=1)) == 2
    federation.resume(session.session_id)
    attempts = [
        task.attempt for task in federation.store.list_tasks(session.session_id, round_number=1, entry_point="train")
    ]
    assert len(attempts) == 3, "the two recorded tasks were not run again"
    assert outcome_of(federation, session.session_id) == outcome_of_only(sampled)


@pytest.mark.slow
def test_tasks_that_were_not_written_when_a_controller_was_killed_run_again(
    federation: Federation, sampled: Federation
) -> None:
    """Of each round, the tasks before the kill are answered and wait to be written together."""
    config = write_config(federation, config_of(federation))
    killed(federation, "--run", config, "--unflushed", "--kill-at-step", "after:record_task:2")
    session = federation.store.list_sessions()[-1]
    assert federation.store.list_tasks(session.session_id) == []
    wait_until_gone(federation)
    words = ["--resume", session.session_id, "--unflushed", "--kill-at-step"]
    killed(federation, *words, "after:record_task:5")
    tasks = federation.store.list_tasks(session.session_id, round_number=1)
    assert len(tasks) == 3, "those that a committed round rests on are on record"
    wait_until_gone(federation)
    killed(federation, *words, "before:finish_round:2")
    federation.resume(session.session_id)
    assert outcome_of(federation, session.session_id) == outcome_of_only(sampled)
    assert federation.findings() == []


@pytest.mark.parametrize("changes", [{"executor": {"workers": 1}}, {"executor": {"workers": 4}}])
@pytest.mark.every_push("changes1")
def test_number_of_workers_does_not_change_a_bit(
    federation: Federation, sampled: Federation, changes: dict[str, object]
) -> None:
    other = federation.run(config_of(federation, **changes)).session_id
    assert outcome_of_only(sampled) == outcome_of(federation, other)


def test_seed_changes_the_models(federation: Federation) -> None:
    one, other = federation.run(config_of(federation)), federation.run(config_of(federation, seed=1))
    assert not set(federation.digests(one.session_id)) & set(federation.digests(other.session_id))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["process", "resident"])
@pytest.mark.every_push("resident")
def test_executor_does_not_change_a_bit(federation: Federation, sampled: Federation, name: str) -> None:
    other = federation.run(config_of(federation, executor={"name": name, "workers": 2}))
    assert outcome_of_only(sampled) == outcome_of(federation, other.session_id)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_no_process_outlives_a_controller_that_ends(federation: Federation, number: signal.Signals) -> None:
    config = write_config(
        federation, federation.config(plan={"client-0": "ignore_sigterm", "client-1": "daemon", "client-2": "sleep"})
    )
    process = drive(federation, "--run", config)
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("TaskEnded"):  # the daemon's task; the other two run for ever
            break
    process.send_signal(number)
    wait_until_gone(federation)
    process.communicate()
    session = federation.store.list_sessions()[-1]
    assert session.status == ("interrupted" if number == signal.SIGINT else "running")


@pytest.mark.parametrize(("how", "status"), [("signal", "interrupted"), ("session stop", "stopped")])
@pytest.mark.every_push("session stop")
def test_session_that_was_ended_in_a_round_resumes_to_the_same_bits(
    federation: Federation, monkeypatch: pytest.MonkeyPatch, how: str, status: str
) -> None:
    config = federation.config(clients=2, rounds=2)
    expected = federation.digests(federation.run(config).session_id)
    monkeypatch.setenv("MISBEHAVE", "sleep")
    process = drive(federation, "--run", write_config(federation, config))
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("PhaseStarted"):
            break
    if how == "signal":
        process.send_signal(signal.SIGINT)
    else:
        assert run_command(["session", "stop", "--home", str(federation.home.root)]) == 0
    process.communicate(timeout=200)
    monkeypatch.delenv("MISBEHAVE")
    session = federation.store.list_sessions()[-1]
    assert session.status == status
    assert federation.resume(session.session_id).status == "finished"
    assert federation.digests(session.session_id) == expected


def test_half_written_file_in_the_folder_of_a_session_is_removed(federation: Federation) -> None:
    session = federation.run(clients=2)
    half = federation.home.session_folder(session.session_id) / ".started-with.json.1.0a1b2c3d.tmp"
    half.touch()
    assert [finding.problem for finding in federation.findings()] == ["half written"]
    federation.resume(session.session_id, rounds=2)
    assert not half.exists()
