"""Weights of the image DiT from and for other projects: facebookresearch/DiT, SiT and REPA, and diffusers.

The network is told by the file. The number of heads leaves no trace in the weights; it comes from the published sizes,
from the `config.json` of diffusers, or from the caller.
"""

import math
import re
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vqdit.errors import CheckpointError, UserError
from vqdit.files import read_json, write_json
from vqdit.interop.layout import BATCH_OF_ONE, SAME, VECTOR, Layout, Row, Tree, check_keys, kernel, patch_kernel
from vqdit.interop.safetensors_file import write_safetensors
from vqdit.interop.weights import DIFFUSERS_FILES, StateDict, read_folder, read_weights
from vqdit.models.dit import PUBLISHED, SIZES, DiT, sine_cosine_positions

DIFFUSERS_STEPS = 127
"""diffusers lets the slowest of the 128 frequencies of the time be 1e-4; the original stops one step short of it.

The weights that facebookresearch published were trained with the original's 128 steps, also where they are offered in
the layout of diffusers: `import_dit(folder, frequency_steps=128)` gives them what they were trained with.
"""


def _dense(ours: str, *theirs: str, inputs: int = 1) -> tuple[Row, Row]:
    return (Row(f'{ours}/kernel', tuple(f'{key}.weight' for key in theirs), kernel(inputs)),
            Row(f'{ours}/bias', tuple(f'{key}.bias' for key in theirs), VECTOR))


def original_layout(model: DiT) -> Layout:
    """The names of facebookresearch/DiT, which SiT and REPA share."""
    return Layout((
        Row('positions', ('pos_embed',), BATCH_OF_ONE),
        Row('patches/kernel', ('x_embedder.proj.weight',), patch_kernel(model.patch)),
        Row('patches/bias', ('x_embedder.proj.bias',), VECTOR),
        Row('labels/embedding', ('y_embedder.embedding_table.weight',), SAME),
        *_dense('time_in', 't_embedder.mlp.0'),
        *_dense('time_out', 't_embedder.mlp.2'),
        *_dense('blocks/modulation', 'blocks.{}.adaLN_modulation.1'),
        *_dense('blocks/attention/qkv', 'blocks.{}.attn.qkv'),
        *_dense('blocks/attention/out', 'blocks.{}.attn.proj', inputs=2),
        *_dense('blocks/mlp/up', 'blocks.{}.mlp.fc1'),
        *_dense('blocks/mlp/out', 'blocks.{}.mlp.fc2'),
        *_dense('modulation', 'final_layer.adaLN_modulation.1'),
        *_dense('head', 'final_layer.linear'),
    ), model.depth)


def diffusers_layout(model: DiT) -> Layout:
    """The names of diffusers' DiTTransformer2DModel, which repeats the embedders in every block."""
    block = 'transformer_blocks.{}.'
    embedder = f'{block}norm1.emb.'
    return Layout((
        Row('patches/kernel', ('pos_embed.proj.weight',), patch_kernel(model.patch)),
        Row('patches/bias', ('pos_embed.proj.bias',), VECTOR),
        Row('labels/embedding', (f'{embedder}class_embedder.embedding_table.weight',), SAME),
        *_dense('time_in', f'{embedder}timestep_embedder.linear_1'),
        *_dense('time_out', f'{embedder}timestep_embedder.linear_2'),
        *_dense('blocks/modulation', f'{block}norm1.linear'),
        *_dense('blocks/attention/qkv', *(f'{block}attn1.to_{part}' for part in 'qkv')),
        *_dense('blocks/attention/out', f'{block}attn1.to_out.0', inputs=2),
        *_dense('blocks/mlp/up', f'{block}ff.net.0.proj'),
        *_dense('blocks/mlp/out', f'{block}ff.net.2'),
        *_dense('modulation', 'proj_out_1'),
        *_dense('head', 'proj_out_2'),
    ), model.depth)


def import_dit(path: str | Path, **options: Any) -> tuple[DiT, Tree]:
    """The network of a weight file and its fp32 parameters; a folder is one that diffusers saved.

    Options replace attributes of the network, such as `dtype` or `heads`. Raises CheckpointError when the file holds
    another architecture or other shapes, UserError when the heads have to be said.
    """
    path = Path(path)
    if path.is_dir():
        state = read_folder(path)
        model = _model_of_config(path / 'config.json', options)
        layout = diffusers_layout(model)
    else:
        # REPA trains projections beside the network and does not sample with them.
        state = {key: tensor for key, tensor in read_weights(path).items() if not key.startswith('projectors.')}
        model = _model_of_weights(state, path, options)
        layout = original_layout(model)
    return model, _load(layout, state, model, path)


