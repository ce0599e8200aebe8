"""The Tab key in real shells: what bash, zsh and fish make of a line that has been begun."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cli_support import REPO, fedpkg

from fedpkg.stores.base import ClusterChanges, ModelRow, PackageRow, RoundRow, SessionRow, SweepRow
from fedpkg.stores.home import Home
from fedpkg.stores.opening import open_store

PROMPT = "ready$ "


class Terminal:
    """A shell that a person types into. ``line(begun)`` is the line after the Tab key."""

    def __init__(self, words: list[str], setup: list[str], environment: dict[str, str], folder: Path) -> None:
        self.pid, self.file = pty.fork()
        if self.pid == 0:
            os.chdir(folder)
            os.execvpe(words[0], words, environment)
        self.seen = ""
        for command in setup:
            self.write(f"{command}\r")
        self.write("echo set''up\r")
        self.until("setup\r")

    def write(self, text: str) -> None:
        os.write(self.file, text.encode())

    def until(self, pattern: str) -> re.Match[str]:
        """Read until it is there; pytest's timeout ends what never comes."""
        while (found := re.search(pattern, self.seen, re.DOTALL)) is None:
            if not select.select([self.file], [], [], 60)[0]:
                raise AssertionError(f"no {pattern!r} in {self.seen!r}")
            self.seen += os.read(self.file, 65536).decode(errors="replace")
        self.seen = self.seen[found.end() :]
        return found

    def line(self, begun: str) -> str:
        self.write(f"{begun}\t\x18p")  # Tab, then what writes the line between marks
        line = self.until("<<<(.*?)>>>")[1]
        self.write("\x15")  # and it is removed
        return line

    def close(self) -> None:
        os.close(self.file)
        os.waitpid(self.pid, 0)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run.yaml, a package, and a home with a session of two models."""
    folder = tmp_path_factory.mktemp("hier und dort")
    (folder / "mein run.yaml").write_text("strategy: {name: krum, attackers: 1}\n")
    (folder / "notes.txt").touch()
    (folder / "paper" / "method").mkdir(parents=True)
    (folder / "paper" / "experiment.yaml").write_text("defaults: [method: mine]\nparams: {momentum: 0.9}\n")
    for name in ("mine", "scaffold"):
        (folder / "paper" / "method" / f"{name}.yaml").touch()
    shutil.copytree(REPO / "packages" / "digits", folder / "digits")
    home = Home.open(folder / ".fedpkg")
    with open_store(home) as store:
        store.add_package(PackageRow(digest="p", name="p", size_bytes=1, entry_points={}, created_at=1.0))
        facts = {"config": {}, "package_digest": "p", "seed": 1, "num_rounds": 3, "created_at": 1.0, "updated_at": 1.0}
        model = {"digest": "d" * 64, "suffix": ".npz", "size_bytes": 1, "created_at": 1.0, "keys": "names"}
        store.create_session(
            SessionRow(session_id="weather-20260101-120000", name="weather", **facts),  # type: ignore[arg-type]
            seed_model=ModelRow(session_id="weather-20260101-120000", round_number=0, **model),  # type: ignore[arg-type]
        )
        found = {"session_id": "found-20251231-120000"}
        store.create_session(
            SessionRow(name="found", **found, **facts),  # type: ignore[arg-type]
            seed_model=ModelRow(round_number=0, **found, **model),  # type: ignore[arg-type]
        )
        rows = [ModelRow(round_number=1, cluster=path, **found, **model) for path in ("north/kiruna", "south")]  # type: ignore[arg-type]
        round_row = RoundRow(round_number=1, status="finished", cohort=[], target=0, started_at=1.0, **found)
        store.commit_round(round_row, model=None, clusters=ClusterChanges(models=rows, ended=[], clients={}))
        sweep = {"kind": "grid", "source": "paper", "overrides": [], "created_at": 1.0, "updated_at": 1.0}
        store.sweeps.create(SweepRow(name="rain", **sweep))  # type: ignore[arg-type]
    return folder


@pytest.fixture(scope="module")
def surroundings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment in which `fedpkg` is this one, and no shell finds settings of a person."""
    folder = tmp_path_factory.mktemp("bin")
    (folder / "fedpkg").write_text(f"#!/bin/sh\nPYTHONPATH='{REPO}' exec '{sys.executable}' -m fedpkg \"$@\"\n")
    (folder / "fedpkg").chmod(0o755)
    own = ("FEDPKG_HOME", "INPUTRC", "PROMPT_COMMAND", "BASH_ENV", "ENV", "ZDOTDIR", "PYTHONPATH")
    kept = {name: value for name, value in os.environ.items() if name not in own}
    home = str(tmp_path_factory.mktemp("person"))
    folders = {"HOME": home, "XDG_CONFIG_HOME": f"{home}/config", "XDG_DATA_HOME": f"{home}/data"}
    return {**kept, **folders, "PATH": f"{folder}:{kept['PATH']}", "TERM": "dumb", "LC_ALL": "C.UTF-8"}


