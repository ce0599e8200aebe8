"""``fedpkg session``: what ran, what happened in it, going on with it, stopping it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fedpkg.cli import output
from fedpkg.cli.clusters import clusters_table
from fedpkg.cli.completing import sessions
from fedpkg.cli.metric import show_aggregates
from fedpkg.cli.options import Settings, common_options
from fedpkg.cli.session_report import export, report
from fedpkg.errors import ConfigError
from fedpkg.reporting.combiners import clusters_of
from fedpkg.session.record import find_session, running_sessions, status_of

if TYPE_CHECKING:
    from fedpkg.stores.base import SessionRow, TaskRow
    from fedpkg.stores.home import Home
    from fedpkg.stores.sql import StateStore

SHOWN_TASKS = 50
_SESSION = click.argument("session_ref", metavar="[SESSION]", required=False, shell_complete=sessions)


@click.group("session")
def command() -> None:
    """List, show, resume and stop sessions.

    \b
      fedpkg session list
      fedpkg session show digits

    SESSION is an id, or the beginning of one that only one session has. The default is the newest session.
    """


@command.command("list")
@common_options
@click.pass_obj
def list_sessions(settings: Settings) -> None:
    """List the sessions of this home, oldest first.

    \b
      fedpkg session list
    """
    from fedpkg.cli.report import rounds_done
    from fedpkg.stores.uploads import Uploads

    with settings.reading() as (home, store):
        running = running_sessions(home)
        found = [(session, rounds_done(store, session.session_id)) for session in store.list_sessions()]
    if settings.json:
        documents = [{**_summary(session, running), "rounds_done": done} for session, done in found]
        output.document(documents)
        return
    uploads = Uploads(home)
    rows = [
        [
            session.session_id,
            status_of(session, running),
            f"{done}/{max(done, session.num_rounds)}" if session.num_rounds else str(done),
            output.when(session.created_at),
            output.near(uploads.told(session.config.get("package", ""))),
        ]
        for session, done in found
    ]
    output.table(["session", "status", "rounds", "started", "package"], rows)
    if not rows:
        output.words("there is no session yet: fedpkg run RUN.yaml starts one")


@command.command()
@_SESSION
@click.option(
    "--round", "round_number", type=click.IntRange(1, 10**9), metavar="N", help="Show every task of this round."
)
@click.option("--metrics", is_flag=True, help="Show the aggregates of the metrics over the clients, too.")
@click.option("--tree", is_flag=True, help="Show the tree of combiners: what each has done, in all rounds or in one.")
@common_options
@click.pass_obj
def show(settings: Settings, session_ref: str | None, round_number: int | None, metrics: bool, tree: bool) -> None:
    """Show a session, or every task of one round.

    \b
      fedpkg session show
      fedpkg session show digits --round 3
      fedpkg session show digits --metrics
      fedpkg session show digits --tree
    """
    with settings.reading() as (home, store):
        session = find_session(store, session_ref)
        if tree:
            from fedpkg.cli.trees import show_tree

            show_tree(settings, store, session, round_number)
            return
        aggregates = _aggregates(store, session, round_number) if metrics and settings.json else {}
        if round_number is not None:
            _show_round(settings, home, store, session, round_number, aggregates)
        elif settings.json:
            _document(home, store, session, aggregates)
        else:
            _show(settings, home, store, session)
        if metrics and not settings.json:
            output.result()
            show_aggregates(settings, store, session, round_number)


def _aggregates(store: StateStore, session: SessionRow, round_number: int | None) -> dict[str, Any]:
    from fedpkg.controller.metric_rows import all_metric_rows

    found = all_metric_rows(store, session.session_id, clusters=True)
    return {"aggregates": [asdict(row) for row in found if round_number in (None, row.round_number)]}


def _function_facts(settings: Settings, session: SessionRow) -> list[tuple[str, str]]:
    """The call of an algorithm's function, and the command that prints what it returned."""
    from fedpkg.session.configuration import ALGORITHM

    strategy = session.config["strategy"]
    if strategy.get("name") != ALGORITHM:
        return []
    given = [json.dumps(one, ensure_ascii=False) for one in strategy.get("positional") or ()]
    named = (strategy.get("arguments") or {}).items()
    given += [f"{name}={json.dumps(one, ensure_ascii=False)}" for name, one in named]
    mode = "  (a mock)" if strategy.get("in_process") else ""
    found = [("function", f"{strategy['module']}.{strategy['method']}({', '.join(given)}){mode}")]
    if session.status == "finished":
        found.append(("result", settings.command(f"algorithm result {session.session_id}")))
    return found


