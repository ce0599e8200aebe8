"""Every file that a person or a package names is a regular one of bounded size: devices and pipes are refused."""

import os
import shutil

import pytest
from cli_support import MISBEHAVE, fedpkg, write_run_yaml

from fedpkg.client.errors import ClientError
from fedpkg.client.task import task
from fedpkg.config_reading import MAX_FILE_BYTES
from fedpkg.environments.wanted import read_wanted
from fedpkg.errors import FedpkgError
from fedpkg.registry import MAX_SOURCE_BYTES
from fedpkg.small_files import MAX_BYTES


def put_pipe(path):
    os.mkfifo(path)


def put_device(path):
    path.symlink_to("/dev/zero")


def put_folder(path):
    path.mkdir()


# What a command is given in the place of a file; X is that place.
COMMANDS = {
    "a run.yaml": ("config show X", "x.yaml"),
    "a strategy of one's own": ("config show run.yaml strategy.file=X strategy.name=mine", "x.py"),
    "a sampler of one's own": ("config show run.yaml sampler.file=X sampler.name=mine", "x.py"),
    "a trace": ("run run.yaml sampler.availability.trace=X --home home", "x.csv"),
    "a seed model": ("run run.yaml seed_model=X --home home", "x.npz"),
    "a seed model of PyTorch": ("run run.yaml seed_model=X --home home", "x.pt"),
    "a dataset": ("run run.yaml clients.data.dataset=X --home home", "x.npz"),
    "a dataset of PyTorch": ("run run.yaml clients.data.dataset=X --home home", "x.pt"),
    "a fedn.yaml": ("package inspect client", "client/fedn.yaml"),
    "an ignore file": ("package build client -o client.tar.gz", "client/.fedpkgignore"),
    "a model to train": ("package call client train -i X -o out.npz", "x.npz"),
    "a model to compare": ("model diff X X --home home", "x.npz"),
    "a private key": ("package sign client --key X", "x.key"),
    "a signature": ("package verify client --signature X", "x.sig"),
    "an allowed key": ("run run.yaml trust.allow=[X] --home home", "x.pub"),
}


@pytest.mark.parametrize("put", [put_pipe, put_device, put_folder])
def test_command_refuses_what_is_no_regular_file(tmp_path, monkeypatch, put):
    monkeypatch.chdir(tmp_path)
    for what, (command, name) in COMMANDS.items():
        folder = tmp_path / what.replace(" ", "-")
        folder.mkdir()
        monkeypatch.chdir(folder)
        shutil.copytree(MISBEHAVE, folder / "client")
        write_run_yaml(folder, package=str(folder / "client"), rounds=1)
        (folder / name).unlink(missing_ok=True)
        put(folder / name)
        ended = fedpkg(*command.replace("X", name).split())
        assert 0 < ended.code < 70 and ended.code != 2, (what, ended)
        assert folder.joinpath(name).name in ended.err.replace("\n", "") and "Traceback" not in ended.err, (what, ended)
        assert "Errno" not in ended.err, (what, ended)


@pytest.mark.parametrize("put", [put_pipe, put_device, put_folder])
def test_task_and_environment_files_must_be_regular(tmp_path, monkeypatch, put):
    put(tmp_path / "task.json")
    monkeypatch.setenv("FEDPKG_TASK", str(tmp_path / "task.json"))
    with pytest.raises(ClientError, match=r"task\.json"):
        task()
    put(tmp_path / "env.yaml")
    with pytest.raises(FedpkgError, match=r"env\.yaml"):
        read_wanted(tmp_path, python_env="env.yaml")


def test_files_larger_than_their_limit_are_named_with_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_run_yaml(tmp_path, rounds=1)
    for name, command, max_bytes in (
        ("big.yaml", "config show big.yaml", MAX_FILE_BYTES),
        ("big.py", "config show run.yaml strategy.file=big.py strategy.name=mine", MAX_SOURCE_BYTES),
        ("big.csv", "run run.yaml sampler.availability.trace=big.csv --home home", MAX_BYTES),
    ):
        with open(name, "wb") as file:
            file.truncate(max_bytes + 1)
        ended = fedpkg(*command.split())
        assert 0 < ended.code < 70 and f"larger than {max_bytes >> 20} MiB" in ended.err, ended


@pytest.mark.soak
@pytest.mark.slow
def test_federation_runs_at_the_largest_numbers(tmp_path, monkeypatch):
    """What the configuration accepts, the calls of the system must take."""
    monkeypatch.chdir(tmp_path)
    write_run_yaml(tmp_path, rounds=1)
    largest = 2**63 - 1
    names = ("memory_bytes", "file_bytes", "folder_bytes", "open_files", "processes", "log_bytes", "reply_bytes")
    words = [f"limits.{name}={largest}" for name in (*names, "package_bytes", "package_members")]
    words += ["limits.cpu_s=1e8", "round.timeout_s=1e8", "executor.timeout_s=1e8", "executor.workers=1024"]
    words += [f"executor.needs.memory_bytes={largest}", f"validation.every={largest}", f"seed={largest}"]
    for name in ("process", "forkserver"):
        ended = fedpkg("run", "run.yaml", "--home", "home", f"executor.name={name}", *words)
        assert ended.code == 0, ended


def test_number_of_a_round_beyond_what_is_stored_is_refused(tmp_path):
    for command in ("session show", "validation list", "session resume"):
        option = "--rounds" if command == "session resume" else "--round"
        ended = fedpkg(*command.split(), option, 10**30, "--home", tmp_path)
        assert ended.code == 2 and "is not in the range 1<=x<=1000000000" in ended.err, ended


def test_task_file_that_is_no_object_or_too_deep_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "task.json"
    monkeypatch.setenv("FEDPKG_TASK", str(path))
    for text in ("[1]", "[" * 100_000, "{"):
        path.write_text(text)
        with pytest.raises(ClientError, match=r"task\.json \(from FEDPKG_TASK\)"):
            task()
