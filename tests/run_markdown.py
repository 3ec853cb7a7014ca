"""Runs the code blocks of a Markdown file in order, in the current folder.

Blocks of Python share their names. A block of `text` is what the block before it prints. The words
after a fence's language say what else is to be known of it: `no-run: docker` is not run, since the
machine cannot have what it names; `slow` is run when asked only. When these are not asked for, a
block of `keras-resnet` commands and nothing else runs in this process, without the seconds that
each new one takes to import.
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
    """The code blocks of a Markdown file."""
    text = Path(file).read_text(encoding="utf-8")
    return [
        Block(text[: found.start()].count("\n") + 2, found[1], found[2] or "", found[3])
        for found in FENCE.finditer(text)
    ]


def run(block, file, names, new_processes):
    """Runs a block and returns what it prints."""
    printed = io.StringIO()
    if block.language == "python":
        above = "\n" * (block.line - 1)  # so that a traceback names the line of the file
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
    """Its lines, without the spaces at their ends."""
    return [line.rstrip() for line in text.strip().splitlines()]


def run_blocks(file, slow):
    """Runs a file's blocks, `slow` ones too if asked."""
    names, printed = {}, None
    for block in blocks(file):
        if block.language == "text" and printed is not None:
            assert lines(printed) == lines(block.code), f"{file}:{block.line}"
        printed = None
        if block.runs and (slow or block.note != "slow"):
            printed = run(block, file, names, new_processes=slow)
