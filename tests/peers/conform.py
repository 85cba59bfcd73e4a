"""What test_conformance.py compares: each method of libpeft set up next to a peer over the same small base, with the same random
tensors, none of them at its initial value.

The peer is HF PEFT or AdapterHub's library where one of them has the method; where neither has, the method's formula over torch's
own gradients. Folders of the peer are loaded where they hold all that is trained, else its tensors are written one by one. The bases
and the rows are those of conform_sides.py.
"""
import adapters as hub
import peft
import torch
from adapters.configuration import AdapterFusionConfig
from adapters.methods.modeling import GLOWCouplingBlock
from peft import AdaLoraConfig, BOFTConfig, IA3Config, LNTuningConfig, LoHaConfig, LoKrConfig, LoraConfig, OFTConfig, VeraConfig
from peft import PrefixTuningConfig, PromptEncoderConfig, PromptTuningConfig, TrainableTokensConfig
from peft.mapping import PEFT_TYPE_TO_TUNER_MAPPING
from peft.optimizers import create_lorafa_optimizer, create_loraplus_optimizer, lorafa
from peft.tuners.boft import layer as boft_layer
from peft.utils import constants

import hf
import hub_plugin
import peftlib
import test_invertible
import test_methods
import test_multitask
import test_oft
import test_prompts
import test_unions
from conform_sides import (ARCHS, BIASED, ENCODERS, IDS, MAY_BE_BIASED, PAIRS, RATE, SIZES, UNBIASED, UNGROUPED, Data, Setup, call,
                           caller, head_names, taken)

FLEXIBLE = dict(llama=hub.LlamaAdapterModel, mistral=hub.MistralAdapterModel, gpt2=hub.GPT2AdapterModel)
MAPPINGS = {IA3Config: constants.TRANSFORMERS_MODELS_TO_IA3_TARGET_MODULES_MAPPING}  # else the tuner's class has it
# What PEFT has no default for: projections, norms.
TARGETS = dict(phi3=["qkv_proj"], olmo2=["q_proj", "v_proj"], stablelm=["q_proj", "v_proj"], bert=["query", "value"],
               roberta=["query", "value"], distilbert=["q_lin", "v_lin"], modernbert=["Wqkv"])
ALL_OF = dict(bert=["query", "key", "value", "attention.output.dense", "intermediate.dense", "output.dense"],
              distilbert=["q_lin", "k_lin", "v_lin", "out_lin", "lin1", "lin2"], modernbert=["Wqkv", "Wo", "Wi"])
ALL_OF["roberta"] = ALL_OF["bert"]  # what "all-linear" is without the classifier, which PEFT would take too, and then refuse
LAST = dict(distilbert="lin2", modernbert="mlp.Wo")  # of the feed-forward; else down_proj
NORMS = dict(phi3=["input_layernorm", "post_attention_layernorm", "norm"], gpt_neox=["input_layernorm", "post_attention_layernorm"],
             stablelm=["input_layernorm", "post_attention_layernorm", "norm"],
             olmo2=["post_attention_layernorm", "post_feedforward_layernorm", "q_norm", "k_norm"],
             opt=["self_attn_layer_norm", "final_layer_norm"], bert=["LayerNorm"], roberta=["LayerNorm"],
             distilbert=["sa_layer_norm", "output_layer_norm"], modernbert=["mlp_norm", "final_norm"])

lorafa.is_bf16_available = lambda: False  # else its projection is rounded to bfloat16
GLOWCouplingBlock.forward = test_invertible.glow


# ---- HF PEFT

def usual_targets(base, cls, options):
    """target_modules where PEFT has no default for the family."""
    mapping = MAPPINGS.get(cls) or PEFT_TYPE_TO_TUNER_MAPPING[cls(**options).peft_type].target_module_mapping
    if options.get("target_modules") is not None or base.family in mapping:
        return {}
    if cls is IA3Config:
        last = LAST.get(base.family, "down_proj")
        return dict(target_modules=TARGETS[base.family] + [last], feedforward_modules=[last])
    return dict(target_modules=(NORMS if cls is LNTuningConfig else TARGETS)[base.family])


