"""An archive cannot leave its folder, whoever made it; each refusal names the member and the rule."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import lzma
import os
import shutil
import stat
import subprocess
import sys
import tarfile
import tempfile
import unicodedata
from collections.abc import Callable
from fnmatch import fnmatchcase
from pathlib import Path

import pytest
from hostile import PACKAGE, SPEC, entry, folder, hard_link, link, tar_bytes
from hypothesis import given, settings
from hypothesis import strategies as st

from fedpkg.compute_package.build import build_package
from fedpkg.compute_package.ignore import ALWAYS_IGNORED
from fedpkg.compute_package.members import INVISIBLE
from fedpkg.compute_package.unpack import (
    UnpackedPackage,
    find_package,
    open_package,
    package_problems,
)
from fedpkg.config import LimitsConfig
from fedpkg.errors import ArchiveError, PackageError, SpecError


def write(tmp_path: Path, data: bytes, name: str = "paket größe 1.tar.gz") -> Path:
    path = tmp_path / name
    path.write_bytes(data if name.endswith(".tar") else gzip.compress(data, mtime=0))
    return path


def unpack(archive: Path, cache: Path, *, max_bytes: int = 1 << 20, max_members: int = 1000) -> UnpackedPackage:
    return open_package(archive, cache, limits=LimitsConfig(package_bytes=max_bytes, package_members=max_members))


def refusal(archive: Path, cache: Path, **limits: int) -> str:
    """The message after the archive's path; nothing may be left in the cache, nor beside it."""
    before = set(archive.parent.iterdir()) | {cache}
    with pytest.raises(ArchiveError) as caught:
        unpack(archive, cache, **limits)
    assert set(archive.parent.iterdir()) <= before
    assert not cache.exists() or [path.name for path in cache.iterdir()] == [".lock"]
    assert caught.value.fields["path"] == str(archive)
    assert caught.value.hint
    assert caught.value.message.startswith(f"{archive}: ")
    return caught.value.message.removeprefix(f"{archive}: ")


# ---- what is accepted ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "top"),
    [
        (["-czvf", "package.tar.gz", "client"], "client"),
        (["-czvf", "package.tgz", "./client"], "client"),
        (["-czf", "../package.tgz", "-C", "client", "."], ""),
        (["-czf", "package.tgz", "-C", "client", "fedn.yaml", "entrypoint.py", "sub"], ""),
        (["-cf", "package.tar", "client"], "client"),
        (["-cjf", "package.tar.bz2", "client"], "client"),
        (["-cJf", "package.tar.xz", "client"], "client"),
        (["-czf", "p.tgz", "--format=ustar", "client"], "client"),
        (["-czf", "p.tgz", "--format=gnu", "client"], "client"),
        (["-czf", "p.tgz", "--format=pax", "client"], "client"),
        (["-czf", "p.tgz", "--format=v7", "client"], "client"),
    ],
)
def test_archives_of_plain_tar_are_accepted(client: Path, cache: Path, arguments: list[str], top: str) -> None:
    (client / "entrypoint.py").chmod(0o6755)
    (client / "empty").mkdir()
    done = subprocess.run(["tar", *arguments], cwd=client.parent, capture_output=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"tar cannot do this here: {done.stderr!r}")
    archive = client.parent / arguments[1]
    package = unpack(archive, cache)
    assert package.digest == hashlib.sha256(archive.read_bytes()).hexdigest()
    assert package.size_bytes == archive.stat().st_size
    assert package.root == cache / package.digest / "files"
    assert package.top == top
    assert list(package.spec.entry_points) == ["train", "validate"]
    assert (package.folder / "sub" / "größe.txt").read_bytes() == b"\x00\xff"
    assert (package.folder / "entrypoint.py").read_text(encoding="utf-8") == "print('hello')\n"


