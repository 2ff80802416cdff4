"""Published codecs of sound: folders that transformers saved of a DacModel or an EncodecModel.

The codes of our levels are in the last axis, [B, frames, levels], where theirs are [B, levels, frames].
"""

from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from vqdit.errors import CheckpointError, UserError
from vqdit.files import read_json
from vqdit.interop.codec_rows import Config, Rows
from vqdit.interop.dac import dac, dac_rows
from vqdit.interop.encodec import encodec, encodec_rows, encodec_state
from vqdit.interop.layout import Layout, Tree, check_keys
from vqdit.interop.weights import StateDict, read_weights
from vqdit.tokenizers.codec import EncoderDecoder

WEIGHTS = 'model.safetensors'


def import_codec(folder: str | Path) -> tuple[EncoderDecoder, Tree]:
    """The codec in a folder of transformers and its variables, fp32.

    Raises UserError when the folder has no config, CheckpointError when it holds another architecture or shapes.
    """
    folder = Path(folder)
    if not (folder / 'config.json').is_file():
        raise UserError(f'there is no {folder / "config.json"}; a folder of transformers has it beside {WEIGHTS}')
    config = read_json(folder / 'config.json')
    kind = config.get('model_type')
    if kind not in CODECS:
        raise CheckpointError(f'{folder} holds a model of type "{kind}"; only {", ".join(CODECS)} fit here')
    build, rows, prepare = CODECS[kind]
    try:
        model = build(config)
    except (KeyError, TypeError) as error:
        raise CheckpointError(f'{folder / "config.json"} is no config of a codec ({error})') from error
    state = prepare(_without_weight_norm(read_weights(folder / WEIGHTS)))
    return model, _load(model, Layout(tuple(rows(model)), 1), state, folder)


def _load(model: EncoderDecoder, layout: Layout, state: StateDict, folder: Path) -> Tree:
    trunk = model.encoder.trunk  # type: ignore[attr-defined]
    sound = jnp.zeros((1, 2 * trunk.hop, model.decoder.channels))
    abstract = jax.eval_shape(model.init, jax.random.key(0), sound)
    check_keys(state, layout.shapes(abstract), f'the weights in {folder}', 'Expected was what config.json says')
    loaded = flatten_dict(layout.load(state, abstract), sep='/')
    # What trains a codebook on: it has started, each code has a token, and one placed by its vector has no shift.
    rest = {path: np.full(leaf.shape, path.endswith(('initialised', 'counts')), leaf.dtype)
            for path, leaf in flatten_dict(abstract, sep='/').items() if path not in loaded}
    return unflatten_dict(rest | loaded, sep='/')


def _without_weight_norm(state: StateDict) -> dict[str, np.ndarray]:
    """Weights w = g v / |v|, with the norm over all axes but the first, where a file keeps g and v."""
    folded = dict(state)
    for gain, direction in (('parametrizations.weight.original0', 'parametrizations.weight.original1'),
                            ('weight_g', 'weight_v')):
        for key in [key for key in state if key.endswith(f'.{gain}')]:
            name = key.removesuffix(gain)
            v = folded.pop(name + direction)
            norm = np.sqrt(np.sum(np.square(v, dtype=np.float64), axis=tuple(range(1, v.ndim)), keepdims=True))
            folded[f'{name}weight'] = (folded.pop(key) * v / norm).astype(np.float32)
    return folded


Builder = Callable[[Config], EncoderDecoder]
CODECS: dict[str, tuple[Builder, Callable[[EncoderDecoder], Rows], Callable[[StateDict], StateDict]]] = {
    'dac': (dac, dac_rows, lambda state: state), 'encodec': (encodec, encodec_rows, encodec_state)}
"""For every type: how a config becomes a codec, the table of its weights, and what is done to them before."""
