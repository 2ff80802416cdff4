"""Published autoencoders: folders that diffusers saved of an AutoencoderKL or a VQModel, both ways.

Those that transformers saved of a ChameleonVQVAE or a JanusVQVAE are read; see `chameleon`.
"""

import functools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict

from vqdit.errors import CheckpointError, UserError
from vqdit.files import read_json, write_json
from vqdit.interop import chameleon
from vqdit.interop.layout import SAME, Conversion, Layout, Row, Tree, check_keys, kernel
from vqdit.interop.safetensors_file import write_safetensors
from vqdit.interop.weights import DIFFUSERS_FILES, StateDict, read_folder, read_weights
from vqdit.tokenizers.latent_diffusion import CodebookAutoencoder, GaussianAutoencoder
from vqdit.tokenizers.quantizers.metrics import Euclidean

CONVOLUTION = Conversion(lambda x: x.transpose(3, 2, 0, 1), lambda y, shape: y.transpose(2, 3, 1, 0))

LEAVES = {'kernel': 'weight', 'scale': 'weight', 'bias': 'bias', 'embedding': 'embedding.weight'}

OLD_ATTENTION = {'query': 'to_q', 'key': 'to_k', 'value': 'to_v', 'proj_attn': 'to_out.0'}
"""Names that files from before diffusers 0.14 have, those of Stable Diffusion among them."""

Autoencoder = GaussianAutoencoder | CodebookAutoencoder


def autoencoder_layout(params: Tree) -> Layout:
    """The names of diffusers, which are the paths of (abstract) parameters with other words for the leaves."""
    rows = []
    for path, leaf in flatten_dict(params, sep='/').items():
        *modules, name = path.split('/')
        conversion = CONVOLUTION if len(leaf.shape) == 4 else kernel() if name == 'kernel' else SAME
        rows.append(Row(path, ('.'.join([*modules, LEAVES[name]]),), conversion))
    return Layout(tuple(rows), 1)


def import_autoencoder(folder: str | Path) -> tuple[Autoencoder, Tree]:
    """The autoencoder in a folder of diffusers or transformers and its fp32 parameters.

    Raises UserError when the folder has no config, CheckpointError when it holds another architecture or shapes.
    """
    folder = Path(folder)
    if not (folder / 'config.json').is_file():
        raise UserError(f'there is no {folder / "config.json"}; a folder of diffusers has it beside its weights')
    model, kind = read_architecture(folder / 'config.json'), read_json(folder / 'config.json').get('model_type')
    if kind:
        decodes = kind != chameleon.CHAMELEON
        state = chameleon.codebook_state(read_weights(folder / chameleon.WEIGHTS), decodes)
        return model, _load(model, state, folder, '__call__' if decodes else 'encode')
    state = {_new_name(key): tensor for key, tensor in read_folder(folder).items()}
    return model, _load(model, state, folder)


def export_autoencoder(folder: str | Path, model: Autoencoder, params: Tree) -> None:
    """Writes a folder for `from_pretrained` of diffusers.

    Raises DiskError when it cannot be written, UserError for code vectors that diffusers would decode as others.
    """
    params = jax.tree.map(np.asarray, params)
    write_architecture(Path(folder) / 'config.json', model)
    write_safetensors(Path(folder) / DIFFUSERS_FILES[0], autoencoder_layout(params).store(params), {'format': 'pt'})


def _load(model: Autoencoder, state: StateDict, folder: Path, method: str = '__call__') -> Tree:
    """The parameters that `method` needs."""
    side = 2 ** len(model.widths)
    images = jnp.zeros((1, side, side, model.channels))
    abstract = jax.eval_shape(functools.partial(model.init, method=method), jax.random.key(0), images)['params']
    layout = autoencoder_layout(abstract)
    # Old files keep the matrices of attention as convolutions of one position.
    state = {key: tensor[..., 0, 0] if '.to_' in key and tensor.ndim == 4 else tensor for key, tensor in state.items()}
    check_keys(state, layout.shapes(abstract), f'the weights in {folder}',
               f'Expected was what config.json says: {type(model).__name__} of widths {model.widths}')
    return layout.load(state, abstract)


def _new_name(key: str) -> str:
    parts = [OLD_ATTENTION.get(part, part) if '.attentions.' in key else part for part in key.split('.')]
    return '.'.join(parts)


def read_architecture(path: Path) -> Autoencoder:
    """The network that a `config.json` of diffusers or transformers describes.

    Raises CheckpointError for one that is not known.
    """
    config = read_json(path)
    try:
        if config.get('model_type') in (chameleon.CHAMELEON, chameleon.JANUS):
            return chameleon.codebook_autoencoder(config)
        kind = config.get('model_type') or config['_class_name']
        if kind not in ('AutoencoderKL', 'VQModel'):
            raise CheckpointError(f'{path} describes a {kind}; only an AutoencoderKL, a VQModel, '
                                  f'{chameleon.CHAMELEON} or {chameleon.JANUS} fits here')
        if config.get('shift_factor') or config.get('latents_mean'):
            raise CheckpointError(f'{path} shifts its latents, which is not supported; only scaling is')
        shape = {'widths': tuple(config['block_out_channels']), 'blocks': config['layers_per_block'],
                 'attention': tuple(name.startswith('Attn') for name in config['down_block_types']),
                 'groups': config['norm_num_groups'], 'channels': config['in_channels'],
                 'latent_channels': config['latent_channels']}
        if kind == 'AutoencoderKL':
            return GaussianAutoencoder(**shape, scale=config.get('scaling_factor', 0.18215))
        dimension = config.get('vq_embed_dim') or config['latent_channels']
        return CodebookAutoencoder(**shape, num_codes=config['num_vq_embeddings'], dimension=dimension)
    except (KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f'{path} is no config of an autoencoder ({error})') from error


def write_architecture(path: Path, model: Autoencoder) -> None:
    """Writes what `read_architecture` reads. Raises as `export_autoencoder` does."""
    write_json(path, _config(model))


def _config(model: Autoencoder) -> dict[str, Any]:
    down = ['AttnDownEncoderBlock2D' if attention else 'DownEncoderBlock2D' for attention in model.attention]
    up = ['AttnUpDecoderBlock2D' if attention else 'UpDecoderBlock2D' for attention in model.attention[::-1]]
    config = {'act_fn': 'silu', 'block_out_channels': list(model.widths), 'down_block_types': down,
              'in_channels': model.channels, 'latent_channels': model.latent_channels,
              'layers_per_block': model.blocks, 'norm_num_groups': model.groups, 'out_channels': model.channels,
              'up_block_types': up}
    if isinstance(model, GaussianAutoencoder):
        return {'_class_name': 'AutoencoderKL', **config, 'scaling_factor': model.scale}
    if model.values_of != Euclidean():
        raise UserError('a VQModel of diffusers decodes code vectors as they are, but this network takes '
                        f'values_of={model.values_of}; keep it in the format that it came in')
    return {'_class_name': 'VQModel', **config, 'num_vq_embeddings': model.num_codes, 'vq_embed_dim': model.dimension}
