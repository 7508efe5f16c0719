#!/usr/bin/env bash
# Makes the environment VENV in which the engine tests run: install.sh VENV ENGINES_DIR.
# With ENGINES_DIR/install_vllm_cpu.sh vLLM comes from there, for a machine without a GPU; else from the package index.
set -euo pipefail
cd "$(dirname "$0")/../.."
venv=${1:?usage: install.sh VENV ENGINES_DIR}
engines=${2:?usage: install.sh VENV ENGINES_DIR}
if [ -f "$engines/install_vllm_cpu.sh" ]; then
    bash "$engines/install_vllm_cpu.sh" "$venv"
else
    [ -x "$venv/bin/python" ] || python3 -m venv "$venv"
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check vllm
fi
# Nothing that vLLM brought is replaced: its versions go together.
installed=$(mktemp)
trap 'rm -f "$installed"' EXIT
"$venv/bin/python" -m pip freeze --exclude-editable | grep -v ' @ ' | grep -vi '^llmrank' > "$installed"
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check -c "$installed" -e . accelerate hypothesis pytest
"$venv/bin/python" -c 'import importlib.metadata as m; print(*(f"{n} {m.version(n)}" for n in ("torch", "transformers", "vllm")))'
