"""Help texts, and what a command costs before it does anything."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest
from cli_support import MISBEHAVE, fedpkg, resolved, write_run_yaml
from message_apps import make_app

from fedpkg import __version__
from fedpkg.cli.main import fedpkg as root


def commands(group, path=()):
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        yield (*path, name), command
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))


ALL = dict(commands(root))


@pytest.mark.parametrize("path", ALL, ids=" ".join)
def test_every_command_has_help_for_people_and_an_example(path):
    ended = fedpkg(*path, "--help")
    assert ended.code == 0
    assert ":param" not in ended.out and "Args:" not in ended.out
    assert ended.out.count("fedpkg ") >= 2, "the usage line and an example"
    assert re.search(r"\n\nExamples:\n(  fedpkg .*\n)+$", ended.out), "it ends with its examples"
    assert not ALL[path].get_short_help_str(limit=66).endswith("..."), "its first sentence fits on a line"


@pytest.mark.parametrize("path", [(), *ALL], ids=lambda path: " ".join(path) or "fedpkg")
def test_every_example_of_a_help_text_is_of_its_command_and_can_be_parsed(path, here):
    (here / "experiment.py").touch()
    command = ALL[path] if path else root
    examples = [line.strip() for line in command.epilog.splitlines() if line.strip() not in ("", "\b")]
    assert examples
    for example in examples:
        first, *words = shlex.split(example, comments=True)
        assert first == "fedpkg"
        words = words[: words.index(">")] if ">" in words else words
        assert resolved(words)[: len(path)] == path or path[0] == "combiner", example


@pytest.mark.parametrize("path", [path for path in ALL if not isinstance(ALL[path], click.Group)], ids=" ".join)
def test_every_command_takes_the_common_options(path):
    names = {name for parameter in ALL[path].params for name in parameter.opts}
    assert {"--home", "-v", "--json"} <= names


OF_OTHERS = {"--help", "--theta", "--on", "--logdir"}  # of a program in existing-programs.md, and of TensorBoard


def test_every_option_on_the_pages_of_docs_exists():
    options = {name for command in ALL.values() for one in command.params for name in (*one.opts, *one.secondary_opts)}
    pages = [page for page in (Path(__file__).parents[3] / "docs").rglob("*.md") if "generated" not in page.parts]
    word = re.compile(r"(?<![\w-])--[a-z][a-z-]+(?![\w=-])")  # of a package's own programs, values follow a `=`
    written = {(page.name, option) for page in pages for option in word.findall(page.read_text())}
    assert len(written) > 5
    assert [(page, option) for page, option in sorted(written) if option not in options | OF_OTHERS] == []


def test_combiner_run_and_build_are_the_same_commands():
    assert ALL["combiner", "run"] is ALL["run",]
    assert ALL["combiner", "build"] is ALL["package", "build"]


def test_version():
    assert fedpkg("--version").out == f"fedpkg {__version__}\n"


def test_a_misspelt_command_gets_a_suggestion():
    ended = fedpkg("sesion", "list")
    assert ended.code == 2
    assert "did you mean 'session'?" in ended.err
    assert ended.out == ""


def test_a_configuration_without_run_gets_a_suggestion():
    assert "did you mean 'fedpkg run my.yaml'?" in fedpkg("my.yaml").err


# click 8.1 takes it for a wish for help
NO_VERB = (2, True, False) if hasattr(click.exceptions, "NoArgsIsHelpError") else (0, False, True)


def test_a_noun_alone_shows_its_help():
    ended = fedpkg("session")
    assert (ended.code, "resume" in ended.err, "resume" in ended.out) == NO_VERB


PROBE = """
import json, sys
from fedpkg.cli.main import run_command
code = run_command(json.loads(sys.argv[1]))
heavy = [name for name in json.loads(sys.argv[2]) if name in sys.modules]
print(json.dumps([code, heavy]), file=sys.stderr)
"""
HEAVY = ["torch", "numpy"]
NOT_BY_PYTHON = ["subprocess"] if sys.version_info >= (3, 11) else []  # before, uuid imports it, which click imports


@pytest.mark.parametrize(
    ("words", "heavy"),
    [
        (["--help"], [*HEAVY, "msgspec", "omegaconf", "rich", "sqlite3", "yaml", *NOT_BY_PYTHON]),
        (["run", "--help"], [*HEAVY, "msgspec", "omegaconf"]),
        (["package", "build", "PACKAGE", "-o", "package.tar.gz"], HEAVY),
        (["package", "inspect", "PACKAGE"], HEAVY),
        (["config", "show", "RUN"], HEAVY),
        (["config", "show", "APP"], HEAVY),
        (["strategy", "list"], HEAVY),
        (["strategy", "show", "krum"], HEAVY),
        (["sampler", "list"], HEAVY),
        (["doctor"], HEAVY),
        (["init", "PACKAGE", "--force"], HEAVY),
        ([], HEAVY),
    ],
    ids=lambda value: " ".join(value) if "torch" not in value else "",
)
def test_commands_that_touch_no_tensor_load_no_torch(words, heavy, here, environment):
    places = {"PACKAGE": str(MISBEHAVE), "RUN": str(write_run_yaml(here)), "APP": str(make_app(here / "app"))}
    words = [places.get(word, word) for word in words]
    probe = [sys.executable, "-c", PROBE, json.dumps(words), json.dumps(heavy)]
    run = subprocess.run(probe, env=environment, capture_output=True, text=True, check=True)
    assert json.loads(run.stderr.splitlines()[-1]) == [0, []], run.stderr
