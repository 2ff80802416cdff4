import json
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vqdit.errors import CheckpointError, UserError
from vqdit.interop.diffusers import DIFFUSERS_STEPS, diffusers_layout
from vqdit.interop.dit import export_diffusers, export_original, import_dit, import_projections, original_layout
from vqdit.interop.safetensors_file import read_safetensors, write_safetensors
from vqdit.interop.weights import DIFFUSERS_FILES, read_weights
from vqdit.models.parts import Parts
from vqdit.models.published import published_dit

GOLDEN = Path(__file__).parent / 'golden'
ORIGINAL, DIFFUSERS = GOLDEN / 'dit_original.pt', GOLDEN / 'dit_diffusers'


def _abstract(model):
    inputs = jnp.zeros((1, *model.size, model.channels)), jnp.zeros(1), jnp.zeros(1, jnp.int32)
    return jax.eval_shape(model.init, jax.random.key(0), *inputs)['params']


def _changed(path, **changes):
    """Saves the weights of the golden file with some replaced; None takes one away."""
    state = dict(read_weights(ORIGINAL)) | changes
    write_safetensors(path, {key: value for key, value in state.items() if value is not None})
    return path


@pytest.mark.parametrize(('path', 'options', 'tolerance'), [(ORIGINAL, {'heads': 2}, 2e-5), (DIFFUSERS, {}, 1e-4)])
def test_the_network_computes_what_its_peer_computes(path, options, tolerance):
    """Timesteps of hundreds magnify the last digits of angles; diffusers also adds 1e-5 to the variance before the MLP,
    where the original and all other norms add 1e-6: 1.3e-5 of the difference here.
    """
    model, params = import_dit(path, **options)
    golden = np.load(GOLDEN / f'{path.stem}.npz')
    latents = golden['latents'].transpose(0, 2, 3, 1)
    output = jax.jit(model.apply)({'params': params}, latents, golden['timesteps'], golden['labels'].astype(np.int32))
    assert np.abs(golden['output']).max() > 1
    np.testing.assert_allclose(output, golden['output'].transpose(0, 2, 3, 1), rtol=0, atol=tolerance)


def test_what_was_read_is_written_back_bit_for_bit(tmp_path):
    model, params = import_dit(ORIGINAL, heads=2)
    export_original(tmp_path / 'dit.safetensors', model, params)
    state = read_weights(tmp_path / 'dit.safetensors')
    jax.tree.map(np.testing.assert_array_equal, state, dict(read_weights(ORIGINAL)))
    again, same = import_dit(tmp_path / 'dit.safetensors', heads=2)
    assert again == model
    jax.tree.map(np.testing.assert_array_equal, same, params)


def test_folders_of_diffusers_are_written_back_bit_for_bit(tmp_path):
    model, params = import_dit(DIFFUSERS)
    export_diffusers(tmp_path, model, params)
    jax.tree.map(np.testing.assert_array_equal, *(read_safetensors(folder / DIFFUSERS_FILES[0])
                                                  for folder in (tmp_path, DIFFUSERS)))
    ours, theirs = (json.loads((folder / 'config.json').read_text()) for folder in (tmp_path, DIFFUSERS))
    assert {key: theirs[key] for key in ours if key != 'norm_eps'} == {
        key: value for key, value in ours.items() if key != 'norm_eps'}


def test_the_network_is_told_by_the_file():
    model, params = import_dit(ORIGINAL, heads=2, dtype=jnp.bfloat16)
    assert (model.size, model.channels, model.out_channels, model.patch) == ((6, 6), 4, 8, 2)
    assert (model.width, model.depth, model.classes, model.frequency_steps) == (16, 2, 3, 128)
    assert model.dtype == jnp.bfloat16
    assert jax.tree.map(lambda a, b: a.shape == b.shape and a.dtype == np.float32, _abstract(model), params)
    assert import_dit(DIFFUSERS)[0] == model.clone(dtype=jnp.float32, frequency_steps=DIFFUSERS_STEPS)


def test_the_layouts_of_xl_2():
    model = published_dit('DiT-XL/2')
    original, theirs = (layout(model).shapes(_abstract(model)) for layout in (original_layout, diffusers_layout))
    assert sum(int(np.prod(shape)) for shape in original.values()) == 675_129_632
    assert len(original) == 28 * 10 + 12
    assert original['blocks.27.attn.qkv.weight'] == (3 * 1152, 1152)
    assert original['x_embedder.proj.weight'] == (1152, 4, 2, 2)
    assert theirs['transformer_blocks.27.attn1.to_v.weight'] == (1152, 1152)
    assert theirs['transformer_blocks.27.norm1.emb.class_embedder.embedding_table.weight'] == (1001, 1152)


def test_all_misfits_are_told_at_once(tmp_path):
    path = _changed(tmp_path / 'x', **{
        'blocks.0.attn.qkv.bias': None, 'blocks.1.attn.qkv.bias': None, 'final_layer.linear.weight': np.zeros((5, 16)),
        'blocks.1.extra': np.zeros(1), 'other': np.zeros(1)})
    with pytest.raises(CheckpointError) as caught:
        import_dit(path, heads=2)
    for said in (r'missing: blocks.*.attn.qkv.bias (2 times)', 'unexpected: blocks.*.extra, other',
                 'final_layer.linear.weight (5, 16) instead of (32, 16)', 'nearest published network is DiT-S/2'):
        assert said in str(caught.value)


def test_projections_of_repa_are_left_out_and_put_back(tmp_path):
    path = _changed(tmp_path / 'x', **{'projectors.0.0.weight': np.ones((2, 16), np.float32)})
    model, params = import_dit(path, heads=2)
    jax.tree.map(np.testing.assert_array_equal, params, import_dit(ORIGINAL, heads=2)[1])
    export_original(tmp_path / 'y', model, params, import_projections(path))
    jax.tree.map(np.testing.assert_array_equal, dict(read_weights(tmp_path / 'y')), dict(read_weights(path)))


