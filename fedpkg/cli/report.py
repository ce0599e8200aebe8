"""What has become of a session, for people: its rounds, its failures, its model, and where to look further."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedpkg.analytics.node import keeps_policy
from fedpkg.cli import output
from fedpkg.compute_package.arguments import format_arguments
from fedpkg.errors import ModelFileError
from fedpkg.shown import shown
from fedpkg.stores.base import HELD_OUT
from fedpkg.stores.models import ModelStore
from fedpkg.waist.place import STARTUP, TASK_JSON, is_of_startup, last_told, told_in

if TYPE_CHECKING:
    from fedpkg.cli.options import Settings
    from fedpkg.stores.base import ModelRow, RequestRow, RoundRow, SessionRow, TaskRow
    from fedpkg.stores.home import Home
    from fedpkg.stores.sql import StateStore
    from fedpkg.types import Json

METRIC_COLUMNS = 3


def metric_names(metrics: Mapping[str, object]) -> list[str]:
    """A round's metrics, those first that people look for first."""
    names = [name for name, value in metrics.items() if name != "num_examples" and isinstance(value, (int, float))]
    from fedpkg.reporting.measures import metric_rank

    return sorted(names, key=metric_rank)


def round_metrics(row: RoundRow) -> dict[str, Any]:
    """The averages to show of a round: of its validation, else of its training. NaN: there is no average."""
    return {name: math.nan if value is None else value for name, value in (row.metrics or row.train_metrics).items()}


def strategy_numbers(row: RoundRow) -> dict[str, Any]:
    """Of what a strategy tells of its step, the numbers; what else it tells is shown to programs alone."""
    is_number = (int, float, type(None))
    return {
        name: value
        for name, value in row.strategy_metrics.items()
        if isinstance(value, is_number) and not isinstance(value, bool)
    }


def metric_remarks(row: RoundRow) -> dict[str, str]:
    """Of `round_metrics` that are not averages over all clients that report them: `` (1 of 2 finite)``."""
    validated = [("", "validate"), (HELD_OUT, "held_out")] if row.metrics else [("", "train")]
    remarks = {
        f"{prefix}{name}": f" ({finite} of {told} finite)"
        for prefix, phase in validated
        for name, (finite, told) in row.averages.get(phase, {}).get("finite", {}).items()
    }
    without = [name for name, value in (row.metrics or row.train_metrics).items() if value is None]
    return {**dict.fromkeys(without, " (all weights 0)"), **remarks}


def metric_text(row: RoundRow, name: str) -> str:
    """One of `round_metrics`, with its remark."""
    remark = metric_remarks(row).get(name, "")
    return output.measures([round_metrics(row)[name]], decimals=bool(remark))[0] + remark


def examples_text(row: RoundRow) -> str:
    """How many examples a round's updates stand for.

    It is empty where no reply says it: where all clients count alike, and for replies without weights.
    """
    is_equal = row.averages.get("train", {}).get("weight_source") == "equal"
    return "" if is_equal or (row.num_ok and not row.num_examples) else output.number(row.num_examples)


def calls_text(row: RoundRow) -> str:
    """How many clients replied; for a round that asks them several times, how many calls of them succeeded."""
    if row.num_ok + row.num_failed <= len(row.cohort):
        return f"{row.num_ok} ok {row.num_failed} failed"
    clients = f"{len(row.cohort)} client{'s' * (len(row.cohort) != 1)}"
    return f"{clients}, {row.num_ok} calls ok {row.num_failed} failed"


def weight_source(row: RoundRow) -> str | None:
    """Where the clients' weights in the average of a round's validation come from."""
    source: str | None = row.averages.get("validate", {}).get("weight_source")
    return source


def headline(row: RoundRow) -> str | None:
    """The one metric to show where there is room for one, with its name."""
    names = metric_names(round_metrics(row))
    return f"{shown(names[0])} {metric_text(row, names[0])}" if names else None


def rounds_table(store: StateStore, session_id: str) -> None:
    """The session's rounds; nothing if there are none."""
    rounds = store.list_rounds(session_id)
    if not rounds:
        return
    names, metrics = _metric_columns(rounds)
    asked = asked_by_round(store, session_id)
    sums = [_sums(asked.get(row.round_number, [])) for row in rounds]
    columns: list[tuple[str, list[str]]] = [("round", [str(row.round_number) for row in rounds])]
    if any(row.status != "finished" for row in rounds):
        columns.append(("status", [row.status for row in rounds]))
    if any(len(requests) > 1 for requests in asked.values()):
        columns.append(("requests", [number for number, _, _ in sums]))
    are_calls = any(row.num_ok + row.num_failed > len(row.cohort) for row in rounds)
    columns += [("clients", [str(len(row.cohort)) for row in rounds])] * are_calls
    columns.append(("calls ok" if are_calls else "ok", [str(row.num_ok) for row in rounds]))
    columns.append(("failed", [str(row.num_failed) for row in rounds]))
    columns += [("examples", [examples_text(row) for row in rounds]), *zip(names, metrics, strict=True)]
    columns += [("down", [down for _, down, _ in sums]), ("up", [up for _, _, up in sums])]
    columns.append(("seconds", ["-" if row.wall_s is None else f"{row.wall_s:.1f}" for row in rounds]))
    if any("virtual_time" in row.phases for row in rounds):
        columns.append(("virtual time", [output.number(row.phases.get("virtual_time")) for row in rounds]))
    if digests := {model.round_number: model.digest for model in store.list_models(session_id)}:
        columns.append(("model", [digests.get(row.round_number, "-")[:12] for row in rounds]))
    output.table([name for name, _ in columns], list(map(list, zip(*(cells for _, cells in columns), strict=True))))
    for line in [*_weight_notes(rounds), *_unseen_notes(rounds, names), *_text_notes(rounds)]:
        output.result(line)


