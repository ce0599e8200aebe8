"""Registries of what a run.yaml names: strategies, their parts, transforms and samplers, with their parameters.

A spec does not import PyTorch; its implementation imports it when it runs.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import inspect
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, ClassVar, TypeVar, get_args, get_origin

import msgspec

from fedpkg.config_shape import Places, check_shape, wrong_value
from fedpkg.errors import ConfigError, FedpkgError, nearest
from fedpkg.files import read_bounded

Positive = Annotated[float, msgspec.Meta(gt=0)]
NotNegative = Annotated[float, msgspec.Meta(ge=0)]
Share = Annotated[float, msgspec.Meta(gt=0, le=1)]
FromZeroToOne = Annotated[float, msgspec.Meta(ge=0, le=1)]
BelowOne = Annotated[float, msgspec.Meta(ge=0, lt=1)]
Count = Annotated[int, msgspec.Meta(ge=1)]
CountOrZero = Annotated[int, msgspec.Meta(ge=0)]
Repeats = Annotated[int, msgspec.Meta(ge=1, le=10_000)]  # how often something is computed or kept

MAX_SOURCE_BYTES = 4 << 20  # size of a file that registers something
OF_FILE = ("file", "file_sha256")  # keys of a section: the file that registers its name, and the file's digest

_ARGS = re.compile(r"(?m)^Args:\n((?:    .*\n?|\n(?=    ))*)")
_ARG = re.compile(r"(?m)^    (\w+): (.*(?:\n     +.*)*)")

_Made = TypeVar("_Made", bound=Callable[..., Any])


@dataclass(frozen=True)
class Part:
    """Marks a parameter whose value is itself named: ``Annotated[Any, Part("aggregator")]``.

    Args:
        many: the parameter is a list.
        registry: the registry of the names. None: the registry of the parameter's owner.
    """

    kind: str
    many: bool = False
    registry: Registry | None = None


@dataclass(frozen=True)
class Parameter:
    """One parameter of a spec. ``default`` is ``inspect.Parameter.empty`` for a required parameter.

    Args:
        about: its explanation.
    """

    name: str
    type: Any
    default: Any
    part: Part | None = None
    about: str = ""

    @property
    def is_required(self) -> bool:
        return self.default is inspect.Parameter.empty


@dataclass(frozen=True)
class Spec:
    """A named strategy, part of one, transform or sampler.

    Args:
        make: the class or function that makes it. Its signature has the parameters, with types and defaults.
        equation: what it computes, on a line or two.
        paper: authors, year, title, arXiv.
        attackers: how many attackers among n clients it tolerates, in words.
        source: where it is defined: fedpkg, a file, a module, or an installed package.
    """

    kind: str
    name: str
    make: Callable[..., Any]
    aliases: tuple[str, ...] = ()
    equation: str = ""
    paper: str = ""
    attackers: str = "none"
    source: str = "fedpkg"

    @property
    def about(self) -> str:
        """The first line of its docstring."""
        return self.text.partition("\n")[0]

    @property
    def text(self) -> str:
        """Its docstring without ``Args:``."""
        return _ARGS.sub("\n", inspect.getdoc(self.make) or "").strip()

    @functools.cached_property
    def parameters(self) -> dict[str, Parameter]:
        scope: dict[str, Any] = {}
        for one in reversed(_lineage(self.make)):  # annotations are evaluated where they were written
            scope.update(getattr(sys.modules.get(one.__module__), "__dict__", {}))
        found, args = {}, _args_of(self.make)
        for name, each in inspect.signature(self.make).parameters.items():
            if each.kind in (each.POSITIONAL_ONLY, each.VAR_POSITIONAL, each.VAR_KEYWORD):
                continue
            hint = _evaluated(each.annotation, scope)
            part = next((mark for mark in _marks(hint) if isinstance(mark, Part)), None)
            found[name] = Parameter(name, Any if part else hint, each.default, part, args.get(name) or about_of(hint))
        return found


@functools.lru_cache(maxsize=256)
def _schema(spec: Spec, options: type[msgspec.Struct] | None = None) -> type:
    """The section of a spec in a run.yaml: its parameters, and options that all specs of its kind have."""
    fields: list[Any] = [
        (each.name, each.type) if each.is_required else (each.name, each.type, None)
        for each in spec.parameters.values()
    ]
    return msgspec.defstruct("section", fields, bases=None if options is None else (options,), kw_only=True)


def about_of(hint: Any) -> str:
    """The description in the `msgspec.Meta` of an annotation, or nothing."""
    return next((mark.description for mark in _marks(hint) if isinstance(mark, msgspec.Meta) and mark.description), "")


def _marks(hint: Any) -> tuple[Any, ...]:
    return get_args(hint)[1:] if get_origin(hint) is Annotated else ()


def _lineage(make: Any) -> tuple[Any, ...]:
    """A class with the classes that it inherits from, or a function; without what wraps it."""
    make = inspect.unwrap(make)
    lineage: tuple[Any, ...] = getattr(make, "__mro__", (make,))
    return lineage


def _args_of(make: Any) -> dict[str, str]:
    """The explanations of parameters in a docstring's ``Args:``, and in those of the classes that it inherits from."""
    found: dict[str, str] = {}
    for one in reversed(_lineage(make)):
        section = _ARGS.search(inspect.cleandoc(one.__doc__ or ""))
        for name, text in _ARG.findall(section[1]) if section else ():
            found[name] = " ".join(text.split())
    return found


