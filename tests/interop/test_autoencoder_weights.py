import json
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vqdit.errors import CheckpointError, UserError
from vqdit.interop.latent_diffusion import autoencoder_layout, export_autoencoder, import_autoencoder
from vqdit.interop.safetensors_file import read_safetensors, write_safetensors
from vqdit.interop.weights import DIFFUSERS_FILES
from vqdit.tokenizers.latent_diffusion import GaussianAutoencoder

GOLDEN = Path(__file__).parent / 'golden'
GAUSSIAN, CODEBOOK = GOLDEN / 'ldm_gaussian', GOLDEN / 'ldm_codebook'


def _golden(folder):
    """Arrays with the channels last."""
    golden = np.load(folder.with_suffix('.npz'))
    return {name: golden[name].transpose(0, 2, 3, 1) if golden[name].ndim == 4 else golden[name] for name in golden}


def _close(ours, theirs):
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=2e-5)


def test_the_gaussian_autoencoder_computes_what_its_peer_computes():
    (model, params), golden = import_autoencoder(GAUSSIAN), _golden(GAUSSIAN)

    @jax.jit
    def run(images, mean):
        bound = model.bind({'params': params})
        drawn = bound.encode(images, jax.random.key(0))
        return bound.moments(images), bound.encode(images), drawn, bound.decode(mean * model.scale)

    (mean, log_variance), latents, drawn, decoded = run(golden['images'], golden['mean'])
    _close(mean, golden['mean'])
    _close(log_variance, golden['log_variance'])
    _close(latents, golden['mean'] * 0.18215)
    _close(decoded, golden['decoded'])
    noise = (drawn / model.scale - mean) / np.exp(0.5 * log_variance)
    np.testing.assert_allclose(noise, jax.random.normal(jax.random.key(0), mean.shape), atol=1e-3)


def test_the_codebook_autoencoder_computes_what_its_peer_computes():
    (model, params), golden = import_autoencoder(CODEBOOK), _golden(CODEBOOK)

    @jax.jit
    def run(images, codes):
        bound = model.bind({'params': params})
        return bound.latents(images), bound.encode(images), bound.decode(codes)

    latents, codes, decoded = run(golden['images'], golden['codes'][..., None])
    _close(latents, golden['latents'])
    np.testing.assert_array_equal(codes[..., 0], golden['codes'])
    assert codes.dtype == jnp.int32 and len(np.unique(codes)) > 3
    _close(decoded, golden['decoded'])


@pytest.mark.parametrize('folder', [GAUSSIAN, CODEBOOK])
def test_what_was_read_is_written_back_bit_for_bit(tmp_path, folder):
    export_autoencoder(tmp_path, *import_autoencoder(folder))
    jax.tree.map(np.testing.assert_array_equal, *(read_safetensors(path / DIFFUSERS_FILES[0])
                                                  for path in (tmp_path, folder)))
    ours, theirs = (json.loads((path / 'config.json').read_text()) for path in (tmp_path, folder))
    assert {key: theirs[key] for key in ours} == ours


def test_the_autoencoder_of_stable_diffusion():
    model = GaussianAutoencoder()
    abstract = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))['params']
    shapes = autoencoder_layout(abstract).shapes(abstract)
    assert len(shapes) == 248
    assert sum(int(np.prod(shape)) for shape in shapes.values()) == 83_653_863
    assert shapes['decoder.up_blocks.2.resnets.0.conv_shortcut.weight'] == (256, 512, 1, 1)


def test_files_from_before_the_attention_was_renamed(tmp_path):
    shutil.copytree(GAUSSIAN, tmp_path, dirs_exist_ok=True)
    names = {'.to_q.': '.query.', '.to_k.': '.key.', '.to_v.': '.value.', '.to_out.0.': '.proj_attn.'}
    old = {}
    for key, tensor in read_safetensors(GAUSSIAN / DIFFUSERS_FILES[0]).items():
        for new, before in names.items():
            if new in key:
                key, tensor = key.replace(new, before), tensor[..., None, None] if tensor.ndim == 2 else tensor
        old[key] = tensor
    write_safetensors(tmp_path / DIFFUSERS_FILES[0], old)
    jax.tree.map(np.testing.assert_array_equal, import_autoencoder(tmp_path)[1], import_autoencoder(GAUSSIAN)[1])


@pytest.mark.parametrize(('changes', 'said'), [
    ({'_class_name': 'AutoencoderDC'}, 'AutoencoderDC'), ({'shift_factor': 0.1}, 'shifts'),
    ({'block_out_channels': None}, 'no config'),
    ({'layers_per_block': 2}, r'missing: .*encoder\.down_blocks\.\*\.resnets'),
    ({'latent_channels': 5}, r'quant_conv\.weight \(8, 8, 1, 1\) instead of \(10, 10, 1, 1\)')])
def test_folders_of_another_kind_are_refused(tmp_path, changes, said):
    shutil.copytree(GAUSSIAN, tmp_path, dirs_exist_ok=True)
    config = json.loads((GAUSSIAN / 'config.json').read_text()) | changes
    (tmp_path / 'config.json').write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=said):
        import_autoencoder(tmp_path)


def test_a_folder_without_a_config_is_refused(tmp_path):
    with pytest.raises(UserError, match=r'config\.json'):
        import_autoencoder(tmp_path)


@pytest.mark.peers
def test_the_golden_files_are_what_diffusers_makes():
    import peers_latent_diffusion as peers
    for folder, output in ((GAUSSIAN, peers.gaussian_output(peers.gaussian())),
                           (CODEBOOK, peers.codebook_output(peers.codebook()))):
        golden = np.load(folder.with_suffix('.npz'))
        for name, array in output.items():
            np.testing.assert_allclose(golden[name], array, atol=1e-5)