def in_peft(base, method, cls, options, ours=None, amount=0.1, prepare=None):
    """A tuner of PEFT's. ours: options here, of an adapter that is made and written; None: PEFT's folder is loaded. prepare: called
    with the peer before its tensors are moved."""
    usual = {} if cls is TrainableTokensConfig else usual_targets(base, cls, options)
    if base.encoder and options.get("target_modules") == ALL:
        usual["target_modules"] = ALL_OF[base.family]
    options, ours = dict(options, **usual), ours and dict(ours, **usual)
    boft_layer.get_fbd_cuda = lambda: test_oft.Blocks if options.get("boft_n_butterfly_factor", 1) > 1 else None
    theirs = peft.get_peft_model(base.plain(), cls(task_type=base.task_type, **options))
    if prepare is not None:
        with torch.no_grad():
            prepare(theirs)
    test_methods.shake(theirs, base.seed + 1, amount)
    theirs.eval().save_pretrained(base.scratch())
    adapters = peftlib.Adapters(base.ours)
    names = {test_methods.file_name(n): p for n, p in theirs.named_parameters() if p.requires_grad}
    taken(adapters, base.scratch() if ours is None else None, method, ours or options, names)
    return Setup(adapters, names, caller(theirs)), theirs


def stacks_look_up(theirs):
    """T5's stacks use PEFT's rows of tokens."""
    model = theirs.get_base_model()
    model.encoder.embed_tokens = model.decoder.embed_tokens = model.shared


def default_targets(base, method, cls, **options):
    """Modules that PEFT chooses where none are said, and those of libpeft; None: the family has no default. LN-tuning here then has
    all norms of the base."""
    sides = []
    try:
        sides.append(sorted(peft.get_peft_model(base.plain(), cls(task_type=base.task_type, **options)).targeted_module_names))
    except (ValueError, TypeError) as error:
        sides.append(None if "target_modules" in str(error) else "refused")  # Conv1D, by some
    if sides[0] is None and cls is LNTuningConfig:
        sides[0] = sorted(n for n, m in base.plain().named_modules() if "Norm" in type(m).__name__)
    adapters = peftlib.Adapters(base.ours)
    try:
        adapters.add("a", method)
        sides.append(sorted(site["path"] for site in adapters.info("a")["sites"] if site["path"] != "classifier"))
    except peftlib.Error as error:
        sides.append(None if "PEFT_E_NOT_FOUND: target_modules must be given" in str(error) else str(error))
    return sides


def lora_plus(base):
    options = dict(r=4, lora_alpha=8)
    s, theirs = in_peft(base, "lora", LoraConfig, options, dict(options, loraplus_lr_ratio=8))
    made = create_loraplus_optimizer(theirs, torch.optim.AdamW, lr=RATE, loraplus_lr_ratio=8)
    s.optimizer, s.ours["adam_epsilon"] = lambda p: made, made.param_groups[0]["eps"]
    return s


def lora_fa(base):
    options = dict(r=4, lora_alpha=8)
    s, theirs = in_peft(base, "lora_fa", LoraConfig, options, options)
    made = create_lorafa_optimizer(theirs, r=4, lora_alpha=8, lr=RATE)
    for group in made.param_groups:
        group["eps"] = 1e-12
    s.optimizer, s.ours["adam_epsilon"] = lambda p: made, 1e-12
    s.frozen = {n for n in s.names if "lora_A" in n}
    return s


def pissa(base):
    """The product that both start with is compared, and then libpeft's is off both bases: where singular values lie near each other,
    the peer's decomposition in single precision has a part of the next one in it, and all that follows would."""
    options = dict(r=4, lora_alpha=6, init_lora_weights="pissa")
    options.update(usual_targets(base, LoraConfig, options))
    fresh = peftlib.Adapters(base.ours)
    fresh.add("a", "lora", options)

    def same_start(theirs):
        for path, module in lora_modules(theirs):
            a, b = (torch.tensor(fresh.read("a", "%s.lora_%s.weight" % (path, x))) for x in "AB")
            ours = b.view(-1, 4) @ a.view(4, -1)
            product = module.lora_B["default"].weight @ module.lora_A["default"].weight
            if (ours - product).abs().max() > 1e-4 * product.abs().max():
                raise ValueError("%s starts from another product" % path)
            more = 6 / 4 * (product - ours)
            module.base_layer.weight += more.T if base.conv else more

    return in_peft(base, "lora", LoraConfig, options, options, amount=0.05, prepare=same_start)[0]


def olora(base):
    """The peer takes its own product off its base, libpeft its own."""
    options = dict(r=4, lora_alpha=6, init_lora_weights="olora")
    return in_peft(base, "lora", LoraConfig, options, options, amount=0.05)[0]


def lora_modules(theirs):
    return [(n.removeprefix("base_model.model."), m) for n, m in theirs.named_modules() if hasattr(m, "base_layer")]


