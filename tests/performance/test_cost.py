import pytest

from vqdit.performance.chips import GIB, Chip, find_chip
from vqdit.performance.cost import StepCost, describe, engineering
from vqdit.performance.flops import Flops
from vqdit.performance.program import Traffic

CHIP = Chip('toy', 'TOY', peak=1e12, memory=GIB, bandwidth=1e9, links=1e8)


def _cost(chip=CHIP, temporary=GIB // 4) -> StepCost:
    return StepCost(Flops(6 * 10**12, 8 * 10**12), 4, GIB // 2, temporary, Traffic({'all-reduce': 10**8}, 10**9), chip)


def test_the_limits_of_a_step_by_hand():
    assert _cost().seconds() == {'compute': 2.0, 'memory': 1.0, 'links': 1.0}
    # What is computed again takes time, but is no use: 6 / (4 x 2).
    assert _cost().utilization(2.0) == 0.75


def test_whether_it_fits():
    assert _cost().fits is True and _cost(temporary=GIB).fits is False and _cost(chip=None).fits is None
    assert 'does not fit the 1 GiB of a toy' in '\n'.join(describe(_cost(temporary=GIB)))


def test_the_lines_name_the_limit():
    said = '\n'.join(describe(_cost()))
    for part in ('6 TFLOP a step on 4 devices, 33% more computed again', '0.75 GiB a device', 'all-reduce 100 MB',
                 'at least 2 s a step, limited by compute', 'MFU at most 75.0%'):
        assert part in said
    assert 'MFU' not in '\n'.join(describe(_cost(chip=None)))


@pytest.mark.parametrize(('kind', 'name'), [
    ('TPU v5 lite', 'TPU v5e'), ('TPU v5', 'TPU v5p'), ('TPU v6 lite', 'TPU v6e'), ('NVIDIA H200', 'H200'),
    ('NVIDIA H100 80GB HBM3', 'H100 SXM'), ('NVIDIA A100-SXM4-40GB', 'A100 40GB'), ('cpu', None),
])  # fmt: skip
def test_chips_by_what_jax_calls_them(kind, name):
    chip = find_chip(kind)
    assert (chip and chip.name) == name


@pytest.mark.parametrize(('value', 'text'), [(1_234_567, '1.23 M'), (0.0042, '4.2 m'), (3e-6, '3 µ'), (0, '0 ')])
def test_three_digits_and_a_prefix(value, text):
    assert engineering(value) == text
