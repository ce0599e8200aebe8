"""The entry point of the ``fedpkg`` command: its sub-commands, its one error handler, and how it ends."""

from __future__ import annotations

import contextlib
import importlib
import io
import logging
import os
import re
import signal
import sys
import traceback
from collections.abc import Sequence
from types import FrameType
from typing import NoReturn

import click

from fedpkg import __version__
from fedpkg.cli import output
from fedpkg.cli.examples import examples_last
from fedpkg.cli.fedn_words import ours
from fedpkg.cli.options import common_options
from fedpkg.errors import FedpkgError, nearest

# Each noun is the module of its name; these modules import click and the standard library only, the rest when they run.
NOUNS = (
    "new",
    "init",
    "run",
    "experiment",
    "exec",
    "algorithm",
    "package",
    "combiner",
    "cluster",
    "session",
    "model",
    "validation",
    "metric",
    "strategy",
    "sampler",
    "data",
    "home",
    "dashboard",
    "environment",
    "config",
    "doctor",
    "completion",
)


class Nouns(click.Group):
    """Sub-commands that are imported when they are needed."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(NOUNS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in NOUNS:
            return None
        command: click.Command = importlib.import_module(f"fedpkg.cli.{cmd_name}").command
        return examples_last(command)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        is_word = bool(args) and not args[0].startswith("-") and not ctx.resilient_parsing  # as in completion
        if is_word and args[0] not in NOUNS:
            near = nearest(args[0], NOUNS) or (
                f"; did you mean 'fedpkg run {args[0]}'?" if args[0].endswith((".yaml", ".yml")) else ""
            )
            ctx.fail(f"there is no command '{args[0]}'{near}")
        return super().resolve_command(ctx, args)


@click.group(cls=Nouns, invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="fedpkg %(version)s")
@common_options
@click.pass_context
def fedpkg(context: click.Context) -> None:
    """Federated learning whose client code is a compute package.

    Without a command, `fedpkg` says what can be done next in a folder with a run.yaml or a package (also in `client`).

    \b
      fedpkg run examples/digits/run.yaml      # a whole federation on this machine
      fedpkg session show                      # what happened in the newest session
      fedpkg doctor                            # what this machine has and lacks
    """
    from fedpkg import log

    log.configure(context.obj.verbosity)
    if context.invoked_subcommand is None:
        from fedpkg.cli.next_steps import show

        if not show(context.obj):
            output.result(context.get_help())


examples_last(fedpkg)


# A noun without a verb: its help is the answer. Before 8.2 click shows it by itself, and all is well then.
_NO_VERB: type[click.ClickException] | tuple[()] = getattr(click.exceptions, "NoArgsIsHelpError", ())


def run_command(words: Sequence[str]) -> int:
    """Run one command line; its exit code. All errors are told here, and nowhere else."""
    before_dashes = words[: words.index("--")] if "--" in words else words
    as_json = "--json" in before_dashes
    try:
        code = fedpkg.main(ours(words), prog_name="fedpkg", standalone_mode=False)
    except FedpkgError as error:
        # No line of an error begins at the margin but the first: what it quotes cannot look like another message.
        output.words(re.sub(r"\n(?! {4})", "\n    ", f"error: {error}"))
        if as_json:
            _json_error(type(error).__name__, error.message, error.exit_code, hint=error.hint, **error.fields)
        return error.exit_code
    except _NO_VERB as error:
        error.show()
        return error.exit_code
    except click.ClickException as error:
        told = io.StringIO()
        error.show(told)
        output.words(told.getvalue().rstrip("\n"))
        if as_json:
            _json_error("UsageError", error.format_message(), error.exit_code)
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        output.words("error: interrupted")
        if as_json:
            _json_error("Interrupted", "interrupted", 130)
        return 130
    except BrokenPipeError:
        output.silence(sys.stdout)
        return 0
    except SystemExit as error:  # click's way to end by itself, as at a broken pipe
        return error.code if isinstance(error.code, int) else 0
    except OSError as error:  # a full disk, a folder that may not be written
        if error.errno is None:  # not the system's, as a TimeoutError that Python raises
            return _fault(error, as_json)
        message = ": ".join(str(part) for part in (error.filename, error.strerror or error) if part is not None)
        logging.getLogger("fedpkg.cli").debug("where it came from", exc_info=True)
        output.words(f"error: {message}")
        if as_json:
            _json_error(type(error).__name__, message, FedpkgError.exit_code)
        return FedpkgError.exit_code
    except Exception as error:
        return _fault(error, as_json)
    return code if isinstance(code, int) else 0  # an int comes from context.exit()


def _fault(error: Exception, as_json: bool) -> int:
    output.words("".join(traceback.format_exception(error)).rstrip("\n"))
    output.words("error: this is a fault of fedpkg; please report it with the lines above")
    if as_json:
        _json_error(type(error).__name__, str(error), 70)
    return 70


def _json_error(kind: str, message: str, exit_code: int, **facts: object) -> None:
    known = {"type": kind, "message": message, "exit_code": exit_code}
    with contextlib.suppress(OSError):  # standard output itself may be what failed
        output.event_line(error={**known, **facts, **known})


def main() -> NoReturn:
    """What ``fedpkg`` on the command line calls."""
    if "_FEDPKG_COMPLETE" in os.environ:
        from fedpkg.cli import completion

        completion.register()
    _open_closed_streams()
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # a terminal without UTF-8
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup, and jobs in the background of a script, stay so
            signal.signal(number, _interrupt)
    code = run_command(sys.argv[1:])
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            output.silence(stream)
    if "torch" in sys.modules:
        os._exit(code)  # nothing is left to do, and PyTorch takes 0.4 s to be taken down
    sys.exit(code)


def _open_closed_streams() -> None:
    """After ``>&-`` and the like: else the next file that is opened, say the store, would be standard output."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            nowhere = os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free
            if nowhere != number:
                os.dup2(nowhere, number)
                os.close(nowhere)
            os.set_inheritable(number, True)
            setattr(sys, name, open(number, "r" if number == 0 else "w"))  # noqa: SIM115 - stays open to the end


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # the tidy-up that follows takes no second one
    raise KeyboardInterrupt
