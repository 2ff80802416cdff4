"""From a config to the objects of an image DiT: network, process, latents, training step, generator."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from vqdit.data.preprocess import read_formats
from vqdit.diffusion.few_step import LEVELS, Consistency, MeanFlow, Shortcut
from vqdit.diffusion.gaussian.published import IMAGE_PROCESSES, ImageProcess
from vqdit.diffusion.gaussian.times import TIMES
from vqdit.diffusion.guidance import GUIDANCES
from vqdit.errors import UserError
from vqdit.generation.images import ImageGenerator
from vqdit.models.conditions import drop_labels
from vqdit.models.dit import DiT
from vqdit.models.parts import PARTS
from vqdit.registry import choose, construct
from vqdit.tokenizers.latent_diffusion import CodebookAutoencoder, GaussianAutoencoder
from vqdit.tokenizers.latent_statistics import Statistics
from vqdit.tokenizers.latents import CodeVectors, GaussianLatents, LatentTokenizer, Unquantized, Variables
from vqdit.tokenizers.pixels import Pixels
from vqdit.training.averages import decays
from vqdit.training.factory import build_learned_tokenizer
from vqdit.training.gradients import reduce_dtype
from vqdit.training.keys import named_key
from vqdit.training.optimizers import build_optimizer
from vqdit.training.state import TrainState, Tree, create_state
from vqdit.training.steps import Loss, Metrics, make_step

PROCESSES: dict[str, Callable[..., ImageProcess]] = {
    'dit': lambda: IMAGE_PROCESSES['dit'](), 'sit': lambda: IMAGE_PROCESSES['sit'](),
    'mean_flow': MeanFlow, 'shortcut': Shortcut, 'consistency': Consistency}
"""Those of published networks, which have no settings, and few-step ones."""


def is_image_model(config: ConfigDict) -> bool:
    """Whether the config trains an image DiT, not the multimodal model."""
    return config.diffusion.model.get('name') == 'dit'


def tokenizers_alone(config: ConfigDict) -> bool:
    """Whether a config has no diffusion model."""
    return not (is_image_model(config) or config.diffusion.tasks)


def build_image_model(config: ConfigDict, latents: LatentTokenizer) -> DiT:
    """The network of `config.diffusion.model`; the variance is learned too, or its outputs left alone."""
    options = config.diffusion.model.to_dict()
    del options['name']
    told = jax.eval_shape(build_image_process(config).told, jnp.zeros(1))
    options['dtype'] = choose({'float32': jnp.float32, 'bfloat16': jnp.bfloat16}, options['dtype'],
                              'diffusion.model.dtype')
    options['parts'] = construct(PARTS, options.get('parts', {}), 'diffusion.model.parts', default='published')
    rows, columns, channels = latents.shape
    return DiT(size=(rows, columns), channels=channels, out_channels=2 * channels, strides=told.ndim == 2,
               **options)


def build_image_process(config: ConfigDict) -> ImageProcess:
    """The process of `config.diffusion.process`, with its settings. Raises UserError for unknown or unsound ones."""
    return construct(PROCESSES, config.diffusion.process.to_dict(), 'diffusion.process',
                     {'times': TIMES, 'levels': LEVELS, 'guidance': GUIDANCES}, total=config.diffusion.training.steps)


SPACES: dict[str, Callable[..., LatentTokenizer]] = {'code_vectors': CodeVectors, 'latents': Unquantized}
"""What of a tokenizer that was trained here an image DiT makes, by the name of its statistics."""


def learned_latents(config: ConfigDict, statistics: Mapping[str, Statistics] | None = None) -> LatentTokenizer:
    """Those of the tokenizer that the run trains, with its `statistics`, or as if it were standardised already."""
    tokenizer, space = build_learned_tokenizer(config, 'image'), config.tokenizers.image.get('space', '')
    kind, dimension = choose(SPACES, space, 'tokenizers.image.space'), tokenizer.autoencoder.quantizer.dimension
    return kind(tokenizer, statistics[space] if statistics else Statistics(np.zeros(dimension), np.ones(dimension)))


def planned_latents(config: ConfigDict) -> LatentTokenizer:
    """The latents that the config leads to, before any weights are at hand: their shape is right, their network not."""
    section = config.tokenizers.image
    if section.kind != 'published':
        return learned_latents(config)
    stages = (section.stride - 1).bit_length() + 1
    return GaussianLatents(_pixels(config), GaussianAutoencoder((32,) * stages, latent_channels=section.channels))


def _pixels(config: ConfigDict) -> Pixels:
    image = read_formats(config.data).image
    return Pixels((image.size, image.size), image.channels)


def published_latents(autoencoder: GaussianAutoencoder | CodebookAutoencoder,
                      config: ConfigDict) -> GaussianLatents:
    """The latents of an imported autoencoder. Raises UserError when they are not what the config says."""
    if not isinstance(autoencoder, GaussianAutoencoder):
        raise UserError('tokenizers.image.weights is an autoencoder with codes; choose an AutoencoderKL')
    latents, planned = GaussianLatents(_pixels(config), autoencoder), planned_latents(config)
    if latents.shape != planned.shape:
        raise UserError(f'tokenizers.image.weights makes latents {latents.shape} of these images, not {planned.shape}; '
                        'set tokenizers.image.stride and channels to what it has')
    return latents


def image_training(config: ConfigDict, latents: LatentTokenizer, variables: Variables) -> tuple[Callable, Callable]:
    """`create() -> state` and the training step on `{'codes': int32 [B, N], 'label': int32 [B]}`."""
    model, section = build_image_model(config, latents), config.diffusion.training
    optimizer, process = build_optimizer(section, section.steps), build_image_process(config)
    key = named_key(config.seed, 'diffusion, first parameters')
    inputs = jnp.zeros((1, *latents.shape)), process.told(jnp.full(1, 0.5)), jnp.zeros(1, jnp.int32)
    further = decays(config)

    def step(state: TrainState, batch: Any, root: jax.Array) -> tuple[TrainState, Metrics]:
        loss = image_loss(model, process.at(state.step), latents, variables, config.diffusion.label_dropout)
        taken = make_step(loss, optimizer, section.ema_decay, section.accumulate, further, reduce_dtype(section))
        return taken(state, batch, root)

    return lambda: create_state(model.init(key, *inputs), optimizer, len(further)), step


def image_loss(model: DiT, process: ImageProcess, latents: LatentTokenizer, variables: Variables,
               dropout: float) -> Loss:
    """The loss of the process on drawn latents, under labels of which some are hidden."""
    def loss(params: Tree, codebook: Tree, batch: Any, key: jax.Array) -> tuple[jax.Array, tuple[Tree, Metrics]]:
        draw, drop, noise = jax.random.split(key, 3)
        labels = drop_labels(drop, batch['label'], dropout, model.classes)
        told_of: Any = lambda labels: lambda z, told: model.apply({'params': params}, z, told, labels)
        clean = latents.latents(variables, batch['codes'], draw)
        value, parts = process.loss(noise, told_of(labels), clean, told_of(jnp.full_like(labels, model.classes)))
        return value, (codebook, parts)
    return loss


def build_image_generator(config: ConfigDict, params: Tree, latents: LatentTokenizer,
                          variables: Variables) -> ImageGenerator:
    """A generator with the sampler of the config. Raises UserError for one that cannot be."""
    model, process = build_image_model(config, latents), build_image_process(config)
    settings = {name: value for name, value in config.diffusion.sampler.to_dict().items() if name != 'average'}
    return ImageGenerator(model, params, process, latents, variables, **settings)
