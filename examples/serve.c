/* serve.c - several adapters over one base, served on 127.0.0.1. Each request is a row of one session, so that one pass of the base
 * goes on with all of them, whatever their adapters.
 *
 *   cc -std=c11 serve.c -lpeft -lm && ./a.out --model PATH [--adapter NAME=PATH]... [--port N] [--threads N] [--max-length N]
 *     [--timeout SECONDS]
 *   curl -N -d '{"prompt":"Once","adapter":"0.5 * a","max_new_tokens":20}' http://127.0.0.1:8080/generate
 *
 *   POST /generate         {"prompt", "adapter": an expression ("": the base), and options of schema "generate"}; answered by a JSON
 *                          line a token, {"id","text"}, and a last one, {"done":true,"tokens"} or {"error"}
 *   GET /adapters          {"adapters":[names]}
 *   POST /adapters         {"name","path"}: loads one, or replaces it; rows under way go on with what they began with
 *   DELETE /adapters/NAME  refused while a row has it
 *   GET /health            {"status":"ok","rows","waiting","clients"}
 *
 * One thread, which looks after its sockets between tokens. HTTP/1.1 (RFC 9112), one request a connection. Requests for which the
 * session has no room wait in the order of their connections. A client that closes its side, or takes nothing for --timeout seconds, has
 * gone away, and its row with it; a request must be there as a whole in that time. SIGTERM and SIGINT end it in order.
 *
 * Left out: connections that are kept, chunked requests, TLS and passwords: whoever may connect may load adapters from any path. */
#ifndef _POSIX_C_SOURCE
#define _POSIX_C_SOURCE 200809L
#endif
#include "serve_json.h"

#include <peft.h>
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <strings.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define TRY(call)                                           \
    do {                                                    \
        if ((status = (call)) != PEFT_OK) { goto out; }     \
    } while (0)

enum { CLIENTS = 200, HEAD_MOST = 8192, BODY_MOST = 1 << 20, LINGER = 2 /* seconds in which a client may read its answer */ };

typedef enum stage {
    READING, /* its request */
    WAITING, /* for room in the session */
    ROW,     /* of the session */
    ENDING,  /* its answer is complete and being sent */
    CLOSING, /* sent: until the client closes, as a socket that is closed with unread bytes loses what was sent */
    GONE
} stage;

typedef struct client {
    int fd, half; /* half: the client sends nothing more */
    stage stage;
    double deadline;
    text in, out;
    size_t sent;                  /* bytes of out */
    size_t target, body, length;  /* in `in`: the path, the body (0: the head is not complete), its length */
    text prompt, adapter;
    peft_options *options;
    int64_t row, tokens;
} client;

typedef struct server {
    peft_context *ctx;
    peft_model *model;
    peft_tokenizer *tokenizer;
    peft_adapters *adapters;
    peft_session *session;
    int listener, full;           /* full: the session has no room until a row ends */
    double timeout;
    size_t n;
    client *clients[CLIENTS];     /* as they came */
} server;

static volatile sig_atomic_t stopped;
static _Atomic(peft_session *) running;
static int wake[2] = {-1, -1}; /* a pipe: a signal before poll() is not missed */

