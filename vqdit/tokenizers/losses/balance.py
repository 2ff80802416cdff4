"""How strongly each of several losses pulls on what the autoencoder gives.

A balance looks at the gradients ("slopes") of the losses by the output [B, *size, C], the one place through which all
of them reach the network, whatever its last layer is. `slopes` and `weights` name the losses; the first is that of the
reconstruction.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import jax
import jax.numpy as jnp

from vqdit.tokenizers.losses.adversarial import adaptive_weight

Slopes = Mapping[str, jax.Array]
Factors = dict[str, jax.Array]


class Balance(Protocol):
    """`start(names)` is the state, and `(slopes, weights, state) -> (factors, state)` what each slope is scaled by."""

    def start(self, names: tuple[str, ...]) -> Any: ...

    def __call__(self, slopes: Slopes, weights: Factors, state: Any) -> tuple[Factors, Any]: ...


@dataclass(frozen=True)
class FixedWeights:
    """The weights as they are."""

    def start(self, names: tuple[str, ...]) -> Any:
        return {}

    def __call__(self, slopes: Slopes, weights: Factors, state: Any) -> tuple[Factors, Any]:
        return weights, state


@dataclass(frozen=True)
class AdaptiveWeight:
    """Every loss but the first pulls as strongly as the first, times its weight (VQGAN, arXiv:2012.09841, eq. 7).

    Attributes:
        most: that a weight is multiplied by.
    """

    most: float = 1e4

    def start(self, names: tuple[str, ...]) -> Any:
        return {}

    def __call__(self, slopes: Slopes, weights: Factors, state: Any) -> tuple[Factors, Any]:
        first, *others = slopes
        scaled = {name: weights[name] * adaptive_weight(slopes[first], slopes[name], self.most) for name in others}
        return {first: weights[first]} | scaled, state


@dataclass(frozen=True)
class GradientBalancer:
    """Every loss has its share of one gradient of unit length, whatever its own size (arXiv:2210.13438, eq. 4).

    The share is the weight over the sum of the weights; lengths are means over the items, averaged over the steps.

    Attributes:
        decay: of the average, which forgets where it started.
        length: of the gradient of an item.
    """

    decay: float = 0.999
    length: float = 1.0

    def start(self, names: tuple[str, ...]) -> Any:
        return {name: jnp.zeros(2, jnp.float32) for name in names}

    def __call__(self, slopes: Slopes, weights: Factors, state: Any) -> tuple[Factors, Any]:
        norms = {name: jnp.stack([_mean_length(slope), jnp.ones(())]) for name, slope in slopes.items()}
        state = {name: self.decay * state[name] + norms[name] for name in slopes}
        total = jnp.sum(jnp.stack([weights[name] for name in slopes]))
        return {name: self.length * weights[name] / total * state[name][1] / (state[name][0] + 1e-12)
                for name in slopes}, state


BALANCES: dict[str, Callable[..., Balance]] = {
    'fixed': FixedWeights, 'adaptive': AdaptiveWeight, 'balancer': GradientBalancer}


def _mean_length(slope: jax.Array) -> jax.Array:
    return jnp.mean(jnp.sqrt(jnp.sum(slope.reshape(len(slope), -1).astype(jnp.float32) ** 2, axis=1)))
