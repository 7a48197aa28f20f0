"""What `files` understands of its options, and what it says of the rest."""

from __future__ import annotations

import string
from typing import Any

import pytest
from ansible_collections.berth.platform.plugins.module_utils.files_spec import (
    Faults,
    choose_inline,
    pack,
    parse_request,
    unpack,
)
from hypothesis import given
from hypothesis import strategies as st


def one(**entry: Any) -> Any:
    request, _origins = parse_request({"files": [{"path": "/etc/x/a", **entry}]})
    return request.files[0]


def test_defaults() -> None:
    spec = one(content="x")
    assert (spec.state, spec.owner, spec.group, spec.mode) == ("file", "root", "root", 0o644)
    assert (spec.secret, spec.diff, spec.backup, spec.replace) == (False, True, False, True)
    assert one(state="directory").mode == 0o755


@pytest.mark.parametrize(
    ("mode", "secret", "expected"),
    [
        ("0600", None, True),
        ("0400", None, True),
        ("0640", None, False),
        ("0644", None, False),
        ("0600", False, False),
        ("0640", True, True),
    ],
)
def test_what_only_its_owner_may_read_is_secret(mode: str, secret: Any, expected: bool) -> None:
    assert one(content="x", mode=mode, secret=secret).secret is expected


def test_null_is_left_out() -> None:
    spec = one(content="x", template=None, owner=None, mode=None, validate=None)
    assert (spec.owner, spec.mode, spec.validate) == ("root", 0o644, "")


@pytest.mark.parametrize("path", ["/etc/x/../y/./b/", "//etc/y//b", "/etc/y/b"])
def test_paths_are_normalised(path: str) -> None:
    request, _origins = parse_request({"files": [{"path": path, "content": ""}]})
    assert request.files[0].path == "/etc/y/b"


FAULTY: list[tuple[dict[str, Any], str]] = [
    ({"files": [{"content": "x"}]}, "files[0]: path is missing"),
    ({"files": [{"path": "etc/x", "content": ""}]}, "'etc/x' is not absolute"),
    ({"files": [{"path": "/a\nb", "content": ""}]}, "a character that no path can have"),
    ({"files": ["/etc/x"]}, "files[0] must be a dictionary, not str"),
    ({"files": {"path": "/x"}}, "files must be a list, not dict"),
    (
        {"files": [{"path": "/e/x", "template": "a", "content": "b"}]},
        "/e/x: exactly one of template, content, source is needed, got template and content",
    ),
    ({"files": [{"path": "/e/x"}]}, "/e/x: exactly one of template, content, source is needed"),
    ({"files": [{"path": "/e/x", "contnt": "b", "source": "a"}]}, "did you mean 'content'?"),
    ({"files": [{"path": "/e/x", "content": {"a": 1}}]}, "/e/x: content must be text"),
    ({"files": [{"path": "/e/x", "content": "", "mode": 420}]}, "must be a quoted octal"),
    ({"files": [{"path": "/e/x", "content": "", "mode": "u=rw"}]}, "is not an octal string"),
    ({"files": [{"path": "/e/x", "content": "", "mode": "0844"}]}, "is not an octal string"),
    ({"files": [{"path": "/e/x", "state": "touch"}]}, "state 'touch' is not one of"),
    ({"files": [{"path": "/e/x", "state": "link"}]}, "/e/x: state link needs a target"),
    (
        {"files": [{"path": "/e/x", "state": "link", "target": "y", "content": "z"}]},
        "/e/x: content cannot go with state link",
    ),
    ({"files": [{"path": "/e/x", "content": "", "target": "y"}]}, "target goes with state link"),
    ({"files": [{"path": "/e/x", "content": "", "vars": {"a": 1}}]}, "vars are for templates"),
    ({"files": [{"path": "/e/x", "template": "t", "vars": [1]}]}, "vars must be a dictionary"),
    ({"files": [{"path": "/e/x", "content": "", "validate": "nginx -t"}]}, "lacks the %s"),
    (
        {"files": [{"path": "/e/x", "state": "directory", "validate": "a %s"}]},
        "validate goes with state file only",
    ),
    ({"files": [{"path": "/e/x", "content": "", "secret": "maybe"}]}, "neither true nor false"),
    ({"files": [{"path": "/e/x", "content": "", "backup": 3}]}, "neither true nor false"),
    ({"files": [{"path": "/etc", "state": "absent"}]}, "a whole top-level directory"),
    ({"files": [{"path": "/", "state": "directory"}]}, "a whole top-level directory"),
    (
        {"files": [{"path": "/e/x", "content": ""}, {"path": "/e//x", "content": ""}]},
        "/e/x: named more than once",
    ),
    (
        {"files": [{"path": "/e/x", "content": ""}, {"path": "/e/x/y", "content": ""}]},
        "/e/x/y: its parent /e/x is a file in the same task",
    ),
    (
        {"files": [{"path": "/e/x", "state": "absent"}, {"path": "/e/x/y", "content": ""}]},
        "/e/x/y: its parent /e/x is to be absent in the same task",
    ),
    ({"trees": [{"path": "nginx"}]}, "trees[0]"),
    ({"trees": [{"path": "/"}]}, "the root of the file system cannot be staged"),
    ({"trees": [{"path": "/etc/nginx", "validte": "x"}]}, "did you mean 'validate'?"),
    ({"exclusive": [{"path": "/etc"}]}, "/etc: refused"),
    ({"exclusive": [{"path": "/etc/a", "pattern": "b/*"}]}, "is for names, not for paths"),
    ({"pending": "../x"}, "is not a plain name"),
    ({"pending": ".x"}, "is not a plain name"),
    ({"fils": []}, "did you mean 'files'?"),
]


