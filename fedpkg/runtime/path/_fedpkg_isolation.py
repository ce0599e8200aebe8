"""Isolates one task (Linux) with namespaces, Landlock and seccomp, in its own process before the user's code.

Runs inside a task's interpreter and in its keeper: standard library only, imports nothing of fedpkg. Two ways:

``namespaces``: the keeper has a PID namespace, and each task a private root made of mounts: what it is given is
read-only, its own folders are writable, nothing else exists. Landlock and seccomp are added.
``landlock``: if the system does not allow namespaces. Landlock restricts the task to the same files. seccomp refuses
what Landlock leaves open (modes, owners and times of files, Unix sockets, signals on older kernels).

If any step fails, the task does not run. Documentation: user_namespaces(7), mount_setattr(2),
landlock(7), seccomp(2), capabilities(7).
"""

from __future__ import annotations

import ctypes
import errno
import functools
import json
import os
import socket
import stat
import struct
import sys

TYPE_CHECKING = False  # type checkers recognise the name, and importing typing takes time
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any


class CannotIsolate(Exception):
    """The task cannot be isolated; the message names the step that failed."""


# ---------------------------------------------------------------- the kernel

ARCHITECTURES = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}  # number for audit, column of the tables below
_MACHINE = os.uname().machine if hasattr(os, "uname") else ""
_COLUMN = ARCHITECTURES.get(_MACHINE, (0, 0))[1]

SYS_CAPSET = (126, 91)
SYS_SECCOMP = (317, 277)
SYS_MOUNT_SETATTR = (442, 442)
SYS_LANDLOCK_CREATE_RULESET, SYS_LANDLOCK_ADD_RULE, SYS_LANDLOCK_RESTRICT_SELF = 444, 445, 446

CLONE_NEWNS, CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x20000, 0x10000000, 0x20000000, 0x40000000
CLONE_NEW_ANY = 0x7E020000  # these, and those for cgroup, uts, ipc
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_BIND, MS_REC, MS_PRIVATE = 1, 2, 4, 8, 0x1000, 0x4000, 0x40000
AT_FDCWD, AT_RECURSIVE = -100, 0x8000
MOUNT_ATTR_RDONLY, MOUNT_ATTR_NOSUID, MOUNT_ATTR_NODEV = 1, 2, 4
PR_SET_SECCOMP, PR_CAPBSET_DROP, PR_SET_SECUREBITS, PR_SET_NO_NEW_PRIVS, PR_CAP_AMBIENT = 22, 24, 28, 38, 47
SECCOMP_MODE_FILTER, SECCOMP_SPEC_ALLOW = 2, 4
CAP_SYS_ADMIN = 21
KEEP_NO_POWERS = 0b11101111  # no capabilities by exec as root, by a change of user, or ambient ones; all locked


_libc = ctypes.CDLL(None, use_errno=True)


def _call(what: str, number: int | tuple[int, int], *arguments: Any) -> int:
    number = number[_COLUMN] if isinstance(number, tuple) else number
    words = [ctypes.c_long(word) if isinstance(word, int) else word for word in arguments]
    return _checked(what, _libc.syscall(ctypes.c_long(number), *words))


def _checked(what: str, result: int) -> int:
    if result < 0:
        raise CannotIsolate("%s: %s" % (what, os.strerror(ctypes.get_errno())))
    return result


def _prctl(what: str, option: int, value: int, more: int = 0) -> None:
    zero = ctypes.c_ulong(0)
    _checked(what, _libc.prctl(option, ctypes.c_ulong(value), ctypes.c_ulong(more), zero, zero))


def _unshare(flags: int) -> None:
    _checked("namespaces", _libc.unshare(flags))


def _mount(source: str, target: str, kind: str | None, flags: int, data: str | None = None) -> None:
    words = [None if word is None else os.fsencode(word) for word in (source, target, kind, data)]
    _checked("mount of %s" % target, _libc.mount(words[0], words[1], words[2], ctypes.c_ulong(flags), words[3]))


