"""AdapterHub's library over families that it has no classes for: its plug-in interface, which hooks into the modules that it is told.

Its hooks stand where its own classes call: at what attention and feed-forward give to the residual stream. Where a family norms that
first (Gemma, OLMo 2) they are told the norm; its own interface for Gemma names the projection before the norm, and all layers'
adapters then see the norm of the last layer. What its classes do and the interface does not is added: prefix tuning, by its own
layer on the keys and values that attention is called with, or hands to a past (StableLM); the means of gates over OPT's rows, which
OPT flattens; and GPT-NeoX's matrix of q, k and v, of which it would take thirds that are none of them.

Left out: the fixed heads of its classes (a bijection is always undone here).
"""
import sys
from dataclasses import replace

import adapters as hub
from adapters.methods import METHOD_INIT_MAPPING
from adapters.methods.prefix_tuning import PrefixTuningLayer, PrefixTuningPool

METHODS = ["bottleneck", "lora", "invertible", "prefix_tuning"]
COMMON = dict(model_embeddings="embed_tokens", model_layers="layers", layer_self_attn="self_attn", layer_cross_attn=None,
              attn_q_proj="q_proj", attn_k_proj="k_proj", attn_v_proj="v_proj", attn_o_proj="o_proj",
              layer_intermediate_proj="mlp.up_proj", layer_output_proj="mlp.down_proj", layer_pre_self_attn="input_layernorm",
              layer_pre_ffn="post_attention_layernorm")
FUSED = dict(COMMON, attn_q_proj=None, attn_k_proj=None, attn_v_proj=None)
INTERFACES = dict(
    qwen2=COMMON, qwen3=COMMON,
    gemma2=dict(COMMON, layer_pre_ffn="pre_feedforward_layernorm"),
    gemma3_text=dict(COMMON, layer_pre_ffn="pre_feedforward_layernorm"),
    olmo2=dict(COMMON, layer_pre_self_attn="self_attn.q_proj", layer_pre_ffn="mlp"),
    stablelm=COMMON,
    phi3=dict(FUSED, attn_qkv_proj="qkv_proj", layer_intermediate_proj="mlp.gate_up_proj"),
    gpt_neox=dict(FUSED, model_embeddings="embed_in", layer_self_attn="attention", attn_qkv_proj="query_key_value",
                  attn_o_proj="dense", layer_intermediate_proj="mlp.dense_h_to_4h", layer_output_proj="mlp.dense_4h_to_h"),
    modernbert=dict(FUSED, model_embeddings="embeddings", layer_self_attn="attn", attn_qkv_proj="Wqkv", attn_o_proj="Wo",
                    layer_intermediate_proj="mlp.Wi", layer_output_proj="mlp.Wo", layer_pre_self_attn="attn_norm",
                    layer_pre_ffn="mlp_norm"),
    opt=dict(COMMON, model_embeddings="decoder.embed_tokens", model_layers="decoder.layers", attn_o_proj="out_proj",
             layer_intermediate_proj="fc1", layer_output_proj="fc2", layer_pre_self_attn="self_attn_layer_norm",
             layer_pre_ffn="final_layer_norm"),
)
POST_NORMS = ("gemma2", "gemma3_text", "olmo2")


def attend_with_prefix(eager):
    """A family's eager attention, with the layer of prefixes before it where a module has one."""
    def attend(module, query, key, value, mask, *args, **kwargs):
        if hasattr(module, "prefix_tuning"):
            key, value, mask = module.prefix_tuning(key, value, module.prefix_input, mask)
        return eager(module, query, key, value, mask, *args, **kwargs)
    attend.has_prefix = True
    return attend


def note_input(module, args, kwargs):
    object.__setattr__(module, "prefix_input", args[0] if args else kwargs["hidden_states"])


class PrefixedPast:
    """StableLM's attention calls no function, but hands its keys and values to a past."""

    def __init__(self, module):
        self.module = module

    def update(self, key, value, *args):
        return self.module.prefix_tuning(key, value, self.module.prefix_input)[:2]


