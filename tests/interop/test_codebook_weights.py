"""Chameleon's and Janus's tokenizers against transformers (tokenizers.md, section 5)."""

import functools
import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from codebook_weights import weights

from vqdit.errors import CheckpointError, UserError
from vqdit.interop.chameleon import WEIGHTS
from vqdit.interop.latent_diffusion import export_autoencoder, import_autoencoder, read_architecture
from vqdit.interop.safetensors_file import write_safetensors

GOLDEN = Path(__file__).parent / 'golden'
CHAMELEON, JANUS = 'codebook_chameleon', 'codebook_janus'


def _golden(name):
    """Arrays with the channels last."""
    golden = np.load(GOLDEN / f'{name}.npz')
    return {key: golden[key].transpose(0, 2, 3, 1) if golden[key].ndim == 4 else golden[key] for key in golden}


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """A folder as transformers saves it, by name."""

    @functools.cache
    def make(name):
        path = tmp_path_factory.mktemp(name)
        shapes = json.loads((GOLDEN / name / 'shapes.json').read_text())
        drawn = {key: weights(key, tuple(shape)) for key, shape in shapes.items()}
        drawn['quantize.embedding.weight'] = np.load(GOLDEN / f'{name}.npz')['codebook']
        write_safetensors(path / WEIGHTS, drawn)
        shutil.copy(GOLDEN / name / 'config.json', path)
        return path

    return make


@pytest.mark.parametrize('name', [CHAMELEON, JANUS])
def test_a_tokenizer_computes_what_its_peer_computes(folder, name):
    (model, params), golden = import_autoencoder(folder(name)), _golden(name)

    @jax.jit
    def run(params, images, codes):
        bound = model.bind({'params': params})
        return bound.latents(images), bound.encode(images), bound.decode(codes) if 'decoder' in params else images

    codes = golden['codes'].reshape(2, 4, 4, 1)
    latents, ours, decoded = run(params, golden['images'], codes.astype(np.int32))
    np.testing.assert_allclose(latents, golden['latents'], rtol=0, atol=1e-4)
    np.testing.assert_array_equal(ours, codes)
    assert len(np.unique(codes)) > 8 and ('decoded' in golden) == ('decoder' in params) == (name == JANUS)
    if name == JANUS:
        np.testing.assert_allclose(decoded, golden['decoded'], rtol=0, atol=1e-4)


def test_what_diffusers_would_decode_as_something_else_is_not_written(folder, tmp_path):
    with pytest.raises(UserError, match='values_of=Cosine'):
        export_autoencoder(tmp_path, *import_autoencoder(folder(JANUS)))


@pytest.mark.parametrize(('name', 'config', 'widths', 'attention'), [
    (JANUS, {}, (128, 128, 256, 256, 512), (False, False, False, False, True)),
    (CHAMELEON, {'resolution': 512, 'attn_resolutions': None}, (128, 128, 256, 256, 512), (False,) * 5),
    (CHAMELEON, {'resolution': 512, 'attn_resolutions': [64, 32]}, (128, 128, 256, 256, 512),
     (False, False, False, True, True))])
def test_published_sizes(tmp_path, name, config, widths, attention):
    published = {'base_channels': 128, 'channel_multiplier': [1, 1, 2, 2, 4], 'num_res_blocks': 2}
    found = json.loads((GOLDEN / name / 'config.json').read_text()) | published | config
    (tmp_path / 'config.json').write_text(json.dumps(found))
    model = read_architecture(tmp_path / 'config.json')
    assert (model.widths, model.attention, model.blocks) == (widths, attention, 2)


@pytest.mark.parametrize(('changes', 'said'), [
    ({'model_type': 'emu3'}, 'emu3.*chameleon_vqgan or janus_vqgan'), ({'attn_type': None}, 'attn_type=None'),
    ({'double_latent': True}, 'double_latent=True'), ({'base_channels': None}, 'no config'),
    ({'num_res_blocks': 2}, r'missing: .*encoder\.down_blocks\.\*\.resnets'),
    ({'num_embeddings': 8}, r'quantize\.embedding\.weight \(16, 3\) instead of \(8, 3\)')])
def test_folders_of_another_kind_are_refused(folder, tmp_path, changes, said):
    shutil.copytree(folder(JANUS), tmp_path, dirs_exist_ok=True)
    config = json.loads((tmp_path / 'config.json').read_text()) | changes
    (tmp_path / 'config.json').write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=said):
        import_autoencoder(tmp_path)


@pytest.mark.peers
def test_the_golden_files_are_what_transformers_makes():
    import peers_codebooks as peers
    for name, model in ((CHAMELEON, peers.chameleon()), (JANUS, peers.janus())):
        golden = np.load(GOLDEN / f'{name}.npz')
        for key, array in peers.output(model).items():
            np.testing.assert_allclose(golden[key], array, atol=1e-5)
