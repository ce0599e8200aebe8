"""Packages with wheels of their own, so that environments are made without any network."""

from __future__ import annotations

import base64
import hashlib
import textwrap
import zipfile
from pathlib import Path

FEDN_YAML = """\
entry_points:
  build: {command: python entrypoint.py build}
  train: {command: python entrypoint.py train}
  validate: {command: python entrypoint.py validate}
"""
# Needs neither NumPy nor fedpkg: updates are npz files that it writes by hand, as in.npz but for its one tensor.
ENTRYPOINT = """\
import io, json, struct, sys, zipfile
import tiny

def npy(values):
    header = "{'descr': '<f4', 'fortran_order': False, 'shape': (%d,), }" % len(values)
    header += " " * (-(len(header) + 11) % 64) + "\\n"
    head = b"\\x93NUMPY" + bytes([1, 0]) + struct.pack("<H", len(header)) + header.encode()
    return head + struct.pack("<%df" % len(values), *values)

def save(path, values):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(zipfile.ZipInfo("w.npy"), npy(values))

def load(path):
    with zipfile.ZipFile(path) as archive:
        data = archive.read("w.npy")
    return list(struct.unpack("<4f", data[-16:]))

command, *paths = sys.argv[1:]
if command == "build":
    save(paths[0], [0.0] * 4)
elif command == "train":
    save(paths[1], [value + tiny.NUMBER for value in load(paths[0])])
    with open(paths[1] + "-metadata", "w") as file:
        json.dump({"num_examples": 1}, file)
else:
    facts = {"number": tiny.NUMBER, "absent": []}
    for name in ("fedpkg.files", "numpy", "torch", "click"):
        try:
            __import__(name)
        except ImportError:
            facts["absent"].append(name)
    with open(paths[1], "w") as file:
        json.dump({**facts, "prefix": sys.prefix, "version": "%d.%d" % sys.version_info[:2]}, file)
"""


def write_wheel(
    folder: Path,
    *,
    number: int = 1,
    version: str = "1.0",
    name: str = "tiny",
    code: str = "",
    tag: str = "py3-none-any",
    requires: str = "",
) -> Path:
    """A wheel with one module, in which ``NUMBER`` is that; ``requires`` is a distribution that it needs."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}-{version}-{tag}.whl"
    needs = f"Requires-Dist: {requires}\n" if requires else ""
    info = f"{name}-{version}.dist-info"
    files = {
        f"{name}.py": f"NUMBER = {number}\n{textwrap.dedent(code)}",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}",
        f"{info}/WHEEL": f"Wheel-Version: 1.0\nGenerator: hand\nRoot-Is-Purelib: true\nTag: {tag}\n",
    }
    record = "".join(f"{file},sha256={_digest(text)},{len(text)}\n" for file, text in files.items())
    with zipfile.ZipFile(path, "w") as archive:
        for file, text in {**files, f"{info}/RECORD": f"{record}{info}/RECORD,,\n"}.items():
            archive.writestr(zipfile.ZipInfo(file), text)
    return path


def _digest(text: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).decode().rstrip("=")


def write_package(folder: Path, *, number: int = 1, version: str = "1.0", python: str | None = None) -> Path:
    """A package that wants a wheel of its own, and trains by adding ``number``."""
    write_wheel(folder / "wheels", number=number, version=version)
    (folder / "fedn.yaml").write_text(FEDN_YAML + "python_env: python_env.yaml\n")
    (folder / "entrypoint.py").write_text(ENTRYPOINT)
    wish = "" if python is None else f'python: "{python}"\n'
    (folder / "python_env.yaml").write_text(
        f"name: mine\n{wish}build_dependencies: []\ndependencies:\n  - ./wheels/tiny-{version}-py3-none-any.whl\n"
    )
    return folder
