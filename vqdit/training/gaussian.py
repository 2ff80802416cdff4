"""From a config to a Gaussian process over code vectors: its parts, its loss, its sampler.

    config.diffusion.process = {'name': 'gaussian', 'path': 'flow', 'prediction': 'codes',
                                'weighting': 'cross_entropy', 'times': 'uniform'}
    config.diffusion.sampler = {'name': 'heun', 'steps': 16, 'grid': 'uniform', 'guidance': 1.0, 'batch_size': 64}

A part is a name, or a mapping of `name` and its settings; the settings of the solver stand beside its name. Names are
looked up in registries only. `uncertainty` is the number of noise levels at which the size of the loss is learned
(`weightings.uncertainty`), and 0 where it is not. `self_conditioning` is the share of the examples that are trained
with the network's own first estimate beside what it sees (half, in arXiv:2208.04202), and 0 where it never sees any.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from vqdit.diffusion.clock import GENERATED, TaskMixture
from vqdit.diffusion.few_step import SelfConditioned
from vqdit.diffusion.gaussian import PATHS, PREDICTIONS, Gaussian
from vqdit.diffusion.gaussian.code_space import CodeSpace
from vqdit.diffusion.gaussian.code_vectors import CodeVectors
from vqdit.diffusion.gaussian.times import TIMES, Times
from vqdit.diffusion.gaussian.weightings import WEIGHTINGS, simple, uncertainty
from vqdit.diffusion.samplers import SOLVERS
from vqdit.diffusion.samplers.grids import GRIDS
from vqdit.diffusion.samplers.shared import log_probability_of
from vqdit.diffusion.samplers.solvers import Solver
from vqdit.diffusion.samplers.vectors import VectorSampler
from vqdit.errors import UserError
from vqdit.models.multimodal import MultimodalDiT
from vqdit.registry import choose
from vqdit.tokenizers.code_vectors import code_vectors
from vqdit.tokenizers.frozen import Tokenizer
from vqdit.tokenizers.spec import TokenLayout
from vqdit.training.sampler_settings import PATH as SAMPLER
from vqdit.training.sampler_settings import TRUNCATION, general, own
from vqdit.training.state import Tree
from vqdit.training.steps import Loss, Metrics

PATH = 'diffusion.process'
SETTINGS = ('name', 'path', 'prediction', 'weighting', 'times', 'uncertainty', 'self_conditioning')
CROSS_ENTROPY = 'cross_entropy'
"""The weighting of the prediction "codes" that is none of a squared error: nats per code, at every noise level."""
UNCERTAINTY = 'log_variances'


def is_gaussian(config: ConfigDict) -> bool:
    """Whether the config asks for a process over vectors instead of codes."""
    return config.diffusion.process.get('name') == 'gaussian'


def predicts_codes(config: ConfigDict) -> bool:
    return config.diffusion.process.get('prediction', 'codes') == 'codes'


def self_conditioning(config: ConfigDict) -> float:
    """The share of examples that see an estimate. Raises UserError for no share, and where no codes are predicted."""
    share = config.diffusion.process.get('self_conditioning', 0.0)
    if not 0 <= share <= 1:
        raise UserError(f'{PATH}.self_conditioning is {share}; it is a share of the examples, such as 0.5, or 0')
    if share and not predicts_codes(config):
        raise UserError(f'{PATH}.self_conditioning is of the prediction "codes"; set {PATH}.prediction to it')
    return share


def build_gaussian(config: ConfigDict) -> Gaussian:
    """The process of `config.diffusion.process`. Raises UserError for an unknown part or setting."""
    section = config.diffusion.process.to_dict()
    check_settings(section, SETTINGS, PATH)
    kinds, weighting = {'codes': PREDICTIONS['clean'], **PREDICTIONS}, section.get('weighting', CROSS_ENTROPY)
    prediction = choose(kinds, section.get('prediction', 'codes'), f'{PATH}.prediction')
    if weighting == CROSS_ENTROPY and not predicts_codes(config):
        raise UserError(f'{PATH}.weighting "{CROSS_ENTROPY}" is of codes, not of the {section["prediction"]}; '
                        f'choose one of {", ".join(WEIGHTINGS)}')
    return Gaussian(build_part(PATHS, section.get('path', 'flow'), f'{PATH}.path'), prediction,
                    simple if weighting == CROSS_ENTROPY else build_part(WEIGHTINGS, weighting, f'{PATH}.weighting'))


def build_times(config: ConfigDict) -> Times:
    """How often each noise level is trained, `config.diffusion.process.times`."""
    return build_part(TIMES, config.diffusion.process.get('times', 'uniform'), f'{PATH}.times')


def check_gaussian(config: ConfigDict) -> None:
    """Raises UserError for what can be known to be wrong before there are tokenizers."""
    build_gaussian(config)
    build_times(config)
    self_conditioning(config)
    build_solver(config)


def build_space(config: ConfigDict, layout: TokenLayout, tokenizers: Mapping[str, Tokenizer]) -> CodeSpace:
    """The process over the code vectors of the tokenizers."""
    vectors = CodeVectors(layout, {name: code_vectors(tokenizers[name]) for name in layout.modalities})
    return CodeSpace(build_gaussian(config), vectors, predicts_codes(config), self_conditioning(config) > 0)


def build_solver(config: ConfigDict) -> tuple[Solver, np.ndarray]:
    """The solver of `config.diffusion.sampler`, and its time grid."""
    for name in TRUNCATION:
        if general(config)[name] is not None:
            raise UserError(f'{SAMPLER}.{name} truncates the draws of codes, of which a Gaussian process makes none; '
                            'set it to None')
    options = own(config)
    steps, grid = options.pop('steps'), options.pop('grid', 'uniform')
    solver = build_part(SOLVERS, options, SAMPLER)
    path = build_gaussian(config).path
    # On the host: training builds it under another mesh than that of the samples.
    return solver, np.asarray(build_part(GRIDS, grid, f'{SAMPLER}.grid', steps, path))


def build_vector_sampler(config: ConfigDict, space: CodeSpace) -> VectorSampler:
    """The sampler of `config.diffusion.sampler` in a space of code vectors."""
    solver, grid = build_solver(config)
    # Its model is told of an estimate, as that of no other solver.
    chosen: Any = SelfConditioned(solver) if space.self_conditioned else solver
    return VectorSampler(space, chosen, grid)


def build_part(registry: Mapping[str, Callable[..., Any]], value: str | Mapping[str, Any], path: str,
               *first: Any) -> Any:
    """`registry[name](*first, **settings)` of a name or of a mapping of `name` and settings."""
    settings = {'name': value} if isinstance(value, str) else dict(value)
    kind = choose(registry, settings.pop('name', ''), path)
    try:
        return kind(*first, **settings)
    except TypeError as error:
        raise UserError(f'{path}: {error}') from error


def check_settings(section: Mapping[str, Any], known: tuple[str, ...], path: str) -> None:
    """Raises UserError for a setting that is not known."""
    for name in section:
        choose(dict.fromkeys(known), name, f'the setting of {path}')


def extra_params(config: ConfigDict) -> Tree:
    """Parameters of the loss beside those of the model."""
    levels = config.diffusion.process.get('uncertainty', 0)
    return {UNCERTAINTY: jnp.zeros(levels)} if levels else {}


def gaussian_loss(model: MultimodalDiT, space: CodeSpace, mixture: TaskMixture, config: ConfigDict) -> Loss:
    """The loss of random tasks on `batch['codes'] int32 [B, N]` per generated token, averaged over the modalities.

    The metrics hold that of each modality: `nats` of cross-entropy, or the weighted squared `error`.
    """
    share = self_conditioning(config)
    layout, process, times = space.vectors.layout, space.process, build_times(config)
    cross_entropy = config.diffusion.process.get('weighting', CROSS_ENTROPY) == CROSS_ENTROPY
    unit = 'nats' if cross_entropy else 'error'
    used = jnp.asarray(space.vectors.used, jnp.float32)[None]

    def loss(params: Tree, codebook: Tree, batch: Any, key: jax.Array) -> tuple[jax.Array, tuple[Tree, Metrics]]:
        codes, (draw, noise_key, choose) = batch['codes'], jax.random.split(key, 3)
        roles, clock = mixture.draw(draw, codes.shape[0])
        generated = roles == GENERATED
        clock = jnp.where(generated, times(process.path, clock), clock)
        clean = space.vectors.of(codes)
        z, noise = process.corrupt(noise_key, clean, clock)
        answer = lambda *estimate: model.apply({'params': params}, space.seen(z, clean, roles, clock, *estimate), clock)
        answers: Any = answer(_estimates(choose, space, answer, share)) if share else answer()
        if cross_entropy:
            losses = -log_probability_of(codes, answers, layout)
        else:
            losses = process.loss(space.answer(answers) * used, clean, noise * used, clock)
        metrics = {f'{name}_{unit}': value for name, value in _means(losses, generated, layout).items()}
        if UNCERTAINTY in params:
            losses = uncertainty(losses, params[UNCERTAINTY], clock)
        return jnp.mean(jnp.stack(list(_means(losses, generated, layout).values()))), (codebook, metrics)

    return loss


def _estimates(key: jax.Array, space: CodeSpace, answer: Callable[..., Any], share: float) -> jax.Array:
    """The network's first estimates [B, N, C] for a random `share` of the examples, through which no gradient flows;
    zeros for the others."""
    first = jax.lax.stop_gradient(space.answer(answer()))
    return jnp.where(jax.random.bernoulli(key, share, (len(first), 1, 1)), first, 0.0)


def _means(losses: jax.Array, chosen: jax.Array, layout: TokenLayout) -> dict[str, jax.Array]:
    """The mean of `losses [B, N]` over the chosen tokens of each modality."""
    weights = layout.split(chosen.astype(jnp.float32))
    return {name: jnp.sum(part * weights[name]) / jnp.maximum(jnp.sum(weights[name]), 1.0)
            for name, part in layout.split(losses).items()}
