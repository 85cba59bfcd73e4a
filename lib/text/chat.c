/* chat.c - writes a conversation as a model's chat format does.
 *
 * A model states its format as a Jinja template. There is no Jinja engine here: the common templates are recognised by
 * their marks and written by code, one function a format. Sources: the chat_template of the instruction-tuned models of
 * each family. What a template says in plain literals (a default system prompt, Mistral's blanks) is taken from its text.
 * Left out: tools, thinking blocks, content in parts, and templates with a date: Llama 3.1's is the one it defaults to. */
#include "text/parts.h"

enum { CHAT_CHATML, CHAT_LLAMA2, CHAT_LLAMA3, CHAT_MISTRAL, CHAT_GEMMA, CHAT_PHI3, CHAT_ZEPHYR, CHAT_FORMATS };
static const char *const chat_names[CHAT_FORMATS] = {"chatml", "llama2", "llama3", "mistral",
                                                     "gemma",  "phi3",   "zephyr"};

typedef struct peft__chat {             /* one rendering */
    const peft__tokenizer *t;           /* borrowed */
    const char *tmpl;                   /* the template's text */
    const peft__chat_message *messages; /* [count], borrowed */
    size_t count;
    peft__str *out;
    peft__vec *spans; /* NULL: not wanted */
    size_t span_from;
    peft_status st; /* of the spans */
    bool prompt;    /* open the assistant's turn at the end */
    bool trim;      /* contents lose white space at both ends */
} peft__chat;

static bool chat_has(const char *tmpl, const char *mark) {
    return strstr(tmpl, mark) != NULL;
}

void peft__chat_recognise(peft__tokenizer *t) {
    const char *s = t->chat_template;
    t->chat_format = -1;
    if (s == NULL || chat_has(s, "<|im_sep|>")) { return; }
    if (chat_has(s, "<|im_start|>")) {
        t->chat_format = CHAT_CHATML;
    } else if (chat_has(s, "<|start_header_id|>")) {
        t->chat_format = CHAT_LLAMA3;
    } else if (chat_has(s, "<start_of_turn>")) {
        t->chat_format = CHAT_GEMMA;
    } else if (chat_has(s, "<|assistant|>")) {
        t->chat_format = chat_has(s, "<|end|>") ? CHAT_PHI3 : chat_has(s, "<|user|>") ? CHAT_ZEPHYR : -1;
    } else if (chat_has(s, "[INST]")) {
        t->chat_format = chat_has(s, "<<SYS>>") ? CHAT_LLAMA2 : CHAT_MISTRAL;
    }
}

/* The system prompt that a ChatML template inserts by itself: a literal "<|im_start|>system\n...<|im_end|>" without any
 * expression in it. Line ends stand in such a literal as they are or as \n. */
peft_status peft__chat_default_system(peft__tokenizer *t) {
    static const char head[] = "<|im_start|>system";
    if (t->chat_format != CHAT_CHATML) { return PEFT_OK; }
    for (const char *p = strstr(t->chat_template, head); p != NULL; p = strstr(p + 1, head)) {
        const char *from = p + sizeof head - 1, *end = strstr(from, "<|im_end|>");
        size_t skip = from[0] == '\n' ? 1 : from[0] == '\\' && from[1] == 'n' ? 2 : 0;
        if (skip == 0 || end == NULL) { continue; }
        from += skip;
        size_t len = (size_t)(end - from), n = 0;
        if (len == 0 || strcspn(from, "'\"{}+") < len) { continue; }
        char *text = peft__arena_alloc(&t->arena, len + 1);
        if (text == NULL) { return PEFT_E_NOMEM; }
        for (size_t i = 0; i < len; i++) {
            bool escape = from[i] == '\\' && i + 1 < len && from[i + 1] == 'n';
            text[n++] = escape ? '\n' : from[i];
            i += escape ? 1 : 0;
        }
        t->chat_system = text;
        return PEFT_OK;
    }
    return PEFT_OK;
}

const char *peft__chat_format(const peft__tokenizer *t) {
    return t->chat_format >= 0 ? chat_names[t->chat_format] : NULL;
}

/* ---- pieces ---- */

static bool chat_is(const peft__chat_message *m, const char *role) {
    return m->role_len == strlen(role) && memcmp(m->role, role, m->role_len) == 0;
}

static void chat_token(peft__chat *c, int32_t id) {
    if (id >= 0) { peft__str_put(c->out, c->t->tokens[id].text, c->t->tokens[id].len); }
}

static void chat_bos(peft__chat *c) {
    if (chat_has(c->tmpl, "bos_token")) { chat_token(c, c->t->bos); }
}

static bool chat_blank(char ch) {
    return ch == ' ' || (ch >= '\t' && ch <= '\r');
}

static void chat_content(peft__chat *c, const peft__chat_message *m) {
    const char *s = m->content;
    size_t n = m->content_len;
    while (c->trim && n > 0 && chat_blank(s[0])) { s++, n--; }
    while (c->trim && n > 0 && chat_blank(s[n - 1])) { n--; }
    peft__str_put(c->out, s, n);
}

