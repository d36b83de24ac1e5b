"""The modules of a configuration's policies, which stand beside its file: each configuration imports them afresh.

The master reads their text, once. A worker that takes the configuration over while it runs imports what the master has
compiled. What is imported is set aside until the configuration is used: hooks that are at work go on importing what
they know.
"""

import contextlib
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import marshal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import CodeType, ModuleType
from typing import Final

_KNOWN: Final = frozenset(sys.modules)
"""What was there before any policy: never a policy's own."""

Compiled = tuple[str, bool, bytes]
"""A module's file, whether it is a package, and its code, marshalled."""


class Modules:
    """Those that stand in a directory. `compiled` has them by name; with `reads` it is filled as they are imported."""

    def __init__(self, directory: Path, compiled: dict[str, Compiled], *, reads: bool) -> None:
        self._directory = directory
        self._compiled = compiled
        self._reads = reads
        self._own: dict[str, ModuleType] = {}

    @property
    def content(self) -> dict[str, Compiled]:
        """What was imported of the directory."""
        return self._compiled

    @contextlib.contextmanager
    def importing(self) -> Iterator[None]:
        """What is imported within is new, or was imported so before; afterwards all is as it was, until use()."""
        kept = self._take_out()
        sys.modules.update(self._own)
        writes, sys.dont_write_bytecode = sys.dont_write_bytecode, True  # a directory of settings is no place for it
        directory = str(self._directory)
        importlib.invalidate_caches()
        sys.path.insert(0, directory)
        finder = _Finder(self)
        sys.meta_path.insert(_before_paths(), finder)
        try:
            yield
        finally:
            sys.meta_path.remove(finder)
            sys.path.remove(directory)
            sys.dont_write_bytecode = writes
            self._own.update(self._take_out())
            sys.modules.update(kept)

    def use(self) -> None:
        """The configuration is used: theirs are the modules of these names, in place of those before."""
        self._take_out()
        sys.modules.update(self._own)
        directory = str(self._directory)
        if directory not in sys.path:  # for what they import when they run
            sys.path.append(directory)

    def _take_out(self) -> dict[str, ModuleType]:
        own = [name for name, module in list(sys.modules.items()) if self._is_own(name, module)]
        return {name: sys.modules.pop(name) for name in own if name in sys.modules}

    def _is_own(self, name: str, module: ModuleType) -> bool:
        """Of policies: imported through a finder of ours, or later from the directory itself, while they ran."""
        if name in _KNOWN or name.partition(".")[0] in ("edge", "cext"):
            return False
        if isinstance(getattr(module, "__loader__", None), _Loader):
            return True
        top = sys.modules.get(name.partition(".")[0])
        file = getattr(top, "__file__", None)
        if file is None:
            return False
        path = Path(file)
        return self._directory == (path.parent.parent if path.name == "__init__.py" else path.parent)

    def spec(self, name: str, path: Sequence[str] | None) -> importlib.machinery.ModuleSpec | None:
        """Where a module comes from; None when it is not one of the directory's."""
        if self._reads and name not in self._compiled:
            self._read(name, path)
        if name not in self._compiled:
            return None
        file, package, code = self._compiled[name]
        places = [str(Path(file).parent)] if package else None
        loader = _Loader(marshal.loads(code))  # noqa: S302  # the master's
        return importlib.util.spec_from_file_location(name, file, loader=loader, submodule_search_locations=places)

    def _read(self, name: str, path: Sequence[str] | None) -> None:
        spec = importlib.machinery.PathFinder.find_spec(name, [str(self._directory)] if path is None else path)
        if spec is None or spec.origin is None or not isinstance(spec.loader, importlib.machinery.SourceFileLoader):
            return
        if self._directory not in Path(spec.origin).absolute().parents:
            return
        code = spec.loader.source_to_code(spec.loader.get_data(spec.origin), spec.origin)
        self._compiled[name] = (spec.origin, spec.submodule_search_locations is not None, marshal.dumps(code))


class _Finder:
    """Stands before the one of sys.path."""

    def __init__(self, modules: Modules) -> None:
        self._modules = modules

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: object = None
    ) -> importlib.machinery.ModuleSpec | None:
        return self._modules.spec(name, path)


class _Loader(importlib.abc.Loader):
    def __init__(self, code: CodeType) -> None:
        self._code = code

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        exec(self._code, module.__dict__)  # noqa: S102  # what importing is


def _before_paths() -> int:
    finders: list[object] = list(sys.meta_path)
    return finders.index(importlib.machinery.PathFinder) if importlib.machinery.PathFinder in finders else len(finders)
