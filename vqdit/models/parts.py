"""What the blocks of a transformer are made of, each part by its name: norms, dense layers, networks, positions."""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from vqdit.registry import choose


class RootMeanSquareNorm(nn.Module):
    """x / sqrt(mean(x^2)) with a learned scale, in fp32 inside (arXiv:1910.07467); [..., D] -> [..., D]."""

    scaled: bool = True

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        values = x.astype(jnp.float32)
        values = values * jax.lax.rsqrt(jnp.mean(values**2, axis=-1, keepdims=True) + 1e-6)
        if self.scaled:
            scale = self.param('scale', nn.initializers.ones, (x.shape[-1],))
            values = values * scale.reshape((1,) * (x.ndim - 1) + (-1,))
        return values.astype(x.dtype)


def layer_norm(x: jax.Array) -> jax.Array:
    """(x - mean) / sqrt(variance + 1e-6) over the last axis, fp32 inside; [..., D] -> [..., D] (arXiv:1607.06450).

    The variance takes a second pass: E[x^2] - E[x]^2 loses all digits where the mean is large, and on a CPU its
    gradient is several times slower.
    """
    values = x.astype(jnp.float32)
    centred = values - jnp.mean(values, axis=-1, keepdims=True)
    variance = jnp.mean(centred**2, axis=-1, keepdims=True)
    return (centred * jax.lax.rsqrt(variance + 1e-6)).astype(x.dtype)


def gelu(x: jax.Array) -> jax.Array:
    """The tanh form of GELU (arXiv:1606.08415, section 2), written with a sigmoid: 1 + tanh(u) = 2 sigmoid(2 u)."""
    return x * nn.sigmoid(np.sqrt(8 / np.pi).astype(x.dtype) * (x + 0.044715 * x**3))


def zero_dense(size: int, dtype: jnp.dtype, name: str | None = None) -> nn.Module:
    return nn.Dense(size, kernel_init=nn.initializers.zeros, dtype=dtype, name=name)


Norm = Callable[[jax.Array], jax.Array]
NORMS: Mapping[str, Callable[[str | None], Norm]] = {
    'none': lambda name: lambda x: x,
    'layer': lambda name: layer_norm,
    'rms': lambda name: RootMeanSquareNorm(scaled=False, name=name),
    'scaled_rms': lambda name: RootMeanSquareNorm(name=name),
}
"""Given the name of the module; in `setup`, which names modules by attributes, None."""
DENSE: Mapping[str, Mapping[str, Any]] = {
    'biased': {'kernel_init': nn.initializers.xavier_uniform()},
    'plain': {'use_bias': False},
}
"""Options of the dense layers of attention and network."""
FREQUENCIES: Mapping[str, Callable[[int], np.ndarray]] = {
    'pictures': lambda count: 100.0 ** (-np.arange(count) / max(count - 1, 1)),
    'text': lambda count: 10_000.0 ** (-np.arange(count) / count),
}
"""Of rotary positions: from 1 to 1/100, as pictures have few rows; RoFormer's, from 1 to almost 1e-4."""


@dataclass(frozen=True)
class Parts:
    """The parts of a trunk. Raises UserError for an unknown name.

    Attributes:
        norm: before attention, network and head; of `NORMS`.
        query_norm: of queries and keys, each head for itself; of `NORMS`.
        dense: of `DENSE`.
        network: of `NETWORKS`.
        modulation: of `MODULATIONS`.
        positions: of `POSITIONS`.
        frequencies: of rotary positions; of `FREQUENCIES`.
    """

    norm: str = 'layer'
    query_norm: str = 'none'
    dense: str = 'biased'
    network: str = 'gelu'
    modulation: str = 'own'
    positions: str = 'table'
    frequencies: str = 'pictures'

    def __post_init__(self):
        known = {'norm': NORMS, 'query_norm': NORMS, 'dense': DENSE, 'network': NETWORKS, 'modulation': MODULATIONS,
                 'positions': POSITIONS, 'frequencies': FREQUENCIES}
        for field in fields(self):
            choose(known[field.name], getattr(self, field.name), f'the {field.name} of the blocks')


class Gelu(nn.Module):
    """out(gelu(up(x))); [B, N, D] -> [B, N, D]."""

    hidden: int
    dense: str = 'biased'
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        options = {'dtype': self.dtype, **DENSE[self.dense]}
        hidden = gelu(nn.Dense(self.hidden, name='up', **options)(x))
        return nn.Dense(x.shape[-1], name='out', **options)(hidden)


class SwiGLU(nn.Module):
    """out(silu(gate(x)) * up(x)) (Shazeer 2020, arXiv:2002.05202); [B, N, D] -> [B, N, D]."""

    hidden: int
    dense: str = 'plain'
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        options = {'dtype': self.dtype, **DENSE[self.dense]}
        gate, up = jnp.split(nn.Dense(2 * self.hidden, name='gate_up', **options)(x), 2, axis=-1)
        return nn.Dense(x.shape[-1], name='out', **options)(nn.silu(gate) * up)


NETWORKS: Mapping[str, Callable[..., nn.Module]] = {'gelu': Gelu, 'swiglu': SwiGLU}
HIDDEN: Mapping[str, float] = {'gelu': 4, 'swiglu': 8 / 3}
"""Hidden width of each network over the width, so that all have as many weights."""
MODULATIONS: Mapping[str, int] = {'own': 6, 'own_scales': 4, 'shared': 6}
"""How many vectors modulate a block: by a layer of its own (adaLN-Zero, arXiv:2212.09748), the same without shifts
(LightningDiT), or one for all blocks and a table of its own (adaLN-single, PixArt-alpha, arXiv:2310.00426)."""
POSITIONS: Mapping[str, str] = {
    'table': 'sines and cosines that are added to the tokens', 'rotary': 'queries and keys that are turned',
    'both': 'both'}
PARTS: Mapping[str, Callable[..., Parts]] = {
    'published': Parts,
    'modern': functools.partial(Parts, norm='rms', query_norm='scaled_rms', dense='plain', network='swiglu',
                                modulation='shared', positions='rotary'),
    'lightning': functools.partial(Parts, norm='scaled_rms', network='swiglu', positions='both', frequencies='text'),
}
"""Of the published image DiT; of the multimodal DiT; of LightningDiT (Yao et al. 2025, arXiv:2501.01423), as it was
published: without a norm of queries. What is given replaces single parts."""
