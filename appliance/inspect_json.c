/* nightjar inspect --json. Field names are part of the interface: add, don't rename. */
#include <errno.h>
#include <jansson.h>
#include <string.h>

#include "appliance/inspect.h"
#include "appliance/text.h"

#define ITEMS_SHOWN 6 /* of an array, unless all are asked for */

static json_t *text(const char *s)
{
    return nj_text_json(s, strlen(s));
}

static json_t *count(uint64_t n)
{
    return json_integer((json_int_t)n);
}

/* jansson's set_new refuses a NULL value (no memory) and frees nothing else, so failures surface as missing fields;
 * `bad` gathers them for one check at the end. */
static void put(json_t *object, const char *name, json_t *value, bool *bad)
{
    if (json_object_set_new(object, name, value) != 0) *bad = true;
}

static json_t *item(const nj_meta *m, uint64_t index)
{
    bool array = m->type == NJ_META_ARRAY;
    nj_meta_type type = array ? m->item_type : m->type;
    if (type == NJ_META_STRING) {
        nj_str s = array ? m->strings[index] : m->s;
        return nj_text_json(s.data, s.len);
    }
    if (type == NJ_META_F32 || type == NJ_META_F64) {
        json_t *real = json_real(array ? nj_meta_item_f64(m, index) : m->f);
        return real ? real : json_null(); /* JSON has no infinity and no NaN */
    }
    int64_t i = array ? nj_meta_item_i64(m, index) : m->i;
    return type == NJ_META_BOOL ? json_boolean(i) : json_integer(i);
}

static json_t *metadata(const nj_inspection *in, bool *bad)
{
    json_t *list = json_array();
    nj_str arch = { "", 0 };
    nj_gguf_get_str(in->g, "general.architecture", &arch, NULL);
    for (size_t i = 0; i < nj_gguf_meta_count(in->g); i++) {
        const nj_meta *m = nj_gguf_meta_at(in->g, i);
        const char *sentence, *kinds[] = { "free", "shape", "info" };
        char type[24];
        nj_key_kind kind = nj_key_describe(arch.data, m->key.data, &sentence);
        json_t *entry = json_object(), *value = NULL;
        nj_meta_type_text(m, type);
        put(entry, "key", text(m->key.data), bad);
        put(entry, "type", text(type), bad);
        if (m->type == NJ_META_ARRAY) {
            uint64_t shown = m->count < ITEMS_SHOWN || in->all ? m->count : ITEMS_SHOWN;
            value = json_array();
            for (uint64_t k = 0; k < shown; k++) json_array_append_new(value, item(m, k));
            put(entry, "count", count(m->count), bad);
        } else {
            value = item(m, 0);
        }
        put(entry, "value", value, bad);
        put(entry, "change", text(kinds[kind]), bad);
        put(entry, "meaning", text(sentence), bad);
        json_array_append_new(list, entry);
    }
    return list;
}

static json_t *group(const nj_group_facts *f, bool *bad)
{
    json_t *o = json_object(), *types = json_object();
    put(o, "tensors", count(f->tensors), bad);
    put(o, "parameters", count(f->params), bad);
    put(o, "bytes", count(f->bytes), bad);
    for (uint32_t t = 0; t < NJ_TYPE_COUNT; t++)
        if (f->type_bytes[t]) put(types, nj_format_name(t), count(f->type_bytes[t]), bad);
    put(o, "bytes_by_type", types, bad);
    return o;
}

static json_t *tensors(const nj_gguf *g, bool *bad)
{
    json_t *list = json_array();
    for (size_t i = 0; i < nj_gguf_tensor_count(g); i++) {
        const nj_tensor *t = nj_gguf_tensor_at(g, i);
        json_t *o = json_object(), *dims = json_array();
        for (uint32_t d = 0; d < t->n_dims; d++) json_array_append_new(dims, count(t->dim[d]));
        put(o, "name", text(t->name.data), bad);
        put(o, "type", text(nj_format_name(t->type)), bad);
        put(o, "dims", dims, bad);
        put(o, "bytes", count(t->bytes), bad);
        put(o, "file", count(t->file), bad);
        put(o, "offset", count(t->offset), bad);
        json_array_append_new(list, o);
    }
    return list;
}

static json_t *lines(const nj_buf *b)
{
    json_t *list = json_array();
    const char *at = b->data ? b->data : "";
    while (*at) {
        size_t len = strcspn(at, "\n");
        json_array_append_new(list, nj_text_json(at, len));
        at += len + (at[len] == '\n');
    }
    return list;
}