def olora_of_conv(base):
    """What PEFT means: its LoRA, over a base from which the product that it starts with has been taken."""
    def prepare(theirs):
        for _, module in lora_modules(theirs):
            q, r = torch.linalg.qr(module.base_layer.weight.T)
            module.lora_A["default"].weight.copy_(r[:4])
            module.lora_B["default"].weight.copy_(q[:, :4])
            module.base_layer.weight -= 6 / 4 * (q[:, :4] @ r[:4]).T

    options = dict(r=4, lora_alpha=6)
    return in_peft(base, "lora", LoraConfig, options, dict(options, init_lora_weights="olora"), amount=0.05, prepare=prepare)[0]


def their_olora(base):
    wrapped = peft.get_peft_model(base.plain(), LoraConfig(task_type="CAUSAL_LM", r=4, init_lora_weights="olora"))
    return hf.logits(wrapped, [1, 2, 3])


def adalora(base):
    """Steps add the orthonormal term and take triplets away."""
    options = dict(init_r=4, target_r=2, tinit=1, tfinal=5, deltaT=2, total_step=24,
                   **({} if base.family != "mistral" else dict(target_modules=["q_proj", "v_proj"])))
    options.update(usual_targets(base, AdaLoraConfig, options))
    s, theirs = in_peft(base, "adalora", AdaLoraConfig, options, amount=0.3)
    s.step_loss = lambda data: theirs(**data.padded(), labels=data.marks()).loss
    s.after = theirs.base_model.update_and_allocate
    return s


def soft(method, cls, **options):
    def build(base):
        named = base.family != "distilbert"  # whose config calls its sizes otherwise than PEFT expects
        sizes = {} if named else dict(token_dim=32, num_layers=2, num_attention_heads=4)
        theirs = test_prompts.wrap(base.plain(), cls, base.seed + 1, dict(options, task_type=base.task_type, **sizes))
        names = test_prompts.named(theirs, method, options)
        names = {n: p for n, p in names.items() if "classifier" not in n} | head_names(base, theirs)
        adapters = peftlib.Adapters(base.ours)
        taken(adapters, None, method, options, names)
        return Setup(adapters, names, caller(theirs))
    return build


def multitask(base):
    options = dict(num_virtual_tokens=4, num_tasks=3, num_ranks=2)
    sizes = dict(token_dim=32, num_layers=2, num_attention_heads=4) if base.family == "distilbert" else {}
    theirs = test_multitask.wrap(base.plain(), base.seed + 1, task_type=base.task_type, **sizes, **options)
    names = test_multitask.named(theirs) | head_names(base, theirs)
    theirs.save_pretrained(base.scratch())
    adapters = peftlib.Adapters(base.ours)
    taken(adapters, base.scratch(), "multitask_prompt", options, names)

    def forward(inputs, tasks):
        if base.pair:  # PEFT would make the decoder's input from labels
            inputs = dict(inputs, decoder_inputs_embeds=theirs.word_embeddings(inputs["decoder_input_ids"]))
        return call(theirs, inputs, task_ids=torch.tensor(tasks))

    return Setup(adapters, names, forward)


# ---- AdapterHub

HOLDERS = {".adapters.a.": ".", ".shared_parameters.a.": ".shared_parameters.", ".invertible_adapters.a.": ".invertible_adapters.",
           ".loras.a.": ".loras.", ".prefix_gates.a.": ".prefix_gates.", ".prefix_tunings.a.": ".prefix_tunings."}


def hub_names(theirs):
    out = {}
    for name, p in theirs.named_parameters(remove_duplicate=False):
        name = "." + name  # T5's shared parameters have nothing before them
        if ".prefix_tuning.pool." in name or not any(h in name for h in HOLDERS):
            continue
        for there, here in HOLDERS.items():
            name = name.replace(there, here)
        out[name[1:]] = p
    return out


def in_hub_model(base, config, flexible):
    if flexible and base.family in FLEXIBLE:
        theirs = FLEXIBLE[base.family].from_pretrained(base.folder, attn_implementation="eager", dtype=torch.float32)
    else:
        theirs = base.plain()
        hub_plugin.init(theirs)
    theirs.add_adapter("a", config=config)
    theirs.train_adapter("a")
    theirs.set_active_adapters("a")
    names, gen = hub_names(theirs) | head_names(base, theirs), torch.Generator().manual_seed(base.seed + 1)
    with torch.no_grad():
        for name, p in names.items():
            p.add_(torch.randn(p.shape, generator=gen) * (0.5 if "gate" in name else 0.1))
    return theirs.eval(), names


