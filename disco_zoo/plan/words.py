"""Numbers as short text: 66.4 GFLOPs, 1.28 M images, 3 d 4 h."""

from __future__ import annotations

_DECIMAL = ((1e21, "Z"), (1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def count(number: float) -> str:
    """1281167 is "1.28 M"; numbers below ten thousand stay whole."""
    return f"{number:,.0f}" if abs(number) < 10_000 else _scaled(number, _DECIMAL[5:] if number < 1e9 else _DECIMAL)


def flops(number: float) -> str:
    """6.64e10 is "66.4 GFLOPs"."""
    text = _scaled(number, _DECIMAL)
    return f"{text}{'' if text[-1].isalpha() else ' '}FLOPs"


def size(number_bytes: float) -> str:
    """In binary units, as memory and disks are counted: "1.3 GiB"."""
    for unit, factor in (("TiB", 2**40), ("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if number_bytes >= factor:
            return f"{_three_digits(number_bytes / factor)} {unit}"
    return f"{number_bytes:.0f} bytes"


def time(seconds: float) -> str:
    """The two largest units: "3 d 4 h", "2 h 05 min", "7 min", "40 s", "38 ms"."""
    if seconds < 1:
        return f"{_three_digits(1000 * seconds)} ms"
    if seconds < 90:
        return f"{_three_digits(seconds)} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    if minutes < 24 * 60:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    hours = round(seconds / 3600)
    return f"{hours // 24:,} d {hours % 24} h"


def epochs(number: float) -> str:
    """ "4.5 epochs"; whole from a hundred on."""
    text = f"{number:.3g}" if number < 99.95 else f"{number:,.0f}"
    return f"{text} epoch{'s' * (text != '1')}"


def _scaled(number: float, units: tuple[tuple[float, str], ...]) -> str:
    for factor, prefix in units:
        # What would be rounded up to a thousand belongs to the next unit.
        if abs(number) >= 0.9995 * factor:
            return f"{_three_digits(number / factor)} {prefix}"
    return _three_digits(number)


def _three_digits(number: float) -> str:
    return f"{number:.2f}" if abs(number) < 9.995 else f"{number:.1f}" if abs(number) < 99.95 else f"{number:,.0f}"
