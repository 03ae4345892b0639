/* Shapes: well-known models by their numbers, and files of random weights that were never written. */
#include "tests/test.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine/engine.h"
#include "engine/shape.h"

static nj_shape found(const char *spec, uint32_t layers)
{
    nj_shape s;
    nj_error err = { 0 };
    if (nj_shape_find(spec, layers, &s, &err)) fail_msg("%s", err.text);
    return s;
}

/* What a model file of the shape would need. */
static nj_model_info described(const nj_shape *shape)
{
    nj_synth *s;
    nj_model_info info = { 0 };
    nj_error err = { 0 };
    if (nj_synth_new(&s, shape, &err) || nj_model_describe(nj_synth_gguf(s), &info, &err)) fail_msg("%s", err.text);
    nj_synth_free(s);
    return info;
}

/* A small model of the same make: every kind of tensor, matrices in K types. */
static nj_shape shrunk(const char *spec)
{
    nj_shape s = found(spec, 4);
    s.d_model = 256;
    s.heads = 4;
    s.kv_heads = 2;
    s.head_dim = 64;
    s.d_ff = 512;
    s.vocab = 1500;
    s.context = 1024;
    if (s.experts) s.experts = 32, s.experts_used = 4, s.expert_d_ff = 256;
    return s;
}

static void assert_near(const char *what, const char *name, double got, double expected, double part)
{
    if (fabs(got / expected - 1.0) > part) fail_msg("%s: %g %s, expected %g", name, got, what, expected);
}

/* ---- The table ---- */

/* In all and multiplied per token, in billions, as the makers' model cards say. */
static void weights_are_as_many_as_advertised(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        double params, active;
    } expected[] = {
        { "qwen3-4b", 4.02, 4.02 },          { "llama-8b", 8.03, 7.50 },          { "qwen2.5-32b", 32.76, 31.98 },
        { "llama-70b", 70.55, 69.5 },        { "mixtral-8x7b", 46.70, 12.75 },    { "qwen3-30b-a3b", 30.53, 3.04 },
        { "qwen3-235b-a22b", 235.1, 21.57 }, { "qwen3-coder-480b", 480.2, 34.5 },
    };
    for (size_t i = 0; i < NJ_COUNT(expected); i++) {
        assert_string_equal(nj_shape_name(i), expected[i].name);
        nj_shape s = found(expected[i].name, 0);
        nj_model_info m = described(&s);
        assert_near("billion weights", s.name, (double)m.params / 1e9, expected[i].params, 0.002);
        assert_near("billion weights per token", s.name, (double)m.params_active / 1e9, expected[i].active, 0.005);
        assert_int_equal(m.layers, s.layers_all);
        assert_int_equal(m.vocab, s.vocab);
    }
    assert_null(nj_shape_name(NJ_COUNT(expected)));
}

/* Files that other tools quantize to Q4_K_M read 2.49, 4.62 and 1.92 GB. With experts our mix keeps attention's keys
 * and values in Q8_0 and its output in Q5_K, which is 0.09 GB more. */
static void bytes_per_token_are_those_of_real_files(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        double gb;
    } expected[] = { { "qwen3-4b:q4_k_m", 2.49 }, { "llama-8b:Q4_K_M", 4.62 }, { "Qwen3-30B-A3B", 1.92 + 0.09 } };
    for (size_t i = 0; i < NJ_COUNT(expected); i++) {
        nj_shape s = found(expected[i].name, 0);
        assert_near("GB per token", s.name, (double)described(&s).bytes_per_token / 1e9, expected[i].gb, 0.005);
    }
}

static void a_shape_can_be_cut(void **state)
{
    (void)state;
    nj_shape s = found("qwen3-4b:q8_0", 2), whole = found("qwen3-4b:q8_0", 36);
    nj_model_info m = described(&s), all = described(&whole);
    assert_int_equal(m.layers, 2);
    assert_string_equal(m.name, "qwen3-4b of random weights, 2 of 36 layers");
    assert_string_equal(all.name, "qwen3-4b of random weights");
    assert_true(m.params_active < all.params_active / 4);
}

