"""Short trainings of tokenizers in memory, for comparisons: no workdir and no checkpoints."""

import contextlib
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from vqdit.data import load
from vqdit.data.batches import Batches
from vqdit.tokenizers.frozen import LearnedTokenizer
from vqdit.tokenizers.health import codebook_health
from vqdit.training.objective import tokenizer_loss
from vqdit.training.optimizers import build_optimizer
from vqdit.training.state import Tree, create_state
from vqdit.training.steps import make_step

PIECE = 250
"""Examples that are measured at once."""


class Trial(NamedTuple):
    """Figures of a tokenizer on test data; usage and perplexity are the means of its levels, None without codes.

    `bits` are those of an example, `entropy_bits` those after ideal coding of every token by itself.
    """

    psnr: float
    bits: float | None
    entropy_bits: float | None
    usage: float | None
    perplexity: float | None


def training(tokenizer: LearnedTokenizer, batches: Iterable[np.ndarray], section: ConfigDict,
             seed: int = 0) -> Iterator[Tree]:
    """The averaged variables after every of `section.steps` steps on batches of raw data [B, ...].

    They are to be used, or copied, before the next ones are asked for, which are made in the same memory.
    """
    optimizer, root = build_optimizer(section, section.steps), jax.random.key(seed)
    state = jax.jit(lambda: create_state(tokenizer.init(root), optimizer))()
    step = jax.jit(make_step(tokenizer_loss(tokenizer, 'data'), optimizer, section.ema_decay), donate_argnums=0)
    for _, raw in zip(range(section.steps), batches):
        state, _ = step(state, {'data': raw}, root)
        yield {'params': state.ema, 'codebook': state.codebook}


def measure(tokenizer: LearnedTokenizer, variables: Tree, test: np.ndarray) -> Trial:
    """Figures of raw data `test [n, ...]`, of which whole pieces are measured.

    The PSNR is that of what the autoencoder works on, in [-1, 1].
    """
    @jax.jit
    def compare(variables: Tree, raw: jax.Array) -> tuple[jax.Array, jax.Array]:
        x = tokenizer.front_end.analyse(raw)
        result: Any = tokenizer.autoencoder.apply(variables, x)
        return jnp.mean((jnp.clip(result.output, -1.0, 1.0) - x) ** 2), result.quantized.codes

    size = min(PIECE, len(test))
    pieces = [test[start:start + size] for start in range(0, len(test) - size + 1, size)]
    errors, found = zip(*(compare(variables, piece) for piece in pieces))
    psnr = float(10 * np.log10(4.0 / np.mean(errors)))
    quantizer, codes = tokenizer.autoencoder.quantizer, np.concatenate(found)
    if not quantizer.levels:
        return Trial(psnr, None, None, None, None)
    levels = [codebook_health(level, quantizer.num_codes) for level in np.moveaxis(codes, -1, 0)]
    usage, perplexity, entropy = (float(np.mean([level[name] for level in levels]))
                                  for name in ('usage', 'perplexity', 'entropy_bits'))
    positions = codes[0, ..., 0].size
    return Trial(psnr, quantizer.bits_per_token * positions, entropy * quantizer.levels * positions, usage, perplexity)


def train_in_memory(config: ConfigDict, modality: str, tokenizer: LearnedTokenizer) -> Tree:
    """The averaged variables of a tokenizer after the training that the config describes, on the config's data."""
    section, train = config.tokenizers[modality].training, load(config.data, 'train', (modality,))
    source = Batches(train, section.batch_size, config.seed,
                     collate=lambda examples: {modality: np.stack([example[modality] for example in examples])})
    with contextlib.closing(source.iterate()) as batches:
        raw = (batch[modality] for batch in batches)
        return deque(training(tokenizer, raw, section, config.seed), maxlen=1).pop()


def shuffled(data: np.ndarray, batch_size: int, seed: int = 0) -> Iterable[np.ndarray]:
    """Batches of `data [n, ...]` without end, every example once in an epoch."""
    rng = np.random.default_rng(seed)
    while True:
        order = rng.permutation(len(data))
        for start in range(0, len(data) - batch_size + 1, batch_size):
            yield data[order[start:start + batch_size]]


def read_pictures(name: str, root: str, split: str, count: int) -> np.ndarray:
    """The first grey pictures of a TFDS set, uint8 [count, 28, 28, 1]."""
    image = {'size': 28, 'channels': 1}
    data = load({'source': 'tfds', 'name': name, 'root': root, 'image': image}, split, ('image',))
    return np.stack([data[i]['image'] for i in range(count)])
