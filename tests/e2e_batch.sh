#!/bin/bash
# nightjar batch and answers, end to end with the small model: what a result file holds, that no answer depends on
# --parallel or on interruptions, and that every line of the input ends in the output exactly once, whatever happens.
set -u
cd "$(dirname "$0")/.." || exit 2
nightjar=${NIGHTJAR:-./nightjar}
model=appliance/demo/nano-q8_0.gguf
[ -r "$model" ] || model=../shared/golden/models/nano-bf16.gguf
if [ ! -r "$model" ]; then
    echo "SKIP e2e_batch: no model (appliance/demo/nano-q8_0.gguf)"
    exit 0
fi
work=$(mktemp -d) || exit 2
trap 'rm -rf "$work"' EXIT
failures=0

check() { # name, reason ("" is good)
    if [ -z "$2" ]; then echo "ok $1"; else
        echo "FAILED $1: $2"
        failures=$((failures + 1))
    fi
}

batch() { # IN OUT [OPTION...]: stderr goes to $work/err
    local in=$1 out=$2
    shift 2
    "$nightjar" batch -m "$model" -i "$in" -o "$out" --threads 2 "$@" 2>"$work/err"
}

texts() { "$nightjar" answers "$1" -i "$2" --json; } # in the order of the input: OUT IN

keys() { # what each line of a result file is about
    sed -n 's/^{"id":"[^"]*","custom_id":\("[^"]*"\),.*/\1/p; s/.*"custom_id":null.*"line":\([0-9]*\)}}$/line \1/p' "$1"
}

twice() { keys "$1" | sort | uniq -d | head -n 3 | tr '\n' ' '; }

chat() { # custom_id text [more members of the body]
    printf '{"custom_id":"%s","method":"POST","url":"/v1/chat/completions","body":{"messages":[{"role":"user","content":"%s"}]%s}}\n' "$1" "$2" "${3:-}"
}

complete() {
    printf '{"custom_id":"%s","method":"POST","url":"/v1/completions","body":{"prompt":"%s"%s}}\n' "$1" "$2" "${3:-}"
}

# ---- A file of everything ----

{
    chat greet 'Good evening.' ',"max_tokens":24'
    complete moon 'The moon rose over' ',"max_tokens":24,"n":3,"temperature":1.2'
    echo 'this is not JSON'
    echo
    complete greedy 'Once upon a time' ',"max_tokens":20,"temperature":0,"logprobs":2'
    chat greet 'The same id again.' ',"max_tokens":4'
    echo '{"method":"POST","url":"/v1/completions","body":{"prompt":"x"}}'
    echo '{"custom_id":17,"method":"POST","url":"/v1/completions","body":{"prompt":"x"}}'
    echo '{"custom_id":"url","method":"POST","url":"/v1/embeddings","body":{}}'
    complete hot 'Too hot' ',"temperature":9'
    complete ids 'x' ',"max_tokens":5,"logit_bias":{"99999999":1}'
    complete long "$(head -c 60000 /dev/zero | tr '\0' 'a' | sed 's/aaaaa/many /g')"
    complete stop 'He said that' ',"max_tokens":40,"temperature":0,"stop":[",","."]'
    complete seeded 'Two roads' ',"max_tokens":16,"seed":-5'
    printf '%s' "$(complete last 'No newline at the end of' ',"max_tokens":8')"
} >"$work/in.jsonl"
sha=$(sha256sum <"$work/in.jsonl")

check exit_status_is_0_with_error_lines "$(batch "$work/in.jsonl" "$work/1.jsonl" --parallel 1 --json >"$work/summary" || cat "$work/err")"
check every_line_ends_exactly_once "$([ "$(keys "$work/1.jsonl" | sort | tr '\n' ' ')" = \
    '"greedy" "greet" "hot" "ids" "last" "long" "moon" "seeded" "stop" "url" line 3 line 6 line 7 line 8 ' ] || keys "$work/1.jsonl" | tr '\n' ' ')"