static void on_signal(int number) {
    int before = errno;
    peft_session *s = atomic_load(&running);
    stopped = number;
    if (s != NULL) { peft_session_cancel(s); }
    if (write(wake[1], "", 1) <= 0) { stopped = number; } /* full: poll() is awake */
    errno = before;
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* ---- answers ------------------------------------------------------------------------------------------------- */

static void put_head(text *out, int code) {
    static const struct { int code; const char *reason; } known[] = {{200, "OK"}, {400, "Bad Request"}, {404, "Not Found"},
        {405, "Method Not Allowed"}, {408, "Request Timeout"}, {409, "Conflict"}, {413, "Content Too Large"},
        {431, "Request Header Fields Too Large"}, {500, "Internal Server Error"}, {501, "Not Implemented"},
        {503, "Service Unavailable"}, {505, "HTTP Version Not Supported"}};
    size_t i = 0;
    while (known[i].code != code) { i++; }
    put_c(out, "HTTP/1.1 ");
    put_number(out, code);
    put_c(out, " ");
    put_c(out, known[i].reason);
    put_c(out, "\r\nConnection: close\r\n");
}

static void answer(client *c, int code, const text *json) {
    put_head(&c->out, code);
    put_c(&c->out, "Content-Type: application/json\r\nContent-Length: ");
    put_number(&c->out, (int64_t)json->len + 1);
    put_c(&c->out, "\r\n\r\n");
    put(&c->out, json->p, json->len);
    put_c(&c->out, "\n");
    c->out.broken |= json->broken;
    c->stage = ENDING;
}

/* Returns 0. */
static int refuse(client *c, int code, const char *message) {
    text json = {0};
    put_error(&json, message);
    answer(c, code, &json);
    drop_text(&json);
    return 0;
}

static int refuse_status(client *c, peft_status status) {
    int code = status == PEFT_E_NOT_FOUND ? 404 : status == PEFT_E_BUSY ? 409 : status == PEFT_E_NOMEM ? 503 : 400;
    if (status == PEFT_E_IO || status == PEFT_E_INTERNAL) { code = 500; }
    return refuse(c, code, peft_last_error());
}

/* A JSON line of a row's answer, which is a chunk; the last one is followed by the empty chunk. */
static void put_line(client *c, const text *json, int last) {
    char size[24];
    snprintf(size, sizeof size, "%zx\r\n", json->len + 1);
    put_c(&c->out, size);
    put(&c->out, json->p, json->len);
    put_c(&c->out, last ? "\n\r\n0\r\n\r\n" : "\n\r\n");
    c->out.broken |= json->broken;
    if (last) { c->stage = ENDING; }
}

static void end_row(client *c, const char *error) {
    text json = {0};
    if (error != NULL) {
        put_error(&json, error);
    } else {
        put_c(&json, "{\"done\":true,\"tokens\":");
        put_number(&json, c->tokens);
        put_c(&json, "}");
    }
    put_line(c, &json, 1);
    drop_text(&json);
}

/* peft_row_fn */
static int32_t on_row(void *user, const peft_row_info *info) {
    server *s = user;
    client *c = NULL;
    for (size_t i = 0; i < s->n && c == NULL; i++) {
        if (s->clients[i]->stage == ROW && s->clients[i]->row == info->row) { c = s->clients[i]; }
    }
    if (c == NULL) { return 1; }
    if (info->id >= 0) {
        text json = {0};
        put_c(&json, "{\"id\":");
        put_number(&json, info->id);
        put_c(&json, ",\"text\":");
        put_string(&json, info->text, info->text_len);
        put_c(&json, "}");
        put_line(c, &json, 0);
        drop_text(&json);
        c->tokens++;
    }
    if (info->ended) { end_row(c, info->status == PEFT_OK ? NULL : peft_status_name(info->status)); }
    return 0;
}

/* ---- requests ------------------------------------------------------------------------------------------------ */

static void ask_generate(server *s, client *c) {
    static const char *const names[2] = {"prompt", "adapter"};
    text *found[2] = {&c->prompt, &c->adapter}, rest = {0};
    const char *wrong = read_object(c->in.p + c->body, c->length, names, found, &rest);
    if (wrong == NULL && c->prompt.p == NULL) { wrong = "key \"prompt\" is missing"; }
    if (wrong == NULL && c->adapter.p != NULL && strlen(c->adapter.p) != c->adapter.len) { wrong = "\"adapter\" has a NUL"; }
    peft_status status = wrong == NULL ? peft_options_create(s->ctx, "generate", &c->options) : PEFT_OK;
    if (wrong == NULL && status == PEFT_OK) { status = peft_options_set_json(c->options, rest.p, rest.len); }
    drop_text(&rest);
    c->stage = WAITING;
    if (wrong != NULL) { refuse(c, 400, wrong); }
    if (status != PEFT_OK) { refuse_status(c, status); }
}

static void show_adapters(server *s, client *c) {
    text json = {0};
    const char *name;
    put_c(&json, "{\"adapters\":[");
    for (size_t i = 0; (name = peft_adapters_name(s->adapters, i)) != NULL; i++) {
        put_c(&json, i > 0 ? "," : "");
        put_string(&json, name, strlen(name));
    }
    put_c(&json, "]}");
    answer(c, 200, &json);
    drop_text(&json);
}

static peft_status load(server *s, const char *name, const char *path) {
    peft_options *o = NULL;
    peft_status status;
    TRY(peft_options_create(s->ctx, "load", &o));
    TRY(peft_options_set_bool(o, "replace", 1));
    TRY(peft_adapters_load(s->adapters, name, path, o));
out:
    peft_options_free(o);
    return status;
}

static void ask_load(server *s, client *c) {
    static const char *const names[2] = {"name", "path"};
    text name = {0}, path = {0}, rest = {0}, *found[2] = {&name, &path};
    const char *wrong = read_object(c->in.p + c->body, c->length, names, found, &rest);
    peft_status status = PEFT_OK;
    if (wrong == NULL && (name.p == NULL || path.p == NULL || rest.len > 2)) { wrong = "the keys are \"name\" and \"path\""; }
    if (wrong == NULL && (strlen(name.p) != name.len || strlen(path.p) != path.len)) { wrong = "a name or path has a NUL"; }
    if (wrong != NULL) {
        refuse(c, 400, wrong);
    } else if ((status = load(s, name.p, path.p)) != PEFT_OK) {
        refuse_status(c, status);
    } else {
        show_adapters(s, c);
    }
    drop_text(&name), drop_text(&path), drop_text(&rest);
}

/* name: as in a path, with %XX. */
static int ask_remove(server *s, client *c, char *name) {
    char *to = name;
    for (const char *p = name; *p != '\0'; p++) {
        char digits[5] = "00";
        reader r = {digits, digits + 4};
        if (*p == '%') { strncpy(digits + 2, p + 1, 2); }
        long byte = *p == '%' ? read_hex(&r) : *p;
        if (*p == '%' && byte <= 0) { return refuse(c, 400, "the path has a % before what is no byte"); }
        p += *p == '%' ? 2 : 0;
        *to++ = (char)byte;
    }
    *to = '\0';
    peft_status status = peft_adapters_remove(s->adapters, name);
    if (status != PEFT_OK) { return refuse_status(c, status); }
    show_adapters(s, c);
    return 1;
}

static void show_health(server *s, client *c) {
    int counts[GONE] = {0};
    char line[128];
    text json = {0};
    for (size_t i = 0; i < s->n; i++) { counts[s->clients[i]->stage]++; }
    snprintf(line, sizeof line, "{\"status\":\"ok\",\"rows\":%d,\"waiting\":%d,\"clients\":%zu}", counts[ROW], counts[WAITING], s->n);
    put_c(&json, line);
    answer(c, 200, &json);
    drop_text(&json);
}

static void dispatch(server *s, client *c) {
    const char *method = c->in.p;
    char *target = c->in.p + c->target;
    int generate = strcmp(target, "/generate") == 0, adapters = strcmp(target, "/adapters") == 0, health = strcmp(target, "/health") == 0;
    int one = strncmp(target, "/adapters/", 10) == 0, get = strcmp(method, "GET") == 0, post = strcmp(method, "POST") == 0;
    if (!generate && !adapters && !health && !one) {
        refuse(c, 404, "there are /generate, /adapters, /adapters/NAME and /health");
    } else if (generate && post) {
        ask_generate(s, c);
    } else if (adapters && post) {
        ask_load(s, c);
    } else if (adapters && get) {
        show_adapters(s, c);
    } else if (one && strcmp(method, "DELETE") == 0) {
        ask_remove(s, c, target + 10);
    } else if (health && get) {
        show_health(s, c);
    } else {
        refuse(c, 405, "the path has no such method");
    }
}

/* One line of the head after the first; 0: refused. */
static int read_field(client *c, char *line, int *lengths, int *expects) {
    char *colon = strchr(line, ':'), *value = colon;
    if (colon == NULL || colon == line || strcspn(line, " \t") < (size_t)(colon - line)) {
        return refuse(c, 400, "a line of the head is not NAME: VALUE");
    }
    *colon = '\0';
    value += 1 + strspn(value + 1, " \t");
    size_t len = strlen(value);
    while (len > 0 && (value[len - 1] == ' ' || value[len - 1] == '\t')) { value[--len] = '\0'; }
    if (strcasecmp(line, "Transfer-Encoding") == 0) { return refuse(c, 501, "a body must have a Content-Length"); }
    *expects |= strcasecmp(line, "Expect") == 0 && strcasecmp(value, "100-continue") == 0;
    if (strcasecmp(line, "Content-Length") != 0) { return 1; }
    if (len == 0 || strspn(value, "0123456789") != len || (*lengths)++ > 0) { return refuse(c, 400, "Content-Length is not one number"); }
    c->length = len > 9 ? BODY_MOST + 1 : (size_t)strtol(value, NULL, 10);
    return c->length <= BODY_MOST || refuse(c, 413, "the body has more than 1048576 bytes");
}

/* METHOD /PATH HTTP/1.1; 0: refused. */
static int read_first(client *c) {
    char *target = strchr(c->in.p, ' '), *version = target != NULL ? strchr(target + 1, ' ') : NULL;
    if (version == NULL || target[1] != '/' || strncmp(version + 1, "HTTP/", 5) != 0 || strchr(version + 1, ' ') != NULL) {
        return refuse(c, 400, "the first line is not METHOD /PATH HTTP/1.1");
    }
    if (strcmp(version + 1, "HTTP/1.1") != 0) { return refuse(c, 505, "the version is not HTTP/1.1"); }
    *target = *version = '\0';
    c->target = (size_t)(target + 1 - c->in.p);
    return 1;
}

/* The head, once its empty line is there; 0: refused. */
static int read_head(client *c) {
    char *end = strstr(c->in.p, "\r\n\r\n"), *next = NULL;
    int lengths = 0, expects = 0;
    if (end == NULL && strlen(c->in.p) != c->in.len) { return refuse(c, 400, "the head has a NUL"); }
    if ((end == NULL ? c->in.len : (size_t)(end - c->in.p)) > HEAD_MOST) { return refuse(c, 431, "the head has more than 8192 bytes"); }
    if (end == NULL) { return 1; }
    *end = '\0';
    c->body = (size_t)(end - c->in.p) + 4;
    for (char *line = c->in.p; line != NULL; line = next) {
        next = strstr(line, "\r\n");
        if (next != NULL) {
            *next = '\0';
            next += 2;
        }
        if (!(line == c->in.p ? read_first(c) : read_field(c, line, &lengths, &expects))) { return 0; }
    }
    if (expects && c->in.len < c->body + c->length) { put_c(&c->out, "HTTP/1.1 100 Continue\r\n\r\n"); }
    return 1;
}

/* ---- sockets ------------------------------------------------------------------------------------------------- */

/* What was sent is added to the request, which goes its way when it is complete. */
static void take_in(server *s, client *c, const char *got, size_t n) {
    put(&c->in, got, n);
    if (c->in.broken) {
        refuse(c, 503, "there is no memory for the request");
    } else if ((c->body > 0 || read_head(c)) && c->body > 0 && c->in.len >= c->body + c->length) {
        dispatch(s, c);
    }
    if (c->stage != READING) { drop_text(&c->in); }
}

/* Reads what is there; what follows a request is thrown away. */
static void receive(server *s, client *c) {
    static char got[1 << 16];
    for (int turns = 0; turns < 32 && !c->half; turns++) {
        ssize_t n = recv(c->fd, got, sizeof got, 0);
        if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR)) { return; }
        if (n > 0 && c->stage == READING) { take_in(s, c, got, (size_t)n); }
        c->half = n <= 0;
        if (n == 0 && c->stage == READING && c->in.len > 0) { refuse(c, 400, "the request ends too early"); }
        if (n < 0 || (n == 0 && c->stage != ENDING)) { c->stage = GONE; }
    }
}

