"""A client that behaves badly on request, to test what runs it. NumPy only, so a call takes 0.1 s.

python entrypoint.py init_seed OUT [--how=raise]
python entrypoint.py train    IN OUT [--how=WORD] [--plan=JSON] …
python entrypoint.py validate IN OUT [--how=WORD] [--plan=JSON] …

WORD is a key of TRAIN or VALIDATE below. It comes from, in this order: ``--plan``, a JSON map from a client's id, or
"id@round", to a word (``{"client-3": "nan", "client-0@2": "exit3"}``; task.json says who we are); ``--how``; the
environment variable MISBEHAVE; else it is ``ok``. With ``--pid_file`` what stays alive writes its process id there.
"""

import argparse
import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import numpy as np

LIFETIME_S = 600  # what never ends does end: a failing test should not leave processes for good


class Call:
    """One call of an entry point: its options, its input, and how an honest client would answer."""

    def __init__(self, options, task):
        self.options = options
        self.task = task
        self.out = Path(options.out_path)
        with np.load(options.in_path, allow_pickle=False) as arrays:
            self.model = {name: arrays[name] for name in arrays.files}

    def update(self):
        """The input model, every tensor one more."""
        return {name: (tensor + 1).astype(tensor.dtype) for name, tensor in self.model.items()}

    def write_model(self, tensors, path=None):
        with open(path or self.out, "wb") as file:
            np.savez(file, **tensors)

    def write_metadata(self, **values):
        metadata = {"num_examples": self.options.num_examples, **values}
        Path(f"{self.out}-metadata").write_text(json.dumps(metadata))

    def write_update(self, **metadata):
        self.write_model(self.update())
        self.write_metadata(**metadata)

    def write_pid(self):
        if self.options.pid_file:
            path = Path(self.options.pid_file)
            temporary = path.with_name(f"{path.name}.{os.getpid()}")
            temporary.write_text(str(os.getpid()))
            temporary.replace(path)  # who waits for the file finds a whole number in it


# --- how the process ends -------------------------------------------------------------------------------------------


def exit3(call):
    print("about to give up", file=sys.stderr)
    sys.exit(3)


def exit_message(call):
    sys.exit("no data for this client today")


def raise_error(call):
    raise ValueError("expected 784 features, got 785")


def die_of_signal(call):
    os.kill(os.getpid(), signal.SIGSEGV)
    time.sleep(LIFETIME_S)


def slow(call):
    time.sleep(1.5)
    call.write_update()


def sleep(call):
    call.write_pid()
    time.sleep(LIFETIME_S)


def ignore_sigterm(call):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sleep(call)


def fork_bomb(call):
    """4096 processes, each in a session of its own, that only compute; they end by themselves, should nobody do it."""
    end = time.monotonic() + 30
    for _ in range(12):
        if os.fork() == 0:
            os.setsid()
    while time.monotonic() < end:
        pass


def daemon(call):
    """Leave a process of another session behind, which holds the log files open."""
    leave_behind(call, lambda: time.sleep(LIFETIME_S))
    call.write_update()


def daemon_writes(call):
    """Leave a process behind that goes on writing into the reply."""
    call.write_update()

    def scribble():
        end = time.monotonic() + LIFETIME_S
        file = os.open(call.out, os.O_WRONLY)
        while time.monotonic() < end:
            os.pwrite(file, os.urandom(64), 0)
            time.sleep(0.01)

    leave_behind(call, scribble)


def leave_behind(call, action):
    """Run ``action`` in a daemon; returns when that has written its process id."""
    ready, is_ready = os.pipe()
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            call.write_pid()
            os.close(is_ready)
            action()
        os._exit(0)
    os.close(is_ready)
    os.wait()
    os.read(ready, 1)  # ends when the daemon closes its end


# --- the reply file -------------------------------------------------------------------------------------------------


def no_file(call):
    call.out.unlink(missing_ok=True)
    call.write_metadata()


def empty_file(call):
    call.out.write_bytes(b"")
    call.write_metadata()


