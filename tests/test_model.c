/* Opening models: what is checked, what can be overridden, and that each refusal names its reason. */
#include "tests/test.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "engine/nj_engine.h"

#define MODEL "tests/data/logits/qwen3moe.gguf"
#define LONG  "tests/data/logits/phi3-longrope.gguf"

/* A copy of a model file, in memory only, with bytes changed. */
typedef struct patched {
    char path[64];
    int fd;
    nj_buf bytes;
} patched;

static void patch_open(patched *p, const char *source)
{
    nj_error err = { 0 };
    *p = (patched){ .fd = memfd_create("model", 0) };
    assert_true(p->fd >= 0);
    snprintf(p->path, sizeof p->path, "/proc/self/fd/%d", p->fd);
    if (nj_file_read(source, 1 << 24, &p->bytes, &err)) fail_msg("%s", err.text);
}

/* Overwrites the bytes `skip` after the end of the first `find`. */
static void patch(patched *p, const char *find, size_t skip, const void *bytes, size_t len)
{
    char *at = memmem(p->bytes.data, p->bytes.len, find, strlen(find));
    assert_non_null(at);
    memcpy(at + strlen(find) + skip, bytes, len);
}

static int patch_try(patched *p, nj_model **out, nj_error *err)
{
    *err = (nj_error){ 0 };
    assert_int_equal(pwrite(p->fd, p->bytes.data, p->bytes.len, 0), p->bytes.len);
    return nj_model_open(out, p->path, NULL, err);
}

static void patch_close(patched *p)
{
    close(p->fd);
    nj_buf_free(&p->bytes);
}

static void refused_with(const char *find, size_t skip, const void *bytes, size_t len, const char *expected)
{
    patched p;
    nj_error err;
    nj_model *m;
    patch_open(&p, MODEL);
    patch(&p, find, skip, bytes, len);
    assert_true(patch_try(&p, &m, &err) < 0);
    if (!strstr(err.text, expected)) fail_msg("\"%s\" does not say \"%s\"", err.text, expected);
    patch_close(&p);
}

static void an_unknown_architecture_is_named(void **state)
{
    (void)state;
    refused_with("general.architecture", 12, "qwen9moe", 8, "qwen9moe");
}

static void a_missing_tensor_is_named(void **state)
{
    (void)state;
    refused_with("blk.1.attn_k", 0, ".weighs", 7, "blk.1.attn_k.weight is missing");
    refused_with("blk.0.ffn_gate_exp", 0, "S", 1, "blk.0.ffn_gate_exps.weight is missing");
    refused_with("token_emb", 0, "D", 1, "token_embd.weight is missing");
}

static void a_misshapen_tensor_is_named(void **state)
{
    (void)state;
    refused_with("qwen3moe.attention.head_count_kv", 4, &(uint32_t){ 1 }, 4,
                 "blk.0.attn_k.weight has shape 64 x 32 x 1");
    refused_with("qwen3moe.expert_count", 4, &(uint32_t){ 4 }, 4, "blk.0.ffn_gate_inp.weight has shape");
    refused_with("qwen3moe.block_count", 4, &(uint32_t){ 3 }, 4, "blk.2.attn_norm.weight is missing");
}

static void impossible_numbers_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *key;
        uint32_t value;
    } u32[] = {
        { "qwen3moe.block_count", 0 },
        { "qwen3moe.block_count", UINT32_MAX },
        { "qwen3moe.embedding_length", 0 },
        { "qwen3moe.embedding_length", UINT32_MAX },
        { "qwen3moe.attention.head_count", 0 },
        { "qwen3moe.attention.head_count", UINT32_MAX },
        { "qwen3moe.attention.head_count_kv", 0 },
        { "qwen3moe.attention.head_count_kv", 3 },
        { "qwen3moe.attention.key_length", 0 },
        { "qwen3moe.attention.key_length", 15 },
        { "qwen3moe.attention.value_length", 8 },
        { "qwen3moe.rope.dimension_count", 64 },
        { "qwen3moe.rope.dimension_count", 7 },
        { "qwen3moe.expert_used_count", 0 },
        { "qwen3moe.expert_used_count", 9 },
        { "qwen3moe.expert_count", UINT32_MAX },
        { "qwen3moe.context_length", 0 },
    };
    for (size_t i = 0; i < NJ_COUNT(u32); i++) refused_with(u32[i].key, 4, &u32[i].value, 4, "qwen3moe");
    refused_with("qwen3moe.attention.layer_norm_rms_epsilon", 4, &(float){ NAN }, 4, "epsilon");
    refused_with("qwen3moe.rope.freq_base", 4, &(float){ -1 }, 4, "freq_base");
}

