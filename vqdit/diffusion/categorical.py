"""The absorbing categorical process: every token is kept with probability alpha(t), else replaced by the mask.

With the kept probability alpha, for a token x and its noisy value z (Austin et al. 2021, arXiv:2107.03006; Sahoo et
al. 2024, arXiv:2406.07524; Shi et al. 2024, arXiv:2406.04329):

    (1)  q(z_t | x) = alpha(t) [z_t = x] + (1 - alpha(t)) [z_t = mask]
    (2)  q(z_s | z_t, x), s < t: a token that is not masked stays; a masked one becomes x with probability
         (alpha(s) - alpha(t)) / (1 - alpha(t)), else stays masked
    (3)  -log p(x) <= E_t sum over masked tokens of w(t) (-log p(x | z_t)),  w(t) = -alpha'(t) / (1 - alpha(t))

The denoiser is the plain posterior p(x | z_t). (3) is exact when it is: the integral over t is then -log p(x).
"""

import math
from dataclasses import dataclass, field

import chex
import jax
import jax.numpy as jnp

from vqdit.diffusion.schedules import Linear, Schedule

# Below this noise level the weight of (3) is held constant: no token is masked there but once in a thousand draws.
SMALLEST_TIME = 1e-3


@dataclass(frozen=True)
class Absorbing:
    """Equations (1)-(3). Codes are int32 [B, N], the clock fp32 [B, N], mask ids int32 [N]."""

    schedule: Schedule = field(default_factory=Linear)

    def prior(self, mask_ids: jax.Array, batch: int) -> jax.Array:
        """All tokens masked, int32 [batch, N]."""
        return jnp.broadcast_to(jnp.asarray(mask_ids)[None], (batch, len(mask_ids)))

    def corrupt(self, key: jax.Array, codes: jax.Array, clock: jax.Array, mask_ids: jax.Array) -> jax.Array:
        """Draws from (1), every token at its own noise level; int32 [B, N]."""
        chex.assert_equal_shape([codes, clock])
        # The uniform draw is in [0, 1): clock 0 keeps every token, clock 1 none.
        kept = jax.random.uniform(key, codes.shape) < self.schedule.alpha(clock)
        return jnp.where(kept, codes, jnp.asarray(mask_ids)[None])

    def weight(self, clock: jax.Array) -> jax.Array:
        """w(t) of (3), fp32 [B, N]."""
        t = jnp.maximum(clock, SMALLEST_TIME)
        return -self.schedule.slope(t) / (1.0 - self.schedule.alpha(t))

    def loss(self, logits: jax.Array, codes: jax.Array, noisy: jax.Array, clock: jax.Array,
             mask_id: int) -> jax.Array:
        """The integrand of (3) in nats, fp32 [B, N]; zero where a token is not masked.

        Args:
            logits: fp32 [B, N, K], the plain denoiser.
        """
        chex.assert_equal_shape([codes, noisy, clock])
        log_probabilities = jax.nn.log_softmax(logits.astype(jnp.float32))
        picked = jnp.take_along_axis(log_probabilities, codes[..., None], axis=-1)[..., 0]
        return jnp.where(noisy == mask_id, -self.weight(clock) * picked, 0.0)

    def reveal_probability(self, t: jax.Array, s: jax.Array) -> jax.Array:
        """The probability in (2) that a token masked at t is revealed by s <= t."""
        return (self.schedule.alpha(s) - self.schedule.alpha(t)) / jnp.maximum(1.0 - self.schedule.alpha(t), 1e-12)

    def step(self, key: jax.Array, noisy: jax.Array, proposal: jax.Array, t: jax.Array, s: jax.Array,
             mask_ids: jax.Array) -> jax.Array:
        """Draws from (2) with x replaced by `proposal int32 [B, N]`, a draw from the denoiser; int32 [B, N]."""
        revealed = jax.random.uniform(key, noisy.shape) < self.reveal_probability(t, s)
        return jnp.where((noisy == jnp.asarray(mask_ids)[None]) & revealed, proposal, noisy)


def draw_codes(key: jax.Array, logits: jax.Array, temperature: float = 1.0) -> jax.Array:
    """Draws codes int32 [...] from logits [..., K]; a temperature of 0 takes the likeliest.

    First a group of about sqrt(K) codes is drawn, then a code in it: the same law with 2 sqrt(K) random numbers in
    place of K. Mode "high" because the default Gumbel noise cannot draw probabilities below about 1e-7.
    """
    logits = logits.astype(jnp.float32)
    if temperature == 0:
        return jnp.argmax(logits, axis=-1).astype(jnp.int32)
    size = math.isqrt(logits.shape[-1] - 1) + 1
    missing = -logits.shape[-1] % size
    padded = jnp.pad(logits / temperature, [(0, 0)] * (logits.ndim - 1) + [(0, missing)], constant_values=-jnp.inf)
    groups = padded.reshape(*logits.shape[:-1], -1, size)
    first, second = jax.random.split(key)
    group = jax.random.categorical(first, jax.nn.logsumexp(groups, axis=-1), axis=-1, mode='high')
    members = jnp.take_along_axis(groups, group[..., None, None], axis=-2)[..., 0, :]
    member = jax.random.categorical(second, members, axis=-1, mode='high')
    return (group * size + member).astype(jnp.int32)
