#!/usr/bin/env bash
# The experiments of docs/results.md, as they were run. About half an hour on two cores.
# usage: examples/results.sh DATA OUT        DATA: the folder with sft/ and helpful_pairs/
set -euo pipefail
data=$1 out=$2 python=${PYTHON:-python}
run() { echo; echo "== $*"; "$python" -m core.run run.root="$out" eval.samples=0 "$@"; }

# 1. Sandbox: length as reward, three seeds.
for seed in 1 2 3; do
  run objective=dpo reward=length eval.rewards='[gold]' seed=$seed run.name=sandbox-dpo-length-$seed trainer.max_epochs=2
done

# 2. A small model from nothing, finetuned on demonstrations.
"$python" examples/small_model.py "$data/sft/train.jsonl.gz" "$data/helpful_pairs/train.jsonl.gz" --out "$out/small"
run objective=sft model=hf model.policy="$out/small" data=jsonl data.path="$data/sft/train.jsonl.gz" \
  data.validation_path="$data/sft/validation.jsonl.gz" data.template=chat optim.lr=3e-3 optim.schedule=cosine \
  trainer.max_epochs=5 eval.prompts=16 run.name=real-sft

# 3. DPO on the judge's labels: preference accuracy on prompts that it has not seen.
run objective=dpo reward=none model=hf model.policy="$out/real-sft/policy" model.lr_scale=100 data=jsonl \
  data.path="$data/helpful_pairs/train.jsonl.gz" data.validation_path="$data/helpful_pairs/validation.jsonl.gz" \
  data.template=chat data.limit=3000 data.validation_limit=400 eval.prompts=16 run.name=real-dpo
for split in validation test test_length_balanced; do
  echo "-- $split"
  "$python" examples/preference_accuracy.py "$out/real-dpo/policy" --reference "$out/real-sft/policy" \
    --data "$data/helpful_pairs/$split.jsonl.gz"
done

# 4. Length as reward on real prompts, three seeds.
for seed in 1 2 3; do
  run objective=dpo reward=length model=hf model.policy="$out/real-sft/policy" model.lr_scale=50 data=jsonl \
    data.path="$data/helpful_pairs/train.jsonl.gz" data.validation_path="$data/helpful_pairs/validation.jsonl.gz" \
    data.template=chat data.rows_per_epoch=128 generation.max_new_tokens=256 trainer.max_epochs=2 trainer.max_steps=20 eval.every=4 \
    seed=$seed run.name=real-dpo-length-$seed
done
