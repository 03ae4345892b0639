/* Models and prompts from the command line. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "appliance/cli.h"
#include "appliance/facts.h"

#define PROMPT_BYTES_MAX (UINT64_C(4) << 30)

/* The longest context that the file was trained for, as it is or stretched by its own rope scaling; 0: not told. */
static uint32_t trained_context(const nj_gguf *g, const nj_model_info *m)
{
    char key[96];
    nj_str kind = { "", 0 };
    uint32_t original = 0;
    double factor = 1;
    snprintf(key, sizeof key, "%.31s.rope.scaling.type", m->arch);
    nj_gguf_get_str(g, key, &kind, NULL);
    if (strcmp(kind.data, "yarn") != 0 && strcmp(kind.data, "linear") != 0) return m->context;
    snprintf(key, sizeof key, "%.31s.rope.scaling.original_context_length", m->arch);
    nj_gguf_get_u32(g, key, &original, NULL);
    snprintf(key, sizeof key, "%.31s.rope.scaling.factor", m->arch);
    const nj_meta *f = nj_gguf_meta(g, key);
    if (f && (f->type == NJ_META_F32 || f->type == NJ_META_F64)) factor = f->f;
    double stretched = original * factor;
    return stretched > m->context && stretched < UINT32_MAX ? (uint32_t)stretched : m->context;
}

/* Says when --ctx goes beyond what the model can make sense of: it would answer, but worse and worse. */
static void tell_long_context(const char *path, const nj_cli_model_args *a)
{
    nj_gguf *g = NULL;
    nj_model_info m;
    char kv[24], advice[96] = "";
    if (nj_gguf_open(&g, path, nj_weight_types(), NULL) != 0) return;
    int rc = nj_model_describe(g, &m, NULL);
    uint32_t trained = rc == 0 ? trained_context(g, &m) : 0;
    nj_gguf_close(g);
    const char *factor = a->rope_scaling ? strchr(a->rope_scaling, ':') : NULL;
    double stretched = trained * (factor ? strtod(factor + 1, NULL) : 1.0);
    if (!trained || a->context <= stretched) return;
    uint32_t times = (uint32_t)(((uint64_t)a->context + trained - 1) / trained);
    uint32_t type = a->kv_type < 0 ? NJ_F16 : (uint32_t)a->kv_type;
    if (times <= 1024) snprintf(advice, sizeof advice, " --rope-scaling yarn:%" PRIu32 " stretches it.", times);
    nj_text_bytes(nj_kv_bytes(m.kv_values_per_token, type) * a->context, kv);
    nj_cli_say("--ctx %" PRIu32 " is beyond the %" PRIu32
               " tokens that the model was trained for%s.%s KV for all of it "
               "takes %s.",
               a->context, trained, factor ? ", also as stretched" : "", advice, kv);
}

int nj_cli_model_open(nj_model **out, const char *path, const nj_cli_model_args *a, bool quiet, nj_error *err)
{
    char experts[48], title[96];
    nj_progress bar;
    const char **set = NULL;
    size_t count = a->set.count;

    *out = NULL;
    if (count || a->experts_used) {
        if (!(set = nj_array_new(count + 1, sizeof *set))) return nj_fail(err, -ENOMEM, "There is no memory left.");
        if (count) memcpy(set, a->set.item, count * sizeof *set);
        if (a->experts_used) {
            snprintf(experts, sizeof experts, "expert_used_count=%" PRIu32, a->experts_used);
            set[count++] = experts;
        }
    }
    const char *base = strrchr(path, '/');
    snprintf(title, sizeof title, "Loading %.60s", base && base[1] ? base + 1 : path);
    title[nj_utf8_whole(title, strlen(title))] = '\0';
    nj_cli_catch_interrupt(true);
    nj_progress_begin(&bar, title, NULL, quiet);
    const nj_model_options opt = {
        .set = set,
        .set_count = count,
        .rope_scaling = a->rope_scaling,
        .context = a->context,
        .threads = a->threads,
        .progress = nj_progress_callback,
        .progress_arg = &bar,
        .cancel = &nj_cli_interrupted,
    };
    int rc = nj_model_open(out, path, &opt, err);
    nj_progress_end(&bar);
    if (rc == -ECANCELED) nj_fail(err, rc, "Stopped while loading %s.", path);
    free(set);
    if (rc == 0 && a->context && !quiet) tell_long_context(path, a);
    return rc;
}

nj_engine_options nj_cli_engine_options(const nj_cli_model_args *a)
{
    return (nj_engine_options){
        .threads = a->threads,
        .isa = a->isa,
        .kv_type = a->kv_type < 0 ? 0 : (uint32_t)a->kv_type,
        .kv_type_set = a->kv_type >= 0,
        .context = a->context,
    };
}

void nj_cli_model_args_free(nj_cli_model_args *a)
{
    free(a->set.item);
    a->set = (nj_cli_strings){ 0 };
}

int nj_cli_prompt(const char *text, const char *path, nj_buf *out, nj_error *err)
{
    if (text && path) return nj_fail(err, -EINVAL, "Give the text with -p or a file with -f, not both.");
    if (text) {
        nj_buf_str(out, text);
        return out->failed ? nj_fail(err, out->failed, "There is no memory for the text.") : 0;
    }
    if (path) return nj_file_read(path, PROMPT_BYTES_MAX, out, err);
    if (!isatty(STDIN_FILENO)) return nj_file_read("-", PROMPT_BYTES_MAX, out, err);
    nj_fail(err, -ENODATA, "There is no text.");
    nj_remedy(err, "Give it with -p TEXT or -f FILE, or pipe it in.");
    return -ENODATA;
}

int nj_cli_ids(const char *text, int32_t vocab, nj_tokens *out, nj_error *err)
{
    static const char between[] = ", \t\r\n[]"; /* brackets: a JSON list may be pasted as it is */
    for (text += strspn(text, between); *text; text += strspn(text, between)) {
        size_t len = strcspn(text, between);
        char *end;
        errno = 0;
        long id = strtol(text, &end, 10);
        if (end != text + len)
            return nj_fail(err, -EINVAL, "'%.*s' is not a token id.", (int)(len < 40 ? len : 40), text);
        if (errno || id < 0 || id >= vocab)
            return nj_fail(err, -EINVAL, "Token %.*s is outside the vocabulary: ids are from 0 to %" PRId32 ".",
                           (int)(len < 40 ? len : 40), text, vocab - 1);
        if (nj_array_grow(&out->id, &out->cap, out->len + 1, sizeof *out->id) != 0)
            return nj_fail(err, -ENOMEM, "There is no memory for so many tokens.");
        out->id[out->len++] = (int32_t)id;
        text += len;
    }
    return 0;
}
