"""From a type hint to a pair of functions: value -> tree and tree -> value.

A tree is what JSON has: None, bool, int, float, str, list, dict with str keys (CBOR adds bytes). The plan of a type is
built once, when the codec is; a hint it cannot carry faithfully is a ConfigError there and then, not a surprise in
production. Faithful means: what is decoded equals what was encoded, in value and in type. So a union whose members look
alike in the tree is refused, and so is a field that a stored object has and the class has not: dropping it would lose
another program's data at the next write.
"""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Callable, Sequence
from datetime import date, datetime, time
from enum import Enum
from typing import Annotated, Any, Final, Literal, NamedTuple, NoReturn, Union

from leafdb.errors import ConfigError

_INT64_LOW: Final = -(1 << 63)
_UINT64_HIGH: Final = (1 << 64) - 1
_KIND_OF: Final = {
    type(None): "null", bool: "bool", int: "int", float: "float", str: "str", bytes: "bytes", list: "list", dict: "map",
}  # fmt: skip


class Unfit(ValueError):
    """A value or tree that does not fit its plan. The codec makes a DataError of it."""


class Plan(NamedTuple):
    """How one type travels. `kinds` are the sorts of tree it becomes, by which a union tells its members apart."""

    encode: Callable[[Any], Any]
    decode: Callable[[Any], Any]
    kinds: frozenset[str]


