"""Small random models of transformers, adapters of HF PEFT over them, and what both say about a batch."""
import os

import torch
import transformers
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM
from transformers import Gemma2Config, Gemma2ForCausalLM, Gemma3ForCausalLM, Gemma3TextConfig, GPTNeoXConfig, GPTNeoXForCausalLM
from transformers import Olmo2Config, Olmo2ForCausalLM, OPTConfig, OPTForCausalLM, Phi3Config, Phi3ForCausalLM
from transformers import BertConfig, BertForTokenClassification, DistilBertConfig, DistilBertForTokenClassification
from transformers import ModernBertConfig, ModernBertForTokenClassification, RobertaConfig, RobertaForTokenClassification
from transformers import Qwen2Config, Qwen2ForCausalLM, Qwen3Config, Qwen3ForCausalLM, StableLmConfig, StableLmForCausalLM

transformers.logging.set_verbosity_error()
torch.set_num_threads(int(os.environ.get("PEERS_THREADS", "1")))
VOCAB = 320
SIZES = dict(vocab_size=VOCAB, hidden_size=64, intermediate_size=96, num_hidden_layers=3, num_attention_heads=8,
             num_key_value_heads=2, max_position_embeddings=256)
LLAMA3 = dict(rope_type="llama3", factor=4.0, low_freq_factor=1.0, high_freq_factor=4.0,
              original_max_position_embeddings=64)
GPT2 = dict(vocab_size=VOCAB, n_embd=64, n_layer=3, n_head=4, n_positions=256, attn_pdrop=0.0, embd_pdrop=0.0,
            resid_pdrop=0.0)


def llama(**changes):
    return LlamaForCausalLM, LlamaConfig(**{**SIZES, **changes})


def mistral(**changes):
    return MistralForCausalLM, MistralConfig(**{**SIZES, **changes})


def gpt2(**changes):
    return GPT2LMHeadModel, GPT2Config(**{**GPT2, **changes})


def family(model, config, keys=None, **usual):
    """A maker of models of another family; keys: of SIZES, those that it has, and its own names for them."""
    own = {new: SIZES[old] for old, new in (keys or {k: k for k in SIZES}).items()}
    return lambda **changes: (model, config(**{**own, **usual, **{(keys or {}).get(k, k): v for k, v in changes.items()}}))


WINDOWS = dict(sliding_window=16, query_pre_attn_scalar=24, layer_types=["sliding_attention", "full_attention"],
               num_hidden_layers=2, head_dim=16)
NO_GROUPS = {k: k for k in SIZES if k != "num_key_value_heads"}
qwen2 = family(Qwen2ForCausalLM, Qwen2Config)
qwen3 = family(Qwen3ForCausalLM, Qwen3Config, head_dim=16)
gemma2 = family(Gemma2ForCausalLM, Gemma2Config, **WINDOWS)
gemma3 = family(Gemma3ForCausalLM, Gemma3TextConfig, **WINDOWS)
phi3 = family(Phi3ForCausalLM, Phi3Config, pad_token_id=0)
olmo2 = family(Olmo2ForCausalLM, Olmo2Config)
neox = family(GPTNeoXForCausalLM, GPTNeoXConfig, NO_GROUPS)
stablelm = family(StableLmForCausalLM, StableLmConfig, use_qkv_bias=True)
LABELS = 5  # of the encoders here, which are classifiers of tokens
bert = family(BertForTokenClassification, BertConfig, NO_GROUPS, num_labels=LABELS)
# Its positions begin behind the padding token, which no row may have.
roberta = family(RobertaForTokenClassification, RobertaConfig, NO_GROUPS, num_labels=LABELS)
distilbert = family(DistilBertForTokenClassification, DistilBertConfig,
                    dict(vocab_size="vocab_size", hidden_size="dim", intermediate_size="hidden_dim", num_hidden_layers="n_layers",
                         num_attention_heads="n_heads", max_position_embeddings="max_position_embeddings"), num_labels=LABELS)
modernbert = family(ModernBertForTokenClassification, ModernBertConfig, NO_GROUPS, num_labels=LABELS, pad_token_id=0, bos_token_id=1,
                    eos_token_id=2, cls_token_id=1, sep_token_id=2, reference_compile=False, global_attn_every_n_layers=2)
opt = family(OPTForCausalLM, OPTConfig, {**NO_GROUPS, "intermediate_size": "ffn_dim"})


