"""What is composed is what hydra's own Compose API makes of the same folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from omegaconf import OmegaConf

from fedpkg.experiments.composing import compose
from tests.unit.experiments.experiment_files import write

# All keys are in free sections, so that nothing is filled in; `_global_` is what fedpkg takes a group's file to be.
HEAD = "# @package _global_\n"
FILES = {
    "experiment.yaml": """
defaults:
  - base
  - late: null
  - method: fedavg
  - data: iid
  - optional extra/${method}: ${data}
  - _self_
package: p
rounds: 2
clients: {count: 2}
run_config: {own: 1, list: [1, 2], section: {a: 1, b: {c: 2}}}
arguments: {train: {lr: 0.1, batch: 8}}
""",
    "base.yaml": HEAD + "run_config: {own: 0, base: 1, section: {b: {d: 4}}}",
    "method/fedavg.yaml": HEAD + "arguments: {train: {lr: 5, method: fedavg}}",
    "method/fedprox.yaml": HEAD + "defaults: [fedavg, _self_]\narguments: {train: {method: fedprox, mu: 1}}",
    "method/both.yaml": HEAD + "defaults: [_self_, fedprox, override /late: one]\narguments: {train: {method: both}}",
    "data/iid.yaml": "# @package run_config.first\nkind: iid\nsizes: [1]",
    "data/dirichlet.yaml": "# @package run_config.first\nkind: dirichlet\nalpha: 0.3",
    "extra/fedprox/dirichlet.yaml": HEAD + "run_config: {extra: '${run_config.base}'}",
    "late/one.yaml": HEAD + "run_config: {own: 7, late: true}",
    "late/two.yaml": "# @package run_config.late\nlist: [3]",
}
WORDS = [
    [],
    ["method=fedprox"],
    ["method=both", "rounds=3"],
    ["method=both", "late=two"],
    ["data=dirichlet"],
    ["method=fedprox", "data=dirichlet"],
    ["late=one", "run_config.own=9"],
    ["late=[one,two]"],
    ["+data@run_config.second=dirichlet"],
    ["~method", "~arguments.train.batch"],
    ["+run_config.section={}", "+run_config.empty={}"],
    ["++run_config={own: {x: 1}}", "~run_config.section.a"],
    ["~late", "~run_config.section.b.c=2"],
    ["run_config.list=[3,4,5]", "+run_config.new.deep=x"],
    ["++run_config.own=null", "++run_config.also='a, b'"],
    ["+run_config.section={b: {e: 5}, f: [1, {g: 2}]}"],
    ["run_config.own=${rounds}", "+run_config.text='${run_config.base} of ${package}'"],
    ["arguments.train.lr=1e-3", "arguments.train.batch=true"],
    ["+run_config.odd=int(3.7)", "+run_config.words=str(3)"],
]


@pytest.mark.parametrize("words", WORDS, ids=lambda words: " ".join(words) or "defaults")
def test_the_same_as_hydras_compose_api(tmp_path: Path, words: list[str]) -> None:
    folder = write(tmp_path / "x", FILES)
    with initialize_config_dir(str(folder), version_base="1.3"):
        made: Any = OmegaConf.to_container(hydra_compose("experiment", words), resolve=True)
    config = compose(folder, words, resolve=None).config
    assert config.arguments == made["arguments"]
    assert config.run_config == made["run_config"]
    assert (config.rounds, config.clients.count) == (made["rounds"], made["clients"]["count"])
