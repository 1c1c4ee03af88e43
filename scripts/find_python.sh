#!/bin/sh
# Prints the path of a Python >= 3.12 that can make a virtual environment, or says what to install.
#
# Every candidate is run, not only looked up: pyenv leaves shims in PATH that fail for versions not selected,
# and some distributions ship a Python without venv or pip. $PYTHON, when set, is tried first.

set -u

accepts() {  # accepts PYTHON [LAST MINOR VERSION]
    "$1" -c "import ensurepip, sys, venv; sys.exit(not (3, 12) <= sys.version_info[:2] <= (3, $2))" \
        >/dev/null 2>&1 </dev/null
}

candidates() {
    if [ -n "${PYTHON:-}" ]; then echo "$PYTHON"; fi
    for name in python3 python3.12 python3.13 python3.14 python python3.15 python3.16; do echo "$name"; done
    # pyenv's own versions. HOME may be empty or another user's, so the home of the password file is looked at
    # too, and the folder beside any shims in PATH.
    account_home=$(eval echo "~$(id -un)")
    shims=$(echo "$PATH" | tr ':' '\n' | sed -n 's,/shims/*$,,p')
    for root in "${PYENV_ROOT:-}" "${HOME:-}/.pyenv" "$account_home/.pyenv" $shims; do
        if [ -z "$root" ]; then continue; fi
        for version in 3.12 3.13 3.14 3.15; do
            for found in "$root"/versions/"$version"*/bin/python; do echo "$found"; done
        done
    done
    for found in /usr/local/bin/python3 /opt/homebrew/bin/python3 /opt/python*/bin/python3; do echo "$found"; done
}

# Versions up to 3.14 have wheels for everything in the lock file; a newer one is better than none.
for last in 14 99; do
    candidates | while IFS= read -r candidate; do
        if accepts "$candidate" "$last"; then
            "$candidate" -c 'import sys; print(sys.executable)'
            break
        fi
    done | grep . && exit 0
done

cat >&2 <<'MESSAGE'
Shoal needs Python 3.12 or newer, with its venv module, and found none: not on PATH and not under pyenv.
Install one and run make again, for instance:
    Debian, Ubuntu   sudo apt-get install python3 python3-venv     (Debian 13, Ubuntu 24.04 or newer)
    Fedora           sudo dnf install python3.13
    macOS            brew install python@3.13
    anywhere         pyenv install 3.13
Or name one that lies elsewhere: make setup PYTHON=/path/to/python3.13
MESSAGE
exit 1
