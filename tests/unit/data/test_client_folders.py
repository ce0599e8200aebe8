"""Clients from a count or from folders: names, order, and names that cannot be."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fedpkg.config import ClientsConfig
from fedpkg.data.base import ClientData
from fedpkg.data.clients import prepare_clients
from fedpkg.errors import DataError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "Klienten [1] und mehr"
    path.mkdir()
    return path


def find(pattern: Path | str) -> list[ClientData]:
    return prepare_clients(ClientsConfig(folders=str(pattern)), cache=Path("unused"), seed=0)


def found(folder: Path, pattern: str) -> list[tuple[str, str]]:
    """Ids and paths below ``folder``, whose own brackets are escaped as ``load_config`` does."""
    clients = find(str(folder).replace("[", "[[]") + "/" + pattern)
    return [(client.client_id, str(client.path).removeprefix(f"{folder}/")) for client in clients]


def test_a_count_gives_clients_without_data(tmp_path: Path) -> None:
    clients = prepare_clients(ClientsConfig(count=11), cache=tmp_path, seed=0)
    assert clients[0] == ClientData("client-00", 0, 11, None, None)
    assert clients[10] == ClientData("client-10", 10, 11, None, None)
    assert prepare_clients(ClientsConfig(count=10), cache=tmp_path, seed=0)[9].client_id == "client-9"


def test_a_plain_folder_gives_a_client_for_each_folder_in_it(folder: Path) -> None:
    for name in ("client10", "client2", "Zürich 東京", ".hidden"):
        (folder / name).mkdir()
    (folder / "README.md").touch()
    clients = find(folder)
    assert [client.client_id for client in clients] == ["Zürich 東京", "client2", "client10"]
    assert clients[1] == ClientData("client2", 1, 3, folder / "client2", None)


def test_a_pattern_of_folders_names_clients_after_them(folder: Path) -> None:
    for name in ("site-1", "site-12", "site-3", "other"):
        (folder / name).mkdir()
    assert [name for name, _path in found(folder, "site-*")] == ["site-1", "site-3", "site-12"]


def test_files_of_one_name_are_called_after_the_part_that_differs(folder: Path) -> None:
    for name in ("1", "2", "10"):
        (folder / "clients" / name).mkdir(parents=True)
        (folder / "clients" / name / "mnist.pt").touch()
    assert found(folder, "clients/*/mnist.pt") == [(name, f"clients/{name}/mnist.pt") for name in ("1", "2", "10")]


def test_folders_of_one_name_are_too(folder: Path) -> None:
    for name in ("a", "b"):
        (folder / name / "data").mkdir(parents=True)
    assert found(folder, "*/data") == [("a", "a/data"), ("b", "b/data")]


def test_files_side_by_side_are_called_by_their_stem(folder: Path) -> None:
    for name in ("c2.npz", "c1.npz"):
        (folder / name).touch()
    assert found(folder, "*.npz") == [("c1", "c1.npz"), ("c2", "c2.npz")]


def test_a_single_file_is_called_after_the_wildcard(folder: Path) -> None:
    (folder / "anna").mkdir()
    (folder / "anna" / "d.npz").touch()
    assert found(folder, "*/d.npz") == [("anna", "anna/d.npz")]
    assert [client.client_id for client in find(folder / "anna" / "d.npz")] == ["d"]


def test_a_single_folder_is_called_by_its_name(folder: Path) -> None:
    (folder / "anna.v1").mkdir()
    assert found(folder, "a*") == [("anna.v1", "anna.v1")]


def test_nothing_found_is_an_error(folder: Path) -> None:
    with pytest.raises(DataError, match=r"clients.folders: there are no folders in .*mehr"):
        find(folder)
    with pytest.raises(DataError, match=r"clients.folders \(--data, --database\): nothing matches .*x-\*"):
        find(folder / "x-*")


def test_folders_and_files_together_are_refused(folder: Path) -> None:
    (folder / "a").mkdir()
    (folder / "notes.txt").touch()
    with pytest.raises(DataError, match=r"matches folders and files, among them .*notes.txt"):
        found(folder, "*")
    assert found(folder, "*/") == [("a", "a")]


def test_two_clients_of_one_name_are_refused(folder: Path) -> None:
    for name in ("a/1", "a/2", "b/3"):
        (folder / name).mkdir(parents=True)
        (folder / name / "d.pt").touch()
    with pytest.raises(DataError, match=r"2 clients would be called 'a': .*a/1/d.pt, .*a/2/d.pt"):
        found(folder, "*/*/d.pt")


@pytest.mark.parametrize("name", ["a\nb", "a\u202eb", ".x", "ä" * 101], ids=ascii)
def test_a_name_that_cannot_be_an_id_is_refused(folder: Path, name: str) -> None:
    (folder / "sites" / name).mkdir(parents=True)
    with pytest.raises(DataError, match="cannot be a client's id"):
        found(folder, "sites/.*" if name == ".x" else "sites/*")


def test_a_name_that_is_not_utf8_is_refused(folder: Path) -> None:
    os.mkdir(os.fsencode(folder) + b"/\xff")
    with pytest.raises(DataError, match="cannot be a client's id"):
        find(folder)


def test_a_link_to_nothing_is_refused(folder: Path) -> None:
    (folder / "a.npz").symlink_to(folder / "gone.npz")
    with pytest.raises(DataError, match=r"a.npz is a broken link"):
        found(folder, "*.npz")
