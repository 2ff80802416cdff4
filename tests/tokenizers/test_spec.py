import json

import jax.numpy as jnp
import numpy as np
import pytest

from vqdit.errors import UserError
from vqdit.tokenizers.spec import TokenLayout, TokenSpec

IMAGE, AUDIO = TokenSpec((2, 3), 512), TokenSpec((4,), 64, levels=2)
VIDEO, TEXT = TokenSpec((2, 1, 2), 100), TokenSpec((5,), 257)
LAYOUT = TokenLayout({'image': IMAGE, 'audio': AUDIO, 'text': TEXT})


def test_length_and_mask():
    assert [spec.length for spec in (IMAGE, AUDIO, VIDEO, TEXT)] == [6, 8, 4, 5]
    assert [spec.mask_id for spec in (IMAGE, AUDIO)] == [512, 64]
    assert LAYOUT.length == 19
    np.testing.assert_array_equal(LAYOUT.mask_ids, [512] * 6 + [64] * 8 + [257] * 5)
    assert LAYOUT.mask_ids.dtype == np.int32


def test_positions_are_time_height_width_level():
    assert IMAGE.positions().tolist() == [
        [0, 0, 0, 0],
        [0, 0, 1, 0],
        [0, 0, 2, 0],
        [0, 1, 0, 0],
        [0, 1, 1, 0],
        [0, 1, 2, 0],
    ]
    assert AUDIO.positions().tolist() == [
        [time, 0, 0, level] for time in range(4) for level in range(2)
    ]
    assert VIDEO.positions().tolist() == [[0, 0, 0, 0], [0, 0, 1, 0], [1, 0, 0, 0], [1, 0, 1, 0]]
    for spec in (IMAGE, AUDIO, VIDEO, TEXT):
        assert spec.positions().shape == (spec.length, 4)
        assert spec.positions().dtype == np.int32
        assert len(np.unique(spec.positions(), axis=0)) == spec.length


@pytest.mark.parametrize(
    'fields',
    [{'grid': ()}, {'grid': (1, 1, 1, 1)}, {'grid': (4, 0)}, {'num_codes': 0}, {'levels': 0}],
)
def test_no_token_grid(fields):
    with pytest.raises(UserError, match='TokenSpec'):
        TokenSpec(**{'grid': (4,), 'num_codes': 2, **fields})


@pytest.mark.parametrize('numpy', [jnp, np])
def test_split_and_join_are_inverse(numpy):
    tokens = numpy.arange(2 * 19).reshape(2, 19)
    parts = LAYOUT.split(tokens)
    assert {name: part.shape for name, part in parts.items()} == {
        'image': (2, 6),
        'audio': (2, 8),
        'text': (2, 5),
    }
    np.testing.assert_array_equal(parts['audio'], tokens[:, 6:14])
    assert isinstance(parts['audio'], type(tokens))
    np.testing.assert_array_equal(LAYOUT.join(dict(reversed(parts.items()))), tokens)


def test_slices_and_selection():
    assert [LAYOUT.slice(name) for name in LAYOUT.modalities] == [
        slice(0, 6),
        slice(6, 14),
        slice(14, 19),
    ]
    np.testing.assert_array_equal(
        LAYOUT.select(('text', 'image')), [True] * 6 + [False] * 8 + [True] * 5
    )
    assert not LAYOUT.select(()).any()


def test_unknown_modality_is_named_with_the_nearest():
    for look in (LAYOUT.slice, lambda name: LAYOUT.select((name,))):
        with pytest.raises(UserError, match=r'"imag" .* image, audio, text.* mean "image"'):
            look('imag')


def test_order_of_modalities_counts_for_equality_and_hash():
    same = TokenLayout(dict(LAYOUT.specs))
    other = TokenLayout(dict(reversed(LAYOUT.specs.items())))
    assert same == LAYOUT and hash(same) == hash(LAYOUT)
    assert other != LAYOUT
    assert dict(LAYOUT.specs) != LAYOUT


def test_json_keeps_the_order():
    restored = TokenLayout.from_json(json.loads(json.dumps(LAYOUT.to_json())))
    assert restored == LAYOUT
    assert restored.specs['audio'] == AUDIO
    assert isinstance(restored.specs['image'].grid, tuple)
