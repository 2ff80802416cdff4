"""Processes, samplers and guidance from mappings of names and numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vqdit.diffusion import registry
from vqdit.diffusion.categorical import Absorbing, CodeDistance, Uniform, part_of, replace
from vqdit.diffusion.guidance import Interval, Rescaled, Scale
from vqdit.diffusion.samplers import Ancestral, FirstHitting, ForwardBackward, Ordered, Remasking, TauLeaping
from vqdit.diffusion.schedules import Cosine, Linear, Polynomial
from vqdit.errors import UserError
from vqdit.tokenizers.spec import TokenLayout, TokenSpec

LAYOUT = TokenLayout({'image': TokenSpec((2,), 3), 'text': TokenSpec((3,), 5)})
BOOKS = {'image': np.array([[0.0], [0.2], [1.0]])}


def _process(**settings):
    return registry.build_process(settings, 'process', LAYOUT, BOOKS)


def _sampler(process=None, **settings):
    return registry.build_sampler(settings, 'sampler', process or Absorbing())


def test_a_process_is_its_name_and_settings():
    assert _process(schedule='cosine') == Absorbing(Cosine())
    assert _process(name='absorbing', schedule={'name': 'polynomial', 'power': 3.0}) == Absorbing(Polynomial(3.0))
    assert _process(name='uniform', schedule='cosine') == replace(Uniform(Cosine()))
    hybrid = _process(name='mask_and_replace', replaced=0.25)
    assert float(hybrid.replacing.kept(jnp.ones(()))) == pytest.approx(0.75)
    assert _process(name='absorbing', schedule={'name': 'table', 'values': (1.0, 0.3, 0.0)}).schedule.values[1] == 0.3


def test_code_distance_takes_each_modality_by_its_codebook():
    process = _process(name='code_distance', schedule='linear', width=0.5)
    assert isinstance(part_of(process, 'image').replacing, CodeDistance)
    assert part_of(process, 'text').replacing == Uniform(Linear())
    codes, masks = jnp.zeros((4000, 5), jnp.int32), LAYOUT.mask_ids
    level = jnp.full(codes.shape, 0.3)

    @jax.jit
    def moves(one, two, three, four):
        noisy = process.corrupt(one, codes, level, masks)
        return (noisy, process.forward(two, noisy, level, jnp.ones(()), masks), process.prior(three, masks, 3),
                process.step(four, noisy, codes, jnp.float32(0.3), jnp.float32(0.0), masks))

    noisy, again, prior, back = map(np.asarray, moves(*jax.random.split(jax.random.key(0), 4)))
    near, far = (noisy[:, :2] == 1).mean(), (noisy[:, :2] == 2).mean()
    assert near > 2 * far and (noisy < masks).all() and (noisy[:, 2:] == 4).any()
    assert (again[:, :2] == 2).mean() == pytest.approx(1 / 3, abs=0.03)
    assert process.weight(jnp.full((1, 5), 0.5)).shape == (1, 5) and (prior < masks[None]).all()
    np.testing.assert_array_equal(back, codes)


def test_a_sampler_is_its_name_and_settings():
    assert _sampler(name='ordered', steps=3, order=None, temperature=0.5) == Ordered(3, 0.5)
    assert _sampler(name='first_hitting') == FirstHitting()
    corrected = _sampler(name='ancestral', steps=4, corrector={'name': 'forward_backward', 'share': 0.2}, corrections=2)
    assert corrected == Ancestral(4, corrector=ForwardBackward(Absorbing(), 0.2), corrections=2)
    uniform = replace()
    assert _sampler(uniform, name='tau_leaping', steps=2) == TauLeaping(2, process=uniform)
    assert _sampler(uniform, name='ancestral', steps=2, corrector='gibbs').corrector.process == uniform
    remasking = _sampler(name='remasking', steps=8, focus='on_the_unsure', times={'name': 'looped', 'level': 0.1},
                         amount={'name': 'during', 'start': 0.1, 'stop': 0.1, 'amount': 'rescaled'})
    assert isinstance(remasking, Remasking) and remasking.times(8)[4] == pytest.approx(0.1)
    assert float(remasking.amount(jnp.float32(0.5), jnp.float32(0.1))) == pytest.approx(0.05)
    blocked = _sampler(name='ordered', steps=4, stages={'name': 'blocks', 'size': 1})
    np.testing.assert_array_equal(blocked.stages(LAYOUT), [0, 1, 0, 1, 2])


@pytest.mark.parametrize(('settings', 'said'), [
    ({'name': 'absorbin'}, 'Did you mean "absorbing"'),
    ({'schedule': 'linaer'}, 'process.schedule.name "linaer" is unknown.*Did you mean "linear"'),
    ({'scedule': 'linear'}, 'process.scedule is no setting of "absorbing".*Did you mean "schedule"'),
    ({'name': 'uniform', 'width': 1.0}, 'takes schedule'),
    ({'schedule': {'name': 'polynomial', 'pwer': 2}}, 'Did you mean "power"'),
    ({'schedule': {'name': 'table', 'values': (1.0, 0.5)}}, 'fall from 1 to 0'),
    ({'schedule': {'name': 'polynomial', 'power': -1.0}}, 'power above 0'),
    ({'name': 'mask_and_replace', 'replaced': 1.5}, 'share in'),
    ({'name': 'code_distance', 'width': 0.0}, 'positive width'),
])
def test_mistakes_in_a_process_name_the_remedy(settings, said):
    with pytest.raises(UserError, match=said):
        _process(**settings)


@pytest.mark.parametrize(('settings', 'said'), [
    ({'name': 'orderd', 'steps': 2}, 'Did you mean "ordered"'),
    ({}, 'sampler.name "" is unknown'),
    ({'name': 'ordered'}, 'sampler.steps is missing'),
    ({'name': 'ordered', 'steps': 0}, 'at least 1 step'),
    ({'name': 'ordered', 'steps': 2, 'order': 'margn'}, 'Did you mean "margin"'),
    ({'name': 'first_hitting', 'steps': 2}, 'takes temperature'),
    ({'name': 'remasking', 'steps': 2, 'amount': {'name': 'caped'}}, 'sampler.amount.name.*Did you mean "capped"'),
    ({'name': 'ancestral', 'steps': 2, 'corrector': 'gibbs'}, 'replaces codes'),
])
def test_mistakes_in_a_sampler_name_the_remedy(settings, said):
    with pytest.raises(UserError, match=said):
        _sampler(**settings)


def test_a_sampler_of_masks_needs_a_process_of_masks():
    with pytest.raises(UserError, match='choose one of ancestral, tau_leaping'):
        _sampler(replace(), name='ordered', steps=2)
    with pytest.raises(UserError, match=r'0\.3 of every token is left at noise level 1'):
        Absorbing(registry.Partial(Linear(), 0.3))


def test_guidance_is_its_settings():
    assert registry.build_guidance(1.0, 'guidance') == 1.0
    assert registry.build_guidance(2.0, 'guidance') == Scale(2.0)
    full = registry.build_guidance(2.0, 'guidance', (0.1, 0.9), 'linear', 0.7)
    assert isinstance(full, Interval) and (full.low, full.high) == (0.1, 0.9) and isinstance(full.inner, Rescaled)
    assert full.inner.inner.weight(0.5) == 1.5
    for changes in ({'weight': -1.0}, {'interval': (0.9, 0.1)}, {'interval': (0.5,)}, {'interval': 0.5},
                    {'interval': 'ab'}, {'interval': 0.5, 'weight': 1.0}, {'schedule': 'cosin'}, {'rescale': 2.0}):
        with pytest.raises(UserError):
            registry.build_guidance(**({'weight': 2.0, 'path': 'guidance'} | changes))
