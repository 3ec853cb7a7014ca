"""Runs the code blocks of a Markdown file in order, in the current folder.

Python blocks share a namespace. A `text` block is the expected output of the block before it. Notes
after a fence's language: `no-run: docker` is not run, since the machine cannot have what it names;
`slow` runs only on request. Without that request, a block that consists of `keras-resnet` commands
runs in this process, which saves the import time of new ones.
"""

import contextlib
import dataclasses
import io
import re
import shlex
import subprocess
from pathlib import Path
from unittest import mock

import keras_resnet_cli

COMMANDS = re.compile(r"(keras-resnet [^|&;<>$*`]+\n)+")
FENCE = re.compile(r"^```(\w+)(?: ([^\n]*))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclasses.dataclass(frozen=True)
class Block:
    """A code block of a Markdown file."""

    line: int
    language: str
    note: str
    code: str

    @property
    def runs(self):
        return self.language in ("python", "sh") and not self.note.startswith("no-run:")


def blocks(file):
    """Returns the code blocks of a Markdown file."""
    text = Path(file).read_text(encoding="utf-8")
    return [
        Block(text[: found.start()].count("\n") + 2, found[1], found[2] or "", found[3])
        for found in FENCE.finditer(text)
    ]


def run(block, file, names, new_processes):
    """Runs a block and returns what it prints."""
    printed = io.StringIO()
    if block.language == "python":
        above = "\n" * (block.line - 1)  # tracebacks show the line in the Markdown file
        with contextlib.redirect_stdout(printed):
            exec(compile(above + block.code, file, "exec"), names)  # noqa: S102 (our own text)
        return printed.getvalue()
    if not new_processes and COMMANDS.fullmatch(block.code):
        for line in block.code.replace("\\\n", " ").splitlines():
            arguments = shlex.split(line, comments=True)
            with contextlib.redirect_stdout(printed), mock.patch("sys.argv", arguments):
                try:
                    keras_resnet_cli.main()
                except SystemExit as done:
                    assert not done.code, f"{file}:{block.line}: {line}"
        return printed.getvalue()
    command = ("bash", "-euo", "pipefail", "-c", block.code)
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, f"{file}:{block.line}: {done.stdout}{done.stderr}"
    return done.stdout


def lines(text):
    """Splits text into lines without trailing spaces."""
    return [line.rstrip() for line in text.strip().splitlines()]


def run_blocks(file, slow):
    """Runs the blocks of a file; with `slow`, also those with that note."""
    names, printed = {}, None
    for block in blocks(file):
        if block.language == "text" and printed is not None:
            assert lines(printed) == lines(block.code), f"{file}:{block.line}"
        printed = None
        if block.runs and (slow or block.note != "slow"):
            printed = run(block, file, names, new_processes=slow)
