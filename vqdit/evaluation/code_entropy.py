"""How many bits the codes of a scene take, estimated from many renders of it through the frozen tokenizer.

Of N tokens that stand for one scene, drawn M times, two estimates enclose what a perfect model would need:

    joint    the plug-in entropy of whole rows of codes. Too small, by up to all of it: it cannot pass log M.
    apart    the entropies of the single tokens, summed. Too large, by what the tokens tell of each other; its own
             plug-in bias of about -(seen codes - 1) / (2 M) nats a token is taken out (Miller 1955; Paninski 2003).
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from vqdit.evaluation.rows import Row
from vqdit.tokenizers.frozen import Tokenizer, stack

SCENES, RENDERS = 8, 256


def code_entropy_rows(task: str, tokenizer: Tokenizer, render: Callable[[Any, np.random.Generator], Any],
                      scenes: Sequence[Any], renders: int = RENDERS) -> list[Row]:
    """Both estimates of H(codes | scene), the mean over `scenes`, in bits per token."""
    joint, apart = [], []
    for index, scene in enumerate(scenes):
        rng = np.random.default_rng(index)
        codes = tokenizer.encode(stack([render(scene, rng) for _ in range(renders)]))
        joint.append(joint_entropy(codes))
        apart.append(entropy_apart(codes))
    bits = tokenizer.spec.length * np.log(2)
    estimates = {'joint estimate (too small)': joint, 'tokens apart (too large)': apart}
    return [Row(task, f'code entropy, {how}', float(np.mean(values)) / bits, 'bits per token', len(scenes) * renders)
            for how, values in estimates.items()]


def joint_entropy(codes: np.ndarray) -> float:
    """The plug-in entropy of the rows of `codes int [M, N]`, in nats."""
    return _plug_in(np.unique(codes, axis=0, return_counts=True)[1])


def entropy_apart(codes: np.ndarray) -> float:
    """The summed entropies of the columns of `codes int [M, N]` in nats, each with Miller's correction."""
    counts = [np.unique(column, return_counts=True)[1] for column in codes.T]
    return sum(_plug_in(part) + (len(part) - 1) / (2 * len(codes)) for part in counts)


def _plug_in(counts: np.ndarray) -> float:
    shares = counts / counts.sum()
    return float(-np.sum(shares * np.log(shares)))
