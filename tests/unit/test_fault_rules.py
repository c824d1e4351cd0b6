"""Fault rules: which calls they are about, and their JSON, good and damaged."""

from __future__ import annotations

import json
import string
from dataclasses import fields
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zonefs_py.device.fault_rules import (
    DISTRIBUTIONS,
    ERRORS,
    FIELDS,
    OPERATIONS,
    Call,
    Effect,
    FaultRule,
    Operation,
    Scenario,
    describe_rule,
    format_rules,
    parse_rule,
    parse_rules,
    parse_scenario,
)
from zonefs_py.errors import UserError

WRITE, COPY, READ, ANY = Operation.WRITE, Operation.COPY, Operation.READ, Operation.ANY
FAIL = Effect.FAIL


@st.composite
def rules(draw: st.DrawFn) -> FaultRule:
    """Any rule that makes sense."""
    effect = draw(st.sampled_from(Effect))
    operation = draw(st.sampled_from(sorted(OPERATIONS[effect], key=lambda one: one.value)))
    number = st.integers(0, 1 << 60)
    span = st.none() | st.tuples(number, number).map(lambda two: (min(two), max(two)))
    values: dict[str, Any] = {
        "zones": draw(span),
        "first": draw(st.integers(1, 1 << 60)),
        "every": draw(st.integers(1, 1 << 60)),
        "count": draw(st.none() | st.integers(1, 1 << 60)),
    }
    values["from_milliseconds"] = draw(number)
    values["probability"] = draw(st.floats(0, 1, exclude_min=True))
    values["name"] = draw(st.text(st.characters(codec="utf-8").filter(str.isprintable), max_size=20))
    if operation is COPY:
        values["source_zones"], values["source_blocks"] = draw(span), draw(span)
    if operation in (READ, WRITE, COPY, ANY):
        values["blocks"], values["at_byte"] = draw(span), draw(st.none() | number)
    more = {
        "error": st.sampled_from(sorted(ERRORS)),
        "after": number if operation in (WRITE, COPY) else st.just(0),
        "byte": number,
        "bit": st.integers(0, 7),
        "milliseconds": st.integers(1, 3_600_000),
        "target": st.none() | number,
        "length": st.integers(1, 1 << 60),
    }
    values.update({name: draw(more[name]) for name in sorted(FIELDS[effect]) if name in more})
    if effect is Effect.DELAY:
        values["distribution"] = draw(st.sampled_from(DISTRIBUTIONS))
        if values["distribution"] != "fixed":
            values["max_milliseconds"] = draw(st.integers(values["milliseconds"], 3_600_000))
    if values["probability"] < 1 or values.get("distribution", "fixed") != "fixed":
        values["seed"] = draw(number)
    return FaultRule(operation, effect, **values)


def test_errors_have_the_names_of_their_errno() -> None:
    ours = ["EIO", "ENOSPC", "ETOOMANYREFS", "EOVERFLOW"]
    drives = ["ETIMEDOUT", "ENOLINK", "EREMOTEIO", "EBADE", "ENODATA", "EILSEQ", "ENODEV"]
    assert list(ERRORS) == ours + drives


# Which calls


@pytest.mark.parametrize(
    ("rule", "call", "expected"),
    [
        (FaultRule(WRITE, FAIL), (WRITE, (3, 3), []), True),
        (FaultRule(WRITE, FAIL), (READ, (3, 3), []), False),
        (FaultRule(ANY, FAIL), (READ, (3, 3), []), True),
        (FaultRule(WRITE, FAIL, (2, 4)), (WRITE, (1, 1), []), False),
        (FaultRule(WRITE, FAIL, (2, 4)), (WRITE, (2, 2), []), True),
        (FaultRule(WRITE, FAIL, (2, 4)), (WRITE, (4, 4), []), True),
        (FaultRule(WRITE, FAIL, (2, 4)), (WRITE, (5, 5), []), False),
        (FaultRule(WRITE, FAIL, (2, 4)), (WRITE, (0, 2), []), True),
        (FaultRule(WRITE, FAIL, (2, 4)), (WRITE, (0, 9), []), True),
        (FaultRule(COPY, FAIL, (2, 4)), (COPY, (3, 3), [(7, 7)]), True),
        (FaultRule(COPY, FAIL, (2, 4)), (COPY, (7, 7), [(3, 3)]), False),
        (FaultRule(COPY, FAIL, None, (2, 4)), (COPY, (7, 7), [(3, 3)]), True),
        (FaultRule(COPY, FAIL, None, (2, 4)), (COPY, (3, 3), [(7, 7)]), False),
        (FaultRule(COPY, FAIL, (1, 1), (2, 4)), (COPY, (1, 1), [(3, 3)]), True),
        (FaultRule(COPY, FAIL, (1, 1), (2, 4)), (COPY, (2, 2), [(3, 3)]), False),
    ],
)
def test_matching(rule: FaultRule, call: tuple[Any, Any, Any], expected: bool) -> None:
    operation, zones, source_zones = call
    assert rule.matches(Call(operation, zones, source_zones=source_zones)) is expected


