"""Captions: one form for what reads alike, and what is refused."""

import pytest

from vqdit.data.preprocess.text import TextSettings, decode_text, prepare_text
from vqdit.errors import DataError

SETTINGS = TextSettings()


@pytest.mark.parametrize(
    ('raw', 'clean'),
    [
        ('a  red\tcircle \r\n', 'a red circle'),
        ('\ufeffa red circle', 'a red circle'),
        ('a\u200b red\x00 cir\x07cle', 'a red circle'),
        ('cafe\u0301', 'caf\u00e9'),
        ('\u202ered\u202c', 'red'),
        ('two\u00a0words', 'two words'),
        ('line\x85break', 'line break'),
        ('=cmd() {0.__class__} %s <mask> </s>', '=cmd() {0.__class__} %s <mask> </s>'),
        (
            '\U0001f468\u200d\U0001f469\u200d\U0001f467',
            '\U0001f468\u200d\U0001f469\u200d\U0001f467',
        ),
        (
            '\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645',
            '\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645',
        ),
        (b'\xef\xbb\xbfred', 'red'),
    ],
)
def test_clean(raw, clean):
    assert prepare_text(raw, 'a.png', SETTINGS) == clean
    assert prepare_text(clean, 'a.png', SETTINGS) == clean


@pytest.mark.parametrize(
    ('raw', 'word'),
    [
        ('', 'empty'),
        (' \n\u200b', 'empty'),
        ('half \ud800', 'surrogate'),
        (b'caf\xe9', 'UTF-8'),
        ('red'.encode('utf-16'), 'UTF-8'),
        (b'\xc0\xaf', 'UTF-8'),
        (None, 'not a string'),
        (float('nan'), 'not a string'),
        (7, 'not a string'),
        (['a'], 'not a string'),
        ('x' * 10**7, '10000000 characters'),
    ],
)
def test_bad_captions_are_refused_by_name(raw, word):
    with pytest.raises(DataError, match=r'^a\.png: ') as error:
        prepare_text(raw, 'a.png', SETTINGS)
    assert word in str(error.value) and len(str(error.value)) < 200


def test_length_is_counted_in_bytes():
    assert prepare_text('\u00e9' * 4, 'a', TextSettings(8)) == '\u00e9' * 4
    with pytest.raises(DataError, match='10 bytes'):
        prepare_text('\u00e9' * 5, 'a', TextSettings(8))


def test_the_line_that_is_not_utf8_is_named():
    with pytest.raises(DataError, match=r'metadata\.csv: line 3 '):
        decode_text(b'one\ntwo\nthr\xe9e\n', 'metadata.csv')
