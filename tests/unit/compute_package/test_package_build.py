"""Building is reproducible to the byte, keeps what belongs in, and warns about what should not."""

from __future__ import annotations

import hashlib
import os
import socket
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from fedpkg.compute_package.build import build_package
from fedpkg.compute_package.review import script_of
from fedpkg.errors import PackageError, SpecError

SPEC = "entry_points:\n  train:\n    command: python train.py\n"


def names(archive: Path) -> list[str]:
    with tarfile.open(archive) as tar:
        return tar.getnames()


def refusal(folder: Path, output: Path) -> str:
    with pytest.raises(PackageError) as caught:
        build_package(folder, output)
    assert not output.exists()
    return caught.value.message


def test_folder_is_the_single_top_level_entry_and_members_are_sorted(client: Path, tmp_path: Path) -> None:
    (client / "empty").mkdir()
    built = build_package(client, tmp_path / "new folder" / "package.tar.gz")
    assert names(built.path) == [
        "client",
        "client/empty",
        "client/entrypoint.py",
        "client/fedn.yaml",
        "client/sub",
        "client/sub/größe.txt",
    ]
    assert built.files == (
        ("client/entrypoint.py", 15),
        ("client/fedn.yaml", (client / "fedn.yaml").stat().st_size),
        ("client/sub/größe.txt", 2),
    )
    assert built.size_bytes == built.path.stat().st_size
    assert built.digest == hashlib.sha256(built.path.read_bytes()).hexdigest()
    assert built.warnings == ()


def test_owners_times_and_odd_modes_do_not_get_into_the_archive(client: Path, tmp_path: Path) -> None:
    (client / "entrypoint.py").chmod(0o4750)
    (client / "fedn.yaml").chmod(0o640)
    built = build_package(client, tmp_path / "p.tar.gz")
    with tarfile.open(built.path) as tar:
        for member in tar:
            assert (member.uid, member.gid, member.uname, member.gname, member.mtime) == (0, 0, "", "", 0)
        assert tar.getmember("client/entrypoint.py").mode == 0o755
        assert tar.getmember("client/fedn.yaml").mode == 0o644
        assert tar.getmember("client/sub").mode == 0o755
    assert built.path.read_bytes()[:10] == b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"  # no name, no time


def test_bytes_depend_neither_on_times_nor_on_order_of_creation_nor_on_the_umask(tmp_path: Path) -> None:
    contents = {"fedn.yaml": SPEC, "train.py": "1\n", "a/x.py": "2\n", "a-b.py": "3\n", "ä/ö.txt": "4\n" * 500}
    archives = []
    for place, umask, order, time in (("one", 0o022, 1, 1e9), ("two", 0o077, -1, 1.5e9)):
        before = os.umask(umask)
        try:
            folder = tmp_path / place / "client"
            for name, text in list(contents.items())[::order]:
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / name).write_text(text, encoding="utf-8")
                os.utime(folder / name, (time, time))
            archives.append(build_package(folder, tmp_path / f"{place}.tar.gz").path.read_bytes())
        finally:
            os.umask(before)
    assert archives[0] == archives[1]