class PlanBuilder:
    """Builds plans; one per codec. `binary` allows bytes and bounds integers to 64 bits, as CBOR does."""

    def __init__(self, *, binary: bool) -> None:
        self._binary = binary
        self._classes: dict[type, _Class] = {}

    def build(self, hint: Any, where: str) -> Plan:
        """The plan of a type hint. `where` names it in errors. Raises ConfigError."""
        if hint is None:
            hint = type(None)
        if hint is Any or hint is object:
            kinds = frozenset(_KIND_OF.values()) if self._binary else frozenset(_KIND_OF.values()) - {"bytes"}
            return Plan(self._any, self._any, kinds)
        if hint in (type(None), bool, int, float, str) or (hint is bytes and self._binary):
            return self._scalar(hint)
        if hint in (datetime, date, time):
            return _moment(hint)
        if hint is bytes:
            _refuse(hint, where, "JSON has no bytes; use CBOR(type) or Raw()")
        if isinstance(hint, type) and typing.get_origin(hint) is None:
            return self._class(hint, where)
        return self._generic(hint, where)

    def _class(self, hint: type, where: str) -> Plan:
        if hint is list or hint is tuple:
            return self._list(Any, hint, where)
        if hint is dict:
            return self._map(str, Any, where)
        if issubclass(hint, Enum):
            return self._enum(hint, where)
        if dataclasses.is_dataclass(hint):
            plan = self._classes.get(hint)
            if plan is None:
                plan = self._classes[hint] = _Class(hint)
                plan.complete(self, where)
            return Plan(plan.encode, plan.decode, frozenset({"map"}))
        _refuse(hint, where)

    def _generic(self, hint: Any, where: str) -> Plan:
        origin, args = typing.get_origin(hint), typing.get_args(hint)
        if hasattr(hint, "__supertype__"):
            return self.build(hint.__supertype__, where)
        if origin is None and hasattr(hint, "__value__"):
            return self.build(hint.__value__, where)
        if origin is Annotated:
            return self.build(args[0], where)
        if origin in (Union, types.UnionType):
            return self._union(args, where)
        if origin is Literal:
            return self._literal(args, hint, where)
        if origin is list:
            return self._list(args[0], list, where)
        if origin is tuple:
            if len(args) == 2 and args[1] is Ellipsis:
                return self._list(args[0], tuple, where)
            return self._fixed(args, where)
        if origin is dict:
            return self._map(args[0], args[1], where)
        _refuse(hint, where)

    def _scalar(self, hint: Any) -> Plan:
        if hint is float:
            return Plan(self._float, self._float, frozenset({"float", "int"}))
        if hint is int:
            return Plan(self._int, self._int, frozenset({"int"}))

        def same(value: Any) -> Any:
            if type(value) is not hint:
                raise Unfit(f"expected {hint.__name__}, not {type(value).__name__}")
            return value

        return Plan(same, same, frozenset({_KIND_OF[hint]}))

    def _int(self, value: Any) -> Any:
        if type(value) is not int:
            raise Unfit(f"expected int, not {type(value).__name__}")
        if self._binary and not _INT64_LOW <= value <= _UINT64_HIGH:
            raise Unfit("an integer beyond 64 bits")
        return value

    def _float(self, value: Any) -> Any:
        if type(value) is int:
            value = float(value)
        if type(value) is not float:
            raise Unfit(f"expected float, not {type(value).__name__}")
        if not self._binary and not math.isfinite(value):
            raise Unfit("JSON has no infinity and no NaN")
        return value

    def _any(self, value: Any) -> Any:
        kind = _KIND_OF.get(type(value))
        if kind == "int":
            return self._int(value)
        if kind == "float":
            return self._float(value)
        if kind == "list":
            self._any_items(value)
        elif kind == "map":
            entries: dict[Any, Any] = value
            for key in entries:
                _expect(key, str)
            self._any_items(list(entries.values()))
        elif kind is None or (kind == "bytes" and not self._binary):
            raise Unfit(f"{type(value).__name__} needs a type hint of its own, or does not fit")
        return value

    def _any_items(self, items: list[Any]) -> None:
        for item in items:
            self._any(item)

    def _list(self, item_hint: Any, kind: type[Any], where: str) -> Plan:
        item = self.build(item_hint, f"{where}[]")

        def encode(value: Any) -> Any:
            if type(value) is not kind:
                raise Unfit(f"expected {kind.__name__}, not {type(value).__name__}")
            return [item.encode(part) for part in value]

        def decode(tree: Any) -> Any:
            return kind([item.decode(part) for part in _expect(tree, list)])

        return Plan(encode, decode, frozenset({"list"}))

    def _fixed(self, hints: Sequence[Any], where: str) -> Plan:
        plans = [self.build(hint, f"{where}[{index}]") for index, hint in enumerate(hints)]

        def encode(value: Any) -> Any:
            if type(value) is not tuple or len(value) != len(plans):
                raise Unfit(f"expected a tuple of {len(plans)}")
            return [plan.encode(part) for plan, part in zip(plans, value, strict=True)]

        def decode(tree: Any) -> Any:
            if len(_expect(tree, list)) != len(plans):
                raise Unfit(f"expected {len(plans)} items, not {len(tree)}")
            return tuple(plan.decode(part) for plan, part in zip(plans, tree, strict=True))

        return Plan(encode, decode, frozenset({"list"}))

    def _map(self, key_hint: Any, value_hint: Any, where: str) -> Plan:
        if key_hint is not str:
            _refuse(dict, where, "map keys are str")
        item = self.build(value_hint, f"{where}{{}}")

        def encode(value: Any) -> Any:
            for key in _expect(value, dict):
                _expect(key, str)
            return {key: item.encode(part) for key, part in value.items()}

        def decode(tree: Any) -> Any:
            return {_expect(key, str): item.decode(part) for key, part in _expect(tree, dict).items()}

        return Plan(encode, decode, frozenset({"map"}))

    def _enum(self, hint: type[Enum], where: str) -> Plan:
        values = [member.value for member in hint]
        if not values or any(type(value) not in (str, int, bool) for value in values):
            _refuse(hint, where, "members of an enum must have str, int or bool values")

        def encode(value: Any) -> Any:
            if type(value) is not hint:
                raise Unfit(f"expected {hint.__name__}, not {type(value).__name__}")
            return value.value

        def decode(tree: Any) -> Any:
            if type(tree) not in (str, int, bool):
                raise Unfit(f"expected a value of {hint.__name__}")
            try:
                return hint(tree)
            except ValueError:
                raise Unfit(f"{tree!r} is no value of {hint.__name__}") from None

        return Plan(encode, decode, frozenset(_KIND_OF[type(value)] for value in values))

    def _literal(self, allowed: Sequence[Any], hint: Any, where: str) -> Plan:
        if any(type(value) not in (str, int, bool, type(None)) for value in allowed):
            _refuse(hint, where, "literals are str, int, bool or None")
        known = {(type(value), value) for value in allowed}

        def same(value: Any) -> Any:
            if type(value) not in (str, int, bool, type(None)) or (type(value), value) not in known:
                raise Unfit(f"{value!r} is not one of {allowed!r}")
            return value

        return Plan(same, same, frozenset(_KIND_OF[type(value)] for value in allowed))

    def _union(self, hints: Sequence[Any], where: str) -> Plan:
        # An int fits the plan of float too, so int goes first and float then means floats only.
        ordered = sorted(hints, key=lambda hint: hint is float)
        by_kind: dict[str, Plan] = {}
        plans = []
        for hint in ordered:
            plan = self.build(hint, where)
            plans.append(plan)
            kinds = plan.kinds - {"int"} if hint is float and int in hints else plan.kinds
            for kind in kinds:
                if kind in by_kind:
                    _refuse(hints, where, f"two members of a union are stored as {kind}")
                by_kind[kind] = plan

        def encode(value: Any) -> Any:
            reasons = []
            for plan in plans:
                try:
                    return plan.encode(value)
                except Unfit as error:
                    reasons.append(str(error))
            raise Unfit("; ".join(reasons))

        def decode(tree: Any) -> Any:
            plan = by_kind.get(_KIND_OF[type(tree)])
            if plan is None:
                raise Unfit(f"{type(tree).__name__} fits no member of the union")
            return plan.decode(tree)

        return Plan(encode, decode, frozenset(by_kind))


