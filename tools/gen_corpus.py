#!/usr/bin/env python3
"""Writes the text that the demo's base model is trained on, as JSON Lines of {"text"} (some {"messages"}).

Usage: tools/gen_corpus.py --out FILE.jsonl [--documents N] [--seed N] [--data FOLDER --split train|dev] [--outside BYTES]

Plain English of the project's own making: records of places, people, animals, trains, weather and so on, in several layouts,
with sentences and questions about them. The inventories are large and random, so that what is learnt is to copy the facts
from the record, not to know them. With --data, pieces of five public sets are mixed in, up to BYTES each. Needs the standard
library only; the same arguments give the same bytes.
"""
import argparse
import json
import os
import random

import gen_words as w

COLOURS = "red blue green yellow black white brown grey pink purple orange silver".split()
ANIMALS = """cat dog horse goat duck hen sheep cow pig donkey parrot rabbit turtle otter badger fox owl swan goose hamster lizard
snake pony mouse crow""".split()
FOODS = "apples bread carrots cheese corn fish grass hay leaves meat nuts oats rice seeds worms".split()
SLEEPS = "a barn|a basket|a box|a cage|the garden|the kitchen|the shed|a stable|the attic|the hall|a hollow tree|straw".split("|")
JOBS = """baker|barber|builder|carpenter|cook|dentist|doctor|driver|farmer|fisher|gardener|guard|judge|miller|nurse|painter|pilot|
plumber|potter|sailor|singer|smith|tailor|teacher|waiter|weaver""".replace("\n", "").split("|")
THINGS = """bag|ball|bell|belt|bicycle|book|boot|bottle|bowl|box|brush|bucket|cap|chair|clock|coat|comb|cup|drum|fork|glove|
guitar|hammer|hat|jacket|jug|kettle|key|kite|knife|ladder|lamp|letter|map|mirror|mug|pan|pen|pencil|phone|plate|purse|radio|ring|
rope|scarf|shirt|shoe|spoon|stool|sweater|ticket|towel|toy|umbrella|violin|wallet|watch|whistle""".replace("\n", "").split("|")
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
MONTHS = "January February March April May June July August September October November December".split()
SKIES = ["sunny", "cloudy", "rainy", "windy", "foggy", "snowy", "stormy", "clear", "dry", "icy"]
HOBBIES = """chess|dancing|drawing|fishing|gardening|music|painting|reading|riding|rowing|running|sailing|sewing|singing|skating|
swimming|tennis|walking|writing""".replace("\n", "").split("|")
GENRES = ["comedy", "crime story", "fairy tale", "history", "love story", "play", "poem", "travel book"]
OPPOSITES = """hot cold|big small|old new|fast slow|high low|light dark|open closed|long short|wet dry|full empty|early late|rich
poor|happy sad|loud quiet|hard soft|near far|clean dirty|up down|left right|day night""".replace("\n", " ").split("|")
IS_A = {"animal": ANIMALS, "colour": COLOURS, "day of the week": DAYS, "month": MONTHS, "job": JOBS, "thing": THINGS}

# Each kind of record: how it is made, the sentences that tell it (any prefix order is fine, all facts are in them), and
# questions with their answers. In braces are fields.


def place(rng):
    return w.place_record(rng, w.place_name(rng, False) if rng.random() < 0.8 else "The " + w.town(rng))


def someone(rng):
    return {"name": w.person(rng), "age": str(rng.randint(5, 90)), "job": rng.choice(JOBS), "town": w.town(rng),
            "likes": rng.choice(HOBBIES), "pet": rng.choice(ANIMALS)}


def animal(rng):
    return {"name": rng.choice(w.FIRST + w.NOUNS), "kind": rng.choice(ANIMALS), "colour": rng.choice(COLOURS),
            "age": str(rng.randint(1, 20)), "eats": rng.choice(FOODS), "sleeps in": rng.choice(SLEEPS), "owner": w.person(rng)}