def needs(shell: str) -> str:
    found = shutil.which(shell)
    if found is None:
        pytest.skip(f"{shell} is not installed")
    return found


@pytest.fixture(scope="module")
def bash(place: Path, surroundings: dict[str, str]) -> Iterator[Callable[[str], str]]:
    setup = [
        "bind 'set enable-bracketed-paste off'",
        """bind -x '"\\C-xp": printf "<<<%s>>>" "$READLINE_LINE"'""",
        'eval "$(fedpkg completion bash)"',
    ]
    terminal = Terminal([needs("bash"), "--norc", "--noprofile", "-i"], setup, surroundings, place)
    yield terminal.line
    terminal.close()


@pytest.fixture(scope="module")
def zsh(place: Path, surroundings: dict[str, str]) -> Iterator[Callable[[str], str]]:
    setup = [
        "unsetopt zle_bracketed_paste; unset zle_bracketed_paste; LISTMAX=9999",
        "show() { print -rn -- \"<<<$BUFFER>>>\" }; zle -N show; bindkey '^Xp' show; bindkey '^U' kill-whole-line",
        'eval "$(fedpkg completion zsh)"',
    ]
    terminal = Terminal([needs("zsh"), "-f", "-i"], setup, surroundings, place)
    yield terminal.line
    terminal.close()


COMPLETED = {
    "fedpkg sess": "fedpkg session ",
    "fedpkg session res": "fedpkg session resume ",
    "fedpkg session resume --rou": "fedpkg session resume --rounds ",
    "fedpkg session show wea": "fedpkg session show weather-20260101-120000 ",
    "fedpkg experiment table ra": "fedpkg experiment table rain ",
    "fedpkg experiment plot rain wea": "fedpkg experiment plot rain weather-20260101-120000 ",
    "fedpkg experiment resume ra": "fedpkg experiment resume rain ",
    "fedpkg model trail weather-": "fedpkg model trail weather-20260101-120000.0 ",
    "fedpkg model list found-20251231-120000 --cluster no": "fedpkg model list found-20251231-120000 "
    "--cluster north/kiruna ",
    "fedpkg model trail found-20251231-120000.1 --cluster so": "fedpkg model trail found-20251231-120000.1 "
    "--cluster south ",
    "fedpkg strategy show centered": "fedpkg strategy show centered_clipping ",
    "fedpkg strategy show random": "fedpkg strategy show random_k ",
    "fedpkg sampler show power": "fedpkg sampler show power_of_choice ",
    "fedpkg package call digits tr": "fedpkg package call digits train ",
    "fedpkg run x.yaml exec": "fedpkg run x.yaml executor.",
    "fedpkg run x.yaml executor.work": "fedpkg run x.yaml executor.workers=",
    "fedpkg run x.yaml executor.name=res": "fedpkg run x.yaml executor.name=resident ",
    "fedpkg run x.yaml strategy.name=feda": "fedpkg run x.yaml strategy.name=feda",  # there are several
    "fedpkg run x.yaml strategy.name=fedadaml": "fedpkg run x.yaml strategy.name=fedadaml",  # there is none
    "fedpkg run x.yaml strategy.name=fedadagr": "fedpkg run x.yaml strategy.name=fedadagrad ",
    "fedpkg run x.yaml strategy.name=krum strategy.att": "fedpkg run x.yaml strategy.name=krum strategy.attackers=",
    "fedpkg config show x.yaml sampler.name=rou": "fedpkg config show x.yaml sampler.name=round_robin ",
    "fedpkg data explain patho": "fedpkg data explain pathological ",
    "fedpkg run x.yaml clients.data.partition.name=sha": "fedpkg run x.yaml clients.data.partition.name=shards ",
    "fedpkg run x.yaml clients.data.partition.name=shards clients.data.partition.shard_": "fedpkg run x.yaml "
    "clients.data.partition.name=shards clients.data.partition.shard_size=",
    "fedpkg config explain round.time": "fedpkg config explain round.timeout_s ",
    "fedpkg run x.yaml strategy.aggregator=trimmed": "fedpkg run x.yaml strategy.aggregator=trimmed_mean ",
    "fedpkg config show mein": "fedpkg config show mein\\ run.yaml ",
    "fedpkg run mein\\ run.yaml strategy.att": "fedpkg run mein\\ run.yaml strategy.attackers=",
    "fedpkg run x.yaml package=no": "fedpkg run x.yaml package=notes.txt ",
    "fedpkg experiment run paper meth": "fedpkg experiment run paper method=",
    "fedpkg experiment run paper method=sca": "fedpkg experiment run paper method=scaffold ",
    "fedpkg experiment run paper method=mine,sca": "fedpkg experiment run paper method=mine,scaffold ",
    "fedpkg experiment sweep paper method=mine,sca": "fedpkg experiment sweep paper method=mine,scaffold ",
    "fedpkg experiment run paper mom": "fedpkg experiment run paper momentum=",
    "fedpkg experiment run paper executor.work": "fedpkg experiment run paper executor.workers=",
    "fedpkg config show paper method=sca": "fedpkg config show paper method=scaffold ",
}


