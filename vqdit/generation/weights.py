"""Image generators from weight files of other projects."""

from pathlib import Path
from typing import Any

from vqdit.diffusion.gaussian.published import IMAGE_PROCESSES
from vqdit.errors import UserError, nearest
from vqdit.generation.images import ImageGenerator
from vqdit.interop.dit import import_dit
from vqdit.interop.latent_diffusion import import_autoencoder
from vqdit.models.dit import DiT
from vqdit.tokenizers.latent_diffusion import GaussianAutoencoder
from vqdit.tokenizers.latents import GaussianLatents
from vqdit.tokenizers.pixels import Pixels


def load_weights(weights: str | Path, autoencoder: str | Path | None = None, family: str | None = None,
                 heads: int | None = None, **options: Any) -> ImageGenerator:
    """The generator of a file of DiT or SiT, or of a folder that diffusers saved of a network or of a pipeline.

    Args:
        autoencoder: folder of diffusers; that of the pipeline by default.
        family: "dit" or "sit", which look alike; by default as the file's name begins.
        heads: of a network whose width is not a published one.
        options: of `ImageGenerator`.

    Raises CheckpointError and UserError as the importers do, UserError when no autoencoder is at hand.
    """
    weights = Path(weights)
    pipeline = weights if (weights / 'transformer').is_dir() else None
    family = find_family(family, weights)
    model, params = import_dit(weights / 'transformer' if pipeline else weights, **({'heads': heads} if heads else {}))
    if autoencoder is None and pipeline is None:
        raise UserError('--vae is missing: the folder of the autoencoder that the latents are of')
    frozen, variables = _gaussian_latents(autoencoder or weights / 'vae', model)
    generator = ImageGenerator(model, params, IMAGE_PROCESSES[family](), frozen, variables, **options)
    generator.settings['family'] = family
    return generator


def find_family(family: str | None, weights: Path) -> str:
    """The family that is named, else the one that the file's name begins with, else "dit"."""
    if family is None:
        return next((known for known in IMAGE_PROCESSES if weights.name.lower().startswith(known)), 'dit')
    if family not in IMAGE_PROCESSES:
        raise UserError(f'family "{family}" is unknown; choose one of {", ".join(IMAGE_PROCESSES)}.'
                        f'{nearest(family, IMAGE_PROCESSES)}')
    return family


def _gaussian_latents(folder: str | Path, model: DiT) -> tuple[GaussianLatents, Any]:
    autoencoder, params = import_autoencoder(folder)
    if not isinstance(autoencoder, GaussianAutoencoder):
        raise UserError(f'{folder} holds an autoencoder with codes; a network of latents needs an AutoencoderKL')
    stride = 2 ** (len(autoencoder.widths) - 1)
    pixels = Pixels((stride * model.size[0], stride * model.size[1]), autoencoder.channels)
    return GaussianLatents(pixels, autoencoder), {'params': params}