def export_original(path: str | Path, model: DiT, params: Tree) -> None:
    """Writes safetensors under the names of facebookresearch/DiT. Raises DiskError when it cannot."""
    write_safetensors(path, original_layout(model).store(_numpy(params)), {'format': 'pt'})


def export_diffusers(folder: str | Path, model: DiT, params: Tree) -> None:
    """Writes a folder for `DiTTransformer2DModel.from_pretrained`.

    Raises UserError where that class would compute something else, DiskError when the folder cannot be written.
    """
    params = _numpy(params)
    if model.size[0] != model.size[1]:
        raise UserError(f'diffusers knows square latents only, not {model.size}; export under the original names')
    if model.frequency_steps != DIFFUSERS_STEPS:
        raise UserError(f'diffusers computes the timestep features with frequency_steps {DIFFUSERS_STEPS}, here are '
                        f'{model.frequency_steps}; export under the original names, or a clone with that number')
    if not np.allclose(params['positions'], sine_cosine_positions(model.grid, model.width), atol=1e-5):
        raise UserError('diffusers has no room for positions other than sines and cosines; '
                        'export under the original names')
    write_json(Path(folder) / 'config.json', _config_of_model(model))
    write_safetensors(Path(folder) / DIFFUSERS_FILES[0], diffusers_layout(model).store(params), {'format': 'pt'})


def _numpy(params: Tree) -> Tree:
    return jax.tree.map(np.asarray, params)


def _load(layout: Layout, state: StateDict, model: DiT, path: Path) -> Tree:
    inputs = jnp.zeros((1, *model.size, model.channels)), jnp.zeros(1), jnp.zeros(1, jnp.int32)
    abstract = jax.eval_shape(model.init, jax.random.key(0), *inputs)['params']
    check_keys(state, layout.shapes(abstract), f'the weights in {path}', _nearest(model))
    fixed = {'positions': sine_cosine_positions(model.grid, model.width)}
    return fixed | layout.load(state, abstract)


def _nearest(model: DiT) -> str:
    """The published network whose trunk is most like that of `model`, in words."""
    def distance(name: str) -> float:
        size, patch = PUBLISHED[name]
        pairs = (size.width, model.width), (size.depth, model.depth), (patch, model.patch)
        return sum(abs(math.log(theirs / ours)) for theirs, ours in pairs)
    return (f'Expected was width {model.width}, depth {model.depth}, patch {model.patch}, {model.classes} classes, '
            f'latents {model.size} of {model.channels} channels; the nearest published network is '
            f'{min(PUBLISHED, key=distance)}')


def _model_of_weights(state: StateDict, path: Path, options: dict[str, Any]) -> DiT:
    layers = {key.split('.')[1] for key in state if re.match(r'blocks\.\d+\.', key)}
    try:
        width, channels, patch, _ = state['x_embedder.proj.weight'].shape
        side = math.isqrt(state['pos_embed'].shape[1]) * patch
        classes = state['y_embedder.embedding_table.weight'].shape[0] - 1
        out_channels = state['final_layer.linear.bias'].shape[0] // patch**2
    except (KeyError, ValueError, IndexError) as error:
        raise CheckpointError(f'{path} holds no DiT in the layout of facebookresearch/DiT ({error}); its tensors begin '
                              f'with {", ".join(sorted(state)[:5])}') from error
    found = {'size': (side, side), 'channels': channels, 'out_channels': out_channels, 'patch': patch, 'width': width,
             'depth': len(layers), 'classes': classes}
    return DiT(**({'heads': _heads(width, options)} | found | options))


def _heads(width: int, options: dict[str, Any]) -> int:
    for size in SIZES.values():
        if size.width == width:
            return size.heads
    if 'heads' not in options:
        raise UserError(f'the number of heads of a network of width {width} cannot be read off its weights; '
                        'say heads=...')
    return options['heads']


def _model_of_config(path: Path, options: dict[str, Any]) -> DiT:
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


def _config_of_model(model: DiT) -> dict[str, Any]:
    return {
        '_class_name': 'DiTTransformer2DModel', 'activation_fn': 'gelu-approximate', 'attention_bias': True,
        'attention_head_dim': model.width // model.heads, 'in_channels': model.channels, 'norm_eps': 1e-6,
        'norm_elementwise_affine': False, 'norm_type': 'ada_norm_zero', 'num_attention_heads': model.heads,
        'num_embeds_ada_norm': model.classes, 'num_layers': model.depth, 'out_channels': model.out_channels,
        'patch_size': model.patch, 'sample_size': model.size[0]}
