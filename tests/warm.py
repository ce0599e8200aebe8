"""A Python that has imported torch and fedpkg already: what a test runs in a process of its own starts in 30 ms.

    subprocess.run([*warm_python(), str(SCRIPT), "--word"])            in place of sys.executable
    subprocess.Popen([*warm_python(), "-m", "fedpkg", "run", …])

A parent process, one for each process of pytest, imports once and forks for each command (see warm_client.py, which
stands in for the interpreter). A forked process has the environment, folder, streams and arguments of its command. It
has the interpreter of its parent: a test of the start itself uses sys.executable (what is imported, variables that
the interpreter or a C library reads at its start, limits, another user, streams that are closed).
"""

from __future__ import annotations

import atexit
import functools
import gc
import io
import json
import os
import runpy
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

HERE = Path(__file__).resolve()
# As it was before the first test changed it.
BEFORE: dict[str, Any] = {"folder": tempfile.gettempdir(), "environ": dict(os.environ)}
# What a controller imports sooner or later.
IMPORTS = (
    "torch",
    "sklearn.datasets",
    "cryptography.hazmat.primitives.serialization",
    "rich.progress",
    "omegaconf",
    "fedpkg.cli.main",
    "fedpkg.session.beginning",
    "fedpkg.session.resuming",
    "zygotes",
)
SHARE = "FEDPKG_TESTS_SHARE"  # a command with this variable shares zygotes with others (zygotes.py)


@functools.cache
def warm_python() -> tuple[str, ...]:
    """The words that stand for the interpreter in a command."""
    folder = tempfile.mkdtemp(prefix="warm-", dir=BEFORE["folder"])
    path = f"{folder}/socket"
    parent = subprocess.Popen(
        [sys.executable, str(HERE), path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=BEFORE["environ"],
        cwd=HERE.parent,
    )
    assert parent.stdin is not None and parent.stdout is not None
    assert parent.stdout.readline() == b"listening\n"

    def end() -> None:
        assert parent.stdin is not None and parent.stdout is not None
        parent.stdin.close()
        parent.stdout.close()
        parent.wait()
        os.rmdir(folder)

    atexit.register(end)
    return sys.executable, "-I", "-S", str(HERE.with_name("warm_client.py")), path


# ---- the parent


@dataclass
class Child:
    """A process that was forked, and the client that waits for it."""

    pid: int
    pidfd: int
    client: socket.socket


@dataclass
class Request:
    """What a client asks for."""

    words: list[str]
    cwd: str
    environ: dict[str, str]
    streams: list[int]


def receive(client: socket.socket) -> Request:
    head, streams, _, _ = socket.recv_fds(client, 4, 3)
    body = b""
    while len(body) < int.from_bytes(head, "big"):
        body += client.recv(1 << 20)
    return Request(**json.loads(body), streams=streams)


def serve(path: str) -> Request:
    """Fork a child for each client until the standard input ends; returns in each child what it is to do."""
    import zygotes

    with socket.socket(socket.AF_UNIX) as server, selectors.DefaultSelector() as selector:
        server.bind(path)
        server.listen()
        selector.register(server, selectors.EVENT_READ)
        selector.register(0, selectors.EVENT_READ)
        print("listening", flush=True)
        children: dict[int, Child] = {}
        kept: dict[str, Any] = {}
        while True:
            for key, _ in selector.select():
                if key.fd == 0:
                    end(path, list(children.values()))
                elif key.fileobj is server:
                    client, _ = server.accept()
                    request = receive(client)
                    if request.words[0] == "--keep":
                        keep(request, kept)
                        client.close()
                        continue
                    pid = os.fork()
                    if pid == 0:
                        for other in selector.get_map().values():
                            if other.fd not in (0, server.fileno()):
                                os.close(other.fd)
                        client.close()
                        if SHARE in request.environ:
                            zygotes.inherit(kept, path)
                        return request
                    for stream in request.streams:
                        os.close(stream)
                    child = children[pid] = Child(pid, os.pidfd_open(pid), client)
                    selector.register(client, selectors.EVENT_READ, child)
                    selector.register(child.pidfd, selectors.EVENT_READ, child)
                elif key.data.pid in children:
                    attend(key, selector, children)


def keep(request: Request, kept: dict[str, Any]) -> None:
    """Hold the connection of a zygote, which lives as long, for processes that are forked later."""
    import zygotes

    _, key, pid, greeting = request.words
    try:
        kept[key] = zygotes.Handed(request.streams[0], int(pid), os.pidfd_open(int(pid)), json.loads(greeting))
    except OSError:  # it has ended
        os.close(request.streams[0])
    while len(kept) > zygotes.MOST // 2:
        oldest = kept.pop(next(iter(kept)))
        os.close(oldest.control)
        os.close(oldest.pidfd)


def attend(key: selectors.SelectorKey, selector: selectors.BaseSelector, children: dict[int, Child]) -> None:
    """A child ended, or its client passes a signal on, or is gone."""
    child: Child = key.data
    if key.fd == child.pidfd:
        code = os.waitstatus_to_exitcode(os.waitpid(child.pid, 0)[1])
        with suppress(OSError):
            child.client.sendall(code.to_bytes(4, "big", signed=True))
        selector.unregister(child.pidfd)
        os.close(child.pidfd)
        with suppress(KeyError):
            selector.unregister(child.client)
        child.client.close()
        del children[child.pid]
        return
    numbers = child.client.recv(1)
    os.kill(child.pid, numbers[0] if numbers else signal.SIGKILL)
    if not numbers:
        selector.unregister(child.client)


def end(path: str, children: list[Child]) -> None:
    for child in children:
        os.kill(child.pid, signal.SIGKILL)
    os.unlink(path)
    os._exit(0)


def become(request: Request) -> None:
    """Take over streams, folder and environment, in a process group of its own."""
    os.setpgid(0, 0)
    for number, stream in enumerate(request.streams):
        os.dup2(stream, number)
        os.close(stream)
    os.chdir(request.cwd)
    os.environ.clear()
    os.environ.update(request.environ)
    sys.path[:0] = [part for part in request.environ.get("PYTHONPATH", "").split(os.pathsep) if part]
    sys.stdin = open(0, closefd=False)  # noqa: SIM115 - as long as the process lives
    for name, number in (("stdout", 1), ("stderr", 2)):
        raw: Any = open(number, "wb", closefd=False)  # noqa: SIM115
        errors = "backslashreplace" if name == "stderr" else None
        stream = io.TextIOWrapper(raw, errors=errors, line_buffering=name == "stderr" or os.isatty(number))
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)


