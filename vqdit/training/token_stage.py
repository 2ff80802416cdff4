"""The stage that writes the token store: every example is encoded once, and training never runs an encoder."""

import logging
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from vqdit.data import load
from vqdit.data.batches import Batch
from vqdit.data.token_store import write_store
from vqdit.tokenizers.frozen import Tokenizer, encode_loosely
from vqdit.tokenizers.spec import TokenLayout
from vqdit.training.logging import Progress
from vqdit.training.loop import Run

logger = logging.getLogger(__name__)
BATCH_SIZE = 128


def write_tokens(run: Run, tokenizers: Mapping[str, Tokenizer], layout: TokenLayout) -> None:
    """Writes the codes of the training and the test split to `workdir/tokens`, or what is missing of them."""
    fingerprints = {name: tokenizer.fingerprint for name, tokenizer in tokenizers.items()}
    fingerprints['data'] = data_fingerprint(run)

    def encode(batch: Batch) -> np.ndarray:
        return np.concatenate([encode_loosely(tokenizers[name], batch[name]) for name in layout.modalities], axis=1)

    for split in ('train', 'test'):
        dataset = load(run.config.data, split, modalities=layout.modalities)
        with Progress(f'{split} tokens', len(dataset), unit='examples') as progress:
            done = 0

            def advance(count: int, split: str = split, progress: Progress = progress) -> None:
                nonlocal done
                done += count
                run.watchdog.arm(f'writing {split} tokens', factor=10)
                progress.update(done)
                run.stop.raise_if_set()

            write_store(Path(run.workdir) / 'tokens', split, dataset, encode, layout, fingerprints,
                        shard_size=run.config.tokens.shard_size, batch_size=BATCH_SIZE, progress=advance)


def data_fingerprint(run: Run) -> str:
    """What the examples depend on: the data section of the config, as text."""
    return run.config.data.to_json(sort_keys=True)
