"""From a config to objects: tokenizers, processes, models, samplers. Names are looked up in registries only."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from flax.core import FrozenDict
from ml_collections import ConfigDict

from vqdit.data.preprocess import read_formats
from vqdit.diffusion.categorical import Absorbing
from vqdit.diffusion.samplers import SAMPLERS, Ordered
from vqdit.diffusion.schedules import SCHEDULES
from vqdit.errors import choose
from vqdit.generation.generator import Sampler
from vqdit.models.multimodal import MultimodalDiT
from vqdit.tokenizers.autoencoder import Autoencoder
from vqdit.tokenizers.code_vectors import vector_channels
from vqdit.tokenizers.frozen import FrontEnd, LearnedTokenizer, Tokenizer
from vqdit.tokenizers.pixels import Pixels
from vqdit.tokenizers.quantizers import build_quantizer
from vqdit.tokenizers.spec import TokenLayout
from vqdit.tokenizers.spectrogram import LogMel
from vqdit.training import gaussian

LEARNED_KINDS = ('pixels', 'log_mel')


def learned_modalities(config: ConfigDict) -> list[str]:
    """The modalities whose tokenizers are trained, in the order of the config."""
    return [name for name, section in config.tokenizers.items() if section.kind in LEARNED_KINDS]


def build_learned_tokenizer(config: ConfigDict, modality: str) -> LearnedTokenizer:
    """The untrained tokenizer of a modality, from `config.tokenizers` and the data's size in `config.data`."""
    section = config.tokenizers[modality]
    front_end = _front_end(config, modality)
    quantizer = build_quantizer(section.quantizer.to_dict(), f'tokenizers.{modality}.quantizer')
    patch = (section.patch,) * len(front_end.size)
    autoencoder = Autoencoder(quantizer, front_end.channels, tuple(section.widths), section.blocks, patch)
    return LearnedTokenizer(front_end, autoencoder, section.absolute_weight, section.squared_weight)


def _front_end(config: ConfigDict, modality: str) -> FrontEnd:
    section, formats = config.tokenizers[modality], read_formats(config.data)
    if section.kind == 'log_mel':
        return LogMel(rate=formats.audio.rate, window_length=section.window, hop=section.hop, bands=section.bands,
                      samples=formats.audio.samples, floor=section.floor)
    if modality == 'video':
        return Pixels((formats.video.frames, formats.video.size, formats.video.size), formats.video.channels)
    return Pixels((formats.image.size, formats.image.size), formats.image.channels)


def build_process(config: ConfigDict) -> Absorbing:
    """The noising process of `config.diffusion.process`."""
    name = config.diffusion.process.schedule
    return Absorbing(choose(SCHEDULES, name, 'diffusion.process.schedule')())


def build_model(config: ConfigDict, layout: TokenLayout) -> MultimodalDiT:
    """The transformer of `config.diffusion.model`."""
    options = config.diffusion.model.to_dict()
    dtypes = {'float32': jnp.float32, 'bfloat16': jnp.bfloat16}
    if gaussian.is_gaussian(config):
        options |= {'channels': _vector_channels(config, layout), 'answers_codes': gaussian.predicts_codes(config)}
    options['patches'] = FrozenDict(options['patches'])
    options['dtype'] = choose(dtypes, options['dtype'], 'diffusion.model.dtype')
    return MultimodalDiT(layout=layout, **options)


def _vector_channels(config: ConfigDict, layout: TokenLayout) -> int:
    """C of the vectors that stand for the codes of a layout."""
    learned = learned_modalities(config)
    return max(vector_channels(build_learned_tokenizer(config, name) if name in learned else spec)
               for name, spec in layout.specs.items())


def build_sampler(config: ConfigDict, tokenizers: Mapping[str, Tokenizer]) -> Sampler:
    """The sampler of `config.diffusion.sampler`; some need the code vectors of the tokenizers."""
    if gaussian.is_gaussian(config):
        layout = TokenLayout({name: tokenizer.spec for name, tokenizer in tokenizers.items()})
        return gaussian.build_vector_sampler(config, gaussian.build_space(config, layout, tokenizers))
    section = config.diffusion.sampler
    kind = choose(SAMPLERS, section.name, 'diffusion.sampler.name')
    options: dict[str, Any] = {'steps': section.steps, 'temperature': section.temperature,
                               'process': build_process(config)}
    if kind is Ordered:
        options |= {'order': section.order, 'choice_temperature': section.choice_temperature}
    return kind(**options)
