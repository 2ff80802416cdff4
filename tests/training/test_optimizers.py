import jax.numpy as jnp
import numpy as np
import pytest

from vqdit.errors import UserError
from vqdit.training.defaults import optimization
from vqdit.training.optimizers import build_optimizer, is_matrix, learning_rate


def _section(**changes):
    section = optimization(100, 8, 1e-2)
    section.update({'warmup_steps': 10} | changes)
    return section


def test_the_rate_warms_up_and_falls_to_zero_along_a_cosine():
    rate = learning_rate(_section(), 100)
    assert float(rate(0)) == 0 and float(rate(5)) == pytest.approx(5e-3) and float(rate(10)) == pytest.approx(1e-2)
    assert float(rate(55)) == pytest.approx(5e-3, rel=1e-3) and float(rate(100)) == pytest.approx(0, abs=1e-8)
    assert float(learning_rate(_section(schedule='constant'), 100)(90)) == pytest.approx(1e-2)


def test_only_matrices_decay():
    params = {'dense': {'kernel': jnp.ones((2, 2)), 'bias': jnp.ones(2)}, 'embed': {'embedding': jnp.ones((3, 2))},
              'norm': {'scale': jnp.ones(2)}}
    assert is_matrix(params) == {'dense': {'kernel': True, 'bias': False}, 'embed': {'embedding': False},
                                 'norm': {'scale': False}}


def test_adamw_by_hand_with_clipping():
    optimizer = build_optimizer(_section(schedule='constant', weight_decay=0.5, warmup_steps=0, clip_norm=1.0), 100)
    params = {'dense': {'kernel': jnp.array([[2.0]])}}
    updates, _ = optimizer.update({'dense': {'kernel': jnp.array([[30.0]])}}, optimizer.init(params), params)
    # The clipped gradient is 1; Adam's first step is the rate times its sign; decay is added before the rate.
    assert float(updates['dense']['kernel'][0, 0]) == pytest.approx(-1e-2 * (1 / (1 + 1e-8) + 0.5 * 2.0), rel=1e-5)


@pytest.mark.parametrize('changes', [{'schedule': 'cosin'}, {'learning_rate': 0.0}])
def test_bad_settings_are_refused(changes):
    with pytest.raises(UserError, match='cosine' if 'schedule' in changes else 'learning_rate'):
        build_optimizer(_section(**changes), 100)


def test_training_shorter_than_its_warm_up_still_moves():
    rate = learning_rate(_section(), 2)
    assert np.isfinite(float(rate(1))) and float(rate(1)) > 0
