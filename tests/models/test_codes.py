import numpy as np

from vqdit.models.codes import digits_of_codes


def test_digits_count_from_the_first():
    assert np.argmax(digits_of_codes((3, 5))[:, :3], axis=1).tolist() == [0, 1, 2] * 5
    assert np.argmax(digits_of_codes((3, 5))[:, 3:], axis=1).tolist() == [i for i in range(5) for _ in range(3)]
