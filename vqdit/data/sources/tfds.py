"""Image, sound, text and label sets in the TFDS layout, at random access and without TensorFlow.

The records are parsed here, which is twice as fast as the decoders of TFDS and reads the Audio
feature too, which TFDS cannot construct without TensorFlow.
"""

import functools
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vqdit.data.dataset import Example
from vqdit.data.preprocess import Formats
from vqdit.data.preprocess.audio import check_samples, prepare_audio
from vqdit.data.preprocess.image import read_image
from vqdit.data.preprocess.text import prepare_text
from vqdit.data.settings import require
from vqdit.data.sources.known_sets import (
    LABEL_NAMES,
    SAMPLE_RATES,
    parse_recording,
    spoken_digit_rows,
)
from vqdit.data.sources.tfds_files import (
    Feature,
    find_folder,
    iterate,
    open_records,
    parse,
    read_features,
    read_splits,
    reading,
)
from vqdit.errors import DataError, UserError, nearest

_TEXT_KEYS = ('text', 'caption', 'transcription', 'sentence')


@dataclass(frozen=True)
class TfdsSettings:
    """Which set is read.

    Attributes:
        name: `name` or `name/config`, with `:version` if it is not to be the newest that is there.
        root: the folder of TFDS sets; ~/tensorflow_datasets when empty.
        label_names: names of the classes instead of the set's own (of digit sets: the words).
        sample_rate: of the sounds in Hz, for sets that do not say it.
        test_fraction: of a set without a split `test`, the share at its end taken for it.
        exclude_speakers: of spoken_digit, left out of `train`; the split `excluded` has only them.
    """

    name: str
    root: str = ''
    label_names: tuple[str, ...] = ()
    sample_rate: int = 0
    test_fraction: float = 0.05
    exclude_speakers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        valid = re.fullmatch(r'\w+(/\w[\w.-]*)?(:\d+\.\d+\.\d+)?', self.name) is not None
        require(valid, 'config.data.name', self.name, '"name" or "name:1.0.0"')
        share = self.test_fraction
        require(0 < share < 1, 'config.data.test_fraction', share, 'between 0 and 1')

    @property
    def dataset(self) -> str:
        """The name without config and version."""
        return re.split('[/:]', self.name)[0]


