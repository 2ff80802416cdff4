"""The likelihood bound of codes under a Gaussian process over their vectors, in nats (arXiv:2107.00630).

With lambda = log snr, from lambda_0 at a level near the data to lambda_1 near noise,

    (1)  -log p(codes) <= E[-log p(codes | z_0)] + 1/2 integral from lambda_1 to lambda_0 of E |noise - guess|^2
                          + KL(q(z_1 | x), N(0, alpha_1^2 + sigma_1^2))

tight for a perfect denoiser as lambda_0 grows and lambda_1 falls. It bounds the same quantity as the bounds of
`likelihood`, so that processes over codes and over their vectors can be compared.
"""

import jax
import jax.numpy as jnp

from vqdit.diffusion.clock import GENERATED, clock_of, stratified_times
from vqdit.diffusion.flow_likelihood import Divergence, exact_divergence, flow_log_likelihood
from vqdit.diffusion.gaussian.code_space import CodeSpace, VectorDenoiser
from vqdit.diffusion.gaussian.paths import log_snr, time_at
from vqdit.diffusion.gaussian.predictions import clean_and_noise, spread
from vqdit.diffusion.samplers.shared import log_probability_of

FIRST, LAST = 9.0, -9.0
"""Log snr at the ends of the integral of (1), where the path reaches them."""


def vector_bound(key: jax.Array, space: CodeSpace, denoiser: VectorDenoiser, codes: jax.Array,
                 roles: jax.Array) -> jax.Array:
    """One estimate per example of (1) for the generated tokens given the given ones, fp32 [B] nats.

    The network answers logits. Log snr is uniform and stratified over the batch: the weight of all levels is the same.
    """
    times, noise_key, last_key = jax.random.split(key, 3)
    process, layout, clean = space.process, space.vectors.layout, space.vectors.of(codes)
    generated, path = roles == GENERATED, process.path
    first, last = (log_snr(path, time_at(path, jnp.asarray(level))) for level in (FIRST, LAST))
    level = last + (first - last) * stratified_times(times, len(codes))
    clock = clock_of(roles, time_at(path, level)[:, None])
    z, noise = process.corrupt(noise_key, clean, clock)
    answers = denoiser(space.seen(z, clean, roles, clock), clock)
    guess = clean_and_noise(process.prediction, space.answer(answers), z, path, clock)[1]
    used = jnp.asarray(space.vectors.used)[None] & generated[..., None]
    total = lambda x: jnp.sum(jnp.where(used, x, 0.0), axis=(1, 2))
    between = 0.5 * (first - last) * total((noise - guess) ** 2)

    ends = [clock_of(roles, jnp.full((1, 1), time_at(path, jnp.asarray(level)))) for level in (FIRST, LAST)]
    z, _ = process.corrupt(last_key, clean, ends[0])
    nats = -log_probability_of(codes, denoiser(space.seen(z, clean, roles, ends[0]), ends[0]), layout)
    t = spread(ends[1], clean)
    share = path.alpha(t) ** 2 / (path.alpha(t) ** 2 + path.sigma(t) ** 2)
    prior = 0.5 * total(share * (clean**2 - 1.0) - jnp.log1p(-share))
    return between + jnp.sum(jnp.where(generated, nats, 0.0), axis=1) + prior


def noised_vectors_nats(space: CodeSpace, denoiser: VectorDenoiser, z: jax.Array, codes: jax.Array, roles: jax.Array,
                        grid: jax.Array, divergence: Divergence = exact_divergence) -> jax.Array:
    """-log p(z) of the generated tokens of `z [B, N, C]` at noise level `grid[0]`, given the given ones of `codes`.

    fp32 [B] nats: by the probability flow of these tokens alone, up to the steps of the rising `grid [steps + 1]`. At
    a noise level above 0 the density of code vectors has a finite value; its mean over noised vectors is what a better
    model lowers.
    """
    process, clean, path = space.process, space.vectors.of(codes), space.process.path
    used = jnp.asarray(space.vectors.used)[None] & (roles == GENERATED)[..., None]
    inside = lambda x: jnp.where(used, x, 0.0)

    def model(z: jax.Array, t: jax.Array) -> jax.Array:
        clock = clock_of(roles, jnp.full((1, 1), t))
        return process.clean(space.answer(denoiser(space.seen(z, clean, roles, clock), clock)), z, clock)

    held = lambda field, z: divergence(lambda z: inside(field(z)), z)
    nats = -flow_log_likelihood(model, path, inside(z), grid, held)
    # The other numbers stay at 0, where the prior has a density that does not count.
    return nats - jnp.sum(~used, axis=(1, 2)) * (0.5 * jnp.log(2 * jnp.pi) + jnp.log(path.sigma(grid[-1])))
