"""Output laws of samplers by enumeration, float64: what they draw with the perfect denoiser of the toy."""

import functools
import itertools

import numpy as np
import toy

K, L = toy.CODES, toy.LENGTH
NOISY = [tuple(int(k) for k in z) for z in np.ndindex(*(K + 1,) * L)]


@functools.cache
def table(z):
    """The exact posteriors of the tokens of z, float64 [L, K]."""
    return toy.posterior(toy.joint(), np.array(z))


def masked(z):
    return [i for i in range(L) if z[i] == K]


def replaced(z, places, values):
    z = list(z)
    for place, value in zip(places, values):
        z[place] = int(value)
    return tuple(z)


def revealed(z, places):
    """{z': probability} when the tokens at `places` are drawn independently of each other."""
    rows = table(z)
    return {replaced(z, places, values): float(np.prod([rows[i, v] for i, v in zip(places, values)]))
            for values in itertools.product(range(K), repeat=len(places))}


def run(kernel, steps):
    """The law over toy.STATES after `steps` kernels z -> {z': probability}, from all masked; float64 [K^L]."""
    law = {(K,) * L: 1.0}
    for step in range(steps):
        after = {}
        for z, mass in law.items():
            for later, probability in kernel(z, step).items():
                after[later] = after.get(later, 0.0) + mass * probability
        law = {z: mass for z, mass in after.items() if mass > 0}
    return np.array([law.get(tuple(int(k) for k in x), 0.0) for x in toy.STATES])


def ancestral(steps, remask=lambda t, s: 0.0):
    """Every token on its own, on the schedule alpha = 1 - t, with remasking."""
    def kernel(z, step):
        t, s = 1 - step / steps, 1 - (step + 1) / steps
        r = remask(t, s)
        reveal, rows = (1 - s - (1 - r) * (1 - t)) / t, table(z)
        options = [[(K, 1 - reveal), *((k, reveal * rows[i, k]) for k in range(K))] if z[i] == K else
                   [(z[i], 1 - r), (K, r)] for i in range(L)]
        after = {}
        for choice in itertools.product(*options):
            after[tuple(k for k, _ in choice)] = after.get(tuple(k for k, _ in choice), 0.0) + float(
                np.prod([p for _, p in choice]))
        return after
    return run(kernel, steps)


def one_at_a_time(choose):
    """`choose(z, table) -> place`: an order that does not look at the draw."""
    return run(lambda z, _: revealed(z, [choose(z, table(z))]), L)


def confidence():
    """MaskGIT without noise: all masked tokens are drawn, the one whose draw was likeliest is kept."""
    def kernel(z, _):
        after, places, rows = {}, masked(z), table(z)
        for values in itertools.product(range(K), repeat=len(places)):
            chances = [rows[i, v] for i, v in zip(places, values)]
            best = int(np.argmax(chances))
            later = replaced(z, [places[best]], [values[best]])
            after[later] = after.get(later, 0.0) + float(np.prod(chances))
        return after
    return run(kernel, L)


def entropies(z):
    rows = table(z)
    return -np.sum(np.where(rows > 0, rows * np.log(np.where(rows > 0, rows, 1)), 0), axis=1)


def entropy_bounded(bound):
    def kernel(z, _):
        places = sorted(masked(z), key=lambda i: entropies(z)[i])
        sums = np.concatenate([[0.0], np.cumsum(entropies(z)[places])[:-1]]) if places else np.zeros(0)
        return revealed(z, [place for place, before in zip(places, sums) if before <= bound])
    return run(kernel, L)


def entropy_of(law):
    return float(-np.sum(np.where(law > 0, law * np.log(np.where(law > 0, law, 1)), 0)))
