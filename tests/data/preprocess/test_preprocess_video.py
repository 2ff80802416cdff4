"""Films: frames from folders, animations and files."""

import numpy as np
import pytest
from PIL import Image

from vqdit.data.preprocess.video import VideoSettings, prepare_video, read_video
from vqdit.errors import DataError, UserError

SETTINGS = VideoSettings(frames=4, size=16)


def frames(count: int) -> list[Image.Image]:
    """Grey pictures, each brighter than the one before."""
    return [Image.new('RGB', (16, 16), (20 * index,) * 3) for index in range(count)]


def brightness(film: np.ndarray) -> list[int]:
    return (film[:, 8, 8, 0] // 20).tolist()


def test_folder_of_frames_in_the_order_of_names(tmp_path):
    for index, frame in enumerate(frames(4)):
        frame.save(tmp_path / f'{index:03d}.png')
    (tmp_path / 'notes.txt').write_text('no frame')
    film = read_video(tmp_path, 'clip', SETTINGS)
    assert film.shape == (4, 16, 16, 3) and film.dtype == np.uint8
    assert brightness(film) == [0, 1, 2, 3]


def test_animation_is_sampled_evenly(tmp_path):
    first, *others = frames(10)
    first.save(tmp_path / 'a.gif', save_all=True, append_images=others)
    assert brightness(read_video(tmp_path / 'a.gif', 'a.gif', SETTINGS)) == [0, 3, 6, 9]


def test_prepare_keeps_the_first_and_the_last_frame():
    stack = [np.full((2, 2, 1), index, np.uint8) for index in range(9)]
    assert prepare_video(stack, 'a', 3)[:, 0, 0, 0].tolist() == [0, 4, 8]
    assert prepare_video(stack, 'a', 1)[:, 0, 0, 0].tolist() == [0]


def test_too_few_frames(tmp_path):
    frames(1)[0].save(tmp_path / 'a.png')
    with pytest.raises(DataError, match=r'^a\.png: 1 frames .*video\.frames=4'):
        read_video(tmp_path / 'a.png', 'a.png', SETTINGS)
    with pytest.raises(DataError, match='clip: 0 frames'):
        (tmp_path / 'clip').mkdir()
        read_video(tmp_path / 'clip', 'clip', SETTINGS)


def test_a_broken_frame_is_named(tmp_path):
    for index, frame in enumerate(frames(4)):
        frame.save(tmp_path / f'{index}.png')
    (tmp_path / '2.png').write_bytes(b'no picture')
    with pytest.raises(DataError, match=r'^clip/2\.png: '):
        read_video(tmp_path, 'clip', SETTINGS)


def test_half_an_animation(tmp_path):
    first, *others = (
        Image.fromarray(np.random.default_rng(seed).integers(0, 256, (16, 16, 3), np.uint8))
        for seed in range(8)
    )
    first.save(tmp_path / 'a.gif', save_all=True, append_images=others)
    content = (tmp_path / 'a.gif').read_bytes()
    (tmp_path / 'a.gif').write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=r'^a\.gif: '):
        read_video(tmp_path / 'a.gif', 'a.gif', VideoSettings(frames=8, size=16))


def write_film(path, count: int) -> None:
    av = pytest.importorskip('av')
    with av.open(str(path), 'w') as film:
        stream = film.add_stream('mpeg4', rate=8)
        stream.width, stream.height, stream.pix_fmt = 64, 64, 'yuv420p'
        for index in range(count):
            image = Image.new('RGB', (64, 64), (20 * index,) * 3)
            for packet in stream.encode(av.VideoFrame.from_image(image)):
                film.mux(packet)
        for packet in stream.encode():
            film.mux(packet)


def test_film(tmp_path):
    write_film(tmp_path / 'a.mp4', 10)
    film = read_video(tmp_path / 'a.mp4', 'a.mp4', SETTINGS)
    np.testing.assert_allclose(film[:, 8, 8, 0], [0, 60, 120, 180], atol=6)


@pytest.mark.parametrize('keep', [0, 200, -300])
def test_cut_film(tmp_path, keep):
    write_film(tmp_path / 'a.mp4', 10)
    content = (tmp_path / 'a.mp4').read_bytes()
    (tmp_path / 'a.mp4').write_bytes(content[:keep])
    with pytest.raises(DataError, match=r'^a\.mp4: '):
        read_video(tmp_path / 'a.mp4', 'a.mp4', SETTINGS)


def test_playlist_that_passes_for_a_film(tmp_path):
    pytest.importorskip('av')
    (tmp_path / 'a.mp4').write_text('#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:9/x.ts\n')
    with pytest.raises(DataError, match=r'^a\.mp4: '):
        read_video(tmp_path / 'a.mp4', 'a.mp4', SETTINGS)


@pytest.mark.parametrize(
    'wrong', [{'frames': 0}, {'size': 0}, {'channels': 2}, {'fit': 'stretch'}, {'background': 256}]
)
def test_wrong_settings(wrong):
    with pytest.raises(UserError, match='^video.' + next(iter(wrong))):
        VideoSettings(**wrong)
