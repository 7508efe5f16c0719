"""Flags from models: a command's parameters are the fields of pydantic models, each with its sentence as help."""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Union, get_args, get_origin

import typer
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from llmrank.errors import InputError

Command = Callable[..., Any]


def flags(*models: type[BaseModel], only: tuple[str, ...] = ()) -> Callable[[Command], Command]:
    """Adds the models' fields to a command as keyword flags; it gets those that were given, by name, in `**given`."""

    def decorate(command: Command) -> Command:
        own = inspect.signature(command, eval_str=True)
        parameters = [p for p in own.parameters.values() if p.kind is not p.VAR_KEYWORD]
        for model in models:
            parameters += [_parameter(name, field) for name, field in model.model_fields.items() if not only or name in only]
        parameters.append(_config_parameter())

        def run(**values: Any) -> Any:
            values.pop("config", None)
            return command(**{name: value for name, value in values.items() if value is not None and value != []})

        run.__name__, run.__doc__ = command.__name__, command.__doc__
        run.__signature__ = own.replace(parameters=parameters)  # type: ignore[attr-defined]  # typer reads the flags here
        run.__annotations__ = {p.name: p.annotation for p in parameters}
        return run

    return decorate


def split(given: Mapping[str, Any], *models: type[BaseModel]) -> list[dict[str, Any]]:
    """The given flags, sorted by the model whose field they are."""
    return [{name: given[name] for name in model.model_fields if name in given} for model in models]


def key_values(texts: list[str], flag: str) -> dict[str, str]:
    """KEY=VALUE texts as a dictionary."""
    pairs: dict[str, str] = {}
    for text in texts:
        key, sign, value = text.partition("=")
        if not sign or not key:
            raise InputError(f"{flag} {text}: write it as KEY=VALUE")
        pairs[key.strip().replace("-", "_")] = value.strip()
    return pairs


def _parameter(name: str, field: FieldInfo) -> inspect.Parameter:
    kind, many = _type(field.annotation)
    default = field.get_default(call_default_factory=True)
    shown = "" if default in (None, [], False) or field.is_required() else f" [default: {default}]"
    option = typer.Option(
        *_declarations(name, kind), help=(field.description or "") + shown, show_default=False, metavar=_metavar(field)
    )
    # None tells a flag that was not given from one that was; the model knows its own default.
    annotation = list[kind] if many else kind | None  # type: ignore[valid-type]
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=[] if many else None, annotation=Annotated[annotation, option]
    )


def _declarations(name: str, kind: Any) -> tuple[str, ...]:
    flag = "--" + name.replace("_", "-")
    if kind is bool:
        return (f"{flag}/--no-{name.replace('_', '-')}",)
    return (flag,)


def _metavar(field: FieldInfo) -> str | None:
    extra = field.json_schema_extra
    return str(extra["metavar"]) if isinstance(extra, dict) and "metavar" in extra else None


def _type(annotation: Any) -> tuple[Any, bool]:
    """The flag's type, and whether it may be given several times."""
    if get_origin(annotation) in (Union, types.UnionType):
        (annotation,) = (part for part in get_args(annotation) if part is not type(None))
    if get_origin(annotation) in (list, tuple):
        return get_args(annotation)[0], True
    return annotation, False


def _config_parameter() -> inspect.Parameter:
    option = typer.Option(
        "--config", help="YAML file with the same keys; flags win.", is_eager=True, callback=_read_config, metavar="FILE"
    )
    return inspect.Parameter(
        "config", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[str | None, option]
    )


def _read_config(context: typer.Context, path: str | None) -> str | None:
    """Makes the file's values the defaults of all other flags."""
    if path is None:
        return None
    import yaml

    try:
        values = yaml.safe_load(Path(path).read_text(encoding="utf-8")) or {}
    except OSError as error:
        raise InputError(f"--config {path}: the file cannot be read ({error.strerror})") from error
    except yaml.YAMLError as error:
        raise InputError(f"--config {path}: this is no YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise InputError(f"--config {path}: it must hold keys with values, like `method: heapsort`")
    known = {p.name: p for p in context.command.params if p.name != "config"}
    defaults: dict[str, Any] = {}
    for key, value in values.items():
        name = str(key).replace("-", "_")
        if name not in known:
            raise InputError(f"--config {path}: {key} is no flag of this command")
        many = getattr(known[name], "multiple", False)
        defaults[name] = _many(value) if many else value
    context.default_map = {**(context.default_map or {}), **defaults}
    return path


def _many(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [f"{key}={'on' if item is True else 'off' if item is False else item}" for key, item in value.items()]
    return [str(item) for item in value] if isinstance(value, list) else [str(value)]
