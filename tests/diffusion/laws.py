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


def spread(law, kernel):
    """The law after a kernel z -> {z': probability}, from a law {z: probability}."""
    after = {}
    for z, mass in law.items():
        for later, probability in kernel(z).items():
            after[later] = after.get(later, 0.0) + mass * probability
    return {z: mass for z, mass in after.items() if mass > 0}


def on_states(law):
    """float64 [K^L] over toy.STATES."""
    return np.array([law.get(tuple(int(k) for k in x), 0.0) for x in toy.STATES])


def run(kernel, steps):
    """The law over toy.STATES after `steps` kernels (z, step) -> {z': probability}, from all masked; float64 [K^L]."""
    law = {(K,) * L: 1.0}
    for step in range(steps):
        law = spread(law, lambda z, step=step: kernel(z, step))
    return on_states(law)


def independently(z, reveal, remask=0.0):
    """{z': probability} when every masked token is revealed, and every other one masked, with these chances."""
    rows, after = table(z), {}
    options = [[(K, 1 - reveal), *((k, reveal * rows[i, k]) for k in range(K))] if z[i] == K else
               [(z[i], 1 - remask), (K, remask)] for i in range(L)]
    for choice in itertools.product(*options):
        key = tuple(k for k, _ in choice)
        after[key] = after.get(key, 0.0) + float(np.prod([p for _, p in choice]))
    return after


def straight(steps):
    return 1 - np.arange(steps + 1) / steps


def remasking(times, amount=lambda t, s: 0.0):
    """On the schedule alpha = 1 - t, at the noise levels of `times`."""
    def kernel(z, step):
        t, s = times[step:step + 2]
        r = amount(t, s)
        return independently(z, (1 - s - (1 - r) * (1 - t)) / t, r)
    return run(kernel, len(times) - 1)


def ancestral(steps):
    return remasking(straight(steps))


def tau_leaping(steps):
    """The rate 1 / t of a masked token, held for a step; the last step reveals the rest."""
    def kernel(z, step):
        t = 1 - step / steps
        return independently(z, 1.0 if step == steps - 1 else 1 - np.exp(-1 / steps / t))
    return run(kernel, steps)


def forward_backward(law, t, share):
    """The law of noisy codes after the corrector at t."""
    later = t + share * (1 - t)
    masks = lambda z: independently(z, 0.0, share)  # (1 - later) / (1 - t) = 1 - share
    return spread(spread(law, masks), lambda z: independently(z, (later - t) / later))


def corrected(steps, share):
    """Ancestral steps with that corrector after each but the last."""
    law, times = {(K,) * L: 1.0}, straight(steps)
    for step, (t, s) in enumerate(itertools.pairwise(times)):
        law = spread(law, lambda z, t=t, s=s: independently(z, (t - s) / t))
        law = forward_backward(law, s, share) if step < steps - 1 else law
    return on_states(law)


def noised(t):
    """q(z_t) of the absorbing process."""
    law = {}
    for x, p in zip(toy.STATES, toy.joint()):
        for z in NOISY:
            if all(k in (K, int(x[i])) for i, k in enumerate(z)):
                hidden = len(masked(z))
                law[z] = law.get(z, 0.0) + p * t**hidden * (1 - t) ** (L - hidden)
    return law


def unsure(steps, amount):
    """Remasking in proportion to exp(-p); the states hold the p that every token was drawn with, too."""
    def kernel(state, t, s):
        z, drawn_with = state
        r, rows, open_ = amount(t, s), table(z), [i for i in range(L) if z[i] < K]
        reveal = (1 - s - (1 - r) * (1 - t)) / t
        scores = {i: np.exp(-drawn_with[i]) for i in open_}
        again = {i: min(1.0, r * len(open_) * scores[i] / sum(scores.values())) for i in open_}
        options = [[(z[i], drawn_with[i], 1 - again[i]), (K, 0.0, again[i])] if i in again else
                   [(K, 0.0, 1 - reveal), *((k, round(rows[i, k], 9), reveal * rows[i, k]) for k in range(K))]
                   for i in range(L)]
        after = {}
        for choice in itertools.product(*options):
            later = tuple(k for k, *_ in choice), tuple(p for _, p, _ in choice)
            after[later] = after.get(later, 0.0) + float(np.prod([p for *_, p in choice]))
        return after

    law = {((K,) * L, (0.0,) * L): 1.0}
    for t, s in itertools.pairwise(straight(steps)):
        law = spread(law, lambda state, t=t, s=s: kernel(state, t, s))
    final = {}
    for (z, _), mass in law.items():
        final[z] = final.get(z, 0.0) + mass
    return on_states(final)


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
