"""`--given modality=value`: files brought to the model's form, literals, and what is refused."""

import wave

import numpy as np
import pytest
from PIL import Image

from vqdit.data.preprocess import read_formats
from vqdit.errors import UserError
from vqdit.generation.given import parse_given, read_given

FORMATS = read_formats({
    'image': {'size': 8, 'channels': 3},
    'audio': {'rate': 4000, 'seconds': 0.1},
    'video': {'frames': 2, 'size': 8},
})
MODALITIES = ('image', 'audio', 'video', 'text')


def read(modality, value):
    return read_given({modality: str(value)}, FORMATS, MODALITIES)[modality]


def test_parse_keeps_further_equal_signs():
    assert parse_given(['text=a = b', 'image=x.png']) == {'text': 'a = b', 'image': 'x.png'}
    assert parse_given([]) == {}


@pytest.mark.parametrize('assignments, wanted', [
    (['photo.png'], 'write --given modality=value'),
    (['text='], 'has no value'),
    (['text=a', 'text=b'], 'twice'),
])  # fmt: skip
def test_parse_refuses(assignments, wanted):
    with pytest.raises(UserError, match=wanted):
        parse_given(assignments)


def test_picture_is_cut_to_the_size_of_the_model(tmp_path):
    wide = np.zeros((16, 32, 3), np.uint8)
    wide[:, 8:24] = (255, 0, 0)
    Image.fromarray(wide).save(tmp_path / 'wide.PNG')
    [item] = read('image', tmp_path / 'wide.PNG')
    assert item.shape == (8, 8, 3) and item.dtype == np.uint8
    np.testing.assert_array_equal(item[4, 4], (255, 0, 0))


def test_sound_is_brought_to_the_rate_of_the_model(tmp_path):
    tone = np.sin(2 * np.pi * 500 * np.arange(1600) / 8000)
    with wave.open(str(tmp_path / 'tone.wav'), 'wb') as file:
        file.setparams((1, 2, 8000, 0, 'NONE', ''))
        file.writeframes(np.round(16000 * tone).astype('<i2').tobytes())
    [item] = read('audio', tmp_path / 'tone.wav')
    assert item.shape == (400,) and item.dtype == np.float32
    assert np.argmax(np.abs(np.fft.rfft(item))) == 50  # 500 Hz over 0.1 s


def test_film_has_the_frames_of_the_model(tmp_path):
    frames = [Image.fromarray(np.full((8, 8, 3), level, np.uint8)) for level in (0, 100, 200)]
    frames[0].save(tmp_path / 'film.gif', save_all=True, append_images=frames[1:])
    [item] = read('video', tmp_path / 'film.gif')
    assert item.shape == (2, 8, 8, 3)
    np.testing.assert_allclose(item.mean((1, 2, 3)), (0, 200), atol=2)


def test_text_is_a_literal_or_what_stands_in_a_file(tmp_path):
    (tmp_path / 'caption.txt').write_text('a  red\ncircle\n', encoding='utf-8')
    assert read('text', tmp_path / 'caption.txt') == ['a red circle']
    assert read('text', 'a blue  square') == ['a blue square']
    assert read('text', '../../missing.txt') == ['../../missing.txt']


@pytest.mark.parametrize('modality, content, name, wanted', [
    ('picture', b'', 'x.png', 'no such modality, only image, audio, video, text'),
    ('imge', b'', 'x.png', 'Did you mean "image"?'),
    ('image', None, 'photo.png', 'photo.png" is not there.*check the path'),
    ('image', b'nothing of a picture', 'photo.png', 'given image: .*photo.png: .*decoded'),
    ('image', b'', 'photo.png', 'photo.png: '),
    ('image', b'RIFF', 'sound.wav', 'not of this kind; give a file that ends in .png, .jpg'),
    ('audio', b'RIFF', 'sound.wav', 'given audio: .*sound.wav: '),
    ('audio', b'', 'photo.png', 'ends in .wav'),
    ('video', b'GIF89a', 'film.gif', 'film.gif: '),
    ('text', b'\xff\xfe', 'caption.txt', 'line 1 is not UTF-8'),
    ('text', b' ', 'caption.txt', 'its text is empty'),
])  # fmt: skip
def test_what_cannot_be_read_is_named(tmp_path, modality, content, name, wanted):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=wanted) as error:
        read(modality, tmp_path / name)
    assert '\n' not in str(error.value)


def test_missing_file_names_the_nearest(tmp_path):
    (tmp_path / 'photo.png').write_bytes(b'')
    with pytest.raises(UserError, match=r'Did you mean "photo\.png"'):
        read('image', tmp_path / 'poto.png')


def test_folder_is_no_picture(tmp_path):
    with pytest.raises(UserError, match='is no file'):
        read('image', tmp_path)
