"""From a TOML file, the environment and flags to a `Config`; or every problem at once, each with its path.

Layers, each over the one before: defaults, the file, `LEAFDB__SECTION__KEY`, `--set section.key=value`. All of them
become one tree of raw values first, and one validation reads that tree, so a wrong value is reported where it came
from and nothing is checked twice. Sizes and durations are strings with units; a bare number is refused because it does
not say what it counts. Secrets are never values here: only the names of files.

The models are made from the dataclasses of `leafdb.config`, which stay the one list of settings. Pydantic stops at this
file.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import BaseModel, BeforeValidator, ConfigDict, PlainValidator, ValidationError, create_model

from leafdb.config import Config, Kind, Setting
from leafdb.errors import ConfigError
from leafdb.node.config_rules import problems as rule_problems
from leafdb.node.described import Described, described
from leafdb.node.units import (
    duration_text,
    parse_addresses,
    parse_count,
    parse_duration,
    parse_flag,
    parse_one_address,
    parse_size,
    size_text,
)

ENVIRONMENT_PREFIX: Final = "LEAFDB__"
FILE_BYTES_MAX: Final = 1 << 20

Tree = dict[str, dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Loaded:
    """A configuration and where each of its values came from."""

    config: Config
    origins: Mapping[str, str]
    """By path: `default`, `file leafdb.toml`, `environment LEAFDB__...` or `flag --set`."""


def load(
    path: str | None,
    *,
    environment: Mapping[str, str],
    flags: Sequence[str] = (),
    host_name: str = "",
) -> Loaded:
    """Read all layers. Raises ConfigError whose `problems` lists everything that is wrong.

    `host_name` is the machine's, used as the node's name when no layer gives one.
    """
    layers = _Layers()
    if path is not None:
        layers.add_file(path)
    layers.add_environment(environment)
    layers.add_flags(flags)
    found = layers.problems
    config, value_problems = _validate(layers)
    found += value_problems
    config = _completed(config, host_name, layers, Path(path).parent if path is not None else Path())
    reported = {problem.partition(":")[0].partition(" (")[0] for problem in found}
    found += [layers.explain(line) for line in rule_problems(config) if line.partition(":")[0] not in reported]
    if found:
        one = "1 problem" if len(found) == 1 else f"{len(found)} problems"
        raise ConfigError(f"the configuration has {one}: {'; '.join(found)}", problems=found)
    return Loaded(config, {entry.path: layers.origin(entry.path) for entry in described()})


class _Layers:
    """Raw values by section and key, each with its origin; later layers overwrite earlier ones."""

    def __init__(self) -> None:
        self.tree: Tree = {}
        self.problems: list[str] = []
        self._origins: dict[str, str] = {}

    def origin(self, path: str) -> str:
        return self._origins.get(path, "default")

    def explain(self, line: str) -> str:
        """Add the origin to a problem's line, where it is not the default."""
        path, colon, rest = line.partition(":")
        origin = self._origins.get(path)
        return f"{path} ({origin}){colon}{rest}" if origin else line

    def add_file(self, path: str) -> None:
        origin = f"file {os.path.basename(path)}"
        for section, values in self._parsed(path).items():
            if not isinstance(values, dict):
                self.problems.append(_unknown_top(section))
                continue
            self.tree.setdefault(section, {})
            for key, value in values.items():
                self._put(section, key, value, origin)

    def _parsed(self, path: str) -> dict[str, Any]:
        try:
            with open(path, "rb") as file:
                content = file.read(FILE_BYTES_MAX + 1)
            if len(content) > FILE_BYTES_MAX:
                raise ValueError(f"larger than {FILE_BYTES_MAX} bytes")
            return tomllib.loads(content.decode("utf-8"))
        except OSError as error:
            self.problems.append(f"{path}: cannot be read: {error.strerror or error}")
        except ValueError as error:  # TOML and UTF-8 errors are both
            self.problems.append(f"{path}: not TOML: {error}")
        return {}

    def add_environment(self, environment: Mapping[str, str]) -> None:
        for name in sorted(environment):
            if name.startswith(ENVIRONMENT_PREFIX):
                section, _, key = name.removeprefix(ENVIRONMENT_PREFIX).lower().partition("__")
                self._put_text(section, key, environment[name], f"environment {name}")

    def add_flags(self, flags: Sequence[str]) -> None:
        for flag in flags:
            path, equals, text = flag.partition("=")
            section, dot, key = path.strip().partition(".")
            if not equals or not dot or not section or not key:
                self.problems.append(f"--set {flag}: write --set section.key=value")
                continue
            self._put_text(section, key, text, "flag --set")

    def _put_text(self, section: str, key: str, text: str, origin: str) -> None:
        """A value that can only be text: made what a file would hold, where it can be."""
        entry = _by_path().get(f"{section}.{key}")
        self._put(section, key, _FROM_TEXT.get(entry.setting.kind, str)(text) if entry else text, origin)

    def _put(self, section: str, key: str, value: Any, origin: str) -> None:
        self.tree.setdefault(section, {})[key] = value
        self._origins[f"{section}.{key}"] = origin


def _validate(layers: _Layers) -> tuple[Config, list[str]]:
    """The configuration with defaults in place of what is wrong, and what is wrong."""
    try:
        return _config(_model().model_validate(layers.tree)), []
    except ValidationError as error:
        faults = error.errors(include_url=False, include_context=False, include_input=False)
    found: list[str] = []
    for fault in faults:
        path = ".".join(str(part) for part in fault["loc"])
        if fault["type"] == "extra_forbidden":
            found.append(layers.explain(_unknown(path)))
        else:
            found.append(layers.explain(f"{path}: {fault['msg'].removeprefix('Value error, ')}"))
        section, *rest = (str(part) for part in fault["loc"])
        if rest:
            layers.tree[section].pop(rest[0], None)
        else:
            layers.tree.pop(section, None)
    return _config(_model().model_validate(layers.tree)), found


