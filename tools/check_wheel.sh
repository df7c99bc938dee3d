#!/usr/bin/env bash
# Build the wheel, install it into a new environment, and use it from elsewhere: list, then a run of two steps.
#
#   tools/check_wheel.sh                         the real thing: pip install "WHEEL[pocket]" from the registry
#   VENV=path/to/venv tools/check_wheel.sh       packages from that environment, the wheel alone in the new one
#   PYTHON=python3.12 tools/check_wheel.sh       which Python makes the new environment
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

if [[ -n "${VENV:-}" ]]; then
    python=$(cd "$VENV/bin" && pwd)/python # absolute: we leave this folder below
    "$python" -m build --wheel --no-isolation --outdir "$scratch/dist" "$root" >"$scratch/build.log" 2>&1 ||
        { cat "$scratch/build.log" >&2; exit 1; }
    "$python" -m venv "$scratch/venv"
    # A path in a .pth file comes last and its own .pth files do not count: no editable install shines through.
    site_packages='import sysconfig; print(sysconfig.get_path("purelib"))'
    "$python" -c "$site_packages" >"$("$scratch/venv/bin/python" -c "$site_packages")/packages.pth"
    "$scratch/venv/bin/python" -m pip install --quiet --no-deps "$scratch"/dist/*.whl
else
    "${PYTHON:-python3}" -m venv "$scratch/venv"
    "$scratch/venv/bin/python" -m pip install --quiet build
    "$scratch/venv/bin/python" -m build --wheel --outdir "$scratch/dist" "$root" >"$scratch/build.log" 2>&1 ||
        { cat "$scratch/build.log" >&2; exit 1; }
    "$scratch/venv/bin/python" -m pip install --quiet "$(echo "$scratch"/dist/*.whl)[pocket]"
fi

mkdir "$scratch/elsewhere"
cd "$scratch/elsewhere"
unset PYTHONPATH
package=$("$scratch/venv/bin/python" -c 'import disco_zoo; print(disco_zoo.__file__)')
[[ "$package" == "$scratch/venv/"* ]] || { echo "not the wheel's package: $package" >&2; exit 1; }

"$scratch/venv/bin/disco-zoo" list
"$scratch/venv/bin/disco-zoo" reproduce effb0 --steps 2
for file in run.json results.json report.md model_card.md student.safetensors figures/embedding_map.png; do
    [[ -s $(echo runs/*/"$file") ]] || { echo "the run left no $file" >&2; exit 1; }
done
echo "the wheel works: $(basename "$scratch"/dist/*.whl)"
