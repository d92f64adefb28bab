"""yaml-language-server over its standard streams: what an editor is told of a spec."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

from tests.conftest import REPOSITORY

NAME = "yaml-language-server"
_INSTALLED = REPOSITORY / ".venv" / "node" / "node_modules" / ".bin" / NAME
SERVER = shutil.which(NAME) or (str(_INSTALLED) if _INSTALLED.exists() else None)
"""On the path, or where ``.ci/run`` puts it; None where it is not."""


class LanguageServer:
    """A server with one folder open."""

    def __init__(self, folder: Path) -> None:
        assert SERVER is not None
        self._process = subprocess.Popen(
            [SERVER, "--stdio"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=folder
        )
        self._numbers = itertools.count(1)
        self._told: list[dict[str, Any]] = []
        self.request("initialize", processId=os.getpid(), rootUri=folder.as_uri(), capabilities=CAPABILITIES)
        self._send({"method": "initialized", "params": {}})
        settings = {"yaml": {"validate": True, "hover": True, "completion": True, "schemaStore": {"enable": False}}}
        self._send({"method": "workspace/didChangeConfiguration", "params": {"settings": settings}})

    def open(self, file: Path, text: str | None = None) -> list[dict[str, Any]]:
        """What is underlined in a file: its diagnostics."""
        text = file.read_text(encoding="utf-8") if text is None else text
        document = {"uri": file.as_uri(), "languageId": "yaml", "version": next(self._numbers), "text": text}
        self._told.clear()
        self._send({"method": "textDocument/didOpen", "params": {"textDocument": document}})
        while True:
            for told in self._told:
                if told["method"] == "textDocument/publishDiagnostics" and told["params"]["uri"] == file.as_uri():
                    return list(told["params"]["diagnostics"])
            self._receive()

    def completions(self, file: Path, line: int, character: int) -> dict[str, dict[str, Any]]:
        """What can be written there, by label. Lines and characters count from 0."""
        found = self._at("textDocument/completion", file, line, character)
        items = found["items"] if isinstance(found, dict) else found or []
        return {item["label"]: item for item in items}

    def hover(self, file: Path, line: int, character: int) -> str:
        """The text that pops up there."""
        found = self._at("textDocument/hover", file, line, character)
        return str(found["contents"]["value"]) if found else ""

    def close(self) -> None:
        self.request("shutdown")
        self._send({"method": "exit"})
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            stream.close()
        self._process.wait(10)

    def _at(self, method: str, file: Path, line: int, character: int) -> Any:
        position = {"line": line, "character": character}
        return self.request(method, textDocument={"uri": file.as_uri()}, position=position)

    def request(self, method: str, **parameters: Any) -> Any:
        """The result of a request. AssertionError where the server refuses it."""
        number = next(self._numbers)
        self._send({"id": number, "method": method, "params": parameters})
        while True:
            message = self._receive()
            if message.get("id") == number and "method" not in message:
                assert "error" not in message, message["error"]
                return message.get("result")

    def _send(self, message: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        body = json.dumps({"jsonrpc": "2.0", **message}).encode()
        self._process.stdin.write(b"Content-Length: %d\r\n\r\n%b" % (len(body), body))
        self._process.stdin.flush()

    def _receive(self) -> dict[str, Any]:
        stream = self._process.stdout
        assert stream is not None
        length = 0
        while line := stream.readline().strip():
            name, _, value = line.partition(b":")
            length = int(value) if name.lower() == b"content-length" else length
        assert length, "the language server has ended"
        message: dict[str, Any] = json.loads(stream.read(length))
        if "method" in message and "id" in message:  # the server asks; a list for each setting, nothing for the rest
            asked = message.get("params") or {}
            result = [None] * len(asked["items"]) if "items" in asked else None
            self._send({"id": message["id"], "result": result})
        elif "method" in message:
            self._told.append(message)
        return message


CAPABILITIES: dict[str, Any] = {
    "textDocument": {
        "completion": {"completionItem": {"documentationFormat": ["markdown"]}},
        "hover": {"contentFormat": ["markdown"]},
        "publishDiagnostics": {},
    },
    "workspace": {"configuration": False},
}
