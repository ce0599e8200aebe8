"""A full disk stops a session with a clear error; when there is space again it goes on to the same bits."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from federation import DRIFTING, Federation

from fedpkg.config import RunConfig
from fedpkg.controller.events import Event
from fedpkg.errors import StoreError
from fedpkg.stores.home import Home


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "kleine Platte ü"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", str(folder)], capture_output=True, text=True
    )
    if mounted.returncode != 0:
        pytest.skip(f"a small disk cannot be mounted here: {mounted.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def config_of(federation: Federation) -> RunConfig:
    return federation.config(
        package=str(DRIFTING),
        clients=4,
        rounds=3,
        validation={"every": 2},
        arguments={"train": {"fails": "client-1@2"}},
    )


def fill(path: Path) -> None:
    """Write until nothing fits any more."""
    with open(path, "wb", buffering=0) as file:
        for size_bytes in (1 << 20, 1 << 12, 1):
            try:
                while True:
                    file.write(os.urandom(size_bytes))
            except OSError:
                continue


@pytest.mark.slow
@pytest.mark.parametrize("moment", [1, 4, 7, 10, 13, 16])
def test_session_on_a_full_disk_stops_and_resumes_to_the_same_bits(
    federation: Federation, small_disk: Path, moment: int
) -> None:
    undisturbed = federation.run(config_of(federation)).session_id
    small = Federation(Home.open(small_disk / "a home"))
    filler = small_disk / "filler"
    seen = 0

    def watch(_event: Event) -> None:
        nonlocal seen
        seen += 1
        if seen == moment:
            fill(filler)

    with pytest.raises(StoreError) as caught:
        small.run(config_of(small), watch=watch)
    assert caught.value.exit_code == 7
    assert "full" in str(caught.value) or "No space left" in str(caught.value)
    assert "session resume" in str(caught.value)
    filler.unlink()
    session = small.store.list_sessions()[-1]
    assert small.resume(session.session_id).status == "finished"
    assert small.digests(session.session_id) == federation.digests(undisturbed)
    rounds, expected = (f.store.list_rounds(s) for f, s in ((small, session.session_id), (federation, undisturbed)))
    assert [(row.counted, row.num_failed, row.metrics) for row in rounds] == [
        (row.counted, row.num_failed, row.metrics) for row in expected
    ]