@pytest.mark.parametrize(
    ("first", "every", "count", "expected"),
    [
        (1, 1, 1, [1]),
        (3, 1, 1, [3]),
        (1, 1, 3, [1, 2, 3]),
        (2, 3, 2, [2, 5]),
        (2, 3, None, [2, 5, 8, 11]),
        (1, 1, None, list(range(1, 13))),
        (12, 5, None, [12]),
    ],
)
def test_when_a_rule_is_due(first: int, every: int, count: int | None, expected: list[int]) -> None:
    rule = FaultRule(WRITE, FAIL, first=first, every=every, count=count)
    fired: list[int] = []
    for matched in range(1, 13):
        if rule.is_due(matched, len(fired)):
            fired.append(matched)
    assert fired == expected


@pytest.mark.parametrize(
    ("rule", "call", "expected"),
    [
        (FaultRule(READ, FAIL, blocks=(8, 9)), Call(READ, (0, 0), (0, 7), 32768), False),
        (FaultRule(READ, FAIL, blocks=(8, 9)), Call(READ, (0, 0), (0, 8), 36864), True),
        (FaultRule(READ, FAIL, blocks=(8, 9)), Call(READ, (0, 0), (9, 20), 4096), True),
        (FaultRule(READ, FAIL, blocks=(8, 9)), Call(READ, (0, 0), (10, 20), 4096), False),
        (FaultRule(ANY, FAIL, blocks=(8, 9)), Call(Operation.RESET, (0, 0)), False),
        (FaultRule(ANY, FAIL, at_byte=0), Call(Operation.FLUSH, (0, 5)), False),
        (FaultRule(COPY, FAIL, blocks=(8, 9)), Call(COPY, (1, 1), (16, 16), 4096, [(0, 0)], [(8, 8)]), False),
        (FaultRule(COPY, FAIL, source_blocks=(8, 9)), Call(COPY, (1, 1), (16, 16), 4096, [(0, 0)], [(8, 8)]), True),
    ],
)
def test_matching_blocks(rule: FaultRule, call: Call, expected: bool) -> None:
    assert rule.matches(call) is expected


@pytest.mark.parametrize(
    ("rule", "moved", "expected"),
    [
        (FaultRule(WRITE, FAIL), 0, 0),
        (FaultRule(WRITE, FAIL, after=4096), 0, 4096),
        (FaultRule(WRITE, FAIL, blocks=(12, 13)), 0, 2 * 4096),
        (FaultRule(WRITE, FAIL, blocks=(12, 13), after=4096), 0, 3 * 4096),
        (FaultRule(WRITE, FAIL, blocks=(3, 11)), 0, 0),
        (FaultRule(WRITE, FAIL, at_byte=10000), 8192, 1808),
        (FaultRule(WRITE, FAIL, at_byte=10000), 20000, 0),
        (FaultRule(ANY, FAIL, at_byte=10000), 8192, 1808),
    ],
)
def test_where_in_a_call_a_rule_strikes(rule: FaultRule, moved: int, expected: int) -> None:
    assert rule.position(Call(WRITE, (0, 1), (10, 25), 65536), moved, 4096) == expected
    assert rule.position(Call(READ, (0, 1), (10, 25), 65536), moved, 4096) == rule.after


