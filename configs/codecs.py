"""Tokenizers alone, by the size of the data: `--config=configs/codecs.py:image_64`, and `--config.data.root=FOLDER`.

The first line of every preset is its layout: the tokens of an example, the codes of each, and the rate before entropy
coding. `image_28`, `image_28_tiny` and `film_32` are meant for a CPU, the others for accelerators; of what they reach
nothing has been measured here. A perceptual loss, worth having from 64 px on, needs the weights of LPIPS:
`losses={'perceptual': {'weight': 1.0, 'weights': 'FILE.npz'}}` in a config of your own that calls a preset.
"""

from ml_collections import ConfigDict

from vqdit.registry import choose
from vqdit.training.codec_defaults import (
    film_tokenizer,
    latent_tokenizer,
    query_tokenizer,
    vocoder_tokenizer,
    waveform_tokenizer,
)
from vqdit.training.defaults import adversary, defaults, log_mel_tokenizer, pixels_tokenizer


def get_config(preset: str = '') -> ConfigDict:
    return choose(PRESETS, preset, 'preset')()


def image_28() -> ConfigDict:
    """28 x 28 grey: 7 x 7 = 49 tokens of 240 codes, 0.494 bits per pixel."""
    section = pixels_tokenizer(1, (32, 64, 64), _scalars(8, 6, 5))
    return _images(section, 28, 1, steps=3_000, batch_size=64, learning_rate=2e-3)


def image_28_tiny() -> ConfigDict:
    """28 x 28 grey, for tests: 7 x 7 = 49 tokens of 64 codes, 0.375 bits per pixel."""
    section = pixels_tokenizer(2, (16, 32), {'name': 'vector', 'num_codes': 64, 'dimension': 8})
    return _images(section, 28, 1, steps=1_000, batch_size=64, learning_rate=3e-3)


def image_28_bernoulli() -> ConfigDict:
    """28 x 28 grey as probabilities of ink: 7 x 7 = 49 tokens of 256 codes, 0.5 bits per pixel."""
    section = pixels_tokenizer(1, (32, 64, 64), {'name': 'vector', 'num_codes': 256, 'dimension': 8})
    section.update(bound='tanh', absolute_weight=0.0, squared_weight=0.0,
                   losses=ConfigDict({'binary_cross_entropy': 1.0}))
    return _images(section, 28, 1, steps=3_000, batch_size=64, learning_rate=2e-3)


def image_32() -> ConfigDict:
    """32 x 32 colour: 8 x 8 = 64 tokens of 1,000 codes, 0.623 bits per pixel."""
    return _small_images(_scalars(8, 5, 5, 5))


def image_32_residual() -> ConfigDict:
    """32 x 32 colour, for quality: 8 x 8 x 2 levels = 128 tokens of 1,024 codes, 1.25 bits per pixel."""
    return _small_images({'name': 'residual', 'copies': 2,
                          'quantizer': {'name': 'vector', 'num_codes': 1024, 'dimension': 8, 'metric': 'euclidean'}})


def image_64() -> ConfigDict:
    """64 x 64 colour: 16 x 16 = 256 tokens of 4,375 codes, 0.756 bits per pixel."""
    section = pixels_tokenizer(1, (64, 128, 256), _scalars(7, 5, 5, 5, 5))
    section.update(blocks=2, absolute_weight=1.0, squared_weight=0.0, adversary=_patches(start=30_000))
    return _images(section, 64, 3, steps=100_000, batch_size=128, learning_rate=3e-4)


def image_128() -> ConfigDict:
    """128 x 128 colour: 16 x 16 = 256 tokens of 15,360 codes, 0.217 bits per pixel."""
    section = pixels_tokenizer(1, (96, 192, 192, 384), _scalars(8, 8, 8, 6, 5))
    section.update(blocks=2, heads=6, absolute_weight=1.0, squared_weight=0.0, adversary=_patches(start=60_000))
    return _images(section, 128, 3, steps=200_000, batch_size=128, learning_rate=2e-4)


def image_256() -> ConfigDict:
    """256 x 256 colour: 16 x 16 = 256 tokens of 16,384 codes, 0.0547 bits per pixel."""
    section = pixels_tokenizer(1, (128, 128, 256, 256, 512), {'name': 'vector', 'num_codes': 16_384, 'dimension': 8})
    section.update(blocks=2, heads=8, adversary=_patches(start=20_000))
    return _images(section, 256, 3, steps=400_000, batch_size=128, learning_rate=1e-4)


def vqgan_256_f16() -> ConfigDict:
    """256 x 256 colour as VQGAN: 16 x 16 = 256 tokens of 16,384 codes, 0.0547 bits per pixel."""
    return _published((1, 1, 2, 2, 4), True, 256, _learned(16_384, 256))


def latent_256_f4() -> ConfigDict:
    """256 x 256 colour as latent diffusion: 64 x 64 = 4096 tokens of 8,192 codes, 0.812 bits per pixel."""
    return _published((1, 2, 4), False, 3, _learned(8_192, 3))


