"""What a warm interpreter imports before a script begins, found by reading the script."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

from fedpkg.compute_package.imports import BIGGEST_FILE
from fedpkg.dispatch.preload import OPTIMISER, Preload, preloads_of

ORDINARY = {
    "config.py": """
        import os
        from dataclasses import dataclass
        import torch
        DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        ROOT = os.path.dirname(os.path.abspath(__file__))
        @dataclass
        class Settings:
            lr: float = float(os.environ.get("LR", "0.1"))
        SETTINGS = Settings()
    """,
    "model.py": """
        import collections
        import torch
        from torch import nn
        from fedn.utils.helpers.helpers import get_helper
        HELPER_MODULE = "numpyhelper"
        helper = get_helper(HELPER_MODULE)
        class Net(nn.Module):
            norm = nn.LayerNorm(3)
            @torch.no_grad()
            def predict(self, x):
                return self(x)
        if __name__ == "__main__":
            init_seed()
    """,
    "data.py": """
        import logging, os
        from torchvision import transforms
        logger = logging.getLogger(__name__)
        transform = transforms.Compose([transforms.ToTensor()])
        try:
            import cv2
        except ImportError:
            cv2 = None
        def load(path=None):
            from sklearn.datasets import load_digits
            with open(path, "w") as file:
                file.write("x")
    """,
    "train.py": """
        '''Docstring.'''
        from __future__ import annotations
        import sys
        from typing import TYPE_CHECKING
        if TYPE_CHECKING:
            import only_for_types
        import config
        from model import Net
        from data import load
        import pandas as pd
        def main():
            parser = argparse.ArgumentParser()
            torch.manual_seed(0)
            torch.set_num_threads(1)
            return parser.parse_args()
        if __name__ == "__main__":
            args = main()
            np.save("x", 1)
    """,
}


def preloads(folder: Path, files: dict[str, str], *scripts: str, settings: bool = True) -> dict[str, Preload]:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(textwrap.dedent(text))
    return preloads_of(folder, scripts or ("a.py",), settings=settings)


def test_ordinary_packages_are_preloaded_whole(tmp_path: Path) -> None:
    found = preloads(tmp_path, ORDINARY, "train.py")["train.py"]
    expected = {"torch", "torch.nn", "torchvision.transforms", "cv2", "pandas", "sklearn.datasets.load_digits", "numpy"}
    assert expected <= set(found.modules)
    assert (found.left_out, found.settings, found.steps[-1]) == ((), [], OPTIMISER)


@pytest.mark.parametrize(
    ("code", "left_out"),
    [
        ("import torch\ntorch.set_default_dtype(torch.float64)\nimport lib", ["lib"]),
        ("import random\nrandom.seed(1)\nimport lib", ["lib"]),
        ("import multiprocessing as mp\nmp.set_start_method('spawn')\nimport lib", ["lib"]),
        ("import os\nos.chdir('/')\nimport lib", ["lib"]),
        ("from dotenv import load_dotenv\nload_dotenv()\nimport lib", ["lib"]),
        ("import jax\njax.config.update('jax_enable_x64', True)\nimport lib", ["lib"]),
        ("import torch\ntorch.nn.Linear.forward = None\nimport lib", ["lib"]),
        ("import importlib\nimportlib.import_module('x' + 'y')\nimport lib", ["lib"]),
        ("open('settings.cfg', mode='w').close()\nimport lib", ["lib"]),
        ("import unittest.mock as m\nwith m.patch('os.x'):\n    import lib", ["lib"]),
        ("import os\ndef f():\n    os.environ['A'] = 'b'\n    import lib", ["lib"]),
        ("import matplotlib\nmatplotlib.use('Agg')\ndef f():\n    import lib", ["lib"]),
        ("import tool\ntool.run()\ndef f():\n    import lib", ["lib"]),
        ("import fire\ndef f():\n    import lib\nfire.Fire(f)", []),
        ("import torch\ndef f():\n    torch.backends.cudnn.deterministic = True\n    import lib", []),
        ("import own\nimport lib", ["lib"]),
        ("import os\ndef f():\n    os.environ['A'] = 'b'\nx = 'a'.upper()\nimport lib", []),
        ("import torch, os\ndef f():\n    os.environ['TORCH_LOGS'] = 'x'", ["torch._dynamo"]),
        ("import torch, os\ndef f():\n    os.environ['CUDA_VISIBLE_DEVICES'] = ''", []),
        ("import torch, os\nos.environ['TORCH_LOGS'] = 'x'\ndef f(): pass", []),
    ],
)
def test_imports_after_what_could_change_them_are_left_out(tmp_path: Path, code: str, left_out: list[str]) -> None:
    found = preloads(tmp_path, {"a.py": code, "own.py": "#" * (BIGGEST_FILE + 1)})["a.py"]
    assert [one.module for one in found.left_out] == left_out
    assert not {"lib"}.intersection(left_out).intersection(found.modules)
    assert all(one.because.startswith(("a.py:", "own.py cannot be read")) for one in found.left_out)


def test_what_only_a_function_imports_is_told_apart(tmp_path: Path) -> None:
    code = "import sys\nsys.path.append('x')\nimport lib\ndef f():\n    import seldom"
    left_out = preloads(tmp_path, {"a.py": code})["a.py"].left_out
    assert {one.module: one.nested for one in left_out} == {"lib": False, "seldom": True}


def test_scripts_share_an_interpreter_where_their_settings_agree(tmp_path: Path) -> None:
    files = {
        "settings.py": "import os\nos.environ['A'] = '1'\n",
        "a.py": "import settings\nimport csv, lib_a\n",
        "b.py": "import settings\nimport lib_b\n",
        "c.py": "import lib_c\n",
        "d.py": "import lib_d\n",
        "e.py": "import os\nos.environ['A'] = '2'\nimport lib_e\n",
    }
    found = preloads(tmp_path, files, *(f"{name}.py" for name in "abcde"))
    assert [found[f"{name}.py"].scripts for name in "ace"] == [("a.py", "b.py"), ("c.py", "d.py"), ("e.py",)]
    assert found["b.py"].modules == ["os", "csv", "lib_a", "lib_b"]
    assert found["d.py"].modules == ["lib_c", "lib_d"]
    assert found["e.py"].settings == ["os.environ['A'] = '2'"]


def test_settings_of_isolated_scripts_are_not_made_outside_their_walls(tmp_path: Path) -> None:
    code = "import csv, os\nos.environ['OPENSSL_CONF'] = 'evil.cnf'\nimport ssl\n"
    found = preloads(tmp_path, {"a.py": code}, settings=False)["a.py"]
    assert (found.settings, found.modules, [one.module for one in found.left_out]) == ([], ["csv", "os"], ["ssl"])


def test_relative_import_beyond_the_root_is_the_scripts_own_affair(tmp_path: Path) -> None:
    found = preloads(tmp_path, {"a.py": f"import lib_a\nfrom {'.' * 100}own import x\nimport lib_b\n"})["a.py"]
    assert found.modules == ["lib_a", "lib_b"]


def test_deep_code_is_followed_as_far_as_that_goes(tmp_path: Path) -> None:
    files = {
        "a.py": f"import lib_a\nx = {' + '.join(['1'] * 1200)}\ny = a{'.b' * 1200}\nimport lib_b\n",
        "b.py": "import lib_a\nif x: pass\n" + "elif x: pass\n" * 600 + "def f(): import lib_b\n",
    }
    found = preloads(tmp_path, files, "a.py", "b.py")
    assert found["a.py"].modules == ["lib_a", "lib_b"]
    assert (found["b.py"].modules, found["b.py"].left_out[0].module) == (["lib_a"], "lib_b")
    assert found["b.py"].left_out[0].because == "b.py nests too many blocks"
