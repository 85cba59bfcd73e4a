#!/bin/sh
# run.sh [TOOL [MODEL]] - checks the contract of the command-line tool: exit codes, messages, keys of the JSON outputs,
# and that resumed, threaded and merged runs give the same results. TOOL is PEFT_TOOL or build/peft by default. MODEL is a
# small model folder or GGUF file, the demo's base by default; its data is written here, as rows of token ids below 40, so
# that no tokenizer is needed. Prints a line a check, then the totals; the exit code is 1 if a check failed.
set -u
. "$(dirname "$0")/begin.inc"

ok() {
    passed=$((passed + 1))
    echo "ok $1"
}
not_ok() {
    failed=$((failed + 1))
    echo "not ok $1"
    shift
    for line in "$@"; do echo "    $line"; done
}
# check NAME CONDITION...: CONDITION is a command
check() {
    name=$1
    shift
    if "$@"; then ok "$name"; else not_ok "$name" "false: $*" "stderr: $(head -n 3 "$tmp/err" 2>/dev/null)"; fi
}
# run EXPECTED_CODE NAME ARGUMENT...: runs the tool; output in $tmp/out and $tmp/err
run() {
    want=$1 name=$2
    shift 2
    "$tool" "$@" >"$tmp/out" 2>"$tmp/err" </dev/null
    code=$?
    if [ "$code" -eq "$want" ]; then
        ok "$name"
    else
        not_ok "$name" "exit code $code, expected $want: peft $*" "stderr: $(head -n 3 "$tmp/err")"
    fi
}
# error CODE TEXT NAME ARGUMENT...: one line on stderr "peft: ..." that has TEXT, nothing on stdout
error() {
    want=$1 text=$2 name=$3
    shift 3
    "$tool" "$@" >"$tmp/out" 2>"$tmp/err" </dev/null
    code=$?
    if [ "$code" -ne "$want" ]; then
        not_ok "$name" "exit code $code, expected $want: peft $*" "stderr: $(head -n 3 "$tmp/err")"
    elif [ "$(wc -l <"$tmp/err")" -ne 1 ] || ! grep -q '^peft: ' "$tmp/err" || ! grep -qF -e "$text" "$tmp/err"; then
        not_ok "$name" "stderr must be one line 'peft: ...' with '$text': $(head -n 3 "$tmp/err")"
    elif [ -s "$tmp/out" ]; then
        not_ok "$name" "stdout must be empty: $(head -n 3 "$tmp/out")"
    else
        ok "$name"
    fi
}
# keys NAME FILE KEY...: every line of FILE has each key
keys() {
    name=$1 file=$2 missing=
    shift 2
    for key in "$@"; do
        total=$(wc -l <"$file")
        if [ "$total" -eq 0 ] || [ "$(grep -c "\"$key\":" "$file")" -ne "$total" ]; then missing="$missing $key"; fi
    done
    if [ -z "$missing" ]; then ok "$name"; else not_ok "$name" "missing:$missing" "$(head -c 300 "$file")"; fi
}
# number KEY FILE: the number of a key in a one-line object
number() {
    sed -n "s/.*\"$1\": *\\([-+0-9.eE]*\\).*/\\1/p" "$2" | head -n 1
}
near() {
    awk -v a="$1" -v b="$2" -v tolerance="$3" 'BEGIN {
        d = a - b; d = d < 0 ? -d : d; m = a < 0 ? -a : a
        exit !(a != "" && b != "" && d <= tolerance * m)
    }'
}
same_adapter() {
    cmp -s "$1/adapter_model.safetensors" "$2/adapter_model.safetensors" &&
        cmp -s "$1/adapter_config.json" "$2/adapter_config.json"
}
# The log without what depends on the clock and the history of the process.
timeless() {
    sed 's/, "run": {.*}, "loss"/, "loss"/; s/"tokens_per_second": [^,}]*/"tokens_per_second": 0/; s/"peak_bytes": [^,}]*/"peak_bytes": 0/' "$1"
}
same_log() {
    timeless "$1" >"$tmp/log1"
    timeless "$2" >"$tmp/log2"
    cmp -s "$tmp/log1" "$tmp/log2"
}