def latent_256_f8() -> ConfigDict:
    """256 x 256 colour as latent diffusion: 32 x 32 = 1024 tokens of 16,384 codes, 0.219 bits per pixel."""
    return _published((1, 2, 2, 4), True, 4, _learned(16_384, 4))


def latent_256_f16() -> ConfigDict:
    """256 x 256 colour as latent diffusion: 16 x 16 = 256 tokens of 16,384 codes, 0.0547 bits per pixel."""
    return _published((1, 1, 2, 2, 4), True, 8, _learned(16_384, 8))


def llamagen_256_f8() -> ConfigDict:
    """256 x 256 colour as LlamaGen: 32 x 32 = 1024 tokens of 16,384 codes, 0.219 bits per pixel."""
    return _published((1, 2, 2, 4), True, 256, _learned(16_384, 8, 'cosine'))


def llamagen_256_f16() -> ConfigDict:
    """256 x 256 colour as LlamaGen: 16 x 16 = 256 tokens of 16,384 codes, 0.0547 bits per pixel."""
    return _published((1, 1, 2, 2, 4), True, 256, _learned(16_384, 8, 'cosine'))


def query_64() -> ConfigDict:
    """64 x 64 colour without a grid: 32 tokens of 4,096 codes, 0.0938 bits per pixel."""
    section = query_tokenizer(8, 32, 256, 8, 4, {'name': 'vector', 'num_codes': 4096, 'dimension': 12})
    return _images(section, 64, 3, steps=100_000, batch_size=256, learning_rate=3e-4)


def query_256() -> ConfigDict:
    """256 x 256 colour without a grid: 64 tokens of 4,096 codes, 0.0117 bits per pixel."""
    section = query_tokenizer(16, 64, 512, 8, 8, {'name': 'vector', 'num_codes': 4096, 'dimension': 12})
    section.adversary = _patches(start=150_000)
    return _images(section, 256, 3, steps=500_000, batch_size=256, learning_rate=1e-4)


def speech_8k() -> ConfigDict:
    """8 kHz, clips of 1 s: 50 x 8 levels = 400 tokens of 1,024 codes, 4,000 bits per second."""
    section = waveform_tokenizer((2, 4, 4, 5), 32, _levels(8))
    section.adversary = _listeners(windows=(1024, 512, 256))
    return _sounds(section, 8_000, 1.0, steps=200_000, batch_size=64, learning_rate=3e-4)


def speech_8k_single() -> ConfigDict:
    """8 kHz, clips of 1 s, one stream: 50 tokens of 4,375 codes, 605 bits per second."""
    section = waveform_tokenizer((2, 4, 4, 5), 32, _scalars(7, 5, 5, 5, 5))
    section.adversary = _listeners(windows=(1024, 512, 256))
    return _sounds(section, 8_000, 1.0, steps=200_000, batch_size=64, learning_rate=3e-4)


def speech_16k() -> ConfigDict:
    """16 kHz, clips of 1 s: 50 x 8 levels = 400 tokens of 1,024 codes, 4,000 bits per second."""
    return _speech(16_000)


def speech_24k() -> ConfigDict:
    """24 kHz, clips of 1 s: 75 x 8 levels = 600 tokens of 1,024 codes, 6,000 bits per second."""
    return _speech(24_000)


def speech_24k_stream() -> ConfigDict:
    """24 kHz as it comes in, clips of 1 s: 75 x 8 levels = 600 tokens of 1,024 codes, 6,000 bits per second."""
    config = _speech(24_000)
    config.tokenizers.audio.update(activation='elu', padding='causal', recurrent=2)
    return config


def log_mel_24k() -> ConfigDict:
    """24 kHz, clips of 1.024 s as spectrograms: 24 x 2 = 48 tokens of 1,000 codes, 467 bits per second."""
    section = log_mel_tokenizer(4, (256,), _pair())
    section.update(window=1024, hop=256, bands=80, floor=1e-4, absolute_weight=1.0, squared_weight=0.0)
    return _sounds(section, 24_000, 1.024, steps=100_000, batch_size=128, learning_rate=3e-4)


def vocoder_24k() -> ConfigDict:
    """24 kHz, clips of 1.024 s heard as spectrograms: 24 x 2 = 48 tokens of 1,000 codes, 467 bits per second."""
    section = vocoder_tokenizer(4, 256, _pair())
    section.update(blocks=8, adversary=_listeners(windows=(2048, 1024, 512)))
    return _sounds(section, 24_000, 1.024, steps=200_000, batch_size=64, learning_rate=3e-4)


def film_32() -> ConfigDict:
    """9 frames of 32 x 32, the first alone: 5 x 8 x 8 = 320 tokens of 240 codes, 0.275 bits per pixel."""
    section = film_tokenizer((1, 2, 2), (32, 64), _scalars(8, 6, 5))
    section.update(blocks=1, absolute_weight=0.0)
    return _films(section, 9, 32, steps=3_000, batch_size=16, learning_rate=2e-3)


