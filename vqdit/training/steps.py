"""The one training step: gradients, the finite guard, the update, the moving average."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from vqdit.training.ema import Decay, update_average
from vqdit.training.gradients import accumulated, reduced_in
from vqdit.training.state import TrainState, Tree

Metrics = dict[str, jax.Array]
Loss = Callable[[Tree, Tree, Any, jax.Array], tuple[jax.Array, tuple[Tree, Metrics]]]
"""`loss(params, codebook, batch, key) -> (scalar, (codebook, metrics))`."""


def make_step(loss: Loss, optimizer: optax.GradientTransformation, ema_decay: float, accumulate: int = 1,
              decays: Sequence[Decay] = (), reduce_dtype: jnp.dtype | None = None,
              ) -> Callable[[TrainState, Any, jax.Array], tuple[TrainState, Metrics]]:
    """The pure function `(state, batch, root key) -> (state, metrics)`.

    A step whose loss or gradient is not finite changes nothing but the counters (never `optax.apply_if_finite`,
    which applies the update after several in a row). The step's key is `fold_in(root, step)`. `decays` are those
    of `state.averages`, `reduce_dtype` that of `gradients.reduced_in`; None leaves the sums to the partitioner.
    """
    gradient = accumulated(jax.value_and_grad(loss, has_aux=True), accumulate)
    if reduce_dtype is not None:
        gradient = reduced_in(reduce_dtype, gradient)

    def step(state: TrainState, batch: Any, root: jax.Array) -> tuple[TrainState, Metrics]:
        key = jax.random.fold_in(root, state.step)
        (value, (codebook, metrics)), grads = gradient(state.params, state.codebook, batch, key)
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
