/* nightjar quantize: a copy of a model in smaller weight types, in bounded memory whatever the model's size. */
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "appliance/cli.h"
#include "appliance/facts.h"
#include "appliance/verbs.h"
#include "numa/nj_numa.h"

/* Weights that one worker converts at a time: a multiple of every block (32 and 256), 32 KB of floats. Blocks never
 * cross rows, as rows are whole blocks, so a tensor is cut without regard to them. */
#define PIECE_WEIGHTS 8192
/* Pieces read, converted and written together: 32 MB of F32 input. */
#define CHUNK_PIECES 1024

typedef struct args {
    uint32_t threads;
    bool force, requantize, quiet;
} args;

static const nj_cli_option options[] = {
    { "threads", 't', "N", nj_cli_u32, offsetof(args, threads), 1, 4096, "worker threads (one per physical core)" },
    { "force", 0, NULL, NULL, offsetof(args, force), 0, 0, "replace OUT if it is there" },
    { "allow-requantize", 0, NULL, NULL, offsetof(args, requantize), 0, 0,
      "accept input that is quantized already; worse than starting from the original" },
    { "quiet", 'q', NULL, NULL, offsetof(args, quiet), 0, 0, "no progress bar and no table" },
    { 0 },
};

static const nj_cli_verb verb = {
    .name = "quantize",
    .usage = "IN OUT TYPE",
    .summary =
        "Writes a smaller copy of a model. IN holds F32, F16 or BF16 weights and may be split; OUT is one file.\n"
        "TYPE is one of Q4_K_M, Q5_K_M, Q6_K, Q8_0 (good choices), Q2_K, Q3_K, Q4_K, Q5_K, Q4_0, Q4_1, Q5_0,\n"
        "Q5_1, IQ4_NL, IQ4_XS, MXFP4, F16, BF16, F32. Norms, biases and the router stay exact.",
    .options = options,
    .examples = "  nightjar quantize qwen3-8b-bf16.gguf qwen3-8b-q4_k_m.gguf Q4_K_M\n"
                "  nightjar quantize big-bf16-00001-of-00009.gguf big-q6_k.gguf q6_k --threads 16\n",
    .operands_min = 3,
    .operands_max = 3,
};

/* One chunk of a tensor on its way through the workers. */
typedef struct job {
    const nj_gguf *g;
    const nj_tensor *t;
    uint32_t from, to;       /* types */
    uint64_t first, weights; /* the chunk: weights [first, first + weights) of the tensor */
    char *raw, *out;         /* [chunk] in the types from and to */
    float *scratch;          /* [workers][PIECE_WEIGHTS] */
    nj_error *err;           /* [workers] */
    uint64_t *not_finite;    /* [workers], over the whole tensor */
} job;

typedef struct quantizer {
    const args *a;
    nj_gguf *g;
    nj_gguf_writer *w;
    nj_pool *pool;
    job job;
    int mix;
    nj_mix_model model;
    uint32_t *type;                                                       /* [tensors] chosen */
    nj_group_facts before[NJ_GROUP_COUNT + 1], after[NJ_GROUP_COUNT + 1]; /* the last is all */
    nj_progress bar;
    uint64_t done; /* input bytes */
} quantizer;

/* Bytes of `weights` (whole blocks) in a type that nj_format_size knows. */
static uint64_t type_bytes(uint32_t type, uint64_t weights)
{
    uint32_t block = 1, bytes = 0;
    nj_format_size(type, &block, &bytes);
    return weights / block * bytes;
}

static uint64_t tensor_weights(const nj_tensor *t)
{
    return t->dim[0] * t->dim[1] * t->dim[2] * t->dim[3];
}

/* ---- Converting ---- */

static uint64_t count_not_finite(const float *x, uint64_t n)
{
    uint64_t found = 0;
    for (uint64_t i = 0; i < n; i++) found += !isfinite(x[i]);
    return found;
}

/* Reads and converts this worker's share of the chunk. */
static void convert_share(void *arg, uint32_t worker, uint32_t workers)
{
    job *j = arg;
    float *x = j->scratch + (size_t)worker * PIECE_WEIGHTS;
    uint64_t pieces = (j->weights + PIECE_WEIGHTS - 1) / PIECE_WEIGHTS, begin, end;
    nj_share(pieces, worker, workers, &begin, &end);
    begin *= PIECE_WEIGHTS;
    end = end * PIECE_WEIGHTS < j->weights ? end * PIECE_WEIGHTS : j->weights;
    if (begin >= end) return;
    char *raw = j->raw + type_bytes(j->from, begin);
    if (nj_gguf_read(j->g, j->t, type_bytes(j->from, j->first + begin), raw, type_bytes(j->from, end - begin),
                     &j->err[worker]) != 0)
        return;
    if (j->from == j->to) return;
    for (uint64_t at = begin; at < end; at += PIECE_WEIGHTS) {
        uint64_t n = end - at < PIECE_WEIGHTS ? end - at : PIECE_WEIGHTS;
        nj_decode(j->from, j->raw + type_bytes(j->from, at), x, n);
        j->not_finite[worker] += count_not_finite(x, n);
        nj_encode(j->to, x, j->out + type_bytes(j->to, at), n);
    }
}

