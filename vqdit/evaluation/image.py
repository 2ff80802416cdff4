"""Pictures against their originals: PSNR and SSIM."""

import numpy as np

_SIGMA, _RADIUS = 1.5, 5  # a Gaussian window of 11 pixels
_STABLE = ((0.01 * 255) ** 2, (0.03 * 255) ** 2)


def psnr(pictures: np.ndarray, originals: np.ndarray) -> np.ndarray:
    """Peak signal to noise ratio in dB, float64 [B], of uint8 [B, ...]; equal pictures count as 100 dB."""
    axes = tuple(range(1, pictures.ndim))
    error = np.mean((pictures.astype(np.float64) - originals) ** 2, axis=axes)
    return 10 * np.log10(255**2 / np.maximum(error, 255**2 * 1e-10))


def ssim(pictures: np.ndarray, originals: np.ndarray) -> np.ndarray:
    """Structural similarity, float64 [B], of uint8 [B, H, W, C] with sides of 11 or more.

    Means, variances and covariance under a Gaussian window that lies wholly inside the picture
    (Wang et al. 2004, doi:10.1109/TIP.2003.819861, eq. 13), averaged over places and channels.
    """
    x, y = pictures.astype(np.float64), originals.astype(np.float64)
    mean_x, mean_y = _window(x), _window(y)
    variances = _window(x * x) - mean_x**2 + _window(y * y) - mean_y**2
    covariance = _window(x * y) - mean_x * mean_y
    luminance = (2 * mean_x * mean_y + _STABLE[0]) / (mean_x**2 + mean_y**2 + _STABLE[0])
    structure = (2 * covariance + _STABLE[1]) / (variances + _STABLE[1])
    return np.mean(luminance * structure, axis=(1, 2, 3))


def _window(values: np.ndarray) -> np.ndarray:
    from scipy.ndimage import gaussian_filter1d  # Takes half a second to import.
    for axis in (1, 2):
        values = gaussian_filter1d(values, _SIGMA, axis=axis, radius=_RADIUS)
    return values[:, _RADIUS:-_RADIUS, _RADIUS:-_RADIUS]
