"""Residual quantization (SoundStream, arXiv:2107.03312, algorithm 1): a level quantizes what those before left over.

The levels see detached residuals x - sum of the codes before, so that the commitment of every level reaches the
encoder, and one estimator around them all carries the decoder's gradient (Mimi, arXiv:2410.00037). A level that
subtracted vectors with a gradient through them would cancel that of the levels below.
"""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from vqdit.errors import UserError
from vqdit.tokenizers.quantizers.base import NO_CODE, Quantized, Quantizer, along_last, check_latents
from vqdit.tokenizers.quantizers.combine import Several, nth_key, numbered_metrics
from vqdit.tokenizers.quantizers.estimators import Estimator, StraightThrough
from vqdit.tokenizers.quantizers.schedule import Schedule, Scheduled


class Residual(Several, nn.Module):
    """Levels of quantizers of one dimension; the vector is the sum of theirs, the loss the mean.

    One object that stands several times in `quantizers` is one codebook for several levels. `lookup` takes codes of
    the first levels alone, and `NO_CODE` adds nothing.

    Attributes:
        dropout: share of items (of the first axis) that train with a random number of levels, from 1 on, or a function
            of the training steps taken; the codes of the others are `NO_CODE`.
        delay: steps between the starts of levels, so that no codebook starts from the residuals of one that has only
            just started from the same tokens, which are near zero.
        estimator: around all levels. For one that teaches codebooks, give the levels `CodeOnly()`.

    Raises UserError for levels of different dimensions, and when it is applied for levels that do not refine.
    """

    quantizers: tuple[Quantizer, ...]
    dropout: Schedule = 0.0
    delay: int = 1
    estimator: Estimator = StraightThrough()

    def __post_init__(self):
        self.check_not_empty()
        dimensions = [quantizer.dimension for quantizer in self.quantizers]
        if len(set(dimensions)) > 1:
            raise UserError(f'the levels of a residual quantizer have dimensions {dimensions}; they must agree')
        super().__post_init__()

    @property
    def dimension(self) -> int:
        return self.quantizers[0].dimension

    @nn.compact
    def __call__(self, z: jax.Array, *, train: bool = False, mask: jax.Array | None = None,
                 key: jax.Array | None = None) -> Quantized:
        depth = len(self.quantizers)
        z = check_latents(z, self.dimension, mask, train)
        # The latents are the first level's, but each may refuse to be a level.
        z, *_ = [quantizer.prepare_residual(z) for quantizer in self.quantizers]
        started = self._started(train)
        kept = self._kept(z, train, nth_key(key, depth))
        residual, total, outs, codes = z, jnp.zeros_like(z), [], []
        for level, quantizer in enumerate(self.quantizers):
            present = kept > level
            counted = self._counted(mask, present, started, level, train)
            scale = self._scale(level, z.ndim)
            out = quantizer(residual / scale, train=train, mask=counted, key=nth_key(key, level))
            vectors = jnp.where(present[..., None], _scaled(out.vectors, scale), 0.0)
            residual, total = residual - jax.lax.stop_gradient(vectors), total + vectors
            outs.append(out)
            codes.append(jnp.where(present[..., None], out.codes, NO_CODE))
        estimator = self.estimator if train else StraightThrough()
        loss = jnp.mean(jnp.stack([out.loss for out in outs]))
        return Quantized(estimator(z, total, nth_key(key, depth + 1)), jnp.concatenate(codes, axis=-1), loss,
                         numbered_metrics(outs))

    def lookup(self, codes: jax.Array) -> jax.Array:
        """Vectors fp32 [..., dimension] of codes int32 [..., n] of the first n levels."""
        total = jnp.zeros((*codes.shape[:-1], self.dimension))
        for level, (quantizer, part) in enumerate(zip(self.quantizers, self.split_codes(codes))):
            vectors = _scaled(quantizer.lookup(jnp.maximum(part, 0)), self._scale(level, codes.ndim))
            total = total + jnp.where(part[..., :1] == NO_CODE, 0.0, vectors)
        return total

    def _started(self, train: bool) -> jax.Array | int:
        """How many levels take part in training by now."""
        if not self.delay:
            return len(self.quantizers)
        steps = self.variable('codebook', 'steps', jnp.zeros, (), jnp.int32)
        started = steps.value // self.delay + 1
        if train:
            steps.value = steps.value + 1
        return started

    def _kept(self, z: jax.Array, train: bool, key: jax.Array | None) -> jax.Array:
        """Levels of every token, int32 [...]; the same for all tokens of an item."""
        depth, shape = len(self.quantizers), z.shape[:-1]
        share = Scheduled(self.dropout, name='dropout_now')(train)
        if not train or not self.dropout:
            return jnp.full(shape, depth)
        if key is None:
            raise UserError('training a Residual quantizer with dropout needs key=...')
        choice, draw = jax.random.split(key)
        few = jax.random.bernoulli(choice, share, shape[:1])
        kept = jnp.where(few, jax.random.randint(draw, shape[:1], 1, depth + 1), depth)
        return jnp.broadcast_to(kept.reshape(-1, *(1,) * (len(shape) - 1)), shape)

    def _counted(self, mask: jax.Array | None, present: jax.Array, started: jax.Array | int, level: int,
                 train: bool) -> jax.Array | None:
        """Which tokens count in this level."""
        if not train or level == 0 or not (self.dropout or self.delay):
            return mask
        counted = present & (started > level)
        return counted if mask is None else counted & mask

    def _scale(self, level: int, rank: int) -> np.ndarray:
        """The size of the residuals that a level sees, against those of the first; fp32 [1, ..., 1 or D]."""
        scales = [np.asarray(quantizer.residual_scale, np.float64) for quantizer in self.quantizers[:level]]
        return along_last(np.asarray(math.prod(scales, start=np.float64(1.0)), np.float32), rank)


def _scaled(vectors: jax.Array, scale: np.ndarray) -> jax.Array:
    if np.all(scale == 1):
        return vectors
    # Not fused into the sum, whose rounding would then depend on what surrounds it.
    return jax.lax.optimization_barrier(vectors * scale)