for pair in 'line":3:invalid_json' 'line":6:duplicate_custom_id' 'line":7:missing_custom_id' 'line":8:invalid_custom_id' \
    '"url":invalid_url' '"hot":invalid_value' '"ids":invalid_request' '"long":invalid_request'; do
    where=${pair%:*} code=${pair##*:}
    check "error_line_$code" "$(grep -F "$where" "$work/1.jsonl" | grep -q "\"response\":null,\"error\":{\"code\":\"$code\"" || echo "none for $where")"
done
check moon_has_three_answers "$(grep '"custom_id":"moon"' "$work/1.jsonl" | grep -q '"index":2,.*"usage":{"prompt_tokens":[0-9]*,"completion_tokens":[1-9]' || grep moon "$work/1.jsonl")"
check stop_ends_before_its_string "$(texts "$work/1.jsonl" "$work/in.jsonl" | grep '^{"custom_id":"stop"' | grep -q '"answers":\["[^,.]*"\],"finish_reasons":\["stop"\]' || echo 'the answer holds a stop string')"
check summary_counts "$(for w in '"requests": 14,' '"answered": 6,' '"errors": 8,'; do grep -q "$w" "$work/summary" || echo "no $w"; done)"
check input_is_not_touched "$([ "$sha" = "$(sha256sum <"$work/in.jsonl")" ] || echo changed)"

texts "$work/1.jsonl" "$work/in.jsonl" >"$work/reference"
for n in 3 8; do
    batch "$work/in.jsonl" "$work/$n.jsonl" --parallel $n --quiet
    check "same_texts_with_parallel_$n" "$(texts "$work/$n.jsonl" "$work/in.jsonl" | diff "$work/reference" - | head -n 4)"
done

cp "$work/1.jsonl" "$work/again.jsonl"
batch "$work/in.jsonl" "$work/again.jsonl"
check a_finished_batch_is_left_alone "$(cmp "$work/1.jsonl" "$work/again.jsonl" 2>&1)$(grep -q 'found 14 of 14 done' "$work/err" || cat "$work/err")"

# ---- Torn and foreign files ----

# Cut the file inside each of its last bytes' neighbourhoods: the rest must come back, once.
size=$(stat -c %s "$work/1.jsonl")
why=
for cut in 1 2 9 300 $((size / 2)) $((size - 5)) $((size - 1)); do
    head -c $((size - cut)) "$work/1.jsonl" >"$work/torn.jsonl"
    whole=$(wc -l <"$work/torn.jsonl")
    batch "$work/in.jsonl" "$work/torn.jsonl" || why="$why cut $cut: $(cat "$work/err")"
    [ "$whole" = 0 ] || grep -q "found $whole of 14 done" "$work/err" || why="$why cut $cut: not $whole found"
    texts "$work/torn.jsonl" "$work/in.jsonl" | cmp -s - "$work/reference" || why="$why cut $cut: other texts"
    why="$why$(twice "$work/torn.jsonl")"
done
check a_torn_tail_is_cut_and_done_again "$why"

{ head -n 3 "$work/1.jsonl"; head -c 700 /dev/zero; echo; head -c 300 /dev/zero; } >"$work/zeros.jsonl"
batch "$work/in.jsonl" "$work/zeros.jsonl"
check zeros_of_a_power_cut_are_cut_off "$(texts "$work/zeros.jsonl" "$work/in.jsonl" | diff "$work/reference" - | head -n 4)$(twice "$work/zeros.jsonl")"

why=
printf 'my diary' >"$work/diary"
{ head -n 2 "$work/1.jsonl"; echo 'a note of mine'; tail -n 2 "$work/1.jsonl"; } >"$work/mixed"
head -c 5000 "$model" >"$work/model"
for f in diary mixed model in.jsonl; do
    before=$(sha256sum <"$work/$f")
    batch "$work/in.jsonl" "$work/$f"
    [ $? = 1 ] || why="$why $f: not refused"
    [ "$before" = "$(sha256sum <"$work/$f")" ] || why="$why $f: changed"
