from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ablate.expression import LARGEST, LONGEST, evaluate, is_expression, substitute

PARAMETERS = {"k": 3, "width": 17, "rate": 0.25, "zero": 0, "less": -7}


def _terms(depth: int) -> st.SearchStrategy[str]:
    leaf = st.one_of(
        st.sampled_from([f"${name}" for name in PARAMETERS]),
        st.integers(0, 47).map(str),
        st.floats(0.0625, 13, width=16).map(repr),
    )
    if depth == 0:
        return leaf
    below = _terms(depth - 1)
    return st.one_of(
        leaf,
        st.tuples(below, st.sampled_from(["+", "-", "*", "/", "//", " * ", " - "]), below).map(
            lambda t: f"({''.join(t)})"
        ),
        st.tuples(below, st.sampled_from(["+", "-", "*", "/", "//"]), below).map("".join),
        st.tuples(st.sampled_from(["-", "+", "--"]), below).map("".join),
        st.tuples(st.sampled_from(["min", "max"]), below, below).map(lambda t: f"{t[0]}({t[1]}, {t[2]})"),
        below.map(lambda text: f"round({text})"),
    )


@given(_terms(3))
def test_evaluation_equals_that_of_python(text: str) -> None:
    def attempt(action: Any) -> tuple[str, Any]:
        try:
            return "value", action()
        except ZeroDivisionError:
            return "zero", None
        except ValueError as error:
            said = str(error)
            return next(kind for kind, words in _SAID.items() if words in said), None

    python = attempt(lambda: eval(text.replace("$", ""), {"__builtins__": {}}, {**PARAMETERS, **_FUNCTIONS}))
    ours = attempt(lambda: evaluate(text, PARAMETERS))
    if ours[0] in ("large", "long"):
        return
    assert ours == python
    if ours[0] == "value":
        assert isinstance(ours[1], int) == (ours[1] == int(ours[1]))


_SAID = {"zero": "divides by zero", "large": "at most 1e+15", "long": "characters"}
_FUNCTIONS = {"min": min, "max": max, "round": round}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("16*$k", 48),
        ("$width", 17),
        (" $width ", 17),
        ("$width/$width", 1),
        ("$k/2", 1.5),
        ("$width // $k", 5),
        ("round($width * $rate)", 4),
        ("max($k, $width, 5) - min(2, $k)", 15),
        ("-$less", 7),
        ("2 * ($k + 1)", 8),
    ],
)
def test_numbers_are_computed_from_parameters(text: str, value: float) -> None:
    result = evaluate(text, PARAMETERS)
    assert result == value
    assert type(result) is type(value)


def test_an_integral_parameter_is_an_int_whether_it_stands_alone_or_in_a_product() -> None:
    assert type(evaluate("$k", {"k": 2.0})) is int
    assert type(evaluate("1*$k", {"k": 2.0})) is int
    assert evaluate("$k", {"k": 2.5}) == 2.5


def test_only_text_with_a_dollar_is_an_expression() -> None:
    assert is_expression("16*$k")
    assert not any(is_expression(value) for value in ("16*2", "relu", 16, None, ["$k"]))


def test_expressions_are_found_at_any_depth() -> None:
    value = {"a": ["$k", {"b": "2*$k"}, "relu"], "c": 5}
    assert substitute(value, PARAMETERS) == {"a": [3, {"b": 6}, "relu"], "c": 5}


def test_an_unknown_parameter_suggests_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"no parameter '\$widht' here; did you mean 'width'\?"):
        evaluate("2*$widht", PARAMETERS)


@pytest.mark.parametrize("text", ["$k/$zero", "$k//0", "1/(0*$k)", "$k/0.0"])
def test_division_by_zero_says_so(text: str) -> None:
    with pytest.raises(ValueError, match="divides by zero"):
        evaluate(text, PARAMETERS)


@pytest.mark.parametrize(
    "text",
    [
        "$k**9",
        "9**9**9**9*$k",
        "9**9**9**9**9**9+$k",
        "$k<<99999",
        "$k % 2",
        "~$k",
        "not $k",
        "$k if $k else 1",
        "1if $k else 2",
        "$k and 3",
        "$k == 3",
        "$k.real",
        "$k.__class__",
        "().__class__.__bases__[0].__subclasses__()[$k]",
        "$k[0]",
        "[$k][0]",
        "($k, 1)",
        "{$k}",
        "'$k'",
        "'a'*$k",
        "f'{$k}'",
        "b'1'*$k",
        "1j*$k",
        "True*$k",
        "...*$k",
        "None or $k",
        "lambda: $k",
        "(x := $k)",
        "[x for x in [$k]]",
        "__import__('os').system('true') or $k",
        "abs($k)",
        "pow($k, 9)",
        "eval($k)",
        "max($k)",
        "max()+$k",
        "round($k, 1)",
        "max(*[$k, 2])",
        "max($k, 2, key=min)",
        "min(max, $k)",
        "max + $k",
        "k + $k",
        "$",
        "$$k",
        "$k$width",
        "max$k",
        "2$k",
        "$1",
        "",
        " ",
        "$k;1",
        "$k\n+1",
        "$k\0",
        "*$k",
        "$k)",
        "(" * 150 + "$k",
    ],
)
@pytest.mark.filterwarnings("error")
def test_what_is_no_arithmetic_is_refused_and_nothing_is_run(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not an expression|is not a number|round takes"):
        evaluate(text, {"k": 3, "width": 17})


@pytest.mark.parametrize(
    "text",
    [
        "9" * 190 + "*$k",
        "0x" + "f" * 190 + "*$k",
        "1e308*$k",
        "1e999*$k",
        "-1e999+$k",
        "$huge*2",
        "2+$inf",
        "1*$nan",
        "*".join(["$million"] * 3),
    ],
)
def test_numbers_beyond_measure_are_refused(text: str) -> None:
    names = {"k": 3, "huge": 10**4000, "inf": float("inf"), "nan": float("nan"), "million": 10**6}
    with pytest.raises(ValueError, match=r"at most 1e\+15"):
        evaluate(text, names)


def test_a_million_operations_are_refused_by_their_length() -> None:
    for text in ("$k" + "+$k" * 1_000_000, "$" + "k" * LONGEST, "-" * LONGEST + "$k"):
        with pytest.raises(ValueError, match=f"at most {LONGEST} characters"):
            evaluate(text, PARAMETERS)


def test_the_deepest_nesting_that_fits_is_evaluated() -> None:
    assert evaluate("(" * 99 + "$k" + ")" * 99, PARAMETERS) == 3
    assert evaluate("-" * 198 + "$k", PARAMETERS) == 3


def test_a_boolean_or_a_text_is_no_number() -> None:
    for value in (True, "relu", None, [1]):
        with pytest.raises(ValueError, match="is not a number"):
            evaluate("2*$x", {"x": value})


def test_the_largest_number_is_still_one() -> None:
    assert evaluate(f"{int(LARGEST)}+0*$k", PARAMETERS) == LARGEST
