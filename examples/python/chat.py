"""chat.py [--model MODEL] [--adapter FOLDER] [--plain] - talks with a model; its words come as they are chosen.

With --plain a line is continued as it is; otherwise the conversation is written in the model's chat format. An empty line or the
end of the input ends it; Ctrl-C ends an answer.
"""
import argparse
import sys
from pathlib import Path
from typing import Dict, List

import libpeft

BASE = Path(__file__).resolve().parent.parent / "demo" / "base" / "model.gguf"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Talks with a model.")
    parser.add_argument("--model", default=str(BASE), help="a Hugging Face folder or a GGUF file")
    parser.add_argument("--adapter", help="a folder with an adapter")
    parser.add_argument("--plain", action="store_true", help="without the chat format")
    parser.add_argument("--temperature", type=float, default=0.7)
    parser.add_argument("--max-new-tokens", type=int, default=200)
    return parser.parse_args()


def open_session(model: libpeft.Model, adapter: str) -> libpeft.Session:
    if not adapter:
        return model.session()
    adapters = model.adapters()
    adapters.load("chat", adapter)
    return libpeft.Session(adapters, "chat")


def main() -> None:
    given = arguments()
    session = open_session(libpeft.Model.open(given.model), given.adapter)
    said: List[Dict[str, str]] = []
    for line in iter(lambda: sys.stdin.readline().rstrip("\n"), ""):
        said.append({"role": "user", "content": line})
        prompt = line if given.plain else session.tokenizer.chat(said)
        answer = ""
        try:
            for piece in session.stream(prompt, max_new_tokens=given.max_new_tokens, temperature=given.temperature):
                print(piece, end="", flush=True)
                answer += piece
        except KeyboardInterrupt:
            pass
        except libpeft.ShapeError as error:  # the conversation is longer than the model reads
            print(error, end="")
        print()
        said.append({"role": "assistant", "content": answer})


if __name__ == "__main__":
    main()
