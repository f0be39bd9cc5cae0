"""Programs for the model: what flow runs execute."""

from .nodes import Parallel, Run, Scope, Session

A, B = Run("a"), Run("b")


def task(name, *body, retries=1):
    return Scope("task", name, body, retries)


def items(*body):
    return Parallel((Scope("item", "pears", body), Scope("item", "plums", body)))


ONE_SESSION = (Session((A, A, B)),)
IN_A_ROW = (Session((A,)), Session((B,)))
NESTED = (Session((A, Session((B,)), A)),)
EQUAL_PLACES = (Parallel((task("measure", Session((A, A))), task("measure", Session((A, A))))),)
OTHER_PLACES = (Parallel((task("pears", Session((A,))), task("plums", Session((A,))))),)
SHARED = (Session((Parallel((task("measure", A, A), task("measure", A, A), task("other", A))), A)),)
THREADS = (Session((Parallel((A, A, A)), B)),)
SUBFLOW = (Scope("flow", "child", (Session((task("measure", A), A)),)),)
TASK_RETRIES = (Session((task("outer", A, task("inner", A, B), A, retries=2),)),)
BATCHES = (Session((items(A), items(A))),)
PARALLEL_BATCHES = (Session((Parallel((items(A), items(A))),)),)
SHARD = (Session((items(A),)),)
TOOLS = (Parallel((task("pears", Session((A,), spec=True)), task("plums", Session((B,), spec=True)))),)
KEPT = (task("measure", Session((A, B), keep=True), retries=2),)

ALL = {
    "one session": [ONE_SESSION],
    "sessions in a row": [IN_A_ROW],
    "nested sessions": [NESTED],
    "parallel equal places": [EQUAL_PLACES],
    "parallel other places": [OTHER_PLACES],
    "a shared sandbox": [SHARED],
    "threads": [THREADS],
    "a subflow": [SUBFLOW],
    "task retries": [TASK_RETRIES],
    "batches": [BATCHES],
    "parallel batches": [PARALLEL_BATCHES],
    "shards of a batch": [SHARD, SHARD],
    "tools": [TOOLS],
    "a kept sandbox": [KEPT],
    "two runs": [ONE_SESSION, ONE_SESSION],
}
