"""Text in figures: characters on grounds of colour, and fonts that have them."""

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.ft2font import FT2Font

MISSING = "□"


def coloured_text(
    axes: Axes,
    names: Sequence[str],
    text: str,
    values: np.ndarray,
    families: Sequence[str],
    *,
    low: float,
    high: float,
    size: float = 11,
) -> Any:
    """The same characters in a row for each name, each on a ground coloured by its value."""
    image = axes.imshow(
        np.clip(np.nan_to_num(values, neginf=low), low, high),
        cmap="cividis",
        vmin=low,
        vmax=high,
        aspect="auto",
        interpolation="nearest",
    )
    for i in range(len(names)):
        for j, character in enumerate(text):
            bright = values[i, j] > low + 0.55 * (high - low)
            axes.text(
                j,
                i,
                character,
                color="black" if bright else "white",
                ha="center",
                va="center",
                fontsize=size,
                family=list(families),
                parse_math=False,
            )
    axes.set_yticks(range(len(names)), names)
    axes.set_xticks([])
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    return image


def drawable(text: str, families: Sequence[str]) -> str:
    """The text with signs for white space, and a box for each character no family has."""
    have = frozenset().union(*(_characters(family) for family in families))
    signs = {"\n": "↵", "\t": "⇥"}
    shown = (signs.get(character, character) for character in text)
    return "".join(c if ord(c) in have else MISSING for c in shown)


def families_for(text: str, first: str = "DejaVu Sans Mono") -> tuple[list[str], str]:
    """Installed font families that can draw a text, and the characters that none of them has."""
    wanted = {ord(c) for c in text if c.isprintable()}
    missing = wanted - _characters(first)
    families = [first]
    if missing:
        _find_new_fonts()
        names = sorted(_regular_fonts())
        while missing:
            # of fonts with the same characters, the one in the simplified Chinese style
            best = max(names, key=lambda name: (len(missing & _characters(name)), " SC" in name))
            if not missing & _characters(best):
                break
            families.append(best)
            missing -= _characters(best)
    return families, "".join(map(chr, sorted(missing)))


@functools.cache
def _find_new_fonts() -> None:
    # matplotlib remembers fonts on disk, and does not see one that was installed since
    known = {font.fname for font in font_manager.fontManager.ttflist}
    for path in font_manager.findSystemFonts():
        if path not in known:
            try:
                font_manager.fontManager.addfont(path)
            except (OSError, RuntimeError, ValueError):
                continue  # not a font that matplotlib can read


@functools.cache
def _characters(family: str) -> frozenset[int]:
    try:
        font = FT2Font(_regular_fonts()[family])
        return frozenset(font.get_charmap()) if font.scalable else frozenset()
    except (KeyError, OSError, RuntimeError, ValueError):
        return frozenset()


def _regular_fonts() -> dict[str, str]:
    # families with an upright face of normal weight, the one that matplotlib will draw with; the
    # font of last resort has every character, but as a box
    return {
        font.name: font.fname
        for font in font_manager.fontManager.ttflist
        if font.style == "normal" and font.weight in (400, "normal") and "Last" not in font.name
    }
