"""Amounts of memory, as people write and read them.

In:  text such as 12GiB, or bytes.  Out: bytes, or text.
"""

import re

from codeweft.base.errors import UserError

UNITS = {"": 1, "B": 1, "KIB": 1 << 10, "MIB": 1 << 20, "GIB": 1 << 30, "KB": 10**3, "MB": 10**6, "GB": 10**9}


def bytes_of(text: str) -> int:
    """The bytes that a text names; UserError where it names none.

    >>> bytes_of("12GiB") == 12 << 30, bytes_of("1.5 GB"), bytes_of("4096")
    (True, 1500000000, 4096)
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", text)
    factor = UNITS.get(match[2].upper()) if match else None
    if match is None or factor is None:
        raise UserError(f"{text!r} is no amount of memory.", "Write a number and a unit, such as 12GiB or 800MiB.")
    return int(float(match[1]) * factor)


def shown(size: int) -> str:
    """Bytes for people.

    >>> shown(12 << 30), shown(300 << 20), shown(5000)
    ('12.0 GiB', '300 MiB', '5000 bytes')
    """
    if size >= 1 << 30:
        return f"{size / (1 << 30):.1f} GiB"
    return f"{size >> 20} MiB" if size >= 1 << 20 else f"{size} bytes"
