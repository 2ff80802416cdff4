"""The image DiT in the form of diffusers: the table of its names, and the config beside its weights."""

from pathlib import Path
from typing import Any

from vqdit.errors import CheckpointError, UserError
from vqdit.files import read_json
from vqdit.interop.layout import SAME, VECTOR, Layout, Row, dense_rows, patch_kernel
from vqdit.models.dit import DiT

DIFFUSERS_STEPS = 127
"""diffusers lets the slowest of the 128 frequencies of the time be 1e-4; the original stops one step short of it.

The weights that facebookresearch published were trained with the original's 128 steps, also where they are offered in
the layout of diffusers: `import_dit(folder, frequency_steps=128)` gives them what they were trained with.
"""


def diffusers_layout(model: DiT) -> Layout:
    """The names of diffusers' DiTTransformer2DModel, which repeats the embedders in every block."""
    block = 'transformer_blocks.{}.'
    embedder = f'{block}norm1.emb.'
    return Layout((
        Row('patches/kernel', ('pos_embed.proj.weight',), patch_kernel(model.patch)),
        Row('patches/bias', ('pos_embed.proj.bias',), VECTOR),
        Row('labels/embedding', (f'{embedder}class_embedder.embedding_table.weight',), SAME),
        *dense_rows('time_in', f'{embedder}timestep_embedder.linear_1'),
        *dense_rows('time_out', f'{embedder}timestep_embedder.linear_2'),
        *dense_rows('blocks/modulation', f'{block}norm1.linear'),
        *dense_rows('blocks/attention/qkv', *(f'{block}attn1.to_{part}' for part in 'qkv')),
        *dense_rows('blocks/attention/out', f'{block}attn1.to_out.0', inputs=2),
        *dense_rows('blocks/mlp/up', f'{block}ff.net.0.proj'),
        *dense_rows('blocks/mlp/out', f'{block}ff.net.2'),
        *dense_rows('modulation', 'proj_out_1'),
        *dense_rows('head', 'proj_out_2'),
    ), model.depth)


def model_of_config(path: Path, options: dict[str, Any]) -> DiT:
    """The network that a `config.json` describes, with `options` in place of its attributes.

    Raises UserError without one, CheckpointError for one that describes something else.
    """
    if not path.is_file():
        raise UserError(f'there is no {path}; a folder of diffusers has it beside its weights')
    config = read_json(path)
    try:
        if config['_class_name'] != 'DiTTransformer2DModel':
            raise CheckpointError(f'{path} describes a {config["_class_name"]}; only a DiTTransformer2DModel fits here')
        heads, channels = config['num_attention_heads'], config['in_channels']
        found = {'size': (config['sample_size'],) * 2, 'channels': channels, 'patch': config['patch_size'],
                 'out_channels': config['out_channels'] or channels, 'width': heads * config['attention_head_dim'],
                 'depth': config['num_layers'], 'heads': heads, 'classes': config['num_embeds_ada_norm']}
        numbers = (config['sample_size'], *(found[name] for name in found if name != 'size'))
        if not all(type(number) is int and 0 < number <= 2**20 for number in numbers):
            raise ValueError(f'sizes {found}')
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f'{path} is no config of a DiTTransformer2DModel ({error})') from error
    return DiT(**(found | {'frequency_steps': DIFFUSERS_STEPS} | options))


def config_of_model(model: DiT) -> dict[str, Any]:
    """The `config.json` of a network."""
    return {
        '_class_name': 'DiTTransformer2DModel', 'activation_fn': 'gelu-approximate', 'attention_bias': True,
        'attention_head_dim': model.width // model.heads, 'in_channels': model.channels, 'norm_eps': 1e-6,
        'norm_elementwise_affine': False, 'norm_type': 'ada_norm_zero', 'num_attention_heads': model.heads,
        'num_embeds_ada_norm': model.classes, 'num_layers': model.depth, 'out_channels': model.out_channels,
        'patch_size': model.patch, 'sample_size': model.size[0]}
