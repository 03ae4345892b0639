/* Inside of `nightjar batch`: its plan, and the run that works it off. Used by batch*.c alone. */
#ifndef NJ_BATCH_H
#define NJ_BATCH_H

#include "appliance/lines.h"
#include "appliance/openai.h"
#include "appliance/progress.h"
#include "appliance/results.h"

enum { NJ_BATCH_LINE_MAX = 64 << 20, NJ_BATCH_ID_MAX = 512 };

/* ---- Lines of the input ---- */

typedef struct nj_batch_line {
    json_t *root;          /* NULL when it isn't JSON */
    const char *custom_id; /* NULL when the line has none that can be used */
    const char *code;      /* then: what is wrong */
    char message[256];
} nj_batch_line;

void nj_batch_line_read(nj_batch_line *out, const nj_lines *l);
void nj_batch_line_free(nj_batch_line *b);

/* Refuses, with -EINVAL, a file in which a line holds what no text does: it is of another kind. */
int nj_batch_line_check(const nj_lines *l, nj_error *err);

/* ---- The plan: one pass over the input before a model is loaded ---- */

typedef enum nj_batch_kind { NJ_LINE_BLANK, NJ_LINE_DONE, NJ_LINE_TODO, NJ_LINE_DUPLICATE } nj_batch_kind;

typedef struct nj_batch_plan {
    uint8_t *kind; /* [lines], nj_batch_kind by line number - 1; DUPLICATE is also to do */
    size_t lines, cap;
    uint64_t total;     /* lines that are not blank */
    uint64_t done;      /* of these, found in the result file */
    uint64_t strangers; /* results of no line of the input */
    nj_idmap failed;    /* keys of the lines found done with an error */
} nj_batch_plan;

/* Reads all of `in` (left rewound) against what is done. -EINVAL when it isn't a file of requests. */
int nj_batch_plan_make(nj_batch_plan *p, nj_lines *in, const nj_results *done, nj_error *err);
void nj_batch_plan_free(nj_batch_plan *p);

/* ---- The run ---- */

typedef struct nj_batch_options {
    uint32_t parallel;   /* answers computed at a time */
    uint32_t max_tokens; /* for chat requests that name none; 0: until the context is full */
    uint64_t seed;       /* mixed into the seeds of requests that name none */
    bool detect_loops;
    const char *model_name, *fingerprint;
    const struct tm *now; /* for templates; NULL: the present */
    const volatile bool *stop;
} nj_batch_options;

typedef struct nj_batch_counts {
    uint64_t answered, errors; /* lines written by this run */
    uint64_t prompt_tokens, completion_tokens;
    uint64_t loops; /* answers ended by the repetition detector */
} nj_batch_counts;

/* Answers what the plan has to do. 0 when all is done, -ECANCELED when *stop became true, else the run has failed; what
 * has been counted is in the result file in any case. */
int nj_batch_run(nj_engine *e, const nj_model *m, const nj_batch_options *opt, const nj_batch_plan *plan, nj_lines *in,
                 nj_results *out, nj_progress *bar, nj_batch_counts *counts, nj_error *err);

#endif
