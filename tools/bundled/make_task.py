"""Make the bundled task: integer expressions, worked out one operation at a time.

A problem is an expression such as ``7+3*(12-5)-4``. A solution is a chain of
rewrites: choose one operation, do it, restate what is left, repeat, and put the
number that remains in ``\\boxed{...}``. What has to be *reasoned* about is which
operation may be done next (precedence, brackets, chains of minus signs); what has to
be *known* is the arithmetic and the copying.

The pre-training corpus imitates a crowd of imperfect authors (see `habit`): at every
step an author may follow a bad habit, and now and then slips in a sum or in copying.
A model that imitates the crowd faithfully is therefore often wrong in ways that a
verifiable reward can correct: it already knows everything it needs.

    python make_task.py --out ../../assets/task          # the three splits
    from make_task import draw, corpus                   # the stream for pretrain.py
"""
import argparse
import json
import os
import random
import re
from collections import Counter, namedtuple

LIMIT = 99            # every number an author writes stays within 0..LIMIT
SPLIT_SEED = 20250716
SIZES = {"train": 4096, "test": 320, "hard": 256}
OPS = {"train": (3, 4), "test": (3, 4), "hard": (5,)}

# An expression is a flat list of ints and one-character strings: [7,'+',3,'*','(',12,...].


def parse(prompt):
    """The expression in a prompt."""
    found = re.search(r"[0-9(][-0-9+*()]*", prompt).group()
    return [int(t) if t.isdigit() else t for t in re.findall(r"\d+|\D", found)]


def text(expr):
    return "".join(map(str, expr))


def apply(a, op, b):
    return a + b if op == "+" else a - b if op == "-" else a * b


def value(expr):
    """The value under the usual rules (recursive descent, no eval)."""
    pos = 0

    def atom():
        nonlocal pos
        tok = expr[pos]
        pos += 1
        if tok == "(":
            v = total()
            pos += 1  # ')'
            return v
        return tok

    def product():
        nonlocal pos
        v = atom()
        while pos < len(expr) and expr[pos] == "*":
            pos += 1
            v *= atom()
        return v

    def total():
        nonlocal pos
        v = product()
        while pos < len(expr) and expr[pos] in ("+", "-"):
            op = expr[pos]
            pos += 1
            v = apply(v, op, product())
        return v

    return total()


def canonical(expr):
    """A key that ignores the order of summands and factors, so that 3*4+5 and 5+4*3
    count as one problem when the splits and the corpus are kept apart."""
    pos = 0

    def atom():
        nonlocal pos
        tok = expr[pos]
        pos += 1
        if tok == "(":
            key = total()
            pos += 1
            return key
        return str(tok)

    def product():
        nonlocal pos
        keys = [atom()]
        while pos < len(expr) and expr[pos] == "*":
            pos += 1
            keys.append(atom())
        return "*".join(sorted(keys))

    def total():
        nonlocal pos
        keys = ["+" + product()]
        while pos < len(expr) and expr[pos] in ("+", "-"):
            sign = expr[pos]
            pos += 1
            keys.append(sign + product())
        return "(" + "".join(sorted(keys)) + ")"

    return total()


def gist(expr):
    """A stricter key: `canonical` that also sees through brackets that change nothing
    or only signs, so that 9-(4*5)-(2-1) and 9-4*5-2+1 count as one problem."""
    pos = 0

    def atom():
        nonlocal pos
        tok = expr[pos]
        pos += 1
        if tok == "(":
            terms = total()
            pos += 1
            return terms
        return [("+", [str(tok)])]

    def product():
        nonlocal pos
        terms = atom()
        while pos < len(expr) and expr[pos] == "*":
            pos += 1
            sides = (terms, atom())
            # A bracket with several summands is one factor; its value stays unknown.
            factors = [f for side in sides for f in
                       (side[0][1] if len(side) == 1 else [join(side)])]
            terms = [("+", factors)]
        return terms

    def total():
        nonlocal pos
        terms = product()
        while pos < len(expr) and expr[pos] in ("+", "-"):
            op = expr[pos]
            pos += 1
            terms = terms + [(sign if op == "+" else "-" if sign == "+" else "+", f)
                             for sign, f in product()]
        return terms

    def join(terms):
        return "(" + "".join(sorted(sign + "*".join(sorted(f)) for sign, f in terms)) + ")"

    return join(total())


