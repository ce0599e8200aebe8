"""``fedpkg completion``: what makes the Tab key complete fedpkg's command lines in bash, zsh and fish."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click import shell_completion
from click.shell_completion import CompletionItem

from fedpkg.cli import output
from fedpkg.cli.options import common_options

if TYPE_CHECKING:
    _Base = shell_completion.ShellComplete
else:
    _Base = object

VARIABLE = "_FEDPKG_COMPLETE"
SHELLS = ("bash", "zsh", "fish")

_BASH = """\
%(complete_func)s() {
    local IFS=$'\\n' response type value
    COMPREPLY=()
    response=$(COMP_LINE="${COMP_LINE:0:COMP_POINT}" COMP_BREAKS="$COMP_WORDBREAKS" \
%(complete_var)s=bash_complete "$1" 2>/dev/null)
    while IFS=, read -r type value; do
        case $type in
            dir) compopt -o dirnames ;;
            file) compopt -o default ;;
            path) compopt -o filenames; COMPREPLY+=("$value") ;;
            part) compopt -o nospace; COMPREPLY+=("$value") ;;
            plain) COMPREPLY+=("$value") ;;
        esac
    done <<< "$response"
}
complete -o nosort -F %(complete_func)s %(prog_name)s
"""

_ZSH = """\
#compdef %(prog_name)s

%(complete_func)s() {
    local -a response whole parts files folders
    local type key text
    (( ! $+commands[%(prog_name)s] )) && return 1
    response=("${(@f)$(env COMP_WORDS="${words[*]}" COMP_CWORD=$((CURRENT-1)) \
%(complete_var)s=zsh_complete %(prog_name)s 2>/dev/null)}")
    for type key text in "${response[@]}"; do
        [[ $text == _ ]] || text=":$text"
        case $type in
            dir) _path_files -/ ;;
            file) _path_files -f ;;
            path) [[ $key == */ ]] && folders+=("$key") || files+=("$key") ;;
            part) parts+=("${key//:/\\\\:}${text#_}") ;;
            plain) whole+=("${key//:/\\\\:}${text#_}") ;;
        esac
    done
    (( $#whole )) && _describe -V unsorted whole -U
    (( $#parts )) && _describe -V unsorted parts -U -S ''
    (( $#files )) && compadd -U -a files
    (( $#folders )) && compadd -U -S '' -a folders
    return 0
}

if [[ $zsh_eval_context[-1] == loadautofunc ]]; then
    %(complete_func)s "$@"
else
    (( $+functions[compdef] )) || { autoload -Uz compinit && compinit; }
    compdef %(complete_func)s %(prog_name)s
fi
"""


class _Quiet(_Base):
    """Nothing is written to the terminal on which a person types."""

    def get_completions(self, args: list[str], incomplete: str) -> list[CompletionItem]:
        try:
            return super().get_completions(args, incomplete)
        except Exception:  # a word that is wrong, a home of a newer fedpkg, a file that cannot be read
            return []


class _Bash(_Quiet, shell_completion.BashComplete):
    """Words are taken from the line: bash breaks them at ``=`` and ``:``, and replaces only what follows the last."""

    source_template = _BASH

    def get_completion_args(self) -> tuple[list[str], str]:
        line = os.environ["COMP_LINE"]
        words = shell_completion.split_arg_string(line)
        is_begun = not line[-1:].isspace()
        return words[1 : len(words) - is_begun], words[-1] if is_begun else ""

    def complete(self) -> str:
        words, incomplete = self.get_completion_args()
        breaks = re.escape("".join(set(os.environ.get("COMP_BREAKS", "=:")) & set("=:")))
        kept = len(re.sub(f"[^{breaks}]*$", "", incomplete)) if breaks else 0
        found = self.get_completions(words, incomplete)
        return "\n".join(f"{item.type},{_after(item, incomplete, kept)}" for item in found)


def _after(item: CompletionItem, incomplete: str, kept: int) -> str:
    value = str(item.value)
    return value[kept:] if value.startswith(incomplete[:kept]) else value


class _Zsh(_Quiet, shell_completion.ZshComplete):
    source_template = _ZSH

    def format_completion(self, item: CompletionItem) -> str:
        return f"{item.type}\n{item.value}\n{item.help or '_'}"


class _Fish(_Quiet, shell_completion.FishComplete):
    """Fish itself puts no space after ``=``, ``.`` and ``/``. Only the first comma of a line ends its kind."""

    source_template = shell_completion.FishComplete.source_template.replace('string split ","', 'string split -m 1 ","')

    def get_completions(self, args: list[str], incomplete: str) -> list[CompletionItem]:
        found = super().get_completions(args, incomplete)
        return [CompletionItem(item.value, help=item.help) if item.type in ("path", "part") else item for item in found]


_CLASSES = {"bash": _Bash, "zsh": _Zsh, "fish": _Fish}


def register() -> None:
    """Have click answer a shell's question by these classes."""
    for name, one in _CLASSES.items():
        shell_completion.add_completion_class(one, name)


@click.command("completion")
@click.argument("shell", metavar="[SHELL]", type=click.Choice(SHELLS), required=False)
@common_options
@click.pass_context
def command(context: click.Context, shell: str | None) -> None:
    """Print the script that completes fedpkg's command lines.

    \b
      fedpkg completion bash

    SHELL is bash, zsh or fish; without it, it is the shell that the variable SHELL names. To install the completion,
    add the line of your shell to its file, and open a new terminal:

    \b
      ~/.bashrc                     eval "$(fedpkg completion bash)"
      ~/.zshrc                      eval "$(fedpkg completion zsh)"
      ~/.config/fish/config.fish    fedpkg completion fish | source

    The Tab key then completes commands, options, sessions, models, clusters, packages, strategies, samplers,
    transforms, and the keys and values of a run.yaml (`fedpkg run run.yaml strategy.name=<Tab>`).
    """
    name = shell or Path(os.environ.get("SHELL", "")).name
    if name not in SHELLS:
        raise click.UsageError(f"name the shell: {', '.join(SHELLS)}")
    root = context.find_root().command
    output.result(_CLASSES[name](root, {}, "fedpkg", VARIABLE).source().rstrip("\n"))
