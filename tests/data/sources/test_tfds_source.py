"""TFDS sets: written here record by record as TFDS writes them, and real ones where they are."""

import io
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from array_record.python.array_record_module import ArrayRecordWriter
from PIL import Image
from tensorflow_datasets.proto import tf_example_pb2

from vqdit.data.preprocess import read_formats
from vqdit.data.sources import tfds_files
from vqdit.data.sources.tfds import TfdsSettings, TfdsSource
from vqdit.errors import DataError, UserError

FEATURES = 'tensorflow_datasets.core.features.'
LABEL = {
    'pythonClassName': FEATURES + 'class_label_feature.ClassLabel',
    'classLabel': {'numClasses': '10'},
}
IMAGE = {
    'pythonClassName': FEATURES + 'image_feature.Image',
    'image': {'dtype': 'uint8', 'shape': {'dimensions': ['28', '28', '1']}},
}
SHAPE = {'shape': {'dimensions': ['-1']}, 'dtype': 'int64', 'encoding': 'NONE'}
TENSOR = {'pythonClassName': FEATURES + 'tensor_feature.Tensor', 'tensor': SHAPE}
AUDIO = {
    'pythonClassName': FEATURES + 'audio_feature.Audio',
    'audio': {**SHAPE, 'sampleRate': '8000.0'},
}
TEXT = {'pythonClassName': FEATURES + 'text_feature.Text', 'text': {}}
FORMATS = read_formats(
    {'image': {'size': 32, 'channels': 1, 'fit': 'pad'}, 'audio': {'rate': 8000, 'seconds': 0.1}}
)


def record(**fields) -> bytes:
    example = tf_example_pb2.Example()
    for key, value in fields.items():
        field = example.features.feature[key.replace('__', '/')]
        if isinstance(value, bytes):
            field.bytes_list.value.append(value)
        else:
            field.int64_list.value.extend(np.atleast_1d(value).tolist())
    return example.SerializeToString()


