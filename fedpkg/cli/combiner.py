"""``fedpkg combiner``: the words that people who come from FEDn know for ``run`` and ``package build``."""

from __future__ import annotations

import click

from fedpkg.cli.package import build
from fedpkg.cli.run import command as run


@click.group("combiner")
def command() -> None:
    """FEDn's names for `run` and `package build`.

    \b
      fedpkg combiner build packages/digits -o package.tar.gz
      fedpkg combiner run examples/digits/run.yaml
    """


command.add_command(run)
command.add_command(build)
