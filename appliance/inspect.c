/* nightjar inspect: what a model file holds, what it needs, and what can be changed. Reads the header only. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "appliance/cli.h"
#include "appliance/inspect.h"
#include "appliance/text.h"
#include "appliance/verbs.h"
#include "numa/nj_numa.h"

#define ITEMS_SHOWN       6   /* of an array */
#define VALUE_BYTES_SHOWN 160 /* of a string */

typedef struct args {
    bool sha256, json, all, quiet;
} args;

static const nj_cli_option options[] = {
    { "sha256", 0, NULL, NULL, offsetof(args, sha256), 0, 0, "also read the whole file and print its SHA-256" },
    { "all", 'a', NULL, NULL, offsetof(args, all), 0, 0, "also list every tensor, and long values in full" },
    { "json", 0, NULL, NULL, offsetof(args, json), 0, 0, "print one JSON document" },
    { "quiet", 'q', NULL, NULL, offsetof(args, quiet), 0, 0, "no progress bar" },
    { 0 },
};

static const nj_cli_verb verb = {
    .name = "inspect",
    .usage = "FILE",
    .summary = "Shows what a model file holds, what it needs, and which of its keys can be changed.\n"
               "Also tells whether it fits into the memory of this machine that is available now.\n"
               "Reads the header only, so hundreds of gigabytes take no longer than one.",
    .options = options,
    .examples = "  nightjar inspect qwen3-30b-a3b-q4_k_m.gguf\n"
                "  nightjar inspect --json model-00001-of-00005.gguf | jq .kv_bytes_per_token\n"
                "  nightjar inspect --sha256 model.gguf\n",
    .operands_min = 1,
    .operands_max = 1,
};

void nj_meta_type_text(const nj_meta *m, char out[24])
{
    static const char *const names[NJ_META_TYPE_COUNT] = { "u8",   "i8",     "u16",   "i16", "u32", "i32", "f32",
                                                           "bool", "string", "array", "u64", "i64", "f64" };
    if (m->type == NJ_META_ARRAY)
        snprintf(out, 24, "%s[%" PRIu64 "]", names[m->item_type], m->count);
    else
        snprintf(out, 24, "%s", names[m->type]);
}

const char *nj_key_kind_text(nj_key_kind kind)
{
    switch (kind) {
    case NJ_KEY_FREE: return "can be changed with --set";
    case NJ_KEY_SHAPE: return "bound to the file's tensors and tables";
    case NJ_KEY_INFO: break;
    }
    return "information";
}

void nj_meta_item_text(const nj_meta *m, uint64_t index, size_t bytes_max, nj_buf *out)
{
    bool array = m->type == NJ_META_ARRAY;
    nj_meta_type type = array ? m->item_type : m->type;
    int64_t i = array && type != NJ_META_STRING ? nj_meta_item_i64(m, index) : m->i;
    nj_str s = array && type == NJ_META_STRING ? m->strings[index] : m->s;
    switch (type) {
    case NJ_META_STRING: nj_text_quote(out, s.data, s.len, bytes_max); break;
    case NJ_META_F32: nj_buf_printf(out, "%.7g", array ? nj_meta_item_f64(m, index) : m->f); break;
    case NJ_META_F64: nj_buf_printf(out, "%.15g", array ? nj_meta_item_f64(m, index) : m->f); break;
    case NJ_META_BOOL: nj_buf_str(out, i ? "true" : "false"); break;
    case NJ_META_U64: nj_buf_printf(out, "%" PRIu64, (uint64_t)i); break;
    default: nj_buf_printf(out, "%" PRId64, i); break;
    }
}

/* "15.4 M", "30.5 B": counts of weights. */
static void count_text(double n, char out[24])
{
    static const char *const unit[] = { "", " K", " M", " B", " T" };
    size_t u = 0;
    while (n >= 999.5 && u + 1 < NJ_COUNT(unit)) n /= 1000, u++;
    snprintf(out, 24, u && n < 99.95 ? "%.1f%s" : "%.0f%s", n, unit[u]);
}

/* Prints a file's own text escaped. */
static void print_text(const char *text, size_t bytes_max)
{
    nj_buf safe = { 0 };
    nj_text_escape(&safe, text, strlen(text), bytes_max);
    fputs(safe.data ? safe.data : "", stdout);
    nj_buf_free(&safe);
}

static void print_shape(const nj_model_info *m)
{
    if (m->layers) printf("  %-16s%u of width %u\n", "layers", m->layers, m->d_model);
    if (m->heads)
        printf("  %-16s%u heads of %u, %u for keys and values\n", "attention", m->heads, m->head_dim, m->kv_heads);
    if (m->d_ff && !m->experts) printf("  %-16swidth %u\n", "mlp", m->d_ff);
    if (m->experts) {
        printf("  %-16s%u, %u used per token", "experts", m->experts, m->experts_used);
        if (m->expert_d_ff) printf(", of width %u", m->expert_d_ff);
        putchar('\n');
    }
    if (m->context) printf("  %-16s%u tokens\n", "context", m->context);
}

