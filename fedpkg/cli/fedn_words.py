"""Commands as FEDn and Scaleout have them: those that are ours by another name are run, others answered in one line."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import click

from fedpkg.cli import output

POSITIONAL, VALUE, FLAG = "", "drop it and its value", "drop it"
_SERVER = {"-p": VALUE, "--protocol": VALUE, "-H": VALUE, "--host": VALUE, "-P": VALUE, "--port": VALUE}
_READ = {**_SERVER, "-t": VALUE, "--token": VALUE, "--n_max": VALUE}
_OF_ONE = {**_READ, "-id": POSITIONAL, "--id": POSITIONAL}
_OF_SESSION = {**_READ, "-s": POSITIONAL, "--session_id": POSITIONAL}
_CALL = {"-v": FLAG, "--keep-venv": FLAG, "--remove-venv": FLAG}


class Ours(NamedTuple):
    """What a command of FEDn is here; by option of FEDn, what becomes of it (others stay)."""

    words: tuple[str, ...]
    options: Mapping[str, str]


SAME = {
    **{f"run {verb}": Ours(("package", "call", verb), _CALL) for verb in ("build", "startup", "train", "validate")},
    "session list": Ours(("session", "list"), _READ),
    "session get": Ours(("session", "show"), _OF_ONE),
    "model list": Ours(("model", "list"), _OF_SESSION),
    "model download": Ours(("model", "export"), {**_OF_ONE, "-f": "-o", "--file": "-o"}),
    "round list": Ours(("session", "show"), _OF_SESSION),
    "validation list": Ours(("validation", "list"), _OF_SESSION),
}
_RUN = "`fedpkg run --package client --data 'data/clients/*'`"
_NO_SERVER = f"there is no server here; {_RUN} runs a whole federation"
ANSWERS = {
    "client": f"clients do not connect; {_RUN} starts one for each match, and `fedpkg session show` lists them",
    "combiner start": _NO_SERVER,
    "combiner list": _NO_SERVER,
    "combiner get": _NO_SERVER,
    "controller": _NO_SERVER,
    "network": _NO_SERVER,
    "hooks": _NO_SERVER,
    "studio": f"there is no account to log in to; {_RUN} needs none",
    "login": f"there is no account to log in to; {_RUN} needs none",
    "project": "a project is a folder here: --home FOLDER, or the variable FEDPKG_HOME",
    "session start": f"{_RUN} starts a session; its options -r and -a are --rounds 5 and strategy.name=fedadam",
    "package set-active": "each run names its package: `fedpkg run --package package.tgz`",
    "package list": "each session names its package: `fedpkg session list`",
    "package get": "`fedpkg package inspect package.tgz` shows what is in a package",
    "model set-active": "each run names its seed model: `fedpkg run --package client --seed-model seed.npz`",
    "model get": "`fedpkg model list` shows all models, `fedpkg model export MODEL -o model.npz` writes one",
    "round": "`fedpkg session show SESSION --round 3` shows a round",
    "validation get": "`fedpkg validation list SESSION --round 3 --client ID` shows what a client measured",
    "status": "`fedpkg session show SESSION --round 3` shows how each task of a round ended",
    "config": "`fedpkg config show run.yaml` shows a run's settings; `fedpkg doctor` what this machine has",
}


def ours(words: Sequence[str]) -> list[str]:
    """A command line in fedpkg's words; what is run instead of it is told.

    Raises:
        click.UsageError: there is none; the message says what does the same here.
    """
    two = " ".join(words[:2])
    if (same := SAME.get(two)) is not None and not Path(words[1]).is_file():
        changed = [*same.words, *_translated(words[2:], same.options)]
        if changed != list(words):
            output.words(f"here this is `fedpkg {shlex.join(changed)}`")
        return changed
    alone = list(words[:1]) if words[:1] != ["config"] or len(words) == 1 else []
    for known in (two, *alone):
        if (answer := ANSWERS.get(known)) is not None:
            raise click.UsageError(f"'{two.partition(' -')[0]}' is a command of FEDn; {answer}")
    return list(words)


def _translated(words: Sequence[str], options: Mapping[str, str]) -> list[str]:
    result, rest = [], list(words)
    while rest:
        word = rest.pop(0)
        name, equals, value = word.partition("=") if word.startswith("--") else (word, "", "")
        becomes = options.get(name)
        if becomes is None:
            result.append(word)
        elif becomes != FLAG:
            given = [value] if equals else [rest.pop(0)] if rest else []
            if becomes != VALUE:
                result += [becomes] * bool(becomes) + given
    return result