/* Runs a few tokens through a model that opened in spite of its damage: whatever comes out, it must not crash. */
static void use_model(const nj_model *m)
{
    nj_engine *e;
    nj_session *s;
    int32_t prompt[] = { 1, 2, 3 };
    nj_request r = { .prompt = prompt, .prompt_len = 3, .max_tokens = 2 };
    nj_sampling_defaults(m, &r.sampling);
    if (nj_engine_new(&e, m, &(nj_engine_options){ .isa = -1, .threads = 1, .rows_max = 4, .kv_bytes_max = 1 << 24 },
                      NULL))
        return;
    if (!nj_session_new(e, &r, &s, NULL))
        while (nj_engine_run(e, NULL) > 0) {
        }
    nj_engine_free(e);
}

static void damaged_headers_never_crash(void **state)
{
    (void)state;
    enum { ROUNDS = 400, HEADER = 9000 };
    patched p;
    nj_error err;
    uint32_t random = 1, opened = 0;
    patch_open(&p, MODEL);
    char *pristine = malloc(HEADER);
    memcpy(pristine, p.bytes.data, HEADER);
    for (int round = 0; round < ROUNDS; round++) {
        nj_model *m = NULL;
        for (int k = 0; k < 1 + round % 4; k++) {
            random = random * 1664525u + 1013904223u;
            p.bytes.data[(random >> 8) % HEADER] ^= (char)(1u << (random >> 4) % 8);
        }
        if (patch_try(&p, &m, &err) == 0) {
            opened++;
            use_model(m);
            nj_model_close(m);
        } else {
            assert_true(err.code < 0 && err.text[0]);
        }
        memcpy(p.bytes.data, pristine, HEADER);
    }
    assert_true(opened > 0 && opened < ROUNDS); /* both kinds of damage were met */
    free(pristine);
    patch_close(&p);
}

static int open_with(const char *path, const char *set, const char *rope, uint32_t context, nj_model **m, nj_error *err)
{
    *err = (nj_error){ 0 };
    return nj_model_open(
        m, path, &(nj_model_options){ .set = &set, .set_count = set != NULL, .rope_scaling = rope, .context = context },
        err);
}

static void a_shape_bound_key_is_refused_with_the_reason(void **state)
{
    (void)state;
    nj_model *m;
    nj_error err;
    static const char *const bound[] = { "qwen3moe.block_count=1", "block_count=1", "embedding_length=32",
                                         "attention.head_count=2", "qwen3moe.expert_count=4" };
    for (size_t i = 0; i < NJ_COUNT(bound); i++) {
        assert_int_equal(open_with(MODEL, bound[i], NULL, 0, &m, &err), -EINVAL);
        assert_non_null(strstr(err.text, "bound to the shapes"));
    }
    assert_int_equal(open_with(MODEL, "nonsense", NULL, 0, &m, &err), -EINVAL);
    assert_non_null(strstr(err.text, "KEY=VALUE"));
    assert_int_equal(open_with(MODEL, "rope.freq_bass=1", NULL, 0, &m, &err), -EINVAL);
    assert_non_null(strstr(err.text, "rope.freq_bass"));
}

/* Logits of the last of five tokens at positions 0..4. */
static void last_logits(const nj_model *m, float *out)
{
    nj_engine *e;
    nj_sequence *s;
    nj_row row[5];
    const float *logits;
    assert_int_equal(nj_engine_new(&e, m, NULL, NULL), 0);
    assert_int_equal(nj_sequence_new(e, &s, NULL), 0);
    for (int i = 0; i < 5; i++) row[i] = (nj_row){ .sequence = s, .token = 11 + 7 * i, .logits = i == 4 };
    assert_int_equal(nj_engine_step(e, row, 5, &logits, NULL), 0);
    memcpy(out, logits, 320 * sizeof *out);
    nj_sequence_free(e, s);
    nj_engine_free(e);
}