/* An assistant's turn begins where the generation prompt ends. */
static void chat_turn_begin(peft__chat *c, const peft__chat_message *m) {
    c->span_from = chat_is(m, "assistant") ? c->out->len : SIZE_MAX;
}

static void chat_turn_end(peft__chat *c) {
    if (c->spans == NULL || c->st != PEFT_OK || c->span_from == SIZE_MAX) { return; }
    size_t span[2] = {c->span_from, c->out->len};
    for (int i = 0; i < 2 && c->st == PEFT_OK; i++) { c->st = peft__vec_push(c->spans, &span[i]); }
}

/* The quoted literal of the template that holds `mark`, as far as it is one line: "[INST]" gives " [INST] ". */
static void chat_put_literal(peft__chat *c, const char *mark) {
    const char *p = strstr(c->tmpl, mark), *from = p, *to = p;
    if (p == NULL) { return; }
    while (from > c->tmpl && strchr("'\"}\n", from[-1]) == NULL) { from--; }
    to += strcspn(p, "'\"{\n");
    peft__str_put(c->out, from, (size_t)(to - from));
}

/* ---- formats ---- */

static void chat_chatml(peft__chat *c) {
    if (c->count > 0 && c->t->chat_system != NULL && !chat_is(&c->messages[0], "system")) {
        peft__str_puts(c->out, "<|im_start|>system\n");
        peft__str_puts(c->out, c->t->chat_system);
        peft__str_puts(c->out, "<|im_end|>\n");
    }
    for (size_t i = 0; i < c->count; i++) {
        const peft__chat_message *m = &c->messages[i];
        peft__str_puts(c->out, "<|im_start|>");
        peft__str_put(c->out, m->role, m->role_len);
        peft__str_putc(c->out, '\n');
        chat_turn_begin(c, m);
        peft__str_put(c->out, m->content, m->content_len);
        peft__str_puts(c->out, "<|im_end|>");
        chat_turn_end(c);
        peft__str_putc(c->out, '\n');
    }
    if (c->prompt) { peft__str_puts(c->out, "<|im_start|>assistant\n"); }
}

static void chat_llama3(peft__chat *c) {
    static const char head[] = "<|start_header_id|>", tail[] = "<|end_header_id|>\n\n";
    static const char dates[] = "Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n";
    bool dated = chat_has(c->tmpl, "Cutting Knowledge Date"),
         system = c->count > 0 && chat_is(&c->messages[0], "system");
    chat_bos(c);
    if (dated) {
        peft__str_putf(c->out, "%ssystem%s%s", head, tail, dates);
        if (system) { chat_content(c, &c->messages[0]); }
        peft__str_puts(c->out, "<|eot_id|>");
    }
    for (size_t i = dated && system ? 1 : 0; i < c->count; i++) {
        const peft__chat_message *m = &c->messages[i];
        peft__str_puts(c->out, head);
        peft__str_put(c->out, m->role, m->role_len);
        peft__str_puts(c->out, tail);
        chat_turn_begin(c, m);
        chat_content(c, m);
        peft__str_puts(c->out, "<|eot_id|>");
        chat_turn_end(c);
    }
    if (c->prompt) { peft__str_putf(c->out, "%sassistant%s", head, tail); }
}

/* Where there is no turn for the system, its text goes in front of a user's: the number of messages to skip. */
static size_t chat_system_count(const peft__chat *c) {
    return c->count > 0 && chat_is(&c->messages[0], "system") ? 1 : 0;
}

static void chat_gemma(peft__chat *c) {
    size_t skip = chat_system_count(c);
    chat_bos(c);
    for (size_t i = skip; i < c->count; i++) {
        const peft__chat_message *m = &c->messages[i];
        peft__str_puts(c->out, chat_is(m, "assistant") ? "<start_of_turn>model\n" : "<start_of_turn>user\n");
        chat_turn_begin(c, m);
        if (skip == 1 && i == 1) {
            peft__str_put(c->out, c->messages[0].content, c->messages[0].content_len);
            peft__str_puts(c->out, "\n\n");
        }
        chat_content(c, m);
        peft__str_puts(c->out, "<end_of_turn>");
        chat_turn_end(c);
        peft__str_putc(c->out, '\n');
    }
    if (c->prompt) { peft__str_puts(c->out, "<start_of_turn>model\n"); }
}

static void chat_llama2(peft__chat *c) {
    size_t skip = chat_system_count(c);
    for (size_t i = skip; i < c->count; i++) {
        const peft__chat_message *m = &c->messages[i];
        chat_turn_begin(c, m);
        if (chat_is(m, "user")) {
            chat_token(c, c->t->bos);
            peft__str_puts(c->out, "[INST] ");
            if (skip == 1 && i == 1) {
                peft__str_puts(c->out, "<<SYS>>\n");
                peft__str_put(c->out, c->messages[0].content, c->messages[0].content_len);
                peft__str_puts(c->out, "\n<</SYS>>\n\n");
            }
            chat_content(c, m);
            peft__str_puts(c->out, " [/INST]");
        } else {
            peft__str_putc(c->out, ' ');
            chat_content(c, m);
            peft__str_putc(c->out, ' ');
            chat_token(c, c->t->eos);
            chat_turn_end(c);
        }
    }
}

