import io
import json
import time

import jax.numpy as jnp
import numpy as np
import pytest

from vqdit import files
from vqdit.errors import DataError, DiskError
from vqdit.training import logging as training_logging
from vqdit.training.logging import MetricsLog, Progress


def steps(folder) -> list[int]:
    return [row['step'] for row in files.read_jsonl(folder / 'metrics.jsonl')]


def test_device_scalars_become_exact_numbers(tmp_path):
    with MetricsLog(tmp_path) as log:
        given = {'loss': jnp.float32(0.1), 'count': jnp.int32(7), 'half': jnp.bfloat16(1.5), 'rate': 3e-4}
        values = log.write(3, given)
    assert values == {'loss': float(np.float32(0.1)), 'count': 7, 'half': 1.5, 'rate': 3e-4}
    row = files.read_jsonl(tmp_path / 'metrics.jsonl')[0]
    assert abs(row.pop('time') - time.time()) < 60 and row == {'step': 3, **values}


def test_nan_and_infinity_are_null_in_the_file(tmp_path):
    with MetricsLog(tmp_path) as log:
        assert np.isnan(log.write(1, {'loss': jnp.nan, 'norm': jnp.inf})['loss'])
    text = (tmp_path / 'metrics.jsonl').read_text()
    row = json.loads(text, parse_constant=lambda name: pytest.fail(f'{name} is no JSON'))
    assert row['loss'] is None and row['norm'] is None


@pytest.mark.parametrize('tail', ['', '{"step": 6, "lo', '{"step": 6, "loss": 1.0}'])
def test_rows_after_the_resumed_step_come_once(tmp_path, tail):
    with MetricsLog(tmp_path) as log:
        for step in range(1, 6):
            log.write(step, {'loss': step})
    with open(tmp_path / 'metrics.jsonl', 'a') as file:
        file.write(tail)
    with MetricsLog(tmp_path, step=3) as log:
        for step in range(4, 8):
            log.write(step, {'loss': 10 * step})
    assert steps(tmp_path) == [1, 2, 3, 4, 5, 6, 7]
    assert [row['loss'] for row in files.read_jsonl(tmp_path / 'metrics.jsonl')] == [1, 2, 3, 40, 50, 60, 70]


def test_a_new_run_begins_with_an_empty_file(tmp_path):
    for _ in range(2):
        with MetricsLog(tmp_path) as log:
            log.write(1, {})
    assert steps(tmp_path) == [1]


def test_a_row_broken_in_the_middle_is_refused(tmp_path):
    (tmp_path / 'metrics.jsonl').write_text('{"step": 1\n{"step": 2}\n')
    with pytest.raises(DataError, match='line 1'):
        MetricsLog(tmp_path, step=2)


def test_a_row_that_cannot_be_written_is_told(tmp_path):
    with MetricsLog(tmp_path) as log:
        (tmp_path / 'metrics.jsonl').unlink()
        (tmp_path / 'metrics.jsonl').mkdir()
        with pytest.raises(DiskError, match=r'metrics.jsonl'):
            log.write(1, {'loss': 1.0})


class Clock:
    def __init__(self, monkeypatch):
        self.now = 100.0
        monkeypatch.setattr(training_logging.time, 'monotonic', lambda: self.now)


def test_plain_lines_come_every_ten_seconds_with_true_time_left(monkeypatch):
    clock, stream = Clock(monkeypatch), io.StringIO()
    with Progress('image tokenizer', total=100, items_per_step=64, unit='images', stream=stream) as progress:
        clock.now += 60  # compilation
        progress.update(1, {'nats/token': jnp.float32(2.5)})
        for step in range(2, 101):
            clock.now += 3 if step % 10 else 13  # every tenth step with an evaluation
            progress.update(step, {'nats/token': jnp.float32(2.5), 'floor': 1.92})
    lines = stream.getvalue().splitlines()
    assert lines[0] == 'image tokenizer 1/100 (1 %), nats/token 2.5'
    at_60 = next(line for line in lines if line.startswith('image tokenizer 60/100'))  # 160 seconds are left
    assert at_60 == 'image tokenizer 60/100 (60 %), 2:41 left, nats/token 2.5, floor 1.92, 15.9 images/s'
    assert lines[-1].startswith('image tokenizer 100/100 (100 %), 0:00 left')
    assert len(lines) < 45


def test_a_resumed_run_counts_only_its_own_steps(monkeypatch):
    clock, stream = Clock(monkeypatch), io.StringIO()
    progress = Progress('diffusion', total=1000, step=900, stream=stream, every=0.0)
    for step in (901, 902, 903):
        clock.now += 2
        progress.update(step)
    assert progress.seconds_per_step == 2.0 and progress.items_per_second == 0.5
    assert stream.getvalue().splitlines()[-1] == 'diffusion 903/1000 (90 %), 3:14 left, 0.5 items/s'


def test_a_terminal_gets_one_bar(monkeypatch):
    clock, stream = Clock(monkeypatch), io.StringIO()
    stream.isatty = lambda: True
    with Progress('diffusion', total=4, stream=stream, unit='tokens') as progress:
        for step in range(1, 5):
            clock.now += 3600
            progress.update(step, {'nats/token': 1.25})
    assert stream.getvalue().count('\n') == 1
    assert '3/4, 1:00:00 left, nats/token 1.25, 0.000278 tokens/s' in stream.getvalue()


def test_a_closed_stream_ends_the_display_only():
    stream = io.StringIO()
    progress = Progress('diffusion', total=4, stream=stream, every=0.0)
    stream.close()
    progress.update(1)
    progress.update(2)
    assert progress.seconds_per_step >= 0  # it still counts
