"""A process that runs mutants one after the other: jobs come in as lines of JSON, results go out as such."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from typing import IO, Any

_OUTPUT_LENGTH = 2000


def main() -> None:
    """Work until standard input ends. What pytest and the ranks print goes to a file of the job."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    for line in sys.stdin:
        with tempfile.TemporaryFile() as output:
            os.dup2(output.fileno(), sys.stdout.fileno())
            os.dup2(output.fileno(), sys.stderr.fileno())
            answer = _answer(json.loads(line), output)
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def _answer(job: dict[str, Any], output: IO[bytes]) -> dict[str, Any]:
    from pytest_vdist.mutation import session  # noqa: PLC0415 - what it prints belongs to the job

    settings = session.Settings(job["backend"], job["timeout"])
    try:
        if "tests" in job:
            return {"failing": session.failing_on_the_reference(job["tests"], settings, like=job["mutant"])}
        return {"result": session.run_mutant(job["mutant"], settings).to_json()}
    except Exception as error:
        size = output.tell()
        output.seek(max(0, size - _OUTPUT_LENGTH))
        tail = output.read().decode(errors="replace")
        return {"error": f"{type(error).__name__}: {error}\n{tail}"}


if __name__ == "__main__":
    main()