static void transmit(server *s, client *c) {
    if (c->out.broken) { c->stage = GONE; }
    while (c->stage != GONE && c->sent < c->out.len) {
        ssize_t n = send(c->fd, c->out.p + c->sent, c->out.len - c->sent, 0);
        if (n < 0 && errno == EINTR) { continue; }
        if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) { return; }
        if (n < 0) { c->stage = GONE; }
        if (n > 0) { c->sent += (size_t)n; }
        if (c->stage != READING) { c->deadline = now() + s->timeout; }
    }
    c->sent = c->out.len = 0;
    if (c->stage == ROW || c->stage == WAITING) { c->deadline = now() + s->timeout; } /* nothing to take is no fault of its own */
    if (c->stage != ENDING) { return; }
    shutdown(c->fd, SHUT_WR);
    c->stage = c->half ? GONE : CLOSING;
    c->deadline = now() + LINGER;
}

static void welcome(server *s) {
    while (s->n < CLIENTS) {
        int fd = accept(s->listener, NULL, NULL);
        if (fd < 0) { return; }
        client *c = calloc(1, sizeof *c);
        if (c == NULL || fcntl(fd, F_SETFL, O_NONBLOCK) != 0) {
            free(c);
            close(fd);
            return;
        }
        c->fd = fd;
        c->deadline = now() + s->timeout;
        s->clients[s->n++] = c;
    }
}

