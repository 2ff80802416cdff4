"""Weights of the image DiT from and for other projects: facebookresearch/DiT, SiT, REPA, LightningDiT, and diffusers.

The network is told by the file. The number of heads leaves no trace in the weights unless positions are rotary; it
comes from the published sizes, from the `config.json` of diffusers, or from the caller.
"""

import math
import re
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vqdit.errors import CheckpointError, UserError
from vqdit.files import write_json
from vqdit.interop.diffusers import DIFFUSERS_STEPS, config_of_model, diffusers_layout, model_of_config
from vqdit.interop.layout import BATCH_OF_ONE, SAME, VECTOR, Layout, Row, Tree, check_keys, dense_rows, patch_kernel
from vqdit.interop.lightning import check_turns, head_norm_row, heads_of_turns, parts_of_weights, qkv_rows, turns
from vqdit.interop.safetensors_file import write_safetensors
from vqdit.interop.weights import DIFFUSERS_FILES, StateDict, read_folder, read_weights
from vqdit.models.dit import DiT, sine_cosine_positions
from vqdit.models.parts import HIDDEN, Parts
from vqdit.models.published import LIGHTNING, PUBLISHED, SIZES

PROJECTIONS = 'projectors.'


def original_layout(model: DiT) -> Layout:
    """The names of facebookresearch/DiT, which SiT and REPA share and LightningDiT extends.

    Raises UserError for parts that none of them has.
    """
    _check_original(model)
    block, parts = 'blocks.{}.', model.parts
    scaled, normed = parts.norm == 'scaled_rms', parts.query_norm == 'scaled_rms'
    networks = {'gelu': {'up': 'fc1', 'out': 'fc2'}, 'swiglu': {'gate_up': 'w12', 'out': 'w3'}}[parts.network]
    return Layout((
        Row('positions', ('pos_embed',), BATCH_OF_ONE),
        Row('patches/kernel', ('x_embedder.proj.weight',), patch_kernel(model.patch)),
        Row('patches/bias', ('x_embedder.proj.bias',), VECTOR),
        Row('labels/embedding', ('y_embedder.embedding_table.weight',), SAME),
        *dense_rows('time_in', 't_embedder.mlp.0'),
        *dense_rows('time_out', 't_embedder.mlp.2'),
        *dense_rows('blocks/modulation', f'{block}adaLN_modulation.1'),
        *qkv_rows(model),
        *dense_rows('blocks/attention/out', f'{block}attn.proj', inputs=2),
        *(row for ours, theirs in networks.items() for row in dense_rows(f'blocks/mlp/{ours}', f'{block}mlp.{theirs}')),
        *(Row(f'blocks/{norm}/scale', (f'{block}{norm}.weight',), SAME) for norm in ('norm1', 'norm2') if scaled),
        *(head_norm_row(model, name) for name in ('query', 'key') if normed),
        *(Row('norm/scale', ('final_layer.norm_final.weight',), SAME) for _ in range(scaled)),
        *dense_rows('modulation', 'final_layer.adaLN_modulation.1'),
        *dense_rows('head', 'final_layer.linear'),
    ), model.depth)


def import_dit(path: str | Path, **options: Any) -> tuple[DiT, Tree]:
    """The network of a weight file and its fp32 parameters; a folder is one that diffusers saved.

    Options replace attributes of the network, such as `dtype` or `heads`. Raises CheckpointError when the file holds
    another architecture or other shapes, UserError when the heads have to be said.
    """
    path = Path(path)
    if path.is_dir():
        state = read_folder(path)
        model = model_of_config(path / 'config.json', options)
        layout = diffusers_layout(model)
    else:
        state = {key: tensor for key, tensor in read_weights(path).items() if not key.startswith(PROJECTIONS)}
        model = _model_of_weights(state, path, options)
        layout = original_layout(model)
    return model, _load(layout, state, model, path)


def import_projections(path: str | Path) -> StateDict:
    """What REPA trains beside the network, and does not sample with, under its own names."""
    return {key: tensor for key, tensor in read_weights(path).items() if key.startswith(PROJECTIONS)}


def export_original(path: str | Path, model: DiT, params: Tree, projections: StateDict | None = None) -> None:
    """Writes safetensors under the names of facebookresearch/DiT, with the `projections` that REPA asks for.

    Raises UserError for parts that no published network has, DiskError when it cannot write.
    """
    state = original_layout(model).store(_numpy(params)) | turns(model) | dict(projections or {})
    write_safetensors(path, state, {'format': 'pt'})


