import csv
import json
import unicodedata

import numpy as np
import pytest

from vqdit.errors import DataError, UserError
from vqdit.tokenizers.spec import TokenSpec
from vqdit.tokenizers.text import (
    UNKNOWN,
    ByteTokenizer,
    LabelTokenizer,
    TextTokenizer,
    WordTokenizer,
    build_vocabulary,
)

BYTES = ByteTokenizer(16)
WORDS = WordTokenizer(('a', 'red', 'circle', 'größer', '<unknown>', '<pad>'), 4)
LABELS = LabelTokenizer(('T-shirt/top', 'Ankle boot', 'Bag'))


def test_bytes_have_a_padding_of_their_own():
    codes = BYTES.encode(['añ', '', '\x00'])
    assert BYTES.spec == TokenSpec((16,), 257)
    assert codes.dtype == np.int32 and codes.shape == (3, 16)
    assert codes[0].tolist() == [97, 0xC3, 0xB1] + [256] * 13
    assert codes[1].tolist() == [256] * 16
    assert codes[2].tolist() == [0] + [256] * 15


@pytest.mark.parametrize(
    'text',
    [
        '',
        ' ',
        'a small red',
        '\x00\x00',
        'ÿ',
        '日本語のテ',
        '👩‍👧',
        '<mask>',
        '[PAD]',
        '\r\n\t',
        'exactly 16 bytes',
        unicodedata.normalize('NFD', 'ö'),
    ],
)
def test_every_text_that_fits_comes_back(text):
    assert BYTES.decode(BYTES.encode([text, 'x'])) == [text, 'x']


def test_every_character_comes_back():
    characters = [chr(code) for code in range(0x110000) if not 0xD800 <= code < 0xE000]
    chosen = characters[:2000] + characters[2000::997]
    assert ByteTokenizer(4).decode(ByteTokenizer(4).encode(chosen)) == chosen


def test_what_is_not_utf8_is_replaced_and_text_ends_at_the_first_padding():
    codes = np.full((3, 16), 256)
    codes[0, :3] = [97, 0xFF, 98]
    codes[1, :2] = [0xE6, 0x97]
    codes[2, 1:3] = 97
    assert BYTES.decode(codes) == ['a\ufffdb', '\ufffd', '']


def test_a_text_with_too_many_bytes():
    text = 'ääääääääb'
    with pytest.raises(UserError, match='has 17 bytes, more than the 16'):
        BYTES.encode(['ok', text])
    assert BYTES.decode(BYTES.encode([text, 'x' + text], strict=False)) == ['ä' * 8, 'x' + 'ä' * 7]
    assert BYTES.misfits(['ok', text, 'x' + text]) == {'cut': 2}


def test_half_a_surrogate_pair():
    with pytest.raises(UserError, match=r"'a\\ud83d' is not valid Unicode"):
        BYTES.encode(['a\ud83d'])
    assert BYTES.decode(BYTES.encode(['a\ud83d'], strict=False)) == ['a?']


def test_words_have_codes_for_padding_and_the_unknown():
    codes = WORDS.encode(['a red circle', '', '<pad> <unknown>'])
    assert WORDS.spec == TokenSpec((4,), 8)
    assert codes.dtype == np.int32
    assert codes.tolist() == [[0, 1, 2, 6], [6, 6, 6, 6], [5, 4, 6, 6]]
    assert WORDS.decode(codes) == ['a red circle', '', '<pad> <unknown>']


def test_white_space_is_one_space():
    assert WORDS.decode(WORDS.encode([' a\tred\u3000größer\n'])) == ['a red größer']


def test_an_unknown_word():
    with pytest.raises(UserError, match=r'"circel" is not among the 6 words .* mean "circle"'):
        WORDS.encode(['a circle', 'a circel'])
    codes = WORDS.encode(['a circel'], strict=False)
    assert codes.tolist() == [[0, 7, 6, 6]]
    assert WORDS.decode(codes) == [f'a {UNKNOWN}']


