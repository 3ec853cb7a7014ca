"""Metadata that is known only where a release is built: the address of the repository.

    KERAS_RESNET_URL=https://github.com/OWNER/NAME python -m build

makes the links of README absolute, as PyPI needs them, and adds the project's links. Without it the
text of each relative link stays, and nothing leads nowhere. All else is in setup.cfg.
"""

import os
import re
from pathlib import Path

from setuptools import setup

ROOT = Path(__file__).parent
URL = os.environ.get("KERAS_RESNET_URL", "").rstrip("/")
TAG = "v" + re.search(r'__version__ = "(.+)"', (ROOT / "keras_resnet/__init__.py").read_text())[1]
LINK = re.compile(r"(!?)\[([^\]]+)\]\(((?!https?:|#)[^)\s]+)\)")


def outside(found):
    """A relative link as it is written outside of the repository."""
    image, text, target = found.groups()
    if URL:
        return f"{image}[{text}]({URL}/{'raw' if image else 'blob'}/{TAG}/{target})"
    return "" if image else text


links = {
    "Source": URL,
    "Documentation": f"{URL}/blob/{TAG}/docs/index.md",
    "Changelog": f"{URL}/blob/{TAG}/CHANGELOG.md",
    "Issues": f"{URL}/issues",
}
setup(
    long_description=LINK.sub(outside, (ROOT / "README.md").read_text(encoding="utf-8")),
    long_description_content_type="text/markdown",
    project_urls=links if URL else {},
)
