"""Films: frames from a folder of pictures, an animated picture or a film file, evenly sampled."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageSequence

from vqdit.data.preprocess.image import (
    ImageSettings,
    check_picture,
    flatten,
    load_image,
    open_image,
    prepare_image,
)
from vqdit.data.settings import require
from vqdit.errors import DataError

PICTURES = ('.png', '.jpg', '.jpeg', '.webp', '.bmp', '.gif', '.tif', '.tiff')
MAX_FRAMES = 10_000


@dataclass(frozen=True)
class VideoSettings:
    """How films are prepared: `frames` of them evenly spaced, each as a picture (see
    ImageSettings).
    """

    frames: int = 8
    size: int = 32
    channels: int = 3
    fit: str = 'crop'
    background: int = 255

    def __post_init__(self) -> None:
        require(1 <= self.frames <= MAX_FRAMES, 'video.frames', self.frames, f'in 1..{MAX_FRAMES}')
        check_picture('video', self.size, self.channels, self.fit, self.background)

    @property
    def picture(self) -> ImageSettings:
        return ImageSettings(self.size, self.channels, self.fit, self.background)


def read_video(path: Path, name: str, settings: VideoSettings) -> np.ndarray:
    """The film as uint8 [frames, size, size, channels].

    `path` is a folder whose pictures in the order of their names are the frames, an animated GIF,
    WEBP or PNG, or any film that PyAV decodes. Raises DataError, naming the film, when it is broken
    or has too few frames.
    """
    if path.is_dir():
        frames = _folder_frames(path, name, settings.background)
    elif path.suffix.lower() in PICTURES:
        frames = _picture_frames(path, name, settings.background)
    else:
        frames = _film_frames(path, name)
    # Preparing each frame at once keeps a long film small in memory.
    return prepare_video(
        [prepare_image(frame, settings.picture) for frame in frames], name, settings.frames
    )


def prepare_video(frames: list[np.ndarray], name: str, count: int) -> np.ndarray:
    """`count` evenly spaced frames, the first and the last among them, as [count, H, W, C]."""
    if len(frames) < count:
        raise DataError(
            f'{name}: {len(frames)} frames are fewer than video.frames={count}; remove it'
        )
    chosen = np.round(np.linspace(0, len(frames) - 1, count)).astype(int)
    return np.stack([frames[index] for index in chosen])


def _folder_frames(path: Path, name: str, background: int) -> Iterator[Image.Image]:
    for picture in sorted(path.iterdir())[:MAX_FRAMES]:
        if picture.suffix.lower() in PICTURES and picture.is_file():
            with open(picture, 'rb') as file:
                yield load_image(file, f'{name}/{picture.name}', background)


def _picture_frames(path: Path, name: str, background: int) -> Iterator[Image.Image]:
    with open(path, 'rb') as file:
        image = open_image(file, name)
        try:
            for frame in itertools.islice(ImageSequence.Iterator(image), MAX_FRAMES):
                frame.load()
                yield flatten(frame, background)
        except Exception as error:  # Pillow's decoders raise almost anything
            raise DataError(
                f'{name}: a frame cannot be decoded ({error}); mend or remove it'
            ) from error


def _film_frames(path: Path, name: str) -> Iterator[Image.Image]:
    try:
        import av
    except ImportError as error:
        raise DataError(f'{name}: films need PyAV; pip install "vqdit[video]"') from error
    count = declared = 0
    try:
        # Playlists that pass for films could name other files or addresses.
        with av.open(str(path), options={'protocol_whitelist': 'file'}) as film:
            if not film.streams.video:
                raise DataError(f'{name}: it has no pictures; remove it')
            declared = film.streams.video[0].frames
            for frame in film.decode(video=0):
                count += 1
                yield frame.to_image()
                if count == MAX_FRAMES:
                    return
    except av.FFmpegError as error:
        raise DataError(
            f'{name}: the film cannot be decoded ({error}); mend or remove it'
        ) from error
    if count < 0.9 * declared:
        raise DataError(f'{name}: it is cut short: {count} of {declared} frames; mend or remove it')
