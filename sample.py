"""Generates any modality from any other with a trained model.

python sample.py --workdir=runs/quickstart --given text="a small red circle at the top left" \\
    --generate=image,audio --num=8

--given repeats; its value is a file or, for text, the text itself. With nothing given all is generated jointly.
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
from vqdit.generation.given import parse_given, read_given
from vqdit.generation.outputs import empty_folder, new_folder, write_samples
from vqdit.training.host import prepare_host
from vqdit.training.pipeline import load_generator
from vqdit.training.sampling import check_guidance

WORKDIR = flags.DEFINE_string('workdir', None, 'folder of the trained model', required=True)
GIVEN = flags.DEFINE_multi_string('given', [], 'modality=file or text=words; may be repeated')
GENERATE = flags.DEFINE_list('generate', None, 'modalities to generate, such as image,audio')
NUM = flags.DEFINE_integer('num', 8, 'number of samples', lower_bound=1)
SEED = flags.DEFINE_integer('seed', 0, 'equal seeds give equal samples', lower_bound=0)
STEPS = flags.DEFINE_integer('steps', None, "steps of the sampler; the config's by default", lower_bound=1)
GUIDANCE = flags.DEFINE_float('guidance', None, 'pull towards what is given; 1 is none')
GUIDANCE_INTERVAL = flags.DEFINE_string('guidance_interval', None, 'noise levels that it is for, such as 0.1,0.9')
GUIDANCE_SCHEDULE = flags.DEFINE_enum('guidance_schedule', None, list(WEIGHT_SCHEDULES), 'how it sets in')
GUIDANCE_RESCALE = flags.DEFINE_float('guidance_rescale', None, 'share of its spread that is taken back')
SAMPLER = flags.DEFINE_string('sampler', None, 'another sampler: its name, or {"name": ... and its settings}')
TEMPERATURE = flags.DEFINE_float('temperature', None, 'below 1: likelier and less varied', lower_bound=0.0)
ORDER = flags.DEFINE_enum('order', None, ORDERS, 'which tokens are generated first')
OUT = flags.DEFINE_string('out', None, 'empty folder for the files; the next of WORKDIR/samples/ by default')


def overrides() -> dict[str, Any]:
    """The settings of the sampler that the flags change."""
    flagged = {'steps': STEPS, 'guidance': GUIDANCE, 'guidance_schedule': GUIDANCE_SCHEDULE,
               'guidance_rescale': GUIDANCE_RESCALE, 'temperature': TEMPERATURE, 'order': ORDER}
    changes = {name: flag.value for name, flag in flagged.items() if flag.value is not None}
    literals = {'sampler': SAMPLER, 'guidance_interval': GUIDANCE_INTERVAL}
    return changes | {name: literal(flag.value) for name, flag in literals.items() if flag.value is not None}


def main() -> None:
    prepare_host(cpu_devices=1)
    values = parse_given(GIVEN.value)
    generator, config = load_generator(WORKDIR.value, **overrides())
    modalities = generator.layout.modalities
    if not GENERATE.value:
        raise UserError(f'--generate is missing: name one or more of {", ".join(modalities)}')
    task = Task(tuple(values), tuple(GENERATE.value))
    task.roles(generator.layout)
    if not task.given and GUIDANCE.value not in (None, 1.0):
        raise UserError('--guidance pulls towards what is given, which is nothing; add --given or drop --guidance')
    check_guidance(config, [task])
    formats = read_formats(config.data)
    given = read_given(values, formats, modalities)
    if 'text' in given:
        generator.tokenizers['text'].encode(given['text'])  # strict: an unknown word is the user's mistake
    out = empty_folder(Path(OUT.value)) if OUT.value else None
    generated = generator.generate(task, given, NUM.value, SEED.value)
    folder = out or new_folder(Path(WORKDIR.value) / 'samples')
    about = {
        'given': {name: value if name == 'text' else Path(value).name for name, value in values.items()},
        'num': NUM.value,
        'seed': SEED.value,
        'sampler': config.diffusion.sampler.to_dict(),
        'tokenizers': {name: generator.tokenizers[name].fingerprint for name in modalities},
        'vqdit': __version__,
    }
    write_samples(folder, task, given, generated, formats.audio.rate, about)
    sys.stdout.write(f'{NUM.value} samples of {task}: {folder}/grid.png\n')


if __name__ == '__main__':
    run(main)
