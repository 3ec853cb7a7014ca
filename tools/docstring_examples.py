"""Marks the examples of docstrings as code, for the reference of the site.

They stand after "Example:" without an indentation, or after nothing: doctest reads that, Markdown
does not.
"""

import re

import griffe

EXAMPLE = re.compile(r"(?:^Examples?:\n)?((?:^>>> .*\n?(?:^(?!>>>).+\n?)*)+)", re.MULTILINE)


class DocstringExamples(griffe.Extension):
    """Puts each example into a fence."""

    def on_object(self, *, obj, **_):
        """Called for each module, class, function and attribute."""
        if obj.docstring:
            obj.docstring.value = EXAMPLE.sub(fence, obj.docstring.value)


def fence(found):
    """An example as Markdown; what only doctest needs is left out."""
    code = re.sub(r" +# doctest: .*", "", found[1]).rstrip()
    return f"```pycon\n{code}\n```\n"
