"""The Gaussian process over vectors: code vectors, latents before quantization, or plain data.

    (1)  q(z_t | x) = N(alpha x, sigma^2)
    (2)  q(z_s | z_t, x), s < t: with a = alpha(t) / alpha(s) and v = sigma(t)^2 - a^2 sigma(s)^2, normal with mean
         (a sigma(s)^2 z_t + alpha(s) v x) / sigma(t)^2 and variance v sigma(s)^2 / sigma(t)^2
    (3)  -log p(x) <= prior and decoder terms + integral over t of E w(t) |noise - predicted noise|^2,
         w(t) = - (d/dt log snr) / 2   (Kingma et al. 2021, arXiv:2107.00630)
"""

from dataclasses import dataclass, field

import chex
import jax
import jax.numpy as jnp

from vqdit.diffusion.gaussian.paths import Flow, Path, time_at
from vqdit.diffusion.gaussian.predictions import PREDICTIONS, Prediction, clean_and_noise, predicted, spread
from vqdit.diffusion.gaussian.weightings import Weighting, velocity

LARGEST_LOG_SNR = 20.0
"""Where |log snr| is larger, errors are weighed as they are here: some weights have no bound."""


@dataclass(frozen=True)
class Gaussian:
    """Equations (1)-(3) for vectors [B, N, C] under a clock [B, N]; `prediction` is what the network answers."""

    path: Path = field(default_factory=Flow)
    prediction: Prediction = PREDICTIONS['velocity']
    weighting: Weighting = velocity

    def prior(self, key: jax.Array, shape: tuple[int, ...], t: float | jax.Array = 1.0) -> jax.Array:
        """Noise at level `t`, where a sampler begins, fp32 of `shape`; what alpha(t) leaves of the data is ignored."""
        return self.path.sigma(jnp.asarray(t)) * jax.random.normal(key, shape)

    def corrupt(self, key: jax.Array, clean: jax.Array, clock: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Draws from (1), every token at its own noise level; z and the noise in it, each [B, N, C]."""
        chex.assert_equal_shape_prefix([clean, clock], 2)
        noise = jax.random.normal(key, clean.shape, clean.dtype)
        t = spread(clock, clean)
        return self.path.alpha(t) * clean + self.path.sigma(t) * noise, noise

    def clean(self, out: jax.Array, z: jax.Array, t: jax.Array) -> jax.Array:
        """The clean vectors [B, N, C] of the network's answer `out`."""
        return clean_and_noise(self.prediction, out, z, self.path, t)[0]

    def loss(self, out: jax.Array, clean: jax.Array, noise: jax.Array, clock: jax.Array) -> jax.Array:
        """The weighted squared error of the noise, [B, N], summed over the channels; the same for all predictions.

        It is alpha / d times the error of `out`, with d of `predictions`: nothing is divided by what may be zero.
        """
        ends = (time_at(self.path, jnp.asarray(level)) for level in (LARGEST_LOG_SNR, -LARGEST_LOG_SNR))
        t = jnp.clip(clock, *ends)
        a, b = self.prediction(self.path, t)
        alpha, sigma = self.path.alpha(t), self.path.sigma(t)
        share = alpha / (alpha * b - sigma * a)
        error = jnp.sum((predicted(self.prediction, clean, noise, self.path, t) - out) ** 2, axis=-1)
        return self.weighting(self.path, t) * share**2 * error

    def step(self, key: jax.Array, z: jax.Array, clean: jax.Array, t: jax.Array, s: jax.Array) -> jax.Array:
        """Draws from (2), [B, N, C], with x = `clean`."""
        mean, variance = posterior(self.path, z, clean, t, s)
        return mean + jnp.sqrt(variance) * jax.random.normal(key, z.shape, z.dtype)


def posterior(path: Path, z: jax.Array, clean: jax.Array, t: jax.Array, s: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Mean [B, N, C] and variance [B, N, 1] of (2)."""
    t, s = spread(t, z), spread(s, z)
    ratio, late, early = path.alpha(t) / path.alpha(s), path.sigma(t) ** 2, path.sigma(s) ** 2
    between = jnp.maximum(late - ratio**2 * early, 0.0)
    return (ratio * early * z + path.alpha(s) * between * clean) / late, between * early / late
