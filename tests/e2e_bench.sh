#!/bin/bash
# nightjar bench and perf/compare as a person calls them. Prints "ok NAME", "FAILED NAME: why" or "SKIP NAME: why".
# $NIGHTJAR is the program (./nightjar).
set -u
cd "$(dirname "$0")/.." || exit 2
nj=${NIGHTJAR:-./nightjar}
model=appliance/demo/nano-q8_0.gguf
work=$(mktemp -d) || exit 2
trap 'rm -rf "$work"' EXIT
out=$work/out talk=$work/talk
failures=0
export LC_ALL=C.UTF-8

# result NAME: of the command before it.
result() {
    local status=$?
    if [ "$status" -eq 0 ]; then echo "ok $1"; return; fi
    echo "FAILED $1: see what it printed and said"
    { head -c 1200 "$out"; echo; head -c 600 "$talk"; } 2>/dev/null | sed 's/^/    /'
    failures=$((failures + 1))
}
# call STATUS COMMAND...: its output in $out, its talk in $talk; true when it ends with STATUS.
call() {
    local want=$1 got=0
    shift
    "$@" >"$out" 2>"$talk" </dev/null || got=$?
    [ "$got" -eq "$want" ] || { echo "exit status $got instead of $want" >>"$talk"; return 1; }
}
bench() { # STATUS ARGS...: a bench of few tokens
    local want=$1
    shift
    call "$want" "$nj" bench -q -p 8 -n 2 -r 1 "$@"
}
says() { grep -qF -- "$1" "$talk"; }
prints() { grep -qE -- "$1" "$out"; }

# ---- Called wrongly ----

call 2 "$nj" bench && says "something is missing"; result bench_needs_a_model
call 2 "$nj" bench a --shape b && says "not both"; result bench_takes_one_model
call 2 "$nj" bench a --layers 2 && says "--layers cuts a --shape"; result layers_belong_to_a_shape
call 2 "$nj" bench a --parallel 1,,4 && says "'' is not a whole number" && call 2 "$nj" bench a --ctx 1,x &&
    call 2 "$nj" bench a --parallel 0 && says "between 1 and" && call 2 "$nj" bench a --threads 1,5000 &&
    call 2 "$nj" bench a --isa avx2,sse9 && says "'sse9' is not one of" &&
    call 2 "$nj" bench a --ctx 1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17 && says "at most 16 values"
result lists_are_checked
call 2 "$nj" bench a --json --report && says "give one of them"; result one_way_to_tell
call 1 "$nj" bench --shape no-such-model:q4_k && says "no-such-model"; result unknown_shape_is_told
call 1 "$nj" bench -q "$model" -p 0 -n 0 && says "nothing to measure"; result nothing_to_measure_is_told

# ---- Measured ----

bench 0 "$model" --parallel 1,2 --ctx 0,100 --threads 1,2 --isa scalar --json &&
    [ "$(grep -c '^{"kind":"prefill"' "$out")" -eq 4 ] && [ "$(grep -c '^{"kind":"decode"' "$out")" -eq 8 ] &&
    prints '"kind":"decode","parallel":2,"ctx":100,"tokens":2,"isa":"scalar","threads":1,"tok_s":[0-9]' &&
    prints '^\{"machine": \{"cpu":' && [ ! -s "$talk" ]
result all_combinations_are_rows
bench 0 "$model" --parallel 1 --kv q8_0 && prints '^prefill +8 ' && prints '^decode +2 .* GB/s read'; result table_is_printed
# 4 TB of KV pages fit nowhere.
bench 0 "$model" --parallel 1,512 --ctx 16000000 --json && prints '^\{"kind":"decode","parallel":512.*"reason":"no room'
result what_does_not_fit_is_skipped
bench 0 "$model" --parallel 1 --report --peer 'echo prefill 2 tok/s, decode 0.5 tok/s' &&
    prints '^\| prefill 8 .*\| 2\.00, ours [0-9.]+x \|$' && prints '^\| decode 2 .*\| 0\.50, ours [0-9.]+x \|$' &&
    [ "$(wc -l <"$out")" -le 25 ]
result report_has_the_peer
bench 1 "$model" --peer 'echo nothing' && says "understood" && says "llama-bench" && [ ! -s "$out" ]
result peer_that_is_not_understood_is_told
bench 1 "$model" --peer 'echo gone >&2; exit 4' && says "exit status 4: gone"; result peer_that_fails_is_told

# Ctrl-C, once something has been measured: it is printed, and no peer goes on.
interrupt_prints_what_is_there() {
    local got=0 pid i
    "$nj" bench -q "$model" -p 8 -n 2 -r 32 --parallel 1 --json \
        --peer "[ -e $work/seen ] || { touch $work/seen; echo decode 1 tok/s; exit; }; echo \$\$ >$work/pid; sleep 600" \
        >"$out" 2>"$talk" </dev/null &
    pid=$!
    for ((i = 0; i < 600 && ! $(test -s "$work/pid"; echo $?) == 0; i++)); do sleep 0.1; done
    kill -INT "$pid"
    wait "$pid" || got=$?
    [ "$got" -eq 130 ] && prints '"kind":"decode".*"repeats":1' && ! kill -0 "$(cat "$work/pid")" 2>/dev/null
}
interrupt_prints_what_is_there; result interrupt_prints_what_is_there

# ---- perf/compare ----

line() { # date cpu isa tok_s share
    printf '{"date":"%s","commit":"abc","cpu":"%s","flags":"cc -O3 -DX=\\"a, b\\"","bench":"model","model":"toy",' "$1" "$2"
    printf '"kind":"decode","parallel":4,"ctx":64,"tokens":16,"isa":"%s","threads":2,"tok_s":%s,"share":%s}\n' "$3" "$4" "$5"
}
kernel='{"date":"d2","commit":"abc","cpu":"X","flags":"f","bench":"kernel","format":"q4_k","acts":"int8","rows":1,'
kernel+='"isa":"avx2","threads":2,"gb_s":20.5,"gop_s":70,"share":0.75}'
{ line d1 X avx2 10 0.5; line d2 X avx2 15 0.75; line d2 X avx512 20 null; echo "$kernel"
    echo "${kernel/\"rows\":1,/\"rows\":16,}"; } >"$work/a"
line d3 Y avx2 30 0.9 >"$work/b"
call 0 perf/compare "$work/a" && prints '^A  d1 ' && prints '^B  d2 ' &&
    prints '^toy decode 16 x4 @ 64  avx2 2t +tok/s +10\.00 +50% +15\.00 +75% +1\.50$' &&
    prints 'avx512 2t +tok/s +- +20\.00' && prints '^q4_k +int8 +1 row .* GB/s +- +20\.50 +75%' &&
    prints '^q4_k +int8 +16 rows .* GOP/s +- +70\.00'
result compare_shows_the_last_two_runs
call 0 perf/compare "$work/a" "$work/b" && prints '^A  d2 ' && prints 'Different CPUs' && prints '75% +30\.00 +90% +2\.00$'
result compare_shows_the_last_run_of_each
call 0 perf/compare "$work/b" && prints ' 30\.00 +90%$'; result compare_shows_a_single_run
echo nonsense >"$work/c"
call 1 perf/compare "$work/c" && says "no run to show" && call 2 perf/compare "$work/none" && says "can't be read"
result compare_tells_what_is_wrong

[ $failures = 0 ]