@given(st.floats(0.05, 0.95), st.integers(0, 1 << 60))
def test_chance_is_fair_and_the_same_again(probability: float, seed: int) -> None:
    rule = FaultRule(WRITE, FAIL, count=None, probability=probability, seed=seed)
    due = [rule.is_due(number, 0) for number in range(1, 1001)]
    again = FaultRule(WRITE, FAIL, count=None, probability=probability, seed=seed)
    assert due == [again.is_due(number, 0) for number in range(1, 1001)]
    # Six standard deviations: it holds for every seed that will ever be tried.
    assert abs(sum(due) - 1000 * probability) <= 6 * (1000 * probability * (1 - probability)) ** 0.5 + 1


@given(st.integers(1, 1000), st.integers(0, 1000), st.integers(0, 1 << 60), st.integers(1, 1 << 40))
def test_delays_are_within_their_limits(low: int, more: int, seed: int, matched: int) -> None:
    values: dict[str, Any] = {"milliseconds": low, "max_milliseconds": low + more, "seed": seed}
    uniform = FaultRule(WRITE, Effect.DELAY, distribution="uniform", **values)
    assert low <= uniform.delay(matched) * 1000 <= low + more
    assert uniform.delay(matched) == uniform.delay(matched)
    exponential = FaultRule(WRITE, Effect.DELAY, distribution="exponential", **values)
    assert 0 <= exponential.delay(matched) * 1000 <= low + more
    assert FaultRule(WRITE, Effect.DELAY, milliseconds=low).delay(matched) * 1000 == pytest.approx(low)


def test_delays_have_the_mean_that_was_asked_for() -> None:
    uniform = FaultRule(WRITE, Effect.DELAY, milliseconds=10, max_milliseconds=30, distribution="uniform", seed=1)
    exponential = FaultRule(
        WRITE, Effect.DELAY, milliseconds=10, max_milliseconds=10_000, distribution="exponential", seed=1
    )
    for rule, mean in ((uniform, 0.020), (exponential, 0.010)):
        delays = [rule.delay(number) for number in range(1, 5001)]
        assert len(set(delays)) > 4900
        assert sum(delays) / len(delays) == pytest.approx(mean, rel=0.05)


# JSON


def test_a_scenario_has_a_name_and_a_description() -> None:
    text = format_rules([FaultRule(WRITE, FAIL, name="the first")], "bad day", "a write fails")
    scenario = parse_scenario(text)
    assert scenario == Scenario((FaultRule(WRITE, FAIL, name="the first"),), "bad day", "a write fails")
    assert parse_rules(text) == [FaultRule(WRITE, FAIL, name="the first")]
    for change, words in (
        ({"name": 5}, '"name" is 5, not a text'),
        ({"description": "x" * 1001}, '"description" has more than 1000 characters'),
    ):
        with pytest.raises(UserError, match=words):
            parse_scenario(json.dumps({"version": 1, "rules": []} | change))


def test_a_worked_example() -> None:
    text = """
    {"version": 1, "rules": [
        {"operation": "write", "zones": "8-15", "first": 3, "effect": "fail", "error": "ENOSPC", "after": 8192},
        {"operation": "any", "zones": 9, "every": 10, "count": null, "effect": "delay", "milliseconds": 50},
        {"operation": "copy", "source_zones": "4", "effect": "offline", "after": 4096, "target": 4}
    ]}
    """
    assert parse_rules(text) == [
        FaultRule(WRITE, FAIL, (8, 15), first=3, error="ENOSPC", after=8192),
        FaultRule(ANY, Effect.DELAY, (9, 9), every=10, count=None, milliseconds=50),
        FaultRule(COPY, Effect.OFFLINE, source_zones=(4, 4), after=4096, target=4),
    ]


@given(st.lists(rules(), max_size=4))
def test_rules_are_read_back(some: list[FaultRule]) -> None:
    assert parse_rules(format_rules(some)) == some
    assert parse_rules(format_rules(some).encode()) == some


def refusal(content: object) -> str:
    with pytest.raises(UserError) as raised:
        parse_rules(json.dumps(content))
    return str(raised.value)


