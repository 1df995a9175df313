"""Draws docs/chat.svg: a real chat session in a fresh home, in colour. Run it with `python docs/picture.py`."""

from __future__ import annotations

import os
import pty
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.text import Text

ROOT = Path(__file__).resolve().parent.parent
SAID = ["hello", "what time    is it?", "/calc 2*(3+4)", "my key is AKIAIOSFODNN7EXAMPLE, does it work?", "/clac 1+1"]


def session() -> str:
    """What `eventcore chat` prints on a terminal."""
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(ROOT / "eventcore.toml", folder)
        ours, theirs = pty.openpty()
        environment = {**os.environ, "COLUMNS": "100", "TERM": "xterm-256color"}
        command = [sys.executable, "-m", "eventcore", "--home", folder, "chat", "--user", "ada"]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=theirs, env=environment) as chat:
            os.close(theirs)
            assert chat.stdin is not None
            chat.stdin.write("\n".join(SAID).encode())
            chat.stdin.close()
            printed = b""
            try:
                while part := os.read(ours, 65536):
                    printed += part
            except OSError:  # how Linux says that the other end of a terminal is closed
                pass
    os.close(ours)
    return printed.decode().replace("\r\n", "\n").rstrip()


def main() -> None:
    console = Console(record=True, width=100, file=open(os.devnull, "w"))  # noqa: SIM115
    console.print(Text.from_ansi(session()))
    svg = console.export_svg(title="eventcore chat")
    # No web fonts: the picture must not load anything.
    svg = re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL)
    (ROOT / "docs" / "chat.svg").write_text(svg)


main()