static void refused_with(const char *spec, uint32_t layers, const char *text, const char *remedy)
{
    nj_shape s;
    nj_error err = { 0 };
    assert_int_equal(nj_shape_find(spec, layers, &s, &err), -EINVAL);
    if (!strstr(err.text, text) || !strstr(err.remedy, remedy)) fail_msg("%s %s", err.text, err.remedy);
}

static void unknown_names_are_answered_with_what_is_known(void **state)
{
    (void)state;
    refused_with("qwen9-4b:q4_k_m", 0, "\"qwen9-4b\"", "mixtral-8x7b, qwen3-30b-a3b");
    refused_with("qwen3-4", 0, "\"qwen3-4\"", "qwen3-4b,");
    refused_with("", 0, "\"\"", "qwen3-4b,");
    refused_with("llama-8b:q9_z", 0, "\"q9_z\"", "llama-8b:q4_k_m");
    refused_with("llama-8b:", 0, "\"\"", "llama-8b:q4_k_m");
    refused_with("llama-8b:iq1_s", 0, "\"iq1_s\"", "MXFP4");
    refused_with("qwen3-4b", 37, "36 layers", "");
}

/* ---- Bytes ---- */

static nj_synth *synth(const nj_shape *shape)
{
    nj_synth *s;
    nj_error err = { 0 };
    if (nj_synth_new(&s, shape, &err)) fail_msg("%s", err.text);
    return s;
}

static void bytes_do_not_depend_on_how_they_are_read(void **state)
{
    (void)state;
    nj_shape shape = shrunk("mixtral-8x7b:q4_k_m");
    nj_synth *s = synth(&shape);
    const nj_tensor *t = nj_gguf_tensor(nj_synth_gguf(s), "blk.1.ffn_up_exps.weight");
    char *whole = malloc(t->bytes), *parts = malloc(t->bytes);
    nj_synth_read(s, t, 0, whole, t->bytes);
    for (uint64_t at = 0, n = 1; at < t->bytes; at += n, n = n * 5 % 4099 + 1) {
        if (n > t->bytes - at) n = t->bytes - at;
        nj_synth_read(s, t, at, parts + at, n);
    }
    assert_memory_equal(whole, parts, t->bytes);
    free(parts);
    free(whole);
    nj_synth_free(s);
}

/* Rows, experts, layers and seeds: nothing that a router or a sampler would notice repeats. */
static void no_two_rows_are_alike(void **state)
{
    (void)state;
    enum { ROW = 144, ROWS = 4096 }; /* 256 columns of Q4_K: the shortest row there is */
    nj_shape shape = shrunk("qwen3-30b-a3b:q4_k"), other = shape;
    other.seed = 1;
    nj_synth *s = synth(&shape), *s2 = synth(&other);
    const nj_gguf *g = nj_synth_gguf(s);
    const nj_tensor *up = nj_gguf_tensor(g, "blk.0.ffn_up_exps.weight"),
                    *next = nj_gguf_tensor(g, "blk.1.ffn_up_exps.weight");
    assert_int_equal(nj_row_bytes(up->type, up->dim[0]), ROW);
    char(*a)[ROW] = malloc(ROWS * ROW), (*b)[ROW] = malloc(ROWS * ROW);
    nj_synth_read(s, up, 0, a, ROWS * ROW);
    nj_synth_read(s, next, 0, b, ROWS * ROW);
    uint32_t same = 0;
    for (uint32_t i = 0; i < ROWS; i++) same += memcmp(a[i], b[i], ROW) == 0;
    assert_true(same < 20); /* of one piece each, chance makes 4096 / 2048 = 2 */
    for (uint64_t expert = 1; expert < shape.experts; expert++) {
        nj_synth_read(s, up, expert * up->dim[1] * ROW, b, up->dim[1] * ROW);
        assert_memory_not_equal(a, b, up->dim[1] * ROW);
    }
    nj_synth_read(s2, up, 0, b, ROWS * ROW);
    same = 0;
    for (uint32_t i = 0; i < ROWS; i++) same += memcmp(a[i], b[i], ROW) == 0;
    assert_int_equal(same, 0);
    free(b);
    free(a);
    nj_synth_free(s2);
    nj_synth_free(s);
}

