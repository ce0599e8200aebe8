"""Walls around one task (Linux): namespaces, Landlock and seccomp, put up by its own process before the user's code.

Runs inside a task's interpreter and in its keeper: standard library only, imports nothing of fedpkg. Two ways:

``namespaces``: the keeper has processes of its own (a PID namespace), and each task a root of its own, made of mounts:
what it is given can be read there, its own folders can be written, nothing else exists. Landlock and seccomp besides.
``landlock``: where the system allows no namespaces. Landlock keeps it to the same files. What Landlock leaves open
(modes, owners and times of files, sockets with a path, signals on older kernels) is refused altogether.

Whatever fails on the way is an error, and the task does not run. Documentation: user_namespaces(7), mount_setattr(2),
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

TYPE_CHECKING = False  # type checkers know the name; to import the one of typing takes time
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any


class CannotIsolate(Exception):
    """A wall cannot be put up; the message says which."""


# ---------------------------------------------------------------- the kernel

ARCHITECTURES = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}  # audit's number; column of the tables below
_MACHINE = os.uname().machine if hasattr(os, "uname") else ""
_COLUMN = ARCHITECTURES.get(_MACHINE, (0, 0))[1]

SYS_CAPSET = (126, 91)
SYS_SECCOMP = (317, 277)
SYS_MOUNT_SETATTR = (442, 442)
SYS_LANDLOCK_CREATE_RULESET, SYS_LANDLOCK_ADD_RULE, SYS_LANDLOCK_RESTRICT_SELF = 444, 445, 446

CLONE_NEWNS, CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x20000, 0x10000000, 0x20000000, 0x40000000
CLONE_NEW_ANY = 0x7E020000  # these, and cgroup, uts, ipc
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_BIND, MS_REC, MS_PRIVATE = 1, 2, 4, 8, 0x1000, 0x4000, 0x40000
AT_FDCWD, AT_RECURSIVE = -100, 0x8000
MOUNT_ATTR_RDONLY, MOUNT_ATTR_NOSUID, MOUNT_ATTR_NODEV = 1, 2, 4
PR_SET_SECCOMP, PR_CAPBSET_DROP, PR_SET_SECUREBITS, PR_SET_NO_NEW_PRIVS, PR_CAP_AMBIENT = 22, 24, 28, 38, 47
SECCOMP_MODE_FILTER, SECCOMP_SPEC_ALLOW = 2, 4
CAP_SYS_ADMIN = 21
KEEP_NO_POWERS = 0b11101111  # no root by exec, none kept over a change of user, no ambient ones, all locked


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


# ---------------------------------------------------------------- what holds here


def landlock_abi() -> int:
    """The version of Landlock that this kernel has; 0: none."""
    if sys.platform != "linux" or _MACHINE not in ARCHITECTURES:
        return 0
    answer = _libc.syscall(ctypes.c_long(SYS_LANDLOCK_CREATE_RULESET), None, ctypes.c_size_t(0), ctypes.c_uint32(1))
    return max(0, int(answer))


def machine(folder: str) -> dict[str, Any]:
    """What of this can be had here, found by trying it in child processes; ``folder`` is an empty one to try it in."""
    order: dict[str, Any] = {key: [] for key in ("links", "folders", "read", "write", "devices", "guarded")}
    order.update(network=False, empty={}, root=folder)
    found: dict[str, Any] = {"landlock": landlock_abi(), "covered": of_the_machine()}
    for way in ("landlock", "namespaces"):
        found["why_not_" + way] = _try_in_a_child(dict(order, by=way))
    return found


def _try_in_a_child(order: dict[str, Any]) -> str:
    """What is in the way, or nothing."""
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

# Beside processes, what a program may have to know of the machine it runs on.
_COUNTS = ("cpuinfo", "meminfo", "stat", "loadavg", "uptime", "version", "filesystems", "driver")
# With processes of one's own. In sys nobody can write.
PROC_SEEN = frozenset((*_COUNTS, "sys", "vmstat", "cgroups", "diskstats", "partitions", "swaps", "devices"))
# Without: nothing that tells of other processes.
PROC = (
    *("self", *_COUNTS),
    *("sys/vm/overcommit_memory", "sys/vm/max_map_count", "sys/kernel/osrelease", "sys/kernel/pid_max"),
)


# ---------------------------------------------------------------- the keeper's part

_apart = False  # this process has processes of its own,
_own_mounts = False  # and mounts


def have_own_processes() -> int:
    """Go on as the first process of a PID namespace; the process id by which others know this one.

    This process itself stays outside, waits for the other one, and ends with it.
    """
    global _apart
    ids = [(number, number) for number in (os.geteuid(), os.getegid())]
    own_user = not _may_mount()
    _unshare(CLONE_NEWPID | CLONE_NEWNS | (CLONE_NEWUSER if own_user else 0))
    if own_user:  # the same user, who has powers here that reach nothing outside
        try:
            for name, text in (("setgroups", "deny"), ("uid_map", "%d %d 1" % ids[0]), ("gid_map", "%d %d 1" % ids[1])):
                with open("/proc/self/" + name, "w") as file:
                    file.write(text)
        except OSError as error:
            raise CannotIsolate("user namespace: %s" % error) from error
    known, tell = os.pipe()
    files = open_files()  # now: soon /proc is for the others
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
    """What /proc tells of the kernel, of devices and of other users' keys, which no task needs; and which are folders.

    It is covered once for each keeper, and bound into the root of each of its tasks so.
    """
    with os.scandir("/proc") as entries:
        others = [one for one in entries if not (one.name.isdigit() or one.is_symlink() or one.name in PROC_SEEN)]
        return [(one.path, one.is_dir()) for one in others]


def have_own_mounts() -> None:
    """May be done for a task that is not known yet."""
    global _own_mounts
    if not _own_mounts:
        _unshare(CLONE_NEWNS)
        _own_mounts = True


def hold_mounts(pid: int) -> int | None:
    """A file that keeps a task's mounts until it is closed: to take them down would hold up who does it."""
    try:
        return os.open("/proc/%d/ns/mnt" % pid, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None


def _may_mount() -> bool:
    with open("/proc/self/status") as file:
        powers = next(int(line.split()[1], 16) for line in file if line.startswith("CapEff:"))
    return bool(powers >> CAP_SYS_ADMIN & 1)


def open_files() -> set[int]:
    """Numbers of the open files."""
    listed = map(int, os.listdir("/proc/self/fd" if os.path.isdir("/proc/self/fd") else "/dev/fd"))
    return {fd for fd in listed if _is_open(fd)}  # the one that the listing itself was read from is closed again


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
    """What a keeper does around a command that it executes: nothing, ``enter``, or have bubblewrap do it."""

    def __init__(self, order: Mapping[str, Any] | None, cwd: str) -> None:
        self.order = order
        self.cwd = cwd
        self.fds: list[int] = []  # that bubblewrap shall have
        if order is not None:
            self.said, self.say = os.pipe()
            os.set_blocking(self.said, False)

    def command(self, command: list[str]) -> list[str]:
        """``command`` with what must stand before it."""
        if self.order is None or self.order["by"] != "bubblewrap":
            return command
        # It has a root and processes of its own, but no Landlock to keep it from others' abstract sockets.
        network = self.order["network"]
        program = os.memfd_create("filter")
        os.write(program, filter_program(network=network, abi=0, own_root=True, own_network=not network))
        os.lseek(program, 0, os.SEEK_SET)
        self.fds = [program, self.say]
        return [*self.order["argv"], "--seccomp", str(program), "--json-status-fd", str(self.say), "--", *command]

    def put_up(self) -> None:
        """In the child, before the command. What it raises keeps the command from being run."""
        if self.order is None or self.order["by"] == "bubblewrap":
            return
        try:
            enter(self.order)
            os.chdir(self.cwd)
        except BaseException as error:
            os.write(self.say, str(error).encode()[:1000])
            raise

    def problem(self, status: int | None = None) -> str | None:
        """At the end, with the exit status: why the command could not be isolated, and so was not run."""
        if self.order is None:
            return None
        for fd in {self.say, *self.fds}:
            os.close(fd)
        try:
            said = os.read(self.said, 4096).decode(errors="replace")
        except BlockingIOError:  # somebody who cannot be killed has it
            said = ""
        os.close(self.said)
        if self.order["by"] == "bubblewrap":  # it tells the status of what it ran
            return "bubblewrap: see its log" if status and '"exit-code"' not in said else None
        return said or None


# ---------------------------------------------------------------- the task's part


def enter(order: Mapping[str, Any]) -> None:
    """Put up the walls around this process and all that it will start. It must have one thread.

    ``order``: by (the way), network, read (files and folders), links (symbolic ones to those), folders (on the way to
    those; they can be empty), write (folders), guarded (files in those, which are only read), devices, empty (folders
    that stand for others), root (to mount it all on).

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
                raise CannotIsolate("namespaces: the keeper has no processes of its own")
            own_network = not order["network"]
            if own_network:
                _unshare(CLONE_NEWNET)
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
    """Mount what the task may see into an empty root, and make that the root."""
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
    for path in sorted({*mounts, *links, *order["folders"]}):  # folders come before what is in them
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
    # Nothing else can be reached from there: no open folder is left, and with its powers goes that to leave a root.
    # pivot_root and an unmount of the old one would have the task wait for the kernel, up to some milliseconds.
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
    """Root, too, is an ordinary owner of files from here on, whatever it executes."""
    zero = ctypes.c_ulong(0)
    for number in range(64):  # fails beyond the last one that there is, and for who has none anyway
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
    needed = 1 if own_root else 3  # before, who may read a file may also empty it
    if abi < needed:
        raise CannotIsolate("Landlock ABI %d is needed, this kernel has %s" % (needed, abi or "none"))
    handled = (1 << 13) - 1
    for least, access in ((2, REFER), (3, TRUNCATE), (5, IOCTL_DEV)):
        if abi >= least:
            handled |= access
    # With no rule for any port, TCP is refused; signals and abstract sockets stay among the task's own processes.
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
            continue  # what is not there needs no rule
        try:
            allowed = access if stat.S_ISDIR(os.fstat(fd).st_mode) else access & OF_FILES
            rule = struct.pack("=Qi", allowed, fd)
            _call("Landlock, %s" % path, SYS_LANDLOCK_ADD_RULE, ruleset, 1, rule, 0)
        finally:
            os.close(fd)


# ---------------------------------------------------------------- seccomp

# System calls that no task needs: other processes, the kernel itself, mounts, namespaces, memory and queues that
# others of the same user share, and io_uring, which does what other calls do, past this filter. (x86_64, aarch64)
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
# Without a root of its own: changes to files that one need not open, and being told of those of others.
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
# Their first argument is a process: only oneself, as 0.
ON_ITSELF = {
    "prlimit64": (302, 261),
    "sched_setaffinity": (203, 122),
    "sched_setscheduler": (144, 119),
    "sched_setparam": (142, 118),
    "sched_setattr": (314, 274),
}
KINDS_OF_TARGET = {"setpriority": (141, 140), "ioprio_set": (251, 30)}  # a kind of target, then which
# Where neither a PID namespace nor Landlock keeps signals among the task's own processes.
SIGNALS = {"kill": (62, 129), "tgkill": (234, 131), "rt_sigqueueinfo": (129, 138), "rt_tgsigqueueinfo": (297, 240)}
OTHER_SIGNALS: dict[str, tuple[int | None, int | None]] = {"tkill": (200, 130), "pidfd_send_signal": (424, 424)}
SOCKET, CLONE, CLONE3, IOCTL = (41, 198), (56, 220), (435, 435), (16, 29)
PUSH_INTO_TERMINAL = (0x5412, 0x541C)  # TIOCSTI, TIOCLINUX
FILE_FLAGS = (0x40086602, 0x401C5820)  # FS_IOC_SETFLAGS, FS_IOC_FSSETXATTR
X32 = 0x40000000

ALLOW, REFUSE = 0x7FFF0000, 0x00050000
LOAD, EQUAL, AT_LEAST, ANY_BIT, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06  # of classic BPF


@functools.lru_cache(maxsize=8)
def filter_program(*, network: bool, abi: int, own_root: bool, own_network: bool, pid: int = 0) -> bytes:
    """The seccomp filter: refuses with EPERM, as if the person had no right to it.

    ``pid`` is its process, which need be known only where nothing else restricts signals.
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
        """For one system call: the lower half of an argument decides, and nothing after it does."""
        block = [(LOAD, 0, 0, 16 + 8 * argument)]
        for code, value in unless:
            block += [(code, 0, 1, value), (RETURN, 0, 0, ALLOW if otherwise != ALLOW else REFUSE | errno.EPERM)]
        block.append((RETURN, 0, 0, otherwise))
        program.append((EQUAL, 0, len(block), number))
        program.extend(block)

    refused = REFUSE | errno.EPERM
    add(LOAD, 4)  # the architecture: another one would give the numbers another meaning
    add(EQUAL, ARCHITECTURES[_MACHINE][0], 1, 0)
    add(RETURN, refused)
    add(LOAD, 0)  # the number of the system call
    if _MACHINE == "x86_64":
        add(AT_LEAST, X32, 0, 1)
        add(RETURN, refused)
    refuse(numbers[_COLUMN] for numbers in DENIED.values())
    refuse([CLONE3[_COLUMN]], errno.ENOSYS)  # its arguments are out of sight; who hears this takes clone
    look_at(CLONE[_COLUMN], 0, [(ANY_BIT, CLONE_NEW_ANY)], ALLOW)
    families = [socket.AF_INET, socket.AF_INET6, 16] if network else []  # 16: netlink, by which names are looked up
    if own_root and (own_network or abi >= 6):  # then there is no other's Unix socket in reach
        families.append(socket.AF_UNIX)
    look_at(SOCKET[_COLUMN], 0, [(EQUAL, int(family)) for family in families], refused)
    itself = [(EQUAL, 0), (EQUAL, pid)]
    for numbers in ON_ITSELF.values():
        look_at(numbers[_COLUMN], 0, itself, refused)
    for name, numbers in KINDS_OF_TARGET.items():  # which must be 0: oneself
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
    """What tasks with a root of their own will need, made before they are forked."""
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
