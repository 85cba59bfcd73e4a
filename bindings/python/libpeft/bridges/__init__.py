"""bridges - from and to the libraries that people already have; each is imported when it is first needed.

    from libpeft import bridges
    model = bridges.from_transformers(hf_model, hf_tokenizer)   # transformers: the weights stay where they are
    data = bridges.from_datasets(rows, model.tokenizer, columns={"question": "prompt", "answer": "completion"})
    peft_model = bridges.to_peft(hf_model, adapters, "fr")      # Hugging Face PEFT, with the same logits
    bridges.from_peft(peft_model, adapters, "de")

Folders need none of this: Model.open and Tokenizer.open read what save_pretrained wrote, Adapters.load reads PEFT's folders.
"""
from ._datasets import from_datasets
from ._peft import from_peft, to_peft
from ._transformers import from_tokenizer, from_transformers

__all__ = ["from_datasets", "from_peft", "from_tokenizer", "from_transformers", "to_peft"]
