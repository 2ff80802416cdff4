"""PyTorch files (`torch.save` since version 1.6), read without PyTorch: an archive of one pickle and raw storages."""

import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from vqdit.errors import CheckpointError
from vqdit.interop.pickles import read_pickle

LOCAL_HEADER = struct.Struct('<4s22xHH')
"""Signature, length of the name, length of the extra field (APPNOTE.TXT, section 4.3.7)."""


def read_torch(path: str | Path) -> Any:
    """The content of a PyTorch file; its tensors are read-only arrays over the mapped file, read when they are used.

    Raises CheckpointError when the file is truncated, damaged, of another format, or holds more than tensors and
    containers. Checksums are not verified.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            entries = _entries(archive)
        raw = np.memmap(path, np.uint8, mode='r')
        (root,) = (name.removesuffix('data.pkl') for name in entries if name.endswith('/data.pkl'))
        if bytes(_content(raw, entries.get(f'{root}byteorder'))) not in (b'', b'little'):
            raise ValueError('its numbers are big-endian')
        data = bytes(_content(raw, entries[f'{root}data.pkl']))
    except (zipfile.BadZipFile, ValueError, LookupError, struct.error, NotImplementedError) as error:
        raise CheckpointError(f'{path} is truncated, damaged, or no PyTorch file of version 1.6 or later ({error}); '
                              'fetch it again, or save it again as safetensors') from error

    def storage(key: str, dtype: np.dtype, count: int) -> np.ndarray:
        content = _content(raw, entries[f'{root}data/{key}'])
        if content.size < count * dtype.itemsize:
            raise ValueError(f'storage {key} has {content.size} bytes for {count} elements of {dtype}')
        return content[:count * dtype.itemsize].view(dtype)

    return read_pickle(data, storage, path)


def _entries(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """The files of an archive by name: stored as they are, unencrypted, each name once."""
    entries: dict[str, zipfile.ZipInfo] = {}
    for info in archive.infolist():
        if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size or info.flag_bits & 1:
            raise ValueError(f'{info.filename!r} is compressed or encrypted')
        if info.filename in entries:
            raise ValueError(f'{info.filename!r} is there twice')
        entries[info.filename] = info
    return entries


def _content(raw: np.ndarray, info: zipfile.ZipInfo | None) -> np.ndarray:
    """The bytes of an entry, which both of its headers name alike; none for no entry."""
    if info is None:
        return np.asarray(raw[:0])
    begin = info.header_offset + LOCAL_HEADER.size
    signature, name_length, extra_length = LOCAL_HEADER.unpack(bytes(raw[info.header_offset:begin]))
    name = bytes(raw[begin:begin + name_length])
    start = begin + name_length + extra_length
    if signature != b'PK\x03\x04' or name != info.orig_filename.encode() or start + info.file_size > raw.size:
        raise ValueError(f'the headers of {info.filename!r} disagree')
    return np.asarray(raw[start:start + info.file_size])
