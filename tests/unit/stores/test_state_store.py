"""What every state store does, whatever its database: one suite, run against each."""

from __future__ import annotations

import dataclasses
import itertools
import math
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fedpkg.errors import NotFound, SessionError, StoreError
from fedpkg.stores.base import (
    ClientHistoryRow,
    ClientRow,
    ClusterChanges,
    MetricRow,
    ModelRow,
    PackageRow,
    RequestRow,
    RoundRow,
    SessionRow,
    SweepPointRow,
    SweepRow,
    TaskRow,
    UpdateRow,
    ValidationRow,
)
from fedpkg.stores.sql import StateStore
from fedpkg.stores.sqlite import SqliteStore

Factory = Callable[[Path, Callable[[], float]], StateStore]


def sqlite(folder: Path, clock: Callable[[], float]) -> StateStore:
    folder.mkdir(exist_ok=True)
    return SqliteStore(folder / "state.db", clock=clock)


@pytest.fixture(params=[pytest.param(sqlite, id="sqlite")])
def open_store(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], StateStore]:
    """Opens the same store again and again; its clock counts 1000, 1001 …"""
    factory: Factory = request.param
    ticks = itertools.count(1000)
    return lambda: factory(tmp_path / "ein Ordner – 日本", lambda: float(next(ticks)))


@pytest.fixture
def store(open_store: Callable[[], StateStore]) -> Iterator[StateStore]:
    with open_store() as store:
        store.add_package(PACKAGE)
        yield store


PACKAGE = PackageRow(
    digest="p" * 64, name="ziffern ✎", size_bytes=1234, entry_points={"train": "python e.py train"}, created_at=1.5
)


def session(session_id: str = "digits-1", **changes: object) -> SessionRow:
    row = SessionRow(
        session_id=session_id,
        name="digits",
        config={"lr": 0.1, "bound": math.inf, "note": "größer", "nested": {"list": [1, None, True]}},
        package_digest=PACKAGE.digest,
        seed=2**63 - 1,
        num_rounds=3,
        created_at=10.25,
        updated_at=10.25,
        package_contents="c" * 64,
        signatures=[{"signer": "ed25519:…", "signature": "…"}],
    )
    return dataclasses.replace(row, **changes)


def model(round_number: int, session_id: str = "digits-1", **changes: object) -> ModelRow:
    row = ModelRow(
        digest=f"{round_number:02x}" * 32,
        session_id=session_id,
        round_number=round_number,
        suffix=".npz",
        keys="names",
        size_bytes=5 << 30,
        created_at=100.0 + round_number,
        parent_id=f"{session_id}.{round_number - 1}" if round_number else None,
        contributors=[{"client_id": "client-0", "num_examples": 12.5}] if round_number else [],
        buffers=["bn.running_mean", "zähler"] if round_number else [],
    )
    return dataclasses.replace(row, **changes)


def round_row(round_number: int, session_id: str = "digits-1", **changes: object) -> RoundRow:
    row = RoundRow(
        session_id=session_id,
        round_number=round_number,
        cohort=["client-0", "client-1"],
        target=2,
        started_at=20.0,
    )
    return dataclasses.replace(row, **changes)


def request_row(request_id: str, **changes: object) -> RequestRow:
    row = RequestRow(
        session_id="digits-1",
        round_number=1,
        request_id=request_id,
        number=1,
        entry_point="train",
        reply_kind="update",
        cohort=["client-0", "client-1"],
        target=2,
        started_at=20.0,
    )
    return dataclasses.replace(row, **changes)


def task(task_id: str, **changes: object) -> TaskRow:
    row = TaskRow(
        task_id=task_id,
        session_id="digits-1",
        round_number=1,
        client_id="client-0",
        position=0,
        entry_point="train",
        attempt=1,
        status="ok",
        started_at=21.0,
        wall_s=0.5,
    )
    return dataclasses.replace(row, **changes)


CLIENTS = [
    ClientRow(session_id="digits-1", client_id="client-1", position=1),
    ClientRow(session_id="digits-1", client_id="client-0", position=0, data_path="/Daten/ä b", num_examples=600),
]


@pytest.fixture
def running(store: StateStore) -> StateStore:
    """A store with a session, its clients and its seed model."""
    store.create_session(session(), CLIENTS, seed_model=model(0))
    return store


def commit(store: StateStore, row: ModelRow) -> None:
    """Record a round that gave this model."""
    store.commit_round(round_row(row.round_number, row.session_id, status="aggregated"), row)


# --- sessions