awk 'BEGIN {
    for (row = 0; row < 12; row++) {
        line = "{\"input_ids\": ["
        for (i = 0; i < 10 + row % 5; i++) line = line (i ? ", " : "") (3 + (row * 7 + i * (1 + row % 3)) % 37)
        print line "]}"
    }
}' >"$tmp/train.jsonl"
head -n 4 "$tmp/train.jsonl" >"$tmp/eval.jsonl"
echo '{"input_ids": [3, 4, 5, 6]}' >"$tmp/prompts.jsonl"
# train OUT MAX_STEPS ARGUMENT...; with launch=exec the calling (sub)shell becomes the tool
launch=
train() {
    out=$1 steps=$2
    shift 2
    $launch "$tool" train --model "$model" --data "$tmp/train.jsonl" --out "$out" --method lora --seed 7 \
        --set "max_steps=$steps" --set batch_size=2 --set max_length=32 --set r=4 --set lora_dropout=0.1 \
        --set target_modules=all-linear --set learning_rate=1e-3 --set lr_scheduler_type=constant "$@" \
        >"$tmp/out" 2>"$tmp/err" </dev/null
}

# ---- Help, version, wrong use --------------------------------------------------------------------------------------
run 0 'help' --help
run 0 'version' --version
check 'version names the tool' grep -q '^peft [0-9]' "$tmp/out"
for command in info check train eval generate merge combine convert plan bench report options; do
    run 0 "help of $command" "$command" --help
    check "help of $command shows its usage" grep -q "^Usage: peft $command" "$tmp/out"
    error 2 '--nonsense' "$command refuses an unknown option" "$command" --nonsense
done
run 2 'no command is wrong use'
error 2 "'trian'" 'an unknown command is named' trian
error 2 'did you mean train' 'the nearest command is named' trian
error 2 'did you mean --model' 'the nearest option is named' eval --modle x
error 2 '--model' 'train needs --model' train --data x --out y
error 2 '--data' 'train needs --data' train --model x --out y
error 2 '--out' 'train needs --out' train --model x --data y
error 2 '--out' 'merge needs --out' merge --model x
error 2 '--to' 'convert needs --to' convert --model x --adapter y --out z
error 2 'gguf' 'an unknown format lists the known' convert --model x --adapter y --out z --to zip
error 2 '--model' 'bench needs --model' bench --seq 8
error 2 '--seq must be a whole number from 8' 'bench names a short row' bench --model x --seq 4
error 2 "not 'ten'" 'bench names what is no number' bench --model x --batch ten
error 2 '--seconds' 'bench names a wrong time' bench --model x --seconds 0.5
error 2 'lorra' 'bench names an unknown method' bench --model x --method lorra
error 2 'learning_rate' 'bench names the nearest key' bench --model x --set learning_rte=1
error 2 '--adapter' 'combine needs --adapter' combine --model x --out y
error 2 'NAME=PATH' 'combine needs names' combine --model x --out y --adapter z
error 2 'magnitude_prune' 'an unknown type lists the known' combine --model x --out y --adapter a=z --type sum
error 2 'PATH' 'info needs a path' info
error 2 '--prompt' 'generate needs a prompt' generate --model x
error 2 '--model needs a value' 'an option without its value' eval --model
error 2 '--resume takes no value' 'a flag with a value' train --resume=yes
error 2 '--set' '--set without =' train --model x --data y --out z --set r
error 2 '--threads' 'threads must be a number' eval --model x --data y --threads many
error 2 'lora' 'an unknown method lists the known' train --model x --data y --out z --method lorra
error 2 'learning_rate' 'an unknown key names the nearest' train --model x --data y --out z --set learning_rte=1
error 2 'lora_dropout' 'a value out of range names its key' train --model x --data y --out z --set lora_dropout=2
error 2 'batch_size' 'a value of the wrong type names its key' train --model x --data y --out z --set batch_size=many
error 2 'nothing' 'an unknown schema is named' options nothing
export PEFT_THREADS=many
error 2 'PEFT_THREADS' 'PEFT_THREADS is checked' eval --model x --data y
unset PEFT_THREADS
export PEFT_ISA=mmx
error 2 'PEFT_ISA' 'PEFT_ISA is checked' eval --model x --data y
unset PEFT_ISA

# ---- options, info ---------------------------------------------------------------------------------------------------
run 0 'options' options
for key in r lora_alpha lora_dropout target_modules learning_rate weight_decay adam_beta1 adam_beta2 adam_epsilon \
    max_grad_norm lr_scheduler_type warmup_steps max_steps num_train_epochs batch_size gradient_accumulation_steps \
    max_length shuffle seed optimizer compute_dtype memory_limit save_steps eval_steps load_best_model_at_end; do
    check "options list $key" grep -q "^  $key " "$tmp/out"
done
run 0 'options of one schema' options trainer
check 'one schema only' sh -c "! grep -q lora_alpha '$tmp/out'"
run 0 'info of a model' info "$model"
run 0 'info --json of a model' info "$model" --json
tr -d '\n' <"$tmp/out" >"$tmp/info" && echo >>"$tmp/info"
keys 'info --json has its keys' "$tmp/info" kind architecture parameters sites
check 'info says model' grep -q '"kind": *"model"' "$tmp/info"
error 1 "$tmp/absent" 'info names a missing file' info "$tmp/absent"
printf 'no model' >"$tmp/bad.gguf"
error 1 'bad.gguf' 'info names a damaged file' info "$tmp/bad.gguf"

