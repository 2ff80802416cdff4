"""The record in the metadata of a checkpoint: what its trees are, and how to tell that they are whole.

Neither Orbax nor the file system notices a flipped bit. The record therefore holds dtype, shape and
fingerprint of every leaf, and a hash over itself.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from vqdit.errors import CheckpointError, NonFiniteError
from vqdit.training import fingerprint

FORMAT = 1

Record = dict[str, Any]


class Damaged(CheckpointError):
    """A checkpoint that is not whole, so that another one may be tried."""


def make(
    step: int, trees: Mapping[str, Any], metrics: Mapping[str, Any], metadata: Mapping[str, Any]
) -> Record:
    """The record of `trees` at `step`, as JSON gives it back.

    Raises NonFiniteError naming a leaf with NaN or infinity, TypeError naming one that would not come back.
    """
    rows = {name: _rows(step, name, tree) for name, tree in trees.items()}
    record = {'format': FORMAT, 'step': step, 'metrics': metrics, 'metadata': metadata, 'trees': rows}
    return json.loads(json.dumps(record))


def sealed(record: Record) -> dict[str, Any]:
    """The record and its hash, to be saved as the custom metadata of the checkpoint."""
    return {'record': record, 'sha256': _sha256(record)}


def read(path: Path) -> Record:
    """The record of the checkpoint folder `<step>`.

    Raises Damaged when it is not as it was written, CheckpointError when it is of another format.
    """
    try:
        stored = json.loads((path / '_CHECKPOINT_METADATA').read_text())['custom_metadata']
        record = stored['record']
        if stored['sha256'] != _sha256(record) or str(record['step']) != path.name:
            raise ValueError('its record does not match its hash or step')
        version = record['format']
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise Damaged(
            f'checkpoint of step {path.name} is damaged ({type(error).__name__}: {error})'
        ) from error
    if version != FORMAT:
        raise CheckpointError(
            f'{path} has format {version}, this version reads {FORMAT}; use the one that wrote it'
        )
    return record


def compare(record: Record, name: str, leaves: Mapping[str, Any], path: Path) -> None:
    """Compares the abstract leaves of the tree `name` with those saved.

    Raises CheckpointError naming the first one that is absent, unexpected, or of another dtype or shape.
    """
    if name not in record['trees']:
        raise CheckpointError(f'{path} holds no {name}, only {", ".join(record["trees"])}')
    saved = {leaf: f'{dtype}{shape}' for leaf, (dtype, shape, *_) in record['trees'][name].items()}
    asked = {leaf: f'{value.dtype}{list(value.shape)}' for leaf, value in leaves.items()}
    for leaf in saved | asked:
        if saved.get(leaf) != asked.get(leaf):
            raise CheckpointError(
                f'{name}/{leaf} is {saved.get(leaf, "absent")} in {path}, the model has '
                f'{asked.get(leaf, "none")}; use the config it was made with, or another workdir'
            )


def verify(record: Record, name: str, leaves: Mapping[str, jax.Array]) -> None:
    """Raises ValueError unless every loaded leaf of the tree `name` has its fingerprint."""
    for leaf, sums in fingerprint.fingerprint(dict(leaves)).items():
        if list(sums) != record['trees'][name][leaf][2:]:
            raise ValueError(f'{name}/{leaf} does not match its fingerprint')


def _rows(step: int, name: str, tree: Any) -> dict[str, tuple]:
    """(dtype, shape, total, weighted) of every leaf by its path."""
    rows = {}
    for path, summary in fingerprint.summarize(tree).items():
        if not summary.finite:
            raise NonFiniteError(
                f'{name}/{path} is not finite at step {step}; no checkpoint is written of it'
            )
        if 0 in summary.shape:
            raise TypeError(
                f'{name}/{path} has shape {summary.shape}; Orbax saves no arrays without elements'
            )
        if jax.dtypes.canonicalize_dtype(summary.dtype) != summary.dtype:
            raise TypeError(f'{name}/{path} is {summary.dtype}, which JAX would cut to 32 bits; convert it')
        rows[path] = summary[:4]
    return rows


def _sha256(record: Record) -> str:
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()
