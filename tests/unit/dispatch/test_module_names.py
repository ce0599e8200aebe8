"""Every package has modules called data, model and train: nobody sees another's."""

from __future__ import annotations

from pathlib import Path

import pytest
from workbench import inline, make_bench

from fedpkg.dispatch.site import PackageOnDisk

SCRIPT = """
import data, model, train
from data import loaded
from fedn.utils.helpers import helpers
seen = [(module.OWNER, module.__file__.startswith(os.getcwd()), list(module.seen)) for module in (data, model, train)]
for module in (data, model, train):
    module.seen.append(os.environ["FEDN_DATA_PATH"])
helpers.get_helper("numpyhelper")
tell(seen=seen, loaded=loaded)
"""
MODULE = """
import os
OWNER = {owner!r}
seen = []
loaded = os.environ["FEDN_DATA_PATH"]
"""


def package(folder: Path, owner: str) -> PackageOnDisk:
    """All of these share one zygote, as they have one digest: there is no closer neighbour."""
    modules = {f"{name}__py": MODULE.format(owner=owner) for name in ("data", "model", "train")}
    return inline(folder, SCRIPT, **modules)


@pytest.mark.parametrize("executor", ["process", "forkserver", "resident"])
def test_packages_and_clients_never_see_each_others_modules(executor: str, tmp_path: Path) -> None:
    first, second = package(tmp_path, "first"), package(tmp_path, "second")
    bench = make_bench(executor, tmp_path, first, slots=1)
    try:
        for turn, which in enumerate([first, second, first, first, second]):
            data = tmp_path / f"client {turn}"
            owner = "first" if which is first else "second"
            told = bench.told(which, data_path=data)
            assert told == {"seen": [[owner, True, []]] * 3, "loaded": str(data)}
    finally:
        bench.executor.close()


@pytest.mark.parametrize("name", ["contextvars", "linecache", "logging", "mimetypes"])
def test_module_with_the_name_of_one_that_a_resident_needs_is_the_packages(name: str, tmp_path: Path) -> None:
    own = inline(tmp_path, f"import {name}\ntell(owner={name}.OWNER)", **{f"{name}__py": "OWNER = 'the package'\n"})
    bench = make_bench("resident", tmp_path, own, slots=1)
    try:
        assert [bench.told(own) for _ in range(2)] == [{"owner": "the package"}] * 2
    finally:
        bench.executor.close()
