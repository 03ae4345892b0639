#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "appliance/facts.h"

const char *nj_group_name(nj_group group)
{
    static const char *const names[NJ_GROUP_COUNT] = { "embedding", "attention", "mlp",    "experts",
                                                       "router",    "norms",     "output", "other" };
    return names[group];
}

nj_group nj_group_of(const char *tensor)
{
    /* First rule that fits; names are those of the GGUF naming scheme, without "blk.N.". */
    static const struct {
        const char *part;
        bool begins; /* else anywhere in the name */
        nj_group group;
    } rules[] = {
        { "norm", false, NJ_GROUP_NORMS },
        { "ffn_gate_inp", true, NJ_GROUP_ROUTER },
        { "exp_probs", true, NJ_GROUP_ROUTER },
        { "_exps", false, NJ_GROUP_EXPERTS },
        { "attn_", true, NJ_GROUP_ATTENTION },
        { "ffn_", true, NJ_GROUP_MLP },
        { "token_embd", true, NJ_GROUP_EMBEDDING },
        { "token_types", true, NJ_GROUP_EMBEDDING },
        { "position_embd", true, NJ_GROUP_EMBEDDING },
        { "per_layer_token_embd", true, NJ_GROUP_EMBEDDING },
        { "output", true, NJ_GROUP_OUTPUT },
    };
    const char *name = tensor;
    if (strncmp(name, "blk.", 4) == 0) {
        const char *part = name + 4 + strspn(name + 4, "0123456789");
        if (part > name + 4 && *part == '.') name = part + 1;
    }
    for (size_t i = 0; i < NJ_COUNT(rules); i++) {
        size_t len = strlen(rules[i].part);
        if (rules[i].begins ? strncmp(name, rules[i].part, len) == 0 : strstr(name, rules[i].part) != NULL)
            return rules[i].group;
    }
    return NJ_GROUP_OTHER;
}

double nj_kv_bytes(uint64_t values, uint32_t type)
{
    uint32_t block = 1, bytes = 0;
    nj_format_size(type, &block, &bytes);
    return (double)values / block * bytes;
}

nj_fit nj_fit_of(const nj_model_info *m, uint64_t available, uint64_t ram)
{
    nj_fit f = { .weights = m->bytes, .available = available, .ram = ram, .weights_fit = m->bytes <= available };
    double token = nj_kv_bytes(m->kv_values_per_token, NJ_F16);
    double room = f.weights_fit ? (double)(available - m->bytes) / 2 : 0;
    f.kv = (uint64_t)(token * m->context);
    f.fit = f.weights_fit && (double)f.kv <= room;
    f.tokens = f.fit ? m->context : token > 0 ? (uint64_t)(room / token) : 0;
    if (f.tokens > m->context) f.tokens = m->context;
    return f;
}

static void count_tensors(nj_facts *f, const nj_gguf *g)
{
    for (size_t i = 0; i < nj_gguf_tensor_count(g); i++) {
        const nj_tensor *t = nj_gguf_tensor_at(g, i);
        nj_group_facts *to[2] = { &f->group[nj_group_of(t->name.data)], &f->all };
        for (int k = 0; k < 2; k++) {
            to[k]->tensors++;
            to[k]->params += t->dim[0] * t->dim[1] * t->dim[2] * t->dim[3];
            to[k]->bytes += t->bytes;
            if (t->type < NJ_TYPE_COUNT) to[k]->type_bytes[t->type] += t->bytes;
        }
    }
}

/* A key of the architecture, 0 when it is absent, no whole number, or too large. */
static uint32_t arch_key(const nj_gguf *g, const char *arch, const char *suffix)
{
    char key[128];
    uint32_t value = 0;
    snprintf(key, sizeof key, "%.32s.%s", arch, suffix);
    return nj_gguf_get_u32(g, key, &value, NULL) == 0 ? value : 0;
}

