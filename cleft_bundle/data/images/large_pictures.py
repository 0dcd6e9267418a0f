"""Opening pictures with Pillow under a limit of the caller's own, in place of Pillow's.

Pillow's limit of size, `Image.MAX_IMAGE_PIXELS`, belongs to the whole process; it would refuse what the caller allows.
"""

from __future__ import annotations

import threading
from typing import BinaryIO

from PIL import Image

_lock = threading.Lock()


def open_picture(file: BinaryIO, format_: str) -> Image.Image:
    """Read a picture's header, whatever size it claims: the caller is to look at it before loading.

    Args:
        file: an open file, or bytes in a file's shape, at its start.
        format_: Pillow's name of the format.
    """
    Image.init()
    factory, _ = Image.OPEN[format_]
    return factory(file, "")


def load_picture(picture: Image.Image) -> None:
    """Decode a picture whose size the caller has allowed.

    For a picture above Pillow's limit, that limit is lifted meanwhile; such pictures are loaded one at a time.
    """
    limit = Image.MAX_IMAGE_PIXELS
    if limit is None or picture.width * picture.height <= limit:
        picture.load()
        return
    with _lock:
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            picture.load()
        finally:
            Image.MAX_IMAGE_PIXELS = limit