class TfdsSource:
    """One split of a TFDS set, prepared.

    An example has the `modalities` asked for (`text` is the name of the label where the set has no
    text), `label`, `label_name`, `name` where the set has file names, and of spoken_digit `speaker`
    and `recording`. Raises DataError when the set is missing, incomplete or unreadable.
    """

    def __init__(
        self,
        settings: TfdsSettings,
        split: str,
        formats: Formats,
        modalities: tuple[str, ...] | None = None,
    ):
        root = Path(settings.root or '~/tensorflow_datasets').expanduser()
        self._folder = find_folder(settings.name, root)
        self._set = settings.dataset
        self._split, self._formats = split, formats
        features = read_features(self._folder)
        self._roles = _roles(features.values())
        self.modalities = _choose(modalities, self._roles, settings.name)
        self._label_names = _label_names(settings, self._roles.get('label'), self._folder)
        self._rate = _sample_rate(settings, self._roles.get('audio'))
        uncut = 'test' not in read_splits(self._folder) and split in ('train', 'test', 'excluded')
        self._records = open_records(self._folder, settings.name, 'train' if uncut else split)
        self._rows = np.arange(len(self._records))
        if uncut:
            self._rows = self._cut(settings, split)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Example:
        index = range(len(self))[index]
        with reading(self._folder, f'a record of "{self._split}"'):
            record = parse(self._records[self._rows[index]])
            example = self._metadata(record)
            values = {name: self._value(name, record, example) for name in self.modalities}
        name = example.get('name', f'{self._set}/{self._split}[{index}]')
        return example | {key: self._prepare(key, value, name) for key, value in values.items()}

    def column(self, key: str) -> np.ndarray:
        """A field of the metadata of every example; the records are scanned for it once."""
        if key not in self._columns:
            known = self._columns
            raise UserError(
                f'{self._set} has no "{key}", only {", ".join(known)}.{nearest(key, known)}'
            )
        return self._columns[key][self._rows]

    @functools.cached_property
    def _columns(self) -> dict[str, np.ndarray]:
        with reading(self._folder, f'a record of "{self._split}"'):
            rows = [self._metadata(parse(record)) for record in iterate(self._records)]
        return {key: np.array([row[key] for row in rows]) for key in rows[0]} if rows else {}

    def _cut(self, settings: TfdsSettings, split: str) -> np.ndarray:
        """The rows of `train`, `test` or `excluded` of a set that is stored as one split."""
        if self._set == 'spoken_digit':
            speakers, recordings = self.column('speaker'), self.column('recording')
            return spoken_digit_rows(speakers, recordings, split, settings.exclude_speakers)
        if split == 'excluded':
            raise UserError(f'the set "{self._set}" has no split "excluded"; use train or test')
        kept = len(self._rows) - max(1, round(settings.test_fraction * len(self._rows)))
        return self._rows[:kept] if split == 'train' else self._rows[kept:]

    def _metadata(self, record: Mapping[str, Any]) -> Example:
        example: Example = {}
        if 'label' in self._roles:
            label = record[self._roles['label'].key].int64_list.value[0]
            known = 0 <= label < len(self._label_names)
            name = self._label_names[label] if known else str(label)
            example |= {'label': label, 'label_name': name}
        if 'name' in self._roles:
            example['name'] = record[self._roles['name'].key].bytes_list.value[0].decode()
            if self._set == 'spoken_digit':
                example |= parse_recording(example['name'])
        return example

    def _value(self, modality: str, record: Mapping[str, Any], example: Example) -> Any:
        """What the record holds of a modality: encoded picture, samples or text."""
        if modality not in self._roles:  # text
            return example['label_name']
        field = record[self._roles[modality].key]
        if modality != 'audio':
            return field.bytes_list.value[0]
        if field.HasField('float_list'):
            return np.array(field.float_list.value, np.float32)
        # TFDS keeps 16-bit samples as int64.
        return np.array(field.int64_list.value, np.float32) / np.float32(32768)

    def _prepare(self, modality: str, value: Any, name: str) -> Any:
        if modality == 'image':
            return read_image(value, name, self._formats.image)
        if modality == 'text':
            return prepare_text(value, name, self._formats.text)
        samples = check_samples(value, self._rate, name)
        return prepare_audio(samples, self._rate, self._formats.audio)


def _roles(features: Iterable[Feature]) -> dict[str, Feature]:
    """Which field of a record plays which role: image, audio, label, text, name."""
    roles: dict[str, Feature] = {}
    for feature in features:
        role = feature.kind
        if role == 'text' and feature.key not in _TEXT_KEYS:
            role = 'name' if feature.key.endswith('filename') else ''
        elif role == 'tensor':
            role = 'audio' if feature.key == 'audio' else ''
        roles.setdefault(role, feature)
    roles.pop('', None)
    return roles


def _choose(modalities: tuple[str, ...] | None, roles: Mapping[str, Feature], name: str) -> Any:
    """The modalities asked for, or all. Raises UserError for one that the set lacks."""
    known = [role for role in ('image', 'audio', 'text') if role in roles]
    if modalities is None:
        return tuple(known)
    known += ['text'] if 'label' in roles and 'text' not in roles else []
    for modality in modalities:
        if modality not in known:
            hint = nearest(modality, known)
            raise UserError(f'the set "{name}" has no {modality}, only {", ".join(known)}.{hint}')
    return modalities


def _label_names(settings: TfdsSettings, label: Feature | None, folder: Path) -> tuple[str, ...]:
    if label is None:
        return ()
    names, file = settings.label_names, folder / f'{label.key}.labels.txt'
    if names and len(names) != label.classes:
        raise UserError(
            f'config.data.label_names has {len(names)} names for the {label.classes} classes of '
            f'"{settings.name}"; give one for each'
        )
    if not names and file.exists():
        names = tuple(file.read_text(encoding='utf-8').split('\n'))[: label.classes]
    return names or LABEL_NAMES.get(settings.dataset, ())


def _sample_rate(settings: TfdsSettings, sound: Feature | None) -> int:
    if sound is None:
        return 0
    if sound.axes != 1:
        raise DataError(f'the sounds of "{settings.name}" have channels; only mono sets are read')
    rate = settings.sample_rate or sound.rate or SAMPLE_RATES.get(settings.dataset, 0)
    if not rate:
        raise UserError(
            f'the set "{settings.name}" does not say its sample rate; set config.data.sample_rate'
        )
    return rate
