"""Gaussian processes: vectors fade while noise grows."""

from vqdit.diffusion.gaussian.paths import (
    PATHS,
    Betas,
    Exploding,
    Flow,
    Path,
    PreservingLinear,
    Trigonometric,
    length_shift,
    shift_time,
    time_at,
)
from vqdit.diffusion.gaussian.predictions import PREDICTIONS, Prediction, clean_and_noise, codes_to_clean, predicted
from vqdit.diffusion.gaussian.process import Gaussian, posterior
from vqdit.diffusion.gaussian.variance import learned_range, variational_term

__all__ = ['PATHS', 'PREDICTIONS', 'Betas', 'Exploding', 'Flow', 'Gaussian', 'Path', 'Prediction', 'PreservingLinear',
           'Trigonometric', 'clean_and_noise', 'codes_to_clean', 'learned_range', 'length_shift', 'posterior',
           'predicted', 'shift_time', 'time_at', 'variational_term']
