#!/usr/bin/env python3
"""Trains a byte-level BPE tokenizer and writes tokenizer.json and tokenizer_config.json.

Usage: tools/train_tokenizer.py --out FOLDER [--size 4096] [--digits] [--key NAME ...] FILE ...

FILE: plain text, or JSON Lines (*.jsonl), of which all texts are taken, or those of the given keys.
Tokens 0, 1, 2 are <|endoftext|> (BOS and EOS of texts), <|im_start|> and <|im_end|> (which ends a chat turn and is EOS);
the chat template is ChatML. Words are split by GPT-2's rule, with --digits each digit by itself before it, as in SmolLM.
Needs the PyPI package "tokenizers". The same files give the same tokenizer.
"""
import argparse
import json
import os

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
CHAT = ("{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}"
        "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}")


def strings(node, keys):
    if isinstance(node, dict):
        for key, value in node.items():
            if isinstance(value, str) and (not keys or key in keys):
                yield value
            elif not isinstance(value, str):
                yield from strings(value, keys)
    elif isinstance(node, list):
        for value in node:
            yield from strings(value, keys)


def texts(paths, keys):
    for path in paths:
        with open(path, encoding="utf-8") as f:
            if path.endswith(".jsonl"):
                for line in f:
                    if line.strip():
                        yield from strings(json.loads(line), keys)
            else:
                yield f.read()


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", required=True, help="folder to write to")
    parser.add_argument("--size", type=int, default=4096, help="tokens, at least 259")
    parser.add_argument("--digits", action="store_true", help="each digit is a word")
    parser.add_argument("--key", action="append", help="key of JSON Lines to take (all texts if none is given)")
    parser.add_argument("files", nargs="+")
    args = parser.parse_args()

    tokenizer = Tokenizer(models.BPE())
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.pre_tokenizer = (pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), byte_level])
                               if args.digits else byte_level)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=args.size, special_tokens=SPECIAL, min_frequency=2, show_progress=False,
                                  initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()))
    tokenizer.train_from_iterator(texts(args.files, args.key), trainer)

    os.makedirs(args.out, exist_ok=True)
    tokenizer.save(os.path.join(args.out, "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": SPECIAL[0], "eos_token": SPECIAL[2],
              "pad_token": SPECIAL[0], "unk_token": SPECIAL[0], "add_bos_token": False, "add_eos_token": False,
              "clean_up_tokenization_spaces": False, "chat_template": CHAT}
    with open(os.path.join(args.out, "tokenizer_config.json"), "w", encoding="utf-8") as f:
        json.dump(config, f, indent=2, ensure_ascii=False)
        f.write("\n")
    print("%d tokens" % tokenizer.get_vocab_size())


if __name__ == "__main__":
    main()
