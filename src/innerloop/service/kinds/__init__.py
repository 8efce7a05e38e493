"""The kinds of jobs, one module each. Importing this loads no library that trains."""

from collections.abc import Mapping
from typing import Any

from innerloop.service.jobs.job import Kind
from innerloop.service.kinds.adaptation import ADAPTATION
from innerloop.service.kinds.kind import JobKind
from innerloop.service.kinds.llm import LLM
from innerloop.service.kinds.meta import META
from innerloop.service.kinds.tasks import TASKS
from innerloop.service.kinds.transfer import TRANSFER

KINDS: Mapping[Kind, JobKind[Any, Any]] = {
    kind.kind: kind for kind in (TASKS, TRANSFER, META, LLM, ADAPTATION)
}