def test_a_text_with_too_many_words():
    with pytest.raises(UserError, match='has 5 words, more than the 4'):
        WORDS.encode(['a a a a a'])
    assert WORDS.decode(WORDS.encode(['a red a red circle'], strict=False)) == ['a red a red']
    assert WORDS.misfits(['a', 'a b c d e', 'b']) == {'cut': 1, 'unknown': 5}


def test_long_text_is_shortened_in_messages():
    with pytest.raises(UserError) as caught:
        WORDS.encode(['x' * 10_000])
    assert len(str(caught.value)) < 200


def test_a_vocabulary_of_texts_encodes_them_all():
    texts = ['a red circle', 'a blue square', 'a red cross', '']
    vocabulary = build_vocabulary(iter(texts))
    assert vocabulary == ('a', 'red', 'blue', 'circle', 'cross', 'square')
    assert build_vocabulary(reversed(texts)) == vocabulary
    assert build_vocabulary(texts, size=2) == ('a', 'red')
    tokenizer = WordTokenizer(vocabulary, 3)
    assert tokenizer.decode(tokenizer.encode(texts)) == texts
    with pytest.raises(DataError, match='no word'):
        build_vocabulary(['', ' '])


def test_labels():
    assert LABELS.spec == TokenSpec((1,), 3)
    codes = LABELS.encode(['Bag', 'Ankle boot'])
    assert codes.tolist() == [[2], [1]] and codes.dtype == np.int32
    assert LABELS.decode(codes) == ['Bag', 'Ankle boot']
    assert LABELS.encode([]).shape == (0, 1)
    with pytest.raises(UserError, match=r'"bag" is none of the 3 classes .* mean "Bag"'):
        LABELS.encode(['bag'])


@pytest.mark.parametrize('tokenizer', [BYTES, WORDS, LABELS])
def test_json_makes_the_same_tokenizer(tokenizer):
    stored = json.loads(json.dumps(tokenizer.to_json()))
    assert TextTokenizer.from_json(stored) == tokenizer
    assert type(tokenizer).from_json(stored).fingerprint == tokenizer.fingerprint
    json.dumps(tokenizer.encode([]).tolist())


def test_fingerprints_tell_tokenizers_apart():
    others = [
        ByteTokenizer(17),
        WordTokenizer(WORDS.vocabulary, 5),
        WordTokenizer(WORDS.vocabulary[::-1], 4),
        LabelTokenizer(LABELS.names[:2]),
    ]
    assert len({t.fingerprint for t in [BYTES, WORDS, LABELS, *others]}) == 7
    assert ByteTokenizer(16).fingerprint == BYTES.fingerprint
    assert len(BYTES.fingerprint) == 16


@pytest.mark.parametrize(
    'content, message',
    [
        ({'kind': 'letters'}, '"letters"'),
        ({}, '"None"'),
        ({'kind': 'bytes'}, 'damaged'),
        ({'kind': 'bytes', 'length': 3, 'size': 3}, 'damaged'),
    ],
)
def test_json_of_no_tokenizer_is_refused(content, message):
    with pytest.raises(DataError, match=message):
        TextTokenizer.from_json(content)


def test_json_of_another_class_is_refused():
    with pytest.raises(DataError, match='"bytes", which is no WordTokenizer'):
        WordTokenizer.from_json(BYTES.to_json())


def test_real_captions_fit(shared_data):
    with open(shared_data / 'openmoji' / 'metadata.csv', newline='', encoding='utf-8') as file:
        captions = [unicodedata.normalize('NFC', row['text']) for row in csv.DictReader(file)]
    assert len(captions) > 4000
    letters, words = ByteTokenizer(128), WordTokenizer(build_vocabulary(captions), 16)
    assert letters.decode(letters.encode(captions)) == captions
    assert words.decode(words.encode(captions)) == [' '.join(text.split()) for text in captions]
