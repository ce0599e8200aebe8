"""Runs command lines in this process, and writes what they need."""

import contextlib
import io
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import click

from fedpkg.cli.main import fedpkg as root
from fedpkg.cli.main import run_command

REPO = Path(__file__).parents[3]
MISBEHAVE = REPO / "tests" / "packages" / "misbehave"


class Ended(NamedTuple):
    code: int
    out: str
    err: str

    def json(self):
        return json.loads(self.out)


def fedpkg(*words):
    """Run one command line in this process."""
    logger = logging.getLogger("fedpkg")
    before = logger.handlers[:], logger.level, logger.propagate
    out, err = io.StringIO(), io.StringIO()
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = run_command([str(word) for word in words])
    finally:
        logger.handlers[:], logger.propagate = before[0], before[2]
        logger.setLevel(before[1])
    return Ended(code, out.getvalue(), err.getvalue())


def write_run_yaml(folder, **values):
    """A run.yaml with three clients of the package that misbehaves on request."""
    config = {
        "name": "try",
        "package": str(MISBEHAVE),
        "rounds": 2,
        "clients": {"count": 3},
        "executor": {"name": "forkserver", "workers": 2},
        **values,
    }
    path = folder / "run.yaml"
    path.write_text(json.dumps(config))
    return path


def resolved(words: Sequence[str]) -> tuple[str, ...]:
    """The command that a command line means, its options and arguments parsed."""
    context = root.make_context("fedpkg", [*words])
    path: tuple[str, ...] = ()
    while isinstance(context.command, click.Group):
        name, command, rest = context.command.resolve_command(context, [*context._protected_args, *context.args])
        path = (*path, name)
        context = command.make_context(name, rest, parent=context)
    return path
