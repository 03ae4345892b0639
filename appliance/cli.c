#include <errno.h>
#include <getopt.h>
#include <libgen.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "appliance/cli.h"
#include "appliance/config.h"
#include "appliance/text.h"

#define OPTIONS_MAX 64
#define HELP_INDENT 26
#define HELP_WIDTH  100

/* ---- Values ---- */

int nj_cli_text(const nj_cli_option *o, const char *text, void *dest, nj_error *err)
{
    (void)o, (void)err;
    *(const char **)dest = text;
    return 0;
}

int nj_cli_list(const nj_cli_option *o, const char *text, void *dest, nj_error *err)
{
    nj_cli_strings *list = dest;
    if (nj_array_grow(&list->item, &list->cap, list->count + 1, sizeof *list->item) != 0)
        return nj_fail(err, -ENOMEM, "--%s: no memory for so many values.", o->name);
    list->item[list->count++] = text;
    return 0;
}

static int out_of_range(const nj_cli_option *o, const char *text, nj_error *err)
{
    return nj_fail(err, -EINVAL, "--%s: %s is not between %.15g and %.15g.", o->name, text, o->min, o->max);
}

static bool bounded(const nj_cli_option *o)
{
    return o->min != 0 || o->max != 0;
}

int nj_cli_u64(const nj_cli_option *o, const char *text, void *dest, nj_error *err)
{
    char *end;
    errno = 0;
    unsigned long long n = strtoull(text, &end, 10);
    if (*text < '0' || *text > '9' || *end)
        return nj_fail(err, -EINVAL, "--%s: '%s' is not a whole number.", o->name, text);
    if (errno == ERANGE) return nj_fail(err, -EINVAL, "--%s: %s is too large.", o->name, text);
    if (bounded(o) && !((double)n >= o->min && (double)n <= o->max)) return out_of_range(o, text, err);
    *(uint64_t *)dest = n;
    return 0;
}

int nj_cli_u32(const nj_cli_option *o, const char *text, void *dest, nj_error *err)
{
    uint64_t n = 0;
    int rc = nj_cli_u64(o, text, &n, err);
    if (rc != 0) return rc;
    if (n > UINT32_MAX) return nj_fail(err, -EINVAL, "--%s: %s is too large.", o->name, text);
    *(uint32_t *)dest = (uint32_t)n;
    return 0;
}

int nj_cli_size(const nj_cli_option *o, const char *text, void *dest, nj_error *err)
{
    static const char suffixes[] = "KMGT";
    char *end;
    double n = *text >= '0' && *text <= '9' ? strtod(text, &end) : NAN;
    if (!isfinite(n) || (text[0] == '0' && (text[1] | 32) == 'x')) goto malformed;
    if (*end) {
        const char *s = strchr(suffixes, *end & ~32);
        if (!s) goto malformed;
        n = ldexp(n, 10 * (int)(s - suffixes + 1));
        end++;
        if (*end == 'i') end++;
        if (*end == 'B' || *end == 'b') end++;
        if (*end) goto malformed;
    }
    if (bounded(o) && !(n >= o->min && n <= o->max)) return out_of_range(o, text, err);
    if (n >= 0x1p63) return nj_fail(err, -EINVAL, "--%s: %s is too large.", o->name, text);
    *(uint64_t *)dest = (uint64_t)n;
    return 0;
malformed:
    return nj_fail(err, -EINVAL, "--%s: '%s' is not a size like 512M or 8G.", o->name, text);
}

int nj_cli_float(const nj_cli_option *o, const char *text, void *dest, nj_error *err)
{
    char *end;
    float n = strtof(text, &end);
    if (end == text || *end || !isfinite(n)) return nj_fail(err, -EINVAL, "--%s: '%s' is not a number.", o->name, text);
    if (bounded(o) && !(n >= (float)o->min && n <= (float)o->max)) return out_of_range(o, text, err);
    *(float *)dest = n;
    return 0;
}