def test_session_comes_back_as_it_was_recorded(store: StateStore) -> None:
    store.create_session(session(), CLIENTS)
    assert store.get_session("digits-1") == session()
    assert store.list_sessions() == [session()]
    assert store.list_clients("digits-1") == [CLIENTS[1], CLIENTS[0]]


def test_recorded_rows_are_there_after_reopening(open_store: Callable[[], StateStore]) -> None:
    with open_store() as store:
        store.add_package(PACKAGE)
        store.create_session(session(), CLIENTS)
    with open_store() as store:
        assert store.get_session("digits-1") == session()


def test_session_is_found_by_a_unique_prefix(store: StateStore) -> None:
    for session_id in ("digits-1", "digits-1-2", "mnist-1"):
        store.create_session(session(session_id))
    assert store.get_session("mn").session_id == "mnist-1"
    assert store.get_session("digits-1").session_id == "digits-1"  # itself, not the two that it begins
    with pytest.raises(NotFound, match="'digits' is ambiguous: digits-1, digits-1-2"):
        store.get_session("digits")


@pytest.mark.parametrize("wildcard", ["", "%", "d%", "digits_1", "DIGITS"])
def test_prefix_is_taken_literally(store: StateStore, wildcard: str) -> None:
    store.create_session(session())
    with pytest.raises(NotFound):
        store.get_session(wildcard)


def test_unknown_session_names_the_near_ones(store: StateStore) -> None:
    store.create_session(session("digits-20260101-101500"))
    store.create_session(session("zebra"))
    with pytest.raises(NotFound, match="near: digits-20260101-101500") as caught:
        store.get_session("digit-20260101-101500")
    assert "fedpkg session list" in (caught.value.hint or "")
    for call in (
        lambda: store.set_session_status("nobody", "failed"),
        lambda: store.request_stop("nobody"),
        lambda: store.withdraw_stop("nobody"),
        lambda: store.stop_requested("nobody"),
        lambda: store.begin_round(round_row(1, "nobody")),
    ):
        with pytest.raises(NotFound, match="nobody"):
            call()


def test_same_session_twice_is_refused_and_changes_nothing(store: StateStore) -> None:
    store.create_session(session(), CLIENTS)
    with pytest.raises(StoreError, match="already has a row with this key"):
        store.create_session(session(seed=5), [])
    assert store.get_session("digits-1") == session()
    assert len(store.list_clients("digits-1")) == 2


def test_session_without_its_package_is_refused(store: StateStore) -> None:
    with pytest.raises(StoreError, match="is inconsistent with others"):
        store.create_session(session(package_digest="unknown"))


def test_package_is_kept_as_it_was_first_seen(store: StateStore) -> None:
    store.add_package(dataclasses.replace(PACKAGE, name="another"))
    store.create_session(session())


def test_status_and_stop_request(store: StateStore) -> None:
    store.create_session(session())
    assert not store.stop_requested("digits-1")
    store.request_stop("digits-1")
    assert store.stop_requested("digits-1")
    assert store.get_session("digits-1").updated_at == 1000.0
    store.set_session_status("digits-1", "stopped", error="nur 1 von 3 …")
    row = store.get_session("digits-1")
    assert (row.status, row.error, row.stop_requested, row.updated_at) == ("stopped", "nur 1 von 3 …", True, 1001.0)
    store.set_session_status("digits-1", "running")
    store.withdraw_stop("digits-1")
    row = store.get_session("digits-1")
    assert (row.status, row.error, row.stop_requested) == ("running", None, False)


# --- rounds and tasks


def test_full_round_comes_back_as_it_was_recorded(running: StateStore) -> None:
    row = round_row(
        1,
        status="finished",
        counted=["client-1"],
        finished_at=30.0,
        wall_s=10.0,
        num_ok=1,
        num_failed=1,
        num_examples=1e300,
        metrics={"acc": math.nan, "loss": -math.inf, "größe": [1, {"a": None}], "\ud800": "\x00"},
        train_metrics={"loss": 0.1 + 0.2},
        model_id="digits-1.0",
        phases={"fold": 1e-9},
        error="nichts",
    )
    running.begin_round(round_row(1))
    running.finish_round(row)
    assert repr(running.get_round("digits-1", 1)) == repr(row)  # repr: NaN does not equal itself
    assert running.list_rounds("digits-1")[0].status == "finished"


