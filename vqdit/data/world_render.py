"""The pictures and sounds of the built-in world.

Pictures: a shape of one colour on a dark ground, antialiased by its signed distance, which is
negative inside. The shape travels with its motion and may slide over the edge, so that every motion
is seen from every position. An image is the first frame of its video.

Sounds: a tone whose pitch tells the colour, whose harmonics tell the shape and whose loudness tells
the size. The motion bends the pitch along a cosine of half a period (left falls, right rises) or of
a whole one (up is an arch, down a valley): contours of zero mean and orthogonal to each other, so
that no glide passes for another pitch or another glide. The position is not heard.
"""

from functools import cache

import numpy as np

from vqdit.data.world_scenes import Scene

# Lengths are in pixels of a picture of 32 x 32; other sizes are scaled.
REFERENCE_SIDE = 32
RADII = (4.0, 6.5)
CENTRES = (8.0, 16.0, 24.0)
JITTER = 1.0
TRAVEL = 7.0
DIRECTIONS = np.array([(0, 0), (-1, 0), (1, 0), (0, -1), (0, 1)], np.float32)  # x, y of each motion

BACKGROUND = np.array((16, 16, 16), np.float32)
COLOURS = np.array(
    [(232, 44, 44), (44, 208, 60), (48, 80, 244), (240, 220, 40), (228, 52, 220), (40, 216, 228)],
    np.float32,
)
PIXEL_NOISE = 4.0

PITCHES = 240 * 2 ** (np.arange(len(COLOURS)) * 5 / 12)  # Hz: 5 semitones apart, up to 1017
PITCH_JITTER = 0.15  # semitones
GLIDE = 2.0  # semitones
GLIDES = ((0.0, 0.0), (GLIDE, 0.5), (-GLIDE, 0.5), (-GLIDE, 1.0), (GLIDE, 1.0))  # depth, periods
# Amplitudes of the harmonics 1 to 3 of each shape, with a root mean square of 1 together.
HARMONICS = np.array([(1, 0, 0), (1, 0, 0.8), (1, 0.8, 0), (1, 0.8, 0.8)], np.float32)
HARMONICS *= np.sqrt(2 / np.sum(HARMONICS**2, axis=1, keepdims=True))
LOUDNESS = (0.05, 0.25)  # root mean square of small and large, 14 dB apart
FADE = 0.01  # seconds
SOUND_NOISE = 0.002


def _circle(x: np.ndarray, y: np.ndarray, radius: float) -> np.ndarray:
    return np.sqrt(x * x + y * y) - radius


def _square(x: np.ndarray, y: np.ndarray, radius: float) -> np.ndarray:
    return np.maximum(np.abs(x), np.abs(y)) - 0.9 * radius


def _triangle(x: np.ndarray, y: np.ndarray, radius: float) -> np.ndarray:
    """Upright and equilateral, its bounding box centred."""
    sides = 0.866 * np.abs(x) - 0.5 * y
    return np.maximum(sides - 0.465 * radius, y - 0.93 * radius)


def _cross(x: np.ndarray, y: np.ndarray, radius: float) -> np.ndarray:
    x, y, arm = np.abs(x), np.abs(y), 0.34 * radius
    return np.minimum(np.maximum(x - radius, y - arm), np.maximum(x - arm, y - radius))


_DISTANCES = (_circle, _square, _triangle, _cross)


@cache
def _pixels(side: int) -> np.ndarray:
    """The middles of the pixels of a row, in pixels of the reference side."""
    return (np.arange(side, dtype=np.float32) + np.float32(0.5)) * np.float32(REFERENCE_SIDE / side)


def coverage(shape: int, size: int, centres: np.ndarray, side: int) -> np.ndarray:
    """How much of each pixel the shape covers at each centre (x, y), float32 [T, side, side]."""
    offsets = _pixels(side) - centres[..., None]
    distance = _DISTANCES[shape](offsets[:, 0, None, :], offsets[:, 1, :, None], RADII[size])
    return np.clip(0.5 - (side / REFERENCE_SIDE) * distance, 0, 1)


@cache
def _displacements(motion: int, frames: int) -> np.ndarray:
    time = np.linspace(0, 1, frames, dtype=np.float32)
    return TRAVEL * time[:, None] * DIRECTIONS[motion]


def path(start: np.ndarray, motion: int, frames: int) -> np.ndarray:
    """The centres (x, y) of a shape that moves from `start`, float32 [frames, 2]."""
    return start + _displacements(motion, frames)


def centre(position: int) -> np.ndarray:
    """The middle (x, y) of a position, float32 [2]."""
    return np.array((CENTRES[position % 3], CENTRES[position // 3]), np.float32)


def render_video(scene: Scene, rng: np.random.Generator, frames: int, side: int) -> np.ndarray:
    """The scene in motion under a grain of grey noise, uint8 [frames, side, side, 3]."""
    jitter = JITTER * (2 * rng.random(2, np.float32) - 1)
    centres = path(centre(scene.position) + jitter, scene.motion, frames)
    covered = coverage(scene.shape, scene.size, centres, side)
    grain = PIXEL_NOISE * rng.standard_normal(covered.shape, np.float32)
    # Channels come first while computing, which is several times faster.
    ground, colour = BACKGROUND[:, None, None, None], COLOURS[scene.colour][:, None, None, None]
    pixels = ground + (colour - ground) * covered + grain
    rounded = np.clip(pixels + 0.5, 0, 255).astype(np.uint8)
    return np.ascontiguousarray(rounded.transpose(1, 2, 3, 0))


def render_image(scene: Scene, rng: np.random.Generator, side: int) -> np.ndarray:
    """The scene as it stands, uint8 [side, side, 3]: the first frame of its video."""
    return render_video(scene, rng, 1, side)[0]


@cache
def _cycles(motion: int, samples: int, rate: int) -> np.ndarray:
    """The cycles run so far of a tone of mean pitch 1 Hz, float64 [samples]."""
    depth, periods = GLIDES[motion]
    bend = depth * np.cos(2 * np.pi * periods * np.arange(samples) / samples)
    return np.cumsum(2 ** (bend / 12)) / rate


@cache
def _envelope(samples: int, rate: int) -> np.ndarray:
    ramp = np.arange(0.5, samples) / (FADE * rate)
    return np.minimum(np.minimum(ramp, ramp[::-1]), 1).astype(np.float32)


def tone(scene: Scene, phases: np.ndarray, detune: float, samples: int, rate: int) -> np.ndarray:
    """The clean sound of a scene, float32 [samples]; phases [3] in radians, detune in semitones."""
    pitch = PITCHES[scene.colour] * 2 ** (detune / 12)
    cycles = pitch * _cycles(scene.motion, samples, rate)
    angle = np.float32(2 * np.pi) * (cycles - np.floor(cycles)).astype(np.float32)
    amplitudes = LOUDNESS[scene.size] * HARMONICS[scene.shape]
    sound = sum(
        amplitude * np.sin(number * angle + phase)
        for number, (amplitude, phase) in enumerate(zip(amplitudes, phases), start=1)
        if amplitude
    )
    return sound * _envelope(samples, rate)


def render_audio(scene: Scene, rng: np.random.Generator, samples: int, rate: int) -> np.ndarray:
    """The scene as it sounds, float32 [samples] in [-1, 1]."""
    phases = rng.uniform(0, 2 * np.pi, HARMONICS.shape[1:]).astype(np.float32)
    detune = PITCH_JITTER * (2 * rng.random() - 1)
    noise = SOUND_NOISE * rng.standard_normal(samples, np.float32)
    return tone(scene, phases, detune, samples, rate) + noise