def give_past(module, args, kwargs):
    hidden, mask = kwargs["hidden_states"], kwargs["attention_mask"]
    none = hidden.new_zeros(len(hidden), module.num_key_value_heads, 0, module.head_dim)
    mask = module.prefix_tuning(none, none, hidden, mask)[2]
    return args, dict(kwargs, past_key_values=PrefixedPast(module), attention_mask=mask)


def init_prefix(model):
    """What its classes do for prefix tuning."""
    base = model.base_model
    base.prefix_tuning = PrefixTuningPool(model.config, model.adapters_config)
    for _, _, attention in base.iter_attentions():
        code = sys.modules[type(attention).__module__]
        if model.config.model_type == "stablelm":
            if not hasattr(attention, "prefix_tuning"):  # this is called for a model and for its base
                attention.register_forward_pre_hook(give_past, with_kwargs=True)
        elif not hasattr(code.eager_attention_forward, "has_prefix"):
            code.eager_attention_forward = attend_with_prefix(code.eager_attention_forward)
        attention.prefix_tuning = PrefixTuningLayer("self_prefix", model.config, model.adapters_config)
        attention.register_forward_pre_hook(note_input, with_kwargs=True)


def init_bottleneck(model):
    """The hooks of bottlenecks at norms where these give to the residual stream."""
    base = model.base_model
    told = base.adapter_interface
    if model.config.model_type in POST_NORMS:
        for layer in base.layers:
            object.__setattr__(layer.self_attn, "after", layer.post_attention_layernorm)
        base.adapter_interface = replace(told, attn_o_proj="after", layer_output_proj="post_feedforward_layernorm")
    THEIR_BOTTLENECK(model)
    base.adapter_interface = told


THEIR_BOTTLENECK = METHOD_INIT_MAPPING["bottleneck"]
METHOD_INIT_MAPPING.update(bottleneck=init_bottleneck, prefix_tuning=init_prefix)


def unflatten(layers):
    """OPT's feed-forward gets its rows apart, before the library's hooks."""
    for layer in layers:
        layer.self_attn.register_forward_hook(lambda m, args, out, layer=layer: object.__setattr__(layer, "shape", out[0].shape))
        layer.final_layer_norm.register_forward_pre_hook(lambda m, args, layer=layer: args[0].view(layer.shape))


def flatten(layers):
    for layer in layers:
        layer.fc2.register_forward_hook(lambda m, args, out: out.reshape(-1, out.shape[-1]))


def by_heads(module, heads):
    """LoRA's parts of a matrix that has q, k and v of each head together."""
    pad = module.pad

    def spread(*args, **kwargs):
        x = pad(*args, **kwargs)
        return x.view(*x.shape[:-1], 3, heads, -1).transpose(-2, -3).reshape(x.shape)

    module.pad = spread


def knows(model_type):
    return model_type not in INTERFACES


def init(model):
    """Like adapters.init()."""
    config = model.config
    if knows(config.model_type):
        hub.init(model)
        return
    if config.model_type == "gemma3_text":
        model.base_model_prefix = "model"  # transformers says another
    config.d_kv = getattr(config, "head_dim", None)  # the width of its prefixes' heads
    layers = model.base_model.decoder.layers if config.model_type == "opt" else model.base_model.layers
    plain = {n for n, m in model.named_modules() if getattr(m, "bias", 0) is None}
    if config.model_type == "opt":
        unflatten(layers)
    methods = METHODS[:-1] if config.model_type == "modernbert" else METHODS  # its attention is called with q, k and v in one
    hub.init(model, interface=hub.AdapterModelInterface(adapter_methods=methods, **INTERFACES[config.model_type]))
    for name in plain:  # its class for a matrix of q, k and v gives it a bias
        model.get_submodule(name).bias = None
    if config.model_type == "opt":
        flatten(layers)
    if config.model_type == "gpt_neox":
        for layer in layers:
            by_heads(layer.attention.query_key_value, config.num_attention_heads)
