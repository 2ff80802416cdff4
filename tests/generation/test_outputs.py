"""Files of samples can be read back, are named by index, and never replace others."""

import json
import wave

import numpy as np
import pytest
from PIL import Image

from vqdit.diffusion.clock import Task
from vqdit.errors import UserError
from vqdit.generation.outputs import empty_folder, encode_item, new_folder, write_samples


@pytest.fixture
def items():
    rng = np.random.default_rng(0)
    return {
        'image': list(rng.integers(0, 256, (3, 8, 8, 3), np.uint8)),
        'audio': list(rng.uniform(-1, 1, (3, 400)).astype(np.float32)),
        'video': list(rng.integers(0, 256, (3, 5, 8, 8, 3), np.uint8)),
        'text': ['../../etc/passwd', 'a red circle', 'CON'],
    }


def test_every_item_can_be_read_back(tmp_path, items):
    task = Task(('text',), ('image', 'audio', 'video'))
    write_samples(tmp_path, task, {'text': items['text'][:1]}, items, 8000, {'seed': 5})
    with Image.open(tmp_path / 'image_0001.png') as image:
        np.testing.assert_array_equal(np.asarray(image), items['image'][1])
    with wave.open(str(tmp_path / 'audio_0002.wav')) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, 8000)
        samples = np.frombuffer(file.readframes(400), '<i2')
    np.testing.assert_allclose(samples / 32767, items['audio'][2], atol=0.6 / 32767)
    with Image.open(tmp_path / 'video_0000.gif') as film:
        assert film.n_frames == 5 and film.size == (8, 8)
    assert (tmp_path / 'given_text_0000.txt').read_text() == '../../etc/passwd\n'


def test_manifest_names_exactly_the_files_that_are_there(tmp_path, items):
    paths = write_samples(tmp_path, Task((), ('text', 'image')), {}, items, 8000, {'seed': 5, 'num': 3})
    manifest = json.loads((tmp_path / 'manifest.json').read_text())
    assert manifest['task'] == '->text,image' and manifest['seed'] == 5 and manifest['num'] == 3
    named = [*manifest['files']['generated']['text'], *manifest['files']['generated']['image'], 'grid.png']
    assert sorted([*named, 'manifest.json']) == sorted(path.name for path in tmp_path.iterdir())
    assert sorted(path.name for path in paths) == sorted(path.name for path in tmp_path.iterdir())


def test_names_are_indices_only(tmp_path, items):
    write_samples(tmp_path, Task((), ('text',)), {}, items, 8000, {})
    assert sorted(path.name for path in tmp_path.glob('text*')) == [f'text_{i:04d}.txt' for i in range(3)]


def test_loud_sound_is_clipped_not_wrapped():
    _, content = encode_item(np.array([2.0, -2.0], np.float32), 8000)
    assert content[-4:] == np.array([32767, -32767], '<i2').tobytes()


def test_grey_pictures_are_written_in_grey():
    extension, content = encode_item(np.zeros((8, 8, 1), np.uint8), 8000)
    assert extension == 'png' and content[25] == 0  # colour type of the PNG header


def test_new_folders_count_upwards(tmp_path):
    names = [new_folder(tmp_path / 'samples').name for _ in range(2)]
    (tmp_path / 'samples' / '0041').mkdir()
    (tmp_path / 'samples' / 'notes').mkdir()
    assert [*names, new_folder(tmp_path / 'samples').name] == ['0001', '0002', '0042']


def test_a_folder_with_files_is_refused(tmp_path):
    (tmp_path / 'image_0000.png').write_bytes(b'dear to me')
    with pytest.raises(UserError, match='not an empty folder'):
        empty_folder(tmp_path)
    with pytest.raises(UserError, match='not an empty folder'):
        empty_folder(tmp_path / 'image_0000.png')
    assert empty_folder(tmp_path / 'new') == tmp_path / 'new'
