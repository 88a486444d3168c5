"""Colours by name, once for light and once for dark, for the page and for every figure."""

COLOURS: dict[str, tuple[str, str]] = {
    "page": ("#f6f7f9", "#12161c"),
    "surface": ("#ffffff", "#1a2029"),
    "ink": ("#18212c", "#e8ecf1"),
    "muted": ("#566273", "#a3afbd"),
    "line": ("#d9dee5", "#343e4b"),
    "grid": ("#e8ebf0", "#2a323d"),
    "axis": ("#8592a3", "#77869a"),
    "accent": ("#0b5cad", "#7cb8ff"),
    "accent-soft": ("#e8f1fb", "#182d44"),
    "good": ("#0a6b4c", "#5fd3a6"),
    "good-soft": ("#e4f4ee", "#15322a"),
    "bad": ("#a8371a", "#ff9f80"),
    "bad-soft": ("#fbebe6", "#3a2019"),
    "warn": ("#835400", "#e9bd5b"),
    "warn-soft": ("#fcf3de", "#332a15"),
    "series-0": ("#2b3644", "#dfe5ec"),
    "series-1": ("#0b66b8", "#6db3ff"),
    "series-2": ("#c24a17", "#ff9e70"),
    "series-3": ("#0a7d5a", "#4fd1a2"),
    "series-4": ("#8b3f94", "#d9a2e8"),
    "series-5": ("#946200", "#e3b64a"),
    "series-6": ("#117f95", "#5ccbe0"),
}
"""Name to (light, dark). Hues follow Okabe and Ito's set for colour-blind readers, with the lightness changed so that
each reaches a contrast of 3 (marks) or 4.5 (text) against the surface; marks differ in shape as well."""

LIGHT = {name: pair[0] for name, pair in COLOURS.items()}
DARK = {name: pair[1] for name, pair in COLOURS.items()}


def css_variables(colours: dict[str, str]) -> str:
    """Declarations for a style sheet, such as `--ink:#18212c`."""
    return ";".join(f"--{name}:{value}" for name, value in colours.items())


def contrast(first: str, second: str) -> float:
    """Contrast ratio of two colours `#rrggbb`, from 1 to 21. Source: W3C, WCAG 2.2, definition of contrast ratio."""
    lighter, darker = sorted((_luminance(first), _luminance(second)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def _luminance(colour: str) -> float:
    channels = [int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    linear = [channel / 12.92 if channel <= 0.04045 else ((channel + 0.055) / 1.055) ** 2.4 for channel in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