def run(words: list[str]) -> NoReturn:
    """What the interpreter does with its arguments, and how it ends; PyTorch is not taken down, which takes 0.4 s."""
    code: Any = 0
    try:
        run_as_main(words)
    except SystemExit as error:
        code = error.code or 0
        if not isinstance(code, int):
            print(code, file=sys.stderr)
            code = 1
    except BaseException as error:
        traceback.print_exc()
        code = -signal.SIGINT if isinstance(error, KeyboardInterrupt) else 1
    threading._shutdown()  # type: ignore[attr-defined] - waits for threads
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    if code == -signal.SIGINT:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    os._exit(code & 0xFF)


def run_as_main(words: list[str]) -> None:
    first, *others = words
    if first == "-m":
        sys.argv = others
        sys.path.insert(0, os.getcwd())
        runpy.run_module(others[0], run_name="__main__", alter_sys=True)
    elif first == "-c":
        sys.argv = ["-c", *others[1:]]
        sys.path.insert(0, "")
        exec(compile(others[0], "<string>", "exec"), {"__name__": "__main__"})
    else:
        sys.argv = words
        sys.path.insert(0, str(Path(first).resolve().parent))
        runpy.run_path(first, run_name="__main__")


if __name__ == "__main__":
    import importlib

    for name in IMPORTS:
        importlib.import_module(name)
    sys.path.remove(str(HERE.parent))
    os.setpgid(0, 0)  # Ctrl-C is for the clients, who pass it on
    gc.freeze()  # or the first collection of a child copies all that it shares
    request = serve(sys.argv[1])
    become(request)
    run(request.words)
