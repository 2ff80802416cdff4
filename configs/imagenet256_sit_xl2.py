"""SiT-XL/2 on ImageNet at 256 px (Ma et al. 2024, arXiv:2401.08740): the same network, velocities on a straight line.

`--config.data.root=FOLDER` and `--config.tokenizers.image.weights=FOLDER` as in imagenet256_dit_xl2.py, with which it
shares everything else. The paper's 7 million steps gave it an FID of 2.15 with an ODE solver, as here, and of 2.06 with
an SDE solver ("euler_maruyama"); it has not been trained to the end here.
"""

from ml_collections import ConfigDict

from vqdit.training.image_defaults import image_defaults, published_autoencoder


def get_config() -> ConfigDict:
    config = image_defaults('SiT-XL/2')
    config.data = ConfigDict({
        'source': 'tfds', 'name': 'imagenet2012', 'root': '',
        'image': {'size': 256, 'channels': 3, 'fit': 'crop'},
        'augment': {'copies': 2, 'image_flip': 0.5},
    })
    config.tokenizers = ConfigDict({'image': published_autoencoder()})
    config.diffusion.model.update(dtype='bfloat16', remat='dots')
    config.diffusion.training.steps = 7_000_000
    config.diffusion.sampler.update(steps=125, guidance=1.5)
    config.mesh.update(data=-1, fsdp=1)
    return config
