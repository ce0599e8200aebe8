"""Isolated tasks: what they cannot do, told attempt by attempt and means by means; and what they still can."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import pwd
import shutil
import socket
import subprocess
import sys
import tempfile
import venv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from workbench import Bench, inline, log, make_bench, marked, wait_until, write_model

from fedpkg.config import ClientsConfig, ExecutorConfig, IsolateConfig, RunConfig
from fedpkg.dispatch import isolation
from fedpkg.errors import ConfigError
from fedpkg.means import PROBE, Means, means
from fedpkg.preflight import suggest_isolation
from fedpkg.session import limits
from fedpkg.types import ReplyKind
from fedpkg.waist.order import Isolation, Limits

SECRET = "nobody else may know this"
ISOLATED = Isolation()
# Every means once on every push, and each executor.
WAYS = [
    ("process", "bubblewrap"),
    pytest.param(("process", "namespaces"), marks=pytest.mark.soak),
    ("process", "landlock"),
    ("forkserver", "namespaces"),
    pytest.param(("forkserver", "landlock"), marks=pytest.mark.soak),
]


def only(by: str) -> isolation.Means:
    """What this machine has, with nothing better than ``by``; skips where it has not that."""
    here = means()
    reason = {
        "bubblewrap": here.why_not_bubblewrap,
        "namespaces": here.why_not_namespaces,
        "landlock": here.why_not_landlock,
    }[by]
    if reason:
        pytest.skip(f"no {by} here: {reason}")
    if by != "bubblewrap":
        here = dataclasses.replace(here, why_not_bubblewrap="not in this test")
    return dataclasses.replace(here, why_not_namespaces="not in this test") if by == "landlock" else here


@pytest.fixture(scope="module", params=WAYS, ids=lambda way: "-".join(way))
def way(request: pytest.FixtureRequest) -> Iterator[tuple[str, str]]:
    here = only(request.param[1])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fedpkg.means.find", lambda: here)
        yield request.param


@pytest.fixture(scope="module")
def bench(way: tuple[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    folder = tmp_path_factory.mktemp("Hinter Mauern ü")
    os.environ["A_SECRET_TOKEN"] = os.environ["NVIDIA_API_KEY"] = SECRET
    try:
        bench = make_bench(way[0], folder, inline(folder, "import subprocess, ctypes"), slots=1, isolated=True)
    finally:
        del os.environ["A_SECRET_TOKEN"], os.environ["NVIDIA_API_KEY"]
    yield bench
    bench.executor.close()
    assert marked(bench.mark) == []


# ---- what it cannot do


@pytest.fixture(scope="module")
def world() -> Iterator[dict[str, Any]]:
    """What there is beside a task: the files of others, and their sockets. Not in /tmp, where a task has its own."""
    with tempfile.TemporaryDirectory(prefix="Die Welt der anderen ", dir="/var/tmp") as place:
        yield from fill(Path(place))


def fill(place: Path) -> Iterator[dict[str, Any]]:
    files = {
        "others_data": "Daten/client 2/data.csv",
        "own_data": "Daten/client 1/data.csv",
        "others_state": "clients/client 2/1/state/secret",
        "others_task": "round-1/client 2/train/out.npz",
        "key": "home/.ssh/id_ed25519",
        "package": "packages/abc/entrypoint.py",
        "model": "models/ab/seed.npz",
    }
    for path in files.values():
        (place / path).parent.mkdir(parents=True, exist_ok=True)
        (place / path).write_text(SECRET)
    told: dict[str, Any] = {name: str(place / path) for name, path in files.items()}
    home = pwd.getpwuid(os.getuid()).pw_dir
    told.update(place=str(place), home=sorted(os.listdir(home)) if os.path.isdir(home) else [])
    outsider = start_outsider()
    told["outsider"] = outsider.pid
    with socket.create_server(("127.0.0.1", 0)) as tcp, socket.socket(socket.AF_UNIX) as unix:
        abstract = socket.socket(socket.AF_UNIX)
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with abstract, udp:
            told["unix"] = f"/tmp/fedpkg-{os.getpid()}.sock"
            unix.bind(told["unix"])
            unix.listen()
            abstract.bind(f"\0fedpkg-{os.getpid()}")
            abstract.listen()
            udp.bind(("127.0.0.1", 0))
            udp.setblocking(False)
            told.update(tcp=tcp.getsockname()[1], udp=udp.getsockname()[1], abstract=f"\0fedpkg-{os.getpid()}")
            yield told
            os.unlink(told["unix"])
    outsider.kill()
    outsider.wait()


def start_outsider() -> subprocess.Popen[bytes]:
    """A process outside, leader of its group. In a young container the controller's own number, and its group's,
    would be those of somebody in the task's namespace, too."""
    while True:
        outsider = subprocess.Popen(["sleep", "1000"], start_new_session=True)
        if outsider.pid > 300:
            return outsider
        outsider.kill()
        outsider.wait()


