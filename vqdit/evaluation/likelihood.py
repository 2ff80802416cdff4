"""The likelihood bound of a direction, beside the entropy where it is known."""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vqdit.data import Example
from vqdit.diffusion.categorical import Process
from vqdit.diffusion.clock import Task
from vqdit.diffusion.likelihood import negative_log_likelihood_bound
from vqdit.evaluation.rows import Row
from vqdit.generation import Generator
from vqdit.tokenizers.frozen import encode_loosely, stack

DRAWS = 4  # noise levels for every example


class LikelihoodBound:
    """Nats per token of real data under a generator; one compiled program serves every task."""

    def __init__(self, generator: Generator, process: Process):
        self._generator = generator

        @jax.jit
        def bound(params: Any, codes: jax.Array, key: jax.Array, roles: jax.Array) -> jax.Array:
            def denoiser(codes: jax.Array, clock: jax.Array) -> Any:
                return generator.model.apply({'params': params}, codes, clock)

            roles = jnp.broadcast_to(roles[None], codes.shape)
            draws = jax.lax.map(
                lambda key: negative_log_likelihood_bound(key, process, denoiser, generator.layout, codes, roles),
                jax.random.split(key, DRAWS),
            )
            return jnp.mean(draws, axis=0)

        self._bound = bound

    def rows(self, task: Task, examples: Sequence[Example], seed: int, entropy: float | None) -> list[Row]:
        """The mean upper bound of -log p(generated | given) of the examples' own data, by the generated tokens.

        In nats and in bits. `entropy`, in nats of all those tokens together, is what a perfect model would reach.
        """
        codes = encode_all(self._generator, task, examples)
        value = float(self.of(codes, task, seed).mean())
        return [Row(str(task), 'likelihood bound', value * scale, f'{unit} per token', len(codes),
                    None if entropy is None else scale * entropy / self._tokens(task))
                for unit, scale in (('nats', 1.0), ('bits', 1.0 / math.log(2)))]

    def of(self, codes: np.ndarray, task: Task, seed: int) -> np.ndarray:
        """The bound of `codes int32 [n, N]` in nats per generated token, fp32 [n]."""
        generator, root, bounds = self._generator, jax.random.key(seed), []
        roles = task.roles(generator.layout)
        for number, start in enumerate(range(0, len(codes), generator.batch_size)):
            rows = np.minimum(np.arange(start, start + generator.batch_size), len(codes) - 1)
            drawn = generator.run(self._bound, (codes[rows],), jax.random.fold_in(root, number), roles)
            bounds.append(np.asarray(drawn)[: len(codes) - start])
        return np.concatenate(bounds) / self._tokens(task)

    def _tokens(self, task: Task) -> int:
        return sum(self._generator.layout.specs[name].length for name in task.generated)


def encode_all(generator: Generator, task: Task, examples: Sequence[Example]) -> np.ndarray:
    """Codes int32 [n, N] of the given and the generated modalities; the others are masked."""
    codes = np.tile(generator.layout.mask_ids, (len(examples), 1))
    for name in (*task.given, *task.generated):
        items, tokenizer = stack([example[name] for example in examples]), generator.tokenizers[name]
        codes[:, generator.layout.slice(name)] = encode_loosely(tokenizer, items)
    return codes
