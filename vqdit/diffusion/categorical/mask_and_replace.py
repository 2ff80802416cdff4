"""Codes are replaced by other codes, and masked, independently of each other (VQ-Diffusion, arXiv:2111.14822).

With m(t) the chance that a token is not yet masked, M(t|s) the kernel that replaces codes, and [..] an indicator:

    (1)  q(z_t | x) = m(t) M(t|0)[x, z_t]  for a code z_t,   1 - m(t)  for the mask
    (2)  q(z_s | z_t = mask, x): the mask with probability (1 - m(s)) / (1 - m(t)), else a code from M(s|0)[x, .]
         q(z_s | z_t, x) for a code z_t: M(s|0)[x, z_s] M(t|s)[z_s, z_t] / M(t|0)[x, z_t]
    (3)  p(z_s | z_t) = sum_x p(x | z_t) q(z_s | z_t, x): for a code z_t this is M(t|s)[z_s, z_t] (u M(s|0))[z_s] with
         u(x) = p(x | z_t) / M(t|0)[x, z_t], which is the leave-one-out denoiser but for a factor
    (4)  -log p(x) <= integral over t of E sum over tokens of
             masked:  -m'(t) / (1 - m(t)) KL(M(t|0)[x, .] || p(. | z_t) M(t|0))
             a code:  sum over j != z_t of G(t)[j, z_t] D(M(t|0)[x, j] / M(t|0)[x, z_t] || (u M(t|0))[j]),
         D(a || b) = a log(a / b) - a + b, the divergence of two Poisson rates: the path measures of two jump processes.

Without replacement this is `Absorbing`; without masking and with the uniform kernel (4) is the bound of UDLM
(arXiv:2412.10193), written with the plain denoiser. (4) is exact for a perfect denoiser, as in `Absorbing`.
"""

from dataclasses import dataclass

import chex
import jax
import jax.numpy as jnp
from jax.scipy.special import kl_div

from vqdit.diffusion.categorical.absorbing import SMALLEST_TIME
from vqdit.diffusion.categorical.kernels import Kernel, Uniform
from vqdit.diffusion.schedules import Constant, Schedule, check_ends, kept_between

LARGEST_TIME = 1.0 - 1e-3
"""Above this noise level the integrand of (4) is held: its rates grow without bound there, what they weigh fades."""


def _softmax(logits: jax.Array) -> jax.Array:
    return jax.nn.softmax(logits.astype(jnp.promote_types(logits.dtype, jnp.float32)))


def _divide(numerator: jax.Array, denominator: jax.Array) -> jax.Array:
    """The quotient, zero where the denominator is."""
    return jnp.where(denominator > 0, numerator, 0.0) / jnp.where(denominator > 0, denominator, 1.0)


