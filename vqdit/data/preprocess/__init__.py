"""From files to the prepared form of each modality."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from vqdit.data.preprocess.audio import AudioSettings, read_audio
from vqdit.data.preprocess.image import ImageSettings, read_image
from vqdit.data.preprocess.text import TextSettings
from vqdit.data.preprocess.video import VideoSettings, read_video
from vqdit.data.settings import read_settings
from vqdit.errors import DataError


@dataclass(frozen=True)
class Formats:
    """The settings of every modality: the sections of the same names in `config.data`."""

    image: ImageSettings = field(default_factory=ImageSettings)
    audio: AudioSettings = field(default_factory=AudioSettings)
    video: VideoSettings = field(default_factory=VideoSettings)
    text: TextSettings = field(default_factory=TextSettings)


def read_formats(config: Mapping[str, Any]) -> Formats:
    """The formats that the config states; what it does not state is at its default."""
    kinds = {
        'image': ImageSettings,
        'audio': AudioSettings,
        'video': VideoSettings,
        'text': TextSettings,
    }
    return Formats(
        **{
            name: read_settings(kind, config.get(name) or {}, f'config.data.{name}')
            for name, kind in kinds.items()
        }
    )


def read_file(path: Path, modality: str, name: str, formats: Formats) -> np.ndarray:
    """The file in the prepared form of its modality. Raises DataError when it cannot be read."""
    try:
        if modality == 'image':
            return read_image(path, name, formats.image)
        if modality == 'audio':
            return read_audio(path, name, formats.audio)
        return read_video(path, name, formats.video)
    except OSError as error:
        raise DataError(
            f'{name}: it cannot be read ({error.strerror}); restore or remove it'
        ) from error
