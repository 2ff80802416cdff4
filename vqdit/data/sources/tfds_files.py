"""The files of a TFDS set: finding the folder, reading what is in it, opening its records.

TensorFlow is never imported, of TFDS only the format of a record. `tfds.data_source` is of no use here: it runs the
code of the set, which for many sets, imagenet2012 among them, needs TensorFlow.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from array_record.python.array_record_data_source import ArrayRecordDataSource

from vqdit.errors import DataError, UserError, VqditError, nearest
from vqdit.files import read_json

IN_MEMORY_BYTES = 256 * 2**20

# Data may not name code: TFDS would import whatever module features.json names.
_KINDS = {
    'tensorflow_datasets.core.features.image_feature.Image': 'image',
    'tensorflow_datasets.core.features.audio_feature.Audio': 'audio',
    'tensorflow_datasets.core.features.tensor_feature.Tensor': 'tensor',
    'tensorflow_datasets.core.features.scalar.Scalar': 'tensor',
    'tensorflow_datasets.core.features.class_label_feature.ClassLabel': 'label',
    'tensorflow_datasets.core.features.text_feature.Text': 'text',
}


@dataclass(frozen=True)
class Feature:
    """One field of a record: its kind, axes, classes (of a label) and rate in Hz (of a sound)."""

    key: str
    kind: str
    axes: int = 0
    classes: int = 0
    rate: int = 0


def find_folder(name: str, root: Path) -> Path:
    """The folder of `name`, `name/config` or `name:version` under `root`, by default of the newest.

    Raises DataError saying what is missing, where it was looked for and the command that makes it:
    TFDS itself would try the network for minutes, or report another fault.
    """
    path, _, version = name.partition(':')
    folders = [folder for folder in (root / path).glob(version or '*') if _version(folder)]
    complete = [folder for folder in folders if any(folder.glob('*.array_record*'))]
    if complete:
        return max(complete, key=_version)
    looked = folders[0] if folders else root / path / version
    fault = 'holds no ArrayRecord file' if folders else 'is not there'
    command = (
        f'import tensorflow_datasets as tfds; tfds.builder({name!r}, data_dir={str(root)!r}, '
        "file_format='array_record').download_and_prepare()"
    )
    raise DataError(
        f'the TFDS set "{name}" is missing: {looked} {fault}.\n'
        f'Set config.data.root to the folder that holds {path}/, or make the set once, online and '
        f'with tensorflow installed:\npython -c "{command}"'
    )


def read_features(folder: Path) -> dict[str, Feature]:
    """The fields of a record by key. Raises DataError for a feature that vqdit does not read."""
    with reading(folder, 'features.json'):
        features = read_json(folder / 'features.json')['featuresDict']['features']
        return {key: _feature(description, key, folder) for key, description in features.items()}


def read_splits(folder: Path) -> dict[str, int]:
    """The number of records of every split."""
    with reading(folder, 'dataset_info.json'):
        splits = read_json(folder / 'dataset_info.json')['splits']
        return {split['name']: sum(map(int, split['shardLengths'])) for split in splits}


def open_records(folder: Path, name: str, split: str) -> Sequence[bytes]:
    """The serialized records of a split: in memory when they are few, else read at random access.

    Raises UserError for a split that the set lacks and DataError for files that are damaged or
    missing.
    """
    splits = read_splits(folder)
    if split not in splits:
        known = ', '.join(splits)
        raise UserError(
            f'the set "{name}" has no split "{split}", only {known}.{nearest(split, splits)}'
        )
    with reading(folder, f'the split "{split}"'):
        files = sorted(folder.glob(f'*-{split}.array_record*'))
        records: Sequence[bytes] = ArrayRecordDataSource(list(map(str, files)))
        size = sum(file.stat().st_size for file in files)
        if size <= IN_MEMORY_BYTES:
            records = list(iterate(records))
        if len(records) != splits[split]:
            raise ValueError(f'it has {len(records)} of {splits[split]} records')
    return records


def iterate(records: Sequence[bytes]) -> Iterator[bytes]:
    """All records in order; of files in large pieces, because single reads are slow."""
    if isinstance(records, list):
        yield from records
        return
    for start in range(0, len(records), 4096):
        yield from records.__getitems__(range(start, min(start + 4096, len(records))))  # type: ignore


def parse(record: bytes) -> Mapping[str, Any]:
    """The fields of a record, tf.train.Feature each."""
    from tensorflow_datasets.proto import tf_example_pb2

    return tf_example_pb2.Example.FromString(record).features.feature


@contextmanager
def reading(folder: Path, what: str) -> Iterator[None]:
    """Turns whatever TFDS, array_record and protobuf raise into a DataError that names the set."""
    try:
        yield
    except VqditError:
        raise
    except Exception as error:
        fault = ' '.join(str(error).split())[:200] or type(error).__name__
        raise DataError(
            f'{folder}: {what} cannot be read ({fault}); delete the folder and make the set again'
        ) from error


def _feature(description: Mapping[str, Any], key: str, folder: Path) -> Feature:
    name = description['pythonClassName']
    if name not in _KINDS:
        known = ', '.join(name.rpartition('.')[2] for name in _KINDS)
        raise DataError(f'{folder}: the feature "{key}" is a {name}; only {known} are read')
    kind = _KINDS[name]
    stated = description.get(kind, {})
    return Feature(
        key=key,
        kind=kind,
        axes=len(stated.get('shape', {}).get('dimensions', ())),
        classes=int(description.get('classLabel', {}).get('numClasses', 0)),
        rate=int(float(stated.get('sampleRate', 0))),
    )


def _version(folder: Path) -> tuple[int, ...]:
    """(3, 0, 1) for a folder called 3.0.1, else ()."""
    valid = re.fullmatch(r'\d+\.\d+\.\d+', folder.name)
    return tuple(map(int, folder.name.split('.'))) if valid else ()