static int write_tensor(quantizer *q, size_t index, nj_error *err)
{
    job *j = &q->job;
    const nj_tensor *t = nj_gguf_tensor_at(q->g, index);
    uint32_t workers = nj_pool_workers(q->pool);
    uint64_t all = tensor_weights(t), chunk = (uint64_t)CHUNK_PIECES * PIECE_WEIGHTS, lost = 0;

    j->t = t;
    j->from = t->type;
    j->to = q->type[index];
    memset(j->not_finite, 0, workers * sizeof *j->not_finite);
    for (j->first = 0; j->first < all; j->first += chunk) {
        j->weights = all - j->first < chunk ? all - j->first : chunk;
        nj_pool_run(q->pool, convert_share, j);
        for (uint32_t i = 0; i < workers; i++)
            if (j->err[i].code) {
                *err = j->err[i];
                return err->code;
            }
        int rc = nj_gguf_writer_data(q->w, j->from == j->to ? j->raw : j->out, type_bytes(j->to, j->weights), err);
        if (rc != 0) return rc;
        q->done += type_bytes(j->from, j->weights);
        nj_progress_update(&q->bar, q->done, q->before[NJ_GROUP_COUNT].bytes);
        if (nj_cli_interrupted) return nj_fail(err, -ECANCELED, "Stopped; nothing was written.");
    }
    for (uint32_t i = 0; i < workers; i++) lost += j->not_finite[i];
    if (lost)
        nj_progress_say(
            &q->bar, "nightjar: tensor %s holds %" PRIu64 " weights that are no finite numbers; quantized they are 0.",
            t->name.data, lost);
    return 0;
}

/* ---- Planning ---- */

static int check_input(const quantizer *q, const nj_tensor *t, nj_error *err)
{
    if (t->type == NJ_F32 || t->type == NJ_F16 || t->type == NJ_BF16 || q->a->requantize) return 0;
    nj_fail(err, -EINVAL, "%s: tensor %s is %s already; rounding twice loses more than the type asks for.",
            nj_gguf_path(q->g), t->name.data, nj_format_name(t->type));
    return nj_remedy(err, "Start from the F16 or BF16 file, or insist with --allow-requantize.");
}

static void count_tensor(nj_group_facts *f, uint32_t type, uint64_t weights)
{
    f->tensors++;
    f->params += weights;
    f->bytes += type_bytes(type, weights);
    f->type_bytes[type] += type_bytes(type, weights);
}

/* Chooses every tensor's type and adds up both sides. */
static int plan(quantizer *q, nj_error *err)
{
    size_t n = nj_gguf_tensor_count(q->g);
    nj_facts facts;
    if (n == 0) return nj_fail(err, -EINVAL, "%s: there are no tensors to quantize.", nj_gguf_path(q->g));
    nj_facts_read(&facts, q->g);
    /* An architecture that we can't run has the same tensor names, and its quantized file may serve others. */
    q->model = (nj_mix_model){ .layers = facts.info.layers, .experts = facts.info.experts };
    q->model.tied = !nj_gguf_tensor(q->g, "output.weight");
    if (!(q->type = nj_array_new(n, sizeof *q->type))) return nj_fail(err, -ENOMEM, "There is no memory left.");
    for (size_t i = 0; i < n; i++) {
        const nj_tensor *t = nj_gguf_tensor_at(q->g, i);
        int rc = check_input(q, t, err);
        if (rc != 0) return rc;
        q->type[i] = nj_mix_type(q->mix, &q->model, t->name.data, t->dim, t->n_dims);
        nj_group group = nj_group_of(t->name.data);
        uint64_t weights = tensor_weights(t);
        count_tensor(&q->before[group], t->type, weights);
        count_tensor(&q->before[NJ_GROUP_COUNT], t->type, weights);
        count_tensor(&q->after[group], q->type[i], weights);
        count_tensor(&q->after[NJ_GROUP_COUNT], q->type[i], weights);
    }
    return 0;
}

/* OUT must never be IN, and have room. */
static int check_output(const quantizer *q, const char *out, nj_error *err)
{
    struct stat in, st;
    bool there = stat(out, &st) == 0;
    for (uint32_t i = 0; there && i < nj_gguf_files(q->g); i++)
        if (stat(nj_gguf_file_path(q->g, i), &in) == 0 && in.st_dev == st.st_dev && in.st_ino == st.st_ino)
            return nj_fail(err, -EINVAL, "%s is the input itself.", out);
    /* The new header is as long as the old one, give or take padding. */
    double header = (double)(nj_gguf_bytes(q->g) - q->before[NJ_GROUP_COUNT].bytes) + 1e6;
    return nj_cli_check_output(out, (double)q->after[NJ_GROUP_COUNT].bytes + header, q->a->force, err);
}

