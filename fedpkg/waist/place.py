"""All file names of a task: an attempt's folder, its client's states and its reply, below a session's folder.

round-3/client-0/train-2/         the second call of train for client-0 in round 3
round-3/client-0/train-2.reply/   its reply, where the task cannot write
clients/client-0/3-train-2/       the client's state after it: package/ and state/
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # so that `--help` does not import msgspec
    from fedpkg.waist.order import Order

AGAIN = ".again-"  # followed by a number: for an attempt whose keeper was killed, or that must not share files
REPLY = ".reply"
STARTUP = "startup"
TASK_JSON = "task.json"
CONFIG = "config.yaml"
METADATA = "-metadata"
BUILD = "build"
ROUND = "round-"
SESSIONS = "sessions"
STATES = "clients"
STATES_ELSEWHERE = ".states-elsewhere"  # in the folder of a session whose tasks do not run on the machine of its home
IN_A_VERSION = ("package", "state", "package-files.json")  # names in a version of a client's state
PAYLOAD = ".payload"  # prefix of the names of requests' inputs; client ids do not begin with a dot


@dataclass(frozen=True)
class Place:
    """The files of one attempt at an order. ``folder`` is the task's own, ``version`` the client's state after it."""

    folder: Path
    version: Path
    suffix: str = ".npz"  # of the model files
    out_name: str = "out.npz"

    def again(self, number: int) -> Place:
        """The place of a repetition of the same attempt."""
        folder, version = (path.with_name(f"{path.name}{AGAIN}{number}") for path in (self.folder, self.version))
        return Place(folder, version, self.suffix, self.out_name)

    @functools.cached_property
    def input(self) -> Path:
        return self.folder / f"in{self.suffix}"

    @functools.cached_property
    def input_metadata(self) -> Path:
        return self.folder / f"in{self.suffix}{METADATA}"

    @functools.cached_property
    def out(self) -> Path:
        """The file that the task has to write."""
        return self.folder / self.out_name

    @functools.cached_property
    def config(self) -> Path:
        """The file of ``{config}`` in a command: the arguments and the run_config of the call."""
        return self.folder / CONFIG

    @functools.cached_property
    def task_json(self) -> Path:
        return self.folder / TASK_JSON

    @functools.cached_property
    def reply(self) -> Path:
        """The folder to which the reply is moved, where the task cannot write."""
        return reply_of(self.folder)

    @functools.cached_property
    def package(self) -> Path:
        """The task's copy of the package's tree."""
        return package_in(self.version)

    @functools.cached_property
    def state(self) -> Path:
        """``FEDPKG_STATE_DIR``."""
        return self.version / "state"

    @functools.cached_property
    def scratch(self) -> Path:
        """An isolated task's /tmp, /dev/shm and home, removed after it."""
        return self.folder / "scratch"

    def log(self, stream: str, *, of_startup: bool = False) -> Path:
        """``stdout.log`` or ``stderr.log``, of the call or of the ``startup`` before it."""
        return log_of(self.folder, stream, of_startup=of_startup)

    @functools.cached_property
    def given(self) -> frozenset[str]:
        """Names of the inputs and logs in the task's folder: enough to repeat it by hand."""
        logs = (self.log(stream, of_startup=first).name for stream in ("stdout", "stderr") for first in (False, True))
        return frozenset((self.input.name, self.input_metadata.name, TASK_JSON, CONFIG, *logs))


def package_in(version: Path) -> Path:
    """The folder of the package in a version of a client's state."""
    return version / "package"


def log_of(folder: Path, stream: str, *, of_startup: bool = False) -> Path:
    """The log of a stream in a task's folder."""
    return folder / f"{f'{STARTUP}.' if of_startup else ''}{stream}.log"


def reply_of(folder: Path) -> Path:
    """The folder to which the reply of the task with this folder is moved."""
    return folder.with_name(f"{folder.name}{REPLY}")


def session_folder(home: Path, session_id: str) -> Path:
    return home / SESSIONS / session_id


def round_folder(session: Path, round_number: int) -> Path:
    return session / f"{ROUND}{round_number}"


def round_of(name: str) -> int | None:
    """The number of the round whose folder has this name; None if it is not that of a round."""
    number = name.removeprefix(ROUND)
    return int(number) if number != name and number.isdecimal() else None


def is_of_build(name: str) -> bool:
    """Whether this is the name of a folder of a task that builds the seed."""
    return re.fullmatch(rf"{BUILD}(\.work)?({re.escape(AGAIN)}\d+)?({re.escape(REPLY)})?", name) is not None


def states_folder(session: Path, client_id: str) -> Path:
    """The folder of the versions of a client's state, by their tokens."""
    return session / STATES / client_id


def place_of(session: Path, order: Order, *, suffix: str = ".npz", out_name: str = "out.npz") -> Place:
    """The place of an order's first try. An order without a client builds the seed."""
    if not order.client_id:
        return Place(session / BUILD, session / f"{BUILD}.work", suffix, out_name)
    folder = round_folder(session, order.round_number) / order.client_id / order.call
    version = states_folder(session, order.client_id) / f"{order.round_number}-{order.call}"
    return Place(folder, version, suffix, out_name)


def names_of_calls(entry_points: Iterable[str]) -> re.Pattern[str]:
    """Matches the names of the folders of tasks (group 1) and of their replies, in a client's folder of a round."""
    names = "|".join(map(re.escape, entry_points))
    return re.compile(rf"((?:{names})(?:-\d+)?(?:{re.escape(AGAIN)}\d+)?)({re.escape(REPLY)})?")


_ENTRY_POINT = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,99}")


def is_name_of_entry_point(name: str) -> bool:
    """Whether an entry point may have this name: no other task's folder then has the name of one of its tasks'."""
    is_of_another = re.search(rf"-\d+$|{re.escape(REPLY)}$|{re.escape(AGAIN)}", name) is not None
    return _ENTRY_POINT.fullmatch(name) is not None and not is_of_another and name != "all"


def is_of_startup(message: str) -> bool:
    """Whether a failure's message is about `startup`, which runs before a client's first task."""
    return message.startswith(f"'{STARTUP}' ")


def last_told(log_tail: str | None) -> str:
    """The last line of a log that has words; hints below the message of an error of fedpkg.client do not count."""
    lines = (line for line in reversed((log_tail or "").splitlines()) if not line.startswith("  hint  "))
    return next(filter(str.strip, lines), "").strip().removeprefix("fedpkg: ")


def told_in(folder: Path, message: str) -> Path:
    """The log of a failed task whose end is reported: stderr's, or stdout's if stderr's is empty."""
    is_before = (
        is_of_startup(message) and log_of(folder, "stderr", of_startup=True).exists()
    )  # otherwise the task itself failed
    stdout, stderr = (log_of(folder, name, of_startup=is_before) for name in ("stdout", "stderr"))
    sizes = [path.stat().st_size if path.is_file() else 0 for path in (stdout, stderr)]
    return stdout if sizes[0] and not sizes[1] else stderr
