/* What every known metadata key does. Facts of the GGUF specification and of what model makers write; a key that the
 * tensors' shapes follow from (SHAPE) can't be changed at load, one that only steers the computation (FREE) can. */
#include <stdlib.h>
#include <string.h>

#include "engine/nj_engine.h"

typedef struct known_key {
    const char *key; /* after "ARCH." when it begins with '.'; a trailing '*' stands for any rest */
    nj_key_kind kind;
    const char *sentence;
} known_key;

#define FREE  NJ_KEY_FREE
#define SHAPE NJ_KEY_SHAPE
#define INFO  NJ_KEY_INFO

// clang-format off
static const known_key known[] = {
    /* ---- general.* ---- */
    { "general.architecture", SHAPE,
      "Names the family of models, and so which tensors there are and how they are computed." },
    { "general.quantization_version", INFO, "Version of the block formats; 2 is the only one in use." },
    { "general.alignment", SHAPE, "Tensor data begins at multiples of this many bytes; a power of two." },
    { "general.file_type", INFO, "The mix of weight types that the file was written with, as a number." },
    { "general.type", INFO, "Kind of file: model, adapter, imatrix or projector." },
    { "general.name", INFO, "Name for people." },
    { "general.basename", INFO, "Name of the model without size and version." },
    { "general.finetune", INFO, "What the base model was trained on for: chat, instruct, code." },
    { "general.size_label", INFO, "Size for people, such as 30B-A3B or 8x7B." },
    { "general.version", INFO, "Version of the model for people." },
    { "general.description", INFO, "Description for people." },
    { "general.author", INFO, "Who made the model." },
    { "general.organization", INFO, "Organisation that made the model." },
    { "general.quantized_by", INFO, "Who wrote this quantized file." },
    { "general.license", INFO, "License of the weights, as an SPDX expression." },
    { "general.license.name", INFO, "Name of the license for people." },
    { "general.license.link", INFO, "Where the license can be read." },
    { "general.url", INFO, "Home page of the model." },
    { "general.doi", INFO, "Digital object identifier of the model." },
    { "general.uuid", INFO, "Unique identifier of the model." },
    { "general.repo_url", INFO, "Repository of the model." },
    { "general.source.*", INFO, "Where the model that this file was made from comes from." },
    { "general.base_model.*", INFO, "A model that this one was trained or merged from." },
    { "general.dataset.*", INFO, "A data set that the model was trained on." },
    { "general.datasets", INFO, "Data sets that the model was trained on." },
    { "general.tags", INFO, "Words for search." },
    { "general.languages", INFO, "Languages that the model was trained for." },
    { "general.parameter_count", INFO, "Number of weights as its maker counts them." },
    { "general.sampling.sequence", INFO,
      "Order of samplers that the maker recommends; Nightjar's own order is fixed." },
    { "general.sampling.temp", FREE, "Recommended temperature; the default of run and batch." },
    { "general.sampling.top_k", FREE, "Recommended top_k: only so many of the best tokens are drawn from." },
    { "general.sampling.top_p", FREE,
      "Recommended top_p: the best tokens that together have this probability are drawn from." },
    { "general.sampling.min_p", FREE,
      "Recommended min_p: tokens less likely than this share of the best one are left out." },
    { "general.sampling.penalty_repeat", FREE, "Recommended repeat penalty." },
    { "general.sampling.penalty_last_n", FREE, "How many last tokens the recommended penalties look at." },
    { "general.sampling.*", INFO, "A recommended setting of a sampler that Nightjar doesn't have." },
    { "imatrix.*", INFO, "Importance matrix that the quantizer of this file used." },
    { "quantize.*", INFO, "How this file was quantized." },

    /* ---- split.* ---- */
    { "split.no", SHAPE, "Which part of a split model this file is, counted from 0." },
    { "split.count", SHAPE, "How many files the model is split into." },
    { "split.tensors.count", SHAPE, "How many tensors all parts hold together." },

    /* ---- shape of the model ---- */
    { ".vocab_size", SHAPE, "Number of tokens; the embedding and the output matrix have one row for each." },
    { ".block_count", SHAPE, "Number of layers." },
    { ".embedding_length", SHAPE, "Width of the vector that flows through the layers." },
    { ".embedding_length_out", SHAPE, "Width of the vector that leaves the layers." },
    { ".feed_forward_length", SHAPE, "Inner width of the MLP of a layer." },
    { ".leading_dense_block_count", SHAPE, "How many first layers have a plain MLP instead of experts." },
    { ".attention.head_count", SHAPE, "Number of query heads." },
    { ".attention.head_count_kv", SHAPE,
      "Number of key and value heads; fewer than query heads make the KV cache smaller." },
    { ".attention.key_length", SHAPE, "Values per key head." },
    { ".attention.value_length", SHAPE, "Values per value head." },
    { ".attention.key_length_mla", SHAPE, "Values per key head after latent attention is unfolded." },
    { ".attention.value_length_mla", SHAPE, "Values per value head after latent attention is unfolded." },
    { ".attention.q_lora_rank", SHAPE, "Width of the compressed query in latent attention." },
    { ".attention.kv_lora_rank", SHAPE, "Width of the compressed key and value in latent attention." },
    { ".expert_count", SHAPE, "Number of experts in a layer." },
    { ".expert_shared_count", SHAPE, "Number of experts that every token uses." },
    { ".expert_feed_forward_length", SHAPE, "Inner width of one expert." },
    { ".expert_shared_feed_forward_length", SHAPE, "Inner width of the expert that every token uses." },
    { ".expert_group_count", SHAPE, "Number of groups that the experts are dealt into." },
    { ".rope.dimension_count", SHAPE,
      "How many values of each head are rotated by position; the tensors of rope factors have half as many." },
    { ".rope.dimension_sections", SHAPE, "How the rotated values are dealt to time, height and width." },
    { ".ssm.*", SHAPE, "Shape of a state-space layer." },
    { ".wkv.*", SHAPE, "Shape of a linear-attention layer." },
    { ".nextn_predict_layers", SHAPE, "Number of extra layers that predict further tokens ahead." },
    { ".tensor_data_layout", SHAPE, "Order of values within the attention tensors." },
    { ".use_parallel_residual", SHAPE, "Whether attention and MLP read the same input." },
    { ".pooling_type", INFO, "How an embedding model sums up a text." },

    /* ---- what only steers the computation; INFO where none of our architectures does ---- */
    { ".context_length", FREE, "Longest text in tokens that the model was trained for." },
    { ".expert_used_count", FREE, "How many experts each token uses; fewer is faster and less exact." },
    { ".expert_used_group_count", INFO, "How many groups of experts each token may choose from." },
    { ".expert_weights_scale", FREE, "Factor on the weights of the chosen experts." },
    { ".expert_weights_norm", FREE, "Whether the weights of the chosen experts are made to add up to 1." },
    { ".expert_gating_func", INFO, "How router scores become weights: 1 softmax, 2 sigmoid." },
    { ".attention.layer_norm_rms_epsilon", FREE, "Small number that keeps RMS normalisation from dividing by zero." },
    { ".attention.layer_norm_epsilon", INFO, "Small number that keeps layer normalisation from dividing by zero." },
    { ".attention.group_norm_epsilon", INFO, "Small number that keeps group normalisation from dividing by zero." },
    { ".attention.group_norm_groups", INFO, "Number of groups of group normalisation." },
    { ".attention.sliding_window", FREE, "How many last positions the layers with a window can see." },
    { ".attention.sliding_window_pattern", INFO, "Which layers have a window." },
    { ".attention.scale", FREE, "Factor on attention scores instead of one over the root of the head's width." },
    { ".attention.causal", INFO, "Whether a position sees only those before it." },
    { ".attention.clamp_kqv", INFO, "Largest absolute value of queries, keys and values." },
    { ".attention.max_alibi_bias", INFO, "Slope of the penalty on distance in models without rope." },
    { ".attention.temperature_scale", INFO, "How attention sharpens with the position." },
    { ".attn_logit_softcapping", FREE, "Attention scores are squeezed smoothly below this size." },
    { ".final_logit_softcapping", FREE, "Logits are squeezed smoothly below this size." },
    { ".embedding_scale", INFO, "Factor on the embedding." },
    { ".residual_scale", INFO, "Factor on what each layer adds." },
    { ".logit_scale", INFO, "Factor on the logits." },
    { ".decoder_start_token_id", INFO, "First token of an answer of an encoder-decoder model." },
    { ".rope.freq_base", FREE, "Base of the rotation speeds; larger suits longer texts." },
    { ".rope.freq_base_swa", INFO, "Base of the rotation speeds in the layers with a window." },
    { ".rope.scaling.type", FREE, "How rope is stretched past the original context: none, linear, yarn or longrope." },
    { ".rope.scaling.factor", FREE, "How many times longer than the original context rope is stretched." },
    { ".rope.scaling.original_context_length", FREE, "Context of the model before it was stretched." },
    { ".rope.scaling.attn_factor", FREE, "Factor on attention scores that goes with a stretched rope." },
    { ".rope.scaling.finetuned", INFO, "Whether the model was trained further after stretching." },
    { ".rope.scaling.yarn_log_multiplier", INFO, "How strongly YaRN's factor on attention grows with the stretch." },
    { ".rope.scaling.yarn_ext_factor", INFO, "How far YaRN mixes stretched and plain rotation." },
    { ".rope.scaling.yarn_attn_factor", INFO, "YaRN's factor on attention." },
    { ".rope.scaling.yarn_beta_fast", FREE, "Rotations per context above which YaRN leaves a dimension alone." },
    { ".rope.scaling.yarn_beta_slow", FREE, "Rotations per context below which YaRN stretches a dimension fully." },
    { ".rope.scale_linear", FREE, "Old name of the factor of linear rope stretching." },

    /* ---- tokenizer.* ---- */
    { "tokenizer.ggml.model", SHAPE, "Kind of vocabulary: gpt2 (byte-level BPE) or llama (SentencePiece)." },
    { "tokenizer.ggml.pre", FREE, "Name of the rule that cuts text into words before BPE." },
    { "tokenizer.ggml.tokens", SHAPE, "The text of every token." },
    { "tokenizer.ggml.token_type", SHAPE,
      "Whether each token is normal, unknown, control, user-defined, unused or a byte." },
    { "tokenizer.ggml.token_type_count", SHAPE, "Number of sentence types of an encoder." },
    { "tokenizer.ggml.scores", SHAPE, "Which SentencePiece merges come first." },
    { "tokenizer.ggml.merges", SHAPE, "Which pairs BPE joins, in order." },
    { "tokenizer.ggml.added_tokens", SHAPE, "Tokens added after training." },
    { "tokenizer.ggml.precompiled_charsmap", SHAPE, "SentencePiece's own normalisation table." },
    { "tokenizer.ggml.bos_token_id", FREE, "Token that begins a text." },
    { "tokenizer.ggml.eos_token_id", FREE, "Token that ends a text, and so an answer." },
    { "tokenizer.ggml.eot_token_id", FREE, "Token that ends a turn, and so an answer." },
    { "tokenizer.ggml.eom_token_id", FREE, "Token that ends a message to a tool, and so an answer." },
    { "tokenizer.ggml.unknown_token_id", FREE, "Token for what the vocabulary can't spell." },
    { "tokenizer.ggml.separator_token_id", INFO, "Token between two texts." },
    { "tokenizer.ggml.seperator_token_id", INFO, "Token between two texts (an old misspelling of the key)." },
    { "tokenizer.ggml.padding_token_id", INFO, "Token that fills up short texts in training; never computed here." },
    { "tokenizer.ggml.mask_token_id", INFO, "Token for a gap that an encoder fills." },
    { "tokenizer.ggml.cls_token_id", INFO, "Token that a classifier reads." },
    { "tokenizer.ggml.fim_*", INFO, "Token that marks a part in fill-in-the-middle prompts." },
    { "tokenizer.ggml.prefix_token_id", INFO, "Token before the prefix in fill-in-the-middle prompts (old name)." },
    { "tokenizer.ggml.suffix_token_id", INFO, "Token before the suffix in fill-in-the-middle prompts (old name)." },
    { "tokenizer.ggml.middle_token_id", INFO, "Token before the middle in fill-in-the-middle prompts (old name)." },
    { "tokenizer.ggml.add_bos_token", FREE, "Whether a text begins with the bos token." },
    { "tokenizer.ggml.add_eos_token", FREE, "Whether a text ends with the eos token." },
    { "tokenizer.ggml.add_sep_token", INFO, "Whether a separator follows each text." },
    { "tokenizer.ggml.add_space_prefix", FREE, "Whether SentencePiece puts a space before the first word." },
    { "tokenizer.ggml.remove_extra_whitespaces", INFO, "Whether SentencePiece joins runs of spaces." },
    { "tokenizer.ggml.escape_whitespaces", INFO, "Whether spaces are written as U+2581 in the vocabulary." },
    { "tokenizer.huggingface.json", INFO,
      "The maker's own tokenizer definition; the tokenizer.ggml keys are read instead." },
    { "tokenizer.rwkv.world", INFO, "Vocabulary of RWKV models." },
    { "tokenizer.chat_template", FREE, "Program (Jinja) that turns a conversation into a prompt." },
    { "tokenizer.chat_template.*", INFO, "Chat template for a special purpose; only the default one is used." },
    { "tokenizer.chat_templates", INFO, "Names of the chat templates for special purposes." },

    /* ---- adapters and projectors, which other programs keep in GGUF too ---- */
    { "adapter.*", INFO, "Setting of a LoRA adapter." },
    { "clip.*", INFO, "Setting of an image or sound encoder." },
};
// clang-format on

static bool matches(const char *pattern, const char *key)
{
    size_t n = strlen(pattern);
    return n && pattern[n - 1] == '*' ? strncmp(pattern, key, n - 1) == 0 : strcmp(pattern, key) == 0;
}

nj_key_kind nj_key_describe(const char *arch, const char *key, const char **sentence)
{
    size_t prefix = arch ? strlen(arch) : 0;
    /* The longest rule wins over a '*', as it stands first in the table. */
    const char *rest = prefix && strncmp(key, arch, prefix) == 0 && key[prefix] == '.' ? key + prefix : key;
    for (size_t i = 0; i < NJ_COUNT(known); i++) {
        if (!matches(known[i].key, rest)) continue;
        if (sentence) *sentence = known[i].sentence;
        return known[i].kind;
    }
    if (sentence) *sentence = "Not used by Nightjar.";
    return INFO;
}
