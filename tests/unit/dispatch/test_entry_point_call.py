"""What one call of an entry point means, alike in every executor."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import stat
import subprocess
import sys
import textwrap
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
from workbench import Bench, Ran, inline, log, unpacked, write_model

from fedpkg.dispatch.site import PackageOnDisk
from fedpkg.types import ReplyKind

# ---- command line


def test_paths_are_appended_absolute_and_flags_come_from_the_arguments(bench: Bench, tmp_path: Path) -> None:
    package = inline(tmp_path, "tell(argv=sys.argv[1:])", "python entrypoint.py 'first word'")
    model = write_model(tmp_path / "m.npz")
    arguments = {
        "lr": 0.01,
        "epochs": 3,
        "shuffle": True,
        "quiet": False,
        "text": 'it\'s "so" $HOME `x` *\nЮ 東京',
        "empty": "",
        "layers": [64, "zwölf", None],
        "nothing": None,
    }
    task = bench.task(package, model=model, arguments=arguments)
    result = bench.executor.submit(task).result(60)
    assert isinstance(result.metrics, dict), log(result)
    assert result.metrics["argv"] == [
        "first word",
        str(task.folder / "in.npz"),
        str(task.folder / "out.json"),
        "--lr=0.01",
        "--epochs=3",
        "--shuffle=True",
        "--quiet=False",
        '--text=it\'s "so" $HOME `x` *\nЮ 東京',
        "--empty=",
        '--layers=[64, "zwölf", null]',
    ]


@pytest.mark.parametrize("options", [None, "--a=1  --b='2'", "", 'a"b'])
def test_entrypoint_opts_expand_where_they_stand(
    open_bench: Callable[..., Bench], tmp_path: Path, options: str | None
) -> None:
    package = unpacked("quoting", tmp_path)
    environment = {} if options is None else {"ENTRYPOINT_OPTS": options}
    bench = open_bench(package, slots=1, HOME="/home/mit Leerzeichen", **environment)
    words = bench.told(package, model=write_model(tmp_path / "m.npz"))["argv"]
    assert words[:-2] == ["entry point.py", "validate", *(options or "").split()]
    train = bench.run(package, "train", model=write_model(tmp_path / "m.npz"))
    assert train.metadata["argv"][:-2] == [  # type: ignore[index,call-overload]
        *("entry point.py", "train", "two words", "it costs $5", "a b", "", "--home=/home/mit Leerzeichen"),
        *(options or "").split(),
    ]


def test_working_directory_is_the_folder_of_the_spec_in_a_private_copy(bench: Bench, tmp_path: Path) -> None:
    package = inline(tmp_path, "tell(cwd=os.getcwd(), note=open('note.txt').read())", note__txt="beside the code")
    task = bench.task(package)
    told = bench.executor.submit(task).result(60).metrics
    assert told == {"cwd": str(task.next_state / "package" / "client"), "note": "beside the code"}


# ---- what a task is told


def test_task_json_says_who_and_when_and_what(bench: Bench, tmp_path: Path) -> None:
    package = inline(tmp_path, "tell(**json.load(open(os.environ['FEDPKG_TASK'])))")
    told = bench.told(
        package,
        client_id="Zürich",
        round_number=7,
        partition_id=3,
        num_partitions=9,
        attempt=2,
        seed=2**62 + 1,
        data_path=tmp_path / "Daten",
        parameters={"proximal_mu": 0.1},
        run_config={"a": [1, {"b": None}]},
        model=write_model(tmp_path / "sets.npz"),
        input_sets=("x", "control"),
        sets={"x": None},
    )
    assert told == {
        "session_id": "session-1",
        "round_number": 7,
        "client_id": "Zürich",
        "attributes": {},
        "partition_id": 3,
        "num_partitions": 9,
        "entry_point": "validate",
        "attempt": 2,
        "seed": 2**62 + 1,
        "device": "cpu",
        "gpus": [],
        "data_path": str(tmp_path / "Daten"),
        "run_config": {"a": [1, {"b": None}]},
        "parameters": {"proximal_mu": 0.1},
        "input_sets": ["x", "control"],
        "reply_sets": ["x"],
        "parameter_names": None,
        "reply_kind": "metrics",
        "reply": "weights",
        "rest": False,
        "weighted": True,
        "python": sys.executable,
        "environment": bench.environment,
        "argument_style": "",
        "links": {},
    }


def test_input_has_the_parameters_beside_it_and_is_read_only(bench: Bench, tmp_path: Path) -> None:
    code = """
    path = sys.argv[1]
    tell(metadata=json.load(open(path + '-metadata')), mode=os.stat(path).st_mode, links=os.stat(path).st_nlink)
    """
    model = write_model(tmp_path / "m.npz")
    told = bench.told(inline(tmp_path, code), model=model, parameters={"proximal_mu": 0.5})
    assert told["metadata"] == {"proximal_mu": 0.5}
    assert stat.S_IMODE(told["mode"]) == 0o444
    assert told["links"] == 1


def test_environment_names_data_state_and_placeholders(bench: Bench, tmp_path: Path) -> None:
    names = "FEDN_DATA_PATH FEDPKG_STATE_DIR WHO PYTHONHASHSEED OMP_NUM_THREADS"
    package = inline(tmp_path, f"tell(argv=sys.argv[2:], **{{n: os.environ.get(n) for n in '{names}'.split()}})")
    task = bench.task(
        package,
        client_id="{data_path}",
        partition_id=4,
        threads=2,
        data_path=tmp_path / "Daten und\nmehr",
        environment={"WHO": "{client_id} of {num_partitions}, {unknown}, {session_id}"},
        arguments={"data": "{data_path}/{partition_id}", "plain": "{}"},
    )
    data = str(tmp_path / "Daten und\nmehr")
    assert bench.executor.submit(task).result(60).metrics == {
        "argv": [f"--data={data}/4", "--plain={}"],
        "FEDN_DATA_PATH": data,
        "FEDPKG_STATE_DIR": str(task.next_state / "state"),
        "WHO": "{data_path} of 1, {unknown}, session-1",
        "PYTHONHASHSEED": "0",
        "OMP_NUM_THREADS": "2",
    }


def test_variables_that_are_not_text_pass_through(
    open_bench: Callable[..., Bench], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ODD", os.fsdecode(b"caf\xe9"))
    package = inline(tmp_path, "tell(odd=os.environb[b'ODD'].hex())", 'python entrypoint.py "$ODD"')
    assert open_bench(package).told(package) == {"odd": b"caf\xe9".hex()}


# ---- seeds


def test_seed_reaches_numpy(bench: Bench, misbehave: PackageOnDisk, model: Path) -> None:
    import random

    import numpy as np

    result = bench.run(misbehave, "train", model=model, seed=2**40 + 3, arguments={"how": "env"})
    draws = result.metadata["draws"]
    expected = float(np.random.RandomState((2**40 + 3) % 2**32).rand())
    assert isinstance(draws, dict)
    assert draws["numpy"] == expected
    assert draws["random"] == random.Random(2**40 + 3).random()


@pytest.mark.soak
def test_seed_reaches_torch_and_threads_too(bench: Bench, tmp_path: Path) -> None:
    import torch

    package = unpacked("random-draws", tmp_path)
    train = bench.run(package, "train", model=bench_seed_model(bench, package, tmp_path), seed=11, threads=2)
    assert train.metadata["threads"] == 2, log(train)
    code = "import torch\ntell(torch=torch.rand(3, dtype=torch.float64).tolist())"
    expected = torch.rand(3, dtype=torch.float64, generator=torch.Generator().manual_seed(11)).tolist()
    assert bench.told(inline(tmp_path, code), seed=11) == {"torch": expected}


def bench_seed_model(bench: Bench, package: PackageOnDisk, folder: Path) -> Path:
    result = bench.run(package, "build", reply_kind=ReplyKind.SEED)
    assert result.reply is not None, log(result)
    return result.reply


def test_looking_for_a_module_does_not_keep_it_from_being_seeded(tmp_path: Path) -> None:
    from fedpkg.dispatch.staging import RUNTIME_PATH

    fake = """
    class version: cuda = hip = None
    class default_generator:
        @staticmethod
        def manual_seed(seed): calls.append(("seed", seed))
    def set_num_threads(threads): calls.append(("threads", threads))
    calls = []
    """
    (tmp_path / "torch.py").write_text(textwrap.dedent(fake))
    code = "import importlib.util as u; u.find_spec('torch'); u.find_spec('torch'); import torch; print(torch.calls)"
    environ = {**os.environ, "PYTHONPATH": f"{RUNTIME_PATH}:{tmp_path}", "FEDPKG_SEED": "3", "OMP_NUM_THREADS": "2"}
    done = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True, timeout=60)
    assert done.stdout == "[('seed', 3), ('threads', 2)]\n", done.stderr


# ---- working copies and state


def test_each_client_has_a_private_copy_also_of_what_lies_next_to_the_package(bench: Bench, tmp_path: Path) -> None:
    code = """
    before = [os.path.exists(path) for path in ('mine.txt', '../beside.txt')]
    for path in ('mine.txt', '../beside.txt'):
        open(path, 'w').write('x')
    open('note.txt', 'a').write('!')
    tell(before=before, note=open('note.txt').read())
    """
    package = inline(tmp_path, code, note__txt="note")
    for _ in range(2):
        assert bench.told(package) == {"before": [False, False], "note": "note!"}
    assert (package.folder / "note.txt").read_text() == "note"
    assert sorted(path.name for path in package.root.iterdir()) == ["client"]


def test_next_task_sees_the_state_of_the_last_one_that_was_ok(
    bench: Bench, misbehave: PackageOnDisk, model: Path
) -> None:
    first = bench.run(misbehave, "train", model=model, arguments={"how": "write_state"})
    assert first.metadata["counts"] == {"beside_code": 1, "state_dir": 1}
    state = first.task.next_state
    failed = bench.run(misbehave, "train", model=model, state=state, arguments={"how": "write_state_exit3"})
    assert failed.failure is not None
    assert failed.failure.kind == "exit_code"
    assert not failed.task.next_state.exists()
    second = bench.run(misbehave, "train", model=model, state=state, arguments={"how": "write_state"})
    assert second.metadata["counts"] == {"beside_code": 2, "state_dir": 2}
    assert (state / "state" / "count.txt").read_text() == "1"


def test_copy_is_kept_only_where_the_task_changed_it(bench: Bench, tmp_path: Path) -> None:
    changes = {
        "tell()": False,
        "open('new', 'w').close()\ntell()": True,
        "open(__file__, 'a').write('#')\ntell()": True,
        "os.remove('notes')\ntell()": True,
        "open(os.path.join(os.environ['FEDPKG_STATE_DIR'], 'x'), 'w').close()\ntell()": True,
        "os.mkdir('../beside')\ntell()": True,
        "import shutil\ntell()\nshutil.rmtree(os.path.abspath('../..'))": False,
    }
    for code, keeps in changes.items():
        result = bench.run(inline(tmp_path, code, notes="x"))
        assert result.status == "ok", log(result)
        assert (result.keeps_state, result.task.next_state.exists()) == (keeps, keeps), code


def test_folders_that_exist_are_left_alone(bench: Bench, tmp_path: Path) -> None:
    task = bench.task(inline(tmp_path, "open('state', 'w').close()\ntell()"))
    first, second = (bench.executor.submit(task).result(60) for _ in range(2))
    assert (first.status, second.status) == ("ok", "ok")
    assert first.task.folder == task.folder and second.task.folder == task.folder.with_name("task.again-1")
    assert first.task.next_state == task.next_state and (task.next_state / "package").is_dir()
    assert second.task.next_state == task.next_state.with_name("state.again-1")


def test_place_that_another_task_has_taken_with_a_link_to_nothing_is_left_alone(bench: Bench, tmp_path: Path) -> None:
    task = bench.task(inline(tmp_path, "tell()"))
    task.folder.parent.mkdir(parents=True)
    task.folder.symlink_to("nothing")
    result = bench.executor.submit(task).result(60)
    assert result.status == "ok", result.failure
    assert result.task.folder == task.folder.with_name("task.again-1")


# ---- as plain Python has it

WHERE = """
import inspect
from model import NAME
spec = __spec__ and __spec__.name
tell(
    argv=sys.argv,
    orig_argv=[word for word in sys.orig_argv[1:] if word != "-u"],
    path=sys.path[0],
    cwd=os.getcwd(),
    file=__file__,
    main=sys.modules["__main__"].__file__,
    name=__name__,
    package=__package__,
    spec=spec,
    doc=__doc__,
    cached=str(__cached__),
    loader=type(__loader__).__name__,
    builtins=type(__builtins__).__name__,
    sibling=NAME,
    source=inspect.getsource(Pet),
    kind=Pet.__module__,
    flags=sys.flags.optimize,
    stdin=sys.stdin.read(),
)
"""


@pytest.mark.parametrize(
    "words", [["entrypoint.py"], ["./entrypoint.py"], ["-m", "entrypoint"], ["-u", "../client/entrypoint.py", "x y"]]
)
def test_script_finds_itself_as_under_plain_python(bench: Bench, tmp_path: Path, words: list[str]) -> None:
    command = "python " + " ".join(f"'{word}'" for word in words)
    code = '"""Its documentation."""\nclass Pet:\n    pass\n' + WHERE
    package = inline(tmp_path, code, command, model__py="NAME = 'a sibling'\n")
    task = bench.task(package)
    result = bench.executor.submit(task).result(60)
    cwd = task.next_state / "package" / "client"
    shutil.copytree(package.folder, cwd)  # the task left nothing to keep, so its copy is gone
    out = tmp_path / "out.json"
    subprocess.run([sys.executable, *words, str(out)], cwd=cwd, stdin=subprocess.DEVNULL, check=True, timeout=60)
    expected = json.loads(out.read_text().replace(str(out), str(task.folder / "out.json")))
    assert result.metrics == expected, log(result)
    assert expected["stdin"] == ""


def test_modules_with_relative_imports_run(bench: Bench, tmp_path: Path) -> None:
    package = unpacked("module-run", tmp_path)
    seed = bench.run(package, "build", reply_kind=ReplyKind.SEED).reply
    result = bench.run(package, "train", model=seed)
    assert result.status == "ok", log(result)
    cwd = str(result.task.next_state / "package" / "module-run")
    told: Any = result.metadata
    assert (told["name"], told["package"], told["spec"]) == ("__main__", "pkgmod", "pkgmod.main")
    assert (told["file"], told["path"][0], told["cwd"]) == (f"{cwd}/pkgmod/main.py", cwd, cwd)


@pytest.mark.parametrize(
    ("code", "exit_code", "says"),
    [
        ("sys.exit(3)", 3, ""),
        ("sys.exit(256 + 7)", 7, ""),
        ("sys.exit('no data today')", 1, "no data today\n"),
        ("os._exit(9)", 9, ""),
        ("raise SystemExit(True)", 1, ""),
        ("import atexit\natexit.register(print, 'bye', file=sys.stderr)\nsys.exit(4)", 4, "bye\n"),
        ("1 +", 1, "SyntaxError"),
        ("import nothing_of_that_name", 1, "No module named 'nothing_of_that_name'"),
        ("raise KeyError('é')", 1, "KeyError: 'é'"),
    ],
)
def test_exit_codes_and_last_words(bench: Bench, tmp_path: Path, code: str, exit_code: int, says: str) -> None:
    result = bench.run(inline(tmp_path, code))
    assert (result.status, result.exit_code, result.signal) == ("failed", exit_code, None)
    assert result.failure is not None
    assert result.failure.kind == "exit_code"
    assert f"exited with code {exit_code}" in result.failure.message
    assert log(result) == says if says.endswith("\n") or not says else says in log(result)
    assert result.log_tail == log(result).strip()


@pytest.mark.parametrize("command", ["python entrypoint.py", "python -m entrypoint"])
def test_traceback_shows_the_clients_code_only(bench: Bench, tmp_path: Path, command: str) -> None:
    code = """
    def inner():
        try:
            {}["x"]
        except KeyError as error:
            raise ValueError("expected 784 features, got 785") from error
    inner()
    """
    text = log(bench.run(inline(tmp_path, code, command)))
    assert text.splitlines()[-1] == "ValueError: expected 784 features, got 785"
    assert "The above exception was the direct cause" in text
    assert "zygote" not in text
    assert "fedpkg/" not in text.replace("test_fedpkg", "")
    files = [line for line in text.splitlines() if line.startswith('  File "') and "runpy" not in line]
    assert all("client/entrypoint.py" in line for line in files)
    assert len(files) == 3


def test_own_modules_are_each_client_s_own_and_run_as_they_are_now(bench: Bench, tmp_path: Path) -> None:
    code = """
    import own
    where = os.path.dirname(os.path.abspath(__file__))
    tell(value=own.get(), file=own.get.__code__.co_filename == os.path.join(where, "own.py"))
    with open("own.py", "a") as file:
        file.write("get = lambda: 2\\n")
    """
    package = inline(tmp_path, code, own__py="def get():\n    return 1\n")
    package = dataclasses.replace(package, digest="own modules")  # so that its files are known before the fork
    result = bench.run(package)
    assert result.metrics == {"value": 1, "file": True}, log(result)
    assert bench.told(package, state=result.task.next_state) == {"value": 2, "file": True}


@pytest.mark.parametrize("own", ["1 +", "def f():\n    raise ValueError('expected 784')\nf()"])
def test_traceback_of_an_own_module_has_no_steps_of_the_import(bench: Bench, tmp_path: Path, own: str) -> None:
    package = dataclasses.replace(inline(tmp_path, "import own", own__py=own), digest=f"bad module {len(own)}")
    text = log(bench.run(package))
    files = [line for line in text.splitlines() if line.startswith('  File "')]
    assert all("client/entrypoint.py" in line or "client/own.py" in line for line in files), text
    assert files


@pytest.mark.parametrize("command", ["python missing.py", "python -m missing"])
def test_missing_script_is_told_as_python_does(bench: Bench, tmp_path: Path, command: str) -> None:
    result = bench.run(inline(tmp_path, "", command))
    assert result.exit_code == (2 if "py" in command.split()[1] else 1)
    assert ("can't open file" if result.exit_code == 2 else "No module named missing") in log(result)
    assert "Traceback" not in log(result)


def test_folder_as_script_runs_its_main_module(bench: Bench, tmp_path: Path) -> None:
    package = inline(tmp_path, "", "python app")
    (package.folder / "app").mkdir()
    code = "import json, sys\nfrom part import N\njson.dump({'n': N}, open(sys.argv[1], 'w'))\n"
    (package.folder / "app" / "__main__.py").write_text(code)
    (package.folder / "app" / "part.py").write_text("N = 4\n")
    assert bench.told(package) == {"n": 4}


def test_exit_handlers_run_and_threads_finish(bench: Bench, tmp_path: Path) -> None:
    code = """
    import atexit, threading
    go = threading.Event()
    def late():
        go.wait()
        lines.append("thread")
    lines = []
    threading.Thread(target=late).start()
    atexit.register(lambda: tell(lines=lines + ["exit"]))
    lines.append("main")
    threading.Timer(0.05, go.set).start()
    """
    assert bench.told(inline(tmp_path, code)) == {"lines": ["main", "thread", "exit"]}


def test_closed_standard_output_is_no_failure(bench: Bench, tmp_path: Path) -> None:
    result = bench.run(inline(tmp_path, "print('one'); tell(); sys.stdout.close(); sys.stderr.close()"))
    assert (result.status, log(result, "stdout")) == ("ok", "one\n")


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_entry_points_may_start_processes(bench: Bench, tmp_path: Path, method: str) -> None:
    code = f"""
    import multiprocessing, subprocess
    from model import double
    def main():
        with multiprocessing.get_context("{method}").Pool(2) as pool:
            numbers = pool.map(double, range(4))
        line = subprocess.run("echo $WHO; python -c 'print(7)'", shell=True, capture_output=True, text=True).stdout
        tell(numbers=numbers, line=line)
    if __name__ == "__main__":
        main()
    """
    package = inline(tmp_path, code, model__py="def double(n):\n    return 2 * n\n")
    told = bench.told(package, environment={"WHO": "ich"})
    assert told == {"numbers": [0, 2, 4, 6], "line": "ich\n7\n"}


def test_input_that_is_written_to_fails_the_task_and_spares_the_next(bench: Bench, tmp_path: Path) -> None:
    big = write_model(tmp_path / "big.npz", size=400_000)
    before = big.read_bytes()
    code = """
    os.chmod(sys.argv[1], 0o644)
    with open(sys.argv[1], "r+b") as file:
        file.write(b"spoilt")
    tell()
    """
    result = bench.run(inline(tmp_path, code), model=big)
    assert result.failure is not None
    assert (result.failure.kind, result.failure.message) == ("wrote_input", "the task changed its read-only input file")
    assert big.read_bytes() == before
    look = inline(tmp_path, "tell(start=open(sys.argv[1], 'rb').read(2).decode(), links=os.stat(sys.argv[1]).st_nlink)")
    assert bench.told(look, model=big) == {"start": "PK", "links": 2}


def test_big_models_are_copied_once_for_all_tasks_of_a_slot(open_bench: Callable[..., Bench], tmp_path: Path) -> None:
    bench = open_bench(slots=1)
    package = inline(tmp_path, "tell(inode=os.stat(sys.argv[1]).st_ino)")
    first, second = (write_model(tmp_path / f"{n}.npz", size=400_000 + n) for n in (0, 1))
    inodes = [bench.told(package, model=path)["inode"] for path in (first, first)]
    assert inodes[0] == inodes[1] != first.stat().st_ino
    size = inline(tmp_path, "tell(size=os.stat(sys.argv[1]).st_size)")
    assert bench.told(size, model=second) == {"size": second.stat().st_size}
    assert len(list((bench.folder / "logs" / "models").iterdir())) == 1


BESIDE = """
import time
def arg(name):
    return next((word.partition("=")[2] for word in sys.argv if word.startswith(f"--{name}=")), "")