def _metric_columns(rounds: Sequence[RoundRow]) -> tuple[list[str], list[list[str]]]:
    """The metrics that the table shows, and a column for each: clients' averages, then what the strategy tells."""
    found = [{**round_metrics(row), **strategy_numbers(row)} for row in rounds]
    remarks = [metric_remarks(row) for row in rounds]
    told = list(dict.fromkeys(name for row in rounds for name in strategy_numbers(row)))
    names = metric_names({name: value for metrics in reversed(found) for name, value in metrics.items()})
    names = [*[name for name in names if name not in told][:METRIC_COLUMNS], *told]
    columns = []
    for name in names:
        values = [metrics.get(name) for metrics in found]
        texts = output.measures(values, decimals=any(name in one for one in remarks))
        columns.append([text + one.get(name, "") for text, one in zip(texts, remarks, strict=True)])
    return names, columns


_WEIGHTS = {
    "split": "the sizes of the clients' parts of the data, as not every client reports num_examples with its metrics",
    "train": "each client's num_examples in training, as not every client reports it with its metrics",
    "equal": "equal weights, as not every client reports num_examples, with its metrics or in training",
    "mixed": "each client's num_examples, in metrics or in training, or else 1: the rules that the session began with",
}


def _weight_notes(rounds: Sequence[RoundRow]) -> list[str]:
    """What the clients weigh in the averages of the table, where it is not what all of them report."""
    notes = []
    for prefix, phase in (("", "validate"), (HELD_OUT, "held_out")):
        by_source: dict[str, list[int]] = {}
        for row in rounds:
            about = row.averages.get(phase, {})
            if about.get("num_clients", 0) > 1:
                by_source.setdefault(about["weight_source"], []).append(row.round_number)
        for source in [source for source in by_source if source in _WEIGHTS]:
            numbers = by_source[source]
            where = "" if len(by_source) == 1 else f" of rounds {', '.join(map(str, numbers[:10]))}"
            where += " …" if where and len(numbers) > 10 else ""
            notes.append(f"{prefix}metrics{where}: averaged by {_WEIGHTS[source]}")
    return notes


def _unseen_notes(rounds: Sequence[RoundRow], names: Sequence[str]) -> list[str]:
    """Metrics that were not finite, and have no column."""
    unseen = dict.fromkeys(name for row in rounds for name in metric_remarks(row) if name not in names)
    return [f"not finite for some clients, without a column: {', '.join(map(shown, unseen))}"] if unseen else []


def _text_notes(rounds: Sequence[RoundRow]) -> list[str]:
    """Metrics that are text, and so have no average."""
    abouts = [row.averages.get(phase, {}) for row in rounds for phase in ("validate", "held_out")]
    texts = dict.fromkeys(name for about in abouts for name in about.get("text", ()))
    return [f"text of the clients: {', '.join(map(shown, texts))} (fedpkg validation list)"] if texts else []


def asked_by_round(store: StateStore, session_id: str) -> dict[int, list[RequestRow]]:
    """The requests of each round, in their order."""
    asked: dict[int, list[RequestRow]] = {}
    for request in store.list_requests(session_id):
        asked.setdefault(request.round_number, []).append(request)
    return asked


def _sums(requests: Sequence[RequestRow]) -> list[str]:
    down, up = sum(row.bytes_down for row in requests), sum(row.bytes_up for row in requests)
    return [str(len(requests)), output.size(down), output.size(up)]


def requests_table(requests: Sequence[RequestRow]) -> None:
    """What a round asked for, by entry point and group: how often, of how many clients, and the bytes."""
    kinds: dict[tuple[str, str], list[RequestRow]] = {}
    for row in requests:
        kinds.setdefault((row.entry_point, row.client_group or ""), []).append(row)
    rows = []
    for (entry_point, group), alike in kinds.items():
        number, down, up = _sums(alike)
        calls = [sum(len(row.cohort) for row in alike), sum(row.num_ok for row in alike)]
        failed = sum(row.num_failed for row in alike)
        seconds = sum(row.wall_s or 0.0 for row in alike)
        rows.append([entry_point, group, number, *map(str, calls), str(failed), down, up, f"{seconds:.2f}"])
    columns = ["entry point", "group", "requests", "calls", "ok", "failed", "down", "up", "seconds"]
    if not any(group for _, group in kinds):
        columns, rows = columns[:1] + columns[2:], [row[:1] + row[2:] for row in rows]
    output.table(columns, rows)


