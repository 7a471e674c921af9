"""The turns of generation.py in vLLM, by a Python of its own: prints seconds as a JSON list.

    VLLM_ENABLE_V1_MULTIPROCESSING=0 PYTHON generation_vllm.py FOLDER

FOLDER holds the model and work.json. Nothing of this project is imported.
"""

import json
import sys
import time
from pathlib import Path


def main() -> None:
    from vllm import LLM, SamplingParams

    folder = Path(sys.argv[1])
    work = json.loads((folder / "work.json").read_text())
    llm = LLM(
        model=str(folder),
        dtype="float32",
        enforce_eager=True,
        enable_prefix_caching=True,
        skip_tokenizer_init=True,
        max_model_len=work["context"],
        seed=0,
        gpu_memory_utilization=0.3,  # of the machine's memory, which others use as well
    )
    wanted = SamplingParams(
        temperature=1.0, max_tokens=work["action"], ignore_eos=True, logprobs=0, detokenize=False
    )
    taken = []
    for _ in range(work["repeats"] + 1):
        llm.reset_prefix_cache()
        since = time.process_time()
        ids: list[list[int]] = [[] for _ in work["observation_ids"][0]]
        for new_ids in work["observation_ids"]:
            ids = [[*past, *new] for past, new in zip(ids, new_ids, strict=True)]
            prompts = [{"prompt_token_ids": prompt} for prompt in ids]
            outputs = llm.generate(prompts, wanted, use_tqdm=False)
            ids = [[*p, *m.outputs[0].token_ids] for p, m in zip(ids, outputs, strict=True)]
        taken.append(time.process_time() - since)
    print(json.dumps(taken[1:]))  # the first one warms up


if __name__ == "__main__":
    main()
