"""Text as tokens: bytes, words, or the names of classes. Plain Python and NumPy.

Padding is an ordinary code, which a model learns to generate: it ends the text. Ordinary text never stands for it, nor
for the unknown word.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Self

import numpy as np

from vqdit.errors import DataError, UserError, nearest
from vqdit.tokenizers.spec import TokenSpec

UNKNOWN = '<unknown>'
"""What the code of an unknown word is decoded to."""


@dataclass(frozen=True)
class TextTokenizer:
    """What all of them share: a kind, the JSON that makes them again, and its fingerprint."""

    kind: ClassVar[str]

    def to_json(self) -> dict[str, Any]:
        """All that `from_json` needs."""
        return {'kind': self.kind, **asdict(self)}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        """The tokenizer that `to_json` described. Raises DataError when it is of another kind or incomplete."""
        if content.get('kind') != cls.kind:
            raise DataError(f'this is a tokenizer of kind "{content.get("kind")}", not "{cls.kind}"')
