"""The table of a folder: what is understood, and what is refused with its line."""

import json

import pytest

from vqdit.data.sources.metadata import read_metadata
from vqdit.errors import DataError


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


def rows(root):
    return read_metadata(root)


def test_csv_with_quotes_mark_and_line_ends(tmp_path):
    write(
        tmp_path / 'metadata.csv',
        '\ufefffile_name,text,label\r\na.png,"one, two",3\r\nb.png,x,4\r\n',
    )
    assert rows(tmp_path) == [
        {'file_name': 'a.png', 'text': 'one, two', 'label': '3', 'split': ''},
        {'file_name': 'b.png', 'text': 'x', 'label': '4', 'split': ''},
    ]


def test_json_lines(tmp_path):
    write(tmp_path / 'metadata.jsonl', '{"file_name": "a.png", "text": "\u00e9", "label": 3}\n\n')
    assert rows(tmp_path) == [{'file_name': 'a.png', 'text': '\u00e9', 'label': 3, 'split': ''}]


@pytest.mark.parametrize('alias', ['text', 'caption', 'transcription', 'prompt'])
def test_aliases_of_text(tmp_path, alias):
    write(tmp_path / 'metadata.csv', f'file_name,{alias}\na.png,red\n')
    assert rows(tmp_path)[0]['text'] == 'red'


def test_splits_by_column_folder_and_path(tmp_path):
    write(tmp_path / 'metadata.csv', 'file_name,split\na.png,dev\nb.png,\ntest/c.png,\n')
    write(tmp_path / 'train' / 'metadata.csv', 'file_name\nd.png\n')
    found = {row['file_name']: row['split'] for row in rows(tmp_path)}
    assert found == {
        'a.png': 'validation',
        'b.png': '',
        'test/c.png': 'test',
        'train/d.png': 'train',
    }


def test_ljspeech(tmp_path):
    (tmp_path / 'wavs').mkdir()
    write(tmp_path / 'metadata.csv', 'A-1|He said "no.|He said "no.\nA-2|yes, and\n')
    assert [(row['file_name'], row['text']) for row in rows(tmp_path)] == [
        ('wavs/A-1.wav', 'He said "no.'),
        ('wavs/A-2.wav', 'yes, and'),
    ]


BAD_CSV = {
    'empty': ('', 'lists no file'),
    'header only': ('file_name,text\n', 'lists no file'),
    'no file_name': (
        'path,text\na.png,x\n',
        "no column \"file_name\"; its columns are 'path', 'text'",
    ),
    'wrong delimiter': ('file_name;text\na.png;x\n', "'file_name;text'"),
    'column twice': ('file_name,text,text\na.png,x,y\n', 'twice'),
    'ragged': ('file_name,text\na.png,x\nb.png,one, two\n', 'line 3: 3 cells, 2 columns'),
    'unclosed quote': ('file_name,text\na.png,"x\nb.png,y\n', 'check its quotes'),
    'latin-1': ('file_name,text\na.png,caf\u00e9\n'.encode('latin-1'), 'line 2 is not UTF-8'),
    'binary': (b'PAR1\x15\x04\x15\xff', 'not UTF-8'),
}
BAD_JSON = {
    'torn': ('{"file_name": "a.png"}\n{"file_na', 'line 2'),
    'a list': ('[{"file_name": "a.png"}]', 'line 1: it is no object'),
    'NaN': ('{"file_name": "a.png", "text": NaN}', 'NaN is not JSON'),
    'key twice': ('{"file_name": "a.png", "file_name": "b.png"}', 'twice'),
    'deep': ('[' * 100_000, 'line 1'),
    'no file_name': ('{"path": "a.png"}', "its columns are 'path'"),
}


@pytest.mark.parametrize('case', BAD_CSV)
def test_bad_csv(tmp_path, case):
    content, words = BAD_CSV[case]
    write(tmp_path / 'metadata.csv', content)
    with pytest.raises(DataError) as error:
        rows(tmp_path)
    assert words in str(error.value) and 'metadata.csv' in str(error.value)


@pytest.mark.parametrize('case', BAD_JSON)
def test_bad_json_lines(tmp_path, case):
    content, words = BAD_JSON[case]
    write(tmp_path / 'metadata.jsonl', content)
    with pytest.raises(DataError) as error:
        rows(tmp_path)
    assert words in str(error.value) and 'metadata.jsonl' in str(error.value)


def test_two_tables_none_and_no_folder(tmp_path):
    with pytest.raises(DataError, match='does not exist'):
        rows(tmp_path / 'nowhere')
    with pytest.raises(DataError, match=r'no metadata\.csv or metadata\.jsonl'):
        rows(tmp_path)
    write(tmp_path / 'metadata.csv', 'file_name\na.png\n')
    write(tmp_path / 'metadata.jsonl', json.dumps({'file_name': 'a.png'}))
    with pytest.raises(DataError, match='both'):
        rows(tmp_path)
