"""The settings of further kinds of learned tokenizers; what all kinds share stands in `defaults.py`."""

from ml_collections import ConfigDict

from vqdit.training.defaults import learned_tokenizer


def waveform_tokenizer(strides: tuple[int, ...], width: int, quantizer: dict) -> ConfigDict:
    """A tokenizer of sound as it is (`tokenizers/waveform.py`), most often with a "residual" quantizer."""
    return learned_tokenizer(
        'waveform', quantizer,
        strides=strides,                 # their product is the samples of a token
        width=width,                     # channels at the full rate; every stride doubles them
        activation='snake',              # or "elu"
        padding='centred',               # or "causal": it can stream
        recurrent=0,                     # LSTMs at the lowest rate
        absolute_weight=1.0, squared_weight=0.0,
        losses={'mel': {'weight': 15.0, 'windows': (32, 64, 128, 256, 512, 1024), 'bands': (5, 10, 20, 40, 80, 160)}})


def vocoder_tokenizer(stride: int, width: int, quantizer: dict) -> ConfigDict:
    """A tokenizer of sound that hears a log-mel spectrogram and answers in Fourier transforms; see `vocoder.py`."""
    return learned_tokenizer(
        'vocoder', quantizer,
        window=1024,                     # samples
        hop=256,                         # samples
        bands=80,
        floor=1e-4,                      # amplitude that counts as silence
        stride=stride,                   # frames that make a token
        width=width,
        blocks=4,                        # on either side
        absolute_weight=1.0, squared_weight=0.0,
        losses={'mel': {'weight': 15.0, 'windows': (32, 64, 128, 256, 512, 1024), 'bands': (5, 10, 20, 40, 80, 160)}})


def film_tokenizer(patch: tuple[int, int, int], widths: tuple[int, ...], quantizer: dict) -> ConfigDict:
    """A tokenizer of video whose time runs one way; T frames become 1 + ceil((T - 1) / s) steps of tokens.

    The strides s of time and of space are the `patch` of each, times 2^(len(widths) - 1).
    """
    return learned_tokenizer(
        'film', quantizer,
        patch=patch,                     # frames, rows and columns folded into channels by the first layer
        widths=widths,
        blocks=2,
        heads=0,
        padding='first_alone',           # "causal": the first frames share their tokens; "centred": no causality
        control='none',                  # or "adaptive_group_norm"
        bound='unbounded',
        absolute_weight=1.0)


def latent_tokenizer(widths: tuple[int, ...], attention: tuple[bool, ...], latent_channels: int,
                     quantizer: dict) -> ConfigDict:
    """A tokenizer of images in a published layout; see the table of `tokenizers/latent_codec.py`."""
    return learned_tokenizer(
        'latent', quantizer,
        widths=widths,                   # channels at each resolution; every further one halves both sides
        attention=attention,             # whether each resolution has attention
        latent_channels=latent_channels,
        blocks=2,                        # residual blocks at each resolution; the decoder has one more
        groups=32,                       # of the normalisation, a divisor of all widths
        bound='unbounded',
        absolute_weight=1.0, squared_weight=0.0)


def query_tokenizer(patch: int, queries: int, width: int, depth: int, heads: int, quantizer: dict) -> ConfigDict:
    """A tokenizer of images or video in `queries` tokens without places; see `tokenizers/query_codec.py`."""
    return learned_tokenizer(
        'query', quantizer,
        patch=patch,                     # side of the blocks that the transformers see
        queries=queries, width=width,
        depth=depth,                     # transformer blocks on either side
        heads=heads,
        bound='unbounded')
