"""Data: the built-in world and other sources, preprocessing, augmentation, balancing."""

from vqdit.data.dataset import Dataset, Example, read_column
from vqdit.data.load import load
from vqdit.data.world import World

__all__ = ['Dataset', 'Example', 'World', 'load', 'read_column']
