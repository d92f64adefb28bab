"""Pages of docs/ as their reader follows them: files are saved, commands are typed, what they show is looked for."""

from __future__ import annotations

import contextlib
import io
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ablate.cli import main

FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FILE = re.compile(r"# ([\w./-]+\.(?:yaml|py|toml))\n")
EXITS = re.compile(r"\s+# exits (\d)$")
HERE = {"sweep": ["--executor", "local"], "search": ["--executor", "local"]}
"""Options of a command in the tests, where a session of Ray would be started for each."""


@dataclass(frozen=True)
class Step:
    """A file to save, or a command with lines of what it prints."""

    kind: str
    what: str
    text: str = ""
    code: int = 0


def steps(page: str) -> Iterator[Step]:
    """In the order of the page; fences without a language are not for here."""
    for language, body in FENCE.findall(page):
        if language in ("yaml", "python", "toml"):
            named = FILE.match(body)
            if named:
                yield Step("file", named[1], body)
            elif language == "python":
                yield Step("python", body)
        elif language == "console":
            for command in re.split(r"^\$ ", body, flags=re.MULTILINE)[1:]:
                line, _, output = command.partition("\n")
                exits = EXITS.search(line)
                yield Step("command", EXITS.sub("", line), output, int(exits[1]) if exits else 0)


def follow(page: str, folder: Path) -> list[str]:
    """Do all of a page in this folder; returns the commands. AssertionError where one does something else."""
    done = []
    names: dict[str, object] = {}
    with contextlib.chdir(folder):
        for step in steps(page):
            if step.kind == "file":
                Path(step.what).parent.mkdir(parents=True, exist_ok=True)
                Path(step.what).write_text(step.text, encoding="utf-8")
            elif step.kind == "python":
                exec(compile(step.what, "page", "exec"), names)
            else:
                _run(step)
                done.append(step.what)
    return done


def _run(step: Step) -> None:
    program, *words = shlex.split(step.what, comments=True)
    assert program == "ablate", step.what
    output = io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
        try:
            code = main([*words, *HERE.get(words[0], [])])
        except SystemExit as left:  # argparse
            code = int(left.code or 0)
    shown = output.getvalue()
    assert code == step.code, f"$ {step.what}\n{shown}"
    flat = " ".join(shown.split())
    for line in filter(None, map(str.strip, step.text.splitlines())):
        for part in filter(None, map(str.strip, line.split("…"))):
            assert " ".join(part.split()) in flat, f"$ {step.what}\ndid not print: {part}\nbut:\n{shown}"
