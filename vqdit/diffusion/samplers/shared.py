"""What the samplers of codes share: a key for every sample, proposals of a denoiser, and what stands at the start.

Roles, given codes and keys are arrays, so that every task runs the same compiled program. The key of a sample is that
of its global index: the same samples on one device or many, in any batch.
"""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp

from vqdit.diffusion.categorical import draw_codes
from vqdit.diffusion.clock import GIVEN
from vqdit.tokenizers.spec import TokenLayout


def sample_keys(key: jax.Array, indices: jax.Array) -> jax.Array:
    """One key per global sample index, keys [B]."""
    return jax.vmap(lambda index: jax.random.fold_in(key, index))(indices)


def split_each(keys: jax.Array, count: int) -> list[jax.Array]:
    """Splits every key of `keys [B]` into `count`; a list of `count` arrays of keys [B]."""
    split = jax.vmap(lambda key: jax.random.split(key, count))(keys)
    return [split[:, i] for i in range(count)]


def all_masked(codes: jax.Array, roles: jax.Array, layout: TokenLayout) -> jax.Array:
    """`codes int32 [B, N]` where they are given, masks elsewhere."""
    return jnp.where(roles == GIVEN, codes, jnp.asarray(layout.mask_ids)[None])


def propose(keys: jax.Array, logits: Mapping[str, jax.Array], layout: TokenLayout, temperature: float) -> jax.Array:
    """Draws codes int32 [B, N] for every token."""
    codes = {}
    for number, (name, values) in enumerate(logits.items()):
        folded = jax.vmap(lambda key, number=number: jax.random.fold_in(key, number))(keys)
        codes[name] = jax.vmap(lambda key, row: draw_codes(key, row, temperature))(folded, values)
    return layout.join(codes)


def per_token(logits: Mapping[str, jax.Array], layout: TokenLayout,
              number: Callable[[jax.Array], jax.Array]) -> jax.Array:
    """`number` of the log-probabilities of every token: [B, n, K] -> [B, n], joined to fp32 [B, N]."""
    return layout.join({name: number(jax.nn.log_softmax(values.astype(jnp.float32)))
                        for name, values in logits.items()})


def log_probability_of(codes: jax.Array, logits: Mapping[str, jax.Array], layout: TokenLayout) -> jax.Array:
    """The log-probabilities fp32 [B, N] of `codes int32 [B, N]`."""
    parts = layout.split(codes)
    return layout.join({name: jnp.take_along_axis(jax.nn.log_softmax(values.astype(jnp.float32)),
                                                  parts[name][..., None], axis=-1)[..., 0]
                        for name, values in logits.items()})


def entropy(log_probabilities: jax.Array) -> jax.Array:
    """Entropies in nats [...] of [..., K]."""
    finite = jnp.where(log_probabilities > -jnp.inf, log_probabilities, 0.0)
    return -jnp.sum(jnp.exp(log_probabilities) * finite, axis=-1)


def highest(score: jax.Array, count: jax.Array, stages: jax.Array | None = None) -> jax.Array:
    """bool [B, N]: the `count [B]` highest entries of each row of `score [B, N]`; the first one wins a tie.

    With `stages int32 [B, N]`, those of a lower stage come before all of a higher one.
    """
    stages = jnp.zeros(score.shape, jnp.int32) if stages is None else stages
    rank = jnp.argsort(jnp.lexsort((-score, stages), axis=1), axis=1)
    return rank < count[:, None]
