"""docs/strategies.md: its code runs, and its tables are complete."""

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
from fedpkg.types import Sampling
from fedpkg.weights.weights import Weights

PAGE = (Path(__file__).parents[3] / "docs" / "strategies.md").read_text()
CODE = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


def test_strategy_on_the_page_makes_its_step(tmp_path: Path) -> None:
    (tmp_path / "halfway.py").write_text(CODE[0])
    strategy: Any = make_strategy({"file": str(tmp_path / "halfway.py"), "part": 0.25})
    model, moved = (Weights({"w": torch.full((3,), value)}) for value in (1.0, 5.0))
    after = stepped(strategy, strategy.init(model), [model, moved])["model"]
    assert torch.equal(after["w"], torch.full((3,), 1.5))


def test_sampler_on_the_page_chooses_and_says_how(tmp_path: Path) -> None:
    (tmp_path / "first.py").write_text(CODE[1])
    sampler = make_sampler({"file": str(tmp_path / "first.py"), "count": 2})
    assert sampler.sampling(["a", "b", "c", "d"], {}) == Sampling(Scheme.DATA_FREE, 0.5)


@pytest.mark.parametrize("what", [Traits, StepResult])
def test_tables_name_all_fields_and_their_defaults(what: Any) -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*?) \|", PAGE, re.MULTILINE))
    for field in dataclasses.fields(what):
        assert field.name in rows
        if what is Traits:
            assert rows[field.name].replace('"', "'") == f"`{field.default!r}`", field.name
    assert {scheme.name for scheme in Scheme} == set(re.findall(r"^\| `Scheme\.(\w+)`", PAGE, re.MULTILINE))