# ---------------------------------------------------------------- problems

def temptations(expr):
    """On the orthodox way to the value: at how many steps is a wrong turn open?
    None where that way leaves 0..LIMIT."""
    target, open_turns = value(expr), 0
    while len(expr) > 1:
        after, tempted = None, False
        for step in options(expr):
            if value(step.left) != target:
                tempted = True
            elif after is None and not step.crossing:
                after = step.left
        if after is None:
            return None
        expr = after
        open_turns += tempted
    return open_turns


NEED = {1: 0, 2: 0, 3: 2, 4: 3, 5: 3}


def problem(rng, n_ops):
    """A random expression with n_ops operations and at most one pair of brackets, in
    which at least NEED[n_ops] choices can go wrong (the last operation never can)."""
    need = NEED[n_ops]
    while True:
        expr = []
        ops = [rng.choices("+-*", (4, 5, 4))[0] for _ in range(n_ops)]
        for i in range(n_ops + 1):
            near_product = (i > 0 and ops[i - 1] == "*") or (i < n_ops and ops[i] == "*")
            expr.append(rng.randint(2, 9) if near_product else rng.randint(1, 30))
            if i < n_ops:
                expr.append(ops[i])
        if n_ops >= 2 and rng.random() < 0.6:
            # Brackets around two or three neighbours; leave something outside.
            width = rng.choice((2, 2, 3)) if n_ops >= 3 else 2
            start = rng.randint(0, n_ops + 1 - width)
            expr.insert(2 * start, "(")
            expr.insert(2 * (start + width), ")")
        found = temptations(expr)
        if found is not None and found >= need:
            return expr


# ---------------------------------------------------------------- authors

# a op b = left[at], where `left` is the expression that remains.
Step = namedtuple("Step", "a op b left at crossing")


def options(expr):
    """Every operation an author might do next.

    Neighbouring numbers can always be combined on paper, whether or not the rules
    allow it; `crossing` is the careless reading that ignores a bracket in between.
    Only results within 0..LIMIT are written down by anybody.
    """
    found = []
    for i, tok in enumerate(expr):
        if tok not in ("+", "-", "*"):
            continue
        left, right = expr[i - 1], expr[i + 1]
        if left == ")" or right == "(":
            if left == ")" and right == "(":
                continue
            # Rub out the pair of brackets, then combine across where it stood.
            if right == "(":
                close = expr.index(")", i)
                flat = expr[:i + 1] + expr[i + 2:close] + expr[close + 1:]
                j = i
            else:
                start = max(k for k in range(i) if expr[k] == "(")
                flat = expr[:start] + expr[start + 1:i - 1] + expr[i:]
                j = i - 2
            a, b, crossing = flat[j - 1], flat[j + 1], True
        else:
            flat, j, a, b, crossing = expr, i, left, right, False
        c = apply(a, tok, b)
        if not 0 <= c <= LIMIT:
            continue
        at = j - 1
        new = flat[:at] + [c] + flat[at + 3:]
        if at > 0 and new[at - 1] == "(" and new[at + 1] == ")":
            new = new[:at - 1] + [c] + new[at + 2:]
            at -= 1
        found.append(Step(a, tok, b, new, at, crossing))
    return found


def habit(expr):
    """What the crowd does next: the possible steps and how popular each one is.

    Independent at every step, so no opening word decides a whole solution. Some
    wrong turns are more popular than the right one, so the crowd's favourite
    (greedy decoding) is wrong too, and systematically so.
    """
    found, target = options(expr), value(expr)
    weights = []
    for rank, step in enumerate(found):
        if value(step.left) == target:
            w = 1.0
        elif step.crossing:
            w = 0.9             # "the brackets do not matter"
        elif step.op == "-":
            w = 2.8             # 20-3*4: subtract first; 20-9-4: 9-4 first
        else:
            w = 2.0             # 2+3*4: add first; 20-9+4: 9+4 first
        if rank == 0 and not step.crossing:
            w *= 1.2            # people read from the left
        weights.append(w)
    return found, weights


# The wording carries no information about whether a step is right.
ASK = ("Compute {}.", "What is {}?", "Evaluate {}.")
FIRST = ("First", "Start", "Begin", "Okay")
LATER = ("Then", "Next", "Now", "After")
VERB = {"+": " add", "-": " subtract", "*": " multiply"}
LEAVING = (" leaving ", " so ", " giving ", " now ")
LAST = ("So", "Answer", "Result", "Thus")

