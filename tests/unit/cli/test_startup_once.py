"""``startup: once``: a package's startup runs once for all clients of a session, which begin from what it left."""

import json
import shlex
import shutil
import textwrap

import pytest
from cli_support import fedpkg
from packages_on_data import EVERYWHERE, model, run, write_client, write_data
from packages_on_data import TRAIN as HEAD

STARTUP = "bash startup.sh"
# Its client 1 writes to what all have; the numbers that each trains to say what it has found.
TRAIN = """
me = json.load(open(os.environ["FEDPKG_TASK"]))["client_id"]
assert os.stat("own.dat").st_size == 2 << 20, "a big file of the package, which it has from there, too"
big, small = open("made/big", "rb").read(), open("made/small").read()
save([len(big), big[0], len(small)], sys.argv[2])
if me == "1":
    os.chmod("made/big", 0o600)
    open("made/big", "r+b").write(b"m")
    open("made/small", "a").write("mine")
"""
BIG = 2 << 20
FIRST, SECOND = [BIG, ord("x"), 1.0], [BIG, (ord("x") + ord("m")) / 2, 3.0]


def write_package(here, script=f"mkdir made\nyes x | tr -d '\\n' | head -c {BIG} > made/big\nprintf x > made/small\n"):
    client = write_client(here / "client", TRAIN, startup=STARTUP)
    (client / "startup.sh").write_text(script)
    (client / "own.dat").write_bytes(b"o" * BIG)
    write_data(here / "d")


def startups(here):
    """The folders of startups that ran: for all clients, and for one."""
    for_all = sorted(path.name for path in here.glob(".fedpkg/sessions/*/round-0/.all/*"))
    return for_all, list(here.glob(".fedpkg/sessions/*/round-*/*/*/startup.stdout.log"))


@pytest.mark.parametrize("where", EVERYWHERE)
@pytest.mark.every_push("forkserver|isolated")
def test_startup_runs_once_and_a_client_that_writes_to_its_files_harms_no_other(here, where):
    write_package(here)
    ended = run("startup=once", "rounds=2", where=where)
    assert ended.code == 0, ended.err
    assert model() == SECOND, "client 2 has what startup left, client 1 what it wrote itself"
    assert fedpkg("model", "export", "latest.1", "-o", "final.npz", "--force").code == 0
    assert startups(here) == (["startup"], [])
    assert fedpkg("home", "check").code == 0
    assert fedpkg("home", "prune").code == 0
    ended = fedpkg("session", "resume", "--rounds", "3")
    assert ended.code == 0, ended.err
    assert startups(here) == (["startup"], []), "it is on record"
    assert model() == [BIG, SECOND[1], (9 + 1) / 2]


def test_client_that_joins_later_begins_from_it_too_and_a_resumed_session_has_the_same_bits(here):
    write_package(here)
    one = "sampler={name: round_robin, count: 1}"
    assert run("startup=once", one).code == 0
    assert model() == FIRST
    ended = fedpkg("session", "resume", "--rounds", "3")
    assert ended.code == 0, ended.err
    resumed = model()
    assert resumed == [BIG, ord("m"), 5.0], "client 1 again"
    assert fedpkg("model", "export", "latest.2", "-o", "second.npz").code == 0
    assert run("startup=once", one, "rounds=3").code == 0
    assert model() == resumed
    assert fedpkg("model", "export", "latest.2", "-o", "whole.npz").code == 0
    assert (here / "whole.npz").read_bytes() == (here / "second.npz").read_bytes()


@pytest.mark.parametrize("where", EVERYWHERE)
@pytest.mark.every_push("resident|isolated")
def test_failed_startup_stops_the_run_before_a_round_names_its_log_and_is_repeated(here, where):
    write_package(here, "echo the archive is away; exit 3")
    ended = run("startup=once", where=where)
    assert ended.code != 0 and "'startup' exited with code 3" in ended.err
    (log,) = here.glob(".fedpkg/sessions/*/round-0/.all/startup/stdout.log")
    told = ended.err.partition("no round can start, because ")
    assert "  for all clients: 'startup' exited with code 3" in told[0], "as a failure of any client is told"
    assert f"    stdout   {log.relative_to(here)}\n             … the archive is away" in told[0]
    assert "    try      fedpkg package call client startup --task " in told[0]
    assert "the package's startup failed\n    for all clients: 'startup' exited with code 3" in told[2]
    assert "fedpkg session resume " in told[2]
    assert not list(here.glob(".fedpkg/sessions/*/round-1"))
    shown = fedpkg("session", "show")
    assert "for all clients: 'startup' exited with code 3" in shown.out
    isolated = " --isolate" if where == "isolated" else ""
    (line,) = [line for line in shown.out.splitlines() if "fedpkg package call " in line and "    try " in line]
    assert line.endswith(isolated)
    repeated = fedpkg(*shlex.split(line.split("try")[1])[1:])
    assert repeated.code != 0 and "'startup' exited with code 3" in repeated.err
    assert "task/stdout.log, last lines:" in repeated.err, "its own log, as there is none of a startup before it"


