"""load.py SERVE BASE FOLDER - what examples/serve.c promises; run.sh has built it and trained the adapters in FOLDER.

32 clients at once, each with requests of its own adapters, options and prompts, get token for token what a session of the library
gives to each alone, while others send what is no request, go away in the middle, replace and remove adapters. More requests than the
session has rows wait their turn. A signal ends it all in order, with nothing leaked: the sanitizers say so by the exit code.
Ends with `N passed, N failed`.
"""
import concurrent.futures
import http.client
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import threading
import time

import libpeft

SERVE, BASE, FOLDER = sys.argv[1:4]
CLIENTS, REQUESTS, BURST, TIMEOUT = 32, 6, 120, 2
ADAPTERS = ["lora", "prefix", "bottleneck", "ia3", "other"]
EXPRESSIONS = ["", "lora", "prefix", "bottleneck", "ia3", "0.5 * lora", "lora, ia3", "stack(prefix, bottleneck)", "average(lora, other)"]
PROMPTS = ["name: Calm Stove | kind: bistro | area: lighthouse | dish: plum tart |", "name: Old Mill |", "x",
           "Ahoy! \u00fc\u6587\U0001f600 \"\\\n",
           "name: Sleepy Wagon | kind: cafe | area: castle | dish: plum bread | price: medium | opens: 9 | closes: 18 |",
           "name: Silent Peacock | kind: fish bar | area: lighthouse | dish: onion pancakes | price: high | opens: 6\nSentence:"]
counts, begun = [0, 0], time.monotonic()


def check(good, text):
    counts[0 if good else 1] += 1
    print("%-6s %s  (%.0f s)" % ("ok" if good else "FAIL", text, time.monotonic() - begun), flush=True)
    return good


def place(name):
    return os.path.join(FOLDER, name)


# ---- what is right ---------------------------------------------------------------------------------------------------------

class Reference:
    """Each request alone, by a session of the library."""

    def __init__(self):
        self.adapters = libpeft.Adapters(libpeft.Model.open(BASE))
        for name in ADAPTERS:
            self.adapters.load(name, place(name))
        self.sessions, self.known = {}, {}

    def tokens(self, adapter, prompt, options):
        key = json.dumps([adapter, prompt, options], sort_keys=True)
        if key not in self.known:
            if adapter not in self.sessions:
                self.sessions[adapter] = libpeft.Session(self.adapters, adapter, tokenizer=libpeft.Tokenizer.open(BASE))
            self.known[key] = [(t.id, t.text) for t in self.sessions[adapter].tokens(prompt, **options)]
        return self.known[key]


def plain(tokens):
    """Ids, and the text; broken bytes are some U+FFFD here and there."""
    return [t[0] for t in tokens], re.sub("\ufffd+", "\ufffd", "".join(t[1] for t in tokens))


# ---- clients ---------------------------------------------------------------------------------------------------------------

