"""A Gaussian process over the vectors of codes: what a network sees of them, and how its answers are read."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from vqdit.diffusion.clock import GENERATED, GIVEN
from vqdit.diffusion.gaussian.code_vectors import CodeVectors
from vqdit.diffusion.gaussian.predictions import spread
from vqdit.diffusion.gaussian.process import Gaussian
from vqdit.diffusion.guidance import log_probabilities

VectorDenoiser = Callable[[jax.Array, jax.Array], Mapping[str, jax.Array]]
"""`(vectors fp32 [B, N, C], clock fp32 [B, N]) -> {modality: answers}`."""


@dataclass(frozen=True, eq=False)
class CodeSpace:
    """The two, and what the network answers.

    Attributes:
        process: with prediction "clean" when `logits`.
        vectors: of the codes.
        logits: whether the network answers logits over the codes [B, n, K], whose mean vector is the clean prediction,
            rather than vectors [B, n, C] that mean what `process.prediction` says.
        self_conditioned: whether the network sees its last estimate of the clean vectors, too (arXiv:2208.04202).
    """

    process: Gaussian
    vectors: CodeVectors
    logits: bool = True
    self_conditioned: bool = False

    def seen(self, z: jax.Array, clean: jax.Array, roles: jax.Array, clock: jax.Array,
             estimate: jax.Array | None = None) -> jax.Array:
        """What the network sees [B, N, C] of noisy vectors `z`: generated tokens brought to variance 1, given ones
        as in `clean`, absent ones as zeros.

        When it is self-conditioned, [B, N, 2 C]: behind them the `estimate` of generated tokens, else zeros.
        """
        path, t = self.process.path, spread(clock, z)
        size = jax.lax.rsqrt(path.alpha(t) ** 2 + path.sigma(t) ** 2)
        shown = jnp.where((roles == GENERATED)[..., None], z * size, jnp.where((roles == GIVEN)[..., None], clean, 0.0))
        shown = shown * jnp.asarray(self.vectors.used, z.dtype)[None]
        if not self.self_conditioned:
            return shown
        last = jnp.zeros_like(z) if estimate is None else jnp.where((roles == GENERATED)[..., None], estimate, 0.0)
        return jnp.concatenate([shown, last], axis=-1)

    def answer(self, answers: Mapping[str, jax.Array]) -> jax.Array:
        """The network's answers as one prediction of the process, fp32 [B, N, C]."""
        return self.vectors.mean(answers) if self.logits else self.vectors.layout.join(answers)

    def comparable(self, answers: jax.Array) -> jax.Array:
        """Answers of one modality as guidance combines them: log-probabilities, or vectors as they are."""
        return log_probabilities(answers) if self.logits else answers