ARITHMETIC_SLIP = 0.015
COPY_SLIP = 0.01


def near(rng, n):
    """A near miss, as people make them: off by one or by ten."""
    return rng.choice([m for m in (n - 10, n - 1, n + 1, n + 10) if 0 <= m <= LIMIT])


def solution(rng, expr):
    """One author's worked solution, and the number it boxes."""
    while True:
        now, parts = expr, []
        while len(now) > 1:
            found, weights = habit(now)
            if not found:
                break           # a dead end: this author starts afresh
            step = rng.choices(found, weights)[0]
            left = list(step.left)
            if rng.random() < ARITHMETIC_SLIP:
                left[step.at] = near(rng, left[step.at])
            c = left[step.at]
            if len(left) > 1 and rng.random() < COPY_SLIP:
                i = rng.choice([i for i, t in enumerate(left) if not isinstance(t, str)])
                left[i] = near(rng, left[i])
            parts.append(rng.choice(LATER if parts else FIRST)
                         + (VERB[step.op] if rng.random() < 0.7 else "")
                         + f" {step.a}{step.op}{step.b}={c}"
                         + (rng.choice(LEAVING) + text(left) if len(left) > 1 else "")
                         + "\n")
            now = left
        else:
            return "".join(parts) + rng.choice(LAST) + f" \\boxed{{{now[0]}}}", now[0]


# ---------------------------------------------------------------- splits and corpus

def draw():
    """Candidates for the three splits, distinct by canonical form, and those forms,
    which the corpus avoids; deterministic."""
    rng, seen, out = random.Random(SPLIT_SEED), set(), {}
    for name, size in SIZES.items():
        rows, per_answer = [], Counter()
        while len(rows) < size:
            expr = problem(rng, rng.choice(OPS[name]))
            key, answer = canonical(expr), value(expr)
            # Cap each answer at 3 % of a split, so that guessing a popular number
            # earns nothing.
            if key in seen or per_answer[answer] >= 0.03 * size:
                continue
            seen.add(key)
            per_answer[answer] += 1
            rows.append((rng.choice(ASK).format(text(expr)), answer, expr))
        out[name] = rows
    return out, seen


def corpus(seed, held_out):
    """An endless stream of (prompt, response, right?) that avoids `held_out` keys."""
    rng = random.Random(seed)
    while True:
        expr = problem(rng, rng.choices((1, 2, 3, 4, 5), (4, 12, 32, 32, 20))[0])
        if canonical(expr) in held_out:
            continue
        response, boxed = solution(rng, expr)
        yield rng.choice(ASK).format(text(expr)), response, boxed == value(expr)


def splits(seed, docs):
    """The candidates that nothing else resembles: no gist is in two splits, nor in the
    first `docs` documents of the corpus."""
    rows, held_out = draw()
    stream = corpus(seed, held_out)
    taken = {gist(parse(next(stream)[0])) for _ in range(docs)}
    out = {}
    for name in ("hard", "test", "train"):   # the smallest first: it can spare least
        out[name] = []
        for row in rows[name]:
            key = gist(row[2])
            if key not in taken:
                taken.add(key)
                out[name].append(row)
    return out


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", default="assets/task")
    # Those of the pre-training run that the splits have to be kept apart from.
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--docs", type=int, default=160_000)
    args = parser.parse_args()
    rows = splits(args.seed, args.docs)
    os.makedirs(args.out, exist_ok=True)
    rng = random.Random(1)
    for name, items in rows.items():
        with open(os.path.join(args.out, name + ".jsonl"), "w") as f:
            for prompt, answer, _ in items:
                f.write(json.dumps({"prompt": prompt, "answer": str(answer),
                                    "data_source": "archer-arithmetic"}) + "\n")
        top = Counter(a for _, a, _ in items).most_common(1)[0]
        crowd = [solution(rng, e)[1] == a for _, a, e in items for _ in range(8)]
        print(f"{name}: {len(items)} problems, {len(set(a for _, a, _ in items))} answers, "
              f"top answer {top[0]} ({100 * top[1] / len(items):.1f} %), "
              f"the crowd is right {100 * sum(crowd) / len(crowd):.1f} % of the time")


if __name__ == "__main__":
    main()