@pytest.mark.parametrize("format", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_names_too_long_for_one_header_are_read(tmp_path: Path, cache: Path, format: int) -> None:
    long = "client/" + "/".join(["ö" * 60] * 3)
    archive = write(tmp_path, tar_bytes([PACKAGE, entry(long, b"x"), link("client/l", long.partition("/")[2])], format))
    package = unpack(archive, cache)
    assert (package.root / long).read_bytes() == b"x"
    assert (package.folder / "l").read_bytes() == b"x"


def test_spec_at_the_root_wins_over_one_in_a_folder(tmp_path: Path, cache: Path) -> None:
    archive = write(tmp_path, tar_bytes([entry("./fedn.yaml", SPEC), entry("tests/fedn.yaml", b"not a spec")]))
    assert unpack(archive, cache).top == ""


def test_files_beside_the_package_folder_are_unpacked_too(tmp_path: Path, cache: Path) -> None:
    package = unpack(write(tmp_path, tar_bytes([PACKAGE, entry("README.md", b"x"), entry("docs/a.md", b"")])), cache)
    assert package.files == (("client/fedn.yaml", len(SPEC)), ("README.md", 1), ("docs/a.md", 0))


@pytest.mark.parametrize("top", ["PK", "BZh", "ustar"])
def test_plain_tar_is_known_by_its_header_whatever_its_first_name(tmp_path: Path, cache: Path, top: str) -> None:
    assert unpack(write(tmp_path, tar_bytes([entry(f"{top}/fedn.yaml", SPEC)]), "p.tar"), cache).top == top


def test_several_compressed_parts_are_one_archive(tmp_path: Path, cache: Path) -> None:
    data = tar_bytes([PACKAGE])
    archive = tmp_path / "p.tar.gz"
    archive.write_bytes(gzip.compress(data[:700]) + gzip.compress(data[700:]))
    assert unpack(archive, cache).top == "client"


def test_hard_link_to_an_earlier_file_becomes_a_copy(tmp_path: Path, cache: Path) -> None:
    archive = write(
        tmp_path, tar_bytes([PACKAGE, entry("client/a", b"12", mode=0o755), hard_link("client/b", "client/a")])
    )
    package = unpack(archive, cache)
    assert (package.folder / "b").read_bytes() == b"12"
    assert (package.folder / "b").stat().st_nlink == 1
    assert ("client/b", 2) in package.files


def test_link_inside_is_kept_and_may_come_before_its_target(tmp_path: Path, cache: Path) -> None:
    package = unpack(
        write(tmp_path, tar_bytes([link("client/a/l", "../b/./x"), PACKAGE, entry("client/b/x", b"1")])), cache
    )
    assert (package.folder / "a" / "l").read_bytes() == b"1"
    assert (package.folder / "a" / "l").is_symlink()


def test_global_header_of_git_archive_is_read_over(tmp_path: Path, cache: Path) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", pax_headers={"comment": "0" * 40}) as tar:
        tar.addfile(PACKAGE[0], io.BytesIO(SPEC))
    assert unpack(write(tmp_path, buffer.getvalue()), cache).top == "client"


def test_files_are_read_only_and_setuid_bits_are_gone(tmp_path: Path, cache: Path) -> None:
    entries = [PACKAGE, entry("client/run", b"", mode=0o6777), entry("client/a", b"", mode=0o666), folder("client/d")]
    before = os.umask(0o077)
    try:
        package = unpack(write(tmp_path, tar_bytes(entries)), cache)
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in package.folder.iterdir()}
    assert modes == {"fedn.yaml": 0o444, "run": 0o555, "a": 0o444, "d": 0o755}
    assert stat.S_IMODE(package.folder.stat().st_mode) == stat.S_IMODE(package.root.stat().st_mode) == 0o755


# ---- bombs -----------------------------------------------------------------------------------------------------------


def test_package_above_the_byte_limit_is_refused_and_one_at_the_limit_is_not(tmp_path: Path, cache: Path) -> None:
    archive = write(tmp_path, tar_bytes([PACKAGE, entry("client/a", bytes(1000))]))
    limit = len(SPEC) + 1000
    assert refusal(archive, cache, max_bytes=limit - 1) == (
        f"member 'client/a': the package unpacks to more than {limit - 1} bytes"
    )
    assert unpack(archive, cache, max_bytes=limit).top == "client"