# ---- check ---------------------------------------------------------------------------------------------------------------
run 0 'check of a model' check "$model"
check 'check says that there is no error' grep -q ': no errors$' "$tmp/out"
run 0 'check --json of a model' check "$model" --json
keys 'check --json has its keys' "$tmp/out" kind ok error_count errors warning_count warnings checked about
run 0 'check of data' check "$tmp/train.jsonl" --model "$model"
printf '{"input_ids":[1,2]}\n{"input_ids":[1,-2]}\n{"input_ids":3}\n{"input_ids":[1,9999999]}\n' >"$tmp/bad.jsonl"
run 1 'check of bad data' check "$tmp/bad.jsonl" --model "$model"
check 'it names the second line' grep -q '^error: .*bad.jsonl: line 2: .*no token id' "$tmp/out"
check 'and goes on to the third' grep -q '^error: .*bad.jsonl: line 3: .*no array' "$tmp/out"
check 'and knows the vocabulary' grep -q '^error: .*bad.jsonl: line 4: .*9999999 is beyond' "$tmp/out"
check 'and counts them' grep -q '^peft: .*bad.jsonl: 3 errors' "$tmp/err"
run 1 'check lists as many as asked for' check "$tmp/bad.jsonl" --set max_errors=1
check 'and says how many more' grep -q '^error: and 1 more$' "$tmp/out"
run 1 'check of a damaged model' check "$tmp/bad.gguf"
check 'it names the file' grep -q '^error: .*bad.gguf' "$tmp/out"
error 1 "$tmp/absent" 'check names a missing file' check "$tmp/absent"

# ---- train -------------------------------------------------------------------------------------------------------------
error 1 'absent.jsonl' 'train names missing data' \
    train --model "$model" --data "$tmp/absent.jsonl" --out "$tmp/none"
check 'a failed run leaves no folder' test ! -e "$tmp/none"
echo '{"input_ids": [1, 2' >"$tmp/bad.jsonl"
error 1 'bad.jsonl' 'train names bad data' train --model "$model" --data "$tmp/bad.jsonl" --out "$tmp/none"
error 1 'no_such_module' 'a target that matches nothing is named' \
    train --model "$model" --data "$tmp/train.jsonl" --out "$tmp/none" --set target_modules=no_such_module
error 1 "$tmp/train.jsonl" 'OUT that is a file' \
    train --model "$model" --data "$tmp/train.jsonl" --out "$tmp/train.jsonl"
check 'the file is untouched' test "$(wc -l <"$tmp/train.jsonl")" -eq 12
error 1 'trainer' 'resume without a state names the folder' \
    train --model "$model" --data "$tmp/train.jsonl" --out "$tmp/none" --resume
check 'a failed resume leaves no folder' test ! -e "$tmp/none"

check 'train 6 steps' train "$tmp/a" 6 --json-log "$tmp/a.log" --threads 1
check 'progress has no escapes where stderr is a file' sh -c "! grep -q '$(printf '\033')' '$tmp/err'"
check 'progress shows the last step' grep -q '^step 6/6 ' "$tmp/err"
check 'train writes nothing to stdout' test ! -s "$tmp/out"
check 'train writes an adapter' test -s "$tmp/a/adapter_model.safetensors" -a -s "$tmp/a/adapter_config.json"
check 'train writes what resume needs' test -d "$tmp/a/trainer"
check 'the log has a line a step' test "$(wc -l <"$tmp/a.log")" -eq 6
keys 'the log has its keys' "$tmp/a.log" step loss learning_rate grad_norm tokens tokens_per_second peak_bytes
run 0 'info --json of an adapter' info "$tmp/a" --json
tr -d '\n' <"$tmp/out" >"$tmp/info" && echo >>"$tmp/info"
keys 'info --json of an adapter has its keys' "$tmp/info" kind method

run 0 'check of an adapter in its base' check "$tmp/a" --model "$model"
run 0 'check of a checkpoint' check "$tmp/a/trainer"
check 'it says what of' grep -q '^checkpoint: default (lora, adamw, step 6)$' "$tmp/out"

check 'train on two threads' train "$tmp/b" 6 --json-log "$tmp/b.log" --threads 2
check 'two threads give the same adapter' same_adapter "$tmp/a" "$tmp/b"
check 'two threads give the same log' same_log "$tmp/a.log" "$tmp/b.log"

