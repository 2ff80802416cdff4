"""From a config to objects: tokenizers, processes, models. Names are looked up in registries only."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax.core import FrozenDict
from ml_collections import ConfigDict

from vqdit.data.preprocess import read_formats
from vqdit.diffusion import registry
from vqdit.diffusion.categorical import Process
from vqdit.errors import UserError
from vqdit.models.multimodal import MultimodalDiT
from vqdit.registry import choose
from vqdit.tokenizers.code_vectors import vector_channels
from vqdit.tokenizers.frozen import FrozenTokenizer, LearnedTokenizer, Tokenizer, check_geometry
from vqdit.tokenizers.losses.terms import BOUNDED, build_terms
from vqdit.tokenizers.quantizers import build_quantizer
from vqdit.tokenizers.spec import TokenLayout
from vqdit.training import gaussian
from vqdit.training.codecs import KINDS, build_codec

TEXT_KINDS = ('words', 'bytes')


def learned_modalities(config: ConfigDict) -> list[str]:
    """The modalities whose tokenizers are trained, in the order of the config."""
    return [name for name, section in config.tokenizers.items() if section.kind in KINDS]


def check_kinds(config: ConfigDict) -> None:
    """Raises UserError for a tokenizer of an unknown kind."""
    for name, section in config.tokenizers.items():
        choose(dict.fromkeys((*KINDS, *TEXT_KINDS)), section.kind, f'tokenizers.{name}.kind')


def build_learned_tokenizer(config: ConfigDict, modality: str) -> LearnedTokenizer:
    """The untrained tokenizer of a modality, from `config.tokenizers` and the data's size in `config.data`.

    Raises UserError for settings that do not go together.
    """
    section, path, formats = config.tokenizers[modality], f'tokenizers.{modality}', read_formats(config.data)
    quantizer = build_quantizer(section.quantizer.to_dict(), f'{path}.quantizer')
    if not quantizer.levels:
        raise UserError(f'{path}.quantizer.name "{section.quantizer.name}" has no codes, and a tokenizer is made of '
                        'them; choose one that has, such as "finite_scalar"')
    front_end, codec = build_codec(section, formats, modality, quantizer)
    terms = build_terms(section.get('losses', ConfigDict()).to_dict(), f'{path}.losses', rate=formats.audio.rate)
    for term in terms:
        if term.name in BOUNDED and section.get('bound') != 'tanh':
            raise UserError(f'{path}.losses.{term.name} needs an output within [-1, 1]; set {path}.bound="tanh"')
    return LearnedTokenizer(front_end, codec, section.absolute_weight, section.squared_weight, terms)


def build_process(config: ConfigDict, layout: TokenLayout,
                  tokenizers: Mapping[str, Tokenizer] | None = None) -> Process:
    """The noising process of `config.diffusion.process`; that of code distances reads the frozen codebooks.

    Without `tokenizers`, which come later, only the settings count. Raises UserError for unsound ones.
    """
    section, codebooks = config.diffusion.process.to_dict(), {}
    if section.get('name') == 'code_distance':
        for name in learned_modalities(config):
            check_geometry(build_learned_tokenizer(config, name), name)
        codebooks = {name: tokenizer.codebook()[0] for name, tokenizer in (tokenizers or {}).items()
                     if isinstance(tokenizer, FrozenTokenizer)}
    return registry.build_process(section, 'diffusion.process', layout, codebooks)


def build_model(config: ConfigDict, layout: TokenLayout) -> MultimodalDiT:
    """The transformer of `config.diffusion.model`."""
    options = config.diffusion.model.to_dict()
    dtypes = {'float32': jnp.float32, 'bfloat16': jnp.bfloat16}
    if gaussian.is_gaussian(config):
        seen = 2 if gaussian.self_conditioning(config) else 1
        options |= {'channels': seen * _vector_channels(config, layout),
                    'answers_codes': gaussian.predicts_codes(config)}
    options['patches'] = FrozenDict(options['patches'])
    options['dtype'] = choose(dtypes, options['dtype'], 'diffusion.model.dtype')
    head_width = options['width'] // max(options['heads'], 1)
    options['implementation'] = choose_attention(options['implementation'], options['dtype'], head_width,
                                                 jax.default_backend())
    return MultimodalDiT(layout=layout, **options)


def _vector_channels(config: ConfigDict, layout: TokenLayout) -> int:
    """C of the vectors that stand for the codes of a layout."""
    learned = learned_modalities(config)
    return max(vector_channels(build_learned_tokenizer(config, name) if name in learned else spec)
               for name, spec in layout.specs.items())


def choose_attention(name: str, dtype: Any, head_width: int, backend: str) -> str:
    """The implementation for `jax.nn.dot_product_attention`: "auto" is the flash attention of cuDNN where it exists.

    That is on a GPU, in bf16, for heads of up to 128 channels in eights; elsewhere it is XLA's. Raises UserError for
    an unknown name.
    """
    choose({known: known for known in ('auto', 'xla', 'cudnn')}, name, 'diffusion.model.implementation')
    if name != 'auto':
        return name
    flash = backend == 'gpu' and dtype == jnp.bfloat16 and head_width <= 128 and head_width % 8 == 0
    return 'cudnn' if flash else 'xla'