# One of each kind, for the other shells; `make soak` takes all.
KINDS = (
    "fedpkg session show wea",
    "fedpkg run x.yaml executor.work",
    "fedpkg run x.yaml executor.name=res",
    "fedpkg config show mein",
    "fedpkg run x.yaml package=no",
)


@pytest.mark.slow
@pytest.mark.parametrize(("begun", "completed"), COMPLETED.items())
def test_the_tab_key_completes_a_line_in_bash(begun: str, completed: str, bash: Callable[[str], str]) -> None:
    assert bash(begun) == completed


@pytest.mark.slow
@pytest.mark.parametrize(
    ("begun", "completed"),
    [pytest.param(*each, marks=() if each[0] in KINDS else pytest.mark.soak) for each in COMPLETED.items()],
)
def test_the_tab_key_completes_a_line_in_zsh(begun: str, completed: str, zsh: Callable[[str], str]) -> None:
    assert zsh(begun) == completed


@pytest.mark.slow
@pytest.mark.parametrize("lines", [KINDS, pytest.param(tuple(COMPLETED), marks=pytest.mark.soak)], ids=["kinds", "all"])
def test_fish_lists_what_a_word_can_become(lines: tuple[str, ...], place: Path, surroundings: dict[str, str]) -> None:
    script = ["fedpkg completion fish | source", *(f"complete -C {json.dumps(line)}; echo ---" for line in lines)]
    command = [needs("fish"), "--no-config", "-c", "\n".join(script)]
    ran = subprocess.run(command, env=surroundings, cwd=place, capture_output=True, text=True, timeout=120, check=True)
    found = [answer.strip().splitlines() for answer in ran.stdout.split("---\n")]
    assert ran.stderr == ""
    for begun, answers in zip(lines, found, strict=False):
        completed = COMPLETED[begun]
        words = [answer.partition("\t")[0].replace("\\ ", " ") for answer in answers]
        expected = completed.removeprefix(begun.rpartition(" ")[0]).strip().replace("\\ ", " ")
        assert expected in words or begun == completed, f"{begun!r}: {answers}"


def complete(line: str, folder: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """What the script of bash asks, and the answer."""
    variables = {"COMP_LINE": line, "_FEDPKG_COMPLETE": "bash_complete"}
    command = [sys.executable, "-X", "importtime", "-m", "fedpkg"]
    environment = {**environment, **variables, "PYTHONPATH": str(REPO)}
    return subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, check=True)


@pytest.mark.parametrize(
    "line",
    [
        "fedpkg session show ",
        "fedpkg model diff ",
        "fedpkg model export found-20251231-120000 --cluster ",
        "fedpkg strategy show ",
        "fedpkg strategy show krum ",
        "fedpkg run 'mein run.yaml' strategy.",
        "fedpkg run 'mein run.yaml' sampler.",
        "fedpkg run 'mein run.yaml' strategy.transforms=",
        "fedpkg package call digits ",
    ],
)
def test_completion_loads_neither_torch_nor_numpy(line: str, place: Path, surroundings: dict[str, str]) -> None:
    answered = complete(line, place, surroundings)
    imported = {each.rpartition("|")[2].strip() for each in answered.stderr.splitlines()}
    assert not {"torch", "numpy", "omegaconf"} & imported
    assert answered.stdout.count("\n") >= 1


@pytest.mark.parametrize("line", ["fedpkg nothing ", "fedpkg session show --home nowhere ", "fedpkg package call . "])
def test_completion_writes_nothing_about_a_line_that_is_wrong(
    line: str, tmp_path: Path, surroundings: dict[str, str]
) -> None:
    (tmp_path / "fedn.yaml").write_text("entry_points: 3\n")
    told = [each for each in complete(line, tmp_path, surroundings).stderr.splitlines() if "import time:" not in each]
    assert told == []


def test_every_shell_has_its_script_and_the_variable_shell_chooses(monkeypatch: pytest.MonkeyPatch) -> None:
    for shell in ("bash", "zsh", "fish"):
        script = fedpkg("completion", shell).out
        assert f"_FEDPKG_COMPLETE={shell}_complete" in script
        monkeypatch.setenv("SHELL", f"/bin/{shell}")
        assert fedpkg("completion").out == script
    monkeypatch.setenv("SHELL", "/bin/tcsh")
    assert "name the shell: bash, zsh, fish" in fedpkg("completion").err