# Expressions of the task. What they must not give is a value: that is a way out.
ATTEMPTS = {
    "read another client's data": "read(w['others_data'])",
    "read another client's state": "read(w['others_state'])",
    "read what another client's task wrote": "read(w['others_task'])",
    "read a key in a home": "read(w['key'])",
    "read the home of this user": "sorted(os.listdir(pwd.getpwuid(os.getuid()).pw_dir)) == w['home'] or not_ours()",
    "read the passwords": "read('/etc/shadow')",
    "list another client's folder": "os.listdir(os.path.dirname(w['others_data']))",
    "list the folder of all clients": "[name for name in os.listdir(w['place'] + '/clients')]",
    "go up": "read(os.path.join('..', *['..'] * 30, w['others_data'].lstrip('/')))",
    "through a symbolic link": "os.symlink(w['others_data'], 'link') or read('link')",
    "through a link to a folder": "os.symlink(w['place'], 'folder') or read('folder/home/.ssh/id_ed25519')",
    "through a hard link": "os.link(w['others_data'], 'hard link') or read('hard link')",
    "by moving it here": "os.rename(w['others_data'], 'moved') or read('moved')",
    "through /proc/self/root": "read('/proc/self/root' + w['others_data'])",
    "through /proc/self/cwd": "read('/proc/self/cwd/' + '../' * 30 + w['others_data'].lstrip('/'))",
    "through the keeper's root": "read(f'/proc/{os.getppid()}/root' + w['others_data'])",
    "through the first process's root": "read('/proc/1/root' + w['others_data'])",
    "through a process outside's root": "read(f'/proc/{w[\"outsider\"]}/root' + w['others_data'])",
    "through an open file": "[link for fd in os.listdir('/proc/self/fd') if os.path.isdir(f'/proc/self/fd/{fd}')"
    " for link in [read(f'/proc/self/fd/{fd}/' + w['others_data'])]][0]",
    "through an open folder": "[os.open(w['others_data'].lstrip('/'), 0, dir_fd=fd) for fd in range(3, 100)"
    " if stat.S_ISDIR(os.fstat(fd).st_mode)][0]",
    "any other file that was open": "[os.readlink(f'/proc/self/fd/{fd}') for fd in os.listdir('/proc/self/fd')"
    " if int(fd) > 2 and os.path.lexists(f'/proc/self/fd/{fd}')] or not_ours()",
    "by a program": "subprocess.run(['cat', w['others_data']], check=True, capture_output=True).stdout.decode()",
    "by another Python": "subprocess.run([sys.executable, '-c', f'print(open({w[\"key\"]!r}).read())'], check=True,"
    " capture_output=True).stdout.decode()",
    "the environment of a process outside": "read(f'/proc/{w[\"outsider\"]}/environ')",
    "the environment of the first process": "read('/proc/1/environ').index('A_SECRET_TOKEN')",
    "the command of a process outside": "read(f'/proc/{w[\"outsider\"]}/cmdline')",
    "the memory of the keeper": "open(f'/proc/{os.getppid()}/mem', 'r+b').fileno()",
    "files of the keeper": "[fd for fd in range(100) if os.path.isdir(f'/proc/{os.getppid()}/fd/{fd}')] or not_ours()",
    "a secret of the environment": "os.environ['A_SECRET_TOKEN']",
    "a secret among settings of libraries": "os.environ['NVIDIA_API_KEY']",
    "a secret it started with": "read('/proc/self/environ').index('A_SECRET_TOKEN')",
    "write over another client's data": "write(w['others_data'])",
    "write beside it": "write(w['others_data'] + '.new')",
    "write over its own data": "write(w['own_data'])",
    "write beside its own data": "write(w['own_data'] + '.new')",
    "write into a home": "write(w['key'])",
    "write into the package cache": "write(w['package'])",
    "write into the model store": "write(w['model'])",
    "empty a file": "os.truncate(w['model'], 0)",
    "empty its data": "os.truncate(w['own_data'], 0)",
    "empty a file that is only read": "os.open(w['own_data'], os.O_RDONLY | os.O_TRUNC)",
    "remove a file": "os.unlink(w['model'])",
    "make a folder elsewhere": "os.mkdir(w['place'] + '/mine')",
    "write at the top": "os.rmdir(os.mkdir('/mine') or '/mine')",
    "write among the programs": "os.rmdir(os.mkdir('/usr/local/bin/mine') or '/usr/local/bin/mine')",
    "write to the system": "may_write('/etc/passwd')",
    "write to the kernel": "may_write('/proc/sys/kernel/core_pattern')",
    "write to the interpreter": "may_write(os.__file__)",
    "write to fedpkg": "may_write(sys.modules['_fedpkg_task'].__file__)",
    "write to its input": "write(w['input'])",
    "write to its input in the end": "os.chmod(w['input'], 0o666) or write(w['input'])",
    "change the mode of another's file": "os.chmod(w['model'], 0o777)",
    "change the mode of its data": "os.chmod(w['own_data'], 0o777)",
    "change the mode of an open file": "os.fchmod(os.open(w['own_data'], 0), 0o777)",
    "change the mode of the interpreter": "os.chmod(os.__file__, os.stat(os.__file__).st_mode & 0o777)",
    "change the owner of its data": "os.chown(w['own_data'], os.getuid(), os.getgid())",
    "change the times of its data": "os.utime(w['own_data'])",
    "change attributes of its data": "os.setxattr(w['own_data'], 'user.mine', b'1')",
    "change flags of its data": "fcntl.ioctl(os.open(w['own_data'], 0), 0x40086602, struct.pack('l', 0x40))",
    "make a device": "os.mknod('device', stat.S_IFCHR | 0o600, os.makedev(1, 1))",
    "a connection": "socket.create_connection(('127.0.0.1', w['tcp']))",
    "a socket": "socket.socket()",
    "a datagram": "socket.socket(type=socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', w['udp']))",
    "a socket of version 6": "socket.socket(socket.AF_INET6)",
    "a raw socket": "socket.socket(socket.AF_PACKET, socket.SOCK_RAW)",
    "a netlink socket": "socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)",
    "a socket for ciphers": "socket.socket(38, socket.SOCK_SEQPACKET)",
    "a connection by a program": "subprocess.run(['bash', '-c', f'echo > /dev/tcp/127.0.0.1/{w[\"tcp\"]}'],"
    " check=True)",
    "a Unix socket": "socket.socket(socket.AF_UNIX).connect(w['unix'])",
    "an abstract Unix socket": "socket.socket(socket.AF_UNIX).connect(w['abstract'])",
    "a signal to a process outside": "os.kill(w['outsider'], 0)",
    "end the keeper": "os.kill(os.getppid(), signal.SIGKILL) or not_ours()",
    "end another group of processes": "os.killpg(os.getpgid(w['outsider']), 0)",
    "a handle of a process outside": "signal.pidfd_send_signal(os.pidfd_open(w['outsider']), 0)",
    "limit the keeper's files": "resource.prlimit(os.getppid(), resource.RLIMIT_NOFILE)",
    "limit a process outside's files": "resource.prlimit(w['outsider'], resource.RLIMIT_NOFILE)",
    "move the keeper": "os.sched_setaffinity(os.getppid(), os.sched_getaffinity(0))",
    "make the keeper wait": "os.setpriority(os.PRIO_PROCESS, os.getppid(), 0)",
    "make everything of this user wait": "os.setpriority(os.PRIO_USER, 0, 0)",
    "take back a lower priority": "os.setpriority(os.PRIO_PROCESS, 0, 5) or os.setpriority(os.PRIO_PROCESS, 0, 0)",
    "trace the keeper": "call(101, 16, os.getppid(), 0, 0)",
    "trace its own child": "child(lambda: call(101, 0, 0, 0, 0))",
    "read the keeper's memory": "call(310, os.getppid(), 0, 0, 0, 0, 0)",
    "become another user": "os.setresuid(1234, 1234, 1234)",
    "a user namespace": "call(272, 0x10000000)",
    "a mount namespace": "call(272, 0x20000)",
    "a user namespace by clone": "call(56, 0x10000000 | signal.SIGCHLD, 0, 0, 0, 0) or os._exit(0)",
    "somebody's namespace": "[call(308, os.open(f'/proc/{os.getppid()}/ns/mnt', 0), 0)]",
    "a namespace of its own": "call(308, os.open('/proc/self/ns/net', 0), 0)",
    "mount": "call(165, b'none', b'/tmp', b'tmpfs', 0, 0)",
    "mount the new way": "call(430, b'tmpfs', 0)",
    "make a mount writable": "call(442, -100, b'/', 0, struct.pack('QQQQ', 0, 1, 0, 0), 32)",
    "unmount": "call(166, w['own_data'].encode(), 2)",
    "another root": "os.chroot('.')",
    "a file by its handle": "call(304, -100, bytes(16), 0)",
    "io_uring": "call(425, 8, bytes(120))",
    "bpf": "call(321, 5, bytes(128), 128)",
    "userfaultfd": "call(323, 1)",
    "perf": "call(298, bytes(128), 0, -1, -1, 0)",
    "keys": "call(250, 0, -4, 0, 0, 0)",
    "the kernel's log": "call(103, 10, 0, 0)",
    "shared memory of all": "call(29, 4242, 4096, 0o1666)",
    "a message queue of all": "call(240, b'fedpkg', 0o102, 0o666, 0)",
    "the clock": "call(227, 0, 0)",
    "the other numbers of x86": "call(0x40000000 + 39)",
}

