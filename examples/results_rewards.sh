#!/usr/bin/env bash
# The experiments on rewards of docs/results.md, as they were run. About an hour and a half on two cores.
# usage: examples/results_rewards.sh DATA OUT        DATA: the folder with sft/, helpful_pairs/ and harmless_pairs/
set -euo pipefail
data=$1 out=$2 python=${PYTHON:-python}
here=$(dirname "$0")
run() { echo; echo "== $*"; "$python" -m core.run run.root="$out" eval.samples=0 "$@"; }
judge() { echo; echo "== $*"; "$python" -m core.evaluate run.root="$out" "$@"; }
rows() { "$python" "$here/sandbox_rows.py" "$@"; }

# 1. Sandbox: rows, so that several runs read the same ones.
mkdir -p "$out/rows"
rows pairs train 8000 --neutral --out "$out/rows/pairs.jsonl"
rows pairs validation 3000 --neutral --out "$out/rows/pairs-val.jsonl"
rows rankings train 3000 --neutral --out "$out/rows/rankings.jsonl"
rows rankings train 3000 --neutral --as-pairs --out "$out/rows/rankings-pairs.jsonl"
rows rankings validation 600 --neutral --out "$out/rows/rankings-val.jsonl"
for topic in help safety; do
  count=$([ $topic = help ] && echo 4000 || echo 16000)
  rows rankings train "$count" --neutral --about $topic --out "$out/rows/$topic.jsonl"
  rows rankings validation $((count / 10 + 400)) --neutral --about $topic --out "$out/rows/$topic-val.jsonl"
done
pairs=(data=jsonl data.template=chat data.path="$out/rows/pairs.jsonl" data.validation_path="$out/rows/pairs-val.jsonl")
rankings=(data=jsonl data.template=chat data.validation_path="$out/rows/rankings-val.jsonl")
for seed in 1 2 3; do
  # what the annotators' noise allows
  run objective=reward_bt reward=gold data.train_rows=12000 data.validation_rows=600 'data.tastes={neutral: 1.0}' seed=$seed run.name=bt-$seed
  # margins
  run objective=reward_bt reward=gold "${pairs[@]}" seed=$seed run.name=nomargin-$seed
  for table in small large; do
    run objective=reward_margin objective.margins=$table reward=gold "${pairs[@]}" seed=$seed run.name=margin-$table-$seed
  done
  # rankings as rows, and as pairs
  run objective=reward_bt reward=gold "${rankings[@]}" data.path="$out/rows/rankings.jsonl" seed=$seed run.name=kwise-$seed
  run objective=reward_bt reward=gold "${rankings[@]}" data.path="$out/rows/rankings.jsonl" data.batch_size=16 seed=$seed run.name=kwise16-$seed
  run objective=reward_bt reward=gold "${rankings[@]}" data.path="$out/rows/rankings-pairs.jsonl" data.batch_size=192 seed=$seed run.name=aspairs-$seed
  judge reward=learned reward.path="$out/nomargin-$seed/reward" data=jsonl data.path="$out/rows/rankings-val.jsonl" run.name=pairs-on-rankings-$seed
  # annotators of four tastes: one head, and one for each
  for heads in false true; do
    run objective=reward_bt objective.group_heads=$heads reward=gold data.train_rows=6000 data.validation_rows=600 seed=$seed run.name=heads-$heads-$seed
  done
done

# 2. Sandbox: dpo on sampled pairs, by BLEU, by a learned reward, by Llama 2's rule over two of them.
for topic in help safety; do
  run objective=reward_bt reward=gold data=jsonl data.template=chat data.path="$out/rows/$topic.jsonl" data.validation_path="$out/rows/$topic-val.jsonl" run.name=rm-$topic
done
for seed in 1 2 3; do
  common=(objective=dpo eval.rewards='[gold,length]' trainer.max_epochs=2 seed=$seed)
  run "${common[@]}" reward=bleu run.name=dpo-bleu-$seed
  run "${common[@]}" reward=learned reward.path="$out/bt-1/reward" run.name=dpo-learned-$seed
  run "${common[@]}" reward=piecewise "reward.safety={name: learned, path: $out/rm-safety/reward}" \
    "reward.helpfulness={name: learned, path: $out/rm-help/reward}" run.name=dpo-piecewise-$seed
done

# 3. Real comparisons: a small model from nothing, finetuned, then a reward model.
"$python" "$here/small_model.py" "$data/sft/train.jsonl.gz" "$data/helpful_pairs/train.jsonl.gz" --out "$out/small"
run objective=sft model=hf model.policy="$out/small" data=jsonl data.path="$data/sft/train.jsonl.gz" \
  data.validation_path="$data/sft/validation.jsonl.gz" data.template=chat optim.lr=3e-3 optim.schedule=cosine \
  trainer.max_epochs=2 eval.prompts=0 run.name=rewards-sft
for seed in 1 2 3; do
  run objective=reward_bt model=hf model.reward="$out/rewards-sft/policy" data=jsonl data.path="$data/helpful_pairs/train.jsonl.gz" \
    data.validation_path="$data/helpful_pairs/validation.jsonl.gz" data.template=chat data.limit=3000 data.validation_limit=400 \
    optim.lr=5e-4 seed=$seed run.name=real-rm-$seed
  for file in helpful_pairs/test helpful_pairs/test_length_balanced helpful_pairs/test_ood harmless_pairs/test; do
    judge reward=learned reward.path="$out/real-rm-$seed/reward" data=jsonl data.path="$data/$file.jsonl.gz" run.name="eval-${file/\//-}-$seed"
  done
done
