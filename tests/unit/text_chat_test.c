/* text_chat_test.c - conversations as each format writes them, and which part is the assistant's. */
#include "text_build.h"

enum { CHAT_SYSTEM = 1, CHAT_USER = 2, CHAT_ANSWER = 3, CHAT_OTHER = 4 };

/* A folder whose template is `tmpl`, given as the inside of a JSON string; BOS is <s>, EOS </s>. */
static peft_status chat_open(peft__mem *mem, const char *tmpl, peft__tokenizer **out) {
    peft__str s;
    peft__str_init(&s, mem);
    peft__str_puts(&s, "{\"bos_token\":\"<s>\",\"eos_token\":\"</s>\",\"chat_template\":\"");
    peft__str_puts(&s, tmpl);
    peft__str_puts(&s, "\"}");
    peft_status st = text_open(mem, TEXT_SPM, peft__str_c(&s), out);
    peft__str_free(&s);
    return st;
}

/* The talk as text with the assistant's spans in braces, or "failed"; valid until the next call. */
static const char *chat_text(const peft__tokenizer *t, const int *talk, size_t n, bool prompt) {
    static const peft__chat_message kinds[] = {{"", "", 0, 0},
                                               {"system", "Be brief.", 6, 9},
                                               {"user", "Hi?", 4, 3},
                                               {"assistant", " Yes. ", 9, 6},
                                               {"tool", "x", 4, 1}};
    static char out[1024];
    peft__chat_message m[8];
    peft__str s;
    peft__vec spans;
    size_t at = 0, k = 0;
    for (size_t i = 0; i < n; i++) { m[i] = kinds[talk[i]]; }
    peft__str_init(&s, t->mem);
    peft__vec_init(&spans, t->mem, sizeof(size_t));
    peft_status st = peft__chat_render(t, m, n, prompt, &s, &spans);
    for (size_t i = 0; st == PEFT_OK && i <= s.len && at + 8 < sizeof out; i++) {
        for (; k < spans.len && PEFT__VEC_AT(&spans, size_t, k) == i; k++) { out[at++] = k % 2 == 0 ? '{' : '}'; }
        if (i < s.len) { out[at++] = s.data[i]; }
    }
    out[at] = '\0';
    peft__str_free(&s);
    peft__vec_free(&spans);
    return st == PEFT_OK ? out : "failed";
}

static const int chat_one[] = {CHAT_USER};
static const int chat_full[] = {CHAT_SYSTEM, CHAT_USER, CHAT_ANSWER};
static const int chat_odd[] = {CHAT_USER, CHAT_OTHER};

typedef struct chat_case {
    const char *tmpl, *format, *one, *full; /* one: with a generation prompt; full: without */
} chat_case;

static const chat_case chat_cases[] = {
    {"{{'<|im_start|>' + message['role'] + '\\n'}}", "chatml",
     "<|im_start|>user\nHi?<|im_end|>\n<|im_start|>assistant\n",
     "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi?<|im_end|>\n<|im_start|>assistant\n{ Yes. "
     "<|im_end|>}\n"},
    {"{{ '<|im_start|>system\\nYou are it.<|im_end|>\\n' }}", "chatml",
     "<|im_start|>system\nYou are it.<|im_end|>\n<|im_start|>user\nHi?<|im_end|>\n<|im_start|>assistant\n",
     "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi?<|im_end|>\n<|im_start|>assistant\n{ Yes. "
     "<|im_end|>}\n"},
    {"{{ bos_token }}<|start_header_id|>{{ content | trim }}", "llama3",
     "<s><|start_header_id|>user<|end_header_id|>\n\nHi?<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
     "<s><|start_header_id|>system<|end_header_id|>\n\nBe "
     "brief.<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nHi?<|eot_id|>"
     "<|start_header_id|>assistant<|end_header_id|>\n\n{Yes.<|eot_id|>}"},
    {"{{ bos_token }}<|start_header_id|>{{ content | trim }} Cutting Knowledge Date", "llama3",
     "<s><|start_header_id|>system<|end_header_id|>\n\nCutting Knowledge Date: December 2023\nToday Date: 26 Jul "
     "2024\n\n<|eot_id|>"
     "<|start_header_id|>user<|end_header_id|>\n\nHi?<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
     "<s><|start_header_id|>system<|end_header_id|>\n\nCutting Knowledge Date: December 2023\nToday Date: 26 Jul "
     "2024\n\n"
     "Be brief.<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nHi?<|eot_id|>"
     "<|start_header_id|>assistant<|end_header_id|>\n\n{Yes.<|eot_id|>}"},
    {"{{ bos_token }}<start_of_turn>{{ content | trim }}", "gemma",
     "<s><start_of_turn>user\nHi?<end_of_turn>\n<start_of_turn>model\n",
     "<s><start_of_turn>user\nBe brief.\n\nHi?<end_of_turn>\n<start_of_turn>model\n{Yes.<end_of_turn>}\n"},
    {"'<|user|>' '<|end|>' '<|assistant|>' {{ eos_token }}", "phi3", "<|user|>\nHi?<|end|>\n<|assistant|>\n",
     "<|system|>\nBe brief.<|end|>\n<|user|>\nHi?<|end|>\n<|assistant|>\n{ Yes. <|end|>}\n</s>"},
    {"'<|user|>' eos_token '<|assistant|>'", "zephyr", "<|user|>\nHi?</s>\n<|assistant|>\n",
     "<|system|>\nBe brief.</s>\n<|user|>\nHi?</s>\n<|assistant|>\n{ Yes. </s>}\n"},
    {"{{ bos_token }}{{ '[INST] ' + message['content'] + ' [/INST]' }}{{ message['content'] + eos_token + ' ' }}",
     "mistral", "<s>[INST] Hi? [/INST]", "<s>[INST] Be brief.\n\nHi? [/INST]{ Yes. </s>} "},
    {"{{ bos_token }}{{ '[INST] ' + c + '[/INST]' }}{{ ' ' + message['content']|trim + eos_token }}", "mistral",
     "<s>[INST] Hi?[/INST]", "<s>[INST] Be brief.\n\nHi?[/INST]{ Yes.</s>}"},
    {"{{ bos_token }}[INST] <<SYS>> content.strip() eos_token", "llama2", "<s>[INST] Hi? [/INST]",
     "<s>[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\nHi? [/INST]{ Yes. </s>}"},
};

