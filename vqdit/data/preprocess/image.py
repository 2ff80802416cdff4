"""Pictures: decoding with every mode made L or RGB, and fitting to a square."""

import io
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps

from vqdit.data.settings import require
from vqdit.errors import DataError

# Other formats of Pillow start programs (EPS) or are hardly ever meant.
FORMATS = ('PNG', 'JPEG', 'WEBP', 'BMP', 'GIF', 'TIFF')
MAX_PIXELS = 50_000_000
MIN_SIDE = 8
MAX_ASPECT = 20


@dataclass(frozen=True)
class ImageSettings:
    """How pictures are prepared.

    Attributes:
        size: side of the square in pixels.
        channels: 1 (grey) or 3 (RGB).
        fit: `crop` scales the middle square; `pad` shrinks what is larger, never enlarges, and
            repeats the border pixels around it.
        background: brightness 0..255 laid under transparent pixels.
    """

    size: int = 32
    channels: int = 3
    fit: str = 'crop'
    background: int = 255

    def __post_init__(self) -> None:
        check_picture('image', self.size, self.channels, self.fit, self.background)


def check_picture(section: str, size: int, channels: int, fit: str, background: int) -> None:
    """Raises UserError for what no picture can be prepared with; `section` is that of the settings."""
    require(size >= 1, f'{section}.size', size, 'at least 1')
    require(channels in (1, 3), f'{section}.channels', channels, '1 or 3')
    require(fit in ('crop', 'pad'), f'{section}.fit', fit, '"crop" or "pad"')
    require(0 <= background <= 255, f'{section}.background', background, 'in 0..255')


def open_image(file: BinaryIO, name: str) -> Image.Image:
    """Reads the header only and checks format and size. Raises DataError, naming the picture."""
    try:
        image = Image.open(file, formats=FORMATS)
    except Exception as error:  # Pillow's parsers raise almost anything on damaged headers
        raise _unusable(name, error) from error
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise _refused(name, f'{width}x{height} pixels are more than {MAX_PIXELS}')
    if min(width, height) < MIN_SIDE:
        raise _refused(name, f'{width}x{height} pixels are fewer than {MIN_SIDE} along a side')
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise _refused(name, f'{width}x{height} pixels are longer than {MAX_ASPECT}:1')
    return image


def load_image(file: BinaryIO, name: str, background: int = 255) -> Image.Image:
    """One picture in mode L or RGB: turned by its EXIF, transparency laid on `background`, 16 bits
    scaled.

    Of an animation it is the first frame. Raises DataError, naming the picture.
    """
    image = open_image(file, name)
    try:
        image.load()
        ImageOps.exif_transpose(image, in_place=True)
        return flatten(image, background)
    except Exception as error:  # as above, and so do the decoders
        raise _unusable(name, error) from error


def flatten(image: Image.Image, background: int) -> Image.Image:
    """Any mode of Pillow as L or RGB. Raises ValueError where there is no meaningful way."""
    if image.mode in ('L', 'RGB') and 'transparency' not in image.info:
        return image
    if image.mode.startswith(('I', 'F')):
        return Image.fromarray(_scaled(np.asarray(image, np.float64), image.mode))
    if image.has_transparency_data:
        ground = Image.new('RGBA', image.size, (background, background, background, 255))
        return Image.alpha_composite(ground, image.convert('RGBA')).convert('RGB')
    return image.convert('L' if image.mode == '1' else 'RGB')


def prepare_image(image: Image.Image, settings: ImageSettings) -> np.ndarray:
    """A picture as uint8 [size, size, channels], antialiased where it is resized."""
    image = image.convert('L' if settings.channels == 1 else 'RGB')
    fitted = _crop(image, settings.size) if settings.fit == 'crop' else _pad(image, settings.size)
    return fitted.reshape(settings.size, settings.size, settings.channels)


def read_image(source: Path | bytes, name: str, settings: ImageSettings) -> np.ndarray:
    """`load_image` and `prepare_image` of a file or of its bytes."""
    with io.BytesIO(source) if isinstance(source, bytes) else open(source, 'rb') as file:
        return prepare_image(load_image(file, name, settings.background), settings)


def _crop(image: Image.Image, size: int) -> np.ndarray:
    width, height = image.size
    side = min(width, height)
    left, top = (width - side) / 2, (height - side) / 2
    box = (left, top, left + side, top + side)
    if image.size != (size, size):
        image = image.resize((size, size), Image.Resampling.LANCZOS, box=box)
    return np.asarray(image)


def _pad(image: Image.Image, size: int) -> np.ndarray:
    scale = min(1.0, size / max(image.size))
    width, height = (max(1, round(side * scale)) for side in image.size)
    if image.size != (width, height):
        image = image.resize((width, height), Image.Resampling.LANCZOS)
    rows = np.clip(np.arange(size) - (size - height) // 2, 0, height - 1)
    columns = np.clip(np.arange(size) - (size - width) // 2, 0, width - 1)
    return np.asarray(image)[rows[:, None], columns]


def _scaled(values: np.ndarray, mode: str) -> np.ndarray:
    """More than 8 bits as uint8: by their full range where it is known, else by the values that are
    there.
    """
    if not np.isfinite(values).all():
        raise ValueError('it holds NaN or infinity')
    low, high = float(values.min()), float(values.max())
    if mode.startswith('I;16'):
        low, high = 0.0, 65535.0
    elif low >= 0 and high <= 1:
        low, high = 0.0, 1.0
    return np.round(255 * (values - low) / max(high - low, 1e-12)).astype(np.uint8)


def _unusable(name: str, error: Exception) -> DataError:
    reason = ' '.join(str(error).split())[:200] or type(error).__name__
    if 'cannot identify' in reason:
        reason = f'it is none of {", ".join(FORMATS)}'
    return _refused(name, f'the picture cannot be decoded ({reason})')


def _refused(name: str, reason: str) -> DataError:
    return DataError(f'{name}: {reason}; mend or remove it')
