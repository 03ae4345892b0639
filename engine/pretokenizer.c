/* Pre-tokenizers: how each family of byte-level BPE vocabularies cuts text into pieces before merging.
 *
 * A pattern is part of a vocabulary's definition (tokenizer.json of the model's maker); GGUF keeps only its name in
 * tokenizer.ggml.pre. Some are a list of stages: each stage cuts the pieces of the one before, and what a stage does
 * not match stays a piece as well, so no text is ever lost. */
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "engine/tokenizer.h"

enum { STAGES_MAX = 6 };

// clang-format off
/* Unicode's White_Space, spelled out: PCRE2's own \s has U+180E in addition, which the makers' tokenizers don't. */
#define WS   "\\t-\\r \\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}\\x{205f}\\x{3000}"
#define S    "[" WS "]"
#define NOTS "[^" WS "]"

#define SHORT_ANY_CASE "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
#define SPACES         S "*[\\r\\n]+|" S "+(?!" NOTS ")|" S "+"
#define OTHERS         " ?[^" WS "\\p{L}\\p{N}]+"

#define GPT2 "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+|" OTHERS "|" S "+(?!" NOTS ")|" S "+"

/* The GPT-4 family differs in how many digits stay together. */
#define GPT4(digits) SHORT_ANY_CASE "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|" digits "|" OTHERS "[\\r\\n]*|" SPACES
/* Combining marks belong to their word. */
#define QWEN35 \
    SHORT_ANY_CASE "|[^\\r\\n\\p{L}\\p{N}]?[\\p{L}\\p{M}]+|\\p{N}| ?[^" WS "\\p{L}\\p{M}\\p{N}]+[\\r\\n]*|" SPACES

/* The GPT-4o family cuts words at a change from lower to upper case. */
#define UPPER "\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}"
#define LOWER "\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}"
#define GPT4O(end, digits) \
    "[^\\r\\n\\p{L}\\p{N}]?[" UPPER "]*[" LOWER "]+" end "|[^\\r\\n\\p{L}\\p{N}]?[" UPPER "]+[" LOWER "]*" end "|" \
    digits "|" OTHERS "[\\r\\n/]*|" SPACES

#define HAN_KANA "[\\x{4e00}-\\x{9fa5}\\x{3040}-\\x{309f}\\x{30a0}-\\x{30ff}]+"
#define HAN_HANGUL "[\\x{4e00}-\\x{9fa5}\\x{800}-\\x{4e00}\\x{ac00}-\\x{d7ff}]+"
#define DEEPSEEK3 \
    "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+" \
    "| ?[\\p{P}\\p{S}]+[\\r\\n]*|" SPACES

/* The cased letters that DeepSeek LLM's pattern lists (it omits some that Unicode added later). */
#define DEEPSEEK_LETTERS \
    "A-Za-z\\x{b5}\\x{c0}-\\x{d6}\\x{d8}-\\x{f6}\\x{f8}-\\x{1ba}\\x{1bc}-\\x{1bf}\\x{1c4}-\\x{293}" \
    "\\x{295}-\\x{2af}\\x{370}-\\x{373}\\x{376}\\x{377}\\x{37b}-\\x{37d}\\x{37f}\\x{386}\\x{388}-\\x{38a}" \
    "\\x{38c}\\x{38e}-\\x{3a1}\\x{3a3}-\\x{3f5}\\x{3f7}-\\x{481}\\x{48a}-\\x{52f}\\x{531}-\\x{556}" \
    "\\x{10a0}-\\x{10c5}\\x{13a0}-\\x{13f5}\\x{13f8}-\\x{13fd}\\x{1c90}-\\x{1cba}\\x{1cbd}-\\x{1cbf}" \
    "\\x{1d00}-\\x{1d2b}\\x{1d6b}-\\x{1d77}\\x{1d79}-\\x{1d9a}\\x{1e00}-\\x{1f15}\\x{1f18}-\\x{1f1d}" \
    "\\x{1f20}-\\x{1f45}\\x{1f48}-\\x{1f4d}\\x{1f50}-\\x{1f57}\\x{1f59}\\x{1f5b}\\x{1f5d}\\x{1f5f}-\\x{1f7d}" \
    "\\x{1f80}-\\x{1fb4}\\x{1fb6}-\\x{1fbc}\\x{1fbe}\\x{1fc2}-\\x{1fc4}\\x{1fc6}-\\x{1fcc}\\x{1fd0}-\\x{1fd3}" \
    "\\x{1fd6}-\\x{1fdb}\\x{1fe0}-\\x{1fec}\\x{1ff2}-\\x{1ff4}\\x{1ff6}-\\x{1ffc}\\x{2102}\\x{2107}" \
    "\\x{210a}-\\x{2113}\\x{2115}\\x{2119}-\\x{211d}\\x{2124}\\x{2126}\\x{2128}\\x{212a}-\\x{212d}" \
    "\\x{212f}-\\x{2134}\\x{2139}\\x{213c}-\\x{213f}\\x{2145}-\\x{2149}\\x{214e}\\x{2183}\\x{2184}" \
    "\\x{2c00}-\\x{2c7b}\\x{2c7e}-\\x{2ce4}\\x{2ceb}-\\x{2cee}\\x{2cf2}\\x{2cf3}\\x{a640}-\\x{a66d}" \
    "\\x{a680}-\\x{a69b}\\x{a722}-\\x{a76f}\\x{a771}-\\x{a787}\\x{a78b}-\\x{a78e}\\x{ab70}-\\x{abbf}" \
    "\\x{fb00}-\\x{fb06}\\x{fb13}-\\x{fb17}\\x{ff21}-\\x{ff3a}\\x{ff41}-\\x{ff5a}\\x{10400}-\\x{1044f}" \
    "\\x{104b0}-\\x{104d3}\\x{104d8}-\\x{104fb}\\x{10c80}-\\x{10cb2}\\x{10cc0}-\\x{10cf2}" \
    "\\x{118a0}-\\x{118df}\\x{1e900}-\\x{1e943}"
