"""The table to look at: where its cells are, and what each shows."""

import numpy as np
import pytest

from vqdit.generation.pictures import CELL, MARGIN, ROWS, TITLE, draw_item, draw_table

STEP = CELL + MARGIN


def cell(table, column, row):
    left, top = MARGIN + column * STEP, TITLE + MARGIN + row * STEP
    return np.asarray(table)[top:top + CELL, left:left + CELL]


def flat(*levels):
    return [np.full((4, 4, 3), level, np.uint8) for level in levels]


def test_rows_are_samples_and_columns_modalities():
    table = draw_table({'given': flat(10), 'image': flat(20, 30)})
    assert table.size == (MARGIN + 2 * STEP, TITLE + 2 * STEP + MARGIN)
    for column, row, level in [(0, 0, 10), (1, 0, 20), (1, 1, 30), (0, 1, 255)]:
        assert (cell(table, column, row) == level).all()


def test_long_tables_go_on_to_the_right():
    table = draw_table({'image': flat(*range(ROWS + 2))})
    assert table.size == (MARGIN + 2 * STEP, TITLE + ROWS * STEP + MARGIN)
    assert (cell(table, 0, ROWS - 1) == ROWS - 1).all() and (cell(table, 1, 1) == ROWS + 1).all()
    assert (cell(table, 1, 2) == 255).all()


@pytest.mark.parametrize('frequency', [500, 3000])
def test_spectrogram_is_bright_where_the_tone_is(frequency):
    sound = np.sin(2 * np.pi * frequency * np.arange(4000) / 8000).astype(np.float32)
    picture = np.asarray(draw_item(sound)).astype(int).sum(-1)
    brightest = np.argmax(picture.mean(1))
    assert abs(brightest / CELL - (1 - frequency / 4000)) < 0.03


def test_silence_and_the_shortest_sounds_are_drawn():
    for samples in (1, 7, 4000):
        assert draw_item(np.zeros(samples, np.float32)).size == (CELL, CELL)


def test_film_shows_its_frames_in_reading_order():
    film = np.stack(flat(*range(0, 240, 30)))
    picture = np.asarray(draw_item(film))
    shown = picture[CELL // 2 - 16::32, 16::32, 0][:2]
    np.testing.assert_array_equal(shown.ravel(), range(0, 240, 30))


def test_words_are_drawn_and_the_longest_stay_inside():
    blank, words = draw_item(' '), draw_item('a tiny green triangle going up ' * 9)
    assert np.asarray(blank).min() > 200 > np.asarray(words).min()
    assert draw_item('x' * 500 + '\n<b>').size == (CELL, CELL)