check 'train 3 steps' train "$tmp/c" 3 --json-log "$tmp/c.log"
echo '{"step": 4, "loss": 1}' >>"$tmp/c.log"
printf '{"step": 5, "lo' >>"$tmp/c.log"
check 'resume to 6 steps' train "$tmp/c" 6 --json-log "$tmp/c.log" --resume
check 'a resumed run gives the same adapter' same_adapter "$tmp/a" "$tmp/c"
check 'a resumed run gives the same log' same_log "$tmp/a.log" "$tmp/c.log"

check 'train with held-out rows' train "$tmp/d" 4 --json-log "$tmp/d.log" --eval "$tmp/eval.jsonl" --set eval_steps=2
check 'evaluated steps have eval_loss' test "$(grep -c '"eval_loss":' "$tmp/d.log")" -eq 2
check 'train from an adapter' train "$tmp/e" 2 --init "$tmp/a" --json-log "$tmp/e.log"
if [ -c /dev/full ]; then
    train "$tmp/h" 3 --json-log /dev/full
    check 'a log on a full disk is exit code 1' test $? -eq 1
    check 'a log on a full disk is named' grep -q '/dev/full' "$tmp/err"
fi

# ---- Ctrl-C ------------------------------------------------------------------------------------------------------------
launch=exec
train "$tmp/f" 1000000 --json-log "$tmp/f.log" &
job=$!
launch=
tries=0
while [ "$(cat "$tmp/f.log" 2>/dev/null | wc -l)" -lt 2 ] && [ $tries -lt 300 ]; do
    sleep 0.1
    tries=$((tries + 1))
done
kill -INT "$job"
wait "$job"
code=$?
check 'Ctrl-C exits with 130' test "$code" -eq 130
check 'Ctrl-C saves the adapter' test -s "$tmp/f/adapter_model.safetensors"
check 'Ctrl-C saves the state' test -d "$tmp/f/trainer"
steps=$(($(wc -l <"$tmp/f.log") + 2))
check 'resume after Ctrl-C' train "$tmp/f" "$steps" --json-log "$tmp/f.log" --resume
check 'the same run without Ctrl-C' train "$tmp/g" "$steps" --json-log "$tmp/g.log"
check 'both give the same adapter' same_adapter "$tmp/f" "$tmp/g"
check 'both give the same log' same_log "$tmp/f.log" "$tmp/g.log"

# ---- train --jobs --------------------------------------------------------------------------------------------------------
tail -n 6 "$tmp/train.jsonl" >"$tmp/b.jsonl"
# jobs_file NAME LINE...: a file of --jobs with these lines for its jobs, from line 2 on
jobs_file() {
    file=$tmp/$1.json
    shift
    {
        echo '{"jobs": ['
        printf '%s\n' "$@"
        echo '], "options": {"max_steps": 6, "batch_size": 4, "max_length": 32, "lr_scheduler_type": "constant", "eval_steps": 3}}'
    } >"$file"
}
# together FILE OUT ARGUMENT...
together() {
    file=$1 out=$2
    shift 2
    $launch "$tool" train --model "$model" --jobs "$tmp/$file.json" --out "$out" --seed 7 "$@" >"$tmp/out" 2>"$tmp/err" </dev/null
}
a='{"name": "a", "data": "'$tmp/train.jsonl'", "eval": "'$tmp/eval.jsonl'", "options": {"r": 4, "learning_rate": 1e-2}}'
b='{"name": "b", "method": "pfeiffer", "data": "'$tmp/b.jsonl'", "share": 1, "options": {"learning_rate": 1e-3}}'
jobs_file two "$a," "$b"
check 'train two jobs' together two "$tmp/j1" --json-log "$tmp/j1.log" --threads 1
check 'a table of results, with a head' grep -Eq '^job +method +steps +state +loss +eval loss +parameters +bytes$' "$tmp/out"
check 'one row is that of LoRA' grep -Eq '^a +lora +6 +done +[0-9.]+ +[0-9.]+ +[0-9]+ +[0-9.]+ KiB$' "$tmp/out"
check 'one row is that of the bottleneck' grep -Eq '^b +pfeiffer +6 +done +[0-9.]+ +- +[0-9]+ +[0-9.]+ KiB$' "$tmp/out"
check 'progress names the jobs' sh -c "grep -q '^a  step 6/6 ' '$tmp/err' && grep -q '^b  step 6/6 ' '$tmp/err'"
check 'no escapes where stderr is a file' sh -c "! grep -q '$(printf '\033')' '$tmp/err'"
check 'the log has each job in each step' test "$(grep -c '"job": "a"' "$tmp/j1.log")-$(grep -c '"job": "b"' "$tmp/j1.log")" = 6-6
run 0 'eval of the base' eval --model "$model" --data "$tmp/eval.jsonl" --json
base=$(number loss "$tmp/out")
for name in a b; do
    run 0 "eval of job $name" eval --model "$model" --adapter "$tmp/j1/$name" --data "$tmp/eval.jsonl" --json
    check "$name has learned" awk -v own="$(number loss "$tmp/out")" -v base="$base" 'BEGIN { exit !(own > 0 && own < base - 0.02) }'
