"""The likelihood of a direction, beside the entropy where it is known.

Every figure has a confidence interval: it is a mean over examples and over random noise.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vqdit.data import Example
from vqdit.diffusion.categorical import Process
from vqdit.diffusion.clock import GENERATED, Task, clock_of
from vqdit.diffusion.flow_likelihood import hutchinson_divergence
from vqdit.diffusion.gaussian.code_space import CodeSpace
from vqdit.diffusion.gaussian.paths import time_at
from vqdit.diffusion.likelihood import estimate, negative_log_likelihood_bound
from vqdit.diffusion.samplers.grids import equal_log_snr
from vqdit.diffusion.vector_likelihood import LAST, noised_vectors_nats, vector_bound
from vqdit.evaluation.rows import Row
from vqdit.generation import Generator
from vqdit.generation.generator import without_guidance
from vqdit.tokenizers.frozen import encode_loosely, stack

DRAWS = 2  # noise levels for every example
FLOW_EXAMPLES, FLOW_STEPS = 32, 32
NOISED = 6.0
"""Log snr of the vectors whose density is measured: a twentieth of noise, which seldom makes a code another."""

PerExample = Callable[[jax.Array, Callable, jax.Array, jax.Array], jax.Array]
"""`(key, denoiser, codes int32 [B, N], roles int32 [B, N]) -> nats fp32 [B]`."""


class LikelihoodBound:
    """Nats per token of real data under a generator; one compiled program serves every task."""

    def __init__(self, generator: Generator, process: Process):
        self._generator = generator
        self._bound = compiled(generator, lambda key, denoiser, codes, roles: negative_log_likelihood_bound(
            key, process, denoiser, generator.layout, codes, roles), DRAWS)

    def rows(self, task: Task, examples: Sequence[Example], seed: int, entropy: float | None) -> list[Row]:
        """The mean upper bound of -log p(generated | given) of the examples' own data, by the generated tokens.

        In nats and in bits. `entropy`, in nats of all those tokens together, is what a perfect model would reach.
        """
        codes = encode_all(self._generator, task, examples)
        return bound_rows(task, self.of(codes, task, seed), entropy, tokens_of(self._generator, task))

    def of(self, codes: np.ndarray, task: Task, seed: int) -> np.ndarray:
        """The bound of `codes int32 [n, N]` in nats per generated token, fp32 [n]."""
        return nats_of_each(self._generator, self._bound, codes, task, seed) / tokens_of(self._generator, task)


class VectorLikelihood:
    """The same of a Gaussian process over code vectors, and bits per dimension of the vectors by their flow.

    Only a network that answers logits has a bound for codes. The flow takes FLOW_EXAMPLES of the examples, with 4
    evaluations of the network and of its derivative along random signs in each of FLOW_STEPS steps.
    """

    def __init__(self, generator: Generator, space: CodeSpace):
        self._generator, self._space = generator, space
        path = space.process.path
        noisiest, cleanest = (float(time_at(path, jnp.asarray(level))) for level in (LAST, NOISED))
        # On the host: the samples have a mesh of their own.
        grid = np.asarray(equal_log_snr(FLOW_STEPS + 1, path, noisiest, cleanest))[-2::-1]

        def flow(key: jax.Array, denoiser: Callable, codes: jax.Array, roles: jax.Array) -> jax.Array:
            noise, signs = jax.random.split(key)
            clock = clock_of(roles, jnp.full((1, 1), grid[0]))
            z, _ = space.process.corrupt(noise, space.vectors.of(codes), clock)
            return noised_vectors_nats(space, denoiser, z, codes, roles, jnp.asarray(grid),
                                       hutchinson_divergence(signs))

        self._flow = compiled(generator, flow)
        self._bound = compiled(generator, lambda key, denoiser, codes, roles: vector_bound(
            key, space, denoiser, codes, roles), DRAWS)

    def rows(self, task: Task, examples: Sequence[Example], seed: int, entropy: float | None) -> list[Row]:
        """As `LikelihoodBound.rows`, and the bits per dimension of the vectors of the generated tokens, noised."""
        generator, codes = self._generator, encode_all(self._generator, task, examples)
        rows = []
        if self._space.logits:
            tokens = tokens_of(generator, task)
            bounds = nats_of_each(generator, self._bound, codes, task, seed) / tokens
            rows = bound_rows(task, bounds, entropy, tokens)
        some = codes[np.arange(min(FLOW_EXAMPLES, len(codes))) * len(codes) // min(FLOW_EXAMPLES, len(codes))]
        bits = nats_of_each(generator, self._flow, some, task, seed) / (self._dimensions(task) * math.log(2))
        return [*rows, _row(task, 'likelihood of noised vectors', bits, 'bits per dimension')]

    def _dimensions(self, task: Task) -> int:
        generated = task.roles(self._generator.layout) == GENERATED
        return int(self._space.vectors.used[generated].sum())


def bound_rows(task: Task, bounds: np.ndarray, entropy: float | None, tokens: int) -> list[Row]:
    """The mean of `bounds [n]`, in nats per token, in nats and in bits; `entropy` in nats of all `tokens` together."""
    return [_row(task, 'likelihood bound', bounds * scale, f'{unit} per token',
                 None if entropy is None else scale * entropy / tokens)
            for unit, scale in (('nats', 1.0), ('bits', 1.0 / math.log(2)))]


def _row(task: Task, metric: str, values: np.ndarray, unit: str, ceiling: float | None = None) -> Row:
    mean, margin = estimate(jnp.asarray(values)) if len(values) > 1 else (values[0], None)
    return Row(str(task), metric, float(mean), unit, len(values), ceiling, None if margin is None else float(margin))


def compiled(generator: Generator, nats: PerExample, draws: int = 1) -> Callable:
    """`(params, codes int32 [B, N], key, roles int32 [N]) -> fp32 [B]`, the mean of several draws."""
    @jax.jit
    def function(params: Any, codes: jax.Array, key: jax.Array, roles: jax.Array) -> jax.Array:
        def denoiser(tokens: jax.Array, clock: jax.Array) -> Any:
            return generator.model.apply({'params': without_guidance(params)}, tokens, clock)

        roles = jnp.broadcast_to(roles[None], codes.shape)
        several = jax.lax.map(lambda key: nats(key, denoiser, codes, roles), jax.random.split(key, draws))
        return jnp.mean(several, axis=0)

    return function


def nats_of_each(generator: Generator, function: Callable, codes: np.ndarray, task: Task, seed: int) -> np.ndarray:
    """A `compiled` function of `codes int32 [n, N]` in batches, fp32 [n]."""
    root, values = jax.random.key(seed), []
    roles, size = task.roles(generator.layout), generator.batch_size
    for number, start in enumerate(range(0, len(codes), size)):
        rows = np.minimum(np.arange(start, start + size), len(codes) - 1)
        drawn = generator.run(function, (codes[rows],), jax.random.fold_in(root, number), roles)
        values.append(np.asarray(drawn)[: len(codes) - start])
    return np.concatenate(values)


def tokens_of(generator: Generator, task: Task) -> int:
    """How many tokens a task generates."""
    return sum(generator.layout.specs[name].length for name in task.generated)


def encode_all(generator: Generator, task: Task, examples: Sequence[Example]) -> np.ndarray:
    """Codes int32 [n, N] of the given and the generated modalities; the others are masked."""
    codes = np.tile(generator.layout.mask_ids, (len(examples), 1))
    for name in (*task.given, *task.generated):
        items, tokenizer = stack([example[name] for example in examples]), generator.tokenizers[name]
        codes[:, generator.layout.slice(name)] = encode_loosely(tokenizer, items)
    return codes
