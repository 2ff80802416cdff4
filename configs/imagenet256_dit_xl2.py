"""DiT-XL/2 on ImageNet at 256 px (Peebles & Xie 2023, arXiv:2212.09748): classes to images.

`--config.data.root=FOLDER` names the folder of the TFDS set `imagenet2012` in ArrayRecord form, and
`--config.tokenizers.image.weights=FOLDER` a KL autoencoder as diffusers saves it, such as stabilityai/sd-vae-ft-ema.
The settings are the paper's: 7 million steps gave it an FID of 2.27 with guidance 1.5. It is meant for 16 chips or
more (state: 11 GB; 16 TPU v5e need `--config.mesh.fsdp=4`) and has not been trained to the end here. The store of
latents takes 21 GB for each of its copies.
"""

from ml_collections import ConfigDict

from vqdit.training.image_defaults import image_defaults, published_autoencoder


def get_config() -> ConfigDict:
    config = image_defaults('DiT-XL/2')
    config.data = ConfigDict({
        'source': 'tfds', 'name': 'imagenet2012', 'root': '',
        'image': {'size': 256, 'channels': 3, 'fit': 'crop'},
        'augment': {'copies': 2, 'image_flip': 0.5},
    })
    config.tokenizers = ConfigDict({'image': published_autoencoder()})
    config.diffusion.model.update(dtype='bfloat16', remat='dots')
    config.diffusion.training.steps = 7_000_000
    config.diffusion.sampler.update(steps=250, guidance=1.5)
    config.mesh.update(data=-1, fsdp=1)
    return config
