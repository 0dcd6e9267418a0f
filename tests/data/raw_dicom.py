"""DICOM files written byte by byte, so that a test decides on every VR and on values that break its rules."""

import struct

IMPLICIT, EXPLICIT = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1"
_LONG = ("OB", "OW", "SQ", "UN", "UT", "OV", "UC", "UR", "OF", "OD", "OL")


def element(explicit, tag, vr, value):
    """One element; `value` is bytes, or text, or 16-bit numbers."""
    if isinstance(value, str):
        value = value.encode()
    elif isinstance(value, (list, tuple)):
        value = struct.pack(f"<{len(value)}H", *(number % 65536 for number in value))
    value += (b"\0" if vr in ("UI", "OB", "OW", "UN") else b" ") * (len(value) % 2)
    start = struct.pack("<HH", tag >> 16, tag & 0xFFFF)
    if not explicit:
        return start + struct.pack("<I", len(value)) + value
    if vr in _LONG:
        return start + vr.encode() + struct.pack("<HI", 0, len(value)) + value
    return start + vr.encode() + struct.pack("<H", len(value)) + value


def sequence(explicit, tag, *elements):
    """A sequence of one item; elements are (tag, vr, value)."""
    item = b"".join(element(explicit, *one) for one in elements)
    return (tag, "SQ", struct.pack("<HHI", 0xFFFE, 0xE000, len(item)) + item)


def write(path, elements, explicit=True, sop_class="1.2.840.10008.5.1.4.1.1.7", syntax=None):
    """Write a file of elements (tag, vr, value), of which the last with a tag counts."""
    syntax = syntax or (EXPLICIT if explicit else IMPLICIT)
    meta = [(0x00020002, "UI", sop_class), (0x00020003, "UI", "1.2.3"), (0x00020010, "UI", syntax)]
    head = b"".join(element(True, *one) for one in meta)
    body = {one[0]: element(explicit, *one) for one in elements}
    length = element(True, 0x00020000, "UL", struct.pack("<I", len(head)))
    content = bytes(128) + b"DICM" + length + head + b"".join(body[tag] for tag in sorted(body))
    path.write_bytes(content)
    return str(path)


def grey(rows, columns, cells, bits=12, signed=False, mono="MONOCHROME2", allocated=16):
    """The elements of a grey image; `cells` are bytes."""
    return [
        (0x00080016, "UI", "1.2.840.10008.5.1.4.1.1.7"),
        (0x00080018, "UI", "1.2.3"),
        (0x00080060, "CS", "OT"),
        (0x00280002, "US", [1]),
        (0x00280004, "CS", mono),
        (0x00280010, "US", [rows]),
        (0x00280011, "US", [columns]),
        (0x00280100, "US", [allocated]),
        (0x00280101, "US", [bits]),
        (0x00280102, "US", [bits - 1]),
        (0x00280103, "US", [int(signed)]),
        (0x7FE00010, "OW", cells),
    ]
