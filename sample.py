"""Generates any modality from any other with a trained model, or images of classes with an image DiT.

python sample.py --workdir=runs/quickstart --given text="a small red circle at the top left" \\
    --generate=image,audio --num=8
python sample.py --weights=DiT-XL-2-256x256.pt --vae=sd-vae-ft-ema --label=207 --num=4

--given repeats; its value is a file or, for text, the text itself. What is not given is generated, jointly, unless
--generate names a part of it.
--weights is a file of DiT or SiT, or a folder that diffusers saved of a network or of a whole pipeline.
"""

import sys
from pathlib import Path
from typing import Any

from absl import flags

from vqdit import __version__
from vqdit.command import run
from vqdit.config_file import literal
from vqdit.data.preprocess import read_formats
from vqdit.diffusion.clock import Task
from vqdit.diffusion.registry import WEIGHT_SCHEDULES
from vqdit.diffusion.samplers.ordered import ORDERS
from vqdit.errors import UserError
from vqdit.generation.class_images import read_labels, write_class_images
from vqdit.generation.given import parse_given, read_given
from vqdit.generation.images import ImageGenerator
from vqdit.generation.outputs import empty_folder, new_folder, write_samples
from vqdit.generation.weights import load_weights
from vqdit.training.host import keep_compiled_programs, prepare_host
from vqdit.training.image_factory import is_image_model
from vqdit.training.pipeline import load_generator, load_image_generator
from vqdit.training.sampler_settings import general
from vqdit.training.sampling import check_guidance
from vqdit.training.workdir import load_config

WORKDIR = flags.DEFINE_string('workdir', None, 'folder of the trained model')
GIVEN = flags.DEFINE_multi_string('given', [], 'modality=file or text=words; may be repeated')
GENERATE = flags.DEFINE_list('generate', None, 'modalities to generate, such as image,audio; by default all not given')
NUM = flags.DEFINE_integer('num', 8, 'number of samples', lower_bound=1)
SEED = flags.DEFINE_integer('seed', 0, 'equal seeds give equal samples', lower_bound=0)
STEPS = flags.DEFINE_integer('steps', None, "steps of the sampler; the config's by default", lower_bound=1)
GUIDANCE = flags.DEFINE_float('guidance', None, 'pull towards what is given; 1 is none')
GUIDANCE_INTERVAL = flags.DEFINE_string('guidance_interval', None, 'noise levels that it is for, such as 0.1,0.9')
GUIDANCE_SCHEDULE = flags.DEFINE_enum('guidance_schedule', None, list(WEIGHT_SCHEDULES), 'how it sets in')
GUIDANCE_RESCALE = flags.DEFINE_float('guidance_rescale', None, 'share of its spread that is taken back')
GUIDANCE_AVERAGE = flags.DEFINE_float('guidance_average', None, 'away from this power average, by its deviation')
AVERAGE = flags.DEFINE_float('average', None, 'samples with this power average, by its deviation, such as 0.07')
SAMPLER = flags.DEFINE_string('sampler', None, 'another sampler: its name, or {"name": ... and its settings}')
TEMPERATURE = flags.DEFINE_float('temperature', None, 'below 1: likelier and less varied', lower_bound=0.0)
TOP_K = flags.DEFINE_integer('top_k', None, 'only so many of the likeliest codes of every token', lower_bound=1)
TOP_P = flags.DEFINE_float('top_p', None, 'only the likeliest codes that hold this probability together')
ORDER = flags.DEFINE_enum('order', None, ORDERS, 'which tokens are generated first')
OF_MODALITIES = (GIVEN, GENERATE, GUIDANCE_INTERVAL, GUIDANCE_SCHEDULE, GUIDANCE_RESCALE, GUIDANCE_AVERAGE, SAMPLER,
                 TEMPERATURE, TOP_K, TOP_P, ORDER)
OUT = flags.DEFINE_string('out', None, 'empty folder for the files; the next of WORKDIR/samples/ by default')
WEIGHTS = flags.DEFINE_string('weights', None, 'image DiT of another project, in place of --workdir')
VAE = flags.DEFINE_string('vae', None, 'folder of the autoencoder of its latents, as diffusers saves it')
FAMILY = flags.DEFINE_string('family', None, '"dit" or "sit"; by default as the name of the file begins')
HEADS = flags.DEFINE_integer('heads', None, 'of a network whose width is not a published one', lower_bound=1)
LABEL = flags.DEFINE_list('label', [], 'classes of the images, in turn; by default of none')
SOLVER = flags.DEFINE_string('solver', None, 'of an image DiT: a name, such as ddim, or {"name": ... and its settings}')


