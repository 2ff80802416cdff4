"""Draws of codes from logits that reach far into the tail."""

import math

import jax
import jax.numpy as jnp


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
