"""What well-known TFDS sets do not say of themselves."""

import re
from collections.abc import Sequence

import numpy as np

from vqdit.data.dataset import Example
from vqdit.errors import DataError, UserError, nearest

DIGITS = ('zero', 'one', 'two', 'three', 'four', 'five', 'six', 'seven', 'eight', 'nine')
LABEL_NAMES = {'mnist': DIGITS, 'spoken_digit': DIGITS}
SAMPLE_RATES = {'spoken_digit': 8000}
TEST_RECORDINGS = (
    5  # of every speaker and digit, the first ones: the split of spoken_digit's makers
)

_RECORDING = re.compile(r'\d_(?P<speaker>[^_]+)_(?P<recording>\d+)\.wav')


def parse_recording(name: str) -> Example:
    """Speaker and number of a recording of spoken_digit, from a name such as `0_george_3.wav`."""
    match = _RECORDING.fullmatch(name)
    if not match:
        raise DataError(
            f'spoken_digit: {name!r} is not digit_speaker_number.wav; make the set again'
        )
    return {'speaker': match['speaker'], 'recording': int(match['recording'])}


def spoken_digit_rows(
    speakers: np.ndarray, recordings: np.ndarray, split: str, excluded: Sequence[str]
) -> np.ndarray:
    """The rows of a split of spoken_digit, which TFDS stores as one.

    `test` is recordings 0-4 of every speaker and digit, `train` the others but for the excluded
    speakers, `excluded` all recordings of those. Raises UserError for a speaker who is not there.
    """
    known = sorted(set(speakers.tolist()))
    for speaker in excluded:
        if speaker not in known:
            hint = nearest(speaker, known)
            raise UserError(f'exclude_speakers: "{speaker}" is none of {", ".join(known)}.{hint}')
    if split == 'excluded' and not excluded:
        raise UserError(
            'exclude_speakers is empty, so there is no split "excluded"; name a speaker'
        )
    left_out = np.isin(speakers, list(excluded))
    test = recordings < TEST_RECORDINGS
    return np.flatnonzero({'train': ~test & ~left_out, 'test': test, 'excluded': left_out}[split])
