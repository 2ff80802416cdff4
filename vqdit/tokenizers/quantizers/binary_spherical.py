"""Binary spherical quantization (Zhao et al. 2024, arXiv:2406.07548): signs of a latent on the unit sphere.

The codes are the corners of a cube within the sphere, every coordinate 1 / sqrt(bits) in size, so that the error of
quantization is bounded.
"""

import jax

from vqdit.tokenizers.quantizers.lookup_free import LookupFreeQuantizer
from vqdit.tokenizers.quantizers.metrics import normalise


class BinarySphericalQuantizer(LookupFreeQuantizer):
    """As `LookupFreeQuantizer`, on the unit sphere."""

    @property
    def size(self) -> float:
        return self.bits**-0.5

    def confine(self, z: jax.Array) -> jax.Array:
        return normalise(z)
