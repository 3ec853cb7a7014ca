"""Finds fonts for text in any script."""

import contextlib
import functools
from collections.abc import Sequence
from typing import Any

NORMAL = 400  # regular weight


def written(texts: Sequence[str]) -> tuple[list[str], dict[str, Any]]:
    r"""Returns texts that this machine can draw, and how to draw them.

    Args:
        texts: Texts in any script.

    Returns:
        The texts, in which characters that no installed font supports are escaped, `\u73ab` for
        example; and arguments of matplotlib's `Text`: the fonts, starting with the default one, and
        no parsing of math.
    """
    from matplotlib import rcParams
    from matplotlib.font_manager import FontProperties, findfont

    usual = findfont(FontProperties())
    families = list(rcParams["font.family"])
    missing = set(map(ord, "".join(texts))) - _codes(usual)

    def worth(font):
        return len(missing & _codes(font.fname, font.index)), _weight(font) == NORMAL

    while missing:
        # One font for as many characters as possible, so that words are not mixed.
        font = max(_installed(), key=worth)
        known = _codes(font.fname, font.index)
        if not missing & known:
            break
        families.append(font.name)
        missing -= known
    escapes = {code: chr(code).encode("ascii", "backslashreplace").decode() for code in missing}
    how = {"fontfamily": families, "parse_math": False}
    return [text.translate(escapes) for text in texts], how


@functools.cache
def _installed():
    """Returns matplotlib's entries for all upright fonts, also for recently installed ones."""
    from matplotlib.font_manager import findSystemFonts, fontManager

    for path in {*findSystemFonts()}.difference(entry.fname for entry in fontManager.ttflist):
        with contextlib.suppress(OSError, RuntimeError, ValueError):  # a damaged font
            fontManager.addfont(path)
    nearest_last = sorted(fontManager.ttflist, key=lambda entry: -abs(_weight(entry) - NORMAL))
    upright = {entry.name: entry for entry in nearest_last if entry.style == "normal"}
    # Last Resort draws a box with the script's name for every character.
    return [entry for name, entry in upright.items() if not name.startswith("Last Resort")]


def _weight(entry):
    """Returns the weight of a font, 100 to 900."""
    from matplotlib.font_manager import weight_dict

    return weight_dict.get(entry.weight, entry.weight)


@functools.cache
def _codes(path, index=0):
    """Returns the characters of a font; none for bitmap fonts, like colored emoji."""
    from matplotlib.ft2font import FT2Font

    font = FT2Font(path, face_index=index)
    return frozenset(font.get_charmap() if font.scalable else ())
