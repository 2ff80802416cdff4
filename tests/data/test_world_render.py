"""Pictures and sounds: geometry, noise, motion, pitch, loudness, and what is not to be heard."""

import numpy as np
import pytest

from vqdit.data import world_render as render
from vqdit.data.world_scenes import ATTRIBUTES, Scene

MOTIONS = range(len(ATTRIBUTES['motion']))
NO_PHASE = np.zeros(3, np.float32)


def clean(shape, size, centre, side=32):
    return render.coverage(shape, size, np.array([centre], np.float32), side)[0]


@pytest.mark.parametrize('shape', range(4))
@pytest.mark.parametrize('size', range(2))
def test_no_shape_is_cut_by_the_edge(shape, size):
    low = min(render.CENTRES) - render.JITTER
    high = max(render.CENTRES) + render.JITTER
    for x, y in ((low, low), (high, high), (low, high), (high, low)):
        inside = clean(shape, size, (16 + x % 1, 16 + y % 1)).sum()
        assert inside - clean(shape, size, (x, y)).sum() < 0.1


@pytest.mark.parametrize('side', [32, 64])
def test_the_area_of_each_shape(side):
    radius, arm = render.RADII[1] * side / 32, 0.34 * render.RADII[1] * side / 32
    middle = (16.3, 15.8)
    areas = [clean(shape, 1, middle, side).sum() for shape in range(4)]
    exact = [
        np.pi * radius**2,
        (1.8 * radius) ** 2,
        (1.86 * radius) ** 2 / np.sqrt(3),
        8 * radius * arm - 4 * arm**2,
    ]
    np.testing.assert_allclose(areas, exact, rtol=0.03)


def test_edges_are_antialiased_by_sub_pixel_steps():
    rows = np.array([clean(1, 1, (16 + step, 16))[16] for step in (0.0, 0.1, 0.2, 0.3)])
    np.testing.assert_allclose(np.diff(rows[:, :16].sum(1)), -0.1, atol=1e-4)
    np.testing.assert_allclose(np.diff(rows[:, 16:].sum(1)), 0.1, atol=1e-4)


def test_image_is_the_first_frame_of_the_video():
    scene = Scene(2, 3, 1, 5, 4)
    image = render.render_image(scene, np.random.default_rng(7), 32)
    video = render.render_video(scene, np.random.default_rng(7), 8, 32)
    assert image.dtype == video.dtype == np.uint8
    assert image.shape == (32, 32, 3)
    assert video.shape == (8, 32, 32, 3)
    np.testing.assert_array_equal(image, video[0])


def test_ground_colour_and_grain():
    scene = Scene(1, 4, 1, 4, 0)
    video = render.render_video(scene, np.random.default_rng(1), 40, 32).astype(float)
    ground, inside = video[:, :5].reshape(-1, 3), video[:, 14:18, 14:18].reshape(-1, 3)
    np.testing.assert_allclose(ground.mean(0), render.BACKGROUND, atol=0.2)
    np.testing.assert_allclose(inside.mean(0), render.COLOURS[4], atol=1)
    np.testing.assert_allclose(ground.std(0), render.PIXEL_NOISE, rtol=0.05)


@pytest.mark.parametrize('motion', MOTIONS)
@pytest.mark.parametrize('frames', [2, 8])
def test_the_shape_travels_seven_pixels_its_way(motion, frames):
    covered = render.coverage(0, 1, render.path(render.centre(4), motion, frames), 32)
    assert covered.shape == (frames, 32, 32)
    steps = np.arange(32) + 0.5
    x, y = (covered.sum(1) @ steps, covered.sum(2) @ steps) / covered[0].sum()
    way = {'still': (0, 0), 'left': (-7, 0), 'right': (7, 0), 'up': (0, -7), 'down': (0, 7)}
    expected = way[ATTRIBUTES['motion'][motion]]
    np.testing.assert_allclose((x[-1] - x[0], y[-1] - y[0]), expected, atol=0.01)


def test_the_position_is_not_heard():
    sounds = [
        render.render_audio(Scene(1, 2, 0, position, 3), np.random.default_rng(5), 4000, 8000)
        for position in range(9)
    ]
    assert sounds[0].dtype == np.float32
    assert sounds[0].shape == (4000,)
    assert all(np.array_equal(sounds[0], sound) for sound in sounds)


@pytest.mark.parametrize('colour', range(6))
def test_the_colour_sets_the_pitch(colour):
    sound = render.tone(Scene(0, colour, 1, 0, 0), NO_PHASE, 0.0, 8000, 8000)
    peak = int(np.argmax(np.abs(np.fft.rfft(sound))))
    assert abs(peak - 240 * 2 ** (5 * colour / 12)) < 1


@pytest.mark.parametrize('shape', range(4))
def test_the_size_sets_the_loudness_whatever_the_shape(shape):
    sounds = [render.tone(Scene(shape, 3, z, 0, 2), NO_PHASE, 0.0, 4000, 8000) for z in range(2)]
    quiet, loud = (np.sqrt(np.mean(sound[80:-80] ** 2)) for sound in sounds)
    np.testing.assert_allclose((quiet, loud), render.LOUDNESS, rtol=0.02)
    assert 20 * np.log10(loud / quiet) > 8


def test_the_loudest_sound_stays_below_full_scale():
    rng = np.random.default_rng(0)
    scenes = [Scene(shape, colour, 1, 0, 3) for shape in range(4) for colour in range(6)]
    peaks = [np.abs(render.render_audio(scene, rng, 4000, 8000)).max() for scene in scenes]
    assert max(peaks) < 0.8


def test_the_glides_have_no_mean_and_do_not_resemble_each_other():
    contours = []
    for motion in MOTIONS:
        cycles = render._cycles(motion, 4000, 8000)
        contours.append(12 * np.log2(8000 * np.diff(cycles)))
    contours = np.array(contours)
    np.testing.assert_allclose(contours.mean(1), 0, atol=2e-3)
    still, left, right, up, down = contours
    np.testing.assert_allclose(still, 0, atol=1e-9)
    np.testing.assert_allclose(left, -right, atol=1e-6)
    np.testing.assert_allclose(up, -down, atol=1e-6)
    assert abs(np.mean(left * up)) < 2e-3
    np.testing.assert_allclose((right[0], right[-1]), (-2, 2), atol=1e-2)
    np.testing.assert_allclose((up[0], up[2000], up[-1]), (-2, 2, -2), atol=1e-2)
    # Half the distance of two pitches: no glide reaches the next colour.
    assert np.abs(contours).max() + render.PITCH_JITTER < 5 / 2


def test_a_sound_starts_and_ends_softly():
    sound = render.tone(Scene(3, 5, 1, 0, 0), NO_PHASE + 1, 0.0, 4000, 8000)
    assert np.abs(sound[[0, -1]]).max() < 0.01
