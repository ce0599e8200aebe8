"""Big files of a package: all tasks share one copy of each, and what a task writes there is its own client's."""

from __future__ import annotations

import json
import os
import stat
import textwrap
from pathlib import Path
from typing import Any

import pytest
from workbench import Bench, Ran, inline, log, make_bench

from fedpkg.dispatch.package_files import PackageFiles, inventory
from fedpkg.dispatch.site import PackageOnDisk
from fedpkg.dispatch.staging import shared_files
from fedpkg.dispatch.working_copies import NOTE, WorkingCopies
from fedpkg.files import sha256_file
from fedpkg.means import means
from fedpkg.waist.order import Isolation

BYTES = b"x" * (3 << 20)


def with_big_file(folder: Path, code: str) -> PackageOnDisk:
    """A package with a file of 3 MiB in a folder of its own; its script may ``look()`` at that."""
    look = (
        "def look(): return {'start': open('data/big', 'rb').read(4).decode(), 'inode': os.stat('data/big').st_ino}\n"
    )
    package = inline(folder, f"{look}open({str(folder / 'runs')!r}, 'a').write('r')\n{textwrap.dedent(code)}")
    (package.folder / "data").mkdir()
    (package.folder / "data" / "big").write_bytes(BYTES)
    return package


def runs(folder: Path) -> int:
    return len((folder / "runs").read_text())


def ok(result: Ran) -> Any:
    assert result.status == "ok", (result.failure, log(result))
    return result.metrics


def test_all_clients_share_one_copy_which_is_in_no_state(bench: Bench, tmp_path: Path) -> None:
    package = with_big_file(tmp_path, "open('state', 'a').write('s')\ntell(**look(), state=open('state').read())")
    source = package.folder / "data" / "big"
    first, second = bench.run(package), bench.run(package)
    again = bench.run(package, state=first.task.next_state)
    told = [ok(result) for result in (first, second, again)]
    assert len({one["inode"] for one in told} - {source.stat().st_ino}) == 1
    assert [one["state"] for one in told] == ["s", "s", "ss"]
    for result in (first, again):
        assert json.loads((result.task.next_state / NOTE).read_text()) == ["client/data/big"]
        assert not (result.task.next_state / "package" / "client" / "data" / "big").exists()
    assert source.stat().st_nlink == 1
    assert runs(tmp_path) == 3


def test_copy_that_nothing_changed_serves_the_next_client_with_its_links(bench: Bench, tmp_path: Path) -> None:
    package = with_big_file(tmp_path, "tell(**look(), code=os.stat('entrypoint.py').st_ino)")
    told = [ok(bench.run(package)) for _ in range(4)]
    assert len({one["inode"] for one in told}) == 1
    assert len({one["code"] for one in told}) <= 2, "one for each slot"
    assert runs(tmp_path) == 4


WRITES = {
    "write": "os.chmod(big, 0o600)\nopen(big, 'r+b').write(b'mine')",
    "append": "os.chmod(big, 0o600)\nopen(big, 'ab').write(b'mine')",
    "restore": "os.chmod(big, 0o600)\nfacts = os.stat(big)\nopen(big, 'r+b').write(b'mine')\n"
    "open(big, 'r+b').write(b'xxxx')\nos.utime(big, ns=(facts.st_atime_ns, facts.st_mtime_ns))\nos.chmod(big, 0o444)",
    "replace": "open('new', 'wb').write(b'mine')\nos.replace('new', big)",
    "remove": "os.remove(big)",
    "rename its folder": "os.rename('data', 'other')",
    "chmod": "os.chmod(big, 0o700)",
    "hard link": "os.link(big, 'second name')",
}


@pytest.mark.parametrize("how", WRITES)
def test_what_a_task_does_to_a_shared_file_is_its_own_clients(bench: Bench, tmp_path: Path, how: str) -> None:
    code = f"""
    big = "data/big"
    if "--look=True" not in sys.argv:
        exec({WRITES[how]!r})
    tell(start=open(big, "rb").read(4).decode() if os.path.exists(big) else None)
    """
    package = with_big_file(tmp_path, code)
    first = bench.run(package)
    ok(first)
    assert runs(tmp_path) == 2, "first on the file that all share, then on one of its own"
    assert (package.folder / "data" / "big").read_bytes() == BYTES
    assert ok(bench.run(package, arguments={"look": True})) == {"start": "xxxx"}, "another client sees the package's"
    state = first.task.next_state
    assert (state / NOTE).exists() == (how == "hard link"), "else it has a file of its own, or none"
    its_own = {"write": "mine", "replace": "mine", "remove": None, "rename its folder": None}.get(how, "xxxx")
    assert ok(bench.run(package, state=state, arguments={"look": True})) == {"start": its_own}


