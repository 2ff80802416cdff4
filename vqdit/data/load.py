"""From `config.data` to a dataset."""

from collections.abc import Mapping
from typing import Any

from vqdit.data.augment import Augmented, AugmentSettings
from vqdit.data.balance import Balanced, BalanceSettings
from vqdit.data.dataset import Dataset
from vqdit.data.preprocess import read_formats
from vqdit.data.settings import read_settings, require
from vqdit.data.sources import open_source


def load(
    config: Mapping[str, Any],
    split: str,
    modalities: tuple[str, ...] | None = None,
    anchor: str | None = None,
) -> Dataset:
    """The split of the dataset that `config` (a ConfigDict or a mapping) describes.

    Every example holds the `modalities` asked for (default: all that the source has) in their
    prepared forms: image uint8 [H, W, C], video uint8 [T, H, W, C], audio float32 [samples], text
    str. With `source='pairs'`, `anchor` is the modality whose examples are each visited once
    (default: the first asked for of image, video, audio, text). The training split is balanced and
    augmented where the config says so.

    The config, with the defaults:

        source                   'world' | 'tfds' | 'folder' | 'pairs'
        root=''                  folder of the data (tfds: ~/tensorflow_datasets when empty)
        seed=0                   of all random draws here
        image                    size=32, channels=3, fit='crop'|'pad', background=255
        audio                    rate=8000, seconds=0.5, trim_decibels=0.0, peak=0.0
        video                    frames=8, size=32, channels=3, fit='crop'|'pad', background=255
        text                     max_bytes=65536
        augment (train only)     copies=1, image_shift=0, image_flip=0.0, audio_gain=0.0,
                                 audio_shift=0.0, audio_speed=0.0, audio_noise=0.0
        balance (train only)     key='label', power=0.0; no balancing when empty
        world:   train_examples=20000, test_examples=1000
        tfds:    name, label_names=(), sample_rate=0, test_fraction=0.05, exclude_speakers=();
                 splits as stored; spoken_digit has train, test and excluded
        folder:  test_fraction=0.05, max_bad_fraction=0.0
        pairs:   key='label', parts={'image': {'source': 'tfds', 'name': 'mnist'}, 'audio': {...}};
                 a part inherits what it does not set; `text` without a part is the label's name

    Raises UserError for a wrong config and DataError for data that is missing or bad.
    """
    plain = config.to_dict() if hasattr(config, 'to_dict') else dict(config)
    dataset = open_source(plain, split, modalities, anchor)
    if split != 'train':
        return dataset
    seed = plain.get('seed', 0)
    require(seed >= 0, 'config.data.seed', seed, '0 or more')
    if plain.get('balance'):
        balance = read_settings(BalanceSettings, plain['balance'], 'config.data.balance')
        dataset = Balanced(dataset, balance, seed)
    augment = read_settings(AugmentSettings, plain.get('augment') or {}, 'config.data.augment')
    if augment != AugmentSettings():
        dataset = Augmented(dataset, augment, read_formats(plain).audio.rate, seed)
    return dataset
