"""From the section of a tokenizer and the formats of the data to a front end and a codec, by kind."""

from collections.abc import Callable
from typing import NamedTuple

from ml_collections import ConfigDict

from vqdit.data.preprocess import Formats
from vqdit.errors import UserError
from vqdit.registry import choose
from vqdit.tokenizers.autoencoder import CONTROLS, Autoencoder, Control
from vqdit.tokenizers.codec import EncoderDecoder, Standardised
from vqdit.tokenizers.frozen import Codec, FrontEnd
from vqdit.tokenizers.latent_codec import LatentDecoder, LatentEncoder, LatentTrunk
from vqdit.tokenizers.padding import PADDINGS, Padding
from vqdit.tokenizers.pixels import Pixels
from vqdit.tokenizers.quantizers import Quantizer
from vqdit.tokenizers.query_codec import QueryDecoder, QueryEncoder, QueryTrunk
from vqdit.tokenizers.ranges import RANGES, Range
from vqdit.tokenizers.spectrogram import LogMel
from vqdit.tokenizers.vocoder import FourierDecoder, MelEncoder
from vqdit.tokenizers.waveform import ACTIVATIONS, Trunk, Waveform, WaveformDecoder, WaveformEncoder

Built = tuple[FrontEnd, Codec]


def build_codec(section: ConfigDict, formats: Formats, modality: str, quantizer: Quantizer) -> Built:
    """What `section`, that of `tokenizers.<modality>`, describes, around a quantizer.

    Raises UserError for an unknown kind, one that is not of this modality, and settings that do not go together.
    """
    kind = choose(KINDS, section.kind, f'tokenizers.{modality}.kind')
    if modality not in kind.modalities:
        fitting = [name for name, other in KINDS.items() if modality in other.modalities]
        raise UserError(f'tokenizers.{modality}.kind "{section.kind}" is for {" and ".join(kind.modalities)}; '
                        f'choose one of {", ".join(fitting) or "words, bytes"}')
    return kind.build(section, formats, modality, quantizer)


def _pixels(section: ConfigDict, formats: Formats, modality: str, quantizer: Quantizer) -> Built:
    front_end = _pictures(formats, modality)
    patch = (section.patch,) * len(front_end.size)
    return front_end, Autoencoder(quantizer, front_end.channels, tuple(section.widths), section.blocks, patch,
                                  heads=section.get('heads', 0), control=_control(section, modality),
                                  bound=_range(section, modality))


def _film(section: ConfigDict, formats: Formats, modality: str, quantizer: Quantizer) -> Built:
    front_end = _pictures(formats, modality)
    return front_end, Autoencoder(quantizer, front_end.channels, tuple(section.widths), section.blocks,
                                  tuple(section.patch), _padding(section, modality), section.heads,
                                  _control(section, modality), _range(section, modality))


def _latent(section: ConfigDict, formats: Formats, modality: str, quantizer: Quantizer) -> Built:
    front_end = _pictures(formats, modality)
    trunk = LatentTrunk(tuple(section.widths), tuple(section.attention), section.latent_channels, section.blocks,
                        section.groups)
    return front_end, EncoderDecoder(Standardised(quantizer), LatentEncoder(trunk, quantizer.dimension),
                                     LatentDecoder(trunk, front_end.channels, _range(section, modality)))


def _query(section: ConfigDict, formats: Formats, modality: str, quantizer: Quantizer) -> Built:
    front_end = _pictures(formats, modality)
    trunk = QueryTrunk(front_end.size, (section.patch,) * len(front_end.size), section.queries, section.width,
                       section.depth, section.heads)
    return front_end, EncoderDecoder(Standardised(quantizer), QueryEncoder(trunk, quantizer.dimension),
                                     QueryDecoder(trunk, front_end.channels, _range(section, modality)))


def _log_mel(section: ConfigDict, formats: Formats, modality: str, quantizer: Quantizer) -> Built:
    front_end = _spectrogram(section, formats)
    return front_end, Autoencoder(quantizer, front_end.channels, tuple(section.widths), section.blocks,
                                  (section.patch,), heads=section.get('heads', 0))


def _vocoder(section: ConfigDict, formats: Formats, modality: str, quantizer: Quantizer) -> Built:
    shape = _spectrogram(section, formats), section.stride, section.width, section.blocks
    return _sound(formats), EncoderDecoder(Standardised(quantizer), MelEncoder(*shape, quantizer.dimension),
                                           FourierDecoder(*shape))


def _waveform(section: ConfigDict, formats: Formats, modality: str, quantizer: Quantizer) -> Built:
    activation = choose(ACTIVATIONS, section.activation, f'tokenizers.{modality}.activation')
    trunk = Trunk(tuple(section.strides), _padding(section, modality), activation, recurrent=section.recurrent)
    lowest = section.width * 2 ** len(trunk.strides)
    return _sound(formats), EncoderDecoder(Standardised(quantizer),
                                           WaveformEncoder(trunk, section.width, quantizer.dimension),
                                           WaveformDecoder(trunk, lowest))


def _pictures(formats: Formats, modality: str) -> Pixels:
    if modality == 'video':
        return Pixels((formats.video.frames, formats.video.size, formats.video.size), formats.video.channels)
    return Pixels((formats.image.size, formats.image.size), formats.image.channels)


def _spectrogram(section: ConfigDict, formats: Formats) -> LogMel:
    return LogMel(rate=formats.audio.rate, window_length=section.window, hop=section.hop, bands=section.bands,
                  samples=formats.audio.samples, floor=section.floor)


def _sound(formats: Formats) -> Waveform:
    return Waveform(formats.audio.samples, formats.audio.rate)


def _padding(section: ConfigDict, modality: str) -> Padding:
    return choose(PADDINGS, section.padding, f'tokenizers.{modality}.padding')()


def _range(section: ConfigDict, modality: str) -> Range:
    return choose(RANGES, section.get('bound', 'unbounded'), f'tokenizers.{modality}.bound')


def _control(section: ConfigDict, modality: str) -> Control | None:
    return choose(CONTROLS, section.get('control', 'none'), f'tokenizers.{modality}.control')


class Kind(NamedTuple):
    """A kind of learned tokenizer: of which modalities, and what makes it."""

    modalities: tuple[str, ...]
    build: Callable[[ConfigDict, Formats, str, Quantizer], Built]


KINDS = {'pixels': Kind(('image', 'video'), _pixels), 'film': Kind(('video',), _film),
         'latent': Kind(('image',), _latent), 'query': Kind(('image', 'video'), _query),
         'log_mel': Kind(('audio',), _log_mel), 'vocoder': Kind(('audio',), _vocoder),
         'waveform': Kind(('audio',), _waveform)}
