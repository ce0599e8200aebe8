"""Sessions: the list of a home, and one session with what happens in it now."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import msgspec

from fedpkg.api.asking import Limit, Order, Ref, Skip, Text, page, question
from fedpkg.api.opening import Opened, Page, Struct
from fedpkg.reporting.measures import PHASES, metric_rank
from fedpkg.session.record import status_of
from fedpkg.stores.metric_rows import best_is_lowest, is_lower_better
from fedpkg.stores.overview import RequestSums, RoundFacts, RoundSums

if TYPE_CHECKING:
    from fedpkg.stores.base import MetricRow, SessionRow

Sort: TypeAlias = Literal[
    "created_at", "updated_at", "name", "status", "package", "strategy", "rounds_done", "session_id"
]
_RECENT = 5  # rounds, for the estimate of the time left


class Headline(Struct, frozen=True, kw_only=True):
    """The metric to show where there is room for one: the weighted mean over clients."""

    phase: str
    metric: str
    value: float | None
    round_number: int


class SessionSummary(Struct, frozen=True, kw_only=True):
    """A line in the list of sessions.

    ``status`` is ``killed`` if the session's process is gone without a word. ``num_rounds`` 0: the number is not known.
    ``progress`` is from 0 to 1; None: not known. ``error`` is why the session ended, if it did not end as planned.
    """

    session_id: str
    name: str
    status: str
    created_at: float
    updated_at: float
    package: str
    package_digest: str
    strategy: str
    num_clients: int
    seed: int
    rounds_done: int
    num_rounds: int
    progress: float | None
    error: str | None = None
    sweep: str | None = None
    point: int | None = None
    headline: Headline | None = None


class Now(Struct, frozen=True, kw_only=True):
    """What a running session does.

    ``phase``: ``preparing``, ``training``, ``validating`` or ``between rounds``. ``ended`` of ``asked`` tasks of this
    phase have ended.
    """

    phase: str
    round_number: int
    since: float | None
    asked: int
    ended: int
    failed: int


class SessionDetail(Struct, frozen=True, kw_only=True):
    """One session. ``why_ended`` says it in a sentence, ``resume`` is the command that goes on with it."""

    summary: SessionSummary
    now: Now | None
    seconds_left: float | None
    why_ended: str | None
    resume: str | None
    stop_requested: bool
    rules: int
    signers: list[str]
    folder: str
    seed_model: str | None
    executor: str
    workers: int | None
    required: int | None
    sampler: str
    dataset: str | None
    partition: str | None
    has_tree: bool
    num_failed_tasks: int
    seconds: float
    bytes_down: int
    bytes_up: int
    calls: int
    virtual_s: float | None
    privacy: dict[str, float]
    notes: tuple[str, ...] = ()


@question
def list_sessions(
    at: Opened,
    *,
    search: Text = "",
    state: Text = "",
    package: Text = "",
    strategy: Text = "",
    sweep: Text = "",
    sort: Sort = "created_at",
    order: Order = "desc",
    skip: Skip = 0,
    limit: Limit = 100,
) -> Page[SessionSummary]:
    """The sessions of the home.

    Args:
        search: words, each of which must occur in the id, name, package, strategy or status, in any case.
        state: a status (``running``, ``finished``, ``failed``, ``killed`` …), or several, separated by commas.
        package: the name of a package, or the beginning of its digest.
        strategy: the name of a strategy.
        sweep: the name of a sweep.
    """
    words = search.casefold().split()
    states = {word.strip() for word in state.split(",") if word.strip()}
    read = at.overview.sessions()
    makes = _Summaries(at)
    found = [makes.of(row) for row in read.rows]
    found = [
        one
        for one in found
        if (not states or one.status in states)
        and (not package or one.package == package or one.package_digest.startswith(package))
        and (not strategy or one.strategy == strategy)
        and (not sweep or one.sweep == sweep)
        and all(word in _words_of(one) for word in words)
    ]
    found.sort(key=lambda one: _sort_key(getattr(one, sort)), reverse=order == "desc")
    part = page(found, skip=skip, limit=limit, notes=at.notes(read))
    return Page(
        total=part.total, skip=part.skip, items=[with_headline(at, one) for one in part.items], notes=part.notes
    )


def summaries(at: Opened, rows: Sequence[SessionRow]) -> list[SessionSummary]:
    """The summaries of some sessions, in their order."""
    makes = _Summaries(at)
    return [with_headline(at, makes.of(row)) for row in rows]


@question
def session_filters(at: Opened) -> dict[str, list[str]]:
    """The values that the filters of `list_sessions` can have: ``state``, ``package``, ``strategy``, ``sweep``."""
    makes = _Summaries(at)
    found = [makes.of(row) for row in at.overview.sessions().rows]
    return {
        "state": sorted({one.status for one in found}),
        "package": sorted({one.package for one in found}),
        "strategy": sorted({one.strategy for one in found}),
        "sweep": sorted({one.sweep for one in found if one.sweep}),
    }


def _sort_key(value: Any) -> Any:
    return value.casefold() if isinstance(value, str) else value


def _words_of(one: SessionSummary) -> str:
    words = (one.session_id, one.name, one.package, one.strategy, one.status, one.sweep or "")
    return " ".join(words).casefold()


@question
def get_session(at: Opened, ref: Ref) -> SessionDetail:
    """One session, by its id, the beginning of one, or ``latest``. Raises NotFound."""
    row = at.session(ref)
    session_id, config = row.session_id, row.config
    summary = with_headline(at, _Summaries(at).of(row))
    read = at.overview.rounds(session_id)
    rounds: Sequence[RoundFacts] = read.rows
    requests = at.overview.request_sums(session_id)
    is_running = summary.status == "running"
    now = _now(at, session_id, rounds, requests) if is_running else None
    models = at.store.list_models(session_id, limit=1)
    data = _section(config, "clients").get("data")
    data = data if isinstance(data, dict) else {}
    done = [one for one in rounds if one.status in ("aggregated", "finished")]
    virtual = [one.phases["virtual_time"] for one in done if "virtual_time" in one.phases]
    return SessionDetail(
        summary=summary,
        now=now,
        seconds_left=_seconds_left(summary, rounds) if is_running else None,
        why_ended=why_ended(summary),
        resume=at.command(f"session resume {session_id}")
        if can_resume(summary.status, summary.error, summary.rounds_done, summary.num_rounds)
        else None,
        stop_requested=bool(row.stop_requested),
        rules=row.rules,
        signers=[str(one.get("signer", "")) for one in row.signatures],
        folder=f"{at.home.root.name}/sessions/{session_id}",
        seed_model=models[0].model_id if models else None,
        executor=str(_section(config, "executor").get("name", "")),
        workers=_whole(_section(config, "executor").get("workers")),
        required=_whole(_section(config, "round").get("required")),
        sampler=str(_section(config, "sampler").get("name", "")),
        dataset=_dataset(at, data),
        partition=_name_of(data.get("partition")),
        has_tree=bool(config.get("topology")),
        num_failed_tasks=at.overview.count_failed(session_id),
        seconds=sum(one.wall_s or 0.0 for one in done),
        bytes_down=sum(one.bytes_down for one in requests.values()),
        bytes_up=sum(one.bytes_up for one in requests.values()),
        calls=sum(one.calls for one in requests.values()),
        virtual_s=virtual[-1] if virtual else None,
        privacy=_privacy(config, done[-1].strategy_metrics) if done else {},
        notes=(*at.without_config(row), *at.notes(read)),
    )


def privacy_of(told: Mapping[str, Any]) -> dict[str, float]:
    """Of the numbers that a strategy reports, those about privacy: ``epsilon`` and ``delta``."""
    return {
        name: float(value)
        for name, value in told.items()
        if name.rpartition("/")[2] in ("epsilon", "delta")
        and isinstance(value, (int, float))
        and not isinstance(value, bool)
    }


def _privacy(config: Mapping[str, Any], told: Mapping[str, Any]) -> dict[str, float]:
    """`privacy_of`, with the ``delta`` of the configuration: an epsilon says nothing without it."""
    found = privacy_of(told)
    delta = _section(config, "strategy").get("delta")
    return {**found, "delta": delta} if "epsilon" in found and isinstance(delta, float) else found


def why_ended(summary: SessionSummary) -> str | None:
    """Why a session is not running, in a sentence."""
    done = f"after {summary.rounds_done} of {summary.num_rounds or summary.rounds_done} rounds"
    because = f": {summary.error}" if summary.error else ""
    return {
        "finished": f"It finished {done}{because}",
        "stopped": f"It was stopped {done}{because}",
        "interrupted": f"It was interrupted {done}{because}",
        "failed": f"It failed {done}{because}",
        "killed": f"Its process ended {done} without a record of the reason: it was killed, or the machine went down",
    }.get(summary.status)


def can_resume(status: str, error: str | None, rounds_done: int, num_rounds: int) -> bool:
    """Whether a session of this status does not run and has rounds left."""
    if status == "finished":
        return not error and rounds_done < num_rounds
    return status not in ("running", "created")


def _now(at: Opened, session_id: str, rounds: Sequence[RoundFacts], requests: Mapping[int, RequestSums]) -> Now:
    last = rounds[-1] if rounds else None
    if last is None:
        return Now(phase="preparing", round_number=0, since=None, asked=0, ended=0, failed=0)
    number = last.round_number
    if last.status == "finished":
        return Now(phase="between rounds", round_number=number, since=last.finished_at, asked=0, ended=0, failed=0)
    counts = at.overview.task_counts(session_id, number)
    is_validating = last.status == "aggregated"
    of_phase = {key: count for key, count in counts.items() if (key[0] == "validate") == is_validating}
    (current,) = at.overview.rounds(session_id, after=number - 1, with_counts=True).rows[:1] or [last]
    asked = requests.get(number)
    return Now(
        phase="validating" if is_validating else "training",
        round_number=number,
        since=last.started_at,
        asked=current.num_asked if is_validating or asked is None else asked.calls,
        ended=sum(of_phase.values()),
        failed=sum(count for key, count in of_phase.items() if key[1] == "failed"),
    )


def _seconds_left(summary: SessionSummary, rounds: Sequence[RoundFacts]) -> float | None:
    """The median of the last rounds for each round that is left; of the current one, what it has not used yet."""
    spent = [one.wall_s for one in rounds if one.status == "finished" and one.wall_s is not None][-_RECENT:]
    left = summary.num_rounds - summary.rounds_done
    if not spent or not summary.num_rounds or left < 0:
        return None
    running = [one for one in rounds[-1:] if one.status in ("training", "aggregated")]
    since = time.time() - running[0].started_at if running else 0.0
    left += sum(one.status == "aggregated" for one in running)
    typical = statistics.median(spent)
    return typical * left - min(since, typical if left else 0.0)


class _Summaries:
    """Makes the summaries of sessions; what they share is read once."""

    def __init__(self, at: Opened) -> None:
        self._running = at.running()
        self._sums = at.overview.round_sums()
        self._clients = at.overview.client_counts()
        self._sweeps = at.overview.sweeps_of()
        self._packages = at.overview.packages()

    def of(self, row: SessionRow) -> SessionSummary:
        sums = self._sums.get(row.session_id, RoundSums())
        sweep, point = self._sweeps.get(row.session_id, (None, None))
        status = status_of(row, self._running)
        return SessionSummary(
            session_id=row.session_id,
            name=row.name,
            status=status,
            created_at=row.created_at,
            updated_at=row.updated_at,
            package=self._packages.get(row.package_digest) or row.package_digest[:12],
            package_digest=row.package_digest,
            strategy=strategy_name(row.config),
            num_clients=self._clients.get(row.session_id, 0),
            seed=row.seed,
            rounds_done=sums.rounds_done,
            num_rounds=row.num_rounds,
            progress=min(1.0, sums.rounds_done / row.num_rounds) if row.num_rounds else None,
            error=row.error,
            sweep=sweep,
            point=point,
        )


def strategy_name(config: Mapping[str, Any]) -> str:
    """The name of the strategy in a session's configuration."""
    return str(_section(config, "strategy").get("name") or "pipeline")


