"""MNIST digits, their names, and the same digits spoken: one model for image, text and speech, paired by label.

`--config.data.root=FOLDER` names the folder of the TFDS sets `mnist` and `spoken_digit` in ArrayRecord form.
Less than an hour, on one CPU core even; what it reaches stands in the README.
"""

from ml_collections import ConfigDict

from vqdit.training.defaults import defaults, log_mel_tokenizer, pixels_tokenizer, text_tokenizer


def get_config() -> ConfigDict:
    config = defaults()
    config.data = ConfigDict({
        'source': 'pairs', 'root': '', 'key': 'label',
        'parts': {'image': {'source': 'tfds', 'name': 'mnist'},
                  'audio': {'source': 'tfds', 'name': 'spoken_digit', 'exclude_speakers': ()}},
        'image': {'size': 32, 'channels': 1, 'fit': 'pad', 'background': 0},
        # Two of the five speakers are recorded 15 to 20 dB below the others.
        'audio': {'rate': 8000, 'seconds': 0.75, 'trim_decibels': 40.0, 'peak': 0.7},
        # There are only 2,250 recordings to learn from: each copy sounds a little different. The 60,000 pictures are
        # seen about twice, centred like those of the test: to shift them would only make the codes harder to read.
        'augment': {'copies': 1, 'audio_gain': 6.0, 'audio_shift': 0.05, 'audio_speed': 0.12,
                    'audio_noise': 0.003},
    })
    # Small codes of small patches: a digit is easier to read and to draw from them than from few large ones.
    image = pixels_tokenizer(patch=4, widths=(64,), quantizer={'name': 'finite_scalar', 'scalar_levels': (4, 4)})
    image.blocks = 2
    image.training.update(optimizer='muon', steps=900, batch_size=32, learning_rate=8e-3, warmup_steps=50,
                          ema_decay=0.98)
    audio = log_mel_tokenizer(patch=4, widths=(192,),
                              quantizer={'name': 'finite_scalar', 'scalar_levels': (8, 8, 5, 5)})
    audio.update(window=500, hop=125)
    audio.training.update(optimizer='muon', steps=1200, batch_size=64, learning_rate=8e-3, warmup_steps=50,
                          ema_decay=0.98)
    config.tokenizers = ConfigDict({'image': image, 'audio': audio, 'text': text_tokenizer('words', length=1)})

    config.diffusion.tasks = ConfigDict({
        'image->text': 3.5, 'audio->text': 2.0, 'text->image': 1.5, 'text->audio': 1.5, 'image->audio': 0.25,
        'audio->image': 0.25, 'image->audio,text': 1.0, 'audio->image,text': 1.0, '->image,audio,text': 1.5,
    })
    config.diffusion.weighting = 'masked'
    config.diffusion.model.update(patches=ConfigDict({'image': 2}), gate=0.5, unroll=4)
    config.diffusion.training.update(optimizer='muon', steps=14000, batch_size=32, learning_rate=4e-3, ema_decay=0.998)
    config.diffusion.sampler.update(steps=32, temperature=0.5, guidance=3.0, batch_size=128)
    config.evaluation.update(scorer='digits', examples=500, examples_of=ConfigDict({'image->text': 10_000}),
                             tasks=('image->text', 'text->image', 'audio->text', 'text->audio'))
    # Muon's orthogonalisation is done on every device, which costs more than a second device gains here.
    config.mesh.data = 1
    config.checkpoints.every = 1000
    config.logging.samples_every = 3000
    return config