def _set_mount(path: str, attributes: int, *, recursive: bool = False) -> None:
    facts = struct.pack("=QQQQ", attributes, 0, 0, 0)
    flags = AT_RECURSIVE if recursive else 0
    _call("mount_setattr of %s" % path, SYS_MOUNT_SETATTR, AT_FDCWD, os.fsencode(path), flags, facts, len(facts))


# ---------------------------------------------------------------- what this machine supports


def landlock_abi() -> int:
    """The version of Landlock in this kernel; 0: none."""
    if sys.platform != "linux" or _MACHINE not in ARCHITECTURES:
        return 0
    answer = _libc.syscall(ctypes.c_long(SYS_LANDLOCK_CREATE_RULESET), None, ctypes.c_size_t(0), ctypes.c_uint32(1))
    return max(0, int(answer))


def machine(folder: str) -> dict[str, Any]:
    """Which ways work here, found by trying them in child processes; ``folder`` must be empty."""
    order: dict[str, Any] = {key: [] for key in ("links", "folders", "read", "write", "devices", "guarded")}
    order.update(network=False, empty={}, root=folder)
    found: dict[str, Any] = {"landlock": landlock_abi(), "covered": of_the_machine()}
    for way in ("landlock", "namespaces"):
        found["why_not_" + way] = _try_in_a_child(dict(order, by=way))
    return found


def _try_in_a_child(order: dict[str, Any]) -> str:
    """Why it does not work, or an empty text."""
    told, tell = os.pipe()
    pid = os.fork()
    if pid == 0:
        problem = "it ended"
        try:
            if order["by"] == "namespaces":
                have_own_processes()
            enter(order)
            problem = ""
        except BaseException as error:
            problem = str(error) or type(error).__name__
        os.write(tell, b"%s\n" % problem.encode())
        os._exit(0)
    os.close(tell)
    os.waitpid(pid, 0)
    with open(told, "rb") as answer:
        said = answer.readline().decode()
    return said.strip() if said.endswith("\n") else "it ended"


# ---------------------------------------------------------------- /proc

# Besides processes: what programs need to know about the machine.
_COUNTS = ("cpuinfo", "meminfo", "stat", "loadavg", "uptime", "version", "filesystems", "driver")
# With a PID namespace. /proc/sys is read-only.
PROC_SEEN = frozenset((*_COUNTS, "sys", "vmstat", "cgroups", "diskstats", "partitions", "swaps", "devices"))
# Without a PID namespace: nothing about other processes.
PROC = (
    *("self", *_COUNTS),
    *("sys/vm/overcommit_memory", "sys/vm/max_map_count", "sys/kernel/osrelease", "sys/kernel/pid_max"),
)


# ---------------------------------------------------------------- the keeper's part

_apart = False  # this process is in its own PID namespace,
_own_mounts = False  # and mount namespace
_network: int | None = None  # a file that keeps the network namespace of the keeper's tasks


def have_own_processes() -> int:
    """Continue as the first process of a PID namespace; returns its process id outside of that.

    The calling process itself stays outside, waits for the other one, and ends with it.
    """
    global _apart
    ids = [(number, number) for number in (os.geteuid(), os.getegid())]
    own_user = not _may_mount()
    _unshare(CLONE_NEWPID | CLONE_NEWNS | (CLONE_NEWUSER if own_user else 0))
    if own_user:  # the same user, with capabilities that are valid inside only
        try:
            for name, text in (("setgroups", "deny"), ("uid_map", "%d %d 1" % ids[0]), ("gid_map", "%d %d 1" % ids[1])):
                with open("/proc/self/" + name, "w") as file:
                    file.write(text)
        except OSError as error:
            raise CannotIsolate("user namespace: %s" % error) from error
    known, tell = os.pipe()
    files = open_files()  # now, before /proc is mounted for the namespace
    pid = os.fork()
    if pid:
        os.write(tell, b"%d" % pid)
        close(files)
        _, status = os.waitpid(pid, 0)
        os._exit(os.WEXITSTATUS(status) if os.WIFEXITED(status) else 1)
    outside = int(os.read(known, 20))
    os.close(known)
    os.close(tell)
    _mount("none", "/", None, MS_REC | MS_PRIVATE)
    _mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    for path, is_folder in of_the_machine():
        if is_folder:
            _mount("none", path, "tmpfs", MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC, "mode=555,size=4k")
        else:
            _mount("/dev/null", path, None, MS_BIND)
    _apart = True
    return outside