def test_bytes_do_not_depend_on_the_locale(client: Path, tmp_path: Path) -> None:
    here = build_package(client, tmp_path / "here.tar.gz")
    script = "import sys, pathlib; from fedpkg.compute_package.build import build_package as b; "
    script += "print(b(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])).digest)"
    environment = {**os.environ, "LC_ALL": "C", "TZ": "Asia/Tokyo"}
    command = [sys.executable, "-c", script, str(client), str(tmp_path / "there.tar.gz")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == here.digest


def test_building_loads_neither_torch_nor_numpy(client: Path, tmp_path: Path) -> None:
    script = (
        "import sys, pathlib, fedpkg.compute_package.build as build\n"
        "build.build_package(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]))\n"
        "print([name for name in ('torch', 'numpy', 'omegaconf') if name in sys.modules])"
    )
    command = [sys.executable, "-c", script, str(client), str(tmp_path / "p.tar.gz")]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "[]\n"


def test_folder_can_be_named_by_a_dot(client: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    by_name = build_package(client, tmp_path / "a.tar.gz")
    monkeypatch.chdir(client)
    assert build_package(Path(), tmp_path / "b.tar.gz").digest == by_name.digest


def test_ignored_files_and_the_archive_itself_stay_out(client: Path) -> None:
    (client / ".fednignore").write_text("sub\n", encoding="utf-8")
    (client / "__pycache__").mkdir()
    (client / "__pycache__" / "x.pyc").write_bytes(b"")
    output = client / "package.tar.gz"
    first = build_package(client, output)
    assert names(output) == ["client", "client/entrypoint.py", "client/fedn.yaml"]
    assert build_package(client, output).digest == first.digest


def test_ignoring_the_spec_is_an_error(client: Path, tmp_path: Path) -> None:
    (client / ".fedpkgignore").write_text("# all\n*.yaml\n", encoding="utf-8")
    assert refusal(client, tmp_path / "p.tar.gz").endswith(
        "'client/fedn.yaml' cannot go into a package: the pattern '*.yaml' (.fedpkgignore, line 2) excludes it"
    )


def test_links_inside_are_kept(client: Path, tmp_path: Path) -> None:
    (client / "sub" / "link").symlink_to("../entrypoint.py")
    (client / "folder").symlink_to("sub")
    with tarfile.open(build_package(client, tmp_path / "p.tar.gz").path) as tar:
        assert tar.getmember("client/sub/link").linkname == "../entrypoint.py"
        assert tar.getmember("client/folder").issym()


@pytest.mark.parametrize(
    ("target", "rule"),
    [
        ("../secret", "its target '../secret' is outside the package"),
        ("../../secret", "its target '../../secret' is outside the package"),
        ("/etc/passwd", "its target '/etc/passwd' is absolute"),
        ("sub/../../x", "its target 'sub/../../x' has '..' after a name"),
    ],
)
def test_links_that_lead_out_are_refused(client: Path, tmp_path: Path, target: str, rule: str) -> None:
    (client / "link").symlink_to(target)
    assert refusal(client, tmp_path / "p.tar.gz") == f"{client}: 'client/link' cannot go into a package: {rule}"


def test_fifo_is_refused(client: Path, tmp_path: Path) -> None:
    os.mkfifo(client / "pipe")
    message = refusal(client, tmp_path / "p.tar.gz")
    assert message.endswith(
        "'client/pipe' cannot go into a package: it is not a file, folder or link (but a socket, fifo or device)"
    )


def test_socket_is_refused(client: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(client)  # the path of a socket must be short
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket")
        assert "'client/socket' cannot go into a package" in refusal(client, tmp_path / "p.tar.gz")


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("a\nb", "its name contains a control character"),
        ("a\\b", "its name contains a backslash"),
        (os.fsdecode(b"a\xff"), "its name is not UTF-8"),
        ("ENTRYPOINT.py", "'client/entrypoint.py' and 'client/ENTRYPOINT.py' are the same name on some systems"),
    ],
)
def test_names_that_unpacking_would_refuse_are_refused(client: Path, tmp_path: Path, name: str, rule: str) -> None:
    (client / name).write_bytes(b"")
    assert refusal(client, tmp_path / "p.tar.gz").endswith(rule)


def test_folder_without_a_spec_gets_a_hint(tmp_path: Path) -> None:
    (tmp_path / "project" / "client").mkdir(parents=True)
    with pytest.raises(PackageError, match=r"project has no fedn\.yaml") as caught:
        build_package(tmp_path / "project", tmp_path / "p.tar.gz")
    assert "create " in (caught.value.hint or "")
    (tmp_path / "project" / "client" / "fedn.yaml").write_text(SPEC, encoding="utf-8")
    with pytest.raises(PackageError) as caught:
        build_package(tmp_path / "project", tmp_path / "p.tar.gz")
    assert caught.value.hint == f"did you mean {tmp_path / 'project' / 'client'}?"


def test_missing_folder_and_linked_spec_are_refused(client: Path, tmp_path: Path) -> None:
    assert refusal(tmp_path / "nowhere", tmp_path / "p.tar.gz").endswith("nowhere is not a folder")
    (client / "fedn.yaml").rename(client / "real.yaml")
    (client / "fedn.yaml").symlink_to("real.yaml")
    assert refusal(client, tmp_path / "p.tar.gz").endswith("fedn.yaml is not an ordinary file")


def test_wrong_spec_is_reported_and_nothing_is_written(client: Path, tmp_path: Path) -> None:
    (client / "fedn.yaml").write_text("entry_points:\n  train: {comand: x}\n", encoding="utf-8")
    with pytest.raises(SpecError, match=r"client/fedn\.yaml, line 2: unknown key 'comand'"):
        build_package(client, tmp_path / "p.tar.gz")
    assert not (tmp_path / "p.tar.gz").exists()


def test_output_that_is_a_folder_is_refused(client: Path, tmp_path: Path) -> None:
    with pytest.raises(PackageError, match=r"is a folder") as caught:
        build_package(client, tmp_path)
    assert caught.value.hint == "give the archive a name: -o package.tar.gz"


def test_failed_build_keeps_the_older_archive(client: Path, tmp_path: Path) -> None:
    output = tmp_path / "p.tar.gz"
    older = build_package(client, output)
    os.mkfifo(client / "pipe")
    with pytest.raises(PackageError):
        build_package(client, output)
    assert hashlib.sha256(output.read_bytes()).hexdigest() == older.digest
    assert [path.name for path in tmp_path.glob(".*.tmp")] == []


def test_big_file_gets_a_warning(client: Path, tmp_path: Path) -> None:
    with open(client / "data.bin", "wb") as file:
        file.truncate((10 << 20) + 1)
    assert build_package(client, tmp_path / "p.tar.gz").warnings == (
        "data.bin is big (10.0 MiB); each client that changes it gets a copy",
    )


@pytest.mark.parametrize("name", [".env", "server.pem", "id_rsa", "tls.KEY", "credentials.json", ".netrc"])
def test_secret_looking_name_gets_a_warning(client: Path, tmp_path: Path, name: str) -> None:
    (client / "sub" / name).write_bytes(b"")
    assert build_package(client, tmp_path / "p.tar.gz").warnings == (
        f"sub/{name} looks like a secret by its name; everyone who gets the package can read it",
    )


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"x\n-----BEGIN OPENSSH " + b"PRIVATE KEY-----\n", "a private key"),
        (b"-----BEGIN " + b"PRIVATE KEY-----", "a private key"),
        (b"key = 'AKIA" + b"ABCDEFGH01234567'", "an AWS access key"),
    ],
)
def test_secret_looking_content_gets_a_warning(client: Path, tmp_path: Path, content: bytes, what: str) -> None:
    (client / "settings.txt").write_bytes(content)
    assert build_package(client, tmp_path / "p.tar.gz").warnings == (
        f"settings.txt seems to contain {what}; everyone who gets the package can read it",
    )


