#!/bin/bash
# What the Makefile and tests/run tell a person on a machine where something is missing or wrong. Prints "ok NAME",
# "FAILED NAME: why" or "SKIP NAME: why". Builds nothing.
set -u
cd "$(dirname "$0")/.." || exit 2
unset MAKEFLAGS MFLAGS MAKELEVEL MAKEOVERRIDES
work=$(mktemp -d) || exit 2
trap 'rm -rf "$work"' EXIT
failures=0

# tells NAME TEXT COMMAND...: the command fails and says TEXT.
tells() {
    local name=$1 text=$2
    shift 2
    if "$@" >"$work/said" 2>&1 </dev/null; then
        echo "FAILED $name: it did not fail"
    elif grep -qF -- "$text" "$work/said"; then
        echo "ok $name"
        return
    else
        echo "FAILED $name: $(head -c 400 "$work/said")"
    fi
    failures=$((failures + 1))
}

# A compiler that finds no header.
cat >"$work/cc" <<'END'
#!/bin/sh
echo "<stdin>:2:10: fatal error: hwloc.h: No such file or directory" >&2
exit 1
END
chmod +x "$work/cc"
tells missing_headers_name_make_setup 'make setup' make CC="$work/cc" BUILD="$work/build" all
tells missing_compiler_names_make_setup 'make setup' make CC=no-such-compiler BUILD="$work/build" all
tells unknown_fuzz_target_lists_them 'gguf template tokenizer' make fuzz FUZZ=nonsense

mkdir "$work/clone"
cp Makefile "$work/clone"
chmod 755 "$work" "$work/clone"
if [ "$(id -u)" -ne 0 ]; then
    chmod a-w "$work/clone"
    tells read_only_clone_is_told "can't be written to" make -C "$work/clone" demo
elif command -v setpriv >/dev/null; then
    tells read_only_clone_is_told "can't be written to" \
        setpriv --reuid 65534 --regid 65534 --clear-groups make -C "$work/clone" demo
else
    echo "SKIP read_only_clone_is_told: this is root, who may write everywhere, and there is no setpriv"
fi
chmod u+w "$work/clone"

# A build whose one test program passes one test and skips four, for two reasons.
mkdir -p "$work/fake/tests"
cat >"$work/fake/tests/test_base" <<'END'
#!/bin/sh
echo '[==========] base: Running 5 test(s).'
echo '[ RUN      ] p'; echo '[       OK ] p'
for name in a b c d; do
    echo "[ RUN      ] $name"
    case $name in d) echo 'SKIP lonely: no moon' ;; *) echo 'SKIP golden: no gold: none' ;; esac
    echo "[  SKIPPED ] $name"
done
echo '[==========] base: 5 test(s) run.'
END
chmod +x "$work/fake/tests/test_base"
tests/run "$work/fake" test_base >"$work/said" 2>&1
why=
for text in '    test_base: 3 x golden: no gold: none' '    test_base: lonely: no moon' '1 passed, 0 failed, 4 skipped'; do
    grep -qxF "$text" "$work/said" || why="$why no '$text'"
done
if [ -z "$why" ]; then echo "ok equal_skips_are_counted"; else
    echo "FAILED equal_skips_are_counted:$why $(cat "$work/said")"
    failures=$((failures + 1))
fi

[ $failures = 0 ]
