"""Every kind of tokenizer from its config: it trains, and then keeps the laws of tokenizers."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from vqdit.data import load
from vqdit.errors import UserError
from vqdit.tokenizers.codec import EncoderDecoder
from vqdit.tokenizers.latent_codec import LatentDecoder, LatentEncoder, LatentTrunk
from vqdit.tokenizers.latent_diffusion import CodebookAutoencoder
from vqdit.tokenizers.latent_statistics import latents_of
from vqdit.tokenizers.quantizers import Identity
from vqdit.training.codec_defaults import (
    film_tokenizer,
    latent_tokenizer,
    query_tokenizer,
    vocoder_tokenizer,
    waveform_tokenizer,
)
from vqdit.training.codecs import KINDS
from vqdit.training.defaults import defaults, log_mel_tokenizer, pixels_tokenizer
from vqdit.training.factory import build_learned_tokenizer
from vqdit.training.pipeline import check_config
from vqdit.training.tokenizer_training import build_training, freeze

SCALARS = {'name': 'finite_scalar', 'scalar_levels': (5, 5)}
LEVELS = {'name': 'residual', 'copies': 2, 'dropout': 0.5, 'quantizer': {'name': 'vector', 'num_codes': 16,
                                                                         'dimension': 4, 'metric': 'euclidean'}}
HEARD = ConfigDict({'mel': {'weight': 1.0, 'windows': (64,), 'bands': (8,)}})
STEPS, BATCH = 8, 8
QUICK = {'xla_backend_optimization_level': 0}


def _pixels():
    return 'image', pixels_tokenizer(4, (8,), SCALARS), {
        'bound': 'tanh', 'squared_weight': 0.0, 'losses': ConfigDict({'binary_cross_entropy': 1.0})}


def _latent():
    return 'image', latent_tokenizer((4, 8), (False, True), 6, {
        'name': 'vector', 'num_codes': 16, 'dimension': 4, 'codebook': 'gradient'}), {'blocks': 1, 'groups': 2}


def _query():
    return 'image', query_tokenizer(8, 5, 8, 1, 2, SCALARS), {}


def _film():
    return 'video', film_tokenizer((2, 4, 4), (8,), SCALARS), {'blocks': 1, 'control': 'adaptive_group_norm'}


def _log_mel():
    return 'audio', log_mel_tokenizer(2, (8,), SCALARS), {'window': 64, 'hop': 32, 'bands': 8, 'blocks': 1, 'heads': 2}


def _vocoder():
    return 'audio', vocoder_tokenizer(2, 8, SCALARS), {
        'window': 64, 'hop': 32, 'bands': 8, 'blocks': 1, 'losses': HEARD}


def _waveform():
    return 'audio', waveform_tokenizer((10,), 4, LEVELS), {'activation': 'elu', 'losses': HEARD}


GRIDS = {'pixels': (4, 4), 'latent': (8, 8), 'query': (5,), 'film': (3, 4, 4), 'log_mel': (5,), 'vocoder': (5,),
         'waveform': (32,)}
MADE = {'pixels': _pixels, 'latent': _latent, 'query': _query, 'film': _film, 'log_mel': _log_mel, 'vocoder': _vocoder,
        'waveform': _waveform}


def _config(kind: str) -> tuple[str, ConfigDict]:
    modality, section, options = MADE[kind]()
    section.update(options)
    section.training.update(steps=STEPS, batch_size=BATCH, warmup_steps=0, learning_rate=1e-2, ema_decay=0.5)
    config = defaults()
    config.data = ConfigDict({'source': 'world', 'train_examples': BATCH, 'test_examples': BATCH, 'image': {'size': 16},
                              'video': {'frames': 5, 'size': 16}, 'audio': {'rate': 4000, 'seconds': 0.08}})
    config.tokenizers = ConfigDict({modality: section})
    return modality, config


@functools.cache
def _trained(kind: str):
    """The frozen tokenizer, its data, and the losses of its training."""
    modality, config = _config(kind)
    check_config(config)
    tokenizer, examples = build_learned_tokenizer(config, modality), load(config.data, 'train', (modality,))
    training, raw = build_training(config, modality, tokenizer), np.stack([examples[i][modality] for i in range(BATCH)])

    @jax.jit
    def run(batch, key):
        step = lambda state, _: training.step(state, batch, key)
        state, metrics = jax.lax.scan(step, training.create(tokenizer.init(key), key), length=STEPS)
        return state, metrics['loss']

    state, losses = run({modality: raw}, jax.random.key(1))
    frozen = freeze(tokenizer, state)
    frozen.batch_size = BATCH
    return frozen, raw, np.asarray(losses)


# Compiling their steps takes a minute together.
every_kind = pytest.mark.parametrize(
    'kind', [kind if kind == 'film' else pytest.param(kind, marks=pytest.mark.slow) for kind in MADE])


def test_every_kind_is_tested():
    assert set(MADE) == set(KINDS)


@pytest.mark.parametrize('kind', MADE)
def test_a_step_changes_no_shape_and_has_a_loss(kind):
    modality, config = _config(kind)
    tokenizer, key = build_learned_tokenizer(config, modality), jax.random.key(0)
    training, raw = build_training(config, modality, tokenizer), load(config.data, 'train', (modality,))[0][modality]
    state = jax.eval_shape(lambda: training.create(tokenizer.init(key), key))
    batch = {modality: jax.ShapeDtypeStruct((BATCH, *raw.shape), raw.dtype)}
    after, metrics = jax.eval_shape(training.step, state, batch, key)
    assert after == state and metrics['loss'].shape == () and tokenizer.spec.grid == GRIDS[kind]


@every_kind
def test_it_learns(kind):
    _, _, losses = _trained(kind)
    assert np.isfinite(losses).all() and losses[-1] < 0.95 * losses[0]


@every_kind
def test_it_has_its_layout_and_gives_data_back(kind):
    frozen, raw, _ = _trained(kind)
    codes = frozen.encode(raw)
    assert frozen.spec.grid == GRIDS[kind] and codes.shape == (BATCH, frozen.spec.length)
    assert codes.min() >= 0 and codes.max() < frozen.spec.num_codes and len(np.unique(codes)) > 1
    decoded = frozen.decode(codes)
    assert decoded.shape == raw.shape and decoded.dtype == raw.dtype and np.isfinite(decoded).all()


@every_kind
def test_tokens_alone_are_those_in_a_batch_and_in_a_padded_one(kind):
    """tokenizers.md, case 38."""
    frozen, raw, _ = _trained(kind)
    codes = frozen.encode(raw)
    np.testing.assert_array_equal(frozen.encode(raw[:3]), codes[:3])
    alone = jax.jit(frozen.tokenizer.encode)(frozen.variables, raw[2:3])
    np.testing.assert_array_equal(alone, codes[2:3])


@every_kind
def test_codes_stand_for_the_vectors_of_the_latents(kind):
    frozen, raw, _ = _trained(kind)
    codec, spec = frozen.tokenizer.autoencoder, frozen.spec
    codes = frozen.encode(raw).reshape(BATCH, *spec.grid, spec.levels)
    _, vectors = latents_of(frozen, raw)
    np.testing.assert_array_equal(jax.jit(lambda v, c: codec.apply(v, c, method='lookup'))(frozen.variables, codes),
                                  vectors)


@pytest.mark.slow
def test_a_published_layout_takes_a_step():
    modality, config = _config('latent')
    config.data.image.size = 4
    tokenizer, key = build_learned_tokenizer(config, modality), jax.random.key(0)
    training, raw = build_training(config, modality, tokenizer), np.zeros((16, 4, 4, 3), np.uint8)
    raw[:, :2] = np.random.default_rng(0).integers(0, 256, (16, 2, 4, 3))
    first = jax.jit(lambda: training.create(tokenizer.init(key), key), compiler_options=QUICK)()
    after, metrics = jax.jit(training.step, compiler_options=QUICK)(first, {modality: raw}, key)
    assert np.isfinite(metrics['loss']) and int(after.skipped) == 0
    moved = jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), after.params, first.params)
    assert all(distance > 0 for distance in jax.tree.leaves(moved['decoder']))
    assert max(jax.tree.leaves(moved['encoder'])) > 0 and bool(after.codebook['quantizer']['quantizer']['initialised'])


def test_published_layouts_are_those_of_imported_weights():
    """The networks of VQGAN f16 have as many parameters as `CodebookAutoencoder`, which reads its weights."""
    x = jnp.zeros((1, 32, 32, 3))
    trunk = LatentTrunk((128, 128, 256, 256, 512), (False,) * 4 + (True,), 256)
    ours = EncoderDecoder(Identity(256), LatentEncoder(trunk, 256), LatentDecoder(trunk, 3))
    ours, theirs = (jax.tree.leaves(jax.eval_shape(model.init, jax.random.key(0), x)['params'])
                    for model in (ours, CodebookAutoencoder()))
    count = lambda leaves: sum(leaf.size for leaf in leaves)
    assert count(theirs) - count(ours) == 1024 * 256


def test_the_first_frame_of_a_film_stands_alone():
    """T = 1 works, and gives the tokens and the picture that the frame has in a film (tokenizers.md, case 39)."""
    frozen, raw, _ = _trained('film')
    codec, x = frozen.tokenizer.autoencoder, frozen.tokenizer.front_end.analyse(raw)

    @jax.jit
    def through(variables, x):
        codes = codec.apply(variables, x, method='encode')
        return codes, codec.apply(variables, codes, method='decode')

    codes, decoded = through(frozen.variables, x)
    first, picture = through(frozen.variables, x[:, :1])
    assert first.shape == (BATCH, 1, 4, 4, 1) and picture.shape == (BATCH, 1, 16, 16, 3)
    np.testing.assert_array_equal(first, codes[:, :1])
    np.testing.assert_allclose(picture, decoded[:, :1], atol=1e-5)


@pytest.mark.parametrize(('kind', 'options', 'said'), [
    ('pixels', {'bound': 'unbounded'}, r'binary_cross_entropy needs an output within \[-1, 1\]'),
    ('pixels', {'kind': 'waveform'}, 'is for audio; choose one of pixels, latent, query'),
    ('pixels', {'kind': 'pixel'}, 'Did you mean "pixels"'),
    ('film', {'padding': 'causl'}, 'Did you mean "causal"'),
    ('waveform', {'activation': 'snak'}, 'Did you mean "snake"'),
    ('vocoder', {'stride': 3}, '10 frames are no multiple of stride=3'),
    ('latent', {'attention': (True,)}, 'attention=.*each of widths'), ('latent', {'groups': 3}, 'groups=3'),
    ('film', {'control': 'adaptive'}, 'control "adaptive" is unknown.*adaptive_group_norm'),
    ('query', {'heads': 3}, 'heads=3 cannot be')])
def test_mistakes_are_found_before_training(kind, options, said):
    modality, config = _config(kind)
    config.tokenizers[modality].update(options)
    with pytest.raises(UserError, match=said):
        check_config(config)


@pytest.mark.parametrize('quantizer', [
    {'name': 'identity'}, {'name': 'gaussian'},
    {'name': 'projected', 'dimension': 8, 'quantizer': {'name': 'identity', 'dimension': 4}}])
def test_quantizers_without_codes_are_refused_by_name(quantizer):
    _, config = _config('log_mel')
    config.tokenizers.audio.quantizer = ConfigDict(quantizer)
    with pytest.raises(UserError, match=f'tokenizers.audio.quantizer.name "{quantizer["name"]}" has no codes.*finite'):
        build_learned_tokenizer(config, 'audio')