def test_requests_are_recorded_when_they_are_asked_and_when_they_are_answered(running: StateStore) -> None:
    for number in (1, 2):
        running.begin_round(round_row(number))
    second = request_row("ask 2 ü", number=2, entry_point="gradient", client_group="häufig")
    for row in (second, request_row("ask 1"), request_row("ask 1", round_number=2)):
        running.record_requests([row])
    answered = dataclasses.replace(
        second, status="answered", counted=["client-1"], wall_s=0.5, num_ok=1, num_failed=1, bytes_down=9 << 30
    )
    running.record_requests([answered])
    assert running.list_requests("digits-1", round_number=1) == [request_row("ask 1"), answered]
    for number in (5, 6):  # these are written with the next call, and only the last one
        running.record_requests([dataclasses.replace(answered, num_ok=number)], later=True)
    assert running.list_requests("digits-1", round_number=1)[1].num_ok == 6
    running.record_requests([answered])
    assert [row.round_number for row in running.list_requests("digits-1")] == [1, 1, 2]
    failed = dataclasses.replace(second, status="failed")
    running.finish_round(round_row(1, status="failed"), requests=[failed])
    assert running.list_requests("digits-1", round_number=1)[1] == failed


def test_aggregates_of_metrics_come_back_and_are_replaced_when_their_round_is_committed_again(
    running: StateStore,
) -> None:
    def row(metric: str, **changes: Any) -> MetricRow:
        key = {"session_id": "digits-1", "round_number": 1, "phase": "train", "metric": metric, "num_clients": 2}
        return MetricRow(**{**key, "mean": 0.1, "min": -math.inf, "deciles": [0.1] * 9, **changes})

    aggregated = round_row(1, status="aggregated")
    running.commit_round(aggregated, None, metric_rows=[row("schärfe"), row("gone")])
    running.commit_round(aggregated, None, metric_rows=[row("schärfe", mean=0.2), row("\ud800", num_clients=0)])
    validated = [row("loss", phase="validate"), row("loss", phase="held_out", weighted_mean=None)]
    for _ in range(2):  # the second time after a kill
        running.finish_round(round_row(1, status="finished"), metric_rows=validated)
    kept = [row("\\ud800", num_clients=0), row("schärfe", mean=0.2)]
    assert running.list_metric_rows("digits-1") == [validated[1], *kept, validated[0]]
    assert running.list_metric_rows("digits-1", phase="validate", round_number=1) == [validated[0]]
    assert running.list_metric_rows("digits-1", round_number=2) == []


def test_request_of_no_round_is_refused(running: StateStore) -> None:
    with pytest.raises(StoreError, match="is inconsistent with others"):
        running.record_requests([request_row("ask")])


def test_rounds_that_are_not_there(running: StateStore) -> None:
    with pytest.raises(NotFound, match="digits-1 has no round 7"):
        running.get_round("digits-1", 7)


def test_task_update_and_validation_come_back_as_recorded(running: StateStore) -> None:
    failed = task(
        "t-failed",
        status="failed",
        failure="exit_code",
        message="kaputt ✗",
        exit_code=1,
        signal=9,
        folder="/ein Ordner/ü",
        command="bash -c 'x'",
        log_tail="Traceback …\n",
        state_version="v3",
        phases={"fork": 0.001},
        attempt=2,
    )
    update = UpdateRow(
        task_id="t-ok", path="/ü/out.npz", size_bytes=7 << 30, num_examples=0.5, metadata={"x": math.nan}
    )
    validation = ValidationRow(
        task_id="t-val",
        session_id="digits-1",
        round_number=1,
        model_id="digits-1.0",
        client_id="client-0",
        metrics=[1.0, math.inf, {"deep": "ö"}],
        weight=3.0,
        weight_source="train",
    )
    running.record_task(failed)
    running.record_task(task("t-ok"), update=update)
    running.record_task(task("t-val", entry_point="validate"), validation=validation)
    assert running.list_tasks("digits-1") == [task("t-ok"), failed, task("t-val", entry_point="validate")]
    assert repr(running.list_updates("digits-1", 1)) == repr([update])
    assert running.list_validations("digits-1") == [validation]


@pytest.mark.parametrize("metrics", [None, 0, "text", [], {"a": {"b": [1e-320, -0.0]}}])
def test_any_json_is_a_metric(running: StateStore, metrics: object) -> None:
    row = ValidationRow(
        task_id="t",
        session_id="digits-1",
        round_number=1,
        model_id="digits-1.0",
        client_id="client-0",
        metrics=metrics,
        weight=1,
        weight_source="default",
    )
    running.record_task(task("t"), validation=row)
    assert repr(running.list_validations("digits-1")[0].metrics) == repr(metrics)


