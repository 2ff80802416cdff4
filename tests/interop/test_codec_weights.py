import json
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from vqdit.errors import CheckpointError, UserError
from vqdit.interop.codecs import import_codec
from vqdit.tokenizers.padding import in_chunks

GOLDEN = Path(__file__).parent / 'golden'
DAC, ENCODEC = GOLDEN / 'codec_dac', GOLDEN / 'codec_encodec'


def _golden(folder):
    """Arrays with the time in the middle."""
    golden = np.load(folder.with_suffix('.npz'))
    return {name: golden[name].transpose(0, 2, 1) if golden[name].ndim == 3 else golden[name] for name in golden}


@pytest.fixture(scope='module', params=[DAC, ENCODEC], ids=['dac', 'encodec'])
def codec(request):
    """Folder, variables, golden arrays and one compiled program."""
    model, variables = import_codec(request.param)

    @jax.jit
    def run(variables, sound, codes):
        bound = model.bind(variables)
        return bound.encoder(sound), bound.encode(sound), bound.decode(codes)

    return request.param, variables, _golden(request.param), run


def test_a_codec_computes_what_its_peer_computes(codec):
    folder, variables, golden, run = codec
    for name in ('', 'odd_') if folder == ENCODEC else ('',):
        sound = golden['sound'][:, :golden['sound'].shape[1] - (7 if name else 0)]
        latents, codes, decoded = run(variables, sound, golden[f'{name}codes'])
        np.testing.assert_allclose(latents, golden[f'{name}latents'], rtol=0, atol=1e-4)
        np.testing.assert_array_equal(codes, golden[f'{name}codes'])
        np.testing.assert_allclose(decoded[..., 0], golden[f'{name}decoded'], rtol=0, atol=1e-4)
    assert codes.dtype == jnp.int32 and all(len(np.unique(codes[..., level])) > 5 for level in range(3))


def test_an_imported_codebook_trains_on_and_keeps_its_codes():
    """Codes without counts would all count as dead, and most would be replaced by the first step."""
    model, variables = import_codec(DAC)
    counts = [leaf for path, leaf in flatten_dict(variables['codebook']).items() if path[-1] == 'counts']
    assert len(counts) == 3 and all((leaf == 1).all() for leaf in counts)
    sound = _golden(DAC)['sound']
    train = jax.jit(lambda variables: model.apply(variables, sound, train=True, key=jax.random.key(0),
                                                  mutable=['codebook']))
    (_, quantized), changed = train(variables)
    assert all(value == 0 for name, value in quantized.metrics.items() if name.startswith('revived'))
    shifts = [leaf for path, leaf in flatten_dict(changed['codebook']).items() if path[-1] == 'shift']
    assert all((leaf == 0).all() for leaf in shifts)


def test_a_causal_codec_streams():
    """In chunks, its LSTM among it, it gives what it gives in one piece (tokenizers.md, case 39)."""
    model, variables = import_codec(ENCODEC)
    golden = _golden(ENCODEC)
    cuts = [80, 120]
    codes = list(in_chunks(model, variables, jnp.split(golden['sound'], cuts, axis=1), 'encode'))
    np.testing.assert_array_equal(np.concatenate(codes, axis=1), golden['codes'])
    parts = list(in_chunks(model, variables, jnp.split(jnp.asarray(golden['codes']), [8, 12], axis=1), 'decode'))
    np.testing.assert_allclose(np.concatenate(parts, axis=1)[..., 0], golden['decoded'], rtol=0, atol=1e-4)
    with pytest.raises(UserError, match='6 positions'):
        next(in_chunks(model, variables, [golden['sound'][:, :60]], 'encode'))


@pytest.mark.parametrize(('changes', 'said'), [
    ({'model_type': 'xcodec'}, 'xcodec'), ({'n_codebooks': None}, 'no config'),
    ({'n_codebooks': 2}, r'unexpected: quantizer\.quantizers\.'),
    ({'codebook_size': 8}, r'codebook\.weight \(16, 4\) instead of \(8, 4\)')])
def test_folders_of_another_kind_are_refused(tmp_path, changes, said):
    shutil.copytree(DAC, tmp_path, dirs_exist_ok=True)
    config = json.loads((DAC / 'config.json').read_text()) | changes
    (tmp_path / 'config.json').write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=said):
        import_codec(tmp_path)


def test_what_cannot_be_computed_is_refused(tmp_path):
    config = json.loads((ENCODEC / 'config.json').read_text()) | {'norm_type': 'time_group_norm'}
    (tmp_path / 'config.json').write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match='norm_type=time_group_norm'):
        import_codec(tmp_path)
    with pytest.raises(UserError, match=r'config\.json'):
        import_codec(tmp_path / 'nowhere')


@pytest.mark.peers
def test_the_golden_files_are_what_transformers_makes():
    import peers_codecs as peers
    for folder, output in ((DAC, peers.dac_output(peers.dac())), (ENCODEC, peers.encodec_output(peers.encodec()))):
        golden = np.load(folder.with_suffix('.npz'))
        for name, array in output.items():
            np.testing.assert_allclose(golden[name], array, atol=1e-5)
