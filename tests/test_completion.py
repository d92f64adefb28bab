"""Shell completion: what bash is offered, and the code that each shell is given."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ablate.cli import main

SHELLS = ("bash", "zsh", "fish")


@pytest.mark.parametrize("shell", SHELLS)
def test_each_shell_is_given_code_that_it_can_read(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    code = capsys.readouterr().out
    assert "ablate" in code
    program = shutil.which(shell)
    if program:
        subprocess.run([program, "-n"], input=code, text=True, check=True)


def completed(line: str, folder: Path) -> set[str]:
    """What the shell's function asks our program for, by argcomplete's protocol."""
    asked = {"_ARGCOMPLETE": "1", "_ARGCOMPLETE_IFS": "\n", "COMP_LINE": line, "COMP_POINT": str(len(line))}
    asked |= {"_ARGCOMPLETE_STDOUT_FILENAME": str(folder / "found"), "_ARGCOMPLETE_SUPPRESS_SPACE": "0"}
    (folder / "found").touch()
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "ablate"],
        env={**os.environ, **asked, "PYTHONPATH": str(Path(__file__).parents[1])},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert " torch\n" not in done.stderr  # nobody waits for it at a prompt
    return {word.strip() for word in (folder / "found").read_text(encoding="utf-8").splitlines()}


def test_commands_options_and_values_complete(tmp_path: Path) -> None:
    assert {"sweep", "search", "status", "show"} <= completed("ablate s", tmp_path)
    assert {"--profile", "--set"} <= completed("ablate sweep spec.yaml --", tmp_path)
    assert completed("ablate export spec.yaml --to on", tmp_path) == {"onnx"}


def test_files_complete(tmp_path: Path) -> None:
    (tmp_path / "placement.yaml").touch()
    assert "placement.yaml" in completed("ablate sweep pla", tmp_path)
