#!/bin/sh
# report.sh [TOOL [MODEL]] - checks `peft report`, `train --report` and `--plot`: the page has the log's values, hides nothing and runs
# nothing of what a log says, stays small, and bad logs are refused with one sentence. TOOL and MODEL as in run.sh; what a browser makes
# of the page is tests/report/run.sh. Prints a line a check, then the totals; the exit code is 1 if a check failed.
set -u
. "$(dirname "$0")/begin.inc"
cd "$tmp" || exit 1

# check NAME CONDITION...: CONDITION is a command
check() {
    name=$1
    shift
    if "$@"; then
        passed=$((passed + 1))
        echo "ok $name"
    else
        failed=$((failed + 1))
        echo "not ok $name"
        echo "    false: $*"
        head -n 3 err 2>/dev/null | sed 's/^/    stderr: /'
    fi
}
tool() { "$tool" "$@" >out 2>err </dev/null; }
# error CODE TEXT NAME ARGUMENT...: one line on stderr "peft: ..." that has TEXT, nothing on stdout
error() {
    want=$1 text=$2 name=$3
    shift 3
    tool "$@"
    code=$?
    check "$name" sh -c "[ $code -eq $want ] && [ \$(wc -l <err) -eq 1 ] && grep -q '^peft: ' err && grep -qF -e \"\$1\" err && [ ! -s out ]" sh "$text"
}
has() { grep -qF -e "$2" "$1"; }
has_not() { ! grep -qF -e "$2" "$1"; }
# below FILE BYTES
below() { [ "$(wc -c <"$1")" -lt "$2" ]; }
# count_is FILE TEXT COUNT: the text stands there so often
count_is() { [ "$(grep -oF -e "$2" "$1" | wc -l)" -eq "$3" ]; }

# synthetic STEPS SHIFT: a log of an early version, without "run": a value of each kind, different in each step
synthetic() {
    awk -v n="$1" -v shift="$2" 'BEGIN {
        for (i = 1; i <= n; i++) {
            printf "{\"step\": %d, \"loss\": %.9g, \"learning_rate\": %.9g, \"grad_norm\": %.9g, \"tokens\": %d, ", i,
                shift + 5 / (1 + i / n * 9) + 0.2 * sin(i * 7), 1e-3 * (1 - i / (n + 1)), 2 + cos(i * 3), 400 + i % 50
            printf "\"tokens_per_second\": %.9g, \"peak_bytes\": %d%s}\n", 1500 + 300 * sin(i), 40000000 + i,
                i % int(n / 4) ? "" : sprintf(", \"eval_loss\": %.9g", shift + 5.5 / (1 + i / n * 9))
        }
    }'
}

# ---- Values --------------------------------------------------------------------------------------------------------------
synthetic 12 0 >a.jsonl
tool report a.jsonl --out a.html
check 'report of a log' test $? -eq 0
check 'says nothing' test ! -s out -a ! -s err
check 'a document' sh -c "head -n 1 a.html | grep -q '^<!DOCTYPE html>' && tail -n 1 a.html | grep -q '^</html>'"
tr '>' '\n' <a.html >a.lines
# Each step's row of each table has the log's numbers, to seven digits.
awk -F '[:,}]' 'BEGIN { OFMT = "%.7g" } {
    split("", v)
    for (i = 1; i < NF; i += 2) { key = $i; gsub(/[^a-z_]/, "", key); v[key] = $(i + 1) + 0 }
    held = "eval_loss" in v ? sprintf("%.7g", v["eval_loss"]) : "\xe2\x80\x93"
    printf "<tr><th scope=\"row\">%d</th><td>%.7g</td><td>%s</td></tr>\n", v["step"], v["loss"], held
    for (k = 1; k <= 3; k++) { key = k == 1 ? "learning_rate" : k == 2 ? "grad_norm" : "tokens_per_second"
        printf "<tr><th scope=\"row\">%d</th><td>%.7g</td></tr>\n", v["step"], v[key] }
}' a.jsonl >rows
check 'the rows of twelve steps are to be found' test "$(wc -l <rows)" -eq 48
missing=0
while read -r row; do has a.html "$row" || missing=$((missing + 1)); done <rows
check 'the tables have all values of the log' test "$missing" -eq 0
losses=$(sed 's/.*"loss": \([^,]*\),.*/\1/' a.jsonl | awk '{ printf "%s%.7g", (NR > 1 ? "," : ""), $1 }')
check 'the curve has all values of the log' has a.html "\"curve\":[[1,2,3,4,5,6,7,8,9,10,11,12],[$losses]]"
check 'held-out values are marked' count_is a.html '<circle ' 4
check 'without a script hovering shows values' has a.html '<title>step 6: '
check 'a log without "run" says so' has a.html 'A log without a description of its run.'
check 'nothing is loaded from elsewhere' sh -c "! grep -Eq '(src|href|action) *=|url\(|@import' a.html"
check 'each chart has a table' sh -c "[ \$(grep -o '<figure class=\"chart' a.html | wc -l) -eq \$(grep -o '<details class=\"data\"' a.html | wc -l) ]"
check 'the page has five charts' count_is a.html '<figure class="chart' 5
if command -v sha256sum >/dev/null && command -v base64 >/dev/null; then
    awk '/^<footer>/ { on = 1 } on' a.html | sed -n '/<script>/,$p' | sed '1s/.*<script>//; /^<\/script>/,$d' >script.js
    hash=$(printf "$(sha256sum <script.js | cut -c1-64 | sed 's/../\\x&/g' | sed 's/\\x/ /g' | awk '{
        for (i = 1; i <= NF; i++) { h = index("0123456789abcdef", substr($i, 1, 1)) - 1; l = index("0123456789abcdef", substr($i, 2)) - 1
            printf "\\%03o", h * 16 + l } }')" | base64)
    check "the page allows its own script, and no other: $hash" has a.html "script-src 'sha256-$hash'"
