"""Folders: what is read, how it is split, what is skipped or refused."""

import os
import wave

import numpy as np
import pytest
from PIL import Image

from vqdit.data.preprocess import read_formats
from vqdit.data.sources import folder_scan
from vqdit.data.sources.folder import FolderSettings, FolderSource
from vqdit.data.sources.folder_scan import find_file
from vqdit.errors import DataError, UserError

FORMATS = read_formats({'image': {'size': 8}, 'audio': {'rate': 8000, 'seconds': 0.1}})


def write_image(path, value=100):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new('RGB', (8, 8), (value,) * 3).save(path)


def write_sound(path, samples=800):
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), 'wb') as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(np.full(samples, 16384, '<i2').tobytes())


def write_table(root, lines, header='file_name,text'):
    (root / 'metadata.csv').write_text('\n'.join([header, *lines]) + '\n')


def write_images(root, count=10):
    for index in range(count):
        write_image(root / f'{index}.png', index)
    write_table(root, [f'{index}.png,picture {index}' for index in range(count)])


def open_folder(root, split='train', modalities=None, **settings):
    return FolderSource(FolderSettings(str(root), **settings), split, FORMATS, modalities)


def everything(root, **options):
    """Both splits together, in the order of names."""
    parts = [open_folder(root, split, test_fraction=0.5, **options) for split in ('train', 'test')]
    return sorted(
        (example for part in parts for example in part), key=lambda example: example['name']
    )


def test_pictures_with_captions(tmp_path):
    write_images(tmp_path)
    for index, example in enumerate(everything(tmp_path)):
        assert example['text'] == f'picture {index}' and example['name'] == f'{index}.png'
        np.testing.assert_array_equal(example['image'], np.full((8, 8, 3), index))


def test_sounds_and_pictures_of_one_row(tmp_path):
    write_image(tmp_path / 'a.png')
    write_sound(tmp_path / 'wavs' / 'a.wav')
    write_table(tmp_path, ['a.png,wavs/a.wav,red,train,7'], 'image,audio,text,split,year')
    example = open_folder(tmp_path)[0]
    assert set(example) == {'image', 'audio', 'text', 'name', 'year'} and example['year'] == '7'
    np.testing.assert_allclose(example['audio'], np.full(800, 0.5))
    assert set(open_folder(tmp_path, modalities=('audio',))[0]) == {'audio', 'name', 'year'}
    assert set(open_folder(tmp_path, modalities=())[0]) == {'name', 'year'}


def test_films_are_folders_of_frames(tmp_path):
    for index in range(8):
        write_image(tmp_path / 'clip' / f'{index}.png', index)
    write_table(tmp_path, ['clip,a film,train'], 'file_name,text,split')
    film = open_folder(tmp_path)[0]['video']
    assert film.shape == (8, 32, 32, 3) and film[:, 0, 0, 0].tolist() == list(range(8))


def test_labels_are_numbered_over_all_splits(tmp_path):
    for name in 'abc':
        write_image(tmp_path / f'{name}.png')
    lines = ['a.png,dog,train', 'b.png,ant,test', 'c.png,cat,train']
    write_table(tmp_path, lines, 'file_name,label,split')
    train = open_folder(tmp_path)
    assert [(x['label'], x['label_name']) for x in train] == [(2, 'dog'), (1, 'cat')]
    assert train.column('label').tolist() == [2, 1]
    write_table(tmp_path, ['a.png,7,train', 'b.png,10,test'], 'file_name,label,split')
    assert [example['label'] for example in everything(tmp_path)] == [7, 10]
    with pytest.raises(UserError, match='Did you mean "label"'):
        train.column('labels')


def test_stated_splits(tmp_path):
    for split in ('train', 'test', 'validation'):
        write_image(tmp_path / split / 'a.png')
        write_table(tmp_path / split, ['a.png,x'])
    for split in ('train', 'test', 'validation'):
        assert [x['name'] for x in open_folder(tmp_path, split)] == [f'{split}/a.png']
    with pytest.raises(UserError, match='Did you mean "validation"'):
        open_folder(tmp_path, 'valid')


def test_adding_files_moves_no_other_between_splits(tmp_path):
    write_images(tmp_path, 60)
    before = {x['name'] for x in open_folder(tmp_path, 'test', test_fraction=0.2)}
    write_images(tmp_path, 90)
    after = {x['name'] for x in open_folder(tmp_path, 'test', test_fraction=0.2)}
    assert before == {name for name in after if int(name[:-4]) < 60} and 4 <= len(before) <= 24
    train = {x['name'] for x in open_folder(tmp_path, 'train', test_fraction=0.2)}
    assert not train & after and len(train | after) == 90


