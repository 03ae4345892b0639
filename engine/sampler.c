/* Sampling. See sampler.h.
 *
 * The order is: bias, penalties, then for temperature 0 the largest logit, else top_k, typical_p, top_p, min_p,
 * temperature, draw. Bias and penalties come first because they say what the user wants of the distribution itself. The
 * cuts see the model's own probabilities, as temperature comes last: a high temperature then varies among the tokens
 * that the model finds plausible and does not first lift the implausible ones over the cut. llama.cpp has the same
 * default order, so settings found for it mean the same here. */
#include "engine/sampler.h"

#include <errno.h>
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct cand {
    float key; /* what the present cut ranks by */
    float logit;
    int32_t id;
} cand;

struct nj_sampler {
    nj_sampling set;
    nj_logit_bias *bias;
    int32_t vocab;
    bool penalties;
    uint32_t *count; /* [vocab], occurrences within the window; only with penalties */
    int32_t *window; /* [set.penalty_window], a ring; only with penalties and a window */
    uint64_t accepted;
    float *work; /* [vocab], adjusted logits; only with bias or penalties */
    cand *cands; /* [vocab]; only when temperature > 0 */
    uint64_t rng;
};

/* ---- Settings ---- */

enum { PENALTY_WINDOW_MAX = 1 << 24 }; /* the ring is allocated at once; no context is longer */

static int check_range(const char *name, float value, float low, float high, nj_error *err)
{
    if (value >= low && value <= high) return 0; /* false for NaN */
    if (high == FLT_MAX)
        return nj_fail(err, -EINVAL, "%s is %g, but must be a finite number of at least %g.", name, (double)value,
                       (double)low);
    return nj_fail(err, -EINVAL, "%s is %g, but must lie between %g and %g.", name, (double)value, (double)low,
                   (double)high);
}

static int check_settings(const nj_sampling *p, int32_t vocab, nj_error *err)
{
    int rc;
    if (vocab < 1) return nj_fail(err, -EINVAL, "The vocabulary is empty.");
    if ((rc = check_range("temperature", p->temperature, 0, FLT_MAX, err))) return rc;
    if ((rc = check_range("top_p", p->top_p, 0, 1, err))) return rc;
    if ((rc = check_range("min_p", p->min_p, 0, 1, err))) return rc;
    if ((rc = check_range("typical_p", p->typical_p, 0, 1, err))) return rc;
    if ((rc = check_range("repeat_penalty", p->repeat_penalty, 0.01f, 100, err))) return rc;
    if ((rc = check_range("presence_penalty", p->presence_penalty, -100, 100, err))) return rc;
    if ((rc = check_range("frequency_penalty", p->frequency_penalty, -100, 100, err))) return rc;
    if (p->penalty_window > PENALTY_WINDOW_MAX)
        return nj_fail(err, -EINVAL, "penalty_window is %u, but may be at most %d.", p->penalty_window,
                       PENALTY_WINDOW_MAX);
    for (size_t i = 0; i < p->bias_count; i++) {
        if (p->bias[i].token < 0 || p->bias[i].token >= vocab)
            return nj_fail(err, -EINVAL, "logit_bias names token %d, but the vocabulary has the tokens 0 to %d.",
                           p->bias[i].token, vocab - 1);
        if (!isfinite(p->bias[i].bias))
            return nj_fail(err, -EINVAL, "logit_bias of token %d is not a finite number.", p->bias[i].token);
    }
    return 0;
}

/* The finaliser of SplitMix64 (Steele, Lea, Flood 2014): a bijection of 64 bits that scatters neighbours. */
static uint64_t mix64(uint64_t z)
{
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}

int nj_sampler_new(nj_sampler **out, const nj_sampling *p, int32_t vocab, nj_error *err)
{
    int rc = check_settings(p, vocab, err);
    if (rc) return rc;
    nj_sampler *s = nj_new(nj_sampler);
    if (!s) goto no_memory;
    s->set = *p;
    s->vocab = vocab;
    s->rng = mix64(p->seed); /* mixed, as n answers to one request take the seeds s, s + 1, ... */
    s->penalties = p->repeat_penalty != 1 || p->presence_penalty != 0 || p->frequency_penalty != 0;
    if (p->bias_count) {
        if (!(s->bias = nj_array_new(p->bias_count, sizeof *s->bias))) goto no_memory;
        memcpy(s->bias, p->bias, p->bias_count * sizeof *s->bias);
    }
    s->set.bias = s->bias;
    if (s->penalties && !(s->count = nj_array_new((size_t)vocab, sizeof *s->count))) goto no_memory;
    if (s->penalties && p->penalty_window && !(s->window = nj_array_new(p->penalty_window, sizeof *s->window)))
        goto no_memory;
    if ((s->penalties || p->bias_count) && !(s->work = nj_array_new((size_t)vocab, sizeof *s->work))) goto no_memory;
    if (p->temperature > 0 && !(s->cands = nj_array_new((size_t)vocab, sizeof *s->cands))) goto no_memory;
    *out = s;
    return 0;
no_memory:
    nj_sampler_free(s);
    return nj_fail(err, -ENOMEM, "No memory for a sampler over %d tokens.", vocab);
}