fi

# ---- Several runs, hostile names ---------------------------------------------------------------------------------------------
synthetic 12 1 >b.jsonl
tool report a.jsonl b.jsonl --out two.html
check 'report of two logs' test $? -eq 0
check 'two curves in each of four charts' count_is two.html '"c":1,"curve"' 4
check 'the lower held-out loss is marked' count_is two.html '(lowest)' 1
check 'a table of runs, a row each' sh -c "grep -A 3 'class=\"runs\"' two.html | grep -q '>a</th>' && grep -A 3 'class=\"runs\"' two.html | grep -q '>b</th>'"
mkdir other && cp b.jsonl other/a.jsonl
tool report a.jsonl other/a.jsonl --out same.html
check 'files of one name are told apart' has same.html 'other/a.jsonl'
evil='</script><script>alert(1)</script>\u0022'"'"'\u0026<img src=x onerror=alert(2)>'
while read -r line; do
    printf '{"job": "%s", "run": {"given": {"%s": "%s"}}, %s\n' "$evil" "$evil" "$evil" "${line#?}"
done <a.jsonl >evil.jsonl
printf '{"job": "%s", "step": 12, "samples": [{"prompt": "%s", "text": "%s\\u0000\\u001b[31m"}]}\n' "$evil" "$evil" "$evil" >>evil.jsonl
printf '{"job": "%s", "step": 12, "gradients": {"%s": 1}}\n' "$evil" "$evil" >>evil.jsonl
tool report evil.jsonl --out evil.html
check 'report of hostile names' test $? -eq 0
check 'no tag of theirs' sh -c "! grep -Eq '<script>alert|<img|\\\\\\\\u001b\[31m' evil.html"
check 'they are shown as they are' has evil.html '&lt;/script&gt;&lt;script&gt;alert(1)&lt;/script&gt;&quot;&#39;&amp;'
check 'as many scripts as in any page' test "$(grep -o '<script' evil.html | wc -l)" -eq "$(grep -o '<script' a.html | wc -l)"
printf '{"step": 1, "loss": 1, "job": "\377\376 \300\257 \355\240\200 caf\303\251"}\n' >bytes.jsonl
tool report bytes.jsonl --out bytes.html
check 'bytes that are no text' has bytes.html "$(printf '\357\277\275\357\277\275 \357\277\275\357\277\275 \357\277\275\357\277\275\357\277\275 caf\303\251')"

