/* Models and prompts from the command line. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "appliance/cli.h"

#define PROMPT_BYTES_MAX (UINT64_C(4) << 30)

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
