"""Training of an image DiT on stored latents and labels, and what it takes to load it again.

As with the multimodal model, the frozen autoencoder travels in every checkpoint, beside the state.
"""

import io
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
from ml_collections import ConfigDict

from vqdit.data import load
from vqdit.data.batches import Batches
from vqdit.data.token_store import TokenStore
from vqdit.diffusion.few_step import MeanFlow
from vqdit.diffusion.gaussian.published import ImageProcess
from vqdit.errors import CheckpointError, UserError
from vqdit.files import write_bytes
from vqdit.generation.images import ImageGenerator, build_solver
from vqdit.generation.pictures import draw_table
from vqdit.interop.latent_diffusion import import_autoencoder, read_architecture, write_architecture
from vqdit.tokenizers.frozen import FrozenTokenizer
from vqdit.tokenizers.latent_statistics import read_statistics
from vqdit.tokenizers.latents import LatentTokenizer, Variables
from vqdit.tokenizers.spec import TokenLayout
from vqdit.training.averages import Kept, check_averages, restored_parameters, sampling_parameters
from vqdit.training.checkpoint_reader import CheckpointReader
from vqdit.training.gradients import reduce_dtype
from vqdit.training.image_factory import (
    build_image_generator,
    build_image_model,
    build_image_process,
    image_training,
    learned_latents,
    planned_latents,
    published_latents,
)
from vqdit.training.loop import Run, Stage, fit
from vqdit.training.optimizers import build_optimizer
from vqdit.training.processes import to_host
from vqdit.training.sharding import check_batch, make_mesh
from vqdit.training.state import TrainState
from vqdit.training.token_stage import write_tokens
from vqdit.training.tokenizer_stage import train_tokenizer

SHOWN = 16
"""Images in the pictures made during training, of classes spread evenly."""


def check_image_config(config: ConfigDict) -> None:
    """Raises UserError or DataError for what can be known to be wrong before anything is written."""
    section, sampler = config.diffusion.training, config.diffusion.sampler
    check_batch(section.batch_size, make_mesh(config.mesh), section.accumulate)
    build_optimizer(section, section.steps)
    reduce_dtype(section)
    latents = planned_latents(config)
    process = build_image_process(config)
    process.grid(sampler.steps)
    model = build_image_model(config, latents)
    build_solver(sampler.to_dict()['solver'], model, process)
    check_averages(config)
    _check_guided_training(config, process)
    if isinstance(process, MeanFlow) and model.implementation == 'cudnn':
        raise UserError('mean_flow differentiates the network forwards, which the attention of cuDNN cannot; set '
                        'diffusion.model.implementation to "xla"')
    autoencoder = config.tokenizers.image
    if autoencoder.kind == 'published' and not autoencoder.weights:
        raise UserError('tokenizers.image.weights is empty; name the folder of the autoencoder, as diffusers saves it')
    if 'label' not in load(config.data, 'train', modalities=('image',))[0]:
        raise UserError('the data has no labels, and an image DiT is trained on classes; choose a set with labels')


def _check_guided_training(config: ConfigDict, process: ImageProcess) -> None:
    """Raises UserError for guidance in training that would come on top of that in sampling, or has no opposite."""
    if getattr(process, 'guidance', None) is None:
        return
    weight = config.diffusion.sampler.guidance
    if weight != 1:
        raise UserError(f'diffusion.sampler.guidance is {weight}, on top of what diffusion.process.guidance trains; '
                        'set it to 1.0')
    if not config.diffusion.label_dropout:
        raise UserError('diffusion.label_dropout is 0, and diffusion.process.guidance compares with no label; set it '
                        'to 0.1 or so')


