import logging

import numpy as np
import pytest
from ml_collections import ConfigDict

from vqdit.data.token_store import TokenStore
from vqdit.errors import VqditError
from vqdit.tokenizers.spec import TokenLayout
from vqdit.tokenizers.text import ByteTokenizer, WordTokenizer
from vqdit.training.defaults import defaults
from vqdit.training.interruption import StopFlag
from vqdit.training.loop import Run
from vqdit.training.sharding import make_mesh
from vqdit.training.token_stage import data_fingerprint, write_tokens
from vqdit.training.watchdog import Watchdog


def _config() -> ConfigDict:
    config = defaults()
    config.data = ConfigDict({'source': 'world', 'train_examples': 20, 'test_examples': 8})
    return config


def _write(folder, tokenizer, config=None):
    config = config or _config()
    with StopFlag(folder) as stop, Watchdog(60) as watchdog:
        run = Run(config, folder, make_mesh(config.mesh), stop, watchdog)
        write_tokens(run, {'text': tokenizer}, TokenLayout({'text': tokenizer.spec}))
        return run


def test_the_store_holds_the_codes_of_every_example_of_both_splits(tmp_path):
    tokenizer = ByteTokenizer(80)
    _write(tmp_path, tokenizer)
    train, test = (TokenStore(tmp_path / 'tokens', split) for split in ('train', 'test'))
    assert (len(train), len(test)) == (20, 8)
    texts = tokenizer.decode(np.stack([train[i]['codes'] for i in range(20)]))
    assert all(text.split()[0] in ('a', 'the', 'one') or ' ' in text for text in texts) and len(set(texts)) > 10


def test_texts_that_do_not_fit_are_counted_in_a_warning(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        _write(tmp_path, WordTokenizer(('a',), 3))
    said = '\n'.join(record.message for record in caplog.records)
    assert 'train tokens: 20 texts longer' in said and 'words outside the vocabulary' in said


def test_nothing_is_said_of_texts_that_fit(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        _write(tmp_path, ByteTokenizer(80))
    assert not caplog.records


def test_a_store_of_other_tokenizers_or_data_is_refused(tmp_path):
    _write(tmp_path, ByteTokenizer(80))
    with pytest.raises(VqditError, match='tokens'):
        _write(tmp_path, ByteTokenizer(70))
    changed = _config()
    changed.data.train_examples = 21
    with pytest.raises(VqditError, match='tokens'):
        _write(tmp_path, ByteTokenizer(80), changed)


def test_the_data_fingerprint_changes_with_any_setting_of_the_data(tmp_path):
    run = _write(tmp_path, ByteTokenizer(80))
    before = data_fingerprint(run)
    run.config.data.test_examples = 9
    assert len(before) == 16 and data_fingerprint(run) != before
