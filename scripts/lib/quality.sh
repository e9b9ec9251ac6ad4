# What bench/quality and bench/qat share: references, texts, gradients, evaluations. Source after common.sh.
# References are SmolLM2-135M-Instruct and gemma-3-270m with ungridded weights (shared/tools/make_reference.py), since
# weights that lie on a grid would look lossless in it. Sets TEXT (the test text), CALIB (nothing of the test text), OUT
# (what is kept between runs).
source scripts/lib/peers.sh
fetch_text
fetch_llama
python_env numpy gguf
SHARED="$ROOT/../shared"
[ -d "$SHARED/data/text" ] || die "needs the shared texts beside the checkout (../shared/data/text)"
CALIB=("$SHARED"/data/text/calib-{wiki,web,code,multilingual}.txt)
OUT="$NARROW_CACHE/quality"
mkdir -p "$OUT"

# use_model smollm2|gemma3: sets REFERENCE, EVAL_WINDOWS (WINDOWS overrides) and IMATRIX, and makes what is missing.
use_model() {
  local from float
  case "$1" in
    smollm2) fetch_smollm2; from="$SMOLLM2" float=f32 EVAL_WINDOWS="${WINDOWS:-16}" ;;
    gemma3) fetch_gemma3; from="$GEMMA3" float=bf16 EVAL_WINDOWS="${WINDOWS:-8}" ;;
    *) die "unknown model $1 (known: smollm2, gemma3)" ;;
  esac
  REFERENCE="$NARROW_CACHE/models/$1-ref-$float.gguf"
  if [ ! -f "$REFERENCE" ]; then
    step "making the reference of $1"
    "$PYTHON" "$SHARED/tools/make_reference.py" "$from" "$REFERENCE" --type "$float"
  fi
  IMATRIX="$OUT/$1.imatrix.gguf"
  [ -f "$IMATRIX" ] || "$NARROW" -q calibrate "$REFERENCE" --text "${CALIB[@]}" --tokens 20480 -o "$IMATRIX" >/dev/null
}

# use_gradients MODEL TOKENS (0: none): sets BY, the options for quantize.
use_gradients() {
  local gradients="$OUT/$1.gradients-$2.gguf"
  BY=()
  [ "$2" != 0 ] || return 0
  [ -f "$gradients" ] || "$NARROW" -q gradients "$REFERENCE" --text "${CALIB[@]}" --tokens "$2" -o "$gradients"
  BY=(--gradients "$gradients")
}

# quantize_best OUT OPTION...: by METHOD, calibrated on TOKENS tokens, with the gradients that use_gradients set. What a
# run that was stopped left is not gone on with: it may be of other options.
quantize_best() {
  local out="$1"
  shift
  rm -f "$out".partial*
  "$NARROW" -q quantize "$REFERENCE" -o "$out" --method "$METHOD" --calib "${CALIB[@]}" --calib-tokens "$TOKENS" "${BY[@]}" "$@" \
    >"$out.log" 2>&1 || die "narrow failed: see $out.log"
}

# peer_file MODEL TYPE: sets PEER, llama-quantize's file with the importance matrix.
peer_file() {
  PEER="$OUT/$1-$2.llama.gguf"
  [ -f "$PEER" ] || llama_quantize "$REFERENCE" "$PEER" "$2" "$IMATRIX"
}

# eval_json FILE [COMPUTE]: evaluates it once; prints the name of the result.
eval_json() {
  local json="$1.$EVAL_WINDOWS${2:+.$2}.json"
  [ "$json" -nt "$1" ] || "$NARROW" -q eval "$1" --ref "$REFERENCE" --text "$TEXT" --windows "$EVAL_WINDOWS" \
    --compute "${2:-stored}" --json "$json" >/dev/null
  echo "$json"
}

# kl FILE [COMPUTE]: prints "bytes kl se".
kl() {
  "$PYTHON" -c 'import json,os,sys; r=json.load(open(sys.argv[2])); print(os.path.getsize(sys.argv[1]), r["kl_mean"], r["kl_se"])' \
    "$1" "$(eval_json "$@")"
}