def final_report(settings: Settings, home: Home, store: StateStore, session: SessionRow) -> None:
    """What a run ends with on standard output."""
    from fedpkg.session.configuration import ALGORITHM

    session_id = session.session_id
    rounds_table(store, session_id)
    model = next(iter(store.list_models(session_id, newest_first=True, limit=1)), None)
    output.result()
    if session.status != "finished":
        go_on = settings.command(f"session resume {session_id}")
        output.result(f"session {session_id} is {session.status}; go on: {go_on}")
    elif session.error:
        output.result(f"session {session_id} ended: {session.error}")
    suggestions = [(settings.command(f"session show {session_id}"), "rounds, failures, configuration")]
    if session.config["strategy"].get("name") == ALGORITHM and session.status == "finished":
        suggestions.insert(0, (settings.command(f"algorithm result {session_id}"), "what the function returned"))
    if model is None:
        suggestions.append((settings.command(f"session show {session_id} --json"), "all that each round found"))
    else:
        model_facts(home, model)
        export = f"model export {model.model_id} -o {session.name}{model.suffix}"
        suggestions.append((settings.command(f"model trail {model.model_id}"), "the models it comes from"))
        suggestions.append((settings.command(export), "the model as a file of yours"))
    output.result()
    output.result("Look further:")
    logs = home.session_folder(session_id) / f"round-{rounds_done(store, session_id)}"
    if logs.is_dir():
        suggestions.append((f"ls {output.near_quoted(logs)}", "each client's logs"))
    output.suggestions(suggestions)


def model_facts(home: Home, model: ModelRow) -> None:
    """Id, file and digest of a model."""
    path = ModelStore(home.models).path(model.digest, model.suffix)
    output.facts(
        [
            ("model", model.model_id),
            ("file", f"{output.near(path)}  ({output.size(model.size_bytes)})"),
            ("sha256", model.digest),
        ]
    )


def repeat_command(
    package: str, entry_point: str, folder: Path, arguments: Mapping[str, Json], *, isolated: bool
) -> str:
    """The command that calls a task's entry point again, with all that it was given."""
    flags = format_arguments(arguments)
    words = ["fedpkg", "package", "call", output.near(package), entry_point, "--task", output.near(folder)]
    words += ["--isolate"] if isolated else []
    return shlex.join([*words, *(["--", *flags] if flags else [])])


_LONGEST_LINE = 400  # a message with two digests is shown whole


def failure_lines(
    who: str,
    message: str,
    *,
    package: str,
    entry_point: str,
    folder: Path | None,
    arguments: Mapping[str, Json],
    log_tail: str | None,
    isolated: bool,
) -> Sequence[str]:
    """What failed, where its log is, and how to repeat it by hand."""
    lines = [f"  {who}: {shown(message)}"]
    if folder is not None and folder.is_dir():
        last = last_told(log_tail)
        log = told_in(folder, message)
        lines.append(f"    {log.name.split('.')[-2]}   {output.near(log)}")
        if last and last not in message:
            lines.append(f"             … {shown(last[:_LONGEST_LINE])}")
        if is_of_startup(message):
            entry_point, arguments = STARTUP, {}
        if not _keeps_policy(folder):
            lines.append(f"    try      {repeat_command(package, entry_point, folder, arguments, isolated=isolated)}")
    return lines


def _keeps_policy(folder: Path) -> bool:
    """Whether a task was one of a node with a policy. The task may have put anything there."""
    from fedpkg.formats.metadata import read_metrics

    with suppress(ModelFileError, OSError, ValueError, TypeError, KeyError):
        record = read_metrics(folder / TASK_JSON)
        return isinstance(record, dict) and keeps_policy(Path(str(record.get("data_path"))))
    return False


def task_failure_lines(home: Home, session: SessionRow, task: TaskRow) -> Sequence[str]:
    """`failure_lines` of a task in the store."""
    from fedpkg.stores.uploads import Uploads

    given = session.config.get("arguments", {})
    return failure_lines(
        f"{task.client_id}, round {task.round_number}" if task.round_number else "for all clients",
        task.message or "",
        package=Uploads(home).told(session.config["package"]),
        entry_point=task.entry_point,
        folder=None if task.folder is None else home.root / task.folder,
        arguments={**given.get("all", {}), **given.get(task.entry_point, {})},
        log_tail=task.log_tail,
        isolated=session.config.get("isolate", {}).get("enabled", False),
    )


def rounds_done(store: StateStore, session_id: str) -> int:
    """How many rounds have made a model."""
    return store.count_rounds(session_id, status=("aggregated", "finished"))
