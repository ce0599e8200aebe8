"""``fedpkg home``: whether all that a home keeps is there and whole, and removing what is not needed."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from fedpkg.cli import output
from fedpkg.cli.completing import sessions
from fedpkg.cli.options import Settings, common_options
from fedpkg.session.record import find_session
from fedpkg.shown import shown

if TYPE_CHECKING:
    from fedpkg.stores.check import Checkup
    from fedpkg.stores.home import Home
    from fedpkg.stores.prune import Removal
    from fedpkg.stores.sql import StateStore

DAMAGED = 7  # as StoreError


@click.group("home")
def command() -> None:
    """Check the folder that holds all sessions, or free space in it.

    \b
      fedpkg home check
      fedpkg home prune --keep-models "last 3" --dry-run
    """


@command.command()
@common_options
@click.pass_context
def check(context: click.Context) -> None:
    """Check that this home is complete and undamaged.

    \b
      fedpkg home check

    It reads the database, every model file, every unpacked package, the clients' states, the recorded replies and the
    data files that fedpkg has split, and compares their checksums. It changes nothing; a session may run meanwhile.
    The exit code is 7 if something is damaged; files that are only left over are notes.
    """
    from fedpkg.compute_package.unpack import package_problems
    from fedpkg.data.split import unneeded_copies
    from fedpkg.stores.check import check_home

    settings: Settings = context.obj
    home = settings.open_home()
    checkup = check_home(home, package_problems=package_problems, unneeded_copies=unneeded_copies)
    findings = sorted(checkup.findings, key=lambda finding: not finding.damaged)
    damaged = sum(finding.damaged for finding in findings)
    if settings.json:
        output.document({**asdict(checkup), "findings": [asdict(finding) for finding in findings]})
    else:
        for finding in findings:
            output.result(f"{'damaged' if finding.damaged else 'note':7}  {shown(output.near(finding.place))}")
            output.result(f"         {shown(finding.problem)}")
            output.result(f"    try  {finding.advice}")
        parts = [
            (checkup.sessions, "session", "sessions"),
            (checkup.models, "model", "models"),
            (checkup.packages, "package", "packages"),
            *(part for part in _looked_at(checkup) if part[0]),
        ]
        counts = ", ".join(f"{number} {one if number == 1 else many}" for number, one, many in parts)
        output.result(f"checked {counts}; {output.size(checkup.size_bytes)} were read")
        notes = len(findings) - damaged
        output.result(f"{damaged or 'nothing'} damaged, {notes} note{'s' * (notes != 1)}")
        if not checkup.leftovers:
            output.words("another process uses this home, so leftover files were not searched")
    if damaged:
        context.exit(DAMAGED)


def _looked_at(checkup: Checkup) -> list[tuple[int, str, str]]:
    return [
        (checkup.states, "client state", "client states"),
        (checkup.replies, "recorded reply", "recorded replies"),
        (checkup.data_files, "data file", "data files"),
    ]


@command.command()
@click.option("--session", "session_ref", metavar="ID", shell_complete=sessions, help="Prune only this session.")
@click.option("--keep-models", metavar="RULE", help="Rounds whose global models stay.  [default: as configured]")
@click.option("--keep-task-folders", metavar="RULE", help="Rounds whose logs stay.  [default: as configured]")
@click.option("--orphans", is_flag=True, help="Also remove model files and session folders without a record.")
@click.option("--dry-run", is_flag=True, help="Only report what would be removed.")
@common_options
@click.pass_obj
def prune(
    settings: Settings,
    session_ref: str | None,
    keep_models: str | None,
    keep_task_folders: str | None,
    orphans: bool,
    dry_run: bool,
) -> None:
    """Remove leftovers, old models and old task folders.

    \b
      fedpkg home prune --dry-run
      fedpkg home prune --session digits --keep-models "every 10" --keep-task-folders "last 1"

    A RULE is `all`, `last N` (rounds) or `every N`. The default is the session's keep.models and keep.task_folders. The
    seed model, the newest model and what resuming needs always stay. A pruned model stays in the trail. Leftovers are
    also copies of datasets to which no split refers, and those for apps, which are made again.
    """
    from fedpkg.errors import ConfigError
    from fedpkg.files import is_full
    from fedpkg.stores.opening import open_store

    for option, rule in (("--keep-models", keep_models), ("--keep-task-folders", keep_task_folders)):
        _check_rule(option, rule)
    if orphans and session_ref is not None:
        raise ConfigError("--orphans belong to no session", hint="leave --session away")
    home = settings.open_home()
    read_only = dry_run or not home.state_db.exists()  # an absent one must not be made, but be told
    gone = []
    with home.lock():
        # On a full disk the database can only be read. What needs no word in it goes first, and makes room.
        for reading in (True, False) if not read_only and is_full(home.root) else (read_only,):
            with open_store(home, read_only=reading) as store:
                session_id = None if session_ref is None else find_session(store, session_ref).session_id
                rules = (keep_models, keep_task_folders)
                gone += _prune(
                    home, store, session_id, *rules, orphans=orphans, dry_run=dry_run, marks=reading == read_only
                )
    total = sum(removal.size_bytes for removal in gone)
    if settings.json:
        document = {"removed": [asdict(removal) for removal in gone], "size_bytes": total, "dry_run": dry_run}
        output.document(document)
        return
    rows = [[output.near(removal.path), output.size(removal.size_bytes), removal.why] for removal in gone]
    if rows:
        output.table(["path", "size", "why"], rows)
    output.result(f"{output.size(total)} {'would be' if dry_run else 'were'} removed")


def _check_rule(option: str, rule: str | None) -> None:
    from fedpkg.config import KeepRule
    from fedpkg.errors import ConfigError

    if rule is not None and KeepRule.parse(rule) is None:
        raise ConfigError(f"{option} must be {KeepRule.ALLOWED}, found '{rule}'", hint=f'for example {option} "last 3"')


def _prune(
    home: Home,
    store: StateStore,
    session_id: str | None,
    keep_models: str | None,
    keep_task_folders: str | None,
    *,
    orphans: bool,
    dry_run: bool,
    marks: bool,
) -> list[Removal]:
    """Without ``marks`` nothing goes that must first be marked in the database."""
    from fedpkg.data.named_sources import copies_for_apps
    from fedpkg.data.split import unneeded_copies
    from fedpkg.stores import leftovers
    from fedpkg.stores import prune as pruning
    from fedpkg.stores.metric_rows import best_round
    from fedpkg.stores.models import ModelStore

    sessions = store.list_sessions() if session_id is None else [store.get_session(session_id)]
    due, models = [], []
    for session in sessions:
        keep = session.config.get("keep", {})
        done = pruning.rounds_done(store, session.session_id)
        folder_rule = keep_task_folders or keep.get("task_folders", "all")
        if marks:
            best = best_round(session.config.get("stop"), store.list_rounds(session.session_id))
            rule = keep_models or keep.get("models", "all")
            models += pruning.due_models(store, session.session_id, rule, done=done, best=best)
        due += pruning.due_task_folders(
            home.session_folder(session.session_id), folder_rule, done=done, keep_updates=keep.get("updates", False)
        )
    due += leftovers.of_sessions(home, store, sessions, all_rounds=True)
    if session_id is None:
        due += leftovers.temporary_files(home)
        due += leftovers.never_begun(home, store)
        due += pruning.half_unpacked(home)
        due += pruning.unneeded_models(home, store, pruned=True)
        due += pruning.unneeded_packages(home, store)
        due += pruning.dataset_copies((*unneeded_copies(home.data), *copies_for_apps(home.data)))
    if orphans:
        due += pruning.unneeded_models(home, store, pruned=False)
        due += leftovers.unknown_sessions(home, store)
    gone = pruning.prune_models(store, ModelStore(home.models), models, dry_run=dry_run)
    return gone + pruning.remove(due, dry_run=dry_run)