/* Mean 0 and deviation 1 / sqrt(d_model), in every type that can be made. */
static void weights_have_the_scale_they_should(void **state)
{
    (void)state;
    enum { N = 64 * 256 };
    static const char *const type[] = { "f32",  "f16",  "bf16", "q8_0", "q4_0",   "q4_1",   "q5_0",   "q5_1", "q2_k",
                                        "q3_k", "q4_k", "q5_k", "q6_k", "q4_k_m", "iq4_nl", "iq4_xs", "mxfp4" };
    float *x = malloc(N * sizeof *x);
    for (size_t i = 0; i < NJ_COUNT(type); i++) {
        char spec[32], blocks[N * sizeof *x];
        double sum = 0, square = 0;
        snprintf(spec, sizeof spec, "llama-8b:%s", type[i]);
        nj_shape shape = shrunk(spec);
        nj_synth *s = synth(&shape);
        const nj_tensor *t = nj_gguf_tensor(nj_synth_gguf(s), "blk.2.ffn_up.weight");
        nj_synth_read(s, t, 0, blocks, N / 256 * nj_row_bytes(t->type, 256));
        nj_decode(t->type, blocks, x, N);
        for (int k = 0; k < N; k++) sum += (double)x[k], square += (double)x[k] * (double)x[k];
        assert_true(fabs(sum / N) < 0.04 / 16);
        assert_near("deviation", type[i], sqrt(square / N), 1.0 / 16, 0.06);
        nj_synth_free(s);
    }
    free(x);
}

/* ---- Models ---- */

static nj_engine *engine(const nj_model *m)
{
    nj_engine *e;
    nj_error err = { 0 };
    nj_engine_options opt = { .isa = -1, .threads = 2, .rows_max = 64, .kv_bytes_max = 1 << 26 };
    if (nj_engine_new(&e, m, &opt, &err)) fail_msg("%s", err.text);
    return e;
}

/* Appends `n` random tokens to a sequence; returns the logits of the last. */
static const float *feed(nj_engine *e, nj_sequence *q, uint32_t n, uint32_t *random)
{
    nj_row row[64];
    const float *logits = NULL;
    nj_error err = { 0 };
    for (uint32_t i = 0; i < n; i++) {
        *random = *random * 1664525u + 1013904223u;
        row[i] = (nj_row){ .sequence = q, .token = (int32_t)((*random >> 8) % e->m->h.vocab), .logits = i + 1 == n };
    }
    if (nj_engine_step(e, row, n, &logits, &err)) fail_msg("%s", err.text);
    return logits;
}

static char path[] = "/tmp/nightjar-shape-XXXXXX";

/* The file of a synthetic model at `path`, as the verb writes it; it begins with the header that was never written. */
static void write_file(const nj_shape *shape)
{
    nj_buf header = { 0 }, file = { 0 };
    uint64_t bytes;
    nj_gguf_writer *w;
    nj_synth *s = synth(shape);
    const nj_gguf *g = nj_synth_gguf(s);
    assert_int_equal(nj_gguf_writer_new(&w, path, NULL), 0);
    assert_int_equal(nj_gguf_writer_meta_copy(w, g, NULL), 0);
    for (size_t i = 0; i < nj_gguf_tensor_count(g); i++) {
        const nj_tensor *t = nj_gguf_tensor_at(g, i);
        assert_int_equal(nj_gguf_writer_tensor(w, t->name.data, t->type, t->n_dims, t->dim, t->bytes, NULL), 0);
    }
    for (size_t i = 0; i < nj_gguf_tensor_count(g); i++) {
        const nj_tensor *t = nj_gguf_tensor_at(g, i);
        char *data = malloc(t->bytes);
        nj_synth_read(s, t, 0, data, t->bytes);
        assert_int_equal(nj_gguf_writer_data(w, data, t->bytes, NULL), 0);
        free(data);
    }
    assert_int_equal(nj_gguf_writer_commit(w, NULL), 0);
    assert_int_equal(nj_shape_header(shape, &header, &bytes, NULL), 0);
    assert_int_equal(nj_file_read(path, 1 << 28, &file, NULL), 0);
    assert_int_equal(file.len, bytes);
    assert_memory_equal(file.data, header.data, header.len);
    nj_buf_free(&file);
    nj_buf_free(&header);
    nj_gguf_writer_free(w);
    nj_synth_free(s);
}

