"""Equal parameters have an equal fingerprint in every process."""

from ags_flows.models import ExecResult, RunReport
from ags_flows.run.fingerprints import of_parameters


class Basket:
    def __init__(self, fruits):
        self.fruits = fruits


def test_the_order_of_a_set_inside_of_an_object_does_not_count():
    # Two numbers of the same slot: the one that was added first comes first.
    one, other = set([0, 8]), set([8, 0])
    assert list(one) != list(other)
    assert of_parameters({"basket": Basket(one)}) == of_parameters({"basket": Basket(other)})
    assert of_parameters({"basket": Basket(one)}) != of_parameters({"basket": Basket({0, 16})})


def test_results_of_the_same_work_are_equal_parameters():
    def result(**more):
        return ExecResult(command="make", exit_code=0, stdout="built\n", **more)

    first = result(seconds=1.5, instance_id="a", journal="/home/user/.ags_flows/a/journal/x.0")
    again = result(seconds=0.1, instance_id="b")
    assert of_parameters({"built": first}) == of_parameters({"built": again})
    assert of_parameters({"built": [first]}) == of_parameters({"built": [again]})
    other = again.model_copy(update={"stdout": "other\n"})
    assert of_parameters({"built": first}) != of_parameters({"built": other})
    report = {"result": first, "results": (first,), "instance_id": "a", "tool_id": "t", "tool_name": "tool"}
    retried = {**report, "result": again, "results": (again,), "instance_id": "b", "seconds": 9.0}
    assert of_parameters({"done": RunReport(**report)}) == of_parameters({"done": RunReport(**retried)})
