"""The stages that train tokenizers, one for each learned modality; text tokenizers only read the captions."""

import io
import logging
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from vqdit.data import load
from vqdit.data.batches import Batches, stack
from vqdit.data.dataset import Dataset
from vqdit.files import read_json, write_bytes, write_json
from vqdit.generation.pictures import draw_table
from vqdit.tokenizers.frozen import FrozenTokenizer, Tokenizer
from vqdit.tokenizers.health import changed_share, codebook_health, diagnosis
from vqdit.tokenizers.latent_statistics import write_statistics
from vqdit.tokenizers.losses import peak_signal_to_noise
from vqdit.tokenizers.text import ByteTokenizer, TextTokenizer, WordTokenizer, build_vocabulary
from vqdit.training.factory import build_learned_tokenizer, learned_modalities
from vqdit.training.keys import named_key
from vqdit.training.loop import Run, Stage, fit
from vqdit.training.state import TrainState
from vqdit.training.tokenizer_training import build_training, freeze, initial_variables

logger = logging.getLogger(__name__)
SHOWN, MEASURED = 16, 256
"""Test examples in the picture of reconstructions, and behind the figures."""


def train_tokenizers(run: Run) -> dict[str, Tokenizer]:
    """Trains what is not trained yet; returns the tokenizer of every modality, in the order of the config."""
    return {name: train_tokenizer(run, name) if name in learned_modalities(run.config) else text_tokenizer(run, name)
            for name in run.config.tokenizers}


def text_tokenizer(run: Run, modality: str) -> Tokenizer:
    """The text tokenizer of the workdir, made from the training captions at the first call."""
    path = _folder(run, modality) / 'tokenizer.json'
    if not path.exists():
        write_json(path, make_text_tokenizer(run.config, modality).to_json())
    return TextTokenizer.from_json(read_json(path))


def make_text_tokenizer(config: ConfigDict, modality: str) -> TextTokenizer:
    """The text tokenizer of a config, which reads the training captions where it needs their words."""
    section = config.tokenizers[modality]
    if section.kind != 'words':
        return ByteTokenizer(section.length)
    texts = load(config.data, 'train', modalities=(modality,))
    return WordTokenizer(build_vocabulary([texts[i][modality] for i in range(len(texts))]), section.length)


def train_tokenizer(run: Run, modality: str) -> FrozenTokenizer:
    """Trains a tokenizer to its last step and freezes its averaged parameters."""
    tokenizer = build_learned_tokenizer(run.config, modality)
    section, folder = run.config.tokenizers[modality].training, _folder(run, modality)
    training = build_training(run.config, modality, tokenizer)
    key = named_key(run.config.seed, f'{modality} tokenizer, first parameters')
    train, test = (load(run.config.data, split, modalities=(modality,)) for split in ('train', 'test'))
    initial = initial_variables(run.config, modality, tokenizer)
    earlier: dict[str, np.ndarray] = {}

    def show(step: int, state: TrainState) -> None:
        earlier['codes'] = show_health(folder, modality, freeze(tokenizer, state), test, earlier.get('codes'))

    stage = Stage(
        name=f'{modality} tokenizer', folder=str(folder), section=section, step=training.step,
        batches=Batches(train, section.batch_size, run.config.seed,
                        collate=lambda examples: stack([{modality: example[modality]} for example in examples])),
        companions={}, show=show)
    frozen = freeze(tokenizer, fit(stage, lambda: training.create(initial(key), key), run))
    if not (folder / 'latents.json').exists():
        write_statistics(folder, frozen, _first(train, modality))
    return frozen


def show_health(folder: Path, modality: str, tokenizer: FrozenTokenizer, test: Dataset,
                earlier: np.ndarray | None = None) -> np.ndarray:
    """Writes `health.json` and `reconstructions.png` of some test examples, and says what is wrong, if anything.

    Returns their codes, which are the `earlier` ones of the next time.
    """
    originals = _first(test, modality)
    codes = tokenizer.encode(originals)
    decoded = tokenizer.decode(codes)
    health: dict[str, Any] = codebook_health(codes, tokenizer.spec.num_codes)
    if originals.dtype == np.uint8:
        health['psnr'] = float(peak_signal_to_noise(jnp.asarray(decoded), jnp.asarray(originals), 255.0))
    if earlier is not None:
        health['drift'] = changed_share(codes, earlier)
    health['diagnosis'] = diagnosis(health)
    write_json(folder / 'health.json', health)
    picture = io.BytesIO()
    draw_table({modality: originals[:SHOWN], 'reconstruction': decoded[:SHOWN]}).save(picture, 'PNG')
    write_bytes(folder / 'reconstructions.png', picture.getvalue())
    logger.info('%s tokenizer: %s', modality, ', '.join(
        f'{name} {value:.3g}' if isinstance(value, float) else f'{name}: {value}' for name, value in health.items()))
    return codes


def _first(dataset: Dataset, modality: str) -> np.ndarray:
    return np.stack([dataset[i][modality] for i in range(min(MEASURED, len(dataset)))])


def _folder(run: Run, modality: str) -> Path:
    return Path(run.workdir) / 'tokenizers' / modality