path, place = sys.argv[1], arg("place")
with open(f"{place}/runs of {arg('who')}", "a") as file:
    file.write("x")
def wait_for(name):
    open(f"{place}/{arg('who')} {name}", "w").close()
    while not os.path.exists(f"{place}/{arg('other')} {name}"):
        time.sleep(0.001)
wait_for("started")
if arg("how"):
    os.chmod(path, 0o644)
    before = os.stat(path)
    with open(path, "r+b") as file:
        file.write(b"spoilt")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns if arg("how") == "restore" else 0))
wait_for("done")
tell(start=open(path, "rb").read(2).decode())
"""


@pytest.mark.parametrize("how", ["write", "restore"])
def test_who_writes_to_its_input_fails_alone_and_nobody_runs_again(bench: Bench, tmp_path: Path, how: str) -> None:
    big = write_model(tmp_path / "big.npz", size=400_000)
    package = inline(tmp_path, BESIDE)

    def submit(who: str, other: str, **more: str) -> Future[Ran]:
        arguments = {"who": who, "other": other, "place": str(tmp_path), **more}
        return bench.submit(package, model=big, arguments=arguments)

    bad, good = submit("bad", "good", how=how), submit("good", "bad")
    innocent, culprit = good.result(60), bad.result(60)
    assert (innocent.status, innocent.metrics) == ("ok", {"start": "PK"}), innocent.failure
    assert culprit.failure is not None
    assert culprit.failure.kind == "wrote_input"
    assert [(tmp_path / f"runs of {who}").read_text() for who in ("bad", "good")] == ["x", "x"]
    look = inline(tmp_path, "tell(start=open(sys.argv[1], 'rb').read(2).decode())")
    assert [bench.told(look, model=big) for _ in range(2)] == [{"start": "PK"}] * 2


def test_name_that_a_task_gives_its_input_is_no_way_into_the_next_tasks(
    open_bench: Callable[..., Bench], tmp_path: Path
) -> None:
    bench = open_bench(slots=1)
    big = write_model(tmp_path / "big.npz", size=400_000)
    mine = tmp_path / "mine.npz"
    bench.told(inline(tmp_path, f"os.link(sys.argv[1], {str(mine)!r})\ntell()"), model=big)
    look = inline(tmp_path, "tell(inode=os.stat(sys.argv[1]).st_ino)")
    assert bench.told(look, model=big)["inode"] != mine.stat().st_ino


def test_input_that_is_linked_or_removed_is_no_reason_to_run_again(bench: Bench, tmp_path: Path) -> None:
    big = write_model(tmp_path / "big.npz", size=400_000)
    runs = tmp_path / "runs"
    start = f"open({str(runs)!r}, 'a').write('x')\n"
    for code in ("os.link(sys.argv[1], 'mine.npz')", "os.remove(sys.argv[1])", "os.chmod(sys.argv[1], 0o600)"):
        assert bench.told(inline(tmp_path, f"{start}{code}\ntell(fine=True)"), model=big) == {"fine": True}
    assert runs.read_text() == "xxx"


def test_script_may_give_its_streams_another_encoding(bench: Bench, tmp_path: Path) -> None:
    code = """
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(encoding="latin-1", errors="ignore")
    print("grün")
    tell(encodings=[sys.stdout.encoding, sys.stderr.encoding])
    """
    result = bench.run(inline(tmp_path, code))
    assert result.metrics == {"encodings": ["latin-1", "latin-1"]}, log(result)
    assert (result.task.folder / "stdout.log").read_bytes() == "grün\n".encode("latin-1")


def test_answer_says_what_the_task_used(bench: Bench, tmp_path: Path) -> None:
    code = """
    import time
    began = time.process_time()
    block = b"x" * (100 << 20)
    while time.process_time() < began + 0.2: pass
    tell()
    """
    usage = bench.run(inline(tmp_path, code)).answer.usage
    assert usage.cpu_s is not None and usage.cpu_s >= 0.2
    assert usage.peak_memory_bytes is not None and usage.peak_memory_bytes >= 100 << 20
