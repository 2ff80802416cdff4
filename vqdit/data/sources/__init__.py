"""Sources of examples, chosen by a registry key: data and configs name keys, never modules."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from vqdit.data.dataset import Dataset
from vqdit.data.preprocess import read_formats
from vqdit.data.settings import read_settings, select
from vqdit.data.sources.folder import FolderSettings, FolderSource
from vqdit.data.sources.pairs import Paired, PairSettings
from vqdit.data.sources.tfds import TfdsSettings, TfdsSource
from vqdit.data.sources.world import WorldSettings, open_world
from vqdit.errors import UserError, nearest

Modalities = tuple[str, ...] | None

_ORDER = ('image', 'video', 'audio', 'text')


def open_source(
    config: Mapping[str, Any], split: str, modalities: Modalities = None, anchor: str | None = None
) -> Dataset:
    """The source that `config['source']` names. Raises UserError for an unknown one."""
    name = config.get('source')
    if name not in SOURCES:
        known, hint = ', '.join(SOURCES), nearest(str(name), SOURCES)
        raise UserError(f'config.data.source={name!r} is unknown; it is one of {known}.{hint}')
    return SOURCES[name](config, split, modalities, anchor)


def _world(config: Mapping[str, Any], split: str, modalities: Modalities, _: str | None) -> Dataset:
    settings = read_settings(WorldSettings, select(WorldSettings, config), 'config.data')
    return open_world(settings, split, read_formats(config), modalities)


def _tfds(config: Mapping[str, Any], split: str, modalities: Modalities, _: str | None) -> Dataset:
    settings = read_settings(TfdsSettings, select(TfdsSettings, config), 'config.data')
    return TfdsSource(settings, split, read_formats(config), modalities)


def _folder(
    config: Mapping[str, Any], split: str, modalities: Modalities, _: str | None
) -> Dataset:
    settings = read_settings(FolderSettings, select(FolderSettings, config), 'config.data')
    return FolderSource(settings, split, read_formats(config), modalities)


def _pairs(
    config: Mapping[str, Any], split: str, modalities: Modalities, anchor: str | None
) -> Dataset:
    """Opens only the parts that are asked for, and the anchor for its keys."""
    parts = _parts(config.get('parts') or {})
    wanted = (*parts, 'text') if modalities is None else modalities
    for name in (*wanted, anchor or 'text'):
        if name not in (*parts, 'text'):
            raise UserError(
                f'config.data.parts has no "{name}", only {", ".join(parts)}.{nearest(name, parts)}'
            )
    anchor = anchor if anchor in parts else None
    opened = {}
    for name in [name for name in parts if name in (*wanted, anchor)] or parts[:1]:
        part, part_split = _part(config, name, split)
        opened[name] = open_source(part, part_split, (name,) if name in wanted else ())
    settings = read_settings(PairSettings, select(PairSettings, config), 'config.data')
    return Paired(opened, settings, anchor, with_text='text' in wanted and 'text' not in parts)


def _parts(parts: Mapping[str, Any]) -> list[str]:
    """Their names in a fixed order, because a ConfigDict forgets its own."""
    for name in parts:
        if name not in _ORDER:
            hint = nearest(name, _ORDER)
            raise UserError(
                f'config.data.parts.{name} is no modality; they are {", ".join(_ORDER)}.{hint}'
            )
    if not parts:
        raise UserError(
            "config.data.parts is empty; give a source for each modality, e.g. {'image': {...}}"
        )
    return [name for name in _ORDER if name in parts]


def _part(config: Mapping[str, Any], name: str, split: str) -> tuple[dict[str, Any], str]:
    """The config of one part and its split: `excluded` is `test` for parts that exclude nobody."""
    part = config['parts'][name]
    known = {*config, *_PART_KEYS}
    for key in part:
        if key not in known:
            raise UserError(
                f'config.data.parts.{name}.{key} is not a setting.{nearest(key, known)}'
            )
    if split == 'excluded' and not part.get('exclude_speakers'):
        split = 'test'
    inherited = {key: value for key, value in config.items() if key not in ('source', 'parts')}
    return {**inherited, **part}, split


SOURCES: dict[str, Callable[[Mapping[str, Any], str, Modalities, str | None], Dataset]] = {
    'world': _world,
    'tfds': _tfds,
    'folder': _folder,
    'pairs': _pairs,
}
_SETTINGS = (WorldSettings, TfdsSettings, FolderSettings)
_PART_KEYS = {
    'source', 'image', 'audio', 'video', 'text',
    *(field.name for kind in _SETTINGS for field in dataclasses.fields(kind)),
}  # fmt: skip