def film_64() -> ConfigDict:
    """17 frames of 64 x 64, the first alone: 5 x 8 x 8 = 320 tokens of 64,000 codes, 0.0734 bits per pixel."""
    section = film_tokenizer((1, 2, 2), (64, 128, 128), _scalars(8, 8, 8, 5, 5, 5))
    # Of neighbours in time, too.
    section.update(squared_weight=0.0, losses=ConfigDict({'gradient': 0.5}))
    return _films(section, 17, 64, steps=100_000, batch_size=32, learning_rate=3e-4)


PRESETS = {preset.__name__: preset for preset in (
    image_28, image_28_tiny, image_28_bernoulli, image_32, image_32_residual, image_64, image_128, image_256,
    vqgan_256_f16, latent_256_f4, latent_256_f8, latent_256_f16, llamagen_256_f8, llamagen_256_f16,
    query_64, query_256, speech_8k, speech_8k_single, speech_16k, speech_24k, speech_24k_stream,
    log_mel_24k, vocoder_24k, film_32, film_64)}


def _scalars(*levels: int) -> dict:
    return {'name': 'finite_scalar', 'scalar_levels': levels}


def _learned(num_codes: int, dimension: int, metric: str = 'euclidean') -> dict:
    return {'name': 'vector', 'num_codes': num_codes, 'dimension': dimension, 'metric': metric, 'codebook': 'gradient'}


def _published(widths: tuple[int, ...], attention: bool, latent_channels: int, quantizer: dict) -> ConfigDict:
    """A layout of `tokenizers/latent_codec.py`: widths in 128s, and attention at the lowest resolution or nowhere."""
    section = latent_tokenizer(tuple(128 * width for width in widths), (*(False,) * (len(widths) - 1), attention),
                               latent_channels, quantizer)
    section.adversary = _patches(start=20_000)
    return _images(section, 256, 3, steps=400_000, batch_size=128, learning_rate=1e-4)


def _levels(count: int) -> dict:
    """Residual levels of 1,024 codes in 8 dimensions, compared by direction, learned by gradient (arXiv:2306.06546)."""
    code = {'name': 'vector', 'num_codes': 1024, 'dimension': 8, 'metric': 'angular', 'codebook': 'gradient'}
    return {'name': 'residual', 'copies': count, 'dropout': 0.5,
            'quantizer': {'name': 'projected', 'dimension': 128, 'quantizer': code}}


def _pair() -> dict:
    return {'name': 'grouped', 'copies': 2, 'quantizer': _scalars(8, 5, 5, 5)}


def _patches(start: int) -> ConfigDict:
    against = adversary({'name': 'patch', 'width': 64, 'layers': 3})
    against.update(start=start, ramp=1_000, lecam=1e-3)
    return against


def _listeners(windows: tuple[int, ...]) -> ConfigDict:
    against = adversary({'name': 'multi_period'}, {'name': 'spectral', 'windows': windows})
    against.update(game='least_squares', balance='fixed', weight=1.0, feature_matching=2.0, start=10_000)
    return against


def _small_images(quantizer: dict) -> ConfigDict:
    section = pixels_tokenizer(1, (64, 128, 128), quantizer)
    section.update(blocks=2, heads=4, absolute_weight=1.0, losses=ConfigDict({'gradient': 0.5}))
    return _images(section, 32, 3, steps=50_000, batch_size=128, learning_rate=3e-4)


def _speech(rate: int) -> ConfigDict:
    section = waveform_tokenizer((2, 4, 5, 8), 32, _levels(8))
    section.losses.mel.update(windows=(32, 64, 128, 256, 512, 1024, 2048), bands=(5, 10, 20, 40, 80, 160, 320))
    section.adversary = _listeners(windows=(2048, 1024, 512))
    return _sounds(section, rate, 1.0, steps=400_000, batch_size=64, learning_rate=3e-4)


def _images(section: ConfigDict, size: int, channels: int, **training: float) -> ConfigDict:
    grey = {'source': 'tfds', 'name': 'fashion_mnist', 'root': ''}
    return _config('image', section, {'size': size, 'channels': channels}, training, grey if channels == 1 else {})


def _sounds(section: ConfigDict, rate: int, seconds: float, **training: float) -> ConfigDict:
    return _config('audio', section, {'rate': rate, 'seconds': seconds}, training)


def _films(section: ConfigDict, frames: int, size: int, **training: float) -> ConfigDict:
    return _config('video', section, {'frames': frames, 'size': size, 'channels': 3}, training)


def _config(modality: str, section: ConfigDict, size: dict, training: dict, source: dict | None = None) -> ConfigDict:
    """A config of one tokenizer, of the files in a folder unless there is another `source`."""
    config = defaults()
    config.data = ConfigDict((source or {'source': 'folder', 'root': ''}) | {modality: size})
    steps = training['steps']
    section.training.update(training, warmup_steps=min(steps // 20, 2_000), weight_decay=1e-4,
                            ema_decay=0.99 if steps < 5_000 else 0.999)
    config.tokenizers = ConfigDict({modality: section})
    config.checkpoints.every = max(steps // 20, 250)
    return config
