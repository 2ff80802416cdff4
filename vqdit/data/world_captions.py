"""The captions of the built-in world: a small grammar whose every sentence has a known probability.

    p(caption | scene) = p(template) * product of p(phrase | value) over the five attributes

A caption tells the whole scene, so H(caption | known) = H(scene | known) + H(caption | scene).
"""

import re
from bisect import bisect
from collections.abc import Iterable
from functools import cache
from itertools import accumulate, product

import numpy as np

from vqdit.data.world_scenes import ATTRIBUTES, Scene, all_scenes, entropy, joint

MAX_WORDS = 12

TEMPLATES: dict[str, float] = {
    'a {size} {colour} {shape} at the {position}{motion}': 0.40,
    'at the {position} a {size} {colour} {shape}{motion}': 0.25,
    'a {size} {shape} in {colour} at the {position}{motion}': 0.20,
    'there is a {size} {colour} {shape} at the {position}{motion}': 0.15,
}

# Every value is said by its own name, but for these; the plain phrase comes first.
_SYNONYMS: dict[tuple[str, str], dict[str, float]] = {
    ('size', 'small'): {'small': 0.7, 'tiny': 0.3},
    ('size', 'large'): {'large': 0.7, 'big': 0.3},
    ('shape', 'circle'): {'circle': 0.8, 'disc': 0.2},
    ('shape', 'square'): {'square': 0.8, 'box': 0.2},
    ('shape', 'cross'): {'cross': 0.8, 'plus': 0.2},
    ('position', 'centre'): {'centre': 0.7, 'middle': 0.3},
    ('motion', 'still'): {'': 0.8, ' standing still': 0.2},
    **{
        ('motion', way): {f' moving {way}': 0.75, f' going {way}': 0.25}
        for way in ATTRIBUTES['motion'][1:]
    },
}


def _phrases(attribute: str, index: int) -> dict[str, float]:
    name = ATTRIBUTES[attribute][index]
    return _SYNONYMS.get((attribute, name), {name: 1.0})


def draw_caption(scene: Scene, rng: np.random.Generator) -> str:
    """A caption drawn from p(caption | scene)."""
    template = _draw(TEMPLATES, rng)
    chosen = {name: _draw(_phrases(name, index), rng) for name, index in scene.indices.items()}
    return template.format(**chosen)


def _draw(choices: dict[str, float], rng: np.random.Generator) -> str:
    cumulative = list(accumulate(choices.values()))[:-1]
    return list(choices)[bisect(cumulative, rng.random())]


def plain_caption(scene: Scene) -> str:
    """The most probable caption of a scene, such as `a small red circle at the top left`."""
    chosen = {name: next(iter(_phrases(name, i))) for name, i in scene.indices.items()}
    return next(iter(TEMPLATES)).format(**chosen)


def caption_probabilities(scene: Scene) -> dict[str, float]:
    """Every caption of a scene with p(caption | scene)."""
    choices = [TEMPLATES, *(_phrases(name, index) for name, index in scene.indices.items())]
    captions = {}
    for (template, first), *chosen in product(*(part.items() for part in choices)):
        phrases = dict(zip(scene.indices, (phrase for phrase, _ in chosen)))
        probability = first * float(np.prod([p for _, p in chosen]))
        captions[template.format(**phrases)] = probability
    return captions


def caption_entropy(given: Iterable[str] = ()) -> float:
    """H(caption | given attributes) in nats; with all five given, that of the wording alone."""
    return entropy(ATTRIBUTES, given) + _wording_entropy()


@cache
def _wording_entropy() -> float:
    """H(caption | scene) in nats, the mean over scenes."""
    per_scene = [_wording_entropy_of(scene) for scene in all_scenes()]
    return float(np.dot(joint().ravel(), per_scene))


def _wording_entropy_of(scene: Scene) -> float:
    choices = [TEMPLATES, *(_phrases(name, index) for name, index in scene.indices.items())]
    return sum(-p * float(np.log(p)) for part in choices for p in part.values())


@cache
def vocabulary() -> tuple[str, ...]:
    """Every word of the grammar, sorted."""
    slots = dict.fromkeys(ATTRIBUTES, '')
    phrases = [' '.join(template.format(**slots) for template in TEMPLATES)]
    for name, values in ATTRIBUTES.items():
        phrases += [phrase for index in range(len(values)) for phrase in _phrases(name, index)]
    return tuple(sorted(set(' '.join(phrases).split())))


@cache
def _grammar() -> tuple[list[re.Pattern[str]], dict[str, dict[str, int]]]:
    """A pattern a template, and the index that each phrase stands for."""
    meanings = {
        name: {phrase: index for index in range(len(values)) for phrase in _phrases(name, index)}
        for name, values in ATTRIBUTES.items()
    }
    slots = {name: f'(?P<{name}>{"|".join(phrases)})' for name, phrases in meanings.items()}
    return [re.compile(template.format(**slots)) for template in TEMPLATES], meanings


def read_text(caption: str) -> dict[str, int | None]:
    """The five attributes that a caption tells; all None when the grammar has no such caption."""
    patterns, meanings = _grammar()
    caption = ' '.join(caption.lower().split())
    for pattern in patterns:
        match = pattern.fullmatch(caption)
        if match:
            return {name: meanings[name][match[name]] for name in ATTRIBUTES}
    return dict.fromkeys(ATTRIBUTES)