static void print_needs(const nj_model_info *m)
{
    char a[24], b[24], c[24], d[24];
    if (m->params) {
        count_text((double)m->params, a);
        count_text((double)m->params_active, b);
        printf("  %-16s%s, %s active per token\n", "parameters", a, b);
        nj_text_bytes((double)m->bytes, a);
        nj_text_bytes((double)m->bytes_per_token, b);
        printf("  %-16s%s, %s of them read per token\n", "weights", a, b);
    }
    if (!m->kv_values_per_token) return;
    nj_text_bytes(nj_kv_bytes(m->kv_values_per_token, NJ_F16), a);
    nj_text_bytes(nj_kv_bytes(m->kv_values_per_token, NJ_Q8_0), b);
    nj_text_bytes(nj_kv_bytes(m->kv_values_per_token, NJ_F32), c);
    nj_text_bytes(nj_kv_bytes(m->kv_values_per_token, NJ_F16) * m->context, d);
    printf("  %-16s%s as f16, %s as q8_0, %s as f32", "KV per token", a, b, c);
    if (m->context) printf("; %s for the whole context as f16", d);
    putchar('\n');
}

/* The answer to "can I run it here?" in one line. */
static void print_fit(const nj_fit *f, uint32_t context)
{
    char weights[24], kv[24], available[24], ram[24];
    nj_text_bytes((double)f->weights, weights);
    nj_text_bytes((double)f->kv, kv);
    nj_text_bytes((double)f->available, available);
    nj_text_bytes((double)f->ram, ram);
    printf("  %-16s", "memory");
    if (f->fit)
        printf("fits: %s of weights and %s of KV for %u tokens", weights, kv, context);
    else if (f->weights_fit)
        printf("the %s of weights fit, with KV for %" PRIu64 " of %u tokens", weights, f->tokens, context);
    else
        printf("does not fit: %s of weights", weights);
    printf("; %s of this machine's %s are available\n", available, ram);
}

static void print_summary(const nj_inspection *in)
{
    char size[24];
    const nj_facts *f = &in->facts;
    uint32_t files = nj_gguf_files(in->g);
    nj_text_bytes((double)nj_gguf_bytes(in->g), size);
    print_text(f->info.name[0] ? f->info.name : in->path, 0);
    printf("\n  %-16s", "file");
    print_text(in->path, 0);
    printf(", %s", size);
    if (files > 1) printf(" in %u files", files);
    printf(", GGUF version %u\n", nj_gguf_version(in->g));
    for (uint32_t i = 0; in->sha256 && i < files; i++) {
        printf("  %-16s%s", i ? "" : "SHA-256", in->sha256[i]);
        if (files > 1) printf("  part %u", i + 1);
        putchar('\n');
    }
    printf("  %-16s", "architecture");
    print_text(f->info.arch[0] ? f->info.arch : "not named", 0);
    if (f->runs)
        puts(", runs on Nightjar");
    else {
        printf("; Nightjar can't run this file: ");
        print_text(f->why_not.text, 0);
        putchar('\n');
    }
    print_shape(&f->info);
    print_needs(&f->info);
    if (f->info.bytes && f->info.context) print_fit(&in->fit, f->info.context);
}

static void print_types(const nj_group_facts *group)
{
    const char *gap = "";
    for (uint32_t t = 0; t < NJ_TYPE_COUNT; t++) {
        if (!group->type_bytes[t]) continue;
        printf("%s%s", gap, nj_format_name(t));
        if (group->type_bytes[t] != group->bytes)
            printf(" %.0f%%", 100.0 * (double)group->type_bytes[t] / (double)group->bytes);
        gap = ", ";
    }
    putchar('\n');
}

static void print_group(const char *name, const nj_group_facts *group, const nj_group_facts *all)
{
    char params[24], size[24];
    count_text((double)group->params, params);
    nj_text_bytes((double)group->bytes, size);
    printf("  %-11s %8" PRIu64 " %11s %9s %6.1f%%  ", name, group->tensors, params, size,
           all->bytes ? 100.0 * (double)group->bytes / (double)all->bytes : 0.0);
    print_types(group);
}

static void print_tensors(const nj_inspection *in)
{
    const nj_facts *f = &in->facts;
    if (!f->all.tensors) return;
    printf("\n%-13s %8s %11s %9s %7s  %s\n", "Tensors", "count", "parameters", "size", "share", "types");
    for (int i = 0; i < NJ_GROUP_COUNT; i++)
        if (f->group[i].tensors) print_group(nj_group_name((nj_group)i), &f->group[i], &f->all);
    print_group("all", &f->all, &f->all);
    for (size_t i = 0; in->all && i < nj_gguf_tensor_count(in->g); i++) {
        const nj_tensor *t = nj_gguf_tensor_at(in->g, i);
        char size[24];
        nj_text_bytes((double)t->bytes, size);
        printf("%s  ", i ? "" : "\n");
        print_text(t->name.data, 0);
        printf("  %s  ", nj_format_name(t->type));
        for (uint32_t d = 0; d < t->n_dims; d++) printf("%s%" PRIu64, d ? " x " : "", t->dim[d]);
        printf("  %s\n", size);
    }
}