def _evaluated(annotation: Any, scope: Mapping[str, Any]) -> Any:
    """The type that an annotation means; Any if it cannot be evaluated."""
    if annotation is inspect.Parameter.empty:
        return Any
    if isinstance(annotation, str):
        try:
            return eval(annotation, dict(scope))
        except Exception:
            return Any
    return annotation


@dataclass(frozen=True)
class _File:
    """A Python file as it ran: its content, and the names that it registered, by registry."""

    source: str
    content: bytes
    names: dict[Registry, dict[str, None]] = field(default_factory=dict)


@dataclass(eq=False)
class Registry:
    """The specs of some kinds.

    Args:
        able: for each kind the methods that its objects need: several sets, of which one is enough.
        told_by: the command that lists the specs.
        modules: fedpkg's modules that register something.
        group: the group of entry points by which installed packages add specs of the first kind.
        shared: the options that all specs of the first kind have, beside their parameters.
    """

    kinds: tuple[str, ...]
    modules: tuple[str, ...]
    group: str
    able: Mapping[str, tuple[tuple[str, ...], ...]]
    told_by: str
    shared: type[msgspec.Struct] | None = None
    _specs: dict[tuple[str, str], Spec] = field(default_factory=dict)
    _ran: ClassVar[dict[Path, _File]] = {}  # a file may register names in several registries, so all share these two
    _running: ClassVar[list[_File]] = []

    @functools.cached_property
    def options(self) -> Mapping[str, Parameter]:
        """The options that all specs of the first kind have."""
        fields = () if self.shared is None else msgspec.structs.fields(self.shared)
        return {each.name: Parameter(each.name, each.type, each.default, about=about_of(each.type)) for each in fields}

    def register(
        self,
        kind: str,
        name: str,
        *,
        aliases: tuple[str, ...] = (),
        equation: str = "",
        paper: str = "",
        attackers: str = "none",
    ) -> Callable[[_Made], _Made]:
        """Decorate a class or function to register it as ``name``. Its signature has the parameters."""

        def decorate(make: _Made) -> _Made:
            is_own = make.__module__ in self.modules
            file = self._running[-1] if self._running and not is_own else None
            source = "fedpkg" if is_own else make.__module__ if file is None else file.source
            if file is not None:
                self._load()  # so that a name of fedpkg's is refused here, and not where it is needed next
                file.names.setdefault(self, {})[name] = None
            spec = Spec(kind, name, make, aliases, equation, paper, attackers, source)
            for word in (name, *aliases):
                earlier = self._specs.get((kind, word))
                if earlier is not None and earlier.source != source:
                    raise ConfigError(
                        f"{source}: the name '{word}' is taken: {earlier.source} has {_a(kind)} of that name",
                        hint="choose another name",
                        name=word,
                    )
                self._specs[kind, word] = spec
            return make

        return decorate

    def specs(self, kind: str) -> Iterator[Spec]:
        """The registered specs, each once: fedpkg's own in the order of its modules, then others in theirs."""
        self._load()
        found = [spec for (its_kind, name), spec in self._specs.items() if its_kind == kind and name == spec.name]
        order = {name: number for number, name in enumerate(self.modules)}
        yield from sorted(found, key=lambda spec: order.get(spec.make.__module__, len(order)))

    def installed(self) -> dict[str, str]:
        """Names that installed packages add, and where they are defined. Nothing is imported."""
        return {name: point.value for name, point in self._entry_points().items()}

    def run_file(self, path: Path) -> list[str]:
        """Run a file that registers something; the names that it registered here.

        A process runs a file once for all registries, and again if its content has changed.

        Raises:
            ConfigError: the file cannot be read, or fails.
        """
        return list(self._run(path).names.get(self, ()))

    def _run(self, path: Path) -> _File:
        try:
            content = read_bounded(path, MAX_SOURCE_BYTES)
        except OSError as error:
            raise ConfigError(
                f"{path}: the Python file cannot be read: {error.strerror}",
                hint="'file' is the path of a .py file, relative to the run.yaml",
                path=str(path),
            ) from error
        real = path.resolve()
        if (ran := self._ran.get(real)) is not None and ran.content == content:
            return ran
        file = _File(str(path) if ran is None else ran.source, content)
        self._running.append(file)
        module = ModuleType(f"_fedpkg_of_{hashlib.sha256(str(real).encode()).hexdigest()[:12]}")
        module.__file__ = str(path)
        sys.modules[module.__name__] = module  # dataclasses look their module up
        try:
            exec(compile(content, str(path), "exec"), module.__dict__)
        except ConfigError:
            raise
        except (Exception, SystemExit) as error:
            raise ConfigError(f"{path}: {type(error).__name__}: {error}", path=str(path)) from error
        finally:
            self._running.pop()
        self._ran[real] = file
        return file

    def run_file_of(
        self, section: dict[str, Any], places: Places, path: tuple[str, ...], *, is_named: bool
    ) -> dict[str, Any]:
        """Take the key ``file`` out of a section and run that file; the key, with the current digest of the file.

        A digest in the section is that of an earlier run, which resuming a session compares. Unless the section names
        something already (``is_named``), the file must register exactly one name.

        Raises:
            ConfigError: ``file`` is no path, cannot be run, or registers no name or several names.
        """
        file, _ = (section.pop(key, None) for key in OF_FILE)
        if file is None:
            return {}
        kind, key = self.kinds[0], ".".join((*path, "file"))
        if not isinstance(file, str):
            raise ConfigError(f"{places.where((*path, 'file'))}: '{key}' must be the path of a Python file")
        ran = self._run(Path(file))
        names = list(ran.names.get(self, ()))
        if not is_named:
            if len(names) != 1:
                raise ConfigError(
                    f"{places.where(path)}: '{path[-1]}' has a file, but no name",
                    hint=f"set name to one that the file registers: {', '.join(names)}"
                    if names
                    else f"{file} registers nothing: decorate {_a(kind)} with @register_{kind}(name)",
                )
            section["name"] = names[0]
        return dict(zip(OF_FILE, (file, hashlib.sha256(ran.content).hexdigest()), strict=True))

    def find(self, kind: str, name: str, places: Places, path: tuple[str, ...]) -> Spec:
        """The spec that a name in a run.yaml means: registered, installed, or ``module:object``.

        Raises:
            ConfigError: there is no such name; with similar names.
        """
        self._load(until=(kind, name))
        if (spec := self._specs.get((kind, name))) is not None:
            return spec
        if kind == self.kinds[0]:
            if ":" in name:
                return Spec(kind, name, _imported(name, places.where(path)), source=name.partition(":")[0])
            if (point := self._entry_points().get(name)) is not None:
                make = _imported(point.value, f"{places.where(path)}: '{name}', of the package {_package(point)}")
                registered = next((spec for spec in self._specs.values() if spec.make is make), None)
                spec = registered or Spec(kind, name, make)
                return replace(spec, name=name, source=_package(point))
        known = [word for its_kind, word in self._specs if its_kind == kind]
        other = next((f"; there is {_a(its_kind)} of that name" for its_kind, word in self._specs if word == name), "")
        raise ConfigError(
            f"{places.where(path)}: there is no {_said(kind)} '{name}'{other or nearest(name, known)}",
            hint=f"there are: {', '.join(known)}" if len(known) < 12 else self.told_by,
            key=".".join(path),
        )

    def check(self, spec: Spec, section: Mapping[str, Any], places: Places, path: tuple[str, ...]) -> None:
        """Check a section that may have the shared options beside the parameters of ``spec``.

        Raises:
            ConfigError: a key or value is not allowed, or a parameter has the name of an option.
        """
        if both := spec.parameters.keys() & {*self.options, "name", *OF_FILE}:
            raise ConfigError(
                f"{_said(spec.kind)} '{spec.name}', of {spec.source}: its parameter '{min(both)}' is a key that every "
                f"{_said(spec.kind)} has",
                hint="give the parameter another name",
                name=spec.name,
            )
        values = {key: value for key, value in section.items() if key != "name"}
        check_shape(values, _schema(spec, self.shared), places, path)

    def without_options(self, section: Mapping[str, Any]) -> dict[str, Any]:
        """The name and the parameters in a section, without the shared options and the keys of its file."""
        return {key: value for key, value in section.items() if key not in self.options and key not in OF_FILE}

    def resolve(self, kind: str, given: Any, places: Places, path: tuple[str, ...]) -> dict[str, Any]:
        """A section of a run.yaml, checked, with the defaults of the parameters that were not given.

        A plain name means a section with that name alone. ``null`` restores a parameter's default.

        Raises:
            ConfigError: there is no such name or parameter, or a value is not allowed; with the line.
        """
        section = {"name": given} if isinstance(given, str) else given
        if not isinstance(section, dict) or not isinstance(section.get("name"), str):
            name = section.get("name") if isinstance(section, dict) else None
            at = (*path, "name") if name is not None else path
            raise wrong_value(at, name if name is not None else given, f"the name of {_a(kind)}", places)
        at_name = path if isinstance(given, str) else (*path, "name")
        spec = self.find(kind, section["name"], places, at_name)
        values = {key: value for key, value in section.items() if key != "name" and value is not None}
        check_shape(values, _schema(spec), places, path)
        resolved: dict[str, Any] = {"name": section["name"]}
        for parameter in spec.parameters.values():
            value = values.get(parameter.name, parameter.default)
            if parameter.part is not None and parameter.part.many and isinstance(value, tuple):
                value = list(value)
            if not isinstance(value, (bool, int, float, str, list, dict, type(None))):
                continue  # a default that a run.yaml cannot contain
            if parameter.part is not None and value is not None:
                value = self._parts(parameter.part, value, places, (*path, parameter.name), resolve=True)
            resolved[parameter.name] = value
        return resolved

    def make(self, kind: str, resolved: Mapping[str, Any], places: Places, path: tuple[str, ...]) -> Any:
        """Make the object that a resolved section describes.

        Raises:
            ConfigError: its parameters contradict each other, or the object lacks the methods of its kind.
        """
        spec = self.find(kind, resolved["name"], places, path)
        values = {key: value for key, value in resolved.items() if key in spec.parameters}
        for name, value in values.items():
            part = spec.parameters[name].part
            if part is not None and value is not None:
                values[name] = self._parts(part, value, places, (*path, name), resolve=False)
        where = f"{places.where(path)}: {_said(kind)} '{spec.name}'"
        try:
            made = spec.make(**values)
        except ValueError as error:
            raise ConfigError(f"{where}: {error}") from error
        except Exception as error:
            if spec.source == "fedpkg" or isinstance(error, FedpkgError):
                raise
            raise ConfigError(f"{where}, of {spec.source}: {type(error).__name__}: {error}") from error
        ways = self.able[kind]
        if not any(all(callable(getattr(made, name, None)) for name in way) for way in ways):
            has = ", or ".join(" and ".join(way) for way in ways)
            raise ConfigError(
                f"{where}, of {spec.source}, makes a {type(made).__name__}, which is no {_said(kind)}",
                hint=f"{_a(kind)} needs the methods {has}",
                name=spec.name,
            )
        return made

    def section_of(self, kind: str, made: Any) -> dict[str, Any]:
        """The inverse of `make`, for objects of a class whose parameters are its attributes.

        Raises:
            ConfigError: the object's class is not registered and cannot be imported.
        """
        self._load()
        maker = type(made)
        spec = next((spec for spec in self._specs.values() if spec.kind == kind and spec.make is maker), None)
        if spec is None:
            name = f"{maker.__module__}:{maker.__qualname__}"
            where = f"a {_said(kind)} of the class {name}"
            spec = Spec(kind, name, _imported(name, where), source=maker.__module__)
            if spec.make is not maker:
                raise ConfigError(f"{where} cannot be found by its name", hint=f"register the class as a {_said(kind)}")
        return {"name": spec.name, **{name: getattr(made, name) for name in spec.parameters}}

    def _parts(self, part: Part, value: Any, places: Places, path: tuple[str, ...], *, resolve: bool) -> Any:
        """Resolve or make the value of a parameter that names a part, or a list of parts."""
        registry = part.registry or self
        take: Callable[..., Any] = registry.resolve if resolve else registry.make
        if not part.many:
            return take(part.kind, value, places, path)
        if not isinstance(value, (list, tuple)):
            raise wrong_value(path, value, f"a list of {_said(part.kind)}s", places)
        taken = [take(part.kind, one, places, (*path, str(number))) for number, one in enumerate(value)]
        return taken if resolve else tuple(taken)

    def _load(self, until: tuple[str, str] | None = None) -> None:
        """Import fedpkg's own modules in order, until the kind and name ``until`` is registered."""
        for name in self.modules:
            if until in self._specs:
                return
            importlib.import_module(name)

    def _entry_points(self) -> dict[str, Any]:
        from importlib.metadata import entry_points

        return {point.name: point for point in entry_points(group=self.group)}


def _imported(reference: str, where: str) -> Callable[..., Any]:
    """The object that ``module:object`` names."""
    module, _, name = reference.partition(":")
    try:
        found: Any = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except Exception as error:
        raise ConfigError(
            f"{where}: '{reference}' cannot be imported: {type(error).__name__}: {error}",
            hint="write module:object, of an installed module; for a file next to the run.yaml, set 'file' to its path",
        ) from error
    if not callable(found):
        raise ConfigError(f"{where}: '{reference}' is neither a class nor a function")
    return found  # type: ignore[no-any-return]


def _package(point: Any) -> str:
    return f"{point.dist.name} {point.dist.version}" if point.dist is not None else str(point.value)


def _said(kind: str) -> str:
    return kind.replace("_", " ")


def _a(kind: str) -> str:
    return f"{'an' if kind[0] in 'aeiou' else 'a'} {_said(kind)}"


def names_of(specs: Iterable[Spec]) -> dict[str, None]:
    """Names and aliases, each once, in order."""
    return dict.fromkeys(word for spec in specs for word in (spec.name, *spec.aliases))
