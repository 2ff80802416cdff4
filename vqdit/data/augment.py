"""Changes of examples that keep their meaning, drawn anew for every copy of a training example."""

from dataclasses import dataclass

import numpy as np

from vqdit.data.dataset import Dataset, Example, read_column
from vqdit.data.settings import require


@dataclass(frozen=True)
class AugmentSettings:
    """What is changed, and how far at most; 0 leaves it alone.

    Attributes:
        copies: how many changed versions of each example there are.
        image_shift: pixels up, down, left, right, all frames alike; the border fills the gap.
        image_flip: probability of swapping left and right (not for captions that tell the side).
        audio_gain: decibels, louder or softer; what goes beyond 1 is scaled back.
        audio_shift: seconds, earlier or later.
        audio_speed: share by which sounds are faster and higher, or slower and lower; 0.1 is 10 %.
        audio_noise: standard deviation of white noise.
    """

    copies: int = 1
    image_shift: int = 0
    image_flip: float = 0.0
    audio_gain: float = 0.0
    audio_shift: float = 0.0
    audio_speed: float = 0.0
    audio_noise: float = 0.0

    def __post_init__(self) -> None:
        require(self.copies >= 1, 'augment.copies', self.copies, 'at least 1')
        require(0 <= self.image_flip <= 1, 'augment.image_flip', self.image_flip, 'a probability')
        require(0 <= self.audio_speed < 1, 'augment.audio_speed', self.audio_speed, 'in [0, 1)')
        for name in ('image_shift', 'audio_gain', 'audio_shift', 'audio_noise'):
            require(getattr(self, name) >= 0, f'augment.{name}', getattr(self, name), '0 or more')


@dataclass(frozen=True)
class Augmented:
    """`copies` times the dataset: example j is `dataset[j % len]` changed by rng((seed, j))."""

    dataset: Dataset
    settings: AugmentSettings
    rate: int
    seed: int = 0

    def __len__(self) -> int:
        return self.settings.copies * len(self.dataset)

    def __getitem__(self, index: int) -> Example:
        index = range(len(self))[index]
        rng = np.random.default_rng((self.seed, index))
        return augment(self.dataset[index % len(self.dataset)], rng, self.settings, self.rate)

    def column(self, key: str) -> np.ndarray:
        """The column of the dataset, as often as there are copies."""
        return np.tile(read_column(self.dataset, key), self.settings.copies)


def augment(
    example: Example, rng: np.random.Generator, settings: AugmentSettings, rate: int
) -> Example:
    """The example with its image, video and audio changed, in their shapes; `rate` of the audio in
    Hz.
    """
    changed = dict(example)
    for modality in ('image', 'video'):
        if modality in example:
            changed[modality] = augment_pixels(example[modality], rng, settings)
    if 'audio' in example:
        changed['audio'] = augment_audio(example['audio'], rng, settings, rate)
    return changed


def augment_pixels(
    pixels: np.ndarray, rng: np.random.Generator, settings: AugmentSettings
) -> np.ndarray:
    """Shifted and flipped uint8 [..., H, W, C]."""
    down, right = rng.integers(-settings.image_shift, settings.image_shift, size=2, endpoint=True)
    shifted = np.take(pixels, _shifted(pixels.shape[-3], down), axis=-3)
    shifted = np.take(shifted, _shifted(pixels.shape[-2], right), axis=-2)
    return shifted[..., ::-1, :].copy() if rng.random() < settings.image_flip else shifted


def augment_audio(
    samples: np.ndarray, rng: np.random.Generator, settings: AugmentSettings, rate: int
) -> np.ndarray:
    """Another speed, moment, loudness and some noise: float32 [samples] in [-1, 1]."""
    speed = 1 + rng.uniform(-settings.audio_speed, settings.audio_speed)
    start = rate * rng.uniform(-settings.audio_shift, settings.audio_shift)
    gain = 10 ** (rng.uniform(-settings.audio_gain, settings.audio_gain) / 20)
    times = np.arange(len(samples), dtype=np.float64)
    if settings.audio_speed or settings.audio_shift:
        samples = np.interp((times - start) * speed, times, samples, left=0.0, right=0.0)
    changed = gain * samples + settings.audio_noise * rng.standard_normal(len(samples))
    return (changed / max(1.0, np.abs(changed).max())).astype(np.float32)


def _shifted(length: int, by: int) -> np.ndarray:
    """Indices that move an axis by `by`, repeating its border."""
    return np.clip(np.arange(length) - by, 0, length - 1)
