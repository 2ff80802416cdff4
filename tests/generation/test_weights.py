"""Published layouts to images, with tiny random weights."""

import functools
import io
import os
import pickle
import shutil
import zipfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vqdit.diffusion.gaussian import Betas
from vqdit.errors import CheckpointError, UserError
from vqdit.generation.images import ImageGenerator
from vqdit.generation.weights import find_family, load_weights
from vqdit.interop.dit import import_dit
from vqdit.interop.latent_diffusion import import_autoencoder

GOLDEN = Path(__file__).parents[1] / 'interop' / 'golden'
ORIGINAL, DIFFUSERS, VAE = GOLDEN / 'dit_original.pt', GOLDEN / 'dit_diffusers', GOLDEN / 'ldm_gaussian'
LABELS = np.array([2, 0, 2, 3], np.int32)


@functools.cache
def _generator(path=ORIGINAL, **options) -> ImageGenerator:
    return load_weights(path, VAE, **({'heads': 2} if path.is_file() else {}), **({'steps': 3} | options))


def _latents(generator, labels=LABELS):
    return np.asarray(generator.latents(0, np.arange(len(labels)), labels), np.float64)


@functools.cache
def _network(heads=2):
    model, params = import_dit(ORIGINAL, heads=heads)
    run = jax.jit(lambda z, step, labels: model.apply({'params': params}, z, step, labels))
    return model, lambda z, step, labels: np.asarray(run(z.astype(np.float32), np.full(len(z), step, np.float32),
                                                         labels.astype(np.int32)), np.float64)


def _published_sampler(labels, guidance, steps, network, model):
    """Respaced DDPM with a learned range of variances, from the betas alone, in float64."""
    kept = sorted({round(index * 999 / (steps - 1)) for index in range(steps)})
    bars = np.cumprod(1.0 - np.asarray(Betas.linear().betas))[kept]
    before = np.append(1.0, bars[:-1])
    betas = 1.0 - bars / before
    lower = betas * (1 - before) / (1 - bars)
    lower[0] = lower[1]
    starts, noises = _noises(len(labels), steps, (*model.size, model.channels))
    z = starts * np.sqrt(1.0 - bars[-1])
    for count, place in enumerate(reversed(range(steps))):
        c = network(z, kept[place], labels)
        u = network(z, kept[place], np.full(len(labels), model.classes))
        noise = u[..., :4] + guidance * (c[..., :4] - u[..., :4])
        share = (c[..., 4:] + 1) / 2
        log_variance = share * np.log(betas[place]) + (1 - share) * np.log(lower[place])
        clean = (z - np.sqrt(1 - bars[place]) * noise) / np.sqrt(bars[place])
        mean = (np.sqrt(before[place]) * betas[place] * clean
                + np.sqrt(1 - betas[place]) * (1 - before[place]) * z) / (1 - bars[place])
        z = mean + (np.exp(0.5 * log_variance) * noises[count] if place else 0)
    return z


def _noises(count, steps, shape):
    """The draws of our sampler: a key for every sample, and of it one for every step."""
    @jax.jit
    def draw(index):
        start, key = jax.random.split(jax.random.fold_in(jax.random.key(0), index))
        drawn = [jax.random.normal(start, shape)]
        drawn += [jax.random.normal(jax.random.fold_in(key, step), shape) for step in range(steps)]
        return jnp.stack(drawn)
    starts, *noises = np.stack([draw(index) for index in range(count)], axis=1).astype(np.float64)
    return starts, noises


def test_the_sampler_is_the_published_one():
    model, network = _network()
    wanted = _published_sampler(LABELS, 4.0, 3, network, model)
    found = _latents(_generator())
    assert np.abs(wanted).max() > 1
    np.testing.assert_allclose(found, wanted, atol=2e-3 * np.abs(wanted).max())


def test_a_sit_is_told_the_time_of_the_data_and_answers_the_velocity_towards_it():
    model, network = _network()
    z, _ = _noises(len(LABELS), 0, (*model.size, model.channels))
    for step in range(4):
        z = z + 0.25 * network(z, step / 4, LABELS)[..., :4]
    found = _latents(_generator(family='sit', solver='euler', steps=4, guidance=1.0))
    np.testing.assert_allclose(found, z, atol=1e-4 * np.abs(z).max())