def write_set(root, name, features, splits, version='1.0.0'):
    """A folder as TFDS leaves it, with two shards a split."""
    folder = root / name / version
    folder.mkdir(parents=True)
    top = {'pythonClassName': FEATURES + 'features_dict.FeaturesDict'}
    content = {**top, 'featuresDict': {'features': features}}
    (folder / 'features.json').write_text(json.dumps(content))
    described = []
    for split, records in splits.items():
        halves = [records[: len(records) // 2], records[len(records) // 2 :]]
        for number, half in enumerate(halves):
            path = folder / f'{name}-{split}.array_record-0000{number}-of-00002'
            writer = ArrayRecordWriter(str(path), 'group_size:1')
            for item in half:
                writer.write(item)
            writer.close()
        described.append(
            {
                'name': split,
                'shardLengths': [str(len(half)) for half in halves],
                'numBytes': '1',
                'filepathTemplate': '{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}',
            }
        )
    info = {'name': name, 'version': version, 'fileFormat': 'array_record', 'splits': described}
    (folder / 'dataset_info.json').write_text(json.dumps(info))
    return folder


def png(value: int) -> bytes:
    file = io.BytesIO()
    Image.new('L', (28, 28), value).save(file, 'PNG')
    return file.getvalue()


def write_digits(root, **options):
    records = [record(image=png(20 * index), label=index) for index in range(10)]
    features = {'image': IMAGE, 'label': LABEL}
    return write_set(root, 'mnist', features, {'train': records, 'test': records[:4]}, **options)


def write_spoken(root, sound=TENSOR):
    records = [
        record(
            audio=np.full(800, 100 * digit + number),
            label=digit,
            audio__filename=f'{digit}_{speaker}_{number}.wav'.encode(),
        )
        for digit in range(2)
        for speaker in ('ann', 'bob')
        for number in range(7)
    ]
    features = {'audio': sound, 'label': LABEL, 'audio/filename': TEXT}
    return write_set(root, 'spoken_digit', features, {'train': records})


def open_set(root, name='mnist', split='train', modalities=None, **settings):
    return TfdsSource(TfdsSettings(name, str(root), **settings), split, FORMATS, modalities)


@pytest.fixture(params=[True, False], ids=['in memory', 'from files'])
def placed(request, monkeypatch):
    if not request.param:
        monkeypatch.setattr(tfds_files, 'IN_MEMORY_BYTES', -1)


def test_images_labels_and_their_names(tmp_path, placed):
    write_digits(tmp_path)
    train = open_set(tmp_path, modalities=('image', 'text'))
    assert len(train) == 10 and len(open_set(tmp_path, split='test')) == 4
    for index, example in enumerate(train):
        assert example['image'].shape == (32, 32, 1) and np.all(example['image'] == 20 * index)
        assert example['label'] == index
    assert train[7]['text'] == train[7]['label_name'] == 'seven'
    np.testing.assert_array_equal(train.column('label'), np.arange(10))
    assert set(open_set(tmp_path)[0]) == {'image', 'label', 'label_name'}


def test_names_of_the_labels_from_the_set_and_from_the_config(tmp_path):
    folder = write_digits(tmp_path)
    (folder / 'label.labels.txt').write_text('\n'.join(f'class {index}' for index in range(10)))
    assert open_set(tmp_path)[3]['label_name'] == 'class 3'
    own = tuple('abcdefghij')
    assert open_set(tmp_path, label_names=own)[3]['label_name'] == 'd'
    with pytest.raises(UserError, match='2 names for the 10 classes'):
        open_set(tmp_path, label_names=('a', 'b'))


def test_newest_and_stated_version(tmp_path):
    write_digits(tmp_path, version='2.0.0')
    write_digits(tmp_path, version='10.0.0')
    assert tfds_files.find_folder('mnist', tmp_path).name == '10.0.0'
    assert tfds_files.find_folder('mnist:2.0.0', tmp_path).name == '2.0.0'


@pytest.mark.parametrize('sound', [TENSOR, AUDIO], ids=['tensor', 'stock audio'])
def test_sounds_without_tensorflow(tmp_path, placed, sound):
    write_spoken(tmp_path, sound)
    source = open_set(tmp_path, 'spoken_digit', 'test')
    example = source[6]
    assert example['name'] == '0_bob_1.wav'
    assert (example['speaker'], example['recording'], example['label_name']) == ('bob', 1, 'zero')
    np.testing.assert_allclose(example['audio'], np.full(800, 1 / 32768), rtol=1e-6)
    assert 'tensorflow' not in sys.modules


def test_splits_of_spoken_digit(tmp_path):
    write_spoken(tmp_path)
    test = open_set(tmp_path, 'spoken_digit', 'test', exclude_speakers=('bob',))
    assert len(test) == 20 and set(test.column('recording')) == {0, 1, 2, 3, 4}
    train = open_set(tmp_path, 'spoken_digit', exclude_speakers=('bob',))
    assert set(train.column('speaker')) == {'ann'} and set(train.column('recording')) == {5, 6}
    assert len(train) == 4 and len(open_set(tmp_path, 'spoken_digit')) == 8
    left_out = open_set(tmp_path, 'spoken_digit', 'excluded', exclude_speakers=('bob',))
    assert len(left_out) == 14 and set(left_out.column('speaker')) == {'bob'}
    with pytest.raises(UserError, match='Did you mean "bob"'):
        open_set(tmp_path, 'spoken_digit', exclude_speakers=('bo',))
    with pytest.raises(UserError, match='exclude_speakers is empty'):
        open_set(tmp_path, 'spoken_digit', 'excluded')


def test_a_set_without_a_test_split_is_cut(tmp_path):
    records = [record(image=png(index), label=0) for index in range(40)]
    write_set(tmp_path, 'plain', {'image': IMAGE, 'label': LABEL}, {'train': records})
    train, test = (open_set(tmp_path, 'plain', split) for split in ('train', 'test'))
    values = [int(example['image'][0, 0, 0]) for source in (train, test) for example in source]
    assert values == list(range(40)) and len(test) == 2
    assert test[0]['label_name'] == '0'


def test_a_missing_set_names_the_place_and_the_command(tmp_path):
    with pytest.raises(DataError) as error:
        open_set(tmp_path, 'mnist:3.0.1')
    message = str(error.value)
    assert str(tmp_path / 'mnist' / '3.0.1') in message
    assert (
        f"tfds.builder('mnist:3.0.1', data_dir='{tmp_path}', file_format='array_record')" in message
    )
    assert len(message.splitlines()) == 3


def test_a_set_in_another_file_format(tmp_path):
    folder = tmp_path / 'mnist' / '3.0.1'
    folder.mkdir(parents=True)
    (folder / 'mnist-train.tfrecord-00000-of-00001').write_bytes(b'')
    with pytest.raises(DataError, match='holds no ArrayRecord file'):
        open_set(tmp_path)


def test_a_missing_set_is_told_at_once_and_without_tfds():
    code = (
        'import sys, time; start = time.time()\n'
        'from vqdit.data import load\n'
        'from vqdit.errors import DataError\n'
        'try: load({"source": "tfds", "name": "mnist", "root": "/nowhere"}, "train")\n'
        'except DataError: print("tensorflow_datasets" in sys.modules, time.time() - start < 60)\n'
    )
    output = subprocess.run(
        [sys.executable, '-c', code], capture_output=True, text=True, check=True, env=os.environ
    )
    assert output.stdout.split() == ['False', 'True']


def test_a_feature_that_names_code_is_refused_before_it_is_imported(tmp_path, monkeypatch):
    (tmp_path / 'evil_module.py').write_text('raise SystemExit("executed")')
    monkeypatch.syspath_prepend(tmp_path)
    folder = write_digits(tmp_path)
    content = json.loads((folder / 'features.json').read_text())
    content['featuresDict']['features']['label']['pythonClassName'] = 'evil_module.Evil'
    (folder / 'features.json').write_text(json.dumps(content))
    with pytest.raises(DataError, match=r'"label" is a evil_module\.Evil'):
        open_set(tmp_path)
    assert 'evil_module' not in sys.modules


@pytest.mark.parametrize('name', ['features.json', 'dataset_info.json'])
@pytest.mark.parametrize('content', [None, '', '[]', '{}', '{"splits": [{}]}', '[' * 10000])
def test_damaged_descriptions(tmp_path, name, content):
    folder = write_digits(tmp_path)
    (folder / name).unlink()
    if content is not None:
        (folder / name).write_text(content)
    with pytest.raises(DataError, match=name):
        open_set(tmp_path)


def test_damaged_and_missing_shards(tmp_path, placed):
    folder = write_digits(tmp_path)
    shard = folder / 'mnist-train.array_record-00000-of-00002'
    content = shard.read_bytes()
    shard.write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match='cannot be read'):
        list(open_set(tmp_path))
    shard.unlink()
    with pytest.raises(DataError, match='cannot be read'):
        list(open_set(tmp_path))


def test_fewer_sounds_than_declared(tmp_path):
    folder = write_spoken(tmp_path, AUDIO)
    (folder / 'spoken_digit-train.array_record-00001-of-00002').unlink()
    with pytest.raises(DataError, match='14 of 28 records'):
        open_set(tmp_path, 'spoken_digit')


def test_records_without_a_field_or_that_are_none(tmp_path):
    records = [record(label=0), b'\xff\xff\xff']
    features = {'image': IMAGE, 'label': LABEL}
    write_set(tmp_path, 'mnist', features, {'train': records, 'test': records})
    for index in range(2):
        with pytest.raises(DataError, match='a record of "train" cannot be read'):
            open_set(tmp_path)[index]


def test_threads_read_what_one_reads(tmp_path, placed):
    write_digits(tmp_path)
    source = open_set(tmp_path)
    indices = [index % 10 for index in range(200)]
    with ThreadPoolExecutor(8) as pool:
        pictures = list(pool.map(lambda index: source[index]['image'][0, 0, 0], indices))
    assert pictures == [20 * index for index in indices]


def test_a_picture_that_is_none_is_named(tmp_path):
    records = [record(image=b'none', label=0)] * 2
    write_set(
        tmp_path, 'mnist', {'image': IMAGE, 'label': LABEL}, {'train': records, 'test': records}
    )
    with pytest.raises(DataError, match=r'^mnist/test\[1\]: '):
        open_set(tmp_path, split='test')[1]


@pytest.mark.parametrize(
    ('settings', 'words'),
    [
        ({'split': 'validation'}, 'has no split "validation", only train, test'),
        ({'modalities': ('audio',)}, 'has no audio, only image, text'),
        ({'name': '../mnist'}, 'config.data.name'),
        ({'name': 'kaggle:x'}, 'config.data.name'),
    ],
)
def test_mistakes(tmp_path, settings, words):
    write_digits(tmp_path)
    with pytest.raises(UserError, match=words):
        open_set(tmp_path, **settings)


def test_columns_and_indices_that_are_not_there(tmp_path):
    write_digits(tmp_path)
    source = open_set(tmp_path)
    with pytest.raises(UserError, match=r'has no "lable".*Did you mean "label"'):
        source.column('lable')
    with pytest.raises(IndexError):
        source[10]


def test_sounds_of_unknown_rate_or_with_channels(tmp_path):
    sound = record(audio=np.arange(800))
    write_set(tmp_path, 'bells', {'audio': TENSOR}, {'train': [sound] * 4})
    with pytest.raises(UserError, match='sample_rate'):
        open_set(tmp_path, 'bells')
    assert open_set(tmp_path, 'bells', sample_rate=8000)[0]['audio'].shape == (800,)
    stereo = {**TENSOR, 'tensor': {**SHAPE, 'shape': {'dimensions': ['-1', '2']}}}
    write_set(tmp_path, 'stereo', {'audio': stereo}, {'train': [sound] * 4})
    with pytest.raises(DataError, match='mono'):
        open_set(tmp_path, 'stereo', sample_rate=8000)


def test_real_sets(shared_data):
    root = shared_data / 'tfds'
    mnist = open_set(root, 'mnist', 'test', ('image', 'text'))
    assert len(mnist) == 10_000 and mnist[0]['image'].any()
    assert np.bincount(mnist.column('label')).tolist() == [
        980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009
    ]  # fmt: skip
    assert open_set(root, 'fashion_mnist', 'test')[0]['label_name'].istitle()
    ours = open_set(root, 'spoken_digit', 'test')
    stock = open_set(shared_data / 'tfds_stock', 'spoken_digit', 'test')
    assert len(ours) == len(stock) == 250
    np.testing.assert_array_equal(ours[17]['audio'], stock[17]['audio'])
