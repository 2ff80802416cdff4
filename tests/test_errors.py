import pytest

from vqdit import errors


def test_exit_codes_are_distinct_and_documented():
    kinds = [errors.VqditError, *errors.VqditError.__subclasses__()]
    codes = {kind.__name__: kind.exit_code for kind in kinds}
    assert codes == {
        'VqditError': 1,
        'UserError': 2,
        'DataError': 3,
        'CheckpointError': 4,
        'NonFiniteError': 5,
        'DiskError': 6,
        'LostPeerError': 7,
        'Preempted': 75,
    }
    assert all(kind.__doc__ for kind in kinds)


@pytest.mark.parametrize(
    'name, known, hint',
    [
        ('imagee', ['image', 'audio'], ' Did you mean "image"?'),
        ('rde', ['green', 'red'], ' Did you mean "red"?'),
        ('7', [7, 12], ' Did you mean "7"?'),
        ('zebra', ['image', 'audio'], ''),
        ('', ['image'], ''),
        ('image', [], ''),
    ],
)
def test_nearest(name, known, hint):
    assert errors.nearest(name, known) == hint
