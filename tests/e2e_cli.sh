#!/bin/bash
# The verbs as a person calls them: what they print, where, and with which exit status. Prints "ok NAME",
# "FAILED NAME: why" or "SKIP NAME: why". $NIGHTJAR is the program (./nightjar).
set -u
cd "$(dirname "$0")/.." || exit 2
nj=${NIGHTJAR:-./nightjar}
golden=../shared/golden
nano=$golden/models/nano-bf16.gguf
[ -e "$nano" ] || nano=appliance/demo/nano-q8_0.gguf
tiny=tests/data/logits/qwen3moe.gguf
work=$(mktemp -d) || exit 2
trap 'rm -rf "$work"' EXIT
out=$work/out talk=$work/talk
failures=0
unset NIGHTJAR_NOW COLUMNS
export LC_ALL=C.UTF-8

fail() { # name, why
    echo "FAILED $1: $2"
    { head -c 400 "$out"; echo; head -c 600 "$talk"; } 2>/dev/null | tr -d '\0' | sed 's/^/    /'
    failures=$((failures + 1))
}
# result NAME: of the command before it.
result() {
    local status=$?
    if [ "$status" -eq 0 ]; then echo "ok $1"; else fail "$1" "see what it printed and said"; fi
}
# check NAME WHY CONDITION...: the condition is a command.
check() {
    local name=$1 why=$2
    shift 2
    if "$@"; then echo "ok $name"; else fail "$name" "$why"; fi
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
needs() { # name, file: prints a skip and is false when the file is absent
    [ -n "$2" ] && [ -e "$2" ] && return 0
    echo "SKIP $1: ${2:-the model} is absent"
    return 1
}

# ---- Called wrongly ----

test_usage() {
    call 2 && says "Usage: nightjar VERB"; result no_verb_is_usage
    call 0 --help && prints "inspect" && call 0 --version && prints "nightjar "
    result help_and_version
    call 2 inspct x && says "nightjar inspect"; result unknown_verb_is_suggested
    call 2 run --tmp 1 x && says "Did you mean --temp?"; result unknown_option_is_suggested
    call 2 run --hep x && says "Did you mean --help?"; result help_is_suggested
    call 2 run -n 0 x && says "between 1 and 2147483647"; result ranges_are_written_out
    call 2 logits x --tokens 1 --chunk 5000 && says "between 1 and 4096"; result logits_chunk_is_what_a_step_takes
    call 2 run --temp 101 x && says "not between"; result range_is_checked
    call 2 run --temp nan x && call 2 run -n 0x10 x && call 2 run --seed -1 x && call 2 run -n 99999999999 x
    result numbers_are_checked
    call 2 run x --temp && says "needs a value"; result missing_value_is_told
    call 2 quantize a b && call 2 inspect a b; result operands_are_counted
    local verb
    for verb in run batch answers inspect tokenize detokenize template logits perplexity quantize synth; do
        call 0 "$verb" --help && prints "Examples:" && prints "  nightjar $verb"
        result "help_of_$verb"
    done
    NIGHTJAR_NOW=yesterday call 2 --version && says "NIGHTJAR_NOW"; result bad_clock_is_told
}

test_output_errors() {
    needs full_disk_is_an_error "$tiny" || return
    local status=0
    "$nj" inspect "$tiny" >/dev/full 2>"$talk" || status=$?
    check full_disk_is_an_error "status $status" [ "$status" -eq 1 ]
    check full_disk_is_told "nothing said" says "No space left"
    "$nj" inspect --all "$tiny" 2>"$talk" | head -n 1 >"$out"
    check reader_that_leaves_is_no_news "should be silent" [ ! -s "$talk" ]
    call 1 inspect "$work/absent.gguf" && says "absent.gguf"; result absent_file_is_told
    call 1 run "$work" -p x && says "directory"; result directory_is_no_model
}

# ---- Text ----

test_tokens() {
    local vocab=$golden/tokenizers/llama3.gguf end='<|eot_id|>' text
    [ -e "$vocab" ] || vocab=$nano end='<|im_end|>'
    text="The night jar, 42 moths… 夜鷹 $end end"
    call 0 tokenize "$vocab" -p "$text" --ids && "$nj" detokenize "$vocab" $(cat "$out") >"$work/back" 2>"$talk"
    check tokens_go_both_ways "$(cat "$work/back")" [ "$(cat "$work/back")" = "$text" ]
    printf '%s' "$text" >"$work/text"
    "$nj" tokenize "$vocab" --ids <"$work/text" 2>"$talk" | "$nj" detokenize "$vocab" >"$work/back" 2>>"$talk"
    check tokens_go_through_pipes "texts differ" cmp -s "$work/text" "$work/back"
    call 0 tokenize "$vocab" -p "$end" --ids && [ "$(wc -w <"$out")" -eq 1 ] &&
        call 0 tokenize "$vocab" -p "$end" --ids --no-special && [ "$(wc -w <"$out")" -gt 1 ]
    result special_tokens_can_be_text
    call 0 tokenize "$vocab" -p 'Hello' --json && prints '"ids"'; result tokenize_has_json
    call 1 detokenize "$vocab" 99999999 && says "outside the vocabulary"; result id_is_checked
    call 1 detokenize "$vocab" 5 -1 && grep -q "ids are from 0 to [1-9][0-9]*[.]" "$talk"; result negative_id_is_told_the_range
    call 1 detokenize "$vocab" 12x && says "not a token id"; result id_is_a_number
    needs ids_are_golden "$golden/tokenizers/llama3.gguf" || return
    call 0 tokenize "$vocab" -p 'Hello, world!' --ids && [ "$(cat "$out")" = "9906 11 1917 0" ]
    result ids_are_golden
    call 0 tokenize "$vocab" -p "$end" --ids && [ "$(cat "$out")" = 128009 ]; result special_id_is_golden
}

test_template() {
    cat >"$work/t.jinja" <<'T'
{{- bos_token }}{% for m in messages %}[{{ m.role }}] {{ m['content'] }}
{% endfor %}{{ strftime_now('%d %b %Y %H:%M') }}
T
    echo '{"args": {"bos_token": "<s>", "messages": [{"role": "user", "content": "Ünï\n"}]}}' >"$work/args.json"
    printf '<s>[user] Ünï\n\n20 Nov 2026 07:00' >"$work/want"
    NIGHTJAR_NOW=2026-11-20T07:00:00 call 0 template --file "$work/t.jinja" --args "$work/args.json"
    check template_renders_exactly "$(cat "$out")" cmp -s "$work/want" "$out"
    call 0 template --file "$work/t.jinja" --args '{"messages": [{"role": "a", "content": "b"}]}' && prints "[a] b"
    result template_takes_json_itself
    call 1 template --file "$work/t.jinja" --args '[]' && says "ARGS must be a JSON object"
    result args_that_are_no_object_are_told
    call 1 template --file "$work/t.jinja" --args '{"messages": [' && says "line 1"
    result bad_json_is_told
    echo '{% if %}' >"$work/bad.jinja"
    call 1 template --file "$work/bad.jinja" --args '{}' && says "bad.jinja"; result bad_template_is_told
    needs template_of_a_model "$nano" || return
    call 0 template "$nano" --args '{"messages": [{"role": "user", "content": "Hi"}], "add_generation_prompt": true}' &&
        prints "<|im_start|>user"
    result template_of_a_model
}

# ---- Models ----

test_inspect() {
    needs inspect_tells_the_facts "$nano" || return
    call 0 inspect "$nano" && prints "qwen3moe" && prints "active per token" && prints "KV per token" &&
        prints "qwen3moe.expert_used_count" && prints "can be changed with --set" && prints "bound to"
    result inspect_tells_the_facts
    call 0 inspect "$nano" && grep -q '^  memory .*fits: .* of weights and .* of KV for .* are available' "$out"
    result inspect_says_whether_it_fits
    call 0 inspect "$nano" --json && grep -A1 '"memory"' "$out" | grep -q '"fits": true'; result inspect_says_so_in_json
    call 0 inspect "$nano" --json && prints '"kv_bytes_per_token"' && prints '"parameters_active"'
    result inspect_has_json
    call 0 inspect "$nano" --sha256 && prints "$(sha256sum "$nano" | cut -d' ' -f1)"
    result inspect_hashes
    head -c 5000000 "$nano" >"$work/cut.gguf"
    call 1 inspect "$work/cut.gguf" && says "cut.gguf"; result truncated_file_is_told
    local vocab=$golden/tokenizers/ggml-vocab-gpt-2.gguf
    needs inspect_takes_vocabularies "$vocab" || return
    call 0 inspect "$vocab" && prints "no tensors"; result inspect_takes_vocabularies
}

test_logits() {
    needs logits_do_not_depend_on_chunks "$tiny" || return
    local vocab
    call 0 logits "$tiny" --tokens 5,17,9,300,4 && mv "$out" "$work/whole.f32" &&
        call 0 logits "$tiny" --tokens '5 17 9 300 4' --chunk 1 -o "$work/one.f32" && cmp -s "$work/whole.f32" "$work/one.f32"
    result logits_do_not_depend_on_chunks
    vocab=$(wc -c <"$work/whole.f32")
    check logits_are_rows_of_float32 "$vocab bytes" [ "$vocab" -eq $((5 * 320 * 4)) ]
    call 0 logits "$tiny" --tokens 5 --json && prints '"top"'; result logits_have_json
    call 1 logits "$tiny" --tokens 5,320 -o "$work/no.f32" && says "outside the vocabulary" && [ ! -e "$work/no.f32" ]
    result logits_check_ids
    call 1 logits "$tiny" --tokens 5 --set block_count=1 && says "shapes"; result shape_keys_are_refused
    call 0 logits "$tiny" --tokens 5,6 --set qwen3moe.rope.freq_base=777 && ! cmp -s "$out" <(head -c 2560 "$work/whole.f32")
    result free_keys_are_set
    local trained
    trained=$("$nj" inspect "$tiny" --json | sed -n 's/^    "context": \([0-9]*\),/\1/p')
    call 0 logits "$tiny" --tokens 5 --ctx "$trained" -o "$work/x.f32" && [ ! -s "$talk" ] &&
        call 0 logits "$tiny" --tokens 5 --ctx $((2 * trained + 1)) -o "$work/x.f32" &&
        says "beyond the $trained tokens" && says "yarn:3"
    result context_beyond_training_is_told
    call 0 logits "$tiny" --tokens 5 --ctx $((2 * trained)) --rope-scaling yarn:2 -o "$work/x.f32" && [ ! -s "$talk" ]
    result stretched_context_is_no_news
}

test_perplexity() {
    head -c 9000 tests/data/nano-heldout.txt >"$work/text"
    call 0 perplexity "$nano" -f "$work/text" --chunk 256 && prints "perplexity " && prints "+/-"
    result perplexity_has_an_error_bar
    local text json
    text=$(sed -n 's/^perplexity \([0-9]*\.[0-9][0-9]\).*/\1/p' "$out")
    call 0 perplexity "$nano" -f "$work/text" --chunk 256 --json -q
    json=$(sed -n 's/^  "perplexity": \([0-9]*\.[0-9][0-9]\).*/\1/p' "$out")
    check perplexity_agrees_with_its_json "$text and $json" [ -n "$text" -a "$text" = "$json" ]
    check surprise_of_each_token "entries" [ "$(grep -c '"nll":' "$out")" = "$(sed -n 's/^  "scored": \([0-9]*\),/\1/p' "$out")" ]
    call 0 perplexity "$nano" -p "A letter, shorter than a chunk." && says "so --chunk is" && prints "1 chunk of"
    result short_text_is_one_chunk
    call 1 perplexity "$nano" -p "too short" --chunk 512 && says "--chunk"; result text_shorter_than_its_chunk_is_told
    call 1 perplexity "$nano" -p "a" --second-half && says "nothing to score"; result text_too_short_to_score_is_told
    call 2 perplexity "$nano" -f "$work/text" --chunk 256 --ctx 100 && says "--chunk 256 is more than --ctx 100"
    result chunk_beyond_ctx_is_told
    call 1 perplexity "$nano" -f "$work/text" --chunk 100000 && says "--chunk 100000 is more than the context"
    result chunk_beyond_the_context_is_told
    call 0 perplexity "$nano" -f "$work/text" --ctx 100 && prints "chunks of 100"; result chunk_follows_ctx
    call 1 perplexity "$nano" && says "There is no text."; result perplexity_wants_text
    call 0 perplexity "$nano" -f "$work/text" --second-half --chunk 256 && prints "second halves"
    result second_half
}

test_quantize() {
    needs quantize_writes_a_smaller_model "$nano" || return
    local nano=$nano
    if [ "$nano" = appliance/demo/nano-q8_0.gguf ]; then # where the original is absent, something that may stand for it
        call 0 quantize "$nano" "$work/nano-bf16.gguf" BF16 --allow-requantize -q; result quantize_widens
        nano=$work/nano-bf16.gguf
    fi
    call 0 quantize "$nano" "$work/q.gguf" q4_k_m && prints "experts" && [ -s "$work/q.gguf" ] &&
        call 0 inspect "$work/q.gguf" && prints "q4_k"
    result quantize_writes_a_smaller_model
    call 0 inspect "$work/q.gguf" --json && grep -A3 'general.file_type' "$out" | grep -q '"value": 15'
    result file_type_is_set
    call 1 quantize "$nano" "$work/q.gguf" Q8_0 && says "--force"; result quantize_keeps_what_is_there
    call 1 quantize "$work/q.gguf" "$work/r.gguf" Q8_0 && says "--allow-requantize" && [ ! -e "$work/r.gguf" ]
    result quantize_wants_originals
    call 0 quantize "$work/q.gguf" "$work/r.gguf" Q8_0 --allow-requantize -q && [ ! -s "$out" ]
    result quantize_can_be_quiet
    call 1 quantize "$work/r.gguf" "$work/r.gguf" Q4_0 --force --allow-requantize && says "input itself"
    result quantize_spares_its_input
    call 0 quantize "$nano" "$work/a.gguf" q5_0 --threads 1 && call 0 quantize "$nano" "$work/b.gguf" q5_0 --threads 2 &&
        cmp -s "$work/a.gguf" "$work/b.gguf"
    result quantize_is_the_same_for_any_threads
    call 2 quantize "$nano" "$work/c.gguf" q9_z; result unknown_type_is_told
    call 1 quantize "$nano" "$work/no/c.gguf" q8_0; result absent_folder_is_told
    check no_part_file_stays "part" [ -z "$(ls "$work" | grep part)" ]
}

test_run() {
    needs same_seed_same_text "$nano" || return
    call 0 run "$nano" -p "Once upon a time" -n 20 --seed 7 && [ -s "$out" ] && mv "$out" "$work/first" &&
        call 0 run "$nano" -p "Once upon a time" -n 20 --seed 7 --threads 1 && cmp -s "$work/first" "$out"
    result same_seed_same_text
    call 0 run "$nano" -p "Once" -n 5 --temp 0 --stats && says "tok/s" && says "GB/s"; result stats
    call 0 run "$nano" -p "Once" -n 5 --temp 0 --json && prints '"finish_reason": "length"'
    result run_has_json
    echo "Once upon" | "$nj" run "$nano" --raw -n 5 --temp 0 >"$out" 2>"$talk"
    check run_reads_a_pipe "no answer" [ -s "$out" ]
    call 1 run "$nano" -p "" && says "The prompt is empty." && call 1 run "$nano" && says "The prompt is empty." &&
        call 1 run "$nano" -p " $(printf '\n') " && says "The prompt is empty." && call 1 run "$nano" -p "" --raw &&
        says "The prompt is empty."
    result empty_prompt_is_told
    call 0 run "$nano" -p "Once" -n 5 && says "[ended at its length limit]"; result cut_answer_is_told
    call 0 run "$nano" -p "Once" -n 2 --stats && ! says "from the cache" && says "prompt tokens at"
    result stats_name_the_cache_only_when_used
    call 1 run "$nano" -p "$(printf 'word %.0s' {1..2000})" && says "context"; result long_prompt_is_told
}

# Waits at most 30 s until a file has something in it.
wait_for() {
    local end=$((SECONDS + 30))
    until [ -s "$1" ]; do [ $SECONDS -lt $end ] || return 1; done
}

test_interrupt() {
    needs ctrl_c_ends_an_answer "$nano" || return
    local status=0 pid
    : >"$out"
    "$nj" run "$nano" -p "Once upon a time" --ignore-eos --ctx 1000 >"$out" 2>"$talk" </dev/null &
    pid=$!
    wait_for "$out" && kill -INT "$pid"
    wait "$pid" || status=$?
    [ "$status" -eq 130 ] && says "cancelled"; result ctrl_c_ends_an_answer
    status=0
    "$nj" quantize "$nano" "$work/i.gguf" q2_k --threads 1 --allow-requantize >"$out" 2>"$talk" </dev/null &
    pid=$!
    wait_for "$work/i.gguf.part" && kill -INT "$pid"
    wait "$pid" || status=$?
    [ "$status" -eq 130 ] && [ ! -e "$work/i.gguf" ] && [ ! -e "$work/i.gguf.part" ]; result ctrl_c_leaves_no_half_file
}

# chat OPTIONS...: starts a chat at a terminal that reads what is written to descriptor 9; its pid is in $work/pid.
chat() {
    rm -f "$work/keys" "$work/pid"
    : >"$talk"
    mkfifo "$work/keys" && exec 9<>"$work/keys"
    # shellcheck disable=SC2016
    CHAT="$nj run $* " timeout 60 script -qefc 'echo $$ >'"$work/pid"'; exec $CHAT' /dev/null <&9 >"$talk" 2>&1 &
    session=$!
    heard "/help lists the commands" && heard "> "
}
# heard TEXT: waits at most 30 s until the chat has said it.
heard() {
    local end=$((SECONDS + 30))
    until says "$1"; do [ $SECONDS -lt $end ] || return 1; done
}
# left STATUS: the chat has ended with STATUS.
left() {
    local status=0
    wait "$session" || status=$?
    exec 9>&-
    [ "$status" -eq "$1" ]
}

# A chat at the terminal that is stopped, interrupted, left alone and talked to for long.
test_chat_ends() {
    chat "$nano" --seed 1 && kill -TERM "$(cat "$work/pid")" && left 143; result sigterm_ends_an_idle_chat
    chat "$nano" --seed 1 --ignore-eos && printf 'Hello\n' >&9 && heard "Hello" && kill -TERM "$(cat "$work/pid")" && left 143
    result sigterm_ends_an_answering_chat
    chat "$nano" --seed 1 && printf '\003' >&9 && heard "Ctrl-D or /quit leaves." && printf '   \n/help\n/exit\n' >&9 && left 0 &&
        says "(/exit and Ctrl-D do too)" && ! says "tok/s"
    result ctrl_c_at_an_empty_prompt_tells_how_to_leave
    chat "$nano" -n 30 --ignore-eos --ctx 160 --seed 1 --system Short.
    printf 'The first of many lines.\nThe second line.\nThe third line.\nThe fourth line.\nThe fifth line.\n' >&9
    printf '%s\n/quit\n' "$(printf 'word %.0s' {1..300})" >&9
    left 0 && heard "left out from now on" && heard "more than the context of 160"; result full_chat_goes_on
}

# The chat at a terminal: two turns, a stopped answer, and leaving. `script` gives it a terminal.
test_chat() {
    needs chat_remembers_and_leaves "$nano" || return
    if ! script -qec true /dev/null </dev/null >/dev/null 2>&1; then
        echo "SKIP chat_remembers_and_leaves: there is no terminal to be had (script)"
        return
    fi
    local status=0
    { printf 'Hello there\n'; printf '/stats\n'; printf '/quit\n'; } |
        timeout 60 script -qec "$nj run $nano -n 12 --seed 1 --stats" /dev/null >"$talk" 2>&1 || status=$?
    check chat_remembers_and_leaves "status $status" [ "$status" -eq 0 ]
    check chat_answers "no figures" says "tok/s"
    test_chat_ends
}

test_usage
test_output_errors
test_tokens
test_template
test_inspect
test_logits
test_perplexity
test_quantize
test_run
test_interrupt
test_chat
[ "$failures" -eq 0 ]
