import subprocess
import sys
import time

from vqdit.training.watchdog import Watchdog

STUCK = """
import threading, time
from vqdit.training.watchdog import Watchdog
def stuck_in_a_collective():
    threading.Event().wait()
with Watchdog(1.0) as watchdog:
    for step in range(8):
        watchdog.arm(f'training step {step}')
        time.sleep(0.2)
    watchdog.arm('evaluation')
    stuck_in_a_collective()
"""


def test_a_stuck_process_ends_with_code_7_and_its_stacks():
    result = subprocess.run([sys.executable, '-c', STUCK], capture_output=True, text=True, timeout=60)
    assert result.returncode == 7
    assert 'no progress for 1 s in evaluation; the stack' in result.stderr
    assert 'stuck_in_a_collective' in result.stderr


def test_an_armed_watchdog_lets_go(monkeypatch):
    ended = []
    monkeypatch.setattr(Watchdog, '_end', lambda self: ended.append(self._doing))
    with Watchdog(0.2) as watchdog:
        watchdog.arm('compilation', factor=20)
        time.sleep(0.5)
        assert not ended
        watchdog.arm('a step')
        while not ended:
            time.sleep(0.05)
        assert set(ended) == {'a step'}
    count = len(ended)
    time.sleep(0.3)
    assert len(ended) == count