def test_missing_script_and_python_env_get_a_warning(client: Path, tmp_path: Path) -> None:
    spec = "python_env: python-3.11.txt\nentry_points:\n  train: {command: python entrypont.py train}\n"
    (client / "fedn.yaml").write_text(spec, encoding="utf-8")
    assert build_package(client, tmp_path / "p.tar.gz").warnings == (
        "entry point 'train' runs entrypont.py, which is missing; did you mean 'entrypoint.py'?",
        "python_env is python-3.11.txt, which is missing",
    )


@pytest.mark.parametrize(
    ("command", "name", "content", "reason"),
    [
        ("bash train", "train", b"set -e\r\n", "which a shell reads as parts of words"),
        ("A=1 exec /bin/sh ./train x", "train", b"set -e\r\n", "which a shell reads as parts of words"),
        ("python entrypoint.py", "lib/x.sh", b"set -e\r\n", "which a shell reads as parts of words"),
        ("./train", "train", b"#!/bin/bash\r\ntrue\r\n", "which a shell reads as parts of words"),
        ("./train.py", "train.py", b"#!/usr/bin/env python3\r\n", "so the interpreter in its first line is not found"),
        ("python train.py", "train.py", b"#!/usr/bin/env python3\r\nimport os\r\n", None),
        ("bash train", "train", b"set -e\n", None),
        ("bash train", "data.csv", b"1,2\r\n", None),
    ],
)
def test_script_with_windows_line_ends_gets_a_warning_where_they_break_it(
    client: Path, tmp_path: Path, command: str, name: str, content: bytes, reason: str | None
) -> None:
    (client / "train").write_bytes(b"")
    (client / name).parent.mkdir(exist_ok=True)
    (client / name).write_bytes(content)
    (client / "fedn.yaml").write_text(f"entry_points:\n  train: {{command: {command}}}\n", encoding="utf-8")
    expected = f"{name} has Windows line ends, {reason}: convert it (sed -i 's/\\r$//' {name})"
    assert build_package(client, tmp_path / "p.tar.gz").warnings == ((expected,) if reason else ())


@pytest.mark.parametrize(
    ("command", "script"),
    [
        ("python train.py", "train.py"),
        ("/venv/bin/python3.11 -u ./entrypoint train $OPTS", "entrypoint"),
        ("OMP_NUM_THREADS=1 exec bash 'my train.sh' x", "my train.sh"),
        ("./run --fast", "run"),
        ("Rscript sub/train.R", "sub/train.R"),
        ("python -m package.train", None),
        ("python -c 'print(1)'", None),
        ("python", None),
        ("train-tool in", None),
        ("cd sub && python train.py", None),
        ("python $SCRIPT", None),
        ("python /opt/train.py", None),
        ("echo 'unclosed", None),
        ("A=1", None),
    ],
)
def test_script_of_a_command_is_found_only_where_it_is_plain(command: str, script: str | None) -> None:
    assert script_of(command) == script
