"""pydantic's errors → one sentence per mistake, where it stands. pydantic itself is the oracle of what is wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, RootModel, ValidationError, WrapValidator
from pydantic_core import PydanticCustomError

from ablate.diagnose import problems, shown
from ablate.errors import Problem
from ablate.yamlfile import loads


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Descent(Strict):
    name: Literal["sgd"]
    lr: float = Field(gt=0)
    momentum: float = Field(0.0, ge=0, lt=1)


class Moments(Strict):
    name: Literal["adam", "adamw"]
    lr: float
    betas: tuple[float, float] = (0.9, 0.999)


class HeldOutSize(Strict):
    size: int = Field(ge=1)
    seed: int = 0


class HeldOutFraction(Strict):
    fraction: float = Field(gt=0, lt=1)
    seed: int = 0


class Names(RootModel[dict[Annotated[str, Field(pattern="^[a-z]+$")], HeldOutSize]]):
    pass


def _even(value: int) -> int:
    if value % 2:
        raise ValueError(f"{value} is odd; an even number was expected")
    return value


def _by_keys(value: Any, handler: Callable[[Any], Any]) -> Any:
    if isinstance(value, dict):
        return HeldOutSize.model_validate(value)
    if isinstance(value, str):
        raise PydanticCustomError("form", f"'{value}' is no hold-out; write a fraction")
    return handler(value)


class Recipe(Strict):
    epochs: int = Field(5, ge=1, le=101)
    batch_size: int = Field(128, multiple_of=2)
    title: str = Field("x", min_length=2, max_length=5, pattern="^[a-z]+$")
    shuffle: bool = True
    gain: float = Field(1.0, allow_inf_nan=False)
    optimizer: Annotated[Descent | Moments, Field(discriminator="name")] | None = None
    val: Annotated[float, Field(gt=0, lt=1)] | HeldOutSize | HeldOutFraction | None = None
    wrapped: Annotated[float | HeldOutSize | HeldOutFraction, WrapValidator(_by_keys)] = 0.5
    normalize: Literal["dataset", "none"] | HeldOutSize = "none"
    seeds: int | list[int] = 3
    milestones: list[int] = Field([1], min_length=1, max_length=3)
    paths: dict[str, list[HeldOutSize]] = {}
    names: Names = Names({})
    even: Annotated[int, AfterValidator(_even)] = 0
    import_: str = Field("x", alias="import")
    nested: HeldOutSize | None = None


def diagnosed(text: str, model: type[BaseModel] = Recipe, prefix: tuple[str | int, ...] = ()) -> list[Problem]:
    tree = loads(text, "s.yaml")
    data: Any = tree
    for part in prefix:
        data = data[part]
    with pytest.raises(ValidationError) as caught:
        model.model_validate(data)
    return problems(caught.value, tree, prefix, model=model)


def said(text: str) -> list[str]:
    return [str(problem).removeprefix("s.yaml:") for problem in diagnosed(text)]


class TestOneMistakeOneSentence:
    @pytest.mark.parametrize(
        ("text", "sentence"),
        [
            ("epochs: 3.7", "1:9: epochs: 3.7 is not a whole number"),
            ("epochs: 3.0", "1:9: epochs: 3.0 is not a whole number"),
            ("epochs: '8'", "1:9: epochs: '8' is text, a whole number was expected; remove the quotes"),
            ("epochs: '8.5'", "1:9: epochs: '8.5' is text, a whole number was expected"),
            ("epochs: many", "1:9: epochs: 'many' is text, a whole number was expected"),
            ("epochs: true", "1:9: epochs: true was given, a whole number was expected"),
            ("epochs:", "1:8: epochs: null was given, a whole number was expected"),
            ("epochs: [3]", "1:9: epochs: a list was given, a whole number was expected"),
            ("epochs: {a: 3}", "1:9: epochs: a mapping was given, a whole number was expected"),
            ("epochs: 0", "1:9: epochs: 0 is too small; at least 1"),
            ("epochs: 102", "1:9: epochs: 102 is too large; at most 101"),
            ("batch_size: 7", "1:13: batch_size: 7 is not a multiple of 2"),
            ("gain: '1e-4'", "1:7: gain: '1e-4' is text, a number was expected; remove the quotes"),
            ("gain: .inf", "1:7: gain: .inf is not a finite number"),
            ("gain: .nan", "1:7: gain: .nan is not a finite number"),
            ("title: 4", "1:8: title: 4 is a whole number, text was expected; quote it: '4'"),
            ("title: true", "1:8: title: true was given, text was expected; quote it: 'true'"),
            ("title: 1.5", "1:8: title: 1.5 is a number, text was expected; quote it: '1.5'"),
            ("title: [x]", "1:8: title: a list was given, text was expected"),
            ("title: x", "1:8: title: 'x' has too few characters; at least 2"),
            ("title: xxxxxx", "1:8: title: 'xxxxxx' has too many characters; at most 5"),
            ("title: X-1", "1:8: title: 'X-1' does not have the form ^[a-z]+$"),
            ("shuffle: 'true'", "1:10: shuffle: 'true' is text, true or false was expected; remove the quotes"),
            ("shuffle: 1", "1:10: shuffle: 1 is a whole number, true or false was expected"),
            ("milestones: []", "1:13: milestones: a list has too few items; at least 1"),
            ("milestones: [1, 2, 3, 5]", "1:13: milestones: a list has too many items; at most 3"),
            ("milestones: 4", "1:13: milestones: 4 is a whole number, a list was expected"),
            ("milestones: [1, x]", "1:17: milestones.1: 'x' is text, a whole number was expected"),
            ("even: 3", "1:7: even: 3 is odd; an even number was expected"),
            ("import: 4", "1:9: import: 4 is a whole number, text was expected; quote it: '4'"),
            ("nested: 3", "1:9: nested: 3 is a whole number, a mapping was expected"),
            ("nested: {}", "1:1: nested.size: missing"),
            ("nested: {seed: 2}", "1:1: nested.size: missing"),
            (
                "paths: {a.b: [{size: 1}, {size: x}]}",
                "1:33: paths.a.b.1.size: 'x' is text, a whole number was expected",
            ),
            ("names: {abc: {size: 0}}", "1:21: names.abc.size: 0 is too small; at least 1"),
            ("names: {abc: {sice: 1}}", "1:15: names.abc.sice: unknown key; did you mean 'size'?"),
            ("names: {A: {size: 1}}", "1:9: names.A: the key 'A': should match pattern '^[a-z]+$'"),
        ],
    )
    def test_it_repeats_what_was_written_and_states_the_rule(self, text: str, sentence: str) -> None:
        assert said(text) == [sentence]

    @pytest.mark.parametrize(
        ("text", "sentence"),
        [
            ("epoch: 3", "1:1: epoch: unknown key; did you mean 'epochs'?"),
            ("nested: {size: 1, sead: 2}", "1:19: nested.sead: unknown key; did you mean 'seed'?"),
            ("nested: {size: 1, xyz: 2}", "1:19: nested.xyz: unknown key; one of: seed, size"),
            ("paths: {a: [{size: 1, sed: 2}]}", "1:23: paths.a.0.sed: unknown key; did you mean 'seed'?"),
            ("imports: x", "1:1: imports: unknown key; did you mean 'import'?"),
            (
                "optimizer: {name: sgd, lr: 0.1, momentun: 3}",
                "1:33: optimizer.momentun: unknown key; did you mean 'momentum'?",
            ),
            (
                "optimizer: {name: adam, lr: 1, momentum: 0.9}",
                "1:32: optimizer.momentum: unknown key; one of: betas, lr, name",
            ),
            ("wrapped: {size: 1, sead: 2}", "1:20: wrapped.sead: unknown key; did you mean 'seed'?"),
        ],
    )
    def test_an_unknown_key_is_met_with_the_names_known_at_that_place(self, text: str, sentence: str) -> None:
        assert said(text) == [sentence]

    def test_a_validator_that_knows_better_words_the_unknown_key_itself(self) -> None:
        wrong = PydanticCustomError("extra_forbidden", "unknown key; this set has no folder")
        error = ValidationError.from_exception_data("data", [{"type": wrong, "loc": ("root",), "input": 3}])
        found = problems(error, loads("root: 3", "s.yaml"))
        assert [str(problem) for problem in found] == ["s.yaml:1:1: root: unknown key; this set has no folder"]

    def test_a_misspelt_key_is_not_missing_too(self) -> None:
        assert said("nested: {sise: 3}") == ["1:10: nested.sise: unknown key; did you mean 'size'?"]

    def test_all_mistakes_are_said_in_the_order_of_their_places(self) -> None:
        text = "title: 4\nnested: {size: x, sead: 1}\nepochs: 0\nepoch: 1\noptimizer: {name: sgd}\n"
        assert [line.split(" ")[0] for line in said(text)] == ["1:8:", "2:16:", "2:19:", "3:9:", "4:1:", "5:1:"]


class TestUnions:
    @pytest.mark.parametrize(
        ("text", "sentence"),
        [
            ("val: 1.5", "1:6: val: 1.5 is too large; less than 1"),
            ("val: 0", "1:6: val: 0 is too small; more than 0"),
            ("val: x", "1:6: val: 'x' is text, a number or a mapping was expected"),
            ("val: '0.2'", "1:6: val: '0.2' is text, a number or a mapping was expected; remove the quotes"),
            ("val: [1]", "1:6: val: a list was given, a number or a mapping was expected"),
            ("val: {size: x}", "1:13: val.size: 'x' is text, a whole number was expected"),
            ("val: {fraction: 2, seed: 1}", "1:17: val.fraction: 2 is too large; less than 1"),
            ("val: {fraction: 0.5, sead: 1}", "1:22: val.sead: unknown key; did you mean 'seed'?"),
            ("val: {fractoin: 0.5}", "1:7: val.fractoin: unknown key; did you mean 'fraction'?"),
            ("val: {siz: 5}", "1:7: val.siz: unknown key; did you mean 'size'?"),
            ("wrapped: {size: x}", "1:17: wrapped.size: 'x' is text, a whole number was expected"),
            ("wrapped: x", "1:10: wrapped: 'x' is no hold-out; write a fraction"),
            (r'wrapped: "\e[1m"', r"1:10: wrapped: '\x1b[1m' is no hold-out; write a fraction"),
            ("seeds: three", "1:8: seeds: 'three' is text, a whole number or a list was expected"),
            ("seeds: [1, a]", "1:12: seeds.1: 'a' is text, a whole number was expected"),
            ("normalize: datset", "1:12: normalize: 'datset' is not one of: dataset, none; did you mean 'dataset'?"),
            ("normalize: xyz", "1:12: normalize: 'xyz' is not one of: dataset, none"),
            ("normalize: 3", "1:12: normalize: 3 is a whole number, one of dataset, none or a mapping was expected"),
            ("normalize: {size: 0}", "1:19: normalize.size: 0 is too small; at least 1"),
        ],
    )
    def test_only_the_likeliest_branch_is_heard(self, text: str, sentence: str) -> None:
        assert said(text) == [sentence]

    @pytest.mark.parametrize(
        ("text", "sentence"),
        [
            ("optimizer: {name: sdg}", "1:19: optimizer.name: unknown optimizer 'sdg'; did you mean 'sgd'?"),
            ("optimizer: {name: zzz}", "1:19: optimizer.name: unknown optimizer 'zzz'; one of: adam, adamw, sgd"),
            ("optimizer: {name: 4}", "1:19: optimizer.name: unknown optimizer 4; one of: adam, adamw, sgd"),
            ("optimizer: {lr: 1}", "1:1: optimizer.name: missing; one of: sgd, adam, adamw"),
            ("optimizer: {nam: sgd, lr: 1}", "1:1: optimizer.name: missing; one of: sgd, adam, adamw"),
            ("optimizer: sgd", "1:12: optimizer: 'sgd' is text, a mapping was expected; write {name: sgd}"),
            ("optimizer: 4", "1:12: optimizer: 4 is a whole number, a mapping was expected"),
            ("optimizer: {name: sgd, lr: 0}", "1:28: optimizer.lr: 0 is too small; more than 0"),
            ("optimizer: {name: adamw}", "1:1: optimizer.lr: missing"),
        ],
    )
    def test_a_discriminated_union_speaks_of_its_name(self, text: str, sentence: str) -> None:
        assert said(text) == [sentence]

    def test_a_key_that_is_named_like_a_branch_stays_in_the_path(self) -> None:
        class Float(Strict):
            float: list[float]

        class Choice(Strict):
            choice: list[int]

        class Space(Strict):
            space: dict[str, Float | Choice]

        tree = loads("space: {choice: {choice: [1, x]}, float: {float: [y]}}", "s.yaml")
        with pytest.raises(ValidationError) as caught:
            Space.model_validate(tree)
        found = problems(caught.value, tree, model=Space)
        assert [problem.path for problem in found] == ["space.choice.choice.1", "space.float.float.0"]


class TestWhereItStands:
    TEXT = "name: x\ntrain:\n  recipes:\n  - {epochs: 3}\n  - {epochs: 0, titel: abc}\n"

    def test_a_prefix_leads_to_what_was_validated(self) -> None:
        found = diagnosed(self.TEXT, prefix=("train", "recipes", 1))
        assert [str(problem) for problem in found] == [
            "s.yaml:5:14: train.recipes.1.epochs: 0 is too small; at least 1",
            "s.yaml:5:17: train.recipes.1.titel: unknown key; did you mean 'title'?",
        ]

    def test_what_is_not_in_the_tree_has_the_place_of_what_should_hold_it(self) -> None:
        tree = loads(self.TEXT, "s.yaml")
        with pytest.raises(ValidationError) as caught:
            Recipe.model_validate({"optimizer": {"name": "sgd", "lr": "x"}, "nested": {"sizes": 1}})
        found = problems(caught.value, tree, ("train", "defaults"), model=Recipe)
        assert {str(problem) for problem in found} == {
            "s.yaml:3:3: train.defaults.optimizer.lr: 'x' is text, a number was expected",
            "s.yaml:2:1: train.defaults.nested.sizes: unknown key; did you mean 'size'?",
        }

    def test_plain_data_has_paths_and_no_places(self) -> None:
        with pytest.raises(ValidationError) as caught:
            Recipe.model_validate({"epochs": 0, "milestones": [1, "x"]})
        found = problems(caught.value, None)
        assert [(problem.path, problem.place) for problem in found] == [("epochs", None), ("milestones.1", None)]


class TestWithoutTheModel:
    def test_the_model_is_found_by_its_title(self) -> None:
        tree = loads("epoch: 3", "s.yaml")
        with pytest.raises(ValidationError) as caught:
            Recipe.model_validate(tree)
        assert problems(caught.value, tree)[0].hint == "did you mean 'epochs'?"

    def test_a_model_that_knows_the_refused_key_did_not_refuse_it(self) -> None:
        def twin(**fields: Any) -> type[BaseModel]:
            return type("Twin", (Strict,), {"__annotations__": dict.fromkeys(fields, int), **fields})

        asked, _other = twin(width=1), twin(widht=1)
        tree = loads("widht: 3", "s.yaml")
        with pytest.raises(ValidationError) as caught:
            asked.model_validate(tree)
        assert problems(caught.value, tree)[0].hint == "did you mean 'width'?"

    def test_two_models_of_one_title_give_no_hint_rather_than_a_wrong_one(self) -> None:
        def named(**fields: Any) -> type[BaseModel]:
            return type("Ambiguous", (Strict,), {"__annotations__": dict.fromkeys(fields, int), **fields})

        models = [named(width=1), named(depth=1)]
        tree = loads("widht: 3", "s.yaml")
        with pytest.raises(ValidationError) as caught:
            models[0].model_validate(tree)
        assert problems(caught.value, tree)[0].hint == ""
        assert problems(caught.value, tree, model=models[0])[0].hint == "did you mean 'width'?"

    def test_names_of_branches_drop_out_by_the_data_alone(self) -> None:
        tree = loads("val: {size: x}\noptimizer: {name: sgd, lr: 0}", "s.yaml")
        with pytest.raises(ValidationError) as caught:
            Recipe.model_validate(tree)
        found = problems(caught.value, tree, model=BaseModel)  # a model that knows nothing of these fields
        assert [problem.path for problem in found] == ["val.size", "optimizer.lr"]


class TestShown:
    @pytest.mark.parametrize(
        ("value", "text"),
        [
            (None, "null"),
            (True, "true"),
            (1e-05, "1e-05"),
            (float("-inf"), "-.inf"),
            ("a'b", "'a'b'"),
            ("\x1b[31m\n", r"'\x1b[31m\n'"),
            ("x" * 61, f"'{'x' * 59}…'"),
            (10**61, "a number of more than 60 digits"),
            ({"a": 1}, "a mapping"),
            ([1], "a list"),
        ],
    )
    def test_a_value_is_shown_as_it_was_written_on_one_line(self, value: Any, text: str) -> None:
        assert shown(value) == text


KEYS = st.sampled_from([*Recipe.model_fields, "import", "epoch", "name", "size", "float", "x\x1b"])
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.sampled_from(["sgd", "8", "dataset", "x", "é\x1b", ""]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["name", "lr", "size", "seed", "fraction", "float", "HeldOutSize"]), inner, max_size=3
        )
    ),
    max_leaves=8,
)


class TestAnyData:
    @given(st.dictionaries(KEYS, VALUES, max_size=4))
    def test_whatever_is_refused_is_explained_once_per_path_and_on_one_line(self, data: dict[str, Any]) -> None:
        try:
            Recipe.model_validate(data)
        except ValidationError as error:
            found = problems(error, data, model=Recipe)
            wrong = {item["loc"][0] for item in error.errors()}
        else:
            return
        paths = [problem.path for problem in found]
        assert len(set(paths)) == len(paths)
        assert {path.split(".")[0] for path in paths} == {str(part).replace("\x1b", r"\x1b") for part in wrong}
        assert all(str(problem).isprintable() and problem.message for problem in found)
