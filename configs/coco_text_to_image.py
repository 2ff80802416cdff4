"""COCO captions to pictures of 256 px and back, with the tokens of a tokenizer that the run trains first.

`--config.data.root=FOLDER` names a folder of pictures with `metadata.csv` (file_name, text), as the imagefolder of
Hugging Face has it: one row for every caption. Meant for 8 chips or more, on which a step takes 21 GiB
each: too much for TPU v5e as it stands. It has not been trained to the end here.
"""

from ml_collections import ConfigDict

from vqdit.training.defaults import defaults, pixels_tokenizer, text_tokenizer


def get_config() -> ConfigDict:
    config = defaults()
    config.data = ConfigDict({
        'source': 'folder', 'root': '', 'max_bad_fraction': 0.001,
        'image': {'size': 256, 'channels': 3, 'fit': 'crop'},
    })
    # 16 x 16 codes of 15,360 kinds for a picture.
    image = pixels_tokenizer(patch=4, widths=(256, 512, 512),
                             quantizer={'name': 'finite_scalar', 'scalar_levels': (8, 8, 8, 6, 5)})
    image.blocks = 3
    image.training.update(steps=200_000, batch_size=256, learning_rate=3e-4, warmup_steps=2_000, ema_decay=0.9995)
    config.tokenizers = ConfigDict({'image': image, 'text': text_tokenizer('bytes', length=256)})
    config.diffusion.tasks = ConfigDict({'text->image': 3.0, 'image->text': 1.0, '->image,text': 0.5})
    config.diffusion.model.update(patches=ConfigDict({'text': 4}), width=1024, depth=24, heads=16, remat='dots',
                                  dtype='bfloat16')
    config.diffusion.training.update(steps=400_000, batch_size=512, learning_rate=2e-4, warmup_steps=5_000,
                                     ema_decay=0.9999)
    config.diffusion.sampler.update(steps=48, guidance=4.0, batch_size=64)
    config.mesh.update(data=-1, fsdp=1)
    config.evaluation.update(scorer='captions', examples=1_000, tasks=('text->image', 'image->text'))
    config.checkpoints.every = 5_000
    config.logging.update(every=100, samples_every=10_000)
    return config