@dataclass(frozen=True)
class MaskAndReplace:
    """Equations (1)-(4); `masking` is m(t), and (4) is held outside of the noise levels `held`.

    Raises UserError unless all of x is left at noise level 0 and nothing at 1.
    """

    masking: Schedule
    replacing: Kernel
    held: tuple[float, float] = (SMALLEST_TIME, LARGEST_TIME)

    def __post_init__(self):
        check_ends(lambda t: self.masking.alpha(t) * self.replacing.kept(t))

    def marginal(self, codes: jax.Array, t: jax.Array, num_codes: int) -> jax.Array:
        """(1), [..., K + 1] with the mask last, for `codes [...]` and `t [...]`."""
        unmasked = self.masking.alpha(t)[..., None]
        row = self.replacing.spread(_one_hot(codes, num_codes, t), jnp.zeros_like(t), t)
        return jnp.concatenate([unmasked * row, 1.0 - unmasked], axis=-1)

    def posterior(self, noisy: jax.Array, codes: jax.Array, t: jax.Array, s: jax.Array, num_codes: int) -> jax.Array:
        """(2), [..., K + 1]. A z_t that cannot come from x stays."""
        return self._backwards(noisy, _one_hot(codes, num_codes, t), t, s)

    def reverse(self, logits: jax.Array, noisy: jax.Array, t: jax.Array, s: jax.Array) -> jax.Array:
        """(3), [..., K + 1], of the plain denoiser's `logits [..., K]`."""
        return self._backwards(noisy, _softmax(logits), t, s)

    def _backwards(self, noisy: jax.Array, probabilities: jax.Array, t: jax.Array, s: jax.Array) -> jax.Array:
        """(3) of a distribution over x; (2) when that is a single x."""
        num_codes, zero = probabilities.shape[-1], jnp.zeros_like(t)
        here = _one_hot(noisy, num_codes, t)
        weights = _divide(probabilities, self.replacing.spread(here, zero, t))
        from_code = self.replacing.spread(here, s, t) * self.replacing.spread(weights, zero, s)
        total = jnp.sum(from_code, axis=-1, keepdims=True)
        from_code = jnp.where(total > 0, _divide(from_code, total), here)
        reveal = self.reveal_probability(t, s)[..., None]
        from_mask = reveal * self.replacing.spread(probabilities, zero, s)
        masked = (noisy == num_codes)[..., None]
        return jnp.concatenate([jnp.where(masked, from_mask, from_code), jnp.where(masked, 1.0 - reveal, 0.0)], axis=-1)

    def likelihood(self, noisy: jax.Array, clock: jax.Array, num_codes: int) -> jax.Array:
        """(1) for every x, [..., K]."""
        column = self.replacing.spread(_one_hot(noisy, num_codes, clock), jnp.zeros_like(clock), clock)
        unmasked = self.masking.alpha(clock)[..., None]
        return jnp.where((noisy == num_codes)[..., None], 1.0 - unmasked, unmasked * column)

    def reveal_probability(self, t: jax.Array, s: jax.Array) -> jax.Array:
        """The probability in (2) that a token masked at t is not at s <= t."""
        late = self.masking.alpha(t)
        return jnp.clip((self.masking.alpha(s) - late) / jnp.maximum(1.0 - late, 1e-12), 0.0, 1.0)

    def prior(self, key: jax.Array, mask_ids: jax.Array, batch: int) -> jax.Array:
        """Codes at noise level 1, int32 [batch, N]."""
        shape = (batch, len(mask_ids))
        return self.corrupt(key, jnp.zeros(shape, jnp.int32), jnp.ones(shape), mask_ids)

    def corrupt(self, key: jax.Array, codes: jax.Array, clock: jax.Array, mask_ids: jax.Array) -> jax.Array:
        """Draws from (1), every token at its own noise level; int32 [B, N]."""
        chex.assert_equal_shape([codes, clock])
        return self.forward(key, codes, jnp.zeros_like(clock), clock, mask_ids)

    def forward(self, key: jax.Array, noisy: jax.Array, s: jax.Array, t: jax.Array, mask_ids: jax.Array) -> jax.Array:
        """Draws z_t from q(z_t | z_s), s <= t; int32 [B, N]."""
        mask, replace = jax.random.split(key)
        s, t = (jnp.broadcast_to(level, noisy.shape) for level in (s, t))
        mask_ids = jnp.asarray(mask_ids)[None]
        masked = noisy == mask_ids
        replaced = self.replacing.draw(replace, jnp.where(masked, 0, noisy), s, t, mask_ids)
        kept = jax.random.uniform(mask, noisy.shape) < kept_between(self.masking, s, t)
        return jnp.where(kept & ~masked, replaced, mask_ids)

    def step(self, key: jax.Array, noisy: jax.Array, proposal: jax.Array, t: jax.Array, s: jax.Array,
             mask_ids: jax.Array) -> jax.Array:
        """Draws from (2) with x replaced by `proposal int32 [B, N]`: from (3), when that is drawn from p(x | z_t)."""
        reveal, replace, move = jax.random.split(key, 3)
        t, s = (jnp.broadcast_to(level, noisy.shape) for level in (t, s))
        mask_ids = jnp.asarray(mask_ids)[None]
        masked = noisy == mask_ids
        revealed = jax.random.uniform(reveal, noisy.shape) < self.reveal_probability(t, s)
        fresh = self.replacing.draw(replace, proposal, jnp.zeros_like(s), s, mask_ids)
        moved = self.replacing.bridge(move, proposal, jnp.where(masked, proposal, noisy), s, t, mask_ids)
        return jnp.where(masked, jnp.where(revealed, fresh, noisy), moved)

    def weight(self, clock: jax.Array) -> jax.Array:
        """-a'(t) / (1 - a(t)) of the chance a(t) that a token is neither masked nor replaced; fp32 [B, N]."""
        t = jnp.maximum(clock, self.held[0])
        kept = lambda level: jnp.sum(self.masking.alpha(level) * self.replacing.kept(level))
        return -jax.grad(kept)(t) / (1.0 - self.masking.alpha(t) * self.replacing.kept(t))

    def loss(self, logits: jax.Array, codes: jax.Array, noisy: jax.Array, clock: jax.Array,
             mask_id: int) -> jax.Array:
        """The integrand of (4) in nats, [B, N]; `logits [B, N, K]` of the plain denoiser."""
        chex.assert_equal_shape([codes, noisy, clock])
        probabilities, zero = _softmax(logits), jnp.zeros_like(clock)
        t = jnp.clip(clock, *self.held)
        masked = noisy == mask_id
        here = _one_hot(jnp.where(masked, codes, noisy), mask_id, t)
        truth = self.replacing.spread(_one_hot(codes, mask_id, t), zero, t)
        rates, guess = self._jumps(probabilities, here, t)
        jumps = jnp.sum(rates * kl_div(_divide(truth, jnp.sum(truth * here, axis=-1, keepdims=True)), guess), axis=-1)
        hidden = jnp.sum(kl_div(truth, self.replacing.spread(probabilities, zero, t)), axis=-1)
        return jnp.where(masked, self._reveal_rate(t) * hidden, jumps)

    def rates(self, logits: jax.Array, noisy: jax.Array, t: jax.Array, mask_id: int) -> jax.Array:
        """Of a code G(t)[j, z_t] (u M(t|0))[j], of the mask -m'(t) / (1 - m(t)) p(. | z_t) M(t|0); [B, N, K]."""
        probabilities, t = _softmax(logits), jnp.clip(t, *self.held)
        rates, guess = self._jumps(probabilities, _one_hot(noisy, mask_id, t), t)
        reveal = self._reveal_rate(t)[..., None] * self.replacing.spread(probabilities, jnp.zeros_like(t), t)
        return jnp.where((noisy == mask_id)[..., None], reveal, rates * guess)

    def _jumps(self, probabilities: jax.Array, here: jax.Array, t: jax.Array) -> tuple[jax.Array, jax.Array]:
        """G(t)[j, z_t] for j != z_t, else 0, and (u M(t|0))[j], where `here` is z_t one-hot; [B, N, K] each."""
        zero = jnp.zeros_like(t)
        column = self.replacing.spread(here, zero, t)
        guess = self.replacing.spread(_divide(probabilities, column), zero, t)
        return self.replacing.flow(here, t) * (1.0 - here), guess

    def _reveal_rate(self, t: jax.Array) -> jax.Array:
        return -self.masking.slope(t) / jnp.maximum(1.0 - self.masking.alpha(t), 1e-12)

    def step_loss(self, logits: jax.Array, codes: jax.Array, noisy: jax.Array, t: jax.Array, s: jax.Array,
                  mask_id: int) -> jax.Array:
        """KL of (2) from (3) in nats, [B, N]. Their sum over the steps bounds -log p(x)."""
        truth, guess = self.posterior(noisy, codes, t, s, mask_id), self.reverse(logits, noisy, t, s)
        return jnp.sum(kl_div(truth, guess), axis=-1)


def replace(kernel: Kernel | None = None) -> MaskAndReplace:
    """The process that replaces codes and masks none; with the uniform kernel unless another one is given."""
    return MaskAndReplace(Constant(), kernel or Uniform())


def _one_hot(codes: jax.Array, num_codes: int, like: jax.Array) -> jax.Array:
    return jax.nn.one_hot(codes, num_codes, dtype=like.dtype)
