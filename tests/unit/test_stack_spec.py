"""The text form of stacks: to a tree and back, and every mistake named."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from zonefs_py.device.stack_spec import (
    MAX_DEPTH,
    PREFIXES,
    SPECIAL,
    DeviceSpec,
    FaultSpec,
    LinearSpec,
    NvmeCopySpec,
    PartSpec,
    PathSpec,
    WriteCacheSpec,
    ZoneRange,
    device_paths,
    format_spec,
    is_stack,
    map_paths,
    parse_spec,
)
from zonefs_py.errors import UserError

A, B = PathSpec("a.zbd"), PathSpec("b.zbd")


def linear(*parts: DeviceSpec) -> LinearSpec:
    return LinearSpec(tuple(PartSpec(part) for part in parts))


EXAMPLES: dict[str, DeviceSpec] = {
    "a.zbd": A,
    "/dir with space/a+b,c[1]\\": PathSpec("/dir with space/a+b,c[1]\\"),
    "linear:a.zbd": linear(A),
    "linear:a.zbd+b.zbd": linear(A, B),
    "linear:a.zbd[8-15]+b.zbd": LinearSpec((PartSpec(A, (ZoneRange(8, 15),)), PartSpec(B))),
    "linear:a.zbd[8]+b.zbd[0,4-,2-3]": LinearSpec(
        (PartSpec(A, (ZoneRange(8, 8),)), PartSpec(B, (ZoneRange(0, 0), ZoneRange(4, None), ZoneRange(2, 3))))
    ),
    "fault:rules.json,a.zbd": FaultSpec("rules.json", A),
    "fault:rules.json,linear:a.zbd+b.zbd": FaultSpec("rules.json", linear(A, B)),
    "fault:1.json,fault:2.json,a.zbd": FaultSpec("1.json", FaultSpec("2.json", A)),
    "linear:(fault:r.json,a.zbd)+b.zbd": linear(FaultSpec("r.json", A), B),
    "linear:(fault:r.json,linear:a.zbd+b.zbd)[1-2]+c": LinearSpec(
        (PartSpec(FaultSpec("r.json", linear(A, B)), (ZoneRange(1, 2),)), PartSpec(PathSpec("c")))
    ),
    r"linear:a\+b+c\,d\[1\]\(\)\\e": linear(PathSpec("a+b"), PathSpec("c,d[1]()\\e")),
    "fault:my rules,./fault:x": FaultSpec("my rules", PathSpec("./fault:x")),
    "nvme-copy:a.zbd": NvmeCopySpec(A),
    "nvme-copy:mssrl=128,mcl=256,msrc=15,a.zbd": NvmeCopySpec(A, 128, 256, 15),
    "nvme-copy:mssrl=65535,mcl=4294967295,msrc=0,back-end=file,linear:a.zbd+b.zbd": NvmeCopySpec(
        linear(A, B), 65535, 4294967295, 0, "file"
    ),
    "fault:r.json,nvme-copy:msrc=3,fault:s.json,a.zbd": FaultSpec(
        "r.json", NvmeCopySpec(FaultSpec("s.json", A), msrc=3)
    ),
    "linear:(nvme-copy:mcl=9,a.zbd)[1-2]+b.zbd": LinearSpec(
        (PartSpec(NvmeCopySpec(A, mcl=9), (ZoneRange(1, 2),)), PartSpec(B))
    ),
    r"nvme-copy:mssrl=1\,a": NvmeCopySpec(PathSpec("mssrl=1,a")),
    "nvme-copy:fault:r=1,a": NvmeCopySpec(FaultSpec("r=1", PathSpec("a"))),
    "write-cache:a.zbd": WriteCacheSpec(A),
    "write-cache:linear:a.zbd+b.zbd": WriteCacheSpec(linear(A, B)),
    "fault:r.json,write-cache:fault:s.json,a.zbd": FaultSpec("r.json", WriteCacheSpec(FaultSpec("s.json", A))),
    "linear:(write-cache:a.zbd)[1-2]+b.zbd": LinearSpec((PartSpec(WriteCacheSpec(A), (ZoneRange(1, 2),)), PartSpec(B))),
    "linear:C:/x+nvme:1": linear(PathSpec("C:/x"), PathSpec("nvme:1")),
}


@pytest.mark.parametrize("text", EXAMPLES)
def test_examples(text: str) -> None:
    assert parse_spec(text) == EXAMPLES[text]
    assert format_spec(EXAMPLES[text]) == text
    assert is_stack(text) == text.startswith(("linear:", "fault:", "nvme-copy:", "write-cache:"))


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("linear:(a)+(b)[3-3]", "linear:a+b[3]"),
        ("fault:r,(linear:a+b)", "fault:r,linear:a+b"),
        ("fault:r,((a))", "fault:r,a"),
        ("linear:a[007]", "linear:a[7]"),
        ("nvme-copy:msrc=0,mcl=2,mssrl=1,back-end=block,(a)", "nvme-copy:mssrl=1,mcl=2,msrc=0,a"),
        ("write-cache:(a)", "write-cache:a"),
    ],
)
def test_other_ways_to_write_it(text: str, same: str) -> None:
    assert parse_spec(text) == parse_spec(same)
    assert format_spec(parse_spec(text)) == same


paths = st.text(min_size=1, max_size=12).filter(lambda path: not path.startswith(PREFIXES)) | st.text(
    SPECIAL + "ab/:", min_size=1, max_size=8
)
path_specs = paths.map(PathSpec)
numbers = st.integers(0, 10**18 - 1)
zone_ranges = st.tuples(numbers, st.none() | numbers).map(
    lambda two: ZoneRange(two[0], two[1]) if two[1] is None else ZoneRange(min(two[0], two[1]), max(two[0], two[1]))
)
specs = st.recursive(
    path_specs,
    lambda inner: (
        st.builds(FaultSpec, paths, inner)
        | st.builds(
            NvmeCopySpec,
            inner,
            st.none() | st.integers(1, 0xFFFF),
            st.none() | st.integers(1, 0xFFFFFFFF),
            st.none() | st.integers(0, 0xFF),
            st.sampled_from(["block", "file"]),
        )
        | st.builds(WriteCacheSpec, inner)
        | st.builds(PartSpec, inner, st.lists(zone_ranges, max_size=3).map(tuple))
        .flatmap(lambda part: st.lists(st.builds(PartSpec, inner), max_size=2).map(lambda rest: (part, *rest)))
        .map(LinearSpec)
    ),
    max_leaves=6,
)


@given(specs)
def test_a_tree_is_read_back_from_its_text(spec: DeviceSpec) -> None:
    text = format_spec(spec)
    assert parse_spec(text) == spec
    assert format_spec(parse_spec(text)) == text


@given(st.sampled_from(PREFIXES), st.text("ab\\,+[]()0123-:", max_size=24))
@example("linear:", "fault:a,b")
@example("fault:", "a,linear:b+linear:c")
@example("nvme-copy:", "mcl=1,a")
def test_any_text_is_a_stack_or_one_complaint(prefix: str, rest: str) -> None:
    text = prefix + rest
    try:
        spec = parse_spec(text)
    except UserError as exc:
        assert str(exc).startswith(f"{text}: character ")  # noqa: PT017  (not every text is wrong)
    else:
        again = format_spec(spec)
        assert parse_spec(again) == spec
        assert format_spec(parse_spec(again)) == again


@given(st.text(min_size=1).filter(lambda text: not text.startswith(PREFIXES)))
def test_a_path_is_taken_as_it_is(path: str) -> None:
    assert parse_spec(path) == PathSpec(path)
    assert format_spec(PathSpec(path)) == path


@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        ("linear:", 8, "the path of a device expected"),
        ("linear:a+", 10, "the path of a device expected"),
        ("linear:+a", 8, "the path of a device expected"),
        ("linear:a++b", 10, "the path of a device expected"),
        ("linear:a,b", 9, "',' is not expected here; in a path it needs a backslash before it"),
        ("linear:a]", 9, "']' is not expected here"),
        ("linear:a(b)", 9, "'(' is not expected here"),
        ("linear:a[]", 10, "zones expected: a number, or a range such as 8-15"),
        ("linear:a[x]", 10, "zones expected"),
        ("linear:a[-3]", 10, "zones expected"),
        ("linear:a[3-1]", 10, "the range 3-1 runs backwards"),
        ("linear:a[1,]", 12, "zones expected"),
        ("linear:a[1", 11, "']' expected behind the zones"),
        ("linear:a[1-2-3]", 13, "']' expected behind the zones"),
        ("linear:a[" + "9" * 19 + "]", 28, "']' expected behind the zones"),
        ("linear:a[1][2]", 12, "'[' is not expected here"),
        ("linear:a[1]b", 12, "'b' is not expected here"),
        ("linear:fault:r,a+b", 8, "a stack within linear goes into parentheses"),
        ("linear:a+linear:b", 10, "a stack within linear goes into parentheses"),
        ("linear:(a+b", 10, "')' and nothing else expected"),
        ("linear:(a", 10, "')' and nothing else expected"),
        ("linear:()", 9, "the path of a device expected"),
        ("linear:a\\b", 10, "a backslash goes before one of"),
        ("linear:a\\", 10, "a backslash goes before one of"),
        ("fault:", 7, "the path of a rule file expected"),
        ("fault:r", 8, "',' and a device expected"),
        ("fault:r,", 9, "the path of a device expected"),
        ("fault:,a", 7, "the path of a rule file expected"),
        ("fault:r,a+b", 10, "'+' is not expected here"),
        ("fault:r,a[1]", 10, "'[' is not expected here"),
        ("fault:fault:r,a", 7, "put ./ before one that looks like a stack"),
        ("fault:r+s,a", 8, "',' and a device expected"),
        ("nvme-copy:", 11, "the path of a device expected"),
        ("nvme-copy:msrc=1,", 18, "the path of a device expected"),
        ("nvme-copy:msrc=1,msrc=2,a", 18, "msrc is there twice"),
        ("nvme-copy:back-end=file,back-end=file,a", 25, "back-end is there twice"),
        ("nvme-copy:msrc=256,a", 11, "msrc is a number, 0 to 255"),
        ("nvme-copy:mssrl=0,a", 11, "mssrl is a number, 1 to 65535"),
        ("nvme-copy:mssrl=65536,a", 11, "mssrl is a number, 1 to 65535"),
        ("nvme-copy:mcl=4294967296,a", 11, "mcl is a number, 1 to 4294967295"),
        ("nvme-copy:mcl=x,a", 11, "mcl is a number"),
        ("nvme-copy:back-end=disk,a", 11, "back-end is block or file"),
        ("nvme-copy:limit=1,a", 11, "'limit' is no option; known are mssrl, mcl, msrc and back-end"),
        ("nvme-copy:mcl=1,=2,a", 17, "'' is no option"),
        ("nvme-copy:mcl=-1,a", 11, "mcl is a number, 1 to 4294967295"),
        ("nvme-copy:mcl=,a", 11, "mcl is a number, 1 to 4294967295"),
        (f"nvme-copy:mcl={'9' * 30},a", 11, "mcl is a number, 1 to 4294967295"),
        ("nvme-copy:a/b=1,a", 16, "',' is not expected here"),
        ("write-cache:", 13, "the path of a device expected"),
        ("write-cache:a,b", 14, "',' is not expected here"),
        ("linear:write-cache:a", 8, "a stack within linear goes into parentheses"),
    ],
)
def test_mistakes(text: str, place: int, words: str) -> None:
    with pytest.raises(UserError) as raised:
        parse_spec(text)
    assert str(raised.value).startswith(f"{text}: character {place}: ")
    assert words in str(raised.value)


def test_there_is_an_end_to_nesting() -> None:
    deepest = "fault:r," * (MAX_DEPTH - 1) + "a"
    assert format_spec(parse_spec(deepest)) == deepest
    for text in ("fault:r," + deepest, "fault:r," * 100_000 + "a", "linear:" + "(" * 100_000):
        with pytest.raises(UserError, match=f"more than {MAX_DEPTH} devices"):
            parse_spec(text)
    with pytest.raises(UserError, match="empty"):
        parse_spec("")


def test_paths() -> None:
    spec = parse_spec("linear:(fault:r.json,a)[1]+b+(linear:c+(write-cache:d))")
    assert list(device_paths(spec)) == ["a", "b", "c", "d"]
    assert format_spec(map_paths(spec, lambda path: "/x,y/" + path)) == (
        r"linear:(fault:/x\,y/r.json,/x\,y/a)[1]+/x\,y/b+(linear:/x\,y/c+(write-cache:/x\,y/d))"
    )


@pytest.mark.parametrize(
    "make",
    [
        lambda: PathSpec(""),
        lambda: PathSpec("linear:a"),
        lambda: FaultSpec("fault:", A),
        lambda: LinearSpec(()),
        lambda: NvmeCopySpec(A, back_end="tape"),
        lambda: NvmeCopySpec(A, msrc=256),
        lambda: ZoneRange(-1, 3),
        lambda: ZoneRange(3, 2),
    ],
)
def test_trees_that_have_no_text_are_refused(make: Callable[[], object]) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  (a reason each)
        make()