def test_half_precision_is_read_as_float32(tmp_path):
    table = jnp.asarray(np.random.default_rng(0).normal(size=(4, 16)), jnp.bfloat16)
    path = _changed(tmp_path / 'x', **{'y_embedder.embedding_table.weight': np.asarray(table)})
    read = import_dit(path, heads=2)[1]['labels']['embedding']
    assert read.dtype == np.float32
    np.testing.assert_array_equal(read, table.astype(jnp.float32))


def test_another_architecture_is_refused(tmp_path):
    write_safetensors(tmp_path / 'x', {'encoder.conv_in.weight': np.zeros((3, 3))})
    with pytest.raises(CheckpointError, match=r'holds no DiT.*encoder\.conv_in\.weight'):
        import_dit(tmp_path / 'x')
    with pytest.raises(UserError, match='heads=') as caught:
        import_dit(ORIGINAL)
    assert 'width 16' in str(caught.value)


@pytest.mark.parametrize(('changes', 'said'), [
    ({'_class_name': 'UNet2DModel'}, 'UNet2DModel'), ({'num_layers': 10**9}, 'no config'),
    ({'patch_size': -1}, 'no config'), ({'in_channels': None}, 'no config'),
    ({'num_layers': 3}, r'missing: transformer_blocks\.\*\.attn1')])
def test_folders_of_another_kind_are_refused(tmp_path, changes, said):
    shutil.copytree(DIFFUSERS, tmp_path, dirs_exist_ok=True)
    config = json.loads((DIFFUSERS / 'config.json').read_text()) | changes
    (tmp_path / 'config.json').write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=said):
        import_dit(tmp_path)


def test_layers_with_embedders_of_their_own_are_refused(tmp_path):
    """diffusers keeps a copy in every block, and training there lets the copies part."""
    shutil.copytree(DIFFUSERS, tmp_path, dirs_exist_ok=True)
    state = dict(read_safetensors(DIFFUSERS / DIFFUSERS_FILES[0]))
    key = 'transformer_blocks.1.norm1.emb.timestep_embedder.linear_1.bias'
    write_safetensors(tmp_path / DIFFUSERS_FILES[0], state | {key: state[key] + 1})
    with pytest.raises(CheckpointError, match=r'timestep_embedder\.linear_1\.bias'):
        import_dit(tmp_path)


@pytest.mark.parametrize(('attributes', 'positions', 'said'), [
    ({'frequency_steps': 128}, 0, 'frequency_steps'),
    ({'parts': Parts('scaled_rms')}, 0, 'published blocks only'), ({'size': (6, 4)}, 0, 'square'),
    ({}, 1, 'positions')])
def test_what_diffusers_would_compute_otherwise_is_not_exported(tmp_path, attributes, positions, said):
    model, params = import_dit(DIFFUSERS)
    with pytest.raises(UserError, match=said):
        export_diffusers(tmp_path, model.clone(**attributes), params | {'positions': params['positions'] + positions})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('content', [b'', b'\x10' * 40, b'\xff' * 8 + b'{}', (2).to_bytes(8, 'little') + b'[]'])
def test_damaged_safetensors_are_refused(tmp_path, content):
    (tmp_path / 'x.safetensors').write_bytes(content)
    with pytest.raises(CheckpointError, match='no safetensors file'):
        read_weights(tmp_path / 'x.safetensors')


def test_numbers_that_numpy_does_not_know_are_refused(tmp_path):
    header = json.dumps({'x': {'dtype': 'F8_E4M3', 'shape': [4], 'data_offsets': [0, 4]}}).encode()
    (tmp_path / 'x.safetensors').write_bytes(len(header).to_bytes(8, 'little') + header + bytes(4))
    with pytest.raises(CheckpointError, match=r'x\.safetensors holds numbers .*fp32'):
        read_weights(tmp_path / 'x.safetensors')


def test_transposed_arrays_are_written_as_they_read(tmp_path):
    x = np.arange(6.0).reshape(2, 3).T
    write_safetensors(tmp_path / 'x', {'x': x}, {'format': 'pt'})
    np.testing.assert_array_equal(read_safetensors(tmp_path / 'x')['x'], x)


@pytest.mark.peers
def test_the_golden_files_are_what_the_peers_make():
    import peers_dit
    for name, model in (('dit_original', peers_dit.original()), ('dit_diffusers', peers_dit.from_diffusers())):
        np.testing.assert_allclose(np.load(GOLDEN / f'{name}.npz')['output'], peers_dit.output(model), atol=1e-5)
    state = peers_dit.original().state_dict()
    jax.tree.map(np.testing.assert_array_equal, dict(read_weights(ORIGINAL)), {k: v.numpy() for k, v in state.items()})


@pytest.mark.peers
def test_diffusers_runs_what_was_exported(tmp_path):
    import peers_dit
    model, params = import_dit(DIFFUSERS)
    params = jax.tree.map(lambda leaf: leaf[..., ::-1].copy(), params | {'positions': None}) | {
        'positions': params['positions']}
    export_diffusers(tmp_path, model, params)
    theirs = peers_dit.diffusers.DiTTransformer2DModel.from_pretrained(tmp_path).eval()
    given = peers_dit.inputs()
    ours = model.apply({'params': params}, given['latents'].transpose(0, 2, 3, 1), given['timesteps'],
                       given['labels'].astype(np.int32))
    np.testing.assert_allclose(ours, peers_dit.output(theirs).transpose(0, 2, 3, 1), rtol=0, atol=2e-5)
