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
    ERRORS,
    FIELDS,
    OPERATIONS,
    Effect,
    FaultRule,
    Operation,
    describe_rule,
    format_rules,
    parse_rule,
    parse_rules,
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
    if operation is COPY:
        values["source_zones"] = draw(span)
    more = {
        "error": st.sampled_from(sorted(ERRORS)),
        "after": number if operation in (WRITE, COPY) else st.just(0),
        "byte": number,
        "bit": st.integers(0, 7),
        "milliseconds": st.integers(1, 3_600_000),
        "target": st.none() | number,
        "length": st.integers(1, 1 << 60),
    }
    values.update({name: draw(more[name]) for name in sorted(FIELDS[effect])})
    return FaultRule(operation, effect, **values)


def test_errors_have_the_names_of_their_errno() -> None:
    assert list(ERRORS) == ["EIO", "ENOSPC", "ETOOMANYREFS", "EOVERFLOW"]


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
    assert rule.matches(*call) is expected


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


# JSON


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
        ({"zone": 3}, "unknown field 'zone'"),
        ({"zones": -1}, '"zones" is (-1, -1)'),
        ({"zones": "8-"}, '''"zones" is '8-': write a zone number, or a range such as "8-15"'''),
        ({"zones": "15-8"}, '"zones" is (15, 8): a range runs from a lower to a higher zone'),
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
        ({"error": "EPERM"}, """"error" is 'EPERM'; known are EIO, ENOSPC, ETOOMANYREFS, EOVERFLOW"""),
        ({"error": 5}, '"error" is 5, not a text'),
        ({"after": -1}, '"after" is -1'),
        ({"after": 1 << 61}, '"after" is 2305843009213693952: it must be 0 to'),
        ({"bit": 0}, '"bit" means nothing to the effect fail'),
        ({"bit": 1}, '"bit" means nothing to the effect fail'),
        ({"effect": "flip", "bit": 8}, '"bit" is 8: it must be 0 to 7'),
        ({"effect": "flip", "error": "EIO"}, '"error" means nothing to the effect flip'),
        ({"effect": "delay"}, '"milliseconds" is missing'),
        ({"effect": "delay", "milliseconds": 3_600_001}, '"milliseconds" is 3600001'),
        ({"effect": "external-write"}, '"length" is missing'),
        ({"effect": "offline", "target": -1}, '"target" is -1'),
        ({"operation": "read", "effect": "short"}, '"effect" short is not for read, only for write, copy'),
        ({"operation": "any", "effect": "drop"}, '"effect" drop is not for any, only for write, copy, reset'),
        ({"operation": "report", "effect": "flip"}, '"effect" flip is not for report, only for read, write, copy'),
        ({"operation": "read", "after": 4096}, '"after" is for write and copy, not for read'),
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
