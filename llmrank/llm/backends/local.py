"""What the engines of this process share: the folder of a model, what its files say, and options."""

from __future__ import annotations

import difflib
import hashlib
import importlib.util
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from llmrank.errors import InputError
from llmrank.tokens import CountedTokens, TokenCounter

SAMPLED_BYTES = 1 << 20  # read from both ends of a file of weights to tell models apart
HARMLESS = frozenset(
    {"download", "device", "batch_tokens", "tensor_parallel_size", "pipeline_parallel_size"}
    | {"data_parallel_size", "distributed_executor_backend", "gpu_memory_utilization", "kv_cache_memory_bytes"}
    | {"num_gpu_blocks_override", "swap_space", "cpu_offload_gb", "block_size", "max_num_seqs", "max_model_len"}
    | {"max_num_batched_tokens", "enforce_eager", "enable_prefix_caching", "enable_chunked_prefill", "seed"}
    | {"async_scheduling", "load_format", "download_dir", "compilation_config", "disable_log_stats"}
)
"""Options that change how fast an engine answers, or how much it takes, and not what: no part of a model's identity."""


def need(library: str, spec: str, *, extra: str = "") -> None:
    """Raises InputError where the library of an extra is not installed."""
    if importlib.util.find_spec(library) is None:
        raise InputError(f"--backend {spec}: {library} is not installed; pip install 'llmrank[{extra or library}]'")


def switch(options: dict[str, Any], name: str, spec: str) -> bool | None:
    """An option that is on or off, taken out of the options; None where it is not given."""
    value = options.pop(name, None)
    if isinstance(value, str) and value.lower() in ("on", "off"):  # YAML 1.2 reads them as words
        value = value.lower() == "on"
    if value is not None and not isinstance(value, bool):
        raise InputError(f"--backend {spec}: --engine-option {name}={value}: it must be on or off")
    return value


def unknown_option(name: str, spec: str, known: Iterable[str]) -> str:
    """The sentence for an engine option that there is not."""
    near = difflib.get_close_matches(name, list(known), n=1)
    hint = f"; did you mean {near[0]}?" if near else ""
    return f"--backend {spec}: --engine-option {name}: the engine has no such option{hint}"


def model_folder(name: str, spec: str, *, download: bool) -> Path:
    """The folder of a model: the one named, or a snapshot of the Hugging Face hub, fetched only on request."""
    if not name:
        raise InputError(f"--backend {spec}: it lacks its model; write {spec.partition(':')[0]}:PATH")
    folder = Path(name).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise InputError(f"--backend {spec}: the folder holds no model: config.json is missing")
        return folder
    import huggingface_hub

    try:
        fetched = huggingface_hub.snapshot_download(name, local_files_only=not download)
    except Exception as error:  # whatever the network, the hub and the name can do wrong
        if not download:
            raise InputError(
                f"--backend {spec}: there is no such folder, and no such model among those downloaded before; "
                "give a path, or --engine-option download=on to fetch it"
            ) from None
        told = " ".join(str(error).split())[:200]
        raise InputError(f"--backend {spec}: the model cannot be fetched ({type(error).__name__}: {told})") from None
    return Path(fetched)


@dataclass(frozen=True)
class Model:
    """A model's folder and what its files say, read without loading it."""

    name: str
    folder: Path

    @cached_property
    def config(self) -> dict[str, Any]:
        return read_json(self.folder, "config.json")

    @cached_property
    def context(self) -> int | None:
        """Tokens that the model takes, as its files say."""
        inner = self.config.get("text_config")
        for told in (self.config, inner if isinstance(inner, dict) else {}):
            for key in ("max_position_embeddings", "n_positions", "max_sequence_length", "seq_length"):
                if isinstance(told.get(key), int):
                    return int(told[key])
        return None

    @property
    def architecture(self) -> str:
        return str((self.config.get("architectures") or [""])[0])

    @cached_property
    def counter(self) -> TokenCounter | None:
        """The model's own tokeniser as a counter; None where its files have none that is quick."""
        file = self.folder / "tokenizer.json"
        if not file.is_file():
            return None
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_file(str(file))
        tokenizer.no_truncation()
        tokenizer.no_padding()
        return CountedTokens(tokenizer)

    @cached_property
    def chat_template(self) -> str | None:
        file = self.folder / "chat_template.jinja"
        if file.is_file():
            return file.read_text(encoding="utf-8")
        told = read_json(self.folder, "tokenizer_config.json").get("chat_template")
        if isinstance(told, list):  # several, by name
            told = {t.get("name"): t.get("template") for t in told if isinstance(t, dict)}.get("default")
        return told if isinstance(told, str) else None

    @property
    def reasons(self) -> bool:
        """Whether the model's own chat template has a place for its thinking."""
        return "</think>" in (self.chat_template or "") or "enable_thinking" in (self.chat_template or "")

    def identity(self, options: Mapping[str, Any]) -> str:
        """The model's name with a mark of its files, and the options that can change what it says."""
        told = "&".join(f"{key}={value}" for key, value in sorted(options.items()) if key not in HARMLESS)
        name = self.name if not Path(self.name).expanduser().is_dir() else self.folder.resolve().name
        return f"{name}@{self.fingerprint}" + (f"?{told}" if told else "")

    @cached_property
    def fingerprint(self) -> str:
        """Tells this model from another in a folder of the same name; a copy elsewhere has the same."""
        digest = hashlib.sha256()
        for file in sorted(self.folder.iterdir()):
            if file.suffix in (".json", ".jinja", ".model", ".txt"):
                digest.update(f"\0{file.name}\0".encode() + file.read_bytes())
            elif file.suffix in (".safetensors", ".bin", ".gguf", ".pt"):
                size = file.stat().st_size
                digest.update(f"\0{file.name}\0{size}\0".encode())
                with file.open("rb") as weights:
                    digest.update(weights.read(SAMPLED_BYTES))
                    weights.seek(max(0, size - SAMPLED_BYTES))
                    digest.update(weights.read(SAMPLED_BYTES))
        return digest.hexdigest()[:12]


def read_json(folder: str | Path, name: str) -> dict[str, Any]:
    """What a JSON file says; nothing where there is none."""
    try:
        told = json.loads((Path(folder) / name).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return told if isinstance(told, dict) else {}