static void release(server *s, client *c) {
    if (c->row > 0) { peft_session_row_remove(s->session, c->row); }
    peft_options_free(c->options);
    drop_text(&c->in), drop_text(&c->out), drop_text(&c->prompt), drop_text(&c->adapter);
    close(c->fd);
    free(c);
}

/* Those who are late, and those who are gone. */
static void sweep(server *s) {
    size_t left = 0;
    double time = now();
    for (size_t i = 0; i < s->n; i++) {
        client *c = s->clients[i];
        if (time > c->deadline && c->stage == READING) {
            refuse(c, 408, "the request was not there in time");
            c->deadline = time + s->timeout;
        } else if (time > c->deadline) {
            c->stage = GONE;
        }
        if (c->row > 0 && c->stage != ROW) { /* one that has ended may be held by the option "hold" */
            peft_session_row_remove(s->session, c->row);
            c->row = 0;
            s->full = 0;
        }
        if (c->stage == GONE) { release(s, c); } else { s->clients[left++] = c; }
    }
    s->n = left;
}

/* ---- the loop ------------------------------------------------------------------------------------------------ */

/* Rows for those who wait, while there is room. Returns how many rows there are. */
static size_t admit(server *s) {
    size_t rows = 0;
    for (size_t i = 0; i < s->n; i++) { rows += s->clients[i]->stage == ROW; }
    for (size_t i = 0; i < s->n && !s->full; i++) {
        client *c = s->clients[i];
        if (c->stage != WAITING) { continue; }
        peft_status status = peft_session_row_add_text(s->session, c->adapter.p != NULL ? c->adapter.p : "", s->tokenizer, c->prompt.p,
                                                       c->prompt.len, c->options, &c->row);
        s->full = status == PEFT_E_BUSY && rows > 0;
        if (s->full) { break; }
        if (status != PEFT_OK) {
            refuse_status(c, status);
            continue;
        }
        c->stage = ROW;
        put_head(&c->out, 200);
        put_c(&c->out, "Content-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n");
        rows++;
    }
    return rows;
}

