"""The tokenizers of a workdir, measured on its test data: their codes, and what they leave of pictures and sounds."""

import io
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags

from vqdit.data import load
from vqdit.data.preprocess import read_formats
from vqdit.evaluation.frechet import Features, coarse_pixels, frechet_distance, perceptual_features
from vqdit.evaluation.image import psnr, ssim
from vqdit.evaluation.sound import mel_distance, signal_to_distortion
from vqdit.files import write_bytes, write_json
from vqdit.generation.pictures import draw_table
from vqdit.tokenizers.health import MEASURED, describe, tokenizer_health
from vqdit.training.factory import learned_modalities
from vqdit.training.host import prepare_host
from vqdit.training.tokenizer_training import restore_tokenizer
from vqdit.training.workdir import load_config

SHOWN = 16
SMALLEST = 11
"""Side of the smallest picture that has a structural similarity."""


def measure_workdir(workdir: Path, features: Features = coarse_pixels) -> Iterator[str]:
    """Writes `codebook.json` and `codebook.png` beside every learned tokenizer; yields lines for people.

    Raises what `restore_tokenizer` and `load` raise.
    """
    config = load_config(workdir)
    for name in learned_modalities(config):
        tokenizer, test = restore_tokenizer(workdir, name), load(config.data, 'test', modalities=(name,))
        raw = np.stack([test[i][name] for i in range(min(MEASURED, len(test)))])
        decoded = tokenizer.decode(tokenizer.encode(raw))
        health = tokenizer_health(tokenizer, raw)
        health['reconstruction'] = reconstruction_figures(decoded, raw, read_formats(config.data).audio.rate, features)
        folder, picture = workdir / 'tokenizers' / name, io.BytesIO()
        draw_table({name: raw[:SHOWN], 'reconstruction': decoded[:SHOWN]}).save(picture, 'PNG')
        write_bytes(folder / 'codebook.png', picture.getvalue())
        write_json(folder / 'codebook.json', health)
        yield from describe(name, health)
        yield f'{name}: {figures_line(health["reconstruction"])}'


def reconstruction_figures(decoded: np.ndarray, raw: np.ndarray, rate: int,
                           features: Features = coarse_pixels) -> dict[str, float]:
    """Means over examples: PSNR and SSIM, with the Frechet distance of both sets, or SI-SDR and mel distance."""
    if raw.dtype != np.uint8:
        return {'si_sdr': float(np.mean(signal_to_distortion(decoded, raw))),
                'mel_distance': mel_distance(decoded, raw, rate)}
    figures = {'psnr': float(np.mean(psnr(decoded, raw)))}
    # Frames of a video are pictures.
    pictures, originals = (x.reshape(-1, *x.shape[-3:]) for x in (decoded, raw))
    if min(pictures.shape[1:3]) >= SMALLEST:
        figures['ssim'] = float(np.mean(ssim(pictures, originals)))
    return figures | {'frechet_distance': frechet_distance(features(pictures), features(originals))}


def figures_line(figures: Mapping[str, Any]) -> str:
    return ', '.join(f'{name} {value:.4g}' for name, value in figures.items())


def main() -> None:
    """The command of `vqdit.tokenizers.health`."""
    prepare_host(cpu_devices=1)
    weights = flags.FLAGS.features
    features = perceptual_features(Path(weights)) if weights else coarse_pixels
    for line in measure_workdir(Path(flags.FLAGS.workdir), features):
        sys.stdout.write(f'{line}\n')
