"""What `config.diffusion.sampler` says: the sampler, guidance, and what fits the process and the tasks of a model."""

from collections.abc import Iterable, Mapping
from typing import Any

from ml_collections import ConfigDict

from vqdit.diffusion import registry
from vqdit.diffusion.categorical import Process
from vqdit.diffusion.clock import Task
from vqdit.diffusion.guidance import Guidance
from vqdit.diffusion.samplers import Stepwise
from vqdit.errors import UserError, nearest
from vqdit.generation import Generator
from vqdit.generation.generator import Sampler
from vqdit.models.multimodal import MultimodalDiT
from vqdit.registry import choose
from vqdit.tokenizers.frozen import Tokenizer
from vqdit.training.factory import build_process
from vqdit.training.gaussian import build_space, build_vector_sampler, is_gaussian
from vqdit.training.sampler_settings import GENERAL, PATH, TRUNCATION, general, own

EXAMPLE = "{'name': 'remasking', 'steps': 32}"


def build_sampler(config: ConfigDict, process: Process) -> Stepwise:
    """The sampler of `config.diffusion.sampler`, for a process. Raises UserError for unsound settings."""
    settings = general(config)
    sampler = registry.build_sampler(own(config), PATH, process)
    return registry.build_truncation(sampler, PATH, settings['top_k'], settings['top_p'])


def build_guidance(config: ConfigDict) -> float | Guidance:
    """The guidance of `config.diffusion.sampler`; 1.0 is none. Raises UserError for unsound settings."""
    settings = general(config)
    return registry.build_guidance(
        settings['guidance'], f'{PATH}.guidance', settings['guidance_interval'], settings['guidance_schedule'],
        settings['guidance_rescale'])


def build_generator(config: ConfigDict, model: MultimodalDiT, params: Any, tokenizers: Mapping[str, Tokenizer],
                    batch_size: int) -> Generator:
    """A generator with the sampler and the guidance of the config, for the process that the model was trained with."""
    sampler: Sampler
    if is_gaussian(config):
        sampler = build_vector_sampler(config, build_space(config, model.layout, tokenizers))
    else:
        sampler = build_sampler(config, build_process(config, model.layout, tokenizers))
    return Generator(model, params, tokenizers, sampler, build_guidance(config), batch_size)


def check_guidance(config: ConfigDict, tasks: Iterable[Task]) -> None:
    """Raises UserError when there is guidance, but the model did not learn one of the `tasks` without its condition.

    Tasks that give nothing are left as they are by guidance, and autoguidance needs no such task.
    """
    weight = general(config)['guidance']
    if weight == 1 or general(config)['guidance_average'] is not None:
        return
    trained = [Task.parse(text) for text in config.diffusion.tasks]
    if not any(task.given for task in trained):
        raise UserError(f'{PATH}.guidance is {weight}, but the model is unconditional: no task of diffusion.tasks '
                        'gives anything; set it to 1, or add a task such as "text->image"')
    for task in tasks:
        if task.given and not any(_leaves_out(other, task) for other in trained):
            alone = Task((), task.generated)
            raise UserError(f'{PATH}.guidance is {weight}, but no task of diffusion.tasks generates '
                            f'{", ".join(task.generated)} without {", ".join(task.given)}, which guidance compares '
                            f'"{task}" with; set it to 1, or add "{alone}"')


def _leaves_out(other: Task, task: Task) -> bool:
    return set(task.generated) <= set(other.generated) and not set(task.given) & set(other.given)


def change_sampler(config: ConfigDict, changes: Mapping[str, Any]) -> None:
    """Replaces settings of `config.diffusion.sampler`.

    The change `sampler` is another one's name, or a mapping of it and its settings; what else it can be told of the
    old settings stays. Raises UserError for a setting that the sampler does not have.
    """
    settings, changes = config.diffusion.sampler.to_dict(), dict(changes)
    if is_gaussian(config):
        for name in changes:
            choose(settings, name, 'the sampler setting')
        with config.unlocked():
            config.diffusion.sampler = ConfigDict(settings | changes)
        return
    other = changes.pop('sampler', None)
    if other is not None:
        other = {'name': other} if isinstance(other, str) else other
        if not isinstance(other, Mapping):
            raise UserError(f'the sampler {other!r} is neither a name nor a mapping, such as {EXAMPLE}')
        known = _known(other.get('name', ''))
        settings = {name: value for name, value in settings.items() if name in known} | dict(other)
    known = _known(settings['name'])
    for name in changes:
        if name not in known:
            raise UserError(f'sampler setting "{name}" is unknown; "{settings["name"]}" has {", ".join(known)}'
                            f'.{nearest(name, known)}')
    with config.unlocked():
        config.diffusion.sampler = ConfigDict(settings | changes)


def _known(name: str) -> tuple[str, ...]:
    return (*registry.sampler_settings(name, f'{PATH}.name'), *GENERAL, *TRUNCATION)
