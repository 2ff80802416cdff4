"""The built-in world: one scene as image, video, audio and text, with a known joint distribution.

No file and no download. `World(seed, size)[i]` is a pure function of the seed and i. Each modality
draws from a random stream of its own, so that it is the same whichever others are rendered.

This module is the world's public face; its parts are `world_scenes` (the table), `world_captions`
(the grammar), `world_render` and `world_readers`.
"""

import operator
from dataclasses import dataclass
from typing import Any

import numpy as np

from vqdit.data.world_captions import (
    caption_entropy,
    caption_probabilities,
    draw_caption,
    plain_caption,
    read_text,
    vocabulary,
)
from vqdit.data.world_readers import READERS, read_audio, read_image, read_video
from vqdit.data.world_render import render_audio, render_image, render_video
from vqdit.data.world_scenes import (
    ATTRIBUTES,
    DETERMINED,
    Scene,
    all_scenes,
    conditional,
    draw_scene,
    entropy,
    joint,
)
from vqdit.errors import UserError, nearest

__all__ = [
    'ATTRIBUTES',
    'DETERMINED',
    'READERS',
    'Scene',
    'World',
    'all_scenes',
    'caption_entropy',
    'caption_probabilities',
    'conditional',
    'entropy',
    'joint',
    'plain_caption',
    'read_audio',
    'read_image',
    'read_text',
    'read_video',
    'vocabulary',
]

# An image is the first frame of the video: they share a stream.
_STREAMS = {'scene': 0, 'image': 1, 'video': 1, 'audio': 2, 'text': 3}


@dataclass(frozen=True)
class World:
    """`size` examples of the world; train and test splits are two seeds."""

    seed: int
    size: int
    modalities: tuple[str, ...] = ('image', 'audio', 'text')
    image_size: int = 32
    video_size: int = 32
    video_frames: int = 8
    audio_rate: int = 8000
    audio_seconds: float = 0.5

    def __post_init__(self) -> None:
        for name in self.modalities:
            if name not in DETERMINED:
                known, hint = ', '.join(DETERMINED), nearest(name, DETERMINED)
                raise UserError(f'The world has no modality "{name}", only {known}.{hint}')
        if self.seed < 0 or self.size < 0:
            raise UserError(f'World seed {self.seed} and size {self.size} must not be negative.')

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> dict[str, Any]:
        """The modalities asked for, and `scene`; raises IndexError outside of 0 .. size - 1."""
        index = operator.index(index)
        if not 0 <= index < self.size:
            raise IndexError(f'World example {index} is outside of 0 .. {self.size - 1}.')
        scene = draw_scene(self._stream(index, 'scene'))
        rendered = {
            name: self.render(name, scene, self._stream(index, name)) for name in self.modalities
        }
        return {**rendered, 'scene': scene}

    def _stream(self, index: int, name: str) -> np.random.Generator:
        return np.random.default_rng((self.seed, index, _STREAMS[name]))

    def render(self, name: str, scene: Scene, rng: np.random.Generator) -> Any:
        """A modality of a scene, drawn from its distribution."""
        if name == 'image':
            return render_image(scene, rng, self.image_size)
        if name == 'video':
            return render_video(scene, rng, self.video_frames, self.video_size)
        if name == 'audio':
            samples = round(self.audio_seconds * self.audio_rate)
            return render_audio(scene, rng, samples, self.audio_rate)
        return draw_caption(scene, rng)
