"""Make the golden figures again: after new weights, or a change that is meant to move them."""

from tests.golden import CASES, remake

if __name__ == "__main__":
    for case in CASES:
        print(f"{case.name}: {case.file}", flush=True)
        remake(case)
