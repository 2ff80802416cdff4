"""Settings: defaults, types, and answers to mistakes."""

from dataclasses import dataclass

import pytest

from vqdit.data.settings import read_settings, select
from vqdit.errors import UserError


@dataclass(frozen=True)
class Sound:
    name: str
    rate: int = 8000
    seconds: float = 0.5
    speakers: tuple[str, ...] = ()


def test_reads_values_and_keeps_defaults():
    read = read_settings(Sound, {'name': 'a', 'seconds': 2, 'speakers': ['x', 'y']}, 'data')
    assert read == Sound('a', 8000, 2.0, ('x', 'y'))
    assert type(read.seconds) is float


@pytest.mark.parametrize(
    ('section', 'words'),
    [
        ({'name': 'a', 'secnods': 1.0}, ['data.secnods', 'Did you mean "seconds"?']),
        ({'name': 'a', 'rate': '8000'}, ['data.rate', "'8000'", 'int']),
        ({'name': 'a', 'rate': True}, ['data.rate', 'True']),
        ({'name': 'a', 'rate': 8000.5}, ['data.rate', '8000.5']),
        ({'rate': 8000}, ['data.name', 'not set']),
    ],
)
def test_mistakes_are_told(section, words):
    with pytest.raises(UserError) as error:
        read_settings(Sound, section, 'data')
    assert all(word in str(error.value) for word in words)


def test_select_takes_only_the_fields():
    assert select(Sound, {'name': 'a', 'image': {}}) == {'name': 'a'}
