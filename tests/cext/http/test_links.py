"""Link fields (RFC 8288) and what their targets come to (RFC 3986, section 5)."""

import pytest
from cext.http.links import links_of, resolved
from hypothesis import given, settings
from hypothesis import strategies as st

PRELOAD, MODULEPRELOAD, PRECONNECT = 1, 2, 4


def facts(value):
    """(target, relations, nopush, anchored) of each link."""
    return [link[1:] for link in links_of(value)]


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (b"</a>; rel=preload", [(b"/a", PRELOAD, False, False)]),
        (b'</a>; rel="preload"', [(b"/a", PRELOAD, False, False)]),
        (b'</a> ;\tREL = "next PreLoad"', [(b"/a", PRELOAD, False, False)]),
        (b'</a>; rel="modulepreload preconnect"', [(b"/a", MODULEPRELOAD | PRECONNECT, False, False)]),
        (b"</a>; rel=preload; nopush", [(b"/a", PRELOAD, True, False)]),
        (b"</a>; nopush; rel=preload", [(b"/a", PRELOAD, True, False)]),
        (b'</a>; anchor="/x"; rel=preload', [(b"/a", PRELOAD, False, True)]),
        (b"</a>; rel=next; rel=preload", [(b"/a", 0, False, False)]),
        (b"</a>; rel; rel=preload", [(b"/a", 0, False, False)]),
        (b"</a>; title=\"x, </b>; rel=preload\\\"\"; rel=preload", [(b"/a", PRELOAD, False, False)]),
        (b"</a;b,c>; rel=preload", [(b"/a;b,c", PRELOAD, False, False)]),
        (b"<>; rel=preload", [(b"", PRELOAD, False, False)]),
        (b"</a>", [(b"/a", 0, False, False)]),
        (b"</a>;;rel=preload", [(b"/a", PRELOAD, False, False)]),
        (b" ,, </a>; rel=preload ,</b>;rel=next", [(b"/a", PRELOAD, False, False), (b"/b", 0, False, False)]),
        (b"", []),
        (b"/a; rel=preload", []),
        (b"</a; rel=preload", []),
        (b"</a> rel=preload", []),
        (b'</a>; rel="preload', []),
        (b'</a>; rel="preload\\"', []),
        (b"</a>; rel=pre/load", []),
        (b"</a>; rel=preload x, </b>; rel=preload", []),
        (b"</a>; rel=preload, /b", [(b"/a", PRELOAD, False, False)]),
    ],
)
def test_links(value, found):
    assert facts(value) == found


def test_a_link_is_told_whole_and_without_what_surrounds_it():
    value = b' </a>;\trel=preload ; as="style" , <b> ; rel=preload;nopush ;x,'
    assert [link[0] for link in links_of(value)] == [b'</a>;\trel=preload ; as="style"', b"<b> ; rel=preload;nopush ;x"]


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from([b"<", b">", b'"', b"\\", b";", b",", b"=", b" ", b"rel", b"preload", b"/a", b"\xff"])))
def test_whatever_it_is_links_are_parts_of_it(parts):
    value = b"".join(parts)
    at = 0
    for text, target, *_ in links_of(value):
        at = value.index(text, at) + len(text)
        assert text.startswith(b"<" + target + b">")
        assert links_of(text) == [links_of(text)[0]]
        assert links_of(text)[0][1] == target


# RFC 3986, section 5.4, with its base; what is of another scheme is none of ours.
REFERENCES = {
    b"g": b"/b/c/g",
    b"./g": b"/b/c/g",
    b"g/": b"/b/c/g/",
    b"/g": b"/g",
    b"//a": b"/",
    b"//a/h": b"/h",
    b"?y": b"/b/c/d;p?y",
    b"g?y": b"/b/c/g?y",
    b"g#s": b"/b/c/g",
    b"g?y#s": b"/b/c/g?y",
    b";x": b"/b/c/;x",
    b"g;x": b"/b/c/g;x",
    b"g;x?y#s": b"/b/c/g;x?y",
    b".": b"/b/c/",
    b"./": b"/b/c/",
    b"..": b"/b/",
    b"../": b"/b/",
    b"../g": b"/b/g",
    b"../..": b"/",
    b"../../": b"/",
    b"../../g": b"/g",
    b"../../../g": b"/g",
    b"../../../../g": b"/g",
    b"/./g": b"/g",
    b"/../g": b"/g",
    b"g.": b"/b/c/g.",
    b".g": b"/b/c/.g",
    b"g..": b"/b/c/g..",
    b"..g": b"/b/c/..g",
    b"./../g": b"/b/g",
    b"./g/.": b"/b/c/g/",
    b"g/./h": b"/b/c/g/h",
    b"g/../h": b"/b/c/h",
    b"g;x=1/./y": b"/b/c/g;x=1/y",
    b"g;x=1/../y": b"/b/c/y",
    b"g?y/./x": b"/b/c/g?y/./x",
    b"g?y/../x": b"/b/c/g?y/../x",
    b"https://a/g": b"/g",
    b"HTTPS://A?q": b"/?q",
    b"": None,
    b"#s": None,
    b"//g": None,
    b"//ab/c": None,
    b"//a:444/c": None,
    b"//a@b/c": None,
    b"https:g": None,
    b"https:": None,
    b"http://a/g": None,
    b"http:g": None,
    b"g:h": None,
    b"data:,x": None,
}


@pytest.mark.parametrize("ref", REFERENCES)
def test_references(ref):
    assert resolved(b"a", b"/b/c/d;p?q", ref) == REFERENCES[ref]


def test_the_query_of_the_page_is_no_directory():
    assert resolved(b"a", b"/b?c/d", b"g") == b"/g"
    assert resolved(b"a", b"/", b"g") == b"/g"
    assert resolved(b"a", b"/", b"?g") == b"/?g"