static void wait_for(server *s, int busy) {
    struct pollfd polled[CLIENTS + 2] = {{.fd = wake[0], .events = POLLIN}, {.fd = s->listener, .events = s->n < CLIENTS ? POLLIN : 0}};
    size_t n = s->n;
    for (size_t i = 0; i < n; i++) {
        const client *c = s->clients[i];
        polled[i + 2].fd = c->fd;
        polled[i + 2].events = (short)((c->half ? 0 : POLLIN) | (c->out.len > c->sent ? POLLOUT : 0));
    }
    if (poll(polled, (nfds_t)n + 2, busy ? 0 : n > 0 ? 50 : -1) <= 0) { return; }
    for (size_t i = 0; i < n; i++) {
        client *c = s->clients[i];
        if (polled[i + 2].revents & POLLIN) { receive(s, c); }
        else if (polled[i + 2].revents & (POLLERR | POLLHUP | POLLNVAL)) { c->stage = GONE; }
    }
    if (polled[1].revents & POLLIN) { welcome(s); }
}

static void serve(server *s) {
    size_t rows = 0;
    while (!stopped) {
        wait_for(s, rows > 0);
        sweep(s);
        rows = admit(s);
        peft_status status = rows > 0 ? peft_session_rows_next(s->session, on_row, s, NULL) : PEFT_OK;
        for (size_t i = 0; i < s->n; i++) {
            client *c = s->clients[i];
            if (c->stage == ROW && status != PEFT_OK && status != PEFT_E_CANCELLED) { end_row(c, peft_last_error()); }
            transmit(s, c);
        }
        sweep(s);
    }
    for (size_t i = 0; i < s->n; i++) {
        client *c = s->clients[i];
        if (c->stage == ROW) { end_row(c, "the server stops"); }
        if (c->stage == WAITING || c->stage == READING) { refuse(c, 503, "the server stops"); }
        transmit(s, c);
        release(s, c);
    }
}

/* The port, or -1. */
static int listen_on(server *s, int port) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof address;
    int on = 1;
    s->listener = socket(AF_INET, SOCK_STREAM, 0);
    if (s->listener < 0 || setsockopt(s->listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) != 0 ||
        bind(s->listener, (const struct sockaddr *)&address, len) != 0 || listen(s->listener, 128) != 0 ||
        fcntl(s->listener, F_SETFL, O_NONBLOCK) != 0 || getsockname(s->listener, (struct sockaddr *)&address, &len) != 0) {
        fprintf(stderr, "serve: port %d of 127.0.0.1: %s\n", port, strerror(errno));
        return -1;
    }
    return ntohs(address.sin_port);
}

