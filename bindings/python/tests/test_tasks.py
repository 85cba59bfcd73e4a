"""Tasks other than the next token: labels of texts, embeddings, their measures; with a tokenizer of eight words."""
import json
import math

import pytest

import libpeft

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good", "bad", "day", "night"]
BERT = {
    "model_type": "bert", "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24,
    "vocab_size": len(WORDS), "max_position_embeddings": 32, "type_vocab_size": 2, "hidden_act": "gelu",
}
ROWS = [{"text": "%s %s" % (a, b), "label": a} for a in ("good", "bad") for b in ("day", "night", "day night")]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    place = tmp_path_factory.mktemp("words")
    special = [("[CLS]", 2), ("[SEP]", 3)]
    (place / "tokenizer.json").write_text(json.dumps({
        "version": "1.0", "truncation": None, "padding": None,
        "added_tokens": [{"id": i, "content": word, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
                          "special": True} for i, word in enumerate(WORDS[:5])],
        "normalizer": {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True, "strip_accents": None,
                       "lowercase": True},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "[CLS]", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
                       {"SpecialToken": {"id": "[SEP]", "type_id": 0}}],
            "pair": [{"SpecialToken": {"id": "[CLS]", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
                     {"SpecialToken": {"id": "[SEP]", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}},
                     {"SpecialToken": {"id": "[SEP]", "type_id": 1}}],
            "special_tokens": {w: {"id": w, "ids": [i], "tokens": [w]} for w, i in special}},
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
        "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
                  "max_input_chars_per_word": 100, "vocab": {w: i for i, w in enumerate(WORDS)}}}))
    return libpeft.Tokenizer.open(str(place))


def bert(tokenizer, head, **more):
    model = libpeft.Model.random(dict(BERT, architectures=["Bert" + head], **more), seed=3)
    model.tokenizer = tokenizer
    return model


def test_labels_are_learnt_and_told(tokenizer, tmp_path):
    model = bert(tokenizer, "ForSequenceClassification", id2label={"0": "bad", "1": "good"})
    assert model.task == "sequence_classification" and model.labels == ["bad", "good"]
    adapters = model.adapters()
    adapters.add("a", "lora", r=4, target_modules=["query", "value"])
    trainer = libpeft.Trainer(adapters, ROWS, eval=ROWS, max_steps=120, batch_size=6, learning_rate=0.03)
    steps = trainer.run()
    found = trainer.evaluate(ROWS)
    assert steps[-1].loss < 0.3 * steps[0].loss and found.accuracy == found.scores["f1_macro"] == 1 and found.tokens == 0
    assert math.isnan(found.perplexity) and found.rows == len(ROWS)
    session = libpeft.Session(adapters["a"])
    told = session.classify(["good night", "bad day"])
    pair = session.classify([("bad", "day")])
    assert abs(sum(pair[0].values()) - 1) < 1e-6 and pair[0] != told[1]
    assert [max(t, key=t.get) for t in told] == ["good", "bad"] and all(abs(sum(t.values()) - 1) < 1e-6 for t in told)
    logits = session.outputs([{"text": "good night", "label": None}]).tolist()[0]
    assert abs(told[0]["good"] - 1 / (1 + math.exp(logits[0] - logits[1]))) < 1e-6
    assert session.classify([]) == [] and session.evaluate(ROWS).accuracy == 1
    adapters["a"].save(str(tmp_path / "a"))
    config = json.loads((tmp_path / "a" / "adapter_config.json").read_text())
    assert config["task_type"] == "SEQ_CLS" and config["modules_to_save"] == ["classifier"]
    again = bert(tokenizer, "ForSequenceClassification", id2label={"0": "bad", "1": "good"}).adapters()
    again.load("a", str(tmp_path / "a"))
    assert libpeft.Session(again["a"]).classify(["good night"]) == told[:1]
    other = bert(tokenizer, "ForSequenceClassification", id2label={"0": "good", "1": "bad"}).adapters()
    with pytest.raises(libpeft.InvalidError, match='label 0 of the adapter is "bad", and that of this model "good"'):
        other.load("a", str(tmp_path / "a"))


def test_texts_become_vectors(tokenizer):
    model = bert(tokenizer, "Model")
    assert model.task == "embedding" and model.labels == []
    session = libpeft.Session(model)
    found = session.embed(["good day", "bad night", "good day"]).tolist()
    assert len(found) == 3 and len(found[0]) == 16 and found[0] == found[2] != found[1]
    assert abs(sum(x * x for x in found[0]) - 1) < 1e-5
    with pytest.raises(libpeft.FormatError, match="is one text"):
        session.evaluate([{"text": "good day"}])
    with pytest.raises(libpeft.InvalidError, match="its task is embedding"):
        session.classify(["good day"])


def test_mistakes_are_named(tokenizer):
    model = bert(tokenizer, "ForSequenceClassification", id2label={"0": "bad", "1": "good"})
    adapters = model.adapters()
    adapters.add("a", "lora", r=2)
    with pytest.raises(libpeft.NotFoundError, match='label "fine", which is none of the model\'s: bad, good'):
        libpeft.Trainer(adapters, [{"text": "good", "label": "fine"}])
    with pytest.raises(libpeft.ShapeError, match="has label 2, and the model has labels 0 to 1"):
        libpeft.Trainer(adapters, [{"text": "good", "label": 2}])
    with pytest.raises(libpeft.UnsupportedError, match="see peft_session_logits"):
        libpeft.Session(bert(tokenizer, "ForMaskedLM")).outputs([{"text": "good"}])
