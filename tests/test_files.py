import os
import stat
import subprocess
import sys

import pytest

from vqdit import files
from vqdit.errors import DataError, DiskError


def test_round_trips(tmp_path):
    files.write_bytes(tmp_path / 'new' / 'folder' / 'a.bin', b'\x00\xff')
    assert (tmp_path / 'new' / 'folder' / 'a.bin').read_bytes() == b'\x00\xff'
    files.write_text(tmp_path / 'a.txt', 'größer\n')
    assert (tmp_path / 'a.txt').read_bytes() == 'größer\n'.encode()
    content = {'name': 'größer', 'list': [1, 2.5, None], 'nested': {'a': True}}
    files.write_json(tmp_path / 'a.json', content)
    assert files.read_json(tmp_path / 'a.json') == content
    assert (tmp_path / 'a.json').read_text().endswith('}\n')


def test_a_file_is_replaced_readable_for_all_and_without_remains(tmp_path):
    files.write_text(tmp_path / 'a', 'old')
    files.write_text(tmp_path / 'a', 'new')
    assert (tmp_path / 'a').read_text() == 'new'
    assert stat.S_IMODE((tmp_path / 'a').stat().st_mode) == 0o644
    assert os.listdir(tmp_path) == ['a']


@pytest.mark.parametrize('failure', [OSError(28, 'No space left on device'), KeyboardInterrupt()])
def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, failure):
    files.write_text(tmp_path / 'a', 'old')

    def fail(*_):
        raise failure

    monkeypatch.setattr(os, 'replace', fail)
    expected = DiskError if isinstance(failure, OSError) else KeyboardInterrupt
    with pytest.raises(expected) as caught:
        files.write_text(tmp_path / 'a', 'new')
    assert (tmp_path / 'a').read_text() == 'old'
    assert os.listdir(tmp_path) == ['a']
    if expected is DiskError:
        assert 'No space left' in str(caught.value) and str(tmp_path / 'a') in str(caught.value)


def test_a_folder_that_is_a_file_is_named(tmp_path):
    (tmp_path / 'file').write_text('')
    with pytest.raises(DiskError, match=r'file/a\.json'):
        files.write_json(tmp_path / 'file' / 'a.json', {})
    with pytest.raises(DiskError, match='cannot append'):
        files.append_jsonl(tmp_path / 'file' / 'a.jsonl', {})


def test_readers_see_the_old_or_the_new_file_whenever_the_writer_is_killed(tmp_path):
    path = tmp_path / 'a.json'
    script = (
        'import sys; from vqdit import files\n'
        'i = 0\n'
        'while True:\n'
        '    files.write_json(sys.argv[1], {"number": i, "filler": [i] * 20_000}); i += 1'
    )
    for _ in range(3):
        path.unlink(missing_ok=True)
        with subprocess.Popen([sys.executable, '-c', script, str(path)]) as process:
            try:
                while not path.exists():
                    assert process.poll() is None
                contents = [files.read_json(path) for _ in range(10)]
            finally:
                process.kill()
        for content in [*contents, files.read_json(path)]:
            assert set(content['filler']) == {content['number']}


@pytest.mark.parametrize('content', [b'', b'{', b'{"a": 1} x', b'\xff\xfe{', b'[' * 100_000])
def test_json_that_is_none_is_named(tmp_path, content):
    (tmp_path / 'a.json').write_bytes(content)
    with pytest.raises(DataError, match=r'a\.json is not valid JSON'):
        files.read_json(tmp_path / 'a.json')


def test_appended_rows_come_back(tmp_path):
    path, rows = tmp_path / 'a.jsonl', [{'step': step, 'text': 'a\u2028ü\n'} for step in range(3)]
    for row in rows:
        files.append_jsonl(path, row)
    assert files.read_jsonl(path) == rows
    assert len(path.read_bytes().splitlines()) == 3


@pytest.mark.parametrize('torn', [b'{', b'{"step": 1', b'{"step": "' + b'x' * 10_000, b'\xc3'])
@pytest.mark.parametrize('before', [b'', b'{"step": 0}\n'])
def test_a_torn_last_line_is_left_out_and_replaced(tmp_path, before, torn):
    path, kept = tmp_path / 'a.jsonl', [{'step': 0}] if before else []
    path.write_bytes(before + torn)
    assert files.read_jsonl(path) == kept
    files.append_jsonl(path, {'step': 1})
    files.append_jsonl(path, {'step': 2})
    assert files.read_jsonl(path) == [*kept, {'step': 1}, {'step': 2}]


@pytest.mark.parametrize(
    'content, line',
    [
        (b'{"a": 1}\n{"a": \n{"a": 2}\n', 2),
        (b'{"a": 1}\n\xff\n', 2),
        (b'{"a": 1}\n\n{\n', 3),
    ],
)
def test_a_broken_line_is_named(tmp_path, content, line):
    (tmp_path / 'a.jsonl').write_bytes(content)
    with pytest.raises(DataError, match=rf'a\.jsonl, line {line} is not valid JSON'):
        files.read_jsonl(tmp_path / 'a.jsonl')


def test_lines_of_other_writers(tmp_path):
    path = tmp_path / 'a.jsonl'
    path.write_bytes('{"a": "x\u2028y\x85z"}\r\n\n{"a": 2}'.encode())
    assert files.read_jsonl(path) == [{'a': 'x\u2028y\x85z'}, {'a': 2}]