done
run 0 'eval of job a again' eval --model "$model" --adapter "$tmp/j1/a" --data "$tmp/eval.jsonl" --json
grep '"job": "a"' "$tmp/j1.log" | tail -n 1 >"$tmp/last"
check 'it is the last loss of the log' near "$(number loss "$tmp/out")" "$(number eval_loss "$tmp/last")" 1e-4

check 'the first 3 steps' together two "$tmp/j2" --json-log "$tmp/j2.log" --set max_steps=3 --quiet
check 'with --quiet nothing is said' test ! -s "$tmp/out" -a ! -s "$tmp/err"
check 'resume to 6 steps, on two threads' together two "$tmp/j2" --json-log "$tmp/j2.log" --resume --threads 2
check 'a resumed run gives the same LoRA' same_adapter "$tmp/j1/a" "$tmp/j2/a"
check 'a resumed run gives the same bottleneck' cmp -s "$tmp/j1/b/adapter.safetensors" "$tmp/j2/b/adapter.safetensors"
check 'a resumed run gives the same log' same_log "$tmp/j1.log" "$tmp/j2.log"
jobs_file one "$a"
check 'a job alone' together one "$tmp/j3" --set batch_size=2
check 'learns what it does beside another' same_adapter "$tmp/j1/a" "$tmp/j3/a"
jobs_file other "$b," "$a"
check 'the jobs in another order' together other "$tmp/j4"
check 'learn the same' same_adapter "$tmp/j1/a" "$tmp/j4/a"

launch=exec
together two "$tmp/j8" --json-log "$tmp/j8.log" --set max_steps=1000000 &
job=$!
launch=
tries=0
while [ "$(cat "$tmp/j8.log" 2>/dev/null | wc -l)" -lt 4 ] && [ $tries -lt 300 ]; do
    sleep 0.1
    tries=$((tries + 1))
done
kill -INT "$job"
wait "$job"
check 'Ctrl-C exits with 130 from several jobs' test $? -eq 130
check 'Ctrl-C saves them all' test -s "$tmp/j8/a/adapter_model.safetensors" -a -s "$tmp/j8/b/adapter.safetensors" -a -d "$tmp/j8/trainer"
steps=$(($(tail -n 1 "$tmp/j8.log" | sed 's/.*"step": \([0-9]*\).*/\1/') + 2))
check 'resume all after Ctrl-C' together two "$tmp/j8" --resume --json-log "$tmp/j8.log" --set "max_steps=$steps"
check 'the same run of them without Ctrl-C' together two "$tmp/j9" --json-log "$tmp/j9.log" --set "max_steps=$steps"
check 'both give the same LoRA' same_adapter "$tmp/j8/a" "$tmp/j9/a"
check 'both give the same log of jobs' same_log "$tmp/j8.log" "$tmp/j9.log"

jobs_file nan "$a," '{"name": "bad", "data": "'$tmp/b.jsonl'", "options": {"optimizer": "sgd", "learning_rate": 1e6, "max_grad_norm": 0}}'
together nan "$tmp/j5"
check 'a job whose loss is no number is exit code 1' test $? -eq 1
check 'the message names it' grep -q '^peft: 1 of 2 jobs failed and the others are done; "bad": ' "$tmp/err"
check 'the table says failed' grep -Eq '^bad +lora +[0-9]+ +failed ' "$tmp/out"
check 'the other is saved, as it would be alone' same_adapter "$tmp/j1/a" "$tmp/j5/a"
check 'the failed one is not' test ! -e "$tmp/j5/bad"

{
    echo '{"adapters": {"shared": {"options": {"r": 2}}}, "jobs": ['
    echo '{"name": "a", "compose": "shared,a", "data": "'"$tmp/train.jsonl"'"},'
    echo '{"name": "b", "compose": "stack(shared,b)", "data": "'"$tmp/b.jsonl"'", "adapter": "'"$tmp/j1/a"'"}]}'
} >"$tmp/shared.json"
check 'jobs with a shared adapter' together shared "$tmp/j6" --set max_steps=2 --set batch_size=4
check 'it is saved once, beside them' test -s "$tmp/j6/shared/adapter_model.safetensors" -a -s "$tmp/j6/a/adapter_model.safetensors" \
    -a -s "$tmp/j6/b/adapter_model.safetensors"
