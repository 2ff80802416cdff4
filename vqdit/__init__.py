"""vqdit: vector-quantised tokenizers and one diffusion transformer for all modalities, in JAX."""

__version__ = '0.1.0'
