"""What can be named in a run.yaml explains itself: a sentence for each name, and sentences for each parameter."""

from __future__ import annotations

import re

import pytest

from fedpkg.data.partitioners.registry import PARTITIONERS
from fedpkg.registry import Spec
from fedpkg.samplers.registry import SAMPLERS
from fedpkg.strategies.registry import STRATEGIES
from fedpkg.transforms.registry import TRANSFORMS

SPECS = [
    spec
    for registry in (STRATEGIES, TRANSFORMS, SAMPLERS, PARTITIONERS)
    for kind in registry.kinds
    for spec in registry.specs(kind)
    if spec.source == "fedpkg"
]


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: f"{spec.kind} {spec.name}")
def test_a_spec_has_one_sentence_an_equation_in_ascii_and_explained_parameters(spec: Spec) -> None:
    assert re.fullmatch(r"[A-Z](?:[^.]|\.(?=\w))*\.", spec.about) and len(spec.about) <= 120
    assert spec.equation and spec.equation.isascii()
    unexplained = [one.name for one in spec.parameters.values() if not re.fullmatch(r"[A-Z`{].*\.", one.about)]
    assert not unexplained


def test_options_of_all_samplers_and_partitioners_are_explained() -> None:
    assert [
        name
        for name, option in {**SAMPLERS.options, **PARTITIONERS.options}.items()
        if not re.fullmatch(r"[A-Z`{].*\.", option.about)
    ] == []