/* K and V values per position; head_count_kv may be one number or one per layer. */
static uint64_t kv_values(const nj_gguf *g, const nj_model_info *m)
{
    char key[128];
    uint32_t k = arch_key(g, m->arch, "attention.key_length"), v = arch_key(g, m->arch, "attention.value_length");
    uint64_t heads = (uint64_t)m->layers * m->kv_heads;
    snprintf(key, sizeof key, "%.32s.attention.head_count_kv", m->arch);
    const nj_meta *list = nj_gguf_meta(g, key);
    if (list && list->type == NJ_META_ARRAY && list->item_type != NJ_META_STRING) {
        heads = 0;
        for (uint64_t i = 0; i < list->count && i < m->layers; i++) {
            int64_t n = nj_meta_item_i64(list, i);
            if (n > 0 && n < 65536) heads += (uint64_t)n;
        }
    }
    return heads * ((k ? k : m->head_dim) + (uint64_t)(v ? v : m->head_dim));
}

/* The shape of a model that we don't run, from the keys that nearly all architectures share. */
static void guess_info(nj_facts *f, const nj_gguf *g)
{
    nj_model_info *m = &f->info;
    nj_str name = { "", 0 }, arch = { "", 0 };
    const nj_meta *tokens = nj_gguf_meta(g, "tokenizer.ggml.tokens");

    *m = (nj_model_info){ 0 };
    nj_gguf_get_str(g, "general.name", &name, NULL);
    nj_gguf_get_str(g, "general.architecture", &arch, NULL);
    snprintf(m->name, sizeof m->name, "%.127s", name.data);
    snprintf(m->arch, sizeof m->arch, "%.31s", arch.data);
    m->layers = arch_key(g, m->arch, "block_count");
    m->d_model = arch_key(g, m->arch, "embedding_length");
    m->heads = arch_key(g, m->arch, "attention.head_count");
    m->kv_heads = arch_key(g, m->arch, "attention.head_count_kv");
    if (!m->kv_heads) m->kv_heads = m->heads;
    m->head_dim = arch_key(g, m->arch, "attention.key_length");
    if (!m->head_dim && m->heads) m->head_dim = m->d_model / m->heads;
    m->d_ff = arch_key(g, m->arch, "feed_forward_length");
    m->vocab = arch_key(g, m->arch, "vocab_size");
    if (!m->vocab && tokens && tokens->count < UINT32_MAX) m->vocab = (uint32_t)tokens->count;
    m->context = arch_key(g, m->arch, "context_length");
    m->experts = arch_key(g, m->arch, "expert_count");
    m->experts_used = arch_key(g, m->arch, "expert_used_count");
    m->expert_d_ff = arch_key(g, m->arch, "expert_feed_forward_length");
    m->kv_values_per_token = kv_values(g, m);

    /* Everything but an embedding that is only looked up and the experts that a token does not choose. */
    bool untied = f->group[NJ_GROUP_OUTPUT].tensors > 0;
    double idle = m->experts && m->experts_used <= m->experts ? 1.0 - (double)m->experts_used / m->experts : 0;
    const nj_group_facts *experts = &f->group[NJ_GROUP_EXPERTS], *embedding = &f->group[NJ_GROUP_EMBEDDING];
    m->params = f->all.params;
    m->bytes = f->all.bytes;
    m->params_active = m->params - (uint64_t)(idle * (double)experts->params) - (untied ? embedding->params : 0);
    m->bytes_per_token = m->bytes - (uint64_t)(idle * (double)experts->bytes) - (untied ? embedding->bytes : 0);
}

void nj_facts_read(nj_facts *f, const nj_gguf *g)
{
    *f = (nj_facts){ 0 };
    count_tensors(f, g);
    if (f->all.tensors == 0) {
        nj_fail(&f->why_not, -ENODATA, "the file holds no tensors, only metadata");
    } else {
        int rc = nj_model_describe(g, &f->info, &f->why_not);
        f->runs = rc == 0;
        f->broken = rc != 0 && rc != -ENOTSUP;
    }
    if (!f->runs) guess_info(f, g);
}
