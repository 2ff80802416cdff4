"""Exact readers: from a picture, a film or a sound of the built-in world to its attributes.

Each is a matched filter against what the world renders, so that it needs no training and reads
what a tokenizer has blurred. Where nothing of the world is found, every attribute is None.
"""

from collections.abc import Callable
from functools import cache
from math import ceil
from typing import Any, NamedTuple

import numpy as np

from vqdit.data import world_render as render
from vqdit.data.world_captions import read_text
from vqdit.data.world_scenes import ATTRIBUTES, DETERMINED, Scene, all_scenes

Reading = dict[str, int | None]

# What counts as nothing of the world.
LEAST_COVERAGE = 0.3  # of a shape's full colour
LEAST_LOUDNESS = 0.015  # root mean square
LEAST_IMAGE_COSINE = 0.72  # of the picture with its best template; two like shapes have 0.71
LEAST_SOUND_COSINE = 0.6  # of the sound with its best template; white noise has 0.35

# Lengths in pixels of the reference side.
REACH = ceil(max(render.RADII)) + 3  # from the middle of a patch to its edge
SPOT = max(render.RADII) / 2  # the blur under which any shape is one spot
BLURS = (0.0, 0.7, 1.2)  # that a decoder may have added
OFFSETS = np.array(list(np.ndindex(7, 7)), np.float32) / 2 - 1.5  # of a shape's mass from its spot

WINDOW = 0.032  # seconds of a short-time spectrum
COMPRESSION = 0.7  # exponent of the magnitudes: harmonics that a codec has weakened still count
DETUNES = (-0.3, -0.15, 0.0, 0.15, 0.3)  # semitones that a template is spread over
MIN_SECONDS = 0.1

_COLOURS = render.COLOURS - render.BACKGROUND
_DIRECTIONS = _COLOURS / np.linalg.norm(_COLOURS, axis=1, keepdims=True)


class _Fit(NamedTuple):
    """The shape that explains a picture best; its centre (x, y) in pixels of the reference side."""

    shape: int
    size: int
    colour: int
    centre: np.ndarray


def _covered(pixels: np.ndarray, colour: int) -> np.ndarray:
    """The part of each pixel that has the colour: the projection on it, float32 [..., H, W]."""
    return (pixels - render.BACKGROUND) @ (_COLOURS[colour] / np.sum(_COLOURS[colour] ** 2))


def _colour(image: np.ndarray) -> int:
    """The colour nearest in direction to the mean of the bright pixels."""
    offsets = (image - render.BACKGROUND).reshape(-1, 3)
    strength = np.square(offsets) @ np.ones(3, np.float32)
    return int(np.argmax(_DIRECTIONS @ (strength @ offsets)))


@cache
def _gaussian(side: int, sigma: float) -> np.ndarray:
    steps = np.arange(side, dtype=np.float32)
    kernel = np.exp(-(((steps[:, None] - steps) / sigma) ** 2) / 2)
    return kernel / np.float32(np.sqrt(2 * np.pi) * sigma)


def _blurred(pictures: np.ndarray, sigma: float) -> np.ndarray:
    """Pictures [..., side, side] blurred by a Gaussian of `sigma` pixels."""
    if not sigma:
        return pictures
    kernel = _gaussian(pictures.shape[-1], sigma)
    return kernel @ pictures @ kernel