def test_images_are_the_decoded_latents():
    generator = _generator()
    images = generator.generate(LABELS)
    model, params = import_autoencoder(VAE)
    decoded = jax.jit(lambda z: model.apply({'params': params}, z, method='decode'))(
        jnp.asarray(_latents(generator), jnp.float32))
    wanted = np.clip(np.round((np.asarray(decoded) + 1) * 127.5), 0, 255)
    assert images.dtype == np.uint8 and images.shape == (4, *wanted.shape[1:]) and images.std() > 5
    assert (np.abs(images - wanted) > 1).mean() < 0.01


def test_an_image_depends_on_its_seed_index_and_label_alone():
    generator = _generator()
    images = generator.generate(LABELS)
    assert not np.array_equal(images[0], images[2]), 'the same label, another index'
    later = generator.generate(np.roll(LABELS, -2), first_index=2)
    np.testing.assert_allclose(later[:2], images[2:], atol=1)
    others = generator.generate((LABELS + 1) % 3)
    assert all(np.abs(other.astype(int) - image).max() > 1 for other, image in zip(others, images))
    assert np.abs(generator.generate(LABELS, seed=1).astype(int) - images).max() > 1


def test_other_solvers_know_the_clean_latents_alone():
    found = _latents(_generator(DIFFUSERS, solver='ddim'))
    assert found.shape == (4, 6, 6, 4) and np.isfinite(found).all()


@pytest.mark.slow
def test_steps_by_tolerance_end_where_very_many_do():
    pytest.importorskip('diffrax', reason='the solver "adaptive" needs the extra "ode"')
    settings = {'name': 'adaptive', 'relative': 1e-3, 'absolute': 1e-3}
    adaptive = load_weights(ORIGINAL, VAE, heads=2, family='sit', solver=settings, steps=1, guidance=1.0)
    found, wanted = _latents(adaptive), _latents(_generator(family='sit', solver='heun', steps=60, guidance=1.0))
    assert adaptive.settings['solver'] == settings
    np.testing.assert_allclose(found, wanted, atol=0.01 * np.abs(wanted).max())


def test_a_pipeline_of_diffusers_brings_its_autoencoder(tmp_path):
    shutil.copytree(DIFFUSERS, tmp_path / 'transformer')
    shutil.copytree(VAE, tmp_path / 'vae')
    whole, parts = load_weights(tmp_path), _generator(DIFFUSERS)
    assert whole.model == parts.model
    for one, other in ((whole.params, parts.params), (whole.decoder.params, parts.decoder.params)):
        jax.tree.map(np.testing.assert_array_equal, one, other)


@pytest.mark.parametrize(('name', 'said', 'family'), [
    ('SiT-XL-2-256.pt', None, 'sit'), ('DiT-XL-2.pt', None, 'dit'), ('x.pt', None, 'dit'), ('SiT-XL.pt', 'dit', 'dit')])
def test_the_family_is_said_or_told_by_the_name(name, said, family):
    assert find_family(said, Path(name)) == family


def _truncated(path):
    path.write_bytes(ORIGINAL.read_bytes()[:-900])


def _payload(path):
    class Payload:
        def __reduce__(self):
            return os.mkdir, (f'{path}.executed',)
    content = io.BytesIO()
    with zipfile.ZipFile(content, 'w') as archive:
        archive.writestr('archive/data.pkl', pickle.dumps({'x': Payload()}))
    path.write_bytes(content.getvalue())


@pytest.mark.parametrize(('make', 'said'), [(_truncated, 'truncated'), (_payload, 'nothing of it was executed')])
def test_files_that_are_no_weights_are_refused_unread(tmp_path, make, said):
    make(tmp_path / 'DiT.pt')
    with pytest.raises(CheckpointError, match=said):
        load_weights(tmp_path / 'DiT.pt', VAE)
    assert not (tmp_path / 'DiT.pt.executed').exists()


@pytest.mark.parametrize(('options', 'said'), [
    ({'autoencoder': None}, '--vae is missing'), ({'autoencoder': GOLDEN / 'ldm_codebook'}, 'AutoencoderKL'),
    ({'family': 'sti'}, 'Did you mean "sit"'), ({'solver': 'hun'}, 'Did you mean "heun"'),
    ({'solver': {'name': 'ddim', 'eta': 2.0}}, 'eta 2.0'),
    ({'solver': {'name': 'adaptive', 'relative': 0.0}}, 'relative of the solver|needs the package diffrax'),
    ({'steps': 1001}, '1001 steps'), ({'heads': None}, 'heads=')])
def test_mistakes_are_told(options, said):
    with pytest.raises(UserError, match=said):
        load_weights(ORIGINAL, **({'autoencoder': VAE, 'heads': 2} | options))
