import pytest

from vqdit.training.collapse import FIRST, CollapseWatch


def _lines(values, name='perplexity'):
    watch = CollapseWatch()
    return [(step, line) for step, value in enumerate(values, start=1) for line in watch.read({name: value, 'loss': 0})]


@pytest.mark.parametrize('values', [
    [1.0 + step for step in range(300)], [50.0] * 300, [80.0, 40.0] * 150, [90.0] * 20 + [50.0] * 300])
def test_a_codebook_in_use_is_left_in_peace(values):
    """Growing, steady, noisy, and settling a little below its height."""
    assert not _lines(values)


def test_a_fall_is_told_once_for_every_halving():
    lines = _lines([200.0] * 150 + [60.0] * 100 + [20.0] * 200)
    assert len(lines) == 3 and 150 < lines[0][0] < 180 and 250 < lines[1][0] < lines[2][0] < 350
    assert 'perplexity fell from 200 to' in lines[0][1] and 'finite_scalar' in lines[0][1]


def test_every_level_is_followed_and_the_first_steps_are_not():
    assert 'perplexity_3 fell' in _lines([200.0] * 150 + [10.0] * 60, 'perplexity_3')[0][1]
    assert not _lines([200.0] * 20 + [10.0] * (FIRST - 21))