def test_recording_a_task_again_replaces_all_that_it_left(running: StateStore) -> None:
    update = UpdateRow(task_id="t", path="/out.npz", size_bytes=1, num_examples=1.0)
    for _ in range(2):
        running.record_task(task("t"), update=update)
        assert running.list_updates("digits-1", 1) == [update]
    running.record_task(task("t", status="failed", failure="timeout"))
    assert [row.failure for row in running.list_tasks("digits-1")] == ["timeout"]
    assert running.list_updates("digits-1", 1) == []


def test_tasks_and_updates_are_listed_in_cohort_order_and_filtered(running: StateStore) -> None:
    rows = [
        task(f"{entry_point}-{number}-{position}", round_number=number, position=position, entry_point=entry_point)
        for number in (1, 2)
        for entry_point in ("train", "validate")
        for position in range(12)
    ]
    rows = [dataclasses.replace(row, client_id=f"client-{row.position}") for row in rows]
    for row in reversed(rows):
        running.record_task(row, update=UpdateRow(task_id=row.task_id, path="/p", size_bytes=1, num_examples=1.0))
    assert running.list_tasks("digits-1") == rows
    assert running.list_tasks("digits-1", round_number=2, entry_point="train") == rows[24:36]
    assert [row.task_id for row in running.list_tasks("digits-1", client_id="client-11", round_number=1)] == [
        "train-1-11",
        "validate-1-11",
    ]
    assert [row.task_id for row in running.list_updates("digits-1", 1)][:3] == [
        "train-1-0",
        "validate-1-0",
        "train-1-1",
    ]
    assert running.list_tasks("another") == []


def test_tasks_are_filtered_by_all_that_is_asked_for(running: StateStore) -> None:
    rows = [
        task(f"t-{number}-{k}", round_number=number, position=k, client_id=f"client-{k}", request_id=f"r-{k % 2}")
        for number in (1, 2, 3)
        for k in range(3)
    ]
    rows = [dataclasses.replace(row, status=("ok", "failed", "cancelled")[row.position]) for row in rows]
    updates = [UpdateRow(task_id=row.task_id, path="p", size_bytes=1, num_examples=1.0) for row in rows]
    for row, one in zip(rows, updates, strict=True):
        running.record_task(row, update=one)
    assert running.list_tasks("digits-1", status="failed") == [rows[1], rows[4], rows[7]]
    assert running.list_tasks("digits-1", status=("failed", "cancelled"), round_number=2) == rows[4:6]
    assert running.list_tasks("digits-1", status=()) == []
    assert running.list_updates("digits-1") == updates
    assert running.list_updates("digits-1", 2) == updates[3:6]


def test_rounds_and_requests_are_filtered_and_counted(running: StateStore) -> None:
    statuses = ("finished", "finished", "aggregated", "failed")
    rows = [dataclasses.replace(round_row(number), status=status) for number, status in enumerate(statuses, 1)]
    for row in rows:
        running.begin_round(row)
    assert running.list_rounds("digits-1", status="finished") == rows[:2]
    assert running.list_rounds("digits-1", status=("aggregated", "failed"), limit=1) == [rows[2]]
    assert running.list_rounds(limit=0) == []
    assert running.count_rounds("digits-1") == 4
    assert running.count_rounds("digits-1", status=("aggregated", "finished")) == 3
    for number, status in ((1, "answered"), (2, "asked"), (3, "failed")):
        running.record_requests([request_row("ask", round_number=number, status=status)])
    assert [row.round_number for row in running.list_requests("digits-1")] == [1, 2, 3]
    assert [row.status for row in running.list_requests("digits-1", round_number=2)] == ["asked"]


def test_newest_session_and_newest_models_are_read_alone(running: StateStore) -> None:
    running.create_session(session("digits-2", created_at=99.0))
    assert [row.session_id for row in running.list_sessions(newest_first=True, limit=1)] == ["digits-2"]
    commit(running, model(1))
    assert [row.round_number for row in running.list_models("digits-1", newest_first=True, limit=1)] == [1]


def test_what_programs_say_need_not_be_text(running: StateStore) -> None:
    running.record_task(task("t", status="failed", log_tail="\x00 end \udcff ü", message="\x00"))
    row = running.list_tasks("digits-1")[0]
    assert (row.log_tail, row.message) == ("\\x00 end \\udcff ü", "\\x00")


def test_names_that_are_no_text_are_refused_with_a_reason(running: StateStore) -> None:
    with pytest.raises(StoreError, match=r"tasks.folder is not Unicode text: /caf\\udce9"):
        running.record_task(task("t", folder="/caf\udce9"))


