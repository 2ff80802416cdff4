"""What a network may predict, and how every prediction becomes any other.

Each is a combination of the clean vector x and the noise:

    (1)  out = a x + b noise,   z = alpha x + sigma noise
    (2)  x = (b z - sigma out) / d,   noise = (alpha out - a z) / d,   d = alpha b - sigma a

Where d is zero or infinite the network's answer says nothing: at a noise level of 0 then x = z, at 1 x is the mean of
the data, taken as 0.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from vqdit.diffusion.gaussian.paths import Path, slopes

Prediction = Callable[[Path, jax.Array], tuple[jax.Array, jax.Array]]
"""The coefficients a and b of (1) as a function of the path and the noise level."""


def preconditioned(deviation: float = 1.0) -> Prediction:
    """That of EDM (arXiv:2206.00364, section 5) for data of a standard deviation: x = skip z + size out, with
    skip = alpha deviation^2 / V, size = sigma deviation / sqrt(V) and V = (alpha deviation)^2 + sigma^2.

    The answer has variance 1 at every noise level, and its error is enlarged as little as can be.
    """
    def coefficients(path: Path, t: jax.Array) -> tuple[jax.Array, jax.Array]:
        alpha, sigma = path.alpha(t), path.sigma(t)
        root = jnp.sqrt((alpha * deviation) ** 2 + sigma**2)
        return sigma / (deviation * root), -alpha * deviation / root
    return coefficients


PREDICTIONS: dict[str, Prediction] = {
    'clean': lambda path, t: (jnp.ones_like(t), jnp.zeros_like(t)),
    'noise': lambda path, t: (jnp.zeros_like(t), jnp.ones_like(t)),
    # arXiv:2202.00512
    'v': lambda path, t: (-path.sigma(t), path.alpha(t)),
    # d z / dt along the path
    'velocity': slopes,
    # the gradient of log q(z_t)
    'score': lambda path, t: (jnp.zeros_like(t), -1.0 / jnp.maximum(path.sigma(t), 1e-12)),
    'preconditioned': preconditioned(),
}


def spread(t: jax.Array, like: jax.Array) -> jax.Array:
    """Noise levels with axes of size 1 added at the end, to the rank of `like`."""
    t = jnp.asarray(t, like.dtype)
    return t.reshape(t.shape + (1,) * (like.ndim - t.ndim))


def clean_and_noise(prediction: Prediction, out: jax.Array, z: jax.Array, path: Path,
                    t: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(2): the clean vectors and the noise, each [..., C], that `out [..., C]` stands for; `t [...]` or a scalar."""
    t = spread(t, z)
    (a, b), alpha, sigma = prediction(path, t), path.alpha(t), path.sigma(t)
    d = alpha * b - sigma * a
    known = jnp.isfinite(d) & (d != 0)
    a, b, d = (jnp.where(known, x, 1.0) for x in (a, b, d))
    at_zero = jnp.where(alpha > 0, z / jnp.where(alpha > 0, alpha, 1.0), 0.0)
    at_one = jnp.where(sigma > 0, z / jnp.where(sigma > 0, sigma, 1.0), 0.0)
    clean = jnp.where(known, (b * z - sigma * out) / d, jnp.where(sigma > 0, 0.0, at_zero))
    return clean, jnp.where(known, (alpha * out - a * z) / d, jnp.where(sigma > 0, at_one, 0.0))


def predicted(prediction: Prediction, clean: jax.Array, noise: jax.Array, path: Path, t: jax.Array) -> jax.Array:
    """(1): what a perfect network would answer, [..., C]."""
    a, b = prediction(path, spread(t, clean))
    return a * clean + b * noise


def codes_to_clean(logits: jax.Array, codebook: jax.Array) -> jax.Array:
    """The mean code vector [..., C] of `logits [..., K]` over `codebook [K, C]`: a prediction of x from codes."""
    return jnp.dot(jax.nn.softmax(logits), codebook, precision=jax.lax.Precision.HIGHEST)