static int declare(quantizer *q, nj_error *err)
{
    int rc = nj_gguf_writer_meta_copy(q->w, q->g, err);
    if (rc == 0) rc = nj_gguf_writer_meta_u32(q->w, "general.file_type", nj_mix_file_type(q->mix), err);
    if (rc == 0) rc = nj_gguf_writer_meta_u32(q->w, "general.quantization_version", 2, err);
    for (size_t i = 0; i < nj_gguf_tensor_count(q->g) && rc == 0; i++) {
        const nj_tensor *t = nj_gguf_tensor_at(q->g, i);
        rc = nj_gguf_writer_tensor(q->w, t->name.data, q->type[i], t->n_dims, t->dim,
                                   type_bytes(q->type[i], tensor_weights(t)), err);
    }
    return rc;
}

static int new_job(quantizer *q, nj_error *err)
{
    job *j = &q->job;
    size_t workers = nj_pool_workers(q->pool), chunk = (size_t)CHUNK_PIECES * PIECE_WEIGHTS;
    j->g = q->g;
    j->raw = nj_array_new(chunk, sizeof(float)); /* no type takes more than F32 */
    j->out = nj_array_new(chunk, sizeof(float));
    j->scratch = nj_array_new(workers * PIECE_WEIGHTS, sizeof(float));
    j->err = nj_array_new(workers, sizeof *j->err);
    j->not_finite = nj_array_new(workers, sizeof *j->not_finite);
    if (j->raw && j->out && j->scratch && j->err && j->not_finite) return 0;
    return nj_fail(err, -ENOMEM, "There is no memory for the buffers (%zu MB).", 2 * chunk * sizeof(float) >> 20);
}

/* ---- The verb ---- */

static void print_types(const nj_group_facts *f)
{
    const char *gap = "";
    for (uint32_t t = 0; t < NJ_TYPE_COUNT; t++)
        if (f->type_bytes[t]) {
            printf("%s%s", gap, nj_format_name(t));
            gap = " ";
        }
}

static void print_table(const quantizer *q, const char *out, double seconds)
{
    char from[24], to[24], rate[24];
    printf("%-10s %9s    %9s  %6s  types\n", "", "before", "after", "bits");
    for (int i = 0; i <= NJ_GROUP_COUNT; i++) {
        const nj_group_facts *b = &q->before[i], *a = &q->after[i];
        if (!b->tensors) continue;
        nj_text_bytes((double)b->bytes, from);
        nj_text_bytes((double)a->bytes, to);
        printf("%-10s %9s -> %9s  %6.2f  ", i < NJ_GROUP_COUNT ? nj_group_name((nj_group)i) : "all", from, to,
               8.0 * (double)a->bytes / (double)b->params);
        print_types(a);
        putchar('\n');
    }
    nj_text_bytes((double)q->before[NJ_GROUP_COUNT].bytes / (seconds > 0 ? seconds : 1e-9), rate);
    printf("%s: %s in %.1f s (%s/s)\n", out, nj_mix_name(q->mix), seconds, rate);
}

static int quantize(quantizer *q, const char *in, const char *out, nj_error *err)
{
    int rc = nj_gguf_open(&q->g, in, nj_weight_types(), err);
    if (rc == 0) rc = plan(q, err);
    if (rc == 0) rc = check_output(q, out, err);
    if (rc == 0) rc = nj_pool_new(&q->pool, q->a->threads, err);
    if (rc == 0) rc = new_job(q, err);
    if (rc == 0) rc = nj_gguf_writer_new(&q->w, out, err);
    if (rc == 0) rc = declare(q, err);
    if (rc != 0) return rc;
    nj_progress_begin(&q->bar, "Quantizing", NULL, q->a->quiet);
    for (size_t i = 0; i < nj_gguf_tensor_count(q->g) && rc == 0; i++) rc = write_tensor(q, i, err);
    if (rc == 0) rc = nj_gguf_writer_commit(q->w, err);
    nj_progress_end(&q->bar);
    return rc;
}

int nj_verb_quantize(int argc, char **argv)
{
    args a = { 0 };
    char **operand;
    nj_error err = { 0 };
    int status = nj_cli_parse(&verb, argc, argv, &a, &operand, NULL);
    if (status >= 0) return status;
    quantizer q = { .a = &a, .mix = nj_mix_find(operand[2]) };
    if (q.mix < 0) return nj_cli_usage(&verb, "'%s' is not a type that can be written.", operand[2]);

    nj_cli_catch_interrupt(true);
    uint64_t start = nj_now_ns();
    int rc = quantize(&q, operand[0], operand[1], &err);
    if (rc == 0 && !a.quiet) print_table(&q, operand[1], (double)(nj_now_ns() - start) / 1e9);
    nj_gguf_writer_free(q.w);
    nj_pool_free(q.pool);
    free(q.job.raw);
    free(q.job.out);
    free(q.job.scratch);
    free(q.job.err);
    free(q.job.not_finite);
    free(q.type);
    nj_gguf_close(q.g);
    return rc ? nj_cli_fail(&err) : 0;
}
