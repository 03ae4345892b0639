#!/bin/bash
# Models of random weights: a file of a real shape, cut to one layer, through every verb that reads models. Prints
# "ok NAME", "FAILED NAME: why" or "SKIP NAME: why". $NIGHTJAR is the program (./nightjar).
set -u
cd "$(dirname "$0")/.." || exit 2
nj=${NIGHTJAR:-./nightjar}
work=$(mktemp -d) || exit 2
trap 'rm -rf "$work"' EXIT
out=$work/out talk=$work/talk model=$work/model.gguf
failures=0
export LC_ALL=C.UTF-8

# result NAME: of the command before it.
result() {
    local status=$?
    [ "$status" -eq 0 ] && echo "ok $1" && return
    echo "FAILED $1: see what it printed and said"
    { head -c 400 "$out"; echo; head -c 600 "$talk"; } 2>/dev/null | tr -d '\0' | sed 's/^/    /'
    failures=$((failures + 1))
}
# call STATUS ARGS...: runs nightjar, its output in $out, its talk in $talk; true when it ends with STATUS.
call() {
    local want=$1 got=0
    shift
    "$nj" "$@" >"$out" 2>"$talk" </dev/null || got=$?
    [ "$got" -eq "$want" ] || { echo "exit status $got instead of $want" >>"$talk"; return 1; }
}
says() { grep -qF -- "$1" "$talk"; }
prints() { grep -qF -- "$1" "$out"; }

test_refusals() {
    local shape
    call 2 synth qwen9 "$model" && says "Known: qwen3-4b,"; result unknown_shape_is_told
    for shape in $(sed -n 's/^Known: \(.*\)\.$/\1/p' "$talk" | tr -d ,); do
        call 0 synth --help && prints "$shape"; result "help_names_$shape"
    done
    call 2 synth qwen3-4b:q9_z "$model" && says "Q4_K_M"; result unknown_type_is_told
    call 2 synth qwen3-4b --layers 37 "$model" && says "36 layers"; result too_many_layers_are_told
    call 1 synth qwen3-4b "$work/no/model.gguf" && says "No such file"; result absent_folder_is_told
    echo precious >"$work/there"
    call 1 synth qwen3-4b "$work/there" && says "--force" && [ "$(cat "$work/there")" = precious ]
    result what_is_there_is_kept
    if [ "$(df --output=avail -B1G "$work" | tail -n 1)" -gt 1900 ]; then
        echo "SKIP full_drive_is_told_before_writing: this drive has room for 1.9 TB"
    else
        call 1 synth qwen3-coder-480b:f32 "$model" && says "Make room" && [ ! -e "$model.part" ]
        result full_drive_is_told_before_writing
    fi
}

test_interrupt() {
    local status=0 pid end=$((SECONDS + 30))
    "$nj" synth qwen3-4b --layers 8 "$model" >"$out" 2>"$talk" </dev/null &
    pid=$!
    until [ -s "$model.part" ]; do [ $SECONDS -lt $end ] || break; done
    kill -INT "$pid"
    wait "$pid" || status=$?
    [ "$status" -eq 130 ] && [ ! -e "$model" ] && [ ! -e "$model.part" ]; result ctrl_c_leaves_no_half_file
}

test_model() {
    local text="The night jar, 42 moths… 夜鷹 ends"
    call 0 synth qwen3-4b:q4_k_m "$model" --layers 1 && prints "qwen3-4b of random weights, 1 of 36 layers" &&
        [ ! -e "$model.part" ]
    result synth_writes_a_model
    call 0 inspect "$model" && prints "32 heads of 128, 8 for keys and values" && prints "the chat template compiles"
    result inspect_reads_it
    call 0 tokenize "$model" -p "$text" --ids && cp "$out" "$work/ids" &&
        "$nj" detokenize "$model" <"$work/ids" >"$work/back" 2>>"$talk" && [ "$(cat "$work/back")" = "$text" ]
    result tokens_go_both_ways
    call 0 run "$model" -p "Good night" -n 3 --ignore-eos --stats && [ -s "$out" ] && says "loaded"; result run_answers
    call 0 logits "$model" --tokens 5,17,9 -o "$work/logits.f32" && [ "$(stat -c %s "$work/logits.f32")" -eq $((3 * 151936 * 4)) ] &&
        ! od -An -v -tf4 -w4 "$work/logits.f32" | grep -q 'nan\|inf'
    result logits_are_finite
    # A model that knows nothing: the perplexity is the vocabulary's size, give or take the spread of its logits.
    call 0 perplexity "$model" -p "$text" && awk '/^perplexity/ { exit !($2 > 30000 && $2 < 2000000) }' "$out"
    result perplexity_is_that_of_chance
}

test_refusals
test_interrupt
test_model
[ $failures -eq 0 ]
