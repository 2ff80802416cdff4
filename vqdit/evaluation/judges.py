"""Judges: small classifiers of pictures and sounds, trained on real data, that tell what was generated.

A judge is wrong now and then; its accuracy on real test data is the ceiling of whatever it measures. Sounds are
seen as log-mel spectrograms, so that one network serves both.
"""

from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from vqdit.data import Dataset, read_column
from vqdit.tokenizers.spectrogram import LogMel

Params = Any
Augment = Callable[[jax.Array, jax.Array], jax.Array]

STEPS, BATCH = 1000, 64
WARMUP, LEARNING_RATE, WEIGHT_DECAY = 100, 3e-3, 1e-2
PREDICTED_AT_ONCE = 256

SHIFT_PIXELS = (2, 2)
WINDOW, HOP, BANDS = 256, 128, 40
SHIFT_FRAMES = (6, 1)  # frames and bands
GAIN = 0.5  # powers of ten of the amplitude, up and down
NOISE = (-4.0, -2.0)  # powers of ten of the amplitude


class Classifier(nn.Module):
    """Pictures fp32 [B, H, W, C] -> logits [B, classes]."""

    classes: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = nn.relu(nn.Conv(32, (4, 4), strides=2)(x))
        x = nn.avg_pool(x, (2, 2), strides=(2, 2))  # the gradient of a maximum is slow on CPUs
        x = nn.relu(nn.Conv(64, (3, 3))(x))
        x = nn.relu(nn.Dense(128)(x.reshape(x.shape[0], -1)))
        return nn.Dense(self.classes)(x)


class Judge:
    """Tells the label of items; `accuracy` is its own on real test data, of `count` items."""

    def __init__(self, prepare: Callable[[np.ndarray], np.ndarray], network: Classifier, params: Params):
        self._prepare, self._params = prepare, params
        self._predict = jax.jit(lambda params, x: jnp.argmax(_logits(network, params, x), axis=-1))
        self.accuracy, self.count = float('nan'), 0

    def __call__(self, items: Sequence[np.ndarray] | np.ndarray) -> np.ndarray:
        """The label of every item, int [n]."""
        features = self._prepare(np.stack(list(items)))
        return in_pieces(lambda piece: self._predict(self._params, piece), features)

    def examine(self, items: np.ndarray, labels: np.ndarray) -> None:
        """Measures the accuracy."""
        self.accuracy, self.count = float(np.mean(self(items) == labels)), len(labels)


def image_judge(train: Dataset, test: Dataset, steps: int = STEPS, seed: int = 0) -> Judge:
    """A judge of pictures, trained on the examples' `image` and `label`."""
    def augment(key: jax.Array, x: jax.Array) -> jax.Array:
        return shift(key, x, SHIFT_PIXELS)

    def prepare(pixels: np.ndarray) -> np.ndarray:
        return pixels.astype(np.float32) / 127.5 - 1

    return _make('image', prepare, augment, train, test, steps, seed)


def sound_judge(train: Dataset, test: Dataset, rate: int, steps: int = STEPS, seed: int = 0) -> Judge:
    """A judge of sounds at `rate` Hz, trained on the examples' `audio` and `label`."""
    def prepare(sounds: np.ndarray) -> np.ndarray:
        padded = np.pad(sounds, ((0, 0), (0, -sounds.shape[1] % HOP)))
        analyse = jax.jit(LogMel(rate, WINDOW, HOP, BANDS, padded.shape[1]).analyse)
        return in_pieces(analyse, padded)[..., None]

    def augment(key: jax.Array, x: jax.Array) -> jax.Array:
        keys = jax.random.split(key)
        return louder_and_noisier(keys[0], shift(keys[1], x, SHIFT_FRAMES))

    return _make('audio', prepare, augment, train, test, steps, seed)


