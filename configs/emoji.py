"""OpenMoji: colour pictures and their names, from a folder with `metadata.csv`.

`--config.data.root=FOLDER` names the folder. 67 minutes of CPU time draw pictures whose own original, of 173 held out,
is among the nearest five in 29 % (by chance 3 %), and captions with the right skin tone but few right words; the README
has the table.
"""

from ml_collections import ConfigDict

from vqdit.training.defaults import defaults, pixels_tokenizer, text_tokenizer


def get_config() -> ConfigDict:
    config = defaults()
    config.data = ConfigDict({
        'source': 'folder', 'root': '', 'max_bad_fraction': 0.0,
        'image': {'size': 32, 'channels': 3, 'fit': 'crop', 'background': 255},
        'augment': {'copies': 4, 'image_shift': 2, 'image_flip': 0.0},
    })
    image = pixels_tokenizer(patch=4, widths=(96,), quantizer={'name': 'finite_scalar', 'scalar_levels': (8, 5, 5, 5)})
    image.blocks = 2
    image.training.update(steps=1500, batch_size=64, learning_rate=3e-3, warmup_steps=50, ema_decay=0.99)
    config.tokenizers = ConfigDict({'image': image, 'text': text_tokenizer('bytes', length=48)})
    config.diffusion.tasks = ConfigDict({'text->image': 2.0, 'image->text': 1.0, '->image,text': 1.0})
    config.diffusion.model.update(patches=ConfigDict({'image': 2, 'text': 2}), width=192, heads=6, gate=0.5, unroll=4)
    config.diffusion.weighting = 'masked'
    config.diffusion.training.update(optimizer='muon', steps=2000, batch_size=64, learning_rate=3e-3, ema_decay=0.998)
    config.diffusion.sampler.update(steps=48, guidance=2.0, batch_size=64)
    config.evaluation.update(scorer='captions', examples=200, tasks=('text->image', 'image->text'))
    config.checkpoints.every = 500
    config.logging.samples_every = 1000
    return config