done
check files_of_another_kind_are_refused_and_untouched "$why"

head -n 4 "$work/1.jsonl" >"$work/locked.jsonl"
flock "$work/locked.jsonl" "$nightjar" batch -m "$model" -i "$work/in.jsonl" -o "$work/locked.jsonl" 2>"$work/err"
status=$? why=
[ $status = 1 ] || why="exit status $status"
grep -q 'another nightjar' "$work/err" || why="$why $(cat "$work/err")"
check a_second_process_is_refused "$why"

{ head -n 3 "$work/1.jsonl"; sed 's/"custom_id":"[a-z]*"/"custom_id":"of another day"/' "$work/1.jsonl" | grep -m1 'another day'; } >"$work/strange.jsonl"
batch "$work/in.jsonl" "$work/strange.jsonl"
why=
grep -q '1 results of requests that are not in' "$work/err" || why=$(cat "$work/err")
grep -q 'another day' "$work/strange.jsonl" || why="$why the line has gone"
check results_of_other_requests_are_told_and_kept "$why"

# ---- Errors tried again ----

batch "$work/in.jsonl" "$work/again.jsonl"
why=$(grep -q 'found 14 of 14 done, 8 of them with an error' "$work/err" && grep -q -- '--retry-errors' "$work/err" || cat "$work/err")
check errors_found_done_are_told "$why"

# The broken line 3 and the too hot request are mended; the other six errors come again, and a stranger's error stays.
sed -e '3s/.*/{"custom_id":"mended","method":"POST","url":"\/v1\/completions","body":{"prompt":"x","max_tokens":3}}/' \
    -e 's/"temperature":9/"temperature":1,"max_tokens":3/' "$work/in.jsonl" >"$work/mended.jsonl"
stranger='{"id":"x","custom_id":"of another day","response":null,"error":{"code":"x","message":"x"}}'
{ cat "$work/1.jsonl"; echo "$stranger"; } >"$work/retry.ref"
cp "$work/retry.ref" "$work/retry.jsonl"
batch "$work/mended.jsonl" "$work/retry.jsonl" --retry-errors
why=$(grep -q 'took 8 error lines' "$work/err" || cat "$work/err")
[ "$(grep -c '"response":null' "$work/retry.jsonl")" = 7 ] || why="$why other errors than the 6 and the stranger's"
grep -qF "$stranger" "$work/retry.jsonl" || why="$why the stranger has gone"
[ "$(wc -l <"$work/retry.jsonl")" = 15 ] || why="$why $(wc -l <"$work/retry.jsonl") lines"
[ ! -e "$work/retry.jsonl.part" ] || why="$why a .part was left"
check retry_errors_tries_all_errors_again "$why$(twice "$work/retry.jsonl")"
keys "$work/retry.jsonl" | sort >"$work/retry.keys"

RANDOM=7 why=
for i in $(seq 12); do
    cp "$work/retry.ref" "$work/retry.jsonl"
    "$nightjar" batch -m "$model" -i "$work/mended.jsonl" -o "$work/retry.jsonl" --threads 2 --retry-errors 2>"$work/err" &
    pid=$!
    read -r -t "0.$(printf %03d $((RANDOM % 60)))" <> <(:)
    kill -9 $pid
    wait $pid
    grep -qF "$stranger" "$work/retry.jsonl" || why="$why the stranger has gone"
    [ "$(grep -c '"error":null' "$work/retry.jsonl")" -ge 6 ] || why="$why answers were lost"
    batch "$work/mended.jsonl" "$work/retry.jsonl" --retry-errors || why="$why $(cat "$work/err")"
    keys "$work/retry.jsonl" | sort | cmp -s - "$work/retry.keys" || why="$why other lines"
    why="$why$(twice "$work/retry.jsonl")"
done 2>/dev/null
check retry_errors_survives_kills "$why"

# ---- Wrong files ----