def _make(modality: str, prepare: Callable[[np.ndarray], np.ndarray], augment: Augment, train: Dataset,
          test: Dataset, steps: int, seed: int) -> Judge:  # fmt: skip
    items, labels = read_all(train, modality)
    network = Classifier(int(labels.max()) + 1)
    judge = Judge(prepare, network, fit(network, augment, prepare(items), labels, steps, seed))
    judge.examine(*read_all(test, modality))
    return judge


def read_all(dataset: Dataset, modality: str) -> tuple[np.ndarray, np.ndarray]:
    """Every item [n, ...] and its label int [n]."""
    return np.stack([dataset[index][modality] for index in range(len(dataset))]), read_column(dataset, 'label')


def fit(network: Classifier, augment: Augment, x: np.ndarray, labels: np.ndarray, steps: int, seed: int) -> Params:
    """Parameters after `steps` of AdamW on random batches of `x` fp32 [n, H, W, C]."""
    root = jax.random.key(seed)
    params = jax.jit(network.init)(root, jnp.zeros((1, *x.shape[1:])))['params']
    rate = optax.warmup_cosine_decay_schedule(0.0, LEARNING_RATE, min(WARMUP, steps // 2), steps)
    optimizer = optax.adamw(rate, weight_decay=WEIGHT_DECAY)

    def loss(params: Params, x: jax.Array, y: jax.Array) -> jax.Array:
        return optax.softmax_cross_entropy_with_integer_labels(_logits(network, params, x), y).mean()

    @jax.jit
    def step(params: Params, state: Any, x: jax.Array, y: jax.Array, number: jax.Array) -> tuple[Params, Any]:
        gradient = jax.grad(loss)(params, augment(jax.random.fold_in(root, number), x), y)
        updates, state = optimizer.update(gradient, state, params)
        return optax.apply_updates(params, updates), state

    state, rng = jax.jit(optimizer.init)(params), np.random.default_rng(seed)
    for number in range(steps):
        chosen = rng.integers(0, len(x), BATCH)
        params, state = step(params, state, x[chosen], labels[chosen], number)
    return params


def _logits(network: Classifier, params: Params, x: jax.Array) -> Any:
    return network.apply({'params': params}, x)


def shift(key: jax.Array, x: jax.Array, most: tuple[int, int]) -> jax.Array:
    """Every picture [B, H, W, C] moved at random by up to `most` rows and columns; its border is repeated."""
    padded = jnp.pad(x, ((0, 0), *((side, side) for side in most), (0, 0)), mode='edge')
    corners = [
        jax.random.randint(part, (len(x),), 0, 2 * side + 1) for part, side in zip(jax.random.split(key), most)
    ]
    cut = jax.vmap(lambda picture, *corner: jax.lax.dynamic_slice(picture, (*corner, 0), x.shape[1:]))
    return cut(padded, *corners)


def louder_and_noisier(key: jax.Array, x: jax.Array) -> jax.Array:
    """Spectrograms of `LogMel` [B, frames, bands, 1] under a random gain and over a random floor of noise."""
    gains, noises = jax.random.split(key)
    shape, decay = (len(x), 1, 1, 1), np.log(LogMel.floor)
    amplitudes = jnp.maximum(jnp.exp((1 - x) / 2 * decay) - LogMel.floor, 0)
    gain = 10 ** jax.random.uniform(gains, shape, minval=-GAIN, maxval=GAIN)
    noise = 10 ** jax.random.uniform(noises, shape, minval=NOISE[0], maxval=NOISE[1])
    return 1 - 2 * jnp.log(amplitudes * gain + noise) / decay


def in_pieces(function: Callable[[np.ndarray], jax.Array], x: np.ndarray) -> np.ndarray:
    """`function` of `x`, PREDICTED_AT_ONCE items at a time, the last piece padded so that it compiles once."""
    missing = -len(x) % PREDICTED_AT_ONCE
    padded = np.concatenate([x, np.repeat(x[-1:], missing, axis=0)])
    pieces = np.split(padded, len(padded) // PREDICTED_AT_ONCE)
    return np.concatenate([np.asarray(function(piece)) for piece in pieces])[: len(x)]
