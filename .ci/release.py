"""Make a release but for its upload: build, check, and try wheel and sdist. `make release` runs it; it needs uv.

The version is `__version__` of fedpkg/__init__.py. fedpkg/CHANGELOG.md must have a section for it (`## 0.1.0`), and the
working tree must be committed; with --draft neither matters. What is built lies in dist/ in the end.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PYTHONS = ("3.10", "3.11", "3.12", "3.13")
LESSON = ("examples/digits", "packages/digits", "seed_models")
NEEDED = (
    *("fedpkg/py.typed", "fedpkg/DESIGN.md", "fedpkg/CHANGELOG.md", "fedpkg/runtime/zygote.py"),
    *("fedpkg/runtime/commands/python", "fedpkg/runtime/path/sitecustomize.py", "fedpkg/runtime/compat/"),
    *("fedpkg/stores/migrations/0001_first.sql", "fedpkg/templates/message-app/pyproject.toml"),
)
TEMPLATES = "fedpkg/templates/"  # projects to be copied, which have tests of their own


def version() -> str:
    found = re.search(r'^__version__ = "([^"]+)"$', (ROOT / "fedpkg" / "__init__.py").read_text(), re.MULTILINE)
    assert found is not None, "fedpkg/__init__.py has no __version__"
    return found[1]


def unready(number: str) -> Iterator[str]:
    """What must be done before this version can be released."""
    if not re.search(rf"^## {re.escape(number)}\b", (ROOT / "fedpkg" / "CHANGELOG.md").read_text(), re.MULTILINE):
        yield f"fedpkg/CHANGELOG.md has no section '## {number}': give what is under Unreleased this heading"
    if changed := said("git", "status", "--porcelain", at=ROOT):
        yield f"the working tree has changes that are not committed:\n{changed}"


def tracked() -> list[str]:
    return [name for name in said("git", "ls-files", at=ROOT).splitlines() if (ROOT / name).exists()]


def build(place: Path) -> tuple[Path, Path]:
    """Wheel and sdist of the tracked files alone, in ``place``."""
    source = place / "source"
    for name in tracked():
        if name.startswith(("fedpkg/", "pyproject.toml", "README.md", "LICENSE")):
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, source / name)
    run("uv", "build", "--quiet", "--out-dir", str(place / "dist"), str(source), at=place)
    (wheel,), (sdist,) = (place / "dist").glob("*.whl"), (place / "dist").glob("*.tar.gz")
    return wheel, sdist


def content_problems(wheel: Path, sdist: Path) -> Iterator[str]:
    """What is wrong with the contents: a file of fedpkg that is missing, or one that does not belong there."""
    number, source = version(), {name for name in tracked() if name.startswith("fedpkg/")}
    with zipfile.ZipFile(wheel) as archive:
        members = {info.filename: info for info in archive.infolist()}
    with tarfile.open(sdist) as archive_of_source:
        in_sdist = {name.partition("/")[2] for name in archive_of_source.getnames()}
    own = {name for name in members if not name.startswith(f"fedpkg-{number}.dist-info/")}
    for needed in NEEDED:
        if not any(name.startswith(needed) for name in own):
            yield f"{wheel.name}: {needed} is missing"
    yield from (f"{wheel.name}: {name} is missing" for name in sorted(source - own))
    yield from (f"{wheel.name}: {name} does not belong there" for name in sorted(own - source))
    yield from (f"{sdist.name}: {name} is missing" for name in sorted({*source, "LICENSE", "README.md"} - in_sdist))
    parts = {name: set(Path(name).parts) for name in {*own, *in_sdist} if not name.startswith(TEMPLATES)}
    yield from (f"{name} is a test" for name in sorted(parts) if {"tests", "test"} & parts[name])
    for name in sorted(source & own):
        if os.access(ROOT / name, os.X_OK) and not members[name].external_attr >> 16 & 0o111:
            yield f"{wheel.name}: {name} cannot be executed"


def interpreter(number: str, place: Path) -> tuple[Path | None, str]:
    """The interpreter of a new virtual environment with this Python; None, and why there is none."""
    folder = place / f"python {number}"
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    known = [str(path) for path in sorted(pyenv.glob(f"versions/{number}.*/bin/python"))]
    told = ""
    for python in (*known[-1:], number):  # the last one uv looks for, and fetches
        words = ["uv", "venv", "--quiet", "--clear", "--python", python, str(folder)]
        made = subprocess.run(words, capture_output=True, text=True)
        if made.returncode == 0:
            return folder / "bin" / "python", ""
        told = made.stderr.strip()
    return None, told.partition("\n")[0]


def install(python: Path, wheel: Path, torch: str | None) -> None:
    """The wheel and what its lesson needs. PyTorch without CUDA, where its index can be reached."""
    words = [
        "uv",
        "pip",
        "install",
        "--quiet",
        "--python",
        str(python),
        f"{wheel}[datasets]",
        *([torch] if torch else []),
    ]
    if subprocess.run([*words, "--torch-backend=cpu"], capture_output=True, cwd=wheel.parent).returncode != 0:
        run(*words, at=wheel.parent)


def try_lesson(python: Path, place: Path) -> str:
    """Run a lesson by the installed wheel, in a folder with spaces and far from the checkout; its last round."""
    folder = place / f"a folder with spaces, {python.parents[1].name}"
    for name in LESSON:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns(".fedpkg", "__pycache__"))
    command = str(python.with_name("fedpkg"))
    where = said(str(python), "-c", "import fedpkg; print(fedpkg.__file__)", at=folder)
    assert where.startswith(str(python.parents[1])), f"fedpkg is imported from {where}"
    assert said(command, "--version", at=folder) == f"fedpkg {version()}"
    told = said(command, "run", "examples/digits/run.yaml", "rounds=2", at=folder)
    said(command, "home", "check", at=folder)
    return next(line for line in told.splitlines() if re.match(r" +2 ", line)).strip()


def run(*words: str, at: Path) -> None:
    subprocess.run(words, cwd=at, check=True)


def said(*words: str, at: Path) -> str:
    """What a command prints, without variables by which it could find the checkout."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "FEDPKG"))}
    done = subprocess.run(words, cwd=at, env=kept, stdout=subprocess.PIPE, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(words)} ended with {done.returncode}")
    return done.stdout.strip()


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--draft", action="store_true", help="build what is here, also without a section in the CHANGELOG"
    )
    parser.add_argument("--python", action="append", metavar="3.N", help=f"instead of {', '.join(PYTHONS)}")
    parser.add_argument("--torch", metavar="SPEC", help="the PyTorch to try it with, such as torch==2.13.0")
    given = parser.parse_args(arguments)
    number = version()
    if not given.draft and (problems := list(unready(number))):
        raise SystemExit("\n".join(problems))
    skipped = []
    with tempfile.TemporaryDirectory(prefix="fedpkg-release-") as name:
        place = Path(name)
        print(f"fedpkg {number}: building", flush=True)
        wheel, sdist = build(place)
        if problems := list(content_problems(wheel, sdist)):
            raise SystemExit("\n".join(problems))
        run("uv", "tool", "run", "--quiet", "twine", "check", "--strict", str(wheel), str(sdist), at=place)
        for python_version in given.python or PYTHONS:
            print(f"Python {python_version}: installing", flush=True)
            python, why = interpreter(python_version, place)
            if python is None:
                skipped.append(f"Python {python_version} was SKIPPED: {why}")
                print(skipped[-1], flush=True)
                continue
            install(python, wheel, given.torch)
            print(f"Python {python_version}: the lesson ends with round {try_lesson(python, place)}", flush=True)
            shutil.rmtree(python.parents[1])
        dist = ROOT / "dist"
        dist.mkdir(exist_ok=True)
        for file in (wheel, sdist):
            shutil.copy(file, dist)
            print(f"dist/{file.name}")
    print(*skipped, sep="\n")
    print(f"To publish fedpkg {number}: git tag v{number}, then uv publish dist/fedpkg-{number}*")


if __name__ == "__main__":
    main(sys.argv[1:])
