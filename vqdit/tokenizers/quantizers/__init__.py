"""Quantizers: vectors to codes and back. `QUANTIZERS` names those that a config may ask for."""

from vqdit.tokenizers.quantizers.base import Quantized, Quantizer, straight_through
from vqdit.tokenizers.quantizers.finite_scalar import FiniteScalarQuantizer
from vqdit.tokenizers.quantizers.vector import VectorQuantizer, nearest_code

QUANTIZERS = {'finite_scalar': FiniteScalarQuantizer, 'vector': VectorQuantizer}

__all__ = ['QUANTIZERS', 'FiniteScalarQuantizer', 'Quantized', 'Quantizer', 'VectorQuantizer', 'nearest_code',
           'straight_through']