def test_members_above_the_limit_are_refused(tmp_path: Path, cache: Path) -> None:
    entries = [PACKAGE, entry("client/a"), entry("client/b")]
    archive = write(tmp_path, tar_bytes(entries))
    assert refusal(archive, cache, max_members=3) == (
        "member 'client/b': the package has more than 3 files and folders"
    )
    assert unpack(archive, cache, max_members=4).top == "client"


def test_folders_that_only_names_imply_count_as_members(tmp_path: Path, cache: Path) -> None:
    archive = write(tmp_path, tar_bytes([PACKAGE, entry("client/a/b/c/d")]))
    assert "more than 4 files and folders" in refusal(archive, cache, max_members=4)


FORMATS = (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT)


def test_too_many_members_are_counted_before_the_first_is_written(tmp_path: Path, cache: Path) -> None:
    """100,001 folders took 20 s to make and to remove; to count their names takes 0.3 s."""
    made: list[str] = []
    is_watched = True
    sys.addaudithook(lambda event, words: made.append(str(words[0])) if event == "os.mkdir" and is_watched else None)
    for name, entries in {
        "folders": [folder(f"client/{n}") for n in range(200)],
        "files": [entry(f"client/{n}") for n in range(200)],
        "folders that names imply": [entry(f"client/{'a/' * 55}x"), entry(f"client/{'b/' * 55}x")],
        "long names": [entry(f"client/{'x' * 120}/{n}") for n in range(200)],
    }.items():
        for format in FORMATS:
            archive = write(tmp_path, tar_bytes([PACKAGE, *entries], format))
            assert "more than 100 files and folders" in refusal(archive, cache, max_members=100), name
    is_watched = False
    assert [path for path in made if ".unpack-" in path] == []


@pytest.mark.parametrize("format", FORMATS)
def test_count_of_names_agrees_with_what_is_unpacked(tmp_path: Path, cache: Path, format: int) -> None:
    names = ["./client/a", "client//b", "client/d/e/f", "client/" + "x" * 90 + "/" + "y" * 60, "client/ü"]
    entries = [folder("./"), PACKAGE, folder("client/c/"), *(entry(name, b"12345") for name in names)]
    archive = write(tmp_path, tar_bytes([*entries, hard_link("client/h", "client/d/e/f")], format))
    number = 12  # client, fedn.yaml, a, b, c, d, e, f, x…, y…, ü, h
    assert "more than 11 files and folders" in refusal(archive, cache, max_members=number - 1)
    assert unpack(archive, cache, max_members=number).top == "client"


def test_package_in_the_cache_is_still_refused_under_tighter_limits(tmp_path: Path, cache: Path) -> None:
    archive = write(tmp_path, tar_bytes([PACKAGE]))
    unpack(archive, cache)
    with pytest.raises(ArchiveError, match="unpacks to more than 3 bytes"):
        unpack(archive, cache, max_bytes=3)
    with pytest.raises(ArchiveError, match="more than 1 files and folders"):
        unpack(archive, cache, max_members=1)


# ---- damage ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("compress", [bytes, gzip.compress, bz2.compress, lzma.compress])
def test_archive_cut_anywhere_is_refused(tmp_path: Path, cache: Path, compress: Callable[[bytes], bytes]) -> None:
    tar = tar_bytes([PACKAGE, entry("client/a", os.urandom(2000))])
    data = compress(tar[: 512 * 8] if compress is bytes else tar)  # plain: up to the first zero block, the end mark
    archive = tmp_path / "cut.tar"
    for cut in sorted({1, 100, 511, 512, 600, 1024, 1500, 2000, len(data) - 512, len(data) - 5, len(data) - 1}):
        archive.write_bytes(data[:cut])
        message = refusal(archive, cache)
        assert "truncated" in message or message == "it is not a tar archive"


