"""PSNR and SSIM against values worked out by hand and against the equation, place by place."""

import numpy as np
import pytest

from vqdit.evaluation.image import psnr, ssim


def pictures(count=2, side=13, channels=3):
    return np.random.default_rng(0).integers(0, 256, (count, side, side, channels), np.uint8)


def test_psnr_by_hand():
    dark, less = np.zeros((2, 4, 4, 3), np.uint8), np.zeros((2, 4, 4, 3), np.uint8)
    less[0] += 1
    less[1, 0, 0] = 255  # one pixel of sixteen: error 255^2 / 16
    np.testing.assert_allclose(psnr(dark, less), [20 * np.log10(255), 10 * np.log10(16)])
    assert psnr(dark, dark)[0] == 100


def test_psnr_does_not_wrap_around():
    low, high = np.zeros((1, 2, 2, 1), np.uint8), np.full((1, 2, 2, 1), 255, np.uint8)
    assert psnr(low, high)[0] == psnr(high, low)[0] == 0


def test_equal_pictures_have_ssim_one_and_films_psnr():
    np.testing.assert_allclose(ssim(pictures(), pictures()), 1)
    assert psnr(pictures()[None], pictures()[None]).shape == (1,)


def test_ssim_of_flat_pictures_is_the_luminance_term():
    a, b = 100, 150
    value = ssim(np.full((1, 11, 11, 1), a, np.uint8), np.full((1, 11, 11, 1), b, np.uint8))
    constant = (0.01 * 255) ** 2
    assert value[0] == pytest.approx((2 * a * b + constant) / (a * a + b * b + constant))


def test_ssim_is_the_equation_at_every_place():
    x, y = pictures(), np.random.default_rng(1).integers(0, 256, (2, 13, 13, 3), np.uint8)
    line = np.exp(-0.5 * (np.arange(-5, 6) / 1.5) ** 2)
    weights = np.outer(line, line) / np.outer(line, line).sum()
    wanted = np.zeros(2)
    for b, row, column, channel in np.ndindex(2, 3, 3, 3):
        one, two = (p[b, row:row + 11, column:column + 11, channel].astype(float) for p in (x, y))
        mean, other = (weights * one).sum(), (weights * two).sum()
        variance, rival = (weights * (one - mean) ** 2).sum(), (weights * (two - other) ** 2).sum()
        shared = (weights * (one - mean) * (two - other)).sum()
        wanted[b] += ((2 * mean * other + 6.5025) / (mean**2 + other**2 + 6.5025)
                      * (2 * shared + 58.5225) / (variance + rival + 58.5225)) / 27
    np.testing.assert_allclose(ssim(x, y), wanted, rtol=1e-9)
