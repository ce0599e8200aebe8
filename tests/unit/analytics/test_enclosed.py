"""An algorithm's function in a process apart: what comes back, and what it cannot do to the runner."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
PATH = os.pathsep.join((str(ROOT), str(ROOT / "fedpkg" / "runtime" / "path")))

PROGRAM = """
import os, signal, sys, time
from fedpkg.analytics.enclosed import AlgorithmFailed, remove_planted, run_enclosed
reply = sys.argv[1]
parent = os.getpid()
secret = b"only the runner " + b"knows this"

{function}

try:
    found = run_enclosed(function, max_bytes=1000{more})
except AlgorithmFailed as error:
    sys.exit(f"failed: {{error}}")
{after}
print(found.decode())
"""


def run(folder: Path, function: str, after: str = "", more: str = "") -> subprocess.CompletedProcess[str]:
    program = PROGRAM.format(function=textwrap.dedent(function), after=textwrap.dedent(after), more=more)
    command = [sys.executable, "-c", program, str(folder / "reply")]
    return subprocess.run(command, env={**os.environ, "PYTHONPATH": PATH}, capture_output=True, text=True, timeout=60)


def test_the_result_of_the_function_comes_back_and_its_output_is_passed_on(tmp_path: Path) -> None:
    done = run(tmp_path, "def function():\n    print('hello')\n    return b'the result'")
    assert (done.returncode, done.stdout) == (0, "hello\nthe result\n")


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("raise ValueError('17 of 20')", "failed: ValueError: 17 of 20"),
        ("sys.exit(3)", "failed: the function ended its process with exit code 3"),
        ("os._exit(4)", "failed: its process ended with exit code 4 without a result"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "failed: its process was ended by the signal SIGKILL"),
        ("return bytes(1001)", "failed: its result has 1001 bytes, more than the 1000"),
        ("os.closerange(3, 1 << 16)", "failed: its process ended with exit code 1 without a result"),
    ],
)
def test_another_end_is_told(tmp_path: Path, body: str, words: str) -> None:
    done = run(tmp_path, f"def function():\n    {body}")
    assert done.returncode == 1 and words in done.stderr


def test_a_quiet_node_tells_only_the_type_of_an_exception_of_python(tmp_path: Path) -> None:
    body = "def function():\n    print('a patient')\n    raise ValueError('a patient')"
    done = run(tmp_path, body, more=", quiet=True")
    assert (done.stdout, done.stderr) == ("", "failed: ValueError\n")
    done = run(tmp_path, "def function():\n    raise type('a_patient', (Exception,), {})()", more=", quiet=True")
    assert done.stderr == "failed: it raised an exception\n"


def test_a_process_that_outlives_the_function_is_gone_before_the_reply_is_written(tmp_path: Path) -> None:
    """It has left its parent and its session, holds the pipe open, and writes the reply again and again."""
    function = """
    def function():
        ready, say = os.pipe()
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
                open(reply + ".pid", "w").write(str(os.getpid()))
                os.write(say, b"1")
                while True:
                    open(reply, "w").write("forged")
            os._exit(0)
        os.read(ready, 1)
        return b"true"
    """
    after = """
    remove_planted(reply)
    open(reply, "wb").write(found)
    pid = int(open(reply + ".pid").read())
    print(os.path.exists(f"/proc/{pid}"))
    """
    done = run(tmp_path, function, after)
    assert (done.returncode, done.stdout) == (0, "False\ntrue\n"), done.stderr
    assert (tmp_path / "reply").read_text() == "true"


def test_what_an_algorithm_puts_where_the_reply_will_be_is_removed(tmp_path: Path) -> None:
    function = """
    def function():
        os.mkdir(reply)
        open(reply + "/x", "w").close()
        os.symlink("/etc/passwd", reply + "-metadata")
        return b"true"
    """
    done = run(tmp_path, function, "remove_planted(reply, reply + '-metadata')")
    assert done.returncode == 0 and list(tmp_path.iterdir()) == []


def test_functions_that_an_algorithm_replaces_are_those_of_its_own_process(tmp_path: Path) -> None:
    function = """
    from fedpkg.analytics import enclosed
    from fedpkg.analytics.policy import NotAllowed, Policy, policy_of

    def function():
        Policy.check_rows = Policy.released = lambda *a, **k: None
        enclosed.end_children = enclosed.remove_planted = print
        return b"done"
    """
    after = """
    try:
        policy_of({"minimum_rows": 10}).check_rows("default", 3)
    except NotAllowed:
        print("refused")
    """
    assert run(tmp_path, function, after).stdout == "refused\ndone\n"


@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
def test_the_runners_memory_cannot_be_read(tmp_path: Path) -> None:
    """Without the powers of root, which isolation takes away."""
    function = """
    import _fedpkg_isolation
    _fedpkg_isolation._drop_powers()

    def function():
        for name in ("mem", "environ", "maps", "fd/1"):
            try:
                open(f"/proc/{parent}/{name}", "rb").read(1)
            except PermissionError:
                print(name, "refused")
        return b"done"
    """
    done = run(tmp_path, function)
    assert done.stdout.splitlines() == ["mem refused", "environ refused", "maps refused", "fd/1 refused", "done"]
