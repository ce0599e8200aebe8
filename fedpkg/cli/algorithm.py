"""``fedpkg algorithm``: run, try and look into federated algorithms."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from fedpkg.cli import output
from fedpkg.cli.completing import packages, sessions
from fedpkg.cli.options import Settings, common_options
from fedpkg.shown import shown

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from fedpkg.config import RunConfig
    from fedpkg.session.algorithm_run import AlgorithmOptions
    from fedpkg.stores.base import SessionRow
    from fedpkg.stores.home import Home

_LARGEST_BYTES = 16 << 20  # of a result that is printed
_SHOWN_TASKS, _SHOWN_CHARACTERS = 30, 60
_FOLDER = click.Path(path_type=Path)
_module_option = click.option("--module", metavar="NAME", help="The algorithm's module, if DIR has several packages.")


@click.group("algorithm")
def command() -> None:
    """Run and inspect federated algorithms.

    An algorithm is a Python package whose central function asks organizations, and whose partial functions answer with
    what they compute on the data frame of one of them; also one written for vantage6.

    \b
      fedpkg algorithm run my-algorithm --method summary --arg columns=age --database default='data/*.csv'
    """


def _run_options(function: Callable[..., Any]) -> Callable[..., Any]:
    for option in reversed(
        [
            click.argument("folder", metavar="DIR", type=_FOLDER, shell_complete=packages),
            click.argument("overrides", metavar="[KEY=VALUE]...", nargs=-1),
            click.option("--method", metavar="NAME", help="Function to call (required)."),
            click.option(
                "--arg",
                "arguments",
                metavar="NAME=VALUE",
                multiple=True,
                help="Argument of the function: JSON, text, or a list with commas.",
            ),
            click.option(
                "--nodes",
                metavar="FILE",
                help="File of the organizations, such as vantage6's entities.yaml; or their number.  [default: one for "
                "each match of --database]",
            ),
            click.option(
                "--database",
                "databases",
                metavar="LABEL=PATTERN",
                multiple=True,
                help="Database of the nodes by label: one match for each node. A PATTERN alone has the label default.",
            ),
            click.option(
                "--node-config",
                metavar="DIR",
                type=_FOLDER,
                help="Folder with a configuration for each node: its databases, environment and policy.",
            ),
            click.option(
                "--organizations", metavar="NAME,…", help="Organizations that take part.  [default: all]", default=""
            ),
            click.option("--host", metavar="NAME", help="Organization of the central function.  [default: the first]"),
            _module_option,
            click.option(
                "--timeout",
                "timeout_s",
                metavar="SECONDS",
                type=click.FloatRange(0, min_open=True),
                help="Time limit of each partial function.",
            ),
            click.option(
                "--most-tasks",
                metavar="N",
                type=click.IntRange(1),
                help="Most tasks that the central function may create.  [default: 10000]",
            ),
            click.option(
                "--no-isolate", is_flag=True, help="Run the algorithm without isolation; only for your own code."
            ),
            click.option(
                "--allow-pickle", is_flag=True, help="Let it exchange pickles; only for your own code and nodes."
            ),
        ]
    ):
        function = option(function)
    return function


def _options(
    folder: Path,
    *,
    method: str | None,
    module: str | None,
    databases: tuple[str, ...],
    organizations: str,
    no_isolate: bool,
    **given: Any,
) -> AlgorithmOptions:
    from fedpkg.analytics.node import DEFAULT
    from fedpkg.session.algorithm_run import AlgorithmOptions

    found: dict[str, str] = {}
    for word in databases:
        label, equals, pattern = word.partition("=")
        if not equals:
            label, pattern = DEFAULT, word
        if label in found:
            raise click.UsageError(f"--database {label} is given twice")
        found[label] = pattern
    names = [name.strip() for name in organizations.split(",") if name.strip()]
    method = _no_method(folder, module) if method is None else method
    return AlgorithmOptions(
        method, databases=found, module=module, organizations=names, isolated=not no_isolate, **given
    )


def _no_method(folder: Path, module: str | None) -> NoReturn:
    """Raise the error of a call without ``--method``, which lists the functions that there are."""
    from fedpkg.compute_package.algorithm import read_algorithm

    algorithm = read_algorithm(folder, module)
    functions = sorted(algorithm.functions.values(), key=lambda one: (one.kind, one.name))
    width = max((len(one.name) for one in functions), default=0)
    lines = [f"  {one.name:{width}}  {one.kind:7}  {one.signature}".rstrip() for one in functions]
    name = shown(algorithm.module)
    has = f"{name} has these functions:" if functions else f"{name} has no function that can be called"
    raise click.UsageError("\n".join([f"Missing option '--method NAME'. {has}", *lines]))


@command.command()
@_run_options
@common_options
@click.pass_obj
def run(settings: Settings, /, folder: Path, overrides: tuple[str, ...], **given: Any) -> None:
    """Run a function of the algorithm in DIR.

    What it returns is printed as JSON. Each organization is a client of a session, and the central function runs beside
    the first one's data. A partial function runs at all organizations. KEY=VALUE sets a key of the run configuration,
    such as executor.workers=2.

    \b
      fedpkg algorithm run my-algorithm --method summary --arg columns=age --database 'data/*.csv'
      fedpkg algorithm run my-algorithm --method summary --nodes entities.yaml --node-config nodes
    """
    from fedpkg.session.algorithm_run import config_of_algorithm

    home = settings.open_home(create=True)
    row = _run(settings, home, config_of_algorithm(folder, _options(folder, **given), overrides))
    _print_result(home, row)
    if not settings.json:
        output.words(f"calls and bytes of each organization: {settings.command(f'session show {row.session_id}')}")


def _run(settings: Settings, home: Home, config: RunConfig) -> SessionRow:
    """Run a session; its progress is on standard error, as standard output has the result alone."""
    from fedpkg.cli.memory import share_one_arena
    from fedpkg.cli.progress import Progress, display_of, displayed
    from fedpkg.session.session import prepare

    share_one_arena()
    session = prepare(config, home)
    if config.strategy.get("in_process"):  # its rounds have no tasks that could be shown
        return session.run()
    with displayed(display_of(Progress(settings.command, home, 0))) as watch:
        session.watch(watch)
        return session.run()


def _print_result(home: Home, row: SessionRow) -> None:
    """Print the result of a session; of a large one, the path of its file."""
    from fedpkg.session.algorithm_run import plain, result_of, result_path

    path = result_path(home, row)
    if (size_bytes := path.stat().st_size) > _LARGEST_BYTES:
        output.document({"file": str(path), "bytes": size_bytes})
    else:
        output.document(plain(result_of(home, row)))


@command.command("test")
@_run_options
@common_options
@click.pass_obj
def test(settings: Settings, /, folder: Path, overrides: tuple[str, ...], **given: Any) -> None:
    """Compare a mock of the algorithm in DIR with a real run.

    The mock calls partial functions in one process; the real run calls each as a task of its organization, which has
    only its own data. The results are compared, and so is what each organization sends, of which the size and the
    beginning are shown. Exit code 1: they differ. DIR and the options are those of `fedpkg algorithm run`.

    \b
      fedpkg algorithm test my-algorithm --method summary --arg columns=age --database 'data/*.csv'
    """
    from fedpkg.session.algorithm_run import compared, config_of_algorithm

    home, options = settings.open_home(create=True), _options(folder, **given)
    rows = []
    for in_process in (True, False):
        output.words("mock:" if in_process else "nodes:")
        config = config_of_algorithm(folder, replace(options, in_process=in_process), overrides)
        rows.append(_run(settings, home, config))
    found = compared(home, *rows)
    if settings.json:
        told = {"mock": found.mock, "real": found.real, "differences": found.differences, "sent": found.sent}
        output.document({**told, "sessions": [row.session_id for row in rows]})
    else:
        output.document(found.real)
        columns = ["organization", "task", "function", "status", "bytes", "as the mock", "what it sends"]
        output.result()
        output.table(columns, [_sent_cells(one) for one in found.sent[:_SHOWN_TASKS]])
        if len(found.sent) > _SHOWN_TASKS:
            output.result(f"  … and {len(found.sent) - _SHOWN_TASKS} more (--json has all)")
        output.result()
        for line in found.differences[:_SHOWN_TASKS]:
            output.result(f"different: {line}")
        output.result("the mock and the nodes differ" if found.differences else "the mock and the nodes agree")
    if found.differences:
        raise SystemExit(1)


def _sent_cells(one: Mapping[str, Any]) -> list[str]:
    text = str(one.get("preview", one.get("log", ""))).replace("\n", " ")
    text = text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}…"
    same = "same" if one["same"] else "different"
    return [one["organization"], str(one["task"]), one["name"], one["status"], str(one["bytes"]), same, text]


@command.command("inspect")
@click.argument("folder", metavar="DIR", type=_FOLDER, shell_complete=packages)
@_module_option
@common_options
@click.pass_obj
def inspect(settings: Settings, folder: Path, module: str | None) -> None:
    """Show what the algorithm in DIR imports, reads and sends.

    It is found by reading the source; none of it runs.

    \b
      fedpkg algorithm inspect my-algorithm
    """
    from fedpkg.compute_package.algorithm import read_algorithm
    from fedpkg.compute_package.algorithm_review import review_of

    algorithm = read_algorithm(folder, module)
    found = review_of(algorithm)
    if settings.json:
        output.document({"module": algorithm.module, **asdict(found)})
        return
    output.facts([("module", f"{algorithm.module}, {algorithm.found_by}"), ("imports", ", ".join(found.imports))])
    for title, uses in (("reads more than its data frame", found.reads), ("sends", found.sends)):
        output.result()
        if not uses:
            output.result(f"{title}: nothing was found")
            continue
        rows = [[one.what, one.function, one.text, f"{one.file}:{one.line}"] for one in uses]
        output.table([title, "function", "source", "place"], rows)


@command.command("result")
@click.argument("session_ref", metavar="[SESSION]", required=False, shell_complete=sessions)
@common_options
@click.pass_obj
def result(settings: Settings, session_ref: str | None) -> None:
    """Print what the function of a session returned.

    \b
      fedpkg algorithm result my-algorithm
    """
    from fedpkg.session.record import find_session

    with settings.reading() as (home, store):
        _print_result(home, find_session(store, session_ref))


@command.command("list")
@click.argument("folder", metavar="DIR", type=_FOLDER, shell_complete=packages)
@_module_option
@common_options
@click.pass_obj
def list_functions(settings: Settings, folder: Path, module: str | None) -> None:
    """List the functions of the algorithm in DIR.

    They are found with their arguments by reading the source; none of it runs.

    \b
      fedpkg algorithm list my-algorithm
    """
    from fedpkg.compute_package.algorithm import read_algorithm

    algorithm = read_algorithm(folder, module)
    functions = sorted(algorithm.functions.values(), key=lambda one: (one.kind, one.file, one.line))
    if settings.json:
        output.document(
            [
                {
                    "name": one.name,
                    "kind": one.kind,
                    "contract": one.era,
                    "arguments": [
                        {"name": each.name, "annotation": each.annotation, "default": each.default}
                        for each in one.parameters
                    ],
                    "documentation": one.doc,
                    "file": one.file,
                    "line": one.line,
                }
                for one in functions
            ]
        )
        return
    output.words(f"{shown(algorithm.module)}, {algorithm.found_by}")
    rows = [
        [one.name, one.kind, one.era, one.signature, one.doc.partition("\n")[0], f"{one.file}:{one.line}"]
        for one in functions
    ]
    output.table(["function", "kind", "contract", "arguments", "what it does", "source"], rows)
