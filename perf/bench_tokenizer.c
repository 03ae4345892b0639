/* How fast text becomes tokens, on one thread: prose as one long text, as short ones, and the load of a vocabulary.
 *   bench_tokenizer [VOCABULARY.gguf...]   default: those of ../shared/golden */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "engine/nj_engine.h"

enum { ROUNDS = 7, REPEAT = 40, SHORT = 400 };

static double cpu_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *v)
{
    qsort(v, ROUNDS, sizeof *v, ascending);
    return v[ROUNDS / 2];
}

/* Seconds to tokenize `text` in pieces of `step` bytes. */
static double tokenize(const nj_tokenizer *t, const nj_buf *text, size_t step)
{
    nj_tokens out = { 0 };
    double begin = cpu_seconds();
    for (size_t at = 0; at < text->len; at += step) {
        out.len = 0;
        nj_tokenize(t, text->data + at, text->len - at < step ? text->len - at : step, NJ_TOKENIZE_SPECIAL, &out, NULL);
    }
    double seconds = cpu_seconds() - begin;
    free(out.id);
    return seconds;
}

static void bench(const char *path, const nj_buf *text, const nj_gguf_types *types)
{
    nj_error err = { 0 };
    nj_gguf *g;
    nj_tokenizer *t = NULL;
    double load[ROUNDS], longs[ROUNDS], shorts[ROUNDS];
    if (nj_gguf_open(&g, path, types, &err)) {
        printf("SKIP tokenizer %s: %s\n", path, err.text);
        return;
    }
    for (int i = 0; i < ROUNDS; i++) {
        double begin = cpu_seconds();
        nj_tokenizer_free(t);
        if (nj_tokenizer_new(&t, g, &err)) {
            printf("SKIP tokenizer %s: %s\n", path, err.text);
            nj_gguf_close(g);
            return;
        }
        load[i] = 1e3 * (cpu_seconds() - begin);
    }
    for (int i = 0; i < ROUNDS; i++) {
        longs[i] = (double)text->len / 1e6 / tokenize(t, text, text->len);
        shorts[i] = (double)text->len / 1e6 / tokenize(t, text, SHORT);
    }
    const char *file = strrchr(path, '/');
    printf("tokenizer %-30s %6d tokens  load %4.0f ms  prose %5.1f MB/s  in texts of %d bytes %5.1f MB/s\n",
           file ? file + 1 : path, nj_tokenizer_size(t), median(load), median(longs), SHORT, median(shorts));
    nj_tokenizer_free(t);
    nj_gguf_close(g);
}

int main(int argc, char **argv)
{
    static const char *const vocabularies[] = {
        "qwen3", "llama3", "ggml-vocab-llama-spm", "ggml-vocab-gpt-2", "ggml-vocab-deepseek-coder", "ggml-vocab-phi-3"
    };
    const nj_gguf_types types = { nj_format_size, nj_format_name };
    nj_buf book = { 0 }, text = { 0 };
    nj_error err = { 0 };
    if (nj_file_read("../shared/golden/models/nano-heldout.txt", 1 << 26, &book, &err)) {
        printf("SKIP tokenizer: %s\n", err.text);
        return 0;
    }
    for (int i = 0; i < REPEAT; i++) nj_buf_add(&text, book.data, book.len);
    for (int i = 1; i < argc; i++) bench(argv[i], &text, &types);
    for (size_t i = 0; i < NJ_COUNT(vocabularies) && argc == 1; i++) {
        char path[256];
        snprintf(path, sizeof path, "../shared/golden/tokenizers/%s.gguf", vocabularies[i]);
        bench(path, &text, &types);
    }
    nj_buf_free(&book);
    nj_buf_free(&text);
    return 0;
}
