"""Image, audio and text from a folder, any from any others: 0.38 billion parameters.

`--config.data.root=FOLDER` names a folder with `metadata.csv` (image, audio, text), 256 px and 4 s of sound at 16 kHz.
Meant for 16 chips or more, on which a step takes 18 GiB each: too much for TPU v5e as it stands. It has not been
trained to the end here.
"""

from ml_collections import ConfigDict

from vqdit.training.defaults import defaults, log_mel_tokenizer, pixels_tokenizer, text_tokenizer


def get_config() -> ConfigDict:
    config = defaults()
    config.data = ConfigDict({
        'source': 'folder', 'root': '', 'max_bad_fraction': 0.001,
        'image': {'size': 256, 'channels': 3, 'fit': 'crop'},
        'audio': {'rate': 16_000, 'seconds': 4.096},
    })
    levels = {'name': 'finite_scalar', 'scalar_levels': (8, 8, 8, 6, 5)}
    image = pixels_tokenizer(patch=4, widths=(256, 512, 512), quantizer=levels)
    audio = log_mel_tokenizer(patch=4, widths=(512,), quantizer=levels)
    audio.update(window=1024, hop=256, bands=80)
    for section in (image, audio):
        section.training.update(steps=200_000, batch_size=256, learning_rate=3e-4, warmup_steps=2_000,
                                ema_decay=0.9995)
    config.tokenizers = ConfigDict({'image': image, 'audio': audio, 'text': text_tokenizer('bytes', length=256)})
    config.diffusion.tasks = ConfigDict({
        'text->image': 2.0, 'image->text': 1.0, 'text->audio': 2.0, 'audio->text': 1.0, 'image->audio': 1.0,
        'audio->image': 1.0, 'text->image,audio': 1.0, 'image,audio->text': 1.0, '->image,audio,text': 1.0,
    })
    config.diffusion.model.update(patches=ConfigDict({'text': 4}), width=1024, depth=24, heads=16, remat='dots',
                                  dtype='bfloat16')
    config.diffusion.training.update(steps=500_000, batch_size=1024, learning_rate=2e-4, warmup_steps=5_000,
                                     ema_decay=0.9999)
    config.diffusion.sampler.update(steps=48, guidance=3.0, batch_size=64)
    config.mesh.update(data=-1, fsdp=4)
    config.evaluation.update(scorer='captions', examples=1_000, tasks=('text->image', 'image->text'))
    config.checkpoints.every = 5_000
    config.logging.update(every=100, samples_every=10_000)
    return config