def train(rng):
    return {"train": str(rng.randint(10, 999)), "from": w.town(rng), "to": w.town(rng), "leaves": clock(rng),
            "platform": str(rng.randint(1, 12)), "day": rng.choice(DAYS)}


def weather(rng):
    low = rng.randint(-9, 25)
    return {"town": w.town(rng), "day": rng.choice(DAYS), "morning": rng.choice(SKIES), "evening": rng.choice(SKIES),
            "low": str(low), "high": str(low + rng.randint(2, 12))}


def lost(rng):
    return {"item": rng.choice(THINGS), "colour": rng.choice(COLOURS), "found in": rng.choice(w.AREAS), "day": rng.choice(DAYS),
            "finder": w.person(rng)}


def stock(rng):
    return {"item": rng.choice(THINGS), "colour": rng.choice(COLOURS), "price": str(rng.randint(2, 99)),
            "count": str(rng.randint(1, 60)), "shelf": rng.choice("ABCDEFGH") + str(rng.randint(1, 30))}


def book(rng):
    title = rng.choice(["The %s %s" % (rng.choice(w.ADJECTIVES), rng.choice(w.NOUNS)), "A %s in %s" % (rng.choice(w.NOUNS), w.town(rng)),
                        "The %s of %s" % (rng.choice(w.NOUNS), w.town(rng))])
    if w.reserved(title[4:]):
        title = "The Road to " + w.town(rng)
    return {"title": title, "author": w.person(rng), "kind": rng.choice(GENRES), "year": str(rng.randint(1900, 2025)),
            "pages": str(rng.randint(20, 700))}


def match(rng):
    return {"home": w.town(rng), "away": w.town(rng), "score": "%d:%d" % (rng.randint(0, 6), rng.randint(0, 6)),
            "day": rng.choice(DAYS), "best player": w.person(rng)}


def clock(rng):
    return "%d:%02d" % (rng.randint(5, 22), 5 * rng.randint(0, 11))


