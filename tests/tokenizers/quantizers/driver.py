"""Compiled calls of a quantizer, each once for every quantizer and shape."""

import functools

import jax
import numpy as np

QUICK = {'xla_backend_optimization_level': 0}
"""Half the time to compile what runs for a moment."""


@functools.partial(jax.jit, static_argnums=0, compiler_options=QUICK)
def train(quantizer, variables, z, key, mask=None):
    """A training call: what it gives, and the variables after it."""
    out, changed = quantizer.apply(variables, z, train=True, mask=mask, key=key, mutable=['codebook'])
    return out, {**variables, **changed}


@functools.partial(jax.jit, static_argnums=0)
def quantize(quantizer, variables, z, mask=None):
    return quantizer.apply(variables, z, mask=mask)


@functools.partial(jax.jit, static_argnums=0)
def lookup(quantizer, variables, codes):
    return quantizer.apply(variables, codes, method='lookup')


@functools.partial(jax.jit, static_argnums=(0, 2), compiler_options=QUICK)
def init(quantizer, key, shape):
    return quantizer.init(key, jax.numpy.zeros(shape))


def normal(*shape, seed=0, scale=1.0):
    """Normal numbers fp32."""
    return np.asarray(np.random.default_rng(seed).normal(size=shape) * scale, np.float32)
