"""The size that JPEG, JPEG-LS and JPEG 2000 data announce, read before a decoder makes room for it."""

import struct

from fed_fsad.data.readers.picture import Undecodable

JPEG, JPEG2000 = b"\xff\xd8", b"\xff\x4f\xff\x51"
FRAMES = frozenset({*range(0xC0, 0xD0), 0xF7}) - {0xC4, 0xC8, 0xCC}
"""Second bytes of the markers that start a frame and hold its size."""
BARE = frozenset({0x01, 0xFF, *range(0xD0, 0xD9)})
"""Second bytes of markers without a length, and of fill bytes."""
MOST_CHANNELS = 4


def check_announced(data: bytes, width: int, height: int) -> None:
    """Raises Undecodable for compressed data that announce more pixels or channels than the file around them."""
    announced = _jpeg2000(data) if JPEG2000 in data[:4096] else _jpeg(data) if data.startswith(JPEG) else None
    if announced is not None and (announced[0] > width or announced[1] > height or announced[2] > MOST_CHANNELS):
        raise Undecodable("its compressed pixels are of another size than the file says; save it again")


def _jpeg(data: bytes) -> tuple[int, int, int]:
    """Width, height and channels of the first frame. Raises Undecodable when there is none."""
    at = 2
    while at + 10 <= len(data) and data[at] == 0xFF:
        kind = data[at + 1]
        if kind in FRAMES:
            height, width, channels = struct.unpack_from(">HHB", data, at + 5)
            return width, height, channels
        at += 1 if kind == 0xFF else 2 if kind in BARE else 2 + int(struct.unpack_from(">H", data, at + 2)[0])
    raise Undecodable("its compressed pixels are damaged or cut off; save it again")


def _jpeg2000(data: bytes) -> tuple[int, int, int]:
    """Width, height and channels of the image area. Raises struct.error when the data end before them."""
    right, bottom, left, top = struct.unpack_from(">4I", data, data.index(JPEG2000) + 8)
    (channels,) = struct.unpack_from(">H", data, data.index(JPEG2000) + 40)
    return max(right - left, 0), max(bottom - top, 0), channels
