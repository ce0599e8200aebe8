"""``fedpkg doctor``: what this machine has and lacks, what each thing is for, and what to do."""

from __future__ import annotations

import click

from fedpkg.cli import output
from fedpkg.cli.options import Settings, common_options


@click.command("doctor")
@click.option("--full", is_flag=True, help="Also import PyTorch and list its devices.")
@common_options
@click.pass_context
def command(context: click.Context, full: bool) -> None:
    """Report what this machine has and lacks for fedpkg.

    \b
      fedpkg doctor

    Exits with 1 if something is missing that fedpkg cannot work without.
    """
    from dataclasses import asdict

    from fedpkg.cli.machine import examine

    settings: Settings = context.obj
    findings = list(examine(settings.home_path.absolute(), full=full))
    if settings.json:
        output.document([asdict(finding) for finding in findings])
    else:
        rows = [[finding.name, finding.state, finding.found, finding.purpose] for finding in findings]
        output.table(["what", "state", "found", "for"], rows)
        if advice := [(finding.name, finding.advice) for finding in findings if finding.advice]:
            output.result("\nWhat to do:")
            output.facts([(f"  {name}", text) for name, text in advice])
    if any(finding.required and finding.state == "missing" for finding in findings):
        context.exit(1)