def in_hub(method, options, config, flexible=None, folder=True):
    """flexible: the peer's class with or without a flexible head, which is said to libpeft by inv_head; None: no matter. folder: else
    the peer's tensors are written one by one."""
    def build(base):
        theirs, names = in_hub_model(base, config, flexible)
        test_unions.save_theirs(theirs, base.scratch())
        adapters = peftlib.Adapters(base.ours)
        more = {} if flexible is None else dict(inv_head=flexible or ("inv_adapter" in options and not hub_plugin.knows(base.family)))
        taken(adapters, base.scratch() if folder else None, method, dict(options, **more), names)
        return Setup(adapters, names, caller(theirs))
    return build


def union(base):
    """A LoRA and a bottleneck as one adapter; in libpeft of two in the set."""
    lora, bottleneck = dict(r=3, alpha=6), dict(reduction_factor=4)
    theirs, names = in_hub_model(base, hub.ConfigUnion(hub.LoRAConfig(**lora), hub.SeqBnConfig(**bottleneck)), False)
    adapters = peftlib.Adapters(base.ours)
    adapters.add("l", "lora_hub", lora)
    adapters.add("b", "pfeiffer", bottleneck)
    adapters.add("a", "union", dict(parts=["l", "b"]))
    for name, p in names.items():
        adapters.write("a", name, p.detach().numpy())
    return Setup(adapters, names, caller(theirs))


def fusion(base):
    theirs = base.plain()
    hub_plugin.init(theirs)
    adapters, gen = peftlib.Adapters(base.ours), torch.Generator().manual_seed(base.seed + 1)
    for name, factor in (("a", 4), ("b", 8)):
        theirs.add_adapter(name, config=hub.SeqBnConfig(reduction_factor=factor))
    theirs.add_adapter_fusion(["a", "b"], AdapterFusionConfig.load("dynamic"))
    theirs.train_adapter_fusion(hub.composition.Fuse("a", "b"))
    with torch.no_grad():
        for name, p in theirs.named_parameters():
            if ".adapters." in name or "adapter_fusion_layer" in name:
                p.add_(torch.randn(p.shape, generator=gen) * 0.1)
    for name in ("a", "b"):
        theirs.save_adapter(base.scratch() + name, name, with_head=False, use_safetensors=True)
        adapters.load(name, base.scratch() + name)
    theirs.eval().save_adapter_fusion(base.scratch() + "f", "a,b", use_safetensors=True)
    adapters.load("f", base.scratch() + "f")
    names = {n.replace(".a,b.", "."): p for n, p in theirs.named_parameters() if "adapter_fusion_layer" in n and p.requires_grad}
    return Setup(adapters, names, caller(theirs), job="fuse(a, b)", acts="f", holder="f",
                 step_loss=lambda data: data.loss(caller(theirs)) + theirs.get_fusion_regularization_loss())


# ---- torch

def of_the_base(method):
    """Tensors of the base are trained: those that libpeft names."""
    def build(base):
        theirs, adapters = base.plain(), peftlib.Adapters(base.ours)
        adapters.add("a", method)
        head = theirs.get_output_embeddings()
        if method == "head" and head is not None:  # a tied one is untied
            head.weight = torch.nn.Parameter(head.weight.detach().clone())
        names = {n: p for n, p in theirs.named_parameters(remove_duplicate=False) if n in adapters.shapes("a")}
        for p in theirs.parameters():
            p.requires_grad_(any(p is q for q in names.values()))
        test_methods.shake(theirs, base.seed + 1, 0.02)
        matrices = [n for n, p in names.items() if base.conv and p.dim() == 2 and (".c_" in n)]
        turned = {n for n in matrices if adapters.shapes("a")[matrices[0]] != tuple(names[matrices[0]].shape)}
        s = Setup(adapters, names, caller(theirs), turned=turned)
        for n, p in names.items():
            adapters.write("a", n, s.theirs(n, p))
        return s
    return build


def cayley(q):
    one = torch.eye(q.shape[-1])
    return torch.linalg.solve(one + q, one - q, left=False)


def loha_weight(t, w, o):
    return w + o["alpha"] / o["r"] * ((t["hada_w1_a"] @ t["hada_w1_b"]) * (t["hada_w2_a"] @ t["hada_w2_b"])).T