def test_nan_in_a_column_is_refused_not_lost(running: StateStore) -> None:
    update = UpdateRow(task_id="t", path="/p", size_bytes=1, num_examples=math.nan)
    with pytest.raises(StoreError, match=r"updates\.num_examples is NaN"):
        running.record_task(task("t"), update=update)
    running.begin_round(round_row(1))
    with pytest.raises(StoreError, match=r"clients\.last_num_examples is NaN"):
        running.finish_round(round_row(1, status="finished"), clients={"client-0": ("v", math.nan)})
    assert running.get_round("digits-1", 1).status == "training"


def test_number_beyond_64_bits_is_an_error_of_the_store(store: StateStore) -> None:
    with pytest.raises(StoreError):
        store.create_session(session(seed=2**64))


def test_validations_are_filtered_by_round_and_client(running: StateStore) -> None:
    commit(running, model(1))
    rows = [
        ValidationRow(
            task_id=f"v-{number}-{position}",
            session_id="digits-1",
            round_number=number,
            model_id=f"digits-1.{number}",
            client_id=f"client-{position}",
            metrics={"acc": position},
            weight=2.0,
            weight_source="reply",
        )
        for number in (0, 1)
        for position in range(3)
    ]
    for i, row in enumerate(rows):
        running.record_task(task(row.task_id, round_number=row.round_number, position=i % 3), validation=row)
    assert running.list_validations("digits-1") == rows
    assert running.list_validations("digits-1", round_number=1) == rows[3:]
    assert running.list_validations("digits-1", client_id="client-1") == [rows[1], rows[4]]