refused() { # exit status, text, OUT that must not be there, command...
    local want=$1 text=$2 absent=$3 got=0
    shift 3
    "$@" >"$work/said" 2>&1 </dev/null || got=$?
    [ $got = "$want" ] || echo "exit status $got"
    grep -qF -- "$text" "$work/said" || cat "$work/said"
    [ -z "$absent" ] || [ ! -e "$absent" ] || echo "$absent was left"
    [ "$(wc -l <"$work/said")" -le 3 ] || cat "$work/said"
}

new=$work/new.jsonl
check a_model_as_requests_is_refused "$(refused 1 '"custom_id": "a-1"' "$new" "$nightjar" batch -m "$model" -i "$model" -o "$new")"
check a_diary_as_requests_is_refused "$(refused 1 'none of its lines' "$new" "$nightjar" batch -m "$model" -i "$work/diary" -o "$new")"
check requests_from_a_pipe_are_refused "$(refused 2 'save the requests' "$new" "$nightjar" batch -m "$model" -i - -o "$new")"
check a_missing_model_leaves_no_result_file "$(refused 1 nosuch.gguf "$new" "$nightjar" batch -m nosuch.gguf -i "$work/in.jsonl" -o "$new")"
check a_wrong_model_is_the_only_thing_told "$(refused 1 in.jsonl "$new" "$nightjar" batch -m "$work/in.jsonl" -i "$work/in.jsonl" -o "$new")$(grep -E 'done|results:' "$work/said")"
: >"$work/empty"
check an_empty_input_is_told "$(refused 0 'holds no requests' '' "$nightjar" batch -m "$model" -i "$work/empty" -o "$new")"

check answers_of_a_folder "$(refused 1 'is a folder' '' "$nightjar" answers "$work")"
check answers_of_nothing "$(refused 1 'it is made when a batch begins' '' "$nightjar" answers "$work/nosuch")"
check answers_of_requests "$(refused 1 'name the result file first' '' "$nightjar" answers "$work/in.jsonl" "$work/1.jsonl")"
chat other 'Good evening.' >"$work/other.jsonl"
"$nightjar" answers "$work/1.jsonl" "$work/other.jsonl" >/dev/null 2>"$work/err"
check answers_to_other_requests_are_told "$([ $? = 1 ] && grep -q 'None of the 14 results' "$work/err" || cat "$work/err")"
head -n 1 "$work/in.jsonl" >"$work/first.jsonl"
"$nightjar" answers "$work/1.jsonl" "$work/first.jsonl" >/dev/null 2>"$work/err"
check some_answers_to_other_requests_are_told "$([ $? = 0 ] && grep -q '13 of the 14 results' "$work/err" || cat "$work/err")"

# ---- A full disk ----

why=
(ulimit -f 2 && batch "$work/in.jsonl" "$work/full.jsonl")
[ $? = 1 ] || why="exit status is not 1"
grep -q 'Make room' "$work/err" || why="$why no remedy: $(cat "$work/err")"
[ -z "$(tail -c 1 "$work/full.jsonl" | tr -d '\n')" ] || why="$why a torn line was left"
(ulimit -f 2 && batch "$work/in.jsonl" "$work/full.jsonl")
[ $? = 1 ] || why="$why second exit status is not 1"
batch "$work/in.jsonl" "$work/full.jsonl" || why="$why $(cat "$work/err")"
texts "$work/full.jsonl" "$work/in.jsonl" | cmp -s - "$work/reference" || why="$why other texts"
check a_full_disk_loses_nothing "$why$(twice "$work/full.jsonl")"

# ---- Signals ----

for i in $(seq 40); do
    complete "r$i" "Night number $i was" ',"max_tokens":12'
    [ $((i % 10)) != 0 ] || echo "broken line $i"
done >"$work/many.jsonl"
batch "$work/many.jsonl" "$work/many.ref" --quiet
check many_requests_are_answered "$([ "$(wc -l <"$work/many.ref")" = 44 ] || cat "$work/err")"
texts "$work/many.ref" "$work/many.jsonl" >"$work/many.texts"