#define DEEPSEEK_PUNCTUATION "!-/:-~\\x{ff01}-\\x{ff0f}\\x{ff1a}-\\x{ff5e}\\x{2018}-\\x{201f}\\x{3000}-\\x{3002}"

#define BLOOM " ?[^(" WS "|.,!?\\x{2026}\\x{3002}\\x{ff0c}\\x{3001}\\x{964}\\x{6d4}\\x{60c})]+"

enum { NFC = 1, WHOLE = 2, BOS = 4 };

/* `names`: values of tokenizer.ggml.pre, separated by spaces. NFC: the maker's tokenizer normalises. WHOLE: a piece
 * that is a token is not merged ("ignore_merges"). BOS: files without add_bos_token mean true. */
static const struct family {
    const char *names;
    unsigned    flags;
    const char *stage[STAGES_MAX];
} families[] = {
    { "gpt-2 default phi-2 gigachat a.x-4.0 mellum modern-bert exaone4 jais trillion granite-docling", 0, { GPT2 } },
    { "olmo mpt gpt-neox", NFC, { GPT2 } },
    { "llama-bpe llama3 llama-v3 falcon3 falcon-h1 pixtral midm-2.0 lfm2", WHOLE | BOS, { GPT4("\\p{N}{1,3}") } },
    { "dbrx phi-4 smaug-bpe glm4 chatglm-bpe", 0, { GPT4("\\p{N}{1,3}") } },
    { "qwen2 qwen2.5 qwen3 deepseek-r1-qwen kormo megrez stablelm2", NFC, { GPT4("\\p{N}") } },
    { "hunyuan grok-2 solar-open", 0, { GPT4("\\p{N}") } },
    { "qwen35", NFC, { QWEN35 } },
    { "deepseek-llm", 0, { "[\\r\\n]", S "?[" DEEPSEEK_LETTERS "]+", S "?[" DEEPSEEK_PUNCTUATION "]+",
                           /* Trailing space; the look-behind keeps long runs of spaces from quadratic time. */
                           "(?<!" S ")" S "++\\z", HAN_HANGUL, "\\p{N}" } },
    { "deepseek-coder", 0, { "[\\r\\n]", S "?\\p{L}+", S "?\\p{P}+", HAN_HANGUL, "\\p{N}" } },
    { "deepseek-v3 hunyuan-dense joyai-llm", 0, { "\\p{N}{1,3}", HAN_KANA, DEEPSEEK3 } },
    { "tekken", WHOLE | BOS, { GPT4O("", "\\p{N}") } },
    { "gpt-4o llama4 kanana2 minimax-m2", 0, { GPT4O(SHORT_ANY_CASE "?", "\\p{N}{1,3}") } },
    { "starcoder refact smollm codeshell exaone minerva-7b mellum2", 0, { "\\p{N}", GPT2 } },
    { "command-r", NFC, { "\\p{N}", GPT2 } },
    { "falcon", 0, { "[\\p{P}$+<=>^~|`]+", GPT2, "[0-9][0-9][0-9]" } },
    { "seed-coder", 0,
      { SHORT_ANY_CASE "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^" WS "\\p{L}\\p{N}\\r\\n]+|" SPACES } },
    { "bailingmoe bailingmoe2 llada-moe", 0,
      { SHORT_ANY_CASE "|[^\\r\\n\\p{L}\\p{N}]?+\\p{L}+|\\p{N}| ?[^" WS "\\p{L}\\p{N}]++[\\r\\n]*|" S "*[\\r\\n]|"
        S "+(?!" NOTS ")|" S "+" } },
    { "minicpm5", WHOLE, { "\\p{N}{1,3}", GPT4("\\p{N}+") } },
    { "ufakzeka", 0, { "[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}|" OTHERS "[\\r\\n]*|" SPACES } },
    { "bloom poro-chat gpt3-finnish", 0, { BLOOM } },
    { "viking", 0, { BLOOM, "\\p{N}" } },
};
// clang-format on