void nj_sampler_free(nj_sampler *s)
{
    if (!s) return;
    free(s->cands);
    free(s->work);
    free(s->window);
    free(s->count);
    free(s->bias);
    free(s);
}

void nj_sampler_accept(nj_sampler *s, int32_t token)
{
    if (!s->penalties || token < 0 || token >= s->vocab) return;
    if (s->window) {
        int32_t *slot = &s->window[s->accepted % s->set.penalty_window];
        if (s->accepted >= s->set.penalty_window) s->count[*slot]--;
        *slot = token;
    }
    s->count[token]++;
    s->accepted++;
}

/* ---- Bias and penalties ---- */

/* The logits after bias and penalties: the caller's own when there are none. */
static const float *adjust(nj_sampler *s, const float *logits)
{
    if (!s->work) return logits;
    memcpy(s->work, logits, (size_t)s->vocab * sizeof *logits);
    for (size_t i = 0; i < s->set.bias_count; i++) s->work[s->bias[i].token] += s->bias[i].bias;
    if (!s->penalties) return s->work;
    for (int32_t t = 0; t < s->vocab; t++) {
        uint32_t n = s->count[t];
        if (!n) continue;
        float x = s->work[t];
        x = x > 0 ? x / s->set.repeat_penalty : x * s->set.repeat_penalty; /* Keskar et al. 2019, CTRL */
        s->work[t] = x - s->set.presence_penalty - s->set.frequency_penalty * (float)n;
    }
    return s->work;
}

static int32_t pick_greedy(const float *logits, int32_t vocab)
{
    int32_t best = -1;
    for (int32_t t = 0; t < vocab; t++)
        if (!isnan(logits[t]) && (best < 0 || logits[t] > logits[best])) best = t;
    return best < 0 ? 0 : best;
}

/* ---- Ranking: a heap with the best candidate (or, reversed, the worst) at its root. ---- */

/* A strict total order, as ids differ, so that a cut never depends on the order in the array. */
static bool goes_before(const cand *a, const cand *b, bool reversed)
{
    bool better = a->key > b->key || (a->key == b->key && a->id < b->id);
    return better != reversed;
}

static void sift_down(cand *heap, size_t n, size_t i, bool reversed)
{
    cand moving = heap[i];
    for (size_t child; (child = 2 * i + 1) < n; i = child) {
        if (child + 1 < n && goes_before(&heap[child + 1], &heap[child], reversed)) child++;
        if (!goes_before(&heap[child], &moving, reversed)) break;
        heap[i] = heap[child];
    }
    heap[i] = moving;
}

static void heap_build(cand *heap, size_t n, bool reversed)
{
    for (size_t i = n / 2; i-- > 0;) sift_down(heap, n, i, reversed);
}

/* ---- Cuts: each takes n candidates and leaves those that stay at the front, at least one. ---- */

/* One pass over all with the k best so far in a heap, the worst of them at its root. */
static size_t cut_top_k(cand *c, size_t n, size_t k)
{
    if (!k || k >= n) return n;
    for (size_t i = 0; i < n; i++) c[i].key = c[i].logit;
    heap_build(c, k, true);
    for (size_t i = k; i < n; i++) {
        if (!goes_before(&c[i], &c[0], false)) continue;
        c[0] = c[i];
        sift_down(c, k, 0, true);
    }
    return k;
}

/* The candidates in order of their keys until they hold `share` of the mass `total`. */
static size_t cut_mass(cand *c, size_t n, double share, float max, double total)
{
    size_t left = n;
    heap_build(c, n, false);
    for (double mass = 0; left > 0 && (left == n || mass < share * total);) {
        cand best = c[0];
        mass += exp((double)best.logit - max);
        c[0] = c[--left];
        sift_down(c, left, 0, false);
        c[left] = best; /* the heap shrinks from the end, where the chosen ones gather */
    }
    memmove(c, c + left, (n - left) * sizeof *c);
    return n - left;
}

static double mass_of(const cand *c, size_t n, float max)
{
    double total = 0;
    for (size_t i = 0; i < n; i++) total += exp((double)c[i].logit - max);
    return total;
}

/* Locally typical sampling (Meister et al. 2022): the tokens whose surprise is nearest to the entropy. */
static size_t cut_typical(cand *c, size_t n, float share, float max)
{
    if (share >= 1) return n;
    double total = mass_of(c, n, max), log_total = log(total), entropy = 0;
    for (size_t i = 0; i < n; i++) {
        double logp = (double)c[i].logit - max - log_total;
        entropy -= exp(logp) * logp;
    }
    for (size_t i = 0; i < n; i++) c[i].key = (float)-fabs(max + log_total - c[i].logit - entropy);
    return cut_mass(c, n, (double)share, max, total);
}

