import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.core import FrozenDict

from vqdit.errors import UserError
from vqdit.models.conditions import CodeContext
from vqdit.models.dit import DiT
from vqdit.models.multimodal import MultimodalDiT
from vqdit.tokenizers.autoencoder import Autoencoder
from vqdit.tokenizers.quantizers import FiniteScalarQuantizer
from vqdit.tokenizers.spec import TokenLayout, TokenSpec
from vqdit.training.defaults import optimization
from vqdit.training.optimizers import build_optimizer, hidden_matrices, is_matrix, learning_rate


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


def _stack():
    """Two layers of attention, of which the matrices are [8, 12] and [8, 8], and a head."""
    rng = np.random.default_rng(0)
    kernels = {'blocks': {'attention': {'qkv': {'kernel': rng.normal(size=(2, 8, 3, 2, 2))},
                                        'out': {'kernel': rng.normal(size=(2, 4, 2, 8))}}},
               'head': {'kernel': rng.normal(size=(8, 5)), 'bias': rng.normal(size=5)}}
    return jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), kernels)


def test_muon_turns_gradients_of_hidden_matrices_into_nearly_orthogonal_steps():
    optimizer = build_optimizer(_section(optimizer='muon', schedule='constant', warmup_steps=0, weight_decay=0.0), 100)
    params = _stack()
    updates, _ = optimizer.update(_stack(), optimizer.init(params), params)
    # The steps have the root mean square of 0.2 times the rate that is usual for AdamW, whatever the shape.
    for name, shape in (('qkv', (2, 8, 12)), ('out', (2, 8, 8))):
        steps = np.asarray(updates['blocks']['attention'][name]['kernel']).reshape(shape)
        singular = np.linalg.svd(steps, compute_uv=False) / (1e-2 * 0.2 * max(shape[1:]) ** 0.5)
        assert singular.min() > 0.3 and singular.max() < 1.3, name


def test_muon_leaves_everything_else_to_adamw():
    params, updates = _stack(), {}
    for name in ('muon', 'adamw'):
        optimizer = build_optimizer(_section(optimizer=name, schedule='constant', warmup_steps=0, weight_decay=0.0), 9)
        updates[name], _ = optimizer.update(_stack(), optimizer.init(params), params)
    for leaf in ('kernel', 'bias'):
        np.testing.assert_allclose(updates['muon']['head'][leaf], updates['adamw']['head'][leaf], rtol=1e-5)


def test_the_hidden_matrices_of_the_shipped_models_are_found():
    model = MultimodalDiT(TokenLayout({'text': TokenSpec((2,), 3)}), FrozenDict({}), width=8, depth=3, heads=2)
    codes = jnp.zeros((1, 2), jnp.int32)
    axes = hidden_matrices(jax.eval_shape(model.init, jax.random.key(0), codes, jnp.zeros((1, 2)))['params'])
    assert axes['blocks']['attention']['qkv']['kernel'] == ((1,), (2, 3, 4))
    assert axes['blocks']['attention']['out']['kernel'] == ((1, 2), (3,))
    assert axes['blocks']['mlp']['gate_up']['kernel'] == axes['blocks']['mlp']['out']['kernel'] == ((1,), (2,))
    assert axes['head_text']['codes']['kernel'] is None and axes['embed_text']['embedding'] is None
    image = DiT((2, 2), width=8, depth=2, heads=2, context=CodeContext(8, 5, 3), double_depth=1)
    shapes = jax.eval_shape(image.init, jax.random.key(0), jnp.zeros((1, 2, 2, 4)), jnp.zeros(1), codes[0, :1],
                            jnp.zeros((1, 3), jnp.int32))['params']
    axes = hidden_matrices(shapes)
    for block in (axes['blocks'], axes['double_blocks']['context']):
        assert block['attention']['qkv']['kernel'] == ((1,), (2, 3, 4)) and block['attention']['qkv']['bias'] is None
        assert block['mlp']['up']['kernel'] == ((1,), (2,)) and block['modulation']['kernel'] is None
    autoencoder = Autoencoder(FiniteScalarQuantizer((5, 5)), 3, (8,), 1, (4, 4))
    axes = hidden_matrices(jax.eval_shape(autoencoder.init, jax.random.key(0), jnp.zeros((1, 8, 8, 3)))['params'])
    block = axes['encoder']['ResidualBlock_0']
    assert block['Convolution_0']['Conv_0']['kernel'] == ((0, 1, 2), (3,))
    assert block['Dense_0']['kernel'] == ((0,), (1,))
    assert axes['encoder']['Dense_0']['kernel'] is None


@pytest.mark.parametrize(('changes', 'said'), [
    ({'schedule': 'cosin'}, 'cosine'), ({'learning_rate': 0.0}, 'learning_rate'), ({'optimizer': 'mun'}, 'muon')])
def test_bad_settings_are_refused(changes, said):
    with pytest.raises(UserError, match=said):
        build_optimizer(_section(**changes), 100)


def test_training_shorter_than_its_warm_up_still_moves():
    rate = learning_rate(_section(), 2)
    assert np.isfinite(float(rate(1))) and float(rate(1)) > 0
