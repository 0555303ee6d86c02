"""Two processes of one run: forks of this one, which has imported everything already, with the variables that torchrun sets."""

import os
from collections.abc import Callable

from accelerate.state import AcceleratorState, GradientState, PartialState

from tests.ports import free_port


def fork_two(work: Callable[[], int]) -> list[int]:
    """Numbers of two processes that do the same work as one group."""
    port = str(free_port())
    pids = []
    for rank in ("0", "1"):
        if not (pid := os.fork()):
            status = 70
            try:
                os.environ |= {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
                os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
                AcceleratorState._reset_state(reset_partial_state=True)
                PartialState._reset_state()
                GradientState._reset_state()
                status = work()
            finally:
                os._exit(status)
        pids.append(pid)
    return pids


def ends_of(pids: list[int]) -> list[int]:
    return [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
