"""The map in cext/__init__.py, enforced: who may import whom, no cycles, no libssl, no file that outgrew its reason.

The rules are functions from sources (path -> text) to complaints, so that the tests at the end can feed them
sources that breach each one.
"""

import ast
import functools
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MAX_LINES = 900

# What each layer may import beside itself. A name with a dot is one module, any other a whole layer.
MAY_IMPORT = {
    "lib": set(),
    "base": {"lib.linux"},
    "crypto": {"base", "lib.libcrypto"},
    "tls": {"base", "crypto"},
    "http": {"base", "lib.nghttp2"},
    "net": {"base", "lib.linux"},
    "proxy": {"base", "crypto.hash_kdf", "tls", "http", "net"},
    "worker": {"base", "tls", "net", "proxy"},
}

# Strings and comments, which may contain anything: a docstring is not an import.
OPAQUE = re.compile(
    r"""[rRbBuUfFcC]{0,2}(?:\"{3}(?:\\.|[^\\])*?\"{3}|'{3}(?:\\.|[^\\])*?'{3}|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*')"""
    r"""|\#[^\n]*"""
)
EXTERN = re.compile(r"""^[ \t]*cdef[ \t]+extern[ \t]+from[ \t]+["']<?([^"'>]+)""", re.MULTILINE)
FROM = re.compile(r"^[ \t]*from[ \t]+([\w.]+)[ \t]+c?import[ \t]+(\([^)]*\)|[^\n]+)", re.MULTILINE)
IMPORT = re.compile(r"^[ \t]*c?import[ \t]+([^\n]+)", re.MULTILINE)


def module_of(path):
    parts = Path(path).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def names_in(listing):
    """`a, b as c` -> ["a", "b"]."""
    return [part.split()[0] for part in listing.strip("() \n").replace("\n", " ").split(",") if part.strip()]


def absolute(package, name):
    """A relative module name (leading dots) as seen from `package`."""
    dots = len(name) - len(name.lstrip("."))
    if not dots:
        return name
    base = package.split(".")[: len(package.split(".")) - dots + 1]
    return ".".join([*base, name[dots:]]) if name[dots:] else ".".join(base)