def test_failed_startup_runs_again_when_its_session_is_resumed(here):
    write_package(here, f"test -e {shlex.quote(str(here / 'archive'))} || exit 3\nmkdir made; echo x > made/small")
    (here / "client" / "train.py").write_text(
        (here / "client" / "train.py").read_text().replace('open("made/big", "rb").read()', 'b"x"').split("if me")[0]
    )
    assert run("startup=once").code != 0
    (here / "archive").touch()
    ended = fedpkg("session", "resume")
    assert ended.code == 0, ended.err
    assert startups(here) == (["startup", "startup-2"], [])
    assert model() == [1.0, ord("x"), 2.0]


def test_session_does_not_go_on_without_what_startup_left(here):
    write_package(here)
    assert run("startup=once").code == 0
    (left,) = here.glob(".fedpkg/sessions/*/clients/.all/0-startup")
    small = left / "package" / "client" / "made" / "small"
    small.chmod(0o600)
    small.write_text("y")
    checked = fedpkg("home", "check")
    assert checked.code != 0 and "the state from 'startup' for all clients of session" in checked.out
    ended = fedpkg("session", "resume", "--rounds", "2")
    assert ended.code != 0 and "the state from 'startup' for all clients has another checksum" in ended.err
    shutil.rmtree(left)
    ended = fedpkg("session", "resume", "--rounds", "2")
    assert ended.code != 0 and "the state from 'startup' for all clients" in ended.err


def test_startup_that_leaves_nothing_and_a_package_without_one_run_as_ever(here):
    write_package(here, "true")
    (here / "client" / "train.py").write_text(
        (here / "client" / "train.py").read_text().split("me =")[0] + "save([1, 2, 3], sys.argv[2])\n"
    )
    ended = run("startup=once")
    assert ended.code == 0 and startups(here) == (["startup"], []), ended.err
    spec = here / "client" / "fedn.yaml"
    spec.write_text("".join(line for line in spec.read_text().splitlines(keepends=True) if "startup" not in line))
    ended = run("startup=once", "--home", "other")
    assert ended.code == 0 and not list(here.glob("other/sessions/*/round-0")), ended.err
    assert json.loads(fedpkg("session", "show", "--json").out)["config"]["startup"] == "once"


@pytest.mark.parametrize("where", EVERYWHERE)
def test_task_that_is_repeated_by_hand_has_what_startup_left(here, where):
    kept = 'printf y > "$FEDPKG_STATE_DIR/kept"'
    write_package(here, f"mkdir made\nprintf x > made/small\n{kept}\nprintf changed >> note")
    (here / "client" / "note").write_text("")
    train = """
    kept = open(os.environ["FEDPKG_STATE_DIR"] + "/kept").read()
    print("found", open("made/small").read(), kept, open("note").read())
    save([1, 2, 3], sys.argv[2])
    raise SystemExit(3)
    """
    (here / "client" / "train.py").write_text(HEAD + textwrap.dedent(train))
    ended = run("startup=once", where=where)
    (line,) = [line for line in ended.err.splitlines() if "try " in line and "/1/train" in line]
    words = shlex.split(line.split("try")[1])[1:]
    repeated = fedpkg(*words)
    assert repeated.code != 0 and "found x y changed" in repeated.err, repeated.err
    source = here / "client" / "train.py"
    source.write_text(source.read_text().replace("raise SystemExit(3)", "").replace("found", "now found"))
    repeated = fedpkg(*words)
    assert repeated.code == 0 and "now found x y" in repeated.err, "the changed package, with the files that it lacks"
