"""The built-in world as a source: its train and test splits are two seeds."""

from dataclasses import dataclass

from vqdit.data.preprocess import Formats
from vqdit.data.settings import require
from vqdit.data.world import World
from vqdit.errors import UserError, nearest


@dataclass(frozen=True)
class WorldSettings:
    """How many examples of the world there are, and its seed."""

    train_examples: int = 20_000
    test_examples: int = 1_000
    seed: int = 0

    def __post_init__(self) -> None:
        require(self.seed >= 0, 'config.data.seed', self.seed, '0 or more')


def open_world(
    settings: WorldSettings, split: str, formats: Formats, modalities: tuple[str, ...] | None = None
) -> World:
    """The world of a split. Raises UserError for an unknown split, modality or format."""
    splits = {'train': (0, settings.train_examples), 'test': (1, settings.test_examples)}
    if split not in splits:
        raise UserError(
            f'the world has no split "{split}", only train, test.{nearest(split, splits)}'
        )
    require(
        formats.image.channels == 3,
        'config.data.image.channels',
        formats.image.channels,
        '3 for the world',
    )
    offset, size = splits[split]
    return World(
        seed=2 * settings.seed + offset,
        size=size,
        modalities=modalities or ('image', 'audio', 'text'),
        image_size=formats.image.size,
        video_size=formats.video.size,
        video_frames=formats.video.frames,
        audio_rate=formats.audio.rate,
        audio_seconds=formats.audio.seconds,
    )
