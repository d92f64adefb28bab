"""The renderings: golden texts of one small table, and properties that hold for any text in any place."""

from __future__ import annotations

import csv
import io
import json
import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ablate.report.render import FORMATS, clean, render
from ablate.report.tables import Cell, Column, Table, format_published, format_value
from ablate.stats import Interval

TABLE = Table(
    title="placement",
    columns=(
        Column("variant"),
        Column("params", "", "right", "number"),
        Column("val.accuracy", "%", "right", "estimate"),
        Column("trials"),
    ),
    rows=(
        (
            Cell("none"),
            Cell("269,722", 269722),
            Cell("97.31 ± 0.42 (n=3)", 97.3125, Interval(96.8925, 97.7325), 3),
            Cell("3 of 3"),
        ),
        (
            Cell("within_block", note="= none"),
            Cell("9,973", 9973),
            Cell("−0.25 (1 seed)", -0.25, None, 1),
            Cell("1 of 2; 1 crashed", note="seed 1: OSError: 100% full"),
        ),
        (Cell("later", note="= none"), Cell(), Cell(), Cell("0 of 1; 1 missing")),
    ),
    caption="mnist5k. 5 epochs.",
    footnotes=("Test split: read 0 times.",),
)


def test_the_terminal_gets_aligned_columns() -> None:
    assert render(TABLE, "terminal") == (
        "placement\n"
        f"{'─' * 68}\n"
        "variant            params    val.accuracy (%)  trials\n"
        f"{'─' * 68}\n"
        "none              269,722  97.31 ± 0.42 (n=3)  3 of 3\n"
        "within_block [a]    9,973      −0.25 (1 seed)  1 of 2; 1 crashed [b]\n"
        "later [a]                                      0 of 1; 1 missing\n"
        f"{'─' * 68}\n"
        "mnist5k. 5 epochs.\n"
        "[a] = none\n"
        "[b] seed 1: OSError: 100% full\n"
        "Test split: read 0 times.\n"
    )


def test_markdown_is_a_pipe_table() -> None:
    assert render(TABLE, "markdown") == (
        "**placement**\n"
        "\n"
        "| variant | params | val.accuracy (%) | trials |\n"
        "| --- | ---: | ---: | --- |\n"
        "| none | 269,722 | 97.31 ± 0.42 (n=3) | 3 of 3 |\n"
        "| within_block<sup>a</sup> | 9,973 | −0.25 (1 seed) | 1 of 2; 1 crashed<sup>b</sup> |\n"
        "| later<sup>a</sup> |  |  | 0 of 1; 1 missing |\n"
        "\n"
        "mnist5k. 5 epochs.\n"
        "\n"
        "- <sup>a</sup> \\= none\n"
        "- <sup>b</sup> seed 1: OSError: 100% full\n"
        "- Test split: read 0 times.\n"
    )


def test_latex_is_a_booktabs_table() -> None:
    assert render(TABLE, "latex") == (
        "% needs \\usepackage{booktabs} and \\usepackage{textcomp}\n"
        "\\begin{table}\n"
        "\\centering\n"
        "\\caption{placement. mnist5k. 5 epochs.}\n"
        "\\begin{tabular}{lrrl}\n"
        "\\toprule\n"
        "variant & params & val.accuracy (\\%) & trials \\\\\n"
        "\\midrule\n"
        "none & 269,722 & 97.31 $\\pm$ 0.42 (n=3) & 3 of 3 \\\\\n"
        "within\\_block\\textsuperscript{a} & 9,973 & $-$0.25 (1 seed)"
        " & 1 of 2; 1 crashed\\textsuperscript{b} \\\\\n"
        "later\\textsuperscript{a} &  &  & 0 of 1; 1 missing \\\\\n"
        "\\bottomrule\n"
        "\\end{tabular}\n"
        "\\par\\footnotesize \\textsuperscript{a} = none\n"
        "\\par\\footnotesize \\textsuperscript{b} seed 1: OSError: 100\\% full\n"
        "\\par\\footnotesize Test split: read 0 times.\n"
        "\\end{table}\n"
    )


