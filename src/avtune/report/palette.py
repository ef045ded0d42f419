"""Colours of the labels: eight hues that stay apart for colour-blind readers, times four patterns.

Both sets were found by a search that maximises the smallest CIE 1976 colour difference between any two
hues (and the background's colour) as seen with normal vision and with simulated protanopia, deuteranopia
and tritanopia; the tests repeat that measurement. The label's text stands in or beside its colour wherever
that is used, so no reading hangs on colour alone.
"""

LIGHT = ("#4e64b9", "#bfab35", "#c56992", "#5d6a10", "#3acdfb", "#731f31", "#87b672", "#5e2a62")
"""Fill of labels 0 to 7 on a light page."""

DARK = ("#7e77cf", "#fedb6d", "#cc6265", "#6dfadc", "#3893a4", "#faa881", "#958d12", "#b0ccff")
"""Fill of labels 0 to 7 on a dark page."""

BACKGROUND_LIGHT = "#eceae4"
BACKGROUND_DARK = "#26292f"
INK_DARK = "#15171a"
INK_LIGHT = "#ffffff"

_PATTERNS = (
    "none",
    "repeating-linear-gradient(45deg,var(--s) 0 3px,transparent 3px 9px)",
    "repeating-linear-gradient(-45deg,var(--s) 0 3px,transparent 3px 9px)",
    "repeating-linear-gradient(90deg,var(--s) 0 2px,transparent 2px 7px)",
)


def relative_luminance(colour: str) -> float:
    """Relative luminance of ``#rrggbb`` in [0, 1], as WCAG 2 defines it."""
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(first: str, second: str) -> float:
    """Contrast of two colours in [1, 21], as WCAG 2 defines it."""
    darker, lighter = sorted((relative_luminance(first), relative_luminance(second)))
    return (lighter + 0.05) / (darker + 0.05)


def ink(fill: str) -> str:
    """The text colour that is easier to read on `fill`: near black or white."""
    return max((INK_DARK, INK_LIGHT), key=lambda text: contrast(fill, text))


def css_class(label: int, background: int) -> str:
    """The classes that give a block the look of `label`."""
    if label == background:
        return "bg"
    return f"k{label % len(LIGHT)} p{label // len(LIGHT) % len(_PATTERNS)}"


def css() -> str:
    """Style rules for the label classes: ``--c`` is the fill, ``--t`` the text, ``--s`` the stripes."""

    def rules(fills: tuple[str, ...], background: str) -> str:
        lines = [f".bg{{--c:{background};--t:var(--quiet);--s:transparent}}"]
        for k, fill in enumerate(fills):
            stripes = "rgb(255 255 255/.38)" if ink(fill) == INK_DARK else "rgb(0 0 0/.32)"
            lines.append(f".k{k}{{--c:{fill};--t:{ink(fill)};--s:{stripes}}}")
        return "\n".join(lines)

    patterns = "\n".join(f".p{i}{{--p:{pattern}}}" for i, pattern in enumerate(_PATTERNS))
    return (
        f".bg{{--p:none}}\n{patterns}\n{rules(LIGHT, BACKGROUND_LIGHT)}\n"
        f"@media screen and (prefers-color-scheme:dark){{\n{rules(DARK, BACKGROUND_DARK)}\n}}\n"
    )
