#!/bin/bash
# What rounding costs: the perplexity of the nano model on its held-out text against the float64 reference, and how far
# each quantization moves it. Prints "ok NAME", "FAILED NAME: why" or "SKIP NAME: why". $NIGHTJAR is the program.
set -u
cd "$(dirname "$0")/.." || exit 2
nj=${NIGHTJAR:-./nightjar}
text=tests/data/nano-heldout.txt
bf16=../shared/golden/models/nano-bf16.gguf
reference=62.0937 # float64, tests/data/nano-heldout.txt in chunks of 256; nano.json beside the model says how
work=$(mktemp -d) || exit 2
trap 'rm -rf "$work"' EXIT
failures=0

perplexity() { # MODEL
    "$nj" perplexity "$1" -f $text --chunk 256 -q 2>"$work/talk" | sed -n 's/^perplexity \([0-9.]*\) .*/\1/p'
}

# moves NAME MODEL BASE LIMIT: the perplexity of MODEL is within LIMIT percent of BASE.
moves() {
    local got
    got=$(perplexity "$2")
    if awk -v got="${got:-0}" -v base="$3" -v limit="$4" -v name="$1" 'BEGIN {
        moved = 100 * (got / base - 1)
        printf "%-8s perplexity %s against %s: %+.2f%%, limit %.1f%%\n", name, got, base, moved, limit
        exit !(moved <= limit && moved >= -limit) }'; then
        echo "ok perplexity_of_$1"
    else
        echo "FAILED perplexity_of_$1: see above; $(head -c 300 "$work/talk")"
        failures=$((failures + 1))
    fi
}

case $nj in
*san/*)
    echo "SKIP quality: under a sanitizer it takes minutes and would find nothing that other tests do not"
    exit 0
    ;;
esac
moves shipped_q8_0 appliance/demo/nano-q8_0.gguf $reference 0.3
if [ -e "$bf16" ]; then
    moves bf16 "$bf16" $reference 0.3
    base=$(perplexity "$bf16")
    for limit in Q8_0=0.3 Q4_K_M=0.6 Q3_K=1.5; do
        type=${limit%=*}
        "$nj" quantize "$bf16" "$work/$type.gguf" "$type" -q 2>"$work/talk"
        moves "$type" "$work/$type.gguf" "$base" "${limit#*=}"
    done
    # The model that comes along is what our own quantizer makes of the original.
    if cmp -s "$work/Q8_0.gguf" appliance/demo/nano-q8_0.gguf; then echo "ok shipped_model_is_our_quantizers"; else
        echo "FAILED shipped_model_is_our_quantizers: quantize $bf16 to Q8_0 and commit the result"
        failures=$((failures + 1))
    fi
else
    echo "SKIP perplexity_of_quantizations: $bf16 is absent"
fi
[ $failures -eq 0 ]
