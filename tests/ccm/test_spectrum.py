"""A spectrum is its levels, counted with multiplicity."""

import numpy as np
import pytest

from ccm import Level, Spectrum


def test_eigenvalues_descend_and_repeat() -> None:
    spectrum = Spectrum.of([Level(1.0, 2, "a"), Level(3.0, 1, "b"), Level(-1.0, 3, "c")])
    np.testing.assert_array_equal(spectrum.eigenvalues, [3, 1, 1, -1, -1, -1])
    assert spectrum.size == 6
    assert spectrum.trace == 2.0
    assert spectrum.level("a") == Level(1.0, 2, "a")


def test_records_are_plain() -> None:
    assert Spectrum.of([Level(np.float64(1), 2, "a")]).records() == [
        {"label": "a", "value": 1.0, "multiplicity": 2}
    ]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_level_is_finite(value: float) -> None:
    with pytest.raises(ValueError, match="must be finite"):
        Level(value, 1, "a")


def test_a_level_occurs() -> None:
    with pytest.raises(ValueError, match="multiplicity of at least 1"):
        Level(1.0, 0, "a")


def test_unknown_labels_are_named_beside_the_known() -> None:
    spectrum = Spectrum.of([Level(1.0, 2, "bulk")])
    with pytest.raises(ValueError, match=r"no level 'outlier'.*'bulk'"):
        spectrum.level("outlier")
    with pytest.raises(ValueError, match=r"no level 'outlier'.*'bulk'"):
        spectrum.mean("outlier")