def truncated(call):
    call.write_update()
    os.truncate(call.out, call.out.stat().st_size // 2)


class Touch:
    """Creates a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


def pickled(call):
    """An object array; whoever unpickles it creates the file ``canary`` (--canary, else beside the reply)."""
    canary = call.options.canary or str(call.out.with_name("canary"))
    call.write_model({**call.update(), "w": np.array([Touch(canary)], dtype=object)})
    call.write_metadata()


def symlink_out(call):
    target = call.out.with_name("elsewhere.npz")
    call.write_model(call.update(), target)
    call.out.unlink(missing_ok=True)
    call.out.symlink_to(target)
    call.write_metadata()


def hardlink_out(call):
    call.write_update()
    os.link(call.out, call.out.with_name("twin.npz"))


def fifo_out(call):
    call.out.unlink(missing_ok=True)
    os.mkfifo(call.out)
    call.write_metadata()


def dir_out(call):
    call.out.unlink(missing_ok=True)
    call.out.mkdir()
    call.write_metadata()


def huge_out(call):
    """10 GB long, though it takes no room on the disk."""
    call.write_update()
    os.truncate(call.out, 10_000_000_000)


# --- what is in the reply -------------------------------------------------------------------------------------------


def with_tensors(change):
    """A client that sends ``change(update)``."""

    def train(call):
        call.write_model(change(call.update()))
        call.write_metadata()

    return train


def largest_value(call):
    """Of its dtype: 1.8e308, 3.4e38, 65504."""
    with_value(np.finfo(call.model["w"].dtype).max)(call)


def with_value(value):
    """A client with ``value`` in one place of its update."""

    def change(update):
        update["w"][3, 4] = value
        return update

    return with_tensors(change)


def with_examples(value):
    def train(call):
        call.write_update(num_examples=value)

    return train


def with_metadata(text):
    """A client whose metadata file is ``text``, or is not there."""

    def train(call):
        call.write_update()
        path = Path(f"{call.out}-metadata")
        if text is None:
            path.unlink()
        else:
            path.write_text(text)

    return train


# --- what a task sees of its surroundings ---------------------------------------------------------------------------


def log_flood(call):
    """20 MB of output; its last line is known."""
    for number in range(200_000):
        print(f"line {number} ".ljust(99, "."))
    print("the last line")
    call.write_update()


def closes_streams(call):
    for descriptor in range(3):
        os.close(descriptor)
    call.write_update()


def count_calls(call):
    """How many calls this client has seen, kept beside the code and in the folder for state."""
    counts = {}
    for name, folder in [("beside_code", "."), ("state_dir", os.environ.get("FEDPKG_STATE_DIR"))]:
        if folder is not None:
            path = Path(folder, "count.txt")
            counts[name] = int(path.read_text()) + 1 if path.exists() else 1
            path.write_text(str(counts[name]))
    return counts


def write_state(call):
    call.write_update(counts=count_calls(call))


def write_state_exit3(call):
    count_calls(call)
    sys.exit(3)


# --- what it leaves as its state: most of this is honest otherwise --------------------------------------------------


def leaving(change):
    """A client whose update is in order, and which leaves ``change(folder of its state)`` behind."""

    def train(call):
        call.write_update()
        change(Path(os.environ["FEDPKG_STATE_DIR"]))

    return train


def deep_state(folder):
    os.chdir(folder)
    for _ in range(1000):
        os.mkdir("d")
        os.chdir("d")


def sparse_state(folder):
    with open(folder / "hole", "wb") as file:
        file.truncate(3_000_000_000)


def linked_state(folder):
    (folder / "one").write_bytes(b"x")
    (folder / "other").unlink(missing_ok=True)
    os.link(folder / "one", folder / "other")


def many_files_state(folder):
    for number in range(3000):
        (folder / str(number)).touch()


def mounted_state(folder):
    """A state that cannot be removed, and a set-uid program in the task's folder."""
    import ctypes

    program = Path(os.environ["FEDPKG_TASK"]).with_name("program")
    program.touch()
    program.chmod(0o4755)
    (folder / "mounted").mkdir()
    (folder / "elsewhere").mkdir()
    (folder / "elsewhere" / "kept").touch()
    places = [os.fsencode(folder / name) for name in ("elsewhere", "mounted")]
    if ctypes.CDLL(None, use_errno=True).mount(*places, None, 4096, None):
        sys.exit("cannot mount")


def closed_state(folder):
    (folder / "closed").mkdir(exist_ok=True)
    (folder / "closed" / "file").write_bytes(b"x")
    (folder / "closed" / "file").chmod(0)
    (folder / "closed").chmod(0)


def privileged_state(folder):
    """A set-uid program, one with capabilities, another one's file, a pipe, a socket; where possible, a device."""
    import socket
    import struct

    (folder / "program").write_bytes(b"#!/bin/sh")
    (folder / "capable").write_bytes(b"#!/bin/sh")
    (folder / "capable").chmod(0o755)
    try:  # all capabilities, effective at once: struct vfs_cap_data of version 2
        os.setxattr(folder / "capable", "security.capability", struct.pack("<5I", 0x2000001, 0xFFFFFFFF, 0, 0x1FF, 0))
    except OSError:
        pass
    try:
        (folder / "program").chmod(0o6755)
        (folder / "shared").mkdir(exist_ok=True)
        (folder / "shared").chmod(0o2777)
    except PermissionError:  # isolated by Landlock alone
        pass
    os.mkfifo(folder / "pipe")
    try:
        os.chdir(folder)
        socket.socket(socket.AF_UNIX).bind("socket")
        os.mknod(folder / "device", 0o20666, os.makedev(1, 3))
        (folder / "another's").touch()
        os.chown(folder / "another's", 1000, 1000)
    except PermissionError:
        pass


def immutable_state(folder):
    import fcntl

    (folder / "immutable").mkdir(exist_ok=True)
    (folder / "immutable" / "file").touch()
    for path in (folder / "immutable" / "file", folder / "immutable"):
        try:
            fcntl.ioctl(os.open(path, os.O_RDONLY), 0x40086602, bytes([0x10, 0, 0, 0, 0, 0, 0, 0]))
        except OSError:  # not root, or another kind of file system
            pass


def spy(call):
    """Looks for what is not its own: another client's data, a home, the network."""
    import socket

    data = Path(os.environ["FEDN_DATA_PATH"])
    for look in (
        lambda: next(path.read_bytes() for path in data.parent.iterdir() if path != data),
        lambda: next(Path("/root", ".ssh").iterdir()),
        lambda: socket.create_connection(("127.0.0.1", 9)),
    ):
        try:
            look()
        except ConnectionError:
            raise SystemExit("it has a network") from None
        except (OSError, StopIteration) as error:
            print(f"not seen: {error}", file=sys.stderr)
        else:
            raise SystemExit("it has seen what is not its own")
    raise PermissionError("nothing to see")


def env(call):
    """Tell where and how this process runs, and what its random generators give."""
    prefixes = ("FEDN_", "FEDPKG_", "PYTHON", "OMP_", "MKL_", "OPENBLAS_", "CUDA_", "MISBEHAVE", "TEST_")
    call.write_update(
        cwd=str(Path.cwd()),
        argv=sys.argv,
        environ={name: value for name, value in os.environ.items() if name.startswith(prefixes)},
        task=call.task,
        process={"pid": os.getpid(), "group": os.getpgid(0), "session": os.getsid(0)},
        files=sorted(path.name for path in call.out.parent.iterdir()),
        can_write_input=os.access(call.options.in_path, os.W_OK),
        stdin=os.path.realpath("/proc/self/fd/0"),
        draws={"random": random.random(), "numpy": float(np.random.rand()), "hash": hash("x")},
    )


TRAIN = {
    "ok": lambda call: call.write_update(),
    "exit3": exit3,
    "exit_message": exit_message,
    "raise": raise_error,
    "signal": die_of_signal,
    "sleep": sleep,
    "ignore_sigterm": ignore_sigterm,
    "fork_bomb": fork_bomb,
    "daemon": daemon,
    "daemon_writes": daemon_writes,
    "no_file": no_file,
    "empty_file": empty_file,
    "truncated": truncated,
    "pickle": pickled,
    "symlink_out": symlink_out,
    "hardlink_out": hardlink_out,
    "fifo_out": fifo_out,
    "dir_out": dir_out,
    "huge_out": huge_out,
    "nan": with_value(np.nan),
    "inf": with_value(np.inf),
    "huge_values": with_value(1e38),
    "largest_value": largest_value,
    "wrong_shape": with_tensors(lambda update: {**update, "w": update["w"][:, :-1]}),
    "broadcast_shape": with_tensors(lambda update: {**update, "w": update["w"][:1]}),
    "wrong_dtype": with_tensors(lambda update: {**update, "w": update["w"].astype(np.int32)}),
    "missing_tensor": with_tensors(lambda update: {name: update[name] for name in update if name != "b"}),
    "extra_tensor": with_tensors(lambda update: {**update, "c": np.ones(3, np.float32)}),
    "zero_examples": with_examples(0),
    "negative_examples": with_examples(-5),
    "nan_examples": with_examples(float("nan")),
    "text_examples": with_examples("many"),
    "no_examples": with_metadata('{"loss": 0.5}'),
    "no_metadata": with_metadata(None),
    "bad_metadata": with_metadata('{"num_examples": 10,'),
    "log_flood": log_flood,
    "closes_streams": closes_streams,
    "slow": slow,
    "write_state": write_state,
    "write_state_exit3": write_state_exit3,
    "env": env,
    "spy": spy,
    "deep_state": leaving(deep_state),
    "sparse_state": leaving(sparse_state),
    "linked_state": leaving(linked_state),
    "many_files_state": leaving(many_files_state),
    "mounted_state": leaving(mounted_state),
    "closed_state": leaving(closed_state),
    "privileged_state": leaving(privileged_state),
    "immutable_state": leaving(immutable_state),
}


def with_metrics(**metrics):
    def validate(call):
        call.out.write_text(json.dumps({"num_examples": call.options.num_examples, **metrics}))

    return validate


def validate_ok(call):
    """Metrics that tell which model was looked at."""
    with_metrics(w_mean=float(call.model["w"].mean()), steps=int(call.model["steps"]))(call)


VALIDATE = {
    "ok": validate_ok,
    "exit3": exit3,
    "raise": raise_error,
    "sleep": sleep,
    "no_file": no_file,
    "bad_json": lambda call: call.out.write_text('{"accuracy": 0.5'),
    "nan": with_metrics(loss=float("nan"), accuracy=0.5),
    "nested": with_metrics(
        accuracy=0.5,
        by_class={"0": {"precision": 0.25}, "1": {"precision": 0.75}},
        confusion=[[3, 1], [2, 4]],
        note="measured on a cold day",
        threshold=None,
        calibrated=True,
    ),
}


def init_seed(path):
    weights = np.random.default_rng(0)
    with open(path, "wb") as file:
        np.savez(
            file,
            w=weights.standard_normal((10, 32), dtype=np.float32),
            b=np.zeros(10, np.float32),
            steps=np.array(0, np.int64),
        )


def word_for(options, task):
    client_id, round_number = task.get("client_id"), task.get("round_number")
    plan = json.loads(options.plan)
    word = plan.get(f"{client_id}@{round_number}") or plan.get(client_id)
    return word or options.how or os.environ.get("MISBEHAVE") or "ok"


def main():
    if sys.argv[1:2] == ["init_seed"]:
        if "--how=raise" in sys.argv:
            raise ValueError("no seed today")
        init_seed(sys.argv[2])
        return
    parser = argparse.ArgumentParser()
    parser.add_argument("entry_point", choices=["train", "validate"])
    parser.add_argument("in_path")
    parser.add_argument("out_path")
    parser.add_argument("--how")
    parser.add_argument("--plan", default="{}")
    parser.add_argument("--num_examples", type=int, default=10)
    parser.add_argument("--pid_file")
    parser.add_argument("--canary")
    options = parser.parse_args()
    task_path = os.environ.get("FEDPKG_TASK")
    task = json.loads(Path(task_path).read_text()) if task_path else {}
    word = word_for(options, task)
    if word not in TRAIN and word not in VALIDATE:
        parser.error(f"nobody knows how to misbehave as {word!r}")
    # A word that only the other entry point knows (it may come from the environment) means no harm here.
    behaviours = TRAIN if options.entry_point == "train" else VALIDATE
    behaviours.get(word, behaviours["ok"])(Call(options, task))


if __name__ == "__main__":
    main()
