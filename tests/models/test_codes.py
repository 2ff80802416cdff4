import jax
import jax.numpy as jnp
import numpy as np

from vqdit.models.codes import CodeHead, digits_of_codes
from vqdit.tokenizers.spec import TokenSpec


def test_digits_count_from_the_first():
    assert np.argmax(digits_of_codes((3, 5))[:, :3], axis=1).tolist() == [0, 1, 2] * 5
    assert np.argmax(digits_of_codes((3, 5))[:, 3:], axis=1).tolist() == [i for i in range(5) for _ in range(3)]


def test_logits_are_fp32_where_the_computation_is_bf16():
    head = CodeHead(TokenSpec((4,), 15, 1, (3, 5)), 2, jnp.bfloat16)
    x = jnp.full((1, 4, 3), 1.0, jnp.bfloat16)
    variables = head.init(jax.random.key(0), x)
    # 8 + 4 + 1/64: bfloat16 has steps of 1/16 there.
    kernel = jnp.broadcast_to(jnp.array([8.0, 4.0, 1 / 64])[:, None, None], (3, 2, 15))
    variables['params']['codes']['kernel'] = kernel
    logits = head.apply(variables, x)
    assert logits.dtype == jnp.float32 and logits.shape == (1, 4, 2, 15)
    np.testing.assert_array_equal(logits, 12 + 1 / 64)
