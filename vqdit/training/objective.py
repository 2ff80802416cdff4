"""The losses of the two kinds of training, in the form that `steps.make_step` takes."""

from typing import Any

import jax
import jax.numpy as jnp

from vqdit.diffusion.categorical import Absorbing
from vqdit.diffusion.clock import GENERATED, TaskMixture
from vqdit.diffusion.likelihood import token_losses
from vqdit.models.multimodal import MultimodalDiT
from vqdit.tokenizers.frozen import LearnedTokenizer
from vqdit.training.state import Tree
from vqdit.training.steps import Loss, Metrics


def tokenizer_loss(tokenizer: LearnedTokenizer, modality: str) -> Loss:
    """Reconstruction and quantization of `batch[modality]`."""
    def loss(params: Tree, codebook: Tree, batch: Any, key: jax.Array) -> tuple[jax.Array, tuple[Tree, Metrics]]:
        variables = {'params': params} | ({'codebook': codebook} if codebook else {})
        return tokenizer.loss(variables, batch[modality], key)
    return loss


def diffusion_loss(model: MultimodalDiT, process: Absorbing, mixture: TaskMixture) -> Loss:
    """The likelihood bound of random tasks on `batch['codes'] int32 [B, N]`, in nats per generated token.

    It is the mean over the modalities, so that twelve words weigh as much as sixty-four codes of an image; the metrics
    hold the figure of each.
    """
    layout = model.layout
    mask_ids = jnp.asarray(layout.mask_ids)

    def loss(params: Tree, codebook: Tree, batch: Any, key: jax.Array) -> tuple[jax.Array, tuple[Tree, Metrics]]:
        codes = batch['codes']
        draw, noise = jax.random.split(key)
        roles, clock = mixture.draw(draw, codes.shape[0])
        noisy = process.corrupt(noise, codes, clock, mask_ids)
        losses = token_losses(process, lambda c, t: model.apply({'params': params}, c, t), layout, codes, noisy, clock)
        generated = (roles == GENERATED).astype(jnp.float32)
        metrics = {f'{name}_nats': _mean(part, layout.split(generated)[name])
                   for name, part in layout.split(losses).items()}
        return jnp.mean(jnp.stack(list(metrics.values()))), (codebook, metrics)

    return loss


def _mean(losses: jax.Array, weights: jax.Array) -> jax.Array:
    return jnp.sum(losses * weights) / jnp.maximum(jnp.sum(weights), 1.0)
