import threading

import pytest

from vqdit.training.programs import Programs


def test_a_program_is_made_beside_and_handed_out_once():
    with Programs() as programs:
        programs.prepare('a', threading.get_ident)
        assert programs.take('a', lambda: 0) not in (0, threading.get_ident())
        assert programs.take('a', lambda: 'made now') == 'made now'


def test_what_failed_is_told_to_who_asks_for_it():
    def fail():
        raise MemoryError('too large')
    with Programs() as programs:
        programs.prepare('a', fail)
        programs.prepare('b', lambda: 1)
        assert programs.take('b', lambda: 0) == 1
        with pytest.raises(MemoryError, match='too large'):
            programs.take('a', lambda: 0)


def test_what_is_not_begun_is_dropped_at_the_end():
    made, held, begun = [], threading.Event(), threading.Event()
    with Programs() as programs:
        programs.prepare('a', lambda: (begun.set(), held.wait(), made.append('a')))
        programs.prepare('b', lambda: made.append('b'))
        begun.wait()
        threading.Timer(0.05, held.set).start()
    assert made == ['a']