class Server:
    def __init__(self, *arguments):
        names = [a for n in ADAPTERS for a in ("--adapter", "%s=%s" % (n, place(n)))]
        command = [SERVE, "--model", BASE, "--port", "0", "--threads", "2", "--timeout", str(TIMEOUT), *names, *arguments]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        line = self.process.stdout.readline()
        found = re.fullmatch(r"serving on http://127\.0\.0\.1:(\d+)\n", line)
        if found is None:
            sys.exit("the server does not begin: %r %s" % (line, self.process.stderr.read()))
        self.port = int(found.group(1))

    def ask(self, method, path, body=None):
        """Status and JSON of the answer."""
        c = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            c.request(method, path, body if body is None or isinstance(body, bytes) else json.dumps(body))
            answer = c.getresponse()
            return answer.status, json.loads(answer.read())
        finally:
            c.close()

    def begin(self, adapter, prompt, options):
        """The answer of a row that has begun, and its connection."""
        c = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        c.request("POST", "/generate", json.dumps({"prompt": prompt, "adapter": adapter, **options}))
        return c, c.getresponse()

    def generate(self, adapter, prompt, options):
        """The lines of a row's answer."""
        c, answer = self.begin(adapter, prompt, options)
        try:
            lines = [json.loads(line) for line in answer.read().split(b"\n") if line]
            return lines if answer.status == 200 else [{"status": answer.status, **lines[0]}]
        finally:
            c.close()

    def raw(self, data, pause=0.0):
        """What is answered to bytes; pause: seconds between any two of them."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=60) as s:
            try:
                for i in range(0, len(data), 1 if pause else max(len(data), 1)):
                    s.sendall(data[i:i + 1] if pause else data)
                    time.sleep(pause)
            except OSError:
                pass  # it need not read all of what it refuses
            got = b""
            while True:
                more = s.recv(65536)
                if not more:
                    return got
                got += more

    def stop(self, number):
        """Exit code, and what it said on stderr."""
        self.process.send_signal(number)
        _, said = self.process.communicate(timeout=60)
        return self.process.returncode, said


def right(lines, expected):
    tokens = [(line["id"], line["text"]) for line in lines[:-1] if set(line) == {"id", "text"}]
    return plain(tokens) == plain(expected) and lines[-1] == {"done": True, "tokens": len(expected)} and len(tokens) == len(lines) - 1


def some_request(rng):
    options = {"max_new_tokens": rng.choice([0, 1, 7, 24, 40])}
    if rng.random() < 0.5:
        options.update(temperature=rng.choice([0.7, 1.5]), seed=rng.randrange(1000))
    if rng.random() < 0.3:
        options.update(top_k=20, repetition_penalty=1.2)
    if rng.random() < 0.3:
        options.update(stop=[rng.choice([".", "|", "the"])])
    if rng.random() < 0.5:
        options.update(ignore_eos=True)
    return rng.choice(EXPRESSIONS), rng.choice(PROMPTS), options


# ---- what is no request ----------------------------------------------------------------------------------------------------

def post(body, path="/generate", head=""):
    body = body if isinstance(body, bytes) else body.encode()
    return b"POST %s HTTP/1.1\r\nHost: x\r\n%sContent-Length: %d\r\n\r\n%s" % (path.encode(), head.encode(), len(body), body)


def options_of(text):
    return post('{"prompt":"x",%s}' % text)


BAD = [  # bytes, status, words of the message
    (b"hello\r\n\r\n", 400, "first line"), (b"GET /health\r\n\r\n", 400, "first line"),
    (b"GET  /health HTTP/1.1\r\n\r\n", 400, "first line"),
    (b"GET health HTTP/1.1\r\n\r\n", 400, "first line"), (b"GET /health HTTP/1.0\r\n\r\n", 505, "HTTP/1.1"),
    (b"\0\0\0\0", 400, "NUL"), (b"\xff\xfe\r\n\r\n", 400, "first line"), (b"\r\n\r\n", 400, "first line"),
    (b"GET /health HTTP/1.1\r\nbroken\r\n\r\n", 400, "NAME: VALUE"),
    (b"GET /health HTTP/1.1\r\na: b\r\n folded: c\r\n\r\n", 400, "NAME: VALUE"),
    (b"GET /health HTTP/1.1\r\n: c\r\n\r\n", 400, "NAME: VALUE"), (b"GET /health HTTP/1.1\r\nx: " + b"y" * 9000, 431, "8192"),
    (b"POST /generate HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 400, "Content-Length"),
    (b"POST /generate HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n{}", 400, "Content-Length"),
    (b"POST /generate HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n", 413, "1048576"),
    (b"POST /generate HTTP/1.1\r\nContent-Length: 1048577\r\n\r\n" + b" " * 1048577, 413, "1048576"),
    (b"POST /generate HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 501, "Content-Length"),
    (b"POST /generate HTTP/1.1\r\n\r\n", 400, "JSON"), (b"GET / HTTP/1.1\r\n\r\n", 404, "/generate"),
    (b"GET /generate HTTP/1.1\r\n\r\n", 405, "method"),
    (b"DELETE /adapters HTTP/1.1\r\n\r\n", 405, "method"), (b"DELETE /adapters/absent HTTP/1.1\r\n\r\n", 404, "absent"),
    (b"DELETE /adapters/%6Cor%zz HTTP/1.1\r\n\r\n", 400, "%"), (b"DELETE /adapters/a%4 HTTP/1.1\r\n\r\n", 400, "%"),
    (b"DELETE /adapters/a%00 HTTP/1.1\r\n\r\n", 400, "%"), (b"DELETE /adapters/%61bsent HTTP/1.1\r\n\r\n", 404, "absent"),
    (post(""), 400, "JSON"), (post("[]"), 400, "JSON"), (post("{"), 400, "JSON"), (post('{"prompt":"x"'), 400, "JSON"),
    (post('{"prompt":"x"}}'), 400, "follows"), (post('{"prompt":"x",}'), 400, "JSON"), (post('{"prompt":"x" "a":1}'), 400, "JSON"),
    (post('{"prompt":"\\ud800"}'), 400, "JSON"), (post('{"prompt":"\\u12"}'), 400, "JSON"), (post('{"prompt":"\\q"}'), 400, "JSON"),
    (post('{"prompt":"\n"}'), 400, "JSON"), (post(b'{"prompt":"\xff"}'), 400, "UTF-8"), (post(b'{"prompt":"\xc0\x80"}'), 400, "UTF-8"),
    (post(b'{"prompt":"\xed\xa0\x80"}'), 400, "UTF-8"), (post('{"prompt":7}'), 400, '"prompt" is no string'),
    (post("{}"), 400, '"prompt" is missing'),
    (post('{"prompt":"x","prompt":"y"}'), 400, "comes twice"), (post('{"prompt":"x","adapter":null}'), 400, '"adapter" is no string'),
    (post('{"prompt":"x","adapter":"a\\u0000b"}'), 400, "NUL"), (post('{"prompt":"x","adapter":"nobody"}'), 404, "nobody"),
    (post('{"prompt":"x","adapter":"stack(lora"}'), 400, "stack(lora"),
    (post('{"prompt":"x","adapter":"batch_split(lora:1, ia3:1)"}'), 400, "divides rows"),
    (post('{"prompt":"%s"}' % ("a b " * 5000)), 400, "max_length"), (options_of('"temprature":1'), 400, "temperature"),
    (options_of('"temperature":"hot"'), 400, "temperature"), (options_of('"temperature":-1'), 400, "temperature"),
    (options_of('"max_new_tokens":1.5'), 400, "max_new_tokens"), (options_of('"max_new_tokens":1e'), 400, ""),
    (options_of('"stop":["a"'), 400, "JSON"),
    (options_of('"stop":[1}'), 400, ""), (options_of('"stop":{"a":1}'), 400, "stop"), (options_of('"num_beams":4'), 400, "num_beams"),
    (options_of('"seed":1 2'), 400, ""), (options_of('"x":' + "[" * 5000 + "]" * 5000), 400, ""),
    (post('{"name":"a"}', "/adapters"), 400, '"path"'), (post('{"name":"a","path":"b","c":1}', "/adapters"), 400, '"path"'),
    (post('{"name":"a","path":"/nowhere at all"}', "/adapters"), 404, "nowhere"),
    (post('{"name":"a b(","path":%s}' % json.dumps(place("lora")), "/adapters"), 400, ""),
    (post('{"name":"a\\u0000","path":"b"}', "/adapters"), 400, "NUL"),
    (post('{"name":"a","path":%s}' % json.dumps(BASE), "/adapters"), 400, ""),
]


def bad_requests(server):
    """Those that are not answered as they should be."""
    wrong = []
    for data, status, words in BAD:
        got = server.raw(data)
        head, _, body = got.partition(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 %d " % status) or words not in json.loads(body)["error"]:
            wrong.append("%r: %r" % (data[:100], got[:300]))
    return wrong


# ---- the load --------------------------------------------------------------------------------------------------------------

def until(ended, wrong, act):
    """A thread that acts until all clients are done."""
    def run():
        while not ended.is_set() and len(wrong) < 5:
            try:
                act(wrong)
            except Exception as e:  # it is a failure, not the end of the test
                wrong.append(repr(e))
    thread = threading.Thread(target=run)
    thread.start()
    return thread


def goes_away(server):
    rng = random.Random(5)

    def act(wrong):
        c, answer = server.begin(rng.choice(EXPRESSIONS), PROMPTS[1], {"max_new_tokens": 400, "ignore_eos": True})
        if answer.status != 200 or "id" not in json.loads(answer.readline()):
            wrong.append("status %d" % answer.status)
        c.close()
        answer.close()
        with socket.create_connection(("127.0.0.1", server.port)) as s:  # and one before its answer
            s.sendall(post('{"prompt":"x"}')[:rng.randrange(20, 90)])
    return act


def replaces(server, reference):
    rng, options = random.Random(6), {"max_new_tokens": 12, "ignore_eos": True}
    of = {name: reference.tokens(name, PROMPTS[1], options) for name in ("lora", "other")}

    def act(wrong):
        new = rng.choice(["lora", "other"])
        code, said = server.ask("POST", "/adapters", {"name": "swapped", "path": place(new)})
        if code != 200 or "swapped" not in said["adapters"]:
            wrong.append("replacing: %d %s" % (code, said))
        c, answer = server.begin("swapped", PROMPTS[1], options)  # its row has begun: it keeps what it has
        code, said = server.ask("POST", "/adapters", {"name": "swapped", "path": place("other" if new == "lora" else "lora")})
        lines = [json.loads(line) for line in answer.read().split(b"\n") if line]
        c.close()
        if code != 200 or not right(lines, of[new]):
            wrong.append("a row of an adapter that was replaced: %d %s" % (code, lines[:3]))
    return act


def removes(server, reference):
    options = {"max_new_tokens": 12, "ignore_eos": True}

    def act(wrong):
        codes = [server.ask("POST", "/adapters", {"name": "g\u00f6ne", "path": place("other")})[0]]
        c, answer = server.begin("g\u00f6ne", PROMPTS[2], dict(options, max_new_tokens=300))
        answer.readline()
        codes.append(server.ask("DELETE", "/adapters/g%C3%B6ne")[0])  # in use
        c.close()
        answer.close()
        while True:
            code, _ = server.ask("DELETE", "/adapters/g%C3%B6ne")
            if code != 409:
                break
        codes += [code, server.generate("g\u00f6ne", "x", options)[0].get("status"), server.ask("DELETE", "/adapters/g%C3%B6ne")[0]]
        if codes != [200, 409, 200, 404, 404]:
            wrong.append("removing: %s" % codes)
    return act


def too_slow(server):
    def act(wrong):
        got = server.raw(b"GET /health HTTP/1.1\r\n" + b"x" * 200, 0.1)
        if not got.startswith(b"HTTP/1.1 408 "):
            wrong.append(repr(got))
    return act


def client(server, number):
    """Requests of one client, and their answers."""
    rng, done = random.Random(100 + number), []
    for _ in range(REQUESTS):
        asked = some_request(rng)
        try:
            done.append((asked, server.generate(*asked)))
        except (OSError, http.client.HTTPException) as e:
            done.append((asked, [repr(e)]))
    return done


def load(server, reference):
    ended = threading.Event()
    wrong = {n: [] for n in ("bad requests", "clients that go away", "adapters replaced", "adapters removed", "slow senders")}
    acts = [lambda w: w.extend(bad_requests(server)), goes_away(server), replaces(server, reference), removes(server, reference)]
    acts.append(too_slow(server))
    threads = [until(ended, w, act) for w, act in zip(wrong.values(), acts)]
    with concurrent.futures.ThreadPoolExecutor(CLIENTS) as pool:
        results = list(pool.map(lambda n: client(server, n), range(CLIENTS)))
    ended.set()
    for thread in threads:
        thread.join()
    answers = [a for r in results for a in r]
    bad = [(asked, lines) for asked, lines in answers if not right(lines, reference.tokens(*asked))]
    tokens = sum(len(lines) - 1 for _, lines in answers)
    check(not bad and len(answers) == CLIENTS * REQUESTS, "%d answers of %d tokens are what each is alone%s" % (
        len(answers), tokens, "" if not bad else ", but %d: %s %s" % (len(bad), bad[0][0], bad[0][1][:3])))
    check(len({json.dumps(lines) for _, lines in answers}) > 60, "they are %d different ones" % len({json.dumps(a[1]) for a in answers}))
    for name, w in wrong.items():
        check(not w, "%s meanwhile%s" % (name, "" if not w else ": %d wrong: %s" % (len(w), w[0])))


def burst(server, reference):
    """More requests at once than the session has rows, of more expressions than it can have."""
    options, texts = {"max_new_tokens": 16, "ignore_eos": True}, ["0.%02d * lora" % (i + 10) for i in range(40)]
    sockets, most = [], 0
    for i in range(BURST):
        s = socket.create_connection(("127.0.0.1", server.port), timeout=60)
        s.sendall(post(json.dumps({"prompt": PROMPTS[1], "adapter": texts[i % len(texts)], **options})))
        sockets.append(s)
    waited = server.ask("GET", "/health")[1]
    bad = 0
    for i, s in enumerate(sockets):
        answer = http.client.HTTPResponse(s)
        answer.begin()
        lines = [json.loads(line) for line in answer.read().split(b"\n") if line]
        bad += not right(lines, reference.tokens(texts[i % len(texts)], PROMPTS[1], options))
        s.close()
    check(bad == 0, "%d requests of %d expressions at once%s" % (BURST, len(texts), "" if bad == 0 else ": %d wrong" % bad))
    check(waited["waiting"] > 0 and 0 < waited["rows"] <= 64, "some wait, some have rows: %s" % waited)


def settles(server):
    """Rows of all who have gone are gone."""
    for _ in range(100):
        health = server.ask("GET", "/health")[1]
        if health["rows"] == 0 and health["waiting"] == 0 and health["clients"] == 1:
            break
        time.sleep(0.05)
    check(health == {"status": "ok", "rows": 0, "waiting": 0, "clients": 1}, "nothing is left of them: %s" % health)


def small_things(server, reference):
    check(server.ask("GET", "/adapters") == (200, {"adapters": ADAPTERS + ["swapped"]}), "adapters are listed")
    held = server.generate("lora", PROMPTS[4], {"max_new_tokens": 3, "hold": True})
    check(right(held, reference.tokens("lora", PROMPTS[4], {"max_new_tokens": 3})), "a row that asks to be held gets its answer")
    settles(server)
    check(server.ask("DELETE", "/adapters/swapped")[0] == 200, "an adapter that nobody uses is removed")
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as s:
        body = b'{"prompt":"x","max_new_tokens":1}'
        s.sendall(b"POST /generate HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(body))
        first = s.recv(100)
        s.sendall(body)
        good = first == b"HTTP/1.1 100 Continue\r\n\r\n" and s.recv(100).startswith(b"HTTP/1.1 200 OK\r\n")
        check(good, "a client that asks whether to go on")


def stops(server):
    """In the middle of rows and of a request."""
    half = socket.create_connection(("127.0.0.1", server.port), timeout=20)
    half.sendall(b"POST /gen")
    rows = [server.begin(name, PROMPTS[0], {"max_new_tokens": 400, "ignore_eos": True}) for name in ADAPTERS]
    firsts = [answer.readline() for _, answer in rows]
    code, said = server.stop(signal.SIGTERM)
    lasts = [answer.read().split(b"\n")[-2] for _, answer in rows]
    check(all(b'"id"' in line for line in firsts) and all(json.loads(line) == {"error": "the server stops"} for line in lasts),
          "rows under way are told that the server stops: %s" % lasts[0].decode())
    check(half.recv(100).startswith(b"HTTP/1.1 503 "), "so is a request that is not complete")
    check(code == 0 and said == "", "it ends well, and nothing has leaked: exit code %d %s" % (code, said[-1500:]))
    for connection, _ in rows:
        connection.close()
    half.close()


def begins():
    """What cannot be begun with."""
    def run(*arguments):
        done = subprocess.run([SERVE, *arguments], capture_output=True, text=True, timeout=60)
        return done.returncode, done.stderr
    wrong = [[], ["--model", BASE, "--port", "x"], ["--model", BASE, "--adapter", "a"], ["--model", BASE, "--timeout", "0"], ["--model"]]
    check(all(run(*arguments)[0] == 2 for arguments in wrong), "settings that cannot be")
    code, said = run("--model", place("absent"))
    check(code == 1 and "absent" in said, "a model that is not there: %s" % said.strip())
    code, said = run("--model", BASE, "--adapter", "x=" + place("absent"))
    check(code == 1 and "absent" in said, "an adapter that is not there: %s" % said.strip())
    server = Server()
    code, said = run("--model", BASE, "--port", str(server.port))
    check(code == 1 and str(server.port) in said, "a port that is taken: %s" % said.strip())
    check(server.stop(signal.SIGINT) == (0, ""), "a server that nobody asked anything ends at SIGINT")


def main():
    reference = Reference()
    begins()
    server = Server()
    wrong = bad_requests(server)
    check(not wrong, "%d bad requests are answered with what is wrong%s" % (len(BAD), "".join("\n       not " + w for w in wrong)))
    settles(server)
    try:
        load(server, reference)
        settles(server)
        burst(server, reference)
        small_things(server, reference)
        stops(server)
    except (OSError, http.client.HTTPException, ValueError) as e:
        server.process.kill()
        check(False, "the server has gone: %r %s" % (e, server.process.communicate()[1][:4000]))
    print("%d passed, %d failed" % tuple(counts))
    return counts[1] > 0


if __name__ == "__main__":
    sys.exit(main())