def make(pair, seed):
    """A model whose every tensor is random, gains and biases too, so that no term is hidden by a zero or a one."""
    cls, config = pair
    config._attn_implementation = "eager"
    model = cls(config)
    gen = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in model.named_parameters():
            gain = p.dim() == 1 and name.endswith("weight") and not config.model_type.startswith("gemma")  # whose gains are 1 + w
            p.copy_(torch.randn(p.shape, generator=gen) * (0.1 if p.dim() == 1 else 0.08) + (1.0 if gain else 0.0))
    return model.eval()


def load(path, **options):
    return transformers.AutoModelForCausalLM.from_pretrained(path, attn_implementation="eager", dtype=torch.float32,
                                                             **options).eval()


def add_lora(model, seed, **config):
    """HF PEFT's LoRA over model, every trained tensor moved off its initial value. The more the product is scaled, the less,
    so that the model stays well-conditioned: its own rounding errors would drown the comparison otherwise."""
    wrapped = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **config))
    gen = torch.Generator().manual_seed(seed)
    amount = 0.15 / max(1.0, config.get("lora_alpha", 8) / config.get("r", 8)) ** 0.5
    with torch.no_grad():
        for name, p in wrapped.named_parameters():
            if p.requires_grad:
                p.add_(torch.randn(p.shape, generator=gen) * (amount if "lora_" in name else 0.05))
    return wrapped.eval()


def load_adapter(model, path):
    return PeftModel.from_pretrained(model, path, is_trainable=True).eval()


def file_name(parameter):
    """The name in the adapter's file, without base_model.model., of a parameter of a wrapped model."""
    name = parameter.removeprefix("base_model.model.").replace(".modules_to_save.default", "")
    return name.replace(".lora_A.default.", ".lora_A.").replace(".lora_B.default.", ".lora_B.")


def trainable(model):
    return {file_name(n): p for n, p in model.named_parameters() if p.requires_grad}


def state_shapes(wrapped):
    """What is saved; but for the base matrix of an adapted head, which PEFT saves along and libpeft leaves in the base."""
    return {n.removeprefix("base_model.model."): tuple(t.shape) for n, t in get_peft_model_state_dict(wrapped).items()
            if not n.endswith("lm_head.base_layer.weight")}


def pad(rows, labels):
    """Right padding: ids, mask, labels as tensors."""
    longest = max(map(len, rows))
    ids = torch.tensor([r + [0] * (longest - len(r)) for r in rows])
    mask = torch.tensor([[1] * len(r) + [0] * (longest - len(r)) for r in rows])
    marks = torch.tensor([l + [-100] * (longest - len(l)) for l in labels])
    return ids, mask, marks


def loss(model, rows, labels, smoothing=0.0):
    """Mean over the labelled tokens."""
    ids, mask, marks = pad(rows, labels)
    logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits.float()
    return torch.nn.functional.cross_entropy(logits[:, :-1].reshape(-1, logits.shape[-1]), marks[:, 1:].reshape(-1),
                                             ignore_index=-100, label_smoothing=smoothing)


def gradients(model, rows, labels, smoothing=0.0):
    """The loss, and {file name: gradient} of every trainable tensor."""
    model.zero_grad(set_to_none=True)
    value = loss(model, rows, labels, smoothing)
    value.backward()
    out = {n: (torch.zeros_like(p) if p.grad is None else p.grad).numpy().copy() for n, p in trainable(model).items()}
    model.zero_grad(set_to_none=True)
    return value.item(), out


def logits(model, ids):
    with torch.no_grad():
        return model(input_ids=torch.tensor([ids]), use_cache=False).logits[0].float().numpy()


def greedy(model, ids, count):
    with torch.no_grad():
        out = model.generate(torch.tensor([ids]), max_new_tokens=count, do_sample=False, eos_token_id=None,
                             pad_token_id=0, attention_mask=torch.ones(1, len(ids), dtype=torch.long))
    return out[0, len(ids):].tolist()


def random_rows(seed, lengths=(37, 64, 9), vocab=VOCAB, masked=True):
    """Rows of ids, and labels of which a leading part and a few others are -100."""
    gen = torch.Generator().manual_seed(seed)
    rows = [torch.randint(0, vocab, (n,), generator=gen).tolist() for n in lengths]
    labels = [list(r) for r in rows]
    for r in labels if masked else []:
        r[:len(r) // 4] = [-100] * (len(r) // 4)
        r[len(r) // 2] = -100
    return rows, labels
