"""Classifier-free guidance through the clock (Ho & Salimans 2022, arXiv:2207.12598).

The unconditional model is the same model with the condition's clock at 1 and its tokens masked. One convention:
guided = u + scale (c - u), on log-probabilities for codes; scale 1 is no guidance.
"""

import jax
import jax.numpy as jnp


def guide(conditional: jax.Array, unconditional: jax.Array, scale: jax.Array | float) -> jax.Array:
    """Guided log-probabilities, fp32 [..., K], from two sets of logits [..., K]; not normalised."""
    c = jax.nn.log_softmax(conditional.astype(jnp.float32))
    u = jax.nn.log_softmax(unconditional.astype(jnp.float32))
    return u + scale * (c - u)
