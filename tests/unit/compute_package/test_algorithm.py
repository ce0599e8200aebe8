"""A folder as an algorithm: its module and functions, found without importing it."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedpkg.compute_package.algorithm import Algorithm, read_algorithm, spec_text
from fedpkg.compute_package.algorithm_review import review_of
from fedpkg.compute_package.spec import parse_spec
from fedpkg.errors import PackageError

OLD = '''
"""An algorithm of version 2."""
from .helpers import *
from .central import master as mean, _hidden


def RPC_count(data, column, *, at_least=1):
    """Count the values of a column."""
    return {"n": len(data)}
'''
CENTRAL = """
raise SystemExit("this must not be imported")

def master(client, data, column: str, *args):
    def inner():
        return 1
    task = client.create_new_task({"method": "count", "args": [column]}, [1])
    return client.get_results(task["id"])

def _hidden(client, data): pass

def unused(client, data): pass

def not_a_function_of_callers(data): pass
"""
HELPERS = """
import os, requests
import pandas as pd

def RPC_extra(df):
    return pd.read_csv(os.environ["OTHER"])
"""
NEW = """
from vantage6.algorithm.decorator.action import central, federated
from vantage6.algorithm.tools.decorators import algorithm_client, data, metadata
import vantage6.algorithm.tools.decorators as tools

@tools.data(2)
@algorithm_client
@metadata
def v4(client, meta, left, right, a, b: list[int] = [1]): pass

@data(number_of_databases=1)
def part(df, *, c=None): pass

@central
@algorithm_client
def v5(client, organizations): pass

@federated
@tools.dataframe(1)
def v5_part(df, **more): pass

@federated
@dataframes
def grouped(frames, level): pass

@federated
@dataframe("multiple", 2)
def many(frames, one, two, level=1): pass

def plain(df): pass

