"""Binary spherical quantization (Zhao et al. 2024, arXiv:2406.07548): signs of a latent on the unit sphere.

The codes are the corners of a cube within the sphere, every coordinate 1 / sqrt(bits) in size, so that the error of
quantization is bounded.
"""

import jax

from vqdit.errors import UserError
from vqdit.tokenizers.quantizers.lookup_free import LookupFreeQuantizer
from vqdit.tokenizers.quantizers.metrics import normalise


class BinarySphericalQuantizer(LookupFreeQuantizer):
    """As `LookupFreeQuantizer`, on the unit sphere."""

    @property
    def size(self) -> float:
        return self.bits**-0.5

    def prepare_residual(self, z: jax.Array) -> jax.Array:
        """Raises UserError: a level on the unit sphere does not know how little is left."""
        raise UserError('binary_spherical cannot be a level of a residual quantizer, as all its vectors are equally '
                        'long; choose finite_scalar with bound="clipped", or vector with metric="euclidean"')

    def confine(self, z: jax.Array) -> jax.Array:
        return normalise(z)