def test_threads_record_tasks_at_the_same_time(running: StateStore) -> None:
    together = threading.Barrier(4)

    def record(worker: int) -> None:
        together.wait()
        for number in range(25):
            running.record_task(task(f"{worker}-{number}", position=worker))
            running.list_tasks("digits-1", client_id="nobody")

    threads = [threading.Thread(target=record, args=(worker,)) for worker in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(running.list_tasks("digits-1")) == 100


# --- committing


def test_commit_records_all_of_a_round(running: StateStore) -> None:
    running.begin_round(round_row(1))
    done = round_row(1, status="aggregated", counted=["client-0"], model_id="digits-1.1", num_ok=2)
    state = {"step": 1, "momentum": math.inf, "ids": ["ä"]}
    for _ in range(2):  # committing again changes nothing
        running.commit_round(done, model(1), strategy_state=(1, state), clients={"client-1": ("v7", 31.5)})
        assert running.get_round("digits-1", 1) == done
        assert running.get_model("digits-1.1") == model(1)
        assert running.load_strategy_state("digits-1") == (1, state)
        assert running.list_clients("digits-1") == [
            CLIENTS[1],
            dataclasses.replace(CLIENTS[0], state_version="v7", last_num_examples=31.5),
        ]


def test_clients_histories_count_each_committed_round_once(running: StateStore) -> None:
    def commit_and_tell(
        number: int, counted: list[str], metrics: dict[str, dict[str, float]]
    ) -> list[ClientHistoryRow]:
        row = round_row(number, status="aggregated", counted=counted)
        for _ in range(2):  # committing again changes nothing
            running.commit_round(row, model(number, parent_id="digits-1.0"), metrics=metrics)
        return running.list_client_history("digits-1")

    assert running.list_client_history("digits-1") == []
    running.begin_round(round_row(1))
    assert running.list_client_history("digits-1") == [], "not before it is committed"
    first, second = commit_and_tell(1, ["client-0"], {"client-0": {"loss": 0.5, "ä": 1e308}})
    asked = ClientHistoryRow(session_id="digits-1", client_id="client-0", times_asked=1, last_asked=1)
    assert first == dataclasses.replace(asked, times_counted=1, last_counted=1, train_metrics={"loss": 0.5, "ä": 1e308})
    assert second == dataclasses.replace(asked, client_id="client-1")
    for _ in range(2):
        running.finish_round(round_row(1, status="finished"), metrics={"client-0": {"mean": 2.0}, "client-2": {}})
    first, second = commit_and_tell(3, ["client-1"], {"client-1": {"loss": 0.25}})[:2]
    assert (first.times_asked, first.last_asked, first.times_counted, first.last_counted) == (2, 3, 1, 1)
    assert first.train_metrics["loss"] == 0.5 and first.validation_metrics == {"mean": 2.0}, "what it said last"
    assert (second.times_asked, second.times_counted, second.last_counted) == (2, 1, 3)
    assert [row.client_id for row in running.list_client_history("digits-1")] == ["client-0", "client-1", "client-2"]
    running.finish_round(round_row(4, status="failed"))
    assert running.list_client_history("digits-1")[0].times_asked == 2, "a failed round is taken again"


def test_commit_happens_whole_or_not_at_all(running: StateStore) -> None:
    running.begin_round(round_row(1))
    done = round_row(1, status="aggregated", model_id="digits-1.1")
    with pytest.raises(NotFound, match="1 of the 2 clients"):
        running.commit_round(
            done, model(1), strategy_state=(1, {}), clients={"client-0": ("v", 1.0), "stranger": ("v", 1.0)}
        )
    assert running.get_round("digits-1", 1).status == "training"
    assert [row.model_id for row in running.list_models()] == ["digits-1.0"]
    assert running.load_strategy_state("digits-1") is None
    assert running.list_clients("digits-1")[0].state_version is None


def test_only_the_latest_two_strategy_states_are_kept(running: StateStore) -> None:
    for step in (1, 2, 5):
        running.commit_round(
            round_row(step, model_id=f"digits-1.{step}"),
            model(step, parent_id="digits-1.0"),
            strategy_state=(step, {"at": step}),
        )
    assert running.load_strategy_state("digits-1") == (5, {"at": 5})


def test_digests_that_kept_strategy_states_name(running: StateStore) -> None:
    digests = [f"{number:x}" * 64 for number in range(10, 14)]
    for step, digest in enumerate(digests, 1):
        running.commit_round(
            round_row(step, model_id=f"digits-1.{step}"),
            model(step, parent_id="digits-1.0"),
            strategy_state=(step, {"slow": [{"$weights": digest}], "note": "0" * 64}),
        )
    assert running.state_digests() == set(digests[2:])


# --- models


def test_pruned_models_stay_in_the_trail_and_say_so(running: StateStore) -> None:
    running.create_session(session("other"))
    commit(running, model(1))
    commit(running, model(1, "other", parent_id=None))
    running.set_pruned([model(1, pruned="last 2")])
    assert running.model_trail("digits-1.1") == [model(1, pruned="last 2"), model(0)]
    assert running.list_kept_models(session_id="digits-1") == [model(0)]
    assert [row.model_id for row in running.list_kept_models(digest=model(1).digest)] == ["other.1"]
    commit(running, model(1))
    assert running.get_model("digits-1.1").pruned is None, "made again"


def test_sound_database_finds_nothing_wrong(running: StateStore) -> None:
    assert running.check() == []


def test_model_is_found_by_id_session_and_digest(running: StateStore) -> None:
    for number in (1, 2, 10):
        commit(running, model(number, parent_id="digits-1.0"))
    for ref, found in {
        "digits-1.2": 2,
        "digits-1": 10,
        "dig": 10,
        "dig.1": 1,
        "0202": 2,
        "0a" * 32: 10,
    }.items():
        assert running.get_model(ref) == running.get_model(f"digits-1.{found}"), ref
    with pytest.raises(NotFound, match="'0' is ambiguous"):
        running.get_model("0")
    for ref in ("", "digits-1.7", "ffff", "."):
        with pytest.raises(NotFound, match="there is no model"):
            running.get_model(ref)
    with pytest.raises(NotFound, match=r"did you mean 'digits-1\.10'"):
        running.get_model("digits-1.100")


def test_digest_that_several_sessions_share_names_the_newest(running: StateStore) -> None:
    running.create_session(session("other"))
    with pytest.raises(NotFound, match="session other has no model"):
        running.get_model("other")
    commit(running, model(1, "other", digest="00" * 32, parent_id=None, created_at=500.0))
    assert running.get_model("00" * 32).model_id == "other.1"


def test_reference_that_is_both_a_session_and_a_digest_is_not_guessed(running: StateStore) -> None:
    running.create_session(session("abc"), seed_model=model(0, "abc", digest="c" * 64))
    commit(running, model(1, digest="ab" * 32))
    with pytest.raises(NotFound, match=r"'ab' is ambiguous: abc, abab"):
        running.get_model("ab")


def test_model_trail_leads_back_to_the_seed_model(running: StateStore) -> None:
    for number in range(1, 6):
        commit(running, model(number))
    assert running.model_trail("digits-1.4") == [model(number) for number in (4, 3, 2, 1, 0)]
    assert running.model_trail("digits-1.0") == [model(0)]
    with pytest.raises(NotFound):
        running.model_trail("digits-1.9")


def cluster(round_number: int, path: str, *parents: str, digest: str = "cc" * 32, **changes: object) -> ModelRow:
    above = [parent if "." in parent else f"digits-1.{round_number - 1}/{parent}" for parent in parents]
    changes = {"parents": above, "parent_id": above[0] if above else None, "digest": digest, **changes}
    return model(round_number, model_id=f"digits-1.{round_number}/{path}", cluster=path, **changes)


@pytest.fixture
def clustered(running: StateStore) -> StateStore:
    """Clusters a and b; then a splits and b stays; then a/x and b merge to c."""
    rounds = [
        ClusterChanges(
            models=[cluster(1, "a", "digits-1.0"), cluster(1, "b", "digits-1.0", num_examples=3.5)],
            clients={"client-0": "a", "client-1": "b"},
        ),
        ClusterChanges(
            models=[cluster(2, "a/x", "a"), cluster(2, "a/y", "a", digest="dd" * 32)],
            ended=["digits-1.1/a"],
            clients={"client-0": "a/x"},
        ),
        ClusterChanges(
            models=[cluster(3, "c", "a/x", "digits-1.1/b")],
            ended=["digits-1.2/a/x", "digits-1.1/b"],
            clients={"client-0": "c", "client-1": ""},
        ),
    ]
    for number, changes in enumerate(rounds, 1):
        running.begin_round(round_row(number))
        for _ in range(2):  # committing again replaces the rows
            running.commit_round(round_row(number, status="aggregated"), model(number), clusters=changes)
    return running


def test_models_of_clusters_are_current_until_another_replaces_them(clustered: StateStore) -> None:
    def paths(number: int | None) -> dict[str, str]:
        return {row.cluster: row.model_id for row in clustered.list_clusters("digits-1", round_number=number)}

    assert paths(0) == {}
    assert paths(1) == {"a": "digits-1.1/a", "b": "digits-1.1/b"}
    assert paths(2) == {"a/x": "digits-1.2/a/x", "a/y": "digits-1.2/a/y", "b": "digits-1.1/b"}
    assert paths(3) == paths(None) == {"a/y": "digits-1.2/a/y", "c": "digits-1.3/c"}
    assert clustered.list_clusters("digits-1", round_number=1)[1] == cluster(
        1, "b", "digits-1.0", num_examples=3.5, until_round=3
    )
    assert [row.cluster for row in clustered.list_models("digits-1")] == [""] * 4, "the session's own alone"
    assert len(clustered.list_models("digits-1", cluster=None)) == 9
    assert clustered.list_clusters("other") == []


def test_clients_change_their_cluster_and_all_rounds_are_known(clustered: StateStore) -> None:
    assert clustered.list_cluster_clients("digits-1", round_number=0) == {}
    assert clustered.list_cluster_clients("digits-1", round_number=1) == {"client-0": "a", "client-1": "b"}
    assert clustered.list_cluster_clients("digits-1", round_number=2) == {"client-0": "a/x", "client-1": "b"}
    assert clustered.list_cluster_clients("digits-1") == {"client-0": "c"}


def test_trail_of_a_clusters_model_goes_through_merges_and_splits(clustered: StateStore) -> None:
    trail = [row.model_id for row in clustered.model_trail("digits-1.3/c")]
    assert trail == ["digits-1.3/c", "digits-1.2/a/x", "digits-1.1/a", "digits-1.1/b", "digits-1.0"]
    with pytest.raises(NotFound, match="there is no model"):
        clustered.model_trail("digits-1.3/a")


def test_model_of_a_cluster_is_found_by_its_path(clustered: StateStore) -> None:
    for ref, found in {
        "digits-1.3/c": "digits-1.3/c",
        "digits-1/c": "digits-1.3/c",
        "dig.3/a/y": "digits-1.2/a/y",
        "digits-1/a": "digits-1.1/a",
        "digits-1.2/b": "digits-1.1/b",
    }.items():
        assert clustered.get_model(ref).model_id == found, ref
    assert clustered.get_model("cc" * 4).model_id == "digits-1.3/c", "the newest of several with these bytes"
    with pytest.raises(NotFound, match=r"no cluster 'a' after round 3; it has a/y, c\n"):
        clustered.get_model("digits-1.3/a")
    with pytest.raises(NotFound, match=r"no cluster 'z'; it has a/y, c\n"):
        clustered.get_model("digits-1/z")
    with pytest.raises(NotFound, match=r"there is no model 'digits-2'"):
        clustered.get_model("digits-2/a")


def test_models_of_clusters_are_kept_or_pruned_as_others_are(clustered: StateStore) -> None:
    clustered.set_pruned([cluster(1, "a", "digits-1.0", pruned="last 1")])
    kept = [row.model_id for row in clustered.list_kept_models(session_id="digits-1")]
    assert "digits-1.1/a" not in kept and "digits-1.1/b" in kept
    assert len(clustered.list_kept_models(digest="cc" * 32)) == 3


def test_aggregates_of_clusters_stand_beside_those_of_all_clients(clustered: StateStore) -> None:
    key: dict[str, Any] = {"session_id": "digits-1", "round_number": 1, "phase": "validate", "metric": "loss"}
    rows = [MetricRow(**key, num_clients=number, cluster=path) for path, number in (("", 2), ("a", 1), ("b", 1))]
    clustered.finish_round(round_row(1, status="finished"), metric_rows=rows)
    assert clustered.list_metric_rows("digits-1") == rows[:1]
    assert clustered.list_metric_rows("digits-1", cluster="b") == rows[2:]
    assert clustered.list_metric_rows("digits-1", cluster=None) == rows


def test_models_of_one_session_or_of_all(running: StateStore) -> None:
    running.create_session(session("other"), seed_model=model(0, "other", created_at=1.0))
    assert [row.model_id for row in running.list_models()] == ["digits-1.0", "other.0"]
    assert [row.model_id for row in running.list_models("other")] == ["other.0"]


def test_model_id_follows_from_session_and_round() -> None:
    assert model(3).model_id == "digits-1.3"
    with pytest.raises(ValueError, match=r"expected 'digits-1\.3'"):
        ModelRow(**{**dataclasses.asdict(model(3)), "model_id": "digits-1.4"})


# Sweeps


def a_sweep(name: str = "first", **changes: object) -> SweepRow:
    row = SweepRow(
        name=name,
        kind="grid",
        source="/en mapp/run.yaml",
        overrides=["lr=0.1,0.01", "seed=range(2)"],
        created_at=1.5,
        updated_at=1.5,
        options={"parallel": 2, "bound": math.inf},
    )
    return dataclasses.replace(row, **changes)


def test_a_sweep_and_its_points_are_read_as_they_were_written(store: StateStore) -> None:
    store.create_session(session())
    points = [
        SweepPointRow(sweep="first", number=0, choices={"lr": 0.1}, config={"seed": 1}, digest="d"),
        SweepPointRow(sweep="first", number=1, choices={"lr": {"å": None}}, status="failed", error="\x00 – ü"),
    ]
    store.sweeps.create(a_sweep(), points)
    store.sweeps.create(a_sweep("second", created_at=1.0))
    assert store.sweeps.get("first") == a_sweep()
    assert [row.name for row in store.sweeps.all()] == store.sweeps.names() == ["second", "first"]
    assert store.sweeps.points("first") == [points[0], dataclasses.replace(points[1], error="\\x00 – ü")]
    done = dataclasses.replace(points[0], status="finished", session_id="digits-1", value=0.5)
    store.sweeps.record_point(done)
    assert store.sweeps.points("first")[0] == done
    assert store.sweeps.counts("first") == {"failed": 1, "finished": 1}
    assert store.sweeps.points("second") == [] and store.sweeps.counts("second") == {}


def test_a_sweep_is_changed_by_its_name(store: StateStore) -> None:
    store.sweeps.create(a_sweep())
    assert not store.sweeps.stop_requested("first")
    store.sweeps.change("first", stop_requested=True, status="interrupted", error="ü\x00")
    found = store.sweeps.get("first")
    assert (found.stop_requested, found.status, found.error) == (True, "interrupted", "ü\\x00")
    assert found.updated_at >= 1000 and store.sweeps.stop_requested("first")
    with pytest.raises(NotFound, match=r"no sweep 'fist' in .*did you mean 'first'"):
        store.sweeps.change("fist", status="finished")


def test_two_sweeps_of_one_name_and_points_of_no_sweep_or_session_are_refused(store: StateStore) -> None:
    store.sweeps.create(a_sweep())
    point = SweepPointRow(sweep="first", number=0, choices={})
    with pytest.raises(SessionError, match="there is a sweep 'first'"):
        store.sweeps.create(a_sweep(), [point])
    assert store.sweeps.points("first") == []
    for wrong in (dataclasses.replace(point, sweep="other"), dataclasses.replace(point, session_id="none")):
        with pytest.raises(StoreError, match="inconsistent with others"):
            store.sweeps.record_point(wrong)