def _show(settings: Settings, home: Home, store: StateStore, session: SessionRow) -> None:
    from fedpkg.cli.report import rounds_done, rounds_table, task_failure_lines
    from fedpkg.stores.uploads import Uploads

    config = session.config
    status = status_of(session, running_sessions(home))
    clients = store.list_clients(session.session_id)
    pairs = [
        ("session", session.session_id),
        ("status", status),
        ("started", output.when(session.created_at)),
        ("package", f"{output.near(Uploads(home).told(config['package']))}  (sha256 {session.package_digest[:12]})"),
        *(("signed by", str(one["signer"])) for one in session.signatures),
        *_function_facts(settings, session),
        ("seed model", _seed_words(home, store, session)),
        ("clients", f"{len(clients)}{_data_words(config['clients'])}"),
        *_sampler_facts(session, [client.client_id for client in clients]),
        ("rounds", _rounds_words(session)),
        ("seed", str(session.seed)),
        ("executor", f"{config['executor']['name']}, workers {config['executor']['workers']}"),
    ]
    pairs += [(f"arguments.{name}", json.dumps(values)) for name, values in config.get("arguments", {}).items()]
    pairs.append(("folder", output.near(home.session_folder(session.session_id))))
    if session.error:
        pairs.append(("error" if status != "finished" else "because", session.error.replace("\n", " ")))
    output.facts(pairs)
    output.result()
    rounds_table(store, session.session_id)
    if clusters := clusters_of(store, session.session_id):
        output.result()
        clusters_table(clusters)
    if by_organization := _organizations(store, session):
        output.result()
        columns = ["organization", "calls", "failed", "down", "up", "last failure"]
        output.table(columns, [_organization_cells(one) for one in by_organization])
    failed = store.list_tasks(session.session_id, status="failed")
    if gone := sum(task.failure == "dropout" for task in failed):
        output.result(f"\n{gone} time{'s' * (gone != 1)} a client dropped out, by sampler.dropout")
        failed = [task for task in failed if task.failure != "dropout"]
    if failed:
        output.result(f"\n{len(failed)} failed task{'s' * (len(failed) != 1)}:")
        for task in failed[-20:]:
            for line in task_failure_lines(home, session, task):
                output.result(line)
        if len(failed) > 20:
            output.result(f"  … and {len(failed) - 20} earlier ones (--json has all)")
    is_counted = config.get("rounds") is not None
    is_short = is_counted and not session.error and rounds_done(store, session.session_id) < session.num_rounds
    if status in ("interrupted", "stopped", "failed", "killed") or (status == "finished" and is_short):
        output.words(f"\ngo on with it: {settings.command(f'session resume {session.session_id}')}")


def _organizations(store: StateStore, session: SessionRow) -> list[dict[str, Any]]:
    """Calls and bytes of each organization of a federated algorithm; other sessions have none."""
    from fedpkg.session.configuration import ALGORITHM

    if session.config["strategy"].get("name") != ALGORITHM:
        return []
    found = {
        one.client_id: {"organization": one.client_id, "calls": 0, "failed": 0, "bytes_down": 0, "bytes_up": 0}
        for one in store.list_clients(session.session_id)
    }
    for task in store.list_tasks(session.session_id):
        one: dict[str, Any] = found[task.client_id]
        one["calls"] += 1
        one["failed"] += task.status == "failed"
        one["bytes_down"] += task.bytes_down
        one["bytes_up"] += task.bytes_up
        if task.failure is not None:
            one["last_failure"] = f"{task.failure}: {task.message}"
    return list(found.values())


