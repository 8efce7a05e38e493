"""The child process of the grading pool: compares mathematical answers with math-verify until its input ends.

It is started by its path, imports nothing of innerloop, and talks JSON lines: a request is
``["gold", "response", seconds]``, a reply is ``true`` or ``false``. A request that outlives its seconds ends
the process, which the parent reads as no verdict. What an answer is lives in ``graders``, the processes in
``grading_pool``.
"""

import faulthandler
import json
import logging
import os
import sys
from pathlib import Path
from typing import TextIO

from math_verify import parse, verify

MEMORY_LIMIT_BYTES = 2 << 30


def equivalent(gold: str, response: str) -> bool:
    """Whether the response's final answer equals the gold expression, by math-verify.

    Args:
        gold: one LaTeX expression inside ``$`` or ``\\boxed``.
        response: any text; math-verify finds the final answer in it.
    """
    expected = parse(gold, parsing_timeout=None)
    found = parse(response, parsing_timeout=None)
    # The order matters: math-verify's comparison is not symmetric and takes the gold answer first.
    return bool(verify(expected, found, timeout_seconds=None))


def limit_memory() -> None:
    """Keeps an expression such as a tower of powers from taking the machine's memory with it."""
    if sys.platform == "linux":
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT_BYTES, MEMORY_LIMIT_BYTES))


def serve(requests: TextIO, replies: TextIO, trace: TextIO) -> None:
    """Answers every request in turn.

    Args:
        requests: JSON lines ``[gold, response, seconds]``.
        replies: receives ``null`` once ready, then one JSON line for each request.
        trace: an open file for the watchdog's stack trace.
    """
    # The first comparison builds grammars and tables; none of that belongs in an answer's time.
    equivalent("$1$", "\\boxed{1}")
    print("null", file=replies, flush=True)
    for line in requests:
        gold, response, seconds = json.loads(line)
        # A thread of C code ends the process: it needs neither the main thread nor the interpreter's lock,
        # which one long multiplication can hold for minutes, and it works when the parent is long dead.
        faulthandler.dump_traceback_later(seconds, exit=True, file=trace)
        verdict = equivalent(gold, response)
        faulthandler.cancel_dump_traceback_later()
        print(json.dumps(verdict), file=replies, flush=True)


def main() -> None:
    """Serves on standard input and output; whatever else is printed is dropped."""
    logging.disable(logging.CRITICAL)
    limit_memory()
    replies = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    with Path(os.devnull).open("w", encoding="utf-8") as trace:
        # A parser that prints must not write between the replies.
        os.dup2(trace.fileno(), sys.stdout.fileno())
        serve(sys.stdin, replies, trace)


if __name__ == "__main__":
    main()
