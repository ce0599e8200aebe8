"""``fedpkg new``: a small project that runs at once, as a beginning for one's own."""

from __future__ import annotations

import importlib.util
import keyword
import os
import re
import shlex
import shutil
import sys
from pathlib import Path

import click

from fedpkg.cli import output
from fedpkg.cli.options import Settings, common_options
from fedpkg.errors import ConfigError

TEMPLATES = Path(__file__).parents[1] / "templates"
MESSAGE_APP, ALGORITHM = "message-app", "algorithm"
NAMES = (MESSAGE_APP, "pytorch", "hydra", "shell", ALGORITHM)
# What the files of a template have in place of the project's name, and of the name of its Python package.
_NAME, _MODULE = "template-app", "template_app"


@click.command("new")
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option(
    "--template",
    type=click.Choice(NAMES),
    default=MESSAGE_APP,
    show_default=True,
    help="A ServerApp and a ClientApp; a compute package in PyTorch, with hydra, or in bash; an algorithm on tables.",
)
@common_options
@click.pass_obj
def command(settings: Settings, folder: Path, *, template: str) -> None:
    """Make a new project in DIR: a program, data, a README and tests.

    The project runs at once, and needs no network. The name of the folder is its name.

    \b
      fedpkg new my-app
      fedpkg new digits --template pytorch
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"{folder} exists already, and is not empty", hint="give the name of a new folder")
    name = re.sub(r"[^A-Za-z0-9]+", "-", folder.absolute().name).strip("-") or "app"
    files = _write(TEMPLATES / template, folder, name, module_of(name))
    if settings.json:
        output.document({"path": folder, "template": template, "files": files})
        return
    output.result(f"{folder}  ({', '.join(files)})\n")
    output.result("Next:")
    output.suggestions(_next_commands(settings, folder, template))


def _next_commands(settings: Settings, folder: Path, template: str) -> list[tuple[str, str]]:
    if template == ALGORITHM:
        place, tables = shlex.quote(str(folder / ALGORITHM)), shlex.quote(f"default={folder / 'data'}/*.csv")
        run = f"algorithm run {place} --method average --arg column=age --database {tables}"
        return [
            (settings.command(run), "run it at three organizations"),
            (f"fedpkg algorithm list {place}", "its functions and their arguments"),
        ]
    run = shlex.quote(str(folder if template == MESSAGE_APP else folder / "run.yaml"))
    return [
        (settings.command(f"run {run}"), "run this federation"),
        (f"fedpkg config show {run}", "every key and value"),
    ]


def module_of(name: str) -> str:
    """The name of a Python package for a project, which must not hide another module."""
    module = re.sub(r"\W", "_", name.lower())
    module = module if module.isidentifier() else f"app_{module}"
    is_taken = keyword.iskeyword(module) or module in sys.stdlib_module_names or module in ("tests", "flwr")
    return f"{module}_app" if is_taken or importlib.util.find_spec(module) is not None else module


def _write(template: Path, folder: Path, name: str, module: str) -> list[str]:
    """Copy the files of a template; returns their names."""
    written = []
    try:
        for place, folders, files in os.walk(template):
            folders[:] = sorted(one for one in folders if one != "__pycache__")
            for file in sorted(files):
                source = Path(place, file)
                target = folder / source.relative_to(template).as_posix().replace(_MODULE, module)
                target.parent.mkdir(parents=True, exist_ok=True)
                text = source.read_text(encoding="utf-8").replace(_NAME, name).replace(_MODULE, module)
                target.write_text(text, encoding="utf-8")
                shutil.copymode(source, target)
                written.append(target.relative_to(folder).as_posix())
    except OSError as error:
        raise ConfigError(f"{error.filename or folder}: cannot be written: {error.strerror}") from error
    return written