def train_images(run: Run) -> TrainState:
    """Makes whatever is missing of the autoencoder, the store of latents and the image DiT."""
    frozen, latents = _frozen_autoencoder(run)
    write_tokens(run, {'image': frozen}, TokenLayout({'image': frozen.spec}), splits=('train',), metadata=('label',))
    config, workdir, section = run.config, Path(run.workdir), run.config.diffusion.training
    store = TokenStore(workdir / 'tokens', 'train')
    check_labels(store, config.diffusion.model.classes)
    create, step = image_training(config, latents, frozen.variables)
    stage = Stage(
        name='diffusion', folder=str(workdir / 'diffusion'), section=section, step=step,
        batches=Batches(store, section.batch_size, config.seed),
        companions={'tokenizers': {'image': frozen.variables}}, show=_shower(run, latents, frozen.variables))
    return fit(stage, create, run)


def check_labels(store: TokenStore, classes: int) -> None:
    """Raises UserError for labels outside of the classes, which a lookup of their vectors would not notice."""
    labels = store.column('label')
    lowest, highest = int(labels.min()), int(labels.max())
    if lowest < 0 or highest >= classes:
        raise UserError(f'the labels of the data are {lowest} to {highest}, and diffusion.model.classes={classes} has '
                        f'room for 0 to {classes - 1}; set it to the number of labels, which start at 0')


def _frozen_autoencoder(run: Run) -> tuple[FrozenTokenizer, LatentTokenizer]:
    """The autoencoder of the config, trained if it is to be trained here."""
    section = run.config.tokenizers.image
    if section.kind != 'published':
        variables = train_tokenizer(run, 'image').variables
        latents = learned_latents(run.config, read_statistics(_folder(run.workdir)))
        return FrozenTokenizer(latents, variables), latents  # type: ignore[arg-type]
    autoencoder, params = import_autoencoder(section.weights)
    latents = published_latents(autoencoder, run.config)
    write_architecture(_architecture(run.workdir), autoencoder)
    return FrozenTokenizer(latents, {'params': params}, batch_size=16), latents  # type: ignore[arg-type]


def _folder(workdir: str | Path) -> Path:
    return Path(workdir) / 'tokenizers' / 'image'


def _architecture(workdir: str | Path) -> Path:
    return _folder(workdir) / 'config.json'


def _shower(run: Run, latents: LatentTokenizer, variables: Variables) -> Callable[[int, TrainState], None]:
    """A function that draws images of some classes, always from the same noise."""
    config = run.config
    labels = np.linspace(0, config.diffusion.model.classes - 1, SHOWN).round().astype(np.int32)
    generator = build_image_generator(config, None, latents, variables)

    def show(step: int, state: TrainState) -> None:
        kept = Kept(step, to_host(state.averages))
        generator.params = sampling_parameters(config, to_host(state.ema), [kept])
        picture = io.BytesIO()
        draw_table({'image': generator.generate(labels)}).save(picture, 'PNG')
        write_bytes(Path(run.workdir) / 'diffusion' / 'samples' / f'{step:07d}.png', picture.getvalue())

    return show


def restore_generator(workdir: Path, config: ConfigDict) -> ImageGenerator:
    """The generator of the newest good checkpoint, with averaged parameters. Raises CheckpointError without one."""
    published = config.tokenizers.image.kind == 'published'
    missing = CheckpointError(f'{workdir} has no trained image DiT yet; run train.py with this workdir')
    if not (_architecture(workdir) if published else _folder(workdir) / 'latents.json').exists():
        raise missing
    latents = (published_latents(read_architecture(_architecture(workdir)), config) if published
               else learned_latents(config, read_statistics(_folder(workdir))))
    variables = jax.eval_shape(latents.init, jax.random.key(0))
    state = jax.eval_shape(image_training(config, latents, variables)[0])
    reader = CheckpointReader(workdir / 'diffusion' / 'checkpoints')
    found = reader.restore({'state': state, 'tokenizers': {'image': variables}})
    if found is None:
        raise missing
    params = restored_parameters(config, reader, state, found.trees['state'])
    return build_image_generator(config, params, latents, found.trees['tokenizers']['image'])
