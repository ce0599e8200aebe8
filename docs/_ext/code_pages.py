"""Reference pages of what the code holds besides registries: run.yaml, errors, failures, orders and answers, the store."""

from __future__ import annotations

import inspect
import re
import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

from described import arguments_of, default, field_default, fields, kind
from markdown import block, code, definitions, inline, page, table

from fedpkg import errors
from fedpkg.config_keys import Key, run_keys
from fedpkg.samplers.registry import SAMPLERS
from fedpkg.stores.database import MIGRATIONS
from fedpkg.waist import answer, order


def pages() -> Iterator[tuple[str, str]]:
    yield "run-yaml.md", run_yaml()
    yield "sampler-options.md", sampler_options()
    yield "errors.md", error_page()
    yield "failures.md", failures()
    yield "orders-and-answers.md", orders()
    yield "store.md", store()


def run_yaml() -> str:
    keys = run_keys()
    blocks = [
        "`fedpkg config explain KEY` prints what this page says of a key, and `fedpkg config show run.yaml` prints the value "
        "of every key and where it comes from. Paths are relative to the file. On the command line, `key.sub=value` sets a "
        "key, and paths are relative to the working directory.",
        *(_key(key) for key in keys if not key.keys),
    ]
    for section in keys:
        if section.keys:
            blocks += [f"## {section.name}", inline(section.about), *map(_key, section.leaves)]
    return page("run.yaml", *blocks)


def _key(key: Key) -> str:
    value = "required" if key.is_required else f"default {code(default(key.default))}"
    told = [f"{inline(key.allowed)}; {value}", inline(key.about)]
    if key.examples:
        examples = (f"{key.name.rpartition('.')[2]}: {default(one)}" for one in key.examples)
        told.append("Example: " + ", ".join(map(code, examples)))
    return block(f"{{confval}} {key.name}", "\n\n".join(told))


def sampler_options() -> str:
    told = [
        (code(name), f"{kind(each.type)}; default {code(default(each.default))}", inline(each.about))
        for name, each in SAMPLERS.options.items()
    ]
    return page(
        "Options of all samplers",
        "These keys of `sampler` work with every [sampler](samplers/index.md).",
        definitions(told),
    )


def error_page() -> str:
    """Exit codes and classes, from the tree in the docstring of `fedpkg.errors`."""
    rows = [
        ["0", "", "done"],
        ["2", "", "the command line is wrong: an unknown option or command, a missing argument"],
    ]
    for name, about in re.findall(r"[├└]── (\w+) +(?:\d+ +)?(?:… )?(.*)", inspect.getdoc(errors) or ""):
        rows.append([str(getattr(errors, name).exit_code), code(f"fedpkg.errors.{name}"), inline(about)])
    rows.append(["70", "", "a fault of fedpkg: please report it with the lines that it printed"])
    return page(
        "Exit codes and errors",
        "Every error that fedpkg raises on purpose derives from `fedpkg.FedpkgError`. It has a `message` (what happened, "
        "and where), a `hint` (what to do) and `fields` (facts for programs). The command line prints the first two and "
        "ends with the exit code. With `--json`, the last line on standard output is an object with the key `error`.",
        table(["exit code", "class", "meaning"], sorted(rows, key=lambda row: int(row[0]))),
        "After exit code 10 (too few clients answered) and 130 (interrupted), `fedpkg session resume` continues the "
        "session.",
    )


def failures() -> str:
    rows = [[code(word), inline(about)] for word, about in answer.FAILURES.items()]
    return page(
        "Failure words",
        "A task that does not give what was asked is a *failure*: one word and a message, recorded for that client in that "
        "round. The other clients are not affected. `fedpkg session show --round N` lists failures; in JSON, the word is "
        "`failure`.",
        table(["word", "meaning"], rows),
    )


def orders() -> str:
    blocks = [
        "What crosses between the controller and an executor is data: an *order* goes out, an *answer* comes back, and a "
        "*reply specification* says what the reply must be. Each is a msgspec Struct that becomes JSON and back. The "
        "[executor's contract](../executor-contract.md) says how they are used.",
    ]
    for struct in (order.Order, order.Input, order.ReplySpec, order.TensorSpec, order.Limits, order.Isolation):
        blocks += _struct(struct)
    for struct in (answer.Answer, answer.Failure, answer.ReplyFile, answer.Usage):
        blocks += _struct(struct)
    return page("Orders and answers", *blocks)


def _struct(struct: type) -> list[str]:
    said = arguments_of(struct)
    about = inline((inspect.getdoc(struct) or "").partition("\n\n")[0])
    rows = []
    for name, field in fields(struct).items():
        value = "must be given" if field.required else code(field_default(field))
        rows.append([code(name), code(_type_name(field.type)), value, inline(said.get(name, ""))])
    return [f"## {struct.__name__}", about, table(["field", "type", "default", ""], rows)]


def _type_name(annotation: Any) -> str:
    text = annotation.__name__ if isinstance(annotation, type) and not get_args(annotation) else str(annotation)
    return re.sub(r"\b(?:\w+\.)+(?=\w)", "", text)


def store() -> str:
    """The tables of a home's state.db, as the migrations make them, with what the migrations say of themselves."""
    with tempfile.TemporaryDirectory() as folder:
        database = sqlite3.connect(Path(folder) / "state.db")
        said = []
        for migration in sorted(MIGRATIONS.glob("*.sql")):
            script = migration.read_text()
            database.executescript(script)
            about = " ".join(re.findall(r"^-- ?(.*)", script.partition("\n\n")[0], re.MULTILINE))
            said.append([code(migration.stem), inline(about)])
        blocks = [
            "A home keeps its records in the SQLite database `state.db`. Times are seconds since the epoch; lists and "
            "mappings are JSON. Read it with `fedpkg … --json` or `fedpkg.Session` where you can: the tables may change "
            "with each version. A home of an older version is migrated when it is opened for writing.",
            *_tables(database),
            "## Migrations",
            table(["migration", ""], said),
        ]
        database.close()
    return page("Store schema", *blocks)


def _tables(database: sqlite3.Connection) -> Iterator[str]:
    names = [name for (name,) in database.execute("select name from sqlite_master where type = 'table' order by rowid")]
    for name in names:
        rows = [
            [code(column), code(type_), "" if not key else f"part {key}" if _wide(database, name) else "yes"]
            for _, column, type_, _, _, key in database.execute(f"pragma table_info({name})")
        ]
        yield f"## {name}"
        yield table(["column", "type", "primary key"], rows)


def _wide(database: sqlite3.Connection, name: str) -> bool:
    return sum(bool(row[5]) for row in database.execute(f"pragma table_info({name})")) > 1