static size_t cut_below(cand *c, size_t n, float bound)
{
    size_t kept = 0;
    for (size_t i = 0; i < n; i++)
        if (c[i].logit >= bound) c[kept++] = c[i];
    return kept;
}

/* Nucleus sampling (Holtzman et al. 2019). Tokens less likely than (1 - share) / n of the likeliest one hold, all
 * together, less than 1 - share of the mass, so the nucleus lies above that bound and only what is above is ranked:
 * some hundreds of 150,000. */
static size_t cut_top_p(cand *c, size_t n, float share, float max)
{
    if (share >= 1) return n;
    double total = mass_of(c, n, max);
    n = cut_below(c, n, (float)(max + log((1 - (double)share) / (double)n)));
    for (size_t i = 0; i < n; i++) c[i].key = c[i].logit;
    return cut_mass(c, n, (double)share, max, total);
}

static size_t cut_min_p(cand *c, size_t n, float min_p, float max)
{
    return min_p > 0 ? cut_below(c, n, (float)(max + log((double)min_p))) : n;
}

/* ---- The draw ---- */

/* Uniform in [0, 1), 53 bits. SplitMix64: one step of a counter per pick. */
static double next_uniform(nj_sampler *s)
{
    s->rng += 0x9E3779B97F4A7C15u;
    return (double)(mix64(s->rng) >> 11) * 0x1p-53;
}

static float max_logit(const cand *c, size_t n)
{
    float max = -FLT_MAX;
    for (size_t i = 0; i < n; i++)
        if (c[i].logit > max) max = c[i].logit;
    return max;
}

static int32_t draw(const cand *c, size_t n, float max, float temperature, double uniform)
{
    double total = 0, reached = 0;
    for (size_t i = 0; i < n; i++) total += exp(((double)c[i].logit - max) / temperature);
    int32_t last = c[0].id; /* where rounding would let the loop run out */
    for (size_t i = 0; i < n; i++) {
        double w = exp(((double)c[i].logit - max) / temperature);
        if (w <= 0) continue;
        last = c[i].id;
        if ((reached += w) > uniform * total) break;
    }
    return last;
}

int32_t nj_sampler_pick(nj_sampler *s, const float *logits)
{
    const float *x = adjust(s, logits);
    if (!s->cands) return pick_greedy(x, s->vocab);

    double uniform = next_uniform(s);
    cand *c = s->cands;
    size_t n = 0;
    for (int32_t t = 0; t < s->vocab; t++)
        if (x[t] > -INFINITY) c[n++] = (cand){ .logit = x[t] < FLT_MAX ? x[t] : FLT_MAX, .id = t }; /* no NaN, no inf */
    if (!n) return 0;

    float max = max_logit(c, n);
    n = cut_top_k(c, n, s->set.top_k);
    n = cut_typical(c, n, s->set.typical_p, max);
    max = max_logit(c, n); /* the typical tokens need not hold the likeliest one */
    n = cut_top_p(c, n, s->set.top_p, max);
    n = cut_min_p(c, n, s->set.min_p, max);
    return draw(c, n, max, s->set.temperature, uniform);
}

/* ---- Log probabilities ---- */

static float as_logprob(double x)
{
    return x > (double)NJ_LOGPROB_MIN ? (float)x : NJ_LOGPROB_MIN; /* NaN and -inf too */
}

/* A logit that can be computed with: NaN is impossible, +inf as large as can be. */
static double plain_logit(float x)
{
    if (isnan(x)) return -INFINITY;
    return x < FLT_MAX ? (double)x : (double)FLT_MAX;
}

void nj_logprobs(const float *logits, int32_t vocab, int32_t token, float *logprob, nj_top *top, uint32_t top_count)
{
    double max = -INFINITY, total = 0;
    for (int32_t t = 0; t < vocab; t++) max = fmax(max, plain_logit(logits[t]));
    for (int32_t t = 0; t < vocab; t++) total += exp(plain_logit(logits[t]) - max);
    double log_total = max + log(total);
    if (logprob) *logprob = as_logprob(token >= 0 && token < vocab ? plain_logit(logits[token]) - log_total : NAN);

    /* Insertion into a short sorted list: top_count is at most 20, and most tokens fail the first comparison.
     * While it is being built, logprob holds the logit itself. */
    uint32_t have = 0;
    for (int32_t t = 0; t < vocab && top_count; t++) {
        float x = (float)plain_logit(logits[t]);
        if (have == top_count && !(x > top[have - 1].logprob)) continue;
        uint32_t at = have < top_count ? have++ : have - 1;
        for (; at > 0 && x > top[at - 1].logprob; at--) top[at] = top[at - 1];
        top[at] = (nj_top){ .token = t, .logprob = x };
    }
    for (uint32_t i = 0; i < have; i++) top[i].logprob = as_logprob((double)top[i].logprob - log_total);
    for (uint32_t i = have; i < top_count; i++) top[i] = (nj_top){ .token = -1, .logprob = NJ_LOGPROB_MIN };
}