def test_csv_has_the_raw_numbers_in_columns_of_their_own() -> None:
    assert render(TABLE, "csv") == (
        "variant,params,val.accuracy (%) mean,val.accuracy (%) half-width,val.accuracy (%) n,val.accuracy (%) low,"
        "val.accuracy (%) high,trials,notes\n"
        f"none,269722,97.3125,{Interval(96.8925, 97.7325).half_width!r},3,96.8925,97.7325,3 of 3,\n"
        'within_block,9973,-0.25,,1,,,"1 of 2; 1 crashed","\'= none; seed 1: OSError: 100% full"\n'
        'later,,,,,,,"0 of 1; 1 missing",\'= none\n'
    )


def test_an_unknown_format_is_our_own_bug() -> None:
    with pytest.raises(ValueError, match="unknown format 'html'; one of: terminal, markdown, csv, latex, json"):
        render(TABLE, "html")


def everywhere(text: str) -> Table:
    """A table with the text in every place that takes one."""
    cell = Cell(text, note=text)
    return Table(text, (Column(text, text), Column("b", "", "right")), ((cell, cell), (cell, cell)), text, (text,))


any_text = st.text() | st.text("\\{}$&#%_^~<>|\"'`[]*=+-@!1. \n\t\r\x1b\x00\u202e\u2028ab", max_size=13)
HOSTILE = [
    "\\input{/etc/passwd}",
    "\\\\[1cm] \\write18{rm}",
    "$x$ % & # _ ^ ~ { }",
    "=cmd|' /C calc'!A0",
    "<script>alert(1)</script>",
    "a | b",
    "![x](http://x) `x` **x** ~~x~~ _x_ [x][y] # x",
    "see https://evil.example/a, www.evil.example, mailto:a@b.de and HTTP://x @octocat a/b#123",
    "{{ site.github.token }} {% include x %} {{{x}}}",
    "a;=1+1;  @x;\uff1dy",
    "\x1b[31mred\x1b]0;title\x07",
    "admin\u202etxt.exe",
    "\ud800",
    "one\ntwo\r\nthree\u2028four\x85five\x1csix",
]


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_is_escaped_everywhere(text: str, format: str) -> None:
    check(everywhere(text), format)


@given(any_text, st.sampled_from(FORMATS))
def test_any_text_is_escaped_everywhere(text: str, format: str) -> None:
    check(everywhere(text), format)


def check(table: Table, format: str) -> None:
    drawn = render(table, format)
    drawn.encode()  # a lone surrogate would fail here, and in the file
    assert not [c for c in drawn if unicodedata.category(c) in ("Cc", "Cf") and c != "\n"]
    {
        "terminal": check_terminal,
        "markdown": check_markdown,
        "latex": check_latex,
        "csv": check_csv,
        "json": check_json,
    }[format](drawn)


def check_json(drawn: str) -> None:
    """Every text comes back as it is shown elsewhere, and no row is added."""
    record = json.loads(drawn)
    assert list(record) == ["title", "columns", "rows", "caption", "notes"]
    assert [len(row) for row in record["rows"]] == [2, 2]
    assert {record["title"], record["columns"][0]["name"], record["caption"]} == {record["rows"][0][0]["text"]}


def check_terminal(drawn: str) -> None:
    """No text can add a line to the table: the rules stand where they should."""
    lines = drawn.split("\n")
    assert set(lines[1]) == {"─"}
    assert lines[1] == lines[3] == lines[6]


def check_markdown(drawn: str) -> None:
    rows = [line for line in drawn.split("\n") if line.startswith("| ")]
    assert len(rows) == 4
    for row in rows:
        assert len(re.findall(r"(?<!\\)(?:\\\\)*\|", row)) == 3
    assert not re.search(r"\{\{|\{%|(?<!\\)://|www\.|mailto:|@\w|#\d", drawn, flags=re.IGNORECASE)
    bare = re.sub(r"</?sup>|<!-- -->", "", re.sub(r"\\.", "", drawn.replace("**", "", 2)))
    bare = re.sub(r"&(amp|lt|gt);", "", bare)
    assert not set("<>&`*[]~!$#") & set(bare)


