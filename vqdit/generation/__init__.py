"""Generation: a trained model and its frozen tokenizers turn any modalities into any others."""

from vqdit.generation.generator import Generator

__all__ = ['Generator']
