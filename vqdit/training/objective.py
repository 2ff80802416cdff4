"""The losses of the two kinds of training, in the form that `steps.make_step` takes."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from vqdit.diffusion.categorical import Process
from vqdit.diffusion.clock import GENERATED, TaskMixture
from vqdit.diffusion.likelihood import noised, token_losses
from vqdit.models.multimodal import MultimodalDiT
from vqdit.registry import choose
from vqdit.tokenizers.frozen import LearnedTokenizer
from vqdit.training.passes import Pass, whole
from vqdit.training.state import Tree
from vqdit.training.steps import Loss, Metrics


def tokenizer_loss(tokenizer: LearnedTokenizer, modality: str, forward: Pass = whole) -> Loss:
    """Reconstruction and quantization of `batch[modality]`, as far as `forward` lets the tokenizer learn."""
    def loss(params: Tree, codebook: Tree, batch: Any, key: jax.Array) -> tuple[jax.Array, tuple[Tree, Metrics]]:
        x = tokenizer.front_end.analyse(batch[modality])
        (output, bottleneck), (codebook, metrics) = forward(tokenizer, params, codebook, x, key)
        value, figures = tokenizer.distortion(output, x)
        return value + bottleneck, (codebook, metrics | figures)
    return loss


WEIGHTINGS: dict[str, Callable[[Process, jax.Array], jax.Array]] = {
    'bound': lambda process, clock: jnp.ones_like(clock),
    'masked': lambda process, clock: 1.0 / jnp.maximum(process.weight(clock), 1e-6),
}
"""What the integrand of the likelihood bound is multiplied by in training: nothing, or the inverse of its own weight.

Then every masked token counts the same, as in MaskGIT (arXiv:2202.04200). It is not a bound any more, but its gradient
has less noise, because the few masked tokens of almost clean examples have no large weight.
"""


def diffusion_loss(model: MultimodalDiT, process: Process, mixture: TaskMixture, weighting: str = 'bound') -> Loss:
    """The loss of random tasks on `batch['codes'] int32 [B, N]` per generated token, as `WEIGHTINGS` weigh it.

    It is the mean over the modalities, so that twelve words weigh as much as sixty-four codes of an image; the metrics
    hold the likelihood bound of each, in nats per token.
    """
    layout, emphasis = model.layout, choose(WEIGHTINGS, weighting, 'diffusion.weighting')

    def loss(params: Tree, codebook: Tree, batch: Any, key: jax.Array) -> tuple[jax.Array, tuple[Tree, Metrics]]:
        codes = batch['codes']
        draw, noise = jax.random.split(key)
        roles, clock = mixture.draw(draw, codes.shape[0])
        noisy = noised(noise, process, codes, roles, clock, layout)
        losses = token_losses(process, lambda c, t: model.apply({'params': params}, c, t), layout, codes, noisy, clock)
        generated = layout.split((roles == GENERATED).astype(jnp.float32))
        weighted = layout.split(losses * emphasis(process, clock))
        bounds = {f'{name}_nats': _mean(part, generated[name]) for name, part in layout.split(losses).items()}
        return jnp.mean(jnp.stack([_mean(weighted[name], generated[name]) for name in weighted])), (codebook, bounds)

    return loss


def _mean(losses: jax.Array, weights: jax.Array) -> jax.Array:
    return jnp.sum(losses * weights) / jnp.maximum(jnp.sum(weights), 1.0)