RECORDS = [
    (place, 6, [
        "{name} is a {kind} by the {area}. It is known for its {dish}. The prices are {price}. It opens at {opens} and closes at {closes}. Children are {welcome}.",
        "The {kind} by the {area} is called {name}. It serves {dish} at a {price} price. It is open from {opens} to {closes}, and children are {welcome}.",
        "{name} is a {kind} with {price} prices. You find it by the {area}. Try the {dish}. Hours: {opens} to {closes}. Children are {welcome}.",
        "By the {area} there is a {kind}, {name}, which is open from {opens} to {closes}. Its {dish} is good and its prices are {price}. Children are {welcome}."],
     {"kind": ["What kind of place is {name}?", "What is {name}?"], "area": ["Where is {name}?"], "dish": ["What is {name} known for?", "What can you eat at {name}?"],
      "price": ["What are the prices at {name}?"], "opens": ["When does {name} open?"], "closes": ["When does {name} close?"],
      "children": ["May children come to {name}?"], "name": ["What is the {kind} by the {area} called?", "Where can you eat {dish}?"]}),
    (someone, 3, [
        "{name} is a {age} year old {job} from {town}. {name} likes {likes} and has a {pet}.",
        "{name} lives in {town} and works as a {job}. At the age of {age}, {name} still likes {likes}. The pet is a {pet}.",
        "The {job} {name} lives in {town} with a {pet}. {name} is {age} and likes {likes}."],
     {"age": ["How old is {name}?"], "job": ["What is the job of {name}?", "What does {name} do?"], "town": ["Where does {name} live?"],
      "likes": ["What does {name} like?"], "pet": ["What pet does {name} have?"], "name": ["Who lives in {town}?", "Who is the {job}?"]}),
    (animal, 3, [
        "{name} is a {colour} {kind} that belongs to {owner}. It is {age} years old, eats {eats} and sleeps in {sleeps in}.",
        "{owner} has a {kind} called {name}. It is {colour} and {age} years old. It sleeps in {sleeps in} and eats {eats}."],
     {"kind": ["What animal is {name}?"], "colour": ["What colour is {name}?"], "age": ["How old is {name}?"], "eats": ["What does {name} eat?"],
      "sleeps in": ["Where does {name} sleep?"], "owner": ["Who owns {name}?"], "name": ["What is the {kind} called?"]}),
    (train, 2, [
        "Train {train} goes from {from} to {to} on {day}. It leaves at {leaves} from platform {platform}.",
        "On {day}, the train from {from} to {to} leaves at {leaves} from platform {platform}. It has the number {train}."],
     {"from": ["Where does train {train} come from?"], "to": ["Where does train {train} go?"], "leaves": ["When does train {train} leave?"],
      "platform": ["From which platform does train {train} leave?"], "day": ["On which day does train {train} run?"], "train": ["Which train goes to {to}?"]}),
    (weather, 2, [
        "In {town}, {day} begins {morning} and ends {evening}, with {low} to {high} degrees.",
        "The weather in {town} on {day}: a {morning} morning and a {evening} evening. The low is {low} and the high is {high}."],
     {"morning": ["How is the morning in {town}?"], "evening": ["How is the evening in {town}?"], "low": ["How cold is it in {town}?"],
      "high": ["How warm does it get in {town}?"], "day": ["Which day is it?"], "town": ["Which town is it about?"]}),
    (lost, 2, [
        "{finder} found a {colour} {item} by the {found in} on {day}.",
        "On {day}, a {colour} {item} was found by the {found in}. The finder is {finder}."],
     {"item": ["What did {finder} find?"], "colour": ["What colour is the {item}?"], "found in": ["Where was the {item}?"],
      "day": ["When was the {item} found?"], "finder": ["Who found the {item}?"]}),
    (stock, 2, [
        "There are {count} of the {colour} {item} on shelf {shelf}. One costs {price}.",
        "The {colour} {item} costs {price}. You find it on shelf {shelf}, where there are {count} of it."],
     {"price": ["How much is the {item}?", "What does the {item} cost?"], "count": ["How many are there of the {item}?"],
      "shelf": ["On which shelf is the {item}?"], "colour": ["What colour is the {item}?"], "item": ["What is on shelf {shelf}?"]}),
    (book, 2, [
        "{title} is a {kind} by {author}. It came out in {year} and has {pages} pages.",
        "In {year}, {author} wrote {title}, a {kind} of {pages} pages."],
     {"author": ["Who wrote {title}?"], "kind": ["What kind of book is {title}?"], "year": ["When did {title} come out?"],
      "pages": ["How many pages has {title}?"], "title": ["What did {author} write?"]}),
    (match, 1, [
        "{home} played {away} on {day}. The score was {score} and the best player was {best player}.",
        "On {day}, {away} came to {home}. It ended {score}. {best player} was the best player."],
     {"away": ["Who came to {home}?"], "score": ["What was the score?", "How did it end?"], "day": ["When did {home} play?"],
      "best player": ["Who was the best player?"], "home": ["Who played {away}?"]}),
]


def fields(record):
    known = dict(record)
    known["welcome"] = "welcome" if record.get("children") == "yes" else "not welcome"
    return known


def layout(rng, record):
    """A record as it may be written: most often as the demo writes it."""
    items = list(record.items())
    how = rng.random()
    if how < 0.55:
        return w.line(record)
    if how < 0.7:
        rng.shuffle(items)
        return " | ".join("%s: %s" % i for i in items)
    if how < 0.85:
        return "\n".join("%s: %s" % i for i in items)
    if how < 0.93:
        return "; ".join("%s = %s" % i for i in items)
    return json.dumps(record)


def question(rng, record, questions):
    key = rng.choice(list(questions))
    return rng.choice(questions[key]).format(**fields(record)), record[key]


def pick(rng):
    return rng.choices(RECORDS, [weight for _, weight, _, _ in RECORDS])[0]


