"""The ancestral sampler of networks that learned the variances of their steps."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from vqdit.diffusion.gaussian.paths import Path
from vqdit.diffusion.gaussian.process import posterior
from vqdit.diffusion.gaussian.variance import learned_range
from vqdit.diffusion.samplers.solvers import Memory, Model, normal


@dataclass(frozen=True)
class LearnedAncestral:
    """DDPM with learned variances on any part of the steps of training (arXiv:2102.09672), as DiT samples.

    The model answers clean vectors and, behind them, the share of the variance in [-1, 1]: [..., 2 C]. The step to 0
    returns the clean vectors.
    """

    def start(self, z: jax.Array) -> Memory:
        del z

    def step(self, keys: jax.Array, model: Model, path: Path, z: jax.Array, memory: Memory, t: jax.Array,
             s: jax.Array) -> tuple[jax.Array, Memory]:
        clean, share = jnp.split(model(z, t), 2, axis=-1)
        mean, _ = posterior(path, z, clean, t, s)
        deviation = jnp.exp(0.5 * learned_range(path, share, t, s))
        noise = deviation * normal(keys, z)
        return mean + jnp.where(s > 0, noise, 0.0), memory
