"""Captions: one normal form of Unicode, no invisible characters, single spaces."""

import re
import unicodedata
from dataclasses import dataclass
from typing import Any

from vqdit.data.settings import require
from vqdit.errors import DataError

# Byte-order mark, zero-width space, word joiner, soft hyphen and the marks that turn the direction
# of writing. The joiners U+200C and U+200D stay: Persian needs them, and many an emoji.
_INVISIBLE = re.compile('[\ufeff\u200b\u2060\u00ad\u200e\u200f\u061c\u202a-\u202e\u2066-\u2069]')
_CONTROL = re.compile('[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f]')


@dataclass(frozen=True)
class TextSettings:
    """How captions are prepared; `max_bytes` of UTF-8 is the longest that is accepted."""

    max_bytes: int = 65536

    def __post_init__(self) -> None:
        require(self.max_bytes >= 1, 'text.max_bytes', self.max_bytes, 'at least 1')


def prepare_text(text: Any, name: str, settings: TextSettings) -> str:
    """The caption in NFC without control and invisible characters, white space collapsed.

    Raises DataError, naming the item, for what is no text, not UTF-8, empty or too long.
    """
    if isinstance(text, bytes):
        text = decode_text(text, name)
    if not isinstance(text, str):
        raise DataError(f'{name}: its text is {text!r}, not a string; correct the metadata')
    if len(text) > settings.max_bytes:
        raise _too_long(name, f'{len(text)} characters', settings)
    text = _CONTROL.sub('', _INVISIBLE.sub('', text))
    text = ' '.join(unicodedata.normalize('NFC', text).split())
    try:
        length = len(text.encode())
    except UnicodeEncodeError as error:
        raise DataError(
            f'{name}: its text holds half a surrogate pair; correct the metadata'
        ) from error
    if not length:
        raise DataError(f'{name}: its text is empty; write one or remove the item')
    if length > settings.max_bytes:
        raise _too_long(name, f'{length} bytes', settings)
    return text


def decode_text(content: bytes, name: str) -> str:
    """UTF-8, with or without a byte-order mark. Raises DataError, naming the line of the first bad
    byte.
    """
    try:
        return content.decode('utf-8-sig')
    except UnicodeDecodeError as error:
        line = content.count(b'\n', 0, error.start) + 1
        raise DataError(
            f'{name}: line {line} is not UTF-8; convert it, e.g. with iconv -t UTF-8'
        ) from error


def _too_long(name: str, length: str, settings: TextSettings) -> DataError:
    return DataError(
        f'{name}: its text of {length} is longer than text.max_bytes={settings.max_bytes}; cut it'
    )