WRITE_FAIL = {"operation": "write", "effect": "fail"}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"operation": "erase"}, """"operation" is 'erase'; known are read, write, copy, reset, open,"""),
        ({"operation": ["write"]}, "\"operation\" is ['write']; known are"),
        ({"operation": None}, '"operation" is None'),
        ({"effect": "explode"}, """"effect" is 'explode'; known are fail, short, drop, flip, delay,"""),
        ({"effect": {}}, '"effect" is {}'),
        ({"zone": 3}, "unknown field 'zone'; known are operation, effect, count,"),
        ({"zones": -1}, '"zones" is -1: a range'),
        ({"zones": "8-"}, '''"zones" is '8-': write a zone number, or a range such as "8-15"'''),
        ({"zones": "15-8"}, '"zones" is 15-8: a range runs from a lower to a higher zone'),
        ({"zones": [8, 15]}, '"zones" is [8, 15], not a whole number'),
        ({"zones": "\u0663"}, '"zones" is'),
        ({"zones": True}, '"zones" is True, not a whole number'),
        ({"zones": "9" * 30}, '"zones" is'),
        ({"source_zones": 1}, '"source_zones" is for copy, not for write'),
        ({"first": 0}, '"first" is 0: it must be 1 to'),
        ({"first": None}, '"first" is None, not a whole number'),
        ({"first": 1.0}, '"first" is 1.0, not a whole number'),
        ({"first": False}, '"first" is False'),
        ({"every": 0}, '"every" is 0'),
        ({"count": 0}, '"count" is 0'),
        ({"count": "2"}, """"count" is '2', not a whole number"""),
        ({"error": "EPERM"}, """"error" is 'EPERM'; known are EIO, ENOSPC, ETOOMANYREFS, EOVERFLOW, ETIMEDOUT, """),
        ({"error": 5}, '"error" is 5, not a text'),
        ({"after": -1}, '"after" is -1'),
        ({"after": 1 << 61}, '"after" is 2305843009213693952: it must be 0 to'),
        ({"bit": 0}, '"bit" means nothing to the effect fail'),
        ({"bit": 1}, '"bit" means nothing to the effect fail'),
        ({"effect": "flip", "bit": 8}, '"bit" is 8: it must be 0 to 7'),
        ({"effect": "flip", "error": "EIO"}, '"error" means nothing to the effect flip'),
        ({"effect": "delay"}, '"milliseconds" says how long the delay is: 1 to 3600000'),
        ({"effect": "delay", "milliseconds": 0}, '"milliseconds" says how long the delay is: 1 to 3600000'),
        ({"effect": "delay", "milliseconds": 3_600_001}, '"milliseconds" is 3600001'),
        ({"effect": "external-write"}, '"length" is missing'),
        ({"effect": "offline", "target": -1}, '"target" is -1'),
        ({"operation": "read", "effect": "short"}, '"effect" short is not for read, only for write, copy'),
        ({"operation": "any", "effect": "drop"}, '"effect" drop is not for any, only for write, copy, reset'),
        ({"operation": "report", "effect": "flip"}, '"effect" flip is not for report, only for read, write, copy'),
        ({"operation": "read", "after": 4096}, '"after" is for write and copy, not for read'),
        ({"blocks": "9-3"}, '"blocks" is 9-3: a range runs from a lower to a higher block'),
        ({"blocks": "x"}, """"blocks" is 'x': write a block number"""),
        ({"source_blocks": 3}, '"source_blocks" is for copy, not for write'),
        ({"operation": "flush", "blocks": 3}, '"blocks" is for read, write and copy, not for flush'),
        ({"operation": "reset", "at_byte": 3}, '"at_byte" is for read, write and copy, not for reset'),
        ({"at_byte": -1}, '"at_byte" is -1: it must be 0 to'),
        ({"probability": 0}, '"probability" is 0: it must be above 0, and 1 at most'),
        ({"probability": 1.5}, '"probability" is 1.5: it must be above 0'),
        ({"probability": True}, '"probability" is True: it must be'),
        ({"seed": 5}, '"seed" means nothing without "probability" or "distribution"'),
        ({"name": "a\nb"}, """"name" is 'a\\nb': one line of at most 1000 characters"""),
        ({"from_milliseconds": -5}, '"from_milliseconds" is -5'),
        ({"effect": "stuck", "milliseconds": 5}, '"milliseconds" means nothing to the effect stuck'),
        ({"effect": "delay", "milliseconds": 5, "max_milliseconds": 9}, '"max_milliseconds" means nothing to a delay'),
        (
            {"effect": "delay", "milliseconds": 5, "distribution": "uniform", "max_milliseconds": 4},
            '"max_milliseconds" is 4: it must be at least "milliseconds"',
        ),
        (
            {"effect": "delay", "milliseconds": 5, "distribution": "normal"},
            """"distribution" is 'normal'; known are fixed, uniform, exponential""",
        ),
    ],
)
def test_a_wrong_field_is_named(change: dict[str, object], words: str) -> None:
    message = refusal({"version": 1, "rules": [WRITE_FAIL, WRITE_FAIL | change]})
    assert message.startswith(f"rule 2: {words}")
    assert "\n" not in message


