"""What the live display says while no task ends."""

import io

import msgspec
import pytest
from rich.console import Console
from rich.spinner import Spinner

from fedpkg.cli.options import Settings
from fedpkg.cli.progress import LiveDisplay, Progress
from fedpkg.controller.events import PhaseStarted, Preparing, RoundFinished, SessionStarted, TaskEnded, Waiting, Warming
from fedpkg.stores.base import RoundRow, SessionRow
from fedpkg.stores.home import Home
from fedpkg.waist.answer import Answer
from fedpkg.waist.order import Order

SESSION = SessionRow(
    session_id="digits-1\x1b[2J",
    name="digits",
    config={},
    package_digest="",
    seed=0,
    num_rounds=2,
    created_at=0.0,
    updated_at=0.0,
)
ORDER = Order(
    task_id="t",
    session_id="s",
    round_number=1,
    client_id="c",
    entry_point="train",
    package="p",
    reply_spec="r",
    request_id="1",
)
ENDED = TaskEnded(order=ORDER, answer=Answer(task_id="t", status="ok"))


@pytest.fixture
def see(tmp_path):
    """Tells the display of events, and gives what it shows then."""
    progress = Progress(Settings().command, Home.open(tmp_path / "home"), 2)
    progress.take(Warming(is_warming=True))
    display = LiveDisplay(progress)
    display._spinner = Spinner("dots")

    def look(*events):
        for event in events:
            progress.take(event)
        console = Console(file=io.StringIO(), width=200)
        console.print(display._render())
        return console.file.getvalue()

    return look


def test_before_the_session_it_says_what_is_prepared(see):
    assert "starting: the package's Python environment" in see(Preparing(what="the package's Python environment"))
    assert "warming" not in see(Preparing(what="the clients' data")), "nothing waits for the interpreter yet"
    built = "the package builds its seed model"
    assert f"starting: {built}, warming the interpreter" in see(Preparing(what=built))
    assert f"starting: {built}  " in see(Warming(is_warming=False))


def test_in_the_session_it_says_that_the_interpreter_warms_until_a_task_has_ended(see):
    shown = see(
        SessionStarted(session=SESSION, num_clients=10, first_round=1, num_rounds=2),
        PhaseStarted(round_number=1, phase="train", num_clients=2),
    )
    assert "train: 0 of 2 clients" in shown and "warming the interpreter" in shown
    assert r"digits-1\x1b[2J" in shown and "\x1b" not in shown
    assert "warming" not in see(Warming(is_warming=False))
    assert "aggregating" not in see(ENDED)
    assert "train: 2 of 2 clients" in see(ENDED) and "aggregating" in see()
    shown = see(PhaseStarted(round_number=1, phase="validate", num_clients=2))
    assert "validate: 0 of 2 clients" in shown and "aggregating" not in shown
    row = RoundRow(session_id="s", round_number=1, cohort=[], target=0, started_at=0.0, metrics={"[red]acc\x9b": 0.5})
    assert r"[red]acc\x9b 0.500" in see(RoundFinished(round=row, model=None))


def test_an_outstanding_request_that_ends_during_validation_is_no_client_that_validates(see):
    shown = see(
        SessionStarted(session=SESSION, num_clients=10, first_round=1, num_rounds=2),
        PhaseStarted(round_number=1, phase="validate", num_clients=2),
        ENDED,
    )
    assert "validate: 0 of 2 clients" in shown


def test_it_says_what_a_round_waits_for_and_counts_no_task_of_an_earlier_round(see):
    def waiting(number):
        return Waiting(round_number=2, num_requests=number, num_outstanding=4)

    see(
        SessionStarted(session=SESSION, num_clients=10, first_round=1, num_rounds=2),
        Warming(is_warming=False),
        PhaseStarted(round_number=1, phase="train", num_clients=4),
    )
    shown = see(waiting(3))
    assert "round 2/2" in shown and "waiting for 3 of 4 outstanding requests" in shown and "0 of 0" not in shown
    shown = see(waiting(0), PhaseStarted(round_number=2, phase="train", num_clients=1), waiting(1), ENDED)
    assert "train: 0 of 1 clients" in shown and "waiting for 1 of 4 outstanding requests" in shown
    assert "waiting" not in see(waiting(0)) and "aggregating" not in see()


def test_measurements_around_training_count_in_their_own_phase(see):
    see(SessionStarted(session=SESSION, num_clients=10, first_round=1, num_rounds=2))
    for phase, request_id in (("before_training", "$before_training"), ("train", "1"), ("validate", "$server")):
        order = msgspec.structs.replace(ORDER, request_id=request_id)
        shown = see(
            PhaseStarted(round_number=1, phase=phase, num_clients=2),
            TaskEnded(order=order, answer=Answer(task_id="t", status="ok")),
        )
        assert f"{phase.replace('_', ' ')}: 1 of 2 clients" in shown
    assert "validate: 2 of 2 clients" in see(
        TaskEnded(order=msgspec.structs.replace(ORDER, request_id=None), answer=Answer(task_id="t", status="ok"))
    )