SIDE_BY_SIDE = """
import time
place, who, other = (next(word.partition("=")[2] for word in sys.argv if word.startswith(f"--{name}=")) for name in
                     ("place", "who", "other"))
again = os.path.exists(f"{place}/{who} was here")
open(f"{place}/{who} was here", "w").close()
def wait_for(name):
    open(f"{place}/{who} {name}", "w").close()
    while not again and not os.path.exists(f"{place}/{other} {name}"):
        time.sleep(0.001)
wait_for("started")
if who == "writer":
    os.chmod("data/big", 0o600)
    with open("data/big", "r+b") as file:
        file.write(b"mine")
wait_for("done")
tell(again=again, **look())
"""


def test_whoever_had_the_file_at_that_time_runs_again(bench: Bench, tmp_path: Path) -> None:
    package = with_big_file(tmp_path, SIDE_BY_SIDE)
    names = ("writer", "reader")
    futures = [
        bench.submit(package, arguments={"place": str(tmp_path), "who": who, "other": other})
        for who, other in (names, names[::-1])
    ]
    writer, reader = (ok(future.result(60)) for future in futures)
    assert (reader["again"], reader["start"]) == (True, "xxxx")
    assert (writer["again"], writer["start"]) == (True, "mine")
    assert reader["inode"] != writer["inode"]


def test_task_that_may_not_write_runs_again_on_a_file_of_its_own(bench: Bench, tmp_path: Path) -> None:
    code = """
    if not os.stat("data/big").st_mode & 0o200:  # root could
        raise PermissionError(13, os.strerror(13))
    open("data/big", "r+b").write(b"mine")
    tell(**look())
    """
    assert ok(bench.run(with_big_file(tmp_path, code)))["start"] == "mine"
    assert runs(tmp_path) == 2


def test_where_no_links_can_be_made_each_task_gets_a_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "big"
    source.write_bytes(BYTES)

    def refuse(*_: object) -> None:
        raise OSError(1, "no links here")

    monkeypatch.setattr(os, "link", refuse)
    files = PackageFiles(tmp_path / "shared")
    assert files.put(source, tmp_path / "copy", private=False) is None
    assert sha256_file(tmp_path / "copy") == sha256_file(source)
    assert stat.S_IMODE((tmp_path / "copy").stat().st_mode) & 0o200


def test_only_the_biggest_files_are_shared(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    for number in range(70):
        with open(tmp_path / "a" / f"{number:02d}", "wb") as file:
            file.truncate((1 << 20) + number)
    found = inventory(tmp_path)
    assert (found.files, len(found.big), found.big[0]) == (71, 64, "a/69")


def test_file_that_a_link_leads_to_is_none_of_those_that_tasks_share(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    package = with_big_file(tmp_path, "")
    bench = make_bench("process", tmp_path, package)
    request.addfinalizer(bench.executor.close)
    task = bench.site.job(bench.task(package).order)
    task.place.version.parent.mkdir()
    copies = WorkingCopies(tmp_path / "copies", PackageFiles(tmp_path / "shared"))
    copies.put(task)
    data = task.place.package / "client" / "data"
    assert shared_files(task) == [data / "big"]
    (tmp_path / "machine").mkdir()
    (tmp_path / "machine" / "big").touch()
    os.link(tmp_path / "machine" / "big", tmp_path / "its other name")
    data.rename(data.with_name("moved"))  # as `startup` may do before the walls of `train` are up
    data.symlink_to(tmp_path / "machine")
    assert shared_files(task) == [], "or the task would see what is not its own"


@pytest.mark.parametrize("name", ["process", "forkserver"])
def test_isolated_task_cannot_reach_the_file_that_all_share(
    name: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if means().warm is None:
        pytest.skip(f"no isolation here: {means()}")
    code = """
    try:
        os.chmod("data/big", 0o600)
    except OSError as error:
        sys.exit(f"it cannot: {error}")
    open("data/big", "r+b").write(b"mine")
    tell(**look())
    """
    package = with_big_file(tmp_path, code)
    script = package.folder / "entrypoint.py"
    script.write_text("\n".join(line for line in script.read_text().splitlines() if "'r')" not in line))
    bench = make_bench(name, tmp_path, package, isolated=True)
    request.addfinalizer(bench.executor.close)
    result = bench.run(package, isolation=Isolation())
    assert ok(result)["start"] == "mine"
    shared = [path for path in (bench.folder / "logs" / "package").iterdir() if path.is_file()]
    assert [path.read_bytes() == BYTES for path in shared] == [True]
