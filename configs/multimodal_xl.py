"""Image, audio and text from a folder, any from any others: 1.79 billion parameters.

The data and the tokenizers are those of multimodal_base.py. Meant for 128 chips, parameters split over 8 and layers
over 2 of them; it has not been trained to the end here.
"""

from pathlib import Path

from ml_collections import ConfigDict

from vqdit.config_file import load_config


def get_config() -> ConfigDict:
    config = load_config(str(Path(__file__).with_name('multimodal_base.py'))).unlock()
    config.diffusion.model.update(width=2048, depth=32, heads=16, remat='full')
    config.diffusion.training.update(batch_size=2048, learning_rate=1e-4)
    config.diffusion.sampler.batch_size = 16
    config.mesh.update(data=-1, fsdp=8, tensor=2)
    return config
