"""The one training step: gradients, the finite guard, the update, the moving average."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from vqdit.training.ema import Decay, update_average
from vqdit.training.state import TrainState, Tree

Metrics = dict[str, jax.Array]
Loss = Callable[[Tree, Tree, Any, jax.Array], tuple[jax.Array, tuple[Tree, Metrics]]]
"""`loss(params, codebook, batch, key) -> (scalar, (codebook, metrics))`."""


def make_step(loss: Loss, optimizer: optax.GradientTransformation, ema_decay: float, accumulate: int = 1,
              decays: Sequence[Decay] = ()) -> Callable[[TrainState, Any, jax.Array], tuple[TrainState, Metrics]]:
    """The pure function `(state, batch, root key) -> (state, metrics)`.

    A step whose loss or gradient is not finite changes nothing but the counters (never `optax.apply_if_finite`,
    which applies the update after several in a row). The step's key is `fold_in(root, step)`. `decays` are those
    of `state.averages`.
    """
    gradient = jax.value_and_grad(loss, has_aux=True)

    def step(state: TrainState, batch: Any, root: jax.Array) -> tuple[TrainState, Metrics]:
        key = jax.random.fold_in(root, state.step)
        (value, (codebook, metrics)), grads = _accumulated(gradient, state, batch, key, accumulate)
        norm = optax.tree.norm(grads)
        finite = jnp.isfinite(value) & jnp.isfinite(norm)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        ema = update_average(state.ema, params, ema_decay, state.step)
        averages = tuple(update_average(average, params, decay, state.step)
                         for average, decay in zip(state.averages, decays, strict=True))
        new = params, opt_state, ema, codebook, averages
        old = state.params, state.opt_state, state.ema, state.codebook, state.averages
        params, opt_state, ema, codebook, averages = keep_if(finite, new, old)
        skipped = jnp.where(finite, 0, state.skipped + 1)
        state = TrainState(state.step + 1, params, opt_state, ema, codebook, skipped, averages)
        return state, metrics | {'loss': value, 'gradient_norm': norm, 'skipped': skipped}

    return step


def keep_if(condition: jax.Array, new: Any, old: Any) -> Any:
    """The tree `new` where the scalar condition holds, else `old`, leaf by leaf."""
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), new, old)


def sliced(batch: Any, parts: int) -> Any:
    """Arrays [B, ...] as [parts, B / parts, ...], of which every slice holds every parts-th row."""
    # So each device slices its own rows, and none has to move.
    return jax.tree.map(lambda x: x.reshape(x.shape[0] // parts, parts, *x.shape[1:]).swapaxes(0, 1), batch)


def joined(slices: jax.Array) -> jax.Array:
    """The inverse of `sliced`: [parts, B / parts, ...] as [B, ...]."""
    return slices.swapaxes(0, 1).reshape(-1, *slices.shape[2:])


def _accumulated(gradient: Callable, state: TrainState, batch: Any, key: jax.Array, parts: int) -> tuple:
    """Values and gradients averaged over `parts` equal slices of the batch, taken one after the other."""
    if parts == 1:
        return gradient(state.params, state.codebook, batch, key)
    def body(codebook, item):
        part, number = item
        (value, (codebook, metrics)), grads = gradient(state.params, codebook, part,
                                                       jax.random.fold_in(key, number))
        return codebook, (value, metrics, grads)

    codebook, results = jax.lax.scan(body, state.codebook, (sliced(batch, parts), jnp.arange(parts)))
    value, metrics, grads = jax.tree.map(lambda x: jnp.mean(x, axis=0), results)
    return (value, (codebook, metrics)), grads
