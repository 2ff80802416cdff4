"""Vector quantization (van den Oord et al. 2017, arXiv:1711.00937): the nearest of K learned vectors.

Against collapse: low-dimensional codes on the unit sphere (ViT-VQGAN, arXiv:2110.04627), a start from the first
batch, and the replacement of dead codes. Code dimensions other than the latents' are `Projected`, several codes a
vector are `MultiHead` (one codebook) or `Grouped` (a codebook each).
"""

from collections.abc import Callable

import flax.linen as nn
import jax

from vqdit.errors import UserError
from vqdit.tokenizers.quantizers.base import (
    OneCode,
    Quantized,
    check_latents,
    check_num_codes,
    known_codes,
    mean_square,
    token_weights,
    usage_metrics,
)
from vqdit.tokenizers.quantizers.codebooks import Codebook, Decay, MovingAverageCodebook
from vqdit.tokenizers.quantizers.estimators import Estimator, StraightThrough
from vqdit.tokenizers.quantizers.metrics import Cosine, Metric
from vqdit.tokenizers.quantizers.nearest import nearest_code
from vqdit.tokenizers.quantizers.starts import SampleStart, Start


class VectorQuantizer(OneCode, nn.Module):
    """The nearest of `num_codes` vectors of `dimension`.

    Attributes:
        decay: of the moving averages of counts, and of sums where the codebook is made of them.
        commitment: weight of the loss that draws the encoder to its code, a mean over elements (beta of eq. 3).
        dead_share: a code is replaced when its averaged count is below this fraction of the uniform share.
        metric: on the unit sphere, or as the vectors are.
        start: where the codes come from.
        codebook: `MovingAverageCodebook` or `GradientCodebook`, or either with options bound by `functools.partial`.
        estimator: the gradient through the choice.

    Raises UserError for fewer than 2 codes. `key` is needed when training: it draws the initial and revived codes.
    """

    num_codes: int = 1024
    dimension: int = 8
    decay: Decay = 0.99
    commitment: float = 0.25
    dead_share: float = 0.1
    metric: Metric = Cosine()
    start: Start = SampleStart()
    codebook: Callable[..., Codebook] = MovingAverageCodebook
    estimator: Estimator = StraightThrough()

    def __post_init__(self):
        check_num_codes(self.num_codes)
        super().__post_init__()

    def setup(self):
        self.table = self.codebook(num_codes=self.num_codes, dimension=self.dimension, decay=self.decay,
                                   dead_share=self.dead_share, start=self.start, metric=self.metric)
        nn.share_scope(self, self.table)

    def prepare_residual(self, z: jax.Array) -> jax.Array:
        """`z` itself. Raises UserError for levels on the unit sphere: they do not know how little is left."""
        self._check_lengths('levels of a residual quantizer')
        return z

    def check_scales(self) -> None:
        """Raises UserError on the unit sphere, as `prepare_residual` does; VAR's cosine is `Angular`."""
        self._check_lengths('scales of a multi-scale quantizer')

    def __call__(self, z: jax.Array, *, train: bool = False, mask: jax.Array | None = None,
                 key: jax.Array | None = None) -> Quantized:
        z = self.metric.values(check_latents(z, self.dimension, mask, train))
        flat = jax.lax.stop_gradient(z.reshape(-1, self.dimension))
        weights = token_weights(z.shape[:-1], mask)
        if not train:
            return self._quantize(z, flat, weights, mask, StraightThrough(), None)
        if key is None:
            raise UserError('training a VectorQuantizer needs key=...; it draws the first and the revived codes')
        starting, reviving, noise = jax.random.split(key, 3)
        self.table.begin(flat, weights, starting)
        out = self._quantize(z, flat, weights, mask, self.estimator, noise)
        return out._replace(metrics=out.metrics | self.table.observe(flat, out.codes.reshape(-1), weights, reviving))

    def lookup(self, codes: jax.Array) -> jax.Array:
        """Code vectors fp32 [..., dimension] of codes int32 [..., 1]."""
        return self.table.vectors()[codes[..., 0]]

    def _check_lengths(self, where: str) -> None:
        if isinstance(self.metric, Cosine):
            raise UserError(f'the {where} cannot have metric="cosine", where all vectors are equally long; '
                            'set metric="angular" or metric="euclidean"')

    def _quantize(self, z, flat, weights, mask, estimator: Estimator, key) -> Quantized:
        vectors = self.table.vectors()
        codes = nearest_code(self.metric.keys(flat), self.metric.keys(jax.lax.stop_gradient(vectors)))
        codes = codes.reshape(z.shape[:-1])
        quantized = vectors[codes]
        loss = self.commitment * mean_square(z, jax.lax.stop_gradient(quantized), weights)
        loss = loss + self.table.loss(z, quantized, weights)
        codes = known_codes(z, codes)
        metrics = usage_metrics(codes, self.num_codes, mask)
        return Quantized(estimator(z, quantized, key), codes[..., None], loss, metrics)
