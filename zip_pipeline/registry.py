"""Plug-ins by name: those of this package, of installed packages, and of the running program."""

import importlib
import pkgutil
from collections.abc import Iterator
from functools import cached_property
from importlib.metadata import entry_points
from typing import Generic, Protocol, TypeVar

from zip_pipeline.errors import UserError


class Plugin(Protocol):
    """What every plug-in has."""

    @property
    def name(self) -> str:
        """What people type to choose it."""


_Plugin = TypeVar("_Plugin", bound=Plugin)


class Registry(Generic[_Plugin]):
    """The plug-ins of one kind, the default first, then by name.

    They are looked for at the first question, not at import, and where a module of ``package`` is
    called like the one that is asked for, no other is loaded. A module of ``package`` offers one,
    or a tuple of them, as the constant that is called like the kind (``STRATEGY``), another
    installed package as an entry point that names such a constant, and a program by
    :meth:`register`.

    Args:
        kind: what one of them is called, such as ``strategy``.
        group: the entry points of other packages, such as ``zip_pipeline.strategies``.
        package: the package whose modules are the plug-ins that come with this one.
        default: name of the one that is listed first.
    """

    def __init__(self, kind: str, group: str, package: str, default: str) -> None:
        self.kind = kind
        self.default = default
        self._group = group
        self._package = package
        self._registered: dict[str, _Plugin] = {}

    @cached_property
    def _modules(self) -> tuple[str, ...]:
        package = importlib.import_module(self._package)
        return tuple(module.name for module in pkgutil.iter_modules(package.__path__))

    @cached_property
    def _found(self) -> dict[str, _Plugin]:
        """The plug-ins of installed packages and of this one, which nobody's name replaces."""
        installed = [_several(entry.load()) for entry in entry_points(group=self._group)]
        shipped = [self._offered_by(name) for name in self._modules]
        return {plugin.name: plugin for offered in installed + shipped for plugin in offered}

    def _offered_by(self, name: str) -> tuple[_Plugin, ...]:
        module = importlib.import_module(f"{self._package}.{name}")
        return _several(getattr(module, self.kind.upper(), ()))

    def _named(self, name: object) -> _Plugin | None:
        if name in self._registered:
            return self._registered[str(name)]
        offered = self._offered_by(str(name)) if name in self._modules else ()
        alone = (plugin for plugin in offered if plugin.name == name)
        return next(alone, None) or self._found.get(str(name))

    def register(self, plugin: _Plugin) -> _Plugin:
        """Add a plug-in, or replace the one of that name, for this process; return it."""
        self._registered[plugin.name] = plugin
        return plugin

    def unregister(self, name: str) -> None:
        """Take back what :meth:`register` added."""
        del self._registered[name]

    def names(self) -> tuple[str, ...]:
        """Return the names of all plug-ins."""
        names = self._found.keys() | self._registered.keys()
        return tuple(sorted(names, key=lambda name: (name != self.default, name)))

    def __contains__(self, name: object) -> bool:
        """Return whether there is a plug-in of that name."""
        return self._named(name) is not None

    def __getitem__(self, name: str) -> _Plugin:
        """Return the plug-in of that name.

        Raises:
            UserError: there is none; the message lists what there is.
        """
        if (plugin := self._named(name)) is None:
            raise UserError(f"{self.kind}: got {name!r}; allowed are {', '.join(self.names())}")
        return plugin

    def __iter__(self) -> Iterator[_Plugin]:
        return (self[name] for name in self.names())


def _several(offered: _Plugin | tuple[_Plugin, ...]) -> tuple[_Plugin, ...]:
    return offered if isinstance(offered, tuple) else (offered,)
