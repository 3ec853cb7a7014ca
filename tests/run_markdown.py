"""Runs the code blocks of a Markdown file in order, in the current folder.

    python run_markdown.py FILE [--slow]

Blocks of Python share their names. A block of `text` is what the block before it prints. The words
after a fence's language say what else is to be known of it: `no-run: docker` is not run, since the
machine cannot have what it names; `slow` is run with --slow only.
"""

import contextlib
import dataclasses
import io
import re
import subprocess
import sys
from pathlib import Path

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


def run(block, file, names):
    """Runs a block and returns what it prints."""
    if block.language == "python":
        printed = io.StringIO()
        lines = "\n" * (block.line - 1)  # so that a traceback names the line of the file
        with contextlib.redirect_stdout(printed):
            exec(compile(lines + block.code, file, "exec"), names)  # noqa: S102 (our own text)
        return printed.getvalue()
    command = ("bash", "-euo", "pipefail", "-c", block.code)
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{file}:{block.line}: {done.stdout}{done.stderr}")
    return done.stdout


def same(printed, expected):
    """Whether two texts are equal but for spaces at the ends of lines."""
    return [line.rstrip() for line in printed.strip().splitlines()] == [
        line.rstrip() for line in expected.strip().splitlines()
    ]


def main(file, slow):
    names, printed = {}, None
    for block in blocks(file):
        if block.language == "text" and printed is not None and not same(printed, block.code):
            sys.exit(f"{file}:{block.line}: printed was\n{printed}")
        printed = None
        if block.runs and (slow or block.note != "slow"):
            print(f"{file}:{block.line}", flush=True)
            printed = run(block, file, names)


if __name__ == "__main__":
    main(sys.argv[1], "--slow" in sys.argv[2:])
