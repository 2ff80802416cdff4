"""What a network may predict, and how every prediction becomes any other.

Each is a combination of the clean vector x and the noise:

    (1)  out = a x + b noise,   z = alpha x + sigma noise
    (2)  x = (b z - sigma out) / d,   noise = (alpha out - a z) / d,   d = alpha b - sigma a

Where d is zero the network's answer says nothing: at a noise level of 0 then x = z, at 1 x is the mean of the data,
taken as 0.
"""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from vqdit.diffusion.gaussian.paths import Path, slopes

Coefficients = Callable[[Path, jax.Array], tuple[jax.Array, jax.Array]]


@dataclass(frozen=True)
class Prediction:
    """The coefficients a and b of (1) as functions of the path and the noise level."""

    coefficients: Coefficients


PREDICTIONS = {
    'clean': Prediction(lambda path, t: (jnp.ones_like(t), jnp.zeros_like(t))),
    'noise': Prediction(lambda path, t: (jnp.zeros_like(t), jnp.ones_like(t))),
    # arXiv:2202.00512
    'v': Prediction(lambda path, t: (-path.sigma(t), path.alpha(t))),
    # d z / dt along the path
    'velocity': Prediction(slopes),
    # the gradient of log q(z_t)
    'score': Prediction(lambda path, t: (jnp.zeros_like(t), -1.0 / jnp.maximum(path.sigma(t), 1e-12))),
}


def spread(t: jax.Array, like: jax.Array) -> jax.Array:
    """Noise levels with axes of size 1 added at the end, to the rank of `like`."""
    t = jnp.asarray(t, like.dtype)
    return t.reshape(t.shape + (1,) * (like.ndim - t.ndim))


def clean_and_noise(prediction: Prediction, out: jax.Array, z: jax.Array, path: Path,
                    t: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(2): the clean vectors and the noise, each [..., C], that `out [..., C]` stands for; `t [...]` or a scalar."""
    t = spread(t, z)
    (a, b), alpha, sigma = prediction.coefficients(path, t), path.alpha(t), path.sigma(t)
    d = alpha * b - sigma * a
    known = d != 0
    d = jnp.where(known, d, 1.0)
    at_zero = jnp.where(alpha > 0, z / jnp.where(alpha > 0, alpha, 1.0), 0.0)
    at_one = jnp.where(sigma > 0, z / jnp.where(sigma > 0, sigma, 1.0), 0.0)
    clean = jnp.where(known, (b * z - sigma * out) / d, jnp.where(sigma > 0, 0.0, at_zero))
    return clean, jnp.where(known, (alpha * out - a * z) / d, jnp.where(sigma > 0, at_one, 0.0))


def predicted(prediction: Prediction, clean: jax.Array, noise: jax.Array, path: Path, t: jax.Array) -> jax.Array:
    """(1): what a perfect network would answer, [..., C]."""
    a, b = prediction.coefficients(path, spread(t, clean))
    return a * clean + b * noise


def codes_to_clean(logits: jax.Array, codebook: jax.Array) -> jax.Array:
    """The mean code vector [..., C] of `logits [..., K]` over `codebook [K, C]`: a prediction of x from codes."""
    return jnp.dot(jax.nn.softmax(logits), codebook, precision=jax.lax.Precision.HIGHEST)