@pytest.mark.parametrize("name", ["operation", "effect"])
def test_a_missing_field_is_named(name: str) -> None:
    content = {key: value for key, value in WRITE_FAIL.items() if key != name}
    assert refusal({"version": 1, "rules": [content]}) == f'rule 1: "{name}" is missing'


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "not JSON"),
        ("{", "not JSON"),
        (b"\xff", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[]", "not an object"),
        ("{}", '"version" is None; this zonefs-py knows version 1'),
        ('{"version": 2, "rules": []}', '"version" is 2'),
        ('{"version": true, "rules": []}', '"version" is True'),
        ('{"version": 1}', '"rules" is None, not a list'),
        ('{"version": 1, "rules": {}}', '"rules" is {}, not a list'),
        ('{"version": 1, "rules": [], "comment": 1}', "unknown field 'comment'"),
        ('{"version": 1, "rules": [3]}', "rule 1: 3 is not an object"),
        ('{"version": 1, "version": 1, "rules": []}', "the field 'version' is there twice"),
        ('{"version": 1, "rules": [{"first": ' + "9" * 5000 + "}]}", "not JSON"),
    ],
)
def test_what_is_no_rule_file_is_refused(text: str | bytes, words: str) -> None:
    with pytest.raises(UserError) as raised:
        parse_rules(text)
    assert str(raised.value).startswith(words)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=5,
)
field_names = [field.name for field in fields(FaultRule)]


@given(st.lists(rules(), min_size=1, max_size=3), st.data())
def test_a_damaged_rule_is_refused_in_one_sentence_or_still_a_rule(some: list[FaultRule], data: st.DataObject) -> None:
    content = [describe_rule(rule) for rule in some]
    number = data.draw(st.integers(0, len(content) - 1))
    victim = content[number]
    name = data.draw(st.sampled_from(field_names) | st.text(string.ascii_lowercase, max_size=6))
    if data.draw(st.booleans()):
        victim.pop(name, None)
    else:
        victim[name] = data.draw(json_values)
    try:
        again = parse_rules(json.dumps({"version": 1, "rules": content}))
    except UserError as exc:
        message = str(exc)
        assert message.startswith(f"rule {number + 1}: ")
        assert len(message) < 300
        assert message.isprintable()
    else:
        assert again[:number] + again[number + 1 :] == some[:number] + some[number + 1 :]


@given(st.lists(rules(), max_size=2).map(format_rules), st.data())
def test_a_damaged_file_never_raises_anything_else(text: str, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(at, min(len(text), at + 8)))
    damaged = text[:at] + data.draw(st.text(max_size=4)) + text[end:]
    try:
        found = parse_rules(damaged)
    except UserError:
        return
    assert parse_rules(format_rules(found)) == found


def test_one_rule_can_be_read_alone() -> None:
    rule = FaultRule(READ, Effect.FLIP, (5, 5), byte=3, bit=7)
    assert describe_rule(rule) == {"operation": "read", "effect": "flip", "zones": 5, "byte": 3, "bit": 7}
    assert parse_rule(describe_rule(rule)) == rule
    with pytest.raises(UserError, match="is not an object"):
        parse_rule("x")


def test_zones_that_a_device_does_not_have() -> None:
    FaultRule(COPY, Effect.OFFLINE, (0, 7), (7, 7), target=7).check_zones(8)
    for rule, words in (
        (FaultRule(WRITE, FAIL, (3, 8)), '"zones" has a zone 8: the device has zones 0 to 7'),
        (FaultRule(COPY, FAIL, source_zones=(9, 9)), '"source_zones" has a zone 9'),
        (FaultRule(WRITE, Effect.READONLY, target=8), '"target" has a zone 8'),
    ):
        with pytest.raises(UserError) as raised:
            rule.check_zones(8)
        assert str(raised.value).startswith(words)
