"""How numbers are written for a reader: shares, counts, durations, positions in a clip."""

import math


def percent(share: float) -> str:
    """A share in [0, 1] as a percentage with one decimal: ``0.8734`` is ``87.3%``."""
    return f"{100 * share:.1f}%" if math.isfinite(share) else "n/a"


def points(difference: float) -> str:
    """A difference of two shares in percentage points, signed: ``0.12`` is ``+12.0``."""
    return f"{100 * difference:+.1f}".replace("-", "\N{MINUS SIGN}")


def count(number: int) -> str:
    """A count in thousands (k) or millions (M): ``4645000`` is ``4.645M``, ``12300`` is ``12.3k``."""
    if number >= 999_950:
        return f"{number / 1e6:.3f}M" if number < 99_999_500 else f"{number / 1e6:.1f}M"
    return f"{number / 1e3:.1f}k" if number >= 1000 else str(number)


def duration(seconds: float) -> str:
    """Time spent: ``8.25`` is ``8.2 s``, ``125`` is ``2 min 05 s``, ``3780`` is ``1 h 03 min``."""
    if round(seconds, 1) < 60:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min"


def clock(seconds: float) -> str:
    """A position in a clip, to a tenth of a second: ``0:07.5``, ``1:02:03``."""
    tenths = round(seconds * 10)
    whole, tenth = divmod(tenths, 10)
    fraction = f".{tenth}" if tenth else ""
    hours, minutes, rest = whole // 3600, whole // 60 % 60, whole % 60
    return f"{hours}:{minutes:02d}:{rest:02d}{fraction}" if hours else f"{minutes}:{rest:02d}{fraction}"
