"""YAML text → data with places. The oracle for scalars is the core schema of YAML 1.2; for text, the round trip."""

from __future__ import annotations

import copy
import math
import os
import pickle
import string
from enum import StrEnum
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from ablate import yamlevents
from ablate.errors import Place, UserError
from ablate.yamlevents import FILE_LIMIT, NESTING_LIMIT, NODE_LIMIT, SCALAR_LIMIT
from ablate.yamlfile import NUMBER_LIMIT, Mapping, Sequence, dump, is_number, load, loads, parse_value, place_of


def said(text: str) -> list[str]:
    """Every problem of a text, each with its place."""
    with pytest.raises(UserError) as caught:
        loads(text, "spec.yaml")
    return [str(problem) for problem in caught.value.problems]


def only(text: str) -> str:
    problems = said(text)
    assert len(problems) == 1, problems
    return problems[0]


@pytest.fixture(params=["libyaml", "python"])
def parser(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Either of PyYAML's parsers: which one there is depends on how PyYAML was built."""
    if request.param == "python":
        monkeypatch.setattr(yamlevents, "_PARSER", yaml.SafeLoader)
    elif not yaml.__with_libyaml__:
        pytest.skip("PyYAML was built without libyaml")
    return str(request.param)


class TestScalars:
    @pytest.mark.parametrize(
        ("text", "value"),
        [
            *[(word, True) for word in ("true", "True", "TRUE")],
            *[(word, False) for word in ("false", "False", "FALSE")],
            *[(word, None) for word in ("null", "Null", "NULL", "~", "")],
            *[("0", 0), ("-7", -7), ("+13", 13), ("017", 17), ("0o17", 15), ("0xfF", 255)],
            *[
                ("1e-4", 1e-4),
                ("5.0e-4", 5e-4),
                ("1E5", 1e5),
                (".5", 0.5),
                ("3.", 3.0),
                ("-1.25", -1.25),
                ("0e-9", 0.0),
            ],
            *[(".inf", math.inf), ("-.INF", -math.inf), ("+.Inf", math.inf)],
        ],
    )
    def test_plain_scalars_follow_the_core_schema_of_yaml_1_2(self, text: str, value: Any) -> None:
        read = loads(f"a: {text}", "spec.yaml")["a"]
        assert read == value
        assert type(read) is type(value)

    @pytest.mark.parametrize("text", [".nan", ".NaN", ".NAN"])
    def test_not_a_number(self, text: str) -> None:
        assert math.isnan(loads(f"a: {text}", "spec.yaml")["a"])

    @pytest.mark.parametrize(
        "text",
        [
            "1_000",
            "12:30:45",
            "2024-02-29",
            "0b11",
            "-0x1",
            "1e",
            "e5",
            ".",
            "tRUE",
            "nULL",
            "y",
            "n",
            "=",
            "after stage*.*",
        ],
    )
    def test_what_only_yaml_1_1_reads_otherwise_is_text(self, text: str) -> None:
        assert loads(f"a: {text}", "spec.yaml")["a"] == text

    @pytest.mark.parametrize("text", ["no", "true", "4", "1e-4", "null", "", "<<", "!x", "*a"])
    @pytest.mark.parametrize("quote", ["'", '"'])
    def test_quoted_scalars_are_text(self, text: str, quote: str) -> None:
        assert loads(f"a: {quote}{text}{quote}", "spec.yaml")["a"] == text

    @pytest.mark.parametrize("key", ["4", "0x10", "true", "null", "~", "1e-4", "a.b", "stage*.*.conv2", "'no'"])
    def test_a_key_is_its_text(self, key: str) -> None:
        assert list(loads(f"{key}: 1", "spec.yaml")) == [key.strip("'")]

    @pytest.mark.parametrize("word", ["yes", "no", "on", "off", "Yes", "NO", "oN", "OFF"])
    def test_a_word_that_may_be_a_truth_value_is_refused_as_value_and_as_key(self, word: str) -> None:
        meant = "true" if word.lower() in ("yes", "on") else "false"
        assert said(f"a: {word}\n{word}: 1") == [
            f"spec.yaml:1:4: '{word}' may mean {meant} or the word; write {meant}, or quote it: '{word}'",
            f"spec.yaml:2:1: the key '{word}' may mean true, false or the word; quote it: '{word}'",
        ]

    def test_a_number_that_would_become_infinite_or_zero_is_refused(self) -> None:
        assert "1e999 is too large for a number; infinity is written .inf" in only("a: 1e999")
        assert "2e-999 is too near to 0 for a number" in only("a: 2e-999")

    def test_a_number_too_long_to_print_is_refused(self) -> None:
        assert loads(f"a: {'7' * NUMBER_LIMIT}", "spec.yaml")["a"] == int("7" * NUMBER_LIMIT)
        assert "a number of 1,001 characters" in only(f"a: {'7' * (NUMBER_LIMIT + 1)}")
        assert "a number of 5,002 characters" in only(f"a: 0x{'f' * 5000}")

    @pytest.mark.parametrize(
        ("text", "answer"), [("8", True), ("-1e-4", True), (".inf", True), ("8 px", False), ("", False)]
    )
    def test_is_number_tells_what_quotes_hide(self, text: str, answer: bool) -> None:
        assert is_number(text) is answer


class TestPlaces:
    TEXT = "a: 1\nnetwork:\n  insert: {attention: {block: cbam, at: [x, after y]}}\n"

    def test_every_key_and_value_knows_its_line_and_column(self, parser: str) -> None:
        tree = loads(self.TEXT, "spec.yaml")
        assert tree.keys_at["network"] == Place("spec.yaml", 2, 1, "spec")
        assert tree.values_at["network"] == Place("spec.yaml", 3, 3, "spec")
        attention = tree["network"]["insert"]["attention"]
        assert attention.keys_at["at"] == Place("spec.yaml", 3, 37, "spec")
        assert attention["at"].values_at == [Place("spec.yaml", 3, 42, "spec"), Place("spec.yaml", 3, 45, "spec")]

    def test_columns_count_characters_and_not_bytes(self, parser: str) -> None:
        tree = loads("{é: '∑𝄞', b: 1}", "spec.yaml")
        assert tree.keys_at["b"].column == 11

    def test_a_byte_order_mark_takes_no_column(self) -> None:
        assert loads("\ufeffa: 1", "spec.yaml").keys_at["a"] == Place("spec.yaml", 1, 1)

    @pytest.mark.parametrize(
        ("path", "key", "line", "column"),
        [
            (("network", "insert", "attention", "block"), True, 3, 24),
            (("network", "insert", "attention", "block"), False, 3, 31),
            (("network", "insert", "attention", "at", 1), True, 3, 45),
            (("network", "insert", "attention", "reducton"), True, 3, 12),
            (("network", "insert", "attention", "at", 2), True, 3, 37),
            (("network", "insert", "attention", "at", 2), False, 3, 41),
            (("network", "insert", "attention", "block", "name"), False, 3, 31),
            (("train", "epochs"), True, 1, 1),
            ((), True, 1, 1),
        ],
    )
    def test_place_of_a_path_is_that_of_its_deepest_part(
        self, path: tuple[str | int, ...], key: bool, line: int, column: int
    ) -> None:
        place = place_of(loads(self.TEXT, "spec.yaml"), path, key=key)
        assert place == Place("spec.yaml", line, column)

    def test_an_entry_that_was_added_has_the_place_of_what_holds_it(self) -> None:
        tree = loads(self.TEXT, "spec.yaml")
        tree["network"]["insert"]["gate"] = {"block": "se"}
        assert place_of(tree, ("network", "insert", "gate", "block")) == tree["network"].keys_at["insert"]

    def test_a_tree_that_was_not_read_has_no_places(self) -> None:
        assert place_of({"a": [1]}, ("a", 0)) is None
        assert place_of(None, ("a",)) is None

    @pytest.mark.parametrize("copied", [copy.deepcopy, lambda tree: pickle.loads(pickle.dumps(tree))])
    def test_a_copy_keeps_the_places_and_shares_nothing_that_changes(self, copied: Any) -> None:
        tree = loads(self.TEXT, "spec.yaml")
        other = copied(tree)
        path = ("network", "insert", "attention", "at", 0)
        assert other == tree
        assert place_of(other, path) == place_of(tree, path)
        other["network"]["insert"]["attention"]["at"][0] = "z"
        other["network"].keys_at.clear()
        assert tree["network"]["insert"]["attention"]["at"][0] == "x"
        assert tree["network"].keys_at


class TestAliases:
    def test_an_alias_is_a_copy_with_the_places_of_its_anchor(self) -> None:
        tree = loads("a: &x {lr: 1, betas: [2]}\nb: *x\n", "spec.yaml")
        assert tree["b"] == {"lr": 1, "betas": [2]}
        assert tree.values_at["b"] == Place("spec.yaml", 2, 4)
        assert tree["b"].keys_at["lr"].line == 1
        tree["b"]["betas"].append(3)
        assert tree["a"]["betas"] == [2]

    @pytest.mark.parametrize(
        ("text", "problem"),
        [
            ("a: *x", "1:4: the alias *x has no anchor &x before it; quote text that begins with *: '*x'"),
            ("a: &x [1, *x]", "1:11: the alias *x stands within its own anchor"),
            ("a: &x {b: {c: *x}}", "1:15: the alias *x stands within its own anchor"),
            ("a: &x 1\nb: &x 2", "2:4: the anchor &x is given twice"),
            ("a: &x b\n*x : 1", "2:1: a key must be plain text, not a list, a mapping or an alias"),
        ],
    )
    def test_an_alias_that_means_nothing_is_refused(self, text: str, problem: str, parser: str) -> None:
        assert only(text) == f"spec.yaml:{problem}"


class TestStructure:
    def test_a_duplicate_key_names_both_lines(self) -> None:
        assert only("a: 1\nb: 2\na: 3") == "spec.yaml:3:1: the key 'a' is given twice, first in line 1"

    def test_what_would_steer_a_terminal_is_escaped_in_the_message(self) -> None:
        assert r"the key '\x1b[2J' is given twice" in only(r'{"\e[2J": 1, "\x1b[2J": 2}')

    def test_equal_keys_of_different_spelling_are_duplicates(self) -> None:
        assert "the key 'a b' is given twice" in only("{a b: 1, 'a b': 2}")

    @pytest.mark.parametrize(
        ("text", "tag"),
        [
            ("a: !x 1", "!x"),
            ("a: !!str 1", "!!str"),
            ("a: !!python/object/apply:os.system [ls]", "!!python/object/apply:os.system"),
            ("a: !<tag:yaml.org,2002:python/name:os.system> ''", "!!python/name:os.system"),
            ("a: ! 1", "!"),
        ],
    )
    def test_tags_are_refused(self, text: str, tag: str, parser: str) -> None:
        assert only(text) == f"spec.yaml:1:4: tags are not allowed: {tag}; quote text that begins with !"

    def test_merge_keys_are_refused(self) -> None:
        assert only("a: &x {b: 1}\nc: {<<: *x}").startswith("spec.yaml:2:5: merge keys (<<) are not allowed")

    @pytest.mark.parametrize("text", ["a: 1\n---\nb: 2", "---\na: 1\n---\n", "a: 1\n...\n---\nb: 2"])
    def test_a_second_document_is_refused(self, text: str, parser: str) -> None:
        assert "a second document begins here; a file holds one" in only(text)

    def test_one_document_may_be_marked(self, parser: str) -> None:
        assert loads("%YAML 1.2\n---\na: 1\n...\n", "spec.yaml") == {"a": 1}

    @pytest.mark.parametrize("text", ["? [a]\n: 1", "{[a]: 1}", "{{a: 1}: 2}", "? {a: 1}\n: 1"])
    def test_a_key_that_is_no_scalar_is_refused(self, text: str) -> None:
        assert "a key must be plain text" in only(text)

    def test_a_missing_key_is_refused(self, parser: str) -> None:
        assert only("?\n: 1") == "spec.yaml:1:2: a key is missing before the ':'"

    @pytest.mark.parametrize("text", ["", "\n\n", "# only a comment\n", "---\n"])
    def test_an_empty_file_is_refused(self, text: str) -> None:
        assert only(text) == "spec.yaml:1:1: the file is empty; a mapping of keys was expected"

    @pytest.mark.parametrize(
        ("text", "kind"),
        [("[1]", "a list"), ("words", "text"), ("4", "a number"), ("true", "true or false"), ("null", "null")],
    )
    def test_the_top_level_must_be_a_mapping(self, text: str, kind: str) -> None:
        assert f"the top level is {kind}; a mapping ('key: value') was expected" in only(text)

    def test_a_forgotten_space_is_said(self) -> None:
        assert only("epochs:5").endswith("put a space after the ':'")

    def test_everything_wrong_is_said_at_once_in_order(self) -> None:
        text = "a: yes\na: 2\nb: !x 1\n<<: 3\nc: 1e999\nd: *q\ne: [\n\t1]\nf: {x: 1"
        assert [line.split(": ")[0] for line in said(text)] == [
            f"spec.yaml:{place}" for place in ("1:4", "2:1", "3:4", "4:1", "5:4", "6:4", "8:1", "9:4")
        ]


class TestSyntax:
    @pytest.mark.parametrize(
        ("text", "place", "message"),
        [
            ("a: 'x", "1:4", "a quote is opened here and never closed"),
            ('a: "x\nb: 1', "1:4", "a quote is opened here and never closed"),
            ("a: [1, 2\nb: 3", "1:4", "a list is opened with '[' here, and a ',' or ']' is missing"),
            ("a: {b: 1\nc: 2", "1:4", "a mapping is opened with '{' here, and a ',' or '}' is missing"),
            ("a: b: c", "1:5", "a ':' is not allowed here; check the indentation, or quote text that has ': '"),
            ("a:\n  b: 1\n c: 2", "3:2", "a key was expected; check the indentation and the quotes"),
            ("- a\nb: 1", "2:1", "a list item ('- ') was expected; check the indentation"),
            ("a: - b", "1:4", "a list item ('- ') is not allowed here; begin the list on its own line"),
            ("a: [1,,2]", "1:7", "a value is missing here"),
            ("a: @x", "1:4", "a value cannot begin with '@'; quote text that begins with @: '@x'"),
            ("at: [*.bn2, x]", "1:6", "a value cannot begin with '*'; quote text that begins with *: '*.bn2'"),
            ("%YAML 3.0\n---\na: 1", "1:1", "the %YAML directive names a version that is not 1.2"),
        ],
    )
    def test_a_mistake_is_said_in_plain_words_where_it_began(
        self, text: str, place: str, message: str, parser: str
    ) -> None:
        assert only(text) == f"spec.yaml:{place}: {message}"

    def test_a_tab_between_words_is_not_called_indentation(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(yamlevents, "_PARSER", yaml.SafeLoader)
        assert only("a:\tx") == "spec.yaml:1:3: a tab is not allowed here; use spaces"

    def test_a_word_of_the_parser_that_is_not_known_is_passed_on(self) -> None:
        assert only("a: !<x").startswith("spec.yaml:1:7: not YAML: while ")

    @pytest.mark.parametrize(
        ("text", "line"),
        [("a:\n\tb: 1", 2), ("a:\n  b: 1\n\tc: 2", 3), ("a: [\n\t1]", 2), ("a:\n \t- b", 2), ("a: x\n\t\nb: y", 2)],
    )
    def test_a_tab_that_indents_is_said(self, text: str, line: int, parser: str) -> None:
        assert only(text) == f"spec.yaml:{line}:1: the line is indented with a tab; use spaces"

    @pytest.mark.parametrize(
        ("text", "value"),
        [
            ("a: 'x\n\ty'", "x y"),
            ('a: "x\n \ty"', "x y"),
            ("a: |\n x\n \ty\n", "x\n\ty\n"),
            ("a: 'x\ty'", "x\ty"),
        ],
    )
    def test_a_tab_within_text_is_text(self, text: str, value: str, parser: str) -> None:
        assert loads(text, "spec.yaml") == {"a": value}


class TestHostileText:
    def test_a_billion_laughs_are_refused_before_the_first(self) -> None:
        names = string.ascii_lowercase[:12]
        lines = [f"{names[0]}: &{names[0]} [ha, ha, ha]"]
        lines += [f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]" for a, b in pairwise(names)]
        assert only("\n".join(lines)).endswith("more than 100,000 keys and values (aliases expanded)")

    def test_aliases_count_for_what_they_stand_for(self) -> None:
        anchor, copies = 1000, NODE_LIMIT // 1001 - 1
        text = f"a: &a [{', '.join(['1'] * anchor)}]\nb: [{', '.join(['*a'] * copies)}"
        loads(text + "]", "spec.yaml")
        assert "more than 100,000" in only(text + ", *a]")

    @pytest.mark.parametrize("opening", ["[", "{a: ", "- ", "? "])
    def test_ten_thousand_brackets_are_refused(self, opening: str, parser: str) -> None:
        assert only(opening * 10_000).endswith("nested more than 50 deep")

    def test_nesting_up_to_the_limit_is_read(self) -> None:
        inner = NESTING_LIMIT - 1
        assert loads(f"a: {'[' * inner}{']' * inner}", "spec.yaml")
        assert "nested more than 50 deep" in only(f"a: {'[' * (inner + 1)}{']' * (inner + 1)}")

    def test_a_chain_of_aliases_is_nesting(self) -> None:
        lines = ["a0: &a0 [1]", *(f"a{n}: &a{n} [*a{n - 1}]" for n in range(1, 400))]
        assert only("\n".join(lines)).endswith("nested more than 50 deep")

    def test_a_scalar_may_have_64_ki_characters(self) -> None:
        assert loads(f"a: {'x' * SCALAR_LIMIT}", "spec.yaml")
        assert "a value of 65,537 characters; it may have 65,536" in only(f"a: {'x' * (SCALAR_LIMIT + 1)}")
        assert "a value of 65,537 characters" in only(f"? {'x' * (SCALAR_LIMIT + 1)}\n: 1")

    @pytest.mark.parametrize(
        "text",
        [
            "# x\n" * (FILE_LIMIT // 4),
            "a: 1\n" * 40_000,
            "{a: " * 200_000,
            '"' * 900_000,
            "&a " * 300_000,
            "- " * 500_000,
            "\t b\n" * 200_000,
            "*" * 1_000_000,
            "'\t\n" * 300_000,
            "a: [" + "\n\tx," * 40_000,
        ],
        ids=lambda text: repr(text[:8]),
    )
    def test_a_megabyte_of_anything_is_answered(self, text: str) -> None:
        assert said(text)

    @pytest.mark.timeout(60)
    def test_a_full_megabyte_is_read(self) -> None:
        line = "k{:05d}: [1, two, 'three {}']\n"
        text = "".join(line.format(n, "x" * 30) for n in range(16_000))
        assert 0.8 * FILE_LIMIT < len(text) <= FILE_LIMIT
        assert len(loads(text, "spec.yaml")) == 16_000

    def test_a_text_longer_than_a_file_is_refused(self) -> None:
        assert "the text is longer than 1,048,576 bytes" in only("é" * (FILE_LIMIT // 2 + 1))

    @pytest.mark.parametrize("sign", ["\x00", "\x07", "\x1b", "\x7f", "\x9b", "\ud800", "\ufffe"])
    def test_a_control_character_is_refused_with_its_place(self, sign: str) -> None:
        assert only(f"a: 1\nb: x{sign}y") == f"spec.yaml:2:5: control character U+{ord(sign):04X}; remove it"

    @pytest.mark.parametrize("escape", [r"\0", r"\uD800"])
    def test_what_no_file_name_and_no_encoding_can_hold_is_refused_when_escaped_too(self, escape: str) -> None:
        with pytest.raises(UserError):
            loads(f'a: "{escape}"', "spec.yaml")
        with pytest.raises(UserError):
            loads(f'"{escape}": a', "spec.yaml")

    @given(st.text(alphabet="ab:-?[]{}&*!|>'\"%@`#,~<. \t\n0", max_size=40))
    def test_any_text_is_read_or_refused(self, text: str) -> None:
        try:
            loads(text, "spec.yaml")
        except UserError as error:
            found = error.problems
        else:
            found = []
        assert all(problem.place for problem in found)

    @given(st.text(alphabet="ab:-[]{}*&'\"0 \n", max_size=30))
    def test_both_parsers_agree(self, text: str) -> None:
        answers = []
        parser = yamlevents._PARSER
        for other in (parser, yaml.SafeLoader):
            yamlevents._PARSER = other
            try:
                answers.append(repr(loads(text, "spec.yaml")))
            except UserError:
                answers.append("refused")
            finally:
                yamlevents._PARSER = parser
        assert answers[0] == answers[1]


class TestFiles:
    def refusal(self, path: Path) -> str:
        with pytest.raises(UserError) as caught:
            load(path)
        return str(caught.value)

    def test_places_carry_the_path_as_it_was_given(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "a.yaml").write_text("é: ∑\n", encoding="utf-8")
        monkeypatch.chdir(tmp_path)
        assert load(Path("a.yaml")).keys_at["é"].file == "a.yaml"

    def test_a_missing_file_is_said_with_the_nearest_name(self, tmp_path: Path) -> None:
        (tmp_path / "placement.yaml").touch()
        (tmp_path / "secret.txt").touch()
        path = tmp_path / "placment.yaml"
        assert self.refusal(path) == f"{path}: no such file; did you mean 'placement.yaml'?"
        assert self.refusal(tmp_path / "other.yaml").endswith("no such file")
        assert self.refusal(tmp_path / "no" / "such.yaml").endswith("no such file")

    def test_a_folder_a_pipe_and_an_impossible_name_are_said(self, tmp_path: Path) -> None:
        assert "is a folder" in self.refusal(tmp_path)
        os.mkfifo(tmp_path / "pipe")
        assert "is not a regular file" in self.refusal(tmp_path / "pipe")
        assert "is not the name of a file" in self.refusal(Path("a\0b"))
        assert "cannot be read: File name too long" in self.refusal(tmp_path / ("x" * 5000))

    def test_an_unreadable_file_is_said(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(*_: Any) -> None:
            raise PermissionError(13, "Permission denied")

        (tmp_path / "a.yaml").write_text("a: 1")
        monkeypatch.setattr(Path, "open", refuse)
        assert self.refusal(tmp_path / "a.yaml").endswith("a.yaml: cannot be read: Permission denied")

    def test_two_mebibytes_are_refused_unread(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = tmp_path / "large.yaml"
        path.write_bytes(b"#" * (2 << 20))
        monkeypatch.setattr(Path, "open", None)
        assert self.refusal(path) == f"{path}: 2,097,152 bytes; a file may have 1,048,576"

    @pytest.mark.parametrize("data", [b"\x89PNG\r\n\x1a\n\0\0\0", "a: 1".encode("utf-16"), b"a: 1\0"])
    def test_a_binary_file_is_refused(self, tmp_path: Path, data: bytes) -> None:
        (tmp_path / "a.yaml").write_bytes(data)
        assert self.refusal(tmp_path / "a.yaml").endswith("is a binary file, not YAML text")

    def test_another_encoding_is_refused_with_its_place(self, tmp_path: Path) -> None:
        path = tmp_path / "a.yaml"
        path.write_bytes("a: 1\nü: ∑ ".encode() + "é".encode("latin-1"))
        assert self.refusal(path) == f"{path}:2:6: the file is not UTF-8 text"


class TestParseValue:
    @pytest.mark.parametrize(
        ("text", "value"),
        [
            ("3", 3),
            ("1e-4", 1e-4),
            ("", None),
            ("null", None),
            ("after stage*", "after stage*"),
            ("[1, a]", [1, "a"]),
            ("{name: sgd}", {"name": "sgd"}),
            ("'8'", "8"),
            ("a:b", "a:b"),
        ],
    )
    def test_a_value_is_any_yaml(self, text: str, value: Any) -> None:
        assert parse_value(text) == value

    def test_its_places_belong_to_the_layer_of_set(self) -> None:
        assert parse_value("{a: 1}").keys_at["a"] == Place("--set", 1, 2, "--set")

    @pytest.mark.parametrize("text", ["yes", "!x", "[", "*.bn2", "a: b: c"])
    def test_what_a_file_may_not_say_it_may_not_say(self, text: str) -> None:
        with pytest.raises(UserError, match=r"^--set:\d+:"):
            parse_value(text)


TEXT = st.text(alphabet=st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=30)
TRICKY = st.sampled_from(
    [
        "2...",
        "...",
        "",
        " ",
        "no",
        "On",
        "true",
        "~",
        "null",
        "4",
        "0x1f",
        "0o7",
        "1e-4",
        ".inf",
        "1_0",
        "<<",
        "=",
        "!x",
        "&a",
        "*b",
        "- a",
        "? a",
        "a: b",
        "a #b",
        "# a",
        "'",
        '"',
        "{",
        "[a",
        "|",
        ">",
        "%a",
        "@a",
        "`a",
        "a\n",
        "\na",
        " a\n b ",
        "a\tb",
        "\t",
        "---",
        "...",
        "\x85",
        "\u2028",
        "\x1b[31m",
        "x" * 200,
        "a b " * 60,
        "\ufeff",
        "é∑𝄞",
        "a\\b",
        "after stage*.*.conv(1|3)",
        "2024-01-01",
        "x" * 140 + "\n",
    ]
)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXT | TRICKY
DATA = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT | TRICKY, inner, max_size=4)
)


class Act(StrEnum):
    RELU = "relu"


class TestDump:
    @pytest.mark.parametrize("data", [{"a": "2..."}, {"a": "..."}, {"a": ["x", "y..."]}, {"a": "b\n..."}, {"a...": {}}])
    def test_three_dots_at_the_end_are_text(self, data: dict[str, Any]) -> None:
        assert loads(dump(data), "again.yaml") == data

    @given(st.dictionaries(TEXT | TRICKY, DATA, max_size=5))
    def test_what_is_dumped_is_read_back(self, data: dict[str, Any]) -> None:
        read = loads(dump(data) if data else "{}", "spec.yaml")
        assert read == data
        assert repr(plain(read)) == repr(data)  # types and order too

    @given(SCALARS)
    def test_a_scalar_is_read_back(self, value: Any) -> None:
        assert repr(parse_value(dump(value))) == repr(value)

    def test_not_a_number_is_read_back(self) -> None:
        assert math.isnan(parse_value(dump(math.nan)))

    def test_it_is_block_style_in_the_given_order(self) -> None:
        data = {"b": 1, "a": {"x": [1, 2.5], "no": "no", "lr": 1e-5}, "empty": {}, "at": "after stage*"}
        assert dump(data) == (
            "b: 1\na:\n  x:\n  - 1\n  - 2.5\n  'no': 'no'\n  lr: 1.0e-05\nempty: {}\nat: after stage*\n"
        )

    def test_what_was_read_is_dumped_without_aliases(self) -> None:
        tree = loads("a: &x [1]\nb: *x", "spec.yaml")
        shared = {"a": tree["a"], "b": tree["a"], "c": (1, Act.RELU)}
        assert parse_value(dump(shared)) == {"a": [1], "b": [1], "c": [1, "relu"]}

    @pytest.mark.parametrize("data", [{4: 1}, {"a": {None: 1}}, {"a": object()}, {"a": {1, 2}}, {"a": b"x"}])
    def test_what_yaml_cannot_say_is_a_type_error(self, data: Any) -> None:
        with pytest.raises(TypeError):
            dump(data)

    @pytest.mark.parametrize("value", ["a\0b", "\ud800", 10**1001, "x" * (SCALAR_LIMIT + 1)])
    def test_what_could_not_be_read_back_is_a_value_error(self, value: Any) -> None:
        with pytest.raises(ValueError, match="may"):
            dump({"a": value})


def plain(data: Any) -> Any:
    if isinstance(data, Mapping):
        return {key: plain(value) for key, value in data.items()}
    return [plain(item) for item in data] if isinstance(data, Sequence) else data