class _Class:
    """The plan of a dataclass. Entered into the builder's table before its fields are planned: classes may recur."""

    __slots__ = ("_fields", "_required", "_type")

    def __init__(self, hint: type) -> None:
        self._type = hint
        self._fields: dict[str, Plan] = {}
        self._required: frozenset[str] = frozenset()

    def complete(self, builder: PlanBuilder, where: str) -> None:
        try:
            hints = typing.get_type_hints(self._type, include_extras=True)
        except (NameError, TypeError) as error:
            raise ConfigError(f"{where}: the type hints of {self._type.__name__} cannot be resolved: {error}") from None
        required = set()
        for each in dataclasses.fields(self._type):
            if not each.init:
                continue
            self._fields[each.name] = builder.build(hints[each.name], f"{where}.{each.name}")
            if each.default is dataclasses.MISSING and each.default_factory is dataclasses.MISSING:
                required.add(each.name)
        self._required = frozenset(required)

    def encode(self, value: Any) -> Any:
        if type(value) is not self._type:
            raise Unfit(f"expected {self._type.__name__}, not {type(value).__name__}")
        tree = {}
        for name, plan in self._fields.items():
            try:
                tree[name] = plan.encode(getattr(value, name))
            except Unfit as error:
                raise Unfit(f".{name}: {error}") from None
        return tree

    def decode(self, tree: Any) -> Any:
        _expect(tree, dict)
        values = {}
        for name, part in tree.items():
            plan = self._fields.get(name)
            if plan is None:
                raise Unfit(f"{self._type.__name__} has no field {name!r}")
            try:
                values[name] = plan.decode(part)
            except Unfit as error:
                raise Unfit(f".{name}: {error}") from None
        missing = self._required - values.keys()
        if missing:
            raise Unfit(f"{self._type.__name__} lacks {', '.join(sorted(missing))}")
        try:
            return self._type(**values)
        except (TypeError, ValueError) as error:
            raise Unfit(f"{self._type.__name__} refuses its fields: {error}") from None


def _moment(hint: Any) -> Plan:
    """datetime, date and time as ISO 8601 text; an offset, or its absence, is kept."""

    def encode(value: Any) -> Any:
        if type(value) is not hint:
            raise Unfit(f"expected {hint.__name__}, not {type(value).__name__}")
        return value.isoformat()

    def decode(tree: Any) -> Any:
        try:
            return hint.fromisoformat(_expect(tree, str))
        except ValueError as error:
            raise Unfit(f"not a {hint.__name__}: {error}") from None

    return Plan(encode, decode, frozenset({"str"}))


def _expect(tree: Any, kind: type) -> Any:
    if type(tree) is not kind:
        raise Unfit(f"expected {kind.__name__}, not {type(tree).__name__}")
    return tree


def _refuse(hint: Any, where: str, reason: str = "") -> NoReturn:
    name = hint.__name__ if isinstance(hint, type) and typing.get_origin(hint) is None else str(hint)
    known = "None, bool, int, float, str, list, tuple, dict[str, ...], unions, Literal, enums, datetimes, dataclasses"
    raise ConfigError(f"{where}: {name} cannot be carried: {reason or 'known are ' + known}")
