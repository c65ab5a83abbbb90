#!/usr/bin/env bash
# Resolves constraints.txt for every supported Python that this machine has, and runs the smoke tests on the oldest and
# the newest of them. Needs .venv (make test). What is not checked for want of an interpreter is said.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
versions=(3.10 3.11 3.12 3.13)
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT

# Prints the first interpreter of a version that can make an environment, on PATH or of pyenv; fails if there is none.
find_python() {
    local candidate
    for candidate in "python$1" "${PYENV_ROOT:-$HOME/.pyenv}"/versions/"$1".*/bin/python; do
        if "$candidate" -c 'import ensurepip, venv' 2> /dev/null; then
            command -v "$candidate"
            return
        fi
    done
    return 1
}

# The pip of .venv, which is new enough to read a wheel's metadata without the wheel, in another environment.
install() {
    local python=$1
    shift
    .venv/bin/python -m pip --disable-pip-version-check --python "$python" install --quiet -c constraints.txt "$@"
}

found=()
for version in "${versions[@]}"; do
    if ! python=$(find_python "$version"); then
        echo "NOT CHECKED: this machine has no Python $version"
        continue
    fi
    "$python" -m venv "$place/$version"
    install "$place/$version/bin/python" --dry-run -e '.[test]' > /dev/null
    echo "Python $version: the pins resolve ($("$python" --version))"
    found+=("$version")
done

if [ ${#found[@]} = 0 ]; then
    echo "NOT CHECKED: the smoke tests, for there is no Python of ${versions[*]}"
    exit
fi
default=$(.venv/bin/python -c 'import sys; print("%d.%d" % sys.version_info[:2])')
for version in $(printf '%s\n' "${found[0]}" "${found[-1]}" | uniq); do
    if [ "$version" = "$default" ]; then
        echo "Python $version: the whole suite runs in .venv"
        continue
    fi
    echo "Python $version: smoke tests"
    install "$place/$version/bin/python" --no-compile -e '.[test]'
    "$place/$version/bin/python" -m pytest -p no:cacheprovider tests/test_smoke.py tests/test_packaging.py tests/test_portability.py
    rm -rf "${place:?}/$version" # several GB with a CUDA build of torch
done
