"""``ablate completion``: what a shell runs to complete our commands, by argcomplete."""

from __future__ import annotations

import argparse
import os
from typing import Any

SHELLS = ("bash", "zsh", "fish")
HOW = """\
bash: put into ~/.bashrc              eval "$(ablate completion bash)"
zsh:  put into ~/.zshrc               eval "$(ablate completion zsh)"
fish: run once                        ablate completion fish > ~/.config/fish/completions/ablate.fish"""


def add(commands: Any) -> None:
    completion = commands.add_parser(
        "completion",
        help="code for bash, zsh or fish that completes commands and options",
        epilog=HOW,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    completion.add_argument("shell", choices=SHELLS)
    completion.set_defaults(command=_print)


def _print(options: argparse.Namespace) -> int:
    from argcomplete.shell_integration import shellcode

    print(shellcode(["ablate"], shell=options.shell))
    return 0


def complete(parser: argparse.ArgumentParser) -> None:
    """Answer a shell that asks, and end; nothing where none does."""
    if "_ARGCOMPLETE" in os.environ:
        from argcomplete import autocomplete

        autocomplete(parser)