# ---- Logs as they may be ----------------------------------------------------------------------------------------------------
head -n 6 a.jsonl >half.jsonl && sed -n 7p a.jsonl | head -c 40 >>half.jsonl
tool report half.jsonl --out half.html
check 'a half last line' test $? -eq 0
check 'is noted' has half.html "the log's last line is half written"
check 'its step is left out' has half.html '"curve":[[1,2,3,4,5,6],'
sed 's/}$/, "colour": {"a": [1, 2]}}/' a.jsonl | sed '3a {"step": 3, "weather": "fine"}' >later.jsonl
tool report later.jsonl --out later.html
check 'keys and lines that nobody knows' has later.html "\"curve\":[[1,2,3,4,5,6,7,8,9,10,11,12],[$losses]]"
cat a.jsonl b.jsonl >again.jsonl
tool report again.jsonl --out again.html
check 'steps that come twice are noted' has again.html 'the log has steps twice'
check 'the later ones stand' test "$(sed -n 's/.*"curve":\[\[[0-9,]*\],\(\[[^]]*\]\)\].*/\1/p' again.html | head -n 1)" = \
    "[$(sed 's/.*"loss": \([^,]*\),.*/\1/' b.jsonl | awk '{ printf "%s%.7g", (NR > 1 ? "," : ""), $1 }')]"
printf '{"step": 1, "loss": null}\n{"step": 2, "loss": 1e999, "grad_norm": "x"}\n{"step": 3, "loss": 2}\n' >gaps.jsonl
tool report gaps.jsonl --out gaps.html
check 'what is no number is left out' has gaps.html '"curve":[[3],[2]]'
for text in inf nan Infinity NaN; do check "no $text in the page" sh -c "! grep -Eqi '[^a-z]-?$text[^a-z]' gaps.html"; done

error 1 'absent.jsonl' 'a missing log' report absent.jsonl --out x.html
: >empty.jsonl
error 1 'empty.jsonl is empty' 'an empty log' report empty.jsonl --out x.html
printf '{"step": 1, "lo' >first.jsonl
error 1 'first.jsonl ends within its first line' 'half a first line' report first.jsonl --out x.html
printf '{"step": 0, "samples": []}\n' >samples.jsonl
error 1 'samples.jsonl has no step with a loss' 'a log before its first step' report samples.jsonl --out x.html
printf 'epoch,loss\n1,2\n' >foreign.csv
error 1 'foreign.csv line 1 is no JSON' 'a table' report foreign.csv --out x.html
printf '{"text": "Once upon a time"}\n' >data.jsonl
error 1 'data.jsonl line 1 has no "step"' 'rows of data' report data.jsonl --out x.html
check 'it says what to do' has err "give the file that 'peft train --json-log FILE' wrote"
error 1 'line 1 is no JSON' 'a model' report "$model" --out x.html
error 1 'line 1 is no JSON' 'a page' report a.html --out x.html
{ sed -n 1,3p a.jsonl; echo 'Segmentation fault'; sed -n 4p a.jsonl; } >mixed.jsonl
error 1 'mixed.jsonl line 4 is no JSON' 'a line between others' report mixed.jsonl --out x.html
printf '[1, 2]\n' >list.jsonl
error 1 'list.jsonl line 1 has no "step"' 'a list' report list.jsonl --out x.html
printf '{"step": -1, "loss": 1}\n' >minus.jsonl
error 1 'minus.jsonl line 1 has no "step"' 'a step below 0' report minus.jsonl --out x.html
error 1 'is a folder' 'a folder' report other --out x.html
awk 'BEGIN { for (i = 0; i < 33; i++) { print "{\"step\": 1, \"loss\": 1, \"job\": \"j" i "\"}" } }' >many.jsonl
error 1 'more than 32 runs' 'too many runs' report many.jsonl --out x.html
check 'none of them left a page' test ! -e x.html
error 1 'cannot write the page' 'a page in no folder' report a.jsonl --out none/x.html
error 2 '--out a.jsonl is one of the logs' 'a page over its log' report a.jsonl --out a.jsonl
error 2 'report needs LOG' 'no log' report --out x.html
error 2 'report needs --out FILE' 'no page' report a.jsonl
[ ! -c /dev/full ] || error 1 '/dev/full' 'a full disk' report a.jsonl --out /dev/full

