/* nightjar synth: a model file of a well-known shape with random weights, written as fast as the drive takes it. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "appliance/cli.h"
#include "appliance/verbs.h"

enum { CHUNK_BYTES = 1 << 20 }; /* computed and written while it is in L2 */

typedef struct args {
    uint32_t layers;
    uint64_t seed;
    bool force, quiet;
} args;

static const nj_cli_option options[] = {
    { "layers", 0, "N", nj_cli_u32, offsetof(args, layers), 1, 4096, "only the first N layers (all)" },
    { "seed", 0, "N", nj_cli_u64, offsetof(args, seed), 0, 0, "other random weights (0)" },
    { "force", 0, NULL, NULL, offsetof(args, force), 0, 0, "replace OUT if it is there" },
    { "quiet", 'q', NULL, NULL, offsetof(args, quiet), 0, 0, "no progress bar and no last line" },
    { 0 },
};

static const nj_cli_verb verb = {
    .name = "synth",
    .usage = "SHAPE[:TYPE] OUT",
    .summary =
        "Writes a model file with the shape of a real model and random weights, to measure this machine with any\n"
        "engine before a long download. What it answers is noise. SHAPE is one of qwen3-4b, llama-8b, qwen2.5-32b,\n"
        "llama-70b, mixtral-8x7b, qwen3-30b-a3b, qwen3-235b-a22b, qwen3-coder-480b; TYPE is what quantize takes\n"
        "(Q4_K_M).",
    .options = options,
    .examples = "  nightjar synth qwen3-4b:q4_k_m random-4b.gguf\n"
                "  nightjar synth qwen3-235b-a22b:q4_k_m --layers 4 slice.gguf\n",
    .operands_min = 2,
    .operands_max = 2,
};

typedef struct job {
    const args *a;
    nj_synth *synth;
    nj_gguf *g;
    nj_gguf_writer *w;
    char *chunk; /* [CHUNK_BYTES] */
    nj_progress bar;
    uint64_t done;
} job;

static int declare(job *j, nj_error *err)
{
    int rc = nj_gguf_writer_meta_copy(j->w, j->g, err);
    for (size_t i = 0; i < nj_gguf_tensor_count(j->g) && rc == 0; i++) {
        const nj_tensor *t = nj_gguf_tensor_at(j->g, i);
        rc = nj_gguf_writer_tensor(j->w, t->name.data, t->type, t->n_dims, t->dim, t->bytes, err);
    }
    return rc;
}

static int write_tensor(job *j, const nj_tensor *t, nj_error *err)
{
    for (uint64_t at = 0; at < t->bytes; at += CHUNK_BYTES) {
        uint64_t n = t->bytes - at < CHUNK_BYTES ? t->bytes - at : CHUNK_BYTES;
        nj_synth_read(j->synth, t, at, j->chunk, n);
        int rc = nj_gguf_writer_data(j->w, j->chunk, n, err);
        if (rc != 0) return rc;
        j->done += n;
        nj_progress_update(&j->bar, j->done, nj_gguf_bytes(j->g));
        if (nj_cli_interrupted) return nj_fail(err, -ECANCELED, "Stopped; nothing was written.");
    }
    return 0;
}

static int synth(job *j, const nj_shape *shape, const char *out, nj_error *err)
{
    int rc = nj_synth_new(&j->synth, shape, err);
    if (rc == 0) {
        j->g = nj_synth_gguf(j->synth);
        rc = nj_cli_check_output(out, (double)nj_gguf_bytes(j->g), j->a->force, err);
    }
    if (rc == 0 && !(j->chunk = malloc(CHUNK_BYTES))) rc = nj_fail(err, -ENOMEM, "There is no memory left.");
    if (rc == 0) rc = nj_gguf_writer_new(&j->w, out, err);
    if (rc == 0) rc = declare(j, err);
    if (rc != 0) return rc;
    nj_progress_begin(&j->bar, "Writing", NULL, j->a->quiet);
    for (size_t i = 0; i < nj_gguf_tensor_count(j->g) && rc == 0; i++)
        rc = write_tensor(j, nj_gguf_tensor_at(j->g, i), err);
    if (rc == 0) rc = nj_gguf_writer_commit(j->w, err);
    nj_progress_end(&j->bar);
    return rc;
}

static void print_result(const job *j, const char *out, double seconds)
{
    char size[24], rate[24];
    nj_model_info m;
    if (nj_model_describe(j->g, &m, NULL) != 0) return;
    nj_text_bytes((double)nj_gguf_bytes(j->g), size);
    nj_text_bytes((double)nj_gguf_bytes(j->g) / (seconds > 0 ? seconds : 1e-9), rate);
    printf("%s: %s, %.2f billion weights, %s in %.1f s (%s/s)\n", out, m.name, (double)m.params / 1e9, size, seconds,
           rate);
}

int nj_verb_synth(int argc, char **argv)
{
    args a = { 0 };
    char **operand;
    nj_error err = { 0 };
    nj_shape shape;
    int status = nj_cli_parse(&verb, argc, argv, &a, &operand, NULL);
    if (status >= 0) return status;
    if (nj_shape_find(operand[0], a.layers, &shape, &err) != 0) {
        nj_cli_fail(&err);
        return 2;
    }
    shape.seed = a.seed;
    job j = { .a = &a };
    nj_cli_catch_interrupt(true);
    uint64_t start = nj_now_ns();
    int rc = synth(&j, &shape, operand[1], &err);
    if (rc == 0 && !a.quiet) print_result(&j, operand[1], (double)(nj_now_ns() - start) / 1e9);
    nj_gguf_writer_free(j.w);
    free(j.chunk);
    nj_synth_free(j.synth);
    return rc ? nj_cli_fail(&err) : 0;
}
