"""A view in a URL: what goes in comes out, and what is bad is named and left out."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ccm.explore.state import LARGEST, ViewState, parse_query


@st.composite
def states(draw: st.DrawFn) -> ViewState:
    classes = draw(st.integers(2, 100))
    alpha = st.sampled_from(["bayes", "measured"]) | st.floats(0, 1 - 1 / classes)
    return ViewState(
        dim=draw(st.integers(classes, 100_000)),
        num_classes=classes,
        snr=draw(st.floats(0, 12)),
        per_class=draw(st.integers(1, 1_000_000)),
        alpha=draw(alpha),
        seed=draw(st.integers(0, 2**31 - 1)),
    )


@given(states())
def test_a_url_restores_its_view(state: ViewState) -> None:
    assert parse_query(state.query()) == (state, ())


@given(st.text(max_size=60))
def test_any_text_gives_a_view(text: str) -> None:
    state, _ = parse_query(text)
    assert isinstance(state, ViewState)


@given(states(), st.integers(2, 100), st.integers(2, 100_000))
def test_a_moved_slider_keeps_the_view_possible(state: ViewState, classes: int, dim: int) -> None:
    assert state.moved(num_classes=classes).num_classes == classes
    assert state.moved(dim=dim).dim == dim


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("dim=1", "dim takes a whole number from 2 to 100000, got '1'"),
        ("dim=1_0", "dim takes a whole number"),
        ("dim=٣", "dim takes a whole number"),
        ("classes=101", "classes takes a whole number from 2 to 100"),
        ("per_class=0", "per_class takes a whole number from 1"),
        ("per_class=2.5", "per_class takes a whole number from 1"),
        ("seed=-1", "seed takes a whole number from 0"),
        ("snr=-1", "snr takes a number from 0 to 12, got '-1'"),
        ("snr=nan", "snr takes a number"),
        ("snr=1e999", "snr takes a number"),
        ("snr=", "snr takes a number"),
        ("alpha=little", "alpha takes a number, bayes or measured, got 'little'"),
        ("alpha=0.95", "must be from 0 to 1 - 1/C = 0.9"),
        ("dim=5", "dim must be at least classes, got dim=5 and classes=10"),
        ("dim=30&dim=40", "dim is given twice"),
        ("colour=red", "there is no 'colour' to set; there are dim, classes"),
        ("a" * 100 + "=1", "aaa…'"),
        ("dim=%ff", "no readable view"),
        ("&".join(["dim=2"] * 40), "no readable view"),
    ],
)
def test_bad_queries_get_a_message(query: str, message: str) -> None:
    state, messages = parse_query("?" + query)
    assert len(messages) == 1
    assert message in messages[0]
    assert state in (ViewState(), ViewState(dim=30))


def test_bad_values_leave_the_good_ones() -> None:
    state, messages = parse_query("?dim=5&classes=7&snr=2&alpha=0.1&per_class=x")
    assert state == ViewState(snr=2.0, alpha=0.1)
    assert len(messages) == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dim": 200_000}, "dim must be at most 100000 in the explorer, got 200000"),
        ({"snr": 13}, "snr must be at most 12"),
        ({"snr": -1.0}, "snr must be finite and at least 0"),
        ({"snr": float("nan")}, "snr must be at most 12"),
        ({"dim": 5}, "dim must be at least num_classes"),
        ({"alpha": "best"}, "alpha is a number, 'bayes' or 'measured', got 'best'"),
        ({"alpha": 0.95}, "1 - 1/C"),
        ({"per_class": 0}, "per_class must be at least 1"),
    ],
)
def test_bad_views(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ViewState(**changes)


def test_a_fixed_alpha_gives_way_to_fewer_classes() -> None:
    assert ViewState(alpha=0.9).moved(num_classes=2).alpha == 0.5
    assert ViewState().moved(dim=5) == ViewState(dim=5, num_classes=5)
    assert set(LARGEST) < set(ViewState.__dataclass_fields__)