# ---- Size --------------------------------------------------------------------------------------------------------------------
synthetic 20000 0 >long.jsonl
tool report long.jsonl --out long.html
check '20,000 steps are below 300 KB' below long.html 300000
check 'the first and the last are there' sh -c "grep -q '\"curve\":\[\[1,' long.html && grep -Eq '\"curve\":\[\[[0-9,]*,20000\],' long.html"
awk 'NR == 7777 { sub(/"loss": [^,]*/, "\"loss\": 99.125") } NR == 12345 { sub(/"loss": [^,]*/, "\"loss\": -3.25") } 1' long.jsonl >peak.jsonl
tool report peak.jsonl --out peak.html
check 'no peak is lost' sh -c "grep -q ',99.125,' peak.html && grep -q ',-3.25,' peak.html && grep -q ',7777,' peak.html && grep -q ',12345,' peak.html"
# ---- train --report ----------------------------------------------------------------------------------------------------------
awk 'BEGIN {
    for (row = 0; row < 12; row++) {
        line = "{\"input_ids\": ["
        for (i = 0; i < 10 + row % 5; i++) line = line (i ? ", " : "") (3 + (row * 7 + i * (1 + row % 3)) % 37)
        print line "]}"
    }
}' >train.data
# train OUT STEPS ARGUMENT...
train() {
    out=$1 steps=$2
    shift 2
    "$tool" train --model "$model" --data train.data --out "$out" --seed 7 --set "max_steps=$steps" --set batch_size=2 \
        --set max_length=32 --set r=4 --set lora_dropout=0.1 --set learning_rate=1e-3 --set lr_scheduler_type=constant "$@" >out 2>err </dev/null
}
figures() { grep '"loss"' "$1" | sed 's/, "run": {.*}, "loss"/, "loss"/; s/"tokens_per_second": [^,}]*//; s/"peak_bytes": [^,}]*//; s/, "eval_loss": [^,}]*//'; }
same_steps() { [ -n "$(figures "$1")" ] && [ "$(figures "$1")" = "$(figures "$2")" ]; }
check 'train' train plain 6 --json-log plain.jsonl --threads 1
check 'the log says what was run' sh -c "head -n 1 plain.jsonl | grep -q '\"run\": {\"version\": .*\"architecture\": \"llama\".*\"method\": \"lora\".*\"given\": {.*\"r\": \"4\".*\"planned_bytes\": [0-9]'"
check 'in the first line alone' count_is plain.jsonl '"run":' 1
check 'train --report' train seen 6 --report seen.html --sample-prompt 'name: Green Man' --sample-prompt '<b>&' --eval train.data
check 'the page is said' grep -q '^report in seen.html' err
check 'the adapter is the same with it and without' cmp -s plain/adapter_model.safetensors seen/adapter_model.safetensors
check 'so are the steps' same_steps plain.jsonl seen/log.jsonl
check 'samples before and after' sh -c "grep -q '^{\"step\": 0, \"samples\": \[{\"prompt\": \"name: Green Man\", \"text\": \"..*\"}, {' seen/log.jsonl && grep -q '^{\"step\": 6, \"samples\":' seen/log.jsonl"
check 'gradients before and after' sh -c "grep -q '^{\"step\": 0, \"gradients\": {\"layers.0\": [0-9.]*, .*\"layers.3\": [0-9.]*}}' seen/log.jsonl && grep -q '^{\"step\": 6, \"gradients\":' seen/log.jsonl"
check 'the page has the samples' sh -c "grep -q 'before training' seen.html && grep -q 'after step 6' seen.html && grep -q '&lt;b&gt;&amp;' seen.html"
check 'the page has the gradients' sh -c "grep -q 'Gradients by layer' seen.html && grep -q 'layers.3' seen.html"
check 'the page has the plan' sh -c "grep -Eq '>[0-9.]+ MiB planned, [0-9.]+ MiB measured<' seen.html"
check 'the page has settings' grep -q '<th scope="row">lora_dropout</th><td>0.1</td>' seen.html
# Steps with what a real log says of its run, of as many jobs as there are to be.
about=$(sed -n 's/.*\("run": {.*}\), "loss".*/\1/p' seen/log.jsonl)
jobs_of() {
    about=$about awk -v n="$1" '{ for (j = 1; j <= n; j++) {
        line = $0
        sub(/\{/, "{\"job\": \"a job whose name is far longer than one would like it, number " j "\", " (NR == 1 ? ENVIRON["about"] ", " : ""), line)
        print line
    } }'
}
jobs_of 4 <long.jsonl >four.jsonl
tool report four.jsonl --out four.html
check 'four runs of 20,000 steps are below 300 KB' below four.html 300000
synthetic 1000 0 | jobs_of 32 >most.jsonl
tool report most.jsonl --out most.html
check 'long names keep their ends' sh -c "grep -q '>a job whose name is far …[a-z ]*, number 31<' most.html"
check 'and as many runs as there may be' below most.html 300000
check 'the first 3 steps' train part 3 --report part.html --json-log part.jsonl
check 'resume to 6' train part 6 --report part.html --json-log part.jsonl --resume
check 'its adapter is the same' cmp -s plain/adapter_model.safetensors part/adapter_model.safetensors
check 'its log goes on' test "$(grep -c '"loss"' part.jsonl)" -eq 6
check 'the page says so' has part.html 'the run was gone on with; it was begun 2 times'
cp part.jsonl before.jsonl
check 'a resume that has nothing to do' train part 6 --report part.html --json-log part.jsonl --resume
check 'leaves the log as it was' cmp -s before.jsonl part.jsonl
tool train --model "$model" --data train.data --out nan --report nan.html --set max_steps=20 --set optimizer=sgd --set learning_rate=1e6 \
    --set max_grad_norm=0 --quiet