struct nj_pretokenizer {
    int stages;
    pcre2_code *code[STAGES_MAX];
};

/* Is `name` one of the space-separated words of `names`? */
static bool names_contain(const char *names, const char *name)
{
    size_t len = strlen(name);
    if (len == 0 || strchr(name, ' ')) return false;
    for (const char *at = names; (at = strstr(at, name)); at++)
        if ((at == names || at[-1] == ' ') && (at[len] == ' ' || at[len] == 0)) return true;
    return false;
}

static const struct family *find_family(const char *name)
{
    for (size_t i = 0; i < NJ_COUNT(families); i++)
        if (names_contain(families[i].names, name)) return &families[i];
    return NULL;
}

static int unknown_name(const char *name, nj_error *err)
{
    nj_fail(err, -ENOTSUP, "tokenizer.ggml.pre is \"%.100s\", a pre-tokenizer that is not known.", name);
    return nj_remedy(err,
                     "If the model is built on a known vocabulary, say which: --set tokenizer.ggml.pre=NAME (llama-bpe "
                     "for the Llama 3 family, qwen2 for Qwen, tekken for Mistral, gpt-2 for older ones).");
}

int nj_pretokenizer_new(nj_pretokenizer **out, nj_pre_traits *traits, const char *name, nj_error *err)
{
    const struct family *f = find_family(name);
    if (!f) return unknown_name(name, err);
    nj_pretokenizer *p = nj_new(nj_pretokenizer);
    if (!p) return nj_fail(err, -ENOMEM, "No memory for the pre-tokenizer.");
    for (; p->stages < STAGES_MAX && f->stage[p->stages]; p->stages++) {
        int code;
        PCRE2_SIZE at;
        p->code[p->stages] = pcre2_compile((PCRE2_SPTR)f->stage[p->stages], PCRE2_ZERO_TERMINATED,
                                           PCRE2_UTF | PCRE2_UCP, &code, &at, NULL);
        if (!p->code[p->stages]) {
            char why[128];
            pcre2_get_error_message(code, (PCRE2_UCHAR *)why, sizeof why);
            nj_pretokenizer_free(p);
            return nj_fail(err, -EINVAL, "The pattern of pre-tokenizer %s does not compile at %zu: %s.", name,
                           (size_t)at, why);
        }
        /* Where the compiler is missing or forbidden, matching is slower and the same. */
        pcre2_jit_compile(p->code[p->stages], PCRE2_JIT_COMPLETE);
    }
    *traits = (nj_pre_traits){ f->flags & NFC, f->flags & WHOLE, f->flags & BOS };
    *out = p;
    return 0;
}

void nj_pretokenizer_free(nj_pretokenizer *p)
{
    if (!p) return;
    for (int i = 0; i < STAGES_MAX; i++) pcre2_code_free(p->code[i]);
    free(p);
}

void nj_pretokenizer_match_free(void *match)
{
    pcre2_match_data_free(match);
}

/* Next match at or after `from`, as [*start, *end). False: no more. The compiled matcher has a fixed stack; where that
 * does not suffice, the interpreter, which takes memory as needed, answers. Should it reach its limits too, the rest of
 * the text is taken as unmatched. */
static bool next_match(const pcre2_code *code, pcre2_match_data *match, const char *text, size_t len, size_t from,
                       size_t *start, size_t *end)
{
    int rc = pcre2_match(code, (PCRE2_SPTR)text, len, from, PCRE2_NO_UTF_CHECK, match, NULL);
    if (rc < 0 && rc != PCRE2_ERROR_NOMATCH)
        rc = pcre2_match(code, (PCRE2_SPTR)text, len, from, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, match, NULL);
    if (rc <= 0) return false;
    const PCRE2_SIZE *range = pcre2_get_ovector_pointer(match);
    *start = range[0];
    *end = range[1];
    return *end > *start;
}

/* Hands a piece of stage - 1 on to `stage`, or to fn after the last. Depth is at most STAGES_MAX. */
static int cut(const nj_pretokenizer *p, int stage, const char *text, size_t len, nj_piece_fn *fn, nj_encoder *e)
{
    if (stage == p->stages) return fn(e, text, len);
    int rc = 0;
    size_t at = 0, start, end;
    while (!rc && at < len && next_match(p->code[stage], e->match, text, len, at, &start, &end)) {
        if (start > at) rc = cut(p, stage + 1, text + at, start - at, fn, e);
        if (!rc) rc = cut(p, stage + 1, text + start, end - start, fn, e);
        at = end;
    }
    if (!rc && at < len) rc = cut(p, stage + 1, text + at, len - at, fn, e);
    return rc;
}

int nj_pretokenize(const nj_pretokenizer *p, const char *text, size_t len, nj_piece_fn *fn, nj_encoder *e)
{
    if (!e->match && !(e->match = pcre2_match_data_create(1, NULL)))
        return nj_fail(e->err, -ENOMEM, "No memory for the pre-tokenizer.");
    return cut(p, 0, text, len, fn, e);
}
