"""Random keys by name: no two parts of a run share one."""

import zlib

import jax


def named_key(seed: int, name: str) -> jax.Array:
    """The key of the part `name` of a run with `seed`: the same in every process, another for every name."""
    return jax.random.fold_in(jax.random.key(seed), zlib.crc32(name.encode()))
