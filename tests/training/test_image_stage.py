from types import SimpleNamespace

import numpy as np
from ml_collections import ConfigDict

from vqdit.training import image_stage
from vqdit.training.image_defaults import image_defaults


def test_pictures_are_made_of_whole_parameters_whichever_process_holds_their_parts(tmp_path, monkeypatch):
    """`to_host` gathers what is split over processes (tests/training/test_processes.py)."""
    generator = SimpleNamespace(generate=lambda labels: np.zeros((len(labels), 8, 8, 3), np.uint8))
    monkeypatch.setattr(image_stage, 'build_image_generator', lambda *_: generator)
    monkeypatch.setattr(image_stage, 'to_host', lambda tree: {'parts': 'split', 'none': ()}[tree])
    run = SimpleNamespace(config=ConfigDict(image_defaults('DiT-S/8')), workdir=tmp_path)
    image_stage._shower(run, None, None)(7, SimpleNamespace(ema='parts', averages='none'))
    assert generator.params == 'split' and (tmp_path / 'diffusion' / 'samples' / '0000007.png').exists()