def told(rng):
    """A record, then its sentence, or first one and then the other."""
    make, _, sentences, _ = pick(rng)
    record = make(rng)
    sentence = rng.choices(sentences, [4, 2, 1, 1][:len(sentences)])[0].format(**fields(record))
    if rng.random() < 0.85:
        return layout(rng, record) + "\nSentence: " + sentence
    return sentence + "\nRecord: " + w.line(record)


def asked(rng):
    """A record or its sentence, then questions about it."""
    make, _, sentences, questions = pick(rng)
    record = make(rng)
    text = layout(rng, record) if rng.random() < 0.6 else rng.choice(sentences).format(**fields(record))
    for _ in range(rng.randint(1, 4)):
        text += "\nQuestion: %s\nAnswer: %s" % question(rng, record, questions)
    return text


def searched(rng):
    """Several records, then questions about one of them."""
    make, _, _, questions = pick(rng)
    records = [make(rng) for _ in range(rng.randint(2, 4))]
    keys = rng.sample(list(records[0])[1:], 2)
    keys = [list(records[0])[0]] + [k for k in records[0] if k in keys]
    known = [k for k in questions if k in keys[1:] and all("{%s}" % keys[0] in q for q in questions[k])]
    text = "\n".join(" | ".join("%s: %s" % (k, r[k]) for k in keys) for r in records)
    for _ in range(rng.randint(1, 3)):
        r = rng.choice(records)
        if known:
            key = rng.choice(known)
            text += "\nQuestion: %s\nAnswer: %s" % (rng.choice(questions[key]).format(**fields(r)), r[key])
        else:
            text += "\nWhich %s has %s %s? %s" % (keys[0], keys[1], r[keys[1]], r[keys[0]])
    return text


def talk(rng):
    """The same as asked(), as a conversation."""
    make, _, sentences, questions = pick(rng)
    record = make(rng)
    text = rng.choice([layout(rng, record), rng.choice(sentences).format(**fields(record))])
    turns = []
    for _ in range(rng.randint(1, 2)):
        ask, answer = question(rng, record, questions)
        turns.append({"role": "user", "content": (text + "\n" if not turns else "") + ask})
        turns.append({"role": "assistant", "content": answer[0].upper() + answer[1:] + "."})
    return {"messages": turns}


def story(rng):
    """A few sentences about people who have, give and lose things, then a question or none."""
    people = rng.sample(w.FIRST, rng.randint(2, 3))
    things = [(rng.choice(COLOURS), t) for t in rng.sample(THINGS, len(people))]
    where = rng.choice(w.AREAS)
    text = "%s met by the %s on %s. It was a %s day. " % (" and ".join(people) if len(people) == 2 else "%s, %s and %s" % tuple(people),
                                                        where, rng.choice(DAYS), rng.choice(SKIES))
    for p, (colour, thing) in zip(people, things):
        text += rng.choice(["%s had a %s %s. ", "%s brought a %s %s. ", "%s came with a %s %s. "]) % (p, colour, thing)
    owner = list(people)
    if rng.random() < 0.6:
        i, j = rng.sample(range(len(people)), 2)
        text += "%s gave the %s to %s. " % (people[i], things[i][1], people[j])
        owner[i] = people[j]
    text += rng.choice(["Then they went to the %s.", "After that they walked to the %s.", "At last they had tea by the %s."]) % rng.choice(w.AREAS)
    i = rng.randrange(len(people))
    return text + rng.choice(["", "\nQuestion: Who has the %s?\nAnswer: %s" % (things[i][1], owner[i]),
                              "\nQuestion: What colour is the %s?\nAnswer: %s" % (things[i][1], things[i][0]),
                              "\nQuestion: Where did they meet?\nAnswer: %s" % where])