static void same_logits(const nj_model *a, const nj_model *b)
{
    nj_engine *e[2] = { engine(a), engine(b) };
    nj_sequence *q[2];
    const float *logits[2];
    for (int i = 0; i < 2; i++) {
        uint32_t random = 1;
        assert_int_equal(nj_sequence_new(e[i], &q[i], NULL), 0);
        logits[i] = feed(e[i], q[i], 8, &random);
    }
    assert_memory_equal(logits[0], logits[1], a->h.vocab * sizeof(float));
    for (int i = 0; i < 2; i++) {
        nj_sequence_free(e[i], q[i]);
        nj_engine_free(e[i]);
    }
}

static void the_model_in_ram_is_that_of_the_file(void **state)
{
    (void)state;
    close(mkstemp(path));
    static const char *const spec[] = { "qwen3-4b", "llama-8b:q8_0", "qwen2.5-32b:q3_k", "mixtral-8x7b:bf16",
                                        "qwen3-30b-a3b:q5_k_m" };
    for (size_t i = 0; i < NJ_COUNT(spec); i++) {
        nj_shape shape = shrunk(spec[i]);
        nj_model *ram = NULL, *file = NULL;
        nj_error err = { 0 };
        write_file(&shape);
        if (nj_model_open(&file, path, NULL, &err) || nj_model_synth(&ram, &shape, NULL, &err))
            fail_msg("%s", err.text);
        assert_string_equal(nj_model_info_of(ram)->name, nj_model_info_of(file)->name);
        assert_int_equal(nj_model_info_of(ram)->bytes, nj_model_info_of(file)->bytes);
        assert_true(nj_model_info_of(ram)->load_ns > 0);
        same_logits(ram, file);
        nj_model_close(ram);
        nj_model_close(file);
    }
    unlink(path);
}

/* Finite logits of deviation near 1, and experts of the last layer, where a drift would show most, that are chosen as
 * if by chance: a chi-square per degree of freedom near 1 (200 when rows grow alike with depth). */
static void routing_is_near_uniform_and_logits_are_finite(void **state)
{
    (void)state;
    enum { STEPS = 6, ROWS = 64, EXPERTS = 32 };
    nj_shape shape = shrunk("qwen3-30b-a3b:q4_k_m");
    shape.layers = 16;
    nj_model *m;
    nj_error err = { 0 };
    if (nj_model_synth(&m, &shape, NULL, &err)) fail_msg("%s", err.text);
    nj_engine *e = engine(m);
    nj_sequence *q;
    uint32_t random = 7, count[EXPERTS] = { 0 };
    assert_int_equal(nj_sequence_new(e, &q, NULL), 0);
    for (int step = 0; step < STEPS; step++) {
        const float *logits = feed(e, q, ROWS, &random);
        double square = 0;
        for (uint32_t i = 0; i < shape.vocab; i++) {
            assert_true(isfinite(logits[i]));
            square += (double)logits[i] * (double)logits[i];
        }
        assert_near("deviation of logits", "last row", sqrt(square / shape.vocab), 1.0, 0.3);
        for (uint32_t i = 0; i < ROWS * shape.experts_used; i++) count[e->step.routing.chosen[i]]++;
    }
    double share = (double)STEPS * ROWS * shape.experts_used / EXPERTS, chi_square = 0;
    for (int i = 0; i < EXPERTS; i++) chi_square += (count[i] - share) * (count[i] - share) / share;
    if (chi_square / (EXPERTS - 1) > 2.5) fail_msg("chi-square %g per degree of freedom", chi_square / (EXPERTS - 1));
    nj_sequence_free(e, q);
    nj_engine_free(e);
    nj_model_close(m);
}

