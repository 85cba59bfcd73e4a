#!/bin/sh
# run.sh - the demo: a small model that tells a record in plain sentences learns to tell it like a pirate, with LoRA.
# PEFT is the tool, BUILD the build folder (both as `make demo` sets them); writes only into BUILD/demo. Every number shown
# is measured in this run, on records whose names are in no training text.
set -u
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
peft=${PEFT:-$root/build/peft} out=${BUILD:-$root/build}/demo
base=$here/base/model.gguf train=$here/train.jsonl heldout=$here/heldout.jsonl
LC_ALL=C
export LC_ALL

die() {
    echo "demo: $*" >&2
    exit 1
}
for file in "$peft" "$base" "$train" "$heldout"; do
    [ -e "$file" ] || die "$file does not exist"
done
rm -rf "$out"
mkdir -p "$out" || die "cannot write to $out"

# number FILE KEY: the number of a key of a JSON object
number() {
    sed -n 's/.*"'"$2"'": *\([-+.0-9eE]*\).*/\1/p' "$1" | head -n 1
}
# json_text KEY: the text of a key of each JSON object on stdin; its line ends stay "\n"
json_text() {
    awk -v key="\"$1\"" '{
        at = index($0, key)
        rest = substr($0, at + length(key))
        sub(/^: *"/, "", rest)
        text = ""
        while (match(rest, /^([^"\\]|\\.)/)) {
            c = substr(rest, 1, RLENGTH)
            text = text (c == "\\\"" || c == "\\\\" ? substr(c, 2) : c)
            rest = substr(rest, RLENGTH + 1)
        }
        print text
    }'
}
# measure WHEN [--adapter DIR]: loss and answers of the held-out rows, in $out/WHEN.*
measure() {
    when=$1
    shift
    "$peft" eval --model "$base" "$@" --data "$heldout" --json > "$out/$when.json" || die "the evaluation failed"
    "$peft" generate --model "$base" "$@" --prompts "$heldout" --max-new 80 --temperature 0 --json > "$out/$when.jsonl" ||
        die "generating failed"
    json_text text < "$out/$when.jsonl" > "$out/$when.txt"
}
# count WHEN: "STYLE FACTS ALL EXACT": answers in the style; facts of the records that the answers have, of how many;
# answers that are the wanted sentence to the letter. Price and children may be told in either style.
count() {
    paste "$out/prompts.txt" "$out/wanted.txt" "$out/$1.txt" | awk -F '\t' '
        function words(s) { gsub(/[^A-Za-z0-9]+/, " ", s); return " " s " " }
        function has(said, what) { return index(said, " " what " ") > 0 }
        function told(said, key, value) {
            if (key == "children") {
                return value == "no" ? said ~ / not welcome | aboard no / : said ~ / are welcome | aboard yes /
            }
            return has(said, value) || (key == "price" && has(said, pirate[value]))
        }
        BEGIN { pirate["low"] = "few coppers"; pirate["medium"] = "honest silver"; pirate["high"] = "fit for a captain" }
        {
            sub(/\\n.*/, "", $1)
            n = split($1, fields, " [|] ")
            said = words($3)
            for (i = 1; i <= n; i++) {
                split(fields[i], f, ": ")
                all++
                facts += told(said, f[1], f[2]) ? 1 : 0
            }
            style += $3 ~ /^ (Ahoy|Avast|Arrr)! .* bells .* aboard: .*!$/
            exact += $2 == $3
        }
        END { print style + 0, facts + 0, all + 0, exact + 0 }'
}
# show WHEN: record and answer of one held-out row of each price
show() {
    paste "$out/prompts.txt" "$out/$1.txt" | awk -F '\t' '
        match($1, /price: [a-z]+/) {
            price = substr($1, RSTART, RLENGTH)
            if (seen[price]++) { next }
            sub(/\\n.*/, "", $1)
            gsub(/\\n/, " ", $2)
            print "* " $1
            print ">" $2
        }' | fold -s -w 74 | sed 's/^[^*>]/    &/; s/^\* /  /; s/^> */    /; s/ *$//'
}

rows=$(wc -l < "$heldout")
"$peft" info "$base" --json > "$out/base.json" || die "$base cannot be opened"
json_text prompt < "$heldout" > "$out/prompts.txt"
json_text completion < "$heldout" > "$out/wanted.txt"
cat <<END

libpeft demo: LoRA fine-tuning on this CPU

  The base has $(number "$out/base.json" parameters) parameters and knows plain English sentences. It is to
  advertise like a pirate. It gets $(($(wc -l < "$train"))) records with such sentences; all that
  is shown here is from $((rows)) other records, whose names it has never seen.

Before: what the base makes of a record

END
measure before
show before
cat <<END

Training: peft train --method lora --set r=8 ...

END
began=$(date +%s)
"$peft" train --model "$base" --data "$train" --method lora --out "$out/adapter" --json-log "$out/log.jsonl" --seed 1 \
    --set r=8 --set lora_alpha=16 --set target_modules=all-linear --set learning_rate=5e-3 --set lr_scheduler_type=cosine \
    --set batch_size=8 --set num_train_epochs=2 --set warmup_steps=5 || die "the training failed"
seconds=$(($(date +%s) - began))
cat <<END

After: the same records, base and adapter

END
measure after --adapter "$out/adapter"
show after

set -- $(count before) $(count after)
line() {
    printf '  %-36s %14s %14s\n' "$@"
}
echo
line "On the $((rows)) held-out records" before after
line "loss (nats a token)" "$(printf '%.3f' "$(number "$out/before.json" loss)")" "$(printf '%.3f' "$(number "$out/after.json" loss)")"
line "answers in the style" "$1" "$5"
line "facts told right" "$2 of $3" "$6 of $7"
line "sentences right to the letter" "$4" "$8"
echo
peak=$(sed -n 's/.*"peak_bytes": *\([0-9]*\).*/\1/p' "$out/log.jsonl" | sort -n | tail -n 1)
awk -v s="$seconds" -v p="$peak" -v a="$(wc -c < "$out/adapter/adapter_model.safetensors")" -v d="${out#"$root"/}/adapter" 'BEGIN {
    printf "  Trained in %d s with %.0f MiB of memory at the peak.\n", s, p / 1048576
    printf "  The adapter is %d bytes, a Hugging Face PEFT folder: %s\n\n", a, d
}'