def with_headline(at: Opened, one: SessionSummary) -> SessionSummary:
    """The summary with its first metric."""
    return msgspec.structs.replace(one, headline=_headline(at.overview.last_metrics(one.session_id)))


def _headline(rows: Sequence[MetricRow]) -> Headline | None:
    def rank(row: MetricRow) -> tuple[int, int, int]:
        return PHASES.index(row.phase), "." in row.metric, metric_rank(row.metric)

    known = [row for row in rows if row.phase in PHASES]
    if not known:
        return None
    first = min(known, key=rank)
    return Headline(phase=first.phase, metric=first.metric, value=first.weighted_mean, round_number=first.round_number)


def lower_is_better(config: Mapping[str, Any], metric: str) -> bool:
    """Whether the lowest value of a metric is best, by ``stop`` of the configuration or by its name."""
    stop = config.get("stop")
    if isinstance(stop, Mapping) and stop.get("metric") == metric:
        return best_is_lowest(stop)
    return is_lower_better(metric)


def _section(config: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """A section of a stored configuration, empty if it is missing or damaged."""
    found = config.get(name)
    return found if isinstance(found, Mapping) else {}


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _name_of(value: object) -> str | None:
    if isinstance(value, Mapping):
        value = value.get("name")
    return None if value is None else str(value)


def _dataset(at: Opened, data: Mapping[str, Any]) -> str | None:
    dataset = data.get("dataset") or data.get("source")
    if isinstance(dataset, Mapping):
        dataset = dataset.get("path") or dataset.get("name")
    return None if dataset is None else at.shown_path(str(dataset))
