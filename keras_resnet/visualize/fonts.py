"""Fonts for names in any script."""

import contextlib
import functools
from collections.abc import Sequence
from typing import Any

NORMAL = 400  # the weight of a font that is neither bold nor light


def written(texts: Sequence[str]) -> tuple[list[str], dict[str, Any]]:
    r"""Texts as this machine can draw them, and how.

    Args:
        texts: In any scripts.

    Returns:
        The texts, where a character that no installed font has is written in ASCII as Python does:
        `\u73ab`, for example; and arguments of matplotlib's `Text`: the fonts, its usual one
        first, and that a dollar is a dollar.
    """
    from matplotlib import rcParams
    from matplotlib.font_manager import FontProperties, findfont

    usual = findfont(FontProperties())
    families = list(rcParams["font.family"])
    missing = set(map(ord, "".join(texts))) - _codes(usual)

    def worth(font):
        return len(missing & _codes(font.fname, font.index)), _weight(font) == NORMAL

    while missing:
        # One font for as many as can be, so that a word is not of several.
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
    """An entry of matplotlib's for each upright font, for one that came after its list, too."""
    from matplotlib.font_manager import findSystemFonts, fontManager

    for path in {*findSystemFonts()}.difference(entry.fname for entry in fontManager.ttflist):
        with contextlib.suppress(OSError, RuntimeError, ValueError):  # a damaged one
            fontManager.addfont(path)
    nearest_last = sorted(fontManager.ttflist, key=lambda entry: -abs(_weight(entry) - NORMAL))
    upright = {entry.name: entry for entry in nearest_last if entry.style == "normal"}
    # The last resort draws a box with the script's name for every character there is.
    return [entry for name, entry in upright.items() if not name.startswith("Last Resort")]


def _weight(entry):
    """A font's, 100 to 900."""
    from matplotlib.font_manager import weight_dict

    return weight_dict.get(entry.weight, entry.weight)


@functools.cache
def _codes(path, index=0):
    """The characters that a font has; none if it is of bitmaps, as coloured emoji are."""
    from matplotlib.ft2font import FT2Font

    font = FT2Font(path, face_index=index)
    return frozenset(font.get_charmap() if font.scalable else ())
