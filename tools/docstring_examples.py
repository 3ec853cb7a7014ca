"""Marks the examples of docstrings as code, for the API reference of the site.

They are not indented, which doctest recognizes, but Markdown does not.
"""

import re

import griffe

EXAMPLE = re.compile(r"(?:^Examples?:\n)?((?:^>>> .*\n?(?:^(?!>>>).+\n?)*)+)", re.MULTILINE)


class DocstringExamples(griffe.Extension):
    """Wraps each example in a code block."""

    def on_object(self, *, obj, **_):
        """Called for each module, class, function and attribute."""
        if obj.docstring:
            obj.docstring.value = EXAMPLE.sub(fence, obj.docstring.value)


def fence(found):
    """Formats an example as Markdown, without doctest directives."""
    code = re.sub(r" +# doctest: .*", "", found[1]).rstrip()
    return f"```pycon\n{code}\n```\n"