def ask(client, method, organizations): pass
"""


def folder_of(tmp_path: Path, files: dict[str, str]) -> Path:
    folder = tmp_path / "ein Algorithmus ü"
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def old(tmp_path: Path, **more: str) -> Algorithm:
    package = {"v6-mean-py/__init__.py": OLD, "v6-mean-py/central.py": CENTRAL, "v6-mean-py/helpers.py": HELPERS}
    return read_algorithm(folder_of(tmp_path, {**package, **more}))


def test_functions_of_former_versions_are_those_that_the_module_has(tmp_path: Path) -> None:
    found = old(tmp_path)
    assert found.module == "v6-mean-py" and found.found_by == "as the only package"
    names = {name: (one.kind, one.era, one.signature) for (_, name), one in found.functions.items()}
    assert names == {
        "mean": ("central", "v3", "column: str, …"),
        "count": ("partial", "v3", "column, at_least = 1"),
        "extra": ("partial", "v3", ""),
    }
    count = found.function("RPC_count")
    assert (count.doc, count.file, count.line) == ("Count the values of a column.", "v6-mean-py/__init__.py", 7)


def test_each_module_is_read_once_however_often_others_import_it(tmp_path: Path) -> None:
    """There are more than 10^12 ways through these modules."""
    modules = {f"m{number}": f"def RPC_f{number}(df): pass\n" for number in range(16)}
    imports = "".join(f"from .{name} import *\n" for name in modules)
    files = {f"algorithm/{name}.py": imports + text for name, text in modules.items()}
    found = read_algorithm(folder_of(tmp_path, {"algorithm/__init__.py": imports, **files}))
    assert {name for _, name in found.functions} == {f"f{number}" for number in range(16)}


def test_what_decorators_supply_is_no_argument(tmp_path: Path) -> None:
    found = read_algorithm(folder_of(tmp_path, {"new/__init__.py": NEW}))
    assert {name: (one.kind, one.era, one.signature) for (_, name), one in found.functions.items()} == {
        "v4": ("central", "v4", "a, b: list[int] = [1]"),
        "part": ("partial", "v4", "c = None"),
        "v5": ("central", "v5", "organizations"),
        "v5_part": ("partial", "v5", "…"),
        "grouped": ("partial", "v5", "level"),
        "many": ("partial", "v5", "level = 1"),
    }


@pytest.mark.parametrize(
    ("files", "module", "found_by"),
    [
        ({"Dockerfile": "ARG PKG_NAME='two'\n"}, "two", "by PKG_NAME in Dockerfile"),
        ({"Dockerfile": "FROM x\nENV PKG_NAME two\n"}, "two", "by PKG_NAME in Dockerfile"),
        ({"Dockerfile": 'ARG PKG_NAME="two"\nENV PKG_NAME=${PKG_NAME}\n'}, "two", "by PKG_NAME in Dockerfile"),
        ({"setup.py": "from setuptools import setup\nsetup(name='two')\n"}, "two", "by the name in setup.py"),
        ({"pyproject.toml": "[project]\nname = 'two'\n"}, "two", "by the name in pyproject.toml"),
        ({"Dockerfile": "ARG PKG_NAME=with-hyphens\n", "with_hyphens/__init__.py": ""}, "with_hyphens", "by PKG_NAME"),
    ],
)
def test_the_module_is_the_one_that_is_named(tmp_path: Path, files: dict[str, str], module: str, found_by: str) -> None:
    found = read_algorithm(folder_of(tmp_path, {"one/__init__.py": "", "two/__init__.py": "", **files}))
    assert found.module == module and found.found_by.startswith(found_by)


def test_a_name_that_is_no_package_leads_to_the_only_one(tmp_path: Path) -> None:
    files = {"setup.py": "setup(name='a-distribution')", "algorithm/__init__.py": "", "tests/__init__.py": ""}
    assert read_algorithm(folder_of(tmp_path, files)).module == "algorithm"


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"one/__init__.py": "", "two/__init__.py": ""}, "several packages (one, two)"),
        ({"README.md": ""}, "no package with an __init__.py, and no module"),
        ({"Dockerfile": "ARG PKG_NAME=absent\n", "one/__init__.py": ""}, "there is no package 'absent'"),
        ({"Dockerfile": "ARG PKG_NAME=../one\n", "one/__init__.py": ""}, "there is no package '../one'"),
    ],
)
def test_a_folder_without_one_module_is_refused(tmp_path: Path, files: dict[str, str], message: str) -> None:
    with pytest.raises(PackageError) as error:
        read_algorithm(folder_of(tmp_path, files))
    assert message in error.value.message


def test_source_that_does_not_parse_has_no_functions(tmp_path: Path) -> None:
    found = read_algorithm(folder_of(tmp_path, {"one/__init__.py": "def (:\n"}))
    assert not found.functions
    with pytest.raises(PackageError, match="has no function 'x'") as error:
        found.function("x")
    assert "no function that can be called" in (error.value.hint or "")


def test_its_fedn_yaml_has_one_entry_point() -> None:
    spec = parse_spec(spec_text("v6-mean-py"), "fedn.yaml")
    assert spec.entry_point("partial").command == "python -m _fedpkg_algorithm_node v6-mean-py"


def test_a_review_shows_what_it_imports_reads_and_sends(tmp_path: Path) -> None:
    found = review_of(old(tmp_path, **{"setup.py": "import setuptools\n"}))
    assert found.imports == ("os", "pandas", "requests")
    assert [(one.what, one.text) for one in found.reads] == [
        ("network", "import os, requests"),
        ("files", "pd.read_csv(os.environ['OTHER'])"),
        ("variables", "os.environ"),
    ]
    assert [(one.what, one.function, one.text) for one in found.sends] == [
        ("returns", "RPC_count", "{'n': len(data)}"),
        ("creates a task", "master", "client.create_new_task({'method': 'count', 'args': [column]}, [1])"),
        ("returns", "master", "client.get_results(task['id'])"),
        ("returns", "RPC_extra", "pd.read_csv(os.environ['OTHER'])"),
    ]