int nj_cli_isa(const nj_cli_option *o, const char *text, void *dest, nj_error *err)
{
    int isa = nj_isa_find(text);
    if (isa < 0) return nj_fail(err, -EINVAL, "--%s: '%s' is not one of scalar, avx2, avx512, amx.", o->name, text);
    if (!nj_kernels_get((nj_isa)isa))
        return nj_fail(err, -EINVAL, "--%s: this machine can't run %s; its best is %s.", o->name, text,
                       nj_isa_name(nj_isa_best()));
    *(int *)dest = isa;
    return 0;
}

int nj_cli_kv(const nj_cli_option *o, const char *text, void *dest, nj_error *err)
{
    int type = nj_format_find(text);
    if (type != NJ_F16 && type != NJ_F32 && type != NJ_Q8_0)
        return nj_fail(err, -EINVAL, "--%s: '%s' is not one of f16, f32, q8_0.", o->name, text);
    *(int *)dest = type;
    return 0;
}

/* ---- Suggestions ---- */

static size_t min2(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* Edit distance with swapped neighbours (optimal string alignment); words longer than 31 letters are far from all. */
static size_t word_distance(const char *a, const char *b)
{
    size_t n = strlen(a), m = strlen(b), d[32][32];
    if (n > 31 || m > 31) return SIZE_MAX;
    for (size_t i = 0; i <= n; i++) {
        for (size_t j = 0; j <= m; j++) {
            if (!i || !j) {
                d[i][j] = i + j;
                continue;
            }
            d[i][j] = min2(d[i - 1][j - 1] + (a[i - 1] != b[j - 1]), min2(d[i - 1][j], d[i][j - 1]) + 1);
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
                d[i][j] = min2(d[i][j], d[i - 2][j - 2] + 1);
        }
    }
    return d[n][m];
}

const char *nj_cli_suggest(const char *word, const char *const *list)
{
    const char *best = NULL;
    size_t least = 1 + strlen(word) / 3;
    for (size_t i = 0; list[i]; i++) {
        size_t d = word_distance(word, list[i]);
        if (d < least || (d == least && !best)) best = list[i], least = d;
    }
    for (size_t i = 0; !best && list[i]; i++)
        if (strlen(word) >= 2 && strncmp(word, list[i], strlen(word)) == 0) best = list[i];
    return best;
}

/* ---- Command line ---- */

/* Prints `text` wrapped, the first line starting at column `at`, the others at HELP_INDENT. */
static void print_wrapped(const char *text, size_t at, size_t width)
{
    if (at > HELP_INDENT - 2) at = (size_t)printf("\n") - 1;
    printf("%*s", (int)(HELP_INDENT - at), "");
    for (size_t column = HELP_INDENT; *text;) {
        size_t word = strcspn(text, " ");
        if (column > HELP_INDENT && column + 1 + word > width) {
            printf("\n%*s", HELP_INDENT, "");
            column = HELP_INDENT;
        }
        column += (size_t)printf("%s%.*s", column > HELP_INDENT ? " " : "", (int)word, text);
        text += word;
        while (*text == ' ') text++;
    }
    putchar('\n');
}

static void print_help(const nj_cli_verb *v)
{
    size_t width = min2(nj_config_columns(stdout), HELP_WIDTH);
    printf("Usage: nightjar %s %s\n\n%s\n\nOptions:\n", v->name, v->usage, v->summary);
    for (const nj_cli_option *o = v->options; o->name || o->help; o++) {
        if (!o->name) {
            printf("\n%s\n", o->help);
            continue;
        }
        int at = o->letter ? printf("  -%c, --%s", o->letter, o->name) : printf("      --%s", o->name);
        if (o->value) at += printf(" %s", o->value);
        print_wrapped(o->help, (size_t)at, width);
    }
    if (v->examples) printf("\nExamples:\n%s", v->examples);
}

int nj_cli_usage(const nj_cli_verb *verb, const char *fmt, ...)
{
    char text[1024];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    nj_progress_say(NULL, "nightjar %s: %s\nTry: nightjar %s --help", verb->name, text, verb->name);
    return 2;
}

/* Row of the table behind a getopt value (a letter, or 256 + row). */
static const nj_cli_option *find_option(const nj_cli_verb *v, int key)
{
    if (key >= 256) return &v->options[key - 256];
    for (const nj_cli_option *o = v->options; o->name || o->help; o++)
        if (o->name && o->letter && o->letter == key) return o;
    return NULL;
}

static int unknown_option(const nj_cli_verb *v, const char *word)
{
    const char *names[OPTIONS_MAX + 2] = { "help" };
    char given[64];
    size_t n = 1;
    for (const nj_cli_option *o = v->options; (o->name || o->help) && n <= OPTIONS_MAX; o++)
        if (o->name) names[n++] = o->name;
    if (optopt) return nj_cli_usage(v, "there is no option -%c.", optopt);
    snprintf(given, sizeof given, "%.*s", (int)strcspn(word + 2, "="), word + 2);
    const char *near = nj_cli_suggest(given, names);
    if (near) return nj_cli_usage(v, "there is no option --%s. Did you mean --%s?", given, near);
    return nj_cli_usage(v, "there is no option --%s.", given);
}

/* getopt's two views of the table. */
static void make_getopt(const nj_cli_verb *v, struct option longs[OPTIONS_MAX + 2], char shorts[2 * OPTIONS_MAX + 4])
{
    size_t n = 0, s = 0;
    shorts[s++] = ':';
    shorts[s++] = 'h';
    for (const nj_cli_option *o = v->options; (o->name || o->help) && n < OPTIONS_MAX; o++) {
        if (!o->name) continue;
        longs[n++] =
            (struct option){ o->name, o->value ? required_argument : no_argument, NULL, 256 + (int)(o - v->options) };
        if (!o->letter) continue;
        shorts[s++] = o->letter;
        if (o->value) shorts[s++] = ':';
    }
    longs[n++] = (struct option){ "help", no_argument, NULL, 'h' };
    longs[n] = (struct option){ 0 };
    shorts[s] = '\0';
}

static int check_operands(const nj_cli_verb *v, int argc, char **argv)
{
    int count = argc - optind;
    if (count < v->operands_min) return nj_cli_usage(v, "something is missing: nightjar %s %s", v->name, v->usage);
    if (v->operands_max >= 0 && count > v->operands_max)
        return nj_cli_usage(v, "'%s' is one word too many: nightjar %s %s", argv[optind + v->operands_max], v->name,
                            v->usage);
    return -1;
}

int nj_cli_parse(const nj_cli_verb *verb, int argc, char **argv, void *fields, char ***operand, int *operand_count)
{
    struct option longs[OPTIONS_MAX + 2];
    char shorts[2 * OPTIONS_MAX + 4];
    nj_error err = { 0 };
    int key;

    make_getopt(verb, longs, shorts);
    opterr = 0;
    optind = 0; /* GNU getopt: start afresh */
    while ((key = getopt_long(argc, argv, shorts, longs, NULL)) != -1) {
        if (key == 'h') {
            print_help(verb);
            return 0;
        }
        const nj_cli_option *o = key == '?' || key == ':' ? find_option(verb, optopt) : find_option(verb, key);
        if (key == '?' && o) return nj_cli_usage(verb, "--%s takes no value.", o->name);
        if (key == ':' && o) return nj_cli_usage(verb, "--%s needs a value (%s).", o->name, o->value);
        if (!o) return unknown_option(verb, argv[optind - 1]);
        void *dest = (char *)fields + o->offset;
        if (!o->parse)
            *(bool *)dest = true;
        else if (o->parse(o, optarg, dest, &err) != 0)
            return nj_cli_usage(verb, "%s", err.text);
    }
    if ((key = check_operands(verb, argc, argv)) >= 0) return key;
    if (operand) *operand = argv + optind;
    if (operand_count) *operand_count = argc - optind;
    return -1;
}

/* ---- Talk and standard output ---- */

/* Appends a message; a full stop too where whoever wrote it left that to us. */
static void add_sentence(nj_buf *out, const char *text)
{
    size_t len = strlen(text);
    nj_text_escape(out, text, len, 0);
    if (len && !strchr(".!?:", text[len - 1])) nj_buf_char(out, '.');
}

int nj_cli_fail(const nj_error *err)
{
    /* A message may quote a file's own bytes: none of them may steer the terminal. */
    const char *text = err->text[0] ? err->text : strerror(err->code ? -err->code : EIO);
    nj_buf safe = { 0 };
    nj_buf_str(&safe, "nightjar: ");
    add_sentence(&safe, text);
    if (err->remedy[0]) {
        nj_buf_char(&safe, '\n');
        nj_text_escape(&safe, err->remedy, strlen(err->remedy), 0);
    }
    nj_progress_say(NULL, "%s", safe.failed ? "nightjar: there is no memory left." : safe.data);
    nj_buf_free(&safe);
    return err->code == -ECANCELED ? nj_cli_interrupt_status() : 1;
}

void nj_cli_say(const char *fmt, ...)
{
    char text[2048];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    nj_progress_say(NULL, "nightjar: %s", text);
}

static int out_errno; /* the first write error of stdout */

bool nj_cli_out_flush(void)
{
    errno = 0;
    if ((fflush(stdout) != 0 || ferror(stdout)) && !out_errno) out_errno = errno ? errno : EIO;
    return !out_errno;
}

int nj_cli_out_close(void)
{
    nj_cli_out_flush();
    if (fclose(stdout) != 0 && !out_errno) out_errno = errno; /* a network file system may report only now */
    if (!out_errno) return 0;
    if (out_errno != EPIPE) nj_cli_say("what was printed could not be written: %s.", strerror(out_errno));
    return 1;
}

/* ---- Files ---- */

int nj_cli_check_output(const char *out, double bytes, bool force, nj_error *err)
{
    struct stat st;
    struct statvfs fs;
    char need[24], room[24];
    if (!force && stat(out, &st) == 0) {
        nj_fail(err, -EEXIST, "%s is there already.", out);
        return nj_remedy(err, "Choose another name, or replace it with --force.");
    }
    char *copy = strdup(out);
    if (!copy) return nj_fail(err, -ENOMEM, "There is no memory left.");
    int rc = statvfs(dirname(copy), &fs) == 0 ? 0 : nj_fail(err, -errno, "%s: %s.", copy, strerror(errno));
    free(copy);
    if (rc != 0) return rc;
    double free_bytes = (double)fs.f_bavail * (double)fs.f_frsize;
    if (bytes <= free_bytes) return 0;
    nj_text_bytes(bytes, need);
    nj_text_bytes(free_bytes, room);
    nj_fail(err, -ENOSPC, "%s needs %s, its drive has %s free.", out, need, room);
    return nj_remedy(err, "Make room, or write to another drive.");
}

/* ---- Ctrl-C ---- */

volatile bool nj_cli_interrupted;
static volatile bool second_kills;
static volatile sig_atomic_t interrupt_signal;

static void on_interrupt(int number)
{
    if (nj_cli_interrupted && second_kills) {
        signal(number, SIG_DFL);
        raise(number); /* delivered when the handler returns */
    }
    interrupt_signal = number;
    nj_cli_interrupted = true;
}

int nj_cli_interrupt_status(void)
{
    return 128 + interrupt_signal;
}

bool nj_cli_terminated(void)
{
    return interrupt_signal == SIGTERM;
}

void nj_cli_catch_interrupt(bool kills)
{
    struct sigaction action = { .sa_handler = on_interrupt };
    second_kills = kills;
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
}