@pytest.mark.parametrize(("options", "words"), FAULTY, ids=[words for _o, words in FAULTY])
def test_faults_name_path_and_remedy(options: dict[str, Any], words: str) -> None:
    with pytest.raises(Faults) as caught:
        parse_request(options)
    assert any(words in fault for fault in caught.value.faults), caught.value.faults


def test_all_faults_come_at_once() -> None:
    with pytest.raises(Faults) as caught:
        parse_request({"files": [{"path": "x"}, {"path": "/e/y"}, {"path": "/e/z", "mode": 1}]})
    assert len(caught.value.faults) >= 3


def test_a_link_may_be_the_parent_of_a_file() -> None:
    parse_request(
        {
            "files": [
                {"path": "/e/current", "state": "link", "target": "v1"},
                {"path": "/e/current/x", "content": ""},
            ]
        }
    )


contents = st.one_of(st.binary(max_size=300), st.text(max_size=300).map(str.encode))


@given(st.lists(contents, max_size=5))
def test_what_is_packed_comes_out_again(blobs: list[bytes]) -> None:
    request, _origins = parse_request(
        {
            "files": [{"path": f"/e/{n}", "content": ""} for n in range(len(blobs))],
            "trees": [{"path": "/e", "validate": "true"}],
            "exclusive": [{"path": "/e/d"}],
            "pending": "demo",
        }
    )
    for spec, blob in zip(request.files, blobs, strict=True):
        spec.set_content(blob)
    word = pack(request)
    assert set(word) <= set(string.ascii_letters + string.digits + "+/=")
    again = unpack(word)
    assert again == request
    assert [spec.content() for spec in again.files] == blobs


@given(st.dictionaries(st.text(max_size=3), st.integers(0, 100)), st.integers(0, 300))
def test_what_travels_in_the_call_stays_within_the_budget(
    sizes: dict[str, int], budget: int
) -> None:
    chosen = choose_inline(sizes, budget)
    assert sum(sizes[path] for path in chosen) <= budget
    left = [size for path, size in sizes.items() if path not in chosen]
    if left:
        assert sum(sizes[path] for path in chosen) + min(left) > budget
