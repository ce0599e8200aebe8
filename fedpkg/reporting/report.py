"""The report of a session: one page that holds everything it shows, without a script."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedpkg.controller.choosing import VIRTUAL_TIME
from fedpkg.data.described import split_charts
from fedpkg.pictures import html
from fedpkg.pictures.axes import bytes_text, number_text
from fedpkg.pictures.chart import Chart, Number
from fedpkg.reporting.charts import (
    MOST_CURVES,
    Step,
    bytes_chart,
    clients_chart,
    constant_metrics,
    failure_chart,
    metric_charts,
    phases_chart,
    seconds_chart,
    trail_chart,
)
from fedpkg.reporting.combiners import Account, accounts, clusters_of
from fedpkg.reporting.measures import Measured, measured
from fedpkg.reporting.provenance import read_starts, versions
from fedpkg.reporting.splits import split_of
from fedpkg.reporting.stored_config import without_secrets, yaml_of
from fedpkg.stores.metric_rows import is_lower_better
from fedpkg.strategies.base import ROOT

if TYPE_CHECKING:
    from fedpkg.stores.base import ClientRow, ModelRow, RequestRow, RoundRow, SessionRow, SweepPointRow, TaskRow
    from fedpkg.stores.home import Home
    from fedpkg.stores.sql import StateStore
    from fedpkg.types import Json

MOST_ROUNDS = 50  # in the table; a session with more has the first and the last ones
MOST_CLIENTS = 40
MOST_COMBINERS = 40  # in the table; of clusters, too
MOST_FAILURES = 15
MOST_MODELS = 20


@dataclass(frozen=True)
class Facts:
    """What is on record of one session."""

    session: SessionRow
    point: SweepPointRow | None  # of a sweep
    status: str
    folder: Path
    root: Path
    rounds: Sequence[RoundRow]
    requests: Sequence[RequestRow]
    clients: Sequence[ClientRow]
    failed: Sequence[TaskRow]
    models: Sequence[ModelRow]
    measured: Measured
    last_values: Mapping[str, Mapping[str, Number]]  # client → metric → value, of the last validated round
    last_validated: int
    asked: Mapping[str, tuple[int, int]]  # client → number of rounds in which it was asked, in which it counted
    combiners: Sequence[Account]  # each before those below it
    clusters: Sequence[Mapping[str, Any]]  # with models of their own


def facts_of(home: Home, store: StateStore, session: SessionRow, status: str) -> Facts:
    """Read what the report of a session shows; a controller may be writing meanwhile."""
    session_id = session.session_id
    found, rounds = measured(store, session_id), store.list_rounds(session_id)
    validated = [row.round_number for row in rounds if row.metrics]
    last = validated[-1] if validated else 0
    validations = store.list_validations(session_id, round_number=last) if last else []
    values = {row.client_id: _numbers(row.metrics) for row in validations if row.phase == "validate"}
    requests = store.list_requests(session_id)
    combiners = accounts([], store.list_combiners(session_id), requests)
    return Facts(
        session=session,
        point=store.sweeps.point_of(session_id),
        status=status,
        folder=home.session_folder(session_id),
        root=home.root,
        rounds=rounds,
        requests=requests,
        clients=store.list_clients(session_id),
        failed=store.list_tasks(session_id, status="failed"),
        models=store.list_models(session_id),
        measured=found,
        last_values=values,
        last_validated=last,
        asked={row.client_id: (row.times_asked, row.times_counted) for row in store.list_client_history(session_id)},
        combiners=sorted(combiners, key=lambda one: one.path.split("/") if one.path else []),
        clusters=clusters_of(store, session_id),
    )


def _numbers(metrics: Json) -> dict[str, float]:
    told = metrics.items() if isinstance(metrics, dict) else ()
    return {name: value for name, value in told if isinstance(value, (int, float)) and not isinstance(value, bool)}


def report_page(facts: Facts) -> str:
    """The report as one HTML document."""
    parts = [
        ("curves", "Metrics", _curves(facts)),
        ("clients", "Clients", _clients(facts)),
        ("combiners", "Combiners", _combiners(facts)),
        ("clusters", "Clusters", _clusters(facts)),
        ("data", "Partition of the data", _data(facts)),
        ("failures", "Failures", _failures(facts)),
        ("costs", "Bytes and time", _costs(facts)),
        ("rounds", "Rounds", _rounds(facts)),
        ("models", "Model trail", _models(facts)),
        ("config", "Configuration", [html.preformatted(yaml_of(facts.session.config))]),
    ]
    told = [(anchor, title, list(body)) for anchor, title, body in parts]
    told = [(anchor, title, body) for anchor, title, body in told if body]
    links = "".join(f'<a href="#{anchor}">{html.text(title)}</a>' for anchor, title, _ in told)
    body = [f"<h1>{html.text(facts.session.session_id)}</h1>", *_head(facts), f"<nav>{links}</nav>"]
    for anchor, title, inner in told:
        body += [html.heading(title, anchor), *inner]
    when = time.strftime("%Y-%m-%d %H:%M:%S %Z")
    body.append(html.paragraph(f"Written by fedpkg {versions().get('fedpkg', '')} at {when}.", look="quiet"))
    return html.page(f"{facts.session.session_id} – fedpkg", body)


def _head(facts: Facts) -> Iterator[str]:
    """What ran, where it came from, and how it ended."""
    session, config = facts.session, facts.session.config
    done = sum(row.status in ("aggregated", "finished") for row in facts.rounds)
    seconds = sum(row.wall_s or 0.0 for row in facts.rounds)
    of = f" of {max(done, session.num_rounds)}" if session.num_rounds else ""
    words = f"{facts.status}, {done}{of} rounds, {len(facts.clients)} clients, "
    is_bad = facts.status in ("failed", "killed", "interrupted")
    yield html.paragraph(words + f"{_duration(seconds)} in rounds", look="bad" if is_bad else "")
    if session.error:
        yield html.preformatted(session.error)
    pairs = [
        ("started", _when(session.created_at)),
        *_point(facts.point),
        ("package", f"{config.get('package', '')} (sha256 {session.package_digest})"),
        *(("signed by", str(one.get("signer", ""))) for one in session.signatures),
        ("strategy", _named(config.get("strategy"))),
        ("sampler", _named(config.get("sampler"))),
        ("seed", str(session.seed)),
        ("executor", _named(config.get("executor"))),
        *_best(facts.measured),
        *_origin(facts.folder),
    ]
    yield html.facts([(name, value) for name, value in pairs if value])


def _point(point: SweepPointRow | None) -> Iterator[tuple[str, str]]:
    """The sweep of the session, and what the sweep chose for it."""
    if point is not None:
        chosen = without_secrets(point.choices).items()
        words = [f"{key}={value if isinstance(value, str) else json.dumps(value)}" for key, value in chosen]
        told = " ".join([point.baseline, *words]).strip() or "unchanged"
        yield "sweep", f"{point.sweep}, point {point.number}: {told}"


def _best(found: Measured) -> Iterator[tuple[str, str]]:
    """The best value of the first metric."""
    for phase, metric in list(found.metrics)[:1]:
        values = {n: one.weighted_mean for n, one in found.metrics[phase, metric].items()}
        known = {number: value for number, value in values.items() if value is not None}
        if known:
            choose = min if is_lower_better(metric) else max
            best = choose(known, key=lambda number: known[number])
            yield f"best {metric}", f"{_number(known[best])}, round {best}"


def _origin(folder: Path) -> Iterator[tuple[str, str]]:
    """Versions, machine and commit of each start."""
    entries = read_starts(folder)
    if not entries:
        yield "versions", "not on record: the session was started by an older fedpkg"
    for number, entry in enumerate(entries):
        word = "" if number == 0 else f", resumed {_when(entry.get('at', 0))}"
        found, machine = entry.get("versions", {}), entry.get("machine", {})
        told = ", ".join(f"{name} {version}" for name, version in found.items())
        yield f"versions{word}", f"{told}; {machine.get('system', '')}, {machine.get('cores', '?')} cores"
        git = entry.get("git") or {}
        if not git:
            yield f"git commit{word}", f"{entry.get('folder', '')} was in no git repository"
            continue
        changed, untracked = git.get("changed", 0), len(git.get("untracked", ()))
        state = f"with uncommitted changes in {changed} files" if changed else "without uncommitted changes"
        state += f", {untracked} files that git does not track" if untracked else ""
        yield f"git commit{word}", f"{git.get('commit', '')} (branch {git.get('branch', '')}), {state}"


def _curves(facts: Facts) -> Iterator[str]:
    if not facts.measured.names:
        yield html.paragraph("No round has a metric.", look="quiet")
        return
    constant = constant_metrics(facts.measured)
    names = [name for name in facts.measured.names if name not in constant]
    yield html.figures(metric_charts(facts.measured, names[:MOST_CURVES]))
    if constant:
        told = ", ".join(f"{name} {_number(value)}" for name, value in constant.items())
        yield html.paragraph(f"The same in all rounds: {told}", look="quiet")
    if others := names[MOST_CURVES:]:
        yield html.paragraph(f"{len(others)} further metrics have no curve here: {', '.join(others)}", look="quiet")


def _clients(facts: Facts) -> Iterator[str]:
    metric = next((name for phase, name in facts.measured.metrics if phase == "validate"), None)
    values = {name: found.get(metric or "") for name, found in facts.last_values.items()}
    if metric and values:
        yield html.figures([clients_chart(values.values(), metric, facts.last_validated)])
    failures = Counter(task.client_id for task in facts.failed)
    shown_clients = list(facts.clients)
    if len(shown_clients) > MOST_CLIENTS:
        shown_clients.sort(key=lambda client: -failures[client.client_id])  # stable: else in their order
        words = f"The {MOST_CLIENTS} clients with the most failures, of {len(facts.clients)}."
        yield html.paragraph(words, look="quiet")
    rows = [_client_line(client, facts, failures, metric) for client in shown_clients[:MOST_CLIENTS]]
    columns = ["client", "examples", "rounds asked", "rounds counted", "failed tasks", *([metric] if metric else [])]
    yield html.table(columns, rows, numbers=(1, 2, 3, 4, 5))


def _client_line(client: ClientRow, facts: Facts, failures: Counter[str], metric: str | None) -> list[str]:
    asked, counted = facts.asked.get(client.client_id, (0, 0))
    line = [client.client_id, _number(client.known_examples), str(asked), str(counted), str(failures[client.client_id])]
    return [*line, *([_number(facts.last_values.get(client.client_id, {}).get(metric))] if metric else [])]


def _combiners(facts: Facts) -> Iterator[str]:
    """What each combiner of the tree did."""
    if not facts.combiners:
        return
    if len(facts.combiners) > MOST_COMBINERS:
        yield html.paragraph(f"The first {MOST_COMBINERS} of {len(facts.combiners)} combiners.", look="quiet")
    rows = []
    for one in facts.combiners[:MOST_COMBINERS]:
        replies, seconds = f"{one.num_ok}/{one.num_asked}", f"{one.wall_s:.2f}"
        cells = [one.path or ROOT, str(one.rounds), str(one.failed), replies, _number(one.num_examples)]
        moved = [bytes_text(one.bytes_down), bytes_text(one.bytes_up)]
        rows.append([*cells, str(one.calls), str(one.calls_failed), *moved, seconds, one.reason])
    columns = ["combiner", "rounds", "failed rounds", "replies", "examples", "calls", "failed calls"]
    columns += ["bytes down", "bytes up", "seconds", "last reason"]
    yield html.table(columns, rows, numbers=range(1, 10), label="Combiners")


def _clusters(facts: Facts) -> Iterator[str]:
    """The models of clusters, and what their clients measured last."""
    if not facts.clusters:
        return
    if len(facts.clusters) > MOST_COMBINERS:
        yield html.paragraph(f"The first {MOST_COMBINERS} of {len(facts.clusters)} clusters.", look="quiet")
    shown_clusters = facts.clusters[:MOST_COMBINERS]
    metrics = list(dict.fromkeys(name for one in shown_clusters for name in one["metrics"]))[:4]
    rows = []
    for one in shown_clusters:
        cells = [one["cluster"], one["model_id"], str(len(one["clients"])), _number(one["num_examples"])]
        rows.append([*cells, *(_number(one["metrics"].get(name)) for name in metrics)])
    columns = ["cluster", "model", "clients", "examples", *metrics]
    yield html.table(columns, rows, numbers=range(2, len(columns)), label="Clusters")


def _data(facts: Facts) -> Iterator[str]:
    split = split_of(facts.root, facts.session, facts.clients)
    if split is None:
        return
    scheme = ", ".join(f"{key} {value}" for key, value in split.scheme.items())
    yield html.facts([("dataset", split.source), ("partition", scheme)])
    if split.sizes:
        yield html.figures(list(split_charts(split.clients, split.sizes, split.labels, split.counts)))


def _failures(facts: Facts) -> Iterator[str]:
    if not facts.failed:
        yield html.paragraph("No task failed.", look="quiet")
        return
    last = max((row.round_number for row in facts.rounds), default=1)
    told = [(task.round_number, task.failure or "failed", 1) for task in facts.failed]
    yield html.figures([failure_chart(told, max(last, 1))])
    kinds = Counter((task.failure or "failed", task.entry_point) for task in facts.failed)
    rows = [[kind, entry_point, str(number)] for (kind, entry_point), number in kinds.most_common()]
    yield html.table(["failure", "entry point", "tasks"], rows, numbers=(2,))
    if len(facts.failed) > MOST_FAILURES:
        words = f"The last {MOST_FAILURES} of {len(facts.failed)} failed tasks:"
        yield html.paragraph(words, look="quiet")
    for task in facts.failed[-MOST_FAILURES:]:
        summary = f"round {task.round_number}, {task.client_id}, {task.entry_point}: {(task.message or '')[:300]}"
        yield html.folded(summary, html.preformatted((task.log_tail or "no output")[-4000:]))


def _costs(facts: Facts) -> Iterator[str]:
    if not facts.rounds:
        return
    down, up = sum(row.bytes_down for row in facts.requests), sum(row.bytes_up for row in facts.requests)
    calls = sum(len(row.cohort) for row in facts.requests)
    pairs = [("bytes down", bytes_text(down)), ("bytes up", bytes_text(up)), ("client calls", f"{calls:,}")]
    yield html.facts([*pairs, ("wall time of rounds", _duration(sum(row.wall_s or 0.0 for row in facts.rounds)))])
    yield html.figures(_cost_charts(facts))


def _cost_charts(facts: Facts) -> Iterator[Chart]:
    sums: dict[int, tuple[int, int]] = {}
    for request in sorted(facts.requests, key=lambda one: one.round_number):
        down, up = sums.get(request.round_number, (0, 0))
        sums[request.round_number] = down + request.bytes_down, up + request.bytes_up
    yield bytes_chart(list(sums), [down for down, _ in sums.values()], [up for _, up in sums.values()])
    ended = [row for row in facts.rounds if row.wall_s is not None]
    numbers = [row.round_number for row in ended]
    yield seconds_chart(numbers, [row.wall_s for row in ended])
    phases = [{name: one for name, one in row.phases.items() if name != VIRTUAL_TIME} for row in ended]
    yield phases_chart(numbers, phases)


def _rounds(facts: Facts) -> Iterator[str]:
    if not facts.rounds:
        return
    metrics = [(phase, name) for phase, name in facts.measured.metrics if phase != "strategy"][:4]
    ends = _ends(facts.rounds, MOST_ROUNDS)
    if len(facts.rounds) > MOST_ROUNDS:
        yield html.paragraph(f"The first and the last of {len(facts.rounds)} rounds.", look="quiet")
    rows = []
    for row in ends:
        told = [facts.measured.metrics[key].get(row.round_number) for key in metrics]
        numbers = [_number(None if measure is None else measure.weighted_mean) for measure in told]
        cells = [str(row.round_number), row.status, str(row.num_ok), str(row.num_failed), _number(row.num_examples)]
        rows.append([*cells, *numbers, "–" if row.wall_s is None else f"{row.wall_s:.2f}"])
    names = [name if phase == "validate" else f"{name} ({phase})" for phase, name in metrics]
    columns = ["round", "status", "ok", "failed", "examples", *names, "seconds"]
    yield html.table(columns, rows, numbers=(0, *range(2, len(columns))))


def _models(facts: Facts) -> Iterator[str]:
    if not facts.models:
        yield html.paragraph("The strategy has no model.", look="quiet")
        return
    steps = [Step(one.model_id, one.parent_id, one.round_number, len(one.contributors)) for one in facts.models]
    yield html.figures([trail_chart(steps)], height=90)
    if len(facts.models) > MOST_MODELS:
        yield html.paragraph(f"The first and the last of {len(facts.models)} models.", look="quiet")
    rows = []
    for model in _ends(facts.models, MOST_MODELS):
        kept = f"removed ({model.pruned})" if model.pruned else bytes_text(model.size_bytes)
        contributors = str(len(model.contributors)) if model.round_number else "seed model"
        rows.append([model.model_id, model.parent_id or "–", contributors, kept, model.digest[:24]])
    yield html.table(["model", "made from", "contributors", "file", "sha256 begins"], rows, numbers=(2,))


def _ends(rows: Sequence[Any], most: int) -> Sequence[Any]:
    """All rows, or the first quarter and the last ones of ``most``."""
    return rows if len(rows) <= most else [*rows[: most // 4], *rows[-(most - most // 4) :]]


def _named(section: Any) -> str:
    """A section of the configuration in one line, its name first."""
    if not isinstance(section, dict):
        return "" if section is None else str(section)
    rest = [
        f"{key} {value}"
        for key, value in section.items()
        if key != "name" and not isinstance(value, (dict, list)) and value not in (None, "")
    ]
    return ", ".join([str(section.get("name", "")), *rest])


def _number(value: Number) -> str:
    return "–" if value is None else number_text(value)


def _when(timestamp: Any) -> str:
    return time.strftime(
        "%Y-%m-%d %H:%M:%S %Z", time.localtime(timestamp if isinstance(timestamp, (int, float)) else 0)
    )


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"