def of_the_machine() -> list[tuple[str, bool]]:
    """Entries of /proc about the kernel, devices and keys, which no task needs; and whether each is a folder.

    They are covered once for each keeper, and the covered /proc is bound into the root of each of its tasks.
    """
    with os.scandir("/proc") as entries:
        others = [one for one in entries if not (one.name.isdigit() or one.is_symlink() or one.name in PROC_SEEN)]
        return [(one.path, one.is_dir()) for one in others]


def have_own_mounts() -> None:
    """Make a mount namespace. This can be done before the task is known."""
    global _own_mounts
    if not _own_mounts:
        _unshare(CLONE_NEWNS)
        _own_mounts = True


def share_no_network() -> None:
    """Make one empty network namespace for all tasks of this keeper: to make and remove one takes a millisecond.

    Nothing of a task stays there: its processes, and so their sockets, are gone before the next one begins, and it has
    no capability to change what is there. If this fails, each task makes one.
    """
    global _network
    if _network is not None:
        return
    near, far = socket.socketpair()
    with near, far:
        try:
            pid = os.fork()
        except OSError:
            return
        if pid == 0:
            try:
                _unshare(CLONE_NEWNET)
                far.send(b"1")
                near.close()
                far.recv(1)  # waits until the file is open, or the keeper has ended
            finally:
                os._exit(0)
        far.close()
        try:
            if near.recv(1):
                _network = os.open("/proc/%d/ns/net" % pid, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            pass
    os.waitpid(pid, 0)


def kept_files() -> tuple[int, ...]:
    """Files that a task needs to isolate itself."""
    return () if _network is None else (_network,)


def _leave_the_network() -> None:
    """Get a network namespace in which there is nothing."""
    if _network is None:
        _unshare(CLONE_NEWNET)
    else:
        _checked("network namespace", _libc.setns(_network, CLONE_NEWNET))


def hold_mounts(pid: int) -> int | None:
    """A file that keeps a task's mounts until it is closed, as unmounting takes long."""
    try:
        return os.open("/proc/%d/ns/mnt" % pid, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None


def _may_mount() -> bool:
    with open("/proc/self/status") as file:
        powers = next(int(line.split()[1], 16) for line in file if line.startswith("CapEff:"))
    return bool(powers >> CAP_SYS_ADMIN & 1)


def open_files() -> set[int]:
    """The numbers of the open files."""
    listed = map(int, os.listdir("/proc/self/fd" if os.path.isdir("/proc/self/fd") else "/dev/fd"))
    return {fd for fd in listed if _is_open(fd)}  # the file of the listing itself is closed again


def _is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def close(files: Iterable[int]) -> None:
    for fd in files:
        try:
            os.close(fd)
        except OSError:
            pass


class Walls:
    """Isolates a command that a keeper executes, if it is to be isolated: with ``enter`` or with bubblewrap."""

    def __init__(self, order: Mapping[str, Any] | None, cwd: str) -> None:
        self.order = order
        self.cwd = cwd
        self.fds: list[int] = []  # that bubblewrap inherits
        if order is not None:
            self.said, self.say = os.pipe()
            os.set_blocking(self.said, False)

    def command(self, command: list[str]) -> list[str]:
        """``command``, if necessary preceded by bubblewrap."""
        if self.order is None or self.order["by"] != "bubblewrap":
            return command
        # It gets a private root and a PID namespace, but no Landlock that hides other programs' abstract sockets.
        network = self.order["network"]
        program = os.memfd_create("filter")
        os.write(program, filter_program(network=network, abi=0, own_root=True, own_network=not network))
        os.lseek(program, 0, os.SEEK_SET)
        self.fds = [program, self.say]
        return [*self.order["argv"], "--seccomp", str(program), "--json-status-fd", str(self.say), "--", *command]

    def put_up(self) -> None:
        """Isolate the child before the command. If this raises, the command does not run."""
        if self.order is None or self.order["by"] == "bubblewrap":
            return
        try:
            enter(self.order)
            os.chdir(self.cwd)
        except BaseException as error:
            os.write(self.say, str(error).encode()[:1000])
            raise

    def problem(self, status: int | None = None) -> str | None:
        """After the end, with the exit status: why the command could not be isolated and was not run, or None."""
        if self.order is None:
            return None
        for fd in {self.say, *self.fds}:
            os.close(fd)
        try:
            said = os.read(self.said, 4096).decode(errors="replace")
        except BlockingIOError:  # a process that cannot be killed has it open
            said = ""
        os.close(self.said)
        if self.order["by"] == "bubblewrap":  # it reports the exit status of the command
            return "bubblewrap: see its log" if status and '"exit-code"' not in said else None
        return said or None


# ---------------------------------------------------------------- the task's part


def enter(order: Mapping[str, Any]) -> None:
    """Isolate this process, which must have one thread, and all processes that it will start.

    Keys of ``order``: by (the way), network, read (files and folders), links (symbolic links to these), folders (on the
    way to these; they can be empty), write (folders), guarded (files in these that are read-only), devices, empty
    (folders that replace others), root (where all is mounted).

    Raises:
        CannotIsolate: the task must not run.
    """
    if _MACHINE not in ARCHITECTURES:
        raise CannotIsolate("no isolation on %s" % (_MACHINE or sys.platform))
    abi = landlock_abi()
    own_root, own_network = order["by"] == "namespaces", False
    try:
        if own_root:
            if not _apart:
                raise CannotIsolate("namespaces: the keeper has no PID namespace")
            own_network = not order["network"]
            if own_network:
                _leave_the_network()
            close(kept_files())
            have_own_mounts()
            _have_own_root(order)
        elif order["by"] != "landlock":
            raise CannotIsolate("unknown way %r" % order["by"])
        _prctl("no_new_privs", PR_SET_NO_NEW_PRIVS, 1)
        _drop_powers()
        _landlock(order, abi, own_root=own_root)
        pid = 0 if own_root or abi >= 6 else os.getpid()
        _seccomp(filter_program(network=order["network"], abi=abi, own_root=own_root, own_network=own_network, pid=pid))
    except OSError as error:
        raise CannotIsolate(str(error)) from error


def _have_own_root(order: Mapping[str, Any]) -> None:
    """Mount what the task may see into an empty folder, and make that the root."""
    root = order["root"]
    _mount("none", root, "tmpfs", MS_NOSUID | MS_NODEV, "mode=755,size=1m")
    sealed = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID
    mounts = {path: (path, sealed) for path in ("/proc", *order["read"], *order["devices"])}
    own = {**{path: path for path in order["write"]}, **order["empty"]}
    mounts.update({path: (source, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV) for path, source in own.items()})
    mounts.update({path: (path, sealed | MOUNT_ATTR_NODEV) for path in order["guarded"]})
    links = dict(order["links"])
    for name, target in (("fd", "fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2")):
        links["/dev/" + name] = "/proc/self/" + target
    made = {""}
    for path in sorted({*mounts, *links, *order["folders"]}):  # folders come before their contents
        _make_folders(root, os.path.dirname(path), made)
        if path in links:
            os.symlink(links[path], root + path)
            continue
        if path not in mounts:
            _make_folders(root, path, made)
            continue
        source, attributes = mounts[path]
        if os.path.isdir(source):
            _make_folders(root, path, made)
        elif not os.path.lexists(root + path):
            os.close(os.open(root + path, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC))
        _mount(source, root + path, None, MS_BIND if path in own else MS_BIND | MS_REC)
        _set_mount(root + path, attributes, recursive=True)
    _set_mount(root, sealed)
    # The old root cannot be reached from there: no folder is open, and the task loses the capability to leave a root.
    # pivot_root and unmounting the old root would delay the task by up to some milliseconds.
    os.chroot(root)
    os.chdir("/")


def _make_folders(root: str, path: str, made: set[str]) -> None:
    if path not in made and path != "/":
        _make_folders(root, os.path.dirname(path), made)
        made.add(path)
        try:
            os.mkdir(root + path, 0o755)
        except FileExistsError:
            pass


def _drop_powers() -> None:
    """Give up all capabilities, also for programs that are executed later, so that root has no privileges."""
    zero = ctypes.c_ulong(0)
    for number in range(64):  # fails beyond the last capability, and for processes without capabilities
        _libc.prctl(PR_CAPBSET_DROP, ctypes.c_ulong(number), zero, zero, zero)
    _libc.prctl(PR_SET_SECUREBITS, ctypes.c_ulong(KEEP_NO_POWERS), zero, zero, zero)
    _libc.prctl(PR_CAP_AMBIENT, ctypes.c_ulong(4), zero, zero, zero)
    _call("capset", SYS_CAPSET, struct.pack("=Ii", 0x20080522, 0), bytes(24))


# ---------------------------------------------------------------- Landlock

EXECUTE, WRITE_FILE, READ_FILE, READ_DIR, MAKE_CHAR, MAKE_BLOCK, REFER, TRUNCATE, IOCTL_DEV = (
    1 << bit for bit in (0, 1, 2, 3, 6, 11, 13, 14, 15)
)
OF_FILES = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV
READ = EXECUTE | READ_FILE | READ_DIR


def _landlock(order: Mapping[str, Any], abi: int, *, own_root: bool) -> None:
    needed = 1 if own_root else 3  # before version 3, Landlock lets a reader truncate a file
    if abi < needed:
        raise CannotIsolate("Landlock ABI %d is needed, this kernel has %s" % (needed, abi or "none"))
    handled = (1 << 13) - 1
    for least, access in ((2, REFER), (3, TRUNCATE), (5, IOCTL_DEV)):
        if abi >= least:
            handled |= access
    # Without a rule for ports, TCP is refused. Signals and abstract sockets are limited to the task's own processes.
    facts = struct.pack("=QQQ", handled, 0 if order["network"] else 0b11, 0b11)
    facts = facts[: 8 if abi < 4 else 16 if abi < 6 else 24]
    ruleset = _call("Landlock", SYS_LANDLOCK_CREATE_RULESET, facts, len(facts), 0)
    try:
        write = handled & ~(MAKE_CHAR | MAKE_BLOCK)
        if own_root:
            _allow(ruleset, ["/"], READ & handled)
            _allow(ruleset, order["empty"], write)
        else:
            _allow(ruleset, order["read"], READ & handled)
            _allow(ruleset, ["/proc/" + name for name in PROC], READ & handled)
        _allow(ruleset, order["write"], write)
        _allow(ruleset, order["devices"], (READ_FILE | WRITE_FILE | READ_DIR | IOCTL_DEV) & handled)
        _call("Landlock", SYS_LANDLOCK_RESTRICT_SELF, ruleset, 0)
    finally:
        os.close(ruleset)


def _allow(ruleset: int, paths: Iterable[str], access: int) -> None:
    for path in paths:
        try:
            fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except FileNotFoundError:
            continue  # what does not exist needs no rule
        try:
            allowed = access if stat.S_ISDIR(os.fstat(fd).st_mode) else access & OF_FILES
            rule = struct.pack("=Qi", allowed, fd)
            _call("Landlock, %s" % path, SYS_LANDLOCK_ADD_RULE, ruleset, 1, rule, 0)
        finally:
            os.close(fd)


# ---------------------------------------------------------------- seccomp

# System calls that no task needs: other processes, the kernel itself, mounts, namespaces, shared memory and queues of
# the same user, and io_uring, whose operations this filter does not see. (x86_64, aarch64)
DENIED: dict[str, tuple[int | None, int | None]] = {
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "process_madvise": (440, 440),
    "process_mrelease": (448, 448),
    "kcmp": (312, 272),
    "pidfd_getfd": (438, 438),
    "move_pages": (279, 239),
    "migrate_pages": (256, 238),
    "perf_event_open": (298, 241),
    "keyctl": (250, 219),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "bpf": (321, 280),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "open_tree": (428, 428),
    "open_tree_attr": (467, 467),
    "move_mount": (429, 429),
    "mount_setattr": (442, 442),
    "unshare": (272, 97),
    "setns": (308, 268),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    "fanotify_init": (300, 262),
    "lookup_dcookie": (212, 18),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "reboot": (169, 142),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "acct": (163, 89),
    "quotactl": (179, 60),
    "quotactl_fd": (443, 443),
    "iopl": (172, None),
    "ioperm": (173, None),
    "syslog": (103, 116),
    "settimeofday": (164, 170),
    "clock_settime": (227, 112),
    "adjtimex": (159, 171),
    "clock_adjtime": (305, 266),
    "sethostname": (170, 161),
    "setdomainname": (171, 162),
    "vhangup": (153, 58),
    "uselib": (134, None),
    "shmget": (29, 194),
    "shmat": (30, 196),
    "shmctl": (31, 195),
    "msgget": (68, 186),
    "msgsnd": (69, 189),
    "msgrcv": (70, 188),
    "msgctl": (71, 187),
    "semget": (64, 190),
    "semop": (65, 193),
    "semctl": (66, 191),
    "semtimedop": (220, 192),
    "mq_open": (240, 180),
    "mq_unlink": (241, 181),
}
# Without a private root: changes to files that need not be opened, and notifications about changes of files.
DENIED_WITHOUT_ROOT: dict[str, tuple[int | None, int | None]] = {
    "chmod": (90, None),
    "fchmod": (91, 52),
    "fchmodat": (268, 53),
    "fchmodat2": (452, 452),
    "chown": (92, None),
    "lchown": (94, None),
    "fchown": (93, 55),
    "fchownat": (260, 54),
    "setxattr": (188, 5),
    "lsetxattr": (189, 6),
    "fsetxattr": (190, 7),
    "setxattrat": (463, 463),
    "removexattr": (197, 14),
    "lremovexattr": (198, 15),
    "fremovexattr": (199, 16),
    "removexattrat": (466, 466),
    "file_setattr": (469, 469),
    "utime": (132, None),
    "utimes": (235, None),
    "futimesat": (261, None),
    "utimensat": (280, 88),
    "inotify_add_watch": (254, 27),
}
# Their first argument is a process, which must be 0 (the caller).
ON_ITSELF = {
    "prlimit64": (302, 261),
    "sched_setaffinity": (203, 122),
    "sched_setscheduler": (144, 119),
    "sched_setparam": (142, 118),
    "sched_setattr": (314, 274),
}
KINDS_OF_TARGET = {"setpriority": (141, 140), "ioprio_set": (251, 30)}  # (kind of target, target)
# If neither a PID namespace nor Landlock limits signals to the task's own processes.
SIGNALS = {"kill": (62, 129), "tgkill": (234, 131), "rt_sigqueueinfo": (129, 138), "rt_tgsigqueueinfo": (297, 240)}
OTHER_SIGNALS: dict[str, tuple[int | None, int | None]] = {"tkill": (200, 130), "pidfd_send_signal": (424, 424)}
SOCKET, CLONE, CLONE3, IOCTL = (41, 198), (56, 220), (435, 435), (16, 29)
PUSH_INTO_TERMINAL = (0x5412, 0x541C)  # TIOCSTI, TIOCLINUX
FILE_FLAGS = (0x40086602, 0x401C5820)  # FS_IOC_SETFLAGS, FS_IOC_FSSETXATTR
X32 = 0x40000000

ALLOW, REFUSE = 0x7FFF0000, 0x00050000
LOAD, EQUAL, AT_LEAST, ANY_BIT, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06  # instructions of classic BPF


@functools.lru_cache(maxsize=8)
def filter_program(*, network: bool, abi: int, own_root: bool, own_network: bool, pid: int = 0) -> bytes:
    """The seccomp filter, which refuses with EPERM, as if the user lacked the permission.

    ``pid`` is the task's process. It is needed only if nothing else restricts signals.
    """
    program: list[tuple[int, int, int, int]] = []

    def add(code: int, value: int, if_true: int = 0, if_false: int = 0) -> None:
        program.append((code, if_true, if_false, value))

    def refuse(numbers: Iterable[int | None], reason: int = errno.EPERM) -> None:
        for number in numbers:
            if number is not None:
                add(EQUAL, number, 0, 1)
                add(RETURN, REFUSE | reason)

    def look_at(number: int, argument: int, unless: Iterable[tuple[int, int]], otherwise: int) -> None:
        """Decide one system call by the lower half of an argument."""
        block = [(LOAD, 0, 0, 16 + 8 * argument)]
        for code, value in unless:
            block += [(code, 0, 1, value), (RETURN, 0, 0, ALLOW if otherwise != ALLOW else REFUSE | errno.EPERM)]
        block.append((RETURN, 0, 0, otherwise))
        program.append((EQUAL, 0, len(block), number))
        program.extend(block)

    refused = REFUSE | errno.EPERM
    add(LOAD, 4)  # the architecture, which determines the numbers of system calls
    add(EQUAL, ARCHITECTURES[_MACHINE][0], 1, 0)
    add(RETURN, refused)
    add(LOAD, 0)  # the number of the system call
    if _MACHINE == "x86_64":
        add(AT_LEAST, X32, 0, 1)
        add(RETURN, refused)
    refuse(numbers[_COLUMN] for numbers in DENIED.values())
    refuse([CLONE3[_COLUMN]], errno.ENOSYS)  # the filter cannot see its arguments; after ENOSYS, libraries use clone
    look_at(CLONE[_COLUMN], 0, [(ANY_BIT, CLONE_NEW_ANY)], ALLOW)
    families = [socket.AF_INET, socket.AF_INET6, 16] if network else []  # 16: netlink, which name resolution uses
    if own_root and (own_network or abi >= 6):  # no Unix socket of another program can be reached
        families.append(socket.AF_UNIX)
    look_at(SOCKET[_COLUMN], 0, [(EQUAL, int(family)) for family in families], refused)
    itself = [(EQUAL, 0), (EQUAL, pid)]
    for numbers in ON_ITSELF.values():
        look_at(numbers[_COLUMN], 0, itself, refused)
    for name, numbers in KINDS_OF_TARGET.items():  # the target must be 0: the caller
        kind = 0 if name == "setpriority" else 1
        number = numbers[_COLUMN]
        program += [
            (EQUAL, 0, 6, number),
            (LOAD, 0, 0, 16),
            (EQUAL, 0, 3, kind),
            (LOAD, 0, 0, 24),
            (EQUAL, 0, 1, 0),
            (RETURN, 0, 0, ALLOW),
            (RETURN, 0, 0, refused),
        ]
    requests = [*PUSH_INTO_TERMINAL]
    if not own_root:
        refuse(numbers[_COLUMN] for numbers in DENIED_WITHOUT_ROOT.values())
        requests += FILE_FLAGS
        if abi < 6:
            group = (EQUAL, -pid & 0xFFFFFFFF)
            for numbers in SIGNALS.values():
                look_at(numbers[_COLUMN], 0, [*itself, group], refused)
            refuse(numbers[_COLUMN] for numbers in OTHER_SIGNALS.values())
    look_at(IOCTL[_COLUMN], 1, [(EQUAL, request) for request in requests], ALLOW)
    add(RETURN, ALLOW)
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in program)


def prepare_filters() -> None:
    """Make the filters of tasks with a private root before these are forked."""
    for network in (False, True):
        filter_program(network=network, abi=landlock_abi(), own_root=True, own_network=not network, pid=0)


def _seccomp(program: bytes) -> None:
    held = ctypes.create_string_buffer(program, len(program))
    header = struct.pack("=H6xQ", len(program) // 8, ctypes.addressof(held))
    if _libc.syscall(ctypes.c_long(SYS_SECCOMP[_COLUMN]), ctypes.c_long(1), ctypes.c_long(SECCOMP_SPEC_ALLOW), header):
        # Kernels before 4.17 do not know the flag.
        facts = ctypes.create_string_buffer(header, len(header))
        _prctl("seccomp", PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.addressof(facts))


if __name__ == "__main__":
    print(json.dumps(machine(sys.argv[1])))
