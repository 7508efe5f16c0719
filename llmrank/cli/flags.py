"""Flags from models: a command's parameters are the fields of pydantic models, each with its sentence as help."""

from __future__ import annotations

import inspect
import json
import types
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Union, get_args, get_origin

import typer
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from llmrank.errors import InputError

Command = Callable[..., Any]

SECTIONS: dict[str, str] = {
    "Input": "queries items subjects answers corpus documents each run requests depth pairs pool_depth qrels "
    "holes_only sample strata swap unit example_queries example_qrels",
    "Method": "method option template template_variable by split check check_backend check_depth check_top top "
    "negatives negative_depth constrain samples seed",
    "Judging": "on_failure judge panel escalate exam pass_mark system examiner peer questions rounds mark_all "
    "without_self",
    "Examples": "examples shots select",
    "Model": "backend base_url model_id engine_option architecture temperature context passage_tokens passages "
    "passage_words passage_count max_completion_tokens",
    "Replies": "ledger concurrency adaptive hedge rpm tpm timeout retries retry_format retry_failed max_failure_rate",
    "Budget": "max_calls max_tokens max_cost price deadline",
}
"""Where a flag stands in the help."""
STRUCTURED = ("stages",)
"""Options of a method that a file of flags may hold as they are, with structure."""
SECTION = {name: section for section, names in SECTIONS.items() for name in names.split()}


def flags(*models: type[BaseModel]) -> Callable[[Command], Command]:
    """Adds the models' fields to a command as keyword flags; it gets those that were given, by name, in `**given`."""

    def decorate(command: Command) -> Command:
        own = inspect.signature(command, eval_str=True)
        fields = {name: field for model in models for name, field in model.model_fields.items()}
        ordered = sorted(fields, key=lambda name: list(SECTION).index(name) if name in SECTION else len(SECTION))
        parameters = [_parameter(name, fields[name]) for name in ordered]
        parameters += [p for p in own.parameters.values() if p.kind is not p.VAR_KEYWORD]
        parameters.append(_config_parameter())

        def run(**values: Any) -> Any:
            for name, items in (values.pop("config") or {}).items():
                values[name] = items + (values.get(name) or [])  # of two with one key the later counts: the flag's
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
    """KEY=VALUE texts as a dictionary; dashes in a key are as good as underscores."""
    pairs: dict[str, str] = {}
    for text in texts:
        key, sign, value = text.partition("=")
        if not sign or not key.strip():
            raise InputError(f"{flag} {text}: write it as KEY=VALUE")
        pairs[key.strip().replace("-", "_")] = value.strip()
    return pairs


def _parameter(name: str, field: FieldInfo) -> inspect.Parameter:
    kind, many = _type(field.annotation)
    default = field.get_default(call_default_factory=True)
    shown = "" if default is None or default is False or default == [] else f" [default: {default}]"
    help_text = (field.description or "") + shown
    section = SECTION.get(name)
    option = typer.Option(
        *_declarations(name, kind),
        help=help_text,
        show_default=False,
        metavar=None if kind is bool else _metavar(field, kind),
        rich_help_panel=section,
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


def _metavar(field: FieldInfo, kind: Any) -> str:
    extra = field.json_schema_extra
    named = extra.get("metavar") if isinstance(extra, dict) else None
    return str(named or {int: "N", float: "X"}.get(kind, "TEXT"))


def _type(annotation: Any) -> tuple[Any, bool]:
    """The flag's type, and whether it may be given several times."""
    if get_origin(annotation) in (Union, types.UnionType):
        (annotation,) = (part for part in get_args(annotation) if part is not type(None))
    if get_origin(annotation) in (list, tuple):
        return get_args(annotation)[0], True
    return annotation, False


def _config_parameter() -> inspect.Parameter:
    option = typer.Option(
        "--config",
        help="YAML file with the same keys, such as `method: heapsort`; flags win.",
        is_eager=True,
        callback=_read_config,
        metavar="FILE",
    )
    return inspect.Parameter(
        "config", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[str | None, option]
    )


def _read_config(context: typer.Context, path: str | None) -> Any:
    """Makes the file's values the defaults of all flags; returns its path and what may be given several times."""
    if path is None:
        return None
    flag_of = {
        name.lstrip("-").replace("-", "_"): parameter
        for parameter in context.command.params
        for name in parameter.opts
        if name.startswith("--") and parameter.name != "config"
    }
    defaults: dict[str, Any] = {}
    lists: dict[str, list[str]] = {"config": [path]}
    for key, value in _mapping(path).items():
        if key in STRUCTURED:
            lists.setdefault("option", []).append(f"{key}={value if isinstance(value, str) else json.dumps(value)}")
            continue
        flag: Any = flag_of.get(str(key).replace("-", "_"))
        if flag is None:
            raise InputError(f"--config {path}: {key} is no flag of this command")
        if value is None:
            continue
        if getattr(flag, "multiple", False):
            lists[flag.name] = _many(value) + lists.get(flag.name, [])
        else:
            defaults[flag.name] = _one(path, key, value, getattr(flag, "is_flag", False))
    context.default_map = {**(context.default_map or {}), **defaults}
    return lists


def _mapping(path: str) -> dict[Any, Any]:
    import yaml

    from llmrank.data.files import open_lines

    text = "\n".join(line for _, line in open_lines(path))
    try:
        values = yaml.safe_load(text) or {}
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        problem = f"{error.problem} {error.context or ''}".strip()
        cure = "write keys with values, like `method: heapsort`"
        raise InputError.at(path, line, f"this is no YAML ({problem}); {cure}") from error
    except yaml.YAMLError as error:
        raise InputError(f"--config {path}: this is no YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise InputError(f"--config {path}: it must hold keys with values, like `method: heapsort`")
    return values


def _one(path: str, key: Any, value: Any, is_switch: bool) -> Any:
    if is_switch != isinstance(value, bool) or isinstance(value, list | dict):
        wanted = "true or false" if is_switch else "one value; put words such as no and off in quotes"
        raise InputError(f"--config {path}: {key}: {value!r} does not fit, it takes {wanted}")
    return value if is_switch else str(value)


def _many(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [f"{key}={_text(item)}" for key, item in value.items()]
    return [str(item) for item in value] if isinstance(value, list) else [str(value)]


def _text(value: Any) -> str:
    if isinstance(value, list | dict):
        return json.dumps(value)
    return "on" if value is True else "off" if value is False else str(value)
