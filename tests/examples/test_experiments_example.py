"""The lesson of examples/experiments: its files are those that it shows, and its table is what its commands make."""

from __future__ import annotations

import re
import resource
import sys
from pathlib import Path

import pytest
import yaml
from lessons import ROOT, bash, copy_of_repository

LESSON = ROOT / "examples" / "experiments"
TEXT = (LESSON / "README.md").read_text()


def rows(text: str) -> dict[tuple[str, str], float]:
    """The mean of the first column of results, by method and data."""
    lines = re.findall(r"^\| (fed\w+|scaffold) \| (\w+) \| 3 \| ([\d.]+) ± ", text, re.MULTILINE)
    return {(method, data): float(mean) for method, data, mean in lines}


def test_the_lesson_shows_what_is_in_its_files() -> None:
    root, data = map(yaml.safe_load, re.findall(r"^```yaml\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL))
    whole = yaml.safe_load((LESSON / "experiment.yaml").read_text())
    assert root == {key: whole[key] for key in root}
    assert data == yaml.safe_load((LESSON / "data" / "two_digits.yaml").read_text())
    for group in ("data", "method"):
        for path in (LESSON / group).iterdir():
            assert path.name in TEXT


def test_the_lesson_has_a_row_for_each_combination() -> None:
    assert len(rows(TEXT)) == 9
    assert (LESSON / "accuracy.png").stat().st_size < 200_000


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_the_table_of_the_lesson_is_what_its_commands_make(tmp_path: Path) -> None:
    folder = copy_of_repository(tmp_path) / "examples" / "experiments"
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
    (commands,) = (block for language, block in blocks if not language)
    (folder / "accuracy.png").unlink()
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    bash(commands, folder, timeout_s=1500)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert (folder / "accuracy.png").is_file()
    made = rows((folder / "table.md").read_text())
    assert made.keys() == rows(TEXT).keys()
    for key, mean in rows(TEXT).items():
        assert made[key] == pytest.approx(mean, abs=0.03), key
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(f"CPU of the lesson: {cpu_s:.0f} s", file=sys.stderr)
    assert cpu_s < 2 * 180, "three minutes on two cores"
