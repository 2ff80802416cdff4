"""Pictures to look at: one table of given and generated data, whatever its modalities.

An item is drawn by what it is: a string, a sound float32 [samples], a picture uint8 [H, W, C] or a film
uint8 [T, H, W, C].
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

Items = Sequence[Any] | np.ndarray

CELL = 128
MARGIN = 6
TITLE = 18
ROWS = 8  # longer tables go on to the right
_INK, _PAPER = (20, 20, 20), (255, 255, 255)
_DECIBELS = 60.0
_FILM_COLUMNS = 4


def draw_table(columns: Mapping[str, Items]) -> Image.Image:
    """A picture with a titled column for every entry and a row for every sample.

    A column of a single item serves all rows and is drawn once.
    """
    count = max(len(items) for items in columns.values())
    blocks = [range(start, min(start + ROWS, count)) for start in range(0, count, ROWS)]
    step = CELL + MARGIN
    width, rows = len(blocks) * len(columns) * step + MARGIN, min(count, ROWS)
    table = Image.new('RGB', (width, TITLE + rows * step + MARGIN), _PAPER)
    draw = ImageDraw.Draw(table)
    for place, (block, title) in enumerate((b, t) for b in blocks for t in columns):
        left, items = MARGIN + place * step, columns[title]
        draw.text((left, MARGIN // 2), title, fill=_INK, font=_font(12))
        for row, index in enumerate(block):
            if index < len(items):
                table.paste(draw_item(items[index]), (left, TITLE + MARGIN + row * step))
    return table


def draw_item(item: Any) -> Image.Image:
    """One item as a picture of CELL x CELL pixels."""
    if isinstance(item, str):
        return _draw_text(item)
    if item.ndim == 1:
        return _draw_sound(item)
    if item.ndim == 4:
        return _draw_film(item)
    # Small pictures show their pixels, large ones shrink without flicker.
    filter = Image.Resampling.NEAREST if max(item.shape[:2]) <= CELL else Image.Resampling.LANCZOS
    return to_image(item).convert('RGB').resize((CELL, CELL), filter)


def to_image(pixels: np.ndarray) -> Image.Image:
    """A picture uint8 [H, W, C], with C = 1 or 3, for Pillow."""
    return Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _draw_text(text: str) -> Image.Image:
    """The words, broken into lines and cut where the cell ends."""
    cell = Image.new('RGB', (CELL, CELL), (238, 238, 238))
    draw, font = ImageDraw.Draw(cell), _font(13)
    lines = ['']
    for word in text.split():
        longer = f'{lines[-1]} {word}'.strip()
        if draw.textlength(longer, font) <= CELL - 2 * MARGIN or not lines[-1]:
            lines[-1] = longer
        else:
            lines.append(word)
    draw.multiline_text((MARGIN, MARGIN), '\n'.join(lines), fill=_INK, font=font)
    return cell


def _draw_film(film: np.ndarray) -> Image.Image:
    """The frames in reading order."""
    columns = min(_FILM_COLUMNS, len(film))
    rows = math.ceil(len(film) / columns)
    height, width, channels = film.shape[1:]
    sheet = np.full((rows * columns, height, width, channels), 255, np.uint8)
    sheet[:len(film)] = film
    tiled = sheet.reshape(rows, columns, height, width, channels).swapaxes(1, 2)
    picture = to_image(tiled.reshape(rows * height, columns * width, channels)).convert('RGB')
    return ImageOps.pad(picture, (CELL, CELL), Image.Resampling.NEAREST, color=_PAPER)


def _draw_sound(sound: np.ndarray) -> Image.Image:
    """The spectrogram: time to the right, frequency upwards, the loudest 60 dB from dark to bright."""
    level = np.clip(1 + _decibels(sound) / _DECIBELS, 0, 1)
    grey = Image.fromarray(np.round(255 * level).astype(np.uint8).T[::-1])
    coloured = ImageOps.colorize(grey, (10, 10, 40), (255, 250, 200), mid=(220, 80, 60))
    return coloured.resize((CELL, CELL), Image.Resampling.BILINEAR)


def _decibels(sound: np.ndarray) -> np.ndarray:
    """Short-time power below the loudest, float [frames, bins]."""
    window = max(16, min(256, len(sound) // 8))
    padded = np.pad(sound.astype(np.float64), (0, max(0, window - len(sound))))
    frames = np.lib.stride_tricks.sliding_window_view(padded, window)[::max(1, window // 4)]
    power = np.abs(np.fft.rfft(frames * np.hanning(window))) ** 2
    return 10 * np.log10((power + 1e-12) / (power.max() + 1e-12))