lines() { wc -l 2>/dev/null <"$1" || echo 0; }

for pair in INT:130 TERM:143; do
    rm -f "$work/sig.jsonl"
    "$nightjar" batch -m "$model" -i "$work/many.jsonl" -o "$work/sig.jsonl" --parallel 1 2>"$work/err" &
    pid=$! deadline=$((SECONDS + 60))
    while [ "$(lines "$work/sig.jsonl")" -lt 2 ] && [ $SECONDS -lt $deadline ] && kill -0 $pid 2>/dev/null; do :; done
    kill -"${pair%:*}" $pid
    wait $pid
    status=$? why=
    [ $status = "${pair#*:}" ] || why="exit status $status"
    grep -q 'The same command goes on' "$work/err" || why="$why $(cat "$work/err")"
    batch "$work/many.jsonl" "$work/sig.jsonl" || why="$why $(cat "$work/err")"
    texts "$work/sig.jsonl" "$work/many.jsonl" | cmp -s - "$work/many.texts" || why="$why other texts"
    check "sig${pair%:*}_stops_cleanly" "$why$(twice "$work/sig.jsonl")"
done

# kill -9 at random moments of a run, over and over; whenever the batch gets done, it is compared and begun anew.
RANDOM=20261120
begin=${EPOCHREALTIME/[.,]/}
rm -f "$work/kill.jsonl"
batch "$work/many.jsonl" "$work/kill.jsonl" --parallel 4
span_us=$((${EPOCHREALTIME/[.,]/} - begin))
wanted=60
case $nightjar in
*san/*) # a run takes many times as long: fewer kills then, about four minutes of them
    wanted=$((240 * 1000000 / (span_us / 2 + 1)))
    [ $wanted -lt 60 ] || wanted=60
    [ $wanted -gt 10 ] || wanted=10
    ;;
esac
kills=0 hits=0 rounds=0 why=
rm -f "$work/kill.jsonl"
while [ $kills -lt $wanted ] && [ -z "$why" ]; do
    had=$(lines "$work/kill.jsonl")
    us=$((RANDOM * span_us / 32768))
    "$nightjar" batch -m "$model" -i "$work/many.jsonl" -o "$work/kill.jsonl" --threads 2 --parallel 4 2>"$work/err" &
    pid=$!
    read -r -t "$((us / 1000000)).$(printf %06d $((us % 1000000)))" <> <(:) # waits without a process to start
    if kill -9 $pid 2>/dev/null; then kills=$((kills + 1)); fi
    wait $pid 2>/dev/null
    status=$?
    [ "$had" = 0 ] || [ ! -s "$work/err" ] || grep -q "found $had of 44 done" "$work/err" || why="had $had lines: $(cat "$work/err")"
    [ "$(lines "$work/kill.jsonl")" -ge "$had" ] || why="$why lines were lost"
    [ "$(lines "$work/kill.jsonl")" = "$had" ] || hits=$((hits + 1))
    [ -z "$(twice "$work/kill.jsonl")" ] || why="$why twice: $(twice "$work/kill.jsonl")"
    if [ $status = 0 ] || [ $kills = $wanted ]; then
        batch "$work/many.jsonl" "$work/kill.jsonl" || why="$why $(cat "$work/err")"
        [ "$(lines "$work/kill.jsonl")" = 44 ] || why="$why $(lines "$work/kill.jsonl") lines"
        texts "$work/kill.jsonl" "$work/many.jsonl" | cmp -s - "$work/many.texts" || why="$why other texts"
        rounds=$((rounds + 1))
        rm -f "$work/kill.jsonl"
    fi
done 2>/dev/null
echo "kill -9: $kills kills, $hits runs that had added lines, $rounds batches done"
[ $hits -ge $((wanted / 6)) ] || why="$why only $hits runs had added lines before their end: the kills prove nothing"
check every_line_ends_exactly_once_after_random_kills "$why"

[ $failures = 0 ]
