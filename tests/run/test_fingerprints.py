"""Equal parameters have an equal fingerprint in every process."""

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