@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress, lzma.compress])
def test_bytes_after_the_compressed_archive_are_refused(
    tmp_path: Path, cache: Path, compress: Callable[[bytes], bytes]
) -> None:
    archive = tmp_path / "p.tar.gz"
    archive.write_bytes(compress(tar_bytes([PACKAGE])) + b"#!/bin/sh")
    assert refusal(archive, cache) in (
        "the archive is damaged: data follows its end",
        "the archive is damaged: it is truncated",
    )


def test_broken_header_in_the_middle_is_not_taken_for_the_end(tmp_path: Path, cache: Path) -> None:
    data = bytearray(tar_bytes([PACKAGE, entry("client/a")]))
    data[1024] ^= 1
    assert refusal(write(tmp_path, bytes(data)), cache) == (
        "member 'client/fedn.yaml': the archive is damaged: a tar header is missing (bad checksum)"
    )


def test_path_that_is_no_file_is_a_package_error(tmp_path: Path, cache: Path) -> None:
    with pytest.raises(PackageError, match="nowhere does not exist"):
        unpack(tmp_path / "nowhere", cache)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(PackageError, match="is not a file"):
        unpack(tmp_path / "pipe", cache)


def test_mistake_in_the_spec_names_archive_member_and_line_and_leaves_nothing(tmp_path: Path, cache: Path) -> None:
    archive = write(tmp_path, tar_bytes([entry("client/fedn.yaml", b"entry_points:\n  train: {comand: x}\n")]))
    with pytest.raises(SpecError) as caught:
        unpack(archive, cache)
    assert caught.value.message.startswith(f"{archive}: client/fedn.yaml, line 2: unknown key 'comand'")
    assert [path.name for path in cache.iterdir()] == [".lock"]


# ---- the cache -------------------------------------------------------------------------------------------------------


def test_existing_entry_is_reused(client: Path, cache: Path, tmp_path: Path) -> None:
    archive = build_package(client, tmp_path / "p.tar.gz").path
    first = unpack(archive, cache)
    inode = (first.folder / "fedn.yaml").stat().st_ino
    assert unpack(archive, cache) == first
    assert (first.folder / "fedn.yaml").stat().st_ino == inode


@pytest.mark.parametrize("lost", ["files/client/entrypoint.py", "package.json", "files/client/empty", "files/client/l"])
def test_entry_that_lost_something_is_made_again(client: Path, cache: Path, tmp_path: Path, lost: str) -> None:
    (client / "empty").mkdir()
    (client / "l").symlink_to("entrypoint.py")
    archive = build_package(client, tmp_path / "p.tar.gz").path
    package = unpack(archive, cache)
    path = package.root.parent / lost
    path.rmdir() if path.is_dir() else path.unlink()
    assert unpack(archive, cache) == package
    assert os.path.lexists(path)


def test_entry_with_a_shortened_file_is_made_again(client: Path, cache: Path, tmp_path: Path) -> None:
    archive = build_package(client, tmp_path / "p.tar.gz").path
    package = unpack(archive, cache)
    (package.folder / "entrypoint.py").unlink()
    (package.folder / "entrypoint.py").write_bytes(b"")
    assert (unpack(archive, cache).folder / "entrypoint.py").read_text(encoding="utf-8") == "print('hello')\n"


def _edit(path: Path, data: bytes) -> None:
    """Change bytes, not size, mode or times."""
    status = path.stat()
    path.chmod(0o644)
    path.write_bytes(data.ljust(status.st_size)[: status.st_size])
    path.chmod(stat.S_IMODE(status.st_mode))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def _exchange(path: Path, target: str) -> None:
    path.unlink()
    path.symlink_to(target)


def _edit_with_manifest(path: Path, data: bytes) -> None:
    manifest = next(folder for folder in path.parents if folder.name == "files").with_name("package.json")
    before = hashlib.sha256(path.read_bytes()).hexdigest()
    _edit(path, data)
    text = manifest.read_text(encoding="utf-8")
    assert before in text
    manifest.write_text(text.replace(before, hashlib.sha256(path.read_bytes()).hexdigest()), encoding="utf-8")


CHANGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "bytes": (lambda folder: _edit(folder / "entrypoint.py", b"evil()"), "'client/entrypoint.py' was changed"),
    "the spec": (lambda folder: _edit(folder / "fedn.yaml", SPEC), "'client/fedn.yaml' was changed"),
    "another link": (lambda folder: _exchange(folder / "l", "fedn.yaml"), "'client/l' has another target than it had"),
    "a link for a file": (
        lambda folder: _exchange(folder / "entrypoint.py", "fedn.yaml"),
        "'client/entrypoint.py' is of another type than it was",
    ),
    "a file more": (lambda folder: (folder / "sitecustomize.py").touch(), "'client/sitecustomize.py' does not belong"),
    "bytes, and the manifest": (
        lambda folder: _edit_with_manifest(folder / "entrypoint.py", b"evil()"),
        "its package.json was changed",
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_changed_entry_is_made_again_from_the_archive_and_is_an_error_without(
    client: Path, cache: Path, tmp_path: Path, change: str
) -> None:
    (client / "l").symlink_to("entrypoint.py")
    archive = build_package(client, tmp_path / "p.tar.gz").path
    package = unpack(archive, cache)
    edit, problem = CHANGES[change]
    on_record = {package.digest: package.contents}
    for known in (None, on_record):
        edit(package.folder)
        with pytest.raises(PackageError, match="was changed after it was unpacked: ") as caught:
            find_package(package.digest, cache, contents=package.contents)
        assert problem in caught.value.message
        assert "fedpkg package inspect ARCHIVE" in str(caught.value.hint)
        again = open_package(archive, cache, on_record=known)
        assert again == package
        assert package_problems(package.root.parent) == []
        assert (package.folder / "entrypoint.py").read_text(encoding="utf-8") == "print('hello')\n"
    assert find_package(package.digest, cache, contents=package.contents).contents == package.contents


def test_changed_mode_is_noticed_where_the_archive_is_there(client: Path, cache: Path, tmp_path: Path) -> None:
    archive = build_package(client, tmp_path / "p.tar.gz").path
    script = unpack(archive, cache).folder / "entrypoint.py"
    script.chmod(0o4755)
    unpack(archive, cache)
    assert stat.S_IMODE(script.stat().st_mode) == 0o444


def test_contents_on_record_spare_the_decompression(
    client: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = build_package(client, tmp_path / "p.tar.gz").path
    package = unpack(archive, cache)
    monkeypatch.setattr("fedpkg.compute_package.extract.TarStream", None)
    on_record = {package.digest: package.contents}
    assert open_package(archive, cache, on_record=on_record) == package


def test_leftovers_of_a_killed_process_are_removed(client: Path, cache: Path, tmp_path: Path) -> None:
    archive = build_package(client, tmp_path / "p.tar.gz").path
    (cache / ".unpack-0123" / "files").mkdir(parents=True)
    package = unpack(archive, cache)
    assert sorted(path.name for path in cache.iterdir()) == sorted([".lock", package.digest])


def test_two_processes_at_once_get_the_same_package(client: Path, cache: Path, tmp_path: Path) -> None:
    for number in range(200):
        (client / f"{number}.txt").write_text(str(number), encoding="utf-8")
    archive = build_package(client, tmp_path / "p.tar.gz").path
    script = (
        "import sys, pathlib; from fedpkg.compute_package.unpack import open_package as u\n"
        "print('ready', flush=True); sys.stdin.readline()\n"
        "p = u(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]))\n"
        "print(len(list(p.folder.iterdir())), p.digest)"
    )
    command = [sys.executable, "-c", script, str(archive), str(cache)]
    children = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    for child in children:
        assert child.stdout is not None and child.stdout.readline() == "ready\n"
    for child in children:
        assert child.stdin is not None
        child.stdin.write("go\n")
        child.stdin.flush()
    answers = {child.communicate()[0] for child in children}
    assert len(answers) == 1 and answers.pop().startswith("203 ")
    assert len([path for path in cache.iterdir() if path.name != ".lock"]) == 1


# ---- folders ---------------------------------------------------------------------------------------------------------


def test_folder_and_its_archive_are_the_same_package(client: Path, cache: Path, tmp_path: Path) -> None:
    built = build_package(client, tmp_path / "p.tar.gz")
    from_folder = open_package(client, cache)
    assert from_folder == open_package(built.path, cache)
    assert from_folder.digest == built.digest
    assert from_folder.files == built.files


def test_mistakes_in_a_folder_are_reported_in_the_folder(client: Path, cache: Path) -> None:
    (client / "fedn.yaml").write_text("entry_points:\n  train: {comand: x}\n", encoding="utf-8")
    with pytest.raises(SpecError) as caught:
        open_package(client, cache)
    assert caught.value.fields["path"] == str(client / "fedn.yaml")
    (client / "fedn.yaml").unlink()
    with pytest.raises(PackageError, match=r"client has no fedn\.yaml"):
        open_package(client, cache)


# ---- properties ------------------------------------------------------------------------------------------------------

_PARTS = st.text(
    st.characters(blacklist_categories=("Cc", "Cs", "Zl", "Zp"), blacklist_characters={*"/\\:", *INVISIBLE}),
    min_size=1,
    max_size=20,
).filter(lambda part: part not in (".", "..") and not any(fnmatchcase(part, one) for one in ALWAYS_IGNORED))


@settings(max_examples=60)
@given(
    st.dictionaries(
        st.tuples(st.sampled_from(["", "sub/", "ordner ö/x/"]), _PARTS), st.binary(max_size=2000), max_size=6
    )
)
def test_building_then_unpacking_gives_back_names_and_bytes(files: dict[tuple[str, str], bytes]) -> None:
    seen = {"fedn.yaml", "sub", "ordner ö", "x"}
    with tempfile.TemporaryDirectory() as place:
        source = Path(place) / "mein paket"
        source.mkdir()
        (source / "fedn.yaml").write_bytes(SPEC)
        expected = {"fedn.yaml": SPEC}
        for (parent, part), content in files.items():
            folded = unicodedata.normalize("NFD", unicodedata.normalize("NFD", part).casefold())
            if folded in seen or len(part.encode()) > 200:
                continue
            seen.add(folded)
            (source / parent).mkdir(parents=True, exist_ok=True)
            (source / parent / part).write_bytes(content)
            expected[parent + part] = content
        built = build_package(source, Path(place) / "p.tar.gz")
        package = unpack(built.path, Path(place) / "cache")
        assert package.files == built.files
        found = {
            path.relative_to(package.folder).as_posix(): path.read_bytes()
            for path in package.folder.rglob("*")
            if path.is_file()
        }
        assert found == expected


@settings(max_examples=150)
@given(st.data())
def test_archive_with_changed_bytes_is_unpacked_or_refused_but_never_breaks_anything(data: st.DataObject) -> None:
    entries = [PACKAGE, entry("client/" + "ä" * 120, b"1" * 600), link("client/l", "fedn.yaml"), folder("client/d")]
    content = bytearray(tar_bytes(entries, data.draw(st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]))))
    for at, value in data.draw(st.lists(st.tuples(st.integers(0, 5119), st.integers(0, 255)), min_size=1, max_size=4)):
        content[at] = value
    for start in range(0, 5120, 512):  # make the checksums right again, to get behind them
        block = content[start : start + 512]
        if block[257:262] == b"ustar":
            total = sum(block[:148]) + sum(block[156:]) + 8 * 32
            content[start + 148 : start + 156] = b"%06o\0 " % total
    place = Path(tempfile.mkdtemp())
    try:
        archive = place / "p.tar"
        archive.write_bytes(content)
        try:
            unpack(archive, place / "cache")
        except PackageError:
            pass
        assert {path.name for path in place.iterdir()} <= {"p.tar", "cache"}
    finally:
        shutil.rmtree(place)