@functools.cache
def imports_of(path, text):
    """Every dotted name that a source imports: `from a.b cimport c` gives a.b and a.b.c."""
    module = module_of(path)
    package = module if Path(path).stem == "__init__" else module.rpartition(".")[0]
    found = set()
    if path.endswith(".py"):
        tree = ast.parse(text)
        for node in ast.walk(tree):  # what only the type checker sees is never imported
            if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
                node.body = []
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                found.update(alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                origin = absolute(package, "." * node.level + (node.module or ""))
                found.update([origin, *(f"{origin}.{alias.name}" for alias in node.names)])
        return found
    code = OPAQUE.sub("''", text).replace("\\\n", " ")
    for written, listing in FROM.findall(code):
        origin = absolute(package, written)
        found.update([origin, *(f"{origin}.{name}" for name in names_in(listing))])
    for listing in IMPORT.findall(code):
        found.update(names_in(listing))
    return found


def modules_imported(path, text, modules):
    """The project's modules among imports_of."""
    return {name for name in imports_of(path, text) if name in modules} - {module_of(path)}


def layer_of(module):
    """cext.tls.record -> tls; cext.worker -> worker."""
    return module.split(".")[1]


# The redis package speaks TLS by Python's ssl, and is told there whom to trust.
OTHERS_TLS = {"edge/fleet/connection.py"}


def layer_breaches(sources):
    modules = {module_of(path) for path in sources}
    for path, text in sources.items():
        importer = module_of(path)
        for name in sorted(imports_of(path, text)):
            if (name == "ssl" or name.startswith("ssl.")) and path not in OTHERS_TLS:
                yield f"{path}: imports ssl"
            if importer.startswith("edge.fleet") and name.startswith("edge.tickets"):
                yield f"{path}: the way to Redis imports {name}, which goes it"
            if not importer.startswith("cext"):
                continue
            if name.split(".")[0] == "edge":
                yield f"{path}: the data plane imports {name}"
            is_module = name in modules and name.count(".") >= 1
            if not is_module or importer == "cext" or layer_of(name) == layer_of(importer):
                continue
            allowed = MAY_IMPORT[layer_of(importer)]
            package_alone = name.count(".") == 1 and any(a.split(".")[0] == layer_of(name) for a in allowed)
            if not package_alone and layer_of(name) not in allowed and name.removeprefix("cext.") not in allowed:
                yield f"{path}: {layer_of(importer)} may not import {name}"


def extern_breaches(sources):
    for path, text in sources.items():
        for header in EXTERN.findall(text):
            if re.match(r"openssl/(ssl|tls|dtls|quic)", header):
                yield f"{path}: declares libssl's <{header}>"
            elif header.startswith(("openssl/", "nghttp2/")) and not path.startswith("cext/lib/"):
                yield f"{path}: declares <{header}> outside cext/lib"


def cycles(sources):
    """Each cycle among modules once, as the list of its modules."""
    modules = {module_of(path) for path in sources}
    graph = {module: set() for module in modules}
    for path, text in sources.items():
        # A package is imported by importing anything in it, which orders nothing.
        graph[module_of(path)] |= {
            name for name in modules_imported(path, text, modules) if not any(m.startswith(name + ".") for m in modules)
        }
    done, found = set(), []

    def visit(module, trail):
        if module in trail:
            found.append(trail[trail.index(module) :])
        elif module not in done:
            for name in sorted(graph[module]):
                visit(name, [*trail, module])
            done.add(module)

    for module in sorted(graph):
        visit(module, [])
    return found


def textual_includes(sources):
    for path, text in sources.items():
        if not path.endswith(".py") and re.search(r"^\s*include\s+[\"']", text, re.MULTILINE):
            yield f"{path}: a textual include"


def unused_imports(sources):
    """Of Cython's files: ruff looks at Python's."""
    for path, text in sources.items():
        if not path.endswith(".pyx"):
            continue
        for _, listing in FROM.findall(OPAQUE.sub("", text)):
            for name in re.findall(r"\w+(?=\s*(?:,|\)|$))", listing):
                if len(re.findall(rf"\b{name}\b", text)) == 1:  # strings count: an f-string may use it
                    yield f"{path}: imports {name}, which it does not use"


def outgrown(sources):
    for path, text in sources.items():
        lines = text.count("\n")
        if lines > MAX_LINES:
            yield f"{path}: {lines} lines, more than {MAX_LINES}"


def read(*tops):
    return {
        str(path.relative_to(ROOT)): path.read_text()
        for top in tops
        for path in sorted((ROOT / top).rglob("*.p*"))
        if path.suffix in {".py", ".pyx", ".pxd"}
    }


@pytest.fixture(scope="module")
def sources():
    return read("cext", "edge")


@pytest.mark.parametrize("rule", [layer_breaches, extern_breaches, cycles, textual_includes, unused_imports])
def test_the_sources_keep(rule, sources):
    assert len(sources) > 20
    assert list(rule(sources)) == []


def test_files_stay_readable(sources):
    assert list(outgrown({**sources, **read("bench", "tests")})) == []


def test_every_layer_is_in_the_table(sources):
    layers = {layer_of(module) for module in map(module_of, sources) if module.startswith("cext.")}
    assert layers <= MAY_IMPORT.keys()


# The rules themselves: each source below breaches one and only one.

LEGAL = {
    "cext/__init__.py": '"""The map."""\n',
    "cext/lib/linux.pxd": 'cdef extern from "<sys/epoll.h>" nogil:\n    pass\n',
    "cext/lib/libcrypto.pxd": 'cdef extern from "<openssl/evp.h>" nogil:\n    pass\n',
    "cext/base/wire.pxd": "from libc.stdint cimport uint8_t\n",
    "cext/crypto/aead.pyx": '"""Prose:\nfrom cext.net.loop cimport Loop\n"""\nfrom cext.lib.libcrypto cimport A\n',
    "cext/tls/record.pyx": "from cext.crypto cimport aead\nfrom cext.base.wire cimport (\n    left,\n    u8,\n)\n",
    "cext/http/rules.pyx": "from cext.base.wire cimport left  # not cext.net\n",
    "cext/net/loop.pyx": "import asyncio\nfrom cext.lib.linux cimport epoll_create1\n",
    "cext/proxy/pool.pyx": "from cext.tls.record cimport seal\nfrom cext.http cimport rules\ncimport cext.net.loop\n",
    "cext/worker.pyx": "from cext.proxy.pool cimport Pool\n",
    "edge/__init__.py": "",
    "edge/master.py": "from edge.worker import W\n",
    "edge/worker.py": "from cext.worker import Worker\nif TYPE_CHECKING:\n    from edge.master import Master\n",
}


def test_legal_sources_raise_no_complaint():
    for rule in (layer_breaches, extern_breaches, cycles, textual_includes, outgrown):
        assert list(rule(LEGAL)) == []


@pytest.mark.parametrize(
    ("rule", "path", "text", "complaint"),
    [
        (layer_breaches, "cext/tls/x.pyx", "from cext.net.loop cimport Loop", "tls may not import cext.net.loop"),
        (layer_breaches, "cext/tls/x.pyx", "from cext.http cimport rules", "tls may not import cext.http.rules"),
        (layer_breaches, "cext/tls/x.pyx", "from cext.lib.libcrypto cimport A", "tls may not import cext.lib"),
        (layer_breaches, "cext/net/x.pxd", "from cext.lib.libcrypto cimport A", "net may not import cext.lib"),
        (layer_breaches, "cext/net/x.pxd", "from cext.tls.a cimport (\n    b,\n    c)", "net may not import cext.tls"),
        (layer_breaches, "cext/http/x.pyx", "from ..net.loop cimport Loop", "http may not import cext.net.loop"),
        (layer_breaches, "cext/base/x.pyx", "cimport cext.crypto.aead as a", "base may not import cext.crypto.aead"),
        (layer_breaches, "cext/http/x.py", "def f():\n    from cext.tls import record", "http may not import cext.tls"),
        (layer_breaches, "cext/proxy/x.pyx", "from cext.worker import Worker", "proxy may not import cext.worker"),
        (layer_breaches, "cext/worker.pyx", "from cext.http.rules cimport a", "worker may not import cext.http.rules"),
        (layer_breaches, "cext/proxy/x.pyx", "def f():\n    import edge.config", "the data plane imports edge.config"),
        (layer_breaches, "cext/base/x.py", "from edge import config", "the data plane imports edge"),
        (layer_breaches, "cext/tls/x.pyx", "import os, ssl", "imports ssl"),
        (layer_breaches, "edge/x.py", "from ssl import SSLContext", "imports ssl"),
        (layer_breaches, "edge/fleet/x.py", "from edge.tickets import document", "imports edge.tickets.document"),
        (extern_breaches, "cext/lib/x.pxd", 'cdef extern from "<openssl/ssl.h>":\n    pass', "libssl"),
        (extern_breaches, "cext/tls/x.pyx", 'cdef extern from "openssl/evp.h":\n    pass', "outside cext/lib"),
        (textual_includes, "cext/tls/x.pyx", 'include "y.pxi"', "textual include"),
        (outgrown, "edge/x.py", "\n" * (MAX_LINES + 1), "901 lines"),
    ],
)
def test_a_breach_is_seen(rule, path, text, complaint):
    complaints = list(rule({**LEGAL, "cext/tls/a.pxd": "", path: text}))
    assert {line.split(":")[0] for line in complaints} == {path}
    assert any(complaint in line for line in complaints)


def test_an_unused_import_is_seen():
    text = 'from a cimport (\n    b,\n    c,\n)\nfrom d import e\nb(f"{e}")'
    assert list(unused_imports({"cext/tls/x.pyx": text})) == ["cext/tls/x.pyx: imports c, which it does not use"]


def test_a_cycle_is_seen():
    circle = {
        **LEGAL,
        "cext/tls/a.pxd": "from cext.tls.b cimport B",
        "cext/tls/a.pyx": "",
        "cext/tls/b.pyx": "from cext.tls cimport c",
        "cext/tls/c.pyx": "def f():\n    from cext.tls.a import A",
    }
    assert cycles(circle) == [["cext.tls.a", "cext.tls.b", "cext.tls.c"]]
