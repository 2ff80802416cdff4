"""A toy with a known answer: a joint over K^L whose exact conditionals serve as the denoiser."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np

from vqdit.tokenizers.spec import TokenLayout, TokenSpec

LENGTH, CODES = 3, 3
LAYOUT = TokenLayout({'toy': TokenSpec((LENGTH,), CODES)})
STATES = np.array(list(itertools.product(range(CODES), repeat=LENGTH)))


def joint(seed: int = 0) -> np.ndarray:
    """A random joint, float64 [K^L]."""
    weights = np.random.default_rng(seed).gamma(0.5, size=len(STATES))
    return weights / weights.sum()


def posterior(probabilities: np.ndarray, noisy: np.ndarray) -> np.ndarray:
    """p(x_i | the tokens of `noisy [L]` that are not masked), float64 [L, K], by enumeration."""
    match = np.all((noisy == CODES) | (noisy == STATES), axis=1) * probabilities
    table = np.stack([[match[STATES[:, i] == k].sum() for k in range(CODES)] for i in range(LENGTH)])
    return table / np.maximum(match.sum(), 1e-300)


def denoiser(probabilities: np.ndarray):
    """The perfect denoiser: a table over all (K + 1)^L noisy states, as a traced function."""
    noisy_states = np.array(list(itertools.product(range(CODES + 1), repeat=LENGTH)))
    with np.errstate(divide='ignore'):
        table = np.log(np.stack([posterior(probabilities, z) for z in noisy_states]))
    table = jnp.asarray(np.maximum(table, -60.0), jnp.float32)
    place = jnp.asarray((CODES + 1) ** np.arange(LENGTH - 1, -1, -1))

    def apply(codes: jax.Array, clock: jax.Array) -> dict[str, jax.Array]:
        return {'toy': table[jnp.sum(codes * place[None], axis=1)]}

    return apply


def frequencies(samples: np.ndarray) -> np.ndarray:
    """Empirical distribution over STATES of samples [S, L]."""
    index = samples @ (CODES ** np.arange(LENGTH - 1, -1, -1))
    return np.bincount(index, minlength=len(STATES)) / len(samples)


def total_variation(p: np.ndarray, q: np.ndarray) -> float:
    return 0.5 * float(np.abs(p - q).sum())