def _organization_cells(one: Mapping[str, Any]) -> list[str]:
    why = str(one.get("last_failure", "")).replace("\n", " ")
    sizes = [output.size(one[name]) for name in ("bytes_down", "bytes_up")]
    return [one["organization"], str(one["calls"]), str(one["failed"]), *sizes, why[:100]]


def _rounds_words(session: SessionRow) -> str:
    if session.config.get("rounds") is not None:
        return str(session.num_rounds)
    return f"{session.num_rounds}, as its program says" if session.num_rounds else "until its program ends"


def _seed_words(home: Home, store: StateStore, session: SessionRow) -> str:
    from fedpkg.stores.uploads import Uploads

    first = next(iter(store.list_models(session.session_id, limit=1)), None)
    if first is None:
        return "none (the strategy has no model)"
    if first.round_number:
        return f"none (the strategy made a model in round {first.round_number})"
    given = session.config.get("seed_model")
    return output.near(Uploads(home).told(given)) if given else "made by the package"


def _sampler_facts(session: SessionRow, clients: list[str]) -> list[tuple[str, str]]:
    """Of a sampler that is not the usual one: its name and options, and who never trains."""
    from fedpkg.samplers.held_out import held_out_clients

    usual = {"name": "uniform", "fraction_train": 1.0, "min_clients": 1, "over_selection": 0.0, "dropout": 0.0}
    given = {key: value for key, value in session.config.get("sampler", {}).items() if usual.get(key) != value}
    facts = [(f"sampler.{key}", json.dumps(value)) for key, value in given.items() if value is not None]
    if (which := given.get("held_out")) is not None:
        from fedpkg.controller.seeds import held_out_rng

        held_out = held_out_clients(which, clients, held_out_rng(session.seed))
        names = [client_id for client_id in clients if client_id in held_out]
        facts.append(("held out", ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")))
    return facts


def _data_words(clients: dict[str, Any]) -> str:
    from fedpkg.registry import OF_FILE

    if clients.get("folders"):
        return f", data in {output.near(clients['folders'])}"
    if data := clients.get("data"):
        partition = data["partition"]
        skip = ("name", "seed", *OF_FILE, *(("alpha",) if partition["name"] == "iid" else ()))
        values = {key: value for key, value in partition.items() if key not in skip and value not in (None, False)}
        given = [f"{key} {json.dumps(value)}" for key, value in values.items() if (key, value) != ("min_examples", 1)]
        told = f" ({', '.join(given)})" if given else ""
        return f", {_dataset_words(data['dataset'])} split {partition['name']}{told}"
    return ""


def _dataset_words(dataset: str | dict[str, Any]) -> str:
    named = dataset if isinstance(dataset, str) else dataset.get("path") or dataset["name"]
    return output.near(str(named))


def _document(home: Home, store: StateStore, session: SessionRow, aggregates: dict[str, Any]) -> None:
    session_id = session.session_id
    failed = [_task(home, task) for task in store.list_tasks(session_id, status="failed")]
    output.document(
        {
            **_summary(session, running_sessions(home)),
            "config": session.config,
            "folder": home.session_folder(session_id),
            "clients": [asdict(client) for client in store.list_clients(session_id)],
            "rounds": [asdict(row) for row in store.list_rounds(session_id)],
            "failures": failed,
            **({"organizations": by_organization} if (by_organization := _organizations(store, session)) else {}),
            **({"clusters": clusters} if (clusters := clusters_of(store, session_id)) else {}),
            **aggregates,
        }
    )


def _task(home: Home, task: TaskRow) -> dict[str, Any]:
    """A task's row for programs, which need not know that rows name folders from the home."""
    return {**asdict(task), "folder": None if task.folder is None else str(home.root / task.folder)}


def _show_round(
    settings: Settings,
    home: Home,
    store: StateStore,
    session: SessionRow,
    round_number: int,
    aggregates: dict[str, Any],
) -> None:
    from fedpkg.cli.report import metric_text, requests_table, strategy_numbers, weight_source

    row = store.get_round(session.session_id, round_number)
    clusters = clusters_of(store, session.session_id, round_number)
    tasks = store.list_tasks(session.session_id, round_number=round_number)
    requests = store.list_requests(session.session_id, round_number=round_number)
    if settings.json:
        of_round = {"requests": [asdict(one) for one in requests], "tasks": [_task(home, task) for task in tasks]}
        output.document({**asdict(row), **of_round, **({"clusters": clusters} if clusters else {}), **aggregates})
        return
    is_many = len(requests) > 1
    asked = len({client_id for request in requests for client_id in request.cohort})
    down, up = sum(one.bytes_down for one in requests), sum(one.bytes_up for one in requests)
    output.facts(
        [
            ("round", f"{row.round_number} of {session.session_id}"),
            ("status", row.status),
            ("asked", f"{asked} clients, {row.num_ok} ok, {row.num_failed} failed" + is_many * ", of all calls"),
            *([("bytes", f"{output.size(down)} down, {output.size(up)} up")] if down else []),
            ("examples", output.number(row.num_examples)),
            *((name, output.number(value)) for name, value in strategy_numbers(row).items()),
            *((name, metric_text(row, name)) for name in row.metrics if name != "num_examples"),
            *([("weights of metrics", source)] if (source := weight_source(row)) else []),
        ]
    )
    output.result()
    if clusters:
        clusters_table(clusters)
        output.result()
    if is_many:
        requests_table(requests)
        output.result()
    _tasks_table(home, tasks, by_request=is_many)


def _tasks_table(home: Home, tasks: Sequence[TaskRow], *, by_request: bool) -> None:
    shown = tasks
    if len(tasks) > SHOWN_TASKS:
        shown = [task for task in tasks if task.status == "failed"][-SHOWN_TASKS:] or tasks[-SHOWN_TASKS:]
    rows = [
        [
            task.client_id,
            task.entry_point,
            task.request_id or "",
            task.status,
            output.size(task.bytes_down),
            output.size(task.bytes_up),
            f"{task.wall_s:.2f}",
            output.near(home.root / task.folder) if task.folder else "",
            task.message or "",
        ]
        for task in shown
    ]
    columns = ["client", "entry point", "request", "status", "down", "up", "seconds", "folder", "reason"]
    if not any(task.message for task in shown):
        rows, columns = [row[:-1] for row in rows], columns[:-1]
    if not by_request:
        rows, columns = [row[:2] + row[3:] for row in rows], columns[:2] + columns[3:]
    output.table(columns, rows)
    if len(shown) < len(tasks):
        output.result(f"… and {len(tasks) - len(shown)} more tasks (--json has all)")


@command.command(context_settings={"allow_extra_args": True})
@_SESSION
@click.option(
    "--rounds",
    type=click.IntRange(1, 10**9),
    metavar="N",
    help="Total number of rounds after which the session is finished.",
)
@click.option("--fresh", is_flag=True, help="Start over: run a new session with the same configuration.")
@common_options
@click.pass_context
def resume(context: click.Context, session_ref: str | None, rounds: int | None, fresh: bool) -> None:
    """Continue a session, or give it more rounds.

    \b
      fedpkg session resume
      fedpkg session resume digits --rounds 20
      fedpkg session resume digits tracking=[csv,tensorboard]
      fedpkg session resume digits --fresh

    The session may have been interrupted, stopped or killed, or have failed; the result is the same as without that. It
    keeps its configuration, except for the number of rounds and the trackers. With --fresh, a new session
    with its configuration starts at round 1, with the package and the data as they are now; this one stays as it is.
    """
    settings: Settings = context.obj
    words = [word for word in (session_ref or "", *context.args) if not word.startswith("tracking=")]
    tracking = _tracking([word for word in (session_ref or "", *context.args) if word.startswith("tracking=")])
    session_ref = next(iter(words), None) or None
    _check_no_changes(words)
    if fresh and (rounds is not None or tracking is not None):
        raise ConfigError(
            "--fresh starts over with the same configuration, and takes no --rounds or tracking",
            hint="for other settings: fedpkg run RUN.yaml KEY=VALUE",
        )
    from fedpkg.cli.progress import follow
    from fedpkg.session.session import Session
    from fedpkg.stores.opening import open_store

    home = settings.open_home()
    if home.state_db.exists():
        open_store(home).close()  # that of an older fedpkg is brought up to date
    with open_store(home, read_only=True) as store:
        session = find_session(store, session_ref)
    running = Session(home, session_id=session.session_id)
    if fresh:
        again = running.fresh()
        with follow(settings, home, num_rounds=session.config.get("rounds") or 0) as watch:
            again.watch(watch)
            again.run()
        return
    with follow(settings, home, num_rounds=rounds or session.num_rounds) as watch:
        running.watch(watch)
        running.run_again(rounds, tracking=tracking)
    was_whole = session.status == "finished" and not session.error and session.config.get("rounds") is not None
    if was_whole and (rounds or 0) <= session.num_rounds and not settings.json:
        more = settings.command(f"session resume {session.session_id} --rounds {2 * session.num_rounds}")
        output.words(f"it was finished; for more rounds: {more}")


def _tracking(words: list[str]) -> list[Any] | None:
    """The trackers of the last ``tracking=…``; None: they stay as they are."""
    from fedpkg.config_reading import parse_override

    found: list[Any] | None = None
    for word in words:
        value = parse_override(word)[1]
        if not isinstance(value, list):
            raise ConfigError(f"on the command line: '{word}' is not a list of trackers", hint="tracking=[csv]")
        found = value
    return found


def _check_no_changes(words: list[str]) -> None:
    """Refuse what `run` takes and `resume` does not: KEY=VALUE."""
    if change := next((word for word in words if "=" in word), None):
        key, _, value = change.partition("=")
        advice = "for another configuration, start a new run: fedpkg run RUN.yaml " + change
        if key == "rounds":
            advice = f"for more rounds: fedpkg session resume --rounds {value}"
        raise ConfigError(f"a session keeps the configuration that it began with: {change} cannot be set", hint=advice)
    if words[1:]:
        raise click.UsageError(f"one session at a time: got '{words[0]}' and '{words[1]}'")


@command.command()
@_SESSION
@common_options
@click.pass_obj
def stop(settings: Settings, session_ref: str | None) -> None:
    """Stop a running session.

    \b
      fedpkg session stop

    It may run in another terminal. Running tasks are ended, as by Ctrl-C. Committed rounds and recorded replies
    are kept.
    """
    from fedpkg.stores.opening import open_store

    home = settings.open_home()
    with open_store(home, read_only=True) as store:
        session = find_session(store, session_ref)
        running = running_sessions(home)
    can_stop = status_of(session, running) in ("running", "created")
    if can_stop:
        with open_store(home) as store:
            store.request_stop(session.session_id)
    if settings.json:
        output.document({**_summary(session, running), "stop_requested": can_stop})
        return
    resume_command = settings.command(f"session resume {session.session_id}")
    if can_stop:
        output.result(f"{session.session_id} is being stopped; go on later: {resume_command}")
    elif session.status == "finished":
        output.result(f"{session.session_id} is finished: nothing to stop")
    else:
        output.result(f"{session.session_id} does not run: nothing to stop; go on with it: {resume_command}")


def _summary(session: SessionRow, running: frozenset[str]) -> dict[str, Any]:
    return {
        "session_id": session.session_id,
        "name": session.name,
        "status": status_of(session, running),
        "error": session.error,
        "num_rounds": session.num_rounds,
        "seed": session.seed,
        "package": str(Path(session.config.get("package", ""))),
        "package_digest": session.package_digest,
        "created_at": session.created_at,
        "updated_at": session.updated_at,
        "stop_requested": session.stop_requested,
    }


command.add_command(report)
command.add_command(export)