static void chat_mistral(peft__chat *c) {
    size_t skip = chat_system_count(c), with_system = skip;
    bool space = chat_has(c->tmpl, "' ' + message") || chat_has(c->tmpl, "\" \" + message");
    bool after = chat_has(c->tmpl, "eos_token + ' '") || chat_has(c->tmpl, "eos_token + \" \"");
    if (chat_has(c->tmpl, "loop.last and system_message")) { with_system = c->count - 1; }
    chat_bos(c);
    for (size_t i = skip; i < c->count; i++) {
        const peft__chat_message *m = &c->messages[i];
        chat_turn_begin(c, m);
        if (chat_is(m, "user")) {
            chat_put_literal(c, "[INST]");
            if (skip == 1 && i == with_system) {
                peft__str_put(c->out, c->messages[0].content, c->messages[0].content_len);
                peft__str_puts(c->out, "\n\n");
            }
            peft__str_put(c->out, m->content, m->content_len);
            chat_put_literal(c, "[/INST]");
        } else {
            if (space) { peft__str_putc(c->out, ' '); }
            chat_content(c, m);
            chat_token(c, c->t->eos);
            chat_turn_end(c);
            if (after) { peft__str_putc(c->out, ' '); }
        }
    }
}

/* <|role|>, a line end, the text, and a mark that ends the turn: of its own (Phi-3) or EOS (Zephyr). */
static void chat_roles(peft__chat *c, bool phi3) {
    chat_bos(c);
    for (size_t i = 0; i < c->count; i++) {
        const peft__chat_message *m = &c->messages[i];
        peft__str_puts(c->out, "<|");
        peft__str_put(c->out, m->role, m->role_len);
        peft__str_puts(c->out, "|>\n");
        chat_turn_begin(c, m);
        chat_content(c, m);
        if (phi3) {
            peft__str_puts(c->out, "<|end|>");
        } else {
            chat_token(c, c->t->eos);
        }
        chat_turn_end(c);
        peft__str_putc(c->out, '\n');
    }
    if (c->prompt) {
        peft__str_puts(c->out, "<|assistant|>\n");
    } else if (phi3 && chat_has(c->tmpl, "eos_token")) {
        chat_token(c, c->t->eos);
    }
}

static peft_status chat_check_roles(const peft__chat *c) {
    if (c->t->chat_format == CHAT_CHATML || c->t->chat_format == CHAT_LLAMA3) { return PEFT_OK; } /* any role */
    for (size_t i = 0; i < c->count; i++) {
        const peft__chat_message *m = &c->messages[i];
        bool system = chat_is(m, "system"), roles = c->t->chat_format == CHAT_PHI3 || c->t->chat_format == CHAT_ZEPHYR;
        if (!(system && (i == 0 || roles)) && !chat_is(m, "user") && !chat_is(m, "assistant")) {
            return peft__fail(PEFT_E_INVALID,
                              "message %zu has the role \"%.*s\", the format %s has %ssystem, user and "
                              "assistant",
                              i, (int)PEFT__MIN(m->role_len, 40), m->role, chat_names[c->t->chat_format],
                              roles ? "" : "one first ");
        }
    }
    return PEFT_OK;
}

peft_status peft__chat_render(const peft__tokenizer *t, const peft__chat_message *messages, size_t count,
                              bool add_generation_prompt, peft__str *out, peft__vec *spans) {
    if (t->chat_format < 0) {
        return peft__fail(PEFT_E_UNSUPPORTED,
                          "%s; known formats are chatml, llama2, llama3, mistral, gemma, phi3 and zephyr: give rows of "
                          "{\"prompt\",\"completion\"} and write the format into a prompt template",
                          t->chat_template == NULL ? "the tokenizer has no chat template"
                                                   : "the chat template is not among those recognised");
    }
    peft__chat c = {.t = t,
                    .tmpl = t->chat_template,
                    .messages = messages,
                    .count = count,
                    .out = out,
                    .spans = spans,
                    .span_from = SIZE_MAX,
                    .st = PEFT_OK,
                    .prompt = add_generation_prompt};
    c.trim = chat_has(c.tmpl, "| trim") || chat_has(c.tmpl, "|trim") || chat_has(c.tmpl, ".strip()");
    peft_status st = chat_check_roles(&c);
    if (st != PEFT_OK) { return st; }
    switch (t->chat_format) {
        case CHAT_CHATML: chat_chatml(&c); break;
        case CHAT_LLAMA2: chat_llama2(&c); break;
        case CHAT_LLAMA3: chat_llama3(&c); break;
        case CHAT_MISTRAL: chat_mistral(&c); break;
        case CHAT_GEMMA: chat_gemma(&c); break;
        case CHAT_PHI3: chat_roles(&c, true); break;
        default: chat_roles(&c, false); break;
    }
    return c.st != PEFT_OK ? c.st : peft__str_status(out);
}
