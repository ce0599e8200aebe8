"""Every file name of a task has one home; docs/reference/home.md and `session show` say the same names."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedpkg.waist.order import Order
from fedpkg.waist.place import Place, names_of_calls, package_in, place_of, reply_of, states_folder, told_in

DOCS = Path(__file__).parents[3]
SESSION = Path("sessions/ID")


def order_of(client_id: str = "CLIENT", *, attempt: int = 1) -> Order:
    return Order(
        task_id="t",
        session_id="ID",
        round_number=3,
        client_id=client_id,
        entry_point="train",
        package="p",
        reply_spec="r",
        attempt=attempt,
    )


def test_names_are_those_of_the_documentation() -> None:
    said = (
        (DOCS / "docs" / "reference" / "home.md")
        .read_text()
        .replace("ENTRY_POINT", "train")
        .replace("round-N", "round-3")
    )
    place = place_of(SESSION, order_of())
    for path in (place.folder, place.reply, states_folder(SESSION, "CLIENT") / "VERSION"):
        assert f"`{path}/" in said, path
    files = (DOCS / "fedpkg" / "DESIGN.md").read_text()
    logs = (place.log("stdout"), place.log("stderr"))
    listed = (place.input, place.input_metadata, place.out, place.task_json, *logs)
    assert all(f"{path.name} " in files or f" {path.name}" in files for path in listed)
    assert [path.name for path in listed[:3]] == ["in.npz", "in.npz-metadata", "out.npz"]
    assert [path.name for path in listed[3:]] == ["task.json", "stdout.log", "stderr.log"]


def test_calls_tries_and_startup_have_names_of_their_own() -> None:
    place = place_of(SESSION, order_of(attempt=2), suffix=".safetensors", out_name="out.json")
    assert str(place.folder) == "sessions/ID/round-3/CLIENT/train-2"
    assert str(place.reply) == "sessions/ID/round-3/CLIENT/train-2.reply"
    assert str(place.version) == "sessions/ID/clients/CLIENT/3-train-2"
    assert (place.package, place.state) == (package_in(place.version), place.version / "state")
    again = place.again(1)
    assert (again.folder.name, again.version.name) == ("train-2.again-1", "3-train-2.again-1")
    assert (again.input.name, again.out.name) == ("in.safetensors", "out.json")
    assert place.log("stderr", of_startup=True).name == "startup.stderr.log"
    build = place_of(SESSION, order_of(""))
    assert (str(build.folder), str(build.version)) == ("sessions/ID/build", "sessions/ID/build.work")


def test_names_of_calls_are_told_from_other_names() -> None:
    pattern = names_of_calls(["train", "a.b"])
    for path in (Path("train"), Path("train-12"), Path("train-2.again-1"), Path("a.b")):
        found, of_reply = pattern.fullmatch(path.name), pattern.fullmatch(reply_of(path).name)
        assert found is not None and found.groups() == (path.name, None)
        assert of_reply is not None and of_reply.groups() == (path.name, ".reply")
    for name in ("trains", "axb", "train-", "train.again-", "train.reply.reply", ".payload-1-1.npz"):
        assert pattern.fullmatch(name) is None, name


@pytest.mark.parametrize(
    ("message", "written", "name"),
    [
        ("'train' exited with code 1", {"stderr.log": "x", "stdout.log": "y"}, "stderr.log"),
        ("'train' exited with code 1", {"stderr.log": "", "stdout.log": "y"}, "stdout.log"),
        ("'startup' exited with code 1", {"startup.stderr.log": "x", "stderr.log": ""}, "startup.stderr.log"),
        ("'startup' exited with code 1", {"stderr.log": "x"}, "stderr.log"),  # called by itself
    ],
)
def test_log_that_is_told_of_has_something_to_tell(
    tmp_path: Path, message: str, written: dict[str, str], name: str
) -> None:
    for file, text in written.items():
        (tmp_path / file).write_text(text)
    assert told_in(tmp_path, message).name == name
    assert {path.name for path in tmp_path.iterdir()} <= Place(tmp_path, tmp_path / "version").given