run 0 'eval of one of them with it' eval --model "$model" --adapter shared="$tmp/j6/shared" --adapter a="$tmp/j6/a" \
    --data "$tmp/eval.jsonl" --json
awk '{ sub(/\]\}/, "], \"label\": \"" (NR % 2 ? "odd" : "even") "\"}"); print }' "$tmp/train.jsonl" >"$tmp/odd.jsonl"
sed 's/"odd"/"third"/' "$tmp/odd.jsonl" >"$tmp/third.jsonl"
jobs_file classes '{"name": "a", "data": "'$tmp/odd.jsonl'"},' '{"name": "b", "data": "'$tmp/third.jsonl'"}'
check 'classes of all jobs, each with a head of its own' together classes "$tmp/j7" --task sequence_classification --set max_steps=2
run 0 'info of one of them' info "$tmp/j7/b" --json
check 'it knows the classes of all' grep -q '"labels": *\["odd","even","third"\]' "$tmp/out"
run 0 'plan --jobs' plan --model "$model" --jobs "$tmp/two.json" --json
check 'the plan has both jobs' grep -q '"adapter":"a","rows":2,.*"adapter":"b","rows":2,' "$tmp/out"

# wrong NAME TEXT LINE...: the file with these jobs is refused, and the message begins with its place
wrong() {
    name=$1 text=$2
    shift 2
    jobs_file wrong "$@"
    error 2 "$tmp/wrong.json:$text" "$name" train --model "$model" --jobs "$tmp/wrong.json" --out "$tmp/none"
}
wrong 'an unknown key of a job, with its line' '3: unknown key "dat"; did you mean "data"?' "$a," '{"name": "b", "dat": "x"}'
wrong 'an unknown option of a job' '4: learning_rte 1: unknown key "learning_rte"' "$a," '{"name": "b", "data": "x",' \
    '"options": {"learning_rte": 1}}'
wrong 'an option of the run in a job' '2: batch_size is of the whole run' '{"name": "b", "data": "x", "options": {"batch_size": 2}}'
wrong 'two jobs of a name' "3: the name \"a\" is taken, at $tmp/wrong.json:2" "$a," "$a"
wrong 'a share of 0' '2: the share of "a" must be more than 0, not 0' '{"name": "a", "data": "x", "share": 0}'
wrong 'a share below 0' '2: the share of "a" must be more than 0, not -2.5' '{"name": "a", "data": "x", "share": -2.5}'
wrong 'a name that leaves the folder' '2: "../a" cannot be a name' '{"name": "../a", "data": "x"}'
wrong 'a key twice' '2: the key "data" is there twice' '{"name": "a", "data": "x", "data": "y"}'
wrong 'what is no JSON' '3: this is not JSON' '{"name": "a", "data": "x"},' '}'
wrong 'an unknown method' '3: method lorra: no such method; did you mean lora?' '{"name": "a", "data": "x",' '"method": "lorra"}'
wrong 'a method of an adapter that has one' \
    '2: "adapter" has a method already' '{"name": "a", "data": "x", "method": "lora", "adapter": "y"}'
jobs_file wrong "$a," '{"name": "b", "data": "'$tmp/absent.jsonl'"}'
error 1 "$tmp/wrong.json:3: cannot open \"$tmp/absent.jsonl\"" 'a missing data file is named' train --model "$model" \
    --jobs "$tmp/wrong.json" --out "$tmp/none"
jobs_file wrong "$a," '{"name": "b", "data": "'$tmp/b.jsonl'", "compose": "stack(nobody,b)"}'
error 1 "$tmp/wrong.json:3: there is no adapter \"nobody\"" 'an adapter that is not there is named' train --model "$model" \
    --jobs "$tmp/wrong.json" --out "$tmp/none"
sed 's/"hidden_size\\":192/"hidden_size\\":190/' "$tmp/j1/a/adapter_model.safetensors" >"$tmp/foreign" && mkdir "$tmp/foreign.d" &&
    mv "$tmp/foreign" "$tmp/foreign.d/adapter_model.safetensors" && cp "$tmp/j1/a/adapter_config.json" "$tmp/foreign.d"
jobs_file wrong "$a," '{"name": "b", "data": "'$tmp/b.jsonl'", "adapter": "'$tmp/foreign.d'"}'
error 1 "foreign.d/adapter_model.safetensors: the adapter was made for llama of hidden size 190" 'an adapter of another base is named' \
    train --model "$model" --jobs "$tmp/wrong.json" --out "$tmp/none"
