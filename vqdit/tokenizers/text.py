"""Text as tokens: bytes, words, or the names of classes. Plain Python and NumPy.

Padding is an ordinary code, which a model learns to generate: it ends the text. Nothing that can be
written in a text stands for it or for the unknown word.
"""

import abc
import functools
import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Self

import numpy as np

from vqdit.errors import DataError, UserError, nearest
from vqdit.tokenizers.spec import TokenSpec

UNKNOWN = '<unknown>'
"""What the code of an unknown word is decoded to."""


@dataclass(frozen=True)
class TextTokenizer(abc.ABC):
    """What all text tokenizers share: the JSON that makes them again, and a fingerprint of it."""

    kind: ClassVar[str] = ''

    @property
    @abc.abstractmethod
    def spec(self) -> TokenSpec:
        """The layout of the codes."""

    @abc.abstractmethod
    def encode(self, texts: Sequence[str], strict: bool = True) -> np.ndarray:
        """Codes int32 [B, length]. Raises UserError for text that does not fit, unless `strict` is False."""

    @abc.abstractmethod
    def decode(self, codes: np.ndarray) -> list[str]:
        """The texts of codes int [B, length]."""

    def misfits(self, texts: Iterable[str]) -> dict[str, int]:
        """What `encode` changes when it is not strict, and how often."""
        return {}

    def to_json(self) -> dict[str, Any]:
        return {'kind': self.kind, **asdict(self)}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        """The tokenizer that `to_json` described. Raises DataError for one of another class."""
        name, kind = content.get('kind'), KINDS.get(str(content.get('kind')))
        if kind is None or not issubclass(kind, cls):
            raise DataError(
                f'a saved tokenizer is of kind "{name}", which is no {cls.__name__}; train it again'
            )
        fields = {
            key: tuple(value) if isinstance(value, list) else value
            for key, value in content.items()
        }
        try:
            return kind(**{key: value for key, value in fields.items() if key != 'kind'})
        except TypeError as error:
            raise DataError(
                f'a saved tokenizer of kind "{name}" is damaged ({error}); train it again'
            ) from error

    @functools.cached_property
    def fingerprint(self) -> str:
        """16 hexadecimal digits that name this very tokenizer."""
        return hashlib.sha256(json.dumps(self.to_json(), sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class ByteTokenizer(TextTokenizer):
    """UTF-8 bytes, at most `length` of them: codes 0-255, and 256 for padding."""

    length: int
    kind: ClassVar[str] = 'bytes'

    @property
    def spec(self) -> TokenSpec:
        return TokenSpec((self.length,), 257)

    def encode(self, texts: Sequence[str], strict: bool = True) -> np.ndarray:
        """Codes int32 [B, length].

        Raises UserError, when `strict`, for a text that is too long or holds half a surrogate pair;
        otherwise it is cut between two characters, and the surrogate becomes a question mark.
        """
        return _pad([self._bytes(text, strict) for text in texts], self.length, padding=256)

    def decode(self, codes: np.ndarray) -> list[str]:
        """The texts of codes [B, length] up to the padding; what is not UTF-8 becomes U+FFFD."""
        return [bytes(row).decode(errors='replace') for row in _unpad(codes, padding=256)]

    def misfits(self, texts: Iterable[str]) -> dict[str, int]:
        """How many texts are `cut` when they are encoded without `strict`."""
        return {'cut': sum(len(text.encode(errors='replace')) > self.length for text in texts)}

    def _bytes(self, text: str, strict: bool) -> bytes:
        try:
            content = text.encode(errors='strict' if strict else 'replace')
        except UnicodeEncodeError as error:
            raise UserError(
                f'the text {text!r} is not valid Unicode ({error.reason}); correct it'
            ) from error
        if len(content) <= self.length:
            return content
        if strict:
            raise UserError(
                f'the text "{_brief(text)}" has {len(content)} bytes, more than the {self.length} '
                'of this model; shorten it'
            )
        return content[: self.length].decode(errors='ignore').encode()


@dataclass(frozen=True)
class WordTokenizer(TextTokenizer):
    """Words between white space, at most `length` of them.

    Codes 0 to V - 1 are the words of the vocabulary, V is padding and V + 1 the unknown word.
    """

    vocabulary: tuple[str, ...]
    length: int
    kind: ClassVar[str] = 'words'

    @property
    def padding(self) -> int:
        return len(self.vocabulary)

    @property
    def spec(self) -> TokenSpec:
        return TokenSpec((self.length,), len(self.vocabulary) + 2)

    def encode(self, texts: Sequence[str], strict: bool = True) -> np.ndarray:
        """Codes int32 [B, length].

        Raises UserError, when `strict`, for a text with too many words or an unknown one; otherwise
        it is cut, and the unknown word has a code of its own.
        """
        return _pad([self._words(text, strict) for text in texts], self.length, self.padding)

    def decode(self, codes: np.ndarray) -> list[str]:
        """The texts of codes [B, length], up to the first padding, words parted by one space."""
        words = (*self.vocabulary, '', UNKNOWN)
        return [' '.join(words[code] for code in row) for row in _unpad(codes, self.padding)]

    def misfits(self, texts: Iterable[str]) -> dict[str, int]:
        """How many texts are `cut` and words `unknown` when they are encoded without `strict`."""
        words = [text.split() for text in texts]
        return {
            'cut': sum(len(text) > self.length for text in words),
            'unknown': sum(word not in self._codes for text in words for word in text),
        }

    @functools.cached_property
    def _codes(self) -> dict[str, int]:
        return {word: code for code, word in enumerate(self.vocabulary)}

    def _words(self, text: str, strict: bool) -> list[int]:
        words = text.split()
        if strict and len(words) > self.length:
            raise UserError(
                f'the text "{_brief(text)}" has {len(words)} words, more than the {self.length} '
                'of this model; shorten it'
            )
        for word in words if strict else ():
            if word not in self._codes:
                raise UserError(
                    f'the word "{_brief(word)}" is not among the {len(self.vocabulary)} words that '
                    f'this model knows; use another.{nearest(word, self.vocabulary)}'
                )
        return [self._codes.get(word, self.padding + 1) for word in words[: self.length]]


@dataclass(frozen=True)
class LabelTokenizer(TextTokenizer):
    """The names of classes, one code each."""

    names: tuple[str, ...]
    kind: ClassVar[str] = 'labels'

    @property
    def spec(self) -> TokenSpec:
        return TokenSpec((1,), len(self.names))

    def encode(self, texts: Sequence[str], strict: bool = True) -> np.ndarray:
        """Codes int32 [B, 1]. Raises UserError for a name that is no class, strict or not."""
        for name in texts:
            if name not in self.names:
                raise UserError(
                    f'"{_brief(name)}" is none of the {len(self.names)} classes of this model; '
                    f'use another.{nearest(name, self.names)}'
                )
        return np.array([[self.names.index(name)] for name in texts], np.int32).reshape(-1, 1)

    def decode(self, codes: np.ndarray) -> list[str]:
        """The names of codes [B, 1]."""
        return [self.names[code] for code in np.asarray(codes)[:, 0].tolist()]


KINDS: dict[str, type[Any]] = {
    kind.kind: kind for kind in (ByteTokenizer, WordTokenizer, LabelTokenizer)
}


def build_vocabulary(texts: Iterable[str], size: int | None = None) -> tuple[str, ...]:
    """The `size` most frequent words, all by default; frequent ones first, then by the alphabet.

    Raises DataError when there is no word.
    """
    counts = Counter(word for text in texts for word in text.split())
    if not counts:
        raise DataError('the texts have no word to make a vocabulary of; check the captions')
    return tuple(sorted(counts, key=lambda word: (-counts[word], word))[:size])


def _pad(rows: Sequence[Sequence[int]], length: int, padding: int) -> np.ndarray:
    codes = np.full((len(rows), length), padding, np.int32)
    for padded, row in zip(codes, rows):
        padded[: len(row)] = list(row)
    return codes


def _unpad(codes: np.ndarray, padding: int) -> list[list[int]]:
    """The codes of each row before the first padding."""
    rows = np.asarray(codes).tolist()
    return [row[: row.index(padding)] if padding in row else row for row in rows]


def _brief(text: str) -> str:
    return text if len(text) <= 40 else f'{text[:37]}...'