@cache
def _shapes(side: int) -> tuple[np.ndarray, np.ndarray, list[tuple[int, int, np.ndarray]]]:
    """Unit templates [K, patch pixels], their norms [K], and the shape, size and centre of each.

    The centres (x, y) are relative to the middle of the patch.
    """
    scale = side / render.REFERENCE_SIDE
    reach, middle = round(REACH * scale), np.float32(render.REFERENCE_SIDE / 2 + 0.5 / scale)
    window = slice(side // 2 - reach, side // 2 + reach + 1)
    templates, keys = [], []
    for shape, size in np.ndindex(len(ATTRIBUTES['shape']), len(ATTRIBUTES['size'])):
        centres = OFFSETS - _mass(shape, size)
        pictures = render.coverage(shape, size, middle + centres, side)
        for sigma in BLURS:
            templates.append(_blurred(pictures, sigma * scale)[:, window, window])
            keys += [(shape, size, centre) for centre in centres]
    flat = np.concatenate(templates).reshape(len(keys), -1)
    norms = np.linalg.norm(flat, axis=1)
    return flat / norms[:, None], norms, keys


def _mass(shape: int, size: int) -> np.ndarray:
    """The centre of mass (x, y) of a shape, relative to its centre; zero but for a triangle."""
    middle = np.full((1, 2), render.REFERENCE_SIDE / 2, np.float32)
    covered = render.coverage(shape, size, middle, render.REFERENCE_SIDE)[0]
    pixels = np.arange(render.REFERENCE_SIDE, dtype=np.float32) + 0.5 - middle[0, 0]
    return np.array((covered.sum(0) @ pixels, covered.sum(1) @ pixels)) / covered.sum()


def _fit(image: np.ndarray) -> _Fit | None:
    """The template of largest normalised correlation with the picture, around its heaviest spot."""
    side, colour = image.shape[0], _colour(image)
    scale = side / render.REFERENCE_SIDE
    covered = _covered(image, colour)
    spot = np.unravel_index(np.argmax(_blurred(covered, SPOT * scale)), covered.shape)
    reach = round(REACH * scale)
    row, column = (int(place) for place in spot)
    patch = np.pad(covered, reach)[row : row + 2 * reach + 1, column : column + 2 * reach + 1]
    templates, norms, keys = _shapes(side)
    match = np.vecdot(templates, patch.ravel())
    best = int(np.argmax(match))
    is_seen = match[best] > LEAST_COVERAGE * norms[best]
    if not (is_seen and match[best] > LEAST_IMAGE_COSINE * np.linalg.norm(covered)):
        return None
    shape, size, centre = keys[best]
    middle = (np.array((column, row), np.float32) + 0.5) / scale
    return _Fit(shape, size, colour, middle + centre)


def _attributes(fit: _Fit) -> Reading:
    column, row = np.argmin(np.abs(np.array(render.CENTRES) - fit.centre[:, None]), axis=1)
    position = 3 * int(row) + int(column)
    return {'shape': fit.shape, 'colour': fit.colour, 'size': fit.size, 'position': position}


def read_image(image: np.ndarray) -> Reading:
    """Shape, colour, size and position of a picture uint8 [side, side, 3]."""
    fit = _fit(image)
    return _attributes(fit) if fit else dict.fromkeys(DETERMINED['image'])


def read_video(video: np.ndarray) -> Reading:
    """All attributes of a film uint8 [T, side, side, 3]: the first frame's, and the way it goes."""
    fit = _fit(video[0])
    if not fit:
        return dict.fromkeys(DETERMINED['video'])
    frames, side = video.shape[:2]
    covered = _covered(video, fit.colour)
    paths = [render.path(fit.centre, way, frames) for way in range(len(ATTRIBUTES['motion']))]
    films = [render.coverage(fit.shape, fit.size, path, side) for path in paths]
    errors = [np.sum((covered - film) ** 2) for film in films]
    return {**_attributes(fit), 'motion': int(np.argmin(errors))}


def _spectrogram(sound: np.ndarray, rate: int) -> np.ndarray:
    """Compressed magnitudes of the short-time spectrum, float32 [frames * bins]."""
    window = round(WINDOW * rate)
    frames = np.lib.stride_tricks.sliding_window_view(sound, window)[:: window // 2]
    return (np.abs(np.fft.rfft(frames * _hann(window))) ** COMPRESSION).ravel()


@cache
def _hann(window: int) -> np.ndarray:
    return np.hanning(window).astype(np.float32)


@cache
def _tones(samples: int, rate: int) -> tuple[np.ndarray, np.ndarray, list[Scene]]:
    """Unit spectrograms [K, frames * bins] of every loud tone, their norms [K] and scenes [K]."""
    large = ATTRIBUTES['size'].index('large')
    scenes = [scene for scene in all_scenes() if scene.size == large and scene.position == 0]
    phases = np.zeros(render.HARMONICS.shape[1], np.float32)
    spectrograms = np.array([
        sum(
            _spectrogram(render.tone(scene, phases, detune, samples, rate), rate)
            for detune in DETUNES
        ) / len(DETUNES)
        for scene in scenes
    ])  # fmt: skip
    norms = np.linalg.norm(spectrograms, axis=1)
    return spectrograms / norms[:, None], norms, scenes


def read_audio(sound: np.ndarray, rate: int = 8000) -> Reading:
    """Shape, colour, size and motion of a sound float32 [samples] in [-1, 1], `rate` in Hz."""
    nothing: Reading = dict.fromkeys(DETERMINED['audio'])
    if len(sound) < MIN_SECONDS * rate:
        return nothing
    spectrogram = _spectrogram(np.asarray(sound, np.float32), rate)
    templates, norms, scenes = _tones(len(sound), rate)
    match = np.vecdot(templates, spectrogram)
    best = int(np.argmax(match))
    loudness = render.LOUDNESS[-1] * (match[best] / norms[best]) ** (1 / COMPRESSION)
    is_heard = loudness > LEAST_LOUDNESS
    if not (is_heard and match[best] > LEAST_SOUND_COSINE * np.linalg.norm(spectrogram)):
        return nothing
    scene, size = scenes[best], int(loudness > np.sqrt(np.prod(render.LOUDNESS)))
    return {'shape': scene.shape, 'colour': scene.colour, 'size': size, 'motion': scene.motion}


READERS: dict[str, Callable[[Any], Reading]] = {
    'image': read_image,
    'video': read_video,
    'audio': read_audio,
    'text': read_text,
}