static bool changes_logits(const char *path, const char *set, const char *rope, uint32_t context)
{
    nj_model *m;
    nj_error err;
    float plain[320], changed[320];
    if (open_with(path, NULL, NULL, 0, &m, &err)) fail_msg("%s", err.text);
    last_logits(m, plain);
    nj_model_close(m);
    if (open_with(path, set, rope, context, &m, &err)) fail_msg("%s", err.text);
    last_logits(m, changed);
    nj_model_close(m);
    return memcmp(plain, changed, sizeof plain) != 0;
}

static void free_keys_can_be_overridden(void **state)
{
    (void)state;
    assert_true(changes_logits(MODEL, "qwen3moe.rope.freq_base=500000", NULL, 0));
    assert_true(
        changes_logits(MODEL, "rope.freq_base=500000", NULL, 0)); /* the architecture's prefix may be left out */
    assert_true(changes_logits(MODEL, "rope.scale_linear=4", NULL, 0));
    assert_true(changes_logits(MODEL, "rope.scaling.factor=4", NULL, 0)); /* without a type: linear */
    assert_true(changes_logits(MODEL, "expert_weights_scale=2.5", NULL, 0));
    assert_true(changes_logits(MODEL, "expert_used_count=1", NULL, 0));
    assert_true(changes_logits(MODEL, "expert_weights_norm=false", NULL, 0));
    assert_false(changes_logits(MODEL, "general.name=other", NULL, 0));
}

static void rope_scaling_can_be_chosen(void **state)
{
    (void)state;
    nj_model *m;
    nj_error err;
    assert_true(changes_logits(MODEL, NULL, "yarn:4", 0));
    assert_true(changes_logits(MODEL, NULL, "linear:2", 0));
    assert_false(changes_logits(MODEL, NULL, "none", 0));
    assert_int_equal(open_with(MODEL, NULL, "yarn:4", 0, &m, &err), 0);
    assert_int_equal(nj_model_info_of(m)->context, 4 * 4096); /* the stretched context is there to be used */
    nj_model_close(m);
    static const char *const wrong[] = { "yarn", "yarn:", "yarn:0.5", "yarn:x", "yarn:4x", "ntk:2", "", "linear:nan" };
    for (size_t i = 0; i < NJ_COUNT(wrong); i++) {
        assert_int_equal(open_with(MODEL, NULL, wrong[i], 0, &m, &err), -EINVAL);
        assert_non_null(strstr(err.remedy, "yarn:4"));
    }
}

/* Writes `source` with the rows of every NAME_exps tensor as one tensor per expert, as files were before 2024. */
static void write_split_experts(const char *source, const char *path)
{
    nj_gguf *g;
    nj_gguf_writer *w;
    nj_error err = { 0 };
    if (nj_gguf_open(&g, source, nj_weight_types(), &err)) fail_msg("%s", err.text);
    assert_int_equal(nj_gguf_writer_new(&w, path, &err), 0);
    assert_int_equal(nj_gguf_writer_meta_copy(w, g, &err), 0);
    for (int data = 0; data < 2; data++)
        for (size_t i = 0; i < nj_gguf_tensor_count(g); i++) {
            const nj_tensor *t = nj_gguf_tensor_at(g, i);
            char *stem = strdup(t->name.data), *exps = strstr(stem, "_exps.weight");
            uint64_t parts = exps ? t->dim[2] : 1, bytes = t->bytes / parts;
            char *buf = malloc(bytes), name[80];
            if (exps) *exps = '\0';
            for (uint64_t e = 0; e < parts; e++) {
                snprintf(name, sizeof name, exps ? "%s.%d.weight" : "%s", stem, (int)e);
                int rc = data ? nj_gguf_read(g, t, e * bytes, buf, bytes, &err) : 0;
                if (!rc && data) rc = nj_gguf_writer_data(w, buf, bytes, &err);
                if (!rc && !data)
                    rc = nj_gguf_writer_tensor(w, name, t->type, exps ? 2 : t->n_dims, t->dim, bytes, &err);
                if (rc) fail_msg("%s", err.text);
            }
            free(buf);
            free(stem);
        }
    assert_int_equal(nj_gguf_writer_commit(w, &err), 0);
    nj_gguf_writer_free(w);
    nj_gguf_close(g);
}