def bad_folder(root):
    """Ten good pictures and three bad ones."""
    write_images(root)
    (root / 'text.png').write_text('hello')
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(root / 'half.png')
    content = (root / 'half.png').read_bytes()
    (root / 'half.png').write_bytes(content[: len(content) // 2])
    with open(root / 'metadata.csv', 'a') as table:
        table.write('text.png,a\nhalf.png,b\ngone.png,c\n')


def test_bad_files_are_refused_by_name(tmp_path):
    bad_folder(tmp_path)
    with pytest.raises(DataError) as error:
        open_folder(tmp_path)
    message = str(error.value)
    assert message.startswith(f'3 of 13 items of {tmp_path} cannot be used:')
    assert all(f'  {name}.png: ' in message for name in ('text', 'half', 'gone'))
    assert 'max_bad_fraction' in message


def test_bad_files_are_skipped_and_counted_when_allowed(tmp_path):
    bad_folder(tmp_path)
    assert len(everything(tmp_path, max_bad_fraction=0.25)) == 10
    source = open_folder(tmp_path, max_bad_fraction=0.25)
    assert {entry.name for entry in source.rejected} == {'text.png', 'half.png', 'gone.png'}
    with pytest.raises(DataError, match=r'now 0\.2'):
        open_folder(tmp_path, max_bad_fraction=0.2)


def test_a_file_that_breaks_after_the_scan_is_named(tmp_path):
    write_images(tmp_path)
    source = open_folder(tmp_path)
    name = source[0]['name']
    (tmp_path / name).write_bytes(b'')
    with pytest.raises(DataError, match=f'^{name}: '):
        source[0]
    (tmp_path / name).unlink()
    with pytest.raises(DataError, match=f'^{name}: it cannot be read'):
        source[0]


def test_large_folders_are_sampled_but_every_header_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(folder_scan, 'DECODED_BYTES', 0)
    monkeypatch.setattr(folder_scan, 'DECODED_ITEMS', 1)
    bad_folder(tmp_path)
    source = open_folder(tmp_path, max_bad_fraction=0.5)
    assert {entry.name for entry in source.rejected} == {'text.png', 'gone.png'}


def reason(root, name, text='x') -> str:
    """Why the second row, naming `name`, is rejected."""
    write_image(root / 'good.png')
    write_table(root, ['good.png,x', f'{name},{text}'])
    source = open_folder(root, test_fraction=0.0, max_bad_fraction=0.5)
    assert len(source) == 1
    return source.rejected[0].reason


def test_paths_that_lead_elsewhere(tmp_path):
    root = tmp_path / 'data'
    write_image(tmp_path / 'secret.png')
    write_image(root / 'good.png')
    (root / 'link.png').symlink_to(tmp_path / 'secret.png')
    (root / 'dangling.png').symlink_to(root / 'nothing.png')
    (root / 'inside.png').symlink_to(root / 'good.png')
    (root / 'folder.png').mkdir()
    os.mkfifo(root / 'pipe.png')
    assert 'must be relative' in reason(root, '../secret.png')
    assert 'must be relative' in reason(root, 'a/../../secret.png')
    assert 'must be relative' in reason(root, str(tmp_path / 'secret.png'))
    assert 'link out' in reason(root, 'link.png')
    assert 'cannot be found' in reason(root, 'dangling.png')
    assert 'cannot be found' in reason(root, 'file:///etc/passwd.png')
    assert 'cannot be found' in reason(root, 'x' * 300 + '.png')
    assert 'no regular file' in reason(root, 'folder.png')
    assert 'no regular file' in reason(root, 'pipe.png')
    with pytest.raises(DataError, match='must be relative'):
        find_file(root, 'a\0.png')
    assert find_file(root, 'inside.png') == root / 'good.png'


def test_rows_that_cannot_be_used(tmp_path):
    (tmp_path / 'a.svg').write_text('<svg/>')
    assert 'it has no image' in reason(tmp_path, 'a.svg')
    assert 'listed twice' in reason(tmp_path, 'good.png')
    write_image(tmp_path / 'b.png')
    assert 'text is empty' in reason(tmp_path, 'b.png', '')
    assert '65536' in reason(tmp_path, 'b.png', 'x' * 70_000)
    assert reason(tmp_path, '').startswith('row 2: it has no image')


def test_a_file_has_a_row_for_every_caption_all_in_one_split(tmp_path):
    """As in COCO; a run reads the pictures alone too, for their tokenizer."""
    write_images(tmp_path, 12)
    lines = [f'{index}.png,{word} {index}' for word in ('picture', 'square') for index in range(12)]
    write_table(tmp_path, lines)
    train, test = (open_folder(tmp_path, split, test_fraction=0.5) for split in ('train', 'test'))
    assert len(train) + len(test) == 24 and not train.rejected
    assert not set(train.column('name')) & set(test.column('name'))
    assert sorted(x['text'] for part in (train, test) for x in part) == sorted(
        line.partition(',')[2] for line in lines
    )
    assert len(everything(tmp_path, modalities=('image',))) == 24


def test_captions_of_a_file_in_two_splits_are_refused(tmp_path):
    write_images(tmp_path, 1)
    write_table(tmp_path, ['0.png,a,train', '0.png,b,test'], 'file_name,text,split')
    with pytest.raises(DataError, match=r'0\.png: it is in the splits "train" and "test"'):
        open_folder(tmp_path)


def test_an_unknown_split_of_a_row(tmp_path):
    write_images(tmp_path, 2)
    write_table(tmp_path, ['0.png,train', '1.png,tset'], 'file_name,split')
    with pytest.raises(DataError, match=r'1\.png: its split "tset" is unknown.*"test"'):
        open_folder(tmp_path)


def test_short_and_torn_sounds(tmp_path):
    for name, samples in (('a', 800), ('b', 0), ('c', 10), ('d', 8000)):
        write_sound(tmp_path / f'{name}.wav', samples)
    content = (tmp_path / 'd.wav').read_bytes()
    (tmp_path / 'd.wav').write_bytes(content[:8000])
    write_table(tmp_path, [f'{name}.wav,x' for name in 'abcd'])
    source = open_folder(tmp_path, test_fraction=0.0, max_bad_fraction=0.75)
    assert len(source) == 1 and source.modalities == ('audio', 'text')
    assert 'cut short: 7956 bytes' in {x.name: x.reason for x in source.rejected}['d.wav']


def test_missing_columns_and_modalities(tmp_path):
    write_images(tmp_path)
    with pytest.raises(DataError, match='has no audio, only image, text'):
        open_folder(tmp_path, modalities=('audio',))
    write_table(tmp_path, ['0.png,x'], 'file_name,txt')
    with pytest.raises(
        DataError, match=r'has no text, only image; .* columns file_name, txt\..*"txt"'
    ):
        open_folder(tmp_path, modalities=('image', 'text'))


def test_nothing_usable(tmp_path):
    write_image(tmp_path / 'a.png')
    write_table(tmp_path, ['gone.png,x'])
    with pytest.raises(DataError, match='1 of 1 items'):
        open_folder(tmp_path)
    with pytest.raises(DataError, match='no usable item'):
        open_folder(tmp_path, max_bad_fraction=1.0)


@pytest.mark.skipif(os.geteuid() == 0, reason='root may read everything')
def test_unreadable_folder(tmp_path):
    write_images(tmp_path)
    (tmp_path / 'metadata.csv').chmod(0)
    with pytest.raises(DataError, match='permissions'):
        open_folder(tmp_path)


@pytest.mark.parametrize(
    'wrong', [{'root': ''}, {'test_fraction': 1.0}, {'max_bad_fraction': -0.1}]
)
def test_wrong_settings(wrong):
    with pytest.raises(UserError, match='config.data.' + next(iter(wrong))):
        FolderSettings(**{'root': 'x', **wrong})


def test_real_folders(shared_data):
    speech = open_folder(shared_data / 'ljspeech_mini', test_fraction=0.2)
    assert speech.modalities == ('audio', 'text') and not speech.rejected
    example = speech[0]
    assert example['audio'].shape == (800,) and len(example['text']) > 10
    emoji = FolderSource(
        FolderSettings(str(shared_data / 'openmoji')), 'test', FORMATS, ('image', 'text')
    )
    assert 150 < len(emoji) < 260 and not emoji.rejected
    assert emoji[0]['image'][0, 0].tolist() == [255, 255, 255]  # transparent corners on white