error 2 '--data is of one adapter' '--jobs takes no --data' train --model "$model" --jobs "$tmp/two.json" --data x --out "$tmp/none"
error 2 'lorra' 'a key of --set that no job has' train --model "$model" --jobs "$tmp/two.json" --out "$tmp/none" --set lorra=1
error 1 'absent.json' 'a file of jobs that is missing' train --model "$model" --jobs "$tmp/absent.json" --out "$tmp/none"
check 'none of them left a folder' test ! -e "$tmp/none"

# ---- plan, eval, generate, merge ---------------------------------------------------------------------------------------
run 0 'plan' plan --model "$model" --data "$tmp/train.jsonl" --set batch_size=2 --set max_length=32
run 0 'plan --json' plan --model "$model" --data "$tmp/train.jsonl" --set batch_size=2 --set max_length=32 --json
tr -d '\n' <"$tmp/out" >"$tmp/plan" && echo >>"$tmp/plan"
keys 'plan --json has its keys' "$tmp/plan" peak_bytes trainable_parameters flops_per_step

# ---- bench ---------------------------------------------------------------------------------------------------------------
run 0 'bench' bench --model "$model" --seq 16 --batch 2 --seconds 1 --threads 1
check 'bench has a head' grep -q '^op  *calls  *ms  *share  *GFLOP/s  *GB/s  *of limit$' "$tmp/out"
for row in 'linear forward' 'linear backward' 'attention forward' 'attention backward' 'head backward' 'norm forward' other 'a step'; do
    check "bench has the row '$row'" grep -Eq "^$row +[-0-9]" "$tmp/out"
done
for row in training prefill decode memory 'limits:'; do check "bench says $row" grep -q "^$row  *[0-9]" "$tmp/out"; done
run 0 'bench --json' bench --model "$model" --seq 16 --seconds 1 --threads 2 --method ia3 --json
check 'bench --json is one line' test "$(wc -l <"$tmp/out")" -eq 1
keys 'bench --json has its keys' "$tmp/out" limits flops_per_second bytes_per_second ops share_of_limit training prefill decode \
    step_seconds tokens_per_second peak_bytes kernels method
check 'bench --json says what ran' grep -q '"method": "ia3", "kernels": "[a-z0-9]*", "threads": 2, "seq": 16, "batch": 1' "$tmp/out"
check 'the shares of all ops make a step' sh -c "grep -o '\"share\": [-+0-9.e]*' '$tmp/out' |
    awk '{ sum += \$2; n++ } END { exit !(n > 10 && sum > 0.999 && sum < 1.001) }'"
error 1 '--seq 600 is more than' 'bench refuses more tokens than positions' bench --model "$model" --seq 600
error 1 'absent' 'bench names a missing model' bench --model "$tmp/absent"

run 0 'eval' eval --model "$model" --data "$tmp/eval.jsonl"
run 0 'eval --json' eval --model "$model" --data "$tmp/eval.jsonl" --json
cp "$tmp/out" "$tmp/base.json"
keys 'eval --json has its keys' "$tmp/base.json" loss perplexity accuracy tokens rows
check 'eval counts rows' test "$(number rows "$tmp/base.json")" = 4
run 0 'eval with an adapter' eval --model "$model" --adapter "$tmp/a" --data "$tmp/eval.jsonl" --json
cp "$tmp/out" "$tmp/adapter.json"
check 'the adapter changes the loss' test "$(number loss "$tmp/base.json")" != "$(number loss "$tmp/adapter.json")"
error 1 'absent' 'eval names a missing adapter' eval --model "$model" --adapter "$tmp/absent" --data "$tmp/eval.jsonl"

run 0 'generate' generate --model "$model" --prompts "$tmp/prompts.jsonl" --max-new 8 --temperature 0.9 --seed 5 --json
cp "$tmp/out" "$tmp/gen1"
keys 'generate --json has its keys' "$tmp/gen1" ids tokens
run 0 'generate again' generate --model "$model" --prompts "$tmp/prompts.jsonl" --max-new 8 --temperature 0.9 --seed 5 --json
check 'a seed fixes what is generated' cmp -s "$tmp/gen1" "$tmp/out"
run 0 'generate, plain' generate --model "$model" --adapter "$tmp/a" --prompts "$tmp/prompts.jsonl" --max-new 4 --temperature 0
check 'generate writes to stdout' test -s "$tmp/out"
error 2 '--max-new' 'a wrong value names the option' generate --model x --prompt y --max-new many

run 0 'train three methods at once' train --model "$model" --data "$tmp/train.jsonl" --out "$tmp/union" \
    --method lora,pfeiffer,prompt --set max_steps=2 --quiet