SPY = """
import ctypes, fcntl, pwd, resource, signal, socket, stat, struct, subprocess
libc = ctypes.CDLL(None, use_errno=True)
def read(path):
    with open(path, errors="replace") as file:
        return file.read()
def write(path):
    with open(path, "a") as file:
        return file.write("mine")
def may_write(path):  # without doing it: these are the machine's own
    os.close(os.open(path, os.O_WRONLY))
def call(number, *args):
    args = [ctypes.c_long(arg) if isinstance(arg, int) else arg for arg in args]
    if (answer := libc.syscall(ctypes.c_long(number), *args)) < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return answer
def child(what):
    pid = os.fork()
    if pid == 0:
        try:
            what()
            os._exit(0)
        except BaseException:
            os._exit(1)
    if os.waitpid(pid, 0)[1]:
        raise PermissionError("the child failed")
def not_ours():
    raise PermissionError("nothing happened")
w = json.loads(open("world").read())
w["input"] = os.path.dirname(os.environ["FEDPKG_TASK"]) + "/in.npz"
found = {}
for name, code in json.loads(open("attempts").read()).items():
    try:
        found[name] = "it could: %r" % (eval(code),)
    except Exception as error:
        found[name] = type(error).__name__ if not isinstance(error, OSError) else os.strerror(error.errno or 0)
tell(**found)
"""


