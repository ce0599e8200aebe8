"""Messages of algorithms, as the logs of production have them."""

from __future__ import annotations

import pytest

from fedpkg.analytics import log


def test_messages_begin_with_the_word_for_how_serious_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    for write in (log.info, log.warn, log.warning, log.error, log.debug):
        write("rows: 5")
    assert capsys.readouterr().out.splitlines() == [
        "info > rows: 5",
        "warn > rows: 5",
        "warn > rows: 5",
        "error > rows: 5",
        "debug > rows: 5",
    ]
