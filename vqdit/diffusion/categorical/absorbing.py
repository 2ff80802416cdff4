"""The absorbing categorical process: every token is kept with probability alpha(t), else replaced by the mask.

With the kept probability alpha, for a token x and its noisy value z (Austin et al. 2021, arXiv:2107.03006; Sahoo et
al. 2024, arXiv:2406.07524; Shi et al. 2024, arXiv:2406.04329):

    (1)  q(z_t | x) = alpha(t) [z_t = x] + (1 - alpha(t)) [z_t = mask]
    (2)  q(z_s | z_t, x), s < t: a token that is not masked stays; a masked one becomes x with probability
         (alpha(s) - alpha(t)) / (1 - alpha(t)), else stays masked
    (3)  -log p(x) <= E_t sum over masked tokens of w(t) (-log p(x | z_t)),  w(t) = -alpha'(t) / (1 - alpha(t))

The denoiser is the plain posterior p(x | z_t). (3) is exact when it is: the integral over t is then -log p(x).
"""

from dataclasses import dataclass, field

import chex
import jax
import jax.numpy as jnp

from vqdit.diffusion.schedules import Linear, Schedule, check_ends, kept_between

SMALLEST_TIME = 1e-3
"""Below this noise level the weight of (3) is held, which spares the gradient rare and huge terms.

No token is masked there but once in a thousand draws; the integral of (3) loses at most 1 part in 2000.
"""


@dataclass(frozen=True)
class Absorbing:
    """Equations (1)-(3). Codes are int32 [B, N], the clock fp32 [B, N], mask ids int32 [N].

    `smallest_time` 0 makes the integrand of (3) exact at every noise level above 0. Raises UserError for a schedule
    that does not run from 1 to 0.
    """

    schedule: Schedule = field(default_factory=Linear)
    smallest_time: float = SMALLEST_TIME

    def __post_init__(self):
        check_ends(self.schedule.alpha)

    def prior(self, key: jax.Array, mask_ids: jax.Array, batch: int) -> jax.Array:
        """All tokens masked, int32 [batch, N]; the key is not needed."""
        del key
        return jnp.broadcast_to(jnp.asarray(mask_ids)[None], (batch, len(mask_ids)))

    def corrupt(self, key: jax.Array, codes: jax.Array, clock: jax.Array, mask_ids: jax.Array) -> jax.Array:
        """Draws from (1), every token at its own noise level; int32 [B, N]."""
        chex.assert_equal_shape([codes, clock])
        return self.forward(key, codes, jnp.zeros_like(clock), clock, mask_ids)

    def forward(self, key: jax.Array, noisy: jax.Array, s: jax.Array, t: jax.Array, mask_ids: jax.Array) -> jax.Array:
        """Masks every token that is left at s with the chance that it is not at t >= s; int32 [B, N]."""
        # The uniform draw is in [0, 1): clock 0 keeps every token, clock 1 none.
        kept = jax.random.uniform(key, noisy.shape) < kept_between(self.schedule, s, t)
        return jnp.where(kept, noisy, jnp.asarray(mask_ids)[None])

    def weight(self, clock: jax.Array) -> jax.Array:
        """w(t) of (3), fp32 [B, N]."""
        t = jnp.maximum(clock, self.smallest_time)
        return -self.schedule.slope(t) / (1.0 - self.schedule.alpha(t))

    def loss(self, logits: jax.Array, codes: jax.Array, noisy: jax.Array, clock: jax.Array,
             mask_id: int) -> jax.Array:
        """The integrand of (3) in nats, fp32 [B, N]; zero where a token is not masked.

        Args:
            logits: fp32 [B, N, K], the plain denoiser.
        """
        chex.assert_equal_shape([codes, noisy, clock])
        return jnp.where(noisy == mask_id, -self.weight(clock) * _log_probability(logits, codes), 0.0)

    def step_loss(self, logits: jax.Array, codes: jax.Array, noisy: jax.Array, t: jax.Array, s: jax.Array,
                  mask_id: int) -> jax.Array:
        """The divergence of (2) from its mean over the denoiser in nats, [B, N]: the chance to be revealed in place
        of w(t)."""
        hidden = -self.reveal_probability(t, s) * _log_probability(logits, codes)
        return jnp.where(noisy == mask_id, hidden, 0.0)

    def rates(self, logits: jax.Array, noisy: jax.Array, t: jax.Array, mask_id: int) -> jax.Array:
        """w(t) p(x | z_t) of a masked token, zero of the others; fp32 [B, N, K]."""
        rates = self.weight(t)[..., None] * jax.nn.softmax(logits)
        return jnp.where((noisy == mask_id)[..., None], rates, 0.0)

    def likelihood(self, noisy: jax.Array, clock: jax.Array, num_codes: int) -> jax.Array:
        """(1) for every x, [..., K]."""
        kept = self.schedule.alpha(clock)[..., None]
        row = kept * jax.nn.one_hot(noisy, num_codes, dtype=kept.dtype)
        return jnp.where((noisy == num_codes)[..., None], 1.0 - kept, row)

    def reveal_probability(self, t: jax.Array, s: jax.Array) -> jax.Array:
        """The probability in (2) that a token masked at t is revealed by s <= t."""
        late = self.schedule.alpha(t)
        return jnp.clip((self.schedule.alpha(s) - late) / jnp.maximum(1.0 - late, 1e-12), 0.0, 1.0)

    def step(self, key: jax.Array, noisy: jax.Array, proposal: jax.Array, t: jax.Array, s: jax.Array,
             mask_ids: jax.Array) -> jax.Array:
        """Draws from (2) with x replaced by `proposal int32 [B, N]`, a draw from the denoiser; int32 [B, N]."""
        return jnp.where(self.revealed(key, noisy, t, s, mask_ids), proposal, noisy)

    def revealed(self, key: jax.Array, noisy: jax.Array, t: jax.Array, s: jax.Array, mask_ids: jax.Array) -> jax.Array:
        """Draws which tokens (2) reveals, bool [B, N]; the denoiser has no say in it."""
        chance = jax.random.uniform(key, noisy.shape) < self.reveal_probability(t, s)
        return (noisy == jnp.asarray(mask_ids)[None]) & chance


def _log_probability(logits: jax.Array, codes: jax.Array) -> jax.Array:
    log_probabilities = jax.nn.log_softmax(logits.astype(jnp.promote_types(logits.dtype, jnp.float32)))
    return jnp.take_along_axis(log_probabilities, codes[..., None], axis=-1)[..., 0]