def check_latex(drawn: str) -> None:
    """Our own commands taken away, nothing is left that TeX would read as more than a letter."""
    body = drawn.split("\n", 1)[1]
    rows = [line for line in body.split("\n") if line.endswith(" \\\\")]
    assert len(rows) == 3
    ours = r"begin|end|centering|caption|toprule|midrule|bottomrule|par|footnotesize|textsuperscript|pm|times|geq|leq"
    ours += r"|Delta|sigma|ldots|char34|text[a-z]+|rightarrow|neq|cdot|mu|ifdefined|XeTeXversion|directlua|else|fi"
    bare = re.sub(r"(?<!\\)((?:\\\\)*)\$(?:-|\\[A-Za-z]+)\$", r"\1", body)
    bare = re.sub(r" \\\\$", "", bare, flags=re.MULTILINE)
    bare = re.sub(r"\\[{}$&#%_]", "", bare)
    bare = re.sub(rf"\\({ours})\b", "", bare)
    assert not set('\\$#%_^~<>|"`') & set(bare)
    assert bare.count("&") == 3
    depth = 0
    for character in bare:
        depth += {"{": 1, "}": -1}.get(character, 0)
        assert depth >= 0
    assert depth == 0
    assert not re.search(r"(?<!\{)[\[\]*]", bare)


def check_csv(drawn: str) -> None:
    rows = list(csv.reader(io.StringIO(drawn)))
    assert [len(row) for row in rows][1:] == [len(rows[0])] * (len(rows) - 1)
    assert len(rows) == 3
    fields = [part for row in rows for field in row for part in field.split(";")]
    assert not [each for each in fields if unicodedata.normalize("NFKC", each.strip()[:1]) in ("=", "+", "-", "@")]
    assert not any(";" in field for field in re.sub(r'"[^"]*"', "", drawn).split(","))


def test_a_negative_number_is_data_in_csv_and_no_formula() -> None:
    table = Table("t", (Column("a", "", "right", "number"), Column("b")), ((Cell("−1", -1.5), Cell("-1.5")),))
    assert render(table, "csv") == "a,b\n-1.5,'-1.5\n"


def test_wide_and_combining_characters_keep_the_columns_aligned() -> None:
    rows = ((Cell("注意"), Cell("x")), (Cell("e\u0301te"), Cell("x")), (Cell("abcd"), Cell("x")))
    lines = render(Table("t", (Column("a"), Column("b")), rows), "terminal").split("\n")
    assert lines[4:7] == ["注意  x", "e\u0301te   x", "abcd  x"]


def test_the_28th_note_is_marked_ab() -> None:
    rows = tuple((Cell("x", note=f"note {number}"),) for number in range(28))
    drawn = render(Table("t", (Column("a"),), rows), "terminal")
    assert "x [z]\nx [aa]\nx [ab]\n" in drawn
    assert "[ab] note 27" in drawn


def test_a_break_becomes_a_space_and_a_control_character_is_seen() -> None:
    assert clean("a\tb\nc\x1bd") == "a b c\ufffdd"


def test_markdown_of_addresses_and_mentions_is_text_that_can_be_read() -> None:
    text = "https://a.b/c www.a.b @octocat u/r#7 {{ x }} {% y %} me@a.b a_b 12:30"
    table = Table(text, (Column("a"),), ())
    assert render(table, "markdown").splitlines()[0] == (
        r"**https\://a.b/c www\.a.b @<!-- -->octocat u/r\#<!-- -->7 {\{ x }} {\% y %} me@<!-- -->a.b a_b 12:30**"
    )


def test_what_is_not_finite_is_null_in_json() -> None:
    nan, infinite = float("nan"), float("inf")
    cell = Cell("x", nan, Interval(-infinite, 7.0), 2)
    drawn = render(Table("t", (Column("a", "", "right", "estimate"),), ((cell,),)), "json")
    assert json.loads(drawn)["rows"] == [[{"text": "x", "value": None, "interval": [None, 7.0], "n": 2}]]
    assert "NaN" not in drawn
    assert "Infinity" not in drawn


@pytest.mark.parametrize("format", FORMATS)
def test_a_long_text_is_cut_wherever_it_stands(format: str) -> None:
    drawn = render(everywhere("x" * 1_000_000), format)
    assert len(drawn) < 60_000
    assert ("\\ldots{}" if format == "latex" else "…") in drawn


@pytest.mark.parametrize("name", ["val.accuracy", "val.loss", "params", "flops", "memory", "latency", "synflow"])
@pytest.mark.parametrize("value", [1e300, -1e300, float("inf"), float("-inf"), float("nan"), 10**300])
def test_a_huge_number_is_short(name: str, value: float) -> None:
    assert len(format_value(name, value)) < 12
    assert len(format_value(name, value, sign=True)) < 12
    assert len(format_published(name, value, 1e-300)) < 12


def test_a_published_cost_has_no_more_digits_than_anybody_prints() -> None:
    assert format_published("params", 2.5e6, 1e-300) == "2.500000000 M"