static void print_value(const nj_meta *m, bool all)
{
    nj_buf text = { 0 };
    size_t bytes_max = all ? 0 : VALUE_BYTES_SHOWN;
    if (m->type != NJ_META_ARRAY) {
        nj_meta_item_text(m, 0, bytes_max, &text);
    } else {
        uint64_t shown = m->count < ITEMS_SHOWN || all ? m->count : ITEMS_SHOWN;
        nj_buf_char(&text, '[');
        for (uint64_t i = 0; i < shown; i++) {
            if (i) nj_buf_str(&text, ", ");
            nj_meta_item_text(m, i, all ? 0 : 24, &text);
        }
        nj_buf_str(&text, shown < m->count ? ", ...]" : "]");
    }
    fputs(text.data && !text.failed ? text.data : "(too long to show)", stdout);
    nj_buf_free(&text);
}

static void print_metadata(const nj_inspection *in)
{
    nj_str arch = { "", 0 };
    nj_gguf_get_str(in->g, "general.architecture", &arch, NULL);
    puts("\nMetadata");
    for (size_t i = 0; i < nj_gguf_meta_count(in->g); i++) {
        const nj_meta *m = nj_gguf_meta_at(in->g, i);
        const char *sentence;
        char type[24];
        nj_key_kind kind = nj_key_describe(arch.data, m->key.data, &sentence);
        nj_meta_type_text(m, type);
        printf("  ");
        print_text(m->key.data, 0);
        printf(" (%s) = ", type);
        print_value(m, in->all);
        printf("\n      %s (%s)\n", sentence, nj_key_kind_text(kind));
    }
}

static void print_lines(const char *label, const nj_buf *lines)
{
    const char *at = lines->data ? lines->data : "";
    while (*at) {
        size_t len = strcspn(at, "\n");
        printf("  %s: %.*s\n", label, (int)len, at);
        at += len + (at[len] == '\n');
    }
}

static void print_vocabulary(const nj_vocab_report *v)
{
    puts("\nVocabulary");
    if (v->tokens < 0)
        puts("  none in this file");
    else
        printf("  %" PRId64 " tokens%s%s\n", v->tokens, v->name[0] ? ", " : "", v->name);
    if (v->template_works)
        puts("  the chat template compiles");
    else if (!v->template_there)
        puts("  no chat template: run and batch complete text instead");
    print_lines("FAULT", &v->faults);
    print_lines("note", &v->notes);
}

/* ---- SHA-256 ---- */

typedef struct hashing {
    nj_progress bar;
    uint64_t before, total; /* bytes of the files already done, and of all */
    uint64_t done;          /* of this file */
} hashing;

static void on_hashed(void *arg, uint64_t done)
{
    hashing *h = arg;
    h->done = done;
    nj_progress_update(&h->bar, h->before + done, h->total);
}

static int hash_files(nj_inspection *in, bool quiet, nj_error *err)
{
    hashing h = { .total = nj_gguf_bytes(in->g) };
    uint32_t files = nj_gguf_files(in->g);
    int rc = 0;
    if (!(in->sha256 = nj_array_new(files, sizeof *in->sha256)))
        return nj_fail(err, -ENOMEM, "There is no memory left.");
    nj_progress_begin(&h.bar, "SHA-256", NULL, quiet);
    for (uint32_t i = 0; i < files && rc == 0; i++) {
        rc = nj_sha256_file(nj_gguf_file_path(in->g, i), in->sha256[i], on_hashed, &h, err);
        h.before += h.done;
    }
    nj_progress_end(&h.bar);
    return rc;
}

int nj_verb_inspect(int argc, char **argv)
{
    args a = { 0 };
    char **operand;
    nj_error err = { 0 };
    int status = nj_cli_parse(&verb, argc, argv, &a, &operand, NULL);
    if (status >= 0) return status;

    nj_inspection in = { .path = operand[0], .all = a.all };
    int rc = nj_gguf_open(&in.g, in.path, nj_weight_types(), &err);
    if (rc != 0) return nj_cli_fail(&err);
    if (a.sha256) rc = hash_files(&in, a.quiet, &err);
    if (rc == 0) {
        nj_machine machine;
        nj_machine_read(&machine);
        nj_facts_read(&in.facts, in.g);
        in.fit = nj_fit_of(&in.facts.info, machine.ram_available_bytes, machine.ram_bytes);
        nj_vocab_check(&in.vocab, in.g);
        if (a.json) {
            rc = nj_inspect_json(&in, &err);
        } else {
            print_summary(&in);
            print_tensors(&in);
            print_metadata(&in);
            print_vocabulary(&in.vocab);
        }
    }
    status = rc ? nj_cli_fail(&err) : 0;
    /* What was shown holds, but a script must learn that the file can't be used as it is. */
    if (!rc && in.facts.broken) status = nj_cli_fail(&in.facts.why_not);
    if (!rc && in.vocab.faults.len) {
        nj_cli_say("%s: the vocabulary has faults: %s", in.path, in.vocab.faults.data);
        status = 1;
    }
    nj_vocab_report_free(&in.vocab);
    free(in.sha256);
    nj_gguf_close(in.g);
    return status;
}
