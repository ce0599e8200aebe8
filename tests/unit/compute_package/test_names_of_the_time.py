"""Names that FEDn's packages had before and have since: infer, scaleout.yaml, .scaleoutignore."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest

from fedpkg.compute_package.build import build_package
from fedpkg.compute_package.spec import EntryPoint, parse_spec
from fedpkg.compute_package.unpack import UnpackedPackage, open_package
from fedpkg.errors import ArchiveError, PackageError, SpecError

TRAIN = "entry_points: {train: {command: python train.py}}\n"


def opened(path: Path, cache: Path) -> UnpackedPackage:
    return open_package(path, cache)


def packed(folder: Path, files: dict[str, str], archive: Path) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    with tarfile.open(archive, "w:gz") as tar:
        for path in sorted(folder.iterdir()):
            tar.add(path, path.name)
    return archive


def test_infer_is_read_as_predict() -> None:
    spec = parse_spec("entry_points:\n  infer: {command: python infer.py}\n", "fedn.yaml")
    assert spec.entry_points == {"predict": EntryPoint("predict", "python infer.py")}


def test_infer_beside_predict_is_refused() -> None:
    with pytest.raises(SpecError, match=r"^fedn.yaml, line 3: 'infer' is the former name of 'predict'"):
        parse_spec("entry_points:\n  predict: {command: a}\n  infer: {command: b}\n", "fedn.yaml")


def test_scaleout_yaml_makes_a_package(client: Path, cache: Path, tmp_path: Path) -> None:
    (client / "fedn.yaml").rename(client / "scaleout.yaml")
    (client / ".scaleoutignore").write_text("sub\n")
    from_folder = opened(client, cache)
    assert list(from_folder.spec.entry_points) == ["train", "validate"]
    assert [file.name for file in from_folder.files] == ["client/entrypoint.py", "client/scaleout.yaml"]
    archive = build_package(client, tmp_path / "package.tgz")
    assert archive.digest == from_folder.digest
    assert archive.warnings == ()


def test_fedn_yaml_wins_and_a_warning_says_so(client: Path, cache: Path, tmp_path: Path) -> None:
    (client / "scaleout.yaml").write_text("entry_points: {startup: startup.py}\n")
    assert "scaleout.yaml is ignored, because fedn.yaml exists" in build_package(client, tmp_path / "p.tgz").warnings
    assert list(opened(tmp_path / "p.tgz", cache).spec.entry_points) == ["train", "validate"]


@pytest.mark.parametrize(
    ("files", "folder", "entry_point"),
    [
        ({"scaleout.yaml": TRAIN}, "", "train"),
        ({"client/scaleout.yaml": TRAIN}, "client", "train"),
        ({"scaleout.yaml": TRAIN, "old/fedn.yaml": "?"}, "", "train"),
        ({"client/scaleout.yaml": "?", "client/fedn.yaml": TRAIN}, "client", "train"),
    ],
)
def test_either_name_is_found_in_archives(
    files: dict[str, str], folder: str, entry_point: str, tmp_path: Path, cache: Path
) -> None:
    package = opened(packed(tmp_path / "in", files, tmp_path / "p.tar.gz"), cache)
    assert package.top == folder
    assert list(package.spec.entry_points) == [entry_point]


def test_two_folders_with_either_name_are_ambiguous(tmp_path: Path, cache: Path) -> None:
    archive = packed(tmp_path / "in", {"a/fedn.yaml": TRAIN, "b/scaleout.yaml": TRAIN}, tmp_path / "p.tar.gz")
    with pytest.raises(ArchiveError, match=r"more than one top-level folder.*'a/fedn.yaml', 'b/scaleout.yaml'"):
        opened(archive, cache)


def test_pattern_that_ignores_the_scaleout_yaml_is_refused(client: Path, tmp_path: Path) -> None:
    (client / "fedn.yaml").rename(client / "scaleout.yaml")
    (client / ".scaleoutignore").write_text("*.yaml\n")
    with pytest.raises(PackageError, match=r"'\*.yaml' \(.scaleoutignore, line 1\) excludes it"):
        build_package(client, tmp_path / "p.tgz")