/* ---- the program --------------------------------------------------------------------------------------------- */

typedef struct settings {
    const char *model, *adapters[64]; /* NAME=PATH */
    int64_t port, threads, max_length, timeout;
    int n;
} settings;

static int read_settings(settings *to, int argc, char **argv) {
    static const char *const names[] = {"--port", "--threads", "--max-length", "--timeout"};
    static const int64_t most[] = {65535, 1024, 1 << 20, 86400};
    int64_t *const values[] = {&to->port, &to->threads, &to->max_length, &to->timeout};
    for (int i = 1; i < argc; i += 2) {
        const char *value = i + 1 < argc ? argv[i + 1] : "";
        size_t k = 0;
        char *end = NULL;
        if (strcmp(argv[i], "--model") == 0 && *value != '\0') {
            to->model = value;
            continue;
        }
        if (strcmp(argv[i], "--adapter") == 0 && to->n < 64 && strchr(value, '=') != NULL) {
            to->adapters[to->n++] = value;
            continue;
        }
        while (k < 4 && strcmp(argv[i], names[k]) != 0) { k++; }
        if (k == 4) { return 0; }
        *values[k] = strtol(value, &end, 10);
        if (end == value || *end != '\0' || *values[k] < (k == 3) || *values[k] > most[k]) { return 0; }
    }
    return to->model != NULL;
}

static peft_status open_all(server *s, const settings *with) {
    peft_status status;
    peft_options *o = NULL;
    text name = {0};
    TRY(peft_context_create(NULL, &s->ctx));
    TRY(peft_context_set_threads(s->ctx, (int32_t)with->threads));
    TRY(peft_model_open(s->ctx, with->model, NULL, &s->model));
    TRY(peft_tokenizer_open(s->ctx, with->model, &s->tokenizer));
    TRY(peft_adapters_create(s->model, &s->adapters));
    for (int i = 0; i < with->n; i++) {
        const char *path = strchr(with->adapters[i], '=') + 1;
        name.len = 0;
        put(&name, with->adapters[i], (size_t)(path - 1 - with->adapters[i]));
        TRY(name.broken ? PEFT_E_NOMEM : load(s, name.p, path));
    }
    TRY(peft_options_create(s->ctx, "session", &o));
    TRY(peft_options_set_int(o, "max_length", with->max_length));
    TRY(peft_session_create(s->model, s->adapters, NULL, o, &s->session));
    atomic_store(&running, s->session);
out:
    drop_text(&name);
    peft_options_free(o);
    return status;
}

int main(int argc, char **argv) {
    settings with = {.port = 8080, .timeout = 10};
    server s = {.listener = -1};
    struct sigaction act = {.sa_handler = on_signal};
    int port = -1;
    if (!read_settings(&with, argc, argv)) {
        fprintf(stderr, "usage: serve --model PATH [--adapter NAME=PATH]... [--port N] [--threads N] [--max-length N]\n"
                        "             [--timeout SECONDS]\n");
        return 2;
    }
    s.timeout = (double)with.timeout;
    if (pipe(wake) != 0 || fcntl(wake[0], F_SETFL, O_NONBLOCK) != 0 || fcntl(wake[1], F_SETFL, O_NONBLOCK) != 0) { return 1; }
    sigaction(SIGTERM, &act, NULL), sigaction(SIGINT, &act, NULL);
    signal(SIGPIPE, SIG_IGN);
    if (open_all(&s, &with) != PEFT_OK) {
        fprintf(stderr, "serve: %s\n", peft_last_error());
    } else if ((port = listen_on(&s, (int)with.port)) >= 0) {
        printf("serving on http://127.0.0.1:%d\n", port);
        fflush(stdout);
        serve(&s);
    }
    atomic_store(&running, NULL);
    peft_session_free(s.session), peft_adapters_free(s.adapters), peft_tokenizer_free(s.tokenizer);
    peft_model_free(s.model), peft_context_free(s.ctx);
    if (s.listener >= 0) { close(s.listener); }
    close(wake[0]), close(wake[1]);
    return port < 0;
}