def lokr_weight(t, w, o):
    one, two = (t[n] if n in t else t[n + "_a"] @ t[n + "_b"] for n in ("lokr_w1", "lokr_w2"))
    return w + o["alpha"] / o["r"] * torch.kron(one, two).T


def oft_weight(t, w, o):
    v = t["oft_R.weight"]
    b = o["oft_block_size"]
    at = torch.triu_indices(b, b, 1)
    q = torch.zeros(len(v), b, b).index_put((torch.arange(len(v))[:, None], at[0][None], at[1][None]), v)
    q = q - q.transpose(1, 2)
    if o.get("use_cayley_neumann") is False:
        r = cayley(q)
    else:  # PEFT's five terms: the last power once
        powers = [q, q @ q, q @ q @ q, q @ q @ q @ q]
        r = torch.eye(b) + 2 * sum(powers) - powers[-1]
    return torch.block_diag(*(r[i % len(r)] for i in range(len(w) // b))) @ w


def boft_weight(t, w, o):
    """Factor after factor; the second one and on pair half-blocks at a distance: even ones of a group, then odd ones."""
    rotations = cayley((t["boft_R"] - t["boft_R"].transpose(-1, -2)) / 2)
    factors, _, b, _ = rotations.shape
    half = b // 2 if factors > 1 else b
    for level, blocks in enumerate(rotations):
        chunks = torch.arange(len(w)).view(-1, (b << level) // half, half)
        order = torch.cat([chunks[:, 0::2], chunks[:, 1::2]], 1).reshape(-1)
        w = (torch.block_diag(*blocks) @ w[order])[torch.argsort(order)]
    return w * t["boft_s"].T


def by_formula(method, weight, options):
    """Over Conv1D modules [in, out]: the module's weight as a function of what is trained."""
    def build(base):
        adapters, theirs = peftlib.Adapters(base.ours), base.plain()
        adapters.add("a", method, options, seed=3)
        gen, names = torch.Generator().manual_seed(base.seed + 1), {}
        for n, shape in adapters.shapes("a").items():
            names[n] = torch.tensor(adapters.read("a", n)).view(shape) + torch.randn(shape, generator=gen) * 0.1
            adapters.write("a", n, names[n].numpy())
            names[n].requires_grad_(True)
        modules = {site["path"] for site in adapters.info("a")["sites"]}

        def forward(inputs, tasks):
            changed = {}
            for m in modules:
                t = {n.removeprefix(m + "."): p for n, p in names.items() if n.startswith(m + ".")}
                changed[m + ".weight"] = weight(t, theirs.get_parameter(m + ".weight").detach(), options)
            out = torch.func.functional_call(theirs, changed, (), dict(inputs, use_cache=False))
            return out.logits.float()

        return Setup(adapters, names, forward)
    return build


# ---- the rows

PEFT, HUB, TORCH = "HF PEFT", "AdapterHub", "torch"
NO_CONV = "PEFT refuses Conv1D modules: the formula of the method over torch's gradients instead"
GATES = "the peer's gates are means over padding too: its rows one by one"
PISSA = "what both start with agrees within 1e-4 of its largest; after that libpeft's product is off both bases"
OLORA_CONV = ("PEFT factors a Conv1D's weight the wrong way round, and its tensors do not fit: its LoRA over a base from which torch "
              "has taken the product")


PLUGIN = [t for t, pair in ARCHS if not hub_plugin.knows(pair[1].model_type) and pair[1].model_type not in ENCODERS]
BOTH_STACKS = [t for t, pair in ARCHS if pair[1].model_type in PAIRS]
TAGGERS = [t for t, pair in ARCHS if pair[1].model_type in ENCODERS]
WITHOUT_PAST = ["DistilBERT", "ModernBERT"]
NO_PREFIX = "the peer's plug-in interface has no prefixes for ModernBERT, whose attention is called with q, k and v in one"
NO_PAST = "PEFT needs a model that takes `past_key_values` for a prefix"
NO_CLASSIFIER = "PEFT's trained tokens know no classifier, and fail with `task_type=\"TOKEN_CLS\"`"
THIRDS = "of as many key heads as query heads: the peer cuts the matrix of q, k and v in three"
STACKS = ("PEFT wraps the table `shared`, which the stacks of a T5 with a head of its own do not call, and its rows act on nothing: here "
          "they are told to")
SHARED = "the peer's folders of T5 lack what the layers share: its tensors are written one by one"
PAIR_HEAD = ("the peer's class with a fixed head: its flexible one undoes the encoder's bijection on the decoder's states, and libpeft "
             "refuses such a folder")
HEADS = "the peer's three parts of the matrix of q, k and v are put where heads have theirs"
FUSED = {"Phi-3": THIRDS, "NeoX": HEADS}


DEFAULTS = [("lora", LoraConfig, {}), ("adalora", AdaLoraConfig, dict(total_step=24)), ("vera", VeraConfig, {}), ("loha", LoHaConfig, {}),
            ("lokr", LoKrConfig, {}), ("oft", OFTConfig, {}), ("boft", BOFTConfig, {}), ("ia3", IA3Config, {}),
            ("ln_tuning", LNTuningConfig, {})]

MORE_DEFAULTS = {("Mistral", "adalora"), ("StableLM", "adalora")}  # which PEFT has not


class Case:
    """A row. special: {base title: (build or None, note)}; alone: why the peer takes unequal rows one by one; refused: {base title:
    what must fail for the note to hold}; changes: {base title: another model there}."""

    def __init__(self, title, method, peer, build, note=None, special=None, alone=None, refused=None, changes=None):
        self.title, self.method, self.peer, self.build, self.note = title, method, peer, build, note
        self.special, self.alone, self.refused, self.changes = special or {}, alone, refused or {}, changes or {}


def holes(case, note, titles):
    """There is no comparison for these: the peer refuses, perhaps not before there are rows."""
    case.special = dict(case.special, **{t: (None, note) for t in titles})

    def build(base):
        return Data(base, "padded").outputs(case.build(base).forward, alone=False)

    case.refused = dict(case.refused, **{t: build for t in titles})
    return case


def tuner(title, method, cls, conv=None, note=None, amount=0.1, **options):
    """A row of PEFT; conv: the formula's weight where PEFT does not know Conv1D, with options there."""
    def build(base):
        return in_peft(base, method, cls, options, amount=amount)[0]
    if conv is None:
        return Case(title, method, PEFT, build, note)
    weight, there = conv
    return Case(title, method, PEFT, build, note, special={"GPT-2": (by_formula(method, weight, there), NO_CONV)},
                refused={"GPT-2": build})  # if it is not, PEFT has learnt it


def in_stacks(case, cls, **options):
    """Rows of tokens in T5. What is refused: that they act without a word to its stacks."""
    def build(base):
        return in_peft(base, case.method, cls, options, prepare=stacks_look_up)[0]

    def unheard(base):
        s = case.build(base)
        rows = next(p for n, p in s.names.items() if n.endswith("trainable_tokens_delta"))
        torch.autograd.grad(Data(base, "padded").loss(s.forward), rows)

    case.special, case.refused = dict(case.special, T5=(build, STACKS)), dict(case.refused, T5=unheard)
    return case


def shared_in_t5(case, config, **options):
    """A compacter, of which the peer saves all but what its layers share."""
    case.special, case.refused = dict(T5=(in_hub(case.method, options, config, folder=False), SHARED)), dict(T5=case.build)
    return case


def bottleneck(title, method, config, note=None, alone=None, flexible=None, **options):
    build = in_hub(method, options, config, flexible)
    if method in ("lora_hub", "unipelt"):
        case = fused(Case(title, method, HUB, build, note, alone=alone))
        return case if method == "lora_hub" else holes(case, NO_PREFIX, ["ModernBERT"])
    if method.startswith("compacter"):
        return shared_in_t5(Case(title, method, HUB, build, note), config, **options)
    if method in ("prefix_tuning", "mam"):
        return holes(Case(title, method, HUB, build, note, alone=alone), NO_PREFIX, ["ModernBERT"])
    if flexible is False and "inv_adapter" not in options:
        return Case(title, method, HUB, build, note, alone=alone, refused={t: build for t in PLUGIN},
                    special={t: (None, NO_FIXED_HEAD) for t in PLUGIN})
    if flexible:
        return Case(title, method, HUB, build, note, alone=alone, special={t: (build, PAIR_HEAD) for t in BOTH_STACKS})
    return Case(title, method, HUB, build, note, alone=alone)


def fused(case):
    """A row of LoRAs on q, k and v by name, which in some models are one matrix."""
    case.changes = UNGROUPED
    case.refused = {"Phi-3": case.build}  # with groups
    case.special = {t: (case.build, note) for t, note in FUSED.items()}
    return case


def base_trained(title, method, note=None, **more):
    return Case(title, method, TORCH, of_the_base(method), note, **more)


ALL = "all-linear"
C_ATTN = dict(target_modules=["c_attn"])
OFT_EXACT = dict(oft_block_size=8, use_cayley_neumann=False, block_share=True)
LORA_TOKENS = dict(r=4, trainable_token_indices=IDS)
PREFIX = dict(prefix_length=5, bottleneck_size=12)
UNIPELT = dict(prefix_length=4, bottleneck_size=8, reduction_factor=8, r=3, alpha=6)
MAM = dict(prefix_length=5, bottleneck_size=12, reduction_factor=4)
HUB_LORA = dict(r=3, alpha=6, attn_matrices=["q", "v"], intermediate_lora=True)
GLOW = dict(inv_adapter="glow", inv_adapter_reduction_factor=2, reduction_factor=8)
FIXED_HEAD = "the peer's class with a fixed head, which does not undo the bijection before the head (`inv_head=false`)"
FLEXIBLE_HEAD = "the peer's class with a flexible head, which undoes the bijection before the head"
NO_FIXED_HEAD = "the peer has no class with a fixed head, and libpeft refuses `inv_head=false`"
GLOW_NOTE = "the peer's coupling block cuts the wrong axis and does not run; the few lines of its formula stand in for it"

CASES = [
    tuner("lora", "lora", LoraConfig, r=4, lora_alpha=8),
    tuner("lora, rsLoRA, every projection", "lora", LoraConfig, r=4, lora_alpha=8, use_rslora=True, target_modules=ALL, amount=0.07),
    Case("lora, PiSSA", "lora", PEFT, pissa, PISSA),
    Case("lora, OLoRA", "lora", PEFT, olora, special={"GPT-2": (olora_of_conv, OLORA_CONV)},
         refused={"GPT-2": their_olora}),
    Case("lora, LoRA+", "lora", PEFT, lora_plus, "with PEFT's `create_loraplus_optimizer`"),
    in_stacks(tuner("lora, trained tokens", "lora", LoraConfig, **LORA_TOKENS), LoraConfig, **LORA_TOKENS),
    tuner("dora", "dora", LoraConfig, use_dora=True, r=4, lora_alpha=8, target_modules=ALL, amount=0.07),
    Case("lora_fa", "lora_fa", PEFT, lora_fa, "with PEFT's `create_lorafa_optimizer`, its bfloat16 rounding off"),
    Case("adalora", "adalora", PEFT, adalora, "steps with the orthonormal term and two choices of triplets"),
    tuner("vera", "vera", VeraConfig, r=8),
    tuner("loha", "loha", LoHaConfig, conv=(loha_weight, dict(r=3, alpha=6, init_weights=False)), r=3, alpha=6),
    tuner("lokr", "lokr", LoKrConfig, conv=(lokr_weight, dict(r=3, alpha=6, init_weights="false")), r=3, alpha=6),
    tuner("lokr, both factors of low rank", "lokr", LoKrConfig, r=1, alpha=2, decompose_both=True,
          conv=(lokr_weight, dict(r=1, alpha=2, decompose_both=True, init_weights="false"))),
    tuner("oft", "oft", OFTConfig, oft_block_size=8, conv=(oft_weight, dict(oft_block_size=8, init_weights=False)), amount=0.05),
    tuner("oft, exact, one block for all", "oft", OFTConfig, conv=(oft_weight, dict(OFT_EXACT, init_weights=False)), **OFT_EXACT),
    tuner("boft", "boft", BOFTConfig, boft_block_size=4, conv=(boft_weight, dict(boft_block_size=4, init_weights=False))),
    tuner("boft, two factors", "boft", BOFTConfig, boft_block_size=4, boft_n_butterfly_factor=2, amount=0.05,
          conv=(boft_weight, dict(boft_block_size=4, boft_n_butterfly_factor=2, init_weights=False)),
          note="PEFT's CUDA extension is replaced by a few lines of torch"),
    tuner("ia3", "ia3", IA3Config),
    tuner("ln_tuning", "ln_tuning", LNTuningConfig),
    base_trained("bitfit", "bitfit", "Llama, Qwen3, Gemma and OLMo 2 here have biases of attention, Llama of the feed-forward too",
                 changes={"Llama": BIASED, "Q8_0": BIASED, "Q4_0": BIASED,
                          **{t: maker(attention_bias=True, **SIZES) for t, maker in MAY_BE_BIASED.items()}},
                 refused={t: of_the_base("bitfit") for t in UNBIASED},
                 special={t: (None, "this model has no biases") for t in UNBIASED}),
    in_stacks(holes(tuner("trainable_tokens", "trainable_tokens", TrainableTokensConfig, token_indices=IDS), NO_CLASSIFIER, TAGGERS),
              TrainableTokensConfig, token_indices=IDS),
    base_trained("head", "head"),
    base_trained("full", "full"),
    bottleneck("houlsby", "houlsby", hub.DoubleSeqBnConfig(reduction_factor=8), reduction_factor=8),
    bottleneck("pfeiffer", "pfeiffer", hub.SeqBnConfig(reduction_factor=8), reduction_factor=8),
    bottleneck("pfeiffer, gate", "pfeiffer", hub.SeqBnConfig(use_gating=True), alone=GATES, use_gating=True),
    bottleneck("parallel", "parallel", hub.ParBnConfig(scaling="learned"), scaling="learned"),
    bottleneck("houlsby_inv", "houlsby_inv", hub.DoubleSeqBnInvConfig(), FLEXIBLE_HEAD, flexible=True),
    bottleneck("pfeiffer_inv", "pfeiffer_inv", hub.SeqBnInvConfig(), FLEXIBLE_HEAD, flexible=True),
    bottleneck("pfeiffer_inv, fixed head", "pfeiffer_inv", hub.SeqBnInvConfig(), FIXED_HEAD, flexible=False),
    bottleneck("pfeiffer, glow", "pfeiffer", hub.SeqBnConfig(**GLOW), GLOW_NOTE, flexible=False, **GLOW),
    bottleneck("compacter", "compacter", hub.CompacterConfig(reduction_factor=8), reduction_factor=8),
    bottleneck("compacter++", "compacter++", hub.CompacterPlusPlusConfig(reduction_factor=8), reduction_factor=8),
    Case("prompt", "prompt", PEFT, soft("prompt", PromptTuningConfig, num_virtual_tokens=5)),
    Case("multitask_prompt", "multitask_prompt", PEFT, multitask, "rows of three tasks in one batch"),
    Case("ptuning, MLP", "ptuning", PEFT, soft("ptuning", PromptEncoderConfig, num_virtual_tokens=5, encoder_hidden_size=12)),
    Case("ptuning, LSTM", "ptuning", PEFT, soft("ptuning", PromptEncoderConfig, num_virtual_tokens=5, encoder_hidden_size=12,
                                                encoder_reparameterization_type="LSTM")),
    holes(Case("prefix", "prefix", PEFT, soft("prefix", PrefixTuningConfig, num_virtual_tokens=5)), NO_PAST, WITHOUT_PAST),
    holes(Case("prefix, projection", "prefix", PEFT, soft("prefix", PrefixTuningConfig, num_virtual_tokens=5, prefix_projection=True,
                                                          encoder_hidden_size=12)), NO_PAST, WITHOUT_PAST),
    holes(Case("ptuning_v2", "ptuning_v2", PEFT, soft("ptuning_v2", PrefixTuningConfig, num_virtual_tokens=5)), NO_PAST, WITHOUT_PAST),
    bottleneck("prefix_tuning", "prefix_tuning", hub.PrefixTuningConfig(**PREFIX), **PREFIX),
    bottleneck("prefix_tuning, flat", "prefix_tuning", hub.PrefixTuningConfig(flat=True, prefix_length=5), flat=True, prefix_length=5),
    bottleneck("prefix_tuning, gate", "prefix_tuning", hub.PrefixTuningConfig(use_gating=True, **PREFIX), alone=GATES, use_gating=True,
               **PREFIX),
    bottleneck("lora_hub", "lora_hub", hub.LoRAConfig(**HUB_LORA), **HUB_LORA),
    bottleneck("lora_hub, gate", "lora_hub", hub.LoRAConfig(use_gating=True, **HUB_LORA), alone=GATES, use_gating=True, **HUB_LORA),
    bottleneck("mam", "mam", hub.MAMConfig(hub.PrefixTuningConfig(**PREFIX), hub.ParBnConfig(reduction_factor=4)), **MAM),
    bottleneck("unipelt", "unipelt", hub.UniPELTConfig(hub.PrefixTuningConfig(prefix_length=4, bottleneck_size=8),
                                                       hub.SeqBnConfig(reduction_factor=8), hub.LoRAConfig(r=3, alpha=6)),
               alone=GATES, **UNIPELT),
    fused(Case("union", "union", HUB, union, "a `ConfigUnion` of LoRA and a bottleneck")),
    Case("fusion", "fusion", HUB, fusion, "steps with the regularisation"),
]
