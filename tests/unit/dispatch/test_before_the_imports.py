"""What a script does before its imports has the same effect in warm tasks as in cold ones."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import pytest
from workbench import PRELUDE, inline, make_bench, marked

from fedpkg.compute_package.spec import EntryPoint, PackageSpec
from fedpkg.dispatch.site import PackageOnDisk
from fedpkg.types import ReplyKind

# An installed library that looks at everything when it is imported, and one that depends on it.
OBSERVER = """
import ctypes, os, random, sys, warnings
_getenv = ctypes.CDLL(None).getenv
_getenv.restype = ctypes.c_char_p
SEEN = {
    "flag": os.environ.get("FLAG"), "other": os.environ.get("OTHER"), "configured": os.environ.get("CONFIGURED"),
    "native": (_getenv(b"FLAG") or b"").decode(), "filter": warnings.filters[0][0], "path": "added" in sys.path,
    "argument": sys.argv[-1] == "changed", "patched": getattr(os, "patched", None), "mode": switch.MODE,
}
PID = os.getpid()
os.environ.setdefault("SET_BY_LIBRARY", "1")
""".replace("import ctypes", "import switch, ctypes")
SWITCH = "MODE = 'usual'\ndef use(mode):\n    global MODE\n    MODE = mode\nactivate = use\nrun = use\ntable = {}\n"

# name → (what comes before the report, whether the observer is imported before the fork)
SCRIPTS: dict[str, tuple[str, bool]] = {
    "plain": ("import observer", True),
    "constant": ("os.environ['FLAG'] = '1'\nimport observer", True),
    "several": ("os.environ['FLAG'] = os.environ['OTHER'] = '1'\nimport observer", True),
    "default": ("os.environ.setdefault('FLAG', '2')\nimport observer", True),
    "default_of_configured": ("os.environ.setdefault('CONFIGURED', 'script')\nimport observer", True),
    "configured": ("os.environ['CONFIGURED'] = 'script'\nimport observer", True),
    "update": ("os.environ.update({'FLAG': '3'}, OTHER='x')\nimport observer", True),
    "union": ("os.environ |= {'FLAG': '3'}\nimport observer", True),
    "putenv": ("os.putenv('FLAG', '4')\nimport observer", True),
    "from_os": ("from os import environ as e\ne['FLAG'] = '5'\nimport observer", True),
    "alias": ("env = os.environ\nenv['FLAG'] = '6'\nimport observer", True),
    "in_between": ("import switch\nos.environ['FLAG'] = '7'\nfrom observer import SEEN", True),
    "afterwards": ("import observer\nos.environ['FLAG'] = os.getcwd()[:1]", True),
    "computed": ("os.environ['FLAG'] = str(1 + 1)\nimport observer", False),
    "conditional": ("if 'FLAG' not in os.environ:\n    os.environ['FLAG'] = '1'\nimport observer", False),
    "in_a_loop": ("for name in ('FLAG', 'OTHER'):\n    os.environ[name] = 'x'\nimport observer", False),
    "in_a_function": ("def set_up():\n    os.environ['FLAG'] = '8'\nset_up()\nimport observer", False),
    "in_a_class": ("class Settings:\n    os.environ['FLAG'] = str(9)\nimport observer", False),
    "handed_on": ("def set_up(e):\n    e['FLAG'] = '8'\nset_up(os.environ)\nimport observer", False),
    "removed": ("os.environ['FLAG'] = '1'\ndel os.environ['FLAG']\nimport observer", False),
    "popped": ("was = os.environ.pop('CONFIGURED', None)\nimport observer", False),
    "function_imports": (
        "def main():\n    import observer\nos.environ['FLAG'] = str(3)\nmain()\nimport observer",
        False,
    ),
    "late_function": ("def main():\n    os.environ['FLAG'] = 'z'\n    import observer\nmain()\nimport observer", False),
    "filter": ("import warnings\nwarnings.filterwarnings('always', category=FutureWarning)\nimport observer", True),
    "error_filter": ("import warnings\nwarnings.simplefilter('error')\nimport observer", False),
    "path": ("sys.path.append('added')\nimport observer", False),
    "arguments": ("sys.argv.append('changed')\nimport observer\nsys.argv.pop()", False),
    "use": ("import switch\nswitch.use('other')\nimport observer", False),
    "activate": ("import switch\nok = switch.activate('other')\nimport observer", False),
    "called_for_effect": ("import switch\nswitch.run('other')\nimport observer", False),
    "patched": ("os.patched = 'yes'\nimport observer", False),
    "set_attribute": ("setattr(os, 'patched', 'yes')\nimport observer", False),
    "executed": ("exec(\"os.environ['FLAG'] = '1'\")\nimport observer", False),
    "own_module": ("import settings\nimport observer", True),
    "own_function": ("import later\nlater.set_up()\nimport observer", False),
    "own_module_between": ("from package_of_settings import name\nimport observer", False),
    "main_only": ("import observer\nif __name__ == '__main__':\n    os.environ['OTHER'] = str(1)", True),
    "values": ("import re\nWORD = re.compile('a')\nx = len('abc')\nprint('hello')\nimport observer", True),
    "collects": ("os.environ['FLAG'] = 'of its own'\nimport tuned\nimport observer", True),
    "half_imported": ("try:\n    import half\nexcept OSError:\n    pass\nimport half_of\nimport observer", True),
}
OWN = {
    "settings.py": "import os\nos.environ['FLAG'] = 'own'\nif __name__ == '__main__':\n    del os.environ['FLAG']\n",
    "later.py": "import os\ndef set_up():\n    os.environ['FLAG'] = 'later'\n",
    "package_of_settings/__init__.py": "from . import inner\nname = 1\n",
    "package_of_settings/inner.py": "import os\nos.environ['FLAG'] = str(4)\n",
}
REPORT = """
import gc, os as real_os
seen = sys.modules["observer"]
half = half_of.STATE if "half_of" in globals() else None
environ = {name: real_os.environ.get(name) for name in ("FLAG", "OTHER", "CONFIGURED", "SET_BY_LIBRARY")}
tell(seen=seen.SEEN, environ=environ, half=half, collects=gc.get_threshold(), mine=seen.PID == os.getpid())
"""


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> PackageOnDisk:
    root = tmp_path_factory.mktemp("Vor den Importen")
    files = {f"client/{name}.py": PRELUDE + code + REPORT for name, (code, _) in SCRIPTS.items()}
    files |= {f"client/{name}": text for name, text in OWN.items()}
    files |= {"site/observer.py": OBSERVER, "site/switch.py": SWITCH}
    files["site/tuned.py"] = "import gc\ngc.set_threshold(5000)\n"
    files["site/half_of.py"] = "import os\nSTATE = [os.environ.get('FLAG')]\n"
    files["site/half.py"] = (
        "import half_of\nhalf_of.STATE.append('half')\nif 'FEDPKG_TASK' not in __import__('os').environ:"
    )
    files["site/half.py"] += "\n    raise OSError\n"
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(textwrap.dedent(text))
    spec = PackageSpec({name: EntryPoint(name, f"python {name}.py") for name in SCRIPTS})
    return PackageOnDisk("before the imports", root / "client", root / "client", spec)


@pytest.fixture(scope="module")
def told(package: PackageOnDisk, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, list[Any]]]:
    """What each script tells in each executor; twice where an interpreter stays for the second time."""
    found: dict[str, dict[str, list[Any]]] = {}
    for executor in ("process", "forkserver", "resident"):
        stays = executor == "resident"  # for scripts that import something late, it forks as forkserver does
        names = [name for name, (_, warm) in SCRIPTS.items() if warm or not stays or name == "computed"]
        environment = {"PYTHONPATH": str(package.root.parent / "site"), "CONFIGURED": "run"}
        bench = make_bench(executor, tmp_path_factory.mktemp("Bank"), package, slots=1, **environment)
        try:
            found[executor] = {
                name: [bench.told(package, name, reply_kind=ReplyKind.METRICS) for _ in range(1 + stays)]
                for name in names
            }
        finally:
            bench.executor.close()
        assert marked(bench.mark) == []
    return found


@pytest.mark.slow
@pytest.mark.parametrize("name", SCRIPTS)
def test_script_finds_the_same_warm_as_cold(told: dict[str, dict[str, list[Any]]], name: str) -> None:
    (cold,) = told["process"][name]
    warm = SCRIPTS[name][1]
    for executor in ("forkserver", "resident"):
        for answer in told[executor].get(name, []):
            assert (executor, answer) == (executor, {**cold, "mine": not warm})


@pytest.mark.parametrize("executor", ["process", "forkserver", "resident"])
def test_library_that_reads_what_differs_between_clients_is_imported_in_each_task(
    tmp_path: Path, executor: str
) -> None:
    site = tmp_path / "site"
    site.mkdir()
    (site / "cache.py").write_text("import os\nPLACE = os.environ.get('CACHE')\n")
    (site / "plotting.py").write_text("import matplotlib\n")
    (site / "matplotlib.py").write_text("import os\nREAD = os.path.exists('matplotlibrc')\n")
    code = "import cache, plotting\ntell(place=cache.PLACE, read=plotting.matplotlib.READ)"
    package = inline(tmp_path, code, matplotlibrc="")
    bench = make_bench(executor, tmp_path, package, slots=1, PYTHONPATH=str(site), CACHE="of {client_id}")
    try:
        for client in ("a", "b"):
            assert bench.told(package, client_id=client) == {"place": f"of {client}", "read": True}
    finally:
        bench.executor.close()
