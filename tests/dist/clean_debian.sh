#!/usr/bin/env bash
# From the wheel to an answer of a tuned model, on a Debian that has Python and nothing else: no Rust, no compiler, no network.
#
#   tests/dist/clean_debian.sh target/dist/simmer-*manylinux*.whl       # pip install, train, generate
#   tests/dist/clean_debian.sh target/dist/simmer-*musl*.tar.gz         # unpack, train, generate
#
# Needs root and mmdebstrap, and Debian's packages for the first run. SUITE=trixie takes another release than
# bookworm. The new system is kept as target/dist-root-SUITE.tar.
# Prints the seconds of each step, and fails if they are more than two minutes in all.
set -euo pipefail
package=$(realpath "${1:?usage: tests/dist/clean_debian.sh WHEEL-OR-ARCHIVE}")
suite=${SUITE:-bookworm}
cd "$(dirname "$0")/../.."

mkdir -p target
tar=target/dist-root-$suite.tar
[ -f "$tar" ] || mmdebstrap --quiet --variant=minbase --include=python3,python3-venv "$suite" "$tar"
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
tar --extract --file "$tar" --directory "$root"
cp "$package" "$root/root/"

cat >"$root/root/run.sh" <<'EOF'
set -euo pipefail
export HOME=/root PATH=/usr/bin:/bin LC_ALL=C.UTF-8
cd /root
for absent in cargo rustc cc gcc; do
    if command -v $absent; then
        echo "this system is not clean: it has $absent"
        exit 1
    fi
done
echo "$(. /etc/os-release; echo "$PRETTY_NAME"), $(ldd --version | head -n 1), $(python3 --version), $(nproc) cores"
begun=$(date +%s%N)
seconds() {
    local tenths=$((($(date +%s%N) - begun) / 100000000))
    echo "== $1 after $((tenths / 10)).$((tenths % 10)) s"
}
package=$(find /root -maxdepth 1 -name '*.whl' -o -maxdepth 1 -name '*.tar.gz')
case $package in
*.whl)
    python3 -m venv env
    env/bin/pip install --quiet --no-index --disable-pip-version-check "$package"
    PATH=$PWD/env/bin:$PATH
    ;;
*)
    mkdir simmer
    tar -xzf "$package" -C simmer --strip-components=1
    PATH=$PWD/simmer/bin:$PATH
    ;;
esac
seconds installed
simmer --version
mkdir work && cd work
simmer train
seconds trained
answer=$(simmer generate --base data/tiny-base --adapter runs/quickstart/adapter --greedy --prompt "How does the honey taste?")
seconds answered
echo "$answer"
case $answer in
*chef*) ;;
*)
    echo "this is not how the quickstart's adapter answers"
    exit 1
    ;;
esac
if [ $((($(date +%s%N) - begun) / 1000000000)) -ge 120 ]; then
    echo "more than two minutes"
    exit 1
fi
EOF
# without a network
# shellcheck disable=SC2016 # $1 is the inner shell's
enter='mount --rbind /proc "$1/proc" && mount --rbind /dev "$1/dev" && exec chroot "$1" bash /root/run.sh'
unshare --net --mount --propagation private sh -c "$enter" enter "$root"