static void one_tensor_per_expert_is_read_too(void **state)
{
    (void)state;
    char path[] = "/tmp/nightjar-test-split-XXXXXX";
    nj_model *m;
    nj_error err;
    float whole[320], split[320];
    close(mkstemp(path));
    write_split_experts(MODEL, path);
    if (open_with(MODEL, NULL, NULL, 0, &m, &err)) fail_msg("%s", err.text);
    nj_model_info info = *nj_model_info_of(m);
    last_logits(m, whole);
    nj_model_close(m);
    if (open_with(path, NULL, NULL, 0, &m, &err)) fail_msg("%s", err.text);
    assert_int_equal(nj_model_info_of(m)->params_active, info.params_active);
    assert_int_equal(nj_model_info_of(m)->bytes_per_token, info.bytes_per_token);
    last_logits(m, split);
    nj_model_close(m);
    unlink(path);
    assert_memory_equal(whole, split, sizeof whole);
}

static void a_tensor_without_a_place_is_named(void **state)
{
    (void)state;
    refused_with("blk.0.attn_q_nor", 0, "n", 1, "blk.0.attn_q_norm.weight is missing");
    patched p;
    nj_error err;
    nj_model *m;
    patch_open(&p, LONG);
    patch(&p, "rope_factors_shor", 0, "x", 1); /* optional, so its new name is the fault */
    assert_int_equal(patch_try(&p, &m, &err), -ENOTSUP);
    assert_non_null(strstr(err.text, "rope_factors_shorx.weight has no place"));
    patch_close(&p);
}

/* A window is judged against the context in use, not the file's. */
static void a_window_bites_in_a_longer_context(void **state)
{
    (void)state;
    const char *set[] = { "attention.sliding_window=3", "context_length=3" };
    nj_model *m;
    float narrow[320], wide[320];
    for (int windowed = 0; windowed < 2; windowed++) {
        nj_model_options opt = { .set = set + !windowed, .set_count = windowed ? 2 : 1, .context = 100 };
        assert_int_equal(nj_model_open(&m, MODEL, &opt, NULL), 0);
        last_logits(m, windowed ? narrow : wide);
        nj_model_close(m);
    }
    assert_memory_not_equal(narrow, wide, sizeof wide);
}

/* Long-rope models switch factors with the context that is prepared for. */
static void a_short_context_takes_the_short_factors(void **state)
{
    (void)state;
    assert_true(changes_logits(LONG, NULL, NULL, 32));
    assert_false(changes_logits(LONG, NULL, NULL, 33));
}

static void loading_can_be_interrupted(void **state)
{
    (void)state;
    nj_model *m;
    nj_error err = { 0 };
    volatile bool cancel = true;
    assert_int_equal(nj_model_open(&m, MODEL, &(nj_model_options){ .cancel = &cancel }, &err), -ECANCELED);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_unknown_architecture_is_named),
        cmocka_unit_test(a_missing_tensor_is_named),
        cmocka_unit_test(a_misshapen_tensor_is_named),
        cmocka_unit_test(impossible_numbers_are_refused),
        cmocka_unit_test(damaged_headers_never_crash),
        cmocka_unit_test(a_shape_bound_key_is_refused_with_the_reason),
        cmocka_unit_test(free_keys_can_be_overridden),
        cmocka_unit_test(rope_scaling_can_be_chosen),
        cmocka_unit_test(one_tensor_per_expert_is_read_too),
        cmocka_unit_test(a_tensor_without_a_place_is_named),
        cmocka_unit_test(a_window_bites_in_a_longer_context),
        cmocka_unit_test(a_short_context_takes_the_short_factors),
        cmocka_unit_test(loading_can_be_interrupted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