def simple(rng):
    """Small facts: kinds, opposites, neighbours, lists."""
    how = rng.randrange(4)
    if how == 0:
        kind = rng.choice(list(IS_A))
        thing = rng.choice(IS_A[kind])
        return "%s is %s %s." % (thing.capitalize(), "an" if kind[0] in "aeiou" else "a", kind)
    if how == 1:
        a, b = rng.choice(OPPOSITES).split()
        return "The opposite of %s is %s. The opposite of %s is %s." % (a, b, b, a)
    if how == 2:
        i, row = rng.randrange(1, 6), rng.choice([DAYS, MONTHS])
        return "After %s comes %s. Before %s comes %s." % (row[i], row[i + 1], row[i], row[i - 1])
    items = some_items(rng, rng.randint(3, 6))
    return "List: %s\nLast: %s\nFirst: %s\nCount: %d" % (", ".join(items), items[-1], items[0], len(items))


def some_items(rng, count):
    return [rng.choice([w.town(rng), w.place_name(rng, False), w.person(rng), w.dish(rng), rng.choice(THINGS), rng.choice(w.AREAS),
                        str(rng.randint(0, 9999)), str(rng.randint(0, 23))]) for _ in range(count)]


def copied(rng):
    """Things to say again: what a model learns to copy from, before all else."""
    items, how = some_items(rng, rng.randint(2, 7)), rng.random()
    if how < 0.4:
        return "List: %s\nAgain: %s" % (", ".join(items), ", ".join(items))
    keys = rng.sample(THINGS, len(items))
    order = rng.sample(range(len(items)), len(items))
    if how < 0.7:
        return "\n".join("%s: %s" % i for i in zip(keys, items)) + "\n" + "\n".join("%s? %s" % (keys[i], items[i]) for i in order)
    return " | ".join("%s: %s" % i for i in zip(keys, items)) + "\n" + " ".join(
        "The %s is %s." % (keys[i], items[i]) for i in order)


MAKERS = [(told, 9), (asked, 5), (copied, 6), (searched, 2), (talk, 1), (story, 1), (simple, 1)]


def own(rng, count):
    for _ in range(count):
        made = rng.choices([m for m, _ in MAKERS], [n for _, n in MAKERS])[0](rng)
        yield made if isinstance(made, dict) else {"text": made}


# ---- public sets ----------------------------------------------------------------------------------------------------------


def rows_of(folder, name, split):
    with open(os.path.join(folder, name, split + ".jsonl"), encoding="utf-8") as f:
        return [json.loads(row) for row in f]


def outside_texts(folder, split):
    """Name and texts of each set. Their licences: public domain, CC0, MIT, MIT, Apache-2.0."""
    with open(os.path.join(folder, "tinyshakespeare", split + ".txt"), encoding="utf-8") as f:
        speeches = f.read().strip().split("\n\n")
    yield "tinyshakespeare", ["\n\n".join(speeches[i:i + 3]) for i in range(0, len(speeches), 3)]
    yield "clothing-reviews", [(r["title"] + "\n" + r["text"]).strip() for r in rows_of(folder, "clothing-reviews", split)]
    yield "app-reviews", [r["text"] for r in rows_of(folder, "app-reviews", split) if r["lang"] == "en"]
    yield "pubmed-roles", [r["text"] for r in rows_of(folder, "pubmed-roles", split)]
    yield "scitldr", [r["source"] + "\nIn short: " + r["targets"][0] for r in rows_of(folder, "scitldr", split)]


def outside(rng, folder, split, limit):
    for _, texts in outside_texts(folder, split):
        rng.shuffle(texts)
        size = 0
        for text in texts:
            if size + len(text) > limit:
                break
            size += len(text)
            yield {"text": text}


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--out", required=True, help="file to write")
    p.add_argument("--documents", type=int, default=60000, help="how many of the project's own")
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--data", help="folder of the public sets")
    p.add_argument("--split", default="train", choices=["train", "dev"])
    p.add_argument("--outside", type=int, default=400000, help="characters of each public set")
    a = p.parse_args()
    rng = random.Random(a.seed)
    docs = list(own(rng, a.documents))
    if a.data:
        docs += outside(rng, a.data, a.split, a.outside)
    rng.shuffle(docs)
    with open(a.out, "w", encoding="utf-8") as f:
        for d in docs:
            f.write(json.dumps(d, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