def _config(model: BaseModel) -> Config:
    sections: dict[str, Any] = {}
    for section in fields(Config):
        values = getattr(model, section.name)
        made: Any = section.default
        sections[section.name] = replace(
            made,
            **{entry.attribute: getattr(values, entry.key) for entry in described() if entry.section == section.name},
        )
    return Config(**sections)


def _completed(config: Config, host_name: str, layers: _Layers, beside: Path) -> Config:
    """Fill in what depends on the machine and on where the file lies."""
    name = config.node.name or host_name.split(".")[0].lower()
    node = replace(config.node, name=name, host=config.node.host or name)
    cluster = config.cluster
    if layers.origin("node.data_dir").startswith("file"):
        node = replace(node, data_dir=str(beside / node.data_dir))
    if cluster.secret_file and layers.origin("cluster.secret_file").startswith("file"):
        cluster = replace(cluster, secret_file=str(beside / cluster.secret_file))
    return replace(config, node=node, cluster=cluster)


# -- models made from the dataclasses

_PARSERS: Final[dict[Kind, Callable[[Any], Any]]] = {
    Kind.SIZE: parse_size,
    Kind.DURATION: parse_duration,
    Kind.COUNT: parse_count,
    Kind.FLAG: parse_flag,
    Kind.ADDRESS: parse_one_address,
    Kind.ADDRESSES: parse_addresses,
}


def _listed(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _number(text: str) -> int | str:
    return int(text) if text.strip().lstrip("-").isdecimal() else text


def _truth(text: str) -> bool | str:
    return {"true": True, "false": False}.get(text.strip().lower(), text)


_FROM_TEXT: Final[dict[Kind, Callable[[str], Any]]] = {
    Kind.ADDRESSES: _listed,
    Kind.COUNT: _number,
    Kind.FLAG: _truth,
}


@cache
def _by_path() -> dict[str, Described]:
    return {entry.path: entry for entry in described()}


def _annotation(about: Setting) -> Any:
    parser = _PARSERS.get(about.kind)
    if parser is not None:
        return Annotated[Any, PlainValidator(lambda value: _bounded(parser(value), about))]
    return Annotated[str, BeforeValidator(lambda value: _text(value, about))]


def _bounded(value: Any, about: Setting) -> Any:
    if about.at_least is not None and value < about.at_least:
        raise ValueError(f"must be at least {_shown(about.at_least, about.kind)}")
    if about.at_most is not None and value > about.at_most:
        raise ValueError(f"must be at most {_shown(about.at_most, about.kind)}")
    return value


def _shown(bound: float, kind: Kind) -> str:
    if kind is Kind.SIZE:
        return size_text(int(bound))
    return duration_text(bound) if kind is Kind.DURATION else str(int(bound))


def _text(value: Any, about: Setting) -> str:
    if not isinstance(value, str):
        raise ValueError(f"must be text in quotes, not {type(value).__name__}")
    if "\x00" in value:
        raise ValueError("must not contain a zero byte")
    if about.choices and value not in about.choices:
        close = get_close_matches(value, about.choices, 1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise ValueError(f"{value!r} is none of {', '.join(about.choices)}{hint}")
    return value


@cache
def _model() -> type[BaseModel]:
    strict = ConfigDict(extra="forbid", strict=True, frozen=True, protected_namespaces=())
    sections: dict[str, Any] = {}
    for section in fields(Config):
        entries = {
            entry.key: (_annotation(entry.setting), entry.default)
            for entry in described()
            if entry.section == section.name
        }
        model = create_model(f"{section.name.title()}Section", __config__=strict, **entries)  # type: ignore[call-overload]  # fields are data here
        sections[section.name] = (model, model())
    made: type[BaseModel] = create_model("File", __config__=strict, **sections)
    return made


# -- words for what nobody knows


def _unknown(path: str) -> str:
    section, dot, key = path.partition(".")
    sections = [entry.name for entry in fields(Config)]
    if not dot:
        return f"{path}: unknown section; {_did_you_mean(section, sections, 'there are ')}"
    known = [entry.key for entry in described() if entry.section == section]
    if f"{key}_file" in known:
        return f"{path}: secrets are not written into the configuration: name a file with {section}.{key}_file"
    elsewhere = [entry.path for entry in described() if entry.key == key]
    if elsewhere:
        return f"{path}: unknown setting; did you mean {' or '.join(elsewhere)}?"
    close = get_close_matches(key, known, 1)
    if close:
        return f"{path}: unknown setting; did you mean {section}.{close[0]}?"
    return f"{path}: unknown setting; [{section}] has {', '.join(known)}"


def _unknown_top(name: str) -> str:
    elsewhere = [entry.path for entry in described() if entry.key == name]
    if elsewhere:
        section, _, key = elsewhere[0].partition(".")
        return f"{name}: settings stand in sections; write {key} under [{section}]"
    if name in {entry.name for entry in fields(Config)}:
        return f"{name}: is a section; write [{name}]"
    return _unknown(name)


def _did_you_mean(word: str, known: list[str], otherwise: str) -> str:
    close = get_close_matches(word, known, 1)
    return f"did you mean [{close[0]}]?" if close else f"{otherwise}{', '.join(known)}"
