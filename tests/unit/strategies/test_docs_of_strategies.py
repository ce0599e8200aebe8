"""The pages of docs on strategies, aggregators and samplers: their code runs, and their tables are complete."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from cohorts import stepped

from fedpkg.samplers import Scheme, make_sampler
from fedpkg.strategies import StepResult, Traits, make_strategy
from fedpkg.strategies.base import Reply, Request
from fedpkg.types import Sampling
from fedpkg.weights.weights import Weights

DOCS = Path(__file__).parents[3] / "docs"
WRITE = [(DOCS / "how-to" / f"write-{what}.md").read_text() for what in ("a-strategy", "an-aggregator", "a-sampler")]
STRATEGY, AGGREGATOR, SAMPLER = (re.findall(r"```python\n(.*?)```", page, re.DOTALL)[0] for page in WRITE)
TABLES = WRITE[2] + (DOCS / "reference" / "strategy-protocol.md").read_text()


def test_strategy_on_the_page_makes_its_step(tmp_path: Path) -> None:
    (tmp_path / "halfway.py").write_text(STRATEGY)
    strategy: Any = make_strategy({"file": str(tmp_path / "halfway.py"), "part": 0.25})
    model, moved = (Weights({"w": torch.full((3,), value)}) for value in (1.0, 5.0))
    after = stepped(strategy, strategy.init(model), [model, moved])["model"]
    assert torch.equal(after["w"], torch.full((3,), 1.5))


def test_aggregator_on_the_page_folds(tmp_path: Path) -> None:
    (tmp_path / "square_root.py").write_text(AGGREGATOR)
    strategy: Any = make_strategy({"file": str(tmp_path / "square_root.py"), "aggregator": "square-root-mean"})
    model = Weights({"w": torch.zeros(3)})
    replies = [Reply("r", n, f"c{n}", {"": Weights({"w": torch.full((3,), n * 8.0)})}, 9.0**n) for n in range(2)]
    after = strategy.tell(strategy.init(model), iter(replies))["model"]
    assert torch.equal(after["w"], torch.full((3,), 6.0))  # (1 * 0 + 3 * 8) / 4


def test_sampler_on_the_page_chooses_and_says_how(tmp_path: Path) -> None:
    (tmp_path / "first.py").write_text(SAMPLER)
    sampler = make_sampler({"file": str(tmp_path / "first.py"), "count": 2})
    assert sampler.sampling(["a", "b", "c", "d"], {}) == Sampling(Scheme.DATA_FREE, 0.5)


@pytest.mark.parametrize("what", [Request, Traits, StepResult])
def test_tables_name_all_fields_and_their_defaults(what: Any) -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*?) \|", TABLES, re.MULTILINE))
    for field in dataclasses.fields(what):
        assert field.name in rows
        if what is Traits:
            assert rows[field.name].replace('"', "'") == f"`{field.default!r}`", field.name
    assert {scheme.name for scheme in Scheme} == set(re.findall(r"^\| `Scheme\.(\w+)`", TABLES, re.MULTILINE))