check 'a run that fails is exit code 1' test $? -eq 1
check 'its page says where it ended' grep -Eq 'it ended, or the log does, after step [0-9]+ of 20' nan.html
error 1 'cannot write the page none/x.html' 'a page in no folder ends before the training' train --model "$model" --data train.data --out none2 \
    --report none/x.html
check 'and leaves nothing' test ! -e none2
error 2 '--sample-prompt needs --report FILE or --json-log FILE' 'samples for nothing' train --model "$model" --data train.data --out none2 \
    --sample-prompt x
echo '{"jobs": [{"name": "one", "data": "train.data"}, {"name": "two", "data": "train.data", "options": {"r": 2}}]}' >jobs.json
tool train --model "$model" --jobs jobs.json --out jobs --report jobs.html --set max_steps=3 --set batch_size=4
check 'train --jobs --report' test $? -eq 0
check 'both jobs are on the page' sh -c "grep -q '\"name\":\"one\"' jobs.html && grep -q '\"name\":\"two\"' jobs.html"
check 'and what differs between them' grep -q '<tr class="differs"><th scope="row">r<span class="sr"> (differs)</span></th><td>8</td><td>2</td></tr>' jobs.html
error 2 '--sample-prompt is of one adapter' 'samples of jobs' train --model "$model" --jobs jobs.json --out none2 --report x.html --sample-prompt x
check 'plan takes the same options' tool plan --model "$model" --data train.data --report none/x.html --sample-prompt x --plot

# ---- --plot ------------------------------------------------------------------------------------------------------------------
tool report a.jsonl --plot
check 'report --plot' test $? -eq 0
check 'has an axis, the first and the last step' sh -c "grep -Eq '^ +1 +step 12$' out && grep -Eq '^ +[0-9.]+ ' out && grep -q 'o: held-out rows' out"
check 'is fourteen rows and a head' test "$(wc -l <out)" -eq 15
tool report a.jsonl b.jsonl --plot
check 'of two logs it has both names' sh -c "grep -q '^a: loss' out && grep -q '^b: loss' out"
printf '{"step": 1, "loss": 1, "job": "\\u001b[31m"}\n' >escape.jsonl
tool report escape.jsonl bytes.jsonl --plot
check 'no escapes of a name reach the terminal' sh -c "! grep -q '$(printf '\033')' out"
case $(head -c 2 "$tool") in
    '#!') ;; # another system's program, whose terminal is not asked by these variables
    *)
        LC_ALL=C "$tool" report a.jsonl --plot >out
        check 'ASCII where the locale has no more' sh -c "! LC_ALL=C grep -q '[^ -~]' out && grep -q \"[':.]\" out"
        LC_ALL=C.UTF-8 "$tool" report a.jsonl --plot >out
        check 'braille where it has' sh -c "LC_ALL=C grep -q \"$(printf '\342[\240-\243]')\" out"
        check 'within 80 columns' sh -c "! LC_ALL=C sed 's/[^ -~][^ -~][^ -~]/x/g' out | grep -Eq '^.{81}'"
        ;;
esac
check 'train --plot' train plotted 6 --plot --quiet
check 'shows the curve on stderr' sh -c "grep -Eq '^ +1 +step 6' err && [ ! -s out ]"

echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
