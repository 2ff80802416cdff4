import os
import signal
import threading

import pytest

from vqdit.errors import Preempted
from vqdit.training.interruption import SIGNALS, Request, StopFlag


def send(number: int) -> None:
    os.kill(os.getpid(), number)


@pytest.fixture(autouse=True)
def heard():
    """A background job inherits some signals as ignored, which a StopFlag respects; these tests hear them all."""
    before = {number: signal.signal(number, signal.SIG_DFL) for number in SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_nothing_asked_is_none(tmp_path):
    with StopFlag(tmp_path) as flag:
        assert flag.poll() is Request.NONE
        flag.raise_if_set()


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_stop_signal_stays_and_is_named(tmp_path, number):
    with StopFlag(tmp_path) as flag:
        send(number)
        assert [flag.poll(), flag.poll()] == [Request.STOP, Request.STOP]
        with pytest.raises(Preempted, match=f'by {signal.Signals(number).name}; run the same') as caught:
            flag.raise_if_set()
        assert caught.value.exit_code == 75


def test_sigusr1_saves_once_and_goes_on(tmp_path):
    with StopFlag(tmp_path) as flag:
        send(signal.SIGUSR1)
        assert [flag.poll(), flag.poll()] == [Request.SAVE, Request.NONE]
        flag.raise_if_set()


def test_stop_includes_save_and_is_not_lost_behind_it(tmp_path):
    with StopFlag(tmp_path) as flag:
        send(signal.SIGTERM)
        send(signal.SIGUSR1)
        assert flag.poll() is Request.STOP


@pytest.mark.parametrize('name, request_', [('SAVE', Request.SAVE), ('STOP', Request.STOP)])
def test_files_ask_once_and_are_removed(tmp_path, name, request_):
    with StopFlag(tmp_path) as flag:
        (tmp_path / name).touch()
        assert flag.poll() is request_ and not (tmp_path / name).exists()


def test_a_stop_file_from_before_stops_nobody(tmp_path):
    (tmp_path / 'STOP').touch()
    with StopFlag(tmp_path) as flag:
        assert flag.poll() is Request.NONE and not (tmp_path / 'STOP').exists()


def test_a_second_sigint_would_end_the_process_at_once(tmp_path):
    with StopFlag(tmp_path):
        send(signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is signal.SIG_DFL


def test_handlers_come_back_and_ignored_signals_stay_ignored(tmp_path):
    previous = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        before = {number: signal.getsignal(number) for number in SIGNALS}
        with StopFlag(tmp_path) as flag:
            send(signal.SIGHUP)
            assert flag.poll() is Request.NONE
            assert signal.getsignal(signal.SIGTERM) != before[signal.SIGTERM]
        assert {number: signal.getsignal(number) for number in SIGNALS} == before
    finally:
        signal.signal(signal.SIGHUP, previous)


def test_outside_the_main_thread_files_still_work(tmp_path):
    answers = []

    def work():
        with StopFlag(tmp_path) as flag:
            (tmp_path / 'STOP').touch()
            answers.append(flag.poll())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert answers == [Request.STOP]