def overrides() -> dict[str, Any]:
    """The settings of the sampler that the flags change."""
    flagged = {'steps': STEPS, 'guidance': GUIDANCE, 'guidance_schedule': GUIDANCE_SCHEDULE,
               'guidance_rescale': GUIDANCE_RESCALE, 'temperature': TEMPERATURE, 'order': ORDER,
               'guidance_average': GUIDANCE_AVERAGE, 'average': AVERAGE, 'top_k': TOP_K, 'top_p': TOP_P}
    changes = {name: flag.value for name, flag in flagged.items() if flag.value is not None}
    literals = {'sampler': SAMPLER, 'guidance_interval': GUIDANCE_INTERVAL}
    return changes | {name: literal(flag.value) for name, flag in literals.items() if flag.value is not None}


def main() -> None:
    prepare_host(cpu_devices=1)
    keep_compiled_programs()
    if bool(WORKDIR.value) == bool(WEIGHTS.value):
        raise UserError('name either --workdir, a folder of train.py, or --weights, a file of another project')
    if WEIGHTS.value:
        _refuse(*OF_MODALITIES, AVERAGE, beside='--weights')
        options = _flagged(steps=STEPS, guidance=GUIDANCE, heads=HEADS) | _solver()
        generator = load_weights(WEIGHTS.value, VAE.value, FAMILY.value, **options)
        return sample_images(generator, Path('samples'), {'weights': Path(WEIGHTS.value).name})
    _refuse(VAE, FAMILY, HEADS, beside='--workdir')
    if is_image_model(load_config(WORKDIR.value)):
        _refuse(*OF_MODALITIES, beside='a workdir of images of classes')
        options = _flagged(steps=STEPS, guidance=GUIDANCE, average=AVERAGE) | _solver()
        generator = load_image_generator(WORKDIR.value, **options)
        return sample_images(generator, Path(WORKDIR.value) / 'samples', {})
    _refuse(LABEL, SOLVER, beside='a workdir of modalities')
    return sample_tokens()


def _flagged(**choices: flags.FlagHolder) -> dict[str, Any]:
    """The flags that were given."""
    return {name: flag.value for name, flag in choices.items() if flag.value is not None}


def _solver() -> dict[str, Any]:
    """The solver that was asked for, with its settings."""
    return {'solver': literal(SOLVER.value)} if SOLVER.value is not None else {}


def _refuse(*choices: flags.FlagHolder, beside: str) -> None:
    for flag in choices:
        if flag.present:
            raise UserError(f'--{flag.name} has no meaning beside {beside}; leave it out')


def sample_images(generator: ImageGenerator, parent: Path, about: dict[str, Any]) -> None:
    labels = read_labels(LABEL.value, generator.model.classes, NUM.value)
    folder = empty_folder(Path(OUT.value)) if OUT.value else new_folder(parent)
    task = write_class_images(folder, generator, LABEL.value, labels, SEED.value, about | {'vqdit': __version__})
    sys.stdout.write(f'{NUM.value} samples of {task}: {folder}/grid.png\n')


def sample_tokens() -> None:
    values = parse_given(GIVEN.value)
    generator, config = load_generator(WORKDIR.value, **overrides())
    modalities = generator.layout.modalities
    generated = tuple(GENERATE.value or (name for name in modalities if name not in values))
    if not generated:
        raise UserError(f'--given names all of {", ".join(modalities)}, which leaves none to generate; drop one')
    task = Task(tuple(values), generated)
    task.roles(generator.layout)
    if not task.given and GUIDANCE.value not in (None, 1.0) and general(config)['guidance_average'] is None:
        raise UserError('--guidance pulls towards what is given, which is nothing; add --given or drop --guidance')
    check_guidance(config, [task])
    formats = read_formats(config.data)
    given = read_given(values, formats, modalities)
    if 'text' in given:
        generator.tokenizers['text'].encode(given['text'])  # strict: an unknown word is the user's mistake
    out = empty_folder(Path(OUT.value)) if OUT.value else None
    made = generator.generate(task, given, NUM.value, SEED.value)
    folder = out or new_folder(Path(WORKDIR.value) / 'samples')
    about = {
        'given': {name: value if name == 'text' else Path(value).name for name, value in values.items()},
        'num': NUM.value,
        'seed': SEED.value,
        'sampler': config.diffusion.sampler.to_dict(),
        'tokenizers': {name: generator.tokenizers[name].fingerprint for name in modalities},
        'vqdit': __version__,
    }
    write_samples(folder, task, given, made, formats.audio.rate, about)
    sys.stdout.write(f'{NUM.value} samples of {task}: {folder}/grid.png\n')


if __name__ == '__main__':
    run(main)