@pytest.fixture(scope="module")
def spied(bench: Bench, world: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What came of every attempt, in one task."""
    folder = tmp_path_factory.mktemp("Ein Spion")
    package = inline(folder, SPY, attempts=json.dumps(ATTEMPTS), world=json.dumps(world))
    model = write_model(folder / "global.npz", size=1 << 19)  # above 1 MiB: a file that all clients share
    before = tree(Path(world["place"]))
    bench.told(
        inline(folder / "first", "tell()"), isolation=ISOLATED
    )  # later tasks of a slot get the network of others
    result = bench.run(
        package, isolation=ISOLATED, model=model, data_path=Path(world["own_data"]), limits=Limits(memory_bytes=1 << 34)
    )
    assert result.status == "ok", (result.failure, log(result))
    assert tree(Path(world["place"])) == before
    assert isinstance(result.metrics, dict)
    return result.metrics


def tree(folder: Path) -> dict[str, tuple[Any, ...]]:
    found = {}
    for path in folder.rglob("*"):
        facts = path.lstat()
        content = path.read_bytes() if path.is_file() else b""
        found[str(path)] = (facts.st_mode, facts.st_nlink, facts.st_uid, facts.st_mtime_ns, facts.st_ctime_ns, content)
    return found


@pytest.mark.parametrize("attempt", ATTEMPTS)
def test_isolated_task_cannot(spied: dict[str, str], attempt: str) -> None:
    if ATTEMPTS[attempt].startswith("call("):  # where the kernel would refuse the rest of it, too
        if os.uname().machine != "x86_64":
            pytest.skip("numbers of system calls of x86_64")
        assert spied[attempt] == os.strerror(errno.EPERM)
    assert not spied[attempt].startswith("it could"), spied[attempt]
    assert spied[attempt] not in ("NameError", "SyntaxError", "TypeError", "AttributeError")


def test_tmp_is_the_task_s_own_and_gone_in_the_end(bench: Bench, way: tuple[str, str], tmp_path: Path) -> None:
    name = f"fedpkg-{os.getpid()}-{tmp_path.name}"
    code = f"""
    import tempfile
    with tempfile.NamedTemporaryFile(delete=False) as file:
        file.write(b"mine")
    open(os.path.expanduser("~/.cache"), "w").close()
    places = [tempfile.gettempdir(), os.path.expanduser("~")]
    for folder in ("/tmp", "/dev/shm"):
        try:
            open(folder + "/{name}", "w").close()
        except PermissionError:
            places.append("refused")
    tell(file=os.path.basename(file.name), places=places)
    """
    result = bench.run(inline(tmp_path, code), isolation=ISOLATED)
    assert result.status == "ok", (result.failure, log(result))
    assert isinstance(result.metrics, dict)
    assert (result.metrics["places"][2:] == ["refused", "refused"]) == (way[1] == "landlock")
    assert str(result.task.folder) in result.metrics["places"][1]
    for folder in ("/tmp", "/dev/shm"):
        assert not {name, result.metrics["file"]} & set(os.listdir(folder))
    assert not (result.task.folder / "scratch").exists()


@pytest.mark.parametrize("change", ["file.write('[')", "file.seek(0, 2), file.write(' ')", "os.chmod(record, 0o666)"])
def test_record_that_its_task_has_changed_in_place_is_written_again(bench: Bench, tmp_path: Path, change: str) -> None:
    code = f"""
    record = os.environ["FEDPKG_TASK"]
    given = open(record).read()
    try:
        with open(record, "r+") as file:
            {change}
    except OSError:
        pass
    tell(given=given)
    """
    result = bench.run(inline(tmp_path, code), isolation=ISOLATED)
    record = result.task.folder / "task.json"
    assert isinstance(result.metrics, dict)
    assert record.read_text() == result.metrics["given"]
    assert record.stat().st_mode & 0o022 == 0


def test_data_may_be_a_folder_and_its_neighbour_is_not_there(bench: Bench, tmp_path: Path) -> None:
    for name in ("one", "other"):
        (tmp_path / "Daten" / name).mkdir(parents=True)
        (tmp_path / "Daten" / name / "data.csv").write_text(name)
    code = """
    data = os.environ["FEDN_DATA_PATH"]
    own = open(data + "/data.csv").read()
    open(data + "/../other/data.csv")
    """
    result = bench.run(inline(tmp_path, code), isolation=ISOLATED, data_path=tmp_path / "Daten" / "one")
    assert result.failure is not None
    assert result.failure.kind == "exit_code"
    assert "; the task was isolated, and its log contains " in result.failure.message
    assert "/../other/data.csv" in result.log_tail


def test_paths_may_go_up_and_through_links(bench: Bench, tmp_path: Path) -> None:
    """As those of `--home ../x` do, or of a Python that was named so."""
    (tmp_path / "oben/darin ü").mkdir(parents=True)
    (tmp_path / "Daten ü").mkdir()
    (tmp_path / "Daten ü/data.csv").write_text("1,2")
    (tmp_path / "a link").symlink_to("oben/darin ü")
    (tmp_path / "ein Haus ü").mkdir()
    package = inline(tmp_path, "tell(data=open(os.environ['FEDN_DATA_PATH']).read())")
    for way in ("oben/../ein Haus ü", "a link/../../ein Haus ü", "./oben/./darin ü/../../ein Haus ü/."):
        home = Path(f"{tmp_path}/{way}") / f"{len(way)}"
        task = bench.task(package, isolation=ISOLATED, data_path=tmp_path / "a link/../../Daten ü/data.csv")
        place = dataclasses.replace(task.place, folder=home / "task", version=home / "state")
        bench.site.places[task.task_id] = place
        result = bench.executor.submit(dataclasses.replace(task, place=place)).result()
        assert result.status == "ok", (result.failure, log(result))
        assert result.metrics == {"data": "1,2"}


def test_what_is_given_to_read_can_be_read(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "mehr").mkdir()
    (tmp_path / "mehr" / "file").write_text("shared by all")
    code = f"tell(text=open({str(tmp_path / 'mehr' / 'file')!r}).read())"
    given = Isolation(read=(str(tmp_path / "mehr"), str(tmp_path / "not there")))
    assert bench.told(inline(tmp_path, code), isolation=given) == {"text": "shared by all"}


def test_what_is_given_to_read_must_not_hold_the_clients_folders(bench: Bench, tmp_path: Path) -> None:
    result = bench.run(inline(tmp_path, "tell()"), isolation=Isolation(read=(str(bench.folder.parent),)))
    assert result.failure is not None
    assert result.failure.kind == "isolation"
    assert "holds its own folder" in result.failure.message


def test_tasks_of_a_slot_share_an_empty_network(bench: Bench, way: tuple[str, str], tmp_path: Path) -> None:
    if way[1] != "namespaces":
        pytest.skip("it has no network namespace that could be kept")
    code = """
    import socket, subprocess
    one = socket.socket(socket.AF_UNIX)
    one.bind(chr(0) + "the same name")  # fails while another task's process has a socket of this name
    subprocess.Popen(["sleep", "100"], pass_fds=[one.fileno()], start_new_session=True)
    tell(network=os.readlink("/proc/self/ns/net"), there=open("/proc/net/dev").read().count(":"))
    """
    told = [bench.told(inline(tmp_path / name, code), isolation=ISOLATED) for name in ("first", "second", "third")]
    assert told[1] == told[2]
    assert told[1]["network"] != os.readlink("/proc/self/ns/net")
    assert told[1]["there"] == 1  # lo, which is down


def test_network_is_there_when_it_is_allowed(bench: Bench, world: dict[str, Any], tmp_path: Path) -> None:
    code = """
    import socket
    w = json.loads(open("world").read())
    socket.create_connection(("127.0.0.1", w["tcp"])).close()
    refused = []
    for what in (lambda: open(w["key"]), lambda: socket.socket(socket.AF_UNIX).connect(w["abstract"]),
                 lambda: socket.socket(socket.AF_UNIX).connect(w["unix"])):
        try:
            what()
            refused.append(False)
        except OSError:
            refused.append(True)
    tell(refused=refused, names=socket.getaddrinfo("localhost", 80) != [])
    """
    package = inline(tmp_path, code, world=json.dumps(world))
    assert bench.told(package, isolation=Isolation(network=True)) == {"refused": [True] * 3, "names": True}


def test_package_s_own_environment_is_seen_but_never_forked(bench: Bench, tmp_path: Path) -> None:
    place = tmp_path / "eine Umgebung ü"
    venv.create(place, symlinks=True)
    (site,) = place.glob("lib/python3*/site-packages")
    (site / "of_the_package.py").write_text("import os\nwho = os.getpid()\n")
    code = "import of_the_package\ntell(same=of_the_package.who == os.getpid(), prefix=sys.prefix)"
    package = dataclasses.replace(inline(tmp_path, code), python=place / "bin" / "python")
    result = bench.run(package, isolation=ISOLATED)
    assert result.status == "ok", (result.failure, log(result))
    assert result.metrics == {"same": True, "prefix": str(place)}
    assert "script" not in result.phases  # as only warm tasks have it
    forks, limits = EXCESSES["processes"]
    package = dataclasses.replace(inline(tmp_path, forks), python=place / "bin" / "python")
    failure = bench.run(package, isolation=ISOLATED, limits=limits).failure
    assert failure is not None
    assert failure.kind == "processes"


def test_link_in_the_place_of_its_folder_leads_fedpkg_nowhere(bench: Bench, tmp_path: Path) -> None:
    elsewhere = tmp_path / "of somebody else"
    (elsewhere / "data").mkdir(parents=True)
    for path in (elsewhere / "data" / "file", elsewhere / "seed.npz"):
        path.write_bytes(b"precious")
    before = tree(elsewhere)
    code = f"""
    own = os.path.dirname(os.path.abspath(__file__))
    os.rename(own, own + ".old")
    os.symlink({str(elsewhere)!r}, own)
    """
    built = bench.run(inline(tmp_path, code), reply_kind=ReplyKind.SEED, isolation=ISOLATED)
    assert built.status == "failed"
    package = inline(tmp_path, code + "tell()")
    (tmp_path / "data.csv").write_text("1")
    given: dict[str, Any] = {"isolation": ISOLATED, "data_path": tmp_path / "data.csv"}
    first = bench.run(package, links={"data": tmp_path / "data.csv"}, **given)
    assert first.status == "ok", (first.failure, log(first))
    assert first.keeps_state
    second = bench.run(package, links={"data": tmp_path / "data.csv"}, state=first.task.next_state, **given)
    assert second.failure is not None
    assert "has replaced its working folder with a link" in second.failure.message
    assert tree(elsewhere) == before


# ---- its limits hold as well

EXCESSES = {
    "processes": (
        "import time\nfor _ in range(300): os.fork() or (time.sleep(100), os._exit(0))",
        Limits(processes=64),
    ),
    "cpu_time": ("if os.fork() == 0:\n    while True: pass\nos.wait()", Limits(cpu_s=0.3)),
    "file_size": ("open('big', 'wb').write(bytes(30 << 20))", Limits(file_bytes=20 << 20)),
    "open_files": ("files = []\nwhile True: files.append(open('/dev/null'))", Limits(open_files=64)),
    "folder_size": (
        "import tempfile\nfor n in range(200): open(tempfile.gettempdir() + f'/{n}', 'wb').write(bytes(5 << 20))",
        Limits(folder_bytes=30 << 20),
    ),
    "folder_size by a file without a name": (
        "import tempfile, time\nfile = tempfile.TemporaryFile()\nfile.write(bytes(40 << 20))\ntime.sleep(100)",
        Limits(folder_bytes=30 << 20),
    ),
    "memory": (
        "import time\nfd = os.memfd_create('x')\nfor _ in range(400): os.write(fd, bytes(1 << 20))\ntime.sleep(100)",
        Limits(memory_bytes=300 << 20),
    ),
    "processes by sessions": (
        "import time\nfor _ in range(20): os.fork() or (os.setsid(), time.sleep(100))\ntime.sleep(100)",
        Limits(processes=64),
    ),
}


@pytest.mark.parametrize("kind", EXCESSES)
def test_limit_holds_an_isolated_task(bench: Bench, tmp_path: Path, kind: str) -> None:
    code, limits = EXCESSES[kind]
    result = bench.run(inline(tmp_path, code), isolation=ISOLATED, limits=limits)
    assert result.failure is not None, log(result)
    assert result.failure.kind == kind.split()[0], (result.failure, log(result))
    assert bench.told(inline(tmp_path, "tell(fine=True)"), isolation=ISOLATED) == {"fine": True}


def test_nothing_of_an_isolated_task_is_left(bench: Bench, tmp_path: Path) -> None:
    code = """
    import time
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            time.sleep(100)
        os._exit(0)
    tell()
    """
    assert bench.told(inline(tmp_path, code), isolation=ISOLATED, environment={"WHO": "left"}) == {}
    assert not [pid for pid in marked(bench.mark) if b"WHO=left" in Path(f"/proc/{pid}/environ").read_bytes()]


def test_isolated_task_is_ended_at_its_time_limit(bench: Bench, tmp_path: Path) -> None:
    result = bench.run(inline(tmp_path, "import time\ntime.sleep(100)"), isolation=ISOLATED, timeout_s=0.3)
    assert result.failure is not None
    assert result.failure.kind == "timeout"


@pytest.mark.parametrize("name", ["process", "forkserver"])
def test_killed_holder_of_isolated_tasks_leaves_no_process(name: str, tmp_path: Path) -> None:
    if means().warm is None:
        pytest.skip("no isolation here")
    code = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from pathlib import Path
from workbench import inline, make_bench
from fedpkg.waist.order import Isolation
package = inline(Path({str(tmp_path)!r}), "import time\\nos.fork()\\nopen(f'{{os.getpid()}}', 'w')\\ntime.sleep(600)")
bench = make_bench({name!r}, Path({str(tmp_path)!r}), package, isolated=True)
futures = [bench.submit(package, isolation=Isolation()) for _ in range(2)]
print(bench.mark, flush=True)
futures[0].result()
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        mark = holder.stdout.readline().strip()
        wait_until(lambda: len(list(tmp_path.rglob("client/[0-9]*"))) >= 2, "the tasks")
        assert len(marked(mark)) >= 4
        holder.kill()
    wait_until(lambda: marked(mark) == [], "the end of all processes")


# ---- when it cannot be had


def test_task_that_cannot_be_isolated_is_not_run(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def spoil(_task: Any, order: dict[str, Any]) -> str:
        if order["by"] == "bubblewrap":
            order["argv"].append("--no-such-option")
        else:
            order["by"] = "no such way"
        return ""

    monkeypatch.setattr(isolation, "_note", spoil)
    package = inline(tmp_path, f"open({str(tmp_path / 'it ran')!r}, 'w').close()")
    result = bench.run(package, isolation=ISOLATED)
    assert result.failure is not None
    assert result.failure.kind == "isolation", result.failure
    assert "the task could not be isolated and was not run" in result.failure.message
    monkeypatch.undo()
    assert bench.told(inline(tmp_path, "tell(fine=True)"), isolation=ISOLATED) == {"fine": True}


def test_script_cannot_say_that_it_was_not_isolated(bench: Bench) -> None:
    """Its record would say that it was not run."""
    code = """
    import stat, struct
    body = json.dumps({"not_isolated": "says the script"}).encode()
    for fd in range(3, 64):
        try:
            if stat.S_ISSOCK(os.fstat(fd).st_mode):
                os.write(fd, struct.pack(">I", len(body)) + body)
        except OSError:
            pass
    sys.exit(3)
    """
    result = bench.run(inline(bench.folder, code), isolation=ISOLATED)
    assert result.failure is not None and result.failure.kind == "exit_code", result.failure


def test_executor_of_isolated_tasks_runs_no_others(bench: Bench, tmp_path: Path) -> None:
    failure = bench.run(inline(tmp_path, "tell()")).failure
    assert failure is not None
    assert failure.kind == "isolation"


def test_executor_of_others_runs_no_isolated_task(tmp_path: Path) -> None:
    package = inline(tmp_path, "tell()")
    other = make_bench("process", tmp_path, package)
    try:
        failure = other.run(package, isolation=ISOLATED).failure
    finally:
        other.executor.close()
    assert failure is not None
    assert failure.kind == "isolation"


def config(**isolate: Any) -> RunConfig:
    return RunConfig("", 1, ClientsConfig(count=1), isolate=IsolateConfig(enabled=True, **isolate))


def test_machine_without_any_means_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    nothing = Means(2, "", "not permitted", None, "bwrap is not on PATH")
    monkeypatch.setattr("fedpkg.means.find", lambda: nothing)
    with pytest.raises(ConfigError, match="cannot isolate a task: namespaces: not permitted; Landlock: ABI 2 is too"):
        limits.isolation_of(config())


def test_resident_executor_refuses_isolation() -> None:
    resident = RunConfig(
        "", 1, ClientsConfig(count=1), executor=ExecutorConfig(name="resident"), isolate=IsolateConfig(enabled=True)
    )
    with pytest.raises(ConfigError, match="'resident' cannot isolate tasks"):
        limits.isolation_of(resident)


def test_only_fedpkg_s_own_interpreter_is_forked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    here = only("landlock")
    monkeypatch.setattr("fedpkg.means.find", lambda: here)
    other = shutil.which("python3", path="/usr/bin")
    if other is None or Path(other).parent == Path(sys.executable).parent:
        pytest.skip("there is no other Python")
    package = inline(tmp_path, "tell(pid=os.getpid())", command=f"{other} entrypoint.py")
    bench = make_bench("forkserver", tmp_path, package, isolated=True)
    try:
        result = bench.run(package, isolation=ISOLATED)
    finally:
        bench.executor.close()
    assert result.status == "ok", (result.failure, log(result))
    assert "script" not in result.phases  # as only warm tasks have it
    assert "is not the interpreter that runs fedpkg" in caplog.text


OLD = """
import json, os, socket, sys
sys.path.insert(0, sys.argv[1])
import _fedpkg_isolation
_fedpkg_isolation.landlock_abi = lambda: int(sys.argv[2])
usr = ["/usr", os.path.dirname(os.__file__)]
order = {"by": "landlock", "network": False, "read": usr, "write": [sys.argv[3]], "devices": ["/dev/null"]}
_fedpkg_isolation.enter(order)
def tried(what):
    try:
        what()
    except OSError as error:
        return error.strerror
others = os.getppid()
tell = [
    tried(lambda: os.kill(os.getpid(), 0)), tried(lambda: os.kill(0, 0)), tried(lambda: os.listdir("/usr")),
    tried(lambda: open(sys.argv[3] + "/file", "w")),
    tried(lambda: os.kill(others, 0)), tried(lambda: os.kill(-others, 0)), tried(lambda: os.killpg(1, 0)),
    tried(lambda: socket.socket(socket.AF_UNIX)), tried(lambda: os.listdir("/")), tried(lambda: os.listdir("/proc")),
]
print(json.dumps(tell))
"""


def test_isolation_is_suggested_for_archives_where_it_can_be_had(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    can = Means(3, "", "", None, "bwrap is not on PATH")
    cannot = Means(0, "no Landlock", "not permitted", None, "bwrap is not on PATH")
    archive, isolated = str(tmp_path / "package.tar.gz"), IsolateConfig(enabled=True)
    cases: list[tuple[isolation.Means, str, dict[str, Any]]] = [
        (can, archive, {}),
        (can, archive, {"executor": ExecutorConfig(name="process")}),
        (can, str(tmp_path), {}),
        (can, archive, {"isolate": isolated}),
        (can, archive, {"executor": ExecutorConfig(name="resident")}),
        (cannot, archive, {}),
    ]
    suggested = []
    for here, package, sections in cases:
        monkeypatch.setattr("fedpkg.means.find", lambda here=here: here)
        caplog.clear()
        suggest_isolation(RunConfig(package, 1, ClientsConfig(count=1), **sections))
        suggested.append([record.getMessage().count("--isolate") for record in caplog.records])
    assert suggested == [[1], [1], [], [], [], []]


@pytest.mark.parametrize("abi", [3, 4, 5])
def test_older_kernel_s_landlock_is_made_up_for(abi: int, tmp_path: Path) -> None:
    """As far as a newer one can tell: it gets the older one's ruleset, and the filter that belongs to it."""
    only("landlock")
    command = [sys.executable, "-I", "-c", OLD, str(PROBE.parent), str(abi), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, start_new_session=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [None] * 4 + ["Operation not permitted"] * 4 + ["Permission denied"] * 2


@pytest.mark.parametrize("abi", [0, 1, 2])
def test_landlock_that_is_too_old_is_refused(abi: int, tmp_path: Path) -> None:
    command = [sys.executable, "-I", "-c", OLD, str(PROBE.parent), str(abi), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, start_new_session=True)
    assert "CannotIsolate: Landlock ABI 3 is needed" in done.stderr
    assert done.stdout == ""


# ---- the same bytes


def test_isolated_tasks_give_the_same_bytes(bench: Bench, tmp_path: Path) -> None:
    code = """
    import random
    import numpy
    numpy.savez(sys.argv[1], w=numpy.random.rand(70), x=numpy.array([random.random(), hash("x")]))
    """
    package = inline(tmp_path, code)
    other = make_bench(bench.name, tmp_path, package)
    try:
        replies = [
            one.run(package, reply_kind=ReplyKind.SEED, seed=7, isolation=its).reply
            for one, its in ((bench, ISOLATED), (other, None))
        ]
    finally:
        other.executor.close()
    assert replies[0] is not None and replies[1] is not None
    assert replies[0].read_bytes() == replies[1].read_bytes()
