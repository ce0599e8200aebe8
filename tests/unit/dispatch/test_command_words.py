"""What a command means: never other words than bash makes of it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fedpkg.compute_package.arguments import format_arguments
from fedpkg.compute_package.command import (
    NotSimple,
    expand,
    is_python,
    python_call,
    shell_line,
)
from fedpkg.fedn.containers import with_own_python

VALUES = {
    "A": "plain",
    "TWO": "two words",
    "AROUND": "  spaced\tout \n",
    "BLANK": " ",
    "EMPTY": "",
    "QUOTED": 'it\'s "x" $A `b`',
    "GLOB": "*.py",
    "SLASH": "a\\b",
    "TILDE": "~",
    "BRACES": "{a,b}",
    "SIGN": "x=1;y|z",
    "Ünicode": "never a name",
    "ENTRYPOINT_OPTS": "--lr=0.1 --name='x y'",
}
PIECES = st.sampled_from(
    [
        *("$" + name for name in VALUES),
        *("${" + name + "}" for name in VALUES),
        *("$UNSET", "${UNSET}", "$", "$$", "$1", "$?", "$RANDOM", "$HOME", "$PWD", "${A:-b}", "$(echo a)", "`echo a`"),
        *(" ", "  ", "\t", "\n", "'", '"', "\\", "\\\\", "\\'", '\\"', "\\ ", "\\$", "\\\n", "''", '""', "' '", '" "'),
        *("a", "b.py", "--x=1", "=", "é", "東", "\u00a0", "-", "_", "%", "@", "+", ",", ":", "/", "0"),
        *("*", "?", "[a]", "~", "{", "}", "{a,b}", "(", ")", ";", "&", "|", "<", ">", "#", "!", "^", "\r", "\x01"),
    ]
)
COMMANDS = st.lists(PIECES, max_size=10).map("".join) | st.lists(
    st.sampled_from(['"', "'", "$AROUND", "$BLANK", "$TWO", '"$TWO"', "$EMPTY", "a", " ", "\\ "]), max_size=8
).map("".join)


def bash_words(command: str) -> list[str]:
    environ = {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", **VALUES}
    line = 'printf "%s\\0" ' + command
    done = subprocess.run(["bash", "-c", line], env=environ, cwd="/", capture_output=True, timeout=60, check=True)
    words = done.stdout.decode().split("\0")
    assert words.pop() == ""
    return words


@settings(max_examples=200)
@given(COMMANDS)
@example("a$BLANK''")
@example("$AROUND$AROUND")
@example("'a'$TWO\"b\"")
@example('python \'entry point.py\' train "two words" \'it costs $5\' a\\ b "" --home="$HOME" $ENTRYPOINT_OPTS')
def test_words_are_those_that_bash_makes(command: str) -> None:
    try:
        words = expand("first " + command, VALUES)
    except NotSimple:
        return
    if len(words) > 1:  # without words, printf prints one that is empty
        assert words[1:] == bash_words(command)
    else:
        assert bash_words(command) == [""]


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("python x.py", ["python", "x.py"]),
        ("  python\tx.py  ", ["python", "x.py"]),
        ("'a b'\"c d\"e\\ f", ["a bc de f"]),
        ("'' \"\"", ["", ""]),
        ('"a\\"b\\\\c\\d\\$A"', ['a"b\\c\\d$A']),
        ("$TWO", ["two", "words"]),
        ('"$TWO"', ["two words"]),
        ("x$TWO'y'", ["xtwo", "wordsy"]),
        ("a $UNSET b", ["a", "b"]),
        ('a "$UNSET" b', ["a", "", "b"]),
        ("a${AROUND}b", ["a", "spaced", "out", "b"]),
        ("$ENTRYPOINT_OPTS", ["--lr=0.1", "--name='x", "y'"]),
        ("run --lr=0.1", ["run", "--lr=0.1"]),
        ("run Zürich 東京", ["run", "Zürich", "東京"]),
        ("", []),
    ],
)
def test_quotes_and_variables(command: str, words: list[str]) -> None:
    assert expand(command, VALUES) == words


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        ("a | b", "the character '|'"),
        ("a > b", "the character '>'"),
        ("a *", "the character '*'"),
        ("a ~", "the character '~'"),
        ("a # b", "the character '#'"),
        ("a {1,2}", "the character '{'"),
        ("X=1 a", "the character '='"),
        ("a\nb", "the character '\\n'"),
        ("a \\\n b", "a line that is continued"),
        ("a \\", "a line that is continued"),
        ("a 'b", "an open quote"),
        ('a "b', "an open quote"),
        ("a $(b)", "a '$' that is not a plain variable"),
        ("a ${B:-c}", "a '$' that is not a plain variable"),
        ("a $1", "a '$' that is not a plain variable"),
        ('a "`b`"', "the character '`'"),
        ("a $PATH", "bash's own variable $PATH"),
        ("a $SHLVL", "bash's own variable $SHLVL"),
        ("a $BASH_VERSION", "bash's own variable $BASH_VERSION"),
        ("a $GLOB", "a variable with a file pattern in it"),
        ("a $SLASH", "a variable with a file pattern in it"),
    ],
)
def test_the_rest_of_bash_is_left_to_bash(command: str, reason: str) -> None:
    with pytest.raises(NotSimple) as caught:
        expand(command, VALUES)
    assert str(caught.value) == reason


@pytest.fixture
def path(tmp_path: Path) -> dict[str, str]:
    for name in ("python", "python3.11", "pythonista", "Rscript"):
        program = tmp_path / "bin ✓" / name
        program.parent.mkdir(exist_ok=True)
        program.write_text("")
        program.chmod(0o755)
    return {"PATH": str(tmp_path / "bin ✓")}


def test_scripts_and_modules_are_told_apart(path: dict[str, str]) -> None:
    folder = path["PATH"]
    call = python_call(["python", "-u", "a b.py", "-m", "x"], path)
    assert (call.interpreter, call.script, call.module, call.args) == (f"{folder}/python", "a b.py", None, ("-m", "x"))
    call = python_call([f"{folder}/python3.11", "-m", "pkg.main", "--x"], path)
    assert (call.interpreter, call.module, call.args) == (f"{folder}/python3.11", "pkg.main", ("--x",))


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["Rscript", "x.R"], "a program other than Python"),
        (["pythonista", "x.py"], "a program other than Python"),
        ([], "a program other than Python"),
        (["python3.99", "x.py"], "an interpreter 'python3.99' that is not on PATH"),
        (["./python", "x.py"], "an interpreter './python' that is not on PATH"),
        (["python"], "Python without a script"),
        (["python", "-m"], "the Python option '-m'"),
        (["python", "-c", "pass"], "the Python option '-c'"),
        (["python", "-O", "x.py"], "the Python option '-O'"),
        (["python", "-"], "the Python option '-'"),
    ],
)
def test_what_is_no_plain_call_of_python_runs_cold(path: dict[str, str], words: list[str], reason: str) -> None:
    with pytest.raises(NotSimple) as caught:
        python_call(words, path)
    assert str(caught.value) == reason


def test_commands_that_look_like_python_are_recognised() -> None:
    assert all(
        is_python(command) for command in ("python x", "python3 | y", "'/a b/python3.12' x".replace("a b", "ab"))
    )
    assert not any(is_python(command) for command in ("", "  ", "Rscript x", "pythonista", "env python x"))


@given(st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=8), max_size=4))
@settings(max_examples=50)
def test_appended_words_reach_the_program_as_they_are(words: list[str]) -> None:
    line = shell_line("printf '%s\\0' first", words)
    done = subprocess.run(["bash", "-c", line], capture_output=True, check=True, timeout=60)
    assert done.stdout.decode().split("\0") == ["first", *words, ""]


def test_flags_are_what_people_would_write() -> None:
    assert format_arguments(
        {"lr": 1e-5, "n": 3, "on": True, "off": False, "none": None, "text": " ", "map": {"a": [1]}}
    ) == [
        "--lr=1e-05",
        "--n=3",
        "--on=True",
        "--off=False",
        "--text= ",
        '--map={"a": [1]}',
    ]


@pytest.mark.skipif(Path("/venv/bin").is_dir(), reason="this machine has what FEDn's containers have")
@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("/venv/bin/python entrypoint train $ENTRYPOINT_OPTS", "python entrypoint train $ENTRYPOINT_OPTS"),
        ("/venv/bin/python3 -m app", "python3 -m app"),
        ("'/venv/bin/python' x.py", "'python' x.py"),
        ("cd src && /venv/bin/python3.8 x.py;/venv/bin/python y.py", "cd src && python3.8 x.py;python y.py"),
        ("/venv/bin/pythonic x", "/venv/bin/pythonic x"),
        ("/home/me/project/.venv/bin/python x", "python x"),
        ("./.venv/bin/python -u x", "python -u x"),
        (".project/bin/python3 x && kept/bin/python y", "python3 x && kept/bin/python y"),
        (f"{sys.executable} x", f"{sys.executable} x"),
        ("~/.venv/bin/python x", "~/.venv/bin/python x"),
        ("$HOME/bin/python x", "$HOME/bin/python x"),
        ("/venv/bin/pip list", "/venv/bin/pip list"),
        ("echo --python=/venv/bin/python", "echo --python=/venv/bin/python"),
    ],
)
def test_interpreter_that_does_not_exist_is_the_packages_own(command: str, expected: str, tmp_path: Path) -> None:
    (tmp_path / "kept" / "bin").mkdir(parents=True)
    (tmp_path / "kept" / "bin" / "python").touch()
    assert with_own_python(command, tmp_path) == expected
