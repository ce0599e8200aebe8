"""A Python file that registers names of several kinds: it runs once in a process, for all of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedpkg.config_shape import Places
from fedpkg.data.partitioners.registry import PARTITIONERS, resolve_partition
from fedpkg.errors import ConfigError
from fedpkg.samplers.registry import resolve_sampler
from fedpkg.strategies.registry import STRATEGIES, resolve_strategy

HERE = Places("here")
FILE = '''
from pathlib import Path

from fedpkg.data.partitioners.registry import register_partitioner
from fedpkg.samplers.registry import register_sampler
from fedpkg.strategies.registry import register_strategy

with open(Path(__file__).parent / "runs.txt", "a") as file:
    file.write("run\\n")


@register_strategy("of_one_file", aliases=("of_one_file_again",))
class Strategy:
    """A strategy."""


@register_partitioner("of_one_file")
class Partitioner:
    """A partitioner."""

    def split(self, values, num_partitions, rng): ...
'''
SAMPLER = '''

@register_sampler("of_one_file")
class Sampler:
    """A sampler."""
'''


def runs(folder: Path) -> int:
    return len((folder / "runs.txt").read_text().splitlines())


def test_a_file_runs_once_for_all_registries_and_again_when_its_content_changes(tmp_path: Path) -> None:
    file, link = tmp_path / "mine.py", tmp_path / "link.py"
    file.write_text(FILE)
    link.symlink_to(file)
    assert resolve_strategy({"file": str(file)}, HERE)["name"] == "of_one_file"
    strategy = STRATEGIES.find("strategy", "of_one_file", HERE, ()).make
    for path in (file, link, tmp_path / ".." / tmp_path.name / "mine.py"):
        assert resolve_partition({"file": str(path), "by": "site"}, HERE)["name"] == "of_one_file"
        assert STRATEGIES.run_file(path) == ["of_one_file"]
    assert runs(tmp_path) == 1 and STRATEGIES.find("strategy", "of_one_file", HERE, ()).make is strategy
    with pytest.raises(ConfigError, match="'sampler' has a file, but no name"):
        resolve_sampler({"file": str(file)}, HERE)
    before = resolve_strategy({"file": str(file)}, HERE)["file_sha256"]
    file.write_text(FILE + SAMPLER)
    assert resolve_sampler({"file": str(link)}, HERE)["name"] == "of_one_file"
    now = resolve_strategy({"file": str(file)}, HERE)
    assert now["name"] == "of_one_file" and now["file_sha256"] != before
    assert PARTITIONERS.run_file(file) == ["of_one_file"] and runs(tmp_path) == 2


def test_a_file_that_is_run_for_a_strategy_takes_no_name_of_a_partitioner(tmp_path: Path) -> None:
    text = FILE.replace('partitioner("of_one_file")', 'partitioner("shards")').replace("of_one_file", "of_another")
    (tmp_path / "mine.py").write_text(text)
    with pytest.raises(ConfigError, match="the name 'shards' is taken: fedpkg has a partitioner of that name"):
        resolve_strategy({"file": str(tmp_path / "mine.py")}, HERE)
    assert PARTITIONERS.find("partitioner", "shards", HERE, ()).source == "fedpkg"
