#!/bin/sh
# train_base.sh - makes examples/demo/base/model.gguf anew: corpus, tokenizer, random weights, full fine-tuning, GGUF.
# PEFT is the tool and BUILD the build folder, as `make base` sets them. PEFT_TESTDATA holds the public sets in data/ (by
# default ../shared beside the project; without them the base is trained on the project's own text alone, which is said).
# PYTHON must have the package "tokenizers". Everything but the result goes to BUILD/base; an interrupted run goes on from
# where it was saved last.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
build=${BUILD:-$root/build} peft=${PEFT:-$root/build/peft} python=${PYTHON:-python3}
data=${PEFT_TESTDATA:-$root/../shared}/data work=$build/base target=$root/examples/demo/base
mkdir -p "$work" "$target"

"$python" -c 'import tokenizers' 2> /dev/null || {
    echo "train_base: $python has no package \"tokenizers\"; say which Python has it, as in: make base PYTHON=venv/bin/python" >&2
    exit 1
}
# corpus FILE DOCUMENTS SEED SPLIT CHARACTERS: own documents, and so many characters of each public set
corpus() {
    if [ -d "$data" ]; then
        "$python" "$root/tools/gen_corpus.py" --out "$work/$1" --documents "$2" --seed "$3" --data "$data" --split "$4" \
            --outside "$5"
    else
        "$python" "$root/tools/gen_corpus.py" --out "$work/$1" --documents "$2" --seed "$3"
    fi
}
[ -d "$data" ] || echo "train_base: $data does not exist: training on the project's own text alone"

echo "train_base: corpus"
corpus corpus.jsonl 60000 1 train 200000
corpus heldout.jsonl 400 2 dev 15000
if [ ! -e "$work/init/tokenizer.json" ]; then
    echo "train_base: random weights and tokenizer"
    corpus tokens.jsonl 30000 1 train 60000
    "$python" "$root/tools/gen_model.py" --out "$work/init" --seed 1 --vocab 2048 --hidden 192 --layers 4 --heads 6 \
        --kv-heads 2 --intermediate 512 --context 512
    "$python" "$root/tools/train_tokenizer.py" --out "$work/init" --size 2048 --digits --key text --key content \
        "$work/tokens.jsonl"
fi

echo "train_base: training"
resume=
[ -e "$work/model/trainer" ] && resume=--resume
"$peft" train --model "$work/init" --data "$work/corpus.jsonl" --eval "$work/heldout.jsonl" --method full \
    --out "$work/model" --json-log "$work/log.jsonl" --seed 42 $resume \
    --set max_length=512 --set batch_size=16 --set max_steps=2000 --set learning_rate=1.2e-3 \
    --set lr_scheduler_type=cosine --set lr_min_ratio=0.05 --set warmup_steps=20 --set adam_beta2=0.98 \
    --set weight_decay=0.01 --set eval_steps=200 --set save_steps=200

echo "train_base: $target/model.gguf"
"$peft" merge --model "$work/model" --out "$target/model.gguf" --set dtype=q8_0
"$peft" eval --model "$target/model.gguf" --data "$work/heldout.jsonl" --set max_length=512
