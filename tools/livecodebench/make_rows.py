"""LiveCodeBench's release files -> rows in verl's shape, one JSON object a line.

Of livecodebench/code_generation_lite on the hub (test.jsonl to test6.jsonl) the problems of some contests are chosen by
their date, and the starter code goes into the prompt. The tests stay packed as they are: the verifier unpacks them.

  python tools/livecodebench/make_rows.py --begin 2024-08-01 --end 2025-02-01 --source livecodebench_v5 \
      --out livecodebench-v5.jsonl test.jsonl test2.jsonl test3.jsonl test4.jsonl test5.jsonl
"""

import argparse
import json

STDIN = (
    "Write a Python program that reads its input from standard input and prints the answer to standard output. "
    "Give the whole program in one ```python block at the end."
)
FUNCTION = (
    "Complete the function in the starter code below; do not read from standard input. "
    "Give the whole code in one ```python block at the end.\n\n```python\n{starter}\n```"
)


def make_row(problem, source):
    starter = problem["starter_code"].strip()
    task = FUNCTION.format(starter=starter) if starter else STDIN
    kept = ("question_id", "difficulty", "contest_date")
    return {
        "data_source": source,
        "prompt": [{"role": "user", "content": f"{problem['question_content'].strip()}\n\n{task}"}],
        "ability": "code",
        "reward_model": {
            "style": "rule",
            "ground_truth": {key: problem[key] for key in ("public_test_cases", "private_test_cases")},
        },
        "extra_info": {"func_name": json.loads(problem["metadata"] or "{}").get("func_name")}
        | {key: problem[key] for key in kept},
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+")
    parser.add_argument("--begin", required=True, help="first contest date, YYYY-MM-DD")
    parser.add_argument("--end", required=True, help="last contest date, YYYY-MM-DD")
    parser.add_argument("--source", required=True, help="data_source of the rows; `livecodebench` must be in it")
    parser.add_argument("--out", required=True)
    options = parser.parse_args()
    count = 0
    with open(options.out, "w", encoding="utf-8") as out:
        for file in options.files:
            with open(file, encoding="utf-8") as lines:
                for line in lines:
                    problem = json.loads(line)
                    if options.begin <= problem["contest_date"][:10] <= options.end:
                        out.write(json.dumps(make_row(problem, options.source), ensure_ascii=False) + "\n")
                        count += 1
    print(f"{count} problems in {options.out}")


if __name__ == "__main__":
    main()
