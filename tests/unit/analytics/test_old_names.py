"""The published names of versions 1 to 3: each leads to something, unless the original is installed."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from fedpkg.analytics import names
from fedpkg.analytics.errors import DeserializationError
from fedpkg.analytics.legacy.client import ContainerClient

RUNTIME = Path(names.__file__).resolve().parents[1] / "runtime" / "path"


@pytest.fixture(autouse=True)
def served() -> None:
    names.serve()


def test_every_name_of_the_table_can_be_imported() -> None:
    table = importlib.import_module("vantage6._tools").MODULES
    assert len(table) > 15
    for module, inside in table.items():
        found = importlib.import_module(module)
        for name in inside:
            assert getattr(found, name) is not None, f"{module}.{name}"


@pytest.mark.parametrize(
    "line",
    [
        "from vantage6.tools.docker_wrapper import docker_wrapper, sparql_wrapper",
        "from vantage6.tools.wrapper import auto_wrapper, multidb_wrapper",
        "from vantage6.tools import docker_wrapper; docker_wrapper.docker_wrapper",
        "from vantage6.tools.dispatch_rpc import dispact_rpc, dispatch_rpc",
        "from vantage6.tools.util import info, warn, error",
        "from vantage6.tools.mock_client import ClientMockProtocol, MockAlgorithmClient",
        "from vantage6.tools.container_client import ClientContainerProtocol, ContainerClient",
        "from vantage6.tools.data_format import DataFormat; DataFormat('json')",
        "from vantage6.tools import serialization, deserialization; serialization.serialize",
        "from vantage6.tools.exceptions import DeserializationException",
        "from vantage6.client import Client, UserClient, ContainerClient, AlgorithmClient, ClientContainerProtocol",
        "from vantage6.client.algorithm_client import AlgorithmClient",
        "from vantage6.common import info, warning, error, bytes_to_base64s, base64s_to_bytes, logger_name",
        "import vantage6.tools.util; vantage6.tools.util.info",
    ],
)
def test_lines_of_public_algorithms_work(line: str) -> None:
    exec(line, {})


def test_names_lead_to_the_classes_that_the_runner_uses() -> None:
    tools = importlib.import_module("vantage6.tools.container_client")
    assert tools.ClientContainerProtocol is tools.ContainerClient is ContainerClient
    assert importlib.import_module("vantage6.tools.exceptions").DeserializationException is DeserializationError


def test_a_name_that_is_not_there_is_an_error_that_lists_those_that_are() -> None:
    with pytest.raises(
        ImportError, match=r"vantage6\.tools\.util\.inform.*vantage6\.tools\.util has: error, info, warn"
    ):
        exec("from vantage6.tools.util import inform", {})
    with pytest.raises(ImportError, match=r"vantage6\.tools\.vpn"):
        exec("from vantage6.tools import vpn", {})


@pytest.mark.parametrize(("folder", "expected"), [("tools", "theirs"), ("unrelated", "ours")])
def test_an_installed_original_takes_precedence(folder: str, expected: str, tmp_path: Path) -> None:
    """Its libraries share a folder without an __init__.py; a folder of that name alone is no library."""
    (tmp_path / "vantage6" / folder).mkdir(parents=True)
    (tmp_path / "vantage6" / folder / "__init__.py").touch()
    (tmp_path / "vantage6" / folder / "util.py").write_text("info = 'theirs'")
    program = (
        f"import sys; sys.path[:0] = [{str(RUNTIME)!r}, {str(tmp_path)!r}]\n"
        "import _fedpkg_compat; _fedpkg_compat.install()\n"
        "from vantage6.tools.util import info\n"
        "print('theirs' if info == 'theirs' else 'ours')"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == expected