run 0 'info --json of several methods' info "$tmp/union" --json
check 'it names the parts' grep -q '"method": *"union"' "$tmp/out"
run 0 'eval with several methods' eval --model "$model" --adapter "$tmp/union" --data "$tmp/eval.jsonl" --json
run 0 'classify by two methods' train --model "$model" --task sequence_classification --data "$tmp/odd.jsonl" --out "$tmp/classes" \
    --method lora,ia3 --set max_steps=3 --set learning_rate=0.1 --quiet
run 0 'eval of both, whose labels they know' eval --model "$model" --adapter "$tmp/classes" --data "$tmp/odd.jsonl" --json
cp "$tmp/out" "$tmp/classes.json"
run 0 'check of both' check "$tmp/classes" --model "$model"
run 0 'conversion of one' convert --model "$model" --adapter "$tmp/classes/lora" --to hf --out "$tmp/classes-one"
run 0 'merge of both' merge --model "$model" --adapter "$tmp/classes" --out "$tmp/classes-merged"
run 0 'eval of the merged classifier' eval --model "$tmp/classes-merged" --task sequence_classification --data "$tmp/odd.jsonl" --json
check 'the head of the last counts, merged or not' near "$(number loss "$tmp/out")" "$(number loss "$tmp/classes.json")" 1e-3

run 0 'merge' merge --model "$model" --adapter "$tmp/a" --out "$tmp/merged"
run 0 'eval of the merged model' eval --model "$tmp/merged" --data "$tmp/eval.jsonl" --json
check 'merged equals model plus adapter' near "$(number loss "$tmp/out")" "$(number loss "$tmp/adapter.json")" 1e-3
run 0 'merge to GGUF' merge --model "$model" --adapter "$tmp/a" --out "$tmp/merged.gguf" --set dtype=float32
run 0 'eval of the merged GGUF' eval --model "$tmp/merged.gguf" --data "$tmp/eval.jsonl" --json
check 'merged GGUF equals model plus adapter' near "$(number loss "$tmp/out")" "$(number loss "$tmp/adapter.json")" 1e-3

run 0 'merge without an adapter' merge --model "$model" --out "$tmp/plain" --quiet
run 0 'eval of it' eval --model "$tmp/plain" --data "$tmp/eval.jsonl" --json
check 'it is the base' near "$(number loss "$tmp/out")" "$(number loss "$tmp/base.json")" 1e-5

# ---- convert, combine ------------------------------------------------------------------------------------------------------
run 0 'convert to GGUF' convert --model "$model" --adapter "$tmp/a" --to gguf --out "$tmp/a.gguf"
run 0 'info of a LoRA file' info "$tmp/a.gguf" --json
check 'it is an adapter' grep -q '"kind":"adapter","method":"lora"' "$tmp/out"
run 0 'eval with a LoRA file' eval --model "$model" --adapter "$tmp/a.gguf" --data "$tmp/eval.jsonl" --json
check 'it is the adapter' near "$(number loss "$tmp/out")" "$(number loss "$tmp/adapter.json")" 1e-6
run 0 'convert back' convert --model "$model" --adapter "$tmp/a.gguf" --to hf --out "$tmp/back"
check 'the folder has the same tensors' cmp -s "$tmp/a/adapter_model.safetensors" "$tmp/back/adapter_model.safetensors"
error 1 'prompt' 'what is not the same is refused' \
    convert --model "$model" --adapter "$tmp/a" --to hf --as prompt --out "$tmp/none"
check 'nothing is written then' test ! -e "$tmp/none"
run 0 'combine' combine --model "$model" --adapter a="$tmp/a" --adapter b="$tmp/d" --weights a:1,b:0 --out "$tmp/both"
run 0 'eval of a combination' eval --model "$model" --adapter "$tmp/both" --data "$tmp/eval.jsonl" --json
check 'weights 1 and 0 are the first adapter' near "$(number loss "$tmp/out")" "$(number loss "$tmp/adapter.json")" 1e-6
run 0 'combine as an average, to GGUF' combine --model "$model" --adapter a="$tmp/a" --adapter b="$tmp/d" --type average \
    --out "$tmp/both.gguf"
check 'the GGUF is there' test -s "$tmp/both.gguf"
error 1 'nobody' 'a weight without an adapter is named' \
    combine --model "$model" --adapter a="$tmp/a" --weights a:1,nobody:1 --out "$tmp/none"

if [ -c /dev/full ]; then
    "$tool" options >/dev/full 2>"$tmp/err"
    check 'a full stdout is exit code 1' test $? -eq 1
    check 'a full stdout is named' grep -q stdout "$tmp/err"
fi

echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
