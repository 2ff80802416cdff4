import logging
import sys
import time
import types

import numpy as np
import pytest

from vqdit import files
from vqdit.training import trackers
from vqdit.training.logging import MetricsLog


def steps(folder) -> list[int]:
    return [row['step'] for row in files.read_jsonl(folder / 'metrics.jsonl')]


def test_tensorboard_gets_every_scalar_and_picture(tmp_path):
    with MetricsLog(tmp_path) as log:
        for step in (1, 2):
            log.write(step, {'loss': step / 4})
        log.image(2, 'samples', np.zeros((4, 6, 3), np.uint8))
    from tensorboardX.proto.event_pb2 import Event

    content, values = next((tmp_path / 'tensorboard').iterdir()).read_bytes(), []
    while content:
        length = int.from_bytes(content[:8], 'little')
        event = Event.FromString(content[12 : 12 + length])
        values += [(event.step, value.tag, value.simple_value) for value in event.summary.value]
        content = content[16 + length :]
    assert values == [(1, 'loss', 0.25), (2, 'loss', 0.5), (2, 'samples', 0.0)]


class BrokenTracker:
    def __init__(self, *arguments):
        pass

    def scalars(self, step, values):
        raise ConnectionError('no network')


class StuckTracker(BrokenTracker):
    def scalars(self, step, values):
        time.sleep(0.05 if step < 3 else 1)


@pytest.mark.parametrize(
    'tracker, capacity, reason', [(BrokenTracker, 99, 'no net'), (StuckTracker, 3, 'keep up')]
)
def test_a_bad_tracker_costs_one_warning(tmp_path, monkeypatch, caplog, tracker, capacity, reason):
    monkeypatch.setattr(trackers, 'TensorBoard', tracker)
    monkeypatch.setattr(trackers.Background.__init__, '__defaults__', (capacity,))
    start = time.monotonic()
    with MetricsLog(tmp_path) as log:
        for step in range(20):
            log.write(step, {'loss': step})
        assert time.monotonic() - start < 5
    warnings = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(warnings) == 1 and 'TensorBoard is given up' in warnings[0] and reason in warnings[0]
    assert steps(tmp_path) == list(range(20))


def test_a_missing_tensorboardx_costs_one_warning(tmp_path, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, 'tensorboardX', None)
    with MetricsLog(tmp_path) as log:
        log.write(1, {})
    assert len(caplog.records) == 1 and steps(tmp_path) == [1]


def test_wandb_is_used_only_when_asked_for(tmp_path, monkeypatch):
    calls = []

    class Run:
        def log(self, values, step):
            calls.append((step, values))

        def finish(self):
            calls.append('finished')

    fake = types.SimpleNamespace(init=lambda **settings: calls.append(settings['project']) or Run())
    monkeypatch.setitem(sys.modules, 'wandb', fake)
    with MetricsLog(tmp_path / 'without') as log:
        log.write(1, {'loss': 2.0})
    assert not calls
    with MetricsLog(tmp_path / 'with', wandb_project='mine') as log:
        log.write(1, {'loss': 2.0})
    assert calls == ['mine', (1, {'loss': 2.0}), 'finished']
