"""Archives in the layout of PyTorch files, written without PyTorch, whole or with one thing wrong."""

import pickle
import struct
import zipfile

import numpy as np


def pickled(*calls, protocol=2):
    """A pickle of {'x': ...} whose value is made by hand-written instructions."""
    return bytes([0x80, protocol]) + b'}X\x01\x00\x00\x00x' + b''.join(calls) + b's.'


def name(module, attribute):
    return f'c{module}\n{attribute}\n'.encode()


def number(value):
    return b'J' + struct.pack('<i', value)


def numbers(*values):
    return b'(' + b''.join(map(number, values)) + b't'


def text(value):
    return b'X' + struct.pack('<I', len(value)) + value.encode()


def tensor(size, strides, offset=0, count=6, key='0', kind='FloatStorage'):
    """The instructions that PyTorch writes for a tensor."""
    storage = b'(' + text('storage') + name('torch', kind) + text(key) + text('cpu') + number(count) + b'tQ'
    hooks = name('collections', 'OrderedDict') + b')R'
    return (name('torch._utils', '_rebuild_tensor_v2') + b'(' + storage + number(offset) + numbers(*size)
            + numbers(*strides) + b'\x89' + hooks + b'tR')


def write_archive(path, data, storages=None, root='archive', compression=zipfile.ZIP_STORED, extra=()):
    with zipfile.ZipFile(path, 'w', compression) as archive:
        archive.writestr(f'{root}/data.pkl', data)
        archive.writestr(f'{root}/byteorder', 'little')
        for key, array in (storages or {'0': np.arange(6, dtype=np.float32)}).items():
            archive.writestr(f'{root}/data/{key}', array.tobytes())
        for entry, content in extra:
            archive.writestr(entry, content)
    return path


class Payload:
    """Pickles to a call of anything."""

    def __init__(self, function, *arguments, state=None):
        self.made_of = (function, arguments) if state is None else (function, arguments, state)

    def __reduce__(self):
        return self.made_of


def dumped(value, protocol=2):
    return pickle.dumps(value, protocol=protocol)
