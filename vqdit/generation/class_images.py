"""What a user asks of an image DiT, images of classes, from labels to files."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vqdit.diffusion.clock import Task
from vqdit.errors import UserError
from vqdit.generation.images import ImageGenerator
from vqdit.generation.outputs import write_samples


def read_labels(written: Sequence[str], classes: int, count: int) -> np.ndarray:
    """int32 [count] of the written labels in turn; `classes`, which stands for no label, where none is written.

    Raises UserError for what is no number from 0 to `classes` - 1.
    """
    for label in written:
        if not (label.isascii() and label.isdigit() and int(label) < classes):
            raise UserError(f'label "{label}" is no class of this network; give numbers from 0 to {classes - 1}')
    return np.resize(np.asarray([int(label) for label in written] or [classes], np.int32), count)


def write_class_images(folder: Path, generator: ImageGenerator, written: Sequence[str], labels: np.ndarray, seed: int,
                       about: Mapping[str, Any]) -> Task:
    """Generates an image for every label and writes them as `write_samples` does; returns what the task was."""
    images = generator.generate(labels, seed)
    task = Task(('label',) if written else (), ('image',))
    told = {'labels': labels.tolist(), 'num': len(labels), 'seed': seed, 'sampler': generator.settings, **about}
    write_samples(folder, task, {'label': [str(label) for label in labels]}, {'image': images}, None, told)
    return task
