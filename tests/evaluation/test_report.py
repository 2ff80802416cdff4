"""The report: rows as JSON, a table, and things to look at and listen to."""

import importlib
import json
from types import SimpleNamespace

import pytest
from absl import flags

from vqdit.diffusion.clock import Task
from vqdit.evaluation import report
from vqdit.evaluation.rows import Row, share

ROWS = [
    Row('text->image', 'shape accuracy', 0.975, 'fraction', 1000, 1.0),
    share('image->text', 'label accuracy', [True, False, True, True]),
]


def test_table_is_aligned():
    assert report.table(ROWS).splitlines() == [
        '| task        | metric         | value  | ceiling | unit     | count |',
        '| ----------- | -------------- | ------ | ------- | -------- | ----- |',
        '| text->image | shape accuracy | 0.9750 | 1.0000  | fraction | 1000  |',
        '| image->text | label accuracy | 0.7500 |         | fraction | 4     |',
    ]


@pytest.mark.parametrize('task, name', [
    ('text->image', 'text-to-image'), ('->image,text', 'to-image-text'), ('a,b->c', 'a-b-to-c'),
])  # fmt: skip
def test_folders_are_named_by_modalities(task, name):
    assert report.slug(Task.parse(task)) == name


def test_evaluation_writes_all_of_it(config, knowing, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(report, 'load_config', lambda workdir: config)
    monkeypatch.setattr(report, 'load_generator', lambda workdir: (knowing, config))
    rows = report.evaluate(tmp_path)
    saved = json.loads((tmp_path / 'report.json').read_text())
    keys = {'task', 'metric', 'value', 'unit', 'count', 'ceiling', 'margin'}
    assert [set(row) for row in saved] == [keys] * len(rows)
    assert saved[0]['task'] == 'reconstruct audio' and saved[-1]['metric'] == 'likelihood bound'
    text = (tmp_path / 'report.md').read_text()
    assert report.table(rows) in text and report.table(rows) in capsys.readouterr().out
    for task in config.evaluation.tasks:
        folder = f'report/{report.slug(Task.parse(task))}'
        assert f'({folder}/grid.png)' in text and (tmp_path / folder / 'grid.png').exists()
    assert len(list((tmp_path / 'report' / 'text-to-image').glob('image_*.png'))) == 8
    assert len(list((tmp_path / 'report' / 'image-audio-to-text').glob('given_audio_*.wav'))) == 8


def test_the_command_keeps_compiled_programs_for_the_next_one(monkeypatch):
    with monkeypatch.context() as patch:
        # Its flag would be required of every other script that is tested in this process.
        patch.setattr(flags, 'DEFINE_string', lambda *_, **__: SimpleNamespace(value='runs/x'))
        module = importlib.import_module('vqdit.evaluation.__main__')
    done = []
    monkeypatch.setattr(module, 'prepare_host', lambda **_: done.append('host'))
    monkeypatch.setattr(module, 'keep_compiled_programs', lambda: done.append('programs'))
    monkeypatch.setattr(module, 'evaluate', done.append)
    module.main()
    assert done == ['host', 'programs', 'runs/x']
