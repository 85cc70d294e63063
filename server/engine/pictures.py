"""Pictures as a vision encoder takes them."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from server.errors import RequestError

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")
MOST_PIXELS = 64_000_000
"""Larger pictures take more memory decoded than they can be worth: every encoder makes them smaller first."""


def read_picture(data: bytes) -> npt.NDArray[np.uint8]:
    """Decode a picture, upright and on white where it is transparent; of an animation the first frame.

    Returns:
        Red, green and blue [height, width, 3].

    Raises:
        RequestError: the data is no picture of a known format, is damaged, or has too many pixels.
    """
    try:
        with Image.open(BytesIO(data), formats=FORMATS) as picture:
            width, height = picture.size
            if width * height > MOST_PIXELS:
                raise RequestError(
                    f"an image has {width} x {height} pixels; send one of at most {MOST_PIXELS // 10**6} megapixels",
                    param="messages",
                )
            return np.array(_on_white(ImageOps.exif_transpose(picture)))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        kinds = ", ".join(FORMATS[:-1])
        raise RequestError(
            f"an image cannot be read; send a {kinds} or {FORMATS[-1]} file", param="messages"
        ) from error


def _on_white(picture: Image.Image) -> Image.Image:
    if not picture.has_transparency_data:
        return picture.convert("RGB")
    paper = Image.new("RGBA", picture.size, "white")
    return Image.alpha_composite(paper, picture.convert("RGBA")).convert("RGB")