static json_t *vocabulary(const nj_vocab_report *v, bool *bad)
{
    json_t *o = json_object();
    put(o, "tokens", v->tokens < 0 ? json_null() : count((uint64_t)v->tokens), bad);
    put(o, "tokenizer", v->name[0] ? text(v->name) : json_null(), bad);
    put(o, "chat_template", text(v->template_works ? "works" : v->template_there ? "unusable" : "none"), bad);
    put(o, "faults", lines(&v->faults), bad);
    put(o, "notes", lines(&v->notes), bad);
    return o;
}

static json_t *files(const nj_inspection *in, bool *bad)
{
    json_t *list = json_array();
    for (uint32_t i = 0; i < nj_gguf_files(in->g); i++) {
        json_t *o = json_object();
        put(o, "path", text(nj_gguf_file_path(in->g, i)), bad);
        if (in->sha256) put(o, "sha256", text(in->sha256[i]), bad);
        json_array_append_new(list, o);
    }
    return list;
}

static json_t *shape(const nj_model_info *m, bool *bad)
{
    const struct {
        const char *name;
        uint32_t value;
    } fields[] = {
        { "layers", m->layers },
        { "width", m->d_model },
        { "heads", m->heads },
        { "kv_heads", m->kv_heads },
        { "head_dim", m->head_dim },
        { "mlp_width", m->d_ff },
        { "vocabulary", m->vocab },
        { "context", m->context },
        { "experts", m->experts },
        { "experts_used", m->experts_used },
        { "expert_width", m->expert_d_ff },
    };
    json_t *o = json_object();
    for (size_t i = 0; i < NJ_COUNT(fields); i++) put(o, fields[i].name, count(fields[i].value), bad);
    return o;
}

static json_t *memory(const nj_fit *f, bool *bad)
{
    json_t *o = json_object();
    put(o, "fits", json_boolean(f->fit), bad);
    put(o, "weights_fit", json_boolean(f->weights_fit), bad);
    put(o, "context_that_fits", count(f->tokens), bad);
    put(o, "weight_bytes", count(f->weights), bad);
    put(o, "kv_bytes", count(f->kv), bad);
    put(o, "available_bytes", count(f->available), bad);
    put(o, "ram_bytes", count(f->ram), bad);
    return o;
}

int nj_inspect_json(const nj_inspection *in, nj_error *err)
{
    const nj_facts *f = &in->facts;
    const nj_model_info *m = &f->info;
    bool bad = false;
    json_t *o = json_object(), *kv = json_object(), *groups = json_object();
    static const uint32_t kv_types[] = { NJ_F16, NJ_Q8_0, NJ_F32 };

    put(o, "path", text(in->path), &bad);
    put(o, "files", files(in, &bad), &bad);
    put(o, "bytes", count(nj_gguf_bytes(in->g)), &bad);
    put(o, "gguf_version", count(nj_gguf_version(in->g)), &bad);
    put(o, "name", text(m->name), &bad);
    put(o, "architecture", text(m->arch), &bad);
    put(o, "runs", json_boolean(f->runs), &bad);
    put(o, "why_not", f->runs ? json_null() : text(f->why_not.text), &bad);
    put(o, "shape", shape(m, &bad), &bad);
    put(o, "parameters", count(m->params), &bad);
    put(o, "parameters_active", count(m->params_active), &bad);
    put(o, "weight_bytes", count(m->bytes), &bad);
    put(o, "bytes_per_token", count(m->bytes_per_token), &bad);
    for (size_t i = 0; i < NJ_COUNT(kv_types); i++)
        put(kv, nj_format_name(kv_types[i]), count((uint64_t)nj_kv_bytes(m->kv_values_per_token, kv_types[i])), &bad);
    put(o, "kv_bytes_per_token", kv, &bad);
    put(o, "memory", m->bytes && m->context ? memory(&in->fit, &bad) : json_null(), &bad);
    for (int i = 0; i < NJ_GROUP_COUNT; i++)
        if (f->group[i].tensors) put(groups, nj_group_name((nj_group)i), group(&f->group[i], &bad), &bad);
    put(o, "tensor_groups", groups, &bad);
    put(o, "metadata", metadata(in, &bad), &bad);
    put(o, "vocabulary", vocabulary(&in->vocab, &bad), &bad);
    if (in->all) put(o, "tensors", tensors(in->g, &bad), &bad);
    if (!bad) return nj_text_json_print(o, err);
    json_decref(o);
    return nj_text_json_print(NULL, err);
}
