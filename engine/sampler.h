/* Picks the next token of one sequence from its logits.
 *
 * A sampler owns all its memory from the start (about 20 bytes per vocabulary entry when everything is on): accept and
 * pick never allocate. A pick depends on the settings, the accepted tokens, the logits and how many picks went before;
 * nothing else, so the same seed gives the same text. One thread at a time per sampler. */
#ifndef NJ_SAMPLER_H
#define NJ_SAMPLER_H

#include "engine/nj_engine.h"

typedef struct nj_sampler nj_sampler;

/* Copies *p with its bias list. -EINVAL for a value outside its range or a biased token outside [0, vocab);
 * the error names the field as the OpenAI API does. */
int nj_sampler_new(nj_sampler **out, const nj_sampling *p, int32_t vocab, nj_error *err);
void nj_sampler_free(nj_sampler *s); /* accepts NULL */

/* Tells the sampler a token of the prompt or of the answer; penalties look at these. */
void nj_sampler_accept(nj_sampler *s, int32_t token);

/* Picks from logits[vocab], which it leaves alone, and does not accept what it picked. NaN counts as impossible;
 * when every token is impossible the answer is token 0. */
int32_t nj_sampler_pick(nj_sampler *s, const float *logits);

/* What a log probability is at least: JSON has no minus infinity, and OpenAI's API writes this figure. */
#define NJ_LOGPROB_MIN (-9999.0f)

/* Natural log of the softmax of `token` in *logprob (may be NULL), and the `top_count` likeliest tokens in top[], best
 * first, equals by id. Entries past the vocabulary get token -1. */
void nj_logprobs(const float *logits, int32_t vocab, int32_t token, float *logprob, nj_top *top, uint32_t top_count);

#endif