TEST(text_chat_formats) {
    peft__mem *mem = runner_mem();
    for (size_t i = 0; i < PEFT__COUNT(chat_cases); i++) {
        const chat_case *c = &chat_cases[i];
        peft__tokenizer *t = NULL;
        CHECK_OK(chat_open(mem, c->tmpl, &t));
        CHECK_STR(peft__chat_format(t), c->format);
        CHECK_STR(chat_text(t, chat_one, 1, true), c->one);
        CHECK_STR(chat_text(t, chat_full, 3, false), c->full);
        bool any = strcmp(c->format, "chatml") == 0 || strcmp(c->format, "llama3") == 0;
        CHECK((strcmp(chat_text(t, chat_odd, 2, false), "failed") == 0) == !any);
        if (!any) { CHECK_ERROR_HAS("message 1 has the role \"tool\""); }
        peft__tokenizer_free(t);
    }
}

TEST(text_chat_template_not_known) {
    peft__mem *mem = runner_mem();
    peft__tokenizer *t = NULL;
    static const char *const odd[] = {"User: {{ message }}", "<|im_start|>user<|im_sep|>", "<|assistant|>"};
    for (size_t i = 0; i < PEFT__COUNT(odd); i++) {
        CHECK_OK(chat_open(mem, odd[i], &t));
        CHECK(peft__chat_format(t) == NULL);
        CHECK_STR(chat_text(t, chat_one, 1, true), "failed");
        CHECK_ERROR_HAS("chat template is not among those recognised");
        CHECK_ERROR_HAS("{\"prompt\",\"completion\"}");
        peft__tokenizer_free(t);
    }
    CHECK_OK(text_open(mem, TEXT_SPM, NULL, &t));
    CHECK_STR(chat_text(t, chat_one, 1, true), "failed");
    CHECK_ERROR_HAS("the tokenizer has no chat template");
    peft__tokenizer_free(t);
}

TEST(text_chat_template_files) {
    peft__mem *mem = runner_mem();
    peft__tokenizer *t = NULL;
    const char *dir = runner_tmpdir();
    CHECK_OK(text_write(mem, dir, "tokenizer.json", TEXT_SPM));
    CHECK_OK(text_write(mem, dir, "tokenizer_config.json",
                        "{\"chat_template\":[{\"name\":\"tools\",\"template\":\"[INST]\"},"
                        "{\"name\":\"default\",\"template\":\"<|im_start|>\"}]}"));
    CHECK_OK(peft__tokenizer_open(mem, dir, &t));
    CHECK_STR(peft__chat_format(t), "chatml");
    peft__tokenizer_free(t);
    CHECK_OK(text_write(mem, dir, "chat_template.jinja", "<start_of_turn>"));
    CHECK_OK(peft__tokenizer_open(mem, dir, &t));
    CHECK_STR(peft__chat_format(t), "gemma");
    peft__tokenizer_free(t);
    CHECK_OK(text_write(mem, dir, "tokenizer_config.json", "[1]"));
    CHECK_STATUS(peft__tokenizer_open(mem, dir, &t), PEFT_E_FORMAT);
    CHECK_ERROR_HAS("tokenizer_config.json");
    CHECK_OK(text_write(mem, dir, "tokenizer_config.json", "{\"add_bos_token\":\"yes\"}"));
    CHECK_STATUS(peft__tokenizer_open(mem, dir, &t), PEFT_E_FORMAT);
    CHECK_ERROR_HAS("add_bos_token");
}
