"""The stage that writes the token store: every example is encoded once, and training never runs an encoder."""

import contextlib
import hashlib
import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import jax
import numpy as np

from vqdit.data import load
from vqdit.data.batches import Batch
from vqdit.data.token_store import write_store
from vqdit.errors import Preempted
from vqdit.tokenizers.frozen import Tokenizer, encode_loosely
from vqdit.tokenizers.spec import TokenLayout
from vqdit.tokenizers.text import TextTokenizer
from vqdit.training.interruption import StopFlag
from vqdit.training.logging import Progress
from vqdit.training.loop import Run

logger = logging.getLogger(__name__)
BATCH_SIZE = 128
MISFITS = {'cut': 'texts longer than the tokens of their layout were cut',
           'unknown': 'words outside the vocabulary became unknown'}


def write_tokens(run: Run, tokenizers: Mapping[str, Tokenizer], layout: TokenLayout,
                 splits: Sequence[str] = ('train', 'test'), metadata: Sequence[str] = ()) -> None:
    """Writes the codes of the `splits`, and `metadata` beside them, to `workdir/tokens`, or what is missing of them.

    Every process writes its share of the shards, and returns when all are written.
    Texts that do not fit are cut, and counted in a warning.
    """
    fingerprints = {name: tokenizer.fingerprint for name, tokenizer in tokenizers.items()}
    fingerprints['data'] = data_fingerprint(run)
    for split in splits:
        dataset = load(run.config.data, split, modalities=layout.modalities)
        misfits: Counter[tuple[str, str]] = Counter()

        def encode(batch: Batch, misfits: Counter = misfits) -> np.ndarray:
            for name in layout.modalities:
                misfits.update({(name, kind): count for kind, count in _misfits(tokenizers[name], batch, name).items()})
            return np.concatenate([encode_loosely(tokenizers[name], batch[name]) for name in layout.modalities], axis=1)

        with Progress(f'{split} tokens', len(dataset), unit='examples') as progress:
            done = 0

            def advance(count: int, split: str = split, progress: Progress = progress) -> None:
                nonlocal done
                done += count
                run.watchdog.arm(f'writing {split} tokens', factor=10)
                progress.update(done)
                run.stop.raise_if_asked_here()

            with together(run.stop):
                write_store(Path(run.workdir) / 'tokens', split, dataset, encode, layout, fingerprints, metadata,
                            shard_size=run.config.tokens.shard_size, batch_size=BATCH_SIZE, progress=advance,
                            process_index=jax.process_index(), process_count=jax.process_count())
        for (name, kind), count in (+misfits).items():
            logger.warning('%s tokens: %d %s (tokenizers.%s)', split, count, MISFITS[kind], name)


@contextlib.contextmanager
def together(stop: StopFlag) -> Iterator[None]:
    """Leaves the work of each process when all have done theirs; when one was stopped, all are."""
    with contextlib.suppress(Preempted):
        yield
    stop.raise_if_set()


def data_fingerprint(run: Run) -> str:
    """16 hexadecimal digits for what the examples depend on: the data section of the config."""
    return hashlib.sha256(run.config.data.to_json(sort_keys=True).encode()).hexdigest()[:16]


def _misfits(tokenizer: Tokenizer, batch: Batch, name: str) -> dict[str, int]:
    if not isinstance(tokenizer, TextTokenizer):
        return {}
    # The last batch is filled up with copies, which are masked.
    return tokenizer.misfits([text for text, real in zip(batch[name], batch['mask']) if real])
