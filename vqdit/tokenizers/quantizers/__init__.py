"""Quantizers: vectors to codes and back. `QUANTIZERS` names those that a config may ask for."""

from vqdit.tokenizers.quantizers.base import NO_CODE, Quantized, Quantizer
from vqdit.tokenizers.quantizers.binary_spherical import BinarySphericalQuantizer
from vqdit.tokenizers.quantizers.combine import Grouped, MultiHead, Projected
from vqdit.tokenizers.quantizers.estimators import straight_through
from vqdit.tokenizers.quantizers.finite_scalar import FiniteScalarQuantizer
from vqdit.tokenizers.quantizers.gaussian import GaussianBottleneck
from vqdit.tokenizers.quantizers.gumbel import GumbelQuantizer
from vqdit.tokenizers.quantizers.identity import Identity
from vqdit.tokenizers.quantizers.index_backprop import IndexBackpropQuantizer
from vqdit.tokenizers.quantizers.lookup_free import LookupFreeQuantizer
from vqdit.tokenizers.quantizers.multi_scale import MultiScale
from vqdit.tokenizers.quantizers.nearest import nearest_code
from vqdit.tokenizers.quantizers.random_projection import RandomProjectionQuantizer
from vqdit.tokenizers.quantizers.registry import QUANTIZERS, build_quantizer
from vqdit.tokenizers.quantizers.remapped import Remapped
from vqdit.tokenizers.quantizers.residual import Residual
from vqdit.tokenizers.quantizers.sim_vector import SimVectorQuantizer
from vqdit.tokenizers.quantizers.vector import VectorQuantizer

__all__ = ['NO_CODE', 'QUANTIZERS', 'BinarySphericalQuantizer', 'FiniteScalarQuantizer', 'GaussianBottleneck',
           'Grouped', 'GumbelQuantizer', 'Identity', 'IndexBackpropQuantizer', 'LookupFreeQuantizer', 'MultiHead',
           'MultiScale', 'Projected', 'Quantized', 'Quantizer', 'RandomProjectionQuantizer', 'Remapped',
           'Residual', 'SimVectorQuantizer', 'VectorQuantizer', 'build_quantizer', 'nearest_code', 'straight_through']
