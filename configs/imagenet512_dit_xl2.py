"""DiT-XL/2 on ImageNet at 512 px (Peebles & Xie 2023, arXiv:2212.09748): 1024 tokens an image, four times those of 256.

`--config.data.root=FOLDER` and `--config.tokenizers.image.weights=FOLDER` as in imagenet256_dit_xl2.py. The paper's
3 million steps gave it an FID of 3.04; it has not been trained to the end here. The store of latents takes 84 GB for
each of its copies.
"""

from ml_collections import ConfigDict

from vqdit.training.image_defaults import image_defaults, published_autoencoder


def get_config() -> ConfigDict:
    config = image_defaults('DiT-XL/2')
    config.data = ConfigDict({
        'source': 'tfds', 'name': 'imagenet2012', 'root': '',
        'image': {'size': 512, 'channels': 3, 'fit': 'crop'},
        'augment': {'copies': 2, 'image_flip': 0.5},
    })
    config.tokenizers = ConfigDict({'image': published_autoencoder()})
    config.diffusion.model.update(dtype='bfloat16', remat='full')
    config.diffusion.training.steps = 3_000_000
    config.diffusion.sampler.update(steps=250, guidance=1.5, batch_size=8)
    config.mesh.update(data=-1, fsdp=4)
    return config
