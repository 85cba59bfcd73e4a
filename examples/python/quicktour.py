"""quicktour.py [MODEL [DATA [HELD_OUT [FOLDER]]]] - from a base to an adapter in a folder and an answer from it.

Above each step, in a comment, what the quick tour of Hugging Face PEFT does there. MODEL: a Hugging Face folder or a GGUF file;
DATA, HELD_OUT: JSON Lines; by default those of the demo.
"""
import sys
from pathlib import Path

import libpeft

DEMO = Path(__file__).resolve().parent.parent / "demo"


def main(base: str, data: str, held_out: str, folder: str) -> None:
    # model = AutoModelForCausalLM.from_pretrained(base); tokenizer = AutoTokenizer.from_pretrained(base)
    model = libpeft.Model.open(base)

    # config = LoraConfig(task_type=TaskType.CAUSAL_LM, r=8, lora_alpha=16, target_modules="all-linear")
    # peft_model = get_peft_model(model, config)
    adapters = model.adapters()
    adapter = adapters.add("pirate", "lora", r=8, lora_alpha=16, target_modules="all-linear")

    # peft_model.print_trainable_parameters()
    print("%d parameters, of which %d are trained" % (model.info()["parameters"] + adapter.parameters, adapter.parameters))

    # args = TrainingArguments(learning_rate=1e-2, per_device_train_batch_size=8, max_steps=60, ...)
    # trainer = Trainer(model=peft_model, args=args, train_dataset=tokenized["train"], eval_dataset=tokenized["test"], ...)
    trainer = libpeft.Trainer(adapter, data, learning_rate=1e-2, batch_size=8, max_steps=60, seed=1)

    # libpeft says beforehand what the run will need
    print("memory: at most %.0f MiB" % (trainer.plan()["peak_bytes"] / 2**20))

    # trainer.train(); and if the steps are to be looked at, a TrainerCallback
    for step in trainer:
        if step.step % 20 == 0:
            print("step %d of %d: loss %.3f" % (step.step, step.max_steps, step.loss))

    # trainer.evaluate()
    print("held-out loss: %.3f" % trainer.evaluate(held_out).loss)

    # peft_model.save_pretrained(folder)
    adapter.save(folder)

    # peft_model = PeftModel.from_pretrained(model, folder)
    again = model.adapters()
    again.load("pirate", folder)

    # inputs = tokenizer(prompt, return_tensors="pt")
    # tokenizer.decode(peft_model.generate(**inputs, max_new_tokens=80, do_sample=False)[0])
    prompt = "name: Noble Heron | kind: bakery | area: church | dish: rice stew | price: low | opens: 9 | closes: 15 " \
             "| children: yes\nSentence:"
    print(libpeft.Session(again, "pirate").generate(prompt, max_new_tokens=80, temperature=0).strip())


if __name__ == "__main__":
    given = sys.argv[1:]
    defaults = [str(DEMO / "base" / "model.gguf"), str(DEMO / "train.jsonl"), str(DEMO / "heldout.jsonl"), "pirate"]
    main(*(given + defaults[len(given):]))