def export_diffusers(folder: str | Path, model: DiT, params: Tree) -> None:
    """Writes a folder for `DiTTransformer2DModel.from_pretrained`.

    Raises UserError where that class would compute something else, DiskError when the folder cannot be written.
    """
    params = _numpy(params)
    _check_original(model)
    if model.parts != Parts():
        raise UserError(f'diffusers knows the published blocks only, not {model.parts}; export under the original '
                        'names')
    if model.size[0] != model.size[1]:
        raise UserError(f'diffusers knows square latents only, not {model.size}; export under the original names')
    if model.frequency_steps != DIFFUSERS_STEPS:
        raise UserError(f'diffusers computes the timestep features with frequency_steps {DIFFUSERS_STEPS}, here are '
                        f'{model.frequency_steps}; export under the original names, or a clone with that number')
    if not np.allclose(params['positions'], sine_cosine_positions(model.grid, model.width), atol=1e-5):
        raise UserError('diffusers has no room for positions other than sines and cosines; '
                        'export under the original names')
    write_json(Path(folder) / 'config.json', config_of_model(model))
    write_safetensors(Path(folder) / DIFFUSERS_FILES[0], diffusers_layout(model).store(params), {'format': 'pt'})


def _check_original(model: DiT) -> None:
    """Raises UserError that lists all that no published network has."""
    parts, plain = model.parts, {'registers': model.registers, 'context': model.context, 'strides': model.strides}
    foreign = [name for name, value in plain.items() if value]
    for name, known in {'norm': ('layer', 'scaled_rms'), 'query_norm': ('none', 'scaled_rms'), 'dense': ('biased',),
                        'modulation': ('own', 'own_scales'), 'positions': ('table', 'both')}.items():
        if getattr(parts, name) not in known:
            foreign.append(f'{name} "{getattr(parts, name)}"')
    if parts.positions == 'both' and parts.frequencies != 'text':
        foreign.append(f'frequencies "{parts.frequencies}"')
    if foreign:
        raise UserError(f'no published network has {", ".join(foreign)}, and its weight files have no room for it; '
                        'keep such a network as a checkpoint of its own')


def _numpy(params: Tree) -> Tree:
    return jax.tree.map(np.asarray, params)


def _load(layout: Layout, state: StateDict, model: DiT, path: Path) -> Tree:
    inputs = jnp.zeros((1, *model.size, model.channels)), jnp.zeros(1), jnp.zeros(1, jnp.int32)
    abstract = jax.eval_shape(model.init, jax.random.key(0), *inputs)['params']
    tables = {name: table.shape for name, table in turns(model).items()}
    check_keys(state, {**layout.shapes(abstract), **tables}, f'the weights in {path}', _nearest(model))
    check_turns(state, model, path)
    fixed = {'positions': sine_cosine_positions(model.grid, model.width)}
    return fixed | layout.load(state, abstract)


def _nearest(model: DiT) -> str:
    """The published network whose trunk is most like that of `model`, in words."""
    networks = LIGHTNING if model.parts.network == 'swiglu' else PUBLISHED

    def distance(name: str) -> float:
        size, patch = networks[name]
        pairs = (size.width, model.width), (size.depth, model.depth), (patch, model.patch)
        return sum(abs(math.log(theirs / ours)) for theirs, ours in pairs)
    return (f'Expected was width {model.width}, depth {model.depth}, patch {model.patch}, {model.classes} classes, '
            f'latents {model.size} of {model.channels} channels; the nearest published network is '
            f'{min(networks, key=distance)}')


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
    parts = parts_of_weights(state, width)
    found = {'size': (side, side), 'channels': channels, 'out_channels': out_channels, 'patch': patch, 'width': width,
             'depth': len(layers), 'classes': classes, 'parts': parts, 'hidden': _hidden(state, width, parts)}
    return DiT(**({'heads': heads_of_turns(state, width) or _heads(width, options)} | found | options))


def _hidden(state: StateDict, width: int, parts: Parts) -> int | None:
    """The hidden width of the networks, None where it is the usual one."""
    kernel = state.get(f'blocks.0.mlp.{"w3" if parts.network == "swiglu" else "fc2"}.weight')
    hidden = kernel.shape[-1] if kernel is not None and kernel.ndim else None
    return None if hidden == int(width * HIDDEN[parts.network]) else hidden


def _heads(width: int, options: dict[str, Any]) -> int:
    for size in SIZES.values():
        if size.width == width:
            return size.heads
    if 'heads' not in options:
        raise UserError(f'the number of heads of a network of width {width} cannot be read off its weights; '
                        'say heads=...')
    return options['heads']
