"""What a warm interpreter cannot do runs cold all the same, and one warning says why."""

from __future__ import annotations

import logging
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from workbench import Bench, inline, log, make_bench, marked, parent_of, wait_until

from fedpkg.dispatch.site import PackageOnDisk

THREAD = """
import threading
threading.Thread(target=threading.Event().wait, daemon=True).start()
"""
TELL_PARENT = "tell(parent=os.getppid())\n"


@pytest.fixture
def open_warm(tmp_path: Path) -> Iterator[Callable[..., Bench]]:
    benches = []

    def make(package: PackageOnDisk, **environment: str) -> Bench:
        benches.append(make_bench("forkserver", tmp_path, package, **environment))
        return benches[-1]

    yield make
    for bench in benches:
        bench.executor.close()
        assert marked(bench.mark) == []


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def outside_module(tmp_path: Path, name: str, code: str) -> str:
    """A module that is installed, as it were: importable, and not the package's own; the PYTHONPATH for it."""
    site = tmp_path / "site"
    site.mkdir(exist_ok=True)
    (site / f"{name}.py").write_text(code)
    return str(site)


def test_import_that_starts_a_thread_is_left_out_with_what_needs_it_and_the_rest_stays_warm(
    open_warm: Callable[..., Bench], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    code = """
    import first_one, starts_a_thread, needs_it, last_one
    tell(anew=[m.__name__ for m in (first_one, starts_a_thread, needs_it, last_one) if m.PID == os.getpid()])
    """
    package = inline(tmp_path, code)
    pid = "import os\nPID = os.getpid()\n"
    for name, text in [
        ("first_one", ""),
        ("starts_a_thread", THREAD),
        ("needs_it", "import starts_a_thread"),
        ("last_one", ""),
    ]:
        path = outside_module(tmp_path, name, pid + text)
    bench = open_warm(package, PYTHONPATH=path)
    for _ in range(2):
        assert bench.told(package) == {"anew": ["starts_a_thread", "needs_it"]}
    assert [message.partition(" (about")[0] for message in warnings_of(caplog)] == [
        "executor.left_out reason=starts_a_thread is imported again in every task",
        "executor.left_out reason=needs_it is imported again in every task",
    ]
    assert all(
        "starts threads, and forking a process with threads is unsafe" in message for message in warnings_of(caplog)
    )


def test_threads_that_have_ended_leave_nothing_out(
    open_warm: Callable[..., Bench], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    module = """
    import os, threading
    PID = os.getpid()
    threads = [threading.Thread(target=sum, args=(range(1000),)) for _ in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    """
    package = inline(tmp_path, "import ended\ntell(anew=ended.PID == os.getpid())\n")
    bench = open_warm(package, PYTHONPATH=outside_module(tmp_path, "ended", textwrap.dedent(module)))
    assert bench.told(package) == {"anew": False}
    assert warnings_of(caplog) == []


def test_thread_of_jemalloc_which_is_made_for_forks_leaves_nothing_out(
    open_warm: Callable[..., Bench], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    module = """
    import ctypes, os, threading
    PID = os.getpid()
    named = threading.Event()
    def run():
        ctypes.CDLL(None).prctl(15, b"jemalloc_bg_thd", 0, 0, 0)
        named.set()
        threading.Event().wait()
    threading.Thread(target=run, daemon=True).start()
    named.wait()
    """
    package = inline(tmp_path, "import allocates\ntell(anew=allocates.PID == os.getpid())\n")
    bench = open_warm(package, PYTHONPATH=outside_module(tmp_path, "allocates", textwrap.dedent(module)))
    assert bench.told(package) == {"anew": False}
    assert warnings_of(caplog) == []


def test_what_a_name_needs_is_imported_before_the_fork(open_warm: Callable[..., Bench], tmp_path: Path) -> None:
    site = tmp_path / "site" / "lazy"
    site.mkdir(parents=True)
    lazy = """
    import importlib
    def __getattr__(name):
        if name in ("made", "broken"):
            return importlib.import_module(f"lazy.its_{name}").thing
        raise AttributeError(name)
    """
    (site / "__init__.py").write_text(textwrap.dedent(lazy))
    (site / "its_made.py").write_text("thing = 1\n")
    (site / "its_broken.py").write_text(
        "import os\nif 'FEDPKG_TASK' not in os.environ:\n    raise OSError\nthing = 2\n"
    )
    (site / "inner.py").write_text("")
    code = """
    loaded = sorted(name for name in sys.modules if name.startswith("lazy"))
    from lazy import broken, inner, made
    tell(loaded=loaded, values=[broken, made])
    """
    package = inline(tmp_path, code)
    bench = open_warm(package, PYTHONPATH=str(site.parent))
    assert bench.told(package) == {"loaded": ["lazy", "lazy.inner", "lazy.its_made"], "values": [2, 1]}


def test_debug_log_says_what_a_task_imports_anew(
    open_warm: Callable[..., Bench], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    package = inline(
        tmp_path, "name = 'only_now'\n__import__(name)\n__import__('own')\ntell(n=1)\n", own__py="import csv"
    )
    bench = open_warm(package, PYTHONPATH=outside_module(tmp_path, "only_now", "import wave\n"))
    bench.told(package)
    with caplog.at_level(logging.DEBUG, "fedpkg.dispatch"):
        bench.told(package)
        bench.executor.close()
    (said,) = [record.getMessage() for record in caplog.records if record.getMessage().startswith("task.imported")]
    assert " modules=only_now seconds=" in said


def test_import_that_ends_the_interpreter_makes_the_package_run_cold(
    open_warm: Callable[..., Bench], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = outside_module(tmp_path, "ends_it_all", "import os, sys\nif 'zygote' in sys.argv[0]:\n    os._exit(7)\n")
    package = inline(tmp_path, "import ends_it_all\n" + TELL_PARENT)
    bench = open_warm(package, PYTHONPATH=path)
    for _ in range(2):
        assert "parent" in bench.told(package)
    (warning,) = warnings_of(caplog)
    assert "ended while it started" in warning


def test_import_that_hangs_makes_the_package_run_cold(
    open_warm: Callable[..., Bench], tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fedpkg.dispatch.zygotes.START_PATIENCE_S", 1.0)
    path = outside_module(tmp_path, "hangs", "import sys, time\nif 'zygote' in sys.argv[0]:\n    time.sleep(600)\n")
    package = inline(tmp_path, "import hangs\n" + TELL_PARENT)
    bench = open_warm(package, PYTHONPATH=path)
    for _ in range(2):
        assert "parent" in bench.told(package)
    (warning,) = warnings_of(caplog)
    assert "had not finished its imports after 1 s" in warning


def test_own_module_named_like_one_in_use_makes_the_package_run_cold(
    open_warm: Callable[..., Bench], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    package = inline(tmp_path, "import csv, wave\ntell(wave=wave.HEIGHT)\n", wave__py="HEIGHT = 3\n")
    bench = open_warm(package, PYTHONPATH=outside_module(tmp_path, "surf", "import wave\n"))
    assert bench.told(package) == {"wave": 3}
    assert warnings_of(caplog) == []  # nobody else imported the standard library's
    bench.executor.close()
    package = inline(tmp_path, "import surf\nimport wave\ntell(wave=wave.HEIGHT)\n", wave__py="HEIGHT = 3\n")
    bench = open_warm(package, PYTHONPATH=str(tmp_path / "site"))
    assert bench.told(package) == {"wave": 3}
    (warning,) = warnings_of(caplog)
    assert "its module 'wave' has the same name as one that the warm interpreter has imported" in warning


@pytest.mark.parametrize(
    ("command", "because"),
    [
        ("python entrypoint.py | cat", None),
        ("python entrypoint.py && true", None),
        ("python -O entrypoint.py", "the Python option '-O'"),
        ("python $(echo entrypoint.py)", "a '$' that is not a plain variable"),
        ("python entry*.py", "the character '*'"),
        ("python entrypoint.py --seed=$RANDOM", "bash's own variable $RANDOM"),
        ("python app.zip", "a script that is not Python source, 'app.zip'"),
    ],
)
def test_python_that_needs_bash_runs_cold_with_one_warning(
    bench: Bench, tmp_path: Path, caplog: pytest.LogCaptureFixture, command: str, because: str | None
) -> None:
    package = inline(tmp_path, "tell(optimised=sys.flags.optimize)\n", command)
    if command.endswith("zip"):
        import zipfile

        with zipfile.ZipFile(package.folder / "app.zip", "w") as archive:
            archive.write(package.folder / "entrypoint.py", "__main__.py")
    results = [bench.run(package) for _ in range(2)]
    if because is not None:
        assert results[0].metrics == {"optimised": int("-O" in command)}, log(results[0])
    because = because or f"the character {command.split()[2][0]!r}"
    expected = (
        f"executor.cold reason='{command}' runs cold, with a new interpreter for every task, because of {because}"
    )
    assert warnings_of(caplog) == ([expected] if bench.name != "process" else [])


def test_other_programs_run_cold_without_a_warning(
    bench: Bench, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    package = inline(tmp_path, "", "bash run.sh", run__sh="""printf '{"n": %s}' "$#" > "$1"\n""")
    assert bench.told(package, arguments={"a": 1}) == {"n": 2}
    package = inline(tmp_path, "", """printf '{"out": "%s"}' | tee""")
    assert bench.told(package) == {"out": ""}
    assert warnings_of(caplog) == []


def test_warm_tasks_are_forked_and_cold_ones_are_not(bench: Bench, tmp_path: Path) -> None:
    package = inline(tmp_path, "tell(exe=open('/proc/self/cmdline').read().split(chr(0))[1], keeper=os.getppid())")
    told = bench.told(package)
    assert Path(told["exe"]).name == ("zygote.py" if bench.name != "process" else "entrypoint.py")
    assert parent_of(told["keeper"]) > 1


def test_module_that_fails_to_import_is_the_tasks_own_affair(
    open_warm: Callable[..., Bench], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = outside_module(tmp_path, "half_broken", "raise SystemExit('no licence')\n")
    package = inline(tmp_path, "try:\n    import half_broken\nexcept SystemExit as e:\n    tell(e=str(e))\n")
    bench = open_warm(package, PYTHONPATH=path)
    assert bench.told(package) == {"e": "no licence"}
    assert warnings_of(caplog) == []


def test_executor_tells_whether_a_task_waits_for_its_interpreter(
    open_warm: Callable[..., Bench], tmp_path: Path
) -> None:
    go_on = tmp_path / "go on"
    waits = f"import os, time\nwhile not os.path.exists({str(go_on)!r}):\n    time.sleep(0.01)\n"
    package = inline(tmp_path, "import waits_for_a_file\n" + TELL_PARENT)
    bench = open_warm(package, PYTHONPATH=outside_module(tmp_path, "waits_for_a_file", waits))
    assert not bench.executor.is_warming, "no task needs it yet; perhaps none ever will"
    task = bench.submit(package)
    wait_until(lambda: bench.executor.is_warming, "the task waits")
    go_on.touch()
    assert "parent" in task.result().metrics
    assert not bench.executor.is_warming
