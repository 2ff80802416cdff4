"""The image tokenizers of Chameleon (arXiv:2405.09818) and Janus (arXiv:2410.13848) as transformers saves them.

Their files keep the names of taming-transformers. Chameleon's have no decoder, so that of it `encode` alone can be
applied. Janus compares latents with code vectors as they are, and decodes these at unit length.
"""

import re
from collections.abc import Mapping
from typing import Any

from vqdit.errors import CheckpointError
from vqdit.interop.weights import StateDict
from vqdit.tokenizers.latent_diffusion import CodebookAutoencoder
from vqdit.tokenizers.quantizers.metrics import Cosine, Euclidean

CHAMELEON, JANUS = 'chameleon_vqgan', 'janus_vqgan'
WEIGHTS = 'model.safetensors'

NAMES = ((r'\.(down|up)\.(\d+)\.', r'.\1_blocks.\2.'), (r'\.block\.', '.resnets.'), (r'\.attn\.', '.attentions.'),
         (r'\.(down|up)sample\.', r'.\1samplers.0.'), (r'\.mid\.block_1\.', '.mid_block.resnets.0.'),
         (r'\.mid\.block_2\.', '.mid_block.resnets.1.'), (r'\.mid\.attn_1\.', '.mid_block.attentions.0.'),
         (r'\.nin_shortcut\.', '.conv_shortcut.'), (r'\.norm_out\.', '.conv_norm_out.'), (r'\.norm\.', '.group_norm.'),
         (r'\.([qkv])\.', r'.to_\1.'), (r'\.proj_out\.', '.to_out.0.'))
"""Patterns of taming's names and what diffusers calls the same."""


def codebook_autoencoder(config: Mapping[str, Any]) -> CodebookAutoencoder:
    """The network that a config describes. Raises KeyError or TypeError for none, CheckpointError for an unknown."""
    if config.get('double_latent') or config.get('attn_type', 'vanilla') != 'vanilla':
        raise CheckpointError(f'a codebook with double_latent={config.get("double_latent")} and '
                              f'attn_type={config.get("attn_type")} is not supported; only False and vanilla are')
    widths = tuple(config['base_channels'] * factor for factor in config['channel_multiplier'])
    janus = config['model_type'] == JANUS
    return CodebookAutoencoder(
        widths, config['num_res_blocks'], _attention(config, len(widths)), channels=config['in_channels'],
        latent_channels=config['latent_channels'], num_codes=config['num_embeddings'], dimension=config['embed_dim'],
        values_of=Cosine() if janus else Euclidean())


def _attention(config: Mapping[str, Any], count: int) -> tuple[bool, ...]:
    """At the lowest of so many resolutions in Janus; in Chameleon where the side of the image is in a list."""
    if config['model_type'] == JANUS:
        return (*(False,) * (count - 1), True)
    return tuple(config['resolution'] // 2**level in (config['attn_resolutions'] or ()) for level in range(count))


def codebook_state(state: StateDict, decodes: bool) -> StateDict:
    """The tensors under the names of diffusers; without what is of no use where there is no decoder."""
    return {_new_name(key): tensor for key, tensor in state.items() if decodes or not key.startswith('post_quant_conv')}


def _new_name(key: str) -> str:
    for pattern, name in NAMES:
        key = re.sub(pattern, name, key)
    return key