/* Any bytes come back, words are joined, control tokens are known as such. */
static void the_vocabulary_is_whole(void **state)
{
    (void)state;
    nj_shape shape = shrunk("qwen3-4b");
    nj_model *m;
    nj_error err = { 0 };
    char text[300];
    if (nj_model_synth(&m, &shape, NULL, &err)) fail_msg("%s", err.text);
    const nj_tokenizer *t = nj_model_tokenizer(m);
    assert_int_equal(nj_tokenizer_size(t), shape.vocab);
    size_t len = (size_t)snprintf(text, sizeof text, "in the night<|im_end|>");
    nj_tokens ids = { 0 };
    nj_buf back = { 0 };
    assert_int_equal(nj_tokenize(t, text, len, NJ_TOKENIZE_SPECIAL, &ids, &err), 0);
    assert_true(ids.len <= 8); /* 12 bytes of text make at most 7 tokens when pairs are joined */
    assert_true(nj_token_is_end(t, ids.id[ids.len - 1]));
    assert_true(nj_token_is_special(t, nj_tokenizer_bos(t)));
    ids.len = 0;
    for (int i = 0; i < 256; i++) text[i] = (char)i;
    assert_int_equal(nj_tokenize(t, text, 256, 0, &ids, &err), 0);
    nj_detokenize(t, ids.id, ids.len, false, &back);
    assert_int_equal(back.len, 256);
    assert_memory_equal(back.data, text, 256);
    assert_non_null(nj_model_template(m));
    nj_buf_free(&back);
    free(ids.id);
    nj_model_close(m);
}

static void what_can_not_be_is_refused_before_any_work(void **state)
{
    (void)state;
    nj_model *m = NULL;
    nj_error err = { 0 };
    nj_shape shape = found("qwen3-coder-480b:f32", 0);
    shape.layers = 1000; /* 31 TB */
    assert_int_equal(nj_model_synth(&m, &shape, NULL, &err), -ENOMEM);
    assert_non_null(strstr(err.text, "GB are available"));
    assert_non_null(strstr(err.remedy, "fewer layers"));
    shape = shrunk("qwen3-4b");
    shape.vocab = 200;
    assert_int_equal(nj_model_synth(&m, &shape, NULL, &err), -EINVAL);
    shape = shrunk("qwen3-4b");
    shape.kv_heads = 3;
    assert_int_equal(nj_model_synth(&m, &shape, NULL, &err), -EINVAL);
    shape = shrunk("qwen3-4b");
    assert_int_equal(nj_model_synth(&m, &shape, &(nj_model_options){ .cancel = &(bool){ true } }, &err), -ECANCELED);
    assert_null(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(weights_are_as_many_as_advertised),
        cmocka_unit_test(bytes_per_token_are_those_of_real_files),
        cmocka_unit_test(a_shape_can_be_cut),
        cmocka_unit_test(unknown_names_are_answered_with_what_is_known),
        cmocka_unit_test(bytes_do_not_depend_on_how_they_are_read),
        cmocka_unit_test(no_two_rows_are_alike),
        cmocka_unit_test(weights_have_the_scale_they_should),
        cmocka_unit_test(the_model_in_ram_is_that_of_the_file),
        cmocka_unit_test(routing_is_near_uniform_and_logits_are_finite),
        cmocka_unit_test(the_vocabulary_is_whole),
        cmocka_unit_test(what_can_not_be_is_refused_before_any_work),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
